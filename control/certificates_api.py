"""Shell: workload tokens and certificates over HTTP.

`POST /fairlead/v1/certificates` {"csr": PEM, "namespace", "workload"} answers {"certificates": PEM, "roots": PEM,
"notAfter": RFC 3339, "identity", "time": ours, Unix seconds}. The identity comes from the caller's token, present
certificate or user id (Unix socket) alone, never from what the CSR or the body asks for. `GET /fairlead/v1/roots`
answers {"roots": PEM} to anybody.
`POST /fairlead/v1/tokens` makes a token, `GET` lists them without their secrets, `DELETE .../ID` revokes one, with
`?withdraw` also what it gave to workloads beside their identity, with `?certificates` what was issued by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

from aiohttp import web

from ..policy.validate_values import check_labels, cidr_fault
from ..registry.schema import Findings
from . import grants, tokens
from .admission import check_account, check_namespace
from .api_body import read_json
from .api_context import current
from .api_door import is_operator
from .api_objects import body_of, respond
from .auth import WORKLOAD, Principal, check_own, forbidden, unauthorized
from .issued import IssuedLeaf
from .issuing import Ask, Together
from .revocations import Revocations
from .status import StatusError, bad_request, not_found
from .store import ConflictError, Key, Store, StoreError, Write

CSR_BYTES_MAX = 16 << 10
ISSUES_PER_MINUTE = 60
"""Per identity; a whole service of 60 instances may start at once, a loop gone wild may not."""
logger = logging.getLogger("fairlead.certificates")


class UnavailableError(Exception):
    """The signer cannot be reached, or refuses us; the message says why."""


class Issuer(Protocol):
    """What is needed of the authority."""

    def issue(
        self, csr: str, namespace: str, service_account: str, now: float
    ) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        """{"certificates": PEM, "roots": PEM, "notAfter": RFC 3339, "identity", "serial"}. Raises ValueError for a
        request that is not signed, UnavailableError where nothing can be signed now."""
        ...

    def roots(self) -> str:
        """PEM."""
        ...

    def issuer(self) -> str:
        """The key identifier of the signer, hexadecimal; empty: not known."""
        ...


class CertificatesApi:
    """Handlers; `issuer` None: there is no authority here. `clock`: Unix seconds; `draw(n)`: n random bytes."""

    def __init__(
        self, store: Store, issuer: Issuer | None, clock: Callable[[], float], draw: Callable[[int], bytes]
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._clock = clock
        self._draw = draw
        self._recent: dict[tuple[str, str], deque[float]] = {}
        """The latest times at which each identity asked."""
        self.record: Callable[[Sequence[IssuedLeaf]], None] | None = None
        """Told of each certificate before it is handed out."""
        issue_all = getattr(issuer, "issue_all", None)
        self._together = Together(issue_all, clock, self._put_on_record) if issue_all is not None else None
        """Of an issuer that signs by itself."""
        self.revocations: Revocations | None = None
        self.lineage: Callable[[str, str, str], Awaitable[str]] | None = None
        """(serial, workload, identity) of a certificate that is renewed: the id of the token with which it began."""
        self.take_back: Callable[[tokens.Token, list[Key]], Awaitable[list[str]]] | None = None
        """Revokes what was issued by a token, which gave these grants; tells the serials."""
        self.issued = 0
        self.refused = 0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/fairlead/v1/certificates", self._certificate),
            web.get("/fairlead/v1/roots", self._roots),
            web.post("/fairlead/v1/tokens", self._make_token),
            web.get("/fairlead/v1/tokens", self._list_tokens),
            web.delete("/fairlead/v1/tokens/{id}", self._revoke_token),
        ]

    async def _roots(self, request: web.Request) -> web.Response:
        if self._issuer is None:
            raise StatusError(404, "this control plane has no certificate authority")
        return respond(request, {"roots": self._issuer.roots()})

    async def _certificate(self, request: web.Request) -> web.Response:
        principal = current().principal
        try:
            answer = await self._issue(request, principal)
        except StatusError:
            self.refused += 1
            raise
        self.issued += 1
        return respond(request, answer)

    async def _issue(self, request: web.Request, principal: Principal) -> dict[str, Any]:
        if self._issuer is None:
            raise StatusError(404, "this control plane has no certificate authority")
        if principal.role != WORKLOAD:
            raise unauthorized("a certificate needs a workload token (`fairlead token create`) or the present one")
        body = await fields(request)
        csr = body.get("csr")
        if not isinstance(csr, str) or not csr or len(csr) > CSR_BYTES_MAX:
            raise bad_request(f"csr: expected a PEM certificate request of at most {CSR_BYTES_MAX} bytes")
        namespace = text(body, "namespace", principal.namespace)
        workload = text(body, "workload", "")
        account = text(body, "serviceAccount", principal.service_account)
        check_own(principal, namespace, workload)
        if account != principal.service_account:
            raise forbidden(
                principal, f"have a certificate of service account {account}", f"it is {principal.service_account}"
            )
        now = self._clock()
        self._limit((namespace, account), now)
        if self.revocations and (why := self.revocations.why(namespace, account, principal.serial, workload)):
            raise forbidden(principal, "have a certificate", why)
        if principal.one_time:
            await self._spend(request, now)
        try:
            return await self._made(self._issuer, principal, (csr, namespace, account), workload, now)
        except BaseException:
            if principal.one_time:
                await asyncio.shield(self._give_back(principal.token_id, now))
            raise

    async def _made(self, issuer: Issuer, principal: Principal, ask: Ask, workload: str, now: float) -> dict[str, Any]:
        """Signed and on record. Raises StatusError."""
        named, token = f"{ask[1]}/{workload or ask[2]}", principal.token_id
        by = "token" if token else "certificate" if principal.identity else "socket"
        if principal.serial and self.lineage is not None:
            token = await self.lineage(principal.serial, named, principal.identity)
        recorded: list[IssuedLeaf] = []

        def leaf(made: dict[str, Any], at: float) -> IssuedLeaf:
            signer, ends = str(made.get("issuer") or issuer.issuer()), _unix(made["notAfter"])
            one = IssuedLeaf(made["serial"], made["identity"], named, signer, at, ends, by, principal.serial, token)
            recorded.append(one)
            return one

        kept = self._kept(principal, workload, now)
        at_once = self._together is not None and not kept  # nothing of ours can refuse it any more
        issued = await self._sign(issuer, ask, leaf if at_once and self.record is not None else None, now)
        await self._note_use(principal, kept, now)
        current().audit |= {
            "identity": issued.get("identity", ""),
            "serial": issued.get("serial", ""),
            "notAfter": issued.get("notAfter", ""),
            "workload": named,
            "by": by,
        }
        if not at_once and self.record is not None:
            self.record([leaf(issued, now)])
        if self.revocations and recorded and (why := self.revocations.why_leaf(recorded[0])):
            raise forbidden(principal, "have a certificate", why)  # revoked while it was being signed
        return issued

    async def _sign(
        self, issuer: Issuer, ask: Ask, leaf: Callable[[dict[str, Any], float], IssuedLeaf] | None, now: float
    ) -> dict[str, Any]:
        """Raises StatusError 400, 503."""
        try:
            if self._together is not None:
                return await self._together.ask(ask, leaf)
            made = issuer.issue(*ask, now)
            return {**(await made if inspect.isawaitable(made) else made), "time": now}
        except ValueError as error:
            raise bad_request(f"csr: {error}") from None
        except UnavailableError as error:
            raise StatusError(503, f"no certificate can be issued now: {error}", retry_after_s=5) from None

    def _put_on_record(self, leaves: Sequence[IssuedLeaf]) -> None:
        if self.record is not None:
            self.record(leaves)

    async def _spend(self, request: web.Request, now: float) -> None:
        """A one-time token is spent before anything is signed for it, which may take a while (Vault): of two at once,
        by one control plane or two, one gets nothing. Raises StatusError 401, StoreError."""
        secret = request.headers["Authorization"].partition(" ")[2].strip()
        try:
            _, stored = tokens.verify(self._store.memory, secret, now)
            await self._store.write([tokens.used(stored, now)])
        except (tokens.TokenError, ConflictError) as error:
            raise unauthorized(str(error) or "the token has been used") from None

    async def _give_back(self, name: str, now: float) -> None:
        """Nothing was handed out for it."""
        try:
            if (write := tokens.unused(self._store.memory, name, now)) is not None:
                await self._store.write([write])
        except (ConflictError, StoreError) as error:
            logger.error("one-time token %s is spent, and nothing was issued for it: %s", name, error)

    def _token(self, principal: Principal) -> tokens.Token | None:
        return tokens.known(self._store.memory, principal.token_id) if principal.token_id else None

    def _kept(self, principal: Principal, workload: str, now: float) -> list[Write]:
        """What a token gives beside the identity, to be kept for who comes with the certificate alone."""
        if not workload:
            return []
        key = grants.key_of(principal.namespace, principal.service_account, workload)
        return grants.issued(self._store.memory, self._token(principal), key, now)

    async def _note_use(self, principal: Principal, kept: list[Write], now: float) -> None:
        token = self._token(principal)
        try:
            await self._store.write(kept) if kept else None
        except ConflictError:
            pass  # it has just been written, of the same token or a later one
        except StoreError:
            if token is not None:
                raise  # a renewal need not wait for the store
        if token is None or principal.one_time:
            return
        if (noted := tokens.used_again(self._store.memory, principal.token_id, now)) is not None:
            with contextlib.suppress(ConflictError, StoreError):  # of two at once one is noted; nobody waits for it
                await self._store.write([noted])

    def _limit(self, identity: tuple[str, str], now: float) -> None:
        recent = self._recent.get(identity)
        if recent is None:
            recent = self._recent[identity] = deque(maxlen=ISSUES_PER_MINUTE)
        if len(recent) == ISSUES_PER_MINUTE and recent[0] > now - 60:
            wait = int(recent[0] + 60 - now) + 1
            raise StatusError(429, f"more than {ISSUES_PER_MINUTE} certificates a minute for one identity",
                              retry_after_s=wait)  # fmt: skip
        recent.append(now)
        if len(self._recent) > 10_000:
            self._recent = {key: times for key, times in self._recent.items() if times[-1] > now - 60}

    # --- tokens -----------------------------------------------------------------------------------------------------

    async def _make_token(self, request: web.Request) -> web.Response:
        principal = only_admin("make workload tokens")
        body = await fields(request)
        namespace = text(body, "namespace", "default")
        check_namespace(namespace)
        account = text(body, "serviceAccount", "default")
        check_account(account)
        ttl = body.get("ttlSeconds", 86400)
        if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
            raise bad_request("ttlSeconds: expected a number of seconds")
        one_time = body.get("oneTime", False)
        if not isinstance(one_time, bool):
            raise bad_request("oneTime: expected true or false")
        now = self._clock()
        try:
            secret, token, write = tokens.make(
                self._draw(tokens.ID_BYTES + tokens.SECRET_BYTES), namespace, account, now=now, ttl_s=float(ttl),
                one_time=one_time, workload=text(body, "workload", ""), created_by=principal.name,
                labels=labels_in(body), addresses=addresses_in(body),
            )  # fmt: skip
        except tokens.TokenError as error:
            raise bad_request(str(error)) from None
        memory = self._store.memory
        await self._store.write([write, *tokens.outdated(memory, now), *grants.outdated(memory, now)])
        current().audit |= {"token": token.id, "for": f"{namespace}/{account}"}
        if token.labels or token.addresses:
            current().audit |= {"labels": token.labels, "addresses": list(token.addresses)}
        shown = {"token": secret, "id": token.id, "namespace": namespace, "serviceAccount": account,
                 "expiresAt": token.expires_at, "oneTime": one_time}  # fmt: skip
        return respond(request, shown, 201)

    async def _list_tokens(self, request: web.Request) -> web.Response:
        only_admin("list workload tokens")
        return respond(request, {"tokens": tokens.listed(self._store.memory)})

    async def _revoke_token(self, request: web.Request) -> web.Response:
        only_admin("revoke workload tokens")
        name = request.match_info["id"]
        stored = self._store.memory.get(Key(tokens.RESOURCE, "", name))
        if stored is None:
            raise not_found("tokens", "", name)
        token = tokens.known(self._store.memory, name)
        given = list(grants.from_token(self._store.memory, name))
        withdrawn = given if "withdraw" in request.query else []
        try:
            await self._store.write([Write(one.key, None) for one in (stored, *withdrawn)])
        except ConflictError:
            pass  # somebody else has just revoked it
        current().audit |= {"token": name}
        if "certificates" not in request.query or token is None or self.take_back is None:
            return web.Response(status=204)
        serials = await self.take_back(token, [one.key for one in given])
        return respond(request, {"token": name, "certificates": serials})


@lru_cache(16)
def _unix(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def labels_in(body: dict[str, Any]) -> dict[str, str]:
    """Raises StatusError 400."""
    value = body.get("labels", {})
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise bad_request('labels: expected an object of texts, such as {"app": "web"}')
    found = Findings()
    check_labels(found, "labels", value)
    if found.errors:
        raise bad_request("; ".join(f"{path}: {message}" for path, message in found.errors))
    return value


def addresses_in(body: dict[str, Any]) -> tuple[str, ...]:
    """Raises StatusError 400."""
    value = body.get("addresses", [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise bad_request("addresses: expected a list of addresses and networks")
    for one in value:
        if fault := cidr_fault(one):
            raise bad_request(f"addresses: {one}: {fault}")
    return tuple(value)


def only_admin(what: str) -> Principal:
    """Administrators, and who has been given the path by RBAC."""
    context = current()
    if not is_operator(context):
        raise forbidden(context.principal, what)
    return context.principal


async def fields(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object. Raises StatusError 400."""
    value, _ = read_json(await body_of(request), False)
    if not isinstance(value, dict):
        raise bad_request("expected a JSON object")
    return value


def text(body: dict[str, Any], name: str, default: str) -> str:
    value = body.get(name, default)
    if not isinstance(value, str) or len(value) > 300:
        raise bad_request(f"{name}: expected text")
    return value or default
