"""Shell: services from Consul: blocking queries on the catalog and on each service's health, for ever.

Where there are too many services for a query each, `consul_unwatched` follows them by their nodes.

What is known stays while Consul does not answer; after any error everything is read in full again. Waits are short
(20 s), since a query in flight does not hear of a restored snapshot (measured). An answer without a leader is none.
To a token without rights Consul says 200 and nothing: an empty catalog is believed only after the token is shown to
be good, and a service without instances only when the catalog does not list it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from .backoff import Backoff
from .brake import HOLD_S, held
from .consul_catalog import NODE, OWN, ChecksSeen, ConsulError, ConsulSettings, TooManyError, facts_of_service
from .consul_unwatched import READERS, Unwatched
from .model import Changed, Facts, SourceStatus
from .names import CLUSTER_DOMAIN
from .namespace_map import NamespaceMap
from .needs import Fetch, FetchError
from .parts import Parts

WAIT_S = 20
WATCHES_MAX = 100
"""Services up to which each has a blocking query."""
CONNECTIONS = 200
"""What Consul takes from one address (`limits.http_max_conns_per_client`), where the agent does not say."""
WATCHES_MOST = 4000
"""Watches that an agent without such a limit gets."""
READS_AT_ONCE = 16
"""Answers in full at a time, however many watches begin or come back at once."""
SPREAD = 0.25
"""Share of the wait by which watches are spread, so that they do not end and ask again all together."""
STALE_S_MAX = 10.0
"""Oldest answer of a follower that is taken."""
CATALOG_PAUSE_S = 3.0
"""Between two answers of the catalog, for each thousand services, where the nodes' watches tell of new ones (a
sixtieth, where some have none): its answer costs Consul a look at every instance, 300 ms of a hundred thousand."""


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
        self._watches_most = CONNECTIONS * 3 // 4
        """How many there may be at a time, of services and nodes."""
        self._readers = READERS
        self._unsure = False
        """Something was missed: the catalog is to be read in full."""
        self._doubt = asyncio.Event()
        self._unwatched: Unwatched | None = None
        """Follows those without a watch, where there are too many."""
        self._following: asyncio.Task[None] | None = None
        self._died: asyncio.Future[BaseException] | None = None
        """What one of the tasks died of."""
        self._sharing = asyncio.Lock()
        self._in_full = asyncio.Semaphore(READS_AT_ONCE)
        self._notes: tuple[str, ...] = ()
        self._publishing = False

    async def run(self) -> None:
        """Raises what any of its tasks died of; it can be run again."""
        self._tell()
        loop = asyncio.get_running_loop()
        self._died = loop.create_future()
        catalog = loop.create_task(self._follow_catalog())
        catalog.add_done_callback(self._ended)
        try:
            raise await self._died
        finally:
            catalog.cancel()
            await asyncio.gather(catalog, return_exceptions=True)
            await self._stop_watches()

    async def close(self) -> None:
        await self._stop_watches()
        await self._fetch.close()

    async def _stop_watches(self) -> None:
        tasks = [*self._watches.values(), *((self._following,) if self._following is not None else ())]
        self._watches.clear()
        self._following = self._unwatched = None
        self._drop_errors_of_nodes()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get(
        self,
        path: str,
        index: int = 0,
        decode: Callable[[bytes], Any] = json.loads,
        *,
        fresh: bool = False,
        more: str = "",
        wait_s: float = 0.0,
    ) -> tuple[int, Any]:
        """(index, answer) of one query, blocking where `index` is given; `fresh`: as the leader has it, not any server;
        `more`: further parameters; `wait_s`: 0: the usual. Raises ConsulError, FetchError."""
        query, timeout_s = "?" if fresh else "?stale", 10.0
        if index:
            wait_s = wait_s or self.spread_wait_s()
            query += f"&index={index}&wait={wait_s * 1000:.0f}ms"
            timeout_s = wait_s * 17 / 16 + 5  # Consul adds up to a sixteenth; beyond that it hangs
        query += more + self._settings.scope
        reply = await self._fetch.request(
            "GET", self._settings.url + path + query, headers=self._settings.headers, timeout_s=timeout_s
        )
        _check(path, reply.status, reply.headers, reply.body)
        try:
            return int(reply.headers.get("x-consul-index", "0")), decode(reply.body)
        except ValueError as error:
            raise ConsulError(f"{path}: not an answer of Consul: {error}") from error

    def spread_wait_s(self) -> float:
        """How long a query is to wait."""
        return self._wait_s * (1 - SPREAD * random.random())

    async def read_all_checks(self, seen: ChecksSeen) -> None:
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
            self._doubt.clear()
            if self._unsure:
                index, self._unsure = 0, False
            try:
                new, told = await self.get("/v1/catalog/services", index)
                if not isinstance(told, dict):
                    raise ConsulError("/v1/catalog/services: expected an object")
                names = tuple(sorted(set(told) - {OWN}))
                if not names and (not index or self._names):
                    await self.prove_token()
            except (ConsulError, FetchError) as error:
                self.failed("catalog", str(error))
                if self._unwatched is not None:
                    self._unwatched.missed()
                index, looked_again = 0, False
                await asyncio.sleep(backoff.pause(random.random()))
                continue
            backoff.reset()
            if (not index or new < index) and not looked_again and (why := held(self._names, names)):
                index = 0
                self.failed("catalog", why)
                looked_again = True
                await asyncio.sleep(self._hold_s)
                continue
            first, looked_again = index == 0 and not self._unsure, False
            if new != index and self._unwatched is not None:
                self._unwatched.moved()
            index = new if new >= index and new > 0 else 0  # went backwards: read in full
            self._errors.pop("catalog", None)
            await self._take_names(names, first)
            if self._unwatched is not None and self._unwatched.by_node:
                pause_s = CATALOG_PAUSE_S * len(names) / (60000 if self._unwatched.unheard else 1000)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._doubt.wait()
            self._note()

    async def prove_token(self) -> None:
        """Raises ConsulError where the token may not see the agent, or any node: then "no services" and "no instances"
        mean nothing."""
        try:
            await self.get("/v1/agent/self")
            _, nodes = await self.get("/v1/catalog/nodes")
        except ConsulError as error:
            if "status 403" not in str(error):
                raise
            nodes = None
        if not nodes:  # a catalog has the nodes of its servers at least
            raise ConsulError(
                "the token may read nothing (ACL): give one with service:read, node:read (CONSUL_HTTP_TOKEN)"
            )

    async def _take_names(self, names: tuple[str, ...], read_all: bool) -> None:
        if self._unwatched is not None and self._unwatched.by_node:  # which may know of new ones before the catalog
            names = tuple(sorted({*names, *(name for name in self._names if self._unwatched.seen.has(name))}))
        if read_all:
            self._unread = set(names)
            if self._unwatched is not None:
                await self._ask_limit()
                self._unwatched.nodes_max = self._watches_most
                self._unwatched.again()
        if names != self._names or read_all:
            for name in set(self._names) - set(names):
                self._parts.put(name, None)
                self._problems.pop(name, None)
                self._errors.pop(name, None)
            self._unread = (self._unread | (set(names) - set(self._names))) & set(names)
            self._names = names
            await self.share_out()
        self._confirmed()

    async def _ask_limit(self) -> None:
        """How many connections the agent takes from us; three quarters of them are for watches."""
        try:
            _, told = await self.get("/v1/agent/self")
            limit = told["DebugConfig"]["HTTPMaxConnsPerClient"]
            limit = limit if isinstance(limit, int) and limit > 0 else 2 * WATCHES_MOST  # no limit
        except (ConsulError, FetchError, KeyError, TypeError):  # the token may not read it (agent:read)
            limit = CONNECTIONS
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = min(limit * 3 // 4, limit - 40, files // 2 if files > 0 else limit, WATCHES_MOST)
        self._watches_most = max(1, most)
        self._readers = max(1, min(READERS, (limit - self._watches_most - 4) // 2))

    async def share_out(self) -> None:
        """A watch for each service, where they are few; else one for each node, where they are; else for as many
        services as there may be."""
        async with self._sharing:
            loop = asyncio.get_running_loop()
            many = len(self._names) > WATCHES_MAX
            if many and self._unwatched is None:
                await self._ask_limit()
                self._unwatched = Unwatched(self, self._watches_most, self._readers, self._hold_s)
                self._following = loop.create_task(self._unwatched.run())
                self._following.add_done_callback(self._ended)
            elif not many and self._following is not None:
                self._following.cancel()
                await asyncio.gather(self._following, return_exceptions=True)
                self._following = self._unwatched = None
                self._drop_errors_of_nodes()
            by_node = self._unwatched is not None and self._unwatched.by_node is not False
            watched = () if by_node else self._names if not many else self._names[: self._watches_most]
            kept = set(self._names if not by_node else ())
            gone = [name for name in self._watches if name not in kept]
            for name in gone:
                self._watches[name].cancel()
            await asyncio.gather(*(self._watches.pop(name) for name in gone), return_exceptions=True)
            free = len(watched) - len(self._watches)
            for name in [name for name in self._names if name not in self._watches][: max(free, 0)]:
                self._watches[name] = loop.create_task(self._watch(name))
                self._watches[name].add_done_callback(self._ended)
            if self._unwatched is not None:
                self._unwatched.follow((name for name in self._names if name not in self._watches), len(self._names))
            self._note()

    def _drop_errors_of_nodes(self) -> None:
        self._errors = {what: why for what, why in self._errors.items() if not what.startswith(NODE)}

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A defect of ours: nothing is followed by halves."""
        if not task.cancelled() and (error := task.exception()) is not None:
            if self._died is not None and not self._died.done():
                self._died.set_result(error)

    def _note(self) -> None:
        """What people should know of how changes are heard of."""
        unwatched = self._unwatched
        notes: tuple[str, ...] = ()
        left = len(self._names) - len(self._watches)
        if unwatched is not None and left and (unwatched.unheard or unwatched.by_node is False):
            nodes, watches = len(unwatched.nodes), self._watches_most
            wanted = -(-min(nodes or left, len(self._names)) * 4 // 3 // 100) * 100 + 100
            notes = (
                f"{len(self._names)} services on {nodes} nodes, but no more than {watches} blocking queries, since the "
                "agent takes too few connections from one address: changes that are no check's may be seen late. Raise "
                f"the agent's limits.http_max_conns_per_client to {wanted}",
            )
        if notes != self._notes:
            self._notes = notes
            self._tell()

    async def _watch(self, name: str) -> None:
        """Follow one service by blocking queries."""
        index, backoff, looked_again = 0, Backoff(), False
        while True:
            try:
                if index:
                    new, entries = await self.health(name, index)
                else:
                    async with self._in_full:
                        new, entries = await self.health(name)
            except (ConsulError, FetchError) as error:
                self.failed(name, str(error))
                index, looked_again = 0, False
                await asyncio.sleep(backoff.pause(random.random()))
                continue
            backoff.reset()
            if not index and not looked_again and (why := self.held(name, entries)):
                self.failed(name, why)
                looked_again = True
                await asyncio.sleep(self._hold_s)
                continue
            looked_again = False
            self._errors.pop(name, None)
            index = new if new >= index and new > 0 else 0
            self.take(name, entries)

    def _facts_of(self, name: str, entries: list[dict[str, Any]]) -> tuple[Facts, list[str]]:
        return facts_of_service(name, entries, self._namespaces.of(name), self._domain, self._settings.address_tag)

    def held(self, name: str, entries: list[dict[str, Any]]) -> str:
        """Why the instances read after a gap are not believed before a second look."""
        if not entries or name not in self._parts.parts:
            return ""
        facts, _ = self._facts_of(name, entries)
        return held(_addresses(self._parts.parts[name]), _addresses(facts))

    async def health(self, name: str, index: int = 0, *, fresh: bool = False) -> tuple[int, list[dict[str, Any]]]:
        new, entries = await self.get(f"/v1/health/service/{quote(name, safe='')}", index, fresh=fresh)
        if not isinstance(entries, list):
            raise ConsulError(f"/v1/health/service/{name}: expected a list")
        return new, entries

    def unsure(self) -> None:
        self._unsure = True
        self._doubt.set()

    def learned(self, names: set[str]) -> None:
        """Names of the catalog, before its own answer has them."""
        self._names = tuple(sorted({*self._names, *names}))
        if not self._complete:
            self._unread |= names

    def healed(self, what: str) -> None:
        if self._errors.pop(what, None) is not None:
            self._tell()

    def take(self, name: str, entries: list[dict[str, Any]], gone: bool = False) -> None:
        """What a service has now; `gone`: no node has it any more."""
        self._unread.discard(name)
        if gone and not entries:
            self._parts.put(name, None)
            self._problems.pop(name, None)
            self._confirmed()
            return
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

    def failed(self, what: str, why: str) -> None:
        self._errors[what] = why
        self._tell()

    def _tell(self) -> None:
        error = self._errors.get("catalog") or next(iter(self._errors.values()), "")
        state = "stale" if error and self._complete else "starting" if not self._complete else "live"
        problems = tuple(problem for found in self._problems.values() for problem in found)
        self._status(SourceStatus(self.name, state, self._confirmed_at, error, problems, self._notes))


def _addresses(facts: Facts) -> set[str]:
    return {f"{one.address}:{one.port}" for found in facts.endpoints.values() for one in found}


def _check(path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Raises ConsulError where an answer is none."""
    if status == 429:
        raise TooManyError(f"{path}: the agent takes no more connections from here (http_max_conns_per_client)")
    if status != 200:
        raise ConsulError(f"{path}: status {status}: {body[:200].decode('utf-8', 'replace').strip()}")
    if headers.get("x-consul-knownleader") == "false":
        raise ConsulError(f"{path}: Consul has no leader")
    contact_ms = headers.get("x-consul-lastcontact", "0")
    if contact_ms.isdigit() and int(contact_ms) > STALE_S_MAX * 1000:
        raise ConsulError(f"{path}: the answering server has not heard of its leader for {contact_ms} ms")
