"""Shell: control's certificate authority, its key in a file, and what the API asks of it.

In the data folder: `ca-key.pem` and `ca.pem` are the authority, made at the first start unless the operator gives an
intermediate of its own PKI (--ca-certificate, --ca-key, --ca-roots); `other-roots.pem` are further roots that workloads
are to trust. While a root is rotated `next-ca-key.pem` and `next-ca.pem` are its successor (with `next-roots.pem`), and
`rotation.json` says how far it is: it is replaced at once, so a crash leaves one phase or the other.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates

from ..mesh import trust
from ..mesh.authority import Authority, AuthorityError
from ..mesh.authority_checks import fingerprint
from ..mesh.identity import IdentityError, make
from ..mesh.pem import load_chain
from .certificates_api import UnavailableError
from .rotation import DISTRIBUTING, ISSUING, RotationError
from .server_tls import ServerContext

API_CERTIFICATE_S = 90 * 86400.0
FINISHING = "finishing"
KEY, CERTIFICATE, ROOTS = "ca-key.pem", "ca.pem", "other-roots.pem"
NEXT_KEY, NEXT, NEXT_ROOTS, STATE = "next-ca-key.pem", "next-ca.pem", "next-roots.pem", "rotation.json"


class Rotation(msgspec.Struct, frozen=True):
    """Content of rotation.json."""

    phase: str
    since: float


class CaFiles(msgspec.Struct, frozen=True):
    """An authority of the operator's own PKI."""

    certificate: Path
    key: Path
    roots: Path | None = None


