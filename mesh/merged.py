"""What several workers tell about themselves, as if they were one proxy: metrics as text, clusters in use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..proxy.exposition import number

LEAST = ("fairlead_ready", "fairlead_tables_updated_timestamp_seconds", "fairlead_certificate_expiry_timestamp_seconds")
"""Gauges of which the worker that is furthest behind counts."""
MOST = ("istio_build", "fairlead_cluster_ejected_hosts")
"""Gauges that are about the same thing in each worker."""
EVENTS_MAX = 100


class Family:
    """`# HELP`, `# TYPE` and the samples by their name with labels, in order."""

    __slots__ = ("kind", "samples", "text")

    def __init__(self, text: str, kind: str) -> None:
        self.text = text
        self.kind = kind
        self.samples: dict[str, float] = {}


Families = dict[str, Family]


def read(text: str) -> Families:
    """Families of a text as exposition.py writes it: HELP, TYPE, then the samples."""
    found: Families = {}
    family, told = None, ""
    for line in text.split("\n"):
        if line.startswith("# HELP "):
            told = line[7:].partition(" ")[2]
        elif line.startswith("# TYPE "):
            name, _, kind = line[7:].partition(" ")
            family = found[name] = Family(told, kind)
        elif line and not line.startswith("#") and family is not None:
            sample, _, value = line.rpartition(" ")
            family.samples[sample] = float(value)
    return found


def add(total: Families, more: Families, counters_only: bool = False) -> None:
    """Take `more` into `total`. `counters_only`: of a worker that is no more, for which nothing is under way."""
    for name, family in more.items():
        if counters_only and family.kind == "gauge":
            continue
        into = total.get(name)
        if into is None:
            into = total[name] = Family(family.text, family.kind)
        choose = min if name in LEAST else max if name in MOST else None
        for sample, value in family.samples.items():
            before = into.samples.get(sample)
            if before is None:
                into.samples[sample] = value
            else:
                into.samples[sample] = before + value if choose is None else choose(before, value)


def lines(families: Families) -> list[str]:
    found = []
    for name, family in families.items():
        if family.samples:
            found += [f"# HELP {name} {family.text}", f"# TYPE {name} {family.kind}"]
            found += [f"{sample} {number(value)}" for sample, value in family.samples.items()]
    return found


def clusters(told: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What LiveCluster.describe says in each worker, added up by cluster and host."""
    found: dict[str, dict[str, Any]] = {}
    for one in told:
        for cluster in one:
            into = found.get(cluster["name"])
            if into is None:
                found[cluster["name"]] = {**cluster, "hosts": [dict(host) for host in cluster["hosts"]]}
                continue
            _add_numbers(into, cluster)
            hosts = {host["address"]: host for host in into["hosts"]}
            for host in cluster["hosts"]:
                known = hosts.get(host["address"])
                if known is None:
                    into["hosts"].append(dict(host))
                    continue
                longest = max(known.get("ejected_for_s", 0.0), host.get("ejected_for_s", 0.0))
                _add_numbers(known, host)
                if "ejected" in host or "ejected" in known:
                    known["ejected"] = known.get("ejected") or host.get("ejected")
                    known["ejected_for_s"] = longest
            events = sorted([*into["events"], *cluster["events"]], key=lambda event: -float(event["seconds_ago"]))
            into["events"] = events[-EVENTS_MAX:]
    return list(found.values())


def _add_numbers(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            into[key] = into.get(key, 0) + value
