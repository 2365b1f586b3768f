"""Names that are made on demand are those that would be made at once, and no answer outlives what it was made from."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.dns import demand
from fairlead.dns.demand import OnDemand, outline
from fairlead.dns.message import PTR, RRset, parents, wire_name
from fairlead.dns.records import ENDPOINT_PTR, Records, ZoneOptions, merged, namespace_records, service_records
from fairlead.dns.zone import Zone
from fairlead.registry.model import Endpoint, Service, ServicePort
from fairlead.registry.snapshot import Snapshot
from tests.dns.world import HTTP, ask, engine, external, host, outcome, records, service, snapshot

UDP = ServicePort(53, "dns", "UDP")
endpoints = st.lists(
    st.builds(
        Endpoint,
        st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1", "8.8.8.8", "db.example.com"]),
        st.sampled_from([80, 81, 0]),
        st.sampled_from(["", "http", "dns"]),
        ready=st.sampled_from([True, True, False]),
        hostname=st.sampled_from(["", "", "h", "H2", "not.one"]),
    ),
    max_size=3,
).map(tuple)
fields = st.fixed_dictionaries(
    {
        "ports": st.sampled_from([(), (HTTP,), (HTTP, UDP), (ServicePort(9),), (ServicePort(9, "x" * 70),)]),
        "addresses": st.sampled_from([(), (), ("10.0.0.9",), ("10.0.0.1", "fd00::9")]),
        "headless": st.booleans(),
        "external_name": st.sampled_from(["", "", "", host("a"), "www.example.com", "a..b"]),
        "annotations": st.sampled_from([{}, {}, {"fairlead.dev/dns-ttl": "60"}]),
    }
)
HOSTS = {
    host("a"): service("a"),
    host("b"): service("b"),
    host("a", "other"): service("a", "other"),
    f"h.{host('a')}": external(f"h.{host('a')}"),  # below another, and at the name of one of its endpoints
    f"x.y.{host('b')}": external(f"x.y.{host('b')}"),
    "db.cluster.local": external("db.cluster.local"),
    "www.example.com": external("www.example.com"),
}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Snapshot, dict[str, tuple[str, ...]]]:
    services: list[Service] = []
    listed: dict[str, tuple[Endpoint, ...]] = {}
    override: dict[str, tuple[str, ...]] = {}
    for name in draw(st.lists(st.sampled_from(sorted(HOSTS)), unique=True)):
        given_fields: dict[str, Any] = draw(fields)
        one = HOSTS[name]
        services.append(Service(one.host, one.namespace, one.name, external=one.external, **given_fields))
        listed[name] = draw(endpoints)
        if draw(st.integers(0, 5)) == 0:
            override[name] = ("127.64.0.1",)
    names = tuple(draw(st.sets(st.sampled_from(["default", "other"]))))
    return snapshot(*services, endpoints=listed, namespaces=names), override


def at_once(zone: Zone, world: Snapshot, override: dict[str, tuple[str, ...]]) -> dict[bytes, dict[int, Any]]:
    """All names, by what each object contributes."""
    given_sets: dict[bytes, list[dict[int, RRset]]] = {}
    parts: list[Records] = [{}]
    for name in {*world.namespaces, *(one.namespace for one in world.services.values())}:
        parts.append(namespace_records(name, zone.options))
    for name, one in world.services.items():
        try:
            parts.append(service_records(one, world.endpoints[name], override.get(name, ()), zone.options))
        except ValueError:
            assert name in zone.problems
    for part in parts:
        for owner, sets in part.items():
            given_sets.setdefault(owner, []).append(sets)
            if zone.owns(owner):
                for above in parents(owner):
                    if zone.owns(above):
                        given_sets.setdefault(above, [])
    return {owner: shown(merged(owner, many)) for owner, many in given_sets.items()}


def shown(sets: dict[int, RRset]) -> dict[int, Any]:
    return {
        PTR if rtype == ENDPOINT_PTR else rtype: (one.owner, one.ttl, set(one.rdata)) for rtype, one in sets.items()
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(worlds(), min_size=1, max_size=4))
def test_whatever_came_before_names_are_those_that_would_be_made_at_once(
    steps: list[tuple[Snapshot, dict[str, tuple[str, ...]]]],
) -> None:
    zone = Zone(ZoneOptions())
    fixed = {wire_name(f"{name}cluster.local") for name in ("", "ns.dns.", "dns.", "dns-version.", "svc.", "pod.")}
    for world, override in steps:
        zone.update(world, override)
        names = {name: shown(dict(sets)) for name, sets in zone.names() if name not in fixed}
        expected = at_once(zone, world, override)
        tops = {name for name in expected if name.endswith(b"\4arpa\0") and not expected[name]}
        assert {name: sets for name, sets in names.items() if name not in tops} == {
            name: sets for name, sets in expected.items() if name not in fixed | tops
        }
        if not {f"h.{host('a')}", f"x.y.{host('b')}"} & world.services.keys():  # whose names count twice
            assert len(zone) == len(dict(zone.names()))


QUESTIONS = [
    (prefix + name, rtype)
    for name in HOSTS
    for prefix, rtype in (("", "A"), ("", "SRV"), ("", "AAAA"), ("_http._tcp.", "SRV"), ("_tcp.", "A"),
                          ("10-0-0-1.", "A"), ("h.", "A"), ("no.", "A"))
] + [("1.0.0.10.in-addr.arpa", "PTR"), ("9.0.0.10.in-addr.arpa", "PTR"), ("0.0.10.in-addr.arpa", "A"),
     ("8.8.8.8.in-addr.arpa", "PTR"), ("default.svc.cluster.local", "A"), ("other.svc.cluster.local", "A")]  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.lists(worlds(), min_size=2, max_size=4))
def test_no_finished_answer_outlives_what_it_was_made_from(
    steps: list[tuple[Snapshot, dict[str, tuple[str, ...]]]],
) -> None:
    server = engine(None)
    for world, override in steps:
        world.version = 1  # of the SOA, which stands in denials
        server.update(world, override)
        fresh = engine(None)
        fresh.update(world, override)
        for name, rtype in QUESTIONS:
            got, expected = ask(server, name, rtype), ask(fresh, name, rtype)
            assert outcome(got) == outcome(expected), (name, rtype)
            for section in ("answer", "authority", "additional"):
                assert records(getattr(got, section)) == records(getattr(expected, section)), (name, rtype)


def test_records_are_kept_while_there_is_room(monkeypatch: Any) -> None:
    monkeypatch.setattr(demand, "KEPT_NAMES", 10)
    held = OnDemand(ZoneOptions(), wire_name("svc.cluster.local"))
    made = []
    for n in range(5):
        one = demand.Made(service(f"s{n}", ports=(HTTP,)), (Endpoint(f"10.0.0.{n}", 80),), ())
        held.put(host(f"s{n}"), one)
        made.append(one)
    first = held.records(made[0])
    assert held.records(made[0]) is first
    for one in made[1:]:
        held.records(one)
    assert held.records(made[0]) is not first
    assert held.records(made[0]).keys() == first.keys()


def test_only_what_looks_uncommon_has_to_be_made_to_be_judged() -> None:
    usual = outline(service("a", ports=(HTTP,)), (Endpoint("10.0.0.1", 80), Endpoint("fd00::1", 80)), ())
    assert usual.certain
    assert usual.names == 4, "two addresses, the port, and what lies between"
    assert len(usual.pointed) == 2
    assert not outline(service("a"), (Endpoint("10.0.0.1", 80, hostname="h"),), ()).certain
    assert not outline(service("a"), (Endpoint("10.0.0.1", 80, port_name="y" * 70),), ()).certain
    assert not outline(service("a", external_name="b"), (), ()).certain


def test_what_a_name_belongs_to_is_seen_from_the_name() -> None:
    held = OnDemand(ZoneOptions(), wire_name("svc.cluster.local"))
    for name, owner in (
        (host("a"), host("a")),
        (f"_http._tcp.{host('a')}", host("a")),
        ("default.svc.cluster.local", ""),
        ("svc.cluster.local", ""),
        ("a.default.pod.cluster.local", ""),
    ):
        assert held.owner_of(wire_name(name)) == (wire_name(owner) if owner else b"")
    assert held.owner_of(b"\x0bweb.default\3svc\7cluster\5local\0") == b"", "a dot within a label is none between two"
    assert held.key_of(wire_name(f"h.{host('a')}")) == b"\xffs" + host("a").encode()
