"""The status of a rule: what sidecars and other resources make of it."""

from __future__ import annotations

from fairlead.control.conditions import (
    REPORTED,
    Findings,
    Seat,
    Verdict,
    by_sidecars,
    compose,
    condition,
    judge,
    number_of,
    only_status,
    refusals_of,
    settled,
)
from fairlead.control.role_control import RULE_RESOURCES
from fairlead.control.store import Change, Key, Stored, encode

VS = "virtualservices.networking.istio.io"
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"


def test_a_version_of_another_run_of_control_is_none() -> None:
    assert number_of("ab.7", "ab") == 7
    assert number_of("cd.7", "ab") == number_of("", "ab") == number_of("ab.x", "ab") == -1


def test_a_sidecar_runs_refuses_or_waits() -> None:
    seats = [Seat("d/a", 5), Seat("d/b", 3), Seat("d/c", 3, 5, ("why",)), Seat("d/d", -1)]
    verdict = judge(seats, 4)
    assert (verdict.running, verdict.waiting, [seat.name for seat in verdict.refusing]) == (1, ("d/b", "d/d"), ["d/c"])
    assert verdict.total == 4 and not verdict.is_final
    assert judge(seats[:1], 5).is_final


def test_only_the_object_that_a_reason_names_is_not_accepted() -> None:
    reason = "VirtualService d/web: spec.http: too new"
    verdict = Verdict(1, (), (Seat("d/c", 3, 5, (reason,)),))
    named = refusals_of(verdict, "VirtualService", VS, "d", "web")
    assert named == [("d/c", reason)]
    accepted, reconciled = by_sidecars(verdict, named)
    assert (accepted["status"], reconciled["status"], reconciled["reason"]) == ("False", "False", "Refused")
    assert reconciled["message"] == f"1/2 sidecars run it; 1 refuse it (d/c): {reason}"
    assert refusals_of(verdict, "VirtualService", VS, "d", "we") == []
    accepted, reconciled = by_sidecars(verdict, [])
    assert (accepted["status"], reconciled["status"], reconciled["reason"]) == ("True", "False", "HeldUp")
    assert "refuse the version that it came in: " + reason in reconciled["message"]
    by_key = Verdict(0, (), (Seat("d/c", 3, 5, (f"object/{VS}/d/web: not JSON",)),))
    assert refusals_of(by_key, "VirtualService", VS, "d", "web")


def test_a_transition_keeps_its_time_while_its_condition_stays() -> None:
    first = compose(None, 1, Verdict(2), [], Findings(), NOW)
    assert first["sidecars"] == {"total": 2, "running": 2, "waiting": 0, "refused": 0}
    assert settled(first, 1) and not settled(first, 2)
    second = compose(first, 2, Verdict(1, ("d/x",)), [], None, LATER)
    assert condition(second, "Reconciled")["status"] == "Unknown"
    assert condition(second, "Reconciled")["lastTransitionTime"] == LATER
    assert condition(second, "Reconciled")["message"] == "1/2 sidecars run it; waiting for d/x"
    assert condition(second, "Accepted")["lastTransitionTime"] == NOW
    assert condition(second, "Accepted")["observedGeneration"] == 2
    assert condition(second, "Conflicted") == condition(first, "Conflicted")


def test_conflicts_and_missing_references_are_conditions_and_warnings() -> None:
    found = Findings(conflicts=(("spec.host", "taken"),), missing=(("spec.x", "gone"), ("spec.y", "gone")))
    status = compose(None, 1, Verdict(), [], found, NOW)
    assert condition(status, "Conflicted")["message"] == "spec.host: taken"
    assert condition(status, "ResolvedRefs")["message"] == "spec.x: gone (and 1 more)"
    assert [one["path"] for one in status["warnings"]] == ["spec.host", "spec.x", "spec.y"]
    clean = compose(status, 1, None, [], Findings(), LATER)
    assert "warnings" not in clean
    assert condition(clean, "Conflicted")["status"] == "False"


def test_what_others_wrote_into_the_status_stays() -> None:
    mine = {"conditions": [{"type": "Mine", "status": "True"}], "loadBalancer": {}}
    status = compose(mine, 1, Verdict(), [], Findings(), NOW)
    assert status["conditions"][0] == {"type": "Mine", "status": "True"}
    assert status["loadBalancer"] == {}
    assert "observedGeneration" in status


def test_a_change_of_status_alone_is_told_from_others() -> None:
    key = Key(VS, "d", "web")

    def stored(version: int, **fields: object) -> Stored:
        metadata = {"name": "web", "resourceVersion": str(version), "managedFields": [version]}
        return Stored(key, version, encode({"metadata": metadata, **fields}))

    one, two, three = stored(1, spec={}), stored(2, spec={}, status={"a": 1}), stored(3, spec={"b": 1})
    assert only_status(Change(2, key, one, two))
    assert not only_status(Change(3, key, two, three))
    assert not only_status(Change(1, key, None, one))
    pod = Key("pods", "d", "web")
    assert not only_status(Change(2, pod, one, two)), "a declared Pod's status states a fact"


def test_of_every_rule_that_sidecars_are_sent_it_is_said_what_became_of_it() -> None:
    untold = {"meshconfigs.fairlead.dev", "ingressclasses.networking.k8s.io"}  # settings, which no sidecar takes alone
    assert RULE_RESOURCES - untold <= REPORTED
