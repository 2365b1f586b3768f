"""Who speaks first decides: connections of undeclared protocol, on real sockets, all timers out of reach."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from fairlead.policy import resources as r
from fairlead.policy.compile_l4 import L4Arm, L4Host, L4Table
from fairlead.policy.host_names import Domains
from fairlead.policy.rate_limits import rate_limits
from fairlead.policy.tables import Decision, Destination, UpstreamTLS, Verdict, Viewpoint
from fairlead.proxy.engine import Engine
from fairlead.proxy.limits import Settings
from fairlead.proxy.proxy_protocol import SIGNATURE, parse_trusted, proxy_header, read, write
from fairlead.registry.model import WorkloadPort
from tests.proxy.test_engine import (
    DEADLINE_S,
    GET,
    Mesh,
    answer,
    ask,
    context,
    identity_of,
    server,
    until,
)
from tests.proxy.test_sniff import hello

pytestmark = pytest.mark.asyncio
NEVER_S = 1e6
PATIENT = Settings(undecided_s=NEVER_S, refused_grace_s=NEVER_S, peek_timeout_s=NEVER_S, head_timeout_s=NEVER_S)
"""No timer of ours ends within a test: what happens, happens without one."""


class App:
    """Greets, then echoes until told to quit; keeps what it was sent."""

    def __init__(self, greeting: bytes = b"220 hello\r\n") -> None:
        self.greeting = greeting
        self.accepted = 0
        self.got: list[bytes] = []
        self.closed = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            if self.greeting:
                writer.write(self.greeting)
            while data := await reader.read(65536):
                self.got.append(data)
                writer.write(data)
                if data.endswith(b"QUIT\r\n"):
                    break
        finally:
            self.closed += 1


async def greeted(port: int, **fields: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **fields)
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.readline() == b"220 hello\r\n"
        writer.write(b"EHLO me\r\n")
        assert await reader.readline() == b"EHLO me\r\n"
        writer.write(b"QUIT\r\n")
        assert await reader.read() == b"QUIT\r\n"
    writer.close()


@pytest_asyncio.fixture
async def other() -> AsyncIterator[Mesh]:
    made = Mesh()
    yield made
    if made.engine is not None:
        await made.engine.close()
        await until(made.at_rest)


async def pair(mesh: Mesh, other: Mesh, certificates: Path, app: int) -> Engine:
    """Two sidecars with mutual TLS before `app`; the client's."""
    serving = other.start(app, settings=PATIENT)
    serving.tables.ports = {}
    inbound = await serving.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)
    return mesh.start(
        inbound,
        tls=UpstreamTLS("mesh", sni="outbound_.80_._.web"),
        client_context=lambda _tls: context(certificates, "client"),
        verify_peer=lambda _transport, _tls: None,
        settings=PATIENT,
    )


@pytest.mark.parametrize("way", ["named", "redirected", "inbound", "pair"])
async def test_a_greeting_comes_through_although_every_timer_of_ours_is_endless(
    mesh: Mesh, other: Mesh, certificates: Path, way: str
) -> None:
    app = App()
    async with server(app.serve) as port:
        if way == "pair":
            engine = await pair(mesh, other, certificates, port)
        else:
            engine = mesh.start(port, settings=PATIENT)
        if way == "redirected":
            listening = await engine.listen_original("127.0.0.1", 0, lambda _sock: ("10.1.2.3", 25))
        elif way == "inbound":
            listening = await engine.listen_inbound(
                "127.0.0.1", 0, lambda: context(certificates, "server"), identity_of
            )
        else:
            listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
        await greeted(listening)
        outcome = await mesh.outcome()
        assert (outcome.kind, outcome.received_bytes, outcome.sent_bytes) == ("tcp", 15, 26)
        assert not engine.running()
        assert app.accepted == 1


