"""An explanation as people see it: the verdict and its reason first, marks for what held, places at ends of lines."""

from __future__ import annotations

import re
from typing import Any

from fairlead.policy.explain import Explainer
from fairlead.policy.explain_places import Places
from fairlead.policy.explain_text import render, steps
from fairlead.policy.world import World
from fairlead.registry.documents import load
from fairlead.registry.styles import Style
from tests.policy.test_explain_places import TEXT

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def answer(url: str = "http://web.shop/a", **more: Any) -> dict[str, Any]:
    documents, _ = load(TEXT, "f.yaml")
    world, _ = World.load(documents)
    return Explainer(world, Places(documents)).explain({"url": url, "from_namespace": "shop", **more})


def test_the_first_line_says_what_happens_and_why_not() -> None:
    first = render(answer()).splitlines()[0]
    assert first.startswith("denied 403 FL-DENIED: no ingress rule of NetworkPolicy shop/web admits shop/(any)")
    assert render(answer("http://web.shop:81/")).splitlines()[0].startswith("passthrough")


def test_steps_stand_under_headings_with_a_mark_and_their_place() -> None:
    lines = steps(answer()["trace"], Style())
    assert lines[0] == "  who asks" and "  routing" in lines and "  policy" in lines
    assert any(
        re.match(r"    - VirtualService shop/web route 0: no match: header x-a .*  f\.yaml:\d+$", one) for one in lines
    )
    assert any(re.match(r"    \+ VirtualService shop/web route 3: no condition  f\.yaml:\d+$", one) for one in lines)
    assert any(one.startswith("    x ingress of the destination: NetworkPolicy shop/web: ") for one in lines)


def test_colour_changes_nothing_but_colour_and_the_width_is_kept_to() -> None:
    told = answer()
    assert ANSI.sub("", render(told, Style(True, 60))) == render(told, Style(False, 60))
    assert "\x1b[31;1m" in render(told, Style(True)) and "\x1b" not in render(told)
    assert all(len(line) <= 60 or " " not in line.strip() for line in render(told, Style(False, 60)).splitlines())
