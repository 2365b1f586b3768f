"""A model of Consul's catalog as a `Fetch`, and an event loop whose clock jumps to its next timer.

Indexes are those of tables, so they move with changes of others; a blocking query answers at once where its index has
moved, else when its own data changes, or at the end of its wait. Which answer comes first is drawn from a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import random
import selectors
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fairlead.registry.needs import FetchError, Reply

DEAF = ("500", "no leader", "no rights", "no node rights", "silence")
"""Faults under which no answer says anything."""
FAULTS = (*DEAF, "some 500", "too many", "behind")
SERVER = "server"
"""The node that a catalog always has."""
LAG_S = 2.0
"""How far a server may be behind."""


class _Jumping(selectors.DefaultSelector):
    """Nothing is waited for: the clock is put on instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen any more")
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Jumping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


@dataclass
class Instance:
    service: str
    port: int
    critical: bool = False
    index: int = 0
    check_index: int = 0


@dataclass
class Node:
    address: str
    critical: bool = False
    index: int = 0
    check_index: int = 0
    instances: dict[str, Instance] = field(default_factory=dict)


@dataclass
class Tables:
    """The catalog at one time."""

    nodes: dict[str, Node] = field(default_factory=dict)
    services_index: int = 1
    nodes_index: int = 1
    checks_index: int = 1
    service_index: dict[str, int] = field(default_factory=dict)
    extinct_index: int = 1

    def names(self) -> set[str]:
        return {one.service for node in self.nodes.values() for one in node.instances.values()}

    def truth(self) -> dict[str, dict[tuple[str, int], bool]]:
        """By service, its endpoints, and whether they are ready."""
        found: dict[str, dict[tuple[str, int], bool]] = {}
        for node in self.nodes.values():
            for one in node.instances.values():
                found.setdefault(one.service, {})[node.address, one.port] = not (node.critical or one.critical)
        return found

    def answer(self, path: str, tag: str = "") -> tuple[int, Any]:
        if path == "/v1/catalog/services":
            return self.services_index, {name: [] for name in sorted(self.names())}
        if path == "/v1/catalog/nodes":
            nodes = [{"Node": name, "Index": node.index} for name, node in sorted(self.nodes.items())]
            return self.nodes_index, [{"Node": SERVER, "Index": 1}, *nodes]
        if path == "/v1/agent/self":
            return 0, {"DebugConfig": {"HTTPMaxConnsPerClient": 200}}
        if path.startswith("/v1/catalog/node/"):
            return max(self.services_index, self.nodes_index), self._node(path.rpartition("/")[2])
        if path.startswith("/v1/health/service/"):
            name = path.rpartition("/")[2]
            return self.service_index.get(name, self.extinct_index), [] if tag else self._health(name)
        if path.startswith("/v1/health/state/"):
            checks = self._checks()
            if path.endswith("critical"):
                checks = [check for check in checks if check["Status"] == "critical"]
            return self.checks_index, checks
        raise AssertionError(path)

    def _node(self, name: str) -> Any:
        if name == SERVER:
            return {"Node": {"Node": SERVER, "ModifyIndex": 1}, "Services": {}}
        if name not in self.nodes:
            return None
        node = self.nodes[name]
        services = {
            own: {"ID": own, "Service": one.service, "ModifyIndex": one.index} for own, one in node.instances.items()
        }
        return {"Node": {"Node": name, "ModifyIndex": node.index}, "Services": services}

    def _health(self, name: str) -> list[dict[str, Any]]:
        return [
            {
                "Node": {"Node": on, "Address": node.address, "ModifyIndex": node.index},
                "Service": {"ID": own, "Service": name, "Port": one.port, "ModifyIndex": one.index},
                "Checks": [{"CheckID": "c", "Status": "critical" if node.critical or one.critical else "passing"}],
            }
            for on, node in self.nodes.items()
            for own, one in node.instances.items()
            if one.service == name
        ]

    def _checks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for on, node in self.nodes.items():
            found.append(_check(on, "serfHealth", node.critical, "", node.check_index))
            for own, one in node.instances.items():
                found.append(_check(on, own, one.critical, one.service, one.check_index))
        return found


def _check(node: str, own: str, critical: bool, service: str, index: int) -> dict[str, Any]:
    status = "critical" if critical else "passing"
    return {"Node": node, "CheckID": own, "Status": status, "ServiceName": service, "ModifyIndex": index}


