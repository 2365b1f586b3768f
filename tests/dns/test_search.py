"""The client's search list, walked by the server: one question where `ndots:5` makes four."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.dns.engine import Engine, Pending
from fairlead.dns.message import Message, RRset, wire_name
from fairlead.dns.records import ZoneOptions
from fairlead.dns.search import SearchList
from fairlead.registry.model import Workload
from tests.dns.world import WORLD, ask, engine, host, outcome, question, read, records, send, snapshot

CLIENT, STRANGER = "10.1.0.1", "10.9.9.9"


def serving(mode: str = "question", **fields: object) -> Engine:
    return engine(WORLD, autopath=mode, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("cart.shop.default.svc.cluster.local", "cart.shop.svc.cluster.local"),
        ("web.default.svc.shop.svc.cluster.local", "web.default.svc.cluster.local"),
        ("web.default.svc.cluster.local.shop.svc.cluster.local", "web.default.svc.cluster.local"),
        ("api.example.com.default.svc.cluster.local", "api.example.com"),
    ],
)
def test_the_first_name_on_the_list_that_exists_is_given_behind_an_alias(asked: str, found: str) -> None:
    got = ask(serving(), asked)
    direct = ask(serving(), found)
    assert records(got.answer) == sorted([f"{asked}. 5 CNAME {found}.", *records(direct.answer)])
    assert outcome(ask(serving("off"), asked)) == "NXDOMAIN"


def test_a_name_that_exists_as_written_is_not_walked() -> None:
    assert records(ask(serving(), host("web")).answer) == [f"{host('web')}. 5 A 10.96.0.1"]


def test_no_data_ends_the_walk_as_it_does_for_a_stub() -> None:
    got = ask(serving(), "cart.shop.default.svc.cluster.local", "AAAA")
    assert outcome(got) == "NOERROR"
    assert records(got.answer) == ["cart.shop.default.svc.cluster.local. 5 CNAME cart.shop.svc.cluster.local."]
    assert got.authority


@pytest.mark.parametrize(
    "name",
    [
        "nothing.default.svc.cluster.local",
        "cart.shop.nowhere.svc.cluster.local",
        "default.svc.cluster.local",
        "x.svc.cluster.local",
        "x.test.default.svc.cluster.local",
    ],
)
def test_without_any_or_in_no_namespace_it_is_as_before(name: str) -> None:
    walked, plain = ask(serving(), name), ask(serving("off"), name)
    assert (outcome(walked), walked.answer, walked.authority) == (outcome(plain), plain.answer, plain.authority)


def test_by_client_only_a_workload_of_that_namespace_is_walked_for() -> None:
    server = serving("client")
    octets = question("cart.shop.default.svc.cluster.local")
    for _ in range(2):
        ours = read(octets, send(server, octets, source=CLIENT))  # type: ignore[arg-type]
        assert outcome(ours) == "NOERROR"
        assert outcome(read(octets, send(server, octets, source=STRANGER))) == "NXDOMAIN"  # type: ignore[arg-type]
        assert outcome(read(octets, send(server, octets, source=f"::ffff:{CLIENT}"))) == "NOERROR"  # type: ignore[arg-type]
    other = question("cart.shop.shop.svc.cluster.local")
    assert outcome(read(other, send(server, other, source=CLIENT))) == "NXDOMAIN"  # type: ignore[arg-type]


def test_a_sidecars_clients_are_of_its_own_namespace() -> None:
    server = serving("client", client_namespace="default")
    octets = question("cart.shop.default.svc.cluster.local")
    assert outcome(read(octets, send(server, octets, source="127.0.0.1"))) == "NOERROR"  # type: ignore[arg-type]


def test_who_moves_away_is_no_longer_walked_for() -> None:
    server = serving("client")
    octets = question("cart.shop.default.svc.cluster.local")
    assert outcome(read(octets, send(server, octets, source=CLIENT))) == "NOERROR"  # type: ignore[arg-type]
    moved = snapshot(*WORLD.services.values(), version=2, endpoints=dict(WORLD.endpoints), namespaces=("default",))
    moved.workloads = {"shop/web-1": Workload("shop", "web-1", (CLIENT,))}
    server.update(moved)
    assert outcome(read(octets, send(server, octets, source=CLIENT))) == "NXDOMAIN"  # type: ignore[arg-type]


def test_a_walk_is_kept_until_a_name_on_its_way_appears() -> None:
    server = serving()
    octets = question("cart.shop.default.svc.cluster.local")
    send(server, octets)
    assert len(server.udp.young) == 1
    services = [s for s in WORLD.services.values() if s.name != "cart"]
    server.update(snapshot(*services, version=2, endpoints=dict(WORLD.endpoints), namespaces=("default", "shop")))
    assert outcome(read(octets, send(server, octets))) == "NXDOMAIN"  # type: ignore[arg-type]
    server.update(WORLD)
    assert outcome(read(octets, send(server, octets))) == "NOERROR"  # type: ignore[arg-type]


def upstream(name: str, *addresses: bytes, rcode: int = 0) -> Message:
    owner = wire_name(name)
    message = Message(0x8180, rcode, owner + b"\0\1\0\1")
    message.answer = [RRset(owner, 1, 60, addresses)] if addresses else []
    start = RRset(wire_name("com"), 6, 900, (b"\0\0" + bytes(16) + (900).to_bytes(4, "big"),))
    message.authority = [] if addresses else [start]
    return message


def test_an_outside_name_costs_one_question_of_the_client_and_one_upstream() -> None:
    server = serving()
    server.forwards = True
    octets = question("www.example.com.default.svc.cluster.local")
    waiting = server.reply(octets, True, CLIENT, 0.0, 0.0)
    assert isinstance(waiting, Pending)
    assert waiting.key[0] == wire_name("www.example.com")
    known = server.learn(waiting.key, upstream("www.example.com", b"\xc0\0\2\7"), 0.0)
    made = server.finish(waiting, known, 0.0, 0.0)
    assert isinstance(made, bytes)
    assert records(read(octets, made).answer) == [
        "www.example.com. 60 A 192.0.2.7",
        "www.example.com.default.svc.cluster.local. 5 CNAME www.example.com.",
    ]


def test_a_missing_outside_name_is_denied_in_our_zone_and_further_domains_are_asked_first() -> None:
    server = serving(search=("corp.example",))
    server.forwards = True
    octets = question("intra.default.svc.cluster.local")
    waiting = server.reply(octets, True, CLIENT, 0.0, 0.0)
    asked = []
    made: object = waiting
    while isinstance(made, Pending):
        asked.append(made.key[0])
        name = "missing.example"
        made = server.finish(made, server.learn(made.key, upstream(name, rcode=3), 0.0), 0.0, 0.0)
    assert asked == [wire_name("intra.corp.example"), wire_name("intra")]
    assert isinstance(made, bytes)
    got = read(octets, made)
    assert outcome(got) == "NXDOMAIN"
    assert got.authority[0].name.to_text() == "cluster.local."
    again = server.reply(octets, True, CLIENT, 1.0, 0.0)
    assert isinstance(again, bytes), "the cache knows"


def test_who_may_not_ask_upstream_gets_a_denial() -> None:
    server = engine(WORLD, autopath="question", forwards=True, everyone=False)
    octets = question("www.example.com.default.svc.cluster.local")
    assert outcome(read(octets, send(server, octets, source="203.0.113.9"))) == "NXDOMAIN"  # type: ignore[arg-type]


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=6))
def test_any_name_is_split_at_its_labels_or_not_at_all(labels: list[bytes]) -> None:
    name = b"".join(bytes((len(label),)) + label for label in labels) + wire_name("svc.cluster.local")
    found = SearchList(ZoneOptions()).split(name)
    if len(labels) < 2:
        assert found is None
        return
    assert found is not None
    base, namespace = found
    assert base + bytes((len(namespace),)) + namespace + wire_name("svc.cluster.local") == name
    assert all(len(candidate) <= 255 for candidate in SearchList(ZoneOptions()).candidates(base) if len(base) < 255)
