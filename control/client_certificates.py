"""Users by client certificate, as in Kubernetes: CN is the name, each O a group; of an authority for people that is
kept apart from the mesh's.

What stands at the top of the chain that TLS has verified decides: below an authority for people a certificate names a
user, whatever else is in it; below the mesh's a workload. So no authority can speak for the other.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME_MAX = 256


class ClientAuthorities:
    """The certificates of `--client-ca-file`."""

    def __init__(self, pem: bytes = b"", mesh_roots: bytes = b"") -> None:
        """Raises ValueError: there is none, or one of them is the mesh's, too."""
        self.pem = ""
        self._known: frozenset[bytes] = frozenset()
        if not pem:
            return
        found = x509.load_pem_x509_certificates(pem)
        self.pem = "".join(one.public_bytes(Encoding.PEM).decode() for one in found)
        self._known = frozenset(one.public_bytes(Encoding.DER) for one in found)
        mesh = x509.load_pem_x509_certificates(mesh_roots) if mesh_roots else []
        if any(one.public_bytes(Encoding.DER) in self._known for one in mesh):
            raise ValueError("an authority of the mesh cannot vouch for people, too: workloads could pass for them")

    def __bool__(self) -> bool:
        return bool(self._known)

    def vouch(self, chain: list[bytes]) -> bool:
        """Whether this verified chain (DER, leaf first) ends at one of these authorities."""
        return any(one in self._known for one in chain[1:])


@lru_cache(4096)
def ends_at(der: bytes) -> float:
    """When a certificate ends, Unix seconds: a connection may outlive it, and TLS looks at it only once, also where
    a session is resumed. Raises ValueError."""
    return x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()


def user_of_certificate(der: bytes) -> tuple[str, tuple[str, ...]]:
    """(CN, every O). Raises ValueError."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        groups = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        try:
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            usage = None
    except (ValueError, x509.DuplicateExtension) as error:
        raise ValueError(f"it cannot be read: {error}") from None
    for_clients = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if usage is not None and not for_clients & {*usage}:
        raise ValueError("its extended key usage is not for clients")
    if len(names) != 1 or not names[0]:
        raise ValueError("expected one common name (CN), which is the user's name")
    if not all(text and text.isprintable() and len(text) <= NAME_MAX for text in (names[0], *groups)):
        raise ValueError("its names are not printable, or too long")
    return names[0], tuple(dict.fromkeys(groups))
