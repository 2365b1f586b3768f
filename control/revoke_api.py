"""Shell: certificates, workloads and service accounts are revoked and restored over HTTP, and the list is kept small.

`POST /fairlead/v1/certs/revocations` {"serial": HEX | "workload": "NAMESPACE/NAME" | "serviceAccount":
"NAMESPACE/NAME", "force": bool} answers what was taken back, once all that are connected refuse it or after WAIT_S, and
who does not then. `POST /fairlead/v1/certs/restore` with the same lets it in again, {"certificates": true} with the
certificates that it had. `GET` of the first lists. The reason is that of the request (`Fairlead-Change-Cause`). For
administrators.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from ..mesh.revocations import serial_of
from . import tokens
from .api_context import current, reason_given, who
from .api_objects import respond
from .certificates_api import fields, only_admin, text
from .feed_server import FeedServer
from .issued import Issued, IssuedLeaf
from .revocations import ACCOUNT, SERIAL, TOKEN, WORKLOAD, Entry, Revocations, account_of, matching, of_leaf, write_of
from .rotation import Holder, told
from .status import StatusError, bad_request
from .store import ConflictError, Key, Store, StoreError, Write

WAIT_S = 5.0
TRIES = 5
WRITES_MOST = 200
"""In one commit."""
LOOK_S = 60.0
PAUSE_S = 2.0
TARGETS = {"serial": SERIAL, "workload": WORKLOAD, "serviceAccount": ACCOUNT}
SKEW_S = 60.0
NO_RECORD = (
    "there is no certificate with this serial on record: see `fairlead certs --leaves`; with force it is refused "
    "whatever it is"
)
UNKNOWN = "what another control plane has issued cannot be read: its certificates follow when it hears of this"
logger = logging.getLogger("fairlead.certificates")


class RevokeApi:
    """`issued()`: (what all control planes have issued, whether it is all); `record`: what this one has."""

    def __init__(
        self, store: Store, revocations: Revocations, feed: FeedServer, record: Issued, ttl_s: float,
        issued: Callable[[], Awaitable[tuple[Issued, bool]]], holders: Callable[[], Iterable[Holder]],
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._store = store
        self._revocations = revocations
        self._feed = feed
        self._record = record
        self._ttl_s = ttl_s
        self._issued = issued
        self._holders = holders
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._news = asyncio.Event()
        self._news.set()  # what was revoked while we were away
        revocations.changed.append(lambda _news: self._news.set())

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/fairlead/v1/certs/revocations", self._list),
            web.post("/fairlead/v1/certs/revocations", self._revoke),
            web.post("/fairlead/v1/certs/restore", self._restore),
        ]

    async def run(self) -> None:
        """Follow what others revoke, and forget what has ended, for ever."""
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            now = self._clock()
            try:
                await self._follow(list(self._record.all(now)), now)
                if outdated := self._revocations.outdated(now):
                    await self._store.write(outdated[:WRITES_MOST])
            except ConflictError:
                pass  # another control plane does the same
            except StoreError as error:
                logger.warning("what follows from a revocation cannot be written yet: %s", error)
                await asyncio.sleep(PAUSE_S)
                self._news.set()

    async def _follow(self, leaves: Sequence[IssuedLeaf], now: float) -> None:
        """Revoke what follows from what is revoked. Raises StoreError."""
        async with self._one_at_a_time:
            for _ in range(TRIES):
                entries = self._revocations.following(leaves, now)
                if not entries or await self._put(entries):
                    return
        self._news.set()

    async def _put(self, entries: Sequence[Entry]) -> bool:
        """False: some of them were there already. Raises StoreError."""
        for start in range(0, len(entries), WRITES_MOST):
            try:
                await self._store.write([write_of(one) for one in entries[start : start + WRITES_MOST]])
            except ConflictError:
                return False
        return True

    # --- requests ---------------------------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.Response:
        only_admin("see what is revoked")
        return respond(request, {"revoked": self.listed(), "using": self.using(), "unable": self.unable()})

    def using(self) -> list[dict[str, str]]:
        """Who is connected and uses a certificate that is revoked."""
        found = ((one, self._revocations.of(SERIAL, "", one.serial)) for one in self._holders() if one.serial)
        return [{"workload": one.workload, "serial": one.serial} for one, entry in found if entry is not None]

    def listed(self) -> list[dict[str, Any]]:
        """As shown, the latest first."""
        return [{"what": one.title, **msgspec.to_builtins(one)} for one in self._revocations.listed()]

    async def _revoke(self, request: web.Request) -> web.Response:
        principal = only_admin("revoke certificates")
        body = await fields(request)
        kind, namespace, name = target(body)
        now, reason = self._clock(), reason_given()
        issued, whole = await self._issued()
        entry = Entry(kind, name, namespace, principal.name, reason, now)
        if kind == SERIAL:
            entry = self._certificate(name, issued, reason, now, body.get("force") is True)
        new = await self._commit(entry, issued, now)
        if not new:
            entry = self._revocations.of(kind, namespace, name) or entry
        took = [entry, *(one for one in self._revocations.listed() if one.because == entry.title)]
        certificates = [one for one in took if one.kind == SERIAL]
        current().audit |= {
            "revoked": entry.title,
            "serials": [one.name for one in certificates],
            "changeCause": reason,
        }
        logger.warning("%s revoked by %s%s", entry.title, principal.name, f": {reason}" if reason else "")
        pending = await self._feed.known_everywhere(WAIT_S)
        shown = {
            "what": entry.title,
            "new": new,
            "certificates": [msgspec.to_builtins(one) for one in certificates],
            "warnings": [*([] if whole else [UNKNOWN]), *self._left(kind, issued, certificates, now)],
            "connected": len(self._feed.members),
            "pending": pending,
        }
        return respond(request, shown, 201 if new else 200)

    def _certificate(self, serial: str, issued: Issued, reason: str, now: float, force: bool) -> Entry:
        """Raises StatusError 404 where nothing is known of it."""
        leaf = issued.find(serial, "", "")
        if leaf is not None:
            return of_leaf(leaf, who(), reason, now)
        for one in self._holders():
            if one.serial == serial:
                return Entry(SERIAL, serial, "", who(), reason, now, one.not_after, "", one.workload)
        if not force:
            raise StatusError(404, NO_RECORD)
        return Entry(SERIAL, serial, "", who(), reason, now, now + self._ttl_s + SKEW_S)

    async def _commit(self, entry: Entry, issued: Issued, now: float) -> bool:
        """Write it and what follows; whether it is new. Raises StatusError 503."""
        try:
            new = self._revocations.of(entry.kind, entry.namespace, entry.name) is None and await self._put([entry])
            await self._follow(list(issued.all(now)), now)
        except StoreError as error:
            raise StatusError(503, f"not all is revoked: {error}", retry_after_s=5) from None
        return new

    def _left(self, kind: str, issued: Issued, certificates: Sequence[Entry], now: float) -> list[str]:
        """What else lets it in again, and who cannot refuse it."""
        found, serials = [], {one.name for one in certificates}
        names = {leaf.token for leaf in issued.all(now) if leaf.serial in serials and leaf.token}
        for name in sorted(names):
            token = tokens.known(self._store.memory, name)
            if token is not None and token.expires_at > now and not (token.one_time and token.used_at):
                how = {SERIAL: "gives a new one", WORKLOAD: "is good for other names"}.get(
                    kind, "is good once restored"
                )
                found.append(f"token {name}, by which it was issued, {how}: `fairlead token revoke {name}`")
        return found + self.unable()

    def unable(self) -> list[str]:
        """Who does not look at the list in handshakes."""
        xds = sorted(key for key, one in self._feed.members.items() if one.proxy)
        return [
            f"{who} not refuse revoked certificates in handshakes: {told(names)}; {remedy}"
            for who, names, remedy in (
                ("Envoy and gRPC do", xds, "deny the identity with an AuthorizationPolicy where they serve"),
                ("sidecars of older versions do", self._feed.lacking("revoked"), "upgrade them"),
            )
            if names
        ]

    async def _restore(self, request: web.Request) -> web.Response:
        principal = only_admin("restore what is revoked")
        body = await fields(request)
        kind, namespace, name = target(body)
        entry = self._revocations.of(kind, namespace, name)
        if entry is None:
            raise StatusError(404, f"{Entry(kind, name, namespace).title} is not revoked")
        memory = self._store.memory
        gone = [stored] if (stored := memory.get(entry.key)) is not None else []
        if body.get("certificates") is True:
            gone += matching(memory, entry.title)
        try:
            await self._store.write([Write(one.key, None, expect=one.version) for one in gone])
        except ConflictError:
            raise StatusError(409, "it has just been changed by somebody else: look again") from None
        left = [one.name for one in self._revocations.listed() if one.because == entry.title]
        current().audit |= {"restored": entry.title, "changeCause": reason_given()}
        logger.warning("%s restored by %s", entry.title, principal.name)
        shown = {"what": entry.title, "stillRevoked": left, "pending": await self._feed.known_everywhere(WAIT_S)}
        return respond(request, shown)

    async def of_token(self, token: tokens.Token, given: Sequence[Key]) -> list[str]:
        """Revoke what was issued by a token; `given`: keys of what it gave to workloads. Tells the serials. Raises
        StatusError 503."""
        now, reason = self._clock(), reason_given()
        issued, _ = await self._issued()
        leaves = list(issued.all(now))
        ends = max([now + self._ttl_s + SKEW_S, *(leaf.not_after for leaf in leaves if leaf.token == token.id)])
        entry = Entry(TOKEN, token.id, "", who(), reason, now, ends)
        names = {(one.namespace, *one.name.partition(":")[::2]) for one in given}
        direct = [
            of_leaf(leaf, who(), reason, now, entry.title)
            for leaf in leaves
            if not leaf.token and (*account_of(leaf.identity), leaf.workload.partition("/")[2]) in names
            and self._revocations.of(SERIAL, "", leaf.serial) is None
        ]  # fmt: skip
        try:
            await self._put(direct)
        except StoreError as error:
            raise StatusError(
                503, f"the token is revoked, its certificates are not: {error}", retry_after_s=5
            ) from None
        await self._commit(entry, issued, now)
        serials = [one.name for one in self._revocations.listed() if one.because == entry.title]
        current().audit |= {"serials": serials, "changeCause": reason}
        await self._feed.known_everywhere(WAIT_S)
        return serials


def target(body: Mapping[str, Any]) -> tuple[str, str, str]:
    """(kind, namespace, name) of what a request is about. Raises StatusError 400."""
    given = [name for name in TARGETS if body.get(name)]
    if len(given) != 1:
        raise bad_request("expected one of serial, workload (NAMESPACE/NAME) and serviceAccount (NAMESPACE/NAME)")
    value = text(dict(body), given[0], "")
    if given[0] == "serial":
        try:
            return SERIAL, "", f"{serial_of(value):x}"
        except ValueError as error:
            raise bad_request(f"serial: {error}") from None
    namespace, slash, name = value.partition("/")
    if not slash or not namespace or not name or "/" in name:
        raise bad_request(f"{given[0]}: expected NAMESPACE/NAME, got {value!r}")
    return TARGETS[given[0]], namespace, name
