# ruff: noqa: E501
"""The proxies that are compared, each configured for the same work: one thread, one backend, the same routes.

Kinds of work: `l7` (routes by path and header), `l7quiet` (the same without access log), `l7x2` (two
workers), `l4` (TCP), `pair` (plain HTTP in, mutual TLS between two proxies, plain HTTP out), `pairnew` (the same with a new
connection between the two for each request, its TLS session resumed where a proxy does so by itself),
`h2` and `grpc` (HTTP/2 by prior knowledge on both sides), `known10` and `known1000` (so many upstream services, no load),
`routed1000` (a thousand, each with routes by path and header, as `l7`).

Every proxy writes an access log to a file, in its own default format, at L4 too; nginx, Envoy and Fairlead gather lines before
they write, HAProxy can't. Each adds a request id and X-Forwarded-For, and keeps counters as far as it has them (nginx has
none). TLS is 1.3 with P-256 certificates and X25519. The cipher is what each takes by itself: AES-256-GCM where OpenSSL is
on both sides, AES-128-GCM with Envoy. Each function returns the commands to start, in order, and writes what they need.
"""

from __future__ import annotations

import os
import string
from collections.abc import Callable
from pathlib import Path

from bench.peers_envoy import envoy
from bench.peers_fairlead import fairlead

GRPC_PATH, H2_PATH = "/api.Items/Get.grpc", "/api/items.txt"


MANY = ("known", "routed")


def count_of(kind: str) -> int:
    """How many services the kinds of `MANY` have."""
    return int(kind.lstrip(string.ascii_lowercase))


def ways_of(kind: str) -> tuple[str, ...]:
    """The backends of each service of a kind of `MANY`."""
    return ("beta", "main") if kind.startswith("routed") else ("all",)


def ports_of(kind: str, port: int) -> list[int]:
    """Which listen once a proxy is ready: `port`, and of a pair the one in the middle as well."""
    return [port + 1, port] if kind.startswith("pair") else [port]


# --- the backend ----------------------------------------------------------------------------------------------------


def backend(kind: str, folder: Path, port: int) -> list[str]:
    """What answers behind every proxy: 100 bytes at any path, 1 MiB at /api/big; for HTTP/2, nghttpd.

    /api/upload is answered once its body is read, which nginx does only for a server behind it: itself.
    """
    www = folder / "www"
    (www / "api").mkdir(parents=True, exist_ok=True)
    if kind in ("h2", "grpc"):
        (www / "api.Items").mkdir(exist_ok=True)
        (www / H2_PATH[1:]).write_bytes(b"y" * 100)
        (www / GRPC_PATH[1:]).write_bytes(b"\0\0\0\0\x64" + b"\n\x62" + b"y" * 98)
        (folder / "mime.types").write_text("application/grpc grpc\ntext/plain txt\n")
        more = ["--trailer", "grpc-status: 0"] if kind == "grpc" else []
        return ["nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", str(www), f"--mime-types-file={folder}/mime.types", *more, str(port)]  # fmt: skip
    (www / "api" / "big").write_bytes(b"x" * (1 << 20))
    body = (
        f"server {{ listen 127.0.0.1:{port} backlog=4096; root {www}; client_max_body_size 0; "
        f"location = /api/upload {{ client_body_buffer_size 2m; proxy_pass http://127.0.0.1:{port}/api/items; "
        "proxy_pass_request_body off; proxy_set_header Content-Length ''; } "
        f'location = /api/big {{ }} location / {{ default_type text/plain; return 200 "{"y" * 100}"; }} }}'
    )
    return _nginx(folder, "backend", NGINX_HTTP.format(folder=folder, body=body, access="off"))


# --- HAProxy --------------------------------------------------------------------------------------------------------

HAPROXY_TOP = """
global
    nbthread {threads}
    no strict-limits
    maxconn 12000
    log stdout format raw local0
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-server-options ssl-min-ver TLSv1.3
defaults
    mode {mode}
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
    {options}
"""


