"""Shell: the feed's server side: one stream per sidecar, what each was offered, what it took or refused.

A sidecar's connection is also its sign of life: while it stands, the mesh port that it reported is part of the
registry, and goes the moment it ends. A sidecar that is about to end says so (`POST /fairlead/v1/feed/leave`): its
workload is taken out of the registry, and the answer comes when everybody else runs a version without it.
Long because it is all that a sidecar can ask of the feed, in one protocol.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Container
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ..registry.model import Workload
from ..registry.snapshot import Snapshot
from .api_objects import body_of
from .claims import Claim
from .feed_stream import HealthReport, Said, Stream, Use, chunk_of, farewell, patience, read
from .gather import Gather
from .push import Book, View
from .views import Views

HEARTBEAT_S = 10.0
SAY_S = 5.0
"""Longest wait for what a reader is asked for; then it is sent everything."""
PUBLISH_S = 0.0001
"""So long for each reader it is until the next version is sent: what comes meanwhile is one."""
ACK_S = 0.001
"""So long for each reader at most, readers are asked to wait before they acknowledge the next version."""
LEAVE_S_MAX = 60.0
"""Longest wait for others to run a version without a workload that leaves."""
WHY_MOST = 500
ROOTS_MOST = 64
DIGITS_MOST = 128
"""Characters of a digest, a serial number or a key identifier."""
NAME_MOST = 512
CHECKS_MOST = REASONS_MOST = 64
"""Of one sidecar that are shown."""
logger = logging.getLogger("fairlead.feed")


class TrustReport(msgspec.Struct, rename="camel"):
    """Body of POST /fairlead/v1/feed/trust: what a sidecar trusts, and the certificate it uses."""

    namespace: str
    workload: str
    role: str = "sidecar"
    instance: str = ""
    roots: list[str] = []
    """SHA-256 of each, hexadecimal."""
    serial: str = ""
    issuer: str = ""
    """Key identifier of the authority that signed its certificate."""
    not_after: float = 0.0
    static: bool = False
    """It is from files of its operator (--cert, --ca)."""
    problem: str = ""
    """Why it has no new certificate, where it should have."""


class Ack(msgspec.Struct):
    """Body of POST /fairlead/v1/feed/ack: what became of a version."""

    namespace: str
    workload: str
    version: str
    accepted: bool
    role: str = "sidecar"
    reasons: list[str] = []
    instance: str = ""


read_ack = msgspec.json.Decoder(Ack).decode
Report = TypeVar("Report", HealthReport, TrustReport)


class Member(msgspec.Struct, omit_defaults=False):
    """One connected sidecar or DNS server, as shown by GET /fairlead/v1/sidecars."""

    role: str
    namespace: str
    workload: str
    address: str
    mesh_port: int
    service_account: str
    labels: dict[str, str]
    ports: list[int]
    connected_at: float
    offered: str = ""
    """The version last sent."""
    taken: str = ""
    """The version that it last said to run."""
    refused: str = ""
    """The version that it last refused; empty once it has taken a later one."""
    reasons: list[str] = []
    confirmed_at: float = 0.0
    instance: str = ""
    """Names the process, of which a workload may have two for a moment: one that takes over from the other."""
    leaving: bool = False
    """It drains, or its app does not listen yet: no endpoint of its workload is ready."""
    checked: bool = False
    """It checks its app's health."""
    ready: bool = True
    """Whether its app is ready, as these checks say."""
    why: str = ""
    """Why not."""
    captured: bool = False
    """Its host brings all connections of its app to it, so that none passes it by."""
    checks: list[dict[str, Any]] = []
    """Each check as it was when `ready` or `why` last changed, or when the sidecar connected."""
    endpoints: str = "all"
    """Of which services it has the endpoints: all, used (those in use), named (those of its Sidecar resource)."""
    uses: int = 0
    """How many services it says to use."""
    withheld: list[str] = []
    """What it is not sent, since its version would not understand it, and why."""
    proxy: str = ""
    """envoy, grpc: a client of xDS in the place of a sidecar of our own."""
    not_carried_out: list[str] = []
    """What the rules say and this client of xDS cannot do."""
    trust: TrustReport | None = None
    """As it said last; None: it has said nothing of it."""
    proved: str = ""
    """The service account that it authenticated as when it connected; empty: none (an administrator, development)."""
    claimed: Claim = Claim()
    """What it says of itself: `labels` and `address` are what of it counts."""
    group: str = ""
    """The WorkloadGroup that its labels are of."""
    not_believed: list[str] = []
    """What of it does not count, and why."""


