"""Real TLS on loopback: who gets in, who is taken for a server, and what new certificates and roots do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fairlead.mesh.authority import Authority, moment, usage
from fairlead.mesh.contexts import Contexts, Material, client_context, server_context
from fairlead.mesh.identity import IdentityError
from fairlead.mesh.pem import load_chain
from fairlead.policy.tables import UpstreamTLS
from fairlead.proxy.dial import NoContextError
from tests.mesh.certificates_made import authority, leaf, material

pytestmark = pytest.mark.asyncio

DEADLINE_S = 10.0
WEB, OTHER = (f"spiffe://cluster.local/ns/default/sa/{name}" for name in ("web", "other"))
CA = authority()
FOREIGN = authority()


def contexts(given: Material | None = None, trust_domains: tuple[str, ...] = ("cluster.local",)) -> Contexts:
    made = Contexts(lambda: trust_domains)
    if given is not None:
        made.take(given)
    return made


class Echo(asyncio.Protocol):
    """Judges its peer as the inbound port does; sends back what a peer with an identity says."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.identity = ""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.server.open.add(transport)
        self.identity = self.server.contexts.identity_of(transport)
        self.server.identities.append(self.identity)
        if not self.identity:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        assert self.identity, "octets of a peer without an identity were handed on"
        self.server.read += data
        self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.server.open.discard(self.transport)


class Server:
    def __init__(self, contexts: Contexts) -> None:
        self.contexts = contexts
        self.identities: list[str] = []
        self.read = b""
        self.open: set[Any] = set()
        self.port = 0


@contextlib.asynccontextmanager
async def serving(found: Contexts) -> AsyncIterator[Server]:
    """An echo with the context of the moment for every new connection, as the inbound port has it."""
    loop, server = asyncio.get_running_loop(), Server(found)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server.port = listener.getsockname()[1]
    tasks: set[asyncio.Task[Any]] = set()

    async def secure(sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            await loop.connect_accepted_socket(lambda: Echo(server), sock, ssl=found.server())

    async def accept() -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            task = loop.create_task(secure(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    accepting = loop.create_task(accept())
    try:
        yield server
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        await asyncio.gather(*tasks, return_exceptions=True)
        listener.close()
        for transport in list(server.open):
            transport.abort()


class Silent(asyncio.Protocol):
    """A server that says nothing; `open` is what its listener has to end."""

    def __init__(self, open_: set[Any]) -> None:
        self.open = open_

    def connection_made(self, transport: Any) -> None:
        self.open.add(transport)


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext) -> AsyncIterator[tuple[str, int]]:
    open_: set[Any] = set()
    server = await asyncio.get_running_loop().create_server(lambda: Silent(open_), "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        for transport in open_:
            transport.abort()


async def say(port: int, context: ssl.SSLContext | None, words: bytes = b"hello") -> bytes:
    """What comes back; empty where the peer closes, at whatever stage."""
    writer = None
    try:
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="outbound_.80_._.web" if context else None
            )
            writer.write(words)
            return await reader.read(len(words))
    except (OSError, ssl.SSLError):
        return b""
    finally:
        if writer is not None:
            writer.transport.abort()


def showing(chain: str, key: str, roots: str) -> ssl.SSLContext:
    """A client that trusts `roots` and shows whatever it is given, right or wrong."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(cadata=roots)
    if chain:
        load_chain(made, chain, key)
    return made


def chain_below_a_leaf() -> tuple[str, str]:
    """A good leaf, signed by a leaf of our authority that calls itself an authority, too.

    The one between has a name and says what it may do, so that nothing but the root's path length of 0 stops it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "between")])
    now = time.time()
    between = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(CA.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(now - 60))
        .not_valid_after(moment(now + 600))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage(authority=True), critical=True)
        .sign(CA._key, hashes.SHA256())
    )
    _, chain, own = leaf(Authority(key, between), (OTHER,))
    return chain + between.public_bytes(serialization.Encoding.PEM).decode(), own


