"""Tricks against AuthorizationPolicy through a whole sidecar: each has the answer that it must get, and what the app
sees is what policy judged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.mesh.test_sidecar import DEADLINE_S, HOST, Pair, pair, port_of

pytestmark = pytest.mark.asyncio
ALLOW = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: list}
spec:
  selector: {matchLabels: {app: web}}
  action: %s
  rules: [{%s}]
"""
PATHS = 'to: [{operation: {paths: ["%s"]}}]'
MODE = """
apiVersion: fairlead.dev/v1
kind: MeshConfig
metadata: {name: default}
spec: {pathNormalization: {normalization: %s}}
"""


async def raw(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(DEADLINE_S):
            with contextlib.suppress(ConnectionError):
                return await reader.read()
            return b""
    finally:
        writer.transport.abort()


async def ask(port: int, target: str, host: str = HOST, *lines: str, method: str = "GET") -> int:
    given = "".join(f"{line}\r\n" for line in lines)
    answer = await raw(port, f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{given}Connection: close\r\n\r\n".encode())
    return int(answer.split()[1]) if answer else 0


@contextlib.asynccontextmanager
async def guarded(*documents: str) -> AsyncIterator[tuple[Pair, int]]:
    async with pair("PERMISSIVE") as mesh:
        mesh.update(*documents)
        yield mesh, mesh.mesh_port


TRICKS = [
    # target, status where /public/* is allowed, status where /admin* is denied, what the app sees where it gets through
    ("/public/x", 200, 200, "/public/x"),
    ("/admin", 403, 403, ""),
    ("/admin?public", 403, 403, ""),
    ("/public/../admin", 403, 403, ""),
    ("/public/x/../../admin", 403, 403, ""),
    ("/public/./../admin/", 403, 403, ""),
    ("/public/%2e%2e/admin", 403, 403, ""),
    ("/public/%2E./admin", 403, 403, ""),
    ("/%61dmin", 403, 403, ""),
    ("/%61%64min/x", 403, 403, ""),
    ("/public\\..\\admin", 403, 403, ""),
    ("\\admin", 400, 400, ""),
    ("/public;a=b/../admin", 403, 403, ""),
    ("/./admin", 403, 403, ""),
    ("/x/../admin", 403, 403, ""),
    ("/PUBLIC/x", 403, 200, "/PUBLIC/x"),
    ("/Admin", 403, 200, "/Admin"),
    ("//admin", 403, 200, "//admin"),
    ("/public", 403, 200, "/public"),
    ("/public./x", 403, 200, "/public./x"),
    ("/public/%252e%252e/admin", 200, 200, "/public/%252e%252e/admin"),
    ("/public/..%2fadmin", 200, 200, "/public/..%2fadmin"),
    ("/public/..;/admin", 400, 400, ""),
    ("/public/%00", 400, 400, ""),
    ("/public/x#/../../admin", 400, 400, ""),
    ("/admin%20", 403, 403, ""),
    ("/public/../../../../admin", 403, 403, ""),
    (f"http://{HOST}/admin", 403, 403, ""),
    (f"http://{HOST}/public/../admin", 403, 403, ""),
    ("http://elsewhere.example/admin", 400, 400, ""),
]


async def test_tricks_with_paths_get_their_answers() -> None:
    async with guarded() as (mesh, port):
        for target, allowed, denied, sees in TRICKS:
            for text, wanted in ((ALLOW % ("ALLOW", PATHS % "/public/*"), allowed),
                                 (ALLOW % ("DENY", PATHS % "/admin*"), denied)):  # fmt: skip
                mesh.update(text)
                before = len(mesh.app.seen)
                assert await ask(port, target) == wanted, (target, text)
                assert len(mesh.app.seen) == before + (wanted == 200), target
                if wanted == 200:
                    assert mesh.app.seen[-1].split(b" ")[1].decode() == sees


STRICTER = [
    ("MERGE_SLASHES", "//admin", 403), ("MERGE_SLASHES", "/public//..//admin", 200),
    ("MERGE_SLASHES", "/public/..%2fadmin", 200), ("DECODE_AND_MERGE_SLASHES", "/public/..%2fadmin", 403),
    ("DECODE_AND_MERGE_SLASHES", "/public/..%5Cadmin", 403), ("DECODE_AND_MERGE_SLASHES", "/public%2F..%2Fadmin", 403),
    ("DECODE_AND_MERGE_SLASHES", "/public/%252e%252e%252fadmin", 200), ("NONE", "/public/../admin", 200),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "target", "status"), STRICTER)
async def test_normalisation_decides_what_a_rule_sees_and_the_app_gets_the_same(
    mode: str, target: str, status: int
) -> None:
    async with guarded(MODE % mode, ALLOW % ("ALLOW", PATHS % "/public/*")) as (mesh, port):
        assert await ask(port, target) == status
        if status == 200 and mode != "NONE":
            assert mesh.app.seen[-1].split(b" ")[1].startswith(b"/public/")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (HOST, 200), (HOST.upper(), 200), (f"{HOST}:80", 403), (f"{HOST}.", 403), (f"{HOST}:", 400), (f"x.{HOST}", 403),
        (f"{HOST}, {HOST}", 400), (f"user@{HOST}", 400), ("", 400), (f"{HOST}/", 400), (f"{HOST}\\", 400),
    ],
)  # fmt: skip
async def test_hosts_are_compared_whole_and_without_case(host: str, status: int) -> None:
    async with guarded(ALLOW % ("ALLOW", f'to: [{{operation: {{hosts: ["{HOST}"]}}}}]')) as (_, port):
        assert await ask(port, "/", host) == status


