"""Finished answers: found by octets, turned, forgotten by name, bounded; compiled and as plain Python."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import fairlead.dns
import fairlead.dns._fast


def plain() -> ModuleType:
    """The module as the Python that it is, also where a compiled one stands beside it."""
    source = Path(next(iter(fairlead.dns.__path__))) / "_fast.py"
    spec = importlib.util.spec_from_file_location("plain_fast", source)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["as installed", "plain"])
def fast(request: pytest.FixtureRequest) -> ModuleType:
    return plain() if request.param == "plain" else fairlead.dns._fast


def test_the_id_is_the_askers_and_the_rest_is_finished(fast: ModuleType) -> None:
    finished = fast.Finished(10)
    finished.put(b"\0\1question", fast.Entry((b"answer",), (b"n",), "label", True))
    assert finished.get(b"\7\7question") == b"\7\7answer"
    assert finished.get(b"\7\7other") is None
    assert finished.get(b"") is None


def test_variants_take_turns_and_end_where_others_are_to_be_made(fast: ModuleType) -> None:
    finished = fast.Finished(10)
    finished.put(b"..q", fast.Entry((b"1", b"2"), (), "label", True))
    assert [finished.get(b"__q") for _ in range(4)] == [b"__1", b"__2", b"__1", b"__2"]
    finished.put(b"..r", fast.Entry((b"1", b"2"), (), "label", False))
    assert [finished.get(b"__r") for _ in range(3)] == [b"__1", b"__2", None]
    assert finished.counted() == {("label", 3): 6}


def test_a_change_of_a_name_drops_what_depends_on_it_only(fast: ModuleType) -> None:
    finished = fast.Finished(10)
    for key, names in ((b"..a", (b"x", b"y")), (b"..b", (b"x",)), (b"..c", (b"z",)), (b"..d", (b"x",))):
        finished.put(key, fast.Entry((b"!",), names, "label", True))
    finished.forget([b"x", b"unknown"])
    assert [finished.get(key) for key in (b"..a", b"..b", b"..d")] == [None] * 3
    assert finished.get(b"..c") == b"..!"
    finished.forget([b"y"])


def test_what_is_in_use_survives_what_is_not(fast: ModuleType) -> None:
    finished = fast.Finished(10)
    finished.put(b"..hot", fast.Entry((b"!",), (b"hot",), "label", True))
    for n in range(200):
        finished.put(b"..%d" % n, fast.Entry((b"!",), (b"n%d" % n,), "label", True))
        assert finished.get(b"__hot") == b"__!"
        assert sum(1 for _ in finished.entries()) <= 20
    finished.forget([b"hot"])
    assert finished.get(b"__hot") is None, "also after it moved from the older generation"
    assert finished.counted() == {("label", 3): 200}


def test_clearing_keeps_the_counts(fast: ModuleType) -> None:
    finished = fast.Finished(10)
    finished.put(b"..q", fast.Entry((b"12",), (), "label", True))
    finished.get(b"..q")
    finished.clear()
    assert finished.get(b"..q") is None
    assert finished.counted() == {("label", 4): 1}
