"""Clients of several control planes that record what they did and saw, while somebody kills things."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp

from tests.e2e.planes_checker import Event, History, Op, Watcher

PATH = "/api/v1/namespaces/default/secrets"
KEYS = 6
OP_S = 12.0
READ_BYTES = 1 << 22


def mark_of(body: dict[str, Any]) -> str:
    return base64.b64decode((body.get("data") or {}).get("mark", "")).decode()


def listed(body: dict[str, Any]) -> dict[str, tuple[int, str]]:
    return {one["metadata"]["name"]: (int(one["metadata"]["resourceVersion"]), mark_of(one)) for one in body["items"]}


class Load:
    """Writers and watchers over the URLs of the control planes, which may come and go."""

    def __init__(self, urls: Sequence[str], seed: int) -> None:
        self.urls = list(urls)
        self.history = History()
        self.stopping = False
        self.moves = 0
        """How often a watcher went to another control plane."""
        self._draw = random.Random(seed)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=OP_S), read_bufsize=READ_BYTES
        )
        self._count = 0

    async def close(self) -> None:
        await self._session.close()

    def _url(self) -> str:
        return self._draw.choice(self.urls)

    # --- writers ----------------------------------------------------------------------------------------------------

    async def write(self, name: str) -> None:
        """Read somewhere, write somewhere, until told to stop."""
        while not self.stopping:
            key = f"k{self._draw.randrange(KEYS)}"
            try:
                status, body = await self._ask("GET", f"{PATH}/{key}")
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError):  # noqa: UP041
                await asyncio.sleep(0.05)
                continue
            if status == 200:
                expect = int(body["metadata"]["resourceVersion"])
                if self._draw.random() < 0.1:
                    await self._delete(name, key, expect)
                else:
                    await self.put(name, key, expect)
            elif status == 404:
                await self.put(name, key, 0)
            await asyncio.sleep(self._draw.random() * 0.02)

    async def put(self, name: str, key: str, expect: int) -> Op:
        self._count += 1
        mark = f"{name}-{self._count}"
        body: dict[str, Any] = {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": key},
            "data": {"mark": base64.b64encode(mark.encode()).decode()},
        }  # fmt: skip
        if expect:
            body["metadata"]["resourceVersion"] = str(expect)
        outcome, answer = await self._try("PUT" if expect else "POST", f"{PATH}/{key}" if expect else PATH, body)
        version = int(answer["metadata"]["resourceVersion"]) if outcome else 0
        op = Op(name, "put", key, mark, expect, outcome, version)
        self.history.ops.append(op)
        return op

    async def _delete(self, name: str, key: str, expect: int) -> None:
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": str(expect)}}
        outcome, _ = await self._try("DELETE", f"{PATH}/{key}", body)
        self.history.ops.append(Op(name, "delete", key, "", expect, outcome))

    async def _try(self, method: str, path: str, body: Any) -> tuple[bool | None, Any]:
        try:
            status, answer = await self._ask(method, path, body)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError):  # noqa: UP041
            return None, None
        if status < 300:
            return True, answer
        if status in (404, 409) or (status == 503 and "nothing was changed" in str(answer)):
            return False, None
        assert status in (429, 503), (status, answer)
        return None, None

    async def _ask(self, method: str, path: str, body: Any = None, url: str = "") -> tuple[int, Any]:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"}
        async with self._session.request(method, (url or self._url()) + path, data=data, headers=headers) as answer:
            return answer.status, json.loads(await answer.read())

    # --- watchers ---------------------------------------------------------------------------------------------------

    async def watch(self, name: str) -> None:
        """List once, then watch for ever, going on elsewhere from the last version seen whenever a watch ends."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, OSError):
                status, body = await self._ask("GET", PATH)
                if status == 200:
                    break
            await asyncio.sleep(0.05)
        watcher = Watcher(name, int(body["metadata"]["resourceVersion"]), listed(body))
        self.history.watchers.append(watcher)
        last = watcher.start
        while True:
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, OSError):
                last = await self._watch_once(watcher, last)
            last = watcher.events[-1].version if watcher.events else last
            self.moves += 1
            await asyncio.sleep(0.05)

    async def _watch_once(self, watcher: Watcher, last: int) -> int:
        query = f"{PATH}?watch=true&resourceVersion={last}&allowWatchBookmarks=true&timeoutSeconds=5"
        never = aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=8.0)
        async with self._session.get(self._url() + query, timeout=never) as answer:
            if answer.status != 200:
                assert answer.status in (429, 503), (answer.status, await answer.text())
                return last
            async for line in answer.content:
                told = json.loads(line)
                assert told["type"] != "ERROR", told  # no history was lost, so nobody need list again
                if told["type"] == "BOOKMARK":
                    continue
                body = told["object"]
                last = int(body["metadata"]["resourceVersion"])
                watcher.events.append(Event(told["type"], body["metadata"]["name"], last, mark_of(body)))
        return last

    # --- the end ----------------------------------------------------------------------------------------------------

    async def finish(self, until: Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]) -> None:
        """A last write that everybody must see, and what every control plane lists then."""

        async def last_write() -> int:
            found = await self.put("last", "last", 0)
            return found.version

        end = await until("the last write", last_write)

        async def all_there() -> bool:
            return all(one.events and one.events[-1].version >= end for one in self.history.watchers)

        await until("all watchers at the end", all_there)
        for url in self.urls:
            status, body = await self._ask("GET", f"{PATH}?resourceVersion={end}", url=url)
            assert status == 200, body
            self.history.finals.append((int(body["metadata"]["resourceVersion"]), listed(body)))
