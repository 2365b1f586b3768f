"""NetworkPolicy: isolation of a workload in one direction, and the verdict on one connection.

An ipBlock matches the peer's address, also where that is a workload's. Only policies that select are looked at: the
verdict of a workload that none selects is None. A workload's traffic with itself is always allowed. Policies that
select a host-network workload do nothing, and such a workload is never a pod or namespace peer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from ..registry.model import Workload
from ..registry.snapshot import Snapshot
from .label_selector import seen, selects, wanted
from .peer import Peer
from .resources import IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort
from .tables import Verdict
from .trace import Trace, note

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Block:
    __slots__ = ("_except", "_network", "text")

    def __init__(self, block: IPBlock) -> None:
        self._network = _network(block.cidr)
        self._except = [_network(cidr) for cidr in block.except_]
        self.text = block.cidr + (f" except {', '.join(block.except_)}" if block.except_ else "")

    def holds(self, address: Address | None) -> bool:
        if address is None or self._network is None or address not in self._network:
            return False
        # An exception that cannot be read excludes everything: fail closed.
        return not any(hole is None or address in hole for hole in self._except)


class _PeerRule:
    """One item of `from` or `to`."""

    __slots__ = ("_block", "_namespace", "rule")

    def __init__(self, rule: NetworkPolicyPeer, namespace: str) -> None:
        self.rule = rule
        self._namespace = namespace
        self._block = _Block(rule.ip_block) if rule.ip_block is not None else None

    def holds(self, snapshot: Snapshot, peer: Peer, address: Address | None) -> bool:
        if self._block is not None:
            return self._block.holds(address)
        pods, namespaces = self.rule.pod_selector, self.rule.namespace_selector
        if pods is None and namespaces is None:
            return False
        if not peer.workloads:
            # A verified identity of which we know no workload: its namespace is certain, its labels are not.
            known = bool(peer.namespace) and (pods is None or not (pods.match_labels or pods.match_expressions))
            if not known:
                return False
            if namespaces is None:
                return peer.namespace == self._namespace
            return selects(namespaces, peer.namespace_labels)
        for workload in peer.workloads:
            if namespaces is None:
                if workload.namespace != self._namespace:
                    return False
            elif not selects(namespaces, snapshot.namespace_labels(workload.namespace)):
                return False
            if pods is not None and not selects(pods, workload.labels):
                return False
        return True

    def failure(self, snapshot: Snapshot, peer: Peer, address: Address | None) -> str:
        """In words what it asks for, and what of that the peer is not; for explain, where `holds` is False."""
        if self._block is not None:
            return f"address {address or 'unknown'} is not in {self._block.text}"
        pods, namespaces = self.rule.pod_selector, self.rule.namespace_selector
        if pods is None and namespaces is None:
            return "it names nobody"
        if not peer.workloads:
            return "no workload of the mesh is known behind it, and only a workload has labels"
        for workload in peer.workloads:
            own = snapshot.namespace_labels(workload.namespace)
            if namespaces is None:
                if workload.namespace != self._namespace:
                    wanted_one = f"{self._namespace} (there is no namespaceSelector)"
                    return f"namespace is {workload.namespace}, wanted {wanted_one}"
            elif not selects(namespaces, own):
                return f"namespace {workload.namespace} has {seen(namespaces, own)}, wanted {wanted(namespaces)}"
            if pods is not None and not selects(pods, workload.labels):
                return f"it has {seen(pods, workload.labels)}, wanted {wanted(pods)}"
        return ""


class _PortRule:
    __slots__ = ("_name", "_protocol", "_range")

    def __str__(self) -> str:
        first, last = self._range or (0, 0)
        number = f"{first}-{last}" if last > first else str(first or "any")
        return f"{self._name or number}/{self._protocol}"

    def __init__(self, rule: NetworkPolicyPort) -> None:
        self._protocol = rule.protocol
        self._name = ""
        self._range: tuple[int, int] | None = None
        if isinstance(rule.port, str):
            self._name = rule.port
        elif rule.port is not None:
            self._range = (rule.port, rule.end_port if rule.end_port is not None else rule.port)

    def holds(self, port: int, protocol: str, names: Mapping[tuple[str, str], frozenset[int]]) -> bool:
        if protocol != self._protocol:
            return False
        if self._name:
            return port in names.get((self._name, protocol), ())
        return self._range is None or self._range[0] <= port <= self._range[1]


class _Rule:
    __slots__ = ("index", "name", "peers", "ports")

    def __init__(
        self,
        policy: NetworkPolicy,
        index: int,
        peers: Sequence[NetworkPolicyPeer],
        ports: Sequence[NetworkPolicyPort],
    ) -> None:
        self.name = f"NetworkPolicy {policy.meta.key} rule {index}"
        self.index = index
        self.peers = tuple(_PeerRule(peer, policy.meta.namespace) for peer in peers)
        self.ports = tuple(_PortRule(port) for port in ports)


class Isolation:
    """A workload's allow-list in one direction: the union of the rules of all policies that select it."""

    __slots__ = ("_own_ports", "_snapshot", "direction", "names", "rules", "workload")

    def __init__(
        self, snapshot: Snapshot, workload: Workload, direction: str, policies: Sequence[NetworkPolicy]
    ) -> None:
        self.direction = direction
        self.workload = workload
        self._snapshot = snapshot
        self.names = [f"NetworkPolicy {policy.meta.key}" for policy in policies]
        self.rules: list[_Rule] = []
        for policy in policies:
            if direction == "Ingress":
                for index, ingress in enumerate(policy.spec.ingress):
                    self.rules.append(_Rule(policy, index, ingress.from_, ingress.ports))
            else:
                for index, egress in enumerate(policy.spec.egress):
                    self.rules.append(_Rule(policy, index, egress.to, egress.ports))
        self._own_ports = port_names(workload)

    def verdict(self, peer: Peer, port: int, protocol: str = "TCP", trace: Trace | None = None) -> Verdict:
        """On a connection to workload port `port`: of this workload (Ingress), or of the peer (Egress)."""
        if any(own.key == self.workload.key and self.workload.name for own in peer.workloads):
            return Verdict(True, "", "a workload's traffic with itself is always allowed")
        address = parse_address(peer.ip)
        for rule in self.rules:
            holds = self._holds_port(rule, peer, port, protocol) and self._holds_peer(rule, peer, address)
            if trace is not None:
                self._note(trace, rule, peer, port, protocol, holds)
            if holds:
                return Verdict(True, rule.name, f"{rule.name} ({self.direction.lower()}) admits it")
        whom = f"{self.workload.namespace}/{self.workload.name or '(any)'}"
        pair = (
            f"{peer.label} to port {port} of {whom}"
            if self.direction == "Ingress"
            else f"{whom} to port {port} of {peer.label}"
        )
        return Verdict(
            False, self.names[0], f"no {self.direction.lower()} rule of {', '.join(self.names)} admits {pair}"
        )

    def blocks(self, port: int, protocol: str = "TCP") -> list[IPBlock] | None:
        """Ingress: the addresses that may connect to an own port, whoever is there; None: everybody may."""
        found: list[IPBlock] = []
        for rule in self.rules:
            if rule.ports and not any(one.holds(port, protocol, self._own_ports) for one in rule.ports):
                continue
            if not rule.peers:
                return None
            found += [one.rule.ip_block for one in rule.peers if one.rule.ip_block is not None]
        return found

    def _holds_port(self, rule: _Rule, peer: Peer, port: int, protocol: str) -> bool:
        return not rule.ports or any(one.holds(port, protocol, self._names_for(peer)) for one in rule.ports)

    def _holds_peer(self, rule: _Rule, peer: Peer, address: Address | None) -> bool:
        return not rule.peers or any(one.holds(self._snapshot, peer, address) for one in rule.peers)

    def _note(self, trace: Trace, rule: _Rule, peer: Peer, port: int, protocol: str, holds: bool) -> None:
        """A step that says of a rule that does not hold what was seen and what is wanted."""
        step, side = f"network-policy-{self.direction.lower()}", self.direction.lower()
        path, why = f"spec.{side}[{rule.index}]", f"it admits {peer.label} on port {port}"
        if not holds and not self._holds_port(rule, peer, port, protocol):
            path += ".ports"
            why = f"port is {port}/{protocol}, wanted {' or '.join(map(str, rule.ports))}"
        elif not holds:
            path += ".from" if side == "ingress" else ".to"
            address = parse_address(peer.ip)
            failures = dict.fromkeys(one.failure(self._snapshot, peer, address) for one in rule.peers)
            why = f"{peer.label} is none of its peers: {'; '.join(failures)}"
        note(trace, step, rule.name, "allow" if holds else "no match", why, rule.name.partition(" rule ")[0], path)

    def _names_for(self, peer: Peer) -> Mapping[tuple[str, str], frozenset[int]]:
        """Named ports are those of the destination: this workload, or every workload that the peer may be."""
        if self.direction == "Ingress":
            return self._own_ports
        tables = [port_names(workload) for workload in peer.workloads]
        if len(tables) == 1:
            return tables[0]
        common = set(tables[0]).intersection(*tables[1:]) if tables else set()
        return {key: frozenset.intersection(*(table[key] for table in tables)) for key in common}


