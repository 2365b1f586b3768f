"""Shell: connections whose peers are not believed any more: their root is gone, or their certificate is revoked.

A root that is dropped takes with it what was authenticated under it, also where that goes on: connections outlive the
certificates with which they began. Requests are not broken off for it: connections to endpoints carry no new ones and
are closed when idle, at once. What runs on them ends within GRACE_S; then they are cut, as is what was opened by others
and what is no HTTP (TCP, WebSockets). Those under roots that stay are left alone.

A certificate that is revoked may be in a stranger's hands: its connections are cut at once, whatever runs on them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from typing import Any

from ..proxy.poller import poller_of
from ..proxy.tls import Tls
from . import trust
from .identity import IdentityError
from .revocations import Revoked

GRACE_S = 30.0
KEY_ID = b"\x06\x03\x55\x1d\x0e\x04"
"""subjectKeyIdentifier and the OCTET STRING that holds it, as DER."""
logger = logging.getLogger("fairlead.certificates")


def stands_on(wire: Any, gone: Collection[bytes]) -> bool:
    """Whether the peer of an SSLObject was believed for one of these roots (DER).

    OpenSSL knows the chain of a full handshake; of a resumed one the leaf alone, which names the key of who signed it.
    """
    chain = verified_chain(wire)
    if chain:
        return chain[-1] in gone
    der = wire.getpeercert(binary_form=True)
    try:
        signer = trust.read_leaf(der).authority_key_id if der else b""
    except IdentityError:
        return False
    mark = KEY_ID + bytes((len(signer) + 2, 0x04, len(signer))) + signer
    return bool(signer) and any(mark in root for root in gone)


def verified_chain(wire: Any) -> list[bytes]:
    """Leaf first, as DER; public from Python 3.13 on."""
    public = getattr(wire, "get_verified_chain", None)
    if public is not None:
        return [bytes(one) for one in public()]
    inner = getattr(wire, "_sslobj", None)
    chain = inner.get_verified_chain() if inner is not None else None
    return [one.public_bytes(2) for one in chain or ()]  # 2: ENCODING_DER


def of_mesh(watchers: Iterable[Any], contexts: Collection[Any]) -> list[Tls]:
    """Of all that a poller watches the connections of the mesh."""
    found = []
    for watcher in watchers:
        tls = getattr(watcher, "protocol", None)
        if isinstance(tls, Tls) and tls.shaken and not tls.closing and tls.wire is not None:
            if tls.wire.context in contexts:
                found.append(tls)
    return found


def standing(watchers: Iterable[Any], contexts: Collection[Any], gone: Collection[bytes]) -> list[Tls]:
    """Those of them that stand on these roots."""
    return [tls for tls in of_mesh(watchers, contexts) if stands_on(tls.wire, gone)]


def taken_back(wire: Any, revoked: Revoked) -> str:
    """Why the peer of an SSLObject is not believed any more; empty: it is."""
    try:
        identity, serial = trust.read(wire.getpeercert(binary_form=True))
    except IdentityError:
        return ""
    return revoked.why(serial, identity)


def retire(connections: Iterable[Tls]) -> None:
    """Those to endpoints carry no new requests; idle ones are closed."""
    for tls in connections:
        upstream = tls.protocol
        if getattr(upstream, "pool", None) is None:
            continue
        if getattr(upstream, "codec", None) is not None:  # HTTP/2
            if upstream.taken:
                upstream.usable = False
            else:
                upstream.close()
        elif getattr(upstream, "exchange", upstream) is None:
            upstream.close()
        elif hasattr(upstream, "last"):
            upstream.last = True


class Distrust:
    """`contexts`: see contexts.Contexts; it tells of the roots that it trusts no more."""

    def __init__(self, contexts: Any) -> None:
        self._contexts = contexts
        self.cut = 0
        contexts.distrusted = self.begin
        contexts.on_revoked.append(self.end)

    def begin(self, gone: frozenset[bytes]) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # nothing runs yet
        retire(self._standing(loop, gone))
        loop.call_later(GRACE_S, self._end, loop, gone)

    def end(self, revoked: Revoked) -> None:
        """Cut what stands on certificates that are revoked."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        ended: dict[str, int] = {}
        for tls in of_mesh(list(poller_of(loop).watchers), self._contexts.made) if revoked else ():
            if why := taken_back(tls.wire, revoked):
                tls.abort()
                ended[why] = ended.get(why, 0) + 1
        for why, count in ended.items():
            self.cut += count
            logger.warning("%d connection%s cut: %s", count, "" if count == 1 else "s", why)

    def _standing(self, loop: asyncio.AbstractEventLoop, gone: frozenset[bytes]) -> list[Tls]:
        return standing(list(poller_of(loop).watchers), self._contexts.made, gone)

    def _end(self, loop: asyncio.AbstractEventLoop, gone: frozenset[bytes]) -> None:
        left = self._standing(loop, gone)
        for tls in left:
            tls.abort()
        self.cut += len(left)
        if left:
            told = "%d connections cut: their peers were believed for a root that is not trusted any more"
            logger.warning(told, len(left))
