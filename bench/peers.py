# ruff: noqa: E501
"""The proxies that are compared, each configured for the same work: one thread, one backend, the same route.

A work is `l7` (route by path and header), `l4` (TCP), `pair` (plain HTTP in, mutual TLS between two proxies, plain HTTP
out). Each function returns the commands to start, in order, for a folder to write configuration to.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FAIRLEAD = str(Path(sys.executable).with_name("fairlead"))
ROOT = Path(__file__).resolve().parent.parent
ENVOY = ROOT / ".servers" / "envoy" / "envoy" / "_bin" / "envoy"
HOST = "web.default.svc.cluster.local"


# --- HAProxy --------------------------------------------------------------------------------------------------------

HAPROXY_TOP = """
global
    nbthread 1
    maxconn 4000
    stats socket {folder}/{name}.sock
    log {folder}/{name}.log local0
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-server-options ssl-min-ver TLSv1.3
defaults
    mode {mode}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    {reuse}
"""


def haproxy(work: str, folder: Path, port: int, backend: int) -> list[list[str]]:
    if work == "l4":
        text = HAPROXY_TOP.format(folder=folder, name="l4", mode="tcp", reuse="")
        text += f"listen l4\n    bind 127.0.0.1:{port}\n    server s 127.0.0.1:{backend}\n"
        return [_haproxy(folder, "l4", text)]
    if work == "l7":
        text = HAPROXY_TOP.format(folder=folder, name="l7", mode="http", reuse="http-reuse always")
        return [_haproxy(folder, "l7", text + _haproxy_route(port, f"server s 127.0.0.1:{backend}"))]
    middle = port + 1
    out = HAPROXY_TOP.format(folder=folder, name="out", mode="http", reuse="http-reuse always")
    out += _haproxy_route(
        port, f"server s 127.0.0.1:{middle} ssl crt {folder}/client.both ca-file {folder}/ca.pem verify required"
    )
    inner = HAPROXY_TOP.format(folder=folder, name="in", mode="http", reuse="http-reuse always")
    inner += (
        f"frontend f\n    bind 127.0.0.1:{middle} ssl crt {folder}/server.both ca-file {folder}/ca.pem verify required\n"
        f"    option forwardfor\n    default_backend b\nbackend b\n    server s 127.0.0.1:{backend}\n"
    )
    return [_haproxy(folder, "in", inner), _haproxy(folder, "out", out)]


def _haproxy_route(port: int, server: str) -> str:
    return (
        f"frontend f\n    bind 127.0.0.1:{port}\n    option forwardfor\n    unique-id-format %{{+X}}o%ci%cp%fi%fp%Ts%rt%pid\n"
        "    unique-id-header x-request-id\n"
        "    acl api path_beg /api\n    acl beta hdr(x-beta) yes\n"
        "    use_backend beta if api beta\n    use_backend b if api\n    default_backend none\n"
        f"backend b\n    {server}\nbackend beta\n    {server}\nbackend none\n    http-request deny deny_status 404\n"
    )


def _haproxy(folder: Path, name: str, text: str) -> list[str]:
    path = folder / f"haproxy-{name}.cfg"
    path.write_text(text)
    return ["haproxy", "-db", "-f", str(path)]


# --- nginx ----------------------------------------------------------------------------------------------------------

NGINX_TOP = """
worker_processes 1;
daemon off;
pid {folder}/nginx-{name}.pid;
error_log {folder}/nginx-{name}.err;
{load}
events {{ worker_connections 4096; }}
"""
NGINX_HTTP = """
http {{
    access_log {access};
    keepalive_requests 100000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {body}
}}
"""


def nginx_backend(folder: Path, port: int) -> list[str]:
    """What answers behind every proxy: 100 bytes at any path, 1 MiB at /api/big."""
    (folder / "www" / "api").mkdir(parents=True, exist_ok=True)
    (folder / "www" / "api" / "big").write_bytes(b"x" * (1 << 20))
    body = (
        f"server {{ listen 127.0.0.1:{port} backlog=4096; root {folder}/www; "
        f'location = /api/big {{ }} location / {{ default_type text/plain; return 200 "{"y" * 100}"; }} }}'
    )
    return _nginx(folder, "backend", NGINX_HTTP.format(folder=folder, body=body, access="off"))


def nginx(work: str, folder: Path, port: int, backend: int) -> list[list[str]]:
    access = folder / "nginx-access.log"
    if work == "l4":
        return []  # Debian's nginx-light has no stream module
    one = "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host; proxy_set_header X-Request-Id $request_id; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_buffering off;"
    route = "map $http_x_beta $pool { default b; yes beta; }"
    if work == "l7":
        pools = "".join(
            f"upstream {n} {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 100000000; }}"
            for n in ("b", "beta")
        )
        body = (
            f"{pools}{route} server {{ listen 127.0.0.1:{port}; location /api {{ proxy_pass http://$pool; {one} }} }}"
        )
        return [_nginx(folder, "l7", NGINX_HTTP.format(folder=folder, body=body, access=access))]
    middle = port + 1
    pools = "".join(
        f"upstream {n} {{ server 127.0.0.1:{middle}; keepalive 256; keepalive_requests 100000000; }}"
        for n in ("b", "beta")
    )
    tls = (
        f"proxy_ssl_certificate {folder}/client.pem; proxy_ssl_certificate_key {folder}/client.key; "
        f"proxy_ssl_trusted_certificate {folder}/ca.pem; proxy_ssl_verify on; proxy_ssl_name server.bench; "
        "proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3;"
    )
    out = f"{pools}{route} server {{ listen 127.0.0.1:{port}; location /api {{ proxy_pass https://$pool; {one} {tls} }} }}"
    inner = (
        f"upstream b {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 100000000; }} "
        f"server {{ listen 127.0.0.1:{middle} ssl; ssl_protocols TLSv1.3; ssl_certificate {folder}/server.pem; "
        f"ssl_certificate_key {folder}/server.key; ssl_client_certificate {folder}/ca.pem; ssl_verify_client on; "
        f"location / {{ proxy_pass http://b; {one} }} }}"
    )
    return [
        _nginx(folder, "in", NGINX_HTTP.format(folder=folder, body=inner, access=folder / "nginx-in.log")),
        _nginx(folder, "out", NGINX_HTTP.format(folder=folder, body=out, access=access)),
    ]


def _nginx(folder: Path, name: str, text: str) -> list[str]:
    path = folder / f"nginx-{name}.conf"
    path.write_text(NGINX_TOP.format(folder=folder, name=name, load="user root;" if os.geteuid() == 0 else "") + text)
    return ["nginx", "-e", f"{folder}/nginx-{name}.err", "-c", str(path)]


# --- Envoy ----------------------------------------------------------------------------------------------------------


def envoy(work: str, folder: Path, port: int, backend: int) -> list[list[str]]:
    if work == "l4":
        chain = (
            '{filters: [{name: envoy.filters.network.tcp_proxy, typed_config: {"@type": '
            "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: l4, cluster: b}}]}"
        )
        return [_envoy(folder, "l4", port, chain, backend, "")]
    if work == "l7":
        return [_envoy(folder, "l7", port, _envoy_http(folder, "l7", _ENVOY_ROUTES, ""), backend, "")]
    middle = port + 1
    client = _envoy_tls("UpstreamTlsContext", folder, "client", "sni: server.bench,")
    server = _envoy_tls("DownstreamTlsContext", folder, "server", "require_client_certificate: true,")
    return [
        _envoy(
            folder, "in", middle, _envoy_http(folder, "in", _ENVOY_ANY, f"transport_socket: {server},"), backend, ""
        ),
        _envoy(
            folder, "out", port, _envoy_http(folder, "out", _ENVOY_ROUTES, ""), middle, f"transport_socket: {client},"
        ),
    ]


_ENVOY_ROUTES = (
    "{name: r, virtual_hosts: [{name: v, domains: ['*'], routes: ["
    "{match: {prefix: /api, headers: [{name: x-beta, string_match: {exact: 'yes'}}]}, route: {cluster: beta}},"
    "{match: {prefix: /api}, route: {cluster: b}}]}]}"
)
_ENVOY_ANY = (
    "{name: r, virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: b}}]}]}"
)


def _envoy_http(folder: Path, name: str, routes: str, more: str) -> str:
    return (
        "{" + more + ' filters: [{name: envoy.filters.network.http_connection_manager, typed_config: {"@type": '
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, "
        f"stat_prefix: {name}, route_config: {routes}, "
        'access_log: [{name: envoy.access_loggers.file, typed_config: {"@type": '
        f"type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {folder}/envoy-{name}.log}}}}], "
        'http_filters: [{name: envoy.filters.http.router, typed_config: {"@type": '
        "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}"
    )


def _envoy_tls(kind: str, folder: Path, who: str, more: str) -> str:
    return (
        '{name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.'
        + kind
        + ", "
        f"{more} common_tls_context: {{tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}, "
        f"tls_certificates: [{{certificate_chain: {{filename: {folder}/{who}.pem}}, private_key: {{filename: {folder}/{who}.key}}}}], "
        f"validation_context: {{trusted_ca: {{filename: {folder}/ca.pem}}}}}}}}}}"
    )


def _envoy(folder: Path, name: str, port: int, chain: str, upstream: int, more: str) -> list[str]:
    clusters = ",".join(
        f"{{name: {cluster}, connect_timeout: 5s, type: STATIC, {more} circuit_breakers: {{thresholds: [{{max_connections: 100000, "
        f"max_pending_requests: 100000, max_requests: 100000}}]}}, load_assignment: {{cluster_name: {cluster}, endpoints: [{{lb_endpoints: "
        f"[{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]}}]}}}}"
        for cluster in ("b", "beta")
    )
    path = folder / f"envoy-{name}.yaml"
    path.write_text(
        f"static_resources: {{listeners: [{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}, "
        f"filter_chains: [{chain}]}}], clusters: [{clusters}]}}\n"
    )
    return [
        str(ENVOY),
        "-c",
        str(path),
        "--concurrency",
        "1",
        "--use-dynamic-base-id",
        "-l",
        "error",
        "--disable-hot-restart",
    ]


# --- Fairlead -------------------------------------------------------------------------------------------------------

MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: http}}, {{name: tcp-raw, port: 81, targetPort: http}}]
---
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  labels: {{app: web}}
  annotations: {{fairlead.dev/address: 127.0.0.1{mesh}}}
spec:
  serviceAccountName: server
  containers: [{{name: web, ports: [{{name: http, containerPort: {backend}}}]}}]
---
apiVersion: v1
kind: Pod
metadata:
  name: client-1
  labels: {{app: client}}
  annotations: {{fairlead.dev/address: 127.0.0.1}}
spec: {{serviceAccountName: client, containers: [{{name: client}}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web}}
spec: {{host: web, subsets: [{{name: beta, labels: {{app: web}}}}, {{name: main, labels: {{app: web}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web}}
spec:
  hosts: [web]
  http:
    - match: [{{uri: {{prefix: /api}}, headers: {{x-beta: {{exact: "yes"}}}}}}]
      route: [{{destination: {{host: web, subset: beta}}}}]
    - match: [{{uri: {{prefix: /api}}}}]
      route: [{{destination: {{host: web, subset: main}}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: web}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{app: client}}}}}}]}}]
"""


