"""What has changed, in slices."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairlead.dns.todo import Todo
from fairlead.registry.model import Changed

KEYS = st.frozensets(st.sampled_from("abcdefgh"), max_size=6)


@given(st.lists(st.builds(Changed, KEYS, KEYS, KEYS), max_size=6), st.integers(1, 5))
def test_slices_together_are_all_that_was_added_each_once(added: list[Changed], most: int) -> None:
    todo = Todo()
    for changed in added:
        todo.add(changed)
    taken: list[Changed] = []
    while todo:
        piece = todo.take(most)
        assert piece is not None
        assert len(piece.hosts) + len(piece.workloads) + len(piece.namespaces) > 0
        assert len(piece.hosts) + len(piece.workloads) <= most
        taken.append(piece)
    for field in ("hosts", "workloads", "namespaces"):
        every = [key for piece in taken for key in getattr(piece, field)]
        assert len(every) == len(set(every))
        assert set(every) == {key for changed in added for key in getattr(changed, field)}


def test_where_anything_may_have_changed_all_is_looked_at_at_once() -> None:
    todo = Todo()
    todo.add(Changed(frozenset("a")))
    todo.add(None)
    todo.add(Changed(frozenset("b")))
    assert todo.take(1) is None
    assert not todo


def test_the_longest_waiting_is_first() -> None:
    todo = Todo()
    for key in "cab":
        todo.add(Changed(frozenset(key)))
    todo.add(Changed(frozenset("c")))
    piece = todo.take(1)
    assert piece is not None
    assert piece.hosts == {"c"}
