"""Fairlead and a real Envoy side by side: the same requests through both, to the same apps, and what came of them.

Envoy's configuration is what istiod makes for the outbound side of a sidecar (pilot/pkg/networking/core: route.go,
listener_builder.go, cluster_builder.go), written by hand. A case is one host with its VirtualService and its Envoy
routes; all cases of a module share one sidecar and one Envoy.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import shlex
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.pair import FAIRLEAD, Processes, servers
from tests.servers import free_ports, program

EXTENSIONS = "type.googleapis.com/envoy.extensions."
UNLIMITED = 4294967295
DEFAULT_RETRIES: dict[str, Any] = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled",
    "num_retries": 2,
    "host_selection_retry_max_attempts": "5",
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": EXTENSIONS + "retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }
    ],
}
"""What istiod gives every route (retry.go); 503 is not among them (Istio 1.24 on)."""
_keys = itertools.count(1)


# --- the apps -------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Seen:
    """A request as an app got it."""

    app: str
    line: str
    headers: list[tuple[str, str]]
    body: bytes


class Apps:
    """Small servers that note what they get under the request's `x-key`, and do what its `x-do` says: one word for
    each try, the last for all that follow: a status, `reset` and `close` (without an answer) or `hang` (no answer). The
    one named `once` closes after each answer: no request meets a connection that was used before."""

    def __init__(self, *names: str, host: str = "127.0.0.1") -> None:
        self.seen: dict[str, list[Seen]] = {}
        self.came = threading.Condition()
        self.released = threading.Event()
        self.at: dict[str, int] = {}
        self._servers = []
        for name in names:
            server = _Server((host, 0), _Handler)
            server.apps, server.name = self, name
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self.at[name] = server.server_address[1]
            self._servers.append(server)

    def note(self, key: str, seen: Seen) -> int:
        with self.came:
            found = self.seen.setdefault(key, [])
            found.append(seen)
            self.came.notify_all()
            return len(found)

    def wait(self, key: str, count: int, deadline_s: float = 10.0) -> list[Seen]:
        """Those of `key`, once there are so many."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.seen.get(key, ())) >= count, deadline_s), (key, count, self.seen)
            return list(self.seen[key])

    def close(self) -> None:
        self.released.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512
    apps: Apps
    name: str


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            while self._one():
                pass

    def _one(self) -> bool:
        line = self.rfile.readline().decode("latin-1").rstrip("\r\n")
        if not line:
            return False
        headers = []
        while text := self.rfile.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = text.partition(":")
            headers.append((name.lower(), value.strip(" \t")))
        known = dict(headers)
        body = b""
        if known.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        elif "content-length" in known:
            body = self.rfile.read(int(known["content-length"]))
        apps = self.server.apps
        count = apps.note(known.get("x-key", ""), Seen(self.server.name, line, headers, body))
        words = known.get("x-do", "200").split(",")
        word = words[min(count, len(words)) - 1]
        if word == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return False
        if word == "close":
            return False
        if word == "hang":
            apps.released.wait(20)
            return False
        content = b"from " + self.server.name.encode()
        lines = [b"HTTP/1.1 %s Whatever" % word.encode(), b"content-type: text/plain", b"server: app"]
        lines += [b"x-app: " + self.server.name.encode(), b"x-multi: one", b"x-multi: two", b"x-old: kept"]
        lines += [value.encode("latin-1") for name, value in headers if name == "x-answer"]
        if self.server.name == "once":
            lines.append(b"connection: close")
        if word not in ("204", "304"):
            lines.append(b"content-length: %d" % len(content))
        none = line.startswith("HEAD ") or word in ("204", "304")
        self.wfile.write(b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if none else content))
        return known.get("connection", "").lower() != "close" and self.server.name != "once"


# --- cases and what comes of them -----------------------------------------------------------------------------------


@dataclass(eq=False)
class Case:
    """One host: `http` of its VirtualService as YAML, `envoy` its routes, and requests (see `request`)."""

    name: str
    http: str
    envoy: list[dict[str, Any]]
    requests: Sequence[str] = ()

    @property
    def host(self) -> str:
        return "".join(one if one.isalnum() else "-" for one in self.name.lower()) + ".test"


