"""Hosts in rules: completion of short names, spellings of a service, and the search for the most specific."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from ..registry.names import split_service_host

T = TypeVar("T")


def complete(host: str, namespace: str, cluster_domain: str) -> str:
    """The full name of a host in a rule of `namespace`: only a name without any dot is completed (Istio)."""
    host = host.lower()
    if "." in host or "*" in host or ":" in host or not host:
        return host[:-1] if host.endswith(".") else host
    return f"{host}.{namespace}.svc.{cluster_domain}"


def spellings(host: str, cluster_domain: str, client_namespace: str) -> list[str]:
    """All names by which a client of `client_namespace` may call the service `host`, the full one first.

    The bare name counts only within the service's own namespace. A trailing dot is taken off before the search.
    """
    split = split_service_host(host, cluster_domain)
    if split is None:
        return [host]
    namespace, name = split
    names = [host, f"{name}.{namespace}.svc", f"{name}.{namespace}"]
    if namespace == client_namespace:
        names.append(name)
    return names


def split_authority(authority: str) -> tuple[str, int]:
    """(host in lower case without trailing dot and brackets, port or 0) of a Host header; never raises."""
    host, colon, port = authority.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = authority, ""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    host = host.lower()
    if host.endswith("."):
        host = host[:-1]
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    return host, number


def covers(pattern: str, host: str) -> bool:
    """Whether a rule's host (perhaps `*`, `*.a.b` or `*-x.a.b`) stands for `host`; both in lower case."""
    if not pattern.startswith("*"):
        return pattern == host
    tail = pattern[1:]
    return host.endswith(tail) and len(host) > len(tail)


class Domains(Generic[T]):
    """Things by host, found by exact name, then the longest wildcard, then `*`. The first that claims one keeps it."""

    __slots__ = ("_aligned", "_partial", "exact", "star")

    def __init__(self) -> None:
        self.exact: dict[str, T] = {}
        self._aligned: dict[str, T] | None = None
        """By suffix with leading dot: `*.foo.com` is `.foo.com`."""
        self._partial: tuple[tuple[str, T], ...] = ()
        """Suffixes not at a dot, longest first."""
        self.star: T | None = None

    def claim(self, host: str, thing: T) -> bool:
        """Give `host` to `thing` unless it is taken; whether it was free."""
        if not host.startswith("*"):
            return self.exact.setdefault(host, thing) is thing
        tail = host[1:]
        if not tail:
            if self.star is None:
                self.star = thing
            return self.star is thing
        if tail.startswith("."):
            if self._aligned is None:
                self._aligned = {}
            return self._aligned.setdefault(tail, thing) is thing
        if any(own == tail for own, _ in self._partial):
            return False
        self._partial = tuple(sorted((*self._partial, (tail, thing)), key=lambda item: -len(item[0])))
        return True

    def find(self, host: str) -> T | None:
        """What stands for `host` (lower case, no trailing dot)."""
        found = self.exact.get(host)
        return found if found is not None else self.find_wildcard(host)

    def find_wildcard(self, host: str) -> T | None:
        best: T | None = None
        length = 0
        if self._aligned:
            dot = host.find(".", 1)
            while dot >= 0:
                best = self._aligned.get(host[dot:])
                if best is not None:
                    length = len(host) - dot
                    break
                dot = host.find(".", dot + 1)
        for tail, thing in self._partial:
            if len(tail) <= length:
                break
            if host.endswith(tail) and len(host) > len(tail):
                return thing
        return best if best is not None else self.star

    def get(self, host: str) -> T | None:
        """The thing that claimed exactly this text, wildcard or not."""
        if not host.startswith("*"):
            return self.exact.get(host)
        if host == "*":
            return self.star
        if host.startswith("*."):
            return self._aligned.get(host[1:]) if self._aligned is not None else None
        return next((thing for tail, thing in self._partial if tail == host[1:]), None)

    def items(self) -> Iterator[tuple[str, T]]:
        """(host as claimed, thing) of each, wildcards last."""
        yield from self.exact.items()
        yield from ((f"*{tail}", thing) for tail, thing in (self._aligned or {}).items())
        yield from ((f"*{tail}", thing) for tail, thing in self._partial)
        if self.star is not None:
            yield "*", self.star

    def values(self) -> Iterator[T]:
        yield from self.exact.values()
        if self._aligned is not None:
            yield from self._aligned.values()
        yield from (thing for _, thing in self._partial)
        if self.star is not None:
            yield self.star
