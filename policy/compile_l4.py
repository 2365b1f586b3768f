"""TCP and TLS routes: by service and port, what an opaque connection is sent to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..registry import reasons
from ..registry.model import Service
from .compile_clusters import member_host, members
from .compile_hosts import HostIndex
from .compile_view import View, cluster_name
from .gateways import Server, attached
from .host_names import Domains, complete, spellings
from .network_policy import Address, Network, parse_address
from .network_policy import _network as parse_network
from .resources import L4MatchAttributes, RouteDestination, TLSMatchAttributes, VirtualService
from .tables import Decision, Destination
from .visibility import gateway_name, labels_hold


class L4Arm:
    """One TCP route that this client may take; `subnets` of the dialled address and `source` of the client, if any."""

    __slots__ = ("decision", "label", "source", "subnets")

    def __init__(self, decision: Decision, label: str, subnets: Sequence[str], source: str = "") -> None:
        self.source = parse_network(source) if source else None
        self.decision = decision
        self.label = label
        self.subnets: list[Network | None] = [parse_network(one) for one in subnets]

    def holds(self, address: Address | None, client: Address | None) -> bool:
        if self.source is not None and (client is None or client not in self.source):
            return False
        if not self.subnets:
            return True
        return address is not None and any(one is not None and address in one for one in self.subnets)


class L4Host:
    """A service's port: TLS routes by server name, TCP routes in order, else the service itself."""

    __slots__ = ("default", "host", "port", "tcp", "tls")

    def __init__(self, host: str, port: int, default: Decision) -> None:
        self.host = host
        self.port = port
        self.default = default
        self.tls: Domains[L4Arm] | None = None
        self.tcp: tuple[L4Arm, ...] = ()

    def decide(self, sni: str, destination_ip: str, source_ip: str) -> tuple[Decision, str]:
        """The decision, and in words what led to it."""
        if sni and self.tls is not None:
            arm = self.tls.find(sni.lower())
            if arm is not None and arm.holds(parse_address(destination_ip), None):
                return arm.decision, f"server name {sni} matches {arm.label}"
        for arm in self.tcp:
            if arm.holds(parse_address(destination_ip), parse_address(source_ip)):
                return arm.decision, f"{arm.label} matches"
        return self.default, "no tcp or tls route applies: the service itself"


class L4Table:
    __slots__ = ("addresses", "blocks", "hosts", "names")

    def __init__(self) -> None:
        self.hosts: dict[tuple[str, int], L4Host] = {}
        self.names: Domains[str] = Domains()
        """Service host by spelling; a ServiceEntry's wildcard host too."""
        self.addresses: dict[str, str] = {}
        """Service host by virtual address."""
        self.blocks: list[tuple[Network, str]] = []
        """Service hosts by blocks of virtual addresses, the narrowest first."""

    def at(self, address: str) -> str:
        """The host of the service with this virtual address; empty: none."""
        found = self.addresses.get(address, "")
        if not found and self.blocks:
            parsed = parse_address(address)
            found = next((host for block, host in self.blocks if parsed is not None and parsed in block), "")
        return found

    def by_server_name(self, host: str, port: int) -> bool:
        """Whether a TLS client's server name (SNI) may change what is decided for this service and port."""
        found = self.hosts.get((self.names.find(host.lower()) or host, port))
        return found is not None and found.tls is not None


def l4_table(view: View, index: HostIndex) -> L4Table:
    table = L4Table()
    for service in view.services.values():
        real = view.real_service(service.host) or service
        for name in spellings(service.host, view.cluster_domain, view.namespace):
            table.names.claim(name, real.host)
            if service.headless:
                table.names.claim(f"*.{name}", real.host)
        for address in service.addresses:
            block = parse_network(address) if "/" in address else None
            if block is not None:
                table.blocks.append((block, real.host))
            else:
                table.addresses.setdefault(address, real.host)
        if real is service:
            _service(view, table, service, index.rules_for(service.host))
            _members(view, table, service)
    table.blocks.sort(key=lambda one: -one[0].prefixlen)
    return table


def gateway_l4(view: View, rules: Sequence[VirtualService]) -> None:
    """What the servers of Gateways do with octets: `tls` rules by server name where TLS is passed through, `tcp` rules
    where it ends or there is none."""
    assert view.gateways is not None
    for server in view.gateways.servers:
        if server.http and (server.tls is None or server.terminates):
            continue
        why = f"no rule of Gateway {server.gateway} has a route for this connection"
        nothing = Decision("not-found", reason=reasons.NO_ROUTE.code, why=why)
        host = L4Host(server.gateway, server.port, nothing)
        own = view.at(server.gateway)
        for rule in rules:
            namespace = rule.meta.namespace
            if not attached((server.gateway,), rule.spec.gateways, namespace):
                continue
            if server.tls is not None and not server.terminates:
                _tls_routes(own, host, rule, partial(_admits, server, namespace))
            elif any(
                server.admits(complete(name, namespace, view.cluster_domain), namespace) for name in rule.spec.hosts
            ):
                _tcp_routes(own, host, rule)
        server.l4 = host


