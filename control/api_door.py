"""Shell: the door of the API: who asks (token, certificate, id token), as whom, whether they may, and not too much.

In this order: credentials (401), limits (429), permission (403). The handlers below /fairlead/ that workloads use see
to it themselves that each gets only its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from ..mesh.bundle import SERVICE_ACCOUNT
from . import access, oidc
from .access import Access, attributes_of
from .api_context import Context
from .api_limits import ApiLimits
from .auth import ADMIN, NOBODY, USER, WORKLOAD, AdminTokens, Authenticator, Principal, unauthorized, user_principal
from .browsers import check_not_a_browser
from .client_certificates import ClientAuthorities, ends_at, user_of_certificate
from .oidc_keys import OidcVerifier
from .rbac import MASTERS
from .settings import cause
from .socket_users import SocketUsers
from .status import StatusError, bad_request
from .tokens import is_token
from .workload_socket import peer_uid

PUBLIC = frozenset(("/healthz", "/livez", "/readyz", "/healthz/ready", "/version", "/version/", "/fairlead/v1/roots"))
"""Answered to anybody."""
WORKLOADS_OWN = ("/fairlead/v1/feed", "/fairlead/v1/certificates")
"""Below these, workloads get in by their identity alone."""
LOOK_AGAIN_S = 5.0
LARGE_BYTES = 256 << 10
"""From here on an answer counts as under way until it has been read,"""
READ_S, READ_BYTES_A_SECOND = 60.0, 16 << 10
"""for which it has this time, and a second more for so many octets."""
logger = logging.getLogger("fairlead.api")


class Door:
    """Of one API. `open_ports`: of listeners on loopback that need no credentials while none are configured."""

    def __init__(
        self, authenticator: Authenticator, permissions: Access, limits: ApiLimits, clock: Callable[[], float],
        token_file: str = "",
    ) -> None:  # fmt: skip
        """Raises ValueError where the token file cannot be used."""
        self.authenticator = authenticator
        self.access = permissions
        self.limits = limits
        self.authorities = ClientAuthorities()
        self.oidc: OidcVerifier | None = None
        self.socket_users = SocketUsers("", lambda _name: -1)
        """Workloads that come by the Unix socket."""
        self.sync: Callable[[], Awaitable[None]] | None = None
        """Takes in what other control planes have written: one of them may have made a token a moment ago."""
        self.open_ports: set[int] = set()
        self._clock = clock
        self.now = time.monotonic
        """The clock of the limits."""
        self._token_file = token_file
        self._token_mtime = 0.0
        self.token_looked = 0.0
        self.read_tokens()

    @property
    def is_open(self) -> bool:
        """Whether loopback needs no credentials: nobody has been given any."""
        return not len(self.authenticator.admins) and not self.authorities and self.oidc is None

    async def enter(self, request: web.Request, context: Context) -> None:
        """Let in, counted until `leave`. Raises StatusError 400, 401, 403, 429."""
        public = request.path in PUBLIC
        try:
            if request.remote and "Authorization" in request.headers:  # a certificate cannot be guessed
                self.limits.check_address(request.remote, self.now())
            context.principal = await self._who(request)
        except StatusError as error:
            if public:
                return
            if error.code == 401 and request.remote:
                self.limits.failed(request.remote, self.now())
            raise
        if public:
            return
        if context.principal.role == NOBODY:
            raise unauthorized("show a bearer token or a client certificate")
        if context.principal.name == "fairlead:local":
            check_not_a_browser(request)
        if "dryRun" in request.query and request.path.startswith("/fairlead/"):
            raise bad_request("dryRun: there is none below /fairlead/")
        caller = context.principal
        wanted = attributes_of(request.method, request.rel_url.raw_path, request.query)
        context.wanted = wanted
        if impersonates(request):
            self._let_impersonate(request, context)
        is_master = MASTERS in caller.groups
        if not (caller.role == WORKLOAD and request.path.startswith(WORKLOADS_OWN)):
            user, is_watch = access.user_of(caller).name, wanted.verb == "watch"
            self.limits.begin(user, is_master, is_watch, self.now())
            context.counted = (user, is_watch)
            context.charge = lambda seconds: self.limits.worked(user, is_master, seconds, self.now())
            context.check_work = lambda: self.limits.check_work(user, is_master, self.now())
        self._permit(request, context)

    def _let_impersonate(self, request: web.Request, context: Context) -> None:
        headers = {key.title(): value for key, value in request.headers.items()}
        groups = request.headers.getall("Impersonate-Group", [])
        context.audit["impersonatedBy"] = context.principal.name
        context.principal = self.access.impersonated(context.principal, headers, groups)

    async def again(self, request: web.Request, context: Context) -> None:
        """Whether who was let in would be let in now: credentials may have ended, or permission. Raises StatusError
        401, 403."""
        now = Context()
        now.wanted, now.principal = context.wanted, await self._who(request)
        if now.principal.role == NOBODY:
            raise unauthorized("show a bearer token or a client certificate")
        if impersonates(request):
            self._let_impersonate(request, now)
        self._permit(request, now)

    async def hand_over(self, request: web.Request, context: Context, response: web.StreamResponse) -> None:
        """Send a large answer, which counts as under way until its reader has it; smaller ones the server sends.
        Raises StatusError 429, ConnectionError."""
        user, size = context.counted[0] if context.counted is not None else "", size_of(response)
        self.limits.hold(user, MASTERS in context.principal.groups, size)
        try:
            async with asyncio.timeout(READ_S + size / READ_BYTES_A_SECOND):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the answer was not read") from None
        finally:
            self.limits.release(user, size)

    def leave(self, context: Context) -> None:
        if context.counted is not None:
            self.limits.end(*context.counted)
            context.counted = None

    def _permit(self, request: web.Request, context: Context) -> None:
        principal, wanted = context.principal, context.wanted
        assert wanted is not None
        if principal.role == WORKLOAD and request.path.startswith(WORKLOADS_OWN):
            return
        try:
            context.rule = self.access.check(principal, wanted).reason
        except StatusError:
            context.decision = "forbid"
            raise
        context.decision = "allow"
        context.permitted = True

    def read_tokens(self) -> None:
        """Read the tokens again where their file has changed; looks at most every five seconds."""
        path, now = self._token_file, time.monotonic()
        if not path or (self._token_mtime and now - self.token_looked < LOOK_AGAIN_S):
            return
        self.token_looked = now
        try:
            changed = Path(path).stat().st_mtime
            if changed != self._token_mtime:
                found = AdminTokens(Path(path).read_text())
                if not len(found):
                    raise ValueError("there is no token in it")
                self.authenticator.admins = found
                self._token_mtime = changed
        except (OSError, ValueError) as error:
            if not self._token_mtime:
                raise ValueError(f"administrators' tokens {path}: {cause(error)}") from error
            logger.error("administrators' tokens %s: %s; the ones read before stay in force", path, error)

    # --- who asks ---------------------------------------------------------------------------------------------------

    async def _who(self, request: web.Request) -> Principal:
        """Raises StatusError 401, 403."""
        self.read_tokens()
        transport = request.transport
        wire = transport.get_extra_info("ssl_object") if transport else None
        local = transport.get_extra_info("sockname") if transport else None
        is_open = wire is None and isinstance(local, tuple) and local[1] in self.open_ports and self.is_open
        authorization = request.headers.get("Authorization", "")
        if isinstance(local, str) and not authorization:
            assert transport is not None
            found = self.socket_users.principal(peer_uid(transport), request.headers.get(SERVICE_ACCOUNT, ""))
            self.authenticator.check(found)
            return found
        if self.oidc is not None and (text := bearer(authorization)) and oidc.looks_like_token(text):
            return await self._by_id_token(self.oidc, text)
        certificate = wire.getpeercert(binary_form=True) if wire is not None else None
        if certificate is not None and not authorization and ends_at(certificate) < self._clock():
            raise unauthorized("client certificate: it has expired")
        if certificate is not None and not authorization and self.authorities.vouch(verified_chain(wire)):
            try:
                name, groups = user_of_certificate(certificate)
            except ValueError as error:
                raise unauthorized(f"client certificate: {error}") from None
            return user_principal(name, groups)
        try:
            return self.authenticator.principal(authorization, certificate, is_open, self._clock())
        except StatusError as error:
            if error.code != 401 or self.sync is None or not is_token(bearer(authorization)):
                raise
        await self.sync()
        return self.authenticator.principal(authorization, certificate, is_open, self._clock())

    async def _by_id_token(self, verifier: OidcVerifier, text: str) -> Principal:
        try:
            name, groups = await verifier.verify(text, self._clock())
        except oidc.OidcError as error:
            raise unauthorized(str(error)) from None
        return user_principal(name, groups)


def impersonates(request: web.Request) -> bool:
    """Whether it asks to act for somebody else."""
    return "\nimpersonate-" in "\n".join(("", *request.headers)).lower()


def size_of(response: web.StreamResponse) -> int:
    """Octets of a body that is made already."""
    return len(response.body) if isinstance(response, web.Response) and isinstance(response.body, bytes) else 0


def is_large(response: web.StreamResponse) -> bool:
    """Whether an answer is to count until it has been read."""
    return not response.prepared and size_of(response) >= LARGE_BYTES


def bearer(authorization: str) -> str:
    scheme, _, text = authorization.partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def verified_chain(wire: object) -> list[bytes]:
    """What TLS has verified of the client, leaf first, as DER: of Python 3.13 on a public method."""
    public = getattr(wire, "get_verified_chain", None)
    if public is not None:
        return [bytes(one) for one in public()]
    inner = getattr(wire, "_sslobj", None)
    chain = inner.get_verified_chain() if inner is not None else None
    return [one.public_bytes(2) for one in chain or ()]  # 2: ENCODING_DER


def is_operator(context: Context) -> bool:
    """Whether who asks may see and do what concerns the mesh as a whole, below /fairlead/."""
    return context.principal.role == ADMIN or (context.principal.role in (USER, WORKLOAD) and context.permitted)
