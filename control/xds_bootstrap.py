"""The files that Envoy and proxyless gRPC begin with: bootstrap, and the workload's certificate as secrets on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .xds_grpc import SERVER
from .xds_node import CERTIFICATE, CERTIFICATE_FILE, JSON, ROOTS, ROOTS_FILE, TLS, Node, mesh_tls, typed, uri_names

KEY_FILE, CHAIN_FILE, TRUST_FILE = "key.pem", "cert.pem", "roots.pem"
REGEX_SIZE, REGEX_MOST = "re2.max_program_size.error_level", 32768
"""Envoy's own limit, 100, refuses regular expressions that Istio (which sets the same) and our sidecars take."""
XDS = "xds"
"""Envoy's cluster of control planes."""


def metadata(told: Mapping[str, Any]) -> JSON:
    """A node's own words, what is empty left out."""
    return {"FAIRLEAD": {key: value for key, value in told.items() if value}}


def secrets(certificates: str, key: str, roots: str, version: str) -> dict[str, JSON]:
    """By file name: what Envoy reads its certificate and its roots from (SDS on disk, which it watches)."""
    secret = TLS + "Secret"
    trusted = {"trusted_ca": {"inline_string": roots}}
    own = {"certificate_chain": {"inline_string": certificates}, "private_key": {"inline_string": key}}
    return {
        CERTIFICATE_FILE: {
            "version_info": version, "resources": [{"@type": secret, "name": CERTIFICATE, "tls_certificate": own}],
        },
        ROOTS_FILE: {
            "version_info": version,
            "resources": [{"@type": secret, "name": ROOTS, "validation_context": trusted}],
        },
    }  # fmt: skip


def envoy(
    node: Node, told: JSON, servers: Sequence[tuple[str, int]], control: str, admin: tuple[str, int] | None, delta: bool
) -> JSON:
    """Envoy's bootstrap. `control`: the identity that control must show; empty: it is asked without TLS."""
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}} for host, port in servers
    ]
    two = {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}
    options = typed("upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": two})
    cluster: JSON = {
        "name": XDS,
        "type": "STRICT_DNS",
        "dns_lookup_family": "ALL",  # else IPv6 alone where a name has both, and control may listen on IPv4
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {"cluster_name": XDS, "endpoints": [{"lb_endpoints": endpoints}]},
    }
    if control:
        common = mesh_tls(node, uri_names(exact=[control]), ["h2"])
        config = {"@type": TLS + "UpstreamTlsContext", "common_tls_context": common}
        cluster["transport_socket"] = {"name": "tls", "typed_config": config}
    ads = {"ads": {}, "resource_api_version": "V3"}
    made: JSON = {
        "node": {"id": node.key, "cluster": node.workload, "metadata": metadata(told)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if delta else "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS}}],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {"clusters": [cluster]},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {REGEX_SIZE: REGEX_MOST}}]},
    }
    if admin is not None:
        address = {"socket_address": {"address": admin[0], "port_value": admin[1]}}
        made["admin"] = {"address": address}
    return made


def grpc(node: Node, told: JSON, servers: Sequence[tuple[str, int]], secure: bool) -> JSON:
    """gRPC's bootstrap (GRPC_XDS_BOOTSTRAP; gRFC A27, A29, A36)."""
    files = {
        "certificate_file": f"{node.folder}/{CHAIN_FILE}",
        "private_key_file": f"{node.folder}/{KEY_FILE}",
        "ca_certificate_file": f"{node.folder}/{TRUST_FILE}",
    }
    credentials: JSON = {"type": "tls", "config": files} if secure else {"type": "insecure"}
    made: JSON = {
        "xds_servers": [
            {
                "server_uri": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
                "channel_creds": [credentials],
                "server_features": ["xds_v3"],
            }
            for host, port in servers
        ],
        "node": {"id": node.key, "cluster": node.workload, "metadata": metadata(told)},
        "server_listener_resource_name_template": SERVER + "%s",
    }
    if secure:
        config = {**files, "refresh_interval": "1s"}
        made["certificate_providers"] = {"default": {"plugin_name": "file_watcher", "config": config}}
    return made
