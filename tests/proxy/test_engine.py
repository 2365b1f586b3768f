"""The data path on real sockets: listeners, relays, TLS told from plaintext, swaps and draining."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fairlead.policy.resources import MeshConfig
from fairlead.policy.tables import (
    Arrival,
    Cluster,
    ClusterEndpoint,
    Decision,
    Destination,
    PoolLimits,
    RetryPolicy,
    Tables,
    UpstreamTLS,
    Verdict,
    Viewpoint,
)
from fairlead.proxy.core import Rules
from fairlead.proxy.engine import Engine
from fairlead.proxy.limits import Settings
from fairlead.proxy.message import Outcome
from fairlead.registry.model import Endpoint, Workload, WorkloadPort
from fairlead.registry.snapshot import Snapshot
from tests.servers import program

pytestmark = pytest.mark.asyncio
DEADLINE_S = 10.0
GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Mesh:
    """An engine with rules that a test can set, and what it told its observer."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.heard = asyncio.Event()
        self.verdict = Verdict(True)
        self.decision = Decision(
            "route",
            destinations=(Destination("c", "web", 80),),
            retries=RetryPolicy(2, frozenset({"connect-failure"})),
        )
        self.arrivals: list[Arrival] = []
        self.engine: Any = None

    def done(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.heard.set()

    async def outcome(self) -> Outcome:
        """The next outcome not yet taken."""
        async with asyncio.timeout(DEADLINE_S):
            while not self.outcomes:
                self.heard.clear()
                await self.heard.wait()
        return self.outcomes.pop(0)

    def decide(self, tables: Tables, request: Any) -> Decision:
        self.arrivals.append(request.arrival)
        return self.decision

    def rules(self) -> Rules:
        return Rules(
            self.decide,
            lambda _tables, _arrival: self.verdict,
            lambda decision, _draw: decision.destinations[0],
            lambda _balancer, _request: None,
            lambda path, _mode: path,
            lambda _tables, sni: 8080 if sni == "outbound_.80_._.web" else 0,
            lambda _tables, _address, _port: None,
        )

    def tables(
        self, *ports: int, tls: UpstreamTLS | None = None, egress: Verdict | None = None, **limits: Any
    ) -> Tables:
        endpoints = tuple(
            ClusterEndpoint("127.0.0.1", port, Endpoint(address="127.0.0.1", port=port), tls=tls, egress=egress)
            for port in ports
        )
        cluster = Cluster("c", "web", 80, "", endpoints, limits=PoolLimits(**{"connect_timeout_s": 5.0, **limits}))
        workload = Workload(namespace="default", name="app", ports=(WorkloadPort(number=8080),))
        declared = {("web", 80): "http", ("db", 5432): "tcp"}
        return Tables("1", Viewpoint(workload), MeshConfig(), Snapshot(), {"c": cluster}, ports=declared)

    def start(self, *ports: int, **fields: Any) -> Engine:
        made: dict[str, Any] = {"observer": self, "rules": self.rules()}
        made |= {
            name: fields.pop(name) for name in list(fields) if name in ("settings", "client_context", "verify_peer")
        }
        self.engine = Engine(self.tables(*ports, **fields), **made)
        engine: Engine = self.engine
        return engine

    def at_rest(self) -> bool:
        engine = self.engine
        pools = [*engine.pools.values(), *engine.outside.values()]
        return (
            not engine.busy()
            and not engine.relays
            and not engine.mirrors
            and all(
                pool.live.active == pool.live.pending == pool.live.retrying == pool.live.connections == 0
                for pool in pools
            )
        )


@pytest_asyncio.fixture
async def mesh() -> AsyncIterator[Mesh]:
    made = Mesh()
    yield made
    if made.engine is not None:
        await made.engine.close()
        await until(made.at_rest)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def closing(handle: Any) -> Any:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()

    return served


@contextlib.asynccontextmanager
async def server(handle: Any, **fields: Any) -> AsyncIterator[int]:
    started = await asyncio.start_server(closing(handle), "127.0.0.1", 0, **fields)
    try:
        yield started.sockets[0].getsockname()[1]
    finally:
        started.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Every request gets the same short answer."""
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"end")
    await writer.drain()


async def ask(port: int, data: bytes, until_close: bool = False, **fields: Any) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **fields)
    try:
        writer.write(data)
        async with asyncio.timeout(DEADLINE_S):
            if until_close:
                return await reader.read()
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            return head + await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
    finally:
        writer.close()


async def test_requests_by_host_and_by_named_port_reach_the_endpoint(mesh: Mesh) -> None:
    async with server(answer) as port:
        engine = mesh.start(port)
        by_host = await engine.listen_outbound("127.0.0.1", 0)
        named = await engine.listen_named("127.0.0.1", 0, "web", 80)
        assert (await ask(by_host, GET)).endswith(b"hi")
        assert (await ask(named, GET)).endswith(b"hi")
        assert (await ask(by_host, b"GET http://web/x HTTP/1.1\r\nHost: web\r\n\r\n")).endswith(b"hi")
        first, second, _ = mesh.arrivals
        assert (first.host, first.port, second.host, second.port) == ("", 0, "web", 80)
        assert first.source_ip == "127.0.0.1"
        await until(lambda: len(mesh.outcomes) == 3)
        assert engine.pools["c"].live.connections == 1
        assert mesh.outcomes[0].local_address == f"127.0.0.1:{by_host}"


async def test_nobody_home_is_said_with_its_reason(mesh: Mesh) -> None:
    async with server(answer) as port:
        pass
    engine = mesh.start(port)
    listening = await engine.listen_outbound("127.0.0.1", 0)
    got = await ask(listening, GET)
    assert got.startswith(b"HTTP/1.1 503 ")
    assert b"x-fairlead-reason: FL-CONNECT" in got
    assert b"connection refused" in got


async def test_garbage_and_slow_clients_are_answered_and_closed(mesh: Mesh) -> None:
    engine = mesh.start(settings=Settings(head_timeout_s=0.2))
    listening = await engine.listen_outbound("127.0.0.1", 0)
    assert (await ask(listening, b"\x16\x03\x01\x00\x05hello", until_close=True)).startswith(b"HTTP/1.1 400 ")
    got = await ask(listening, b"GET / HTTP/1.1\r\nHo", until_close=True)
    assert got.startswith(b"HTTP/1.1 408 ")
    assert b"FL-SLOW" in got
    assert await ask(listening, b"", until_close=True) == b""


async def test_opaque_connections_are_relayed_with_half_close(mesh: Mesh) -> None:
    async with server(echo) as port:
        engine = mesh.start(port)
        listening = await engine.listen_named("127.0.0.1", 0, "db", 5432)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        writer.write(b"x" * 3_000_000)
        writer.write_eof()
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.read() == b"x" * 3_000_000 + b"end"
        writer.close()
        outcome = await mesh.outcome()
        assert (outcome.kind, outcome.received_bytes, outcome.sent_bytes) == ("tcp", 3_000_000, 3_000_003)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_server_may_speak_first(mesh: Mesh, declared: bool) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        writer.write(await reader.readline())

    async with server(greet) as port:
        engine = mesh.start(port)
        service = ("db", 5432) if declared else ("mail", 25)
        listening = await engine.listen_named("127.0.0.1", 0, *service)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.readline() == b"220 hello\r\n"
            writer.write(b"bye\r\n")
            assert await reader.readline() == b"bye\r\n"
        writer.close()
        await mesh.outcome()


async def test_an_undeclared_port_is_told_by_the_first_bytes(mesh: Mesh) -> None:
    async with server(answer) as port:
        engine = mesh.start(port)
        listening = await engine.listen_named("127.0.0.1", 0, "web", 81)
        assert b"x-envoy-upstream-service-time" in await ask(listening, GET)
        assert (await mesh.outcome()).kind == "http"
    async with server(echo) as port:
        engine.swap(mesh.tables(port))
        assert await ask(listening, b"opaque\r\n\r\n") == b"opaque\r\n\r\n"
        assert (await mesh.outcome()).kind == "tcp"


async def test_connect_opens_a_relay_and_says_when_it_cannot(mesh: Mesh) -> None:
    async with server(echo) as port:
        engine = mesh.start(port)
        listening = await engine.listen_outbound("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        writer.write(b"CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n")
        async with asyncio.timeout(DEADLINE_S):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
        writer.close()
        arrival = mesh.arrivals[0]
        assert (arrival.host, arrival.port) == ("web", 80)
        await mesh.outcome()
    engine.swap(mesh.tables())
    got = await ask(listening, b"CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n", until_close=True)
    assert b"FL-NO-HEALTHY" in got
    assert (await mesh.outcome()).reason == "FL-NO-HEALTHY"


async def test_a_long_body_goes_through_with_bounded_memory(mesh: Mesh) -> None:
    size = 30_000_000
    buffered: list[int] = []

    async def slow_sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = size
        while left:
            left -= len(await reader.read(1_000_000))
            for downstream in mesh.engine.connections:
                upstream = downstream.exchange.upstream if downstream.exchange is not None else None
                if upstream is not None:
                    buffered.append(upstream.transport.get_write_buffer_size())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(30):
            writer.write(b"y" * (size // 30))
            await writer.drain()

    async with server(slow_sink) as port:
        engine = mesh.start(port)
        listening = await engine.listen_outbound("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        writer.write(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n" % size)

        async def send() -> None:
            for _ in range(30):
                writer.write(b"x" * (size // 30))
                await writer.drain()

        sending = asyncio.create_task(send())
        async with asyncio.timeout(30):
            await reader.readuntil(b"\r\n\r\n")
            got = 0
            while got < size:
                got += len(await reader.read(1_000_000))
        await sending
        writer.close()
        assert max(buffered) < 1_000_000
        outcome = await mesh.outcome()
        assert (outcome.received_bytes, outcome.sent_bytes) == (size, size)


@pytest.mark.parametrize("stage", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
async def test_an_endpoint_that_dies_at_any_stage_is_seen_by_the_client(mesh: Mesh, stage: bytes) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(stage)

    async with server(die) as port:
        engine = mesh.start(port)
        listening = await engine.listen_outbound("127.0.0.1", 0)
        if stage.endswith(b"abc"):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await ask(listening, GET)
        else:
            assert b"FL-RESET" in await ask(listening, GET)
        assert (await mesh.outcome()).reason == "FL-RESET"


async def test_a_body_cut_short_is_a_reset_also_where_only_the_end_of_the_connection_would_end_it(mesh: Mesh) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")

    async with server(die) as port:
        engine = mesh.start(port)
        listening = await engine.listen_outbound("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        writer.write(b"GET /x HTTP/1.0\r\nHost: web\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(DEADLINE_S):
                while await reader.read(1000):
                    pass
        writer.close()


async def test_a_client_that_leaves_mid_body_leaves_nothing_behind(mesh: Mesh) -> None:
    reached, gone = asyncio.Event(), asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reached.set()
        try:
            while await reader.read(100):
                pass
        finally:
            gone.set()

    async with server(wait) as port:
        engine = mesh.start(port)
        listening = await engine.listen_outbound("127.0.0.1", 0)
        _reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        writer.write(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100\r\n\r\nabc")
        async with asyncio.timeout(DEADLINE_S):
            await reached.wait()
            writer.close()
            await gone.wait()
        assert (await mesh.outcome()).reason == "FL-CLIENT-GONE"
        await until(mesh.at_rest)


# --- inbound


def authority(folder: Path) -> None:
    """Two certificates of one authority, by openssl."""
    run = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run(
        [*run, "-subj", "/CN=ca", "-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.pem")],
        check=True,
        capture_output=True,
    )
    for name in ("client", "server"):
        uri = f"subjectAltName=URI:spiffe://cluster.local/ns/default/sa/{name}"
        subprocess.run(
            [*run]  # noqa: RUF005
            + ["-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key"), "-subj", f"/CN={name}"]
            + ["-addext", uri, "-addext", "basicConstraints=CA:FALSE", "-keyout", str(folder / f"{name}.key")]
            + ["-out", str(folder / f"{name}.pem")],
            check=True,
            capture_output=True,
        )


def context(folder: Path, name: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if name == "server" else ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(folder / "ca.pem")
    made.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return made


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority(folder)
    return folder


def identity_of(transport: Any) -> str:
    names = transport.get_extra_info("peercert")["subjectAltName"]
    return str(dict(names)["URI"])


async def test_inbound_tells_mutual_tls_from_plaintext_on_one_port(mesh: Mesh, certificates: Path) -> None:
    async with server(answer) as port:
        engine = mesh.start(port)
        listening = await engine.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)
        got = await ask(listening, GET, ssl=context(certificates, "client"), server_hostname="outbound_.80_._.web")
        assert got.endswith(b"hi")
        arrival = mesh.arrivals.pop()
        assert (arrival.identity, arrival.port, arrival.host) == (
            "spiffe://cluster.local/ns/default/sa/client",
            8080,
            "web",
        )
        assert (await ask(listening, GET)).endswith(b"hi")
        arrival = mesh.arrivals.pop()
        assert (arrival.identity, arrival.port, arrival.tls) == ("", 8080, False)
        await until(lambda: len(mesh.outcomes) == 2)
        assert [outcome.source_identity != "" for outcome in mesh.outcomes] == [True, False]


async def test_inbound_refuses_what_shows_no_certificate_or_names_no_port(mesh: Mesh, certificates: Path) -> None:
    engine = mesh.start(1)
    listening = await engine.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.verify_mode = ssl.CERT_NONE
    for given, name in ((bare, "outbound_.80_._.web"), (context(certificates, "client"), "outbound_.81_._.web")):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert await ask(listening, GET, until_close=True, ssl=given, server_hostname=name) == b""
    for garbage in (b"\x16\x03\x01\x00\x05hello", b"\x16\x03"):
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        writer.write(garbage)
        writer.write_eof()
        async with asyncio.timeout(DEADLINE_S):
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
        writer.close()
    assert all(outcome.kind == "tcp" and outcome.reason for outcome in mesh.outcomes)


async def test_a_client_without_a_certificate_is_told_so_by_an_alert(mesh: Mesh, certificates: Path) -> None:
    engine = mesh.start(1)
    listening = await engine.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.verify_mode = ssl.CERT_NONE

    def talk() -> bytes:
        sock = socket.create_connection(("127.0.0.1", listening), timeout=DEADLINE_S)
        with bare.wrap_socket(sock, server_hostname="outbound_.80_._.web") as wire:
            return wire.recv(1000)

    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        await asyncio.to_thread(talk)


async def test_a_client_may_change_its_keys_and_ask_us_to(mesh: Mesh, certificates: Path) -> None:
    """KeyUpdate (RFC 8446 section 4.6.3), by the commands `k` and `K` of openssl's client."""
    openssl = shutil.which("openssl")
    assert openssl, "openssl is missing: apt-get install openssl"
    async with server(answer) as port:
        engine = mesh.start(port)
        listening = await engine.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)
        files = ["-cert", "client.pem", "-key", "client.key", "-CAfile", "ca.pem"]
        process = await asyncio.create_subprocess_exec(
            openssl, "s_client", "-connect", f"127.0.0.1:{listening}", "-servername", "outbound_.80_._.web",
            "-crlf", "-tls1_3", *files, cwd=certificates,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            await process.stdout.readuntil(b"---\nread R BLOCK\n")
            for command in (b"k\n", b"K\n", b"K\n"):
                process.stdin.write(command)
                await process.stdout.readuntil(b"KEYUPDATE\n")
                process.stdin.write(b"GET /x HTTP/1.1\nHost: web\n\n")
                await process.stdout.readuntil(b"\r\n\r\nhi")
            process.stdin.close()
            await process.wait()
        assert engine._inbounds[0].failed_handshakes == 0


async def test_a_handshake_that_does_not_go_on_is_closed_and_counted(mesh: Mesh, certificates: Path) -> None:
    engine = mesh.start(1, settings=Settings(handshake_timeout_s=0.05))
    listening = await engine.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    wire = context(certificates, "client").wrap_bio(incoming, outgoing, False, "outbound_.80_._.web")
    with contextlib.suppress(ssl.SSLWantReadError):
        wire.do_handshake()
    reader, writer = await asyncio.open_connection("127.0.0.1", listening)
    writer.write(outgoing.read())
    async with asyncio.timeout(DEADLINE_S):
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                pass  # its hello, then the end
    writer.close()
    inbound = engine._inbounds[0]
    await until(lambda: inbound.failed_handshakes == 1)
    assert not inbound.shaking


async def test_a_hello_that_comes_in_pieces_is_read_as_one(mesh: Mesh, certificates: Path) -> None:
    async with server(answer) as port:
        engine = mesh.start(port)
        listening = await engine.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)

        async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner = await asyncio.open_connection("127.0.0.1", listening)

            async def back() -> None:
                while data := await inner_reader.read(4096):
                    writer.write(data)

            task = asyncio.create_task(back())
            count = 0
            while data := await reader.read(4096):
                for k in range(0, len(data), 100):
                    inner.write(data[k : k + 100])
                    if count < 8:
                        await asyncio.sleep(0.01)
                    count += 1
            inner.close()
            await task

        async with server(dribble) as through:
            got = await ask(through, GET, ssl=context(certificates, "client"), server_hostname="outbound_.80_._.web")
            assert got.endswith(b"hi")