class FeedServer:
    """`authorize(request, namespace, workload)` raises web.HTTPException for who may not read this feed, and tells the
    service account that was proved, if any."""

    def __init__(
        self,
        book: Book,
        authorize: Callable[[web.Request, str, str], str | None],
        changed: Callable[[], None],
        views: Views | None = None,
        left: Callable[[str], None] = lambda _workload: None,
        vouch: Callable[[Member], object] = lambda _member: None,
    ) -> None:
        self._book = book
        self._views = views if views is not None else Views(Snapshot, lambda _workload: False)
        self._partial: set[str] = set()
        """Keys of members that have, or had, something that is not everybody's: their version does not say what they
        hold."""
        self._authorize = authorize
        self._changed = changed
        """Called when sidecars come, go, or move."""
        self.vouch = vouch
        """Reduces what a member says of itself to what of it counts."""
        self._left = left
        """Called with the workload of a sidecar that leaves while its stream is away."""
        self.members: dict[str, Member] = {}
        """By role/namespace/workload."""
        self._streams: dict[int, Stream] = {}
        """By the identity of their members."""
        self._wake = Gather(self._wake_all, lambda: PUBLISH_S * len(self._streams))
        self._chunk: tuple[bytes, bytes] = (b"", b"")
        """The message written last, and as a chunk."""
        self._asked_at = 0.0
        self.publishes = 0
        self.publish_s = 0.0
        """How often a change went out to all, and how long it took each time until all was written, added up."""
        self.trust: Callable[[], bytes] = bytes
        """The line that tells of the roots and the signer of the moment; empty: there is none to tell."""
        self.elsewhere: Callable[[str, bool, float], Awaitable[tuple[int, list[str]]]] | None = None
        """(workload, it leaves, seconds): waits for the sidecars of other control planes."""
        self.run_elsewhere: Callable[[float], Awaitable[list[str]]] | None = None
        """(seconds): waits until the sidecars of other control planes run what is in the store; who does not then."""
        self._watching: set[asyncio.Event] = set()
        """Of those who serve members in another way."""
        self._heard: set[asyncio.Event] = set()
        """Those who wait for what others run."""
        self._moves = Gather(changed, lambda: PUBLISH_S / 2 * len(self._streams))
        """Many may connect at one time; each look at all of them makes a version for all."""
        self._closing = False
        self.serial_of: Callable[[web.Request], str] = lambda _request: ""
        """Of the certificate that a request shows, hexadecimal; empty: none."""
        self.why_not: Callable[[Stream], str] = lambda _stream: ""
        """Why a stream is to end that was let in before; empty: it may go on."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/fairlead/v1/feed", self._feed),
            web.post("/fairlead/v1/feed/say", self._say),
            web.post("/fairlead/v1/feed/use", self._use),
            web.post("/fairlead/v1/feed/ack", self._ack),
            web.post("/fairlead/v1/feed/leave", self._leave),
            web.post("/fairlead/v1/feed/enter", self._enter),
            web.post("/fairlead/v1/feed/health", self._health),
            web.post("/fairlead/v1/feed/trust", self._trusts),
            web.get("/fairlead/v1/sidecars", self._list),
        ]

    def publish(self, urgent: bool = False) -> None:
        """The book has changed: every stream is to be looked at, soon. `urgent`: an endpoint is gone, which waits for
        no pause that makes fewer versions of many changes."""
        self._asked_at = self._asked_at or time.monotonic()
        self._wake.ask(urgent)

    def _wake_all(self) -> None:
        trust, now = self.trust(), asyncio.get_running_loop().time()
        for stream in self._streams.values():
            try:
                sent = stream.open is not None and self._send(stream, stream.open, trust, now)
            except Exception:  # its own task meets it, and ends this stream alone
                sent = False
            if not sent:
                stream.wake.set()
        if self._asked_at:
            # After what was written is with the kernel, which the loop sees to at the end of this turn.
            asyncio.get_running_loop().call_soon(self._sent, self._asked_at)
            self._asked_at = 0.0
        for event in self._watching:
            event.set()

    def _sent(self, asked_at: float) -> None:
        self.publishes += 1
        self.publish_s += time.monotonic() - asked_at

    def _send(self, stream: Stream, transport: asyncio.Transport, trust: bytes, now: float) -> bool:
        """Write what is new to a reader that keeps up, here and now; whether that could be done.

        With a thousand readers the turns of their tasks, timers and events took several times as long as the writing.
        """
        if self._closing or transport.is_closing() or transport.get_write_buffer_size():
            return False
        if trust != stream.told or stream.member.not_believed != stream.claims:
            return False
        if self._views.outgrown(stream) or self._views.stranger(stream):
            return False
        message = self._news(stream)
        if message is not None:
            if message is not self._chunk[0]:
                self._chunk = (message, chunk_of(message))
            transport.write(self._chunk[1])
            stream.beat_at = now + stream.beat_s
        return True

    def hear(self) -> asyncio.Event:
        """An event that is set whenever a sidecar says what became of a version, comes or goes."""
        event = asyncio.Event()
        self._heard.add(event)
        return event

    def deafen(self, event: asyncio.Event) -> None:
        self._heard.discard(event)

    def watch(self) -> asyncio.Event:
        """An event that is set whenever the book changes, for who serves members in another way (xDS)."""
        event = asyncio.Event()
        self._watching.add(event)
        return event

    def authorize(self, request: web.Request, namespace: str, workload: str) -> None:
        """Raises where who asks may not act for this workload."""
        self._authorize(request, namespace, workload)

    def stranger(self, member: Member) -> bool:
        """Whether a member that is served in another way is not its workload any more."""
        return self._views.stranger(member)

    def secrets_of(self, workload: Workload) -> frozenset[str]:
        """Item keys of the Secrets that a gateway may have that is served in another way."""
        return self._views.secrets_of(workload.key, workload, True)

    def moved(self) -> None:
        """A member that is served in another way came, or went."""
        if not self._closing:
            self._changed()

    def heard(self) -> None:
        """Such a member has taken or refused a version."""
        self._tell_heard()

    def cut(self, workloads: Container[str], because: str) -> None:
        """End the streams of these workloads (namespace/name)."""
        for stream in self._streams.values():
            if f"{stream.member.namespace}/{stream.member.workload}" in workloads:
                logger.warning("%s is cut off: %s", stream.key, because)
                stream.cut = True
                stream.wake.set()

    def lacking(self, table: str) -> list[str]:
        """Sidecars whose version knows nothing of items of this kind."""
        return sorted(one.key for one in self._streams.values() if one.role != "dns" and table not in one.tables)

    def look_again(self) -> None:
        """End the streams of who may not read any more."""
        for stream in self._streams.values():
            if not stream.cut and (why := self.why_not(stream)):
                logger.warning("%s is cut off: %s", stream.key, why)
                stream.cut = True
                stream.wake.set()

    def close(self) -> None:
        """End every stream, so that sidecars go to another control plane at once."""
        self._closing = True
        self._wake.close()
        self._moves.close()
        self._wake_all()

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        member = read_member(request.query)
        member.claimed = Claim(member.labels, member.address, request.query.get("group", ""), request.remote or "")
        member.proved = self._authorize(request, member.namespace, member.workload) or ""
        self.vouch(member)
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson", "cache-control": "no-store"})
        await response.prepare(request)
        key = f"{member.role}/{member.namespace}/{member.workload}"
        if "handedOver" in request.query:  # it has a successor, which is the workload's sidecar
            key += f"/{member.instance}"
        self._enlist(key, member)
        stream = Stream(key, member, request.query)
        stream.serial = self.serial_of(request)
        loop = asyncio.get_running_loop()
        stream.beat_s = HEARTBEAT_S * random.uniform(0.7, 1.0)
        stream.beat_at = loop.time() + stream.beat_s
        self._streams[id(member)] = stream
        stream.cut = bool(self.why_not(stream))  # of the moment between the door and here
        logger.info("%s connected (mesh port %s)", key, member.mesh_port or "none")
        if member.role != "dns":
            self._moves.ask()
        try:
            await response.write(b"\n")
            await self._begin(stream, request.query.get("since", ""), response)
            chunked = response.headers.get("Transfer-Encoding") == "chunked"
            while not (self._closing or stream.cut):
                stream.wake.clear()  # whatever changes from here on sets it again
                if member.not_believed != stream.claims:
                    stream.claims = member.not_believed
                    await response.write(msgspec.json.encode({"claims": stream.claims, "version": ""}) + b"\n")
                if (trust := self.trust()) != stream.told:
                    stream.told = trust
                    await response.write(trust)
                if self._views.outgrown(stream):
                    logger.info("%s need not have everything any more", key)
                    await self._begin(stream, stream.sent, response)
                if self._views.stranger(stream):  # nothing is waited for from here to what it is sent
                    logger.warning("%s is cut off: this workload is not of service account %s", key, member.proved)
                    break
                message = self._news(stream)
                if message is not None or loop.time() >= stream.beat_at:
                    await response.write(message if message is not None else b"\n")
                    stream.beat_at = loop.time() + stream.beat_s
                beat = loop.call_at(stream.beat_at, stream.wake.set)
                try:
                    if not stream.wake.is_set() and chunked:
                        stream.open = request.transport
                    await stream.wake.wait()
                finally:
                    stream.open = None
                    beat.cancel()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the sidecar went; a cancelled handler is aiohttp's way to say the same
        finally:
            del self._streams[id(member)]
            if self.members.get(key) is member:
                del self.members[key]
                same = [other.member for other in self._streams.values() if other.key == key]
                others = [other for other in same if other.instance != member.instance]
                if others:  # one that was there before it, and is still
                    self.members[key] = others[-1]
                else:
                    self._views.forget(key)
                self._tell_heard()
                logger.info("%s disconnected%s", key, "; another of it is connected" if others else "")
                if member.role != "dns" and not self._closing:
                    self._moves.ask()
        return response

    def _enlist(self, key: str, member: Member) -> None:
        replaced = self.members.get(key)
        if replaced is not None and replaced.instance == member.instance:
            member.taken, member.refused, member.reasons = replaced.taken, replaced.refused, replaced.reasons
            member.trust = replaced.trust
        elif replaced is not None:
            logger.warning("%s: two sidecars say that they are this workload; the one that came last counts", key)
        self.members[key] = member

    async def _begin(self, stream: Stream, since: str, response: web.StreamResponse) -> None:
        """Find out what it has: by its version, or, where that does not say it, by asking."""
        self._views.begin(stream)
        stream.said.clear()
        stream.number = number = self._book.number_of(since)
        by_version = number >= 0 and stream.key not in self._partial and self._views.of(stream.key, stream).plain
        ask = []
        if stream.says and ((since and not by_version) or stream.scoped):
            ask.append("holds")
        if stream.says and not self._views.knows_schema(stream.schema):
            ask.append("fields")
        if ask:
            await response.write(msgspec.json.encode({"version": "", "ask": ask}) + b"\n")
            try:
                async with asyncio.timeout(SAY_S):
                    await stream.said.wait()
            except TimeoutError:
                logger.warning("%s does not say what it holds: it is sent everything", stream.key)
        if not by_version:
            stream.number = -1

    def _news(self, stream: Stream) -> bytes | None:
        """What it lacks, as a message; it counts as sent. None: nothing."""
        book, member = self._book, stream.member
        view = self._views.of(stream.key, stream)
        message = None
        if stream.digests is not None:
            message, stream.digests = book.compared(view, stream.digests), None
        elif stream.number < 0:
            message = book.everything(view)
        elif stream.number != book.number or view is not stream.view:
            message = book.difference(stream.number, stream.view, view)
            if message is None and member.taken == member.offered and stream.number != book.number:
                member.taken = book.version  # what is new is for others
                self._tell_heard()
        if view is not stream.view or (view.understands is not None and stream.number != book.number):
            self._describe(stream, view)
        stream.number, stream.view, member.offered = book.number, view, book.version
        if message is not None:
            stream.sent = book.version
        return message

    def _describe(self, stream: Stream, view: View) -> None:
        """Keep what is shown of it."""
        member, scope = stream.member, view.scope
        member.endpoints = "all" if scope.endpoints is None else "used" if scope.services is None else "named"
        if not view.plain:
            self._partial.add(stream.key)
        if view.understands is not None:
            lacks = self._book.withheld_from(view.understands)
            withheld = [f"{key.removeprefix('object/')}: {why}" for key, why in lacks.items()]
            for told in withheld:
                if told not in member.withheld:
                    logger.warning("%s does not get %s; what it has of it stays: upgrade it", stream.key, told)
            member.withheld = withheld

    async def _say(self, request: web.Request) -> web.Response:
        """What a reader was asked for."""
        said: Said = read(await body_of(request), Said)
        stream = self._stream_of(request, said)
        try:
            stream.hear(said)
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        if said.fields is not None:
            self._views.learn_schema(stream.schema, said.fields)
        return web.Response(status=204)

    async def _use(self, request: web.Request) -> web.Response:
        """Services of which a reader needs the endpoints from now on."""
        use: Use = read(await body_of(request), Use)
        stream = self._stream_of(request, use)
        try:
            if stream.use(use.hosts):
                stream.wake.set()
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        return web.Response(status=204)

    def _stream_of(self, request: web.Request, body: Said | Use) -> Stream:
        """The stream of who says something; 409 where it is not connected here."""
        self._authorize(request, body.namespace, body.workload)
        member = self._member(f"{body.role}/{body.namespace}/{body.workload}", body.instance)
        if member is not None and (stream := self._streams.get(id(member))) is not None:
            return stream
        raise web.HTTPConflict(text=f"{body.namespace}/{body.workload} is not connected to this control plane")

    async def _ack(self, request: web.Request) -> web.Response:
        try:
            body = read_ack(await body_of(request))
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=f"not an acknowledgement: {error}") from None
        self._authorize(request, body.namespace, body.workload)
        key, version = f"{body.role}/{body.namespace}/{body.workload}", body.version
        reasons = [reason[:WHY_MOST] for reason in body.reasons[:REASONS_MOST]]
        member = self._member(key, body.instance)
        if member is not None:
            member.confirmed_at = time.time()
            if body.accepted:
                stream = self._streams.get(id(member))
                upto = member.offered if stream is not None and version == stream.sent else version
                member.taken, member.refused, member.reasons = upto, "", []
            else:
                member.refused, member.reasons = version, reasons
                logger.error("%s refused version %s: %s", key, version, "; ".join(reasons))
            self._tell_heard()
        # Each another, or all would acknowledge at once again and again, in the way of the next change.
        pause_s = ACK_S * len(self._streams) * random.uniform(0.5, 1.0)
        return web.Response(status=204, headers={"x-fairlead-pause": f"{pause_s:.3f}"})

    def _member(self, key: str, instance: str) -> Member | None:
        """This process of a workload, which may have handed over to another."""
        member = self.members.get(key)
        return member if member is None or member.instance == instance else self.members.get(f"{key}/{instance}")

    def _tell_heard(self) -> None:
        for event in self._heard:
            event.set()

    async def _leave(self, request: web.Request) -> web.Response:
        """Take a workload out; answer when all others run a version without it, or after `timeout` seconds."""
        try:
            body = msgspec.json.decode(await body_of(request), type=dict[str, Any])
            namespace, workload = str(body["namespace"]), str(body["workload"])
            timeout_s = patience(body.get("timeout", LEAVE_S_MAX), LEAVE_S_MAX)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise web.HTTPBadRequest(text=f"not a farewell: {error}") from None
        self._authorize(request, namespace, workload)
        key = f"{body.get('role', 'sidecar')}/{namespace}/{workload}"
        begun = time.monotonic()
        member = self.members.get(key)
        if member is not None and member.instance != str(body.get("instance", "")):
            return farewell(self._book.version, 0.0, [], [], 0, superseded=True)
        if member is not None:
            member.leaving = True
            self._changed()
        else:
            self._left(f"{namespace}/{workload}")
        logger.info("%s leaves", key)
        return await self._until_known(key, begun, timeout_s)

    async def _until_known(self, key: str, begun: float, timeout_s: float) -> web.Response:
        """The answer, when all others run the version of now, or after `timeout_s`."""
        version, others = self._book.version, len(self.members) - (key in self.members)
        await self.known(timeout_s, key)
        pending, refusing = self._behind(version, key)
        if self.elsewhere:
            leaves, left_s = key not in self.members or self.members[key].leaving, begun + timeout_s - time.monotonic()
            count, far = await self.elsewhere(key.partition("/")[2], leaves, max(left_s, 0.0))
            others, pending = others + count, pending + far
        return farewell(version, time.monotonic() - begun, pending, refusing, others)

    async def known_everywhere(self, timeout_s: float) -> list[str]:
        """As `known`, with the sidecars of other control planes."""
        end = time.monotonic() + timeout_s
        found = await self.known(timeout_s)
        if self.run_elsewhere is not None:
            found += await self.run_elsewhere(max(end - time.monotonic(), 0.0))
        return found

    async def known(self, timeout_s: float, key: str = "") -> list[str]:
        """Wait until all, but for `key`, run the version of now, or `timeout_s`; who does not by then."""
        version, event = self._book.version, asyncio.Event()
        self._heard.add(event)
        try:
            async with asyncio.timeout(timeout_s):
                while self._behind(version, key)[0] and not self._closing:
                    event.clear()
                    await event.wait()
        except TimeoutError:
            pass
        finally:
            self._heard.discard(event)
        return self._behind(version, key)[0]

    async def _enter(self, request: web.Request) -> web.Response:
        """What was told to be leaving is there (again): it listens. Answered as a farewell is."""
        try:
            body = msgspec.json.decode(await body_of(request), type=dict[str, Any])
            namespace, workload = str(body["namespace"]), str(body["workload"])
            timeout_s = patience(body.get("timeout", LEAVE_S_MAX), LEAVE_S_MAX)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise web.HTTPBadRequest(text=f"not a greeting: {error}") from None
        self._authorize(request, namespace, workload)
        key, begun = f"{body.get('role', 'sidecar')}/{namespace}/{workload}", time.monotonic()
        member = self.members.get(key)
        if member is None or member.instance != str(body.get("instance", "")):
            raise web.HTTPConflict(text="this instance has no stream here, which would say so by itself")
        if member.leaving:
            member.leaving = False
            self._changed()
        return await self._until_known(key, begun, timeout_s)

    def _behind(self, version: str, own: str) -> tuple[list[str], list[str]]:
        """Who has not said yet what became of `version`, and who refuses it or a later one."""
        pending: list[str] = []
        refusing: list[str] = []
        for key, member in self.members.items():
            if key == own or at_least(member.taken, version):
                continue
            (refusing if at_least(member.refused, version) else pending).append(key)
        return sorted(pending), sorted(refusing)

    async def _reported(self, request: web.Request, kind: type[Report], of: str) -> tuple[Report, Member]:
        """What a connected sidecar tells of itself. Raises web.HTTPException: 400, who may not, 409 not connected."""
        try:
            body = msgspec.json.decode(await body_of(request), type=kind)
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=f"not a report of {of}: {error}") from None
        self._authorize(request, body.namespace, body.workload)
        member = self._member(f"{body.role}/{body.namespace}/{body.workload}", body.instance)
        if member is None:
            raise web.HTTPConflict(text=f"{body.namespace}/{body.workload} is not connected to this control plane")
        return body, member

    async def _health(self, request: web.Request) -> web.Response:
        """Whether a sidecar's app is ready, from now on; 409 where that sidecar is not connected here."""
        body, member = await self._reported(request, HealthReport, "health")
        new = (True, body.ready, "" if body.ready else body.why[:WHY_MOST] or "not ready")
        changed = new != (member.checked, member.ready, member.why)
        member.checked, member.ready, member.why = new
        member.checks = body.checks[:CHECKS_MOST]
        if changed:
            self._changed()
        return web.Response(status=204)

    async def _trusts(self, request: web.Request) -> web.Response:
        """Which roots a sidecar trusts, and the certificate that it uses, from now on."""
        body, member = await self._reported(request, TrustReport, "trust")
        bounded(body)
        member.trust = body
        return web.Response(status=204)

    async def _list(self, request: web.Request) -> web.Response:
        self._authorize(request, "", "")
        listed = sorted(self.members.values(), key=lambda member: (member.role, member.namespace, member.workload))
        body = {"version": self._book.version, "items": len(self._book), "sidecars": listed}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def bounded(told: TrustReport) -> None:
    """Raises HTTPBadRequest for what is no digest, serial or key identifier: it is kept, and shown."""
    told.roots, told.problem = told.roots[:ROOTS_MOST], told.problem[:WHY_MOST]
    names = (*told.roots, told.serial, told.issuer, told.instance, told.role)
    if any(len(one) > DIGITS_MOST for one in names) or len(told.namespace) + len(told.workload) > NAME_MOST:
        raise web.HTTPBadRequest(text=f"not a report of trust: a text has more than {DIGITS_MOST} characters")


