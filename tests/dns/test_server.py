"""The server on real sockets, asked by dnspython, dig and the C library's resolver."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import pytest

from fairlead.dns.engine import DnsOptions
from fairlead.dns.server import DnsServer, parse_server, resolv_conf_servers, usable_upstreams
from fairlead.registry.model import Changed, Endpoint
from fairlead.registry.snapshot import Snapshot
from tests.dns.world import HTTP, WORLD, external, host, outcome, question, read, records, service, snapshot
from tests.servers import free_ports

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def running(
    world: Snapshot | None = WORLD, address: str = "127.0.0.1", upstreams: tuple[str, ...] = (), **fields: Any
) -> AsyncIterator[DnsServer]:
    server = DnsServer(DnsOptions(upstreams=upstreams, **fields))
    if world is not None:
        server.update(world)
    await server.start(address)
    try:
        yield server
    finally:
        await server.close()


async def over_udp(server: DnsServer, name: str, rtype: str = "A", **fields: Any) -> dns.message.Message:
    query = dns.message.make_query(name, rtype, **fields)
    return await dns.asyncquery.udp(query, "127.0.0.1", 5, server.port)


async def over_tcp(server: DnsServer, name: str, rtype: str = "A", **fields: Any) -> dns.message.Message:
    query = dns.message.make_query(name, rtype, **fields)
    return await dns.asyncquery.tcp(query, "127.0.0.1", 5, server.port)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.005)


async def dig(server: DnsServer, *words: str) -> str:
    program = shutil.which("dig")
    assert program, "dig is needed: apt-get install dnsutils"
    process = await asyncio.create_subprocess_exec(
        program, "@127.0.0.1", "-p", str(server.port), "+time=3", "+tries=1", *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_both_transports_answer_on_one_port() -> None:
    async with running() as server:
        for ask in (over_udp, over_tcp):
            assert records((await ask(server, host("web"))).answer) == [f"{host('web')}. 5 A 10.96.0.1"]
            assert outcome(await ask(server, host("none"))) == "NXDOMAIN"


async def test_dig_is_content() -> None:
    async with running() as server:
        for words in ((), ("+tcp",), ("+edns=0",), ("+noedns",), ("+dnssec",), ("+nocookie",), ("+bufsize=512",)):
            out = await dig(server, *words, host("web"), "A")
            assert "status: NOERROR" in out
            assert "10.96.0.1" in out
            assert "WARNING" not in out.replace("WARNING: .local", "").replace("WARNING: recursion requested", "")
        assert (await dig(server, "+short", f"_http._tcp.{host('web')}", "SRV")).strip() == f"0 100 80 {host('web')}."
        assert (await dig(server, "+short", "-x", "10.96.0.1")).strip() == f"{host('web')}."
        assert "BADVERS" in await dig(server, "+edns=1", "+noednsneg", host("web"))
        assert "status: NOTIMP" in await dig(server, "+opcode=STATUS", host("web"))
        assert "status: REFUSED" in await dig(server, "-c", "CH", "version.bind", "TXT")
        out = await dig(server, "+ignore", host("huge"), "A")
        assert " tc" in out
        assert len((await dig(server, "+short", host("huge"), "A")).split()) == 2500, "dig goes on over TCP by itself"


async def test_the_c_librarys_resolver_finds_names(tmp_path: Path) -> None:
    """In a mount namespace of its own, with our server on port 53 of a loopback address as its only name server."""
    unshare = shutil.which("unshare")
    assert unshare
    server = DnsServer(DnsOptions(upstreams=()))
    server.update(WORLD)
    await server.start("127.53.53.53", 53)
    try:
        conf = tmp_path / "resolv.conf"
        conf.write_text("nameserver 127.53.53.53\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n")
        (tmp_path / "nsswitch.conf").write_text("hosts: dns\n")
        script = (
            f"mount --bind {conf} /etc/resolv.conf && mount --bind {tmp_path}/nsswitch.conf /etc/nsswitch.conf; "
            "getent ahosts web; getent ahosts dual; getent ahosts cart.shop; getent hosts 10.96.0.1; "
            "getent ahosts nothing || echo none"
        )
        process = await asyncio.create_subprocess_exec(
            unshare, "-m", "sh", "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out = (await asyncio.wait_for(process.communicate(), 30))[0].decode()
    finally:
        await server.close()
    assert "10.96.0.1" in out, out
    assert "fd00::2" in out, out
    assert "10.2.0.1" in out, out
    assert host("web") in out, out
    assert out.strip().endswith("none"), out


async def test_an_update_is_what_the_next_question_sees() -> None:
    async with running(None) as server:
        assert outcome(await over_udp(server, host("s"))) == "SERVFAIL"
        assert not server.ready
        for version, ready in enumerate((True, False, True, False), start=1):
            endpoints: dict[str, tuple[Endpoint, ...]] = {host("s"): (Endpoint("10.0.0.1", 80, "http", ready=ready),)}
            server.update(snapshot(service("s", headless=True, ports=(HTTP,)), version=version, endpoints=endpoints))
            for ask in (over_udp, over_tcp):
                assert outcome(await ask(server, host("s"))) == ("NOERROR" if ready else "NXDOMAIN")
        assert server.ready


async def connect(server: DnsServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", server.port)


def framed(octets: bytes) -> bytes:
    return len(octets).to_bytes(2, "big") + octets


async def frame(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), 5), "big")
    return await asyncio.wait_for(reader.readexactly(size), 5)


async def test_many_questions_on_one_connection_and_in_any_pieces() -> None:
    async with running() as server:
        reader, writer = await connect(server)
        questions = [question(host(("web", "db", "none")[n % 3]), ident=n) for n in range(300)]
        stream = b"".join(map(framed, questions))
        writer.write(stream)
        for octets in questions:
            read(octets, await frame(reader))
        for octet in framed(questions[1]):
            writer.write(bytes((octet,)))
            await writer.drain()
        read(questions[1], await frame(reader))
        writer.close()


async def test_a_half_closed_connection_gets_its_answers_then_ends() -> None:
    async with running() as server:
        reader, writer = await connect(server)
        writer.write(framed(question(host("web"))) * 50)
        writer.write_eof()
        data = await asyncio.wait_for(reader.read(), 5)
        assert data.count(b"\x0a\x60\x00\x01") == 50
        writer.close()


async def test_an_idle_connection_is_closed_and_a_trickling_one_too() -> None:
    async with running(idle_s=0.05) as server:
        reader, writer = await connect(server)
        trickling, other = await connect(server)
        other.write(b"\0\x40half")
        await until(lambda: server.engine.metrics.connections == 2)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        try:
            assert await asyncio.wait_for(trickling.read(), 5) == b""
        except ConnectionResetError:
            pass
        await until(lambda: server.engine.metrics.connections == 0)
        writer.close()
        other.close()


async def test_a_client_that_does_not_read_is_not_served_from_endless_memory() -> None:
    async with running() as server:
        reader, writer = await connect(server)
        octets = framed(question(host("huge")))
        for _ in range(300):
            writer.write(octets)
        await until(lambda: bool(server._connections))
        (connection,) = server._connections
        await until(lambda: not connection._writable)
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() < 2 << 20
        for _ in range(300):
            await frame(reader)
        writer.close()


async def test_connections_are_limited_and_idle_ones_give_way() -> None:
    async with running(max_connections=3) as server:
        pairs = [await connect(server) for _ in range(6)]
        await until(lambda: server.engine.metrics.connections == 3)
        _, writer = pairs[-1]
        writer.write(framed(question(host("web"))))
        await frame(pairs[-1][0])
        for _, writer in pairs:
            writer.close()


CLIENTS = """
import resource, socket, sys
port, count, octets = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
clients = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(count)]
print("connected", flush=True)
sys.stdin.readline()
for client in clients:
    client.sendall(octets)