@pytest.mark.parametrize("way", ["named", "inbound", "pair"])
async def test_a_client_that_speaks_http_first_is_served_as_such_and_the_connection_made_ahead_carries_nothing(
    mesh: Mesh, other: Mesh, certificates: Path, way: str
) -> None:
    got: list[bytes] = []
    ends: list[bytes] = []

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(b"")
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                got.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        ends.append(b"")

    async with server(web) as port:
        if way == "pair":
            engine = await pair(mesh, other, certificates, port)
        else:
            engine = mesh.start(port, settings=PATIENT)
        if way == "inbound":
            listening = await engine.listen_inbound(
                "127.0.0.1", 0, lambda: context(certificates, "server"), identity_of
            )
        else:
            listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        await until(lambda: got == [b""])  # the endpoint is connected before the client has said anything
        writer.write(GET)
        async with asyncio.timeout(DEADLINE_S):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(2) == b"hi"
        assert sum(data.count(b"GET ") for data in got) == 1
        await until(lambda: len(ends) == 1)
        writer.close()
        assert (await mesh.outcome()).kind == "http"
        assert not mesh.outcomes
        assert all(pool.live.connections <= 1 for pool in engine.pools.values())


async def test_where_policy_forbids_an_opaque_connection_none_is_made_and_a_request_is_still_judged(
    mesh: Mesh, certificates: Path
) -> None:
    app = App()
    async with server(app.serve) as port:
        engine = mesh.start(port, settings=PATIENT)
        mesh.verdict = Verdict(False, "AuthorizationPolicy default/none rule 0", "it does not allow it")
        mesh.decision = Decision("denied", status=403, reason="FL-DENIED", why="it does not allow it")
        listening = await engine.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)
        assert (await ask(listening, GET)).startswith(b"HTTP/1.1 403 ")
        assert await ask(listening, b"opaque\r\n", until_close=True) == b""
        assert [(await mesh.outcome()).reason for _ in range(2)] == ["FL-DENIED"] * 2
        assert (app.accepted, app.got) == (0, [])


async def test_a_mute_client_that_may_do_nothing_is_closed_and_one_without_endpoint_soon(mesh: Mesh) -> None:
    async with server(answer) as port:
        pass
    engine = mesh.start(port, settings=Settings(refused_grace_s=0.05, undecided_s=NEVER_S))
    listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
    assert await ask(listening, b"", until_close=True) == b""
    assert (await mesh.outcome()).reason == "FL-CONNECT"
    engine.swap(mesh.tables(port, egress=Verdict(False, "NetworkPolicy default/none", "no")))
    engine.settings = Settings(refused_grace_s=NEVER_S, undecided_s=0.05)
    assert await ask(listening, b"", until_close=True) == b""
    assert (await mesh.outcome()).reason == "FL-DENIED"


async def test_a_request_to_an_endpoint_that_is_not_there_is_answered_although_that_was_known_before_it_came(
    mesh: Mesh,
) -> None:
    async with server(answer) as port:
        pass
    engine = mesh.start(port, settings=PATIENT)
    listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
    reader, writer = await asyncio.open_connection("127.0.0.1", listening)
    await until(lambda: any(entry.timer_for == "nobody" for entry in engine.entries))
    writer.write(GET)
    async with asyncio.timeout(DEADLINE_S):
        assert b"FL-CONNECT" in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert (await mesh.outcome()).status == 503


async def test_what_could_begin_a_request_is_opaque_after_a_while_or_when_the_client_or_its_server_ends_the_doubt(
    mesh: Mesh,
) -> None:
    app = App(b"")
    async with server(app.serve) as port:
        engine = mesh.start(port, settings=Settings(undecided_s=0.05))
        listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        async with asyncio.timeout(DEADLINE_S):
            writer.write(b"PIN")
            assert await reader.readexactly(3) == b"PIN"
        writer.close()
        engine.settings = PATIENT
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        async with asyncio.timeout(DEADLINE_S):
            writer.write(b"PIN")
            writer.write_eof()
            assert await reader.read() == b"PIN"
        writer.close()
    async with server(App().serve) as port:
        engine.swap(mesh.tables(port))
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        async with asyncio.timeout(DEADLINE_S):
            writer.write(b"EHLO")
            assert await reader.readexactly(15) == b"220 hello\r\nEHLO"
        writer.close()


async def test_a_server_that_greets_and_leaves_is_heard(mesh: Mesh, other: Mesh, certificates: Path) -> None:
    async def daytime(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"too many connections\r\n")

    async with server(daytime) as port:
        engine = await pair(mesh, other, certificates, port)
        listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
        for _ in range(10):
            assert await ask(listening, b"", until_close=True) == b"too many connections\r\n"
        inbound = next(iter(engine.pools.values())).live.hosts[0].endpoint.port
        assert await ask(inbound, b"", until_close=True) == b"too many connections\r\n"


