"""Counters of the DNS server as plain integers, and their text for Prometheus under CoreDNS's names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from .message import TYPE_NAMES

if TYPE_CHECKING:
    from .engine import Engine
    from .forward import Upstreams

RCODE_NAMES = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    9: "NOTAUTH",
    16: "BADVERS",
}
# CoreDNS's buckets, and two below them: our usual answer takes less than its first.
DURATIONS: tuple[float, ...] = (0.00001, 0.00005, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
DURATIONS += (0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192)
SIZES = (0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16000, 32000, 48000, 64000)


class Label(NamedTuple):
    """What a reply is counted under."""

    tcp: bool
    qtype: int
    """0 where the question could not be read."""
    rcode: int
    plugin: str
    """fairlead (our zone), cache, forward; empty: refused before it was looked at."""
    asked: int = 0
    """Octets of the question."""
    do: bool = False
    """It wanted DNSSEC's records."""


class Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def lines(self, name: str, labels: str) -> Iterator[str]:
        total = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{name}_sum{{{labels}}} {self.sum:.9g}"
        yield f"{name}_count{{{labels}}} {total}"


class Metrics:
    """What is counted as it happens; finished answers count themselves (`Finished.counted`)."""

    def __init__(self) -> None:
        self.replies: dict[tuple[Label, int], int] = {}
        """By label and octets."""
        self.dropped = 0
        """Messages that were owed no reply: too short, or replies themselves."""
        self.overload = 0
        """Questions not answered for lack of room: pending limit, full socket."""
        self.slipped = 0
        self.limited = 0
        """Replies beyond the limit of a client's network, cut short and left out; as the limiter counts them."""
        self.unsent = 0
        """Replies that could not be sent, as the reader of datagrams counts them."""
        self.panics = 0
        """Faults of ours; each should be reported."""
        self.autopath = 0
        """Names found by walking the client's search list."""
        self.connections = 0
        self.durations = Histogram(DURATIONS)
        self.updates = Histogram(DURATIONS)
        """Seconds from a snapshot's arrival until it is what is answered from."""
        self.programming = Histogram(DURATIONS)
        """Seconds from a change's arrival until it is answered, with what it waited for others."""
        self.updated_at = 0.0

    def count(self, label: Label, octets: int) -> None:
        key = (label, octets)
        self.replies[key] = self.replies.get(key, 0) + 1


def _labels(**values: object) -> str:
    return ",".join(f'{name}="{value}"' for name, value in values.items())


def _counter(name: str, help_text: str, values: Mapping[str, int], kind: str = "counter") -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in sorted(values.items()):
        yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"


