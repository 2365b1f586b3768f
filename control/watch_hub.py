"""Shell: watches: wakes the streams whose resources have changed, and writes the events of one stream.

Who may watch is asked again when permissions change, before anything more is sent: a stream ends with an ERROR event
that holds the Status (403, 401) which its client would get now. (Kubernetes lets it run to its timeout.) Events are
written as their reader takes them, from objects that all streams share; who takes nothing is let go.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from aiohttp import web

from .api_request import Form, Query, Target
from .events import shown
from .listing import spliced
from .rbac import RESOURCES as PERMISSIONS
from .selectors import Predicate, both, field_predicate, label_predicate
from .status import StatusError, expired
from .store import Change, CompactedError, Key, Objects, Stored
from .table import partial, table

BOOKMARK_S = 60.0
FRESH_S = 3.0
"""So long a version that another control plane has given out is waited for."""
TIMEOUT_S = 1800.0
"""A watch without timeoutSeconds ends after this to twice this, so that not all come back at once."""
WATCHES_MAX = 5000
LOOK_S = 30.0
"""How often it is looked whether the credentials of who watches are still good."""
BYTES_PER_WRITE = 64 << 10
STALLED_S = 60.0
"""Who takes nothing for so long has gone, or holds what we have."""
TOUCHED_MAX = 200_000
"""Objects of which it is known when they last read otherwise."""
WAKE_S = 0.25
"""Between two times that all streams are woken by permissions; one that has something to send asks before that."""
logger = logging.getLogger("fairlead.api")
encode = msgspec.json.encode


class WatchHub:
    """One per store. `draw`: a number in [0, 1); `clock`: Unix seconds, for ages in tables."""

    def __init__(self, memory: Objects, draw: Callable[[], float], clock: Callable[[], float]) -> None:
        self._memory = memory
        self._draw = draw
        self._clock = clock
        self._wake: dict[str, set[asyncio.Event]] = {}
        self._life = memory.life
        self._unsubscribe = memory.subscribe(self._publish)
        self.again: Callable[[web.Request], Awaitable[None]] | None = None
        """Raises StatusError where who watches may not any more; asked when permissions change, and now and then."""
        self._permissions = 0
        """Grows when they may be others."""
        self._waking: asyncio.TimerHandle | None = None
        self._woken_at = float("-inf")
        self.count = 0
        self.closing = False
        self.readers: dict[str, Callable[[Stored], Stored]] = {}
        """By resource: an object as it is to be read, where that is more than is stored."""
        self.touched: dict[str, Touched] = {}
        """By resource."""

    def read(self, one: Stored) -> Stored:
        reader = self.readers.get(one.key.resource)
        return one if reader is None else reader(one)

    def touch(self, resource: str, places: Iterable[tuple[str, str]]) -> None:
        """What is read of these (namespace, name) is another, though what is stored is not."""
        self.touched.setdefault(resource, Touched()).add(places, self._memory.revision)
        for event in self._wake.get(resource, ()):
            event.set()

    def _publish(self, changes: Sequence[Change]) -> None:
        concerned = {change.key.resource for change in changes}
        if self._memory.life != self._life:  # another state of the store: every stream must end
            self._life, concerned = self._memory.life, set(self._wake)
        if not concerned.isdisjoint(PERMISSIONS):
            self._permissions += 1
            self._wake_all_soon()
        for resource in concerned:
            for event in self._wake.get(resource, ()):
                event.set()

    def _wake_all_soon(self) -> None:
        """At once, where that was not just done: who changes permissions as often as they can must not keep all streams
        asking."""
        if self._waking is None and self.count:
            loop = asyncio.get_running_loop()
            self._waking = loop.call_at(max(loop.time(), self._woken_at + WAKE_S), self._wake_all)

    def _wake_all(self) -> None:
        self._waking, self._woken_at = None, asyncio.get_running_loop().time()
        for events in self._wake.values():
            for event in events:
                event.set()

    async def until(self, version: int) -> bool:
        """Wait until the store has reached this version, `FRESH_S` at most; whether there was anything to wait for."""
        if version <= self._memory.revision:
            return False
        reached = asyncio.Event()

        def look(_changes: Sequence[Change]) -> None:
            if self._memory.revision >= version:
                reached.set()

        unsubscribe = self._memory.subscribe(look)
        try:
            async with asyncio.timeout(FRESH_S):
                await reached.wait()
        except TimeoutError:
            pass
        finally:
            unsubscribe()
        return True

    def close(self) -> None:
        """End every watch; clients come back, or go to another control plane."""
        self.closing = True
        self._unsubscribe()
        if self._waking is not None:
            self._waking.cancel()
        for events in self._wake.values():
            for event in events:
                event.set()

    async def serve(self, request: web.Request, target: Target, query: Query, form: Form) -> web.StreamResponse:
        """Answer a watch until it times out, the client goes, or the server closes."""
        stream, permissions = Stream(self._memory, target, query, form, self._clock, self), self._permissions
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        response.enable_chunked_encoding()
        wake = asyncio.Event()
        waiting = self._wake.setdefault(target.resource.name, set())
        waiting.add(wake)
        self.count += 1
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + (query.timeout_s or TIMEOUT_S * (1 + self._draw()))
        try:
            await response.prepare(request)
            await self._follow(request, stream, response, wake, ends_at, query.allow_watch_bookmarks, permissions)
            await response.write_eof()
        except ConnectionError:
            pass  # the client went
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            waiting.discard(wake)
            self.count -= 1
        return response

    async def _follow(
        self, request: web.Request, stream: Stream, response: web.StreamResponse, wake: asyncio.Event, ends_at: float,
        bookmarks: bool, permissions: int,
    ) -> None:  # fmt: skip
        """`permissions`: as they were when this was permitted. Raises ConnectionError, TimeoutError."""
        loop = asyncio.get_running_loop()
        pending = stream.initial()
        next_bookmark, next_look = loop.time() + BOOKMARK_S, loop.time() + LOOK_S

        async def ask() -> None:
            nonlocal permissions, next_look
            if self.again is not None and (permissions != self._permissions or loop.time() >= next_look):
                permissions, next_look = self._permissions, loop.time() + LOOK_S
                await self.again(request)

        while not self.closing:
            wake.clear()
            try:
                await ask()
                had_news = await written(response, pending if pending is not None else stream.news(), ask)
            except CompactedError as error:
                gone = expired(f"too old resource version: {error.asked} ({error.floor})")
                await response.write(encode({"type": "ERROR", "object": gone.body()}) + b"\n")
                return
            except StatusError as error:
                await response.write(encode({"type": "ERROR", "object": error.body()}) + b"\n")
                return
            pending = None
            now = loop.time()
            if now >= ends_at:
                break
            if had_news:
                continue
            if bookmarks and now >= next_bookmark:
                await response.write(stream.bookmark())
                next_bookmark = now + BOOKMARK_S
            until = min(ends_at, next_bookmark) if bookmarks else ends_at
            handle = loop.call_at(min(until, next_look), wake.set)
            try:
                await wake.wait()
            finally:
                handle.cancel()
        if bookmarks:
            await response.write(stream.bookmark())


async def written(response: web.StreamResponse, lines: Iterator[bytes], ask: Callable[[], Awaitable[None]]) -> bool:
    """Write lines as fast as they are taken, and `ask` before each lot of them; whether there were any.

    Raises ConnectionError, TimeoutError, and what `ask` raises.
    """
    gathered: list[bytes] = []
    size, any_line = 0, False

    async def write() -> None:
        async with asyncio.timeout(STALLED_S):
            await response.write(b"".join(gathered))

    for line in lines:
        any_line = True
        gathered.append(line)
        size += len(line)
        if size >= BYTES_PER_WRITE:
            await write()
            gathered.clear()
            size = 0
            await ask()
    if gathered:
        await write()
    return any_line


class Touched:
    """Objects that read otherwise than before, though nothing was written: the latest last."""

    def __init__(self) -> None:
        self._at: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        """(number of the touch, the store's revision then) by (namespace, name)."""
        self.number = 0

    def add(self, places: Iterable[tuple[str, str]], revision: int) -> None:
        for place in places:
            self.number += 1
            self._at[place] = self.number, revision
            self._at.move_to_end(place)
        while len(self._at) > TOUCHED_MAX:
            self._at.popitem(last=False)

    def after(self, number: int) -> list[tuple[str, str]]:
        """Those that have been touched since, in their order."""
        found = []
        for place, (at, _) in reversed(self._at.items()):
            if at <= number:
                break
            found.append(place)
        return found[::-1]

    def before(self, revision: int) -> int:
        """The number from which on everything has to be told to who knows the state at a revision."""
        number = self.number
        for at, when in reversed(self._at.values()):
            if when < revision:
                break
            number = at - 1
        return number


class Stream:
    """The events of one watch, as lines."""

    def __init__(
        self, memory: Objects, target: Target, query: Query, form: Form, clock: Callable[[], float],
        hub: WatchHub | None = None,
    ) -> None:  # fmt: skip
        self._memory = memory
        self._target = target
        self._form = form
        self._include = query.include_object
        self._clock = clock
        self._predicate: Predicate | None = both(
            label_predicate(query.label_selector), field_predicate(query.field_selector)
        )
        self._marks_end = bool(query.send_initial_events)
        from_now = query.resource_version in ("", "0")
        wants_initial = query.send_initial_events if query.send_initial_events is not None else from_now
        self._initial_wanted = bool(wants_initial)
        self._seen = memory.revision if wants_initial or from_now else int(query.resource_version)
        self._life = memory.life
        self._hub = hub
        self._touched = Touched() if hub is None else hub.touched.setdefault(target.resource.name, Touched())
        self._told = self._touched.number if wants_initial or from_now else self._touched.before(self._seen)
        self._bookmarks = query.allow_watch_bookmarks
        self._by_status = "status." in query.field_selector
        self._defined = False
        """Whether a Table's columns have been sent; they come with the first event only."""

    def initial(self) -> Iterator[bytes] | None:
        """What is there now, as events; and the mark that this was all, where it was asked for. None: not asked for."""
        if not self._initial_wanted:
            return None
        found = self._memory.all(self._target.resource.name, self._target.namespace or None)
        return self._initial_lines(found, self.bookmark({"k8s.io/initial-events-end": "true"}))

    def _initial_lines(self, found: list[Stored], mark: bytes) -> Iterator[bytes]:
        for one in found:
            if self._matches(one):
                yield self._line("ADDED", one)
        if self._marks_end:
            yield mark

    def news(self) -> Iterator[bytes]:
        """What has happened since the last call. Raises CompactedError."""
        if self._seen > self._memory.revision or self._life != self._memory.life:
            # from another life of the store: only a fresh list can help
            raise CompactedError(self._seen, self._memory.revision)
        changes = self._memory.log.after(self._seen)
        self._seen = self._memory.revision
        places = self._touched.after(self._told)
        self._told = self._touched.number
        return self._news_lines([change for change in changes if self._concerns(change.key)], places)

    def _concerns(self, key: Key) -> bool:
        target = self._target
        return (
            key.resource == target.resource.name
            and target.namespace in ("", key.namespace)
            and target.name in ("", key.name)
        )

    def _touched_lines(self, places: Iterable[tuple[str, str]]) -> Iterator[bytes]:
        """Each with its resourceVersion as ever, and then the stream's own, from which a client would go on."""
        told = False
        for place in places:
            key = Key(self._target.resource.name, *place)
            one = self._memory.get(key) if self._concerns(key) else None
            if one is None:
                continue
            if self._matches(one):
                yield self._line("MODIFIED", one)
            elif self._by_status:  # it may have been told of as one that matches
                yield self._line("DELETED", one)
            else:
                continue
            told = True
        if told and self._bookmarks:
            yield self.bookmark()

    def _news_lines(self, changes: list[Change], places: Iterable[tuple[str, str]] = ()) -> Iterator[bytes]:
        yield from self._changed_lines(changes)
        yield from self._touched_lines(places)

    def _changed_lines(self, changes: list[Change]) -> Iterator[bytes]:
        for change in changes:
            before = change.before is not None and self._matches(change.before)
            after = change.after is not None and self._matches(change.after)
            if after:
                assert change.after is not None
                yield self._line("MODIFIED" if before else "ADDED", change.after)
            elif before:
                yield self._line("DELETED", change.last)

    def _matches(self, one: Stored) -> bool:
        if self._target.name and one.key.name != self._target.name:
            return False
        return self._predicate is None or self._predicate(self._read(one).object())

    def _read(self, one: Stored) -> Stored:
        return one if self._hub is None else self._hub.read(one)

    def _line(self, kind: str, one: Stored) -> bytes:
        one = self._read(one)
        if self._form.as_:
            return encode({"type": kind, "object": self._shown(one)}) + b"\n"
        return b'{"type":"%s","object":%s}\n' % (kind.encode(), spliced(one, self._target))

    def _shown(self, one: Stored) -> dict[str, Any]:
        target = self._target
        named = {"apiVersion": target.api_version, "kind": target.resource.kind}
        body = {**named, **shown(one.object(), target.api_version)}
        if self._form.as_ != "Table":
            return partial(body)
        first, self._defined = not self._defined, True
        metadata = {"resourceVersion": str(one.version)}
        return table(target.resource.name, [body], metadata, self._clock(), self._include, first)

    def bookmark(self, annotations: dict[str, str] | None = None) -> bytes:
        """How far this watch has come, without an object."""
        metadata: dict[str, Any] = {"resourceVersion": str(self._seen), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        target = self._target
        shown: dict[str, Any] = {"apiVersion": target.api_version, "kind": target.resource.kind, "metadata": metadata}
        if self._form.as_ == "Table":
            shown = table(target.resource.name, [], metadata, self._clock(), self._include, False)
        elif self._form.as_:
            shown = partial(shown)
        return encode({"type": "BOOKMARK", "object": shown}) + b"\n"
