"""Byte streams through sidecars as processes: a server that speaks first, TLS passed through by server name, TLS
originated, the PROXY protocol."""

from __future__ import annotations

import http.server
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.machine import certificates
from fairlead.proxy import proxy_protocol
from tests.e2e.pair import FAIRLEAD, Pair, Processes, run, servers, start_app, start_nats
from tests.servers import free_ports

DEADLINE_S = 20.0
SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{name: {port_name}, port: {number}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: {port_name}, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
---
"""
ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tls}
spec:
  hosts: [tls, server.bench, '*.wild.bench']
  tls:
  - match: [{sniHosts: [server.bench]}]
    route: [{destination: {host: exact}}]
  - match: [{sniHosts: ['*.wild.bench']}]
    route: [{destination: {host: wild}}]
---
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec: {{host: {name}, trafficPolicy: {policy}}}
---
"""


class Named(http.server.BaseHTTPRequestHandler):
    """Answers with its server's name and what TLS agreed on."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        peer = self.connection.getpeercert() or {}
        who = dict(peer.get("subjectAltName", ())).get("URI", "")
        body = f"{self.server.name} {self.connection.sni} {who}".encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


def https(folder: Path, name: str, mutual: bool = False) -> http.server.ThreadingHTTPServer:
    """A TLS server of the standard library, which says its name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.set_alpn_protocols(["http/1.1"])
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / "ca.pem")

    class Socket(ssl.SSLSocket):
        sni = ""

    def named(found: Any, sni: str | None, _context: ssl.SSLContext) -> None:
        found.sni = sni or "-"

    context.sslsocket_class = Socket
    context.sni_callback = named
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Named)
    server.name = name  # type: ignore[attr-defined]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


LONG = b"to its last octet" * 200_000


