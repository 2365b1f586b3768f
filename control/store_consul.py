"""Shell: Consul's KV as the storage of a shared store.

A blocking query stands on the head alone, so that a change costs each control plane what has changed and not the
whole store. Consul's transactions take 64 operations and 512 KiB.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from ..registry.backoff import Backoff
from ..registry.consul_catalog import ConsulSettings
from ..registry.needs import Fetch, FetchError, Reply
from .store import StoreError, StoreTooLargeError, StoreTrustError, StoreUnavailableError
from .store_backend import hung_up, untrusted
from .store_entries import Entry, Head, join_parts, log_path, part_path, read_entry

CALL_S = 2.0
LOAD_S = 60.0
WAIT_S = 20
"""Of a blocking query; one in flight does not hear of a restored snapshot (measured)."""
OPERATIONS = 64
TRIES = 3


class _Pair(msgspec.Struct):
    Key: str
    ModifyIndex: int = 0
    Value: bytes | None = None


class _Result(msgspec.Struct):
    KV: _Pair | None = None


class _Results(msgspec.Struct):
    Results: list[_Result] | None = None


_pairs = msgspec.json.Decoder(list[_Pair]).decode
_results = msgspec.json.Decoder(_Results).decode


class ConsulBackend:
    """`urls`: of agents or servers, tried in turn; `prefix`: the keys below it are the store's."""

    value_most = 360_000
    """A transaction's request may have 512 KiB (limits.txn_max_req_len), and values in it are base64."""
    writes_most = OPERATIONS
    bytes_most = 360_000

    def __init__(self, fetch: Fetch, settings: ConsulSettings, urls: Sequence[str], prefix: str = "fairlead") -> None:
        self._fetch = fetch
        self._headers = settings.headers
        self._urls = list(urls)
        self._turn = 0
        self._prefix = prefix.strip("/") + "/"
        hosts = ",".join(url.partition("://")[2] for url in urls)
        self.url = f"consul://{hosts}/{prefix.strip('/')}"
        self._head_at: tuple[str, int] = ("", 0)
        """(id, ModifyIndex) of the head last seen."""

    async def _ask(
        self, method: str, path: str, body: bytes = b"", timeout_s: float = CALL_S, accept: tuple[int, ...] = (200,)
    ) -> Reply:
        """Raises StoreUnavailableError, StoreError."""
        url = self._urls[self._turn % len(self._urls)]
        try:
            reply = await self._fetch.request(method, url + path, headers=self._headers, body=body, timeout_s=timeout_s)
        except FetchError as error:
            told, pair = f"store {self.url}: {error}", "CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY"
            if url.startswith("https:"):
                if remedy := untrusted(told, "CONSUL_CACERT", pair):
                    raise StoreTrustError(f"{told}; {remedy}") from error
                told += hung_up(told, pair)
            raise StoreUnavailableError(told) from error
        if reply.status in accept:
            if reply.headers.get("x-consul-knownleader") == "false":
                raise StoreUnavailableError(f"store {self.url}: Consul has no leader")
            return reply
        told = f"store {self.url}: status {reply.status}: {reply.body[:300].decode('utf-8', 'replace').strip()}"
        if reply.status == 413:
            raise StoreTooLargeError(f"{told}; nothing was changed")
        if reply.status >= 500 or reply.status == 429:
            raise StoreUnavailableError(told)
        if reply.status == 403:
            told += "; CONSUL_HTTP_TOKEN needs key_prefix write"
        raise StoreError(told)

    async def _ask_again(self, method: str, path: str, **more: Any) -> Reply:
        """Of what may be repeated: on each server in turn, before it is given up."""
        backoff = Backoff(0.05, 0.5)
        for attempt in range(TRIES):
            try:
                return await self._ask(method, path, **more)
            except StoreUnavailableError:
                if attempt == TRIES - 1:
                    raise
            self.next_server()
            await asyncio.sleep(backoff.pause(random.random()))
        raise AssertionError("unreachable")

    async def _transact(self, operations: Sequence[dict[str, Any]]) -> _Results | None:
        """None: a check did not hold, or a key is missing, and nothing was done."""
        body = msgspec.json.encode([{"KV": operation} for operation in operations])
        reply = await self._ask("PUT", "/v1/txn", body, accept=(200, 409))
        return None if reply.status == 409 else _results(reply.body)

    def _path(self, path: str, query: str) -> str:
        return f"/v1/kv/{quote(self._prefix + path)}?{query}"

    async def _listed(self, path: str, timeout_s: float = LOAD_S) -> list[tuple[str, bytes]]:
        reply = await self._ask_again(
            "GET", self._path(path, "recurse&consistent"), timeout_s=timeout_s, accept=(200, 404)
        )
        if reply.status == 404:
            return []
        start = len(self._prefix) + len(path)
        return sorted((pair.Key[start:], pair.Value or b"") for pair in _pairs(reply.body))

    async def _read_head(self, query: str, timeout_s: float) -> tuple[Head, int]:
        """(head, Consul's index)."""
        reply = await self._ask("GET", self._path("head", query), timeout_s=timeout_s, accept=(200, 404))
        index = reply.headers.get("x-consul-index", "0")
        head = Head()
        if reply.status == 200:
            pair = _pairs(reply.body)[0]
            head = Head.read(pair.Value)
            self._head_at = (head.id, pair.ModifyIndex)
        return head, int(index) if index.isdigit() else 0

    async def head(self) -> Head:
        return (await self._read_head("consistent", CALL_S))[0]

    async def _whole(self, entry: Entry) -> Entry:
        if not entry.parts:
            return entry
        parts = await self._listed(part_path(entry.id, 0).rpartition("/")[0] + "/")
        return join_parts(entry, [value for _, value in parts])

    async def _log(self) -> list[Entry]:
        return [await self._whole(read_entry(value)) for _, value in await self._listed("log/")]

    async def entries(self, after: int) -> list[Entry]:
        return await self._entries(after, (await self.head()).seq)

    async def _entries(self, after: int, last: int) -> list[Entry]:
        """Of a few by their keys; of many, or where some are gone, from the whole log."""
        if last - after > 10 * OPERATIONS:
            return [entry for entry in await self._log() if entry.seq > after]
        found: list[Entry] = []
        for start in range(after + 1, last + 1, OPERATIONS):
            keys = [f"{self._prefix}log/{log_path(seq)}" for seq in range(start, min(start + OPERATIONS, last + 1))]
            answer = await self._transact([{"Verb": "get", "Key": key} for key in keys])
            if answer is None:
                return [entry for entry in await self._log() if entry.seq > after]
            for result in answer.Results or ():
                if result.KV is not None:
                    found.append(await self._whole(read_entry(result.KV.Value or b"")))
        return sorted(found, key=lambda entry: entry.seq)

    async def load(self) -> tuple[Head, list[tuple[str, bytes]], list[Entry]]:
        await self.head()  # a server that hangs is found out by this, and not after the long time that a list may take
        objects = await self._listed("objects/")
        head = await self.head()
        return head, objects, await self._log()

    async def commit(
        self, before: Head, after: Head, puts: Sequence[tuple[str, bytes]], deletes: Sequence[str]
    ) -> bool:
        if before.seq and self._head_at[0] != before.id:
            if (await self.head()).id != before.id:
                return False
        index = self._head_at[1] if before.seq else 0
        operations: list[dict[str, Any]] = []
        if after != before:
            operations.append(self._op("cas", "head", after.value()) | {"Index": index})
        else:
            operations.append({"Verb": "check-index", "Key": f"{self._prefix}head", "Index": index})
        operations += [self._op("set", path, value) for path, value in puts]
        operations += [{"Verb": "delete", "Key": self._prefix + path} for path in deletes]
        answer = await self._transact(operations)
        if answer is None:
            self._head_at = ("", 0)
            return False
        first = answer.Results[0].KV if answer.Results else None
        if after != before:
            self._head_at = (after.id, first.ModifyIndex) if first is not None else ("", 0)
        return True

    def _op(self, verb: str, path: str, value: bytes) -> dict[str, Any]:
        return {"Verb": verb, "Key": self._prefix + path, "Value": base64.b64encode(value).decode()}

    async def put(self, path: str, value: bytes) -> None:
        await self._ask_again("PUT", self._path(path, ""), body=value)

    async def delete(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), OPERATIONS):
            chunk = paths[start : start + OPERATIONS]
            await self._transact([{"Verb": "delete", "Key": self._prefix + path} for path in chunk])

    async def delete_same(self, path: str, value: bytes) -> bool:
        reply = await self._ask("GET", self._path(path, "consistent"), accept=(200, 404))
        pair = _pairs(reply.body)[0] if reply.status == 200 else None
        if pair is None or (pair.Value or b"") != value:
            return False
        same = {"Verb": "delete-cas", "Key": self._prefix + path, "Index": pair.ModifyIndex}
        return await self._transact([same]) is not None

    async def listed(self, path: str) -> list[tuple[str, bytes]]:
        return await self._listed(path, CALL_S)

    async def follow(self, seq: Callable[[], int]) -> AsyncIterator[tuple[Head | None, list[Entry]]]:
        head, index = await self._read_head("consistent", CALL_S)
        while True:
            yield head, await self._entries(seq(), head.seq) if head.seq > seq() else []
            while True:
                before = head
                # Consul adds up to a sixteenth to the wait; beyond that it hangs.
                head, now = await self._read_head(f"index={max(index, 1)}&wait={WAIT_S}s", WAIT_S * 17 / 16 + 3)
                index = 0 if now < index else now
                if head != before:
                    break

    def next_server(self) -> None:
        self._turn += 1

    async def close(self) -> None:
        await self._fetch.close()