answered = 0
for client in clients:
    reply = b""
    while len(reply) < 2 or len(reply) < 2 + int.from_bytes(reply[:2], "big"):
        more = client.recv(4096)
        if not more:
            break
        reply += more
    answered += reply[2:4] == octets[2:4]
print(answered, flush=True)
sys.stdin.readline()
"""


async def test_ten_thousand_tcp_clients_are_served_at_once() -> None:
    """Each keeps its connection and gets its answer; one more is let in for the longest idle; UDP goes on."""
    count = 10_000
    async with running(max_connections=count, idle_s=600.0) as server:
        assert not server.warnings, "the test needs a descriptor for each client: raise the limit of open files"
        octets = framed(question(host("web")))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENTS, str(server.port), str(count), octets.hex(),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert await asyncio.wait_for(process.stdout.readline(), 60) == b"connected\n"
            await until(lambda: server.engine.metrics.connections == count, 60)
            process.stdin.write(b"\n")
            assert outcome(await over_udp(server, host("web"))) == "NOERROR"
            assert await asyncio.wait_for(process.stdout.readline(), 60) == b"%d\n" % count
            reader, writer = await connect(server)
            writer.write(octets)
            read(octets[2:], await frame(reader))
            assert server.engine.metrics.connections <= count
            writer.close()
        finally:
            process.kill()
            await process.wait()
        await until(lambda: server.engine.metrics.connections == 0, 60)


async def test_octets_that_are_no_question_do_no_harm() -> None:
    async with running() as server:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", server.port))
            for size in range(60):
                client.send(bytes(range(200, 200 + size % 50)) + b"\x81" * size)
            client.send(b"")
            client.send(b"x" * 9000)
            while True:
                octets = question(host("web"), ident=777)
                client.send(octets)
                reply = await asyncio.wait_for(loop.sock_recv(client, 65535), 5)
                if reply[:2] == octets[:2]:
                    read(octets, reply)
                    break
        reader, writer = await connect(server)
        writer.write(framed(b"") + framed(b"x") + framed(b"\0" * 12) + framed(question(host("web"))))
        assert (await frame(reader))[3] & 15 == 1
        read(question(host("web")), await frame(reader))
        writer.close()
        assert server.engine.metrics.panics == 0


async def test_replies_come_from_the_address_that_was_asked() -> None:
    async with running(address="0.0.0.0") as server:
        for address in ("127.0.0.1", "127.7.7.7"):
            octets = question(host("web"))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(5)
                client.sendto(octets, (address, server.port))
                reply, source = await asyncio.to_thread(client.recvfrom, 65535)
            assert source == (address, server.port)
            read(octets, reply)


async def test_ipv6_is_served() -> None:
    for address in ("::1", "::"):
        async with running(address=address) as server:
            query = dns.message.make_query(host("web"), "A")
            assert outcome(await dns.asyncquery.udp(query, "::1", 5, server.port)) == "NOERROR"
            assert outcome(await dns.asyncquery.tcp(query, "::1", 5, server.port)) == "NOERROR"


# Upstreams ----------------------------------------------------------------------------------------------------------

ELSEWHERE = snapshot(
    external("www.example.com", addresses=("192.0.2.1", "192.0.2.2")),
    external("big.example.com", addresses=tuple(f"192.0.{n // 250 + 2}.{n % 250}" for n in range(200))),
)


def at(server: DnsServer) -> str:
    return f"127.0.0.1:{server.port}"


async def test_other_names_are_forwarded_and_kept() -> None:
    async with running(ELSEWHERE) as far, running(upstreams=(at(far),)) as server:
        for ask in (over_udp, over_tcp):
            for _ in range(3):
                got = await ask(server, "www.example.com", use_edns=0)
                assert sorted(r.split()[-1] for r in records(got.answer)) == ["192.0.2.1", "192.0.2.2"]
                assert got.flags & dns.flags.RA
        assert sum(server.upstreams.requests.values()) == 1, "one question, then the cache"
        got = await over_udp(server, "api.example.com")
        assert outcome(got) == "NOERROR"
        got = await over_udp(server, "elsewhere.example.com")
        assert outcome(got) == "REFUSED", "the upstream's own word"


async def test_an_external_name_is_followed_upstream() -> None:
    async with running(ELSEWHERE) as far, running(upstreams=(at(far),)) as server:
        got = await over_udp(server, host("outside"))
        assert [r.rdtype.name for r in got.answer] == ["CNAME", "A"]


async def test_a_large_answer_comes_over_tcp_from_upstream_and_is_cut_for_udp() -> None:
    async with running(ELSEWHERE) as far, running(upstreams=(at(far),)) as server:
        got = await over_tcp(server, "big.example.com")
        assert len(got.answer[0]) == 200
        got = await dns.asyncquery.udp(
            dns.message.make_query("big.example.com", "A"), "127.0.0.1", 5, server.port, raise_on_truncation=False
        )
        assert got.flags & dns.flags.TC


class Silent(asyncio.DatagramProtocol):
    """An upstream that counts, and answers when it is told to, or never."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, Any]] = []
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.asked.append((data, addr))

    def answer(self) -> None:
        assert self.transport
        for data, addr in self.asked:
            reply = dns.message.make_response(dns.message.from_wire(data))
            reply.answer.append(dns.rrset.from_text(reply.question[0].name, 60, "IN", "A", "192.0.2.77"))
            self.transport.sendto(reply.to_wire(), addr)
        self.asked.clear()


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[Silent, str]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Silent, local_addr=("127.0.0.1", 0))
    try:
        yield protocol, "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
    finally:
        transport.close()


