"""Shell: client TLS contexts that DestinationRules ask for (modes SIMPLE, MUTUAL), from files or Secrets.

Made when a connection needs one, and anew when what they are made of has changed: a Secret at once, files within
LOOK_S. Connections that stand keep theirs. What cannot be used keeps what was there before, and is told.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from ..policy.credentials import Name
from ..policy.resources import Secret
from ..policy.tables import UpstreamTLS
from ..proxy.dial import NoContextError
from .pem import (
    CertificateError,
    Made,
    authorities_beside,
    load_authorities,
    load_chain,
    load_revoked,
    pair_of,
    read_file,
    read_secret,
    said,
)

LOOK_S = 10.0
"""How often files are looked at, at most."""
KEPT_S = 3600.0
"""So long a context that no connection asks for is kept."""


class _Kept:
    """A context, and what it was made of."""

    __slots__ = ("asked_at", "context", "looked_at", "made_of", "state", "why")

    def __init__(self) -> None:
        self.context: ssl.SSLContext | None = None
        self.made_of: Any = None
        self.state: Any = None
        """Of the files, or the Secrets: whether they may have changed."""
        self.looked_at = float("-inf")
        self.asked_at = 0.0
        self.why = ""
        """Why there is none, or an old one."""


class Originations:
    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], _Kept] = {}
        self._secrets: Mapping[Name, Secret] = {}

    def update(self, secrets: Sequence[Secret]) -> None:
        """The Secrets of the moment."""
        self._secrets = {(one.meta.namespace, one.meta.name): one for one in secrets}
        for kept in self._kept.values():
            kept.looked_at = float("-inf")

    def get(self, tls: UpstreamTLS, two: bool, now: float) -> ssl.SSLContext:
        """For a new connection; `two`: it offers HTTP/2. Raises NoContextError."""
        if tls.unusable:
            raise NoContextError(tls.unusable)
        key = (tls.mode, tls.ca_file, tls.cert_file, tls.key_file, tls.crl_file, tls.credential, tls.skip_verify,
               bool(tls.names), two)  # fmt: skip
        kept = self._kept.get(key)
        if kept is None:
            self._kept = {one: known for one, known in self._kept.items() if now - known.asked_at < KEPT_S}
            kept = self._kept[key] = _Kept()
        kept.asked_at = now
        if now - kept.looked_at >= LOOK_S:
            kept.looked_at = now
            self._look(kept, tls, two)
        if kept.context is None:
            raise NoContextError(kept.why)
        return kept.context

    def problem(self) -> str:
        """What cannot be used, or not what is there now; empty: nothing."""
        return "; ".join(dict.fromkeys(kept.why for kept in self._kept.values() if kept.why))

    def _look(self, kept: _Kept, tls: UpstreamTLS, two: bool) -> None:
        try:
            state = self._state(tls)
            if state is not None and state == kept.state and kept.context is not None and not kept.why:
                return
            made = self._material(tls)
            if kept.context is None or kept.made_of != made.key():
                kept.context, kept.made_of = origination_context(tls, made, two), made.key()
            kept.state, kept.why = state, ""
        except (CertificateError, ssl.SSLError, OSError, ValueError) as error:
            kept.why = said(error)

    def _state(self, tls: UpstreamTLS) -> Any:
        if tls.credential is not None:
            return None  # looked at when Secrets change
        found = []
        for path in (tls.ca_file, tls.cert_file, tls.key_file, tls.crl_file):
            if path:
                try:
                    seen = os.stat(path)
                except OSError as error:
                    raise CertificateError(f"{path}: {error.strerror or error}") from None
                found.append((seen.st_mtime_ns, seen.st_size, seen.st_ino))
        return found

    def _material(self, tls: UpstreamTLS) -> Made:
        if tls.credential is None:
            chains = [(read_file(tls.cert_file), read_file(tls.key_file or tls.cert_file))] if tls.cert_file else []
            if tls.mode == "mutual" and not chains:
                raise CertificateError("mode MUTUAL needs a clientCertificate")
            ca = read_file(tls.ca_file) if tls.ca_file else ""
            return Made(chains, ca, read_file(tls.crl_file) if tls.crl_file else None)
        data = self._secret(tls.credential)
        authorities, revoked = authorities_beside(self._secret, tls.credential, data or {})
        name = "/".join(tls.credential)
        if data is None and (tls.mode == "mutual" or not authorities):
            raise CertificateError(f"there is no Secret {name}, which the DestinationRule's credentialName means")
        chains = [pair_of(data or {}, name)] if tls.mode == "mutual" else []
        if not authorities and not tls.skip_verify:
            raise CertificateError(f"Secret {name} has no ca.crt: the server's certificate cannot be checked")
        return Made(chains, authorities, revoked)

    def _secret(self, place: Name) -> dict[str, str] | None:
        secret = self._secrets.get(place)
        return read_secret(secret) if secret is not None else None


def origination_context(tls: UpstreamTLS, made: Made, two: bool = False) -> ssl.SSLContext:
    """For DestinationRule tls modes SIMPLE and MUTUAL. Raises CertificateError, OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    if tls.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif made.authorities or tls.ca_file or tls.credential is not None:
        load_authorities(context, made.authorities)
    else:
        context.load_default_certs()
    if made.revoked is not None and not tls.skip_verify:
        load_revoked(context, made.revoked)
    if tls.names:
        context.check_hostname = False  # `verify` compares with the names given instead
    for certificates, key in made.chains:
        load_chain(context, certificates, key)
    if two:
        context.set_alpn_protocols(["h2", "http/1.1"])
    return context