def wrong_material() -> dict[str, tuple[str, str]]:
    server_only = (ExtendedKeyUsageOID.SERVER_AUTH,)
    return {
        "none": ("", ""),
        "expired": leaf(CA, begins=-600.0, ends=-60.0)[1:],
        "not yet valid": leaf(CA, begins=86400.0, ends=2 * 86400.0)[1:],
        "of a foreign root": leaf(FOREIGN)[1:],
        "two identities": leaf(CA, (WEB, OTHER))[1:],
        "no identity": leaf(CA, ())[1:],
        "of another trust domain": leaf(CA, ("spiffe://elsewhere/ns/default/sa/web",))[1:],
        "no workload": leaf(CA, ("spiffe://cluster.local",))[1:],
        "an authority": leaf(CA, ca=True)[1:],
        "may sign": leaf(CA, key_usage=usage(authority=True))[1:],
        "servers only": leaf(CA, extended=server_only)[1:],
        "below a leaf": chain_below_a_leaf(),
        "the root itself": (CA.certificate_pem().decode(), CA.key_pem().decode()),
    }


WRONG = wrong_material()


@pytest.mark.parametrize("which", list(WRONG))
async def test_a_client_that_shows_a_wrong_certificate_has_no_octet_read(which: str) -> None:
    chain, key = WRONG[which]
    async with serving(contexts(material(CA))) as server:
        assert await say(server.port, showing(chain, key, CA.roots)) == b""
        assert server.read == b""
        assert set(server.identities) <= {""}
        # Whoever comes after is served.
        assert await say(server.port, client_context(material(CA, "other"))) == b"hello"
        assert server.identities[-1] == OTHER


async def test_refused_clients_are_counted_by_reason() -> None:
    found = contexts(material(CA))
    async with serving(found) as server:
        for which in ("two identities", "two identities", "of another trust domain"):
            await say(server.port, showing(*WRONG[which], CA.roots))
    assert sorted(found.refused.values()) == [1, 2]
    assert any("2 URI names" in why for why in found.refused)
    assert any("elsewhere" in why for why in found.refused)


async def test_reasons_from_strangers_do_not_fill_memory() -> None:
    found = contexts(material(CA))
    for number in range(500):
        found._count(f"reason {number}")
    assert len(found.refused) <= 100


async def test_tls_older_than_1_3_is_refused() -> None:
    async with serving(contexts(material(CA))) as server:
        old = client_context(material(CA, "other"))
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await say(server.port, old) == b""


async def test_where_the_mesh_says_so_tls_1_2_is_spoken_with_who_knows_no_better() -> None:
    found, other = contexts(material(CA)), contexts(material(CA, "other"))
    old = client_context(material(CA, "other"), False, ssl.TLSVersion.TLSv1_2)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(found) as server:
        found.require("TLSV1_2")
        assert await say(server.port, old) == b"hello"
        assert server.identities == [OTHER], "the peer is known as ever"
        weak = client_context(material(CA, "other"), False, ssl.TLSVersion.TLSv1_2)
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
        assert await say(server.port, weak) == b"", "no cipher without authenticated encryption"
        for chain, key in (WRONG["expired"], WRONG["none"], WRONG["two identities"], WRONG["of a foreign root"]):
            wrong = showing(chain, key, CA.roots)
            wrong.maximum_version = ssl.TLSVersion.TLSv1_2
            assert await say(server.port, wrong) == b""
        found.require("TLS_AUTO")
        assert await say(server.port, old) == b""
        assert await say(server.port, other.client(UpstreamTLS("mesh", identities=(WEB,)))) == b"hello"


@pytest.mark.parametrize(
    ("chain_and_key", "allowed", "why"),
    [
        (leaf(CA)[1:], (WEB,), None),
        (leaf(CA)[1:], (OTHER, WEB), None),
        (leaf(CA)[1:], (OTHER,), "may be"),
        (leaf(CA)[1:], (), "nobody"),
        (WRONG["two identities"], (WEB,), "2 URI names"),
        (WRONG["an authority"], (WEB,), "authority"),
        (WRONG["of another trust domain"], ("spiffe://elsewhere/ns/default/sa/web",), "trust domain"),
    ],
)
async def test_a_server_is_taken_for_the_service_only_by_its_identity(
    chain_and_key: tuple[str, str], allowed: tuple[str, ...], why: str | None
) -> None:
    serving_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_chain(serving_context, *chain_and_key)
    ours = contexts(material(CA, "other"))
    tls = UpstreamTLS("mesh", "outbound_.80_._.web", allowed)
    loop = asyncio.get_running_loop()
    async with listening(serving_context) as at:
        transport, _ = await loop.create_connection(
            asyncio.Protocol, *at, ssl=ours.client(tls), server_hostname=tls.sni
        )
        said = ours.verify(transport, tls)
        transport.abort()
    assert (said is None) if why is None else (said is not None and why in said)


