"""Listeners (LDS) of an Envoy beside a workload: by host, named ports, inbound; and what they lead to (RDS).

The outbound listener is ours of 15001: HTTP by Host. Inbound is the mesh port: mutual TLS whose server name says which
service and port is meant, and, where PeerAuthentication permits it and the workload has one port, plaintext.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..policy.compile_hosts import HttpTable, VirtualHost
from ..policy.compile_inbound import Inbound, inbound_cluster, placed
from ..policy.compile_l4 import L4Table
from ..policy.compile_view import speaks_http
from ..policy.resources import Resources
from ..policy.tables import Cluster, Decision, Tables
from .xds_clusters import DNS_CACHE, DYNAMIC
from .xds_headers import EXTERNAL, without_made_up
from .xds_limits import connection_limits, request_limits
from .xds_node import ADS, JSON, TLS, Node, Notes, Upstream, mesh_tls, seconds, socket_address, typed, uri_names
from .xds_rbac import DIRECT, REMOTE, authorization_rules, network_rules
from .xds_routes import BODY_MAX, CORS, FAULT, Routes
from .xds_tokens import Keys, token_filters

OUTBOUND, INBOUND = "outbound", "inbound"
HTTP_ONLY_PORT = 80
ROUTER: JSON = {"name": "envoy.filters.http.router", "typed_config": typed("filters.http.router.v3.Router")}
MANAGER = "envoy.filters.network.http_connection_manager"
TCP_PROXY = "envoy.filters.network.tcp_proxy"
INSPECTOR: JSON = {
    "name": "envoy.filters.listener.tls_inspector",
    "typed_config": typed("filters.listener.tls_inspector.v3.TlsInspector"),
}
_NORMALIZATION: Mapping[str, JSON] = {
    "NONE": {},
    "BASE": {"normalize_path": True},
    "MERGE_SLASHES": {"normalize_path": True, "merge_slashes": True},
    "DECODE_AND_MERGE_SLASHES": {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
    },
}


def forwards(tables: Tables) -> bool:
    """Whether hosts that nobody knows may be gone to; an egress NetworkPolicy judges addresses, not names."""
    return tables.mesh.spec.outbound_traffic_policy.mode != "REGISTRY_ONLY" and tables.egress is None


def manager(tables: Tables, name: str, filters: Sequence[JSON], **more: Any) -> JSON:
    """An HTTP connection manager as a network filter."""
    normal = _NORMALIZATION.get(tables.mesh.spec.path_normalization.normalization, _NORMALIZATION["BASE"])
    config = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        stream_idle_timeout="0s",
        upgrade_configs=[{"upgrade_type": "websocket"}],
        http_filters=[*filters, ROUTER],
        **{"use_remote_address": False, "path_with_escaped_slashes_action": "KEEP_UNCHANGED", **normal, **more},
    )
    return {"name": MANAGER, "typed_config": config}


def outbound_filters(tables: Tables, forwarding: bool = True) -> list[JSON]:
    found = [
        {"name": FAULT, "typed_config": typed("filters.http.fault.v3.HTTPFault")},
        {"name": CORS, "typed_config": typed("filters.http.cors.v3.Cors")},
    ]
    if forwarding and forwards(tables):
        config = typed("filters.http.dynamic_forward_proxy.v3.FilterConfig", dns_cache_config=DNS_CACHE)
        found.append({"name": "envoy.filters.http.dynamic_forward_proxy", "typed_config": config})
    return found


def by_rds(name: str) -> JSON:
    return {"config_source": ADS, "route_config_name": name}


# --- outbound ---


def outbound_listeners(tables: Tables, resources: Resources, node: Node, note: Notes) -> list[JSON]:
    found = []
    limits = request_limits(tables, resources, OUTBOUND, 0, note)
    connections = connection_limits(tables, OUTBOUND, 0, note)
    if node.outbound is not None:
        filters = [*limits, *outbound_filters(tables)]
        chain = {"filters": [*connections, manager(tables, OUTBOUND, filters, rds=by_rds(OUTBOUND))]}
        found.append(
            {
                "name": OUTBOUND,
                "address": socket_address(*node.outbound),
                "traffic_direction": "OUTBOUND",
                "filter_chains": [chain],
            }
        )
    for one in node.upstreams:
        made = _named(tables, one, note, limits, connections)
        if made is not None:
            found.append(made)
    return found


def upstream_route(one: Upstream) -> str:
    return f"{one.host}:{one.service_port}"


def _named(
    tables: Tables, one: Upstream, note: Notes, limits: Sequence[JSON], connections: Sequence[JSON]
) -> JSON | None:
    """A port that stands for one service."""
    key = (one.host, one.service_port)
    if key not in tables.ports:
        note(f"upstream {one.address}:{one.port}: there is no service {one.host} with port {one.service_port} here")
        return None
    name = f"upstream_{one.address}_{one.port}"
    if speaks_http(tables.ports[key]):
        http = manager(tables, name, [*limits, *outbound_filters(tables)], rds=by_rds(upstream_route(one)))
        chains: list[JSON] = [{"filters": [*connections, http]}]
        inspects = False
    else:
        chains, inspects = _tcp_chains(tables, one, name, note)
        for chain in chains if connections else ():
            chain["filters"] = [*connections, *chain["filters"]] if chain["filters"] else []
    made: JSON = {
        "name": name, "address": socket_address(one.address, one.port), "traffic_direction": "OUTBOUND",
        "filter_chains": chains,
    }  # fmt: skip
    if inspects:
        made["listener_filters"] = [INSPECTOR]
    return made


def _tcp_chains(tables: Tables, one: Upstream, name: str, note: Notes) -> tuple[list[JSON], bool]:
    l4: L4Table = tables.tcp
    found = l4.hosts.get((one.host, one.service_port))
    if found is None:
        return [{"filters": []}], False
    where, decision = f"{one.host}:{one.service_port}", found.default
    for arm in found.tcp:
        if not arm.subnets and arm.source is None:
            decision = arm.decision
            break
        note(f"{arm.label}: destinationSubnets and sourceSubnet are not carried out on a named port of Envoy")
    chains: list[JSON] = []
    names: set[str] = set()
    for sni, arm in found.tls.items() if found.tls is not None else ():
        if arm.subnets:
            note(f"{arm.label}: destinationSubnets are not carried out on a named port of Envoy")
            continue
        names.add(sni)
        match = {"transport_protocol": "tls", **({"server_names": [sni]} if sni != "*" else {})}
        chains.append({"filter_chain_match": match, "filters": [tcp_proxy(tables.clusters, arm.decision, name)]})
    if decision.verdict != "route":
        note(f"{where}: the dialled address is not known on a named port of Envoy; its connections are closed")
    else:
        chains.append({"filters": [tcp_proxy(tables.clusters, decision, name)]})
    return chains, bool(names)


def tcp_proxy(clusters: Mapping[str, Cluster], decision: Decision, name: str) -> JSON:
    destinations = decision.destinations
    config: JSON = {"stat_prefix": name}
    if len(destinations) == 1:
        config["cluster"] = destinations[0].cluster
    else:
        config["weighted_clusters"] = {
            "clusters": [{"name": one.cluster, "weight": one.weight} for one in destinations if one.weight]
        }
    known = [clusters[one.cluster] for one in destinations if one.cluster in clusters]
    if known and known[0].limits.tcp_idle_timeout_s >= 0:
        config["idle_timeout"] = seconds(known[0].limits.tcp_idle_timeout_s)
    if known and known[0].limits.max_connection_duration_s:
        config["max_downstream_connection_duration"] = seconds(known[0].limits.max_connection_duration_s)
    if any(one.load_balancer.hash_on in ("source-ip", "client") for one in known):
        config["hash_policy"] = [{"source_ip": {}}]
    return {"name": TCP_PROXY, "typed_config": typed("filters.network.tcp_proxy.v3.TcpProxy", **config)}


# --- outbound routes ---


def route_configuration(name: str, hosts: list[JSON]) -> JSON:
    return {
        "name": name,
        "virtual_hosts": hosts,
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": BODY_MAX,
    }


def outbound_routes(tables: Tables, node: Node, note: Notes) -> JSON:
    """All virtual hosts of the listener by host."""
    table: HttpTable = tables.http
    may_forward = forwards(tables)
    routes = Routes(tables.clusters, node, note, may_forward)
    claimed: set[str] = set()
    hosts: list[JSON] = []
    for port, domains in sorted(table.ports.items()):
        merged: dict[int, tuple[VirtualHost, list[str]]] = {}
        for host, virtual in domains.items():
            names = [one for one in _spelled(table, host, port) if one not in claimed]
            claimed.update(names)
            merged.setdefault(id(virtual), (virtual, []))[1].extend(names)
        for virtual, names in merged.values():
            if names:
                made = routes.of(virtual.arms, virtual.rule, port)
                hosts.append(virtual_host(f"{virtual.host}:{port}#{len(hosts)}", names, made))
    if "*" not in claimed:
        action: JSON = {"direct_response": {"status": 502}}
        if may_forward:
            action = {"route": {"cluster": DYNAMIC, "timeout": "0s"}}
        hosts.append(virtual_host("unknown", ["*"], [{"match": {"prefix": "/"}, **action}]))
    return route_configuration(OUTBOUND, hosts)


def virtual_host(name: str, domains: list[str], routes: list[JSON]) -> JSON:
    return {"name": name, "domains": domains, "routes": routes, "include_request_attempt_count": True}


def _spelled(table: HttpTable, host: str, port: int) -> list[str]:
    """The domains of a host on a port: with it, and without where that means this port (see decide)."""
    named = f"[{host}]" if ":" in host else host
    found = [f"{named}:{port}"]
    if port == HTTP_ONLY_PORT:
        found.append(named)
    elif not host.startswith("*") and table.names.get(host) == port:
        first = table.ports.get(HTTP_ONLY_PORT)
        if first is None or first.exact.get(host) is None:
            found.append(named)
    return found


def host_routes(tables: Tables, host: str, port: int, node: Node, note: Notes) -> JSON | None:
    """The routes of one service on one port, whatever the client calls it; None: there are none."""
    table: HttpTable = tables.http
    domains = table.ports.get(port)
    virtual = domains.find(host) if domains is not None else None
    if virtual is None:
        return None
    made = Routes(tables.clusters, node, note, forwards(tables)).of(virtual.arms, virtual.rule, port)
    return route_configuration(f"{host}:{port}", [virtual_host(f"{host}:{port}", ["*"], made)])


# --- inbound ---


def inbound_listener(tables: Tables, resources: Resources, node: Node, note: Notes, keys: Keys) -> JSON | None:
    """The mesh port; None: it has none, or nothing stands behind it. `keys`: those that prove tokens."""
    inbound: Inbound = tables.inbound
    if node.inbound is None or not inbound.ports:
        return None
    sole = next(iter(inbound.ports)) if len(inbound.ports) == 1 else 0
    chains: list[JSON] = []
    for port, protocol in sorted(inbound.ports.items()):
        mode = inbound.mode(port)
        if mode.mode != "DISABLE" and node.folder:
            names = server_names(inbound, resources, port)
            if sole:
                match: JSON = {"transport_protocol": "tls"}
            elif names:
                match = {"transport_protocol": "tls", "server_names": names}
            else:
                continue
            chains.append(_inbound_chain(tables, resources, port, protocol, True, node, note, match, keys))
        if mode.mode != "STRICT" and sole:
            plain = {"transport_protocol": "raw_buffer"}
            chains.append(_inbound_chain(tables, resources, port, protocol, False, node, note, plain, keys))
        elif mode.mode != "STRICT":
            note(f"plaintext to port {port} is not taken on Envoy's mesh port, since the workload has several ports")
    if not chains:
        return None
    return {
        "name": INBOUND, "address": socket_address(*node.inbound), "traffic_direction": "INBOUND",
        "listener_filters": [INSPECTOR], "filter_chains": chains,
    }  # fmt: skip


def server_names(inbound: Inbound, resources: Resources, port: int) -> list[str]:
    """The mesh server names that mean an own port: of each service and subset behind which it stands."""
    subsets = sorted({one.name for rule in resources.destination_rules for one in rule.spec.subsets})
    found = []
    for (host, service_port), own in inbound.services.items():
        if own == port:
            found += [f"outbound_.{service_port}_.{subset}_.{host}".lower() for subset in ("", *subsets)]
            if sum(1 for other, _ in inbound.services if other == host) == 1:
                found.append(host)  # a client of gRPC's own may name the host alone
    return list(dict.fromkeys(found))


def _inbound_chain(
    tables: Tables, resources: Resources, port: int, protocol: str, mutual: bool, node: Node, note: Notes, match: JSON,
    keys: Keys,
) -> JSON:  # fmt: skip
    inbound: Inbound = tables.inbound
    http = bool(protocol) and speaks_http(protocol)
    if not protocol:
        note(f"port {port} declares no protocol: Envoy takes it as TCP (name the port http-..., or give appProtocol)")
    admitted = network_rules(inbound, port, mutual)
    client = REMOTE if mutual else DIRECT  # a gateway tells it; of who has no identity nothing is believed
    rules = ([("network-policy", admitted)] if admitted is not None else []) + [
        (f"authorization-policy-{one['action'].lower()}", one)
        for one in authorization_rules(inbound, port, http, note, client, http)
    ]
    name = f"inbound_{port}_{'tls' if mutual else 'plain'}"
    if http:
        services = [host for (host, _), own in inbound.services.items() if own == port] if mutual else ()
        limits = request_limits(tables, resources, INBOUND, port, note, services)
        tokens = token_filters(inbound.tokens, keys, note) if inbound.tokens is not None else []
        filters = [manager(
            tables, name, [*tokens, *rbac_filters(rules), *limits], route_config=inbound_routes(port, mutual),
            forward_client_cert_details="SANITIZE_SET" if mutual else "SANITIZE",  # nobody tells of another's
            **({"set_current_client_cert_details": {"uri": True}} if mutual else
               {"use_remote_address": True, "early_header_mutation_extensions": without_made_up()}),
        )]  # fmt: skip
    else:
        decision = tables.clusters[inbound_cluster(port)]
        proxy = {"stat_prefix": name, "cluster": decision.name}
        kind = "filters.network.rbac.v3.RBAC"
        filters = [
            {"name": f"fairlead.{label}", "typed_config": typed(kind, rules=one, stat_prefix=name)}
            for label, one in rules
        ]
        config = typed("filters.network.tcp_proxy.v3.TcpProxy", **proxy)
        filters.append({"name": TCP_PROXY, "typed_config": config})
    before = connection_limits(tables, INBOUND, port, note)
    made: JSON = {"name": name, "filter_chain_match": match, "filters": [*before, *filters]}
    if mutual:
        common = mesh_tls(node, trusted(tables), ("h2", "fairlead", "http/1.1"))
        made["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": TLS + "DownstreamTlsContext", "common_tls_context": common, "require_client_certificate": True,
            },
        }  # fmt: skip
    return made


def trusted(tables: Tables) -> list[JSON]:
    """Names that peers may have: those of the mesh's trust domain and its aliases."""
    domains = (tables.mesh.spec.trust_domain, *tables.mesh.spec.trust_domain_aliases)
    return uri_names(prefix=[f"spiffe://{domain}/" for domain in domains])


def rbac_filters(rules: Sequence[tuple[str, JSON]]) -> list[JSON]:
    return [
        {"name": f"fairlead.{label}", "typed_config": typed("filters.http.rbac.v3.RBAC", rules=one)}
        for label, one in rules
    ]


def inbound_routes(port: int, mutual: bool) -> JSON:
    route: JSON = {"match": {"prefix": "/"}, "route": {"cluster": inbound_cluster(port), "timeout": "0s"}}
    if not mutual:
        route["request_headers_to_remove"] = [EXTERNAL]
    host = {"name": f"inbound:{port}", "domains": ["*"], "routes": [route]}
    return {"name": inbound_cluster(port), "virtual_hosts": [host], "validate_clusters": False}


def inbound_address(inbound: Inbound, cluster: Cluster, node: Node) -> tuple[str, int]:
    """Where the app listens: as a Sidecar says, or `fairlead envoy`, else at the workload's address."""
    endpoint = cluster.endpoints[0]
    if node.app_address and not placed(inbound, cluster.port):
        return node.app_address, endpoint.port
    return endpoint.address, endpoint.port
