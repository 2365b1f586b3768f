"""Shell: what TLS contexts are made of, as PEM texts from Secrets and files, and how a context takes it."""

from __future__ import annotations

import base64
import binascii
import os
import re
import ssl
from collections.abc import Callable, Mapping

from ..policy.credentials import AUTHORITIES, Name
from ..policy.resources import Secret

FILE_MAX = 4 << 20
"""A list of revoked certificates may be long."""
_LISTS = re.compile(r"-----BEGIN X509 CRL-----[A-Za-z0-9+/=\s]+-----END X509 CRL-----")
_OURS = frozenset(("tls.crt", "tls.key", "ca.crt", "ca.crl", "cert", "key", "cacert", "crl"))


class CertificateError(Exception):
    """What TLS is to be made of cannot be had; `str()`: why, and where."""


class Made:
    """What a context is made of: PEM texts."""

    __slots__ = ("authorities", "chains", "revoked")

    def __init__(self, chains: list[tuple[str, str]], authorities: str = "", revoked: str | None = None) -> None:
        self.chains = chains
        """(certificates, key), one for each kind of key."""
        self.authorities = authorities
        self.revoked = revoked
        """None: nobody asks for a look at it."""

    def key(self) -> tuple[object, ...]:
        return (tuple(self.chains), self.authorities, self.revoked)


def read_file(path: str) -> str:
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


def read_secret(secret: Secret) -> dict[str, str]:
    """A Secret's texts by key. Raises CertificateError."""
    data = dict(secret.spec.string_data)
    for key, value in secret.spec.data.items():
        try:
            data.setdefault(key, base64.b64decode(value, validate=True).decode("ascii"))
        except (binascii.Error, UnicodeDecodeError):
            if key in _OURS:
                raise CertificateError(f"Secret {secret.meta.key}: {key} is not PEM in base64") from None
    return data


def pair_of(data: Mapping[str, str], name: str) -> tuple[str, str]:
    """(certificates, key). Raises CertificateError."""
    for certificate, key in (("tls.crt", "tls.key"), ("cert", "key")):
        if certificate in data and key in data:
            return data[certificate], data[key]
    raise CertificateError(f"Secret {name} has no tls.crt and tls.key")


def authorities_of(data: Mapping[str, str]) -> str:
    """Empty: there are none."""
    return data.get("ca.crt") or data.get("cacert") or ""


def revoked_of(data: Mapping[str, str]) -> str | None:
    """Lists of revoked certificates; None: there are none, which is not the same as an empty text."""
    return data.get("ca.crl", data.get("crl"))


def authorities_beside(
    find: Callable[[Name], dict[str, str] | None], place: Name, data: Mapping[str, str]
) -> tuple[str, str | None]:
    """(authorities, lists of revoked certificates) of a Secret, else of that beside it (Istio: NAME-cacert)."""
    if not authorities_of(data):
        data = find((place[0], f"{place[1]}{AUTHORITIES}")) or {}
    return authorities_of(data), revoked_of(data)


def load_chain(context: ssl.SSLContext, certificates: str, key: str) -> None:
    """Put chain and key into a context; ssl takes files only: it gets one in memory, which has no name for others."""
    descriptor = os.memfd_create("fairlead-key")
    try:
        os.write(descriptor, (key.rstrip() + "\n" + certificates).encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def load_authorities(context: ssl.SSLContext, text: str) -> None:
    """Raises CertificateError where there are none: a context without any would ask for nothing."""
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise CertificateError("there is no certificate of an authority (-----BEGIN CERTIFICATE-----)")
    context.load_verify_locations(cadata=text)


def load_revoked(context: ssl.SSLContext, text: str) -> None:
    """Lists of revoked certificates (PEM), which ssl takes from files only. Each certificate of a chain is looked for,
    as Envoy does: there must be a list of each authority in it. Raises CertificateError, ssl.SSLError."""
    lists = _LISTS.findall(text)  # nothing else: certificates in the text would become trusted
    if not lists:
        raise CertificateError("there is no list of revoked certificates (-----BEGIN X509 CRL-----)")
    descriptor = os.memfd_create("fairlead-crl")
    try:
        os.write(descriptor, ("\n".join(lists) + "\n").encode())
        context.load_verify_locations(cafile=f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN


def said(error: Exception) -> str:
    """Why a context cannot be made."""
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        return "key and certificate do not belong together" if reason == "KEY_VALUES_MISMATCH" else f"TLS: {reason}"
    return str(error)
