"""Shell: TLS contexts of a gateway's servers, from Secrets or files; made anew when what they are made of changes.

Connections that stand keep the context they were made with; new ones get the new. What cannot be used keeps what was
there before, and is told.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from ..policy.credentials import AUTHORITIES, MUTUAL, names_of, place_of
from ..policy.gateways import Ports, Server
from ..policy.resources import Secret, ServerTLS
from .contexts import Contexts
from .pem import (
    CertificateError,
    Made,
    authorities_of,
    load_authorities,
    load_chain,
    load_revoked,
    pair_of,
    read_file,
    read_secret,
    revoked_of,
    said,
)

VERSIONS = {
    "TLSV1_2": ssl.TLSVersion.TLSv1_2,
    "TLSV1_3": ssl.TLSVersion.TLSv1_3,
}
"""Older ones are not spoken (RFC 8996); the check of Gateways says so."""


class ServerContexts:
    """`contexts` has the mesh's own, for servers of mode ISTIO_MUTUAL."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._made: dict[tuple[str, str], tuple[Any, ssl.SSLContext]] = {}
        """By Gateway and server: what it was made of, and the context."""
        self._secrets: Mapping[tuple[str, str], Secret] = {}
        self._namespace = ""
        self._ports: Ports | None = None
        self.problems: dict[str, str] = {}
        """By server: why it has no certificate, or an old one."""

    def update(self, ports: Ports, secrets: Sequence[Secret], namespace: str) -> None:
        """The servers of the moment; Secrets are looked for in the gateway's own namespace (Istio)."""
        self._ports, self._namespace = ports, namespace
        self._secrets = {(one.meta.namespace, one.meta.name): one for one in secrets}
        self.look()

    def look(self) -> None:
        """Make contexts of what has changed, files among it."""
        self.problems = {}
        kept: dict[tuple[str, str], tuple[Any, ssl.SSLContext]] = {}
        for server in self._ports.servers if self._ports is not None else ():
            if not server.terminates or server.mode == "ISTIO_MUTUAL":
                continue
            name = (server.gateway, server.name)
            before = self._made.get(name)
            try:
                made = self._material(server)
                fingerprint = (made.key(), server.tls, server.http)
                if before is None or before[0] != fingerprint:
                    before = (fingerprint, server_context(server, made))
            except (CertificateError, ssl.SSLError, OSError, ValueError) as error:
                self.problems[f"Gateway {server.gateway} {server.name}"] = said(error)
            if before is not None:
                kept[name] = before
        self._made = kept

    def of(self, server: Server) -> ssl.SSLContext | None:
        """For a new connection; None: there is no certificate."""
        if server.mode == "ISTIO_MUTUAL":
            return self._contexts.server()
        found = self._made.get((server.gateway, server.name))
        return found[1] if found is not None else None

    def client_of(self, server: Server, transport: Any) -> str | None:
        """The mesh identity of a client, empty where it is none of the mesh; None: the client is refused."""
        if server.mode == "ISTIO_MUTUAL":
            return self._contexts.identity_of(transport) or None
        wanted = server.tls.subject_alt_names if server.tls is not None else []
        if not wanted:
            return ""
        shown = transport.get_extra_info("peercert") or {}
        if not shown and server.mode == "OPTIONAL_MUTUAL":
            return ""
        names = {value for _, value in shown.get("subjectAltName", ())}
        return "" if names & set(wanted) else None

    # --- where it comes from

    def _material(self, server: Server) -> Made:
        tls = server.tls
        assert tls is not None
        mutual = server.mode in MUTUAL
        names = names_of(tls)
        if names:
            found = [self._secret(name, server.gateway.endswith(".ingress")) for name in names]
            authorities, revoked = "", None
            if mutual:
                authorities, revoked = self._authorities(tls, names[0], found[0])
            return Made([pair_of(data, name) for data, name in zip(found, names, strict=True)], authorities, revoked)
        files: Sequence[Any] = tls.tls_certificates or [tls]
        chains = [(read_file(one.server_certificate), read_file(one.private_key)) for one in files]
        ca = tls.ca_certificates or next((one.ca_certificates for one in files if one.ca_certificates), "")
        return Made(chains, read_file(ca) if mutual else "", read_file(tls.ca_crl) if mutual and tls.ca_crl else None)

    def _authorities(self, tls: ServerTLS, name: str, data: Mapping[str, str]) -> tuple[str, str | None]:
        """(authorities, revoked) of clients: in the Secret itself, or in one beside it."""
        where = tls.ca_cert_credential_name
        if not where and authorities_of(data):
            return authorities_of(data), revoked_of(data)
        beside = where or f"{name}{AUTHORITIES}"
        try:
            other = self._secret(beside)
        except CertificateError:
            if where:
                raise
            raise CertificateError(
                f"Secret {self._namespace}/{name} has no ca.crt, and there is no Secret {self._namespace}/{beside}: "
                "clients' certificates cannot be checked"
            ) from None
        if not authorities_of(other):
            raise CertificateError(f"Secret {self._namespace}/{beside} has no ca.crt")
        return authorities_of(other), revoked_of(other)

    def _secret(self, written: str, generated: bool = False) -> dict[str, str]:
        """`generated`: of an Ingress, whose Secret is in its own namespace."""
        place = place_of(written, self._namespace, generated)
        if place is None:
            raise CertificateError(f"{written} is not carried out: name a Secret of the gateway's namespace")
        secret = self._secrets.get(place)
        if secret is not None:
            return read_secret(secret)
        namespace, name = place
        hint = ""
        if namespace != self._namespace:
            hint = (
                ", where the Ingress is (control sends those of other namespaces to a gateway of the root namespace, "
                "and to one that a Pod or WorkloadEntry declares, with its labels)"
            )
        elif elsewhere := [other for other, own in self._secrets if own == name]:
            hint = f"; there is one in {', '.join(elsewhere)}, but it must be in the gateway's namespace"
        raise CertificateError(f"there is no Secret {namespace}/{name}{hint}")


def server_context(server: Server, made: Made) -> ssl.SSLContext:
    """Raises ssl.SSLError, ValueError, CertificateError where it does not fit together."""
    tls = server.tls
    assert tls is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS.get(tls.min_protocol_version, ssl.TLSVersion.TLSv1_2)
    context.maximum_version = VERSIONS.get(tls.max_protocol_version, ssl.TLSVersion.MAXIMUM_SUPPORTED)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 1
    if tls.cipher_suites:
        _choose_ciphers(context, tls.cipher_suites)
    for certificates, key in made.chains:
        load_chain(context, certificates, key)
    if server.mode in MUTUAL:
        context.verify_mode = ssl.CERT_REQUIRED if server.mode == "MUTUAL" else ssl.CERT_OPTIONAL
        load_authorities(context, made.authorities)
    if made.revoked is not None:
        load_revoked(context, made.revoked)
    if server.http:
        context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _choose_ciphers(context: ssl.SSLContext, names: Sequence[str]) -> None:
    """Those of TLS 1.2 that OpenSSL knows; the others are left out (Istio). TLS 1.3's are not to be chosen."""
    known = []
    for name in dict.fromkeys(names):
        try:
            context.set_ciphers(name)
        except ssl.SSLError:
            continue
        known.append(name)
    context.set_ciphers(":".join(known) if known else "DEFAULT")
