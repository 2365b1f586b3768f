"""The HTTP client: whole answers, endless ones, and every way not to get one."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fairlead.control.fetch import AiohttpFetch, proxy_for
from fairlead.registry.needs import FetchError

pytestmark = pytest.mark.asyncio


async def answer(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    reply = web.Response(body=request.method.encode() + b":" + body, status=int(request.query.get("status", "200")))
    reply.headers.add("X-Many", "a")
    reply.headers.add("X-Many", "b")
    return reply


async def slow(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def stream(request: web.Request) -> web.StreamResponse:
    made = web.StreamResponse()
    await made.prepare(request)
    await made.write(b"one")
    if "cut" in request.query:
        assert request.transport is not None
        request.transport.abort()
    elif "silent" in request.query:
        await asyncio.Event().wait()
    await made.write(b"two")
    return made


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[AiohttpFetch, str]]:
    app = web.Application()
    app.add_routes([web.route("*", "/", answer), web.get("/slow", slow), web.get("/stream", stream)])
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_server(runner.server, "127.0.0.1", 0)
    fetch = AiohttpFetch()
    try:
        yield fetch, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await fetch.close()
        server.close()
        await runner.cleanup()


async def test_any_status_is_an_answer() -> None:
    async with serving() as (fetch, url):
        for status in (200, 404, 500):
            reply = await fetch.request("PUT", f"{url}/?status={status}", body=b"x", headers={"A": "b"})
            assert (reply.status, reply.body) == (status, b"PUT:x")
            assert reply.headers["x-many"] == "a, b"


async def test_a_stream_is_read_as_it_comes() -> None:
    async with serving() as (fetch, url), fetch.stream("GET", f"{url}/stream") as reply:
        assert reply.status == 200
        assert b"".join([chunk async for chunk in reply]) == b"onetwo"


async def test_a_stream_that_is_cut_or_falls_silent_is_an_error() -> None:
    async with serving() as (fetch, url):
        for query in ("cut", "silent"):
            got = []
            with pytest.raises(FetchError, match="/stream"):
                async with fetch.stream("GET", f"{url}/stream?{query}&token=secret", idle_timeout_s=0.2) as reply:
                    async for chunk in reply:
                        got.append(chunk)
            assert got == [b"one"]


async def test_no_answer_is_an_error_that_names_the_address_and_no_secret() -> None:
    async with serving() as (fetch, url):
        with pytest.raises(FetchError, match=r"GET http://127\.0\.0\.1:\d+/slow: no answer within 0.1 s") as late:
            await fetch.request("GET", f"{url}/slow?token=secret", timeout_s=0.1)
        assert "secret" not in str(late.value)
        with pytest.raises(FetchError, match=r"127\.0\.0\.1:1/"):
            await fetch.request("GET", "http://127.0.0.1:1/")
        with pytest.raises(FetchError):
            async with fetch.stream("GET", "http://127.0.0.1:1/"):
                pass
        with pytest.raises(FetchError):
            await fetch.request("GET", "nonsense")


async def test_a_closed_client_fetches_nothing() -> None:
    fetch = AiohttpFetch()
    await fetch.close()
    with pytest.raises(FetchError, match="closed"):
        await fetch.request("GET", "http://127.0.0.1:1/")


async def test_proxies_are_those_of_the_environment_and_never_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_for("http://outside.example/") == "http://proxy:3128"
    for url in ("http://127.0.0.1:8500/", "http://localhost/", "http://[::1]/", "http://inside.example/"):
        assert proxy_for(url) is None


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for `name` and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + datetime.timedelta(hours=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    certificate, private = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, private


async def test_the_certificate_may_be_for_a_stated_name_instead_of_the_urls_host(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "server.dc1.consul")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    app = web.Application()
    app.router.add_route("*", "/answer", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/answer"
    trusting = ssl.create_default_context(cafile=str(certificate))
    named, unnamed = AiohttpFetch(trusting, server_name="server.dc1.consul"), AiohttpFetch(trusting)
    try:
        assert (await named.request("GET", url)).status
        with pytest.raises(FetchError, match="certificate"):
            await unnamed.request("GET", url)
    finally:
        await named.close()
        await unnamed.close()
        await runner.cleanup()
