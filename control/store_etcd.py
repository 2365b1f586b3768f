"""Shell: etcd v3 as the storage of a shared store, by its JSON gateway."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from ..registry.etcd_client import DENIED, UNAUTHENTICATED, UNAVAILABLE, EtcdClient, EtcdError
from ..registry.etcd_values import EtcdSettings, b64, prefix_end
from ..registry.needs import Fetch, FetchError
from .store import StoreError, StoreFullError, StoreTooLargeError, StoreTrustError, StoreUnavailableError
from .store_backend import hung_up, untrusted
from .store_entries import Entry, Head, join_parts, log_path, part_path, read_entry

PAGE = 500
"""Keys of one range call."""
LOG_PAGE = 100
DEADLINE, EXHAUSTED = 4, 8


class EtcdBackend:
    """`prefix`: the keys below it are the store's."""

    value_most = 1_000_000
    """etcd takes requests of 1.5 MiB (--max-request-bytes)."""
    writes_most = 120
    """etcd takes 128 operations in a transaction (--max-txn-ops)."""
    bytes_most = 1_000_000

    def __init__(self, fetch: Fetch, settings: EtcdSettings, prefix: str = "fairlead") -> None:
        self.client = EtcdClient(fetch, settings)
        self._prefix = prefix.strip("/") + "/"
        hosts = ",".join(endpoint.partition("://")[2] for endpoint in settings.endpoints)
        self.url = f"etcd://{hosts}/{prefix.strip('/')}"

    def _key(self, path: str) -> bytes:
        return (self._prefix + path).encode()

    async def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self.client.call(path, body)
        except (EtcdError, FetchError) as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> StoreError:
        told = f"store {self.url}: {error}"
        if isinstance(error, FetchError) and self.client.endpoint.startswith("https:"):
            pair = "ETCDCTL_CERT and ETCDCTL_KEY"
            if remedy := untrusted(told, "ETCDCTL_CACERT", pair):
                return StoreTrustError(f"{told}; {remedy}")
            told += hung_up(told, pair)
        if isinstance(error, FetchError) or (isinstance(error, EtcdError) and error.code in (UNAVAILABLE, DEADLINE)):
            return StoreUnavailableError(told)
        code = error.code if isinstance(error, EtcdError) else -1
        if code == EXHAUSTED and "space" in str(error):
            return StoreFullError(f"{told}: nothing was changed; compact and defragment etcd, or raise its quota")
        if "too large" in str(error):
            return StoreTooLargeError(f"{told}; nothing was changed")
        if code == UNAUTHENTICATED or "user name is empty" in str(error) or "authentication failed" in str(error):
            return StoreError(f"{told}; ETCDCTL_USER (and ETCDCTL_PASSWORD) say who we are")
        if code == DENIED or "permission denied" in str(error):
            return StoreError(f"{told}; the role of ETCDCTL_USER needs readwrite on the prefix {self._prefix}")
        return StoreError(told)

    async def _range(self, key: bytes, end: bytes, page: int, revision: int = 0) -> tuple[list[tuple[str, bytes]], int]:
        """(path below the prefix, value) in order, and the revision at which they stand."""
        found: list[tuple[str, bytes]] = []
        while True:
            body: dict[str, Any] = {"key": b64(key), "range_end": b64(end), "limit": str(page)}
            if revision:
                body["revision"] = str(revision)
            told = await self._call("/v3/kv/range", body)
            revision = revision or int(told["header"]["revision"])
            kvs = told.get("kvs", [])
            for kv in kvs:
                name = base64.b64decode(kv["key"]).decode("utf-8", "replace")
                found.append((name.removeprefix(self._prefix), base64.b64decode(kv.get("value", ""))))
            if not told.get("more") or not kvs:
                return found, revision
            key = base64.b64decode(kvs[-1]["key"]) + b"\0"

    async def _head(self, revision: int = 0) -> tuple[Head, int]:
        body = {"key": b64(self._key("head"))} | ({"revision": str(revision)} if revision else {})
        told = await self._call("/v3/kv/range", body)
        kvs = told.get("kvs", [])
        return Head.read(base64.b64decode(kvs[0]["value"]) if kvs else None), int(told["header"]["revision"])

    async def head(self) -> Head:
        return (await self._head())[0]

    async def _entries(self, after: int, revision: int = 0) -> list[Entry]:
        start, end = self._key(f"log/{log_path(after + 1)}"), prefix_end(self._key("log/"))
        found, _ = await self._range(start, end, LOG_PAGE, revision)
        return [await self._whole(read_entry(value)) for _, value in found]

    async def entries(self, after: int) -> list[Entry]:
        return await self._entries(after)

    async def _whole(self, entry: Entry) -> Entry:
        if not entry.parts:
            return entry
        key = self._key(part_path(entry.id, 0).rpartition("/")[0] + "/")
        parts, _ = await self._range(key, prefix_end(key), 1)
        return join_parts(entry, [value for _, value in parts])

    async def load(self) -> tuple[Head, list[tuple[str, bytes]], list[Entry]]:
        key = self._key("objects/")
        objects, revision = await self._range(key, prefix_end(key), PAGE)
        head, _ = await self._head(revision)
        below = [(path.removeprefix("objects/"), value) for path, value in objects]
        return head, below, await self._entries(0, revision)

    async def commit(
        self, before: Head, after: Head, puts: Sequence[tuple[str, bytes]], deletes: Sequence[str]
    ) -> bool:
        head = b64(self._key("head"))
        compare: dict[str, Any] = {"key": head, "result": "EQUAL"}
        if before.seq:
            compare |= {"target": "VALUE", "value": b64(before.value())}
        else:
            compare |= {"target": "VERSION", "version": "0"}
        changes = [*puts, ("head", after.value())] if after != before else puts
        success: list[dict[str, Any]] = [
            {"request_put": {"key": b64(self._key(path)), "value": b64(value)}} for path, value in changes
        ]
        success += [{"request_delete_range": {"key": b64(self._key(path))}} for path in deletes]
        told = await self._call("/v3/kv/txn", {"compare": [compare], "success": success})
        return bool(told.get("succeeded"))

    async def put(self, path: str, value: bytes) -> None:
        await self._call("/v3/kv/put", {"key": b64(self._key(path)), "value": b64(value)})

    async def delete(self, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), self.writes_most):
            chunk = paths[start : start + self.writes_most]
            success = [{"request_delete_range": {"key": b64(self._key(path))}} for path in chunk]
            await self._call("/v3/kv/txn", {"success": success})

    async def delete_same(self, path: str, value: bytes) -> bool:
        key = b64(self._key(path))
        compare = {"key": key, "target": "VALUE", "result": "EQUAL", "value": b64(value)}
        told = await self._call(
            "/v3/kv/txn", {"compare": [compare], "success": [{"request_delete_range": {"key": key}}]}
        )
        return bool(told.get("succeeded"))

    async def listed(self, path: str) -> list[tuple[str, bytes]]:
        key = self._key(path)
        found, _ = await self._range(key, prefix_end(key), PAGE)
        return [(name.removeprefix(path), value) for name, value in found]

    async def follow(self, seq: Callable[[], int]) -> AsyncIterator[tuple[Head | None, list[Entry]]]:
        head, revision = await self._head()
        yield head, await self._entries(seq(), revision) if head.seq > seq() else []
        try:
            await self.client.authenticate()
            async for result in self.client.watch(self._key("log/"), revision + 1):
                if result.get("canceled"):
                    why = result.get("cancel_reason") or f"compacted at {result.get('compact_revision')}"
                    raise StoreUnavailableError(f"store {self.url}: the watch was ended: {why}")
                values = [
                    base64.b64decode(event["kv"].get("value", ""))
                    for event in result.get("events", [])
                    if event.get("type", "PUT") == "PUT"
                ]
                if values:
                    yield None, [await self._whole(read_entry(value)) for value in values]
        except (EtcdError, FetchError) as error:
            if isinstance(error, EtcdError) and error.code == UNAUTHENTICATED:
                self.client.forget_token()
            raise self._explain(error) from error

    def next_server(self) -> None:
        self.client.next_endpoint()

    async def close(self) -> None:
        await self.client.fetch.close()
