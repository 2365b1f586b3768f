"""Istio's standard metrics from plain integers: on the path a comparison with the endpoint's last series, or one
dictionary look-up; labels made once a series.

The number of series is bounded whatever clients send: beyond it, everything counts as one series whose workload labels
are `other`. Runs compiled (with metrics.pxd) or as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..registry.model import Workload
from ..registry.reasons import DENIED, PLAINTEXT, TOKEN
from . import exposition
from .message import Outcome

SERIES_MAX = 2000
DENIALS = frozenset((DENIED.code, PLAINTEXT.code, TOKEN.code))
BOUNDS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000)
"""Istio's histogram buckets, for milliseconds and bytes alike."""


class Series:
    """One combination of labels."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self.count = 0
        self.closed = 0
        self.opened = 0
        self.milliseconds = 0.0
        self.durations = [0] * (len(BOUNDS) + 1)
        self.received = 0
        self.received_sizes = [0] * (len(BOUNDS) + 1)
        self.sent = 0
        self.sent_sizes = [0] * (len(BOUNDS) + 1)
        self.owner: Any = None
        """Whose it is; None: the outcomes of the next lines are not all that it counts."""
        self.status = 0
        self.flag = ""
        self.listener = ""
        self.identity = ""
        self.kind = ""
        self.grpc = False
        self.grpc_status = ""
        self.cluster = ""


class Metrics:
    """Counts outcomes for one proxy, which stands beside `workload`."""

    def __init__(self, workload: Workload, trust_domain: str = "cluster.local") -> None:
        self.workload = workload
        self.trust_domain = trust_domain
        self._series: dict[tuple[Any, ...], Series] = {}
        self.reasons: dict[tuple[str, str], int] = {}
        """Answers and failures of our own by (reason, flag)."""
        self.denials: dict[str, int] = {}
        """What policies have refused, by policy and rule."""
        self.folded = 0
        """Outcomes counted under `other` because there were too many series."""
        self.more: list[Callable[[], Iterable[str]]] = []
        """Further lines, asked for at each scrape."""
        self.identities: Callable[[str], Workload | None] = lambda _identity: None
        """The workload behind a peer's identity, where there is just one."""
        self.running: Callable[[], Iterable[tuple[Outcome, int, int]]] = lambda: ()
        """TCP connections that live: outcome to be, octets received from the client and sent to it so far."""
        self._folded: dict[int, tuple[Outcome, int, int]] = {}
        """Of those, what was counted at the last scrape, by the outcome's id."""

    def done(self, outcome: Outcome) -> None:
        """Count an outcome (Engine's observer)."""
        if outcome.mirrored:
            return
        series = self._of(outcome)
        series.count += 1
        duration = (outcome.ended_at - outcome.started_at) * 1000.0
        series.milliseconds += duration
        _count(series.durations, duration)
        series.received += outcome.received_bytes
        _count(series.received_sizes, outcome.received_bytes)
        series.sent += outcome.sent_bytes
        _count(series.sent_sizes, outcome.sent_bytes)
        if outcome.kind == "tcp":
            before = self._folded.pop(id(outcome), None)
            if before is None:
                series.opened += 1
            else:
                series.received -= before[1]
                series.sent -= before[2]
        if outcome.reason:
            reason = (outcome.reason, outcome.flag)
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
            if outcome.reason in DENIALS:
                by = denied_by(outcome)
                if by in self.denials or len(self.denials) < SERIES_MAX:
                    self.denials[by] = self.denials.get(by, 0) + 1

    def fold(self) -> None:
        """Count what has gone through TCP connections that still live; what is left is counted at their end."""
        for outcome, received, sent in self.running():
            series = self._find(outcome)
            before = self._folded.get(id(outcome))
            if before is None:
                series.opened += 1
            series.received += received - (before[1] if before is not None else 0)
            series.sent += sent - (before[2] if before is not None else 0)
            self._folded[id(outcome)] = (outcome, received, sent)

    def _of(self, outcome: Outcome) -> Series:
        """Its series: most often that of the outcome before it at the same endpoint."""
        endpoint, live, arrival = outcome.endpoint, outcome.cluster, outcome.arrival
        if endpoint is None or live is None or arrival is None:
            return self._find(outcome)
        config = live.config
        series: Series | None = endpoint.last
        if (
            series is not None
            and series.owner is self
            and series.status == outcome.status
            and series.flag == outcome.flag
            and series.cluster == config.name
            and series.listener == arrival.listener
            and series.identity == outcome.source_identity
            and series.kind == outcome.kind
            and series.grpc == outcome.grpc
            and series.grpc_status == outcome.grpc_status
        ):
            return series
        series = self._find(outcome)
        if series.owner is self:
            series.status = outcome.status
            series.flag = outcome.flag
            series.cluster = config.name
            series.listener = arrival.listener
            series.identity = outcome.source_identity
            series.kind = outcome.kind
            series.grpc = outcome.grpc
            series.grpc_status = outcome.grpc_status
            endpoint.last = series
        return series

    def _find(self, outcome: Outcome) -> Series:
        arrival, cluster, endpoint = outcome.arrival, outcome.cluster, outcome.endpoint
        key = (
            f"grpc {outcome.grpc_status}" if outcome.grpc else outcome.kind,
            arrival.listener if arrival is not None else "",
            outcome.status,
            outcome.flag or "-",
            cluster.config.name if cluster is not None else "",
            endpoint.endpoint.workload if endpoint is not None else "",
            outcome.source_identity,
        )
        series = self._series.get(key)
        if series is None:
            series = self._new(key, outcome)
        return series

    def _new(self, key: tuple[Any, ...], outcome: Outcome) -> Series:
        if len(self._series) >= SERIES_MAX:
            self.folded += 1
            key = (outcome.kind, "other")
            series = self._series.get(key)
            if series is not None:
                return series
            labels = dict.fromkeys(self._labels(outcome), "other") | {"request_protocol": outcome.kind}
        else:
            labels = self._labels(outcome)
        series = self._series[key] = Series(labels)
        if len(key) > 2:
            series.owner = self
        return series

    def _labels(self, outcome: Outcome) -> dict[str, str]:
        arrival, endpoint = outcome.arrival, outcome.endpoint
        inbound = arrival is not None and arrival.listener == "inbound"
        cluster = outcome.cluster.config if outcome.cluster is not None else None
        own = of_workload(self.workload, self._identity(self.workload.namespace, self.workload.service_account))
        peer = endpoint.endpoint if endpoint is not None else None
        if inbound:
            source = of_identity(outcome.source_identity, self.identities(outcome.source_identity))
            destination = own
            secure = "mutual_tls" if outcome.source_identity else "none"
        else:
            source = own
            secure = "unknown"
            destination = UNKNOWN
            if peer is not None:
                namespace, _, name = peer.workload.partition("/")
                identity = self._identity(peer.namespace, peer.service_account) if outcome.upstream_tls else "unknown"
                destination = described(name or "unknown", namespace or peer.namespace, peer.labels, identity)
        host = outcome.destination.host if outcome.destination is not None else ""
        if not host and cluster is not None:
            host = cluster.host
        labels = {"reporter": "destination" if inbound else "source"}
        labels |= {f"source_{key}": value for key, value in source.items()}
        labels |= {f"destination_{key}": value for key, value in destination.items()}
        labels |= {
            "destination_service": host or ("unknown" if cluster is None else cluster.name),
            "destination_service_name": (cluster.service_name or cluster.name) if cluster is not None else "unknown",
            "destination_service_namespace": (cluster.service_namespace if cluster is not None else "") or "unknown",
            "request_protocol": outcome.kind,
        }
        if outcome.kind == "http":
            if outcome.grpc:
                labels["request_protocol"] = "grpc"
            labels |= {"response_code": str(outcome.status), "grpc_response_status": outcome.grpc_status}
        return labels | {"response_flags": outcome.flag or "-", "connection_security_policy": secure}

    def _identity(self, namespace: str, service_account: str) -> str:
        return f"spiffe://{self.trust_domain}/ns/{namespace}/sa/{service_account}" if service_account else "unknown"

    def lines(self) -> list[str]:
        """Everything, in Prometheus' text format."""
        self.fold()
        http = [series for series in self._series.values() if series.labels.get("request_protocol") != "tcp"]
        tcp = [series for series in self._series.values() if series.labels.get("request_protocol") == "tcp"]
        http = [s for s in http if "response_code" in s.labels]
        rendered = {id(series): exposition.labelled(series.labels)[1:-1] for series in http}
        lines = exposition.family(
            "istio_requests_total", "counter", "Finished requests.", [(s.labels, s.count) for s in http]
        )
        for name, text, counts, total in (
            ("istio_request_duration_milliseconds", "Duration of requests.", "durations", "milliseconds"),
            ("istio_request_bytes", "Bytes of request bodies.", "received_sizes", "received"),
            ("istio_response_bytes", "Bytes of response bodies.", "sent_sizes", "sent"),
        ):
            samples = [(rendered[id(s)], getattr(s, counts), getattr(s, total)) for s in http]
            lines += exposition.histogram(name, text, BOUNDS, samples)
        for name, text, attribute in (
            ("istio_tcp_sent_bytes_total", "Bytes sent to clients of TCP connections.", "sent"),
            ("istio_tcp_received_bytes_total", "Bytes received from clients of TCP connections.", "received"),
            ("istio_tcp_connections_opened_total", "TCP connections that began.", "opened"),
            ("istio_tcp_connections_closed_total", "TCP connections that ended.", "count"),
        ):
            lines += exposition.family(name, "counter", text, [(s.labels, getattr(s, attribute)) for s in tcp])
        lines += exposition.family(
            "fairlead_responses_total",
            "counter",
            "Answers and failures of the proxy's own, by reason.",
            [({"reason": reason, "response_flags": flag or "-"}, n) for (reason, flag), n in self.reasons.items()],
        )
        lines += exposition.family(
            "fairlead_policy_denials_total",
            "counter",
            "Requests and connections that policies refused, by policy and rule.",
            [(policy_labels(by), n) for by, n in self.denials.items()],
        )
        lines += exposition.family("fairlead_metric_series", "gauge", "Series kept.", [({}, len(self._series))])
        lines += exposition.family(
            "fairlead_metric_folded_total", "counter", "Outcomes counted as `other`.", [({}, self.folded)]
        )
        for more in self.more:
            lines += more()
        return lines


