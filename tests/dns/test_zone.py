"""The names that a registry makes, after the Kubernetes DNS specification and dns.md, as tables in zone-file form."""

from __future__ import annotations

import dns.flags
import pytest

from fairlead.dns.consul import service_key
from fairlead.dns.message import show_name, wire_name
from fairlead.dns.records import ZoneOptions
from fairlead.dns.zone import Zone
from fairlead.registry.model import Changed, Endpoint, Service, ServicePort, Workload
from tests.dns.world import HTTP, WORLD, ask, engine, external, host, outcome, records, service, shared, snapshot

# question | answer, one record a line | additional
ANSWERS = """
web.default.svc.cluster.local. A
  = web.default.svc.cluster.local. 5 A 10.96.0.1
dual.default.svc.cluster.local. AAAA
  = dual.default.svc.cluster.local. 5 AAAA fd00::2
_http._tcp.web.default.svc.cluster.local. SRV
  = _http._tcp.web.default.svc.cluster.local. 5 SRV 0 100 80 web.default.svc.cluster.local.
  + web.default.svc.cluster.local. 5 A 10.96.0.1
_dns._udp.dual.default.svc.cluster.local. SRV
  = _dns._udp.dual.default.svc.cluster.local. 5 SRV 0 100 53 dual.default.svc.cluster.local.
  + dual.default.svc.cluster.local. 5 A 10.96.0.2
  + dual.default.svc.cluster.local. 5 AAAA fd00::2
web.default.svc.cluster.local. SRV
  = web.default.svc.cluster.local. 5 SRV 0 100 443 web.default.svc.cluster.local.
  = web.default.svc.cluster.local. 5 SRV 0 100 80 web.default.svc.cluster.local.
  + web.default.svc.cluster.local. 5 A 10.96.0.1
plain.default.svc.cluster.local. SRV
  = plain.default.svc.cluster.local. 5 SRV 0 100 9000 plain.default.svc.cluster.local.
  + plain.default.svc.cluster.local. 5 A 10.96.0.3
db.default.svc.cluster.local. A
  = db.default.svc.cluster.local. 5 A 10.1.0.11
  = db.default.svc.cluster.local. 5 A 10.1.0.12
  = db.default.svc.cluster.local. 5 A 10.1.0.13
db-0.db.default.svc.cluster.local. A
  = db-0.db.default.svc.cluster.local. 5 A 10.1.0.11
10-1-0-13.db.default.svc.cluster.local. A
  = 10-1-0-13.db.default.svc.cluster.local. 5 A 10.1.0.13
_pg._tcp.db.default.svc.cluster.local. SRV
  = _pg._tcp.db.default.svc.cluster.local. 5 SRV 0 1 5432 10-1-0-13.db.default.svc.cluster.local.
  = _pg._tcp.db.default.svc.cluster.local. 5 SRV 0 1 5432 db-0.db.default.svc.cluster.local.
  = _pg._tcp.db.default.svc.cluster.local. 5 SRV 0 1 5433 db-1.db.default.svc.cluster.local.
  + 10-1-0-13.db.default.svc.cluster.local. 5 A 10.1.0.13
  + db-0.db.default.svc.cluster.local. 5 A 10.1.0.11
  + db-1.db.default.svc.cluster.local. 5 A 10.1.0.12
_metrics._tcp.db.default.svc.cluster.local. SRV
  = _metrics._tcp.db.default.svc.cluster.local. 5 SRV 0 1 9187 db-0.db.default.svc.cluster.local.
  + db-0.db.default.svc.cluster.local. 5 A 10.1.0.11
six.default.svc.cluster.local. AAAA
  = six.default.svc.cluster.local. 5 AAAA fd00:1::
  = six.default.svc.cluster.local. 5 AAAA fd00::6
fd00-1--0.six.default.svc.cluster.local. AAAA
  = fd00-1--0.six.default.svc.cluster.local. 5 AAAA fd00:1::
eager.default.svc.cluster.local. A
  = eager.default.svc.cluster.local. 5 A 10.1.0.21
cart.shop.svc.cluster.local. A
  = cart.shop.svc.cluster.local. 5 A 10.1.0.12
  = cart.shop.svc.cluster.local. 5 A 10.2.0.1
  = cart.shop.svc.cluster.local. 5 A 10.2.0.2
cart.shop.svc.cluster.local. SRV
  = cart.shop.svc.cluster.local. 5 SRV 0 1 7002 10-2-0-2.cart.shop.svc.cluster.local.
  = cart.shop.svc.cluster.local. 5 SRV 0 1 7003 shared.cart.shop.svc.cluster.local.
  = cart.shop.svc.cluster.local. 5 SRV 0 3 7001 10-2-0-1.cart.shop.svc.cluster.local.
  + 10-2-0-1.cart.shop.svc.cluster.local. 5 A 10.2.0.1
  + 10-2-0-2.cart.shop.svc.cluster.local. 5 A 10.2.0.2
  + shared.cart.shop.svc.cluster.local. 5 A 10.1.0.12
alias.default.svc.cluster.local. A
  = alias.default.svc.cluster.local. 5 CNAME web.default.svc.cluster.local.
  = web.default.svc.cluster.local. 5 A 10.96.0.1
alias.default.svc.cluster.local. CNAME
  = alias.default.svc.cluster.local. 5 CNAME web.default.svc.cluster.local.
outside.default.svc.cluster.local. A
  = outside.default.svc.cluster.local. 5 CNAME www.example.com.
digits.default.svc.cluster.local. A
  = digits.default.svc.cluster.local. 5 CNAME 10.1.2.3.
dns-version.cluster.local. TXT
  = dns-version.cluster.local. 28800 TXT "1.1.0"
1.0.96.10.in-addr.arpa. PTR
  = 1.0.96.10.in-addr.arpa. 5 PTR web.default.svc.cluster.local.
11.0.1.10.in-addr.arpa. PTR
  = 11.0.1.10.in-addr.arpa. 5 PTR db-0.db.default.svc.cluster.local.
12.0.1.10.in-addr.arpa. PTR
  = 12.0.1.10.in-addr.arpa. 5 PTR db-1.db.default.svc.cluster.local.
  = 12.0.1.10.in-addr.arpa. 5 PTR shared.cart.shop.svc.cluster.local.
2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR
  = 2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. 5 PTR dual.default.svc.cluster.local.
1.0.0.127.in-addr.arpa. PTR
  = 1.0.0.127.in-addr.arpa. 3600 PTR localhost.
10-1-0-1.default.pod.cluster.local. A
  = 10-1-0-1.default.pod.cluster.local. 5 A 10.1.0.1
fd00--1.default.pod.cluster.local. AAAA
  = fd00--1.default.pod.cluster.local. 5 AAAA fd00::1
cluster.local. NS
  = cluster.local. 5 NS ns.dns.cluster.local.
cluster.local. SOA
  = cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
api.example.com. A
  = api.example.com. 5 A 240.240.0.9
pool.example.com. AAAA
  = pool.example.com. 5 AAAA 2001:db8:1::1
named.example.com. A
  = named.example.com. 5 CNAME web.default.svc.cluster.local.
  = web.default.svc.cluster.local. 5 A 10.96.0.1
Deep.Down.Wild.Example.com. A
  = Deep.Down.Wild.Example.com. 5 A 240.240.0.10
WEB.Default.Svc.CLUSTER.local. A
  = WEB.Default.Svc.CLUSTER.local. 5 A 10.96.0.1
localhost. A
  = localhost. 3600 A 127.0.0.1
my.localhost. AAAA
  = my.localhost. 3600 AAAA ::1
web.default.svc.cluster.local. ANY
  = web.default.svc.cluster.local. 5 A 10.96.0.1
alias.default.svc.cluster.local. ANY
  = alias.default.svc.cluster.local. 5 CNAME web.default.svc.cluster.local.
ring.default.svc.cluster.local. A
  = ring.default.svc.cluster.local. 5 CNAME ring2.default.svc.cluster.local.
  = ring2.default.svc.cluster.local. 5 CNAME ring.default.svc.cluster.local.
"""