def read_member(query: Any) -> Member:
    """The report in a feed request's query; raises HTTPBadRequest that names the parameter."""
    role = query.get("role", "sidecar")
    if role not in ("sidecar", "dns", "gateway"):
        raise web.HTTPBadRequest(text=f"role: expected sidecar, dns or gateway, got {role!r}")
    namespace, workload = query.get("namespace", ""), query.get("workload", "")
    if not namespace or not workload:
        raise web.HTTPBadRequest(text="namespace and workload must be given")
    try:
        mesh_port = int(query.get("meshPort", "0"))
        ports = [int(port) for port in query.get("ports", "").split(",") if port]
        if not 0 <= mesh_port <= 65535 or not all(0 < port <= 65535 for port in ports):
            raise ValueError("out of range")
    except ValueError:
        raise web.HTTPBadRequest(text="meshPort and ports: expected port numbers") from None
    labels = dict(item.split("=", 1) for item in query.get("labels", "").split(",") if "=" in item)
    return Member(
        role=role,
        namespace=namespace,
        workload=workload,
        address=query.get("address", ""),
        mesh_port=mesh_port,
        service_account=query.get("serviceAccount", ""),
        labels=labels,
        ports=ports,
        connected_at=time.time(),
        instance=query.get("instance", ""),
        leaving="leaving" in query,
        checked="ready" in query,
        captured="captured" in query,
        ready=query.get("ready", "1") != "0",
        why=query.get("why", "")[:WHY_MOST],
    )


def at_least(version: str, other: str) -> bool:
    """Whether a version is this other one or one after it; those of another run of control are not."""
    epoch, _, number = version.rpartition(".")
    wanted, _, least = other.rpartition(".")
    return epoch == wanted and number.isdigit() and least.isdigit() and int(number) >= int(least)