class Issuer:
    """An Authority as certificates_api and the TLS listener use it, with its successor while that takes over."""

    kind = "file"

    def __init__(self, authority: Authority, trust_domain: str, ttl_s: float) -> None:
        self.trust_domain = trust_domain
        self.ttl_s = ttl_s
        self._server: tuple[float, bytes, bytes, bytes] | None = None
        """(time to make it anew, key, chain, roots) of `server_material`."""
        self.folder: Path | None = None
        """Where rotations are kept; None: there are none."""
        self.files: CaFiles | None = None
        self.current = authority
        """Of ca.pem, or of the operator's files."""
        self.successor: Authority | None = None
        self.phase = ""
        self.since = 0.0
        self.others = ""
        """PEM of further roots."""
        self.announced = ""
        """PEM of a root that another control plane rotates to, and whose key we may not have yet."""
        self.outdated = ""
        """Why nothing may be issued here; empty: it may."""
        self.changed: list[Callable[[], None]] = []
        """Called when roots or the signer are others."""

    @property
    def authority(self) -> Authority:
        """The one that issues."""
        return self.successor if self.successor is not None and self.phase == ISSUING else self.current

    def announce(self, root: str) -> None:
        """Have this root trusted, too."""
        if root != self.announced:
            self.announced = root
            for tell in self.changed:
                tell()

    def next_root(self) -> str:
        """SHA-256 of the root of the successor whose files are there; empty: they are not. Raises RotationError."""
        if self.folder is None or not (self.folder / NEXT).exists() or not (self.folder / NEXT_KEY).exists():
            return ""
        return fingerprint(self._load_successor(None).root)

    def issue(self, csr: str, namespace: str, service_account: str, now: float) -> dict[str, Any]:
        (made,) = self.issue_all([(csr, namespace, service_account)], now)
        if isinstance(made, Exception):
            raise made
        return made

    def issue_all(self, asks: Sequence[tuple[str, str, str]], now: float) -> list[dict[str, Any] | Exception]:
        """For each (CSR, namespace, service account) what `issue` answers, or would raise."""
        if self.outdated:
            return [UnavailableError(self.outdated) for _ in asks]
        found: list[dict[str, Any] | Exception] = []
        try:
            identities = [make(self.trust_domain, namespace, account) for _, namespace, account in asks]
            csrs = [csr.encode("ascii", "replace") for csr, _, _ in asks]
            made = self.authority.sign_all(list(zip(csrs, identities, strict=True)), self.ttl_s, now)
        except ValueError as error:
            if len(asks) == 1:
                return [error]
            return [one for ask in asks for one in self.issue_all([ask], now)]
        roots = self.roots()
        for one, identity in zip(made, identities, strict=True):
            if isinstance(one, Exception):
                found.append(one)
                continue
            chain, ends, serial = one
            found.append({
                "certificates": chain,
                "roots": roots,
                "notAfter": _moment(int(ends)),
                "identity": str(identity),
                "serial": f"{serial:x}",
            })  # fmt: skip
        return found

    def roots(self) -> str:
        """PEM of all roots that workloads are to trust, that of the signer first."""
        if self.successor is None:
            more = self.announced if self.announced not in self.current.roots else ""
            return self.current.roots + more
        first, second = self.authority, self.current if self.phase == ISSUING else self.successor
        known = set(_pems(first.roots))
        return first.roots + "".join(pem for pem in _pems(second.roots) if pem not in known)

    def issuer(self) -> str:
        """The key identifier of the signer, hexadecimal, as its certificates have it."""
        return self.authority.key_id.hex()

    def states(self) -> list[tuple[x509.Certificate, str, str]]:
        """Each certificate of an authority, (certificate, root or intermediate, in what role)."""
        found: list[tuple[x509.Certificate, str, str]] = []
        issuing = self.phase == ISSUING
        for authority, state in ((self.authority, "issuing"), (self.current if issuing else self.successor,
                                                               "outgoing" if issuing else "incoming")):  # fmt: skip
            if authority is not None:
                found.append((authority.root, "root", state))
                found += [(one, "intermediate", state) for one in authority.intermediates]
        known = {fingerprint(certificate) for certificate, _, _ in found}
        others = x509.load_pem_x509_certificates(self.roots().encode())
        return found + [(one, "root", "trusted") for one in others if fingerprint(one) not in known]

    def identity_of(self, der: bytes) -> str:
        """The SPIFFE id of a client certificate that TLS has verified; raises ValueError."""
        return identity_within(der, self.trust_domain)

    # --- the rotation -----------------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Have a successor, and distribute its root. Raises RotationError, OSError."""
        if self.folder is None:
            raise RotationError("this authority is kept in no folder: nothing can be rotated")
        if self.phase:
            raise RotationError(f"a rotation is under way: {self.phase}")
        if not (self.folder / NEXT).exists():
            if self.files is not None:
                raise RotationError(
                    f"put the new authority of your PKI at {self.folder / NEXT} (with its chain) and "
                    f"{self.folder / NEXT_KEY} first, its root at {self.folder / NEXT_ROOTS} if the chain lacks it"
                )
            made = Authority.create(self.trust_domain, now)
            for name in (NEXT_KEY, NEXT):
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / name).unlink()
            _write(self.folder / NEXT_KEY, made.key_pem(), 0o600)
            _write(self.folder / NEXT, made.certificate_pem(), 0o644)
        elif self.files is None and (self.folder / NEXT_ROOTS).exists():
            raise RotationError(
                f"put the root of {self.folder / NEXT_ROOTS} at the end of {self.folder / NEXT} instead"
            )
        successor = self._load_successor(now)
        if fingerprint(successor.root) == fingerprint(self.current.root):
            raise RotationError("the new authority has the same root as the present one: there is nothing to rotate; "
                                "replace the files and send SIGHUP")  # fmt: skip
        self._keep(Rotation(DISTRIBUTING, now))
        self.successor = successor
        self._set(DISTRIBUTING, now)

    def activate(self, now: float) -> None:
        """Issue by the successor. Who calls has made sure that everybody trusts it. Raises RotationError, OSError."""
        if self.phase != DISTRIBUTING:
            raise RotationError(f"expected a rotation that is {DISTRIBUTING}, this one is {self.phase or 'not begun'}")
        self._keep(Rotation(ISSUING, now))
        self._set(ISSUING, now)

    def may_finish(self) -> None:
        """Raises RotationError where `finish` would, and changes nothing."""
        if self.phase != ISSUING or self.successor is None or self.folder is None:
            raise RotationError(f"expected a rotation that is {ISSUING}, this one is {self.phase or 'not begun'}")
        if self.files is not None:
            given = _load(self.files.key, self.files.certificate, self.files.roots, "", self.trust_domain, None)
            if fingerprint(given.root) != fingerprint(self.successor.root):
                raise RotationError(
                    f"{self.files.certificate} is still of the old root, and would be used after a restart: put the "
                    f"new authority there (from {self.folder / NEXT}), and its key at {self.files.key}"
                )

    def finish(self, now: float) -> None:
        """Drop the old root. Who calls has made sure that nobody uses it. Raises RotationError, OSError."""
        self.may_finish()
        assert self.folder is not None and self.successor is not None
        self._keep(Rotation(FINISHING, now))
        _finish(self.folder, self.files is None)
        self.current, self.successor = self.successor, None
        self._set("", 0.0)

    def abort(self) -> None:
        """Give up a rotation before anything was issued by the new root. Raises RotationError."""
        if self.phase != DISTRIBUTING or self.folder is None:
            raise RotationError(
                "certificates of the new root are in use: finish this rotation, and begin another if you must"
                if self.phase else "no rotation is under way"
            )  # fmt: skip
        (self.folder / STATE).unlink()
        for name in (NEXT_KEY, NEXT, NEXT_ROOTS):
            (self.folder / name).unlink(missing_ok=True)
        self.successor = None
        self._set("", 0.0)

    def reload(self, now: float) -> None:
        """Take the operator's files again, where they changed. Raises ValueError: then the old stay in force."""
        if self.files is None or self.phase:
            return
        fresh = _load(self.files.key, self.files.certificate, self.files.roots, self.others, self.trust_domain, now)
        if fresh.certificate == self.current.certificate and fresh.roots == self.current.roots:
            return
        if fingerprint(fresh.root) not in {fingerprint(one) for one in _certificates(self.current.roots)}:
            raise ValueError(
                f"{self.files.certificate} is of a root that workloads do not trust yet, and is not used: rotate with "
                "`fairlead certs rotate`"
            )
        self.current = fresh
        for tell in self.changed:
            tell()

    def resume(self, folder: Path, files: CaFiles | None, others: str, now: float) -> None:
        """Go on with what rotation.json says. Raises OSError, ValueError."""
        self.folder, self.files, self.others = folder, files, others
        path = folder / STATE
        if not path.exists():
            return
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=Rotation)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}: {error}") from error
        self.successor, self.phase, self.since = self._load_successor(None), kept.phase, kept.since

    def _load_successor(self, now: float | None) -> Authority:
        assert self.folder is not None
        roots = self.folder / NEXT_ROOTS
        try:
            return _load(self.folder / NEXT_KEY, self.folder / NEXT, roots if roots.exists() else None, self.others,
                         self.trust_domain, now)  # fmt: skip
        except ValueError as error:
            raise RotationError(str(error)) from error

    def _keep(self, state: Rotation) -> None:
        assert self.folder is not None
        draft = self.folder / f"{STATE}.new"
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        _write(draft, msgspec.json.encode(state), 0o600)
        draft.replace(self.folder / STATE)

    def _set(self, phase: str, since: float) -> None:
        self.phase, self.since = phase, since
        for tell in self.changed:
            tell()

    # --- the API's own certificate ----------------------------------------------------------------------------------

    def server_context(self, names: list[str]) -> ServerContext:
        """For the API's TLS listener: its own certificate, and client certificates taken where one is shown.

        Who shows none must show a token; who shows one has it verified by OpenSSL and then by `identity_of`. The
        context makes itself anew (`renew`) when roots change, or its certificate has lived for two thirds.
        """
        return ServerContext(lambda: self._server_context(names), time.time)

    def server_material(self, names: list[str]) -> tuple[bytes, bytes, bytes]:
        """(key, chain, roots) in PEM for a server of control's that is no part of the API; made anew when half of its
        life is over, or the roots have changed."""
        kept, now, roots = self._server, time.time(), self.roots().encode()
        if kept is None or now > kept[0] or kept[3] != roots:
            identity = make(self.trust_domain, "fairlead-system", "control")
            names = [name for name in names if name not in ("0.0.0.0", "::")]
            key, chain, ends = self.current.sign_server(names, identity, API_CERTIFICATE_S, now)
            kept = self._server = (now + (ends - now) / 2, key, chain.encode(), roots)
        return kept[1], kept[2], kept[3]

    def _server_context(self, names: list[str]) -> tuple[ssl.SSLContext, float]:
        identity = make(self.trust_domain, "fairlead-system", "control")
        names = [name for name in names if name not in ("0.0.0.0", "::")]
        # Clients with the old root in a file (--ca) know us until that root is dropped.
        key, chain, ends = self.current.sign_server(names, identity, API_CERTIFICATE_S, time.time())
        return server_context(chain, key.decode(), self.roots()), ends


