"""Loopback addresses for services: each has one of 127.64.0.0/10, the same after a restart as far as possible.

An address comes from the service's name; where two names meet, the later in order of names goes to the next free one.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..registry.digest import blake2b

FIRST = (127 << 24) | (64 << 16)
COUNT = 1 << 22
"""Addresses of 127.64.0.0/10."""
TRIES = 4096


def text(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def wanted(host: str) -> int:
    return int.from_bytes(blake2b(host.encode(), digest_size=8).digest(), "big") % COUNT


def assign(hosts: Iterable[str], before: dict[str, str] | None = None) -> dict[str, str]:
    """An address for each host. Whoever has one in `before` keeps it, so that connections in use stay right."""
    names = sorted(set(hosts))
    found = {host: before[host] for host in names if before and host in before}
    taken = set(found.values())
    for host in names:
        if host in found:
            continue
        at = wanted(host)
        for step in range(TRIES):
            offset = (at + step) % COUNT
            address = text(FIRST + offset)
            if offset & 255 not in (0, 255) and address not in taken:
                found[host] = address
                taken.add(address)
                break
    return found
