"""What stands on a root that is trusted no more ends: requests are let go first, and what stays is left alone."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from fairlead.mesh import distrust
from fairlead.mesh.contexts import Contexts, Material, certificates, client_context, server_context
from fairlead.mesh.distrust import Distrust, retire, standing, stands_on
from fairlead.mesh.revocations import Revoked
from fairlead.policy.tables import UpstreamTLS
from fairlead.proxy.poller import poller_of
from fairlead.proxy.tls import Tls
from tests.mesh.certificates_made import authority, material

OLD, NEW = authority(), authority()
BOTH = OLD.roots + NEW.roots


class Pair:
    """A handshake in memory; `client` and `server` are the two ends."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, session: Any = None) -> None:
        a, b, c, d = (ssl.MemoryBIO() for _ in range(4))
        self.client = client.wrap_bio(b, a, server_hostname="web", session=session)
        self.server = server.wrap_bio(c, d, server_side=True)
        for _ in range(6):
            for end, into, out in ((self.client, c, a), (self.server, b, d)):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                if data := out.read():
                    into.write(data)
        self.server.write(b"x")
        b.write(d.read())
        assert self.client.read(1) == b"x"


def roots(pem: str) -> frozenset[bytes]:
    return frozenset(certificates(pem))


def test_a_connection_stands_on_the_root_of_its_peer() -> None:
    server, client = server_context(material(OLD, roots=BOTH)), client_context(material(NEW, roots=BOTH))
    pair = Pair(server, client)
    assert stands_on(pair.client, roots(OLD.roots)) and not stands_on(pair.client, roots(NEW.roots))
    assert stands_on(pair.server, roots(NEW.roots)) and not stands_on(pair.server, roots(OLD.roots))


def test_a_resumed_connection_stands_on_the_root_of_its_first_handshake() -> None:
    server, client = server_context(material(OLD, roots=BOTH)), client_context(material(OLD, roots=BOTH))
    first = Pair(server, client)
    again = Pair(server, client, first.client.session)
    assert again.client.session_reused
    for wire in (again.client, again.server):
        assert stands_on(wire, roots(OLD.roots)) and not stands_on(wire, roots(NEW.roots))


class Upstream:
    """As much of a connection to an endpoint as is looked at."""

    def __init__(self, running: bool, two: bool = False) -> None:
        self.pool = object()
        self.closed = 0
        self.usable, self.last = True, False
        if two:
            self.codec, self.taken = object(), {1} if running else set()
        else:
            self.exchange = object() if running else None

    def close(self) -> None:
        self.closed += 1


class Raw:
    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def watched(wire: Any, protocol: Any = None) -> Raw:
    tls = Tls(protocol, None, None, lambda _: None)
    tls.wire, tls.shaken = wire, True
    raw = tls.raw = Raw(tls)
    return raw


def test_what_is_idle_is_closed_and_what_runs_is_the_last_of_its_connection() -> None:
    idle, busy, idle_two, busy_two = Upstream(False), Upstream(True), Upstream(False, True), Upstream(True, True)
    retire([watched(None, one).protocol for one in (idle, busy, idle_two, busy_two, object())])
    assert (idle.closed, busy.closed, idle_two.closed, busy_two.closed) == (1, 0, 1, 0)
    assert busy.last and not busy_two.usable


def taken(*given: Material) -> Contexts:
    made = Contexts(lambda: ("cluster.local",))
    for one in given:
        made.take(one)
    return made


@pytest.mark.asyncio
async def test_when_a_root_is_dropped_only_what_stands_on_it_is_cut_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distrust, "GRACE_S", 0.0)
    contexts = taken(material(OLD, roots=BOTH))
    looks = Distrust(contexts)
    server = contexts.server()
    assert server is not None
    old = Pair(server, client_context(material(OLD, roots=BOTH)))
    new = Pair(server, client_context(material(NEW, roots=BOTH)))
    foreign = Pair(server_context(material(OLD, roots=BOTH)), client_context(material(OLD, roots=BOTH)))  # not ours
    ends = [watched(one.server) for one in (old, new, foreign)]
    assert len(standing(ends, contexts.made, roots(OLD.roots))) == 1
    poller = poller_of(asyncio.get_running_loop())
    at = len(poller.watchers)
    poller.watchers.extend(ends)  # type: ignore[arg-type]
    try:
        contexts.take(material(NEW, roots=NEW.roots + OLD.roots))  # the same roots in another order
        await asyncio.sleep(0)
        assert not any(one.aborted for one in ends)
        contexts.take(material(NEW))
        async with asyncio.timeout(5):
            while not looks.cut:
                await asyncio.sleep(0)
        assert [one.aborted for one in ends] == [True, False, False]
    finally:
        del poller.watchers[at:]


@pytest.mark.asyncio
async def test_what_stands_on_a_revoked_certificate_is_cut_at_once_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    contexts = taken(material(OLD))
    looks = Distrust(contexts)
    server = contexts.server()
    assert server is not None
    stolen, other = material(OLD), material(OLD)
    pairs = [Pair(server, client_context(stolen)), Pair(server, client_context(other))]
    resumed = Pair(server, pairs[0].client.context, pairs[0].client.session)
    ends = [watched(one.server) for one in (*pairs, resumed)]
    poller = poller_of(asyncio.get_running_loop())
    at = len(poller.watchers)
    poller.watchers.extend(ends)  # type: ignore[arg-type]
    try:
        contexts.revoke(Revoked({"serial:1": ""}))
        assert not any(one.aborted for one in ends)
        contexts.revoke(Revoked({f"serial:{stolen.serial:x}": "by alice: stolen"}))
        assert [one.aborted for one in ends] == [True, False, True]
        assert looks.cut == 2
    finally:
        del poller.watchers[at:]
    assert f"2 connections cut: certificate {stolen.serial:x} of" in caplog.text
    assert "by alice: stolen" in caplog.text


class Shown:
    """A transport whose peer has shown something."""

    def __init__(self, wire: ssl.SSLObject) -> None:
        self.wire = wire

    def get_extra_info(self, _name: str) -> ssl.SSLObject:
        return self.wire


def test_a_revoked_certificate_is_refused_after_its_handshake_by_both_sides() -> None:
    contexts = taken(material(OLD))
    server, client = contexts.server(), contexts.client(UpstreamTLS("mesh"))
    assert server is not None and client is not None
    peer = material(OLD)
    inbound = Shown(Pair(server, client_context(peer)).server)
    outbound = Shown(Pair(server_context(peer), client).client)
    identity = contexts.identity_of(inbound)
    tls = UpstreamTLS("mesh", identities=(identity,))
    assert identity and contexts.verify(outbound, tls) is None
    contexts.revoke(Revoked({f"serial:{peer.serial:x}": "by alice"}))
    assert contexts.identity_of(inbound) == ""
    assert list(contexts.refused) == [f"certificate {peer.serial:x} of {identity} is revoked (by alice)"]
    assert contexts.verify(outbound, tls) == f"certificate {peer.serial:x} of {identity} is revoked (by alice)"
    contexts.revoke(Revoked())
    assert contexts.identity_of(inbound) == identity