async def test_strict_peer_authentication_closes_plaintext(mesh: Mesh, certificates: Path) -> None:
    engine = mesh.start(1)
    mesh.verdict = Verdict(False, "PeerAuthentication default/strict", "it is STRICT")
    listening = await engine.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)
    with contextlib.suppress(ConnectionError):
        assert await ask(listening, GET, until_close=True) == b""
    assert (await mesh.outcome()).reason == "FL-PLAINTEXT"


async def test_a_pair_of_engines_speaks_mutual_tls(certificates: Path) -> None:
    inner, outer = Mesh(), Mesh()
    async with server(answer) as port:
        inbound = inner.start(port)
        entered = await inbound.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)
        seen: list[str] = []

        def verify(transport: Any, tls: UpstreamTLS) -> str | None:
            seen.append(identity_of(transport))
            return None if seen[-1] in tls.identities else f"it is {seen[-1]}"

        for identity, expected in (("server", b"200 OK"), ("somebody", b"503")):
            tls = UpstreamTLS("mesh", "outbound_.80_._.web", (f"spiffe://cluster.local/ns/default/sa/{identity}",))
            outbound = outer.start(
                entered, tls=tls, client_context=lambda _tls: context(certificates, "client"), verify_peer=verify
            )
            listening = await outbound.listen_outbound("127.0.0.1", 0)
            got = await ask(listening, GET)
            assert got.startswith(b"HTTP/1.1 " + expected)
            await outbound.close()
        assert b"is not who it should be" in got
        await inbound.close()
        await until(inner.at_rest)


