from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.registry import shards
from fairlead.registry.shards import Shards, amended, sharded, unlike

KEYS = st.one_of(st.sampled_from([f"default/svc{n}" for n in range(40)]), st.text(max_size=3), st.just("\ud800"))
CHANGES = st.lists(st.dictionaries(KEYS, st.one_of(st.none(), st.integers(0, 3)), max_size=12), max_size=12)


@pytest.fixture(autouse=True)
def small_ones_are_large() -> Iterator[None]:
    """Eight entries make a table large, of four dictionaries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "LARGE", 8)
        patch.setattr(shards, "COUNT", 4)
        patch.setattr(shards, "_MASK", 3)
        yield


def plain(table: dict[str, int], changes: Mapping[str, int | None]) -> dict[str, int]:
    return {key: value for key, value in {**table, **changes}.items() if value is not None}


@given(CHANGES)
@settings(max_examples=300)
def test_a_table_after_any_changes_is_as_a_dictionary_would_be_and_so_is_every_version_before(
    changes: list[dict[str, int | None]],
) -> None:
    ours: Mapping[str, int] = {}
    theirs: dict[str, int] = {}
    versions = [(ours, theirs)]
    for one in changes:
        ours, theirs = amended(ours, one), plain(theirs, one)
        versions.append((ours, theirs))
    for mine, expected in versions:
        assert mine == expected
        assert expected == mine
        assert len(mine) == len(expected)
        assert sorted(mine) == sorted(mine.keys()) == sorted(expected)
        assert dict(mine) == dict(mine.items()) == {**mine} == expected
        assert sorted(mine.values()) == sorted(expected.values())
        assert sorted(zip(mine, mine.values(), strict=True)) == sorted(expected.items())
        assert all(key in mine and mine[key] == mine.get(key) == value for key, value in expected.items())
        assert bool(mine) == bool(expected)


@given(CHANGES, CHANGES)
@settings(max_examples=200)
def test_two_versions_are_equal_where_dictionaries_are_and_differ_where_these_do(
    changes: list[dict[str, int | None]], others: list[dict[str, int | None]]
) -> None:
    old: Mapping[str, int] = {}
    for one in changes:
        old = amended(old, one)
    new = old
    for one in others:
        new = amended(new, one)
    was, now = dict(old), dict(new)
    differing = {key for key in was.keys() | now.keys() if was.get(key) != now.get(key)}
    assert unlike(old, new) == unlike(new, old) == unlike(was, new) == unlike(old, now) == differing
    assert unlike(old, new, ["default/svc1", ""]) == differing & {"default/svc1", ""}
    assert (old == new) == (was == now)
    assert (old != new) == (was != now)


def test_what_is_in_no_table_is_found_in_none() -> None:
    table = Shards.of({f"k{n}": n for n in range(20)})
    assert "x" not in table
    assert 5 not in table  # type: ignore[comparison-overlap]
    assert table.get("x") is None
    assert table.get("x", 7) == 7
    with pytest.raises(KeyError):
        table["x"]
    assert table != 5
    assert table.keys() & {"k1", "x"} == {"k1"}
    with pytest.raises(TypeError):
        hash(table)


def test_a_change_of_nothing_gives_the_same_table_and_one_of_an_entry_shares_all_other_dictionaries() -> None:
    table = Shards.of({f"k{n}": n for n in range(20)})
    assert amended(table, {}) is table
    after = table.amended({"k3": -1})
    assert len(list(table.apart(after))) == 1
    assert repr(table.amended(dict.fromkeys([f"k{n}" for n in range(19)]))) == "Shards({'k19': 19})"


def test_a_table_is_put_into_shards_when_it_is_large_and_taken_out_when_a_quarter_is_left() -> None:
    table: Mapping[str, int] = amended({}, {f"k{n}": n for n in range(7)})
    assert type(table) is dict
    table = amended(table, {"k7": 7})
    assert type(table) is Shards
    assert type(sharded(dict(table))) is Shards
    assert sharded(table) is table
    table = amended(table, dict.fromkeys(["k0", "k1", "k2", "k3", "k4", "k5"]))
    assert type(table) is Shards
    assert amended(table, {"k6": None}) == {"k7": 7}
    assert type(amended(table, {"k6": None})) is dict


def test_the_order_of_a_table_is_the_same_in_every_process() -> None:
    code = (
        "from fairlead.registry.shards import Shards;"
        "print(*Shards.of({f'default/svc{n}': n for n in range(500)}).values())"
    )
    orders = {
        subprocess.run(
            [sys.executable, "-P", "-c", code],
            env={"PYTHONHASHSEED": seed},
            cwd=Path("/"),
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(orders) == 1
    assert len(orders.pop().split()) == 500
