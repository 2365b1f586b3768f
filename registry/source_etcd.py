"""Shell: services from etcd v3: everything under a prefix, then a watch from that revision, for ever.

What is known stays while etcd does not answer. A compacted revision, and any doubt, lead to reading everything again.
A member that hangs is found out by asking it beside the watch.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from .backoff import Backoff
from .brake import HOLD_S, held
from .etcd_client import DENIED, UNAUTHENTICATED, EtcdClient, EtcdError
from .etcd_layout import OWN, Layout
from .etcd_values import EtcdSettings, Instance, b64, facts_of, prefix_end
from .model import Changed, Facts, SourceStatus
from .names import CLUSTER_DOMAIN
from .needs import Fetch, FetchError
from .parts import Parts

PROBE_S = 2.0
PAGE = 5000
"""Keys of one range call."""
logger = logging.getLogger("fairlead.etcd")


class _Reload(Exception):
    """What we hold cannot be carried on from: its revision is compacted, or the server's history is another one."""


class EtcdSource:
    """`update(facts, touched)` with every change, `status(SourceStatus)` with every change of state. `run` until
    cancelled. `prefix`: where services stand, if not where the layout says."""

    name = "etcd"

    def __init__(
        self,
        fetch: Fetch,
        settings: EtcdSettings,
        update: Callable[[Facts, Changed | None], None],
        status: Callable[[SourceStatus], None],
        *,
        prefix: str = "",
        layout: Layout = OWN,
        cluster_domain: str = CLUSTER_DOMAIN,
        hold_s: float = HOLD_S,
    ) -> None:
        self._hold_s = hold_s
        self.client = EtcdClient(fetch, settings)
        self._update = update
        self._status = status
        prefix = prefix or layout.prefix
        self._prefix = prefix if prefix.endswith("/") or not prefix else prefix + "/"
        self._layout = layout
        self._domain = cluster_domain
        self._hosts: dict[str, str | tuple[str, ...]] = {}
        """By key, of its instance, or of each where a layout has several a key."""
        self._by_host: dict[str, dict[str, Instance]] = {}
        """Instances by host and key (with a number, where a key has several)."""
        self._parts = Parts()
        """By host."""
        self._dirty: set[str] = set()
        """Hosts whose instances have changed since."""
        self._problems: dict[str, str] = {}
        self._revision: int | None = None
        self._ever = False
        self._confirmed_at = 0.0

    async def run(self) -> None:
        """Raises nothing but for defects; it can be run again, and reads everything then."""
        self._tell("stale" if self._ever else "starting", "")
        self._revision = None
        backoff = Backoff(0.1, 2.0)
        while True:
            try:
                if self._revision is None:
                    await self._load()
                await self._follow(backoff)
            except _Reload as reason:
                logger.info("etcd: reading everything again: %s", reason)
                self._revision = None
                self.client.next_endpoint()  # this member may only be behind the others
                await asyncio.sleep(backoff.pause(random.random()))
            except (EtcdError, FetchError, ValueError, KeyError) as error:
                self._tell("stale" if self._ever else "starting", f"{self.client.endpoint}: {error}")
                if isinstance(error, EtcdError) and error.code in (DENIED, UNAUTHENTICATED):
                    self.client.forget_token()
                self.client.next_endpoint()
                await asyncio.sleep(backoff.pause(random.random()))

    async def close(self) -> None:
        await self.client.fetch.close()

    async def _load(self) -> None:
        """Take everything under the prefix; looks twice where most of what we hold is gone."""
        found, revision = await self._read()
        if why := held(self._hosts, found):
            self._tell("stale", f"{self.client.endpoint}: {why}")
            await asyncio.sleep(self._hold_s)
            found, revision = await self._read()
        self._problems.clear()
        for name in [name for name in self._hosts if name not in found]:
            self._drop(name)
        for name, value in found.items():
            self._put(name, value)
        self._revision = revision
        self._ever = True
        self._publish()

    async def _read(self) -> tuple[dict[str, bytes], int]:
        """Everything under the prefix, at one revision."""
        found: dict[str, bytes] = {}
        key, revision = self._prefix.encode(), 0
        end = prefix_end(key)
        key = key or b"\0"
        while True:
            body: dict[str, Any] = {"key": b64(key), "range_end": b64(end), "limit": str(PAGE)}
            if revision:
                body["revision"] = str(revision)
            told = await self.client.call("/v3/kv/range", body)
            revision = revision or int(told["header"]["revision"])
            entries = told.get("kvs", [])
            for entry in entries:
                found[_decode(entry["key"])] = base64.b64decode(entry.get("value", ""))
            if not told.get("more") or not entries:
                break
            key = base64.b64decode(entries[-1]["key"]) + b"\0"
        return found, revision

    async def _follow(self, backoff: Backoff) -> None:
        """Take the watch's events; raises what ends it."""
        messages: asyncio.Queue[dict[str, Any] | Exception] = asyncio.Queue(1000)
        endpoint = self.client.endpoint
        await self.client.authenticate()
        tasks = [
            asyncio.ensure_future(self._pump(messages)),
            asyncio.ensure_future(self._probe(endpoint, messages)),
        ]
        try:
            while True:
                changed = False
                while True:  # of many that are waiting one change is made
                    message = await messages.get()
                    if isinstance(message, Exception):
                        if changed:
                            self._publish()
                        raise message
                    changed |= self._take(message)
                    if messages.empty():
                        break
                if changed:
                    self._publish()
                backoff.reset()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, messages: asyncio.Queue[dict[str, Any] | Exception]) -> None:
        try:
            assert self._revision is not None
            async for message in self.client.watch(self._prefix.encode(), self._revision + 1):
                await messages.put(message)
        except Exception as error:  # whatever it is, it ends the watch
            await messages.put(error)

    async def _probe(self, endpoint: str, messages: asyncio.Queue[dict[str, Any] | Exception]) -> None:
        """A member that hangs breaks nothing and sends nothing: ask it."""
        try:
            while True:
                await asyncio.sleep(PROBE_S)
                body = {"key": b64(b"\0"), "serializable": True, "count_only": True}
                try:
                    await self.client.once("/v3/kv/range", body, endpoint)
                except EtcdError as error:
                    if error.code not in (DENIED, UNAUTHENTICATED):
                        raise
                self._confirmed_at = time.time()
                self._tell("live", "")
        except Exception as error:
            await messages.put(error)

    def _take(self, result: dict[str, Any]) -> bool:
        """Take one message of the watch; whether it has events."""
        if int(result.get("compact_revision", 0)):
            raise _Reload(f"revision {self._revision} was compacted")
        if result.get("canceled"):
            raise EtcdError(DENIED, str(result.get("cancel_reason") or "the watch was cancelled"))
        now = int(result.get("header", {}).get("revision", 0))
        if result.get("created") and now < (self._revision or 0):
            # A watch from a revision that is yet to come would just be silent: the data was lost or restored.
            raise _Reload(f"the server is at revision {now}, before ours, {self._revision}")
        events = result.get("events", [])
        for event in events:
            entry = event["kv"]
            name = _decode(entry["key"])
            if event.get("type") == "DELETE":
                self._drop(name)
                self._problems.pop(name, None)
            else:
                self._put(name, base64.b64decode(entry.get("value", "")))
            self._revision = max(self._revision or 0, int(entry["mod_revision"]))
        if not result.get("created"):
            self._revision = max(self._revision or 0, now)
        return bool(events)

    def _drop(self, key: str) -> None:
        hosts = self._hosts.pop(key, ())
        for number, host in enumerate((hosts,) if isinstance(hosts, str) else hosts):
            self._dirty.add(host)
            del self._by_host[host][f"{key}#{number}" if number else key]

    def _put(self, key: str, value: bytes) -> None:
        self._drop(key)
        try:
            found, problem = self._layout.read(key, value, self._prefix, self._domain)
        except ValueError as error:
            self._problems[key] = str(error)
            return
        self._hosts[key] = found[0].host if len(found) == 1 else tuple(one.host for one in found)
        for number, one in enumerate(found):
            self._by_host.setdefault(one.host, {})[f"{key}#{number}" if number else key] = one
            self._dirty.add(one.host)
        if problem:
            self._problems[key] = problem
        else:
            self._problems.pop(key, None)

    def _publish(self) -> None:
        self._confirmed_at = time.time()
        for host in self._dirty:
            group = self._by_host.get(host)
            if not group:
                self._by_host.pop(host, None)
            self._parts.put(host, facts_of(group) if group else None)
        self._dirty.clear()
        self._update(*self._parts.take())
        self._tell("live", "")

    def _tell(self, state: str, error: str) -> None:
        problems = tuple(f"{key}: {why}" for key, why in sorted(self._problems.items()))
        self._status(SourceStatus(self.name, state, self._confirmed_at, error, problems))


def _decode(key: str) -> str:
    return base64.b64decode(key).decode("utf-8", "replace")
