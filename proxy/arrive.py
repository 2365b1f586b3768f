"""What a new connection is for: the Arrival of each way in, and the protocol that it is expected to speak."""

from __future__ import annotations

from typing import Any

from ..policy.tables import Arrival, Tables

HTTP_PROTOCOLS = frozenset({"http", "http1", "http/1.1", "http2", "h2c", "grpc", "grpc-web"})


def address_of(name: Any) -> tuple[str, int]:
    """(address, port) of a socket name; IPv4 in IPv6 folded, scope ids stripped."""
    if not isinstance(name, tuple) or len(name) < 2:
        return "", 0
    address = str(name[0]).partition("%")[0]
    if address.startswith("::ffff:") and "." in address:
        address = address[7:]
    return address, int(name[1])


def declared(tables: Tables, host: str, port: int) -> str:
    """`http`, `tcp`, or empty: told by the first bytes."""
    protocol = tables.ports.get((host, port), "").lower()
    if not protocol:
        return ""
    return "http" if protocol in HTTP_PROTOCOLS else "tcp"


def by_server_name(tables: Tables, host: str, port: int) -> bool:
    """Whether the server name of a TLS client decides; then its first bytes are waited for although TCP is declared."""
    return tables.tcp is not None and bool(tables.tcp.by_server_name(host, port))


def mesh_name(sni: str) -> tuple[str, int] | None:
    """(service host, service port) of an SNI `outbound_.PORT_.SUBSET_.HOST`; None where it is something else."""
    parts = sni.split("_.", 3)
    if len(parts) != 4 or parts[0] != "outbound" or not parts[1].isdigit() or len(parts[1]) > 5 or not parts[3]:
        return None
    return parts[3], int(parts[1])


def host_at(tables: Tables, address: str) -> str:
    """The service with this virtual address; empty where there is none."""
    for host, service in tables.snapshot.services.items():
        if address in service.addresses:
            return host
    return ""


def outbound_arrival(peer: Any, *, host: str = "", port: int = 0, destination_ip: str = "") -> Arrival:
    source_ip, source_port = address_of(peer)
    return Arrival(
        "outbound", source_ip=source_ip, source_port=source_port, host=host, port=port, destination_ip=destination_ip
    )
