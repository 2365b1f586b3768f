"""Text for people at a terminal: colours where they are wanted, lines of the terminal's width."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

WIDTH_MIN = 40
_CODES = {"good": "32", "bad": "31;1", "warn": "33", "dim": "2", "strong": "1", "name": "36"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MOVES = (*range(9), *range(10, 32), *range(127, 160), 0x2028, 0x2029)
_TURNS = (0x200E, 0x200F, 0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
CONTROLS = {code: ascii(chr(code))[1:-1] for code in (*_MOVES, *_TURNS)}
"""For str.translate: what could move a cursor, forge a line, or show text in another order, as it is written in a
program."""


def wants_colour(choice: str, environment: Mapping[str, str], terminal: bool) -> bool:
    """Whether to colour: as `--color` says, else NO_COLOR (no-color.org), else FORCE_COLOR, else on a terminal only."""
    if choice in ("always", "never"):
        return choice == "always"
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return terminal and environment.get("TERM") != "dumb"


class Style:
    """How text is shown. `width`: columns of a line; 0: lines are not wrapped (a file or a pipe)."""

    def __init__(self, colour: bool = False, width: int = 0) -> None:
        self.colour = colour
        self.width = max(width, WIDTH_MIN) if width else 0

    def paint(self, text: str, kind: str) -> str:
        """`kind`: good, bad, warn, dim, strong or name; anything else is left as it is."""
        code = _CODES.get(kind)
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code and text else text

    def lines(self, first: str, text: str, where: str = "", kind: str = "", indent: int = 0) -> list[str]:
        """`first` (a mark or label, in colour `kind`), then `text` wrapped beside it, then `where`, dim.

        Control characters are shown as what they are: what is explained may come from strangers.
        """
        lead = " " * indent + first
        hang = " " * len(lead)
        text, where = _CONTROL.sub(_escaped, text), _CONTROL.sub(_escaped, where)
        whole = f"{text}  {where}" if where else text
        if self.width and len(lead) + len(whole) > self.width:
            room = max(20, self.width - len(lead))
            made = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
            if where and len(made[-1]) + 2 + len(where) <= room:
                made[-1] += f"  {where}"
            elif where:
                made.append(where)
        else:
            made = [whole]
        if where and made[-1].endswith(where):
            made[-1] = made[-1][: -len(where)] + self.paint(where, "dim")
        return [" " * indent + self.paint(first, kind) + made[0], *(hang + line for line in made[1:])]


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
