"""Shell: one reader's stream of the feed: what it was sent, what it has said, and when it is to be looked at again."""

from __future__ import annotations

import asyncio
import math
from base64 import b64decode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from .push import NONE, View
from .scopes import EVERY, MODES
from .views import BASE_TABLES

if TYPE_CHECKING:
    from .feed_server import Member

DIGEST_BYTES = 16
USES_MOST = 20_000
"""Services that one sidecar may say to use."""
HOST_MOST = 255


class Said(msgspec.Struct):
    """Body of POST /fairlead/v1/feed/say: what control has asked a reader for."""

    namespace: str
    workload: str
    role: str = "sidecar"
    instance: str = ""
    holds: str | None = None
    """Digests of its items, one after the other, in base64."""
    uses: list[str] = []
    """Hosts of the services that it uses."""
    fields: dict[str, list[str]] | None = None
    """What its version knows (policy/known_fields.py)."""


class HealthReport(msgspec.Struct):
    """Body of POST /fairlead/v1/feed/health."""

    namespace: str
    workload: str
    ready: bool
    role: str = "sidecar"
    why: str = ""
    checks: list[dict[str, Any]] = []
    instance: str = ""


class Use(msgspec.Struct):
    """Body of POST /fairlead/v1/feed/use."""

    namespace: str
    workload: str
    hosts: list[str]
    role: str = "sidecar"
    instance: str = ""


class Stream:
    """A connected reader. What it asks for stands in the request's query:

    says=1             it answers what control asks it for
    endpoints=MODE     scopes.MODES; all where it does not say
    schema=NAME        of what its version knows of objects; none: taken to know everything
    items=TABLE,...    first parts of the keys of items that it knows
    """

    def __init__(self, key: str, member: Member, query: Mapping[str, str]) -> None:
        self.key = key
        self.member = member
        self.role, self.namespace, self.workload = member.role, member.namespace, member.workload
        self.labels, self.address = member.labels, member.address
        self.proved = member.proved
        self.says = query.get("says") == "1"
        self.endpoints = query.get("endpoints", EVERY)
        if self.endpoints not in MODES:
            raise web.HTTPBadRequest(text=f"endpoints: expected one of {', '.join(MODES)}, got {self.endpoints!r}")
        if not self.says:  # it could not tell what it uses
            self.endpoints = EVERY
        self.schema = query.get("schema", "")[:64]
        items = query.get("items", "")
        self.tables = frozenset(items.split(",")) if items else BASE_TABLES
        self.scoped = False
        self.cut = False
        """It is to end: who reads may not any more."""
        self.serial = ""
        """Of the certificate that was shown when it began, hexadecimal."""
        self.uses: frozenset[str] = NONE
        self.digests: set[bytes] | None = None
        """Of what it holds, until it is sent what it lacks."""
        self.wake = asyncio.Event()
        self.said = asyncio.Event()
        self.open: asyncio.Transport | None = None
        """Where chunks can be written at once: nothing else is under way on the stream."""
        self.beat_at = 0.0
        """When a line is due that says that we are here (loop time)."""
        self.beat_s = 0.0
        """So long after the last one: of each stream another, or all would be at once after each version."""
        self.told = b""
        """What it was told of roots."""
        self.claims: list[str] = []
        """What it was told is not believed of what it says of itself."""
        self.number = -1
        """Of the version that it was sent last; -1: it has nothing."""
        self.view = View()
        """As it was then."""
        self.sent = ""
        """The version of the last message; whoever has taken that has what is offered, since what came after it was for
        others."""

    def hear(self, said: Said) -> None:
        """Raises ValueError for what cannot be read; then nothing of it is taken."""
        digests = self.digests
        if said.holds is not None:
            octets = b64decode(said.holds, validate=True)
            if len(octets) % DIGEST_BYTES:
                raise ValueError(f"holds: expected digests of {DIGEST_BYTES} octets each, got {len(octets)}")
            digests = {octets[at : at + DIGEST_BYTES] for at in range(0, len(octets), DIGEST_BYTES)}
        self.use(said.uses)
        self.digests = digests
        self.said.set()

    def use(self, hosts: list[str]) -> bool:
        """It uses these, too; whether that is new. Raises ValueError."""
        if any(len(host) > HOST_MOST for host in hosts):
            raise ValueError(f"a host has at most {HOST_MOST} characters")
        uses = self.uses | frozenset(host.lower() for host in hosts)
        if len(uses) > USES_MOST:
            raise ValueError(f"one sidecar may name at most {USES_MOST} services; ask for all: --endpoints all")
        new, self.uses = len(uses) > len(self.uses), uses
        self.member.uses = len(uses)
        return new


def chunk_of(message: bytes) -> bytes:
    """A message as a chunk of an HTTP/1.1 body (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(message), message)


def read(body: bytes, kind: type[Any]) -> Any:
    """A body of this kind; raises HTTPBadRequest."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise web.HTTPBadRequest(text=f"not what a reader of the feed says: {error}") from None


def patience(told: Any, most: float) -> float:
    """Seconds to wait at most. Raises TypeError, ValueError."""
    try:
        wanted = float(told)
    except OverflowError as error:
        raise ValueError(f"timeout: {error}") from None
    if not math.isfinite(wanted):  # NaN is neither more nor less than any bound
        raise ValueError("timeout: expected a number of seconds")
    return min(max(wanted, 0.0), most)


def farewell(
    version: str, waited_s: float, pending: list[str], refusing: list[str], others: int, superseded: bool = False
) -> web.Response:
    body = {
        "version": version, "waited_s": round(waited_s, 6), "others": others, "pending": pending,
        "refusing": refusing, "superseded": superseded,
    }  # fmt: skip
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