def fairlead(work: str, folder: Path, port: int, backend: int) -> list[list[str]]:
    middle = port + 1
    mesh = f', fairlead.dev/mesh-port: "{middle}"' if work == "pair" else ""
    (folder / "fairlead.yaml").write_text(MANIFESTS.format(mesh=mesh, backend=backend))
    common = [FAIRLEAD, "sidecar", "-f", str(folder / "fairlead.yaml"), "--admin", "off", "--health", "off"]
    client = [*common, "--workload", "default/client-1", "--metrics", f"127.0.0.1:{port + 2}", "--inbound", "off",
              "--access-log", str(folder / "fairlead-out.log")]  # fmt: skip
    if work == "l4":
        return [[*client, "--outbound", "off", "--listen", f"127.0.0.1:{port}=web.default:81"]]
    if work == "l7":
        return [[*client, "--outbound", f"127.0.0.1:{port}"]]
    files = ["--ca", str(folder / "ca.pem")]
    return [
        [*common, "--workload", "default/web-1", "--metrics", f"127.0.0.1:{port + 3}", "--inbound", f"127.0.0.1:{middle}",
         "--outbound", "off", "--cert", str(folder / "server.pem"), "--key", str(folder / "server.key"), *files,
         "--access-log", str(folder / "fairlead-in.log")],
        [*client, "--outbound", f"127.0.0.1:{port}", "--cert", str(folder / "client.pem"), "--key",
         str(folder / "client.key"), *files],
    ]  # fmt: skip


PEERS = {"HAProxy": haproxy, "nginx": nginx, "Envoy": envoy, "Fairlead": fairlead}
