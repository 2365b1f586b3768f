"""What `fairlead check` makes of what control and roles tell."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.control.check_rows import Row, behind, of_certificate, of_revocations, of_sidecars, of_sources, shown
from fairlead.policy.world import World
from fairlead.registry.documents import load

NOW = 1_000_000.0
DAY = 86400.0


def member(workload: str = "default/web-1", **more: Any) -> dict[str, Any]:
    namespace, name = workload.split("/")
    return {
        "role": "sidecar",
        "namespace": namespace,
        "workload": name,
        "offered": "e.3",
        "taken": "e.3",
        "refused": "",
        "reasons": [],
        **more,
    }


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        ({"state": "live", "confirmed_at": NOW - 5}, "ok", "live, confirmed 5s ago"),
        ({"state": "live"}, "ok", "live"),
        ({"state": "live", "confirmed_at": NOW - 7300}, "warning", "silent: confirmed 2h ago"),
        (
            {"state": "stale", "confirmed_at": NOW - 300, "error": "no route"},
            "error",
            "stale, confirmed 5m ago: no route",
        ),
        ({"state": "starting", "error": "refused"}, "error", "has not said anything yet: refused"),
        ({}, "error", "has not said anything yet"),
    ],
)
def test_a_source_is_told_with_its_age(source: dict[str, Any], status: str, said: str) -> None:
    (row,) = of_sources([{"name": "consul", **source}], NOW)
    assert (row.status, row.message.startswith(said)) == (status, True), row


def test_entries_that_cannot_be_used_are_a_warning_beside_it() -> None:
    rows = of_sources([{"name": "etcd", "state": "live", "confirmed_at": NOW, "problems": ["/a: x", "/b: y"]}], NOW)
    assert [row.status for row in rows] == ["ok", "warning"]
    assert "2 entries cannot be used: /a: x" in rows[1].message


def test_what_holds_a_source_back_is_a_warning_beside_it() -> None:
    rows = of_sources([{"name": "consul", "state": "live", "confirmed_at": NOW, "notes": ["raise the limit"]}], NOW)
    assert [(row.status, row.message) for row in rows[1:]] == [("warning", "raise the limit")]


def test_a_sidecar_that_refused_is_behind_or_has_an_app_that_is_not_ready_is_told() -> None:
    slow = member("default/slow", taken="e.2")
    members = [
        member(),
        member("default/no", taken="e.2", refused="e.3", reasons=["spec.x: bad"]),
        slow,
        member("default/ill", checked=True, ready=False, why="disk full"),
        member("default/new", taken=""),
    ]
    assert behind(members) == {"sidecar default/slow", "sidecar default/new"}
    rows = {row.name.split("/")[1]: row for row in of_sidecars(members, {"sidecar default/slow"}, None)}
    assert [rows[name].status for name in ("web-1", "no", "slow", "ill", "new")] == [
        "ok",
        "error",
        "error",
        "warning",
        "ok",
    ]
    assert "refused version e.3: spec.x: bad" in rows["no"].message
    assert "behind: it runs e.2, and was sent e.3" in rows["slow"].message


def test_a_workload_with_a_mesh_port_whose_sidecar_is_away_is_told() -> None:
    text = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-1, namespace: shop}
spec: {address: 10.0.0.1, labels: {app: vm}, ports: {http: 80}}
"""
    documents, _ = load(text, "x.yaml")
    world = World.load(documents)[0]
    assert of_sidecars([], set(), world) == []  # it never had one
    workloads = world.snapshot.workloads
    (key,) = workloads
    import msgspec

    world.snapshot.workloads = {key: msgspec.structs.replace(workloads[key], mesh_port=15006)}
    (row,) = of_sidecars([member("default/web-1", role="dns")], set(), world)[1:]
    assert (row.status, row.message) == ("error", "not connected to control; others dial its mesh port 15006")


@pytest.mark.parametrize(
    ("begins", "ends", "renewed", "status"),
    [
        (NOW - DAY / 4, NOW + DAY * 3 / 4, True, "ok"),
        (NOW - DAY * 0.9, NOW + DAY * 0.1, True, "warning"),
        (NOW - 2 * DAY, NOW - DAY, True, "error"),
        (NOW - DAY, NOW + 29 * DAY, False, "warning"),
        (NOW - DAY, NOW + 3000 * DAY, False, "ok"),
    ],
)
def test_certificates_are_told_before_they_end(begins: float, ends: float, renewed: bool, status: str) -> None:
    row = of_certificate("x", begins, ends, NOW, renewed, "do this")
    assert isinstance(row, Row)
    assert row.status == status


def test_durations_are_for_people() -> None:
    assert [shown(s) for s in (-1, 5.4, 119, 180, 7200, 3 * DAY)] == ["0s", "5s", "119s", "3m", "2h", "3d"]


def test_what_is_revoked_who_still_uses_it_and_who_cannot_refuse_it() -> None:
    answer = {
        "revoked": [
            {"what": "workload shop/web-1", "by": "alice", "reason": "stolen"},
            {"what": "certificate ab", "by": "alice", "because": "workload shop/web-1"},
        ],
        "using": [{"workload": "shop/web-1", "serial": "ab"}],
        "unable": ["Envoy does not"],
    }
    rows = of_revocations(answer)
    assert [(row.name, row.status) for row in rows] == [
        ("workload shop/web-1", "ok"), ("shop/web-1", "warning"), ("xDS", "warning")
    ]  # fmt: skip
    assert rows[0].message == "revoked by alice: stolen"
    assert of_revocations({"revoked": [], "using": [], "unable": ["Envoy does not"]}) == []
