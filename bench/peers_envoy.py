"""Envoy for each kind of work (see `bench/peers.py`): its configuration as JSON, which it reads like YAML."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

ENVOY = Path(__file__).resolve().parent.parent / ".servers" / "envoy" / "envoy" / "_bin" / "envoy"
EXTENSIONS = "type.googleapis.com/envoy.extensions."
LIMITS = {"thresholds": [{"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}]}


def envoy(kind: str, folder: Path, port: int, backend: int) -> list[list[str]]:
    """The commands of one kind of work."""
    if kind == "l4":
        return [_envoy(folder, "l4", port, _tcp(folder), _clusters(backend))]
    if kind.startswith(("known", "routed")):
        return [_many(folder, port, backend, int(kind.lstrip(string.ascii_lowercase)), kind.startswith("routed"))]
    if not kind.startswith("pair"):
        log = kind != "l7quiet"
        http = _http(folder, "l7", _routes(), log)
        h2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}} if kind in ("h2", "grpc") else {}
        workers = 2 if kind == "l7x2" else 1
        return [_envoy(folder, "l7", port, {"filters": [http]}, _clusters(backend, h2), workers)]
    middle = port + 1
    server = _tls("DownstreamTlsContext", folder, "server", require_client_certificate=True)
    client = _tls("UpstreamTlsContext", folder, "client", sni="server.bench")
    once = {} if kind == "pair" else {"common_http_protocol_options": {"max_requests_per_connection": 1}, **H1}
    anything = [{"match": {"prefix": "/"}, "route": {"cluster": "b"}}]
    inner = {"filters": [_http(folder, "in", anything)], "transport_socket": server}
    return [
        _envoy(folder, "in", middle, inner, _clusters(backend)),
        _envoy(folder, "out", port, {"filters": [_http(folder, "out", _routes())]}, _clusters(middle, once, client)),
    ]


H1: dict[str, Any] = {"explicit_http_config": {"http_protocol_options": {}}}


def _typed(kind: str, **more: Any) -> dict[str, Any]:
    return {"@type": EXTENSIONS + kind, **more}


def _routes(beta: str = "beta", main: str = "b") -> list[dict[str, Any]]:
    header = {"name": "x-beta", "string_match": {"exact": "yes"}}
    return [
        {"match": {"prefix": "/api", "headers": [header]}, "route": {"cluster": beta}},
        {"match": {"prefix": "/api"}, "route": {"cluster": main}},
    ]


def _access_log(folder: Path, name: str) -> list[dict[str, Any]]:
    config = _typed("access_loggers.file.v3.FileAccessLog", path=f"{folder}/envoy-{name}.log")
    return [{"name": "envoy.access_loggers.file", "typed_config": config}]


def _tcp(folder: Path) -> dict[str, Any]:
    config = _typed(
        "filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="l4", cluster="b", access_log=_access_log(folder, "l4")
    )
    return {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": config}]}


def _http(folder: Path, name: str, routes: list[dict[str, Any]], log: bool = True) -> dict[str, Any]:
    return _manager(folder, name, [{"name": "v", "domains": ["*"], "routes": routes}], log)


def _manager(folder: Path, name: str, hosts: list[dict[str, Any]], log: bool = True) -> dict[str, Any]:
    router = {"name": "envoy.filters.http.router", "typed_config": _typed("filters.http.router.v3.Router")}
    config = _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        use_remote_address=True,
        route_config={"name": "r", "virtual_hosts": hosts},
        http_filters=[router],
        **({"access_log": _access_log(folder, name)} if log else {}),
    )
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _tls(kind: str, folder: Path, who: str, **more: Any) -> dict[str, Any]:
    certificate = {
        "certificate_chain": {"filename": f"{folder}/{who}.pem"},
        "private_key": {"filename": f"{folder}/{who}.key"},
    }
    common = {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": ["X25519"],
        },
        "tls_certificates": [certificate],
        "validation_context": {"trusted_ca": {"filename": f"{folder}/ca.pem"}},
    }
    return {
        "name": "tls",
        "typed_config": _typed(f"transport_sockets.tls.v3.{kind}", common_tls_context=common, **more),
    }


def _clusters(
    port: int,
    http: dict[str, Any] | None = None,
    tls: dict[str, Any] | None = None,
    names: tuple[str, ...] = ("b", "beta"),
) -> list[dict[str, Any]]:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    more: dict[str, Any] = {}
    if http:
        options = _typed("upstreams.http.v3.HttpProtocolOptions", **http)
        more["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    if tls:
        more["transport_socket"] = tls
    return [
        {
            "name": name,
            "connect_timeout": "5s",
            "type": "STATIC",
            "circuit_breakers": LIMITS,
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
            **more,
        }
        for name in names
    ]


def _many(folder: Path, port: int, backend: int, count: int, routed: bool) -> list[str]:
    hosts, clusters = [], []
    for n in range(count):
        names = (f"s{n}-beta", f"s{n}-main") if routed else (f"s{n}-all",)
        domain = f"service-{n}.default.svc.cluster.local"
        routes = _routes(*names) if routed else [{"match": {"prefix": "/"}, "route": {"cluster": names[0]}}]
        hosts.append({"name": f"s{n}", "domains": [domain], "routes": routes})
        clusters += _clusters(backend, names=names)
    return _envoy(folder, "many", port, {"filters": [_manager(folder, "many", hosts)]}, clusters)


def _envoy(
    folder: Path, name: str, port: int, chain: dict[str, Any], clusters: list[dict[str, Any]], workers: int = 1
) -> list[str]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    listener = {"name": "l", "address": address, "filter_chains": [chain]}
    path = folder / f"envoy-{name}.json"
    path.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}}))
    return [str(ENVOY), "-c", str(path), "--concurrency", str(workers), "--use-dynamic-base-id", "-l", "error",
            "--disable-hot-restart"]  # fmt: skip
