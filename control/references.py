"""What an object that is being written refers to and is not there: warnings, because objects may come in any order.

Rules are kept parsed and by the hosts that they are for, so that a write looks at what could concern it and not at
the whole mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..policy.host_names import complete
from ..policy.parse import RESOURCES, Parsed, moved, parse
from ..policy.resources import AuthorizationPolicy, DestinationRule, LocalRateLimit, VirtualService
from ..policy.validate import resources_of
from ..policy.validate_references import check_references, destinations
from ..policy.visibility import gateway_name
from ..registry.documents import Document
from ..registry.facts import facts_of
from ..registry.kinds import FACT_KINDS, Kind
from ..registry.merge import merge
from ..registry.names import CLUSTER_DOMAIN
from ..registry.schema import Findings
from ..registry.snapshot import Snapshot
from .catalog import Resource
from .conditions import only_status
from .store import Change, Key, Objects, Stored

ASKED = frozenset((*RESOURCES, "Service"))
"""Kinds that refer to others."""
INDEXED = frozenset(("VirtualService", "DestinationRule", "Gateway", "MeshConfig", "RequestAuthentication"))
"""Kinds that are referred to, other than facts."""
JUDGED_MOST = 1000
NEWEST = "9999-12-31T23:59:59Z"
"""Age of what has not been written yet."""


class References:
    """Over one store. `snapshot`: the registry's, where there is one; else the facts are those of the store."""

    def __init__(self, memory: Objects, kinds: Iterable[Kind], snapshot: Callable[[], Snapshot] | None = None) -> None:
        self._memory = memory
        self._kinds = {kind.name: kind for kind in kinds if kind.kind in INDEXED}
        self._parsed: dict[Key, Parsed] = {}
        self._places: dict[Key, set[str]] = {}
        """Where each is looked for (`places_of`)."""
        self._by_place: dict[str, set[Key]] = {}
        self._domain = CLUSTER_DOMAIN
        self._changed: dict[Key, Stored | None] = {
            stored.key: stored for name in self._kinds for stored in memory.all(name)
        }
        """Written since they were last parsed; at first everything."""
        self._judged: dict[Key, Parsed] = {}
        """What was judged lately and is being written, as it was parsed."""
        self._snapshot = snapshot
        self._own: tuple[int, Snapshot] = (-1, Snapshot())
        memory.subscribe(self._take)

    def _take(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.key.resource in self._kinds and not only_status(change):
                self._changed[change.key] = change.after

    def warnings(
        self, resource: Resource, body: Mapping[str, Any], namespace: str,
        checked: tuple[dict[str, Any], Findings] | None = None,
    ) -> list[tuple[str, str]]:  # fmt: skip
        """(path, message) of everything that this object misses. It must have passed its own check, whose result may be
        given."""
        mine = read(resource, body, namespace, checked)
        return [] if mine is None else self.missed(resource, mine)

    def keep(self, resource: Resource, mine: Parsed) -> None:
        """An object that is about to be written need not be read again then."""
        if resource.name in self._kinds:
            if len(self._judged) >= JUDGED_MOST:
                self._judged.clear()
            self._judged[Key(resource.name, mine.namespace, mine.document.name)] = mine.again()

    def missed(self, resource: Resource, mine: Parsed) -> list[tuple[str, str]]:
        """The same of one that has been read."""
        self.keep(resource, mine)
        told = len(mine.warnings)  # by its own check, and so told already
        others = self._concerned(mine, Key(resource.name, mine.namespace, mine.document.name))
        resources = resources_of([*others, mine])
        domain = resources.mesh.spec.cluster_domain
        snapshot = self._snapshot() if self._snapshot is not None else self._stored_facts(domain)
        gateways = [one for one in others if one.kind is not None and one.kind.kind == "Gateway"]
        check_references([mine, *gateways], resources, snapshot)
        return [*mine.references, *mine.warnings[told:]]

    def _concerned(self, mine: Parsed, own_key: Key) -> list[Parsed]:
        """The rules that this one could refer to or compete with."""
        domain = self._refresh()
        wanted = {"mesh", "*"}
        rule = mine.resource
        if isinstance(rule, VirtualService):
            wanted |= {f"claims {complete(host, mine.namespace, domain)}" for host in rule.spec.hosts}
            wanted |= {f"rules {complete(one.host, mine.namespace, domain)}" for _, one in destinations(rule)}
            wanted |= {f"gateway {gateway_name(name, mine.namespace)}" for name in rule.spec.gateways}
            wanted |= {
                f"rule {route.delegate.namespace or mine.namespace}/{route.delegate.name}"
                for route in rule.spec.http
                if route.delegate is not None
            }
        if isinstance(rule, LocalRateLimit):
            routes = [limit.match.route for limit in rule.spec.limits if limit.match.route is not None]
            names = [route.virtual_service for route in routes]
            wanted |= {f"rule {name if '/' in name else f'{mine.namespace}/{name}'}" for name in names}
        if isinstance(rule, AuthorizationPolicy):  # one of the root namespace holds in all
            settings = [self._parsed[key] for key in sorted(self._by_place.get("mesh", ()))]
            root = resources_of(settings).mesh.spec.root_namespace
            wanted |= {"tokens"} if mine.namespace == root else {f"tokens {mine.namespace}", f"tokens {root}"}
        keys: set[Key] = set()
        for place in wanted:
            keys |= self._by_place.get(place, set())
        return [self._parsed[key] for key in sorted(keys - {own_key})]

    def _refresh(self) -> str:
        """Index what was written since the last time; the mesh's cluster domain."""
        while self._changed:
            settings = False
            for key, stored in self._changed.items():
                settings |= "mesh" in self._places.get(key, ())
                self._index(key, stored)
                settings |= "mesh" in self._places.get(key, ())
            self._changed.clear()
            if not settings:
                break
            config = resources_of([self._parsed[key] for key in sorted(self._by_place.get("mesh", ()))])
            domain = config.mesh.spec.cluster_domain
            if domain != self._domain:
                self._domain = domain  # short names mean others now
                self._changed = {key: self._memory.get(key) for key in self._parsed}
        return self._domain

    def _index(self, key: Key, stored: Stored | None) -> None:
        before = self._parsed.pop(key, None)
        for place in self._places.pop(key, ()) if before is not None else ():
            self._by_place[place].discard(key)
            if not self._by_place[place]:
                del self._by_place[place]
        if stored is not None:
            document = _document(stored, self._kinds[key.resource])
            judged = self._judged.pop(key, None)
            known = judged is not None and _same_rule(judged.document.body, document.body)
            parsed = self._parsed[key] = moved(judged, document) if known and judged else parse(document)
            self._places[key] = places_of(parsed, self._domain)
            for place in self._places[key]:
                self._by_place.setdefault(place, set()).add(key)

    def _stored_facts(self, domain: str) -> Snapshot:
        if self._own[0] != self._memory.revision:
            documents = [_document(stored, kind) for kind in FACT_KINDS for stored in self._memory.all(kind.name)]
            facts = facts_of(documents, "control", domain)
            self._own = (self._memory.revision, merge([("control", facts)], {}, Snapshot()))
        return self._own[1]


def read(
    resource: Resource, body: Mapping[str, Any], namespace: str,
    checked: tuple[dict[str, Any], Findings] | None = None,
) -> Parsed | None:  # fmt: skip
    """An object that is about to be written, as a rule; None: it refers to nothing, or is none. Looks at nothing
    else."""
    if resource.kind not in ASKED:
        return None
    metadata = {"creationTimestamp": NEWEST, **(body.get("metadata") or {})}
    mine = parse(Document.of({**body, "metadata": metadata}, "this object", namespace), checked)
    return mine if mine.usable else None


def places_of(parsed: Parsed, domain: str) -> set[str]:
    """Where a rule is looked for: by its hosts, by its name, or always."""
    rule = parsed.resource
    if isinstance(rule, VirtualService):
        hosts = {f"claims {complete(host, parsed.namespace, domain)}" for host in rule.spec.hosts}
        return {f"rule {rule.meta.key}", *hosts}
    if isinstance(rule, DestinationRule):
        host = complete(rule.spec.host, parsed.namespace, domain)
        return {"*" if host.startswith("*") else f"rules {host}"}
    if parsed.kind is not None and parsed.kind.kind == "Gateway":
        return {f"gateway {parsed.namespace}/{parsed.document.name}"}
    if parsed.kind is not None and parsed.kind.kind == "RequestAuthentication":
        return {"tokens", f"tokens {parsed.namespace}"}
    return {"mesh"}


def _same_rule(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """But for what is not the rule itself."""
    keys = (one.keys() | two.keys()) - {"apiVersion", "metadata", "status"}
    return all(one.get(key) == two.get(key) for key in keys)


def _document(stored: Stored, kind: Kind) -> Document:
    body = {"apiVersion": kind.api_versions[0], "kind": kind.kind, **stored.object()}
    return Document.of(body, f"{kind.kind} {stored.key.namespace}/{stored.key.name}")