@lru_cache(16)
def _moment(unix: int) -> str:
    """RFC 3339; of those who ask in one second it is one."""
    return datetime.fromtimestamp(unix, UTC).isoformat().replace("+00:00", "Z")


def server_context(chain: str, key: str, roots: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=roots)
    load_chain(context, chain, key)
    return context


def identity_within(der: bytes, trust_domain: str) -> str:
    """The SPIFFE id in a verified client certificate, of our own trust domain; raises ValueError.

    A root of the user's PKI may vouch for other trust domains, too: nobody of those is one of our workloads.
    """
    found = trust.identity_of(der, time.time())
    if found.trust_domain != trust_domain:
        raise IdentityError(f"{found} is of another trust domain than {trust_domain}")
    return str(found)


def open_authority(folder: Path, trust_domain: str, ttl_s: float, files: CaFiles | None = None) -> Issuer:
    """The authority kept in a folder, made at the first start, or that of the operator's PKI. Raises OSError,
    ValueError that name the file."""
    others_path = folder / ROOTS
    others = _roots(others_path) if others_path.exists() else ""
    _finish_if_begun(folder, files is None)
    key_path, certificate_path = folder / KEY, folder / CERTIFICATE
    if files is not None:
        now = time.time()
        issuing = (folder / STATE).exists()  # then the file may already have ended, and its successor is in force
        authority = _load(files.key, files.certificate, files.roots, others, trust_domain, None if issuing else now)
    else:
        if key_path.exists() != certificate_path.exists():
            there, missing = (key_path, certificate_path) if key_path.exists() else (certificate_path, key_path)
            raise ValueError(f"{there} is there but {missing} is not: restore it, or remove both for a new authority")
        if not key_path.exists():
            made = Authority.create(trust_domain, time.time())
            _write(certificate_path, made.certificate_pem(), 0o644)
            _write(key_path, made.key_pem(), 0o600)
        authority = _load(key_path, certificate_path, None, others, "", None)
    issuer = Issuer(authority, trust_domain, ttl_s)
    issuer.resume(folder, files, others, time.time())
    return issuer