async def test_the_same_question_from_many_is_asked_once() -> None:
    async with silent() as (far, address), running(upstreams=(address,)) as server:
        asking = [asyncio.ensure_future(over_udp(server, "www.example.com")) for _ in range(20)]
        asking.append(asyncio.ensure_future(over_tcp(server, "WWW.example.com")))
        await until(lambda: bool(server._forwarder) and server._forwarder._waiting == 21)  # type: ignore[union-attr]
        await until(lambda: len(far.asked) == 1)
        far.answer()
        for got in await asyncio.gather(*asking):
            assert records(got.answer)[0].split()[-1] == "192.0.2.77"
        assert server._forwarder._waiting == 0  # type: ignore[union-attr]


async def test_each_question_upstream_has_a_port_and_an_id_of_its_own() -> None:
    async with silent() as (far, address), running(upstreams=(address,)) as server:
        asking = [asyncio.ensure_future(over_udp(server, f"n{n}.example.com")) for n in range(8)]
        await until(lambda: len(far.asked) == 8)
        assert len({addr for _, addr in far.asked}) == 8
        assert len({data[:2] for data, _ in far.asked}) == 8
        far.answer()
        await asyncio.gather(*asking)


async def test_answers_from_upstream_overtake_on_one_connection() -> None:
    async with silent() as (far, address), running(upstreams=(address,)) as server:
        reader, writer = await connect(server)
        slow, quick = question("slow.example.com", ident=1), question(host("web"), ident=2)
        writer.write(framed(slow) + framed(quick))
        read(quick, await frame(reader))
        await until(lambda: len(far.asked) == 1)
        writer.write_eof()
        far.answer()
        read(slow, await frame(reader))
        assert await asyncio.wait_for(reader.read(), 5) == b"", "closed once all is answered"
        writer.close()