def rude(folder: Path) -> socket.socket:
    """A TLS server that sends much and then closes its TCP connection, without a word of TLS, as many do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            with context.wrap_socket(accepted, server_side=True) as server:
                server.sendall(LONG)

    threading.Thread(target=serve, daemon=True).start()
    return listening


class Sidecar:
    """An outbound sidecar before TLS servers: `tls` is the port that is passed through, `outbound` the one by host."""

    def __init__(self, processes: Processes) -> None:
        self.folder = folder = processes.folder
        certificates(folder)
        self.processes = processes
        self.rude = rude(folder)
        self.servers = {name: https(folder, name, name == "mutual") for name in ("tls", "exact", "wild", "simple")}
        self.servers["mutual"] = https(folder, "mutual", True)
        ports = {name: server.server_address[1] for name, server in self.servers.items()}
        ports["wrong"] = ports["simple"]
        ports["rude"] = self.rude.getsockname()[1]
        (ports["proxied"],) = free_ports(1)
        self.proxied = ports["proxied"]
        text = ROUTES
        for name, port in ports.items():
            passed = name in ("tls", "exact", "wild")
            port_name, number = (
                ("tls", 443) if passed else ("bus", 1000) if name in ("proxied", "rude") else ("http", 80)
            )
            text += SERVICE.format(name=name, port_name=port_name, number=number, port=port)
        files = f"caCertificates: {folder}/ca.pem, sni: server.bench"
        own = f"clientCertificate: {folder}/client.pem, privateKey: {folder}/client.key"
        for name, policy in {
            "simple": f"{{tls: {{mode: SIMPLE, {files}, subjectAltNames: [server.bench]}}}}",
            "wrong": f"{{tls: {{mode: SIMPLE, {files}, subjectAltNames: [other.bench]}}}}",
            "mutual": f"{{tls: {{mode: MUTUAL, {files}, {own}}}}}",
            "rude": f"{{tls: {{mode: SIMPLE, {files}}}}}",
            "proxied": "{proxyProtocol: {version: V2}}",
        }.items():
            text += RULE.format(name=name, policy=policy)
        (folder / "rules.yaml").write_text(text)
        self.outbound, self.tls, self.before_proxied, self.before_rude = free_ports(4)
        listen = [f"127.0.0.1:{self.tls}=tls.default:443", f"127.0.0.1:{self.before_proxied}=proxied.default:1000",
                  f"127.0.0.1:{self.before_rude}=rude.default:1000"]  # fmt: skip
        command = [FAIRLEAD, "sidecar", "-f", str(folder / "rules.yaml"), "--workload", "default/client-1",
                   "--inbound", "off", "--admin", "off", "--health", "off", "--metrics", "off",
                   "--proxy-protocol", "listen=192.0.2.0/24",
                   "--outbound", f"127.0.0.1:{self.outbound}", "--listen", listen[0],
                   "--listen", listen[1], "--listen", listen[2]]  # fmt: skip
        processes.start("sidecar", command, [self.outbound, self.tls])

    def by_host(self, host: str, *more: str) -> bytes:
        return run("curl", "-s", "-H", f"Host: {host}.default", *more, f"http://127.0.0.1:{self.outbound}/")


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with servers(tmp_path_factory.mktemp("streams")) as processes:
        made = Sidecar(processes)
        yield made
        assert "Traceback" not in processes.log("sidecar")
        for server in made.servers.values():
            server.shutdown()
            server.server_close()
        made.rude.close()


def ask(sidecar: Sidecar, name: str | None, alpn: list[str] | None = None, cuts: int = 1) -> tuple[str, str | None]:
    """A TLS client of the standard library, its ClientHello in `cuts` pieces: the answer, and the ALPN agreed on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(sidecar.folder / "ca.pem")
    context.set_alpn_protocols(alpn or ["http/1.1"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with socket.create_connection(("127.0.0.1", sidecar.tls), timeout=DEADLINE_S) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first = True

        def step(what: Any) -> Any:
            nonlocal first
            while True:
                try:
                    done = what()
                except ssl.SSLWantReadError:
                    done = None
                data = outgoing.read()
                if data and first:
                    size = -(-len(data) // cuts)
                    for at in range(0, len(data), size):
                        raw.sendall(data[at : at + size])
                    first = False
                elif data:
                    raw.sendall(data)
                if done is not None:
                    return done
                incoming.write(raw.recv(65536))

        def handshake() -> bool:
            tls.do_handshake()
            return True

        step(handshake)
        step(lambda: tls.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
        answer = b""
        while b"\r\n\r\n" not in answer or answer.endswith(b"\r\n\r\n"):
            answer += step(lambda: tls.read(65536))
        return answer.partition(b"\r\n\r\n")[2].decode(), tls.selected_alpn_protocol()


@pytest.mark.parametrize(
    ("name", "server"),
    [
        ("server.bench", "exact"),
        ("a.wild.bench", "wild"),
        ("b.a.wild.bench", "wild"),
        ("other.bench", "tls"),
        (None, "tls"),
    ],
)
def test_tls_is_passed_through_by_its_server_name(sidecar: Sidecar, name: str | None, server: str) -> None:
    answer, alpn = ask(sidecar, name)
    assert answer.split() == [server, name or "-"]
    assert alpn == "http/1.1"


def test_a_hello_may_come_in_many_pieces_or_be_larger_than_a_packet(sidecar: Sidecar) -> None:
    many = [f"protocol-{n:03}-{'x' * 40}" for n in range(200)] + ["http/1.1"]
    assert ask(sidecar, "server.bench", many)[0].split()[0] == "exact"
    assert ask(sidecar, "a.wild.bench", many, cuts=50)[0].split()[0] == "wild"
    assert ask(sidecar, "server.bench", cuts=100)[0].split()[0] == "exact"


def test_curl_sees_the_certificate_of_the_server_itself(sidecar: Sidecar) -> None:
    to = ("--resolve", f"server.bench:{sidecar.tls}:127.0.0.1", f"https://server.bench:{sidecar.tls}/")
    assert run("curl", "-s", "--cacert", str(sidecar.folder / "ca.pem"), *to).split() == [b"exact", b"server.bench"]


def test_tls_is_originated_with_and_without_a_certificate_of_our_own(sidecar: Sidecar) -> None:
    assert sidecar.by_host("simple").split() == [b"simple", b"server.bench"]
    assert sidecar.by_host("mutual").split() == [
        b"mutual",
        b"server.bench",
        b"spiffe://cluster.local/ns/default/sa/client",
    ]


def test_a_server_with_another_name_is_not_spoken_to(sidecar: Sidecar) -> None:
    answer = sidecar.by_host("wrong", "-w", "%{http_code}")
    assert answer.endswith(b"503")
    assert b"other.bench" in answer


def test_a_tls_server_that_closes_without_close_notify_is_heard_to_its_last_octet(sidecar: Sidecar) -> None:
    with socket.create_connection(("127.0.0.1", sidecar.before_rude), timeout=DEADLINE_S) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        got = 0
        while data := client.recv(65536):
            got += len(data)
    assert got == len(LONG)


def test_an_endpoint_hears_of_the_client_by_the_proxy_protocol_before_anybody_speaks(sidecar: Sidecar) -> None:
    with socket.create_server(("127.0.0.1", sidecar.proxied)) as listening:
        listening.settimeout(DEADLINE_S)
        with socket.create_connection(("127.0.0.1", sidecar.before_proxied), timeout=DEADLINE_S) as client:
            server, _ = listening.accept()
            with server:
                server.settimeout(DEADLINE_S)
                data = b""
                while (found := proxy_protocol.read(data)) is None:
                    data += server.recv(65536)
                assert found[0].source == client.getsockname()
                assert found[0].destination == ("127.0.0.1", sidecar.before_proxied)
                server.sendall(b"220 hello\r\n")
                assert client.recv(100) == b"220 hello\r\n"


def test_a_server_that_speaks_first_is_heard_at_once_through_a_pair_although_nobody_declared_its_protocol(
    tmp_path: Path,
) -> None:
    with servers(tmp_path) as processes:
        app, _ = start_app(processes)
        pair = Pair(processes, app, {"nats": ("bus", start_nats(processes))})
        took = []
        for _ in range(5):
            began = time.monotonic()
            with socket.create_connection(("127.0.0.1", pair.listen["nats"]), timeout=DEADLINE_S) as client:
                assert client.recv(5) == b"INFO "
                took.append(time.monotonic() - began)
        assert min(took) < 0.09, took  # connections, a handshake; the wait that there was is 0.1 s and more
        pair.said_nothing_bad()


def test_a_reset_comes_through_a_pair_as_one_after_what_came_before(tmp_path: Path) -> None:
    with servers(tmp_path) as processes, socket.create_server(("127.0.0.1", 0)) as listening:
        app, _ = start_app(processes)
        pair = Pair(processes, app, {"broken": ("tcp", listening.getsockname()[1])})
        listening.settimeout(DEADLINE_S)

        def greeted() -> socket.socket:
            while True:  # whoever looked whether the port is there says nothing
                server, _ = listening.accept()
                server.settimeout(DEADLINE_S)
                if server.recv(100) == b"hello":
                    return server
                server.close()

        with socket.create_connection(("127.0.0.1", pair.listen["broken"]), timeout=DEADLINE_S) as client:
            client.sendall(b"hello")
            with greeted() as server:
                server.sendall(b"half of")
                assert client.recv(100) == b"half of"
                server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with pytest.raises(ConnectionResetError):
                client.recv(100)
        with socket.create_connection(("127.0.0.1", pair.listen["broken"]), timeout=DEADLINE_S) as client:
            client.sendall(b"hello")
            with greeted() as server:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                with pytest.raises(ConnectionResetError):
                    server.recv(100)
        pair.said_nothing_bad()


def test_a_client_that_has_ended_is_answered_at_once_through_a_pair(tmp_path: Path) -> None:
    with servers(tmp_path) as processes, socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    server, _ = listening.accept()
                except OSError:
                    return
                with server:
                    got = b""
                    while data := server.recv(65536):
                        got += data
                    server.sendall(b"%d octets" % len(got))

        threading.Thread(target=serve, daemon=True).start()
        app, _ = start_app(processes)
        pair = Pair(processes, app, {"late": ("tcp", listening.getsockname()[1])})
        for size in (5, 300_000):
            began = time.monotonic()
            with socket.create_connection(("127.0.0.1", pair.listen["late"]), timeout=DEADLINE_S) as client:
                client.sendall(b"x" * size)
                client.shutdown(socket.SHUT_WR)
                answer = b""
                while data := client.recv(100):
                    answer += data
                assert answer == b"%d octets" % size
            assert time.monotonic() - began < 5, "a relay that nothing moves on is closed after 10 s"
        pair.said_nothing_bad()
