"""The environment variables of services, as the kubelet gives them to containers (pkg/kubelet/envvars).

Those of one namespace, for services with an address of their own: `WEB_SERVICE_HOST`, `WEB_SERVICE_PORT`, with named
ports `WEB_SERVICE_PORT_HTTP`, and the variables of Docker's links: `WEB_PORT`, `WEB_PORT_80_TCP`, with _PROTO, _PORT
and _ADDR.
"""

from __future__ import annotations

from collections.abc import Mapping

from .model import Service


def environment(services: Mapping[str, Service], namespace: str, by_name: bool = False) -> dict[str, str]:
    """Sorted by name. `by_name`: services without an address stand there with their DNS name in its place."""
    found: dict[str, str] = {}
    for service in sorted(services.values(), key=lambda one: one.host):
        if service.namespace != namespace or not service.ports or service.external_name:
            continue
        if not service.host.startswith(f"{service.name}.{namespace}."):
            continue  # a ServiceEntry's host is not a name in the namespace
        host = service.addresses[0] if service.addresses and not service.headless else ""
        if not host and by_name:
            host = service.host
        if host:
            found |= _of(service, host)
    return dict(sorted(found.items()))


def _of(service: Service, host: str) -> dict[str, str]:
    prefix = variable(service.name)
    made = {f"{prefix}_SERVICE_HOST": host, f"{prefix}_SERVICE_PORT": str(service.ports[0].number)}
    joined = f"[{host}]" if ":" in host else host
    for index, port in enumerate(service.ports):
        if port.name:
            made[f"{prefix}_SERVICE_PORT_{variable(port.name)}"] = str(port.number)
        protocol = port.protocol
        url = f"{protocol.lower()}://{joined}:{port.number}"
        if not index:
            made[f"{prefix}_PORT"] = url
        link = f"{prefix}_PORT_{port.number}_{protocol.upper()}"
        made |= {link: url, f"{link}_PROTO": protocol.lower(), f"{link}_PORT": str(port.number), f"{link}_ADDR": host}
    return made


def variable(name: str) -> str:
    return name.upper().replace("-", "_").replace(".", "_")