def isolation_of(
    policies: Sequence[NetworkPolicy], snapshot: Snapshot, workload: Workload, direction: str
) -> Isolation | None:
    """The isolation of a workload in `direction` (Ingress or Egress); None where no policy selects it."""
    if workload.host_network:
        return None
    found = [
        policy
        for policy in policies
        if policy.meta.namespace == workload.namespace
        and direction in policy_types(policy)
        and selects(policy.spec.pod_selector, workload.labels)
    ]
    return Isolation(snapshot, workload, direction, found) if found else None


def policy_types(policy: NetworkPolicy) -> Sequence[str]:
    """The types as stored; `parse` defaults them, so this matters only for policies made in another way."""
    if policy.spec.policy_types:
        return policy.spec.policy_types
    return ("Ingress", "Egress") if policy.spec.egress else ("Ingress",)


def port_names(workload: Workload) -> dict[tuple[str, str], frozenset[int]]:
    """Numbers by (name, protocol) of a workload's declared ports."""
    found: dict[tuple[str, str], frozenset[int]] = {}
    for port in workload.ports:
        if port.name:
            key = (port.name, port.protocol)
            found[key] = found.get(key, frozenset()) | {port.number}
    return found


def parse_address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


def _network(cidr: str) -> Network | None:
    try:
        return ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return None
