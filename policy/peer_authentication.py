"""PeerAuthentication: the mutual TLS mode of a workload's port."""

from __future__ import annotations

from collections.abc import Sequence

from ..registry.model import Workload
from .resources import PeerAuthentication
from .visibility import labels_hold

DEFAULT_MODE = "PERMISSIVE"


class PeerMode:
    """`mode` is STRICT, PERMISSIVE or DISABLE; `by` names the PeerAuthentication that says so, or is empty."""

    __slots__ = ("by", "mode")

    def __init__(self, mode: str, by: str) -> None:
        self.mode = mode
        self.by = by


def peer_mode(
    policies: Sequence[PeerAuthentication], root_namespace: str, workload: Workload, port: int = 0
) -> PeerMode:
    """The mode of *workload* port `port` (0: of the workload). `policies` in order of age.

    Port over workload over namespace over mesh; on each level the oldest alone counts, and UNSET falls through. A
    policy with a selector in the root namespace is ignored (Istio).
    """
    on_workload = on_namespace = on_mesh = None
    for policy in policies:
        selector = policy.spec.selector
        selected = selector is not None and bool(selector.match_labels)
        if policy.meta.namespace == root_namespace:
            if not selected:
                on_mesh = on_mesh or policy
                if workload.namespace == root_namespace:
                    on_namespace = on_namespace or policy
        elif policy.meta.namespace == workload.namespace:
            if selector is not None and selected:
                if labels_hold(selector.match_labels, workload.labels):
                    on_workload = on_workload or policy
            else:
                on_namespace = on_namespace or policy
    if on_workload is not None and port:
        own = on_workload.spec.port_level_mtls.get(str(port))
        if own is not None and own.mode != "UNSET":
            return PeerMode(own.mode, f"PeerAuthentication {on_workload.meta.key} port {port}")
    for found in (on_workload, on_namespace, on_mesh):
        if found is not None and found.spec.mtls is not None and found.spec.mtls.mode != "UNSET":
            return PeerMode(found.spec.mtls.mode, f"PeerAuthentication {found.meta.key}")
    return PeerMode(DEFAULT_MODE, "")
