"""Entries for a kubeconfig file, merged into what stands there: nothing else in it is touched.

https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/ : of several files (KUBECONFIG)
the first that has an entry counts; a new entry goes to the first file that exists, else to the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

LISTS = {"cluster": "clusters", "user": "users", "context": "contexts"}
Config = dict[str, Any]


class KubeconfigError(ValueError):
    """It cannot be merged; the message says what stands in the way, and what to do."""


class Entries(Struct, frozen=True):
    """What is to be there: a cluster, a user and a context of these names."""

    cluster_name: str
    cluster: dict[str, Any]
    user_name: str
    user: dict[str, Any]
    context_name: str
    namespace: str = ""

    def listed(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(cluster, user or context; name; body)."""
        context = {"cluster": self.cluster_name, "user": self.user_name}
        if self.namespace:
            context["namespace"] = self.namespace
        return [
            ("cluster", self.cluster_name, self.cluster),
            ("user", self.user_name, self.user),
            ("context", self.context_name, context),
        ]


def check(config: Any, path: str) -> Config:
    """A kubeconfig as it was read; an empty file is one, too. Raises KubeconfigError."""
    if config is None:
        return {}
    if not isinstance(config, dict) or config.get("kind") not in (None, "", "Config"):
        raise KubeconfigError(f"{path}: is not a kubeconfig (kind: Config); name another file with --kubeconfig")
    for field in LISTS.values():
        listed = config.get(field)
        if listed is not None and not (isinstance(listed, list) and all(isinstance(one, dict) for one in listed)):
            raise KubeconfigError(f"{path}: {field}: expected a list of objects; mend the file first")
    return config


def entry(config: Mapping[str, Any], kind: str, name: str) -> dict[str, Any] | None:
    """The entry of this name; None: there is none."""
    for one in config.get(LISTS[kind]) or ():
        if one.get("name") == name:
            return one  # type: ignore[no-any-return]
    return None


def merge(
    files: Sequence[tuple[str, Config]], default: int, entries: Entries, force: bool = False, use: bool = False
) -> set[int]:
    """Put the entries into the files (path, config) and return the numbers of those that have changed.

    `default`: the file for what is nowhere yet. `force`: replace entries of the same name that say otherwise; else
    KubeconfigError, and nothing is changed. `use`: make it the current context even where there is another.
    """
    plan: list[tuple[int, str, str, dict[str, Any]]] = []
    for kind, name, body in entries.listed():
        place, stands = default, None
        for number, (_, config) in enumerate(files):
            stands = entry(config, kind, name)
            if stands is not None:
                place = number
                break
        if stands is None:
            plan.append((place, kind, name, body))
            continue
        if stands.get(kind) == body:
            continue
        if kind == "context" and not entries.namespace and _same_but_namespace(stands.get(kind), body):
            continue  # the namespace was chosen by `kubectl config set-context`
        if not force:
            raise KubeconfigError(
                f"{files[place][0]}: there is another {kind} of the name {name} already; choose a name "
                f"(--{'context' if kind == 'context' else 'name'}), or replace it with --force"
            )
        plan.append((place, kind, name, body))
    changed = set()
    for place, kind, name, body in plan:
        _put(files[place][1], kind, name, body)
        changed.add(place)
    current = next((config["current-context"] for _, config in files if config.get("current-context")), "")
    if not current or (use and current != entries.context_name):
        place = next((n for n, (_, config) in enumerate(files) if config.get("current-context")), default)
        files[place][1]["current-context"] = entries.context_name
        changed.add(place)
    for place in changed:
        config = files[place][1]
        config.setdefault("apiVersion", "v1")
        config.setdefault("kind", "Config")
        for field in LISTS.values():
            config.setdefault(field, [])
    return changed


def _same_but_namespace(stands: Any, body: Mapping[str, Any]) -> bool:
    return isinstance(stands, dict) and {key: value for key, value in stands.items() if key != "namespace"} == body


def _put(config: Config, kind: str, name: str, body: dict[str, Any]) -> None:
    stands = entry(config, kind, name)
    if stands is not None:
        stands[kind] = body
        return
    if config.get(LISTS[kind]) is None:
        config[LISTS[kind]] = []
    config[LISTS[kind]].append({"name": name, kind: body})
