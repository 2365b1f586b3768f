"""Everything at one version: what sources said, merged; look up by host, address and identity."""

from __future__ import annotations

from collections.abc import Mapping

from .model import Changed, Endpoint, Service, SourceStatus, Workload


class Snapshot:
    """Immutable. `version` grows by one with every change within a process."""

    __slots__ = (
        "_by_address",
        "_by_identity",
        "changed",
        "endpoints",
        "namespaces",
        "services",
        "sources",
        "version",
        "workloads",
    )

    def __init__(
        self,
        version: int = 0,
        services: Mapping[str, Service] | None = None,
        endpoints: Mapping[str, tuple[Endpoint, ...]] | None = None,
        workloads: Mapping[str, Workload] | None = None,
        namespaces: Mapping[str, Mapping[str, str]] | None = None,
        sources: Mapping[str, SourceStatus] | None = None,
        changed: Changed | None = None,
    ) -> None:
        self.version = version
        self.changed = changed
        """What may be different from the version before; None: not known."""
        self.services: Mapping[str, Service] = services or {}
        """By host."""
        self.endpoints: Mapping[str, tuple[Endpoint, ...]] = endpoints or {}
        """By service host: all endpoints, ready or not, selectors already applied."""
        self.workloads: Mapping[str, Workload] = workloads or {}
        """By namespace/name."""
        self.namespaces: Mapping[str, Mapping[str, str]] = namespaces or {}
        """Labels by namespace name; `kubernetes.io/metadata.name` is always among them."""
        self.sources: Mapping[str, SourceStatus] = sources or {}
        self._by_address: dict[str, tuple[Workload, ...]] | None = None
        self._by_identity: dict[tuple[str, str], tuple[Workload, ...]] | None = None

    def workloads_at(self, address: str) -> tuple[Workload, ...]:
        """The workloads with this address; several where host network or loopback addresses are shared."""
        if self._by_address is None:
            found: dict[str, tuple[Workload, ...]] = {}
            for workload in self.workloads.values():
                for own in workload.addresses:
                    found[own] = (*found.get(own, ()), workload)
            self._by_address = found
        return self._by_address.get(address, ())

    def workloads_as(self, namespace: str, service_account: str) -> tuple[Workload, ...]:
        """The workloads that run under this identity."""
        if self._by_identity is None:
            found: dict[tuple[str, str], tuple[Workload, ...]] = {}
            for workload in self.workloads.values():
                key = (workload.namespace, workload.service_account)
                found[key] = (*found.get(key, ()), workload)
            self._by_identity = found
        return self._by_identity.get((namespace, service_account), ())

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        """Labels of a namespace; one nobody declared has just its name."""
        return self.namespaces.get(name) or {"kubernetes.io/metadata.name": name}
