"""What control has issued and who holds it: the record behind `fairlead certs` and the steps of a rotation.

A certificate stays in the record until it ends. Of a workload the last one issued counts as the one that it uses,
unless its sidecar, connected, says otherwise.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

import msgspec

LEAVES_PER_WORKLOAD = 1024
"""Of one that asks again and again the latest are kept: so many, since what is not on record cannot be revoked."""


class IssuedLeaf(msgspec.Struct, frozen=True, rename="camel"):
    """A certificate that was issued and has not ended."""

    serial: str
    """Hexadecimal."""
    identity: str
    workload: str
    """namespace/name."""
    issuer: str
    """Key identifier of the authority that signed it, hexadecimal."""
    issued_at: float
    not_after: float
    """Unix seconds, both."""
    by: str = ""
    """What the workload showed: token, certificate, socket."""
    parent: str = ""
    """Serial of the certificate that it showed."""
    token: str = ""
    """Id of the token with which this began: the one that was shown, or that of the certificate that was."""


class Issued:
    """All certificates that have not ended, by workload and identity: who asks names a workload by its own word, and
    must not put what it got in the place of what another has."""

    def __init__(self) -> None:
        self._leaves: dict[tuple[str, str], list[IssuedLeaf]] = {}

    def add(self, leaf: IssuedLeaf) -> None:
        held = self._leaves.setdefault((leaf.workload, leaf.identity), [])
        held.append(leaf)
        if len(held) > LEAVES_PER_WORKLOAD or held[0].not_after <= leaf.issued_at:
            held[:] = [one for one in held if one.not_after > leaf.issued_at][-LEAVES_PER_WORKLOAD:]

    def forget(self, now: float) -> None:
        """Drop what has ended."""
        self._leaves = {
            key: left
            for key, leaves in self._leaves.items()
            if (left := [one for one in leaves if one.not_after > now])
        }

    def last(self, now: float, without: Container[str] = ()) -> Iterator[IssuedLeaf]:
        """Of each workload and identity the certificate issued last that has not ended, but for the serials
        `without`."""
        for leaves in self._leaves.values():
            found = next((leaf for leaf in reversed(leaves) if leaf.serial not in without), None)
            if found is not None and found.not_after > now:
                yield found

    def all(self, now: float) -> Iterator[IssuedLeaf]:
        for leaves in self._leaves.values():
            yield from (one for one in leaves if one.not_after > now)

    def find(self, serial: str, workload: str, identity: str) -> IssuedLeaf | None:
        """A certificate by its serial; who renews usually does it under the same name."""
        for leaves in (self._leaves.get((workload, identity), []), *self._leaves.values()):
            for leaf in leaves:
                if leaf.serial == serial:
                    return leaf
        return None

    def __len__(self) -> int:
        return sum(len(leaves) for leaves in self._leaves.values())


_decode = msgspec.json.Decoder(IssuedLeaf).decode
_encode = msgspec.json.Encoder().encode


def line_of(leaf: IssuedLeaf) -> bytes:
    return _encode(leaf) + b"\n"


def read(lines: Iterable[bytes], now: float) -> tuple[Issued, int]:
    """The record in a file of lines, and how many of them cannot be read (a write cut off by a crash)."""
    found, damaged = Issued(), 0
    for line in lines:
        try:
            leaf = _decode(line)
        except (msgspec.MsgspecError, ValueError):
            damaged += bool(line.strip())
            continue
        if leaf.not_after > now:
            found.add(leaf)
    return found, damaged