async def test_a_dead_upstream_is_left_for_one_that_lives() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{taken.getsockname()[1]}"
    async with running(ELSEWHERE) as far, silent() as (_, mute):
        for first in (dead, mute):
            async with running(upstreams=(first, at(far))) as server:
                start = time.monotonic()
                assert outcome(await over_udp(server, "www.example.com")) == "NOERROR"
                assert time.monotonic() - start < 2.0


class Liar(asyncio.DatagramProtocol):
    """Answers with another id, then to another question, then from another port, and (`true`) at last as it should."""

    def __init__(self, true: bool) -> None:
        self.true = true
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        def reply(name: Any, address: str, ident: int) -> bytes:
            made = dns.message.make_response(dns.message.from_wire(data))
            made.id = ident
            made.question[0].name = name
            made.answer.append(dns.rrset.from_text(name, 60, "IN", "A", address))
            return made.to_wire()

        asked = dns.message.from_wire(data)
        name, ident = asked.question[0].name, asked.id
        self.transport.sendto(reply(name, "192.0.2.1", ident ^ 1), addr)
        self.transport.sendto(reply(dns.name.from_text("other.example.com."), "192.0.2.2", ident), addr)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.sendto(reply(name, "192.0.2.3", ident), addr)
        if self.true:
            self.transport.sendto(reply(name, "192.0.2.9", ident), addr)