def _admits(server: Server, namespace: str, name: str) -> bool:
    return bool(server.admits(name.lower(), namespace))


def _members(view: View, table: L4Table, service: Service) -> None:
    """`db-0.db`: one endpoint of a headless service, where no route stands for the service."""
    for member in members(view, service):
        own = member_host(member, service.host)
        for name in spellings(service.host, view.cluster_domain, view.namespace):
            table.names.claim(member_host(member, name), own)
        for port in service.ports:
            whole = table.hosts.get((service.host, port.number))
            if whole is None:
                continue
            if whole.tcp or whole.tls is not None:
                table.hosts[(own, port.number)] = whole
                continue
            name = cluster_name(port.number, "", own)
            plain = Decision("route", destinations=(Destination(name, own, port.number),))
            table.hosts[(own, port.number)] = L4Host(own, port.number, plain)


def _service(view: View, table: L4Table, service: Service, rules: Sequence[VirtualService]) -> None:
    for port in service.ports:
        if port.protocol != "TCP":
            continue
        name = cluster_name(port.number, "", service.host)
        # Without endpoints in the registry (resolution NONE) an opaque connection goes where it was dialled.
        verdict = "passthrough" if service.external and service.resolution in ("NONE", "DYNAMIC_DNS") else "route"
        plain = Decision(verdict, destinations=view.plain(name, service.host, port.number))
        host = table.hosts[(service.host, port.number)] = L4Host(service.host, port.number, plain)
        for rule in rules:
            _tls_routes(view, host, rule)
            if not host.tcp:
                _tcp_routes(view, host, rule)


def _tls_routes(
    view: View, host: L4Host, rule: VirtualService, here: Callable[[str], bool] = lambda _name: True
) -> None:
    """The most specific server name wins whatever the order; one named twice belongs to the older rule."""
    for index, route in enumerate(rule.spec.tls):
        decision = _decision(view, rule, route.route, host.port, index)
        for block in route.match:
            if _reachable(view, block, rule, host.port):
                for name in filter(here, block.sni_hosts):
                    label = f"VirtualService {rule.meta.key} tls route {index}"
                    host.tls = host.tls or Domains()
                    host.tls.claim(name.lower(), L4Arm(decision, label, block.destination_subnets))


def _tcp_routes(view: View, host: L4Host, rule: VirtualService) -> None:
    for index, route in enumerate(rule.spec.tcp):
        decision = _decision(view, rule, route.route, host.port, index)
        label = f"VirtualService {rule.meta.key} tcp route {index}"
        if not route.match:
            host.tcp += (L4Arm(decision, label, ()),)
        for block in route.match:
            if _reachable(view, block, rule, host.port):
                host.tcp += (L4Arm(decision, label, block.destination_subnets, block.source_subnet),)


def _reachable(view: View, block: L4MatchAttributes | TLSMatchAttributes, rule: VirtualService, port: int) -> bool:
    """Whether this client on this port can satisfy the block; here all conditions count together."""
    if block.port and block.port != port:
        return False
    own = view.gateway or "mesh"
    if block.gateways and own not in [gateway_name(name, rule.meta.namespace) for name in block.gateways]:
        return False
    if block.source_namespace and block.source_namespace != view.namespace:
        return False
    return labels_hold(block.source_labels, view.workload.labels)


def _decision(view: View, rule: VirtualService, routes: Sequence[RouteDestination], port: int, index: int) -> Decision:
    """Weights are drawn once for each connection; with one destination its weight does not count."""
    single = len(routes) == 1
    destinations = []
    for one in routes:
        if not single and one.weight <= 0:
            continue
        host = view.destination_host(one.destination, rule.meta.namespace)
        number = one.destination.port.number if one.destination.port is not None else 0
        service = view.services.get(host)
        if not number and view.gateway and service is not None and len(service.ports) == 1:
            number = service.ports[0].number  # as for HTTP: at a gateway the service's only port comes first
        subset = one.destination.subset or ""
        name = cluster_name(number or port, subset, host)
        destinations.append(Destination(name, host, number or port, subset, 100 if single else one.weight))
    return Decision("route", virtual_service=rule.meta.key, route=str(index), destinations=tuple(destinations))