class Model:
    """A `Fetch`. The verbs change the catalog; `fault` says how it answers."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.tables = Tables()
        self.fault = ""
        self.open = 0
        self.asked: list[str] = []
        self._index = 10
        self._past: list[tuple[float, Tables]] = []
        self._changed = asyncio.Event()

    # --- changes

    def _change(self) -> int:
        now = asyncio.get_running_loop().time()
        self._past = [(at, one) for at, one in self._past if at > now - 2 * LAG_S]
        self._past.append((now, copy.deepcopy(self.tables)))
        self._index += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return self._index

    def register(self, node: str, own: str, service: str, port: int) -> None:
        index, tables = self._change(), self.tables
        if node not in tables.nodes:
            tables.nodes[node] = Node(f"10.0.0.{int(node[1:]) + 1}", index=index, check_index=index)
            tables.nodes_index = index
        tables.nodes[node].instances[own] = Instance(service, port, index=index, check_index=index)
        tables.services_index = tables.checks_index = tables.service_index[service] = index

    def deregister(self, node: str, own: str) -> None:
        index = self._change()
        one = self.tables.nodes[node].instances.pop(own)
        self._gone(one.service, index)
        self.tables.services_index = self.tables.checks_index = index

    def _gone(self, service: str, index: int) -> None:
        if service in self.tables.names():
            self.tables.service_index[service] = index
        else:
            self.tables.service_index.pop(service, None)
            self.tables.extinct_index = index

    def lose_node(self, node: str) -> None:
        index = self._change()
        gone = self.tables.nodes.pop(node)
        for one in gone.instances.values():
            self._gone(one.service, index)
        self.tables.services_index = self.tables.nodes_index = self.tables.checks_index = index

    def check(self, node: str, own: str, critical: bool) -> None:
        """Of the instance; without one, of the node."""
        index, on = self._change(), self.tables.nodes[node]
        subject: Node | Instance = on.instances[own] if own else on
        subject.critical, subject.check_index = critical, index
        for one in [on.instances[own]] if own else on.instances.values():
            self.tables.service_index[one.service] = index
        self.tables.checks_index = index

    def restore(self) -> None:
        """All indexes go back, as with a snapshot; queries in flight do not hear of it."""
        tables, back = self.tables, self._index // 2
        self._past.clear()
        for name in ("services_index", "nodes_index", "checks_index", "extinct_index"):
            setattr(tables, name, max(1, getattr(tables, name) - back))
        tables.service_index = {name: max(1, index - back) for name, index in tables.service_index.items()}
        for node in tables.nodes.values():
            found: list[Node | Instance] = [node, *node.instances.values()]
            for one in found:
                one.index, one.check_index = max(1, one.index - back), max(1, one.check_index - back)
        self._index -= back

    # --- answers

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 10.0,
    ) -> Reply:
        self.asked.append(url)
        self.open += 1
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer(url)
        except TimeoutError:
            raise FetchError("silence") from None
        finally:
            self.open -= 1

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        connect_timeout_s: float = 2.0,
        idle_timeout_s: float | None = None,
    ) -> AsyncIterator[Any]:
        yield _Stream(await self.request(method, url), self.draw)

    async def close(self) -> None: ...

    async def _answer(self, url: str) -> Reply:
        parts = urlsplit(url)
        path, query = unquote(parts.path), parse_qs(parts.query, keep_blank_values=True)
        index, tag = int(query.get("index", ["0"])[0]), query.get("tag", [""])[0]
        await asyncio.sleep(self.draw.uniform(0.001, 0.05))
        if self.fault == "too many" and index and self.draw.random() < 0.6:
            return Reply(429, {}, b"")
        tables = self.tables
        if self.fault == "behind" and "stale" in query and self.draw.random() < 0.5:
            until = asyncio.get_running_loop().time() - LAG_S * self.draw.random()
            tables = next((one for at, one in self._past if at >= until), tables)
        told = tables.answer(path, tag)
        if index and told[0] <= index:
            told = await self._block(path, tag, int(query["wait"][0][:-2]) / 1000)
        await asyncio.sleep(self.draw.uniform(0.001, 0.05))
        return await self._reply(path, *told)

    async def _block(self, path: str, tag: str, wait_s: float) -> tuple[int, Any]:
        before = self.tables.answer(path, tag)[1]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while True:
                    # A server that fails, or a connection that breaks, ends what waits there, soon enough.
                    await self._changed.wait()
                    if self.tables.answer(path, tag)[1] != before:
                        break
        return self.tables.answer(path, tag)

    async def _reply(self, path: str, index: int, told: Any) -> Reply:
        headers = {"x-consul-index": str(index), "x-consul-knownleader": "true"}
        if self.fault == "silence":
            await asyncio.Event().wait()
        if self.fault == "500" or (self.fault == "some 500" and self.draw.random() < 0.4):
            return Reply(500, headers, b"rpc error")
        if self.fault == "no leader":
            headers["x-consul-knownleader"] = "false"
        if self.fault == "no rights":
            if path == "/v1/agent/self":
                return Reply(403, {}, b"Permission denied")
            told = None if path.startswith("/v1/catalog/node/") else {} if isinstance(told, dict) else []
        # Rights to the agent and to services are left: services are listed, and no instance of them is seen.
        if self.fault == "no node rights" and path not in ("/v1/agent/self", "/v1/catalog/services"):
            told = None if path.startswith("/v1/catalog/node/") else []
        return Reply(200, headers, json.dumps(told, separators=(",", ":")).encode())


class _Stream:
    def __init__(self, reply: Reply, draw: random.Random) -> None:
        self.status, self.headers, self._body, self._draw = reply.status, reply.headers, reply.body, draw

    async def __aiter__(self) -> AsyncIterator[bytes]:
        middle = self._draw.randrange(len(self._body) + 1)
        for octets in (self._body[:middle], self._body[middle:]):
            await asyncio.sleep(self._draw.uniform(0, 0.02))
            yield octets