async def test_a_client_that_leaves_before_anybody_spoke_leaves_nothing_behind(mesh: Mesh) -> None:
    app = App(b"")
    async with server(app.serve) as port:
        engine = mesh.start(port, settings=PATIENT)
        listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
        _reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        await until(lambda: app.accepted == 1)
        assert not engine.sessions
        writer.transport.abort()
        await until(mesh.at_rest)
        await until(lambda: app.closed == 1)


async def test_rules_that_changed_before_anybody_spoke_are_the_ones_that_count(mesh: Mesh) -> None:
    before, after = App(b""), App(b"")
    async with server(before.serve) as old, server(after.serve) as new:
        engine = mesh.start(old, settings=PATIENT)
        listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        await until(lambda: before.accepted == 1)
        engine.swap(mesh.tables(new))
        writer.write(b"hello\r\n")
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.readline() == b"hello\r\n"
        assert (before.got, after.got) == ([], [b"hello\r\n"])
        writer.close()


async def test_one_connection_is_enough_where_one_is_all_that_the_rules_allow(mesh: Mesh) -> None:
    async with server(answer) as port:
        engine = mesh.start(port, settings=PATIENT)
        engine.tables.clusters["c"].limits.max_connections = 1
        listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        await until(lambda: bool(engine.pools) and engine.pools["c"].live.connections == 1)
        writer.write(GET)
        async with asyncio.timeout(DEADLINE_S):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_stream_lives_through_new_tables_and_its_service_taken_away_and_back(
    mesh: Mesh, other: Mesh, certificates: Path
) -> None:
    app = App()
    async with server(app.serve) as port:
        engine = await pair(mesh, other, certificates, port)
        listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.readline() == b"220 hello\r\n"
            inbound = engine.tables.clusters["c"].endpoints[0].port
            tls = UpstreamTLS("mesh", sni="outbound_.80_._.web")
            for tables in (mesh.tables(inbound, tls=tls), mesh.tables(), mesh.tables(inbound, tls=tls)):
                engine.swap(tables)
                other.engine.swap(other.tables(port))
                writer.write(b"still\r\n")
                assert await reader.readline() == b"still\r\n"
            assert not mesh.outcomes
            writer.write(b"QUIT\r\n")
            assert await reader.read() == b"QUIT\r\n"
        writer.close()
        assert (await mesh.outcome()).received_bytes == 27
        assert app.accepted == 1


@pytest.mark.parametrize("secure", [False, True])
async def test_what_a_slow_reader_does_not_take_is_left_with_the_sender(
    mesh: Mesh, other: Mesh, certificates: Path, secure: bool
) -> None:
    sent = 0

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < 64_000_000:
            writer.write(bytes(100_000))
            sent += 100_000
            await writer.drain()

    async with server(flood) as port:
        engine = await pair(mesh, other, certificates, port) if secure else mesh.start(port, settings=PATIENT)
        listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening, limit=10_000)
        async with asyncio.timeout(60):
            await reader.readexactly(1)
            before = -1
            while before != sent:  # until it stands still
                before = sent
                await asyncio.sleep(0.05)
            assert sent < 32_000_000
            assert engine.buffered() < 1_000_000
            got = 1
            while data := await reader.read(1_000_000):
                got += len(data)
            assert got == sent == 64_000_000
        writer.close()


# --- TLS of the app's own, by server name


