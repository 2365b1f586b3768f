"""Who asks: administrators and users by bearer token, workloads by workload token or by their certificate.

The file of tokens has one a line: `TOKEN [NAME [GROUP,...]]` or `sha256:HEX ...`; `#` begins a comment. Without groups
it is an administrator's (system:masters); with groups (`-`: none) a user's, who may do what RBAC says. Only digests
are kept in memory. Where no credentials are configured, a listener on loopback is open to all who
can reach it, which is meant for development.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable

from msgspec import Struct

from ..mesh import trust
from . import tokens
from .rbac import AUTHENTICATED, MASTERS
from .revocations import Revocations
from .status import StatusError
from .store import Objects

ADMIN, USER, WORKLOAD, NOBODY = "admin", "user", "workload", "nobody"


class Principal(Struct, frozen=True):
    """Somebody who asks."""

    role: str
    """admin (everything), user (what RBAC permits), workload (its own certificate and feed, and the same), nobody."""
    name: str
    namespace: str = ""
    service_account: str = ""
    workload: str = ""
    """Of a token that is bound to one workload."""
    identity: str = ""
    """Verified SPIFFE id, where a certificate was shown."""
    serial: str = ""
    """Of that certificate, hexadecimal."""
    token_id: str = ""
    one_time: bool = False
    groups: tuple[str, ...] = ()


def user_principal(name: str, groups: tuple[str, ...]) -> Principal:
    """A user who has shown who they are."""
    every = tuple(dict.fromkeys((*groups, AUTHENTICATED)))
    return Principal(ADMIN if MASTERS in groups else USER, name, groups=every)


def unauthorized(why: str) -> StatusError:
    return StatusError(401, f"Unauthorized: {why}")


def forbidden(principal: Principal, what: str, why: str = "") -> StatusError:
    return StatusError(403, f"{principal.name} may not {what}{f': {why}' if why else ''}")


class AdminTokens:
    """Digests of the administrators' tokens with their names."""

    def __init__(self, text: str = "") -> None:
        """Raises ValueError naming the line."""
        self._entries: list[tuple[bytes, str, tuple[str, ...] | None]] = []
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split("#")[0].split() if not line.lstrip().startswith("#") else []
            if not words:
                continue
            if len(words) > 3:
                raise ValueError(f"line {number}: expected TOKEN [NAME [GROUP,...]] or sha256:HEX ...")
            name = words[1] if len(words) > 1 else "admin"
            groups = None if len(words) < 3 else tuple(one for one in words[2].split(",") if one not in ("", "-"))
            if words[0].startswith("sha256:"):
                if not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", words[0]):
                    raise ValueError(f"line {number}: sha256: wants 64 hexadecimal digits")
                digest = bytes.fromhex(words[0][7:])
            elif len(words[0]) < 8:
                raise ValueError(f"line {number}: a token of fewer than 8 characters can be guessed")
            else:
                digest = hashlib.sha256(words[0].encode()).digest()
            self._entries.append((digest, name, groups))

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, text: str) -> Principal | None:
        """Who has this token; takes the same time whichever it is."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        found = None
        for own, name, groups in self._entries:
            if hmac.compare_digest(own, digest):
                found = user_principal(name, (MASTERS,) if groups is None else groups)
        return found


class Authenticator:
    """`identity_of`: the SPIFFE id in a verified client certificate (DER); raises ValueError where it has none."""

    def __init__(self, objects: Objects, identity_of: Callable[[bytes], str] | None = None) -> None:
        self.admins = AdminTokens()
        self._objects = objects
        self._identity_of = identity_of
        self.revocations = Revocations(objects)

    def principal(self, authorization: str, certificate: bytes | None, loopback: bool, now: float) -> Principal:
        """Who shows these credentials. Raises StatusError 401 for credentials that are not good, 403 for what was
        revoked."""
        found = self._principal(authorization, certificate, loopback, now)
        self.check(found)
        return found

    def check(self, principal: Principal) -> None:
        """Raises StatusError 403 where this workload's certificate or service account was revoked.

        No 401: who shows what was good once guesses nothing, and others of its address are not to be held up.
        """
        if principal.role != WORKLOAD:
            return
        own = (principal.namespace, principal.service_account, principal.serial, principal.workload)
        if why := self.revocations.why(*own):
            raise StatusError(403, f"{principal.name} may not come in: {why}")

    def _principal(self, authorization: str, certificate: bytes | None, loopback: bool, now: float) -> Principal:
        if authorization:
            return self._bearer(authorization, now)
        if certificate is not None and self._identity_of is not None:
            try:
                identity = self._identity_of(certificate)
            except ValueError as error:
                raise unauthorized(f"client certificate: {error}") from None
            namespace, service_account = split_identity(identity)
            return Principal(
                WORKLOAD, identity, namespace, service_account, identity=identity, serial=serial_in(certificate),
                groups=("fairlead:workloads",),
            )  # fmt: skip
        if loopback and not len(self.admins):
            return Principal(ADMIN, "fairlead:local", groups=("system:masters", "system:authenticated"))
        return Principal(NOBODY, "system:anonymous", groups=("system:unauthenticated",))

    def _bearer(self, authorization: str, now: float) -> Principal:
        scheme, _, text = authorization.partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text:
            raise unauthorized("expected `Authorization: Bearer TOKEN`")
        if tokens.is_token(text):
            try:
                token, _ = tokens.verify(self._objects, text, now)
            except tokens.SpentError as error:
                self.check(principal_of(error.token))  # what is to be told is that it was revoked
                raise unauthorized(str(error)) from None
            except tokens.TokenError as error:
                raise unauthorized(str(error)) from None
            return principal_of(token)
        found = self.admins.find(text)
        if found is None:
            raise unauthorized("this bearer token is not known here")
        return found


def principal_of(token: tokens.Token) -> Principal:
    return Principal(
        WORKLOAD,
        f"token:{token.namespace}/{token.service_account}:{token.id}",
        token.namespace,
        token.service_account,
        token.workload,
        token_id=token.id,
        one_time=token.one_time,
        groups=("fairlead:workloads",),
    )


def serial_in(certificate: bytes) -> str:
    """Of a certificate whose identity is known, hexadecimal; empty where it cannot be read."""
    try:
        return f"{trust.read_leaf(certificate).serial:x}"
    except ValueError:
        return ""


def split_identity(identity: str) -> tuple[str, str]:
    """(namespace, service account) of spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT. Raises StatusError 401."""
    found = re.fullmatch(r"spiffe://[^/]+/ns/([^/]+)/sa/([^/]+)", identity)
    if not found:
        raise unauthorized(f"{identity} does not name a namespace and a service account")
    return found[1], found[2]


def check_own(principal: Principal, namespace: str, workload: str, service_account: str | None = None) -> None:
    """Refuse (403) a workload what is not its own. `service_account`: of the workload asked for, where known."""
    if principal.role == ADMIN:
        return
    what = f"act for workload {namespace}/{workload}"
    if principal.role != WORKLOAD:
        raise unauthorized("a workload token or certificate is needed")
    if not namespace or principal.namespace != namespace:
        raise forbidden(principal, what, f"it belongs to namespace {principal.namespace}")
    if principal.workload and principal.workload != workload:
        raise forbidden(principal, what, f"its token is bound to workload {principal.workload}")
    if service_account is not None and principal.service_account != service_account:
        raise forbidden(principal, what, f"that runs as service account {service_account}")