def haproxy(kind: str, folder: Path, port: int, backend: int) -> list[list[str]]:
    http = "" if kind == "l7quiet" else "log global\n    option httplog\n    "
    top = {
        "threads": "2" if kind == "l7x2" else "1",
        "mode": "http",
        "options": http + "http-reuse always",
    }
    if kind == "l4":
        text = HAPROXY_TOP.format(**{**top, "mode": "tcp", "options": "log global\n    option tcplog"})
        text += f"listen l4\n    bind 127.0.0.1:{port}\n    server s 127.0.0.1:{backend}\n"
        return [_haproxy(folder, "l4", text)]
    if kind.startswith(MANY):
        text = HAPROXY_TOP.format(**top) + _haproxy_many(port, backend, count_of(kind), ways_of(kind))
        return [_haproxy(folder, "many", text)]
    if not kind.startswith("pair"):
        proto = " proto h2" if kind in ("h2", "grpc") else ""
        text = HAPROXY_TOP.format(**top) + _haproxy_route(port, f"server s 127.0.0.1:{backend}{proto}", proto)
        return [_haproxy(folder, "l7", text)]
    middle = port + 1
    inner = HAPROXY_TOP.format(**top) + (
        f"frontend f\n    bind 127.0.0.1:{middle} ssl crt {folder}/server.both ca-file {folder}/ca.pem verify required\n"
        f"    option forwardfor\n    default_backend b\nbackend b\n    server s 127.0.0.1:{backend}\n"
    )
    if kind != "pair":
        top["options"] += "\n    option http-server-close\n    http-reuse never"
    to = f"server s 127.0.0.1:{middle} ssl crt {folder}/client.both ca-file {folder}/ca.pem verify required"
    out = HAPROXY_TOP.format(**top) + _haproxy_route(port, to)
    return [_haproxy(folder, "in", inner), _haproxy(folder, "out", out)]


HAPROXY_FRONT = (
    "frontend f\n    bind 127.0.0.1:{port}{proto}\n    option forwardfor\n    unique-id-format %{{+X}}o%ci%cp%fi%fp%Ts%rt%pid\n"
    "    unique-id-header x-request-id\n"
)


def _haproxy_route(port: int, server: str, proto: str = "") -> str:
    return HAPROXY_FRONT.format(port=port, proto=proto) + (
        "    acl api path_beg /api\n    acl beta hdr(x-beta) yes\n"
        "    use_backend beta if api beta\n    use_backend b if api\n    default_backend none\n"
        f"backend b\n    {server}\nbackend beta\n    {server}\nbackend none\n    http-request deny deny_status 404\n"
    )


def _haproxy_many(port: int, backend: int, count: int, ways: tuple[str, ...]) -> str:
    use, backends = [], []
    when = {"beta": "{ path_beg /api } { hdr(x-beta) yes }", "main": "{ path_beg /api }", "all": ""}
    for n in range(count):
        use += [f"    acl host{n} hdr(host) -i service-{n}.default.svc.cluster.local"]
        use += [f"    use_backend s{n}-{way} if host{n} {when[way]}" for way in ways]
        backends += [f"backend s{n}-{way}\n    server s 127.0.0.1:{backend}" for way in ways]
    return HAPROXY_FRONT.format(port=port, proto="") + "\n".join([*use, *backends, ""])


def _haproxy(folder: Path, name: str, text: str) -> list[str]:
    path = folder / f"haproxy-{name}.cfg"
    path.write_text(text)
    return ["haproxy", "-db", "-f", str(path)]


# --- nginx ----------------------------------------------------------------------------------------------------------

NGINX_TOP = """
worker_processes {workers};
worker_rlimit_nofile {files};
daemon off;
pid {folder}/nginx-{name}.pid;
error_log {folder}/nginx-{name}.err;
{load}
events {{ worker_connections 15000; }}
"""
NGINX_HTTP = """
http {{
    access_log {access};
    keepalive_requests 100000000; keepalive_timeout 600s;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {body}
}}
"""
NGINX_HEADERS = (
    "{via}_set_header Host $host; {via}_set_header X-Request-Id $request_id; "
    "{via}_set_header X-Forwarded-For $proxy_add_x_forwarded_for; client_max_body_size 0; "
)
NGINX_PROXY = (
    NGINX_HEADERS.format(via="proxy") + "proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off; "
)
NGINX_KEEP = NGINX_PROXY + "proxy_set_header Connection ''; "
NGINX_MAP = "map $http_x_beta $pool { default b; yes beta; } "
NGINX_MODULES = Path("/usr/lib/nginx/modules")


def _upstream(name: str, port: int, keep: bool = True) -> str:
    more = "keepalive 256; keepalive_requests 100000000; " if keep else ""
    return f"upstream {name} {{ server 127.0.0.1:{port}; {more}}} "


