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
            gone = _list(value, key)
            result[name] = [item for item in _list(result.get(name, []), name) if item not in gone]
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


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise PatchError(f"{name}: expected a list")
    return value


def _merge_list(target: Any, patch: list[Any], rule: ListRule, rules: Mapping[Path, ListRule], path: Path) -> list[Any]:
    current = list(target) if isinstance(target, list) else []
    if not rule.key:
        return current + [copy.deepcopy(item) for item in patch if item not in current]
    if not all(isinstance(item, dict) for item in [*patch, *current]):
        raise PatchError(f"{'.'.join(path)}: expected a list of objects")
    if any(item.get("$patch") == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if "$patch" not in item]
    for item in patch:
        if rule.key not in item:
            raise PatchError(f"{'.'.join(path)}: an item of the patch lacks its merge key {rule.key!r}")
        at = next((n for n, own in enumerate(current) if own.get(rule.key) == item[rule.key]), None)
        if item.get("$patch") == "delete":
            current = [own for own in current if own.get(rule.key) != item[rule.key]]
        elif at is None:
            current.append(strategic_patch({}, item, rules, path))
        else:
            current[at] = strategic_patch(current[at], item, rules, path)
    return current


def _in_order(items: list[Any], order: list[Any], rule: ListRule) -> list[Any]:
    """Items in the order that the patch gives; those that it does not name follow in the order they had."""

    def identity(item: Any) -> Any:
        return item.get(rule.key) if rule.key and isinstance(item, dict) else item

    wanted = [identity(item) for item in order]
    named = [item for item in items if identity(item) in wanted]
    return sorted(named, key=lambda item: wanted.index(identity(item))) + [
        item for item in items if identity(item) not in wanted
    ]
