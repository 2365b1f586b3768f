"""What Consul's nodes have, and what of it changed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.registry.consul_nodes import NodesSeen, OnNode


def told(*instances: tuple[str, str, int], at: int = 1) -> OnNode:
    services = {own: {"ID": own, "Service": name, "ModifyIndex": index, "Port": 80} for own, name, index in instances}
    found = NodesSeen.decode(json.dumps({"Node": {"Node": "n", "ModifyIndex": at}, "Services": services}).encode())
    assert found is not None
    return found


def test_instances_that_change_come_and_go_name_their_services() -> None:
    seen = NodesSeen()
    assert seen.take("n", told(("a", "web", 1), ("b", "api", 2), ("c", "api", 3))) == {"web", "api"}
    assert seen.take("n", told(("c", "api", 3), ("a", "web", 1), ("b", "api", 2))) == set()
    assert seen.take("n", told(("a", "web", 4), ("b", "api", 2), ("c", "api", 3))) == {"web"}
    assert seen.take("n", told(("a", "web", 4), ("b", "api", 2), ("d", "new", 9))) == {"api", "new"}
    assert seen.take("n", None) == {"web", "api", "new"}


def test_a_change_of_the_node_is_one_of_all_its_services() -> None:
    seen = NodesSeen()
    seen.take("n", told(("a", "web", 1), ("b", "api", 2)))
    assert seen.take("n", told(("a", "web", 1), ("b", "api", 2), at=7)) == {"web", "api"}
    assert seen.services_of(("n", "other")) == {"web", "api"}


def test_a_service_is_gone_when_the_last_node_has_it_no_more() -> None:
    seen = NodesSeen()
    assert not seen.has("web")
    assert not seen.had("web")
    seen.take("n", told(("a", "web", 1)))
    seen.take("m", told(("b", "web", 1)))
    seen.take("n", told())
    assert (seen.has("web"), seen.had("web")) == (True, False)
    seen.take("m", None)
    assert (seen.has("web"), seen.had("web")) == (False, True)
    seen.forget(("web",))
    assert not seen.had("web")


def test_consuls_own_service_is_none() -> None:
    assert NodesSeen().take("n", told(("consul", "consul", 1))) == set()


def test_an_answer_may_have_no_node_no_services_and_must_have_their_shape() -> None:
    assert NodesSeen.decode(b"null") is None
    empty = NodesSeen.decode(b'{"Node": {"Node": "n"}, "Services": null}')
    assert NodesSeen().take("n", empty) == set()
    assert NodesSeen.decode_nodes(b'[{"Node": "b", "Address": "x"}, {"Node": "a"}]') == ("a", "b")
    for wrong in (b"[1]", b"{}", b'{"Node": {}, "Services": {"a": {"ID": "a"}}}', b"nu"):
        with pytest.raises(ValueError):
            NodesSeen.decode(wrong)
    with pytest.raises(ValueError):
        NodesSeen.decode_nodes(b"{}")


STATES = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.sampled_from(("web", "api")), st.integers(0, 3)))


@given(st.lists(st.tuples(st.sampled_from(("n", "m")), STATES), max_size=8))
def test_what_is_named_is_what_differs_whatever_was_before(turns: list[tuple[str, dict[str, tuple[str, int]]]]) -> None:
    seen = NodesSeen()
    before: dict[str, dict[str, tuple[str, int]]] = {}
    for node, now in turns:
        was = before.get(node, {})
        differ = {(own, *one) for own, one in was.items()} ^ {(own, *one) for own, one in now.items()}
        changed = seen.take(node, told(*((own, name, at) for own, (name, at) in now.items())))
        assert changed == {name for _, name, _ in differ}
        before[node] = now
        for name in ("web", "api"):
            assert seen.has(name) == any(one[0] == name for held in before.values() for one in held.values())


def test_what_a_look_at_a_service_showed_and_the_next_answer_of_the_node_has_not_is_a_change() -> None:
    seen = NodesSeen()
    seen.take("n", told(("b", "api", 2)))
    entry = {"Node": {"Node": "n", "ModifyIndex": 1}, "Service": {"ID": "a", "Service": "web", "ModifyIndex": 5}}
    seen.read("web", [entry], {"n"})
    assert seen.has("web")
    assert seen.take("n", told(("b", "api", 2))) == {"web"}, "it came and went between two answers"
    seen.read("web", [entry], {"n"})
    assert seen.take("n", told(("b", "api", 2), ("a", "web", 5))) == set()
    seen.read("web", [entry], set())  # of a node that is gone
    assert seen.take("n", None) == {"web", "api"}
    seen.read("web", [entry], set())
    seen.read("web", [{"Node": None}], {"n"})
    assert seen.had("web")
