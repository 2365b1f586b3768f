"""What NetworkPolicies say and a proxy cannot enforce in full: other protocols than TCP, traffic that passes it by.

A proxy carries TCP. Where a policy has a port of UDP or SCTP, or isolates a workload that declares one, that traffic
goes on as before: a packet filter of the host must see to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from ..registry.model import Workload
from .label_selector import selects
from .network_policy import policy_types
from .resources import NetworkPolicy
from .world import World

ERROR, WARNING = "error", "warning"
SHOWN_MOST = 5
"""Workloads that one sentence names."""


class Gap(Struct, frozen=True):
    """Something that a policy asks for and does not get."""

    policy: str
    """namespace/name."""
    status: str
    message: str
    remedy: str


def gaps(world: World, sidecars: Mapping[str, bool] | None = None) -> list[Gap]:
    """By policy. `sidecars`: workloads (namespace/name) with a sidecar, and whether the host brings all their traffic
    to it (capture); None: not known, so nothing is said of workloads without one."""
    found: list[Gap] = []
    by_namespace: dict[str, list[Workload]] = {}
    for workload in world.snapshot.workloads.values():
        by_namespace.setdefault(workload.namespace, []).append(workload)
    for policy in world.resources.network_policies:
        selected = [
            one for one in by_namespace.get(policy.meta.namespace, ()) if selects(policy.spec.pod_selector, one.labels)
        ]
        found += _of(policy, selected, sidecars)
    return found


def _of(policy: NetworkPolicy, selected: list[Workload], sidecars: Mapping[str, bool] | None) -> list[Gap]:
    name = f"{policy.meta.namespace}/{policy.meta.name}"
    found: list[Gap] = []

    def say(status: str, message: str, remedy: str) -> None:
        found.append(Gap(name, status, message, remedy))

    if not selected:
        say(WARNING, "it selects no workload that is known", "look at its podSelector and its namespace")
    other = [f"{path} ({protocol})" for path, protocol in _other_ports(policy)]
    if other:
        say(
            WARNING,
            f"no proxy sees UDP or SCTP: {', '.join(other)} neither allows nor denies anything",
            "filter it on the host (nftables)",
        )
    types = policy_types(policy)
    if open_ports := [
        f"{one.key} {port.number}/{port.protocol}" for one in selected for port in one.ports if port.protocol != "TCP"
    ]:
        say(
            WARNING,
            f"it isolates workloads whose ports of UDP or SCTP stay open: {_few(open_ports)}",
            "filter them on the host (nftables)",
        )
    hosts = [one.key for one in selected if one.host_network]
    if hosts:
        say(
            WARNING,
            f"it does nothing for workloads on the host's network, as in Kubernetes: {_few(hosts)}",
            "give them an address of their own",
        )
    if sidecars is None:
        return found
    reached = [one for one in selected if not one.host_network]
    bare = [one.key for one in reached if one.key not in sidecars]
    if bare:
        say(
            ERROR,
            f"nothing enforces it for workloads without a sidecar: {_few(bare)}",
            "run `fairlead sidecar` or `fairlead run` beside them",
        )
    passing = [one.key for one in reached if one.key in sidecars and not sidecars[one.key]]
    if passing:
        ways = [
            f"{way} that {what}"
            for way, what in (("Ingress", "dials an app's own port directly"), ("Egress", "an app sends directly"))
            if way in types
        ]
        say(
            WARNING,
            f"{' and '.join(ways)} passes the sidecar by: {_few(passing)} without capture",
            "`fairlead capture apply` and --capture nftables; or let apps listen on 127.0.0.1 only",
        )
    return found


def _other_ports(policy: NetworkPolicy) -> list[tuple[str, str]]:
    """(path, protocol) of each port that is not of TCP."""
    found: list[tuple[str, str]] = []
    given = [(f"spec.ingress[{at}]", rule.ports) for at, rule in enumerate(policy.spec.ingress)]
    given += [(f"spec.egress[{at}]", rule.ports) for at, rule in enumerate(policy.spec.egress)]
    for path, ports in given:
        found += [(f"{path}.ports[{at}]", port.protocol) for at, port in enumerate(ports) if port.protocol != "TCP"]
    return found


def _few(names: list[str]) -> str:
    more = len(names) - SHOWN_MOST
    return ", ".join(names[:SHOWN_MOST]) + (f" and {more} more" if more > 0 else "")
