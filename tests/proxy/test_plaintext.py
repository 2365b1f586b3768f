"""A sidecar's count of who comes in plaintext."""

from __future__ import annotations

from fairlead.proxy.plaintext import SOURCES_MOST, Ledger


def test_each_source_and_port_is_counted_until_it_is_taken() -> None:
    ledger = Ledger()
    ledger.came("10.0.0.1", 80, False, 100.0)
    ledger.came("10.0.0.1", 80, True, 105.0)
    ledger.came("10.0.0.1", 81, False, 106.0)
    assert ledger.take(110.0) == [
        {"source": "10.0.0.1", "port": 80, "connections": 2, "refused": 1, "first_ago_s": 10.0, "last_ago_s": 5.0},
        {"source": "10.0.0.1", "port": 81, "connections": 1, "refused": 0, "first_ago_s": 4.0, "last_ago_s": 4.0},
    ]
    assert ledger.take(111.0) == []
    assert ledger.metric_samples() == [
        ({"source": "10.0.0.1", "port": "80"}, 2),
        ({"source": "10.0.0.1", "port": "81"}, 1),
    ]


def test_a_connection_that_lives_is_told_of_again_without_being_counted_again() -> None:
    ledger = Ledger()
    ledger.came("10.0.0.1", 80, False, 100.0)
    ledger.take(101.0)
    ledger.lives([("10.0.0.1", 80)], 200.0)
    assert ledger.take(200.0) == [
        {"source": "10.0.0.1", "port": 80, "connections": 0, "refused": 0, "first_ago_s": 0.0, "last_ago_s": 0.0}
    ]


def test_what_control_did_not_hear_is_told_with_what_came_meanwhile() -> None:
    ledger = Ledger()
    ledger.came("10.0.0.1", 80, True, 100.0)
    taken = ledger.take(101.0)
    ledger.came("10.0.0.1", 80, False, 102.0)
    ledger.give_back(taken, 103.0)
    (one,) = ledger.take(104.0)
    assert (one["connections"], one["refused"]) == (2, 1)
    assert one["last_ago_s"] == 2.0 and float(str(one["first_ago_s"])) >= 2.0


def test_a_flood_of_addresses_is_bounded() -> None:
    ledger = Ledger()
    for number in range(SOURCES_MOST + 50):
        ledger.came(f"10.0.{number // 256}.{number % 256}", 80, False, 1.0)
    entries = ledger.take(2.0)
    assert len(entries) == SOURCES_MOST + 1
    assert next(one for one in entries if one["source"] == "")["connections"] == 50
    assert sum(n for _, n in ledger.metric_samples()) == SOURCES_MOST + 50
