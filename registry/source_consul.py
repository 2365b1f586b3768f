"""Shell: services from Consul: blocking queries on the catalog and on each service's health, for ever.

Where there are more services than there may be watches, one query on the critical checks tells whose health has
changed, and those are read at once; a look at all checks tells whose instances came or went, soon after; what else the
catalog has of changes is found by rounds through all services.

What is known stays while Consul does not answer; after any error everything is read in full again. Waits are short
(20 s), since a query in flight does not hear of a restored snapshot (measured). An answer without a leader is none.
To a token without rights Consul says 200 and nothing: an empty catalog is believed only after the token is shown to
be good, and a service without instances only when the catalog does not list it any more.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from .backoff import Backoff
from .brake import HOLD_S, held
from .consul_catalog import ChecksSeen, ConsulSettings, facts_of_service
from .model import Changed, Facts, SourceStatus
from .names import CLUSTER_DOMAIN
from .namespace_map import NamespaceMap
from .needs import Fetch, FetchError
from .parts import Parts

WAIT_S = 20
WATCHES_MAX = 100
"""Blocking queries at a time; Consul takes 200 connections from one address. Services beyond it have no own watch."""
READS_AT_ONCE = 16
"""Answers in full at a time, however many watches begin or come back at once."""
SPREAD = 0.25
"""Share of the wait by which watches are spread, so that they do not end and ask again all together."""
ROUND_PAUSE_S = 0.5
"""Least time between two rounds of reading the services without a watch."""
COMPARE_S = 2.0
"""From a change of critical checks to a look at all of them, in case there was more."""
ROUND_S = 60.0
"""Longest time between them, when nothing is heard."""
STALE_S_MAX = 10.0
"""Oldest answer of a follower that is taken."""
OWN = "consul"


class ConsulError(Exception):
    """An answer that cannot be used; the message is for people."""


class ConsulSource:
    """`update(facts, touched)` with every change, `status(SourceStatus)` with every change of state. `run` until
    cancelled.

    `namespaces`: of services whose instances do not state theirs (meta `fairlead-namespace`).
    """

    name = "consul"

    def __init__(
        self,
        fetch: Fetch,
        settings: ConsulSettings,
        update: Callable[[Facts, Changed | None], None],
        status: Callable[[SourceStatus], None],
        *,
        namespaces: NamespaceMap | None = None,
        cluster_domain: str = CLUSTER_DOMAIN,
        wait_s: int = WAIT_S,
        hold_s: float = HOLD_S,
    ) -> None:
        self._hold_s = hold_s
        self._wait_s = wait_s
        self._fetch = fetch
        self._settings = settings
        self._update = update
        self._status = status
        self._namespaces = namespaces or NamespaceMap()
        self._domain = cluster_domain
        self._parts = Parts()
        self._problems: dict[str, list[str]] = {}
        self._names: tuple[str, ...] = ()
        self._unread: set[str] = set()
        """Services of the catalog whose instances are not read yet, since the last full read."""
        self._complete = False
        self._confirmed_at = 0.0
        self._errors: dict[str, str] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._unwatched: tuple[str, ...] = ()
        self._rounds: list[asyncio.Task[None]] = []
        self._in_full = asyncio.Semaphore(READS_AT_ONCE)
        self._news = asyncio.Event()
        """The catalog has changed, as may have any service without a watch."""
        self._check_news = asyncio.Event()
        """Some check has changed."""
        self._reads = 0
        self._taken: dict[str, int] = {}
        """Of services without a watch, the number of the read that was taken last."""
        self._publishing = False

    async def run(self) -> None:
        self._status(SourceStatus(self.name))
        try:
            await self._follow_catalog()
        finally:
            await self._stop_watches()

    async def close(self) -> None:
        await self._stop_watches()
        await self._fetch.close()

    async def _stop_watches(self) -> None:
        tasks = [*self._watches.values(), *self._rounds]
        self._watches.clear()
        self._rounds = []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- queries ----------------------------------------------------------------------------------------------------

    async def _get(self, path: str, index: int = 0, decode: Callable[[bytes], Any] = json.loads) -> tuple[int, Any]:
        """(index, answer) of one query, blocking where `index` is given. Raises ConsulError, FetchError."""
        query = "?stale"
        if index:
            wait_s = self._wait_s * (1 - SPREAD * random.random())
            query += f"&index={index}&wait={wait_s * 1000:.0f}ms"
        query += self._settings.scope
        timeout_s = self._wait_s * 17 / 16 + 5 if index else 10.0  # Consul adds up to a sixteenth; beyond that it hangs
        reply = await self._fetch.request(
            "GET", self._settings.url + path + query, headers=self._settings.headers, timeout_s=timeout_s
        )
        _check(path, reply.status, reply.headers, reply.body)
        try:
            return int(reply.headers.get("x-consul-index", "0")), decode(reply.body)
        except ValueError as error:
            raise ConsulError(f"{path}: not an answer of Consul: {error}") from error

    async def _read_all_checks(self, seen: ChecksSeen) -> None:
        """All checks, a long list, as it comes; questions are answered in between. Raises ConsulError, FetchError,
        ValueError."""
        path = "/v1/health/state/any"
        url = self._settings.url + path + "?stale" + self._settings.scope
        headers = self._settings.headers
        async with self._fetch.stream("GET", url, headers=headers, connect_timeout_s=10.0, idle_timeout_s=10.0) as told:
            _check(path, told.status, told.headers, b"")
            async for octets in told:
                seen.add(octets)
                await asyncio.sleep(0)
        seen.end()

    async def _follow_catalog(self) -> None:
        index, backoff, looked_again = 0, Backoff(), False
        while True:
            try:
                new, told = await self._get("/v1/catalog/services", index)
                if not isinstance(told, dict):
                    raise ConsulError("/v1/catalog/services: expected an object")
                names = tuple(sorted(set(told) - {OWN}))
                if not names and (not index or self._names):
                    await self._prove_token()
            except (ConsulError, FetchError) as error:
                self._failed("catalog", str(error))
                index, looked_again = 0, False
                await asyncio.sleep(backoff.pause(random.random()))
                continue
            backoff.reset()
            if not index and not looked_again and (why := held(self._names, names)):
                self._failed("catalog", why)
                looked_again = True
                await asyncio.sleep(self._hold_s)
                continue
            first, looked_again = index == 0, False
            if new != index:
                self._news.set()
            index = new if new >= index and new > 0 else 0  # went backwards: read in full
            self._errors.pop("catalog", None)
            await self._take_names(names, first)

    async def _prove_token(self) -> None:
        """Raises ConsulError where the token may not even see the agent: then "no services" means nothing."""
        try:
            await self._get("/v1/agent/self")
        except ConsulError as error:
            if "status 403" in str(error):
                raise ConsulError(
                    "the token may read nothing (ACL): give one with service:read, node:read (CONSUL_HTTP_TOKEN)"
                ) from None
            raise

    async def _take_names(self, names: tuple[str, ...], read_all: bool) -> None:
        if read_all:
            self._unread = set(names)
        if names != self._names or read_all:
            for name in set(self._names) - set(names):
                self._parts.put(name, None)
                self._problems.pop(name, None)
                self._errors.pop(name, None)
                self._taken.pop(name, None)
            self._unread = (self._unread | (set(names) - set(self._names))) & set(names)
            self._names = names
            await self._share_out()
        self._confirmed()

    async def _share_out(self) -> None:
        """A watch for each service, or for as many as there may be; the others are read when anything has changed."""
        gone = [name for name in self._watches if name not in self._names]
        for name in gone:
            self._watches[name].cancel()
        await asyncio.gather(*(self._watches.pop(name) for name in gone), return_exceptions=True)
        loop = asyncio.get_running_loop()
        free = WATCHES_MAX - len(self._watches)
        for name in [name for name in self._names if name not in self._watches][: max(free, 0)]:
            self._watches[name] = loop.create_task(self._watch(name))
        self._unwatched = tuple(name for name in self._names if name not in self._watches)
        if self._unwatched and not self._rounds:
            rounds = (self._read_unwatched(), self._hear_of_checks(), self._compare_checks())
            self._rounds = [loop.create_task(one) for one in rounds]
        self._news.set()

    async def _watch(self, name: str) -> None:
        """Follow one service by blocking queries."""
        index, backoff, looked_again = 0, Backoff(), False
        while True:
            try:
                if index:
                    new, entries = await self._health(name, index)
                else:
                    async with self._in_full:
                        new, entries = await self._health(name)
            except (ConsulError, FetchError) as error:
                self._failed(name, str(error))
                index, looked_again = 0, False
                await asyncio.sleep(backoff.pause(random.random()))
                continue
            backoff.reset()
            if not index and not looked_again and (why := self._held(name, entries)):
                self._failed(name, why)
                looked_again = True
                await asyncio.sleep(self._hold_s)
                continue
            looked_again = False
            self._errors.pop(name, None)
            index = new if new >= index and new > 0 else 0
            self._take(name, entries)

    def _facts_of(self, name: str, entries: list[dict[str, Any]]) -> tuple[Facts, list[str]]:
        return facts_of_service(name, entries, self._namespaces.of(name), self._domain, self._settings.address_tag)

    def _held(self, name: str, entries: list[dict[str, Any]]) -> str:
        """Why the instances read after a gap are not believed before a second look."""
        if not entries or name not in self._parts.parts:
            return ""
        facts, _ = self._facts_of(name, entries)
        return held(_addresses(self._parts.parts[name]), _addresses(facts))

    async def _health(self, name: str, index: int = 0) -> tuple[int, list[dict[str, Any]]]:
        new, entries = await self._get(f"/v1/health/service/{quote(name, safe='')}", index)
        if not isinstance(entries, list):
            raise ConsulError(f"/v1/health/service/{name}: expected a list")
        return new, entries

    async def _read_unwatched(self) -> None:
        """Read the services that have no watch of their own when the catalog has changed, and now and then."""
        while True:
            self._news.clear()
            await asyncio.gather(*(self._read_one(name) for name in self._unwatched))
            await asyncio.sleep(ROUND_PAUSE_S * random.uniform(0.8, 1.2))
            try:
                await asyncio.wait_for(self._news.wait(), 1.0 if self._errors else ROUND_S)
            except TimeoutError:
                pass

    async def _read_one(self, name: str, limit: asyncio.Semaphore | None = None) -> None:
        async with limit or self._in_full:
            self._reads += 1
            begun = self._reads
            try:
                _, entries = await self._health(name)
            except (ConsulError, FetchError) as error:
                if name in self._names:
                    self._failed(name, str(error))
                return
        if name in self._names and begun > self._taken.get(name, 0):  # else a later look was answered first
            self._taken[name] = begun
            self._errors.pop(name, None)
            self._take(name, entries)

    async def _hear_of_checks(self) -> None:
        """One blocking query on the critical checks, a short list, to hear at once whose health has changed."""
        index, backoff, limit, seen = 0, Backoff(), asyncio.Semaphore(READS_AT_ONCE), ChecksSeen()
        while True:
            try:
                new, told = await self._get("/v1/health/state/critical", index, bytes)
                seen.add(told)
                seen.end()
            except (ConsulError, FetchError, ValueError):  # the catalog's watch tells
                seen.drop()
                index = 0
                await asyncio.sleep(backoff.pause(random.random()))
                continue
            backoff.reset()
            changed = seen.take()
            if new != index and not changed:
                self._check_news.set()
            elif new != index:  # this explains it, most likely
                asyncio.get_running_loop().call_later(COMPARE_S, self._check_news.set)
            await self._read_changed(set() if not index and changed is None else changed, limit)
            index = new if new >= index and new > 0 else 0

    async def _compare_checks(self) -> None:
        """All checks, when some have changed: whose came, went or changed otherwise. No more than a fifth
        of the time goes into it."""
        limit, seen, loop = asyncio.Semaphore(READS_AT_ONCE), ChecksSeen(), asyncio.get_running_loop()
        first = True
        while True:
            await self._check_news.wait()
            self._check_news.clear()
            start = loop.time()
            try:
                await self._read_all_checks(seen)
            except (ConsulError, FetchError, ValueError):
                seen.drop()
                self._check_news.set()
                await asyncio.sleep(ROUND_PAUSE_S)
                continue
            changed = seen.take()
            if not first:  # else it is all new, and the round is under way
                await self._read_changed(changed, limit)
            first = False
            await asyncio.sleep(max(ROUND_PAUSE_S, 4 * (loop.time() - start)))

    async def _read_changed(self, changed: set[str] | None, limit: asyncio.Semaphore) -> None:
        """Look at these services at once, past the rounds; None: a node's own check changed, so at all."""
        if changed is None:
            self._news.set()
        else:
            await asyncio.gather(*(self._read_one(name, limit) for name in changed & set(self._unwatched)))

    def _take(self, name: str, entries: list[dict[str, Any]]) -> None:
        self._unread.discard(name)
        if not entries:  # the last instance went, then the catalog's answer is on its way; or we may not see any
            self._problems[name] = [
                f"consul {name}: listed, but no instance may be seen (does the token have node:read?)"
            ]
            self._confirmed()
            return
        facts, problems = self._facts_of(name, entries)
        if self._parts.parts.get(name) != facts:
            self._parts.put(name, facts)
        if problems:
            self._problems[name] = problems
        else:
            self._problems.pop(name, None)
        self._confirmed()

    # --- what is told -----------------------------------------------------------------------------------------------

    def _confirmed(self) -> None:
        if self._unread and not self._complete:
            return  # before everything is read once, part of it would look like all of it
        self._confirmed_at = time.time()
        if not self._unread:
            self._complete = True
        if not self._publishing:
            self._publishing = True
            asyncio.get_running_loop().call_soon(self._publish)

    def _publish(self) -> None:
        self._publishing = False
        self._update(*self._parts.take())
        self._tell()

    def _failed(self, what: str, why: str) -> None:
        self._errors[what] = why
        self._tell()

    def _tell(self) -> None:
        error = next(iter(self._errors.values()), "")
        state = "stale" if error and self._complete else "starting" if not self._complete else "live"
        problems = tuple(problem for found in self._problems.values() for problem in found)
        self._status(SourceStatus(self.name, state, self._confirmed_at, error, problems))


def _addresses(facts: Facts) -> set[str]:
    return {f"{one.address}:{one.port}" for found in facts.endpoints.values() for one in found}


def _check(path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Raises ConsulError where an answer is none."""
    if status != 200:
        raise ConsulError(f"{path}: status {status}: {body[:200].decode('utf-8', 'replace').strip()}")
    if headers.get("x-consul-knownleader") == "false":
        raise ConsulError(f"{path}: Consul has no leader")
    contact_ms = headers.get("x-consul-lastcontact", "0")
    if contact_ms.isdigit() and int(contact_ms) > STALE_S_MAX * 1000:
        raise ConsulError(f"{path}: the answering server has not heard of its leader for {contact_ms} ms")
