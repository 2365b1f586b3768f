"""The inbound side of a workload: its ports, what may come in, and where a mesh server name leads."""

from __future__ import annotations

from ..registry.model import Endpoint, Service, Workload
from ..registry.snapshot import Snapshot
from .authorize import Authorizer
from .compile_settings import pool_limits
from .compile_view import endpoint_serves, port_protocol, protocol_of
from .dry_run import shadow_of
from .network_policy import isolation_of
from .peer import Peer
from .peer_authentication import PeerMode, peer_mode
from .request_authentication import token_rules
from .resources import ConnectionPoolSettings, IngressListener, Resources
from .sidecars import read_endpoint, sidecar_of
from .tables import Cluster, ClusterEndpoint, Decision, Destination, RetryPolicy, Verdict
from .visibility import labels_hold

LOOPBACK = "127.0.0.1"
RETRIES = RetryPolicy(2, frozenset({"reset-before-request"}), retry_on=("reset-before-request",))


class Inbound:
    """What decide and admit read of the workload that they protect. `memo` keeps what depends on the peer alone."""

    __slots__ = (
        "authorizer",
        "isolation",
        "limits",
        "listeners",
        "memo",
        "modes",
        "ports",
        "resources",
        "services",
        "shadow",
        "snapshot",
        "tokens",
        "workload",
    )

    def __init__(self, resources: Resources, snapshot: Snapshot, workload: Workload) -> None:
        self.resources = resources
        self.snapshot = snapshot
        self.workload = workload
        self.isolation = isolation_of(resources.network_policies, snapshot, workload, "Ingress")
        self.authorizer = Authorizer(resources.authorization_policies, workload, resources.mesh.spec)
        self.shadow = shadow_of(resources, snapshot, workload)
        """What is only tried out, or notes; None: nothing."""
        self.tokens = (
            token_rules(resources.request_authentications, resources.mesh.spec.root_namespace, workload)
            if resources.request_authentications
            else None
        )
        """Which tokens of end users are taken; None: nobody asks for any."""
        self.modes: dict[int, PeerMode] = {}
        self.ports: dict[int, str] = {}
        """Declared protocol by own port."""
        self.services: dict[tuple[str, int], int] = {}
        """Own port by (service host, service port)."""
        self.listeners: dict[int, IngressListener] = {}
        """What a Sidecar says of own ports."""
        self.limits: ConnectionPoolSettings | None = None
        """Of each own port, where its listener has none."""
        self.memo: dict[tuple[str, str, int, bool], tuple[Verdict, Peer, Decision]] = {}

    def mode(self, port: int) -> PeerMode:
        found = self.modes.get(port)
        if found is None:
            found = peer_mode(
                self.resources.peer_authentications, self.resources.mesh.spec.root_namespace, self.workload, port
            )
            if len(self.modes) < 1000:
                self.modes[port] = found
        return found


Behind = tuple[tuple[int, int, str], ...]
"""(service port, own port, declared protocol) of what stands behind a service at one workload."""


class InboundCache:
    """What stands behind each service, for the next time; good for one state of one workload."""

    __slots__ = ("behind", "workload")

    def __init__(self) -> None:
        self.workload: Workload | None = None
        self.behind: dict[str, tuple[Service, tuple[Endpoint, ...], Behind]] = {}


def inbound_of(
    resources: Resources, snapshot: Snapshot, workload: Workload, cache: InboundCache | None = None
) -> Inbound:
    inbound = Inbound(resources, snapshot, workload)
    for port in workload.ports:
        if port.protocol == "TCP":
            inbound.ports[port.number] = protocol_of("", port.name, port.protocol, port.number)
    known = cache.behind if cache is not None and cache.workload == workload else {}
    kept: dict[str, tuple[Service, tuple[Endpoint, ...], Behind]] = {}
    for host, service in snapshot.services.items():
        endpoints = snapshot.endpoints.get(service.host, ())
        entry = known.get(host)
        if entry is None or entry[0] is not service or entry[1] is not endpoints:
            entry = (service, endpoints, _behind(workload, service, endpoints))
        kept[host] = entry
        for port_number, number, declared in entry[2]:
            inbound.services[(service.host, port_number)] = number
            if declared or number not in inbound.ports:
                inbound.ports[number] = declared or inbound.ports.get(number, "")
    if cache is not None:
        cache.workload, cache.behind = workload, kept
    sidecar = sidecar_of(resources, workload) if resources.sidecars else None
    if sidecar is not None:
        inbound.limits = sidecar.spec.inbound_connection_pool
        for listener in sidecar.spec.ingress:
            number = listener.port.number
            inbound.listeners.setdefault(number, listener)
            inbound.ports[number] = listener.port.protocol.lower() or inbound.ports.get(number, "")
    return inbound


