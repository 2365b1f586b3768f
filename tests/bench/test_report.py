"""README's section about costs is the one that the last whole run makes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench import report

HOP = "one L7 hop"
RESULT: dict[str, Any] = {
    "at": "2026-01-02T03:04:05+00:00",
    "machine": {"cpu": "a processor", "cores": 2, "kernel": "6.1", "python": "3.11"},
    "versions": {"HAProxy": "2.6"},
    "seconds": 1,
    "rounds": 5,
    "rows": [
        {"work": HOP, "proxy": "HAProxy", "us": 20.0, "per_s": 50000.0, "p99_ms": 2.0},
        {"work": HOP, "proxy": "nginx", "failed": "it did not start"},
        {"work": HOP, "proxy": "Envoy", "us": 50.0, "per_s": 20000.0, "p99_ms": 5.0},
        {"work": HOP, "proxy": "Fairlead", "us": 24.0, "per_s": 41000.0, "p99_ms": 3.0},
    ],
    "memory": [
        {"work": "ten upstream services", "proxy": "Envoy", "mb": 64.0},
        {"work": "ten upstream services", "proxy": "Fairlead", "mb": 32.0},
    ],
    "dns": [],
}


def test_the_readme_says_what_the_last_run_measured() -> None:
    readme = report.README.read_text()
    assert report.replaced(readme, report.section(json.loads(report.LATEST.read_text()))) == readme, (
        "README.md and bench/results/latest.json differ: run python bench/report.py"
    )


def test_the_last_run_has_every_row_for_every_proxy() -> None:
    from bench import peers, run

    rows = json.loads(report.LATEST.read_text())["rows"]
    there = {(row["work"], row["proxy"]) for row in rows}
    wanted = {(name, proxy) for name, work in run.WORKS.items() for proxy in peers.PEERS if work.only in ("", proxy)}
    assert there == wanted


def test_a_row_has_a_ratio_to_each_peer_and_a_missed_goal_is_said_to_be_missed() -> None:
    text = report.section(RESULT)
    assert f"| {HOP} | 20.0 | - | 50.0 | 24.0 | 1.20 | - | 0.48 | HAProxy 1: **missed**, Envoy 0.5: met |" in text
    assert "| ten upstream services, MB | - | - | 64.0 | 32.0 | - | - | 0.50 | 35 MB: met |" in text


def test_latency_must_be_below_the_goal_and_below_envoys() -> None:
    def row(proxy: str, p50: float, p99: float) -> dict[str, Any]:
        return {"work": report.PACED, "proxy": proxy, "added_p50_ms": p50, "added_p99_ms": p99}

    text = "\n".join(report.latency_table([row("Envoy", 0.3, 2.0), row("Fairlead", 0.35, 0.9)]))
    assert "| added p50, ms | - | - | 0.300 | 0.350 | - | - | 1.17 | 0.4 ms and Envoy: **missed** |" in text
    assert "| added p99, ms | - | - | 2.000 | 0.900 | - | - | 0.45 | 1 ms and Envoy: met |" in text


def test_two_workers_are_measured_against_what_two_cores_shared_with_the_client_allow() -> None:
    rows = [
        {"work": "one worker, costly routes", "proxy": "Fairlead", "us": 900.0, "per_s": 1000.0, "client_us": 90.0},
        {"work": "two workers, costly routes", "proxy": "Fairlead", "us": 900.0, "per_s": 1810.0, "client_us": 100.0},
    ]
    text = "\n".join(report.workers_table(rows))
    assert "| Fairlead, costly routes | 1,000 | 1,810 | 1.81 | 1.80 | 10% | 1.00 | 1.8: met |" in text


def test_text_around_the_section_stays_and_missing_markers_are_an_error() -> None:
    readme = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.replaced(readme, "new") == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    with pytest.raises(ValueError, match="markers"):
        report.replaced("no section", "new")
