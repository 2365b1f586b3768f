"""A worker's copy of its supervisor's world: of control's items, and of documents."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fairlead.mesh.worker import Copy, difference, items_of, pieces
from fairlead.policy.world import Loader
from fairlead.registry.documents import load

TEXT = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, creationTimestamp: 2024-01-02T03:04:05Z}
spec: {hosts: [web], http: [{timeout: 3s, route: [{destination: {host: web}}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: shop, labels: {app: web}}
"""


ITEMS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3))


@given(ITEMS, ITEMS)
def test_a_difference_makes_one_set_of_items_out_of_another(before: dict[str, int], now: dict[str, int]) -> None:
    old, new = ({key: str(value).encode() for key, value in items.items()} for items in (before, now))
    told = msgspec.json.decode(difference("7", old, new))
    result = {} if told["full"] else dict(before)
    for key in told.get("remove", ()):
        del result[key]
    result |= told.get("set", {})
    assert result == now
    assert not old or set(told.get("set", {})) == {key for key in now if before.get(key) != now[key]}


def test_documents_give_the_same_world_as_in_the_supervisor() -> None:
    documents, problems = load(TEXT, "web.yaml")
    assert not problems
    here, _ = Loader().load(documents)
    there = Copy().world(difference("1", {}, items_of(documents)))
    assert there.snapshot.services == here.snapshot.services
    assert there.snapshot.workloads == here.snapshot.workloads
    assert there.resources == here.resources


def test_a_document_changed_and_one_gone_are_seen_and_the_others_keep_what_was_read_of_them() -> None:
    documents, _ = load(TEXT, "web.yaml")
    before = items_of(documents)
    copy = Copy()
    first = copy.world(difference("1", {}, before))
    documents, _ = load(TEXT.replace("name: one", "name: two"), "web.yaml")
    second = copy.world(difference("2", before, items_of(documents)))
    assert set(second.snapshot.workloads) == {"shop/two"}
    assert second.resources is first.resources  # no rule has changed, by which compile keeps its work
    third = copy.world(difference("3", items_of(documents), items_of(documents[:1])))
    assert not third.snapshot.workloads
    assert set(third.snapshot.services) == set(first.snapshot.services)


def test_lines_for_a_pipe_are_cut_between_lines_and_only_where_a_write_would_not_be_whole() -> None:
    lines = [bytes([65 + n]) * size + b"\n" for n, size in enumerate((1000, 3000, 95, 5000, 10, 10))]
    found = list(pieces(b"".join(lines), 4096))
    assert found == [lines[0] + lines[1] + lines[2][:0], lines[2], lines[3], lines[4] + lines[5]]
    assert list(pieces(b"abc", 4096)) == [b"abc"]
    assert list(pieces(b"", 4096)) == []


def test_items_of_control_are_taken_as_the_feed_has_them() -> None:
    copy = Copy()
    items = {
        "namespace/default": b'{"team": "a"}',
        "object/1": b'{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}',
    }
    world = copy.world(difference("1", {}, items))
    assert world.snapshot.namespaces["default"]["team"] == "a"
    world = copy.world(difference("2", items, {"namespace/default": b'{"team": "b"}'}))
    assert world.snapshot.namespaces["default"]["team"] == "b"
