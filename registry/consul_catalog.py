"""Consul's answers to facts, and Consul's environment variables to settings.

An instance becomes an endpoint and a workload. Its labels are its meta, its tags (`k=v` as they stand, any other tag as
`tag.NAME: "true"`). Meta that begins with `fairlead-` are settings: `fairlead-namespace`, `fairlead-service-account`,
`fairlead-mesh-port`, `fairlead-protocol`, `fairlead-port`, `fairlead-workload` (else the workload is named after the
instance's id, and its node where two nodes use the same id). The service's port is `fairlead-port`, else the one port
that all instances share, else 80.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from sys import intern
from typing import Any
from urllib.parse import quote

import msgspec

from .listed import settings_of_tags
from .model import Endpoint, Facts, Service, ServicePort, Workload, sole_port
from .names import CLUSTER_DOMAIN, is_address, service_host, shared_labels

PREFIX = "fairlead-"
OWN = "consul"
"""Consul's servers, as a service of the catalog."""
NODE = "\0"
"""Begins the key of a node, which no name of a service does."""
PROTOCOLS = frozenset(("http", "http2", "grpc", "tcp", "tls", "https"))


class ConsulError(Exception):
    """An answer that cannot be used; the message is for people."""


class TooManyError(ConsulError):
    """The agent takes no more connections from this address."""


class ConsulSettings(msgspec.Struct, frozen=True):
    url: str = "http://127.0.0.1:8500"
    token: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    verify: bool = True
    auth: str = ""
    """user:password of HTTP basic authentication."""
    token_file: str = ""
    """Where the token is, when it is not given itself."""
    ca_path: str = ""
    """Folder of authorities (as `openssl rehash` names them), when there is no file."""
    scope: str = ""
    """What every query ends with: namespace and partition of Consul Enterprise."""
    address_tag: str = ""
    """Which of the tagged addresses counts (`wan`, `lan_ipv6`); empty, or where it is missing: the address itself."""

    @property
    def headers(self) -> dict[str, str]:
        """The credentials, as every request carries them."""
        found = {"X-Consul-Token": self.token} if self.token else {}
        if self.auth:
            found["Authorization"] = "Basic " + base64.b64encode(self.auth.encode()).decode()
        return found


def settings_of(url: str, environment: Mapping[str, str]) -> ConsulSettings:
    """Settings as Consul's own tools take them; `url` is a URL, HOST:PORT, or `env` for CONSUL_HTTP_ADDR."""
    if url in ("env", ""):
        url = environment.get("CONSUL_HTTP_ADDR") or "127.0.0.1:8500"
    if "://" not in url:
        secure = environment.get("CONSUL_HTTP_SSL", "").lower() in ("1", "true")
        url = f"{'https' if secure else 'http'}://{url}"
    return ConsulSettings(
        url=url.rstrip("/"),
        token=environment.get("CONSUL_HTTP_TOKEN", ""),
        ca_file=environment.get("CONSUL_CACERT", ""),
        cert_file=environment.get("CONSUL_CLIENT_CERT", ""),
        key_file=environment.get("CONSUL_CLIENT_KEY", ""),
        server_name=environment.get("CONSUL_TLS_SERVER_NAME", ""),
        verify=environment.get("CONSUL_HTTP_SSL_VERIFY", "true").lower() not in ("0", "false"),
        auth=environment.get("CONSUL_HTTP_AUTH", ""),
        token_file=environment.get("CONSUL_HTTP_TOKEN_FILE", ""),
        ca_path=environment.get("CONSUL_CAPATH", ""),
        scope="".join(
            f"&{name}={quote(value, safe='')}"
            for name, value in (
                ("ns", environment.get("CONSUL_NAMESPACE", "")),
                ("partition", environment.get("CONSUL_PARTITION", "")),
            )
            if value
        ),
    )


class _Check(msgspec.Struct):
    Node: str
    CheckID: str
    Status: str = ""
    ServiceName: str = ""
    Output: str = ""
    ModifyIndex: int = 0


CHECK_OCTETS_MAX = 4 << 20
"""Most that one check may have."""
_BETWEEN = b'},{"Node":'
"""Between two checks of an answer. No text has it in it, since its quotation marks would be escaped there."""