@dataclass(eq=False)
class Result:
    """What came of a request: the answer, and what the apps saw of it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    seen: list[Seen]


def to(cluster: str, **action: Any) -> dict[str, Any]:
    """The action of a route to one cluster, with what istiod gives every route."""
    return {"route": {"cluster": cluster, **_always(action)}}


def weighted(clusters: Sequence[dict[str, Any]], **action: Any) -> dict[str, Any]:
    return {"route": {"weighted_clusters": {"clusters": list(clusters)}, **_always(action)}}


def _always(action: dict[str, Any]) -> dict[str, Any]:
    found = {
        "timeout": "0s",
        "max_grpc_timeout": action.get("timeout", "0s"),
        "retry_policy": DEFAULT_RETRIES,
        **action,
    }
    return {name: value for name, value in found.items() if value is not None}


def retrying(conditions: str, attempts: int, codes: Sequence[int] = (), **more: Any) -> dict[str, Any]:
    """A route's own retry policy, as istiod turns it."""
    found = {**DEFAULT_RETRIES, "retry_on": conditions, "num_retries": attempts, **more}
    return {**found, "retriable_status_codes": list(codes)} if codes else found


def put(*pairs: tuple[str, str], append: bool = False) -> list[dict[str, Any]]:
    """Headers to set, or to append."""
    action = "APPEND_IF_EXISTS_OR_ADD" if append else "OVERWRITE_IF_EXISTS_OR_ADD"
    return [{"header": {"key": name, "value": value}, "append_action": action} for name, value in pairs]


ANY: dict[str, Any] = {"match": {"prefix": "/"}}


def request(text: str, host: str, key: str) -> bytes:
    """`METHOD TARGET name:value ...`, split as a shell does, as octets. `host:` replaces the case's; `body:TEXT`."""
    method, target, *more = shlex.split(text)
    lines, body = [], b""
    authority = host
    for one in more:
        name, _, value = one.partition(":")
        if name == "host":
            authority = value.replace("*", host)
        elif name == "body":
            body = value.encode()
        else:
            lines.append(f"{name}: {value}")
    if body:
        lines.append(f"content-length: {len(body)}")
    head = [f"{method} {target} HTTP/1.1", f"host: {authority}", *lines, f"x-key: {key}", "", ""]
    return "\r\n".join(head).encode("latin-1") + body


