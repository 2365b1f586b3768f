"""Shell: etcd's v3 API by its JSON gateway: calls that are tried on each endpoint in turn, authentication, watches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from .backoff import Backoff
from .etcd_values import EtcdSettings, b64, prefix_end
from .needs import Fetch, FetchError

CALL_S = 1.5
TRIES = 8
UNAVAILABLE, UNAUTHENTICATED, DENIED = 14, 16, 7
LINE_BYTES_MAX = 64 << 20


class EtcdError(Exception):
    """etcd refused; `code` is gRPC's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class EtcdClient:
    def __init__(self, fetch: Fetch, settings: EtcdSettings) -> None:
        self.fetch = fetch
        self.settings = settings
        self._turn = 0
        self._token = ""

    @property
    def endpoint(self) -> str:
        return self.settings.endpoints[self._turn % len(self.settings.endpoints)]

    def next_endpoint(self) -> None:
        self._turn += 1

    def forget_token(self) -> None:
        self._token = ""

    async def once(self, path: str, body: dict[str, Any], endpoint: str = "") -> dict[str, Any]:
        """One call to one endpoint. Raises EtcdError, FetchError."""
        reply = await self.fetch.request(
            "POST",
            (endpoint or self.endpoint) + path,
            headers=self._headers(),
            body=msgspec.json.encode(body),
            timeout_s=CALL_S,
        )
        told = _read(reply.body, f"an answer of etcd (status {reply.status})")
        if reply.status != 200:
            message = str(told.get("message") or told.get("error"))
            # A JWT is good for one revision of users and roles; etcd calls an older one an invalid argument.
            old = message.endswith("revision of auth store is old")
            raise EtcdError(UNAUTHENTICATED if old else _code(told.get("code")), message)
        return told

    async def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A call that may be repeated, on each endpoint in turn until one answers. Raises EtcdError, FetchError."""
        backoff = Backoff(0.05, 1.0)
        for attempt in range(TRIES):
            try:
                await self.authenticate()
                return await self.once(path, body)
            except EtcdError as error:
                if error.code == UNAUTHENTICATED and attempt < TRIES - 1:
                    self.forget_token()
                    continue
                if error.code != UNAVAILABLE or attempt == TRIES - 1:
                    raise
            except FetchError as error:
                told = str(error).lower()
                distrust = "certificate verify failed" in told or "alert certificate" in told
                if attempt == TRIES - 1 or (distrust and attempt + 1 >= len(self.settings.endpoints)):
                    raise
            self.next_endpoint()
            await asyncio.sleep(backoff.pause(random.random()))
        raise EtcdError(UNAVAILABLE, "no endpoint answered")

    async def authenticate(self) -> None:
        if self.settings.user and not self._token:
            told = await self.once(
                "/v3/auth/authenticate", {"name": self.settings.user, "password": self.settings.password}
            )
            self._token = str(told["token"])

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        return headers | {"authorization": self._token} if self._token else headers

    async def watch(self, prefix: bytes, revision: int) -> AsyncIterator[dict[str, Any]]:
        """The results of a watch from `revision` on, one a message. Raises EtcdError, FetchError; never just ends."""
        request = {
            "key": b64(prefix or b"\0"),
            "range_end": b64(prefix_end(prefix)),
            "start_revision": str(revision),
            "progress_notify": True,
        }
        # Without `hasleader` a member cut off from the others stays silent for as long as the cut lasts (measured).
        headers = {**self._headers(), "grpc-metadata-hasleader": "true"}
        body = msgspec.json.encode({"create_request": request})
        async with self.fetch.stream("POST", f"{self.endpoint}/v3/watch", headers=headers, body=body) as stream:
            buffer = bytearray()
            async for chunk in stream:
                buffer += chunk
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    if line.strip():
                        yield _result(line)
                if len(buffer) > LINE_BYTES_MAX:
                    raise EtcdError(-1, "a line of the watch is too long")
            if buffer and stream.status != 200:
                yield _result(bytes(buffer))
        raise EtcdError(UNAVAILABLE, "the watch ended")


def _read(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise EtcdError(-1, f"not {what}: {data[:200]!r}")
    return found


def _code(value: Any) -> int:
    return value if isinstance(value, int) else -1


def _result(line: bytes) -> dict[str, Any]:
    message = _read(line, "a message of a watch")
    error = message.get("error")
    if isinstance(error, dict):  # 3.4 says grpc_code, 3.5 code
        raise EtcdError(_code(error.get("grpc_code") or error.get("code")), str(error.get("message")))
    result = message.get("result")
    if error or not isinstance(result, dict):
        raise EtcdError(_code(message.get("code")), str(message.get("message") or error or "no result"))
    return result