def denied_by(outcome: Outcome) -> str:
    """`kind namespace/name rule N` of the policy that refused it; empty: none did."""
    if outcome.reason not in DENIALS:
        return ""
    decision = outcome.decision
    if outcome.policy or decision is None or decision.policy is None:
        return outcome.policy
    by: str = decision.policy.by
    return "" if decision.policy.allowed else by


def policy_labels(by: str) -> dict[str, str]:
    policy, _, rule = by.partition(" rule ")
    return {"policy": policy or "unknown", "rule": rule}


def _count(buckets: list[int], value: float) -> None:
    """Into the first bucket whose bound is not below the value."""
    at = bucket(value)
    count = buckets[at]
    buckets[at] = count + 1


def bucket(value: float) -> int:
    """The first of BOUNDS that is not below the value, by halves."""
    if value <= 1000.0:
        if value <= 25.0:
            return (0 if value <= 0.5 else 1 if value <= 1.0 else 2) if value <= 5.0 else 3 if value <= 10.0 else 4
        if value <= 100.0:
            return 5 if value <= 50.0 else 6
        return 7 if value <= 250.0 else 8 if value <= 500.0 else 9
    if value <= 30000.0:
        return (10 if value <= 2500.0 else 11) if value <= 5000.0 else 12 if value <= 10000.0 else 13
    if value <= 600000.0:
        return 14 if value <= 60000.0 else 15 if value <= 300000.0 else 16
    return 17 if value <= 1800000.0 else 18 if value <= 3600000.0 else 19


