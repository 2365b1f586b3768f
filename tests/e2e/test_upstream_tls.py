"""What DestinationRules say of connections out of the mesh: TLS from Secrets and files, forward proxies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.e2e.roles import Role, ask, client, roles_in, until
from tests.e2e.test_gateway import QUIET, own_secrets, secret
from tests.e2e.test_mesh import shop

pytestmark = pytest.mark.asyncio
API = "api.example"
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api}}
spec:
  hosts: [api.example]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{http: {port}}}}}]
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec:
  host: api.example
  workloadSelector: {matchLabels: {app: friend}}
  trafficPolicy: {tls: {mode: MUTUAL, credentialName: to-api}}
"""


@contextlib.asynccontextmanager
async def tls_api(authority: Authority, folder: Path) -> AsyncIterator[tuple[int, list[str]]]:
    """An HTTP server that asks clients for a certificate: (its port, names of those who came)."""
    (folder / "api.pem").write_text("".join(authority.issue(API)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "api.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.pem)
    came: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(dict(part[0] for part in writer.get_extra_info("peercert")["subject"])["commonName"])
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"ok"')
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], came
    finally:
        server.close()


async def test_a_sidecar_that_a_rule_selects_gets_its_secret_from_control_and_shows_it(tmp_path: Path) -> None:
    authority = Authority()
    async with shop(tmp_path) as made, tls_api(authority, tmp_path) as (port, came):
        mine = secret("to-api", authority.issue("friend of the api"), authority.pem)
        await made.apply("\n---\n".join([ENTRY.format(port=port), RULE, mine, mine.replace("to-api", "another")]))

        async def friend() -> Any:
            return (await ask(made.session, made.sidecars["friend"], API))[0] == 200

        await until("an answer by mutual TLS", friend)
        assert came[-1] == "friend of the api"
        assert (await ask(made.session, made.sidecars["stranger"], API))[0] != 200, (
            "the rule is not for it: it asks in plain text"
        )
        assert own_secrets(tmp_path / "friend") == {"default/to-api"}
        for name in ("web", "stranger"):
            assert not own_secrets(tmp_path / name)
        await made.apply(RULE.replace("app: friend", "app: web"))

        async def withdrawn() -> bool:
            return not own_secrets(tmp_path / "friend") and own_secrets(tmp_path / "web") == {"default/to-api"}

        await until("the Secret to go where the rule now points", withdrawn)


@contextlib.asynccontextmanager
async def forward_proxy(answer: bytes) -> AsyncIterator[tuple[int, list[str]]]:
    """An HTTP proxy that takes CONNECT for any name to 127.0.0.1: (its port, what it was asked for)."""
    asked: list[str] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head.split("\r\n")[0])
        writer.write(answer)
        if b" 200 " in answer:
            to, from_ = await asyncio.open_connection("127.0.0.1", int(head.split()[1].rpartition(":")[2]))
            await asyncio.gather(pipe(reader, from_), pipe(to, writer))
            from_.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        server.close()


MESH = """
apiVersion: fairlead.dev/v1
kind: MeshConfig
metadata: {name: default}
spec: {accessLogEncoding: JSON}
---
"""
# As Istio's task "Using an External HTTPS Proxy" with an egress tunnel has it: the rule, the proxy, the routes.
TUNNEL = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: external}}
spec:
  hosts: [external-service.example]
  addresses: [127.0.0.9]
  ports: [{{number: 443, name: tls, protocol: TLS}}]
  resolution: NONE
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: proxy}}
spec:
  hosts: [forward-proxy.example]
  ports: [{{number: 3128, name: tcp, protocol: TCP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1, ports: {{tcp: {proxy}}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: proxy}}
spec:
  host: forward-proxy.example
  subsets:
    - name: tunnel-to-external
      trafficPolicy: {{tunnel: {{protocol: CONNECT, targetHost: external-service.example, targetPort: {target}}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: external}}
spec:
  hosts: [external-service.example]
  tls:
    - match: [{{sniHosts: [external-service.example], port: 443}}]
      route: [{{destination: {{host: forward-proxy.example, subset: tunnel-to-external, port: {{number: 3128}}}}}}]
"""


async def through(role: Role, authority: Authority) -> bytes:
    context = ssl.create_default_context(cadata=authority.pem)
    host, _, port = role.at["listen0"].rpartition(":")
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=context, server_hostname="external-service.example"
    )
    writer.write(b"hello\n")
    answer = await reader.readline()
    writer.close()
    return answer


async def test_tls_of_an_app_goes_through_an_external_forward_proxy(tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "service.pem").write_text("".join(authority.issue("external-service.example")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "service.pem")

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    service = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    target = service.sockets[0].getsockname()[1]
    flags = ("--workload", "default/app-1", "--listen", "127.0.0.1:0=external-service.example:443", "--outbound",
             "127.0.0.1:0", "--inbound", "off", "--access-log", "-", *QUIET)  # fmt: skip
    async with roles_in(tmp_path) as roles, service, client():
        async with forward_proxy(b"HTTP/1.1 200 OK\r\n\r\n") as (proxy, asked):
            (tmp_path / "m.yaml").write_text(TUNNEL.format(proxy=proxy, target=target))
            role = await roles.start("sidecar", "-f", str(tmp_path / "m.yaml"), *flags)
            assert await through(role, authority) == b"hello\n"
            assert asked == [f"CONNECT external-service.example:{target} HTTP/1.1"]
        async with forward_proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as (proxy, _):
            (tmp_path / "n.yaml").write_text(MESH + TUNNEL.format(proxy=proxy, target=target))
            role = await roles.start("sidecar", "-f", str(tmp_path / "n.yaml"), *flags)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await through(role, authority)

            async def logged() -> bool:
                return any('"UF"' in line for line in role.lines)

            await until("a line in the access log", logged)
            assert "with status 407" in "".join(role.lines), json.dumps(role.lines)
