"""Header operations with format operators, given their values for one exchange.

As in Envoy a value that is not known is empty, and a header with an empty value is neither set nor added: one that is
there already stays.
"""

from __future__ import annotations

from collections.abc import Callable

from ..policy.format_operators import HEADERS, Operator, Template
from ..policy.tables import HeaderOps
from .access_log import FormatError, Value, cut, operator
from .message import Outcome

Values = Callable[[Outcome, float, str], str]


def of(template: Template) -> Values:
    """A function of outcome, wall minus monotonic clock in seconds, and this machine's name."""
    made: list[str | Callable[[Outcome, float], Value] | None] = []
    for piece in template.pieces:
        made.append(piece if isinstance(piece, str) else _function(piece))

    def value(outcome: Outcome, skew: float, host: str) -> str:
        text = ""
        for one in made:
            if one is None:
                text += host
            elif isinstance(one, str):
                text += one
            else:
                found = one(outcome, skew)
                text += "" if found is None else str(found)
        return text

    return value


def _function(piece: Operator) -> Callable[[Outcome, float], Value] | None:
    """None: the machine's name."""
    if piece.name == "HOSTNAME":
        return None
    try:
        function = operator(f"{piece.name}({piece.argument})" if piece.argument else piece.name, True)
    except FormatError:  # one that validation warns about
        return lambda _outcome, _skew: None
    if piece.name == "RESPONSE_FLAGS":  # never empty: `-` says that there are none
        return lambda outcome, _skew: outcome.flag or "-"
    if piece.name in HEADERS:
        function = _as_octets(function)
    return cut(function, str(piece.most)) if piece.most >= 0 else function


def _as_octets(function: Callable[[Outcome, float], Value]) -> Callable[[Outcome, float], Value]:
    """Header values are octets, one character each; they go on as UTF-8, as configured values do."""

    def value(outcome: Outcome, skew: float) -> Value:
        found = function(outcome, skew)
        if not isinstance(found, str) or found.isascii():
            return found
        return found.encode("latin-1", "replace").decode("utf-8", "replace")

    return value


class Formatted:
    """Header operations of which at least one value has operators."""

    def __init__(self, ops: HeaderOps) -> None:
        self._remove = ops.remove
        self._set = [(name, value, of(value) if isinstance(value, Template) else None) for name, value in ops.set]
        self._add = [(name, value, of(value) if isinstance(value, Template) else None) for name, value in ops.add]

    def filled(self, outcome: Outcome, skew: float, host: str) -> HeaderOps:
        """The operations with the values of one exchange."""
        done = []
        for pairs in (self._set, self._add):
            values = [(name, value if make is None else make(outcome, skew, host)) for name, value, make in pairs]
            done.append(tuple((name, value) for name, value in values if value))
        return HeaderOps(done[0], done[1], self._remove)
