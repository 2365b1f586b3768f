"""Shell: control's certificate authority, its key in a file, and what the API asks of it."""

from __future__ import annotations

import os
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates

from ..mesh import trust
from ..mesh.authority import Authority, AuthorityError
from ..mesh.identity import make
from ..mesh.pem import load_chain

API_CERTIFICATE_S = 90 * 86400.0


class Issuer:
    """An Authority as certificates_api and the TLS listener use it."""

    def __init__(self, authority: Authority, trust_domain: str, ttl_s: float) -> None:
        self.authority = authority
        self.trust_domain = trust_domain
        self.ttl_s = ttl_s
        self._server: tuple[float, bytes, bytes, bytes] | None = None
        """(time to make it anew, key, chain, roots) of `server_material`."""

    def issue(self, csr: str, namespace: str, service_account: str, now: float) -> dict[str, Any]:
        identity = make(self.trust_domain, namespace, service_account)
        chain, ends, serial = self.authority.sign(csr.encode("ascii", "replace"), identity, self.ttl_s, now)
        return {
            "certificates": chain,
            "roots": self.authority.roots,
            "notAfter": datetime.fromtimestamp(ends, UTC).isoformat().replace("+00:00", "Z"),
            "identity": str(identity),
            "serial": f"{serial:x}",
        }

    def roots(self) -> str:
        return self.authority.roots

    def identity_of(self, der: bytes) -> str:
        """The SPIFFE id of a client certificate that TLS has verified; raises ValueError."""
        return str(trust.identity_of(der))

    def server_material(self, names: list[str]) -> tuple[bytes, bytes, bytes]:
        """(key, chain, roots) in PEM for a server of control's that is no part of the API; made anew when half of its
        life is over, or the roots have changed."""
        kept, now = self._server, time.time()
        if kept is None or now > kept[0] or kept[3] != self.authority.roots.encode():
            identity = make(self.trust_domain, "fairlead-system", "control")
            names = [name for name in names if name not in ("0.0.0.0", "::")]
            key, chain, ends = self.authority.sign_server(names, identity, API_CERTIFICATE_S, now)
            kept = self._server = (now + (ends - now) / 2, key, chain.encode(), self.authority.roots.encode())
        return kept[1], kept[2], kept[3]

    def server_context(self, names: list[str]) -> ssl.SSLContext:
        """For the API's TLS listener: its own certificate, and client certificates taken where one is shown.

        Who shows none must show a token; who shows one has it verified by OpenSSL and then by `identity_of`.
        """
        identity = make(self.trust_domain, "fairlead-system", "control")
        names = [name for name in names if name not in ("0.0.0.0", "::")]
        key, chain, _ = self.authority.sign_server(names, identity, API_CERTIFICATE_S, time.time())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.authority.roots)
        load_chain(context, chain, key.decode())
        return context


def open_authority(folder: Path, trust_domain: str, ttl_s: float) -> Issuer:
    """The authority kept in a folder, made at the first start. Raises OSError, ValueError that name the file."""
    key_path, certificate_path, others_path = folder / "ca-key.pem", folder / "ca.pem", folder / "other-roots.pem"
    if key_path.exists() != certificate_path.exists():
        there, missing = (key_path, certificate_path) if key_path.exists() else (certificate_path, key_path)
        raise ValueError(f"{there} is there but {missing} is not: restore it, or remove both for a new authority")
    if not key_path.exists():
        authority = Authority.create(trust_domain, time.time())
        _write(certificate_path, authority.certificate_pem(), 0o644)
        _write(key_path, authority.key_pem(), 0o600)
    others = _roots(others_path) if others_path.exists() else ""
    try:
        authority = Authority.load(key_path.read_bytes(), certificate_path.read_bytes(), others)
    except AuthorityError as error:
        raise ValueError(f"{key_path}, {certificate_path}: {error}") from error
    return Issuer(authority, trust_domain, ttl_s)


def _roots(path: Path) -> str:
    """The certificates in a file, and nothing else that may be in it: every workload gets them."""
    data = path.read_bytes()
    if not data.strip():
        return ""
    try:
        return "".join(one.public_bytes(Encoding.PEM).decode() for one in load_pem_x509_certificates(data))
    except ValueError as error:
        raise ValueError(f"{path}: expected certificates in PEM: {error}") from error


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
