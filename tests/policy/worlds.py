"""Worlds from YAML text for tests of policy/: typed resources and a snapshot, without going through validation."""

from __future__ import annotations

import re
from typing import Any

import yaml
from msgspec import convert

from fairlead.policy import resources as r
from fairlead.policy.compile import compile_tables
from fairlead.policy.tables import Arrival, SimpleRequest, Tables, Viewpoint
from fairlead.registry.model import Endpoint, Service, ServicePort, Workload, WorkloadPort
from fairlead.registry.names import service_host
from fairlead.registry.snapshot import Snapshot

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_KINDS: dict[str, tuple[str, Any, Any]] = {
    "VirtualService": ("virtual_services", r.VirtualService, r.VirtualServiceSpec),
    "DestinationRule": ("destination_rules", r.DestinationRule, r.DestinationRuleSpec),
    "NetworkPolicy": ("network_policies", r.NetworkPolicy, r.NetworkPolicySpec),
    "PeerAuthentication": ("peer_authentications", r.PeerAuthentication, r.PeerAuthenticationSpec),
    "AuthorizationPolicy": ("authorization_policies", r.AuthorizationPolicy, r.AuthorizationPolicySpec),
    "RequestAuthentication": (
        "request_authentications",
        r.RequestAuthentication,
        r.RequestAuthenticationSpec,
    ),
    "LocalRateLimit": ("local_rate_limits", r.LocalRateLimit, r.LocalRateLimitSpec),
}