# --- swaps and ends


async def test_a_swap_keeps_connections_and_withdrawn_permission_cuts_them(mesh: Mesh) -> None:
    async with server(echo) as port, server(answer) as other:
        engine = mesh.start(port)
        relayed = await engine.listen_named("127.0.0.1", 0, "db", 5432)
        reader, writer = await asyncio.open_connection("127.0.0.1", relayed)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        engine.swap(mesh.tables(other))  # its endpoint is gone, its permission is not
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        http = await engine.listen_outbound("127.0.0.1", 0)
        assert (await ask(http, GET)).endswith(b"hi")
        denied = Verdict(False, "NetworkPolicy default/lock", "NetworkPolicy default/lock allows it no more")
        locked = mesh.tables(port, egress=denied)
        locked.egress = denied  # some NetworkPolicy selects the workload
        engine.swap(locked)
        async with asyncio.timeout(DEADLINE_S):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        await until(lambda: len(mesh.outcomes) == 2)
        assert mesh.outcomes[1].reason == "FL-DENIED"
        assert "default/lock" in mesh.outcomes[1].why
        assert b"FL-DENIED" in await ask(http, GET)


async def test_a_drain_ends_what_runs_and_takes_nothing_new(mesh: Mesh) -> None:
    go = asyncio.Event()
    asked = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await go.wait()
        writer.write(OK)

    async with server(wait) as port:
        engine = mesh.start(port)
        listening = await engine.listen_outbound("127.0.0.1", 0)
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", listening)
        running = asyncio.create_task(ask(listening, GET, until_close=True))
        await asked.wait()
        await until(lambda: len(engine.connections) == 2)
        engine.begin_drain()
        assert await idle_reader.read() == b""
        idle_writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", listening)
        go.set()
        got = await running
        assert b"\r\nconnection: close\r\n" in got
        assert await engine.drained(DEADLINE_S)