@pytest.mark.parametrize("declared", ["tcp", ""])
async def test_tls_is_passed_through_by_its_server_name_however_it_is_cut(mesh: Mesh, declared: str) -> None:
    first, second = App(b""), App(b"")
    async with server(first.serve) as one, server(second.serve) as two:
        engine = mesh.start(one, settings=PATIENT)
        engine.tables.clusters["d"] = mesh.tables(two).clusters["c"]  # type: ignore[index]
        plain = Decision("route", destinations=(Destination("c", "web", 80),))
        named = Decision("route", destinations=(Destination("d", "web", 80),))
        table = L4Table()
        table.hosts[("db", 5432)] = table.hosts[("mail", 25)] = host = L4Host("web", 80, plain)
        host.tls = Domains()
        host.tls.claim("*.example.com", L4Arm(named, "tls route 0", ()))
        engine.tables.tcp = table
        engine.decide = lambda _tables, request: host.decide(request.arrival.sni, "", "")[0]
        listening = await engine.listen_named("127.0.0.1", 0, *(("db", 5432) if declared else ("mail", 25)))
        data = hello("a.example.com")
        for cut in [*range(1, len(data), 23), len(data) - 1]:
            reader, writer = await asyncio.open_connection("127.0.0.1", listening)
            writer.write(data[:cut])
            await until(lambda: any(entry.first for entry in engine.entries))
            writer.write(data[cut:])
            async with asyncio.timeout(DEADLINE_S):
                assert await reader.readexactly(len(data)) == data
            writer.close()
            assert (await mesh.outcome()).arrival.sni == "a.example.com"
        assert not first.got
        for other_hello in (hello("example.org"), hello(""), b"\x16\x03\x01\x00\x00 no hello", b"something else"):
            first.got.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", listening)
            writer.write(other_hello)
            async with asyncio.timeout(DEADLINE_S):
                assert await reader.readexactly(len(other_hello)) == other_hello
            writer.close()
            await until(lambda: bool(first.got))


# --- the PROXY protocol


@pytest.mark.parametrize("way", ["named", "inbound", "inbound-tls"])
@pytest.mark.parametrize("version", [1, 2])
async def test_a_trusted_peer_says_who_its_client_is_however_that_is_cut(
    mesh: Mesh, certificates: Path, way: str, version: int
) -> None:
    trusted = parse_trusted("127.0.0.0/8")
    async with server(answer) as port:
        engine = mesh.start(port, settings=PATIENT)
        if way == "named":
            listening = await engine.listen_named("127.0.0.1", 0, "web", 80, trusted=trusted)
        else:
            listening = await engine.listen_inbound(
                "127.0.0.1", 0, lambda: context(certificates, "server"), identity_of, trusted=trusted
            )
        header = write(version, ("192.0.2.7", 4711), ("192.0.2.8", 80))
        for cut in [*range(1, len(header), 5), len(header)]:
            with socket.create_connection(("127.0.0.1", listening)) as raw:
                raw.sendall(header[:cut])
                if cut < len(header):
                    await until(lambda: bool(engine.entries) or any(one.peeks for one in engine._inbounds))
                raw.sendall(header[cut:])
                raw.setblocking(False)
                fields: dict[str, Any] = {}
                if way == "inbound-tls":
                    fields = {"ssl": context(certificates, "client"), "server_hostname": "outbound_.80_._.web"}
                reader, writer = await asyncio.open_connection(sock=raw, **fields)
                writer.write(GET)
                async with asyncio.timeout(DEADLINE_S):
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                writer.close()
            arrival = mesh.arrivals.pop()
            assert (arrival.source_ip, arrival.source_port) == ("192.0.2.7", 4711)
            assert bool(arrival.identity) is (way == "inbound-tls")


