"""Kubernetes RBAC: who may do what, as Role, ClusterRole, RoleBinding and ClusterRoleBinding objects say.

Permissions only add up; what no rule grants is refused. Members of `system:masters` may do everything, whatever the
objects say, so that nobody can lock everybody out. Bindings are kept by subject and
namespace as they change; the rules of a role are read once after roles have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from .selectors import Predicate, selector_predicate
from .store import Change, Key, Objects, Stored

GROUP = "rbac.authorization.k8s.io"
ROLES, CLUSTER_ROLES = f"roles.{GROUP}", f"clusterroles.{GROUP}"
ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS = f"rolebindings.{GROUP}", f"clusterrolebindings.{GROUP}"
RESOURCES = frozenset((ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS))
MASTERS, AUTHENTICATED, UNAUTHENTICATED = "system:masters", "system:authenticated", "system:unauthenticated"
PIECES_MAX = 20_000
"""Permissions for one verb, group and resource that are compared before somebody may grant them."""
AGGREGATE_DEPTH_MAX = 8
"""So deep ClusterRoles may gather ClusterRoles that gather; a circle ends there."""


class User(Struct, frozen=True):
    """Somebody whose permissions are asked for."""

    name: str
    groups: tuple[str, ...] = ()


class Attributes(Struct, frozen=True):
    """What somebody wants to do, as authorizers see it: to a resource, or, where `path` is given, to another URL."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    """Empty: all namespaces, or a resource that has none."""
    name: str = ""
    path: str = ""

    @property
    def full_resource(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    def sentence(self, user: str) -> str:
        """Who may not do it, in Kubernetes' words."""
        if self.path:
            return f'User "{user}" cannot {self.verb} path "{self.path}"'
        where = f' in the namespace "{self.namespace}"' if self.namespace else " at the cluster scope"
        return f'User "{user}" cannot {self.verb} resource "{self.full_resource}" in API group "{self.group}"{where}'


class Rule(Struct, frozen=True):
    """One PolicyRule."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    """Empty: any."""
    paths: tuple[str, ...] = ()

    def allows(self, wanted: Attributes) -> bool:
        if wanted.verb not in self.verbs and "*" not in self.verbs:
            return False
        if wanted.path:
            return any(_path_matches(path, wanted.path) for path in self.paths)
        if wanted.group not in self.groups and "*" not in self.groups:
            return False
        if not self._has_resource(wanted.resource, wanted.subresource):
            return False
        return not self.names or wanted.name in self.names

    def _has_resource(self, resource: str, subresource: str) -> bool:
        """`pods`, `pods/log`, `*/scale` and `*`, which is every subresource as well."""
        if "*" in self.resources:
            return True
        if not subresource:
            return resource in self.resources
        return f"{resource}/{subresource}" in self.resources or f"*/{subresource}" in self.resources

    def as_object(self) -> dict[str, Any]:
        """As it is written in a Role."""
        fields = {"verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources,
                  "resourceNames": self.names, "nonResourceURLs": self.paths}  # fmt: skip
        return {key: sorted(value) for key, value in fields.items() if value}


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))


def read_rules(body: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Of a Role or ClusterRole; what is not well-formed grants nothing."""
    found = []
    for one in body.get("rules") or ():
        if not isinstance(one, Mapping):
            continue
        verbs, groups, resources, names, paths = (
            tuple(item for item in one.get(key) or () if isinstance(item, str))
            for key in ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")
        )
        found.append(Rule(frozenset(verbs), frozenset(groups), frozenset(resources), frozenset(names), paths))
    return tuple(found)


class Decision(Struct, frozen=True):
    """`reason`: for a permission the binding, role and subject that gave it, in Kubernetes' words."""

    allowed: bool
    reason: str = ""


class Binding(Struct, frozen=True):
    """A RoleBinding, or (without namespace) a ClusterRoleBinding."""

    namespace: str
    name: str
    kind: str
    """ClusterRole or Role."""
    role: str

    def reason(self, subject: str) -> str:
        if not self.namespace:
            return f'RBAC: allowed by ClusterRoleBinding "{self.name}" of {self.kind} "{self.role}" to {subject}'
        return f'RBAC: allowed by RoleBinding "{self.name}/{self.namespace}" of {self.kind} "{self.role}" to {subject}'


