"""The roles that every control plane has: what stands in them, and what a start makes of those that are there."""

from __future__ import annotations

from typing import Any

from fairlead.control.rbac import CLUSTER_ROLES, GROUP, read_rules
from fairlead.control.rbac_defaults import AUTOUPDATE, defaults, missing
from fairlead.control.store import Key, Objects, Write

SERVED = [("", "services", True), ("", "secrets", True), ("", "namespaces", False), (GROUP, "roles", True),
          ("example.com", "things", True), ("example.com", "wholes", False)]  # fmt: skip


class Plane:
    def __init__(self) -> None:
        self.memory = Objects()
        self.uids = 0

    def uid(self) -> str:
        self.uids += 1
        return f"uid-{self.uids}"

    def start(self, served: Any = SERVED) -> list[Write]:
        writes = missing(self.memory, served, self.uid, "2026-01-01T00:00:00Z")
        self.memory.commit(self.memory.plan(writes))
        return writes

    def role(self, name: str) -> dict[str, Any]:
        stored = self.memory.get(Key(CLUSTER_ROLES, "", name))
        assert stored is not None
        return stored.object()


def permits(name: str, verb: str, group: str, resource: str) -> bool:
    body = next(body for _, one, body in defaults(SERVED) if one == name)
    return any(
        {verb, "*"} & set(rule.get("verbs", ()))
        and {group, "*"} & set(rule.get("apiGroups", ()))
        and {resource, "*"} & set(rule.get("resources", ()))
        for rule in body["rules"]
    )


def test_secrets_and_roles_are_for_those_who_may_change_and_nobody_below() -> None:
    view, edit, admin = (f"system:aggregate-to-{name}" for name in ("view", "edit", "admin"))
    assert not permits(view, "get", "", "secrets")
    assert permits(edit, "get", "", "secrets")
    assert not permits(view, "get", GROUP, "roles")
    assert not permits(edit, "get", GROUP, "roles")
    assert permits(admin, "update", GROUP, "roles")
    assert not permits(view, "update", "", "services")
    assert permits(view, "watch", "", "services/status")
    assert not permits(edit, "update", "", "services/status")


def test_what_has_no_namespace_is_nobodys_but_the_namespaces_themselves_can_be_seen() -> None:
    view, edit = "system:aggregate-to-view", "system:aggregate-to-edit"
    assert permits(view, "list", "", "namespaces")
    assert not permits(edit, "delete", "", "namespaces")
    assert not permits(view, "list", "example.com", "wholes")
    assert not permits(edit, "create", "example.com", "wholes")


def test_a_first_start_writes_all_and_a_second_nothing() -> None:
    plane = Plane()
    assert len(plane.start()) == len(defaults(SERVED)) == 12
    assert plane.role("view")["metadata"]["uid"].startswith("uid-")
    assert plane.start() == []


def test_a_resource_that_is_new_comes_into_roles_that_are_kept_up_to_date_and_no_others() -> None:
    plane = Plane()
    plane.start()
    view = Key(CLUSTER_ROLES, "", "system:aggregate-to-view")
    more = [*SERVED, ("example.com", "news", True)]
    writes = plane.start(more)
    assert {write.key.name for write in writes} == {"system:aggregate-to-view", "system:aggregate-to-edit"}
    assert plane.role("system:aggregate-to-view")["metadata"]["uid"] == "uid-7"
    body = plane.role("system:aggregate-to-view")
    body["metadata"]["annotations"] = {AUTOUPDATE: "false"}
    plane.memory.commit(plane.memory.plan([Write(view, body)]))
    assert {write.key.name for write in plane.start(SERVED)} == {"system:aggregate-to-edit"}


def test_every_default_can_be_read_as_rules() -> None:
    for resource, name, body in defaults(SERVED):
        if resource == CLUSTER_ROLES and "aggregationRule" not in body:
            assert read_rules(body), name
