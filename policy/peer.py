"""Who is at the other end of a connection, as far as policy may know it."""

from __future__ import annotations

from collections.abc import Mapping

from ..registry.model import Workload
from ..registry.snapshot import Snapshot
from .resources import MeshConfigSpec


class Peer:
    """The workloads that the other end may be; a label rule must hold for every one of them."""

    __slots__ = ("identity", "ip", "label", "namespace", "namespace_labels", "service_account", "workloads")

    def __init__(
        self,
        *,
        ip: str = "",
        identity: str = "",
        namespace: str = "",
        service_account: str = "",
        workloads: tuple[Workload, ...] = (),
        namespace_labels: Mapping[str, str] | None = None,
    ) -> None:
        self.ip = ip
        self.identity = identity
        """Verified SPIFFE id; empty: none."""
        self.namespace = namespace
        """Of the identity; empty without one, and where host-network workloads may be behind it."""
        self.service_account = service_account
        self.workloads = workloads
        """Host-network workloads are left out: their traffic counts as their node's address."""
        self.namespace_labels: Mapping[str, str] = namespace_labels or {}
        """Of `namespace`."""
        self.label = self._label()

    def _label(self) -> str:
        if len(self.workloads) == 1:
            return f"{self.workloads[0].namespace}/{self.workloads[0].name or '(any)'}"
        if self.identity:
            return self.identity
        return self.ip or "a peer without identity"


def split_identity(identity: str) -> tuple[str, str, str] | None:
    """(trust domain, namespace, service account) of a SPIFFE id in Istio's form, else None."""
    parts = identity.removeprefix("spiffe://").split("/")
    if not identity.startswith("spiffe://") or len(parts) != 5 or parts[1] != "ns" or parts[3] != "sa":
        return None
    return (parts[0], parts[2], parts[4]) if all(parts) else None


def identity_of(trust_domain: str, namespace: str, service_account: str) -> str:
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account or 'default'}"


def identify(snapshot: Snapshot, mesh: MeshConfigSpec, identity: str, ip: str) -> Peer:
    """A peer from its verified identity and address.

    An identity of our trust domain stands for all workloads with that namespace and service account; where the
    address belongs to one of them, for just that one. Without identity, the workloads at the address. A foreign
    trust domain names none of our workloads.
    """
    split = split_identity(identity)
    at_address = snapshot.workloads_at(ip) if ip else ()
    if split is None:
        return Peer(ip=ip, identity=identity, workloads=_in_mesh(at_address))
    trust_domain, namespace, account = split
    if trust_domain != mesh.trust_domain and trust_domain not in mesh.trust_domain_aliases:
        return Peer(ip=ip, identity=identity)
    own = snapshot.workloads_as(namespace, account)
    here = tuple(workload for workload in own if workload in at_address) if at_address else ()
    behind = _in_mesh(here or own)
    return Peer(
        ip=ip,
        identity=identity,
        namespace=namespace if behind or not own else "",
        service_account=account,
        workloads=behind,
        namespace_labels=snapshot.namespace_labels(namespace),
    )


def as_peer(snapshot: Snapshot, mesh: MeshConfigSpec, workload: Workload, ip: str = "") -> Peer:
    """A workload that we know, or imagine, to be the peer, with its mesh identity."""
    return Peer(
        ip=ip or (workload.addresses[0] if workload.addresses else ""),
        identity=identity_of(mesh.trust_domain, workload.namespace, workload.service_account),
        namespace="" if workload.host_network else workload.namespace,
        service_account=workload.service_account,
        workloads=_in_mesh((workload,)),
        namespace_labels=snapshot.namespace_labels(workload.namespace),
    )


def _in_mesh(workloads: tuple[Workload, ...]) -> tuple[Workload, ...]:
    """None at all where one of them is on the host's network: it may be that one, which is no pod to any rule."""
    return () if any(workload.host_network for workload in workloads) else workloads