def described(name: str, namespace: str, labels: dict[str, str], principal: str) -> dict[str, str]:
    app = labels.get("app.kubernetes.io/name") or labels.get("app") or "unknown"
    version = labels.get("app.kubernetes.io/version") or labels.get("version") or ""
    return {
        "workload": name,
        "workload_namespace": namespace or "unknown",
        "principal": principal,
        "app": app,
        "version": version or "unknown",
        "cluster": "fairlead",
        "canonical_service": labels.get("service.istio.io/canonical-name") or (app if app != "unknown" else name),
        "canonical_revision": labels.get("service.istio.io/canonical-revision") or version or "latest",
    }


UNKNOWN = described("unknown", "unknown", {}, "unknown") | {"cluster": "unknown"}


def of_workload(workload: Workload, principal: str) -> dict[str, str]:
    return described(workload.name, workload.namespace, workload.labels, principal)


def of_identity(identity: str, workload: Workload | None) -> dict[str, str]:
    """A peer by its verified identity: its workload, where only one has it; else its namespace alone."""
    if workload is not None:
        return of_workload(workload, identity)
    if not identity:
        return UNKNOWN
    namespace = identity.partition("/ns/")[2].partition("/")[0]
    return {**UNKNOWN, "workload_namespace": namespace or "unknown", "principal": identity}