def tables() -> list[tuple[str, str, list[str], list[str]]]:
    found: list[tuple[str, str, list[str], list[str]]] = []
    for line in ANSWERS.strip().splitlines():
        if not line.startswith(" "):
            name, rtype = line.split()
            found.append((name, rtype, [], []))
        else:
            kind, record = line.strip().split(" ", 1)
            _, _, answers, extra = found[-1]
            (answers if kind == "=" else extra).append(record)
    return found


@pytest.mark.parametrize(
    ("name", "rtype", "answer", "additional"), tables(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_answers_are_those_of_the_specification(
    name: str, rtype: str, answer: list[str], additional: list[str]
) -> None:
    got = ask(shared(), name, rtype)
    assert records(got.answer) == sorted(answer)
    assert records(got.additional) == sorted(additional)
    assert outcome(got) == "NOERROR"
    assert got.flags & dns.flags.AA
    assert not got.authority


NEGATIVE = """
web.default.svc.cluster.local. AAAA NODATA cluster.local.
web.default.svc.cluster.local. HTTPS NODATA cluster.local.
web.default.svc.cluster.local. TYPE65280 NODATA cluster.local.
web.default.svc.cluster.local. TYPE65292 NODATA cluster.local.
six.default.svc.cluster.local. A NODATA cluster.local.
_http._tcp.web.default.svc.cluster.local. A NODATA cluster.local.
_tcp.web.default.svc.cluster.local. SRV NODATA cluster.local.
dns-version.cluster.local. A NODATA cluster.local.
cluster.local. A NODATA cluster.local.
svc.cluster.local. A NODATA cluster.local.
pod.cluster.local. A NODATA cluster.local.
dns.cluster.local. A NODATA cluster.local.
ns.dns.cluster.local. A NODATA cluster.local.
default.svc.cluster.local. A NODATA cluster.local.
empty.svc.cluster.local. A NODATA cluster.local.
default.pod.cluster.local. A NODATA cluster.local.
1.0.96.10.in-addr.arpa. A NODATA 10.in-addr.arpa.
0.96.10.in-addr.arpa. PTR NODATA 10.in-addr.arpa.
10.in-addr.arpa. PTR NODATA 10.in-addr.arpa.
168.192.in-addr.arpa. SOA NODATA 168.192.in-addr.arpa.
api.example.com. AAAA NODATA api.example.com.
api.example.com. TXT NODATA api.example.com.
x.wild.example.com. AAAA NODATA x.wild.example.com.
localhost. TXT NODATA localhost.
invalid. A NODATA invalid.
_dns.resolver.arpa. SVCB NODATA resolver.arpa.
down.default.svc.cluster.local. A NXDOMAIN cluster.local.
10-1-0-20.down.default.svc.cluster.local. A NXDOMAIN cluster.local.
_http._tcp.down.default.svc.cluster.local. SRV NXDOMAIN cluster.local.
db-3.db.default.svc.cluster.local. A NXDOMAIN cluster.local.
nothing.default.svc.cluster.local. A NXDOMAIN cluster.local.
x.web.default.svc.cluster.local. A NXDOMAIN cluster.local.
http.tcp.web.default.svc.cluster.local. SRV NXDOMAIN cluster.local.
_no._tcp.web.default.svc.cluster.local. SRV NXDOMAIN cluster.local.
web.nowhere.svc.cluster.local. A NXDOMAIN cluster.local.
nowhere.svc.cluster.local. A NXDOMAIN cluster.local.
www.example.com.default.svc.cluster.local. A NXDOMAIN cluster.local.
web.cluster.local. A NXDOMAIN cluster.local.
10-9-9-9.default.pod.cluster.local. A NXDOMAIN cluster.local.
99.0.96.10.in-addr.arpa. PTR NXDOMAIN 10.in-addr.arpa.
14.0.1.10.in-addr.arpa. PTR NXDOMAIN 10.in-addr.arpa.
1.1.168.192.in-addr.arpa. PTR NXDOMAIN 168.192.in-addr.arpa.
host.invalid. A NXDOMAIN invalid.
abc.onion. A NXDOMAIN onion.
a.test. A NXDOMAIN test.
x.resolver.arpa. A NXDOMAIN resolver.arpa.
"""


@pytest.mark.parametrize("line", NEGATIVE.strip().splitlines())
def test_missing_names_and_missing_types_are_told_apart(line: str) -> None:
    name, rtype, expected, apex = line.split()
    got = ask(shared(), name, rtype)
    if rtype == "SOA" and expected == "NODATA":
        expected = outcome(got)
    assert outcome(got) == expected
    assert not got.answer
    assert got.flags & dns.flags.AA
    (soa,) = got.authority
    assert soa.name.to_text() == apex
    assert soa.ttl == soa[0].minimum


def test_a_dangling_alias_gives_the_alias_and_the_code_of_its_target() -> None:
    got = ask(shared(), "dangling.default.svc.cluster.local")
    assert outcome(got) == "NXDOMAIN"
    assert records(got.answer) == ["dangling.default.svc.cluster.local. 5 CNAME nothing.default.svc.cluster.local."]
    assert got.authority[0].name.to_text() == "cluster.local."


@pytest.mark.parametrize(
    "name", ["www.example.com", "self.example.com", "example.com", "x.y.", ".", "9.9.9.9.in-addr.arpa"]
)
def test_names_of_others_are_refused_where_nobody_can_be_asked(name: str) -> None:
    got = ask(shared(), name)
    assert outcome(got) == "REFUSED"
    assert not got.flags & dns.flags.AA


def test_a_name_with_a_dot_inside_a_label_is_another_name() -> None:
    zone = shared().zone
    odd = b"\x0bweb.default\3svc\7cluster\5local\0"
    found = zone.lookup(odd, 1, False)
    assert found is not None
    assert found.rcode == 3
    hidden = b"\x09x\7cluster" + b"\x05local\0"  # ends in the zone's octets, but not at a label
    assert zone.lookup(hidden, 1, False) is None


def test_every_name_above_a_name_exists() -> None:
    zone = shared().zone
    names = dict(zone.names())
    for name in names:
        if not zone.owns(name):
            continue
        at = name
        while at != zone.apex and at[1 + at[0] :] in names:
            at = at[1 + at[0] :]
        assert at == zone.apex or at.endswith(b"\4arpa\0"), show_name(name)


def test_only_what_changed_is_made_again() -> None:
    zone = Zone(ZoneOptions())
    zone.update(WORLD)
    changed = zone.update(WORLD)
    assert changed == {zone.apex}, "nothing but the serial"
    endpoints = dict(WORLD.endpoints)
    endpoints[host("db")] = tuple(e for e in endpoints[host("db")] if e.hostname != "db-1")
    later = snapshot(*WORLD.services.values(), version=2, endpoints=endpoints, namespaces=tuple(WORLD.namespaces))
    later.workloads = WORLD.workloads
    changed = zone.update(later)
    assert service_key(host("db")) in changed, "which stands for all names at and below it"
    assert {show_name(name) for name in changed - {service_key(host("db"))}} == {
        "cluster.local.",
        "db.default.svc.cluster.local.",
        "12.0.1.10.in-addr.arpa.",
    }


def test_updates_leave_the_same_zone_as_starting_afresh() -> None:
    """Whatever the path: names, record sets and empty names are those of the last snapshot."""
    worlds = [
        WORLD,
        snapshot(service("web", addresses=("10.96.0.1",)), namespaces=("default",)),
        snapshot(),
        snapshot(service("a", headless=True), endpoints={host("a"): (Endpoint("10.96.0.1", 1, hostname="b"),)}),
        snapshot(service("a", addresses=("10.96.0.1",)), service("b", "x", addresses=("10.96.0.1",))),
        WORLD,
    ]
    zone = Zone(ZoneOptions())
    for world in worlds:
        zone.update(world)
        fresh = Zone(ZoneOptions())
        fresh.update(world)
        assert dict(zone.names()) == dict(fresh.names())


def test_a_virtual_address_hides_endpoints_from_reverse_lookup() -> None:
    world = snapshot(
        service("virtual", addresses=("10.0.0.1",)),
        service("pods", headless=True),
        endpoints={host("pods"): (Endpoint("10.0.0.1", 1),)},
    )
    got = ask(engine(world), "1.0.0.10.in-addr.arpa", "PTR")
    assert records(got.answer) == ["1.0.0.10.in-addr.arpa. 5 PTR virtual.default.svc.cluster.local."]


def test_a_sidecar_answers_with_its_own_addresses() -> None:
    addresses = {host("db"): ("127.64.0.1",), host("web"): ("127.64.0.2",), "www.example.org": ("127.64.0.3",)}
    server = engine(snapshot(*WORLD.services.values(), external("www.example.org"), endpoints=dict(WORLD.endpoints)))
    before = ask(server, host("web"))
    server.update(WORLD, addresses)
    assert records(before.answer) == ["web.default.svc.cluster.local. 5 A 10.96.0.1"]
    assert records(ask(server, host("web")).answer) == ["web.default.svc.cluster.local. 5 A 127.64.0.2"]
    assert records(ask(server, host("db")).answer) == ["db.default.svc.cluster.local. 5 A 127.64.0.1"]
    # Its ports are then the service's, and an endpoint's own name is still its own.
    srv = ask(server, f"_pg._tcp.{host('db')}", "SRV")
    assert records(srv.answer) == [f"_pg._tcp.{host('db')}. 5 SRV 0 100 5432 {host('db')}."]
    assert records(ask(server, f"db-0.{host('db')}").answer) == [f"db-0.{host('db')}. 5 A 10.1.0.11"]
    assert outcome(ask(server, host("web"), "AAAA")) == "NODATA"
    assert records(ask(server, "2.0.64.127.in-addr.arpa", "PTR").answer) == [
        f"2.0.64.127.in-addr.arpa. 5 PTR {host('web')}."
    ]


def test_an_equal_but_new_mapping_of_addresses_changes_nothing() -> None:
    zone = Zone(ZoneOptions())
    zone.update(WORLD, {host("web"): ("127.64.0.2",)})
    assert zone.update(WORLD, {host("web"): ("127." + "64.0.2",)}) == {zone.apex}


def test_ttl_is_set_by_annotation_and_option() -> None:
    slow = service("slow", addresses=("10.0.0.1",), annotations={"fairlead.dev/dns-ttl": "60"})
    odd = service("odd", addresses=("10.0.0.2",), annotations={"fairlead.dev/dns-ttl": "-1"})
    server = engine(snapshot(slow, odd), ttl=7, negative_ttl=2)
    assert ask(server, slow.host).answer[0].ttl == 60
    assert ask(server, odd.host).answer[0].ttl == 7
    assert ask(server, host("none")).authority[0].ttl == 2


def test_a_service_that_cannot_be_a_name_is_left_out_and_said() -> None:
    bad = Service("a..svc.cluster.local", "default", "a", addresses=("10.0.0.1",))
    long = service("x", ports=(ServicePort(1, "y" * 70),), addresses=("10.0.0.2",))
    zone = engine(snapshot(bad, long, service("ok", addresses=("10.0.0.3",), ports=(HTTP,)))).zone
    assert set(zone.problems) == {bad.host, long.host}
    assert "1 to 63" in zone.problems[bad.host]
    assert zone.lookup(wire_name(host("ok")), 1, False).rcode == 0  # type: ignore[union-attr]


def test_a_namespace_goes_with_its_last_trace() -> None:
    server = engine(snapshot(service("a", "gone", addresses=("10.0.0.1",))))
    assert outcome(ask(server, "gone.svc.cluster.local")) == "NODATA"
    server.update(snapshot(version=2))
    assert outcome(ask(server, "gone.svc.cluster.local")) == "NXDOMAIN"
    server.update(snapshot(version=3, namespaces=("gone",)))
    assert outcome(ask(server, "gone.svc.cluster.local")) == "NODATA"


def test_endpoints_with_one_hostname_share_a_record_and_give_all_addresses() -> None:
    endpoints = (Endpoint("10.0.0.1", 1, "http", hostname="h"), Endpoint("10.0.0.2", 1, "http", hostname="h"))
    world = snapshot(service("s", headless=True, ports=(HTTP,)), endpoints={host("s"): endpoints})
    got = ask(engine(world), f"_http._tcp.{host('s')}", "SRV")
    assert len(records(got.answer)) == 1
    assert records(got.additional) == [f"h.{host('s')}. 5 A 10.0.0.1", f"h.{host('s')}. 5 A 10.0.0.2"]


def test_workload_names_can_be_left_out() -> None:
    server = engine(
        snapshot(workloads={"default/a": Workload("default", "a", ("10.0.0.1", "not an address"))}), pods="disabled"
    )
    assert outcome(ask(server, "10-0-0-1.default.pod.cluster.local")) == "NXDOMAIN"


def test_another_cluster_domain() -> None:
    one = Service("a.b.svc.Example.internal".lower(), "b", "a", addresses=("10.0.0.1",))
    server = engine(snapshot(one), cluster_domain="example.internal")
    assert outcome(ask(server, "a.b.svc.example.internal")) == "NOERROR"
    assert outcome(ask(server, "web.default.svc.cluster.local")) == "REFUSED"


def test_pods_of_any_address_where_that_is_wanted() -> None:
    server = engine(WORLD, pods="insecure")
    got = ask(server, "10-9-9-9.default.pod.cluster.local")
    assert records(got.answer) == ["10-9-9-9.default.pod.cluster.local. 5 A 10.9.9.9"]
    assert records(ask(server, "fd00--9.empty.pod.cluster.local", "AAAA").answer) == [
        "fd00--9.empty.pod.cluster.local. 5 AAAA fd00::9"
    ]
    assert outcome(ask(server, "10-9-9-9.default.pod.cluster.local", "AAAA")) == "NODATA"
    for name in (
        "10-9-9.default.pod.cluster.local",
        "10-9-9-9.nowhere.pod.cluster.local",
        "x.10-9-9-9.default.pod.cluster.local",
    ):
        assert outcome(ask(server, name)) == "NXDOMAIN"
    assert outcome(ask(server, "empty.pod.cluster.local")) == "NODATA"


def test_what_is_said_to_be_touched_is_all_that_is_looked_at_and_leaves_the_same_zone() -> None:
    """Step by step with what changed told, and afresh: the same names and records."""
    services = {s.host: s for s in WORLD.services.values()}
    endpoints, workloads = dict(WORLD.endpoints), dict(WORLD.workloads)
    zone = Zone(ZoneOptions(consul_domain="consul"))
    zone.update(WORLD)
    steps: list[tuple[str, str]] = [
        ("drop", host("web")),
        ("down", host("db")),
        ("move", "default/web-1"),
        ("new", host("new", "fresh")),
    ]
    for version, (what, key) in enumerate(steps, start=2):
        hosts, moved, namespaces = frozenset({key}), frozenset[str](), frozenset[str]()
        if what == "drop":
            del services[key]
        elif what == "down":
            endpoints[key] = endpoints[key][:1]
        elif what == "move":
            hosts, moved = frozenset(), frozenset({key})
            workloads[key] = Workload("shop", "web-1", ("10.1.0.99",))
        else:
            services[key] = service("new", "fresh", addresses=("10.96.0.77",))
            namespaces = frozenset({"fresh"})
        names = {*WORLD.namespaces, *namespaces}
        world = snapshot(*services.values(), version=version, endpoints=dict(endpoints), namespaces=tuple(names))
        world.workloads = dict(workloads)
        changed = zone.update(world, None, Changed(hosts, moved, namespaces))
        assert len(changed) < 40
        fresh = Zone(ZoneOptions(consul_domain="consul"))
        fresh.update(world)
        assert dict(zone.names()) == dict(fresh.names()), what
        assert zone.workloads_at("10.1.0.99") == fresh.workloads_at("10.1.0.99")


def test_pods_come_and_go_with_their_workloads() -> None:
    server = engine(snapshot(workloads={"default/a": Workload("default", "a", ("10.0.0.1", "fd00::1"))}))
    assert outcome(ask(server, "10-0-0-1.default.pod.cluster.local")) == "NOERROR"
    assert outcome(ask(server, "default.pod.cluster.local")) == "NODATA"
    assert outcome(ask(server, "10-0-0-1.shop.pod.cluster.local")) == "NXDOMAIN"
    server.update(snapshot(version=2, workloads={"shop/b": Workload("shop", "b", ("10.0.0.1",))}))
    assert outcome(ask(server, "10-0-0-1.default.pod.cluster.local")) == "NXDOMAIN"
    assert outcome(ask(server, "default.pod.cluster.local")) == "NXDOMAIN"
    assert outcome(ask(server, "10-0-0-1.shop.pod.cluster.local")) == "NOERROR"
    assert outcome(ask(server, "fd00--1.default.pod.cluster.local", "AAAA")) == "NXDOMAIN"
