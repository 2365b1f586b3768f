"""What sidecars tell of themselves: mesh ports stay, undeclared workloads come and go with readiness."""

from __future__ import annotations

from msgspec.structs import replace

from fairlead.control.sidecars import AWAY_MOST, AWAY_S, Known, Sidecars
from fairlead.registry.model import Facts, Workload

FRONT = Known("default", "front-1", "10.0.0.1", 15006, "front", {"app": "front"}, (8080,))
DECLARED = Facts(workloads={"default/front-1": Workload("default", "front-1", addresses=("10.0.0.1",))})


def test_a_declared_workload_gets_the_mesh_port_of_its_sidecar() -> None:
    sidecars = Sidecars()
    assert sidecars.connected([FRONT])
    assert sidecars.over(DECLARED).workloads["default/front-1"].mesh_port == 15006
    assert sidecars.alone(DECLARED.workloads).workloads == {}


def test_the_mesh_port_stays_when_the_sidecar_goes_and_over_a_restart_of_control() -> None:
    sidecars = Sidecars()
    sidecars.connected([FRONT])
    sidecars.connected([])
    assert sidecars.over(DECLARED).workloads["default/front-1"].mesh_port == 15006
    again = Sidecars(sidecars.dump())
    assert again.over(DECLARED).workloads["default/front-1"].mesh_port == 15006


def test_an_undeclared_workload_is_not_ready_while_its_sidecar_is_away() -> None:
    sidecars = Sidecars()
    sidecars.connected([FRONT])
    assert sidecars.alone(()).workloads["default/front-1"].ready
    assert sidecars.connected([])
    lonely = sidecars.alone(()).workloads["default/front-1"]
    assert not lonely.ready
    assert lonely.why
    assert sidecars.connected([FRONT])
    assert sidecars.alone(()).workloads["default/front-1"].ready


def test_after_a_restart_of_control_it_is_ready_until_it_is_known_to_be_away() -> None:
    sidecars = Sidecars()
    sidecars.connected([FRONT])
    again = Sidecars(sidecars.dump())
    assert again.alone(()).workloads["default/front-1"].ready
    again.connected([])
    assert again.alone(()).workloads["default/front-1"].ready


def test_who_has_left_stays_left_when_it_is_gone_and_over_a_restart_of_control_until_it_is_back() -> None:
    sidecars = Sidecars()
    sidecars.connected([FRONT])
    assert sidecars.left() == []
    assert sidecars.connected([replace(FRONT, left=True)])
    assert sidecars.left() == ["default/front-1"]
    sidecars.connected([])
    assert sidecars.left() == ["default/front-1"]
    again = Sidecars(sidecars.dump())
    assert again.left() == ["default/front-1"]
    assert again.connected([FRONT])
    assert again.left() == []


def test_who_leaves_while_its_stream_is_away_is_left_too() -> None:
    sidecars = Sidecars()
    assert not sidecars.leave("default/front-1")  # never heard of: nothing leads to it through us
    sidecars.connected([FRONT])
    sidecars.connected([])
    assert sidecars.leave("default/front-1")
    assert not sidecars.leave("default/front-1")
    assert sidecars.left() == ["default/front-1"]


def test_one_without_a_mesh_port_can_leave_and_come_back_and_loses_no_port_it_had() -> None:
    bare = replace(FRONT, mesh_port=0)
    sidecars = Sidecars()
    sidecars.connected([bare])
    assert sidecars.known == {}
    sidecars.connected([replace(bare, left=True)])
    assert sidecars.left() == ["default/front-1"]
    sidecars.connected([bare])
    assert sidecars.left() == []
    sidecars.connected([FRONT])
    sidecars.connected([bare])
    assert sidecars.known["default/front-1"].mesh_port == 15006


def test_nothing_new_is_no_change() -> None:
    sidecars = Sidecars()
    assert sidecars.connected([FRONT])
    assert not sidecars.connected([FRONT])
    assert sidecars.connected([Known("default", "front-1", "10.0.0.1", 15007)])


def test_what_was_declared_and_is_removed_is_forgotten_unless_connected() -> None:
    sidecars = Sidecars()
    sidecars.connected([FRONT])
    sidecars.forget(["default/front-1"])
    assert sidecars.known
    sidecars.connected([])
    sidecars.forget(["default/front-1"])
    assert not sidecars.known


def unhealthy(why: str) -> Known:
    return replace(FRONT, checked=True, unhealthy=why)