class ChecksSeen:
    """Which services' checks are different from the last look; of each service, and each node, one number is kept."""

    _read = staticmethod(msgspec.json.Decoder(list[_Check]).decode)

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._now: dict[str, int] = {}
        self._rest = b""

    def add(self, octets: bytes) -> None:
        """Some of an answer, as it comes: all of them take much memory at once. Raises ValueError."""
        octets = self._rest + octets
        at = octets.rfind(_BETWEEN)
        if at >= 0:
            self._count(octets[: at + 1] + b"]")
            octets = b"[" + octets[at + 2 :]
        if len(octets) > CHECK_OCTETS_MAX:
            raise ValueError(f"no check ends within {CHECK_OCTETS_MAX} octets")
        self._rest = octets

    def end(self) -> None:
        """That was all. Raises ValueError."""
        rest, self._rest = self._rest, b""
        self._count(rest)

    def _count(self, octets: bytes) -> None:
        now = self._now
        for one in self._read(octets):
            told = hash((one.Node, one.CheckID, one.Status, one.ModifyIndex or one.Output))
            key = one.ServiceName or NODE + one.Node
            now[key] = now.get(key, 0) ^ told

    def take(self) -> tuple[set[str], set[str]]:
        """Names of the services with checks that changed, came or went; of the nodes with such checks of their own."""
        now, before = self._now, self._before
        self._before, self._now = now, {}
        changed = {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)}
        nodes = {name for name in changed if name.startswith(NODE)}
        return changed - nodes, {name[1:] for name in nodes}

    def drop(self) -> None:
        """Forget what was added of an answer that cannot be read."""
        self._now, self._rest = {}, b""


def labels_of(tags: list[str], meta: Mapping[str, str]) -> dict[str, str]:
    return settings_of_tags(tags) | {key: value for key, value in meta.items() if not key.startswith(PREFIX)}


def readiness(checks: list[Mapping[str, Any]]) -> tuple[bool, str]:
    """Ready unless a check is critical (warning is ready, as in Consul's own DNS); and why not."""
    for check in checks:
        if check.get("Status") == "critical":
            output = str(check.get("Output") or "").strip().split("\n")[0]
            return False, f"check {check.get('Name') or check.get('CheckID')} is critical: {output}"[:300]
        if check.get("CheckID") in ("_node_maintenance",) or str(check.get("CheckID", "")).startswith("_service_maint"):
            return False, "in maintenance"
    return True, ""


def number(text: Any) -> int:
    return int(text) if isinstance(text, int) or (isinstance(text, str) and text.isdigit()) else 0


def facts_of_service(
    name: str, entries: list[dict[str, Any]], default_namespace: str, domain: str = CLUSTER_DOMAIN, tag: str = ""
) -> tuple[Facts, list[str]]:
    """The facts of one /v1/health/service/NAME answer, and what in it is malformed, by instance.

    `tag`: which of the tagged addresses counts.
    """
    problems: list[str] = []
    ids = [_id(entry) for entry in entries]
    shared = {own for own in ids if own is not None and ids.count(own) > 1} if len(set(ids)) < len(ids) else set()
    by_namespace: dict[str, list[tuple[Endpoint, Workload, dict[str, str]]]] = {}
    for entry in entries:
        try:
            namespace, endpoint, workload, meta = instance(name, entry, default_namespace, _id(entry) in shared, tag)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            found = entry.get("Service", {}) if isinstance(entry, dict) else {}
            problems.append(f"consul {name}/{found.get('ID', '?') if isinstance(found, dict) else '?'}: {error}")
            continue
        by_namespace.setdefault(namespace, []).append((endpoint, workload, meta))
    services: dict[str, Service] = {}
    endpoints: dict[str, tuple[Endpoint, ...]] = {}
    workloads: dict[str, Workload] = {}
    for namespace, found in by_namespace.items():
        host = service_host(namespace, name.lower(), domain)
        services[host] = service(name.lower(), namespace, host, [e for e, _, _ in found], [m for _, _, m in found])
        endpoints[host] = tuple(sorted((e for e, _, _ in found), key=lambda e: (e.address, e.port)))
        workloads |= {endpoint.workload: workload for endpoint, workload, _ in found}  # the same text as key
    return Facts(services=services, endpoints=endpoints, workloads=workloads), problems