@pytest.mark.parametrize("true", [True, False])
async def test_an_upstream_that_lies_about_ids_questions_and_its_address_is_not_believed(true: bool) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Liar(true), local_addr=("127.0.0.1", 0))
    try:
        upstream = "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
        async with running(upstreams=(upstream,)) as server:
            got = await over_udp(server, "www.example.com")
            if true:
                assert [record.split()[-1] for record in records(got.answer)] == ["192.0.2.9"]
            else:
                assert (outcome(got), got.answer) == ("SERVFAIL", [])
    finally:
        transport.close()


async def test_silent_upstreams_give_servfail_before_a_stub_gives_up() -> None:
    async with silent() as (_, one), running(upstreams=(one,)) as server:
        start = time.monotonic()
        udp, tcp = await asyncio.gather(over_udp(server, "www.example.com"), over_tcp(server, "www.example.com"))
        assert outcome(udp) == outcome(tcp) == "SERVFAIL"
        assert time.monotonic() - start < 4.9


async def test_too_many_waiting_are_dropped_over_udp_and_fail_over_tcp() -> None:
    async with silent() as (far, address), running(upstreams=(address,), max_pending=2) as server:
        asking = [asyncio.ensure_future(over_udp(server, f"n{n}.example.com")) for n in range(2)]
        await until(lambda: len(far.asked) == 2)
        assert outcome(await over_tcp(server, "n3.example.com")) == "SERVFAIL"
        assert server.engine.metrics.overload == 1
        far.answer()
        await asyncio.gather(*asking)


async def test_two_servers_that_ask_each_other_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.dns.forward.TOTAL_S", 1.0)
    first = DnsServer(DnsOptions(upstreams=()))
    await first.start()
    async with running(upstreams=(at(first),)) as second:
        await first.close()
        first = DnsServer(DnsOptions(upstreams=(at(second),)))
        first.update(WORLD)
        await first.start("127.0.0.1", int(at(second).split(":")[1]) and second.upstreams.servers[0][1])
        try:
            assert outcome(await over_udp(second, "www.example.com")) == "SERVFAIL"
            assert sum(second.upstreams.failures.values()) < 10
        finally:
            await first.close()


async def test_a_real_resolver_as_upstream(tmp_path: Path) -> None:
    program = shutil.which("dnsmasq") or "/usr/sbin/dnsmasq"
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        program, "-k", "-p", str(port), "-a", "127.0.0.1", "-z", "-u", "root", "-R", "-h", "-C", "/dev/null",
        "--pid-file=", "--address=/www.example.com/192.0.2.50", "--txt-record=t.example.com,hello",
        "--srv-host=_x._tcp.example.com,target.example.com,99", "--cname=c.example.com,t2.example.com",
        "--host-record=t2.example.com,192.0.2.51", "--local-ttl=60",
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(20.0):
            while True:
                assert process.returncode is None, "dnsmasq ended at its start"
                with contextlib.suppress(ConnectionError):
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
        async with running(upstreams=(f"127.0.0.1:{port}",)) as server:
            got = await over_udp(server, "www.example.com")
            assert records(got.answer) == ["www.example.com. 60 A 192.0.2.50"]
            got = await over_udp(server, "t.example.com", "TXT")
            assert records(got.answer)[0].endswith('TXT "hello"')
            got = await over_udp(server, "_x._tcp.example.com", "SRV")
            assert "0 0 99 target.example.com." in records(got.answer)[0]
            got = await over_udp(server, "c.example.com")
            assert sorted(r.split()[-1] for r in records(got.answer)) == ["192.0.2.51", "t2.example.com."]
    finally:
        process.terminate()
        await process.wait()


