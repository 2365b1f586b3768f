"""What a proxyless gRPC application gets: a listener for each name that it dials, and one for its server.

A client's target `xds:///web.default.svc.cluster.local:80` asks for the listener of that name (gRFC A27), a server for
`fairlead/inbound/ADDRESS:PORT` (A36), with mutual TLS by its certificate provider `default` (A29) and RBAC (A41). What
gRPC does not have is told to `note`.
"""

from __future__ import annotations

from ..policy.compile_hosts import HttpTable
from ..policy.compile_inbound import Inbound
from ..policy.compile_view import speaks_http
from ..policy.host_names import spellings
from ..policy.tables import Tables
from .xds_listeners import MANAGER, ROUTER, by_rds, rbac_filters, trusted
from .xds_node import JSON, TLS, Node, Notes, mesh_tls, socket_address, typed
from .xds_rbac import DIRECT, authorization_rules, network_rules
from .xds_routes import FAULT

SERVER = "fairlead/inbound/"
"""Before the address in the name of a server's listener."""


def client_listeners(tables: Tables, node: Node) -> list[JSON]:
    """By each spelling of each service's port that gRPC may speak to."""
    table: HttpTable = tables.http
    domain = tables.mesh.spec.cluster_domain
    found: dict[str, JSON] = {}
    for (host, port), protocol in tables.ports.items():
        domains = table.ports.get(port)
        if not speaks_http(protocol) or domains is None or domains.find(host) is None:
            continue
        filters = [{"name": FAULT, "typed_config": typed("filters.http.fault.v3.HTTPFault")}, ROUTER]
        config = typed(
            "filters.network.http_connection_manager.v3.HttpConnectionManager",
            rds=by_rds(f"{host}:{port}"), http_filters=filters,
        )  # fmt: skip
        for name in spellings(host, domain, node.namespace):
            found.setdefault(f"{name}:{port}", config)
    return [{"name": name, "api_listener": {"api_listener": config}} for name, config in found.items()]


def server_listener(tables: Tables, name: str, node: Node, note: Notes) -> JSON | None:
    """The listener that a server of the workload asks for; None: it is no port of the workload."""
    inbound: Inbound = tables.inbound
    address, _, text = name.removeprefix(SERVER).rpartition(":")
    port = int(text) if text.isdigit() else 0
    if port not in inbound.ports:
        return None
    mode = inbound.mode(port)
    mutual = mode.mode != "DISABLE"
    if mode.mode == "PERMISSIVE":
        note(f"port {port}: gRPC cannot take mutual TLS and plaintext on one port; it takes mutual TLS (STRICT) alone")
    client = "" if mutual else DIRECT  # gRPC reads no X-Forwarded-For, so behind a gateway it does not know
    admitted = network_rules(inbound, port, mutual)
    rules = ([("network-policy", admitted)] if admitted is not None else []) + [
        (f"authorization-policy-{one['action'].lower()}", one)
        for one in authorization_rules(inbound, port, True, note, client)
    ]
    route = {"match": {"prefix": ""}, "non_forwarding_action": {}}
    config = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        route_config={
            "name": "inbound", "virtual_hosts": [{"name": "inbound", "domains": ["*"], "routes": [route]}],
        },
        http_filters=[*rbac_filters(rules), ROUTER],
    )  # fmt: skip
    chain: JSON = {"name": "inbound", "filters": [{"name": MANAGER, "typed_config": config}]}
    if mutual:
        tls = {"common_tls_context": mesh_tls(node, trusted(tables)), "require_client_certificate": True}
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls", "typed_config": {"@type": TLS + "DownstreamTlsContext", **tls},
        }  # fmt: skip
    return {
        "name": name, "address": socket_address(address.strip("[]"), port), "traffic_direction": "INBOUND",
        "filter_chains": [chain],
    }  # fmt: skip
