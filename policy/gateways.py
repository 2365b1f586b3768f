"""Gateways: the servers that a gateway workload runs, by port and server name. Pure.

A viewpoint's `gateway` is one Gateway resource (explain), or EVERY: all whose selector holds for the workload, as a
running gateway serves them. Servers on one port must be of one kind; the oldest Gateway's decides (Istio).
"""

from __future__ import annotations

from collections.abc import Sequence

from .host_names import Domains, covers
from .resources import Gateway, GatewayServer, Resources, ServerTLS
from .tables import Viewpoint
from .visibility import gateway_name, labels_hold

EVERY = "*"
HTTP, TLS, TCP = "http", "tls", "tcp"
KINDS = {
    **dict.fromkeys(("HTTP", "HTTP2", "GRPC", "GRPC-WEB"), HTTP),
    **dict.fromkeys(("HTTPS", "TLS"), TLS),
    **dict.fromkeys(("TCP", "MONGO", "REDIS", "MYSQL"), TCP),
}
TERMINATED = frozenset({"SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL"})
"""TLS modes in which the gateway is the end of the client's TLS."""


class Server:
    """One server of a Gateway, as it is run."""

    __slots__ = (
        "bind",
        "gateway",
        "hosts",
        "http",
        "kind",
        "l4",
        "name",
        "namespace",
        "number",
        "port",
        "redirects",
        "source",
        "tls",
    )

    def __init__(self, gateway: Gateway, server: GatewayServer, index: int, kind: str) -> None:
        self.gateway = gateway.meta.key
        self.source = gateway.meta.source
        self.namespace = gateway.meta.namespace
        self.name = f"spec.servers[{index}]"
        self.port = server.port.number
        self.bind = server.bind
        self.kind = kind
        self.http = kind == HTTP or (kind == TLS and server.port.protocol.upper() == "HTTPS")
        """What it ends in is HTTP; else octets."""
        self.tls = (server.tls or ServerTLS()) if kind == TLS else None
        self.redirects = kind == HTTP and server.tls is not None and server.tls.https_redirect
        self.hosts = tuple(_host(text, self.namespace) for text in server.hosts)
        """(namespace whose rules may attach, or `*`; host)."""
        self.number = 0
        """From 1 on, where TLS ends here and it has HTTP routes of its own; 0: it shares its port's."""
        self.l4: object = None
        """compile_l4.L4Host where octets are passed on."""

    @property
    def terminates(self) -> bool:
        """Whether the client's TLS ends here."""
        return self.tls is not None and self.mode in TERMINATED

    @property
    def mode(self) -> str:
        return (self.tls.mode or "PASSTHROUGH") if self.tls is not None else ""

    @property
    def table(self) -> int:
        """The key of its HTTP routes among `HttpTable.ports`."""
        return table_key(self.port, self.number)

    def admits(self, host: str, namespace: str) -> list[str]:
        """What a rule of `namespace` for `host` stands for here: the narrower of its host and each of ours."""
        found: dict[str, None] = {}
        for own_namespace, own in self.hosts:
            if own_namespace not in ("*", namespace):
                continue
            if covers(own, host):
                found[host] = None
            elif covers(host, own):
                found[own] = None
        return list(found)


def table_key(port: int, number: int) -> int:
    return port | number << 16


def _host(text: str, namespace: str) -> tuple[str, str]:
    allowed, slash, host = text.rpartition("/")
    if not slash:
        return "*", host.lower()
    return namespace if allowed == "." else allowed, host.lower()


class Port:
    """The servers of one port; all are of one kind."""

    __slots__ = ("by_name", "kind", "number", "servers")

    def __init__(self, number: int, kind: str) -> None:
        self.number = number
        self.kind = kind
        self.servers: list[Server] = []
        self.by_name: Domains[Server] = Domains()
        """By TLS server name."""

    @property
    def binds(self) -> tuple[str, ...]:
        """Addresses to listen on; empty text: every one."""
        binds = tuple(dict.fromkeys(server.bind for server in self.servers))
        return ("",) if "" in binds else binds

    def server(self, sni: str) -> Server | None:
        """Whose client this is. A client without a server name is one of `*` alone."""
        if self.kind != TLS:
            return self.servers[0]
        return self.by_name.find(sni.lower().rstrip(".")) if sni else self.by_name.star


class Ports:
    """All of a viewpoint. `left_out`: (gateway, server, why) of servers that are not run."""

    __slots__ = ("left_out", "names", "ports", "servers")

    def __init__(self, gateways: Sequence[Gateway]) -> None:
        self.names = tuple(gateway.meta.key for gateway in gateways)
        self.ports: dict[int, Port] = {}
        self.servers: list[Server] = []
        self.left_out: list[tuple[str, str, str]] = []
        for gateway in gateways:
            for index, server in enumerate(gateway.spec.servers):
                why = self._take(gateway, server, index)
                if why:
                    self.left_out.append((gateway.meta.key, f"spec.servers[{index}]", why))

    def _take(self, gateway: Gateway, server: GatewayServer, index: int) -> str:
        """Why a server is left out; empty: it is not."""
        kind = KINDS.get(server.port.protocol.upper(), "")
        if not kind or server.bind.startswith("unix://"):
            return "UNIX sockets are not listened on" if kind else f"protocol {server.port.protocol} is unknown"
        made = Server(gateway, server, index, kind)
        if made.mode == "AUTO_PASSTHROUGH":
            return "mode AUTO_PASSTHROUGH is not carried out: there are no network gateways here; write PASSTHROUGH"
        port = self.ports.setdefault(made.port, Port(made.port, kind))
        if port.kind != kind:
            first = port.servers[0]
            return f"port {made.port} is one of {port.kind} by Gateway {first.gateway}, which came first"
        if kind == TLS:
            taken = [host for _, host in made.hosts if not port.by_name.claim(host, made)]
            if len(taken) == len(made.hosts):
                return f"{', '.join(taken)} on port {made.port} belongs to a server that came first"
        port.servers.append(made)
        self.servers.append(made)
        if made.terminates and made.http:
            made.number = len(self.servers)
        return ""


def gateways_of(resources: Resources, viewpoint: Viewpoint) -> list[Gateway]:
    """The Gateway resources of a viewpoint, oldest first; none for a sidecar."""
    if viewpoint.gateway == EVERY:
        workload = viewpoint.workload
        return [one for one in resources.gateways if labels_hold(one.spec.selector, workload.labels)]
    return [one for one in resources.gateways if one.meta.key == viewpoint.gateway]


def attached(names: Sequence[str], references: Sequence[str], namespace: str) -> list[str]:
    """Which of these Gateways (or `mesh`) a rule of `namespace` with these references is for."""
    wanted = [gateway_name(one, namespace) for one in references or ("mesh",)]
    return [name for name in names if name in wanted]