def nginx(kind: str, folder: Path, port: int, backend: int) -> list[list[str]]:
    access = f"{folder}/nginx-access.log combined buffer=64k flush=1s" if kind != "l7quiet" else "off"
    if kind == "l4":
        log = f"log_format l4 '$remote_addr [$time_iso8601] $protocol $status $bytes_sent $bytes_received $session_time'; access_log {folder}/nginx-l4.log l4 buffer=64k flush=1s; "
        text = f"stream {{ {log} upstream b {{ server 127.0.0.1:{backend}; }} server {{ listen 127.0.0.1:{port}; proxy_pass b; }} }}\n"
        return [_nginx(folder, "l4", text, f"load_module {NGINX_MODULES}/ngx_stream_module.so;")]
    if kind.startswith(MANY):
        body = _nginx_many(port, backend, count_of(kind), ways_of(kind))
        return [_nginx(folder, "many", NGINX_HTTP.format(folder=folder, body=body, access=access))]
    if not kind.startswith("pair"):
        body = _upstream("b", backend) + _upstream("beta", backend) + NGINX_MAP
        if kind in ("h2", "grpc"):
            to = f"grpc_pass grpc://$pool; {NGINX_HEADERS.format(via='grpc')}"
            body += f"server {{ listen 127.0.0.1:{port} http2; location /api {{ {to} }} }}"
        else:
            body += f"server {{ listen 127.0.0.1:{port}{' reuseport' if kind == 'l7x2' else ''}; location /api {{ proxy_pass http://$pool; {NGINX_KEEP} }} }}"
        return [_nginx(folder, "l7", NGINX_HTTP.format(folder=folder, body=body, access=access), workers=2 if kind == "l7x2" else 1)]  # fmt: skip
    middle = port + 1
    tls = (
        f"proxy_ssl_certificate {folder}/client.pem; proxy_ssl_certificate_key {folder}/client.key; "
        f"proxy_ssl_trusted_certificate {folder}/ca.pem; proxy_ssl_verify on; proxy_ssl_name server.bench; "
        f"proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3; "
    )
    keep = kind == "pair"
    out = _upstream("b", middle, keep) + _upstream("beta", middle, keep) + NGINX_MAP
    out += f"server {{ listen 127.0.0.1:{port}; location /api {{ proxy_pass https://$pool; {NGINX_KEEP if keep else NGINX_PROXY} {tls} }} }}"
    inner = _upstream("b", backend) + (
        f"server {{ listen 127.0.0.1:{middle} ssl backlog=4096; ssl_protocols TLSv1.3; ssl_certificate {folder}/server.pem; "
        f"ssl_certificate_key {folder}/server.key; ssl_client_certificate {folder}/ca.pem; ssl_verify_client on; "
        f"location / {{ proxy_pass http://b; {NGINX_KEEP} }} }}"
    )
    log = f"{folder}/nginx-in.log combined buffer=64k flush=1s"
    return [
        _nginx(folder, "in", NGINX_HTTP.format(folder=folder, body=inner, access=log)),
        _nginx(folder, "out", NGINX_HTTP.format(folder=folder, body=out, access=access)),
    ]


def _nginx_many(port: int, backend: int, count: int, ways: tuple[str, ...]) -> str:
    way = "$way" if len(ways) > 1 else ways[0]
    body = "map $http_x_beta $way { default main; yes beta; } server_names_hash_max_size 8192; server_names_hash_bucket_size 128; "
    for n in range(count):
        body += "".join(_upstream(f"s{n}-{one}", backend) for one in ways)
        name, path = f"service-{n}.default.svc.cluster.local", "/api" if len(ways) > 1 else "/"
        body += f"server {{ listen 127.0.0.1:{port}; server_name {name}; location {path} {{ proxy_pass http://s{n}-{way}; {NGINX_KEEP} }} }} "
    return body


def _nginx(folder: Path, name: str, text: str, load: str = "", workers: int = 1) -> list[str]:
    path = folder / f"nginx-{name}.conf"
    user = "user root; " if os.geteuid() == 0 else ""
    path.write_text(NGINX_TOP.format(folder=folder, name=name, load=load + user, workers=workers, files=20000) + text)
    return ["nginx", "-e", f"{folder}/nginx-{name}.err", "-c", str(path)]


PEERS: dict[str, Callable[[str, Path, int, int], list[list[str]]]] = {
    "HAProxy": haproxy,
    "nginx": nginx,
    "Envoy": envoy,
    "Fairlead": fairlead,
}
