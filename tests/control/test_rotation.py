"""What each step of a rotation waits for."""

from __future__ import annotations

from fairlead.control.issued import Issued, IssuedLeaf
from fairlead.control.rotation import SHOWN_MOST, Holder, lacking, told, using


def holder(name: str, **more: object) -> Holder:
    given = {"told": True, "trusts": ("old",), "issuer": "aa", "not_after": 100.0, **more}
    return Holder(f"sidecar/default/{name}", f"default/{name}", **given)  # type: ignore[arg-type]


def test_nothing_is_issued_before_every_connected_sidecar_has_said_that_it_trusts_the_new_root() -> None:
    knows = holder("a", trusts=("old", "new"))
    assert lacking([knows], "new", Issued(), 0.0, 1.0) == []
    silent, behind, static = holder("b", told=False), holder("c"), holder("d", static=True)
    found = lacking([knows, silent, behind, static], "new", Issued(), 0.0, 1.0)
    assert [line.split()[0] for line in found] == ["sidecar/default/b", "sidecar/default/c", "sidecar/default/d"]
    assert "older version" in found[0]
    assert "--ca" in found[2]


def test_no_root_is_dropped_while_a_certificate_of_it_is_in_use_by_who_is_here_or_away() -> None:
    issued = Issued()
    for workload, issuer in (("default/away", "aa"), ("default/here", "aa"), ("default/new", "bb")):
        issued.add(IssuedLeaf("1", "", workload, issuer, 0.0, 100.0))
    fresh = holder("here", issuer="bb")
    found = using([fresh], issued, "aa", 40.0)
    assert found == ["default/away is not connected; its certificate of the old root is good for another 60 s"], (
        "what a connected sidecar says goes before what was issued to it"
    )
    assert using([fresh], issued, "aa", 101.0) == []
    assert "uses a certificate of the old root for another 60 s" in using([holder("here")], Issued(), "aa", 40)[0]
    assert using([holder("here", told=False)], Issued(), "aa", 40)


def test_of_many_reasons_some_are_named_and_the_others_counted() -> None:
    assert told(["one", "two"]) == "one; two"
    assert told([str(n) for n in range(SHOWN_MOST + 7)]).endswith("; and 7 more")


def test_an_envoy_is_waited_for_by_what_was_issued_to_it() -> None:
    issued = Issued()
    envoy = holder("e", told=False, mute=True)
    issued.add(IssuedLeaf("1", "", "default/e", "aa", 5.0, 100.0))
    assert lacking([envoy], "new", issued, 10.0, 20.0)
    assert using([envoy], issued, "aa", 20.0) == ["default/e: its certificate of the old root is good for another 80 s"]
    issued.add(IssuedLeaf("2", "", "default/e", "bb", 15.0, 100.0))
    assert lacking([envoy], "new", issued, 10.0, 20.0) == []
    assert using([envoy], issued, "aa", 20.0) == []


def test_a_revoked_certificate_holds_no_root_whether_its_holder_is_away_or_here() -> None:
    issued = Issued()
    for serial, workload, at in (
        ("01", "default/away", 0.0),
        ("02", "default/twice", 0.0),
        ("03", "default/twice", 1.0),
    ):
        issued.add(IssuedLeaf(serial, "", workload, "aa", at, 100.0))
    here = holder("here", serial="04")
    assert len(using([here], issued, "aa", 40.0)) == 3
    assert using([here], issued, "aa", 40.0, {"01", "03", "04"}) == [
        "default/twice is not connected; its certificate of the old root is good for another 60 s"
    ], "the one before it is good as ever"
    assert using([here], issued, "aa", 40.0, {"01", "02", "03", "04"}) == []
