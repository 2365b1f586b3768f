"""What a workload that nothing declares says of itself, and what of it is believed.

A certificate proves a namespace and a service account, and nothing else: labels and address are the workload's own
word. Were they believed, whoever has any token of a namespace could say `app: payments` and be sent what is meant for
that Service, with an identity that its clients accept. So they count as far as somebody who may has given them to the
account: a WorkloadGroup (Istio's; its members get its labels) or a token made with --labels, --address or --workload.
An address counts, too, where control sees the workload come from it. Pods and WorkloadEntries are not judged: what
they declare counts, whatever their sidecar says.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..registry.checks import Check, CheckError, probe
from ..registry.facts import number
from .push import OBJECT

GROUPS = "workloadgroups.networking.istio.io"
ADDRESSES = "fairlead.dev/addresses"
"""Annotation of a WorkloadGroup: networks in which its members' addresses are taken at their word."""


class Grant(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What workloads of a service account may be."""

    origin: str
    """WorkloadGroup NAMESPACE/NAME, or token ID."""
    namespace: str
    service_account: str
    workload: str = ""
    """For this one alone; empty: for any of the account."""
    labels: dict[str, str] = {}
    addresses: tuple[str, ...] = ()
    """Addresses and networks."""
    group: str = ""
    """Name of the WorkloadGroup, whose labels a member has all of, and what follows."""
    ports: dict[str, int] = {}
    locality: str = ""
    weight: int = 1
    checks: tuple[Check, ...] = ()

    def for_(self, namespace: str, service_account: str, workload: str) -> bool:
        own = (self.namespace, self.service_account) == (namespace, service_account)
        return own and self.workload in ("", workload)


class Claim(Struct, frozen=True):
    """What a workload says of itself."""

    labels: dict[str, str] = {}
    address: str = ""
    group: str = ""
    peer: str = ""
    """Where control sees it come from; empty: from control's own host (a Unix socket)."""


class Judged(Struct, frozen=True):
    """What of it counts."""

    labels: dict[str, str]
    address: str
    named: bool = True
    """Whether its name is more than its own word, so that endpoints which a source lists for it have its identity."""
    grant: Grant | None = None
    refused: tuple[str, ...] = ()
    """What does not count, why, and what to do."""


def believed(claim: Claim) -> Judged:
    """All of it: who asks has shown that they may everything, or need show nothing (development)."""
    return Judged(claim.labels, claim.address)


def judge(claim: Claim, name: str, account: str, grants: Sequence[Grant], is_ours: Callable[[str], bool]) -> Judged:
    """What counts of the claim of workload `name` (namespace/name), proved to be of this service account.

    `grants`: those for it. `is_ours(address)`: whether control's own host has this address.
    """
    refused: list[str] = []
    fitting = [one for one in grants if not claim.group or one.group == claim.group]
    best = max(fitting, key=lambda one: len(one.labels.items() & claim.labels.items()), default=None)
    if claim.group and best is None:
        refused.append(
            f"group {claim.group}: there is no WorkloadGroup {name.partition('/')[0]}/{claim.group} whose "
            f"serviceAccount is {account}"
        )
    given = best.labels if best is not None else {}
    extra = {key: value for key, value in claim.labels.items() if given.get(key) != value}
    if extra:
        told = ",".join(f"{key}={value}" for key, value in sorted(extra.items()))
        refused.append(
            f"labels {told}: service account {account} has not been given them; declare {name} as a WorkloadEntry or "
            f"Pod, or its account's labels in a WorkloadGroup, or make its token with --labels {told}"
        )
    labels = {key: value for key, value in claim.labels.items() if key not in extra}
    if best is not None and best.group and (claim.group or labels):
        labels = dict(best.labels)
    else:
        best = best if best is not None and not best.group else None
    address = claim.address
    if address and not _comes_from(address, claim.peer, is_ours) and not any(_within(address, one) for one in grants):
        refused.append(
            f"address {address}: it connects from {claim.peer or 'this host'}; declare {name} as a WorkloadEntry or "
            f"Pod, or make its token with --addresses {address}"
        )
        address = ""
    named = any(one.workload for one in grants)
    return Judged(labels, address, named, best, tuple(refused))


def _comes_from(address: str, peer: str, is_ours: Callable[[str], bool]) -> bool:
    claimed, seen = _ip(address), _ip(peer)
    if claimed is None:
        return False  # a name: nobody comes from one
    if (peer and seen is None) or claimed.is_unspecified or claimed.is_multicast:
        return False
    if seen is not None and claimed == seen:
        return True
    return (seen is None or seen.is_loopback) and (claimed.is_loopback or is_ours(address))


def _within(address: str, grant: Grant) -> bool:
    ip = _ip(address)
    for one in grant.addresses:
        if one == address:
            return True
        try:
            if ip is not None and ip in ipaddress.ip_network(one, strict=False):
                return True
        except ValueError:
            continue
    return False


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """IPv4 as such, also where a socket of both families calls it ::ffff:a.b.c.d."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found


def grant_of_group(body: Mapping[str, Any]) -> Grant:
    """What a WorkloadGroup, admitted, gives to its members."""
    metadata, spec = body.get("metadata") or {}, body.get("spec") or {}
    template = spec.get("template") or {}
    namespace, name = str(metadata.get("namespace") or "default"), str(metadata.get("name") or "")
    ports = {str(port): number(value) for port, value in (template.get("ports") or {}).items()}
    checks: tuple[Check, ...] = ()
    if spec.get("probe") is not None:
        try:
            checks = (probe("readiness", spec["probe"], ports),)
        except CheckError:
            pass  # `validate` and the API have told
    within = str((metadata.get("annotations") or {}).get(ADDRESSES) or "")
    return Grant(
        f"WorkloadGroup {namespace}/{name}",
        namespace,
        str(template.get("serviceAccount") or "default"),
        labels={**((spec.get("metadata") or {}).get("labels") or {}), **(template.get("labels") or {})},
        addresses=tuple(within.replace(",", " ").split()),
        group=name,
        ports=ports,
        locality=str(template.get("locality") or ""),
        weight=number(template.get("weight"), 1) or 1,
        checks=checks,
    )


def groups_of(objects: Mapping[str, Mapping[str, Any]]) -> list[Grant]:
    """Of all WorkloadGroups among objects by item key."""
    mine = f"{OBJECT}{GROUPS}/"
    return [grant_of_group(body) for key, body in sorted(objects.items()) if key.startswith(mine)]
