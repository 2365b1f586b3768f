"""Names of services and workloads: build, take apart, compare."""

from __future__ import annotations

import re
from functools import lru_cache

CLUSTER_DOMAIN = "cluster.local"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(r"[A-Za-z0-9_:%.-]{1,255}")


def is_address(text: str) -> bool:
    """Whether a text may be an IP address or a host name: nothing that a log, a header or DNS would choke on."""
    return _ADDRESS.fullmatch(text) is not None


def is_label(text: str) -> bool:
    """Whether a text is a DNS label in lower case (RFC 1123), as names of services and namespaces are."""
    return _LABEL.fullmatch(text) is not None


def service_host(namespace: str, name: str, cluster_domain: str = CLUSTER_DOMAIN) -> str:
    """The full name of a service, which is its key everywhere: `web.default.svc.cluster.local`."""
    return f"{name}.{namespace}.svc.{cluster_domain}"


def split_service_host(host: str, cluster_domain: str = CLUSTER_DOMAIN) -> tuple[str, str] | None:
    """(namespace, name) of a full service name, or None where it is not one of this cluster domain."""
    tail = f".svc.{cluster_domain}"
    if not host.endswith(tail):
        return None
    name, dot, namespace = host[: -len(tail)].partition(".")
    return (namespace, name) if dot and name and namespace and "." not in namespace else None


def full_name(namespace: str, name: str) -> str:
    """`namespace/name`, the form in which objects and workloads are named to people and in keys."""
    return f"{namespace}/{name}"


def split_full_name(text: str, default_namespace: str = "default") -> tuple[str, str]:
    """(namespace, name) of `namespace/name`, or of a bare `name` in the default namespace."""
    namespace, slash, name = text.partition("/")
    return (namespace, name) if slash else (default_namespace, namespace)


def shared_labels(labels: dict[str, str]) -> dict[str, str]:
    """One object for the same labels, which the instances of a service mostly have: for facts, which nobody changes."""
    return _shared(tuple(labels.items()))


@lru_cache(10_000)
def _shared(items: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return dict(items)