class World:
    """`source` names a workload; without one the client is anybody in `namespace` with `labels`."""

    def __init__(self, text: str) -> None:
        lists: dict[str, list[Any]] = {name: [] for name, _, _ in _KINDS.values()}
        mesh = r.MeshConfig()
        self.services: dict[str, Service] = {}
        self.workloads: dict[str, Workload] = {}
        self.namespaces: dict[str, dict[str, str]] = {}
        self.extra: dict[str, tuple[Endpoint, ...]] = {}
        for number, document in enumerate(one for one in yaml.safe_load_all(text) if one):
            kind = document["kind"]
            meta = _meta(document, number)
            if kind == "MeshConfig":
                mesh = r.MeshConfig(meta, convert(_seconds(document["spec"]), r.MeshConfigSpec))
            elif kind in _KINDS:
                name, resource, spec = _KINDS[kind]
                lists[name].append(resource(meta, convert(_seconds(document.get("spec") or {}), spec)))
            elif kind == "Namespace":
                self.namespaces[meta.name] = {"kubernetes.io/metadata.name": meta.name, **meta.labels}
            elif kind == "Service":
                self._service(meta, document.get("spec") or {})
            elif kind == "External":
                self._external(meta, document["spec"])
            elif kind == "Pod":
                self._pod(meta, document.get("spec") or {})
        ordered = {
            name: tuple(sorted(found, key=lambda one: (one.meta.created, one.meta.name, one.meta.namespace)))
            for name, found in lists.items()
        }
        self.resources = r.Resources(**ordered, mesh=mesh)
        endpoints = {host: self._endpoints(service) for host, service in self.services.items()}
        self.snapshot = Snapshot(1, self.services, {**endpoints, **self.extra}, self.workloads, self.namespaces)

    def _service(self, meta: r.Meta, spec: dict[str, Any]) -> None:
        ports = tuple(
            ServicePort(
                one["port"], one.get("name", ""), one.get("protocol", "TCP"), one.get("appProtocol", ""),
                one.get("targetPort", 0),
            )
            for one in spec.get("ports", ())
        )  # fmt: skip
        host = service_host(meta.namespace, meta.name)
        self.services[host] = Service(
            host,
            meta.namespace,
            meta.name,
            ports,
            addresses=tuple(spec.get("clusterIPs", ())),
            headless=spec.get("clusterIP") == "None",
            external_name=spec.get("externalName", ""),
            selector=spec.get("selector"),
            export_to=tuple(spec.get("exportTo", ())),
            created=meta.created,
        )

    def _external(self, meta: r.Meta, spec: dict[str, Any]) -> None:
        ports = tuple(
            ServicePort(one["number"], one["name"], "TCP", one.get("protocol", "").lower()) for one in spec["ports"]
        )
        for host in spec["hosts"]:
            self.services[host] = Service(
                host, meta.namespace, host, ports, external=True, resolution=spec.get("resolution", "NONE"),
                addresses=tuple(spec.get("addresses", ())), export_to=tuple(spec.get("exportTo", ())),
            )  # fmt: skip

    def _pod(self, meta: r.Meta, spec: dict[str, Any]) -> None:
        ports = tuple(
            WorkloadPort(one["containerPort"], one.get("name", ""), one.get("protocol", "TCP"))
            for container in spec.get("containers", ())
            for one in container.get("ports", ())
        )
        workload = Workload(
            meta.namespace,
            meta.name,
            (spec["ip"],) if "ip" in spec else (f"10.1.0.{len(self.workloads) + 1}",),
            ports,
            meta.labels,
            service_account=spec.get("serviceAccountName", "default"),
            locality=spec.get("locality", ""),
            mesh_port=spec.get("meshPort", 15006),
            host_network=spec.get("hostNetwork", False),
            ready=spec.get("ready", True),
            why="" if spec.get("ready", True) else "readiness probe failed",
        )
        self.workloads[workload.key] = workload

    def _endpoints(self, service: Service) -> tuple[Endpoint, ...]:
        found = []
        for workload in self.workloads.values() if service.selector is not None else ():
            selector = service.selector or {}
            if workload.namespace != service.namespace or selector.items() - workload.labels.items():
                continue
            for port in service.ports:
                number = port.target or port.number
                if isinstance(number, str):
                    number = next((one.number for one in workload.ports if one.name == number), 0)
                if number:
                    found.append(
                        Endpoint(
                            workload.addresses[0],
                            number,
                            port.name,
                            ready=workload.ready,
                            labels=workload.labels,
                            locality=workload.locality,
                            workload=workload.key,
                            namespace=workload.namespace,
                            service_account=workload.service_account,
                            mesh_port=workload.mesh_port,
                            why=workload.why,
                        )
                    )
        return tuple(found)

    def client(
        self, source: str = "", namespace: str = "default", labels: dict[str, str] | None = None, gateway: str = ""
    ) -> Tables:
        workload = self.workloads[source] if source else Workload(namespace, "client", labels=labels or {})
        return compile_tables(self.resources, self.snapshot, Viewpoint(workload, gateway))


def _meta(document: dict[str, Any], number: int) -> r.Meta:
    given = document["metadata"]
    return r.Meta(
        given["name"],
        given.get("namespace", "default"),
        given.get("labels", {}),
        given.get("annotations", {}),
        created=float(given.get("created", 0.0)),
        source=f"test.yaml:{number}",
    )


def _seconds(value: Any, key: str = "") -> Any:
    """Durations as seconds; `regex`, `exact` and other texts are left alone."""
    if isinstance(value, dict):
        return {name: _seconds(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_seconds(one) for one in value]
    times = ("imeout", "elay", "nterval", "Time", "ttl", "axAge", "backoff", "time", "uration", "Secs")
    if isinstance(value, str) and key.endswith(times) and (found := _DURATION.fullmatch(value)):
        return float(found[1]) * _UNITS[found[2]]
    return value


def get(
    authority: str,
    path: str = "/",
    method: str = "GET",
    *,
    port: int = 0,
    host: str = "",
    claims: dict[str, Any] | None = None,
    listener: str = "outbound",
    **headers: str,
) -> SimpleRequest:
    """A request; header names with `_` for `-`."""
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return SimpleRequest(Arrival(listener, port=port, host=host), method, authority, path, pairs, claims=claims)
