"""DNS over HTTPS: curl, kdig and httpx as clients, HTTP/2 by hand for what they would not send."""

from __future__ import annotations

import asyncio
import base64
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import httpx
import pytest

from fairlead.control.doh import Doh, lifetime
from fairlead.dns.server import DnsServer
from fairlead.dns.tls_files import Certificate
from tests.dns.test_server import running
from tests.dns.test_tls_files import issue
from tests.dns.world import host, outcome, question
from tests.proxy.two import Peer

pytestmark = pytest.mark.asyncio
TYPE = "application/dns-message"


@asynccontextmanager
async def doh(tmp_path: Path) -> AsyncIterator[tuple[Doh, DnsServer, str]]:
    chain, key = issue(tmp_path)
    async with running() as server:
        made = Doh(server.ask)
        await made.start("127.0.0.1", 0, Certificate(chain, key).context("h2", "http/1.1"))
        try:
            yield made, server, chain
        finally:
            await made.close()


def url(made: Doh, octets: bytes) -> str:
    return f"https://127.0.0.1:{made.port}/dns-query?dns=" + base64.urlsafe_b64encode(octets).decode().rstrip("=")


@pytest.mark.parametrize("two", [False, True])
async def test_get_and_post_are_answered_with_how_long_to_keep_it(tmp_path: Path, two: bool) -> None:
    async with doh(tmp_path) as (made, _, _chain), httpx.AsyncClient(http2=two, verify=False) as client:
        for name, expected, kept in (("web", "NOERROR", 5), ("none", "NXDOMAIN", 5), ("huge", "NOERROR", 5)):
            octets = question(host(name), ident=0)
            got = await client.get(url(made, octets), headers={"accept": TYPE})
            post = await client.post(
                url(made, octets).partition("?")[0], content=octets, headers={"content-type": TYPE}
            )
            assert got.http_version == ("HTTP/2" if two else "HTTP/1.1")
            for response in (got, post):
                assert response.status_code == 200
                assert response.headers["content-type"] == TYPE
                assert response.headers["cache-control"] == f"max-age={kept}"
                assert outcome(dns.message.from_wire(response.content)) == expected
        assert (await client.head(url(made, question(host("web"))))).content == b""


@pytest.mark.parametrize("two", [False, True])
async def test_what_is_no_dns_request_gets_the_status_that_says_so(tmp_path: Path, two: bool) -> None:
    async with doh(tmp_path) as (made, _, _chain), httpx.AsyncClient(http2=two, verify=False) as client:
        base = f"https://127.0.0.1:{made.port}"
        good = question(host("web"))
        for method, path, body, kind, expected in (
            ("GET", "/other", b"", "", 404),
            ("GET", "/dns-query", b"", "", 400),
            ("GET", "/dns-query?dns=&dns=", b"", "", 400),
            ("GET", "/dns-query?dns=%00%00", b"", "", 400),
            ("GET", "/dns-query?dns=ABCD", b"", "", 400),
            ("POST", "/dns-query", good, "text/plain", 415),
            ("POST", "/dns-query", b"short", TYPE, 400),
            ("POST", "/dns-query", b"x" * 70000, TYPE, 413),
            ("DELETE", "/dns-query", b"", "", 405),
            ("POST", "/dns-query", good[:2] + b"\x80" + good[3:], TYPE, 400),
        ):
            response = await client.request(method, base + path, content=body, headers={"content-type": kind})
            assert response.status_code == expected, (method, path)
        response = await client.post(base + "/dns-query", content=good, headers={"content-type": TYPE})
        assert response.status_code == 200, "and the next one is served"


async def run(*words: str) -> str:
    program = shutil.which(words[0])
    assert program, f"{words[0]} is needed: sh tests/get-servers.sh"
    process = await asyncio.create_subprocess_exec(
        program, *words[1:], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out = (await asyncio.wait_for(process.communicate(), 20))[0].decode()
    assert process.returncode == 0, out
    return out


async def test_kdig_asks_over_https_and_tls_and_is_content(tmp_path: Path) -> None:
    async with doh(tmp_path) as (made, server, chain):
        tls = await server.start_tls("127.0.0.1", 0, Certificate(chain, str(tmp_path / "key.pem")))
        hostname = ("+tls-hostname=dns.test", f"+tls-ca={chain}")
        for words in (
            ("-p", str(made.port), "+https", "+tls-ca=" + chain, "+tls-hostname=dns.test"),
            ("-p", str(made.port), "+https-get", "+https", "+tls-ca=" + chain, "+tls-hostname=dns.test"),
            ("-p", str(tls), "+tls", "+padding", *hostname),
            ("-p", str(server.port), "+cookie", "+nsid", "+bufsize=1232"),
            ("-p", str(server.port), "+tcp", "+keepopen"),
        ):
            out = await run("kdig", "@127.0.0.1", *words, host("web"), "A")
            assert "10.96.0.1" in out, out
            assert "WARNING" not in out.replace("WARNING: can't", ""), out


async def test_many_streams_at_once_and_one_that_is_given_up(tmp_path: Path) -> None:
    async with doh(tmp_path) as (made, _, chain):
        context = ssl.create_default_context(cafile=chain)
        context.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port, ssl=context, server_hostname="dns.test")
        peer = Peer(True)
        head = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "x"),
            (":path", "/dns-query"),
            ("content-type", TYPE),
        ]
        for number in range(1, 81, 2):
            peer.wire.send_headers(number, head)
            peer.wire.send_data(number, question(host("web")), end_stream=number != 79)
        peer.wire.reset_stream(79)
        writer.write(peer.take())
        while len(peer.ended) < 39:
            data = await asyncio.wait_for(reader.read(65536), 10)
            assert data
            peer.receive(data)
            writer.write(peer.take())
        assert all(outcome(dns.message.from_wire(peer.bodies[number])) == "NOERROR" for number in range(1, 79, 2))
        writer.close()


async def test_octets_that_are_no_http_end_their_connection_alone(tmp_path: Path) -> None:
    async with doh(tmp_path) as (made, _, chain):
        context = ssl.create_default_context(cafile=chain)
        for protocols in (["h2"], ["http/1.1"]):
            context.set_alpn_protocols(protocols)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", made.port, ssl=context, server_hostname="dns.test"
            )
            writer.write(b"\x00\x01nonsense\r\n\r\n" * 20)
            assert len(await asyncio.wait_for(reader.read(), 10)) < 1000
            writer.close()
        async with httpx.AsyncClient(http2=True, verify=False) as client:
            assert (await client.get(url(made, question(host("web"))))).status_code == 200


async def test_what_may_not_be_kept_says_so() -> None:
    assert lifetime(b"") == 0
    assert lifetime(question(host("web"))[:2] + b"\x80\2" + bytes(8)) == 0
