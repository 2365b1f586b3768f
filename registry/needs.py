"""What registry and mesh code needs of the world above: an HTTP client, as a type to be passed in.

control/fetch.py provides one on aiohttp, proxy/client.py one for sidecars that imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct


class FetchError(Exception):
    """No complete answer: not connected, cut off, or too slow. `str()` says which, of what address."""


class Reply(Struct, frozen=True):
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


class ReplyStream(Protocol):
    """An answer whose body is read as it comes; ends when the peer ends it, raises FetchError when cut."""

    status: int
    headers: Mapping[str, str]

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Fetch(Protocol):
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 10.0,
    ) -> Reply:
        """One request, whole answer. Any status is an answer; raises FetchError where there was none."""
        ...

    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        connect_timeout_s: float = 2.0,
        idle_timeout_s: float | None = None,
    ) -> AbstractAsyncContextManager[ReplyStream]:
        """A request with an answer without end (watch, feed). `idle_timeout_s`: longest silence before FetchError."""
        ...

    async def close(self) -> None: ...
