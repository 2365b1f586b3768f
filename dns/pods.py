"""Workloads by address, and their names in DNS: made when asked for, as a hundred thousand would take much memory."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import suppress

from ..registry.model import Workload
from .message import AAAA, ANY, NOERROR, NXDOMAIN, A, RRset, labels_of, wire_name
from .records import Found, ZoneOptions, address_record, dashed, undashed


class Pods:
    """`has_namespace` says whether a namespace exists, given as the label of its name."""

    def __init__(self, options: ZoneOptions, has_namespace: Callable[[bytes], bool]) -> None:
        self.options = options
        self.apex = wire_name(f"pod.{options.cluster_domain}")
        self.workloads: dict[str, Workload] = {}
        """By namespace/name."""
        self._has_namespace = has_namespace
        self._placed: dict[bytes, Workload | tuple[Workload, ...]] = {}
        self._spaces: dict[str, int] = {}

    def at(self, address: str) -> tuple[Workload, ...]:
        """The workloads with this address."""
        record = address_record(address)
        return _several(self._placed.get(record[1], ())) if record else ()

    def place(self, key: str, workload: Workload | None, changed: set[bytes]) -> None:
        """Put a workload in, anew, or (None) take it out."""
        known = self.workloads.pop(key, None)
        if known is not None:
            for packed in _packed(known):
                self._left(packed, known)
                changed.add(_pod_key(packed))
            self._count(known.namespace, -1, changed)
        if workload is None:
            return
        self.workloads[key] = workload
        for packed in _packed(workload):
            others = self._placed.get(packed)
            self._placed[packed] = workload if others is None else (*_several(others), workload)
            changed.add(_pod_key(packed))
        self._count(workload.namespace, 1, changed)

    def _count(self, namespace: str, by: int, changed: set[bytes]) -> None:
        count = self._spaces.get(namespace, 0) + by
        if not count or by == count:
            changed.add(space_key(namespace))
        if count:
            self._spaces[namespace] = count
        else:
            del self._spaces[namespace]

    def _left(self, packed: bytes, workload: Workload) -> None:
        others = tuple(one for one in _several(self._placed.pop(packed, ())) if one is not workload)
        if others:
            self._placed[packed] = others[0] if len(others) == 1 else others

    def lookup(self, name: bytes, qtype: int) -> Found | None:
        """`a-b-c-d.NAMESPACE.pod.ZONE`, or what is above it; a denial without its SOA; None: no name of that form."""
        labels = labels_of(name[: -len(self.apex)] + b"\0")
        if not 0 < len(labels) < 3:
            return None
        namespace = labels[-1].decode("utf-8", "replace")
        depends: tuple[bytes, ...] = (name, space_key(namespace))
        loose = self.options.pods == "insecure"
        exists = namespace in self._spaces or (loose and self._has_namespace(labels[-1]))
        answer: tuple[RRset, ...] = ()
        if len(labels) == 2:
            record = address_record(undashed(labels[0].decode("utf-8", "replace")))
            if record is None:
                return None
            depends = (*depends, _pod_key(record[1]))
            here = _several(self._placed.get(record[1], ()))
            exists = exists and (loose or any(one.namespace == namespace for one in here))
            if exists and qtype in (record[0], ANY):
                answer = (RRset(name, record[0], self.options.ttl, (record[1],)),)
        return Found(NOERROR if exists else NXDOMAIN, answer, depends=depends)

    def names(self) -> Iterator[tuple[bytes, dict[int, RRset]]]:
        """The names of workloads' addresses, which are made when asked for."""
        if self.options.pods == "disabled":
            return
        for namespace in self._spaces:
            with suppress(ValueError):
                yield wire_name(namespace)[:-1] + self.apex, {}
        for packed, workloads in self._placed.items():
            label = dashed(str(ipaddress.ip_address(packed)))
            rtype = A if len(packed) == 4 else AAAA
            for namespace in dict.fromkeys(one.namespace for one in _several(workloads)):
                with suppress(ValueError):
                    owner = wire_name(f"{label}.{namespace}")[:-1] + self.apex
                    yield owner, {rtype: RRset(owner, rtype, self.options.ttl, (packed,))}


def _packed(workload: Workload) -> list[bytes]:
    """Its addresses, each once."""
    records = [address_record(address) for address in dict.fromkeys(workload.addresses)]
    return [record[1] for record in records if record is not None]


def _pod_key(packed: bytes) -> bytes:
    """What names of an address's pods depend on; no DNS name looks like it."""
    return b"\xffp" + packed


def space_key(namespace: str) -> bytes:
    return b"\xffq" + namespace.encode()


def _several(found: Workload | tuple[Workload, ...]) -> tuple[Workload, ...]:
    return found if isinstance(found, tuple) else (found,)
