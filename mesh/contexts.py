"""Shell: TLS contexts of the mesh from the certificate of the moment, and what is asked of a peer after its handshake.

New contexts for every new certificate or bundle: connections that stand keep theirs, new ones get the new (swapping
`sslobj.context` in a callback would keep the old verify mode: an authentication bypass). TLS 1.3, or 1.2 as well where
MeshConfig says so (`meshMTLS.minProtocolVersion`); both sides always show a certificate.

Sessions are resumed, which takes a third off the processor time of a new connection (measured, both sides: 2.1 to 1.4
ms). One ticket is given for each, since a ticket costs some 150 microseconds. A resumed session is judged like any
other: the peer's certificate is that of its first handshake, from a ticket that only the very same process can have
made; its identity, its end and whether it is revoked are looked at each time. Tickets end with the context that made
them, so with its certificate and its roots.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakSet

from ..policy.tables import UpstreamTLS
from . import trust
from .identity import IdentityError
from .originations import Originations
from .pem import load_chain
from .revocations import Revoked

ALPN = ["fairlead", "http/1.1"]
"""What a client offers for HTTP/1 and for opaque connections."""
ALPN_TWO = ["h2", *ALPN]
"""What a client offers for HTTP/2, and a server takes, the first that both have."""
HARVEST_S = 1.0
SESSIONS_MAX = 512
"""Endpoints whose sessions a client remembers, the oldest forgotten first: about 4 KB each."""
SESSION_AGE_MAX_S = 3600.0
"""A session is replaced after half of its ticket's life (OpenSSL's default, 7,200 s)."""


class Material:
    """A workload's certificate chain, its key, and the roots that it trusts; all PEM."""

    __slots__ = ("certificates", "ends", "issued", "issuer", "key", "not_before", "roots", "serial")

    def __init__(self, certificates: str, key: str, roots: str, issued: float = 0.0, ends: float = 0.0) -> None:
        """Raises IdentityError where the certificate cannot be read, or there are no roots."""
        self.certificates = certificates
        self.key = key
        self.roots = roots
        try:
            leaf = trust.read_leaf(ssl.PEM_cert_to_DER_cert(first_certificate(certificates)))
        except IdentityError:
            raise
        except ValueError as error:  # what base64 makes of a damaged file
            raise IdentityError(f"the certificate's PEM cannot be read: {error}") from error
        first_certificate(roots)
        self.serial = leaf.serial
        self.issuer = leaf.authority_key_id.hex()
        """Key identifier of who signed it."""
        self.not_before = leaf.not_before
        self.issued = issued or leaf.not_before
        self.ends = ends or leaf.not_after


def first_certificate(pem: str) -> str:
    end = pem.find("-----END CERTIFICATE-----")
    start = pem.find("-----BEGIN CERTIFICATE-----")
    if start < 0 or end < start:
        raise IdentityError("expected a certificate in PEM (-----BEGIN CERTIFICATE-----)")
    return pem[start : end + len("-----END CERTIFICATE-----")] + "\n"


def certificates(pem: str) -> list[bytes]:
    """Each certificate of a PEM text, as DER."""
    end = "-----END CERTIFICATE-----"
    return [ssl.PEM_cert_to_DER_cert(first_certificate(part + end)) for part in pem.split(end) if "BEGIN" in part]


def set_versions(context: ssl.SSLContext, minimum: ssl.TLSVersion) -> None:
    """Of TLS 1.2 only what hides the past and authenticates what it encrypts; nothing is negotiated twice."""
    context.minimum_version = minimum
    context.options |= ssl.OP_NO_RENEGOTIATION
    if minimum < ssl.TLSVersion.TLSv1_3:
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")