@pytest.mark.parametrize("which", ["expired", "of a foreign root", "below a leaf"])
async def test_a_server_with_a_wrong_chain_fails_the_handshake(which: str) -> None:
    serving_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_chain(serving_context, *WRONG[which])
    loop, client = asyncio.get_running_loop(), client_context(material(CA))
    async with listening(serving_context) as at:
        transport = None
        try:
            with pytest.raises(ssl.SSLError):
                transport, _ = await loop.create_connection(asyncio.Protocol, *at, ssl=client, server_hostname="web")
        finally:
            if transport is not None:
                transport.abort()


async def test_a_renewed_certificate_serves_new_connections_and_leaves_old_ones_alone() -> None:
    found = contexts(material(CA))
    client = client_context(material(CA, "other"))
    async with serving(found) as server:
        serials = []
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=client, server_hostname="web")
        for _ in range(5):
            writer.write(b"still here")
            async with asyncio.timeout(DEADLINE_S):
                assert await reader.readexactly(10) == b"still here"
            assert await say(server.port, client) == b"hello"
            serials.append(found.material.serial if found.material else 0)
            found.take(material(CA))
        writer.transport.abort()
    assert len(set(serials)) == 5


async def test_roots_change_with_an_overlap_and_the_old_one_then_counts_for_nothing() -> None:
    before, after = authority(), authority()
    both = before.roots + after.roots
    server_side = contexts(material(before))
    async with serving(server_side) as server:
        # Both roots everywhere first; then new leaves, one side at a time; then the old root goes.
        server_side.take(material(before, roots=both))
        assert await say(server.port, client_context(material(before, "other", roots=both))) == b"hello"
        assert await say(server.port, client_context(material(after, "other", roots=both))) == b"hello"
        server_side.take(material(after, roots=both))
        assert await say(server.port, client_context(material(before, "other", roots=both))) == b"hello"
        server_side.take(material(after))
        assert await say(server.port, client_context(material(after, "other"))) == b"hello"
        assert await say(server.port, client_context(material(before, "other", roots=both))) == b""


async def test_material_that_does_not_fit_together_is_refused_and_the_old_stays() -> None:
    good = material(CA)
    found = contexts(good)
    server, stranger = found.server(), material(CA)
    with pytest.raises(ssl.SSLError):
        found.take(Material(good.certificates, stranger.key, good.roots))
    assert (found.server(), found.material) == (server, good)
    with pytest.raises(IdentityError, match="PEM"):
        Material("garbage", good.key, good.roots)


async def test_without_a_certificate_there_is_no_context() -> None:
    found = contexts()
    assert found.server() is None
    assert found.client(UpstreamTLS("mesh")) is None


async def test_the_key_is_never_in_a_file_that_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make = os.memfd_create

    def watched(name: str) -> int:
        made.append(make(name))
        return made[-1]

    def refused(*_arguments: object, **_more: object) -> None:
        raise AssertionError("a file with a name")

    monkeypatch.setattr(os, "memfd_create", watched)
    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr("builtins.open", refused)
    good, other = material(CA), material(CA)
    server_context(good)
    with pytest.raises(ssl.SSLError):
        load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), good.certificates, other.key)
    assert len(made) == 2
    for descriptor in made:
        with pytest.raises(OSError):
            os.fstat(descriptor)


async def test_files_of_a_destination_rule_that_are_missing_mean_no_connection_and_are_named() -> None:
    found = contexts(material(CA))
    with pytest.raises(NoContextError, match=r"/nonexistent/ca\.pem: No such file"):
        found.client(UpstreamTLS("simple", ca_file="/nonexistent/ca.pem"))


async def test_both_sides_insist_on_a_certificate_and_on_tls_1_3() -> None:
    """The identity check would catch a client without one, too: neither is to stand alone."""
    for context in (server_context(material(CA)), client_context(material(CA))):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("pem", ["", "garbage", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"])
async def test_damaged_pem_and_empty_roots_are_refused_in_words(pem: str) -> None:
    good = material(authority())
    with pytest.raises(IdentityError):
        Material(pem, good.key, good.roots)
    if pem != "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n":
        with pytest.raises(IdentityError):
            Material(good.certificates, good.key, pem)