class Rbac:
    """Permissions by the objects of a store."""

    def __init__(self, memory: Objects) -> None:
        self._memory = memory
        self._by_subject: dict[tuple[str, str, str], dict[Key, Binding]] = {}
        """By (User or Group, name, namespace of the binding): whoever has a namespace may bind in it as often as they
        like, and whom they like, and must not make a question about another one any slower."""
        self._rules: dict[tuple[str, str, str], tuple[Rule, ...]] = {}
        """By (kind, name, namespace) of a role, as far as they were asked for since roles changed."""
        for resource in (CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS):
            for stored in memory.all(resource):
                self._bind(stored, True)
        self.close = memory.subscribe(self._changed)

    def _changed(self, changes: Iterable[Change]) -> None:
        for change in changes:
            resource = change.key.resource
            if resource in (ROLES, CLUSTER_ROLES):
                self._rules = {}
            elif resource in RESOURCES:
                if change.before is not None:
                    self._bind(change.before, False)
                if change.after is not None:
                    self._bind(change.after, True)

    # --- reading the objects ----------------------------------------------------------------------------------------

    def rules_of_role(self, kind: str, name: str, namespace: str) -> tuple[Rule, ...] | None:
        """Of a Role of this namespace, or a ClusterRole with all that it gathers; None: it does not exist."""
        key = Key(ROLES, namespace, name) if kind == "Role" else Key(CLUSTER_ROLES, "", name)
        stored = self._memory.get(key)
        if stored is None:
            return None
        body = stored.object()
        return read_rules(body) if kind == "Role" else self.gathered(body)

    def gathered(self, body: Mapping[str, Any], depth: int = 0) -> tuple[Rule, ...]:
        """Rules of a ClusterRole: its own, or with an aggregationRule those of all that this selects."""
        selectors = aggregation(body)
        if selectors is None:
            return read_rules(body)
        if depth >= AGGREGATE_DEPTH_MAX:
            return ()
        rules: dict[Rule, None] = {}
        own = (body.get("metadata") or {}).get("name")
        for stored in self._memory.all(CLUSTER_ROLES):
            other = stored.object()
            if stored.key.name != own and any(selects(other) for selects in selectors):
                rules.update(dict.fromkeys(self.gathered(other, depth + 1)))
        return tuple(rules)

    def _bind(self, stored: Stored, there: bool) -> None:
        key, body = stored.key, stored.object()
        reference = body.get("roleRef") or {}
        kind, name = str(reference.get("kind", "")), str(reference.get("name", ""))
        if kind not in ("Role", "ClusterRole") or (kind == "Role" and not key.namespace):
            return
        made = Binding(key.namespace, key.name, kind, name)
        for subject in body.get("subjects") or ():
            if (who := read_subject(subject, key.namespace)) is None:
                continue
            place = (*who, key.namespace)
            if there:
                self._by_subject.setdefault(place, {})[key] = made
            elif place in self._by_subject:
                self._by_subject[place].pop(key, None)
                if not self._by_subject[place]:
                    del self._by_subject[place]

    def _rules_of(self, binding: Binding) -> tuple[Rule, ...]:
        """Nothing is granted by a role that is not there."""
        place = (binding.kind, binding.role, binding.namespace if binding.kind == "Role" else "")
        found = self._rules.get(place)
        if found is None:
            found = self._rules[place] = self.rules_of_role(*place) or ()
        return found

    # --- answers ----------------------------------------------------------------------------------------------------

    def _bindings(self, user: User, namespace: str) -> Iterator[tuple[Binding, str]]:
        """What counts in a namespace (empty: outside of all), with the subject as Kubernetes writes it."""
        for kind, names in (("User", (user.name,)), ("Group", user.groups)):
            for name in names:
                for place in ("", namespace) if namespace else ("",):
                    for binding in self._by_subject.get((kind, name, place), {}).values():
                        yield binding, f'{kind} "{name}"'

    def decide(self, user: User, wanted: Attributes) -> Decision:
        """Whether this user may."""
        if MASTERS in user.groups:
            return Decision(True, f"member of {MASTERS}")
        tried = set()
        for binding, subject in self._bindings(user, "" if wanted.path else wanted.namespace):
            rules = self._rules_of(binding)
            if id(rules) not in tried and any(rule.allows(wanted) for rule in rules):
                return Decision(True, binding.reason(subject))
            tried.add(id(rules))  # a role that is bound a thousand times is asked once
        return Decision(False)

    def rules_for(self, user: User, namespace: str) -> list[Rule]:
        """All that this user has in a namespace (empty: everywhere)."""
        if MASTERS in user.groups:
            every = frozenset("*")
            return [Rule(every, every, every), Rule(every, paths=("*",))]
        rules: dict[Rule, None] = {}
        tried = set()
        for binding, _ in self._bindings(user, namespace):
            found = self._rules_of(binding)
            if (id(found), not binding.namespace) in tried:
                continue
            tried.add((id(found), not binding.namespace))
            if not binding.namespace:
                rules.update(dict.fromkeys(found))
            else:  # URLs beyond resources are in no namespace
                rules.update(dict.fromkeys(rule for rule in found if rule.resources))
        return list(rules)

    def missing(self, user: User, namespace: str, wanted: Iterable[Rule], most: int = 50) -> list[Rule]:
        """What of these rules this user does not have (so much is told): who may not grant what they do not have
        themselves. Raises ValueError where they say more than can be compared."""
        held = self.rules_for(user, namespace)
        lacking: list[Rule] = []
        left = PIECES_MAX
        for rule in wanted:
            for one in pieces(Rule(rule.verbs, rule.groups, rule.resources, frozenset(), rule.paths)):
                left -= 1
                # What is held for every name is held for each: so a long list of names costs nothing.
                if not any(_covers(own, one) for own in held):
                    for named in _by_name(one, rule.names):
                        left -= 1
                        if not any(_covers(own, named) for own in held):
                            lacking.append(named)
                        if len(lacking) >= most:
                            return lacking
                        if left < 0:
                            break
                if left < 0:
                    raise ValueError(
                        f"they are more than {PIECES_MAX} single permissions: say them with *, or in parts"
                    )
        return lacking


