"""etcd's keys and values to facts, its gateway's JSON, and its environment variables.

`/services/NAME/INSTANCE` = `{"host": ..., "port": ...}` with optional `namespace, weight, labels, zone, ready,
meshPort, serviceAccount, protocol, servicePort, workload`; `etcd_layout` has the layouts of others. The workload is
named by `workload`, else INSTANCE where that begins with NAME (`web-1`), else NAME-INSTANCE, since services may use the
same instance names. Whatever is malformed is left out and told by its key; other fields are told of and not used.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from sys import intern
from typing import Any

import msgspec

from .model import Endpoint, Facts, Service, ServicePort, Workload, sole_port
from .names import CLUSTER_DOMAIN, is_address, service_host, shared_labels

FIELDS = frozenset(
    (
        "host",
        "port",
        "namespace",
        "weight",
        "labels",
        "zone",
        "ready",
        "meshPort",
        "serviceAccount",
        "protocol",
        "servicePort",
        "workload",
    )
)


class EtcdSettings(msgspec.Struct, frozen=True):
    endpoints: tuple[str, ...] = ("http://127.0.0.1:2379",)
    user: str = ""
    password: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    verify: bool = True


def settings_of(urls: str, environment: Mapping[str, str]) -> EtcdSettings:
    """Settings as etcdctl takes them; `urls` is a comma list, or `env` for ETCDCTL_ENDPOINTS."""
    if urls in ("env", ""):
        urls = environment.get("ETCDCTL_ENDPOINTS") or "127.0.0.1:2379"
    secure = bool(environment.get("ETCDCTL_CACERT"))
    endpoints = [part.strip().rstrip("/") for part in urls.split(",") if part.strip()]
    user, _, password = environment.get("ETCDCTL_USER", "").partition(":")
    return EtcdSettings(
        endpoints=tuple(e if "://" in e else f"{'https' if secure else 'http'}://{e}" for e in endpoints),
        user=user,
        password=password or environment.get("ETCDCTL_PASSWORD", ""),
        ca_file=environment.get("ETCDCTL_CACERT", ""),
        cert_file=environment.get("ETCDCTL_CERT", ""),
        key_file=environment.get("ETCDCTL_KEY", ""),
        verify=environment.get("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "").lower() not in ("1", "true"),
    )


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix`."""
    end = bytearray(prefix)
    while end and end[-1] == 255:
        end.pop()
    if not end:
        return b"\0"
    end[-1] += 1
    return bytes(end)


class Instance(msgspec.Struct, frozen=True, gc=False):
    """One value, read."""

    name: str
    namespace: str
    host: str
    endpoint: Endpoint
    workload: Workload
    protocol: str
    service_port: int
    warning: str = ""
    """What is wrong with the value although it can be used."""


def instance(key: str, value: bytes, prefix: str, domain: str = CLUSTER_DOMAIN) -> Instance:
    """One key and value; raises ValueError that says what is wrong."""
    name, slash, own = key.removeprefix(prefix).partition("/")
    if not slash or not name or not own or "/" in own:
        raise ValueError(f"expected a key {prefix}NAME/INSTANCE")
    try:
        told = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(told, dict):
        raise ValueError("expected a JSON object")
    unknown = ", ".join(repr(field) for field in sorted(set(told) - FIELDS))
    warning = f"unknown field {unknown}, not used; known are {', '.join(sorted(FIELDS))}" if unknown else ""
    return made(name.lower(), own, told, domain, warning)


def made(name: str, own: str, told: Mapping[str, Any], domain: str = CLUSTER_DOMAIN, warning: str = "") -> Instance:
    """The instance `own` of service `name` with these fields; raises ValueError that says what is wrong."""
    address = told.get("host")
    if not isinstance(address, str) or not is_address(address):
        raise ValueError(f"host: expected an IP address or a host name as text, got {address!r}")
    ports = sole_port(_port(told, "port", needed=True))
    port = ports[0].number
    name, namespace = intern(name), intern(_text(told, "namespace", "default").lower())
    own = _text(told, "workload") or workload_name(name, own)
    labels = told.get("labels", {})
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise ValueError("labels: expected an object of texts")
    labels = shared_labels(labels)
    ready = told.get("ready", True)
    if not isinstance(ready, bool):
        raise ValueError("ready: expected true or false")
    weight = told.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int) or not 0 < weight <= 65535:
        raise ValueError("weight: expected a whole number from 1 to 65535")
    zone, account = _text(told, "zone"), _text(told, "serviceAccount")
    mesh_port = _port(told, "meshPort")
    why = "" if ready else "its value in etcd says that it is not ready"
    workload = Workload(
        namespace=namespace,
        name=own,
        addresses=(address,),
        ports=ports,
        labels=labels,
        service_account=account or "default",
        locality=intern(f"/{zone}") if zone else "",
        weight=weight,
        mesh_port=mesh_port,
        ready=ready,
        why=why,
        source="etcd",
    )
    endpoint = Endpoint(
        address=address,
        port=port,
        ready=ready,
        serving=ready,
        weight=weight,
        labels=labels,
        locality=workload.locality,
        workload=workload.key,
        namespace=namespace,
        service_account=account,
        mesh_port=mesh_port,
        source="etcd",
        why=why,
    )
    host = intern(service_host(namespace, name, domain))  # of as many instances as the service has
    protocol, service_port = _text(told, "protocol"), _port(told, "servicePort")
    return Instance(name, namespace, host, endpoint, workload, protocol, service_port, warning)


def workload_name(service: str, instance: str) -> str:
    """The workload behind a key whose value does not name it."""
    return instance if f"{instance}-".startswith(f"{service}-") else f"{service}-{instance}"


def _text(told: Mapping[str, Any], key: str, default: str = "") -> str:
    value = told.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"{key}: expected text")
    return value or default


def _port(told: Mapping[str, Any], key: str, needed: bool = False) -> int:
    value = told.get(key, None if needed else 0)
    if isinstance(value, bool) or not isinstance(value, int) or not (0 if not needed else 1) <= value <= 65535:
        raise ValueError(f"{key}: expected a port number")
    return value


def facts_of(instances: Mapping[str, Instance]) -> Facts:
    """All instances, by key, as facts."""
    grouped: dict[str, list[Instance]] = {}
    for key in sorted(instances):
        grouped.setdefault(instances[key].host, []).append(instances[key])
    services: dict[str, Service] = {}
    endpoints: dict[str, tuple[Endpoint, ...]] = {}
    workloads: dict[str, Workload] = {}
    for host, found in grouped.items():
        shared = {one.endpoint.port for one in found}
        stated = next((one.service_port for one in found if one.service_port), 0)
        protocol = next((one.protocol for one in found if one.protocol), "")
        port = stated or (next(iter(shared)) if len(shared) == 1 else 80)
        services[host] = Service(
            host=host,
            namespace=found[0].namespace,
            name=found[0].name,
            ports=(ServicePort(port, app_protocol=protocol),),
            source="etcd",
        )
        endpoints[host] = tuple(one.endpoint for one in found)
        workloads |= {one.endpoint.workload: one.workload for one in found}  # the same text as key
    return Facts(services=services, endpoints=endpoints, workloads=workloads)
