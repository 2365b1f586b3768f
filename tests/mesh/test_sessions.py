"""Resumed TLS sessions between sidecars: they are taken up, and are judged like a first handshake."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any

import pytest

from fairlead.mesh import contexts as contexts_module
from fairlead.mesh.contexts import Contexts, ResumingContext
from fairlead.policy.tables import UpstreamTLS
from tests.mesh.certificates_made import authority, material
from tests.mesh.test_contexts import CA, OTHER, WEB, Server, contexts, serving

pytestmark = pytest.mark.asyncio
SNI = "outbound_.80_._.web.default.svc.cluster.local"


class Talk(asyncio.Protocol):
    def __init__(self) -> None:
        self.got = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.got.done():
            self.got.set_result(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.got.done():
            self.got.set_result(b"")


async def connect(server: Server, client: Contexts, expected: str = WEB) -> tuple[bool, str | None, bytes]:
    """(whether the session was resumed, why the server is refused, what it answers) of one new connection."""
    tls = UpstreamTLS("mesh", identities=(expected,))
    context = client.client(tls)
    assert isinstance(context, ResumingContext)
    secure = context.to(f"127.0.0.1:{server.port}")
    transport, talk = await asyncio.wait_for(
        asyncio.get_running_loop().create_connection(
            Talk, "127.0.0.1", server.port, ssl=secure, server_hostname=SNI
        ), 10,
    )  # fmt: skip
    try:
        why = client.verify(transport, tls)
        transport.write(b"hello")
        answer: bytes = await asyncio.wait_for(talk.got, 10)
        wire: Any = transport.get_extra_info("ssl_object")
        assert wire.getpeercert(binary_form=True), "the peer's certificate is known, resumed or not"
        return bool(wire.session_reused), why, answer
    finally:
        transport.abort()


def clients() -> Contexts:
    return contexts(material(CA, "other"))


async def test_the_second_connection_takes_up_the_session_of_the_first_and_so_on() -> None:
    client = clients()
    async with serving(contexts(material(CA))) as server:
        found = [await connect(server, client) for _ in range(4)]
    assert [resumed for resumed, _, _ in found] == [False, True, True, True]
    assert all(why is None and answer == b"hello" for _, why, answer in found)
    assert server.identities == [OTHER] * 4, "the server knows its client each time"


async def test_a_resumed_server_is_asked_for_its_identity_again() -> None:
    client = clients()
    async with serving(contexts(material(CA))) as server:
        await connect(server, client)
        resumed, why, _ = await connect(server, client, expected=OTHER)
        assert resumed
        assert why is not None
        assert WEB in why
        assert (await connect(server, client))[:2] == (True, None)


async def test_a_session_is_not_taken_to_another_endpoint() -> None:
    client = clients()
    async with serving(contexts(material(CA))) as server, serving(contexts(material(CA, "other"))) as other:
        await connect(server, client)
        assert await connect(other, client, expected=OTHER) == (False, None, b"hello")
        assert (await connect(other, client, expected=OTHER))[0]
        assert (await connect(server, client))[0]


async def test_another_process_at_the_same_endpoint_cannot_take_up_a_session() -> None:
    """An impostor with a certificate of the mesh: it gets a full handshake, and is not who it should be."""
    client = clients()
    found = contexts(material(CA))
    async with serving(found) as server:
        await connect(server, client)
        assert (await connect(server, client))[0]
        found.take(material(CA, "other"))  # as another process: other keys for tickets, another identity
        resumed, why, _ = await connect(server, client)
        assert not resumed
        assert why is not None
        assert OTHER in why


async def test_after_the_clients_root_is_gone_its_old_sessions_do_not_open_the_door() -> None:
    foreign = authority()
    client = contexts(material(CA, "other", roots=CA.roots))
    async with serving(contexts(material(CA, roots=CA.roots + foreign.roots))) as server:
        await connect(server, client)
        assert (await connect(server, client))[0]
        client.take(material(foreign, "other", roots=foreign.roots))  # CA is trusted no more
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(server, client)


async def test_after_the_servers_root_is_gone_tickets_of_its_clients_are_worth_nothing() -> None:
    foreign = authority()
    found = contexts(material(foreign, roots=CA.roots + foreign.roots))
    client = contexts(material(CA, "other", roots=CA.roots + foreign.roots))
    async with serving(found) as server:
        await connect(server, client)
        assert (await connect(server, client))[0]
        found.take(material(foreign, roots=foreign.roots))  # CA, of which the client is, is trusted no more
        before = list(server.identities)
        resumed, _, answer = await connect(server, client)
        assert not resumed
        assert answer == b""
        assert server.identities == before


async def test_a_new_certificate_ends_the_sessions_on_either_side() -> None:
    found, client = contexts(material(CA)), clients()
    async with serving(found) as server:
        await connect(server, client)
        assert (await connect(server, client))[0]
        client.take(material(CA, "other"))
        assert [(await connect(server, client))[0] for _ in range(2)] == [False, True]
        found.take(material(CA))
        assert [(await connect(server, client))[0] for _ in range(2)] == [False, True]


async def test_a_peer_whose_certificate_has_ended_is_refused_though_its_session_is_resumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenSSL does not look at the date of a resumed session's certificate."""
    now = time.time()

    class Later:
        @staticmethod
        def time() -> float:
            return now

    client = contexts(material(CA, "other", ttl_s=600))
    async with serving(contexts(material(CA, ttl_s=1200))) as server:
        await connect(server, client)
        assert (await connect(server, client))[0]
        monkeypatch.setattr(contexts_module, "time", Later)
        now += 900  # the client's has ended, the server's has not
        resumed, why, answer = await connect(server, client)
        assert resumed
        assert why is None
        assert answer == b""
        assert server.identities[-1] == ""
        assert server.contexts.refused == {"the certificate has ended": 1}
        now += 900
        assert (await connect(server, client))[1] == "the certificate has ended"


async def test_connections_made_at_once_do_not_lose_the_session() -> None:
    client = clients()
    async with serving(contexts(material(CA))) as server:
        await connect(server, client)
        found = await asyncio.gather(*(connect(server, client) for _ in range(12)))
        assert all(resumed for resumed, _, _ in found)


async def test_sessions_are_forgotten_oldest_first_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts_module, "SESSIONS_MAX", 2)
    client = clients()
    found = contexts(material(CA))
    async with serving(found) as one, serving(found) as two, serving(found) as three:
        for server in (one, two, three, one):
            assert not (await connect(server, client))[0]
            harvest(client)
        context = client.client(UpstreamTLS("mesh"))
        assert isinstance(context, ResumingContext)
        assert len(context._sessions) == 2


def harvest(client: Contexts) -> None:
    context = client.client(UpstreamTLS("mesh"))
    assert isinstance(context, ResumingContext)
    context._harvest_all()
    assert not context._new, "no connection is kept alive for its ticket after that"


async def test_a_handshake_that_is_not_over_when_sessions_are_looked_for_is_left_alone() -> None:
    """OpenSSL has no session then, and says so with an error."""
    context = clients().client(UpstreamTLS("mesh", identities=(WEB,)))
    assert isinstance(context, ResumingContext)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    begun = context.resume(incoming, outgoing, SNI, "127.0.0.1:1")
    with pytest.raises(ssl.SSLWantReadError):
        begun.do_handshake()
    context._harvest_all()
    assert not context._new
    assert not context._sessions