# Settings and metrics -----------------------------------------------------------------------------------------------


async def test_a_server_never_asks_itself() -> None:
    async with running() as server:
        servers, warnings = usable_upstreams((at(server), "192.0.2.1"), "127.0.0.1", server.port)
        assert servers == [("192.0.2.1", 53)]
        assert "loop" in warnings[0]
        servers, warnings = usable_upstreams((at(server),), "0.0.0.0", server.port)
        assert servers == []
    assert usable_upstreams(("nonsense",), "127.0.0.1", 53)[0] == []


async def test_upstreams_are_written_in_three_ways() -> None:
    assert parse_server("192.0.2.1") == ("192.0.2.1", 53)
    assert parse_server("192.0.2.1:5353") == ("192.0.2.1", 5353)
    assert parse_server("2001:db8::1") == ("2001:db8::1", 53)
    assert parse_server("[2001:db8::1]:5353") == ("2001:db8::1", 5353)
    for bad in ("dns.example", "192.0.2.1:0", "192.0.2.1:x", "", "[::1", "1.2.3"):
        with pytest.raises(ValueError, match="expected an address"):
            parse_server(bad) if bad != "[::1" else parse_server("[::1]:99999")


async def test_resolv_conf_gives_the_default() -> None:
    text = "# comment\nnameserver 192.0.2.1\noptions ndots:5\n nameserver\t2001:db8::1 # two\nnameserver\n"
    assert resolv_conf_servers(text) == ("192.0.2.1", "2001:db8::1")


async def test_metrics_are_under_corednss_names() -> None:
    async with running(ELSEWHERE) as far, running(upstreams=(at(far),)) as server:
        for _ in range(5):
            await over_udp(server, host("web"))
        await over_tcp(server, host("none"), "SRV")
        for _ in range(3):
            await over_udp(server, "www.example.com")
        text = "\n".join(server.metric_lines())
        label = f'server="dns://127.0.0.1:{server.port}"'
        assert (
            f'coredns_dns_requests_total{{{label},zone="cluster.local.",view="",proto="udp",family="1",type="A"}} 5'
            in text
        )
        assert f'{label},zone="cluster.local.",view="",rcode="NXDOMAIN",plugin="fairlead"}} 1' in text
        assert (
            f'coredns_cache_hits_total{{server="dns://127.0.0.1:{server.port}",type="success",zones=".",view=""}} 2'
            in text
        )
        assert f'fairlead_dns_upstream_replies_total{{to="{at(far)}",rcode="NOERROR"}} 1' in text
        assert "fairlead_dns_zone_synced 1" in text
        durations = [
            line for line in text.splitlines() if line.startswith("coredns_dns_request_duration_seconds_count")
        ]
        assert durations[0].endswith(" 8"), "each datagram is measured"
        for line in text.splitlines():
            assert line.startswith("#") or float(line.rsplit(" ", 1)[1]) >= 0
        assert "\n".join(server.metric_lines()).count("} 5") == text.count("} 5"), "reading does not reset"


async def test_closing_frees_the_port_and_drops_what_waits() -> None:
    async with silent() as (far, address):
        server = DnsServer(DnsOptions(upstreams=(address,)))
        server.update(WORLD)
        await server.start()
        asking: list[Awaitable[Any]] = [asyncio.ensure_future(over_udp(server, "www.example.com"))]
        await until(lambda: len(far.asked) == 1)
        port = server.port
        await server.close()
        again = DnsServer(DnsOptions(upstreams=()))
        await again.start("127.0.0.1", port)
        await again.close()
        for one in asking:
            one.cancel()  # type: ignore[attr-defined]
        await asyncio.gather(*asking, return_exceptions=True)