async def test_a_drain_has_an_end(mesh: Mesh) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(never) as port:
        engine = mesh.start(port)
        listening = await engine.listen_outbound("127.0.0.1", 0)
        running = asyncio.create_task(ask(listening, GET, until_close=True))
        await until(lambda: bool(mesh.arrivals))
        engine.begin_drain()
        assert not await engine.drained(0.1)
        with contextlib.suppress(ConnectionError):
            assert await running == b""
        assert (await mesh.outcome()).reason == "FL-DRAINING"
        assert engine.cut == ["GET web/x from 127.0.0.1"]


async def test_a_drain_of_what_comes_to_the_app_leaves_the_apps_own_calls_alone(mesh: Mesh, certificates: Path) -> None:
    async with server(answer) as port:
        engine = mesh.start(port)
        inbound = await engine.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)
        outbound = await engine.listen_outbound("127.0.0.1", 0)
        silent_reader, silent_writer = await asyncio.open_connection("127.0.0.1", inbound)
        own_reader, own_writer = await asyncio.open_connection("127.0.0.1", outbound)
        await until(lambda: engine.busy() == 2)
        engine.begin_drain(0.05, served_only=True)
        assert await engine.drained(DEADLINE_S, served_only=True)
        assert await silent_reader.read() == b""
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", inbound)
        own_writer.write(GET)
        assert (await own_reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert (await ask(outbound, GET)).endswith(b"hi")
        engine.begin_drain()
        assert await engine.drained(DEADLINE_S)
        for writer in (silent_writer, own_writer):
            writer.close()


async def test_passing_through_goes_out_but_never_in_circles(mesh: Mesh) -> None:
    mesh.decision = Decision("passthrough", destinations=(Destination("PassthroughCluster", "x", 1),))
    async with server(answer) as port:
        engine = mesh.start()
        listening = await engine.listen_outbound("127.0.0.1", 0)
        get = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n"
        assert (await ask(listening, get % (b"127.0.0.1:%d" % port))).endswith(b"hi")
        got = await ask(listening, get % (b"127.0.0.1:%d" % listening))
        assert got.startswith(b"HTTP/1.1 502 ")
        assert b"this proxy itself" in got


async def test_nginx_behind_us_serves_many_clients(mesh: Mesh, tmp_path: Path) -> None:
    nginx = shutil.which("nginx") or program("nginx")
    async with server(answer) as port:
        pass  # a port that is free now
    folder = tmp_path
    temp = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "big").write_bytes(b"z" * 5_000_000)
    folder.chmod(0o755)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; user root; events {{}} "
        f"http {{ access_log off; {temp}"
        f"server {{ listen 127.0.0.1:{port}; keepalive_requests 7; root {folder};"
        " location /x { return 200 'hello'; } } }"
    )
    process = await asyncio.create_subprocess_exec(
        nginx, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")
    )
    try:
        engine = mesh.start(port)
        listening = await engine.listen_outbound("127.0.0.1", 0)

        async def one() -> int:
            good = 0
            reader, writer = await asyncio.open_connection("127.0.0.1", listening)
            for _ in range(50):
                writer.write(GET)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 "), head
                assert await reader.readexactly(5) == b"hello"
                good += 1
            writer.close()
            return good

        async with asyncio.timeout(DEADLINE_S):
            while not (await ask(listening, GET)).startswith(b"HTTP/1.1 200 "):
                await asyncio.sleep(0.02)
            counts = await asyncio.gather(*(one() for _ in range(20)))
            assert sum(counts) == 1000
            big = await ask(listening, GET.replace(b"/x", b"/big"))
            assert big.endswith(b"z" * 5_000_000)
        await until(lambda: not engine.connections)
        live = engine.pools["c"].live
        assert live.connections == sum(len(host.idle) for host in live.hosts)
    finally:
        process.terminate()
        await process.wait()
