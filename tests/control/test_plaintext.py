"""Control's ledger of plaintext, and whom a switch to STRICT would refuse."""

from __future__ import annotations

import pytest

from fairlead.control.plaintext import BLOCKS_S, ENTRIES_MOST, KEPT_S, Forgotten, PlaintextLedger, Report, age, refusal
from fairlead.policy.resources import LabelsSelector, Meta, MutualTLS, PeerAuthentication, PeerAuthenticationSpec
from fairlead.registry.model import Workload
from fairlead.registry.snapshot import Snapshot

NOW = 1_000_000_000.0
WEB = Workload("shop", "web-1", addresses=("10.0.0.1",), labels={"app": "web"})
CART = Workload("shop", "cart-1", addresses=("10.0.0.2",))
SNAPSHOT = Snapshot(workloads={one.key: one for one in (WEB, CART)})


def policy(name: str, mode: str, namespace: str = "shop", labels: dict[str, str] | None = None,
           ports: dict[str, str] | None = None) -> PeerAuthentication:  # fmt: skip
    return PeerAuthentication(
        Meta(name, namespace),
        PeerAuthenticationSpec(
            LabelsSelector(labels) if labels else None,
            MutualTLS(mode),
            {port: MutualTLS(own) for port, own in (ports or {}).items()},
        ),
    )


def ledger(*reports: Report) -> PlaintextLedger:
    made = PlaintextLedger()
    made.take("shop/web-1", reports or [Report("10.0.0.2", 80, 3, 0, 60, 30)], SNAPSHOT, NOW)
    return made


def blocked(
    made: PlaintextLedger, before: list[PeerAuthentication], after: list[PeerAuthentication], now: float = NOW
) -> int:
    return len(made.refused_by(before, after, "istio-system", SNAPSHOT, now))


def test_entries_are_named_by_workload_added_up_and_kept_on_disk() -> None:
    made = ledger()
    made.take("shop/web-1", [Report("10.0.0.2", 80, 2, 1), Report("10.9.9.9", 80, 1)], SNAPSHOT, NOW + 5)
    again = PlaintextLedger(made.dump())
    first, second = again.entries()
    assert (first.source, first.address, first.connections) == ("", "10.9.9.9", 1)
    assert (second.source, second.connections, second.refused) == ("shop/cart-1", 5, 1)
    assert (second.first_seen, second.last_seen) == (NOW - 60, NOW + 5)
    with pytest.raises(ValueError):
        PlaintextLedger(b"{")


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        ([], [policy("a", "STRICT")], 1),
        ([], [policy("a", "STRICT", "istio-system")], 1),
        ([], [policy("a", "STRICT", labels={"app": "web"})], 1),
        ([], [policy("a", "STRICT", labels={"app": "cart"})], 0),
        ([], [policy("a", "STRICT", "other")], 0),
        ([], [policy("a", "PERMISSIVE"), policy("b", "STRICT")], 0),
        ([], [policy("a", "STRICT", labels={"app": "web"}, ports={"80": "PERMISSIVE"})], 0),
        ([], [policy("a", "PERMISSIVE", labels={"app": "web"}, ports={"80": "STRICT"})], 1),
        ([], [policy("a", "PERMISSIVE", labels={"app": "web"}, ports={"81": "STRICT"})], 0),
        ([policy("a", "STRICT"), policy("w", "PERMISSIVE", labels={"app": "web"})], [policy("a", "STRICT")], 1),
        ([policy("a", "STRICT")], [policy("a", "STRICT"), policy("w", "STRICT", labels={"app": "web"})], 0),
        ([], [policy("a", "DISABLE")], 0),
    ],
)
def test_what_becomes_strict_for_somebody_who_came_lately_is_found(
    before: list[PeerAuthentication], after: list[PeerAuthentication], count: int
) -> None:
    assert blocked(ledger(), before, after) == count


def test_who_has_not_come_for_a_day_is_in_nobodys_way_and_forgotten_after_a_month() -> None:
    made = ledger()
    assert blocked(made, [], [policy("a", "STRICT")], NOW + BLOCKS_S - 31) == 1
    assert blocked(made, [], [policy("a", "STRICT")], NOW + BLOCKS_S) == 0
    made.take("shop/web-1", [], SNAPSHOT, NOW + KEPT_S)
    assert made.entries() == []


def test_a_flood_of_sources_drops_the_oldest() -> None:
    made = ledger()
    made.take("shop/web-1", [Report(f"10.1.{n // 256}.{n % 256}", 80, 1) for n in range(ENTRIES_MOST)], SNAPSHOT, NOW)
    assert len(made.entries()) == ENTRIES_MOST
    assert not [one for one in made.entries() if one.source == "shop/cart-1"]


def forget(made: PlaintextLedger, *which: str) -> int:
    namespace, workload, source = (*which, "", "")[:3]
    return made.drop([Forgotten(namespace, workload, source, NOW + 1e6)])


def test_what_comes_after_it_was_told_to_forget_counts() -> None:
    made = ledger()
    first = made.entries()[0].last_seen
    assert made.drop([Forgotten("shop", at=first - 1e6)]) == 0


def test_forgetting_is_by_destination_and_source() -> None:
    made = ledger()
    assert forget(made, "shop", "web-2") == 0
    assert forget(made, "sho") == 0
    assert forget(made, "shop", "web-1", "10.0.0.3") == 0
    assert forget(made, "shop", "", "shop/cart-1") == 1
    assert made.entries() == []


def test_the_refusal_names_whom_and_the_remedy() -> None:
    told = refusal(ledger().entries(), NOW)
    assert "shop/web-1 port 80: shop/cart-1 (10.0.0.2), 3 connections, last 30 s ago" in told
    assert 'annotation fairlead.dev/force: "true"' in told
    assert [age(s) for s in (5, 119, 120, 7200, 200000)] == ["5 s", "119 s", "2 min", "2 h", "2 d"]


def test_rows_say_mode_and_whether_they_block() -> None:
    rows = ledger().rows(ledger().entries(), [policy("a", "STRICT")], "istio-system", SNAPSHOT, NOW)
    assert (rows[0]["mode"], rows[0]["blocks"]) == ("STRICT", False)
    rows = ledger().rows(ledger().entries("shop"), [], "istio-system", SNAPSHOT, NOW)
    assert (rows[0]["mode"], rows[0]["blocks"]) == ("PERMISSIVE", True)
    assert ledger().entries("other") == []
