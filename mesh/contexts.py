"""Shell: TLS contexts of the mesh from the certificate of the moment, and what is asked of a peer after its handshake.

New contexts for every new certificate or bundle: connections that stand keep theirs, new ones get the new (swapping
`sslobj.context` in a callback would keep the old verify mode: an authentication bypass). TLS 1.3 only; no session
tickets, since a resumed session would skip the checks of its peer. Both sides always show a certificate.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Any

from ..policy.tables import UpstreamTLS
from . import trust
from .identity import IdentityError

ALPN = ["fairlead", "http/1.1"]


class Material:
    """A workload's certificate chain, its key, and the roots that it trusts; all PEM."""

    __slots__ = ("certificates", "ends", "issued", "key", "roots", "serial")

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
        self.issued = issued or leaf.not_before
        self.ends = ends or leaf.not_after


def first_certificate(pem: str) -> str:
    end = pem.find("-----END CERTIFICATE-----")
    start = pem.find("-----BEGIN CERTIFICATE-----")
    if start < 0 or end < start:
        raise IdentityError("expected a certificate in PEM (-----BEGIN CERTIFICATE-----)")
    return pem[start : end + len("-----END CERTIFICATE-----")] + "\n"


def load_chain(context: ssl.SSLContext, certificates: str, key: str) -> None:
    """Put chain and key into a context; ssl takes files only: it gets one in memory, which has no name for others."""
    descriptor = os.memfd_create("fairlead-key")
    try:
        os.write(descriptor, (key.rstrip() + "\n" + certificates).encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def server_context(material: Material) -> ssl.SSLContext:
    """For connections from other sidecars. Raises ssl.SSLError where the material does not fit together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    context.load_verify_locations(cadata=material.roots)
    load_chain(context, material.certificates, material.key)
    context.set_alpn_protocols(ALPN)
    return context


def client_context(material: Material) -> ssl.SSLContext:
    """For connections to other sidecars. Names are not checked by OpenSSL: `verify` checks the identity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=material.roots)
    load_chain(context, material.certificates, material.key)
    context.set_alpn_protocols(ALPN)
    return context


def origination_context(tls: UpstreamTLS) -> ssl.SSLContext:
    """For DestinationRule tls modes SIMPLE and MUTUAL: files and names as it says. Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca_file:
        context.load_verify_locations(cafile=tls.ca_file)
    else:
        context.load_default_certs()
    if tls.names:
        context.check_hostname = False  # `verify` compares with the names given instead
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file or None)
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
        self._client: ssl.SSLContext | None = None
        self._others: dict[tuple[Any, ...], ssl.SSLContext] = {}
        self.material: Material | None = None
        self.taken: Callable[[Material], None] | None = None
        """Told of material that was put in force."""
        self.handshakes = 0
        """Connections that went through one, either side."""
        self.refused: dict[str, int] = {}
        """Peers refused after their handshake, by reason."""

    def take(self, material: Material) -> None:
        """Raises ssl.SSLError where it does not fit together; then the old stays."""
        server, client = server_context(material), client_context(material)
        self._server, self._client, self.material = server, client, material
        if self.taken is not None:
            self.taken(material)

    def server(self) -> ssl.SSLContext | None:
        return self._server

    def client(self, tls: UpstreamTLS) -> ssl.SSLContext | None:
        """The context for an endpoint; None: there is no certificate yet, or its files cannot be read."""
        if tls.mode == "mesh":
            return self._client
        key = (tls.mode, tls.ca_file, tls.cert_file, tls.key_file, tls.skip_verify, tls.names)
        found = self._others.get(key)
        if found is None:
            try:
                found = self._others[key] = origination_context(tls)
            except (OSError, ssl.SSLError):
                return None
        return found

    def identity_of(self, transport: Any) -> str:
        """The SPIFFE id of a client that came by mutual TLS; empty: refused, and counted by reason."""
        self.handshakes += 1
        try:
            found = trust.identity_of(peer_certificate(transport))
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
            return trust.expect(peer_certificate(transport), tls.identities, self._trust_domains()) or None
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
