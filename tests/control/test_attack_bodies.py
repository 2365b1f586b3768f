"""Requests of somebody with few rights, made to keep control busy: each would have taken minutes of its loop."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fairlead.control.access import named_by
from fairlead.control.admission import Admission, check_envelope, steps_of, without
from fairlead.control.catalog import Catalog
from fairlead.control.kinds import parts
from fairlead.control.managed_fields import server_side_apply
from fairlead.control.patch import PatchError, json_patch
from fairlead.control.patch_strategic import rules_of, strategic_patch
from fairlead.control.rbac import (
    CLUSTER_ROLES,
    PIECES_MAX,
    ROLE_BINDINGS,
    Attributes,
    Rbac,
    Rule,
    User,
)
from fairlead.control.selectors import field_predicate, label_predicate
from fairlead.control.status import TOLD_MAX, Cause, StatusError, invalid
from fairlead.control.store import Key, Objects, Write
from fairlead.registry.schema import GUESSES_MAX
from tests.control.test_rbac import binding

SOON_S = 10.0
"""Far more than what each takes, also on a busy machine, and far less than it took."""


@pytest.fixture(autouse=True)
def soon() -> Any:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < SOON_S


@pytest.mark.parametrize("selector", ["metadata.name=" + " " * 8000 + ",", "metadata.name=" + " " * 8000 + "x!", ","])
def test_a_name_is_looked_for_in_a_field_selector_of_blanks(selector: str) -> None:
    assert named_by(selector) == ""


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        ("metadata.name=x", "x"), ("metadata.name==x", "x"), (" metadata.name = x ", "x"), ("metadata.name!=x", ""),
        ("metadata.name=x,metadata.name=y", ""), ("metadata.name===x", ""), ("metadata.name=", ""),
        ("metadata.names=x", ""), ("x", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_field_selector_names_one_object_only_where_it_can_leave_no_other(selector: str, name: str) -> None:
    assert named_by(selector) == name
    if name:
        chosen = field_predicate(selector)
        assert chosen is not None
        assert chosen({"metadata": {"name": name}}) and not chosen({"metadata": {"name": f"{name}2"}})


@pytest.mark.parametrize(
    "selector", ["a=" + " " * 8000 + "!", "a" + " " * 8000 + "!", " " * 8000 + "!!", "a in (" + " " * 8000 + "x",
                 "a>" + "1" * 8000, "a." * 4000 + "!", "\t\n" * 4000 + "@"],
)  # fmt: skip
def test_label_selectors_that_are_none_are_refused_soon(selector: str) -> None:
    with pytest.raises(StatusError, match="unable to parse"):
        label_predicate(selector)


def test_a_strategic_patch_of_a_long_list_takes_time_by_its_length() -> None:
    many = [{"name": f"p{n}", "port": n} for n in range(60_000)]
    patched = strategic_patch({"spec": {"ports": many[:30_000]}}, {"spec": {"ports": many}}, rules_of("services"))
    assert patched["spec"]["ports"] == many
    backwards = {"$setElementOrder/ports": [{"port": one["port"]} for one in reversed(many)]}
    patched = strategic_patch(patched, {"spec": backwards}, rules_of("services"))
    assert patched["spec"]["ports"] == many[::-1]
    gone = [{"port": one["port"], "$patch": "delete"} for one in many[1:]]
    assert strategic_patch(patched, {"spec": {"ports": gone}}, rules_of("services"))["spec"]["ports"] == many[:1]
    names = [f"a/{n}" for n in range(60_000)]
    patched = strategic_patch({"metadata": {"finalizers": names}}, {"metadata": {"finalizers": names}}, rules_of("x"))
    assert patched["metadata"]["finalizers"] == names
    none = {"metadata": {"$deleteFromPrimitiveList/finalizers": names}}
    assert strategic_patch(patched, none, rules_of("x"))["metadata"]["finalizers"] == []


def test_long_lists_that_others_own_are_taken_over_and_dropped_in_time_by_their_length() -> None:
    def applied(live: dict[str, Any] | None, manager: str, ports: list[dict[str, Any]] | None) -> dict[str, Any]:
        spec = {"type": "ClusterIP"} if ports is None else {"type": "ClusterIP", "ports": ports}
        config = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec}
        return server_side_apply(live, config, "services", manager, True, "v1", "2026-01-01T00:00:00Z", "")

    many = [{"name": f"p{n}", "port": n + 1, "protocol": "TCP"} for n in range(5000)]
    made = applied(None, "one", many)
    fewer = applied(made, "one", many[::2])
    assert fewer["spec"]["ports"] == many[::2]
    assert "ports" not in applied(made, "one", None)["spec"]
    renamed = [{**port, "name": f"q{port['port']}"} for port in reversed(many)]
    assert applied(made, "two", renamed)["spec"]["ports"] == renamed


def test_a_key_of_a_strategic_patch_is_of_its_type() -> None:
    patched = strategic_patch({"spec": {"ports": [{"port": 1}]}}, {"spec": {"ports": [{"port": "1"}]}},
                              rules_of("services"))  # fmt: skip
    assert patched["spec"]["ports"] == [{"port": 1}, {"port": "1"}]


def test_what_is_deleted_and_set_again_in_one_patch_comes_last() -> None:
    patch = {"spec": {"ports": [{"port": 1, "$patch": "delete"}, {"port": 1, "name": "new"}, {"port": 1, "x": 2}]}}
    patched = strategic_patch({"spec": {"ports": [{"port": 1}, {"port": 2}]}}, patch, rules_of("services"))
    assert patched["spec"]["ports"] == [{"port": 2}, {"port": 1, "name": "new", "x": 2}]


def test_copies_of_a_json_patch_are_bounded_before_they_take_long() -> None:
    grow = [{"op": "add", "path": "/a", "value": ["x"] * 100_000}] + [{"op": "copy", "from": "/a", "path": "/b"}] * 9000
    with pytest.raises(PatchError, match="copies too much"):
        json_patch({}, grow)


def test_a_path_of_a_field_is_taken_apart_in_time_by_its_length() -> None:
    assert len(steps_of("spec." + "a." * 1_000_000)) == 1_000_001
    steps_of("spec." + "[" * 1_000_000)


def test_many_unknown_fields_are_taken_out_soon_and_few_of_them_told() -> None:
    known = parts(cast(Any, SimpleNamespace(memory=Objects())))
    resource = Catalog(known.kinds).by_name["virtualservices.networking.istio.io"]
    spec: dict[str, Any] = {"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}}]}]}
    body = {"metadata": {"name": "a"}, "spec": {**spec, **{f"host{n}": 1 for n in range(60_000)}}}
    given = check_envelope(resource, "v1", body)
    admission = Admission(known.check)
    assert admission.admit(resource, "v1", given, "Ignore", [])[0]["spec"] == spec
    with pytest.raises(StatusError) as refused:
        admission.admit(resource, "v1", given, "Strict", [])
    told = refused.value.body()
    assert 'unknown field "spec.host0": did you mean "hosts"?' in told["message"]
    assert told["message"].endswith(f"and {60_000 - TOLD_MAX} more") and GUESSES_MAX == TOLD_MAX
    assert len(told["details"]["causes"]) == TOLD_MAX and len(json.dumps(told)) < 100_000


def test_all_mistakes_are_told_up_to_a_bound() -> None:
    few = invalid("Service", "", "a", [Cause(f"x{n}", "no") for n in range(TOLD_MAX)]).body()
    assert few["message"].endswith(f"x{TOLD_MAX - 1}: no]") and len(few["details"]["causes"]) == TOLD_MAX
    many = invalid("Service", "", "a", [Cause(f"x{n}", "no") for n in range(TOLD_MAX + 7)]).body()
    assert many["message"].endswith(f"x{TOLD_MAX - 1}: no, and 7 more]") and len(many["details"]["causes"]) == TOLD_MAX


def test_what_holds_a_field_is_copied_and_the_rest_is_shared() -> None:
    body = {"a": {"b": {"c": 1, "d": 2}, "e": [{"f": 1}, {"f": 2}]}, "g": {}}
    made = without(body, ["a.b.c", "a.e[1].f", "a.b.d", "a.e[9].f", "a.x.y"])
    assert made == {"a": {"b": {}, "e": [{"f": 1}, {}]}, "g": {}} and made["g"] is body["g"]
    assert body == {"a": {"b": {"c": 1, "d": 2}, "e": [{"f": 1}, {"f": 2}]}, "g": {}}


VERBS, GROUPS = frozenset(("get", "list", "watch", "create", "delete", "patch")), frozenset(("", "a", "b"))
RESOURCES = frozenset(f"r{n}" for n in range(30))
SOMEBODY = User("o", ("system:authenticated",))


def permissions() -> tuple[Rbac, Objects]:
    """`o` has a lot in the namespace `mine`."""
    memory = Objects()
    put(memory, CLUSTER_ROLES, "", "edit", {"rules": [Rule(VERBS, GROUPS, RESOURCES).as_object()]})
    put(memory, ROLE_BINDINGS, "mine", "b", binding("b", "ClusterRole", "edit", ("User", "o")))
    return Rbac(memory), memory


def put(memory: Objects, resource: str, namespace: str, name: str, body: dict[str, Any]) -> None:
    whole = {**body, "metadata": {"name": name, "namespace": namespace}}
    memory.commit(memory.plan([Write(Key(resource, namespace, name), whole)]))


def test_a_role_of_millions_of_permissions_is_not_taken_apart() -> None:
    rbac, _ = permissions()
    many = frozenset(f"a{n}" for n in range(300))
    beyond = Rule(many, many, many)
    assert len(rbac.missing(SOMEBODY, "mine", [beyond])) == 50
    held = Rule(VERBS, GROUPS, RESOURCES, frozenset(f"n{n}" for n in range(100_000)))
    assert rbac.missing(SOMEBODY, "mine", [held]) == []
    with pytest.raises(ValueError, match=f"more than {PIECES_MAX} single permissions"):
        rbac.missing(SOMEBODY, "mine", [held] * 5000)


def test_bindings_of_a_namespace_slow_down_no_question_about_another() -> None:
    rbac, memory = permissions()
    everybody = binding("x", "ClusterRole", "edit", ("Group", "system:authenticated"))
    for n in range(5000):
        put(memory, ROLE_BINDINGS, "mine", f"x{n}", everybody)
    for _ in range(20_000):
        assert not rbac.decide(SOMEBODY, Attributes("get", "", "secrets", "", "theirs")).allowed
    for n in range(200):  # nor is everything read again for each that is made
        put(memory, ROLE_BINDINGS, "mine", f"y{n}", everybody)
        assert rbac.decide(User("u", ("system:authenticated",)), Attributes("get", "", "r1", "", "mine")).allowed