def _id(entry: Any) -> str | None:
    told = entry.get("Service") if isinstance(entry, dict) else None
    return str(told.get("ID")) if isinstance(told, dict) else None


def instance(
    name: str, entry: dict[str, Any], default_namespace: str, shared_id: bool = False, tag: str = ""
) -> tuple[str, Endpoint, Workload, dict[str, str]]:
    """(namespace, endpoint, workload, meta) of one instance; raises for what is malformed.

    `shared_id`: instances on other nodes have the same id (an id is unique to its agent only).
    """
    told, node = entry["Service"], entry["Node"]
    meta = {str(key): str(value) for key, value in (told.get("Meta") or {}).items()}
    namespace = intern((meta.get(f"{PREFIX}namespace") or default_namespace).lower())
    address, port = str(told.get("Address") or node["Address"]), number(told.get("Port"))
    if tag:
        address, port = tagged(told, node, tag, address, port)
    if not is_address(address):
        raise ValueError(f"Address {address!r} is neither an IP address nor a host name")
    if not 0 < port <= 65535:
        raise ValueError(f"port {told.get('Port')!r} is none that a client can dial")
    ports = sole_port(port)
    port = ports[0].number
    ready, why = readiness(entry.get("Checks") or [])
    weights = told.get("Weights") or {}
    labels = shared_labels(labels_of(list(told.get("Tags") or []), meta))
    zone = meta.get("zone") or str((node.get("Meta") or {}).get("zone") or "")
    account = meta.get(f"{PREFIX}service-account", "")
    mesh_port = number(meta.get(f"{PREFIX}mesh-port"))
    own_name = meta.get(f"{PREFIX}workload") or str(told["ID"]) + (f"-{node['Node']}" if shared_id else "")
    own_name = own_name.lower().replace("/", "-").replace(":", "-")
    workload = Workload(
        namespace=namespace,
        name=own_name,
        addresses=(address,),
        ports=ports,
        labels=labels,
        annotations=shared_labels(
            {"consul.io/node": str(node["Node"]), "consul.io/node-address": str(node.get("Address") or "")}
            if node.get("Node")
            else {}
        ),
        service_account=account or "default",
        locality=intern(f"/{zone}") if zone else "",
        mesh_port=mesh_port,
        ready=ready,
        why=why,
        source="consul",
    )
    endpoint = Endpoint(
        address=address,
        port=port,
        ready=ready,
        serving=ready,
        weight=max(number(weights.get("Passing")), 1),
        labels=labels,
        locality=workload.locality,
        workload=workload.key,
        namespace=namespace,
        service_account=account,
        mesh_port=mesh_port,
        source="consul",
        why=why,
    )
    return namespace, endpoint, workload, meta


def tagged(told: Mapping[str, Any], node: Mapping[str, Any], tag: str, address: str, port: int) -> tuple[str, int]:
    """(address, port) under this tag: the service's, which may have a port, else, where the service has no address of
    its own, the node's; else those given."""
    own = (told.get("TaggedAddresses") or {}).get(tag)
    if isinstance(own, dict) and own.get("Address"):
        return str(own["Address"]), number(own.get("Port")) or port
    of_node = (node.get("TaggedAddresses") or {}).get(tag)
    return (str(of_node), port) if of_node and not told.get("Address") else (address, port)


def service(name: str, namespace: str, host: str, endpoints: list[Endpoint], metas: list[dict[str, str]]) -> Service:
    stated = next((number(meta[f"{PREFIX}port"]) for meta in metas if number(meta.get(f"{PREFIX}port"))), 0)
    shared = {endpoint.port for endpoint in endpoints}
    protocol = next((meta[f"{PREFIX}protocol"] for meta in metas if meta.get(f"{PREFIX}protocol")), "")
    if not protocol:
        tags = {label.removeprefix("tag.") for e in endpoints for label in e.labels if label.startswith("tag.")}
        protocol = next((known for known in sorted(PROTOCOLS & tags)), "")
    port = stated or (next(iter(shared)) if len(shared) == 1 else 80)
    return Service(
        host=host,
        namespace=namespace,
        name=name,
        ports=(ServicePort(port, app_protocol=protocol if protocol in PROTOCOLS else ""),),
        source="consul",
    )
