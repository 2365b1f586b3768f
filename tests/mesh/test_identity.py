"""SPIFFE ids to the letter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.mesh.identity import IdentityError, SpiffeId, make, parse, split


def test_a_workloads_id_is_taken_apart_and_put_together() -> None:
    found = parse("spiffe://cluster.local/ns/default/sa/web")
    assert found == SpiffeId("cluster.local", "default", "web")
    assert str(found) == "spiffe://cluster.local/ns/default/sa/web"
    assert make("td", "a", "b") == SpiffeId("td", "a", "b")


@pytest.mark.parametrize(
    "text",
    [
        "", "https://cluster.local/ns/a/sa/b", "spiffe://", "spiffe://Cluster.local/ns/a/sa/b",
        "spiffe://td:80/ns/a/sa/b", "spiffe://u@td/ns/a/sa/b", "spiffe://td/ns/a/sa/b?x", "spiffe://td/ns/a/sa/b#x",
        "spiffe://td/ns//sa/b", "spiffe://td/ns/../sa/b", "spiffe://td/ns/./sa/b", "spiffe://td/ns/a%2f/sa/b",
        "spiffe://td/ns/a/sa/b/", "spiffe://td//ns/a/sa/b", "spiffe://td/ns/a\0/sa/b", "spiffe://td/ns/ä/sa/b",
        "spiffe://td/" + "a" * 2100, "spiffe://" + "a" * 256 + "/ns/a/sa/b", "SPIFFE://td/ns/a/sa/b",
    ],
)  # fmt: skip
def test_what_the_standard_forbids_is_refused(text: str) -> None:
    with pytest.raises(IdentityError):
        split(text) if text.startswith("spiffe://td/aaa") else parse(text)


def test_an_id_of_another_form_is_a_spiffe_id_but_no_workload() -> None:
    assert split("spiffe://td/something/else") == ("td", ["something", "else"])
    assert split("spiffe://td") == ("td", [])
    with pytest.raises(IdentityError, match="/ns/"):
        parse("spiffe://td/something/else")


@given(st.text(max_size=80))
def test_no_text_does_more_than_raise(text: str) -> None:
    for candidate in (text, f"spiffe://{text}", f"spiffe://td/ns/{text}/sa/x"):
        try:
            assert str(parse(candidate)) == candidate
        except IdentityError:
            pass
