"""A client of xDS as it describes itself, and the ends that all its resources share: TLS by its certificate, addresses.

A node's id is `NAMESPACE/WORKLOAD`. Its metadata (`fairlead envoy` and `fairlead grpc` write it) says where it listens
and what its labels are, as a sidecar does when it connects to the feed; who it is, its certificate says.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from .xds_wire import PREFIX

JSON = dict[str, Any]
EXTENSIONS = PREFIX + "envoy.extensions."
ENVOY, GRPC = "envoy", "grpc"
TLS = EXTENSIONS + "transport_sockets.tls.v3."
CERTIFICATE, ROOTS = "default", "ROOTCA"
"""Names of the secrets in a node's own files (Istio's)."""
CERTIFICATE_FILE, ROOTS_FILE = "sds-certificate.json", "sds-roots.json"
ADS: JSON = {"ads": {}, "resource_api_version": "V3"}


class NodeError(ValueError):
    """A node that cannot be served; the message says why."""


class Upstream(msgspec.Struct, frozen=True):
    """A port of the node that stands for one service."""

    address: str
    port: int
    host: str
    """Full host of the service."""
    service_port: int


class Node(msgspec.Struct, frozen=True):
    """Who is at the other end of a stream, by its own words."""

    namespace: str
    workload: str
    kind: str = ENVOY
    folder: str = ""
    """Where its certificate stands; empty: it has none, and no mutual TLS."""
    address: str = ""
    outbound: tuple[str, int] | None = None
    """Envoy: the listener by host."""
    inbound: tuple[str, int] | None = None
    """Envoy: the listener that takes mutual TLS."""
    upstreams: tuple[Upstream, ...] = ()
    app_address: str = ""
    labels: dict[str, str] = {}
    ports: tuple[int, ...] = ()
    mesh_port: int = 0
    service_account: str = ""
    gateway: bool = False
    """It serves Gateways, and has neither app nor mesh port."""
    moved: dict[int, int] = {}
    """Ports to listen on in place of those that Gateways name."""
    group: str = ""
    """The WorkloadGroup that it wants to be of."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.workload}"


def read_node(message: Mapping[str, Any]) -> Node:
    """A Node message. Raises NodeError that names the field."""
    namespace, slash, workload = str(message.get("id", "")).partition("/")
    if not slash or not namespace or not workload or "/" in workload:
        raise NodeError(f"node.id: expected NAMESPACE/WORKLOAD, got {message.get('id', '')!r}")
    metadata = message.get("metadata") or {}
    told = metadata.get("FAIRLEAD") or {}
    if not isinstance(told, Mapping):
        raise NodeError("node.metadata.FAIRLEAD: expected an object")
    agent = str(message.get("user_agent_name", "")).lower()
    kind = GRPC if "grpc" in agent else ENVOY
    try:
        ports = tuple(int(one) for one in _strings(told, "PORTS"))
        inbound = _address(told, "INBOUND")
        mesh_port = inbound[1] if inbound is not None else 0
        if kind == GRPC and ports:
            mesh_port = ports[0]
        made = Node(
            namespace,
            workload,
            kind,
            folder=_text(told, "FOLDER"),
            address=_text(told, "ADDRESS"),
            outbound=_address(told, "OUTBOUND"),
            inbound=inbound,
            upstreams=tuple(_upstream(one) for one in _strings(told, "UPSTREAMS")),
            app_address=_text(told, "APP_ADDRESS"),
            labels=_labels(told.get("LABELS")),
            group=_text(told, "GROUP"),
            ports=ports,
            mesh_port=mesh_port,
            gateway=kind == ENVOY and bool(told.get("GATEWAY")),
            moved=_moved(_strings(told, "MAP")),
        )
    except (TypeError, ValueError) as error:
        raise NodeError(f"node.metadata.FAIRLEAD: {error}") from error
    if made.folder and not made.folder.startswith("/"):
        raise NodeError(f"node.metadata.FAIRLEAD.FOLDER: expected an absolute path, got {made.folder!r}")
    return made


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name, "")
    if not isinstance(value, str) or len(value) > 4096 or not value.isprintable():
        raise ValueError(f"{name}: expected text")
    return value