def server_context(material: Material, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """For connections from other sidecars. Raises ssl.SSLError where the material does not fit together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    set_versions(context, minimum)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 1
    context.load_verify_locations(cadata=material.roots)
    load_chain(context, material.certificates, material.key)
    context.set_alpn_protocols(ALPN_TWO)
    return context


class Bound:
    """A context for one connection to one endpoint: all that event loops ask of it is `wrap_bio`."""

    __slots__ = ("_context", "_endpoint")

    def __init__(self, context: ResumingContext, endpoint: str) -> None:
        self._context = context
        self._endpoint = endpoint

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> ssl.SSLObject:
        return self._context.resume(incoming, outgoing, server_hostname or "", self._endpoint)


class ResumingContext(ssl.SSLContext):
    """A client's context that remembers one session for each endpoint (name and address).

    An event loop takes no session, but asks the context it is given for each connection's SSLObject: `to(endpoint)` is
    such a context. A ticket comes after the handshake, so the object is kept until it is there: until the next
    connection to the same endpoint, HARVEST_S at most.
    """

    _sessions: dict[str, ssl.SSLSession]
    _new: dict[str, ssl.SSLObject]

    def __new__(cls, protocol: int) -> ResumingContext:
        made: ResumingContext = super().__new__(cls, protocol)
        made._sessions = {}
        made._new = {}
        return made

    def to(self, endpoint: str) -> ssl.SSLContext:
        return cast(ssl.SSLContext, Bound(self, endpoint))

    def resume(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, name: str, endpoint: str) -> ssl.SSLObject:
        """A connection that takes up the endpoint's session, where we have one."""
        key = f"{name} {endpoint}"
        new = self._new
        if key in new and new[key].version() is not None:  # its handshake is over
            self._harvest(key)
        made = self.wrap_bio(incoming, outgoing, server_hostname=name, session=self._sessions.get(key))
        if key not in new and len(new) < SESSIONS_MAX:
            if not new:
                asyncio.get_running_loop().call_later(HARVEST_S, self._harvest_all)
            new[key] = made
        return made

    def _harvest(self, key: str) -> None:
        """Take the session of the connection made last, unless it took up the one that we have."""
        made = self._new.pop(key)
        if made.version() is None:  # its handshake is not over, or has failed: there is no session to ask for
            return
        sessions = self._sessions
        known, resumed = sessions.get(key), made.session_reused
        if known is not None and resumed and time.time() - known.time < SESSION_AGE_MAX_S:
            return
        found = made.session
        if found is not None and found.has_ticket:
            if key not in sessions and len(sessions) >= SESSIONS_MAX:
                del sessions[next(iter(sessions))]
            sessions[key] = found
        elif known is not None and not resumed:
            del sessions[key]  # the peer does not know it any more

    def _harvest_all(self) -> None:
        for key in list(self._new):
            self._harvest(key)


def client_context(
    material: Material, two: bool = False, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ResumingContext:
    """For connections to other sidecars. Names are not checked by OpenSSL: `verify` checks the identity."""
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    set_versions(context, minimum)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=material.roots)
    load_chain(context, material.certificates, material.key)
    context.set_alpn_protocols(ALPN_TWO if two else ALPN)
    return context


def peer_certificate(transport: Any) -> bytes | None:
    """The peer's leaf in DER, or None."""
    wire = transport.get_extra_info("ssl_object")
    found: bytes | None = wire.getpeercert(binary_form=True) if wire is not None else None
    return found


class Contexts:
    """The contexts of the moment; `take` puts new material in force for new connections."""

    def __init__(self, trust_domains: Callable[[], tuple[str, ...]]) -> None:
        self._trust_domains = trust_domains
        self._server: ssl.SSLContext | None = None
        self._client: ResumingContext | None = None
        self._client_two: ResumingContext | None = None
        self.others = Originations()
        """For endpoints outside the mesh, and where a DestinationRule says so."""
        self.material: Material | None = None
        self.minimum = ssl.TLSVersion.TLSv1_3
        """Lowest version of TLS between sidecars; see `require`."""
        self.taken: Callable[[Material], None] | None = None
        """Told of material that was put in force."""
        self.made: WeakSet[ssl.SSLContext] = WeakSet()
        """All that connections between sidecars still use."""
        self.distrusted: Callable[[frozenset[bytes]], None] | None = None
        """Told of the roots (DER) that are trusted no more."""
        self.revoked = Revoked()
        """What control has taken back."""
        self.on_revoked: list[Callable[[Revoked], None]] = []
        """Told of it when it changes."""
        self.handshakes = 0
        """Connections that went through one, either side."""
        self.refused: dict[str, int] = {}
        """Peers refused after their handshake, by reason."""

    def take(self, material: Material) -> None:
        """Raises ssl.SSLError where it does not fit together; then the old stays."""
        self._make(material)
        if self.taken is not None:
            self.taken(material)

    def require(self, version: str) -> None:
        """Put MeshConfig's `meshMTLS.minProtocolVersion` in force for new connections."""
        minimum = ssl.TLSVersion.TLSv1_2 if version == "TLSV1_2" else ssl.TLSVersion.TLSv1_3
        if minimum != self.minimum:
            self.minimum = minimum
            if self.material is not None:
                self._make(self.material)

    def revoke(self, revoked: Revoked) -> None:
        """Put in force, in place of what was, what of certificates is taken back."""
        self.revoked = revoked
        for tell in self.on_revoked:
            tell(revoked)

    def _make(self, material: Material) -> None:
        least = self.minimum
        server = server_context(material, least)
        client, client_two = client_context(material, False, least), client_context(material, True, least)
        before, self.material = self.material, material
        self._server, self._client, self._client_two = server, client, client_two
        self.made.update((server, client, client_two))
        if before is not None and before.roots != material.roots and self.distrusted is not None:
            gone = frozenset(certificates(before.roots)) - frozenset(certificates(material.roots))
            if gone:
                self.distrusted(gone)

    def server(self) -> ssl.SSLContext | None:
        return self._server

    def client(self, tls: UpstreamTLS, two: bool = False) -> ssl.SSLContext | None:
        """The context for an endpoint; None: there is no certificate yet. Raises NoContextError with the reason where
        what a DestinationRule names cannot be used.

        `two`: it offers HTTP/2.
        """
        if tls.mode == "mesh":
            return self._client_two if two else self._client
        return self.others.get(tls, two, time.monotonic())

    def identity_of(self, transport: Any) -> str:
        """The SPIFFE id of a client that came by mutual TLS; empty: refused, and counted by reason."""
        self.handshakes += 1
        try:
            found, serial = trust.read(peer_certificate(transport), time.time())
            if why := self.revoked.why(serial, found):
                raise IdentityError(why)
        except IdentityError as error:
            self._count(str(error))
            return ""
        if found.trust_domain not in self._trust_domains():
            self._count(f"trust domain {found.trust_domain} is not ours")
            return ""
        return str(found)

    def verify(self, transport: Any, tls: UpstreamTLS) -> str | None:
        """Why a server is not who it should be; None: it is."""
        self.handshakes += 1
        if tls.mode == "mesh":
            der = peer_certificate(transport)
            return trust.expect(der, tls.identities, self._trust_domains(), time.time(), self.revoked.why) or None
        if not tls.names or tls.skip_verify:
            return None
        wire = transport.get_extra_info("ssl_object")
        names = {value for _, value in (wire.getpeercert() or {}).get("subjectAltName", ())}
        if names & set(tls.names):
            return None
        return f"its certificate has none of the names {', '.join(tls.names)}"

    def _count(self, why: str) -> None:
        if why in self.refused or len(self.refused) < 100:
            self.refused[why] = self.refused.get(why, 0) + 1