class Client:
    """One connection to a proxy's port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._socket: socket.socket | None = None

    def send(self, octets: bytes, timeout_s: float = 15.0) -> tuple[int, list[tuple[str, str]], bytes]:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self.port), timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(octets)
        answer = http.client.HTTPResponse(self._socket, method=octets.split(b" ", 1)[0].decode())
        answer.begin()
        body = answer.read()
        headers = [(name.lower(), value) for name, value in answer.getheaders()]
        if answer.will_close:
            self.close()
        return answer.status, headers, body

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def abandon(self) -> None:
        """From another thread: whoever waits for an answer is told that there is none."""
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)
            self.close()


class Oracle:
    """Both proxies, running; `port["fairlead"]`, `port["envoy"]`."""

    def __init__(self, processes: Processes, apps: Apps, cases: Sequence[Case], more: str, clusters: Clusters) -> None:
        self.apps = apps
        self.processes = processes
        fairlead, envoy, metrics = free_ports(3)
        self.port = {"fairlead": fairlead, "envoy": envoy}
        folder = processes.folder
        self._fairlead(folder, fairlead, metrics, cases, more)
        self._envoy(folder, envoy, cases, clusters)
        self._clients = {name: Client(port) for name, port in self.port.items()}

    def _fairlead(self, folder: Path, port: int, metrics: int, cases: Sequence[Case], more: str) -> None:
        documents: list[Any] = []
        for name, at in self.apps.at.items():
            documents += service(name, [at])
        for case in cases:
            spec = {"hosts": [case.host], "http": yaml.safe_load(case.http)}
            documents.append(
                {
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "VirtualService",
                    "metadata": {"name": case.host.removesuffix(".test")},
                    "spec": spec,
                }
            )
        text = yaml.safe_dump_all(documents) + "\n---\n" + more
        (folder / "oracle.yaml").write_text(text)
        command = [FAIRLEAD, "sidecar", "-f", str(folder / "oracle.yaml"), "--workload", "default/client-1",
                   "--inbound", "off", "--admin", "off", "--health", "off", "--metrics", f"127.0.0.1:{metrics}",
                   "--outbound", f"127.0.0.1:{port}", "--access-log", str(folder / "fairlead.access")]  # fmt: skip
        self.processes.start("fairlead", command, [port, metrics])

    def _envoy(self, folder: Path, port: int, cases: Sequence[Case], clusters: Clusters) -> None:
        hosts = [
            {
                "name": case.host,
                "domains": [case.host],
                "include_request_attempt_count": True,
                "routes": case.envoy,
            }
            for case in cases
        ]
        known = {name: cluster(name, [at]) for name, at in self.apps.at.items()} | dict(clusters)
        config = {
            "static_resources": {"listeners": [_listener(port, _manager(folder, hosts))], "clusters": [*known.values()]}
        }
        path = folder / "envoy.json"
        path.write_text(json.dumps(config))
        command = [program("envoy"), "-c", str(path), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning",
                   "--disable-hot-restart", "--file-flush-interval-msec", "50"]  # fmt: skip
        self.processes.start("envoy", command, [port])

    def ask(self, proxy: str, case: Case, text: str, expected: int = 0) -> Result:
        """One request through one proxy; waits for `expected` requests at the apps."""
        key = f"{proxy}-{next(_keys)}"
        status, headers, body = self._clients[proxy].send(request(text, case.host, key))
        if expected:
            self.apps.wait(key, expected)
        return Result(status, headers, body, self.apps.seen.get(key, []))

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def both(self, case: Case, text: str, expected: int = 0) -> tuple[Result, Result]:
        """(Fairlead's, Envoy's)."""
        return self.ask("fairlead", case, text, expected), self.ask("envoy", case, text, expected)


Clusters = Mapping[str, dict[str, Any]]


@contextlib.contextmanager
def oracle(
    folder: Path,
    cases: Sequence[Case],
    apps: Apps,
    more: str = "",
    clusters: Clusters | None = None,
    kind: type[Oracle] = Oracle,
) -> Iterator[Oracle]:
    """`more`: manifests besides the services of `apps` and the cases; `clusters`: what Envoy has for them; `kind`: how
    Envoy comes by its configuration."""
    assert len({case.host for case in cases}) == len(cases), "two cases of one name"
    try:
        with servers(folder) as processes:
            made = kind(processes, apps, cases, more, clusters or {})
            try:
                yield made
            finally:
                made.close()
            assert "Traceback" not in processes.log("fairlead"), processes.log("fairlead")
    finally:
        apps.close()


def service(name: str, ports: Sequence[int]) -> list[dict[str, Any]]:
    """A Service with port 80, and an EndpointSlice for each of `ports` on loopback."""
    found: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        }
    ]
    for number, port in enumerate(ports):
        found.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": f"{name}-{number}", "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": port}],
                "endpoints": [{"addresses": ["127.0.0.1"]}],
            }
        )
    return found


def cluster(name: str, ports: Sequence[int], **more: Any) -> dict[str, Any]:
    """What istiod makes of such a service."""
    address = [{"socket_address": {"address": "127.0.0.1", "port_value": port}} for port in ports]
    endpoints = [{"endpoint": {"address": one}} for one in address]
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), UNLIMITED)
    return {
        "name": name,
        "connect_timeout": "10s",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        **more,
    }


def _typed(kind: str, **more: Any) -> dict[str, Any]:
    return {"@type": EXTENSIONS + kind, **more}


def _listener(port: int, manager: dict[str, Any]) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": "outbound", "address": address, "filter_chains": [{"filters": [manager]}]}


def _manager(folder: Path, hosts: list[dict[str, Any]]) -> dict[str, Any]:
    filters = [
        {"name": "envoy.filters.http.fault", "typed_config": _typed("filters.http.fault.v3.HTTPFault")},
        {"name": "envoy.filters.http.cors", "typed_config": _typed("filters.http.cors.v3.Cors")},
        {"name": "envoy.filters.http.router", "typed_config": _typed("filters.http.router.v3.Router")},
    ]
    log = _typed("access_loggers.file.v3.FileAccessLog", path=f"{folder}/envoy.access")
    config = _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="outbound",
        use_remote_address=False,
        normalize_path=True,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        stream_idle_timeout="0s",
        upgrade_configs=[{"upgrade_type": "websocket"}],
        route_config={
            "name": "80",
            "virtual_hosts": hosts,
            "validate_clusters": False,
            "max_direct_response_body_size_bytes": 1048576,
            "ignore_port_in_host_matching": True,
        },
        http_filters=filters,
        access_log=[{"name": "envoy.access_loggers.file", "typed_config": log}],
    )
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


# --- comparing ------------------------------------------------------------------------------------------------------

INTENDED = {
    "x-fairlead-reason": "our own answers carry their code (the contract of reasons)",
    "server": "an endpoint's own is passed on, and our answers have none: it tells of the app",
    "date, x-envoy-upstream-service-time": "moments and durations; that both have one is compared",
    "x-envoy-expected-rq-timeout-ms of later tries": "what is left of the time; that both say so is compared",
    "x-request-id": "where the proxy made it: that both made a UUID is compared",
    "connection and transfer-encoding of own answers": "Envoy ends a connection whose request it has not yet read, and "
    "promises chunks to HEAD; we read the rest, and say what GET would have got",
    "content-length: 0 of a request": "Envoy adds it to POST and its like without a body; we pass on what came",
    "the realm of www-authenticate, and one at all of 403": "ours is the origin; Envoy repeats the URL, and with it a "
    "token that stands there",
    "several lines of x-forwarded-for": "Envoy makes one of them, which means the same (RFC 9110 section 5.3)",
    "Hash of x-forwarded-client-cert": "the peer is its identity; its certificate is another every few hours",
    "connection: te": "TE must be named in Connection (RFC 9110 section 10.1.4)",
    "body, content-type and content-length of own answers": "ours is one sentence with the numbers in it, where Envoy "
    "has a fixed text; direct responses are compared in full",
}
"""What differs by intention in every case, and why. Single requests: DIFFERENT of oracle_cases.py."""
_UUID = "an identifier"
_FREE = ("x-key", "x-do", "x-fairlead-reason", "server")


def _told(headers: Sequence[tuple[str, str]], sent: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if name in _FREE or (name, value) in (("content-length", "0"), ("connection", "te")):
            continue
        if name in ("date", "x-envoy-upstream-service-time"):
            value = "some"
        if name == "x-envoy-expected-rq-timeout-ms" and ("x-envoy-attempt-count", "1") not in headers:
            value = "what is left"
        if name == "www-authenticate":
            value = value.partition(" ")[0]
        if name == "x-forwarded-client-cert":
            value = re.sub("Hash=[0-9a-f]{64};", "", value)
        if name == "x-request-id" and f"x-request-id:{value}" not in sent:
            value = _UUID if len(value) == 36 and value[14] == "4" else value
        found.setdefault(name, []).append(value)
    if "x-forwarded-for" in found:
        found["x-forwarded-for"] = [",".join(found["x-forwarded-for"])]
    return found


def shown(result: Result, sent: str, own_body: bool = False) -> dict[str, Any]:
    """What is compared of a result. `own_body`: of an answer of the proxy itself the body must be the same, too."""
    answer = _told(result.headers, sent)
    endpoint = "x-app" in answer
    if not endpoint:
        if result.status == 403:
            answer.pop("www-authenticate", None)
        for name in ("connection", "transfer-encoding", *(() if own_body else ("content-length", "content-type"))):
            answer.pop(name, None)
    return {
        "status": result.status,
        "answer": answer,
        "body": result.body if endpoint or own_body else "free",
        "seen": [(one.app, one.line, _told(one.headers, sent), one.body) for one in result.seen],
    }


def differences(ours: Result, theirs: Result, sent: str, own_body: bool = False) -> str:
    """Empty where both are the same."""
    first, second = shown(ours, sent, own_body), shown(theirs, sent, own_body)
    told = [f"{sent!r}: Fairlead and Envoy differ"]
    for name, value in first.items():
        if value != second[name]:
            told += [f"  {name}", f"    Fairlead {value!r}", f"    Envoy    {second[name]!r}"]
    return "\n".join(told) if len(told) > 1 else ""


def eventually(what: str, ready: Any, deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not ready():
        assert time.monotonic() < end, f"waited {deadline_s} s for {what}"
        time.sleep(0.02)