def test_an_app_whose_checks_fail_is_not_ready_whatever_its_source_says() -> None:
    sidecars = Sidecars()
    assert sidecars.connected([unhealthy("readiness http: 500")])
    for found in (sidecars.over(DECLARED), sidecars.alone(())):
        workload = found.workloads["default/front-1"]
        assert (workload.ready, workload.why, workload.unhealthy) == (
            False,
            "readiness http: 500",
            "readiness http: 500",
        )
    assert sidecars.connected([unhealthy("")])
    assert sidecars.over(DECLARED).workloads["default/front-1"].ready


def test_what_checks_said_last_stays_while_the_sidecar_or_control_is_away() -> None:
    sidecars = Sidecars()
    sidecars.connected([unhealthy("down")])
    sidecars.connected([])
    again = Sidecars(sidecars.dump())
    for known in (sidecars, again):
        assert not known.over(DECLARED).workloads["default/front-1"].ready
    again.connected([FRONT])
    assert again.over(DECLARED).workloads["default/front-1"].ready, "a sidecar without checks says nothing of its app"


def test_a_sidecar_that_checks_its_app_is_heard_without_a_mesh_port() -> None:
    sidecars = Sidecars()
    sidecars.connected([Known("default", "a", "10.0.0.1"), Known("default", "b", "10.0.0.2", checked=True)])
    assert list(sidecars.alone(()).workloads) == ["default/b"]


def test_one_whose_checks_fail_and_that_leaves_is_both_and_keeps_the_mesh_port_it_had() -> None:
    sidecars = Sidecars()
    sidecars.connected([FRONT])
    sidecars.connected([replace(unhealthy("down"), mesh_port=0, left=True)])
    known = sidecars.known["default/front-1"]
    assert (known.mesh_port, known.unhealthy, known.left) == (15006, "down", True)
    sidecars.connected([replace(FRONT, mesh_port=0)])
    known = sidecars.known["default/front-1"]
    assert (known.mesh_port, known.unhealthy, known.left, known.checked) == (15006, "", False, False)


def test_what_another_account_told_under_the_name_is_forgotten_once_that_is_known_to_be_anothers() -> None:
    sidecars = Sidecars()
    sidecars.connected([replace(FRONT, service_account="batch", proved=True, left=True)])
    assert sidecars.disown(lambda _: "batch") == sidecars.disown(lambda _: None) == frozenset()
    assert sidecars.disown(lambda _: "front") == {"default/front-1"}
    assert (sidecars.known, sidecars.left()) == ({}, [])
    sidecars.connected([replace(FRONT, service_account="said")])
    assert not sidecars.disown(lambda _: "front"), "where nothing is proved, what is said is only said"


def test_a_workload_that_no_source_declares_is_forgotten_a_day_after_it_went() -> None:
    sidecars = Sidecars()
    other = replace(FRONT, workload="front-2")
    sidecars.connected([FRONT, other])
    assert not sidecars.expire(lambda _: False, 5.0)
    sidecars.connected([other])
    assert not sidecars.expire(lambda _: False, 10.0)
    again = Sidecars(sidecars.dump())
    again.connected([other])
    assert not again.expire(lambda _: False, 10.0 + AWAY_S)
    assert not again.expire({"default/front-1"}.__contains__, 11.0 + AWAY_S)
    assert again.expire(lambda _: False, 11.0 + AWAY_S) == {"default/front-1"}
    assert set(again.alone(()).workloads) == {"default/front-2"}
    again.connected([FRONT])
    assert set(again.alone(()).workloads) == {"default/front-1", "default/front-2"}, "it can come again"


def test_who_comes_back_is_not_away_any_more() -> None:
    sidecars = Sidecars()
    sidecars.connected([FRONT])
    sidecars.connected([])
    sidecars.expire(lambda _: False, 10.0)
    sidecars.connected([FRONT])
    sidecars.connected([])
    assert not sidecars.expire(lambda _: False, 11.0 + AWAY_S)


def test_an_account_cannot_fill_the_memory_with_names() -> None:
    sidecars = Sidecars()
    many = [replace(FRONT, workload=f"w{n}") for n in range(AWAY_MOST + 2)]
    for at, one in enumerate((replace(FRONT, service_account="other"), *many)):
        sidecars.connected([one])
        sidecars.connected([])
        found = sidecars.expire(lambda _: False, 10.0 + at)
        assert found == ({f"default/w{at - AWAY_MOST - 1}"} if at > AWAY_MOST else set())
    assert "default/front-1" in sidecars.known