def _by_name(piece: Rule, names: frozenset[str]) -> Iterator[Rule]:
    """A piece of a rule for each of the names that the rule has; a rule without, and for URLs, is for all."""
    if piece.paths or not any(names):
        yield piece
        return
    for name in sorted(names):
        yield Rule(piece.verbs, piece.groups, piece.resources, frozenset((name,)) if name else frozenset())


def pieces(rule: Rule) -> Iterator[Rule]:
    """A rule as rules of one verb, group, resource and name, or of one verb and path, each."""
    for verb in sorted(rule.verbs):
        for path in rule.paths:
            yield Rule(frozenset((verb,)), paths=(path,))
        for group in sorted(rule.groups):
            for resource in sorted(rule.resources):
                for name in sorted(rule.names) or ("",):
                    yield Rule(
                        frozenset((verb,)), frozenset((group,)), frozenset((resource,)),
                        frozenset((name,)) if name else frozenset(),
                    )  # fmt: skip


def _covers(own: Rule, piece: Rule) -> bool:
    """Whether one rule grants all that a piece does; a star is covered by a star only."""
    if not piece.verbs <= own.verbs and "*" not in own.verbs:
        return False
    if piece.paths:
        return any(_path_covers(path, piece.paths[0]) for path in own.paths)
    if not piece.groups <= own.groups and "*" not in own.groups:
        return False
    (wanted,) = piece.resources
    _, _, subresource = wanted.partition("/")
    if not (wanted in own.resources or "*" in own.resources or (subresource and f"*/{subresource}" in own.resources)):
        return False
    return not own.names or bool(piece.names and piece.names <= own.names)


def _path_covers(own: str, wanted: str) -> bool:
    return own in ("*", wanted) or (own.endswith("*") and wanted.rstrip("*").startswith(own.rstrip("*")))


def read_subject(subject: Any, namespace: str) -> tuple[str, str] | None:
    """(User or Group, name) of a binding's subject; a service account is the user that stands for it."""
    if not isinstance(subject, Mapping):
        return None
    kind, name = subject.get("kind"), subject.get("name")
    if not isinstance(name, str) or not name:
        return None
    if kind in ("User", "Group"):
        return str(kind), name
    if kind == "ServiceAccount":
        return "User", account_name(str(subject.get("namespace") or namespace), name)
    return None


def account_name(namespace: str, name: str) -> str:
    """The user that stands for a service account."""
    return f"system:serviceaccount:{namespace}:{name}"


def account_groups(namespace: str) -> tuple[str, ...]:
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)


def aggregation(body: Mapping[str, Any]) -> list[Predicate] | None:
    """The selectors of a ClusterRole's aggregationRule; None: it has none."""
    rule = body.get("aggregationRule")
    if not isinstance(rule, Mapping):
        return None
    found: list[Predicate] = []
    for one in rule.get("clusterRoleSelectors") or ():
        if isinstance(one, Mapping):
            found.append(selector_predicate(one))
    return found


def shown(rules: Iterable[Rule]) -> str:
    """Rules for people, as Kubernetes writes them."""
    texts = []
    for rule in rules:
        fields = (("APIGroups", rule.groups), ("Resources", rule.resources), ("ResourceNames", rule.names),
                  ("NonResourceURLs", rule.paths), ("Verbs", rule.verbs))  # fmt: skip
        listed = (f"{key}:[{', '.join(_quoted(v) for v in sorted(values))}]" for key, values in fields if values)
        texts.append("{" + ", ".join(listed) + "}")
    return "\n".join(texts)


def _quoted(text: str) -> str:
    return f'"{text}"'