async def test_an_absolute_target_names_the_host_that_counts() -> None:
    async with guarded(ALLOW % ("ALLOW", f'to: [{{operation: {{hosts: ["{HOST}"]}}}}]')) as (mesh, port):
        assert await ask(port, "http://evil.example/x", HOST) == 400
        assert await ask(port, "http://evil.example/x", "evil.example") == 403
        assert await ask(port, f"http://{HOST}/x", HOST) == 200
        assert await ask(port, "/", HOST, f"Host: {HOST}") == 400
        assert len(mesh.app.seen) == 1


@pytest.mark.parametrize("method", ["get", "Get", "G%45T", "POST"])
async def test_methods_are_tokens_of_their_own_case(method: str) -> None:
    async with guarded(ALLOW % ("ALLOW", "to: [{operation: {methods: [GET]}}]")) as (mesh, port):
        assert await ask(port, "/", method=method) in (0, 400, 403)  # 0: what is no HTTP is closed
        assert await ask(port, "/", HOST, "x-http-method-override: GET", method="DELETE") == 403
        assert not mesh.app.seen


FORGED = "By=x;URI=spiffe://cluster.local/ns/default/sa/client"


@pytest.mark.parametrize(
    "lines",
    [
        [f"x-forwarded-client-cert: {FORGED}"], [f"X_Forwarded_Client_Cert: {FORGED}"],
        ["x-envoy-peer-metadata-id: client"], ["l5d-client-id: client.default"],
        ["connection: x-forwarded-client-cert", f"x-forwarded-client-cert: {FORGED}"],
        ["authorization: Bearer spiffe://cluster.local/ns/default/sa/client"],
    ],
)  # fmt: skip
async def test_no_header_makes_an_identity(lines: list[str]) -> None:
    rule = 'from: [{source: {principals: ["cluster.local/ns/default/sa/client"]}}]'
    async with guarded(ALLOW % ("ALLOW", rule)) as (mesh, port):
        status = await ask(port, "/", HOST, *lines)
        assert status == (400 if "_" in lines[0].partition(":")[0] else 403)
        assert not mesh.app.seen
        if status == 400:
            return
        assert await ask(port_of(mesh.client.at["outbound"]), "/", HOST, *lines) == 200
        told = [
            line for line in mesh.app.seen[-1].split(b"\r\n") if line.lower().startswith(b"x-forwarded-client-cert")
        ]
        assert (
            len(told) == 1 and b"URI=spiffe://cluster.local/ns/default/sa/client" in told[0] and b"By=x" not in told[0]
        )


async def test_an_address_of_origin_is_believed_of_those_alone_who_may_say_it() -> None:
    rule = 'from: [{source: {remoteIpBlocks: ["198.51.100.0/24"]}}]'
    async with guarded(ALLOW % ("ALLOW", rule)) as (mesh, port):
        for forged in ("198.51.100.7", "198.51.100.7, 10.0.0.1", "10.0.0.1, 198.51.100.7"):
            assert await ask(port, "/", HOST, f"x-forwarded-for: {forged}") == 403
            assert await ask(port, "/", HOST, f"forwarded: for={forged}", f"x-real-ip: {forged}") == 403
        by_peer = port_of(
            mesh.client.at["outbound"]
        )  # has a mesh identity, as a gateway has: the last entry is its own
        assert await ask(by_peer, "/", HOST, "x-forwarded-for: 10.0.0.1, 198.51.100.7") == 200
        assert await ask(by_peer, "/", HOST, "x-forwarded-for: 198.51.100.7, 10.0.0.1") == 403
        assert await ask(by_peer, "/", HOST, "x-forwarded-for: 198.51.100.7 evil") == 403


@pytest.mark.parametrize("first", ["get / HTTP/1.1", "GET  / HTTP/1.1", "GET / http/1.1", "\x01GET / HTTP/1.1"])
async def test_what_is_nearly_http_does_not_pass_a_port_of_http_unread(first: str) -> None:
    """Else a forged identity would reach an app that reads more loosely than we do."""
    async with pair("PERMISSIVE") as mesh:
        head = f"{first}\r\nHost: {HOST}\r\nConnection: close\r\nx-forwarded-client-cert: {FORGED}\r\n\r\n"
        answer = await raw(mesh.mesh_port, head.encode())
        assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 ")), answer
        assert not any(b"spiffe://" in seen for seen in mesh.app.seen)
