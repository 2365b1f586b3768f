"""DNS over TLS: certificates from files, renewed while it runs; padding."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.edns
import dns.message
import pytest

from fairlead.dns.server import DnsServer
from fairlead.dns.tls_files import Certificate
from tests.dns.test_server import running, until
from tests.dns.world import host, outcome, question

pytestmark = pytest.mark.asyncio


def issue(folder: Path, name: str = "dns.test", files: tuple[str, str] = ("cert.pem", "key.pem")) -> tuple[str, str]:
    chain, key = (str(folder / file) for file in files)
    curve, about = ["-pkeyopt", "ec_paramgen_curve:P-256"], ["-subj", f"/CN={name}", "-days", "2", "-nodes"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", *curve, *about]
    command += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", chain]
    subprocess.run(command, check=True, capture_output=True)
    return chain, key


async def presented(port: int) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    der: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.transport.abort()
    return der


async def over_tls(port: int, chain: str, name: str, **fields: Any) -> dns.message.Message:
    context = ssl.create_default_context(cafile=chain)
    query = dns.message.make_query(name, "A", **fields)
    return await dns.asyncquery.tls(query, "127.0.0.1", 5, port, ssl_context=context, server_hostname="dns.test")


async def test_questions_over_tls_are_answered_and_padded_where_that_is_asked(tmp_path: Path) -> None:
    chain, key = issue(tmp_path)
    async with running() as server:
        port = await server.start_tls("127.0.0.1", 0, Certificate(chain, key))
        got = await over_tls(port, chain, host("web"))
        assert outcome(got) == "NOERROR"
        pad: list[dns.edns.Option] = [dns.edns.GenericOption(dns.edns.OptionType.PADDING, b"")]
        for name in (host("web"), host("none"), host("many")):
            got = await over_tls(port, chain, name, use_edns=0, options=pad)
            assert len(got.wire or b"") % 468 == 0
            got = await over_tls(port, chain, name, use_edns=0)
            assert not got.options, "who does not ask is not padded for"
        query = dns.message.make_query(host("web"), "A", use_edns=0, options=pad)
        plain = await dns.asyncquery.tcp(query, "127.0.0.1", 5, server.port)
        assert not plain.options, "in clear text padding hides nothing"


async def test_a_renewed_certificate_is_presented_without_a_restart_and_a_broken_one_is_not(tmp_path: Path) -> None:
    chain, key = issue(tmp_path)
    certificate = Certificate(chain, key)
    async with running() as server:
        port = await server.start_tls("127.0.0.1", 0, certificate)
        first = await presented(port)
        issue(tmp_path)
        certificate.look()
        second = await presented(port)
        assert second != first
        Path(chain).write_text("no certificate")
        assert not certificate.look()
        assert "stays in use" in certificate.problem
        assert await presented(port) == second
        issue(tmp_path, files=("cert.pem", "other.pem"))  # the key does not belong to it
        assert not certificate.look()
        assert await presented(port) == second
        issue(tmp_path)
        assert certificate.look()
        assert not certificate.problem
        assert await presented(port) not in (first, second)


async def test_the_running_server_looks_by_itself(tmp_path: Path) -> None:
    chain, key = issue(tmp_path)
    async with running() as server:
        certificate = Certificate(chain, key)
        await server.start_tls("127.0.0.1", 0, certificate)
        before = certificate._seen
        issue(tmp_path)
        await until(lambda: certificate._seen != before)


async def test_files_that_are_no_certificate_are_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("nothing")
    with pytest.raises((OSError, ValueError)):
        Certificate(str(tmp_path / "x"), str(tmp_path / "x"))
    with pytest.raises(OSError, match="No such file"):
        Certificate(str(tmp_path / "none"), str(tmp_path / "none"))


async def test_clear_text_on_the_tls_port_does_no_harm(tmp_path: Path) -> None:
    chain, key = issue(tmp_path)
    async with running() as server:
        port = await server.start_tls("127.0.0.1", 0, Certificate(chain, key))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\0\x20" + question(host("web")))
        try:
            assert len(await asyncio.wait_for(reader.read(), 5)) < 100
        except ConnectionResetError:
            pass
        writer.close()
        assert outcome(await over_tls(port, chain, host("web"))) == "NOERROR"


async def test_before_start_there_is_nothing_to_close() -> None:
    await DnsServer().close()