async def test_a_taken_port_is_an_error_that_says_so() -> None:
    async with running() as server:
        other = DnsServer(DnsOptions(upstreams=()))
        with pytest.raises(OSError, match="in use"):
            await other.start("127.0.0.1", server.port)
        await other.close()


async def test_a_burst_of_changes_loses_none_and_leaves_time_for_questions() -> None:
    """Ten thousand snapshots as fast as they come: what was asked meanwhile is answered, and the last is what holds."""
    async with running(snapshot()) as server:
        count = 10_000
        version = 1
        answered = 0
        asking = True

        async def ask_on() -> None:
            nonlocal answered
            while asking:
                assert outcome(await over_udp(server, host("s1"))) in ("NOERROR", "NXDOMAIN")
                answered += 1

        client = asyncio.ensure_future(ask_on())
        services, endpoints = {}, {}
        for number in range(count):
            version += 1
            name = host(f"s{number % 500}")
            services[name] = service(f"s{number % 500}", headless=True, ports=(HTTP,))
            endpoints[name] = (Endpoint(f"10.0.{number // 250}.{number % 250}", 80, "http"),)
            server.update(Snapshot(version, dict(services), dict(endpoints), changed=Changed(frozenset({name}))))
            if not number % 20:
                await asyncio.sleep(0)
        asking = False
        await until(lambda: server._snapshot is None)
        assert server.engine.zone.version == version
        await client
        assert answered > 10
        assert sum(server.engine.metrics.updates.counts) < count, "gathered"
        for number in (count - 1, count - 250, count - 499):
            got = await over_udp(server, host(f"s{number % 500}"))
            assert records(got.answer)[0].split()[-1] == f"10.0.{number // 250}.{number % 250}"


async def test_a_version_that_was_skipped_is_looked_at_in_full() -> None:
    async with running(snapshot(service("a", addresses=("10.0.0.1",)))) as server:
        world = snapshot(service("b", addresses=("10.0.0.2",)), version=7)
        world.changed = Changed()
        server.update(world)
        assert outcome(await over_udp(server, host("a"))) == "NXDOMAIN"
        assert outcome(await over_udp(server, host("b"))) == "NOERROR"
        world = snapshot(service("c", addresses=("10.0.0.3",)), version=8)
        world.changed = Changed(frozenset({host("c")}))
        server.update(world)
        assert outcome(await over_udp(server, host("b"))) == "NOERROR", "it was told what changed"


