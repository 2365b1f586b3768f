"""Real resolvers and clients in front of the server: unbound and dnsmasq that forward to it, kdig, the C library."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.message
import pytest

from fairlead.dns.engine import DnsOptions
from fairlead.dns.server import DnsServer
from tests.dns.test_server import running, until
from tests.dns.world import WORLD, host, outcome, records
from tests.servers import free_ports

pytestmark = pytest.mark.asyncio
ZONES = ("cluster.local", "consul", "10.in-addr.arpa")


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    assert found, f"{name} is needed: sh tests/get-servers.sh"
    return found


def unbound(folder: Path, port: int, ours: int) -> list[str]:
    conf = folder / "unbound.conf"
    lines = [
        "server:", "interface: 127.0.0.1", f"port: {port}", "do-ip6: no", 'username: ""', 'chroot: ""',
        f'directory: "{folder}"', 'pidfile: ""', "use-syslog: no", 'module-config: "iterator"',
        "do-not-query-localhost: no", "access-control: 127.0.0.0/8 allow",
        "qname-minimisation: yes", "use-caps-for-id: yes", "harden-below-nxdomain: yes",
    ]  # fmt: skip
    lines += [f'local-zone: "{zone}." nodefault' for zone in (*ZONES, "local")]
    for zone in ZONES:
        lines += ["forward-zone:", f'name: "{zone}."', f"forward-addr: 127.0.0.1@{ours}"]
    conf.write_text("\n".join([*lines, "remote-control:", "control-enable: no", ""]))
    return [program("unbound"), "-d", "-c", str(conf)]


def dnsmasq(folder: Path, port: int, ours: int) -> list[str]:
    return [
        program("dnsmasq"), "-k", "-p", str(port), "-a", "127.0.0.1", "-z", "-u", "root", "-R", "-h", "--pid-file=",
        "-C", "/dev/null", "--edns-packet-max=1232", *(f"-S/{zone}/127.0.0.1#{ours}" for zone in ZONES),
    ]  # fmt: skip


@asynccontextmanager
async def resolver(kind: str, folder: Path, ours: int) -> AsyncIterator[int]:
    (port,) = free_ports(1)
    command = {"unbound": unbound, "dnsmasq": dnsmasq}[kind](folder, port, ours)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, cwd="/"
    )
    try:
        end = asyncio.get_running_loop().time() + 20
        while True:
            with contextlib.suppress(Exception):
                got = await dns.asyncquery.udp(dns.message.make_query(host("web"), "A"), "127.0.0.1", 0.5, port)
                if got.answer:
                    break
            assert asyncio.get_running_loop().time() < end, f"{kind} does not answer"
            assert process.returncode is None, f"{kind} ended"
        yield port
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize("kind", ["unbound", "dnsmasq"])
async def test_a_resolver_that_forwards_to_us_gives_our_answers(kind: str, tmp_path: Path) -> None:
    async with running(WORLD, consul_domain="consul") as server, resolver(kind, tmp_path, server.port) as port:
        for name, rtype in (
            (host("web"), "A"), (host("dual"), "AAAA"), (f"_http._tcp.{host('web')}", "SRV"), (host("alias"), "A"),
            ("1.0.96.10.in-addr.arpa", "PTR"), (host("none"), "A"), (host("web"), "TXT"), (host("web"), "HTTPS"),
            (f"db-0.{host('db')}", "A"), (host("many"), "A"), (host("huge"), "A"), ("web.service.consul", "A"),
            ("_tcp." + host("web"), "A"), ("dns-version.cluster.local", "TXT"),
        ):  # fmt: skip
            query = dns.message.make_query(name, rtype, use_edns=0)
            direct = await dns.asyncquery.tcp(query, "127.0.0.1", 5, server.port)
            through, _ = await dns.asyncquery.udp_with_fallback(query, "127.0.0.1", 5, port)
            assert outcome(through) == outcome(direct), (name, rtype)
            data = [sorted(line.split()[-1].lower() for line in records(one.answer)) for one in (through, direct)]
            assert data[0] == data[1], (name, rtype)
        assert server.engine.metrics.panics == 0


async def test_what_unbound_was_told_is_missing_may_be_there_five_seconds_later(tmp_path: Path) -> None:
    """The negative TTL is short, so that a new service is found soon behind somebody else's cache."""
    async with running(WORLD) as server, resolver("unbound", tmp_path, server.port) as port:
        query = dns.message.make_query(host("none"), "A")
        got = await dns.asyncquery.udp(query, "127.0.0.1", 5, port)
        assert outcome(got) == "NXDOMAIN"
        assert got.authority[0].ttl <= 5


async def test_kdig_is_content() -> None:
    async with running(WORLD) as server:
        for words in (
            (),
            ("+tcp",),
            ("+noedns",),
            ("+dnssec",),
            ("+cookie",),
            ("+nsid",),
            ("+padding=100",),
            ("+bufsize=512",),
        ):
            process = await asyncio.create_subprocess_exec(
                program("kdig"), "@127.0.0.1", "-p", str(server.port), *words, host("web"), "A",
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            out = (await process.communicate())[0].decode()
            assert process.returncode == 0, out
            assert "status: NOERROR" in out
            assert "10.96.0.1" in out
            assert "WARNING" not in out, out
        await until(lambda: server.engine.metrics.connections == 0)


async def test_getent_walks_the_search_list_in_one_question_with_autopath(tmp_path: Path) -> None:
    """glibc with ndots:5: without the walk it asks four times for each family, with it once."""
    conf = tmp_path / "resolv.conf"
    conf.write_text(
        "nameserver 127.53.53.54\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
    )
    (tmp_path / "nsswitch.conf").write_text("hosts: dns\n")
    script = (
        f"mount --bind {conf} /etc/resolv.conf && mount --bind {tmp_path}/nsswitch.conf /etc/nsswitch.conf; "
        "getent ahosts api.example.com"
    )
    asked: dict[str, int] = {}
    for mode in ("off", "question"):
        async with running_at_53(mode) as server:
            process = await asyncio.create_subprocess_exec(
                program("unshare"), "-m", "sh", "-c", script, stdout=asyncio.subprocess.PIPE
            )
            out = (await asyncio.wait_for(process.communicate(), 30))[0].decode()
            assert "240.240.0.9" in out, out
            replies = sum(server.engine.metrics.replies.values())
            asked[mode] = replies + sum(server.engine.udp.counted().values())
    assert asked == {"off": 8, "question": 2}


@asynccontextmanager
async def running_at_53(mode: str) -> AsyncIterator[Any]:
    server = DnsServer(DnsOptions(upstreams=(), autopath=mode))
    server.update(WORLD)
    await server.start("127.53.53.54", 53)
    try:
        yield server
    finally:
        await server.close()
