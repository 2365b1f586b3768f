"""Format operators are read from header values, and named where there are none such."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.format_operators import PLAIN, FormatError, Operator, Template, fault, left_out, read


def shown(text: str) -> list[str | tuple[str, str, int]]:
    made = read(text)
    pieces = made.pieces if isinstance(made, Template) else (made,)
    return [piece if isinstance(piece, str) else (piece.name, piece.argument, piece.most) for piece in pieces]


def test_a_value_is_split_into_text_and_operators() -> None:
    assert shown("plain") == ["plain"]
    assert shown("100%% of %%") == ["100% of %"]
    assert shown("%PROTOCOL%") == [("PROTOCOL", "", -1)]
    assert shown("a %REQ(X-A?:PATH):10%%%b") == ["a ", ("REQ", "X-A?:PATH", 10), "%b"]
    assert shown("%START_TIME(%Y-%m-%dT%H:%M:%S.%3f)%") == [("START_TIME", "%Y-%m-%dT%H:%M:%S.%3f", -1)]
    assert shown("%PROTOCOL%%ROUTE_NAME%") == [("PROTOCOL", "", -1), ("ROUTE_NAME", "", -1)]


@given(st.text(alphabet="ab: ", max_size=20))
def test_plain_text_stays_and_a_doubled_percent_sign_is_one(text: str) -> None:
    assert read(text) == text
    assert read(text.replace("a", "%%")) == text.replace("a", "%")


@pytest.mark.parametrize("text", ["%", "50% off", "%lower%", "%PROTOCOL", "%%%", "%REQ(X%", "%REQ(X):a%"])
def test_a_single_percent_sign_is_an_error(text: str) -> None:
    with pytest.raises(FormatError, match="write %%"):
        read(text)


def test_unknown_operators_are_named_and_those_of_envoy_have_a_reason() -> None:
    assert "known are REQ(X?Y)" in fault(Operator("NO_SUCH", ""))
    assert "needs the name" in fault(Operator("REQ", ""))
    for name in PLAIN:
        assert not fault(Operator(name, "")) and not left_out(Operator(name, ""))
    for name, why in (("ENVIRONMENT", "tokens"), ("DYNAMIC_METADATA", "Envoy"), ("UPSTREAM_TLS_VERSION", "not known")):
        assert why in left_out(Operator(name, "X"))
        assert not fault(Operator(name, "X"))