def mutations(seed: int) -> list[bytes]:
    """Questions with octets changed, cut, doubled and appended; random octets."""
    chance = random.Random(seed)
    starts = [
        question(host("web"), use_edns=0), question(host("db"), "SRV"), question("cluster.local", "AXFR"),
        question(host("web"), use_edns=0, options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")]),
    ]  # fmt: skip
    made = []
    for _ in range(400):
        octets = bytearray(chance.choice(starts))
        for _ in range(chance.randrange(1, 4)):
            what, at = chance.randrange(4), chance.randrange(len(octets))
            if what == 0:
                octets[at] = chance.randrange(256)
            elif what == 1:
                del octets[at:]
            elif what == 2:
                octets[at:at] = octets[at : at + chance.randrange(20)]
            else:
                octets += chance.randbytes(chance.randrange(1, 30))
            if not octets:
                octets = bytearray(b"x")
        made.append(bytes(octets))
    return made


@pytest.mark.parametrize("seed", range(3))
async def test_raw_packets_get_an_error_or_nothing_and_the_sockets_stay(seed: int) -> None:
    """Over UDP and TCP; after each batch a good question is answered, and nothing of ours failed."""
    async with running(WORLD, allow_transfer=("192.0.2.0/24",)) as server:
        loop = asyncio.get_running_loop()
        packets = mutations(seed)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", server.port))
            for packet in packets:
                client.send(packet)
                mark = question(host("web"), ident=0xFFFF)
                client.send(mark)
                while True:
                    reply = await asyncio.wait_for(loop.sock_recv(client, 65535), 5)
                    if reply[:2] == mark[:2]:
                        break
                    assert reply[:2] == packet[:2]
                    assert reply[2] & 0x80
                    assert reply[3] & 15 in (0, 1, 3, 4, 5)
                    if reply[3] & 15 in (0, 3) and reply[2] & 0x78 == 0 and reply[4:6] == b"\0\1":
                        dns.message.from_wire(reply, raise_on_truncation=False)
        for packet in packets:
            reader, writer = await connect(server)
            writer.write(framed(packet) + framed(question(host("web"), ident=0xFFFF)))
            while (await frame(reader))[:2] != b"\xff\xff":
                pass
            writer.transport.abort()
        assert server.engine.metrics.panics == 0


@pytest.mark.parametrize("name", ["web", "none", "www.example.com"])
async def test_beyond_the_limit_a_network_is_sent_no_more_than_it_sends_and_can_come_by_tcp(name: str) -> None:
    """Whether the answer is finished or has to be made; a cookie of ours shows that the address is not made up."""
    name = name if "." in name else host(name)
    async with running(WORLD, rate_limit=20) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.3)
            client.connect(("127.0.0.1", server.port))
            plain = question(name)
            for _ in range(200):
                client.send(plain)
            whole = cut = 0
            with contextlib.suppress(TimeoutError):
                while True:
                    reply = await asyncio.to_thread(client.recv, 4096)
                    cut += bool(reply[2] & 2)
                    whole += not reply[2] & 2
            assert server.limiter is not None
            assert whole <= 60, "a second's worth, or those of three if the machine was slow"
            assert cut == server.limiter.slipped > 0
            assert server.limiter.dropped > 0
            assert outcome(await over_tcp(server, name)) in ("NOERROR", "NXDOMAIN", "REFUSED")
            cookie = dns.edns.CookieOption(b"12345678", b"")
            first = await over_tcp(server, name, use_edns=0, options=[cookie])
            good = question(name, use_edns=0, options=list(first.options))
            for _ in range(50):
                client.send(good)
                reply = await asyncio.to_thread(client.recv, 4096)
                assert not reply[2] & 2, "who has a good cookie is not limited"
        text = "\n".join(server.metric_lines())
        assert f'fairlead_dns_rate_limited_total{{what="slipped"}} {server.limiter.slipped}' in text


async def test_metrics_have_corednss_names() -> None:
    async with running(WORLD) as server:
        await over_udp(server, host("web"), want_dnssec=True)
        await over_tcp(server, host("none"))
        text = "\n".join(server.metric_lines())
        for name in (
            "coredns_dns_requests_total", "coredns_dns_responses_total", "coredns_dns_request_duration_seconds",
            "coredns_dns_request_size_bytes", "coredns_dns_response_size_bytes", "coredns_dns_do_requests_total",
            "coredns_cache_entries", "coredns_cache_hits_total", "coredns_cache_misses_total",
            "coredns_cache_prefetch_total", "coredns_cache_served_stale_total", "coredns_cache_evictions_total",
            "coredns_forward_healthcheck_broken_total", "coredns_forward_max_concurrent_rejects_total",
            "coredns_autopath_success_total", "coredns_panics_total",
            "coredns_kubernetes_dns_programming_duration_seconds", "coredns_proxy_request_duration_seconds",
        ):  # fmt: skip
            assert f"# TYPE {name} " in text, name
        assert 'coredns_dns_do_requests_total{server="dns://127.0.0.1' in text
        size = len(question(host("web"), want_dnssec=True))
        of = f'server="dns://127.0.0.1:{server.port}",zone="cluster.local.",view="",proto="udp"'
        assert f"coredns_dns_request_size_bytes_sum{{{of}}} {size}" in text