def _load(
    key: Path, certificate: Path, roots: Path | None, others: str, trust_domain: str, now: float | None
) -> Authority:
    roots_pem = roots.read_bytes() if roots is not None else b""
    try:
        return Authority.load(
            key.read_bytes(), certificate.read_bytes(), others, roots_pem=roots_pem, trust_domain=trust_domain, now=now
        )
    except AuthorityError as error:
        raise ValueError(f"{key}, {certificate}{f', {roots}' if roots else ''}: {error}") from error


def _finish(folder: Path, own: bool) -> None:
    """The successor's files take the place of the old authority's; may be done again after a crash in the middle."""
    if own:
        for name, place in ((NEXT_KEY, KEY), (NEXT, CERTIFICATE)):
            if (folder / name).exists():
                (folder / name).replace(folder / place)
    for name in (NEXT_KEY, NEXT, NEXT_ROOTS):
        (folder / name).unlink(missing_ok=True)
    (folder / STATE).unlink(missing_ok=True)


def _finish_if_begun(folder: Path, own: bool) -> None:
    path = folder / STATE
    if path.exists() and FINISHING.encode() in path.read_bytes():
        _finish(folder, own)


def _pems(text: str) -> list[str]:
    end = "-----END CERTIFICATE-----"
    return [f"{part.strip()}\n{end}\n" for part in text.split(end) if part.strip()]


def _certificates(text: str) -> list[x509.Certificate]:
    return load_pem_x509_certificates(text.encode())


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
