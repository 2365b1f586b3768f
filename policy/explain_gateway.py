"""A question to `explain` as a running gateway sees it: port, server name, server."""

from __future__ import annotations

from .explain_query import Query, QueryError
from .gateways import HTTP, TCP, TLS, Port, Ports
from .path_normalization import PathError, normalize_path
from .tables import Arrival, SimpleRequest


def at_gateway(asked: Query, ports: Ports, source_ip: str, normalization: str) -> SimpleRequest:
    """The request, or the opaque connection, by the port that is asked for, else the scheme's, else the only one that
    speaks it. Raises QueryError where the gateway would not take the connection."""
    tls = asked.scheme == "https" or bool(asked.sni)
    port = _port(asked, ports, TCP if asked.tcp and not asked.sni else TLS if tls else HTTP)
    literal = ":" in asked.host or asked.host.replace(".", "").isdigit()
    sni = asked.sni or (asked.host if tls and not literal else "")
    server = port.server(sni)
    if server is None:
        raise QueryError(
            f"url: no server of Gateway {asked.gateway} on port {port.number} has the name {sni or '(none)'}: the TLS "
            "handshake is refused"
        )
    arrival = Arrival("gateway", source_ip=source_ip, port=port.number, sni=sni, tls=server.terminates,
                      server=server.number, destination_ip=asked.host if literal else "")  # fmt: skip
    if not server.http or (tls and not server.terminates):
        return SimpleRequest(arrival, "", asked.authority, "/", asked.headers, asked.scheme)
    try:
        path = normalize_path(asked.path, normalization)
    except PathError as error:
        raise QueryError(f"url: {error}; a proxy answers 400 (FL-MALFORMED)") from error
    scheme = "https" if tls else "http"
    return SimpleRequest(arrival, asked.method, asked.authority, path, asked.headers, scheme, asked.claims)


def _port(asked: Query, ports: Ports, kind: str) -> Port:
    number = asked.port or asked.url_port
    if not number:
        of_kind = [port.number for port in ports.ports.values() if port.kind == kind]
        usual = 443 if kind == TLS else 80
        number = usual if usual in of_kind or not of_kind else of_kind[0]
    port = ports.ports.get(number)
    if port is None or port.kind != kind:
        known = ", ".join(f"{one.number} ({one.kind})" for one in ports.ports.values()) or "none"
        raise QueryError(f"port: Gateway {asked.gateway} has no server of {kind} on port {number}; it has {known}")
    return port
