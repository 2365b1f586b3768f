"""Which Secrets each proxy is to have, from the rules in force as they stand in the feed's book.

A Secret goes to the proxies whose rules name it (policy/credentials.py), and to no other. The labels by which rules
select a proxy are those that a Pod or WorkloadEntry declares, or what of its own word counts (claims.py). What goes by
labels beyond a gateway's own namespace, or to a sidecar, asks for a declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..policy.credentials import secrets_of_gateway, secrets_of_sidecar
from ..policy.parse import Parsed, parse
from ..policy.resources import Resources
from ..policy.validate import resources_of
from ..registry.documents import Document
from ..registry.model import Workload
from .push import SECRETS

ALWAYS = frozenset(
    (
        "gateways.networking.istio.io",
        "ingresses.networking.k8s.io",
        "ingressclasses.networking.k8s.io",
        "meshconfigs.fairlead.dev",
    )
)
RULES = "destinationrules.networking.istio.io"
"""Only those that name a Secret are looked at."""
DECLARED = ("control", "manifests")
"""Sources of workloads that only an administrator writes to."""


class WantedSecrets:
    """`take` what changes in the book; then `of` tells the item keys of one proxy's Secrets."""

    def __init__(self) -> None:
        self._parsed: dict[str, Parsed] = {}
        self._resources: Resources | None = Resources()
        """None: to be made anew."""
        self._known: dict[tuple[Any, ...], frozenset[str]] = {}

    def take(self, changed: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Objects by item key, None for a removed one."""
        for key, body in changed.items():
            resource = key.split("/", 2)[1]
            if resource not in ALWAYS and resource != RULES:
                continue
            if body is None or (resource == RULES and not _names_secret(body.get("spec"))):
                if self._parsed.pop(key, None) is None:
                    continue
            else:
                self._parsed[key] = parse(Document.of(dict(body), key))
            self._resources = None

    @property
    def are_nobodys(self) -> bool:
        """Whether no rule could name a Secret."""
        return not self._parsed

    def of(self, workload: Workload, gateway: bool, trusted: bool) -> frozenset[str]:
        """`workload` as the registry has it; `trusted`: who acts for it may see everything (an administrator)."""
        if self._resources is None:
            self._resources = resources_of(list(self._parsed.values()))
            self._known = {}
        if not self._parsed:
            return frozenset()
        resources = self._resources
        namespace = workload.namespace
        known_to_be = trusted or workload.source in DECLARED
        key = (gateway, namespace, known_to_be, tuple(sorted(workload.labels.items())))
        found = self._known.get(key)
        if found is None:
            if gateway:
                elsewhere = known_to_be or namespace == resources.mesh.spec.root_namespace
                names = secrets_of_gateway(resources, workload, elsewhere)
            else:
                names = secrets_of_sidecar(resources, workload) if known_to_be else frozenset()
            found = self._known[key] = frozenset(f"{SECRETS}{where}/{name}" for where, name in names)
        return found


def _names_secret(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(key in ("credentialName", "credential_name") or _names_secret(one) for key, one in value.items())
    return isinstance(value, list) and any(map(_names_secret, value))