def render(engine: Engine, upstreams: Upstreams, server: str, family: str, now: float) -> list[str]:
    """Lines in Prometheus text format. `server`: where it listens, `dns://HOST:PORT`; `family`: 1 (IPv4) or 2."""
    metrics, zone = engine.metrics, engine.options.cluster_domain + "."
    replies = dict(metrics.replies)
    for finished in (engine.udp, engine.tcp):
        for key, hits in finished.counted().items():
            known: tuple[Label, int] = key  # type: ignore[assignment]
            replies[known] = replies.get(known, 0) + hits
    requests: dict[str, int] = {}
    responses: dict[str, int] = {}
    wanted: dict[str, int] = {}
    asked_sizes = {"udp": Histogram(SIZES), "tcp": Histogram(SIZES)}
    sizes = {"udp": Histogram(SIZES), "tcp": Histogram(SIZES)}
    for (label, octets), count in replies.items():
        place = zone if label.plugin == "fairlead" else "." if label.plugin else "dropped"
        proto = "tcp" if label.tcp else "udp"
        qtype = TYPE_NAMES.get(label.qtype, "other")
        common = {"server": server, "zone": place, "view": ""}
        asked = _labels(**common, proto=proto, family=family, type=qtype)
        requests[asked] = requests.get(asked, 0) + count
        said = _labels(**common, rcode=RCODE_NAMES.get(label.rcode, "other"), plugin=label.plugin)
        responses[said] = responses.get(said, 0) + count
        sizes[proto].add(octets, count)
        asked_sizes[proto].add(label.asked, count)
        if label.do:
            plain = _labels(**common)
            wanted[plain] = wanted.get(plain, 0) + count
    lines = [
        *_counter("coredns_dns_requests_total", "Questions answered.", requests),
        *_counter("coredns_dns_responses_total", "Replies, by response code.", responses),
    ]
    everything = _labels(server=server, zone=zone, view="")
    name = "coredns_dns_request_duration_seconds"
    lines += [f"# HELP {name} Seconds from reading a question to its reply.", f"# TYPE {name} histogram"]
    lines += metrics.durations.lines(name, everything)
    lines += _counter("coredns_dns_do_requests_total", "Questions with the DO bit.", wanted)
    for name, text, by_proto in (
        ("coredns_dns_request_size_bytes", "Octets of questions.", asked_sizes),
        ("coredns_dns_response_size_bytes", "Octets of replies.", sizes),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
        for proto, sized in by_proto.items():
            lines += sized.lines(name, _labels(server=server, zone=zone, view="", proto=proto))
    return lines + _cache_lines(engine, server, replies) + _rest(engine, upstreams, now)


def _cache_lines(engine: Engine, server: str, replies: Mapping[tuple[Label, int], int]) -> list[str]:
    cache = engine.cache
    common = {"server": server, "zones": ".", "view": ""}
    # Hits that a finished answer gave do not reach the cache itself; they are in the replies.
    hits = {"success": 0, "denial": 0}
    for (label, _), count in replies.items():
        if label.plugin == "cache":
            hits["success" if label.rcode == 0 else "denial"] += count
    by_type = {_labels(server=server, type=kind, zones=".", view=""): count for kind, count in hits.items()}
    plain = _labels(**common)
    return [
        *_counter("coredns_cache_entries", "Answers of upstreams held.", {plain: len(cache)}, "gauge"),
        *_counter("coredns_cache_hits_total", "Questions answered from the cache.", by_type),
        *_counter("coredns_cache_misses_total", "Questions that had to be forwarded.", {plain: cache.misses}),
        *_counter("coredns_cache_requests_total", "Lookups.", {plain: sum(hits.values()) + cache.misses}),
        *_counter("coredns_cache_served_stale_total", "Expired answers given.", {plain: cache.served_stale}),
        *_counter("coredns_cache_prefetch_total", "Answers asked for before they ended.", {plain: cache.prefetches}),
        *_counter("coredns_cache_evictions_total", "Answers dropped for room.", {plain: cache.evictions}),
    ]


def _rest(engine: Engine, upstreams: Upstreams, now: float) -> list[str]:
    """Long because it is a list of metrics."""
    metrics, zone = engine.metrics, engine.zone
    asked = {
        _labels(to=f"{server[0]}:{server[1]}", rcode=RCODE_NAMES.get(rcode, "other")): count
        for (server, rcode), count in upstreams.requests.items()
    }
    timed = "coredns_proxy_request_duration_seconds"
    proxied = [f"# HELP {timed} Seconds until an upstream answered.", f"# TYPE {timed} histogram"]
    for (upstream, rcode), histogram in sorted(upstreams.durations.items()):
        to = f"{upstream[0]}:{upstream[1]}"
        proxied += histogram.lines(timed, _labels(proxy_name="forward", to=to, rcode=RCODE_NAMES.get(rcode, "other")))
    failed = {_labels(to=f"{server[0]}:{server[1]}"): count for server, count in upstreams.failures.items()}
    age = now - metrics.updated_at if zone.synced else 0.0
    name = "fairlead_dns_update_seconds"
    limited = {_labels(what="slipped"): metrics.slipped, _labels(what="dropped"): metrics.limited}
    lines = [
        *proxied,
        *_counter(
            "coredns_forward_healthcheck_broken_total",
            "Questions asked while all upstreams failed.",
            {"": upstreams.broken},
        ),
        *_counter(
            "coredns_forward_max_concurrent_rejects_total",
            "Questions refused since too many wait.",
            {"": metrics.overload},
        ),
        *_counter(
            "coredns_autopath_success_total",
            "Names found on the client's search list.",
            {"": metrics.autopath},
        ),
        *_counter("fairlead_dns_rate_limited_total", "Replies beyond --rate-limit.", limited),
        *_counter(
            "fairlead_dns_upstream_loops",
            "Upstreams that forward to this server.",
            {"": len(upstreams.looping)},
            "gauge",
        ),
        *_counter("coredns_panics_total", "Faults of the server itself.", {"": metrics.panics}),
        *_counter("fairlead_dns_upstream_replies_total", "Replies of upstreams.", asked),
        *_counter("fairlead_dns_upstream_failures_total", "Upstreams silent, unreachable or garbled.", failed),
        *_counter("fairlead_dns_ignored_total", "Messages owed no reply.", {"": metrics.dropped}),
        *_counter(
            "fairlead_dns_overload_total",
            "Questions dropped, or replies unsent, for lack of room.",
            {"": metrics.overload + metrics.unsent},
        ),
        *_counter("fairlead_dns_tcp_connections", "Open connections.", {"": metrics.connections}, "gauge"),
        *_counter("fairlead_dns_zone_synced", "1: a snapshot has come.", {"": int(zone.synced)}, "gauge"),
        *_counter("fairlead_dns_zone_version", "Version of the snapshot served.", {"": zone.version}, "gauge"),
        *_counter("fairlead_dns_zone_names", "Names answered for.", {"": len(zone)}, "gauge"),
        *_counter("fairlead_dns_zone_problems", "Services left out.", {"": len(zone.problems)}, "gauge"),
        "# HELP fairlead_dns_zone_age_seconds Seconds since the last snapshot was taken over.",
        "# TYPE fairlead_dns_zone_age_seconds gauge",
        f"fairlead_dns_zone_age_seconds {age:.3f}",
        f"# HELP {name} Seconds to take over a snapshot.",
        f"# TYPE {name} histogram",
    ]
    lines += metrics.updates.lines(name, 'source="registry"')
    name = "coredns_kubernetes_dns_programming_duration_seconds"
    lines += [f"# HELP {name} Seconds from a change's arrival to its answer.", f"# TYPE {name} histogram"]
    return [*lines, *metrics.programming.lines(name, 'service_kind="any"')]
