"""Shell: TLS contexts of a gateway's servers, from Secrets or files; made anew when what they are made of changes.

Connections that stand keep the context they were made with; new ones get the new. What cannot be used keeps what was
there before, and is told.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from ..policy.gateways import Ports, Server
from ..policy.ingress import SECRET
from ..policy.resources import Secret, ServerTLS
from .contexts import Contexts, load_chain

VERSIONS = {
    "TLSV1_2": ssl.TLSVersion.TLSv1_2,
    "TLSV1_3": ssl.TLSVersion.TLSv1_3,
}
"""Older ones are not spoken (RFC 8996); the check of Gateways says so."""
FILE_MAX = 1 << 20


class CertificateError(Exception):
    """What a server's TLS is to be made of cannot be had; `str()`: why, and where."""


class Made:
    """What a context is made of: PEM texts."""

    __slots__ = ("authorities", "chains", "revoked")

    def __init__(self, chains: list[tuple[str, str]], authorities: str = "", revoked: str = "") -> None:
        self.chains = chains
        """(certificates, key), one for each kind of key."""
        self.authorities = authorities
        self.revoked = revoked

    def key(self) -> tuple[Any, ...]:
        return (tuple(self.chains), self.authorities, self.revoked)


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
                self.problems[f"Gateway {server.gateway} {server.name}"] = _said(error)
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
        mutual = server.mode in ("MUTUAL", "OPTIONAL_MUTUAL")
        names = tls.credential_names or ([tls.credential_name] if tls.credential_name else [])
        if names:
            found = [self._secret(name, server.gateway.endswith(".ingress")) for name in names]
            authorities = ""
            if mutual:
                authorities = self._authorities(tls, names[0], found[0])
            return Made([_pair(data, name) for data, name in zip(found, names, strict=True)], authorities)
        files: Sequence[Any] = tls.tls_certificates or [tls]
        chains = [(_read(one.server_certificate), _read(one.private_key)) for one in files]
        ca = tls.ca_certificates or next((one.ca_certificates for one in files if one.ca_certificates), "")
        return Made(chains, _read(ca) if mutual else "", _read(tls.ca_crl) if mutual and tls.ca_crl else "")

    def _authorities(self, tls: ServerTLS, name: str, data: Mapping[str, str]) -> str:
        """Of clients: in the Secret itself, or in one beside it."""
        where = tls.ca_cert_credential_name
        for own in ("ca.crt", "cacert") if not where else ():
            if own in data:
                return data[own]
        beside = where or f"{name}-cacert"
        try:
            other = self._secret(beside)
        except CertificateError:
            if where:
                raise
            raise CertificateError(
                f"Secret {self._namespace}/{name} has no ca.crt, and there is no Secret {self._namespace}/{beside}: "
                "clients' certificates cannot be checked"
            ) from None
        for own in ("ca.crt", "cacert"):
            if own in other:
                return other[own]
        raise CertificateError(f"Secret {self._namespace}/{beside} has no ca.crt")

    def _secret(self, name: str, generated: bool = False) -> dict[str, str]:
        """`generated`: of an Ingress, whose Secret is in its own namespace."""
        namespace = self._namespace
        if name.startswith(SECRET) and generated:
            namespace, _, name = name.removeprefix(SECRET).partition("/")
        name = name.removeprefix("kubernetes://")
        if "://" in name:
            raise CertificateError(f"{name} is not carried out: name a Secret of the gateway's namespace")
        secret = self._secrets.get((namespace, name))
        if secret is None and generated:
            raise CertificateError(
                f"there is no Secret {namespace}/{name} (control sends a gateway those of its namespace)"
            )
        if secret is None:
            elsewhere = [namespace for namespace, other in self._secrets if other == name]
            hint = (
                f"; there is one in {', '.join(elsewhere)}, but it must be in the gateway's namespace"
                if elsewhere
                else ""
            )
            raise CertificateError(f"there is no Secret {self._namespace}/{name}{hint}")
        data = dict(secret.spec.string_data)
        for key, value in secret.spec.data.items():
            try:
                data.setdefault(key, base64.b64decode(value, validate=True).decode("ascii"))
            except (binascii.Error, UnicodeDecodeError):
                if key in ("tls.crt", "tls.key", "ca.crt", "cert", "key", "cacert"):
                    raise CertificateError(f"Secret {self._namespace}/{name}: {key} is not PEM in base64") from None
        return data


def _pair(data: Mapping[str, str], name: str) -> tuple[str, str]:
    for certificate, key in (("tls.crt", "tls.key"), ("cert", "key")):
        if certificate in data and key in data:
            return data[certificate], data[key]
    raise CertificateError(f"Secret {name} has no tls.crt and tls.key")


def _read(path: str) -> str:
    """A file's text. Raises CertificateError."""
    if not path:
        raise CertificateError("the name of a file is missing")
    try:
        if os.path.getsize(path) > FILE_MAX:
            raise CertificateError(f"{path} has more than {FILE_MAX} octets")
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise CertificateError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


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
    if made.authorities:
        context.verify_mode = ssl.CERT_REQUIRED if server.mode == "MUTUAL" else ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=made.authorities)
    if made.revoked:
        _load_revoked(context, made.revoked)
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


def _load_revoked(context: ssl.SSLContext, text: str) -> None:
    """A list of revoked certificates (PEM), which ssl takes from files only."""
    descriptor = os.memfd_create("fairlead-crl")
    try:
        os.write(descriptor, text.encode())
        context.load_verify_locations(cafile=f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        return "key and certificate do not belong together" if reason == "KEY_VALUES_MISMATCH" else f"TLS: {reason}"
    return str(error)
