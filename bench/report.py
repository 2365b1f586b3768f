"""Tables of a run, as Markdown: what `make bench` prints, and README's section between its two markers.

`python bench/report.py` writes the section from `bench/results/latest.json`; a test checks that they agree.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LATEST = ROOT / "bench" / "results" / "latest.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- bench: made by bench/report.py -->", "<!-- bench: end -->"
PEERS = ("HAProxy", "nginx", "Envoy")
OURS = "Fairlead"
PACED = "pair, mutual TLS, 1,000 requests/s"
GOALS: dict[str, dict[str, float]] = {
    # work: at most so many times the peer's processor time
    "one L7 hop": {"HAProxy": 1.0, "Envoy": 0.5},
    "pair, mutual TLS": {"HAProxy": 1.0, "Envoy": 0.5},
    "one L4 hop": {"HAProxy": 1.0},
    "one L7 hop, new connection each": {"Envoy": 1.0},
    "pair, new mutual TLS connection each": {"Envoy": 1.0},
    "TLS client, new mutual TLS connection each": {"Envoy": 1.0},
    "one L7 hop, 1 MiB down": {"Envoy": 1.0},
    "one L7 hop, 1 MiB up": {"Envoy": 1.0},
    "pair, mutual TLS, 1 MiB down": {"Envoy": 1.0},
    "HTTP/2 GET": {"Envoy": 1.5},
    "gRPC unary": {"Envoy": 1.5},
}
MEMORY_GOALS = {
    "ten upstream services": 35.0,
    "a thousand services known": 45.0,
    "idle connection": 15.0,
    "idle connection, mutual TLS": 60.0,
}
P50_MS, P99_MS, WORKERS = 0.4, 1.0, 1.8

Row = dict[str, Any]


def of(rows: list[Row], work: str, proxy: str, key: str) -> float | None:
    """One figure; None where there is none."""
    return next((row[key] for row in rows if row["work"] == work and row["proxy"] == proxy and key in row), None)


def _ratio(ours: float | None, theirs: float | None) -> str:
    return f"{ours / theirs:.2f}" if ours is not None and theirs else "-"


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _table(head: tuple[str, ...], body: Sequence[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *body)]


def _works(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["work"] for row in rows))


def verdict(rows: list[Row], work: str) -> str:
    """The goal of a row, and whether it is met; empty where there is none."""
    said = []
    for peer, most in GOALS.get(work, {}).items():
        ours, theirs = of(rows, work, OURS, "us"), of(rows, work, peer, "us")
        if ours is not None and theirs:
            said.append(f"{peer} {most:g}: {'met' if ours <= most * theirs else '**missed**'}")
    return ", ".join(said)


def cost_table(rows: list[Row]) -> list[str]:
    """Processor time per request, and Fairlead's as a ratio to each peer's."""
    body = []
    for work in _works(rows):
        if "worker" in work:
            continue
        times = [_number(of(rows, work, proxy, "us")) for proxy in (*PEERS, OURS)]
        ours = of(rows, work, OURS, "us")
        ratios = [_ratio(ours, of(rows, work, peer, "us")) for peer in PEERS]
        body.append((work, *times, *ratios, verdict(rows, work)))
    head = ("processor us per request", *PEERS, OURS, *(f"to {peer}" for peer in PEERS), "goal: at most")
    return _table(head, body)


def speed_table(rows: list[Row]) -> list[str]:
    """Requests per second of one busy core, and p99."""
    body = []
    for work in _works(rows):
        if "worker" in work or work == PACED:
            continue
        cells = []
        for proxy in (*PEERS, OURS):
            rate, p99 = of(rows, work, proxy, "per_s"), of(rows, work, proxy, "p99_ms")
            cells.append(f"{rate:,.0f} ({p99:.1f})" if rate is not None and p99 is not None else "-")
        body.append((work, *cells))
    return _table(("requests/s, in parentheses p99 in ms", *PEERS, OURS), body)


def latency_table(rows: list[Row]) -> list[str]:
    ours = (of(rows, PACED, OURS, "added_p50_ms"), of(rows, PACED, OURS, "added_p99_ms"))
    body = []
    for key, name, goal, value in (
        ("added_p50_ms", "p50", P50_MS, ours[0]),
        ("added_p99_ms", "p99", P99_MS, ours[1]),
    ):
        envoy = of(rows, PACED, "Envoy", key)
        met = value is not None and value < goal and (envoy is None or value < envoy)
        said = "" if value is None else "met" if met else "**missed**"
        times = [_number(of(rows, PACED, proxy, key), 3) for proxy in (*PEERS, OURS)]
        ratios = [_ratio(value, of(rows, PACED, peer, key)) for peer in PEERS]
        body.append((f"added {name}, ms", *times, *ratios, f"{goal:g} ms and Envoy: {said}"))
    return _table((PACED, *PEERS, OURS, *(f"to {peer}" for peer in PEERS), "goal: below"), body)


def workers_table(rows: list[Row]) -> list[str]:
    """Two workers beside one.

    One has a core for itself, and client and backend the other; two share both cores with the client. So even perfect
    workers stay below twice as many requests/s on two cores, the more so the cheaper a request is: the table says what
    they could reach. With costly routes (regular expressions in plenty) the client hardly counts.
    """
    body = []
    for proxy, more in ((OURS, ", costly routes"), (OURS, ""), *((peer, "") for peer in PEERS)):
        one, two = f"one worker{more}" if more else "one L7 hop", f"two workers{more}"
        rate1, rate2 = of(rows, one, proxy, "per_s"), of(rows, two, proxy, "per_s")
        us1, us2 = of(rows, one, proxy, "us"), of(rows, two, proxy, "us")
        client = of(rows, two, proxy, "client_us")
        if rate1 is None or rate2 is None or us1 is None or us2 is None or client is None:
            continue
        # One worker on a free core against two cores shared with the client: what perfect workers would reach.
        most = min(2.0, 2 * us1 / (us1 + client))
        goal = f"{WORKERS:g}: {'met' if rate2 >= WORKERS * rate1 else '**missed**'}" if more else ""
        share = f"{client / (us2 + client):.0%}"
        body.append((proxy + more, _number(rate1, 0), _number(rate2, 0), f"{rate2 / rate1:.2f}", f"{most:.2f}",
                     share, f"{us2 / us1:.2f}", goal))  # fmt: skip
    return _table(
        ("requests/s", "one worker", "two workers", "ratio", "at most possible here", "client's share of both cores",
         "processor time per request, two to one", "goal: at least"), body)  # fmt: skip


def memory_table(rows: list[Row]) -> list[str]:
    body = []
    for work in _works(rows):
        key, unit = ("kb_each", "KB") if "connection" in work else ("mb", "MB")
        values = [_number(of(rows, work, proxy, key)) for proxy in (*PEERS, OURS)]
        ours, most = of(rows, work, OURS, key), MEMORY_GOALS.get(work)
        ratios = [_ratio(ours, of(rows, work, peer, key)) for peer in PEERS]
        goal = "" if ours is None or most is None else f"{most:g} {unit}: {'met' if ours < most else '**missed**'}"
        body.append((f"{work}, {unit}", *values, *ratios, goal))
    return _table(("memory", *PEERS, OURS, *(f"to {peer}" for peer in PEERS), "goal: below"), body)


def dns_table(rows: list[Row]) -> list[str]:
    body = []
    for work in _works(rows):
        found = {row["server"].lower(): row for row in rows if row["work"] == work}
        times = {
            name: found[name]["us_per_op"] if name in found else None for name in ("unbound", "dnsmasq", "fairlead")
        }
        ratios = [_ratio(times["fairlead"], times[name]) for name in ("unbound", "dnsmasq")]
        body.append((work, *(_number(value) for value in times.values()), *ratios))
    return _table(("processor us per query", "unbound", "dnsmasq", OURS, "to unbound", "to dnsmasq"), body)


def section(result: dict[str, Any]) -> str:
    """All tables of a run."""
    about = result["machine"]
    names = ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items())
    parts = [
        f"Measured {result['at'][:10]} on {about['cores']} cores of {about['cpu']}, Linux {about['kernel']}, "
        f"Python {about['python']}, beside {names}; "
        f"median of {result['rounds']} rounds of {result['seconds']} s each, interleaved."
    ]
    rows = result["rows"]
    if any("worker" not in row["work"] for row in rows):
        parts += ["\n".join(cost_table(rows))]
    if any(row["work"] == PACED for row in rows):
        parts += ["\n".join(latency_table(rows))]
    if any("worker" not in row["work"] and row["work"] != PACED for row in rows):
        parts += ["\n".join(speed_table(rows))]
    if any("worker" in row["work"] for row in rows):
        parts += ["\n".join(workers_table(rows))]
    if result["memory"]:
        parts += ["\n".join(memory_table(result["memory"]))]
    if result["dns"]:
        parts += ["\n".join(dns_table(result["dns"]))]
    return "\n\n".join(parts)


def replaced(readme: str, text: str) -> str:
    """README with its section replaced."""
    before, found, rest = readme.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        raise ValueError(f"README.md: expected the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def write_readme(result: dict[str, Any]) -> None:
    README.write_text(replaced(README.read_text(), section(result)))


if __name__ == "__main__":
    write_readme(json.loads(LATEST.read_text()))
