"""Settings of a sidecar, as the command line gives them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from ..proxy.limits import Settings
from ..proxy.proxy_protocol import Network
from ..registry.checks import Check
from ..registry.model import Workload

Address = tuple[str, int]


class NamedPort(Struct, frozen=True):
    """A local address that stands for one port of one service."""

    host: str
    port: int
    service: str
    """Full name of the service."""
    service_port: int


class SidecarOptions(Struct, frozen=True):
    workload: Workload
    """As far as it is known without the registry: namespace and name at least. What the registry says comes first."""
    outbound: Address | None = None
    inbound: Address | None = None
    redirect: Address | None = None
    """Listener for outbound connections that nftables redirects."""
    captured: bool = False
    """Inbound connections come by nftables, too: their original destination is asked for."""
    admin: Address | None = None
    health: Address | None = None
    metrics: Address | None = None
    dns: Address | None = None
    named: tuple[NamedPort, ...] = ()
    upstreams: tuple[str, ...] | None = None
    """Resolvers for other zones; None: as /etc/resolv.conf."""
    search: tuple[str, ...] | None = None
    """Search domains of the app behind those of its namespace, which DNS is to walk for it; None: it walks none."""
    app_address: str = ""
    """Where the app listens; empty: at the workload's address."""
    access_log: str = ""
    """File, `-` for standard output, `off`; empty: as MeshConfig says."""
    limits: Settings = Settings()
    """Of the data path: sizes, numbers, deadlines."""
    proxies: Mapping[str, tuple[Network, ...]] = {}
    """By listener (`inbound`, `outbound`, `redirect`, `listen`, `gateway`): peers that say by the PROXY protocol for
    whom they come."""
    gateway: bool = False
    """Serve the Gateways that select the workload."""
    moved: Mapping[int, int] = {}
    """Ports to listen on in place of those that Gateways name."""
    needs_certificate: bool = False
    """Not ready before there is one."""
    checks: tuple[Check, ...] = ()
    """Of the own app, beside those of its manifest."""
    commands: bool = True
    """Run commands that manifests have as checks; those of `checks` are run always."""
    lone: bool = False
    """Nobody but us tells peers whether our app is ready."""