@pytest.mark.parametrize("inbound", [False, True])
async def test_who_is_not_trusted_is_not_believed_and_who_is_must_say(
    mesh: Mesh, certificates: Path, inbound: bool
) -> None:
    async with server(answer) as port:
        engine = mesh.start(port, settings=Settings(peek_timeout_s=0.2))

        async def listen(networks: str) -> int:
            trusted = parse_trusted(networks)
            if inbound:
                return await engine.listen_inbound(
                    "127.0.0.1", 0, lambda: context(certificates, "server"), identity_of, trusted=trusted
                )
            return await engine.listen_named("127.0.0.1", 0, "web", 80, trusted=trusted)

        strange = await listen("192.0.2.0/24")
        line = b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\n"
        assert (await ask(strange, GET)).startswith(b"HTTP/1.1 200 ")
        assert mesh.arrivals.pop().source_ip == "127.0.0.1"
        if not inbound:
            assert (await ask(strange, line + GET)).startswith(b"HTTP/1.1 400 ")
        assert all(arrival.source_ip == "127.0.0.1" for arrival in mesh.arrivals)
        mesh.arrivals.clear()
        known = await listen("127.0.0.1")
        for wrong in (GET, line[:9] + b"\xff" + line[10:] + GET, b"\x16\x03\x01", b"PROXY", b""):
            with contextlib.suppress(ConnectionError):
                assert await ask(known, wrong, until_close=True) == b""
        assert not mesh.arrivals
        assert engine.refused_connections["proxy-protocol"] >= 3
        for own in (b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x20\x00\x00\x00"):
            assert (await ask(known, own + GET)).startswith(b"HTTP/1.1 200 ")
            assert mesh.arrivals.pop().source_ip == "127.0.0.1"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("secure", [False, True])
async def test_an_endpoint_is_told_the_client_before_its_first_octet_and_before_tls(
    mesh: Mesh, certificates: Path, version: int, secure: bool
) -> None:
    got: list[Any] = []

    def serve() -> None:
        """Read not one octet beyond the header, since what follows may be there already."""
        for _ in range(2):
            accepted: socket.socket = listener.accept()[0]
            data = b""
            while (found := read(data)) is None:
                data += accepted.recv(1)
            got.append(found[0])
            with plain.wrap_socket(accepted, server_side=True) if secure else accepted as sock:
                sock.sendall(sock.recv(1000))

    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    plain.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        engine = mesh.start(
            listener.getsockname()[1],
            tls=UpstreamTLS("simple", sni="db") if secure else None,
            client_context=lambda _tls: context(certificates, "client"),
            verify_peer=lambda _transport, _tls: None,
            settings=PATIENT,
        )
        engine.tables.clusters["c"].limits.proxy_protocol = version
        for service in (("db", 5432), ("mail", 25)):
            listening = await engine.listen_named("127.0.0.1", 0, *service)
            reader, writer = await asyncio.open_connection("127.0.0.1", listening)
            writer.write(b"hello\r\n")
            async with asyncio.timeout(DEADLINE_S):
                assert await reader.readline() == b"hello\r\n"
            assert got.pop().source == writer.get_extra_info("sockname")
            writer.close()


async def test_connections_that_clients_share_are_the_proxys_own_and_sidecars_get_no_header(
    mesh: Mesh, certificates: Path
) -> None:
    first: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first.append(await reader.readline())
        await answer(reader, writer)

    async with server(serve) as port:
        engine = mesh.start(port, settings=PATIENT)
        engine.tables.clusters["c"].limits.proxy_protocol = 1
        listening = await engine.listen_named("127.0.0.1", 0, "web", 80)
        assert (await ask(listening, GET)).startswith(b"HTTP/1.1 200 ")
        assert first == [b"PROXY UNKNOWN\r\n"]
    endpoint = mesh.tables(1, tls=UpstreamTLS("mesh")).clusters["c"].endpoints[0]
    assert proxy_header(engine.tables.clusters["c"].limits, endpoint, ("10.0.0.1", 1), ("10.0.0.2", 2)) == b""


# --- local rate limits of connections ---------------------------------------------------------------------------------


def limited(mesh: Mesh, context_name: str, port: int = 0, per: str = "PROXY") -> None:
    """One connection, and no more for a long time."""
    bucket = r.TokenBucket(max_tokens=1, fill_interval=3600.0)
    spec = r.LocalRateLimitSpec(context=context_name, connections=[r.ConnectionLimit("new", bucket, port, per)])
    resources = r.Resources(local_rate_limits=(r.LocalRateLimit(r.Meta("it", "default"), spec),))
    tables = mesh.engine.tables
    tables.rate_limits = rate_limits(resources, tables.viewpoint.workload, context_name == "GATEWAY")
    mesh.engine.swap(tables)


async def closed_at_once(port: int, **fields: Any) -> bool:
    """Whether a connection is closed although the client says nothing; with `ssl`, within its handshake."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, **fields)
            try:
                return await reader.read() == b""
            finally:
                writer.close()
    except (ConnectionError, ssl.SSLError):
        return True


@pytest.mark.parametrize("way", ["named", "redirected", "by-host"])
async def test_a_connection_over_the_limit_is_closed_at_once_and_reaches_nobody(mesh: Mesh, way: str) -> None:
    app = App()
    async with server(app.serve) as port:
        engine = mesh.start(port, settings=PATIENT)
        limited(mesh, "SIDECAR_OUTBOUND")
        if way == "redirected":
            listening = await engine.listen_original("127.0.0.1", 0, lambda _sock: ("10.1.2.3", 25))
        elif way == "named":
            listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
        else:
            listening = await engine.listen_outbound("127.0.0.1", 0)
        _, first = await asyncio.open_connection("127.0.0.1", listening)
        await until(lambda: engine.limiter is not None and engine.limiter.all()[0].allowed == 1)
        assert await closed_at_once(listening)
        outcome = await mesh.outcome()
        assert (outcome.kind, outcome.reason, outcome.flag) == ("tcp", "FL-RATE", "RL")
        assert outcome.why.startswith("LocalRateLimit default/it limit new lets 1 connections at once, then 1 every")
        assert app.accepted == (0 if way == "by-host" else 1)
        first.close()


async def test_inbound_a_connection_counts_for_its_port_and_before_its_handshake(
    mesh: Mesh, certificates: Path
) -> None:
    app = App(b"")
    async with server(app.serve) as port:
        engine = mesh.start(port, settings=PATIENT)
        listening = await engine.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)
        limited(mesh, "SIDECAR_INBOUND", port=8080)
        secured: dict[str, Any] = {"ssl": context(certificates, "client"), "server_hostname": "outbound_.80_._.web"}
        _, first = await asyncio.open_connection("127.0.0.1", listening, **secured)
        assert await closed_at_once(listening, **secured)
        assert await closed_at_once(listening)  # plaintext, before the app is connected to
        assert [(await mesh.outcome()).reason for _ in range(2)] == ["FL-RATE"] * 2
        assert app.accepted <= 1
        (live,) = engine.limiter.all() if engine.limiter is not None else []
        assert (live.allowed, live.limited) == (1, 2)
        limited(mesh, "SIDECAR_INBOUND", port=9)  # another port's
        _, second = await asyncio.open_connection("127.0.0.1", listening, **secured)
        first.close()
        second.close()


@pytest.mark.parametrize("ports", [(8080,), (9090,), (8080, 9090), ()])
async def test_a_client_whose_hello_comes_late_counts_for_the_port_that_it_names(
    mesh: Mesh, certificates: Path, ports: tuple[int, ...]
) -> None:
    """Until then only its address is known, and where the workload has one port, that port."""
    async with server(App(b"").serve) as port:
        engine = mesh.start(port, settings=PATIENT)
        workload = engine.tables.viewpoint.workload
        own = tuple(WorkloadPort(number=number) for number in ports)
        engine.tables.viewpoint = Viewpoint(msgspec.structs.replace(workload, ports=own))
        listening = await engine.listen_inbound("127.0.0.1", 0, lambda: context(certificates, "server"), identity_of)
        limited(mesh, "SIDECAR_INBOUND", port=8080)
        refused = 0
        for _ in range(3):
            sock = socket.create_connection(("127.0.0.1", listening))
            try:
                before = len(mesh.outcomes)
                await until(lambda: any(one.peeks for one in engine._inbounds) or len(mesh.outcomes) > before)  # noqa: B023
                for _ in range(3):
                    await asyncio.sleep(0)  # what looks ahead has looked
                secured: dict[str, Any] = {
                    "ssl": context(certificates, "client"),
                    "server_hostname": "outbound_.80_._.web",
                }
                sock.setblocking(False)
                async with asyncio.timeout(DEADLINE_S):
                    _, writer = await asyncio.open_connection(sock=sock, **secured)
                await until(lambda: engine.limiter is not None and engine.limiter.all()[0].allowed == 1)
                writer.close()
            except (ConnectionError, ssl.SSLError):
                refused += 1
            finally:
                sock.close()
        assert refused == 2
        (live,) = engine.limiter.all() if engine.limiter is not None else []
        assert (live.allowed, live.limited) == (1, 2)


async def test_a_swap_without_a_limit_lifts_it(mesh: Mesh) -> None:
    app = App()
    async with server(app.serve) as port:
        engine = mesh.start(port, settings=PATIENT)
        limited(mesh, "SIDECAR_OUTBOUND")
        listening = await engine.listen_named("127.0.0.1", 0, "mail", 25)
        await greeted(listening)
        assert await closed_at_once(listening)
        engine.tables.rate_limits = None
        engine.swap(engine.tables)
        assert engine.limiter is None
        await greeted(listening)
