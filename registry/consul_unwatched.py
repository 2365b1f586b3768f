"""Shell: the services of a large Consul catalog, which has more of them than there may be blocking queries.

A blocking query on a node returns when an instance on that node came, went or was registered otherwise, and only then
(measured), so each node has one, and the services that its answer shows to have changed are read at once, from the
leader, which knows what any server told. Health comes by one query on the critical checks, a short list; of a node
whose own check changed all services are read. So a change costs Consul an answer about one node and one about each
service concerned, and rounds through all services are a precaution.

Where there are too many nodes, those that changed last have watches, and the others are looked at when the catalog
changes (its index moves). Where there are more nodes left than services, or none may be seen, a change in the catalog
begins a round, in which each service is asked for its index alone, by a tag that nobody has, and read if that has
moved; and a look at all checks, soon after some changed, tells whose instances came or went.

Long because rounds, nodes and checks share one account of what is about to be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Iterable
from typing import Any, Protocol
from urllib.parse import quote

from .backoff import Backoff
from .brake import HOLD_S
from .consul_catalog import NODE, ChecksSeen, ConsulError, TooManyError
from .consul_node_watch import BackwardsError, NodeWatch
from .consul_nodes import NodesSeen, OnNode
from .needs import FetchError

READERS = 16
"""Services that are read at a time."""
ROUND_PAUSE_S = 0.5
"""Least time between two rounds through the services."""
ROUND_S = 60.0
"""Longest time between them, when nothing is heard."""
ROUND_BY_NODE_S = 300.0
"""The same where each node has a watch."""
RETRY_S = 2.0
"""From a read that failed to the next try."""
COMPARE_S = 2.0
"""From a change of critical checks to a look at all of them, in case there was more."""
NOBODYS_TAG = "fairlead-index-only"


class Catalog(Protocol):
    """What follows the catalog, and keeps what was read."""

    async def get(
        self,
        path: str,
        index: int = 0,
        decode: Callable[[bytes], Any] = json.loads,
        *,
        fresh: bool = False,
        more: str = "",
        wait_s: float = 0.0,
    ) -> tuple[int, Any]: ...

    def spread_wait_s(self) -> float: ...

    async def health(self, name: str, index: int = 0, *, fresh: bool = False) -> tuple[int, list[dict[str, Any]]]: ...

    async def read_all_checks(self, seen: ChecksSeen) -> None: ...

    async def prove_token(self) -> None:
        """Raises ConsulError, FetchError where it may be rights that are missing when nothing is seen."""
        ...

    def held(self, name: str, entries: list[dict[str, Any]]) -> str: ...

    def take(self, name: str, entries: list[dict[str, Any]], gone: bool = False) -> None: ...

    def failed(self, what: str, why: str) -> None: ...

    def healed(self, what: str) -> None: ...

    def unsure(self) -> None:
        """The catalog is to be read in full."""
        ...

    def learned(self, names: set[str]) -> None:
        """These are in the catalog, whose own answer may be on its way."""
        ...

    async def share_out(self) -> None:
        """`by_node` has changed: who has a watch of its own?"""
        ...


class Unwatched:
    """Follows the services named by `follow` for as long as `run` does."""

    def __init__(self, catalog: Catalog, nodes_max: int, readers: int = READERS, hold_s: float = HOLD_S) -> None:
        self.by_node: bool | None = None
        """What changes is heard of by the nodes; None: not known yet."""
        self.nodes: tuple[str, ...] = ()
        self._node_names: frozenset[str] = frozenset()
        """The same, for look-up."""
        self.seen = NodesSeen()
        self._catalog = catalog
        self.nodes_max = nodes_max
        self._services = 0
        """Of all, watched or not."""
        self._readers = readers
        self._hold_s = hold_s
        self._names: set[str] = set()
        self._index: dict[str, int] = {}
        """By service, that of its last answer in full."""
        self._doubted: set[str] = set()
        """Services whose next answer is compared with what is kept, since something was missed."""
        self._unseen: set[str] = set()
        """Services of which nothing could be seen, which are about to be looked at again."""
        self._second_look: dict[str, float] = {}
        """When that is, for services of which most was missing."""
        self._settled = True
        """The catalog was heard in full since something was missed."""
        self._urgent: dict[str, None] = {}
        self._routine: dict[str, None] = {}
        self._reading: dict[str, bool] = {}
        """Services that are being read; true: once more when that is done."""
        self._in_round = 0
        """How many of them for a round."""
        self._work = asyncio.Event()
        self._done = asyncio.Event()
        self._news = asyncio.Event()
        self._check_news = asyncio.Event()
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._changed_at: dict[str, int] = {}
        """By node, which change of all was its last."""
        self._changes = 0
        self._node_news = asyncio.Event()
        self._lost_nodes: set[str] = set()
        """Nodes that could not be looked at since they were last."""
        self._to_begin: set[str] = set()
        """Nodes that no answer is there of yet."""
        self._begun = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._readers):
                tasks.create_task(self._reader())
            for one in (self._follow_nodes(tasks), self._look_at_nodes(), self._rounds()):
                tasks.create_task(one)
            for one in (self._hear_of_checks(), self._compare_checks()):
                tasks.create_task(one)

    @property
    def unheard(self) -> int:
        """How many nodes have no watch."""
        return len(self.nodes) - len(self._watches) if self.by_node else 0

    def follow(self, names: Iterable[str], services: int) -> None:
        """These services, instead of those so far, of this many that there are."""
        names, self._services = set(names), services
        self.seen.forget(self._names - names)
        for name in self._names - names:
            self._index.pop(name, None)
            self._second_look.pop(name, None)
            self._urgent.pop(name, None)
            self._routine.pop(name, None)
        self._end_round()
        self._doubted &= names
        new, self._names = names - self._names, names
        if self.by_node and self._begun.is_set():
            self._ask(new)
        else:
            self._news.set()

    def moved(self) -> None:
        """Something in the catalog has changed."""
        (self._node_news if self.by_node else self._news).set()

    def missed(self) -> None:
        """Consul could not be heard: what it says next is compared with what is kept."""
        self._settled = False
        self._doubted |= self._names
        self._catalog.unsure()

    def again(self) -> None:
        """The catalog was read in full, and so is everything to be."""
        self._settled = True
        self._index.clear()
        self._news.set()

    # --- reading ----------------------------------------------------------------------------------------------------

    def _ask(self, names: Iterable[str]) -> None:
        """Read these before any of a round."""
        for name in names:
            if name in self._reading:
                self._reading[name] = True
            elif name in self._names:
                self._routine.pop(name, None)
                self._urgent[name] = None
        self._work.set()

    async def _reader(self) -> None:
        while True:
            queue = self._urgent or self._routine
            if not queue:
                self._work.clear()
                await self._work.wait()
                continue
            name = next(iter(queue))
            del queue[name]
            self._reading[name], fresh = False, queue is self._urgent
            self._in_round += not fresh
            try:
                await self._read(name, fresh)
            finally:
                again = self._reading.pop(name)
                self._in_round -= not fresh
            if again:
                self._ask((name,))
            self._end_round()

    def _end_round(self) -> None:
        if not self._routine and not self._in_round:
            self._done.set()

    async def _read(self, name: str, fresh: bool) -> None:
        catalog, known = self._catalog, self._index.get(name)
        doubted = name in self._doubted
        try:
            if known is not None and not fresh and not doubted:
                path = f"/v1/health/service/{quote(name, safe='')}"
                new, _ = await catalog.get(path, more=f"&tag={NOBODYS_TAG}")
                if new <= known:  # less: from a server that is behind
                    return
            # From the leader where nodes tell of changes: what a server that is behind leaves out is not told again.
            new, entries = await catalog.health(name, fresh=fresh or doubted or bool(self.by_node))
            gone = not entries and self._had(name) and await self._may_see()
        except (ConsulError, FetchError) as error:
            if name in self._names:
                self._doubted.add(name)
                catalog.failed(name, str(error))
                pause_s = RETRY_S * random.uniform(0.8, 1.2)
                asyncio.get_running_loop().call_later(pause_s, self._ask, (name,))
                await asyncio.sleep(0.25 * random.random())
            return
        if name not in self._names:
            return
        if doubted and self._is_held(name, entries):
            return
        self._doubted.discard(name)
        had = not entries and self._had(name)
        if had and not (gone and self._settled):
            catalog.healed(name)
            self._look_later(name)
            return  # the catalog says whether it is so
        if self.by_node and not self._reading.get(name):  # else it is read once more
            self.seen.read(name, entries, self._node_names)
        if entries or had:
            self._index[name] = new
        else:
            self._look_later(name)
        catalog.healed(name)
        catalog.take(name, entries, gone=had)

    def _look_later(self, name: str) -> None:
        """Nothing was seen of a service that is listed. That may be for want of rights, and no index tells when they
        are given."""
        self._index.pop(name, None)
        if self.by_node and name not in self._unseen:  # else the rounds look
            self._unseen.add(name)
            asyncio.get_running_loop().call_later(self._hold_s, self._look_again, name)

    def _look_again(self, name: str) -> None:
        self._unseen.discard(name)
        self._ask((name,))

    def _had(self, name: str) -> bool:
        return bool(self.by_node) and self.seen.had(name)

    async def _may_see(self) -> bool:
        """The token is known to be good: to one that lost its rights every service looks as if no node had it."""
        try:
            await self._catalog.prove_token()
        except (ConsulError, FetchError):
            return False
        return True

    def _is_held(self, name: str, entries: list[dict[str, Any]]) -> bool:
        """Most of it is missing after a gap, and the time for the second look has not come."""
        now = asyncio.get_running_loop().time()
        why = self._catalog.held(name, entries)
        if not why or now >= self._second_look.get(name, now + 1):
            self._second_look.pop(name, None)
            return False
        if name not in self._second_look:
            self._second_look[name] = now + self._hold_s
            self._catalog.failed(name, why)
            asyncio.get_running_loop().call_later(self._hold_s, self._ask, (name,))
        return True

    async def _rounds(self) -> None:
        """Through all services: at the beginning, when something may have been missed, and now and then."""
        while True:
            self._news.clear()
            if self.by_node is None or not self._names:
                await self._news.wait()
                continue
            if self.by_node:  # what changes from now on is heard of by the nodes' watches
                await self._begun.wait()
            self._done.clear()
            for name in self._reading:  # with an answer that may be older than what began the round
                self._reading[name] = True
            self._routine |= dict.fromkeys(self._names - self._urgent.keys() - self._reading.keys())
            self._work.set()
            self._end_round()
            await self._done.wait()
            await asyncio.sleep(ROUND_PAUSE_S * random.uniform(0.8, 1.2))
            with contextlib.suppress(TimeoutError):  # wait_for loses a cancellation that meets the news
                async with asyncio.timeout(ROUND_BY_NODE_S if self.by_node else ROUND_S):
                    await self._news.wait()

    # --- nodes ------------------------------------------------------------------------------------------------------

    async def _follow_nodes(self, tasks: asyncio.TaskGroup) -> None:
        index, backoff = 0, Backoff()
        while True:
            try:
                new, nodes = await self._catalog.get("/v1/catalog/nodes", index, NodesSeen.decode_nodes)
            except (ConsulError, FetchError) as error:
                index = 0
                if self.by_node is None:
                    await self._follow_by(False)
                elif self.by_node:
                    self._catalog.failed(NODE, str(error))
                    self.missed()
                await asyncio.sleep(backoff.pause(random.random()))
                continue
            backoff.reset()
            self._catalog.healed(NODE)
            index = new if new >= index and new > 0 else 0
            by_node = 0 < len(nodes) <= self.nodes_max
            if not by_node and self._services > self.nodes_max:  # too many for a watch each, too
                by_node = 0 < len(nodes) <= self.nodes_max + self._services
            if by_node:
                self._take_nodes(nodes, tasks)
            self.nodes, self._node_names = nodes, frozenset(nodes)
            await self._follow_by(by_node)

    async def _follow_by(self, by_node: bool) -> None:
        if by_node != self.by_node:
            self.by_node = by_node
            if not by_node:
                self._forget_nodes()
            await self._catalog.share_out()
            self._news.set()

    def _forget_nodes(self) -> None:
        """Nodes are not looked at any more."""
        for watch in self._watches.values():
            watch.cancel()
        self._watches.clear()
        self.seen = NodesSeen()
        for node in self._lost_nodes:
            self._catalog.healed(NODE + node)
        self._lost_nodes.clear()
        self._changed_at.clear()
        self._to_begin.clear()  # a round that waits for their first answers need not
        self._begun.set()

    def _take_nodes(self, nodes: tuple[str, ...], tasks: asyncio.TaskGroup) -> None:
        """These are the nodes now."""
        for node in set(self.nodes) - set(nodes):
            if node in self._watches:
                self._watches.pop(node).cancel()
            self._changed_at.pop(node, None)
            self._lost_nodes.discard(node)
            self._catalog.healed(NODE + node)
            self._has_begun(node)
            self._take_node(node, None)
        if not self._begun.is_set():
            self._to_begin |= set(nodes) - set(self.nodes)
        for node in nodes:
            if node not in self._watches and len(self._watches) < self.nodes_max:
                self._watches[node] = tasks.create_task(self._watch_node(node))
        if len(self._watches) < len(nodes):
            self._node_news.set()

    async def _look_at_nodes(self) -> None:
        """At those without a watch, the last to have changed first, when the catalog has changed. No more than half of
        the time goes into it."""
        loop, limit = asyncio.get_running_loop(), asyncio.Semaphore(self._readers)

        async def look(node: str) -> None:
            async with limit:
                if node in self._watches or not self.by_node:
                    return
                try:
                    _, told = await self._catalog.get(self._path(node), decode=NodesSeen.decode, fresh=True)
                except (ConsulError, FetchError) as error:
                    if node in self._node_names and self.by_node:  # else nobody would heal it
                        self._lost(node, str(error))
                        loop.call_later(RETRY_S, self._node_news.set)
                    return
            if node in self._watches or node not in self._node_names or not self.by_node:
                return
            self._catalog.healed(NODE + node)
            self._take_node(node, told, doubted=node in self._lost_nodes)
            self._lost_nodes.discard(node)
            self._has_begun(node)

        while True:
            await self._node_news.wait()
            self._node_news.clear()
            start = loop.time()
            rest = [node for node in self.nodes if node not in self._watches]
            rest.sort(key=lambda node: -self._changed_at.get(node, 0))
            await asyncio.gather(*map(look, rest))
            await asyncio.sleep(loop.time() - start)

    def _last_changed(self, than: str) -> str | None:
        """A node without a watch that changed later than this one."""
        rest = [node for node in self.nodes if node not in self._watches]
        found = max(rest, key=lambda node: self._changed_at.get(node, 0), default=None)
        return found if found and self._changed_at.get(found, 0) > self._changed_at.get(than, 0) else None

    @staticmethod
    def _path(node: str) -> str:
        return f"/v1/catalog/node/{quote(node, safe='')}"

    def _lost(self, node: str, why: str) -> None:
        self._catalog.failed(NODE + node, why)
        self._lost_nodes.add(node)
        self._doubted |= self.seen.services_of((node,)) & self._names
        self._has_begun(node)

    async def _watch_node(self, node: str) -> None:
        backoff = Backoff()
        first = random.uniform(
            0.5, 1.5
        )  # the watches begin together; where they ended together, Consul would stand still

        def wait_s() -> float:
            nonlocal first
            share, first = first, 1.0
            return share * self._catalog.spread_wait_s()

        def heard(told: OnNode | None) -> None:
            backoff.reset()
            self._catalog.healed(NODE + node)
            self._take_node(node, told, doubted=node in self._lost_nodes)
            self._lost_nodes.discard(node)
            self._has_begun(node)

        def idle() -> bool:
            return bool(self.unheard) and self._last_changed(node) is not None

        while True:
            watch = NodeWatch(self._catalog.get, self._path(node), wait_s, heard, idle)
            try:
                await watch.run()
            except TooManyError as error:
                if len(self._watches) > 1:  # others on this host ask it, too
                    del self._watches[node]
                    self.nodes_max = len(self._watches)
                    self._node_news.set()
                    return
                self._lost(node, str(error))
            except BackwardsError:
                self._lost_nodes.add(node)
                self._doubted |= self.seen.services_of((node,)) & self._names
            except (ConsulError, FetchError) as error:
                self._lost(node, str(error))
            else:
                if (other := self._last_changed(node)) is not None:
                    self._watches[other] = self._watches.pop(node)
                    self._node_news.set()
                    node = other
                continue
            await asyncio.sleep(backoff.pause(random.random()))

    def _take_node(self, node: str, told: OnNode | None, doubted: bool = False) -> set[str]:
        """The services that this says to have changed; they are read."""
        changed = self.seen.take(node, told)
        if changed:
            self._changes += 1
            self._changed_at[node] = self._changes
        if new := {name for name in changed - self._names if self.seen.has(name)}:
            self._names |= new
            self._catalog.learned(new)
        if doubted:
            self._doubted |= changed & self._names
        if self._begun.is_set():  # else they are all about to be read
            self._ask(changed)
        return changed

    def _has_begun(self, node: str) -> None:
        self._to_begin.discard(node)
        if not self._to_begin:
            self._begun.set()

    # --- checks -----------------------------------------------------------------------------------------------------

    async def _hear_of_checks(self) -> None:
        """One blocking query on the critical checks, a short list, to hear at once whose health has changed."""
        index, backoff, seen, loop = 0, Backoff(), ChecksSeen(), asyncio.get_running_loop()
        while True:
            try:
                new, told = await self._catalog.get("/v1/health/state/critical", index, bytes)
                seen.add(told)
                seen.end()
                changed, nodes = seen.take()
                if nodes:
                    changed |= await self._services_on(nodes)
            except (ConsulError, FetchError, ValueError):  # the catalog's watch tells
                seen.drop()
                index = 0
                self.missed()
                self._news.set()
                await asyncio.sleep(backoff.pause(random.random()))
                continue
            backoff.reset()
            if new != index and not self.by_node:
                if changed:  # this explains it, most likely
                    loop.call_later(COMPARE_S, self._check_news.set)
                else:
                    self._check_news.set()
            self._ask(changed)  # after an error, too: a round may have read them before they changed
            index = new if new >= index and new > 0 else 0

    async def _services_on(self, nodes: set[str]) -> set[str]:
        """Raises ConsulError, FetchError."""
        if self.by_node:
            return self.seen.services_of(nodes)
        found: set[str] = set()
        for node in nodes:
            _, told = await self._catalog.get(self._path(node), decode=NodesSeen.decode)
            found |= {one.Service for one in (told.Services or {}).values()} if told is not None else set()
        return found

    async def _compare_checks(self) -> None:
        """All checks, when some have changed and no node is watched: whose came, went or changed
        otherwise. No more than a fifth of the time goes into it."""
        seen, loop = ChecksSeen(), asyncio.get_running_loop()
        first = True
        while True:
            await self._check_news.wait()
            self._check_news.clear()
            if self.by_node or not self._names:
                first = True
                continue
            start = loop.time()
            try:
                await self._catalog.read_all_checks(seen)
            except (ConsulError, FetchError, ValueError):
                seen.drop()
                self._check_news.set()
                await asyncio.sleep(ROUND_PAUSE_S)
                continue
            changed, _ = seen.take()
            if not first:  # else it is all new, and the round is under way
                self._ask(changed)
            first = False
            await asyncio.sleep(max(ROUND_PAUSE_S, 4 * (loop.time() - start)))