def _strings(told: Mapping[str, Any], name: str) -> list[str]:
    value = told.get(name) or []
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > 1000:
        raise ValueError(f"{name}: expected a list")
    return [str(int(one)) if isinstance(one, float) else str(one) for one in value]


def _moved(texts: Sequence[str]) -> dict[int, int]:
    """`80=8080` each."""
    found = {}
    for text in texts:
        named, _, own = text.partition("=")
        if not (named.isdigit() and own.isdigit() and 0 < int(named) <= 65535 and 0 < int(own) <= 65535):
            raise ValueError(f"MAP: expected PORT=PORT, got {text!r}")
        found[int(named)] = int(own)
    return found


def _labels(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError("LABELS: expected an object")
    return {str(key): str(one) for key, one in value.items()}


def _split(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) <= 65535:
        raise ValueError(f"expected HOST:PORT, got {text!r}")
    return host.strip("[]"), int(port)


def _address(told: Mapping[str, Any], name: str) -> tuple[str, int] | None:
    text = _text(told, name)
    if not text:
        return None
    host, port = _split(text)
    ipaddress.ip_address(host)
    return host, port


def _upstream(text: str) -> Upstream:
    """`127.0.0.1:9001=web.default.svc.cluster.local:80`."""
    local, equals, meant = text.partition("=")
    if not equals:
        raise ValueError(f"UPSTREAMS: expected ADDRESS=SERVICE:PORT, got {text!r}")
    address, port = _split(local)
    host, service_port = _split(meant)
    ipaddress.ip_address(address)
    return Upstream(address, port, host.lower(), service_port)


# --- what resources of a node share -----------------------------------------------------------------------------------


class Notes:
    """What rules say and this client of xDS cannot do, once each, in order."""

    def __init__(self) -> None:
        self._told: dict[str, None] = {}

    def __call__(self, text: str) -> None:
        self._told[text] = None

    def listed(self) -> list[str]:
        return list(self._told)


def typed(name: str, **fields: Any) -> JSON:
    """An Any of a message below envoy.extensions."""
    return {"@type": EXTENSIONS + name, **fields}


def socket_address(address: str, port: int) -> JSON:
    if address.startswith("unix://"):
        return {"pipe": {"path": address.removeprefix("unix://")}}
    return {"socket_address": {"address": address, "port_value": port}}


def seconds(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"


def uri_names(*, exact: Sequence[str] = (), prefix: Sequence[str] = ()) -> list[JSON]:
    wanted = [{"exact": one} for one in exact] + [{"prefix": one} for one in prefix]
    return [{"san_type": "URI", "matcher": one} for one in wanted]


def mesh_tls(node: Node, names: list[JSON], alpn: Sequence[str] = ()) -> JSON:
    """A CommonTlsContext by the node's certificate and the mesh's roots, the peer having one of `names`."""
    if node.kind == GRPC:
        instance = {"instance_name": "default"}
        validation: JSON = {"ca_certificate_provider_instance": instance}
        if names:
            validation["match_typed_subject_alt_names"] = names
        return {"tls_certificate_provider_instance": instance, "validation_context": validation}

    def secret(name: str, file: str) -> JSON:
        path = {"path": f"{node.folder}/{file}", "watched_directory": {"path": node.folder}}
        return {"name": name, "sds_config": {"path_config_source": path, "resource_api_version": "V3"}}

    made: JSON = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [secret(CERTIFICATE, CERTIFICATE_FILE)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": secret(ROOTS, ROOTS_FILE),
        },
    }
    if alpn:
        made["alpn_protocols"] = list(alpn)
    return made


def peer_of(told: str) -> str:
    """The address in gRPC's name of a peer: `ipv4:10.0.0.7:50052`, `ipv6:%5Bfe80::1%5D:50052`, `unix:...` (empty)."""
    family, _, rest = unquote(told).partition(":")
    return rest.rpartition(":")[0].strip("[]") if family in ("ipv4", "ipv6") else ""
