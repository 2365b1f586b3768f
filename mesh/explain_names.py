"""What a name means in the mesh's DNS: the zone's own answer to it, for `fairlead explain`."""

from __future__ import annotations

from typing import Any

from ..dns.message import AAAA, CNAME, NXDOMAIN, A, wire_name
from ..dns.records import Found, ZoneOptions
from ..dns.zone import Zone
from ..registry.snapshot import Snapshot
from . import loopback

ADDRESSES_SHOWN = 8


class Names:
    """Asks the zone that `fairlead dns` would serve from the same snapshot."""

    def __init__(self, snapshot: Snapshot, cluster_domain: str) -> None:
        self._snapshot = snapshot
        self._domain = cluster_domain
        self._zone: Zone | None = None
        self._loopbacks: dict[str, str] = {}

    def search_path(self, namespace: str) -> list[str]:
        """The suffixes that Kubernetes gives the resolver of a client in `namespace`."""
        return [f"{namespace}.svc.{self._domain}", f"svc.{self._domain}", self._domain]

    def resolve(self, name: str, namespace: str) -> dict[str, Any]:
        """`name`, `answer` (the whole name that was answered, or None), `addresses`, and `questions`: each name that
        was asked for, with its `result`: as it is written, then with the suffixes of the search path."""
        whole = name.lower().rstrip(".")
        candidates = [whole]
        if not name.endswith("."):
            candidates += [f"{whole}.{suffix}" for suffix in self.search_path(namespace)]
        questions: list[dict[str, Any]] = []
        told: dict[str, Any] = {"name": name, "answer": None, "addresses": [], "questions": questions}
        for candidate in candidates:
            addresses, result, final = self._ask(candidate)
            questions.append({"name": candidate, "result": result})
            if final:
                told["answer"], told["addresses"] = candidate, addresses
                break
        return told

    def loopback(self, host: str) -> str:
        """The address that a sidecar's own DNS gives a service, on which that sidecar listens; empty where none."""
        if not self._loopbacks:
            self._loopbacks = loopback.assign(
                service.host
                for service in self._snapshot.services.values()
                if any(port.protocol == "TCP" for port in service.ports)
                and not (service.headless or service.external_name or "*" in service.host)
            )
        return self._loopbacks.get(host, "")

    def _ask(self, name: str) -> tuple[list[str], str, bool]:
        """(addresses, in words what is answered, whether the search ends there)."""
        if self._zone is None:
            self._zone = Zone(ZoneOptions(cluster_domain=self._domain))
            self._zone.update(self._snapshot)
        try:
            wire = wire_name(name)
        except ValueError as error:
            return [], f"not a DNS name: {error}", False
        found = self._zone.lookup(wire, A, True)
        if found is None:
            return [], "not a name of the mesh: the upstream resolver is asked", False
        if found.rcode == NXDOMAIN and name in self._snapshot.services:
            return [], "NXDOMAIN: the service is there, and no endpoint of it is ready to be named", True
        if found.rcode == NXDOMAIN:
            return [], "NXDOMAIN: there is no such name in the mesh", False
        also = self._zone.lookup(wire, AAAA, True) if not found.pending else None
        addresses = _addresses(found) + (_addresses(also) if also is not None else [])
        aliases = [_text(target) for rrset in found.answer if rrset.rtype == CNAME for target in rrset.rdata]
        via = f"alias of {', '.join(aliases)}: " if aliases else ""
        if found.pending:
            return addresses, f"alias of {_text(found.pending)}, for which the upstream resolver is asked", True
        if not addresses:
            return [], f"{via}the name exists and has no address (no endpoint is ready)", True
        shown = ", ".join(addresses[:ADDRESSES_SHOWN])
        more = f" and {len(addresses) - ADDRESSES_SHOWN} more" if len(addresses) > ADDRESSES_SHOWN else ""
        return addresses, f"{via}{shown}{more}", True


def _addresses(found: Found) -> list[str]:
    texts = []
    for rrset in found.answer:
        if rrset.rtype == A:
            texts += [".".join(map(str, data)) for data in rrset.rdata]
        elif rrset.rtype == AAAA:
            texts += [_ipv6(data) for data in rrset.rdata]
    return texts


def _ipv6(data: bytes) -> str:
    from ipaddress import IPv6Address

    return str(IPv6Address(data))


def _text(wire: bytes) -> str:
    labels, at = [], 0
    while at < len(wire) and wire[at]:
        labels.append(wire[at + 1 : at + 1 + wire[at]].decode("ascii", "replace"))
        at += 1 + wire[at]
    return ".".join(labels)
