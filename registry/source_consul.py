"""Shell: services from Consul: blocking queries on the catalog and on each service's health, for ever.

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
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from .backoff import Backoff
from .consul_catalog import ConsulSettings, facts_of_service, union
from .model import Facts, SourceStatus
from .names import CLUSTER_DOMAIN
from .needs import Fetch, FetchError

WAIT_S = 20
WATCHES_MAX = 100
"""Blocking queries at a time; Consul takes 200 connections from one address. Beyond it, services share watches."""
SHARED_PAUSE_S = 1.0
"""Between rounds of a watch that several services share."""
STALE_S_MAX = 10.0
"""Oldest answer of a follower that is taken."""
OWN = "consul"


class ConsulError(Exception):
    """An answer that cannot be used; the message is for people."""


class ConsulSource:
    """`update(facts)` with every change; `status(SourceStatus)` with every change of state. `run` until cancelled."""

    name = "consul"

    def __init__(
        self,
        fetch: Fetch,
        settings: ConsulSettings,
        update: Callable[[Facts], None],
        status: Callable[[SourceStatus], None],
        *,
        namespace: str = "default",
        cluster_domain: str = CLUSTER_DOMAIN,
        wait_s: int = WAIT_S,
    ) -> None:
        self._wait_s = wait_s
        self._fetch = fetch
        self._settings = settings
        self._update = update
        self._status = status
        self._namespace = namespace
        self._domain = cluster_domain
        self._parts: dict[str, Facts] = {}
        self._problems: dict[str, list[str]] = {}
        self._names: tuple[str, ...] = ()
        self._unread: set[str] = set()
        """Services of the catalog whose instances are not read yet, since the last full read."""
        self._complete = False
        self._confirmed_at = 0.0
        self._errors: dict[str, str] = {}
        self._watches: dict[int, asyncio.Task[None]] = {}
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
        tasks = list(self._watches.values())
        self._watches.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- queries ----------------------------------------------------------------------------------------------------

    async def _get(self, path: str, index: int = 0) -> tuple[int, Any]:
        """(index, answer) of one query, blocking where `index` is given. Raises ConsulError, FetchError."""
        query = "?stale"
        if index:
            query += f"&index={index}&wait={self._wait_s}s"
        headers = {"X-Consul-Token": self._settings.token} if self._settings.token else {}
        timeout_s = self._wait_s * 17 / 16 + 5 if index else 10.0  # Consul adds up to a sixteenth; beyond that it hangs
        reply = await self._fetch.request(
            "GET", self._settings.url + path + query, headers=headers, timeout_s=timeout_s
        )
        if reply.status != 200:
            raise ConsulError(f"{path}: status {reply.status}: {reply.body[:200].decode('utf-8', 'replace').strip()}")
        if reply.headers.get("x-consul-knownleader") == "false":
            raise ConsulError(f"{path}: Consul has no leader")
        contact_ms = reply.headers.get("x-consul-lastcontact", "0")
        if contact_ms.isdigit() and int(contact_ms) > STALE_S_MAX * 1000:
            raise ConsulError(f"{path}: the answering server has not heard of its leader for {contact_ms} ms")
        try:
            return int(reply.headers.get("x-consul-index", "0")), json.loads(reply.body)
        except ValueError as error:
            raise ConsulError(f"{path}: not an answer of Consul: {error}") from error

    async def _follow_catalog(self) -> None:
        index, backoff = 0, Backoff()
        while True:
            try:
                new, names = await self._get("/v1/catalog/services", index)
                if not isinstance(names, dict):
                    raise ConsulError("/v1/catalog/services: expected an object")
                if not set(names) - {OWN} and (not index or self._names):
                    await self._prove_token()
            except (ConsulError, FetchError) as error:
                self._failed("catalog", str(error))
                index = 0
                await asyncio.sleep(backoff.pause(random.random()))
                continue
            first = index == 0
            index = new if new >= index and new > 0 else 0  # went backwards: read in full
            backoff.reset()
            self._errors.pop("catalog", None)
            await self._take_names(tuple(sorted(set(names) - {OWN})), first)

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
                self._parts.pop(name, None)
                self._problems.pop(name, None)
                self._errors.pop(name, None)
            self._unread = (self._unread | (set(names) - set(self._names))) & set(names)
            self._names = names
            await self._share_out()
        self._confirmed()

    async def _share_out(self) -> None:
        """One watch a service, or as many as there may be; only those whose services change are started anew."""
        groups: dict[int, list[str]] = {}
        for name in self._names:
            groups.setdefault(hash(name) % WATCHES_MAX if len(self._names) > WATCHES_MAX else hash(name), []).append(
                name
            )
        for key, task in list(self._watches.items()):
            if key not in groups or task.get_name() != "\n".join(groups[key]) or task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                del self._watches[key]
        loop = asyncio.get_running_loop()
        for key, group in groups.items():
            if key not in self._watches:
                self._watches[key] = loop.create_task(self._watch(group), name="\n".join(group))

    async def _watch(self, names: list[str]) -> None:
        """Follow one service by blocking queries, or several by reading them in turn."""
        indexes = dict.fromkeys(names, 0)
        backoff = Backoff()
        alone = len(names) == 1
        while True:
            for name in names:
                try:
                    new, entries = await self._get(
                        f"/v1/health/service/{quote(name, safe='')}", indexes[name] if alone else 0
                    )
                    if not isinstance(entries, list):
                        raise ConsulError(f"/v1/health/service/{name}: expected a list")
                except (ConsulError, FetchError) as error:
                    self._failed(name, str(error))
                    indexes[name] = 0
                    await asyncio.sleep(backoff.pause(random.random()))
                    continue
                backoff.reset()
                self._errors.pop(name, None)
                changed = not alone or new != indexes[name] or name in self._unread
                indexes[name] = new if new >= indexes[name] and new > 0 else 0
                if changed:
                    self._take(name, entries)
            if not alone:
                await asyncio.sleep(SHARED_PAUSE_S * random.uniform(0.8, 1.2))

    def _take(self, name: str, entries: list[dict[str, Any]]) -> None:
        self._unread.discard(name)
        if not entries:  # the last instance went, then the catalog's answer is on its way; or we may not see any
            self._problems[name] = [
                f"consul {name}: listed, but no instance may be seen (does the token have node:read?)"
            ]
            self._confirmed()
            return
        facts, problems = facts_of_service(name, entries, self._namespace, self._domain)
        if self._parts.get(name) != facts or self._problems.get(name, []) != problems:
            self._parts[name] = facts
            self._problems[name] = problems
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
        self._update(union(self._parts))
        self._tell()

    def _failed(self, what: str, why: str) -> None:
        self._errors[what] = why
        self._tell()

    def _tell(self) -> None:
        error = next(iter(self._errors.values()), "")
        state = "stale" if error and self._complete else "starting" if not self._complete else "live"
        problems = tuple(problem for found in self._problems.values() for problem in found)
        self._status(SourceStatus(self.name, state, self._confirmed_at, error, problems))
