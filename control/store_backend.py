"""What a shared store needs of its key-value storage; `store_etcd` and `store_consul` have it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from .store_entries import Entry, Head


class Backend(Protocol):
    """A key-value storage; paths are below the store's prefix. Every method raises StoreUnavailableError where the
    storage does not answer, StoreError where it refuses."""

    url: str
    value_most: int
    """Octets of one value."""
    writes_most: int
    """Keys of one transaction."""
    bytes_most: int
    """Octets of values in one transaction."""

    async def head(self) -> Head:
        """As it is now (a read that every majority agrees to)."""
        ...

    async def load(self) -> tuple[Head, list[tuple[str, bytes]], list[Entry]]:
        """(head, values below `objects/`, the log in order); neither objects nor head are newer than the log."""
        ...

    async def entries(self, after: int) -> list[Entry]:
        """The log after this seq, in order."""
        ...

    async def commit(
        self, before: Head, after: Head, puts: Sequence[tuple[str, bytes]], deletes: Sequence[str]
    ) -> bool:
        """All of it and the new head, if the head is `before`; whether it was."""
        ...

    async def put(self, path: str, value: bytes) -> None: ...

    async def delete(self, paths: Sequence[str]) -> None: ...

    async def delete_same(self, path: str, value: bytes) -> bool:
        """Delete it where it still has this value; whether it had."""
        ...

    async def listed(self, path: str) -> list[tuple[str, bytes]]:
        """(path below this one, value)."""
        ...

    def follow(self, seq: Callable[[], int]) -> AsyncIterator[tuple[Head | None, list[Entry]]]:
        """First the head and the log after seq(), then what is new, as it comes; ends only by raising."""
        ...

    def next_server(self) -> None:
        """The one in use does not tell what it should."""
        ...

    async def close(self) -> None: ...


def untrusted(told: str, ca: str, pair: str) -> str:
    """What to do about TLS that does not come about; empty: that is not what is wrong. `ca`, `pair`: the variables that
    name the authority, and our certificate with its key."""
    low = told.lower()
    if "certificate verify failed" in low:
        if "expired" in low:
            return "its certificate has ended: have it renewed"
        if "mismatch" in low or "not valid for" in low:
            return "its certificate is for other names: dial it by one of those"
        return f"{ca} has to name the authority that vouches for it"
    if "alert" in low and ("certificate" in low or "unknown ca" in low):
        return f"it wants the certificate of a client that it knows: {pair}"
    return ""


def hung_up(told: str, pair: str) -> str:
    """With TLS 1.3 a server that wants a client's certificate may just close."""
    closed = any(
        one in told.lower() for one in ("disconnected", "reset", "broken pipe", "closing transport", "can not write")
    )
    return f"; if it wants a client's certificate: {pair}" if closed else ""