def _behind(workload: Workload, service: Service, endpoints: tuple[Endpoint, ...]) -> Behind:
    """Own ports behind a service's ports: as its endpoints say, else by selector."""
    own = [
        one
        for one in endpoints
        if (one.workload == workload.key if one.workload else one.address in workload.addresses)
    ]
    selected = bool(service.selector) and service.namespace == workload.namespace
    if selected and service.selector is not None and not own:
        selected = labels_hold(service.selector, workload.labels)
    if not own and not selected:
        return ()
    found = []
    for port in service.ports:
        if port.protocol != "TCP":
            continue
        number = next((one.port for one in own if endpoint_serves(one, port, service)), 0)
        if not number and selected and not own:
            number = target_port(workload, port.target, port.number)
        if number:
            found.append((port.number, number, port_protocol(port)))
    return tuple(found)


def target_port(workload: Workload, target: int | str, number: int) -> int:
    """The workload's port that a service port means; 0 where it names one that the workload has not."""
    if isinstance(target, int):
        return target or number
    return next((one.number for one in workload.ports if one.name == target), 0)


def inbound_clusters(inbound: Inbound, connect_timeout_s: float) -> dict[str, Cluster]:
    """`inbound|PORT||` for every own port: the app at the workload's address, else on loopback, or where a Sidecar says
    that it listens."""
    workload = inbound.workload
    address = workload.addresses[0] if workload.addresses else LOOPBACK
    found = {}
    for port, protocol in inbound.ports.items():
        name = inbound_cluster(port)
        host, service_name = next(
            (
                (host, inbound.snapshot.services[host].name)
                for (host, _), own in inbound.services.items()
                if own == port
            ),
            ("", ""),
        )
        listener = inbound.listeners.get(port)
        at = read_endpoint(listener.default_endpoint) if listener is not None else None
        own, number = (at[0] or address, at[1]) if at is not None else (address, port)
        pool = (listener.connection_pool if listener is not None else None) or inbound.limits
        found[name] = Cluster(
            name,
            host,
            port,
            "",
            (ClusterEndpoint(own, number, _own_endpoint(workload, own, number)),),
            protocol=protocol,
            limits=pool_limits(pool, connect_timeout_s),
            service_name=service_name,
            service_namespace=workload.namespace,
        )
    return found


def _own_endpoint(workload: Workload, address: str, port: int) -> Endpoint:
    return Endpoint(
        address,
        port,
        labels=workload.labels,
        workload=workload.key,
        namespace=workload.namespace,
        service_account=workload.service_account,
    )


def placed(inbound: Inbound, port: int) -> bool:
    """Whether a Sidecar says where the app listens for this port: then nobody else does."""
    listener = inbound.listeners.get(port)
    at = read_endpoint(listener.default_endpoint) if listener is not None else None
    return at is not None and bool(at[0])


def inbound_cluster(port: int) -> str:
    return f"inbound|{port}||"


def inbound_decision(port: int, protocol: str, policy: Verdict | None, http: bool) -> Decision:
    """An admitted request or connection goes to the app's own port."""
    return Decision(
        "route",
        route="default",
        destinations=(Destination(inbound_cluster(port), LOOPBACK, port),),
        retries=RETRIES if http and protocol != "grpc" else None,
        policy=policy,
    )


def split_mesh_sni(sni: str) -> tuple[str, int] | None:
    """(service host, service port) of `outbound_.PORT_.SUBSET_.HOST`; None where it is no such name."""
    parts = sni.split("_.", 3)
    if len(parts) != 4 or parts[0] != "outbound" or not (parts[1].isascii() and parts[1].isdigit()):
        return None
    return parts[3].lower(), int(parts[1][:6])
