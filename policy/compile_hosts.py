"""Virtual hosts: by port and domain, the arms that a request to it runs through."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..registry.model import Service
from .compile_clusters import member_host, members, wants_dialled_address
from .compile_http import CompiledRule, Dropped, compile_rule, https_redirect, retry_policy
from .compile_view import View, cluster_name, port_protocol, speaks_http
from .delegates import with_delegates
from .gateways import Server, attached
from .host_names import Domains, complete, covers, spellings
from .match import EVERYTHING, Arm, HttpMatch
from .resources import HTTPMatchRequest, StringMatch, VirtualService
from .sidecars import knows
from .tables import Decision, Destination
from .visibility import exported

PLAIN = HttpMatch(HTTPMatchRequest(scheme=StringMatch(exact="http")))
UNKNOWN_HOST_PORT = 80
"""Hosts of rules that no service has are served on this port alone (Istio)."""
GATEWAY_PORTS = (80, 443, 8080, 8443)


class VirtualHost:
    """What one domain on one port leads to. `only`: the decision where it is the same for every request."""

    __slots__ = ("arms", "dropped", "host", "only", "port", "rule", "skipped")

    def __init__(
        self,
        host: str,
        port: int,
        arms: tuple[Arm, ...],
        rule: VirtualService | None = None,
        dropped: tuple[Dropped, ...] = (),
        skipped: tuple[tuple[VirtualService, tuple[Dropped, ...]], ...] = (),
    ) -> None:
        self.host = host
        self.port = port
        self.arms = arms
        self.rule = rule
        self.dropped = dropped
        self.skipped = skipped
        """Rules for this host that have no route for this client and port, each with why."""
        first = arms[0] if arms else None
        self.only: Decision | None = None
        if first is not None and first.unconditional and first.change is None:
            self.only = first.decision


class HttpTable:
    """All virtual hosts of one viewpoint. `memo` keeps what was looked up, by authority; it is emptied when full."""

    __slots__ = ("gateway", "memo", "names", "ports", "rules")

    def __init__(self, gateway: bool) -> None:
        self.gateway = gateway
        self.ports: dict[int, Domains[VirtualHost]] = {}
        self.names: dict[str, int] = {}
        """The one port for HTTP of the service with this spelling; 0: none or several."""
        self.memo: dict[object, tuple[Decision | None, tuple[Arm, ...], VirtualHost]] = {}
        self.rules: list[VirtualService] = []
        """The VirtualServices that count for this viewpoint at all; for explain."""

    def claim(self, port: int, domain: str, host: VirtualHost) -> None:
        domains = self.ports.get(port)
        if domains is None:
            domains = self.ports[port] = Domains()
        domains.claim(domain, host)


def visible_rules(view: View) -> list[VirtualService]:
    """VirtualServices that this client sees and that are meant for it (`mesh`, or its gateway), oldest first.

    Delegates are merged in; a rule without hosts is one, and stands for nothing by itself.
    """
    own = (*(view.gateways.names if view.gateways is not None else ()), view.gateway or "mesh")
    found = []
    for rule in view.resources.virtual_services:
        namespace = rule.meta.namespace
        if not rule.spec.hosts or not exported(rule.spec.export_to, namespace, view.namespace):
            continue
        if attached(own, rule.spec.gateways, namespace) and knows(
            view.sidecar, rule, view.workload, view.cluster_domain
        ):
            found.append(with_delegates(rule, view.resources.virtual_services, view.cluster_domain))
    return found


class HostIndex:
    """Rules by the hosts they name, completed; the most specific group for a service."""

    __slots__ = ("_domains", "domain")

    def __init__(self, rules: list[VirtualService], cluster_domain: str) -> None:
        self._domains: Domains[list[VirtualService]] = Domains()
        self.domain = cluster_domain
        for rule in rules:
            for host in rule.spec.hosts:
                completed = complete(host, rule.meta.namespace, cluster_domain)
                group = self._domains.get(completed)
                if group is None:
                    group = []
                    self._domains.claim(completed, group)
                group.append(rule)

    def rules_for(self, host: str) -> list[VirtualService]:
        """Those of the most specific host that stands for `host`, oldest first."""
        return self._domains.get(host) or self._domains.find(host) or []


def http_table(view: View, rules: list[VirtualService], index: HostIndex) -> HttpTable:
    table = HttpTable(bool(view.gateway))
    table.rules = rules
    compiled: dict[tuple[int, int, str], CompiledRule] = {}

    def compile_once(rule: VirtualService, port: int, gateway: str = "") -> CompiledRule:
        key = (id(rule), port, gateway)
        if key not in compiled:
            compiled[key] = compile_rule(view.at(gateway) if gateway else view, rule, port)
        return compiled[key]

    if view.gateways is not None:
        if view.gateways.names:
            _server_hosts(view, table, rules, compile_once)
        else:
            _gateway_hosts(view, table, rules, compile_once)
        return table
    _unknown_hosts(view, table, rules, compile_once)
    for service in view.services.values():
        real = view.real_service(service.host) or service
        if real is service:
            _service_hosts(view, table, service, index, compile_once)
    for service in view.services.values():
        real = view.real_service(service.host) or service
        if real is not service:
            _alias_hosts(view, table, service, real, index, compile_once)
    return table


Compile = Callable[..., CompiledRule]


def _unknown_hosts(view: View, table: HttpTable, rules: list[VirtualService], compile_once: Compile) -> None:
    """Hosts that no service has, on port 80. They are claimed first, so a literal `cart.shop` takes that spelling."""
    for rule in rules:
        for host in rule.spec.hosts:
            completed = complete(host, rule.meta.namespace, view.cluster_domain)
            if completed in view.services:
                continue
            if completed.startswith("*") and any(covers(completed, known) for known in view.services):
                continue
            made = compile_once(rule, UNKNOWN_HOST_PORT)
            if made.arms:
                found = VirtualHost(completed, UNKNOWN_HOST_PORT, made.arms, rule, made.dropped)
                table.claim(UNKNOWN_HOST_PORT, completed, found)


def _service_hosts(view: View, table: HttpTable, service: Service, index: HostIndex, compile_once: Compile) -> None:
    names = spellings(service.host, view.cluster_domain, view.namespace)
    lowered = [name.lower() for name in (*names, *service.addresses)]
    rules = index.rules_for(service.host)
    speaking = []
    for port in service.ports:
        if port.protocol != "TCP":
            continue
        http = speaks_http(port_protocol(port))
        if http:
            speaking.append(port.number)
        host = _choose(view, service, port.number, rules if http else [], compile_once, retries=http)
        for name in lowered:
            table.claim(port.number, name, host)
        if service.headless:
            for name in names:
                table.claim(port.number, f"*.{name}", host)
        if host.rule is None:
            _member_hosts(view, table, service, port.number, names, http)
    for name in lowered:
        table.names[name] = speaking[0] if len(speaking) == 1 else 0


def _member_hosts(view: View, table: HttpTable, service: Service, port: int, names: list[str], retries: bool) -> None:
    """`db-0.db`: one endpoint of a headless service, where no rule stands for the service."""
    for member in members(view, service):
        own = member_host(member, service.host)
        host = VirtualHost(own, port, (_plain(view, service, own, port, retries),))
        for name in names:
            table.claim(port, member_host(member, name), host)


def _choose(
    view: View, service: Service, port: int, rules: list[VirtualService], compile_once: Compile, retries: bool
) -> VirtualHost:
    """The oldest rule that has a route for this client, alone; else the plain service."""
    host = service.host
    skipped: list[tuple[VirtualService, tuple[Dropped, ...]]] = []
    for rule in rules:
        made = compile_once(rule, port)
        if made.arms:
            return VirtualHost(host, port, made.arms, rule, made.dropped, tuple(skipped))
        if rule.spec.http:
            skipped.append((rule, made.dropped))
    return VirtualHost(host, port, (_plain(view, service, host, port, retries),), None, (), tuple(skipped))


def _plain(view: View, service: Service, host: str, port: int, retries: bool) -> Arm:
    name = cluster_name(port, "", host)
    cluster = view.clusters.get(name)
    hashes = cluster is not None and bool(cluster.load_balancer.hash_on)
    if wants_dialled_address(service):
        why = (
            f"{host} is a ServiceEntry without endpoints: the address that the client dialled, or the name it asked for"
        )
        decision = Decision("passthrough", destinations=(Destination(name, host, port),), why=why)
        return Arm(EVERYTHING, decision, None, 0, "default")
    decision = Decision(
        "route",
        destinations=view.plain(name, host, port),
        retries=retry_policy(view, None, hashes) if retries else None,
    )
    return Arm(EVERYTHING, decision, None, 0, "default")


def _alias_hosts(
    view: View, table: HttpTable, alias: Service, real: Service, index: HostIndex, compile_once: Compile
) -> None:
    """An alias leads to the real service on its ports; a rule on the alias matches its full name only."""
    names = spellings(alias.host, view.cluster_domain, view.namespace)
    own = [rule for rule in index.rules_for(alias.host) if _names(view, rule, alias.host)]
    speaking = []
    for port in real.ports:
        if port.protocol != "TCP":
            continue
        if speaks_http(port_protocol(port)):
            speaking.append(port.number)
            for rule in own:
                made = compile_once(rule, port.number)
                if made.arms:
                    table.claim(port.number, alias.host, VirtualHost(alias.host, port.number, made.arms, rule))
                    break
        domains = table.ports.get(port.number)
        target = domains.exact.get(real.host) if domains is not None else None
        if target is not None:
            for name in names:
                table.claim(port.number, name, target)
    for name in names:
        table.names[name] = speaking[0] if len(speaking) == 1 else 0


def _names(view: View, rule: VirtualService, host: str) -> bool:
    return host in [complete(one, rule.meta.namespace, view.cluster_domain) for one in rule.spec.hosts]


def _gateway_hosts(view: View, table: HttpTable, rules: list[VirtualService], compile_once: Compile) -> None:
    """At a gateway all rules of one host are joined in order of age; catch-alls move behind everything else."""
    ports = {*GATEWAY_PORTS, *(block.port for rule in rules for route in rule.spec.http for block in route.match)} - {0}
    groups: dict[str, list[VirtualService]] = {}
    for rule in rules:
        for host in rule.spec.hosts:
            groups.setdefault(complete(host, rule.meta.namespace, view.cluster_domain), []).append(rule)
    for port in sorted(ports):
        for host, group in groups.items():
            _join(table, port, host, port, group[0], [compile_once(rule, port) for rule in group])


def _join(
    table: HttpTable,
    key: int,
    host: str,
    port: int,
    first: VirtualService,
    made: list[CompiledRule],
    before: Arm | None = None,
) -> None:
    arms = [arm for one in made for arm in one.arms]
    arms = [arm for arm in arms if not arm.match.catches_all] + [arm for arm in arms if arm.match.catches_all]
    if before is not None:
        arms.insert(0, before)
    if arms:
        dropped = tuple(entry for one in made for entry in one.dropped)
        table.claim(key, host, VirtualHost(host, port, tuple(arms), first, dropped))


def _server_hosts(view: View, table: HttpTable, rules: list[VirtualService], compile_once: Compile) -> None:
    """The same by the servers of Gateways: a host is there where rule and server both have it. A server at which TLS
    ends has routes of its own, those of plain HTTP share their port's; where one of them asks for it, a host is
    redirected to https whatever its rules say (Istio), unless a proxy before us that we trust says that it is there."""
    assert view.gateways is not None
    redirected: dict[tuple[int, str], Arm] = {}
    groups: dict[tuple[int, str], dict[tuple[int, str], tuple[VirtualService, Server]]] = {}
    for server in view.gateways.servers:
        if not server.http or (server.tls is not None and not server.terminates):
            continue
        table.ports.setdefault(server.table, Domains())
        for rule in rules:
            if not rule.spec.http or not attached((server.gateway,), rule.spec.gateways, rule.meta.namespace):
                continue
            for host in rule.spec.hosts:
                whole = complete(host, rule.meta.namespace, view.cluster_domain)
                for found in server.admits(whole, rule.meta.namespace):
                    group = groups.setdefault((server.table, found), {})
                    group.setdefault((id(rule), server.gateway), (rule, server))
    for server in view.gateways.servers:
        if server.redirects:
            own = [host for _, host in server.hosts]
            narrower = [host for key, host in groups if key == server.table and any(covers(one, host) for one in own)]
            for host in (*own, *narrower):
                arm = Arm(PLAIN, *https_redirect(server.port, server.gateway), 0, "httpsRedirect")
                redirected.setdefault((server.table, host), arm)
    for (key, host), group in groups.items():
        port = key & 0xFFFF
        members = sorted(group.values(), key=lambda one: rules.index(one[0]))
        made = [compile_once(rule, port, at.gateway) for rule, at in members]
        _join(table, key, host, port, members[0][0], made, redirected.get((key, host)))
    for (key, host), arm in redirected.items():
        table.claim(key, host, VirtualHost(host, key & 0xFFFF, (arm,)))


def declared_ports(services: Mapping[str, Service]) -> dict[tuple[str, int], str]:
    """Declared protocol by (service host, service port), TCP ports only."""
    return {
        (service.host, port.number): port_protocol(port)
        for service in services.values()
        for port in service.ports
        if port.protocol == "TCP"
    }
