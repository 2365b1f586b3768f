"""Strategic merge patch, which kubectl sends for the built-in kinds, and the keys by which their lists are merged.

Rules: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
Keys are those of the `patchMergeKey` and `x-kubernetes-list-map-keys` marks of the upstream types. Lists that are not
named here are replaced as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from .patch import PatchError

Path = tuple[str, ...]


class ListRule(Struct, frozen=True):
    """How a list is merged. `key` for a strategic patch, `keys` for server-side apply; without keys: a set."""

    key: str = ""
    keys: tuple[str, ...] = ()


def _by(*keys: str) -> ListRule:
    return ListRule(keys[0], keys)


_METADATA: dict[Path, ListRule] = {
    ("metadata", "finalizers"): ListRule(),
    ("metadata", "ownerReferences"): _by("uid"),
}
_CONDITIONS: dict[Path, ListRule] = {("status", "conditions"): _by("type")}


def _containers(name: str) -> dict[Path, ListRule]:
    return {
        ("spec", name): _by("name"),
        ("spec", name, "ports"): _by("containerPort", "protocol"),
        ("spec", name, "env"): _by("name"),
        ("spec", name, "volumeMounts"): _by("mountPath"),
        ("spec", name, "volumeDevices"): _by("devicePath"),
    }


_POD_SPEC: dict[Path, ListRule] = {
    **_containers("containers"),
    **_containers("initContainers"),
    ("spec", "volumes"): _by("name"),
    ("spec", "imagePullSecrets"): _by("name"),
    ("spec", "hostAliases"): _by("ip"),
    ("spec", "topologySpreadConstraints"): _by("topologyKey", "whenUnsatisfiable"),
}


def _template(*above: str) -> dict[Path, ListRule]:
    """Of a kind with a pod template below these fields."""
    return {**_METADATA, **_CONDITIONS, **{(*above, "template", *path): rule for path, rule in _POD_SPEC.items()}}


LIST_RULES: dict[str, dict[Path, ListRule]] = {
    "services": {**_METADATA, **_CONDITIONS, ("spec", "ports"): _by("port", "protocol")},
    "namespaces": {**_METADATA, **_CONDITIONS},
    "secrets": _METADATA,
    "pods": {
        **_METADATA,
        **_CONDITIONS,
        **_POD_SPEC,
        ("status", "podIPs"): _by("ip"),
    },
    **dict.fromkeys(
        (
            "deployments.apps",
            "statefulsets.apps",
            "daemonsets.apps",
            "replicasets.apps",
            "replicationcontrollers",
            "jobs.batch",
        ),
        _template("spec"),
    ),
    "cronjobs.batch": _template("spec", "jobTemplate", "spec"),
}
DEFAULTED = {"protocol": "TCP"}
"""Keys of list items that have a default where they are absent."""


def rules_of(resource: str) -> Mapping[Path, ListRule]:
    """The list rules of `services` or `virtualservices.networking.istio.io`."""
    return LIST_RULES.get(resource, _METADATA)


def strategic_patch(target: Any, patch: Any, rules: Mapping[Path, ListRule], path: Path = ()) -> Any:
    """The patched object. Raises PatchError."""
    if not isinstance(patch, dict):
        raise PatchError("a strategic merge patch is an object")
    directive = patch.get("$patch")
    rest = {key: value for key, value in patch.items() if not key.startswith("$")}
    if directive == "replace":
        return copy.deepcopy(rest)
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise PatchError(f"unknown $patch {directive!r}: expected replace, delete or merge")
    result = dict(target) if isinstance(target, dict) else {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        if not isinstance(retained, list):
            raise PatchError("$retainKeys is a list")
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            gone = {_told(item) for item in _list(value, key)}
            result[name] = [item for item in _list(result.get(name, []), name) if _told(item) not in gone]
    for key, value in rest.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = strategic_patch(result.get(key), value, rules, (*path, key))
        elif isinstance(value, list) and (rule := rules.get((*path, key))) is not None:
            result[key] = _merge_list(result.get(key), value, rule, rules, (*path, key))
        else:
            result[key] = copy.deepcopy(value)
    for key, value in patch.items():
        if key.startswith("$setElementOrder/"):
            name = key.partition("/")[2]
            if isinstance(result.get(name), list):
                result[name] = _in_order(result[name], _list(value, key), rules.get((*path, name), ListRule()))
    return result


def _told(value: Any) -> str:
    """A value as a key of dictionaries: lists are long where somebody wants to keep us busy."""
    return repr(value)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise PatchError(f"{name}: expected a list")
    return value


def _merge_list(target: Any, patch: list[Any], rule: ListRule, rules: Mapping[Path, ListRule], path: Path) -> list[Any]:
    current = list(target) if isinstance(target, list) else []
    if not rule.key:
        there = {_told(item) for item in current}
        return current + [copy.deepcopy(item) for item in patch if _told(item) not in there]
    if not all(isinstance(item, dict) for item in [*patch, *current]):
        raise PatchError(f"{'.'.join(path)}: expected a list of objects")
    if any(item.get("$patch") == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if "$patch" not in item]
    made: dict[int, Any] = dict(enumerate(current))
    places: dict[str, list[int]] = {}
    """Where the items with this key stand in `made`."""
    for at, own in made.items():
        places.setdefault(_told(own.get(rule.key)), []).append(at)
    for at, item in enumerate(patch, len(current)):
        if rule.key not in item:
            raise PatchError(f"{'.'.join(path)}: an item of the patch lacks its merge key {rule.key!r}")
        key = _told(item[rule.key])
        if item.get("$patch") == "delete":
            for gone in places.pop(key, ()):
                del made[gone]
        elif key in places:
            first = places[key][0]
            made[first] = strategic_patch(made[first], item, rules, path)
        else:
            made[at] = strategic_patch({}, item, rules, path)
            places[key] = [at]
    return list(made.values())


def _in_order(items: list[Any], order: list[Any], rule: ListRule) -> list[Any]:
    """Items in the order that the patch gives; those that it does not name follow in the order they had."""

    def identity(item: Any) -> str:
        return _told(item.get(rule.key) if rule.key and isinstance(item, dict) else item)

    wanted: dict[str, int] = {}
    for place, item in enumerate(order):
        wanted.setdefault(identity(item), place)
    named = [item for item in items if identity(item) in wanted]
    return sorted(named, key=lambda item: wanted[identity(item)]) + [
        item for item in items if identity(item) not in wanted
    ]
