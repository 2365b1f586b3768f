"""dnspython's zones as the oracle: random registries, random questions; what its own lookup says against our answer."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.zone
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.dns.engine import Engine
from fairlead.dns.message import read_message, wire_name
from fairlead.dns.transfer import Transfer
from fairlead.registry.model import Endpoint, Service, ServicePort
from fairlead.registry.snapshot import Snapshot
from tests.dns.world import ask, engine, host, outcome, question, service, snapshot

LABELS = st.sampled_from(["a", "b", "web", "db-0", "x-1", "_http", "_tcp", "svc", "cluster", "local", "10-0-0-1", "NO"])
NAMESPACES = st.sampled_from(["default", "shop"])
ADDRESSES = st.sampled_from([f"10.0.0.{n}" for n in range(1, 9)] + ["fd00::1", "fd00::2"])
PORTS = st.lists(
    st.builds(
        ServicePort,
        st.integers(1, 65535),
        name=st.sampled_from(["http", "pg", "dns"]),
        protocol=st.sampled_from(["TCP", "UDP"]),
    ),
    max_size=2,
    unique_by=lambda port: port.name,
).map(tuple)
ENDPOINTS = st.lists(
    st.builds(
        Endpoint,
        ADDRESSES,
        st.integers(1, 65535),
        port_name=st.sampled_from(["http", "pg"]),
        hostname=st.sampled_from(["", "a", "db-0"]),
        ready=st.booleans(),
        weight=st.integers(0, 5),
    ),
    max_size=5,
).map(tuple)


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    services: list[Service] = []
    endpoints: dict[str, tuple[Endpoint, ...]] = {}
    for name in draw(st.lists(st.sampled_from(["a", "b", "web", "x-1"]), min_size=1, max_size=4, unique=True)):
        namespace = draw(NAMESPACES)
        kind = draw(st.sampled_from(["virtual", "headless", "alias", "plain"]))
        more: dict[str, object] = {"ports": draw(PORTS)}
        if kind == "virtual":
            more["addresses"] = tuple(draw(st.lists(ADDRESSES, min_size=1, max_size=2, unique=True)))
        elif kind == "alias":
            more["external_name"] = draw(
                st.sampled_from([host("a"), host("b", "shop"), host("web"), "gone." + host("a")])
            )
        elif kind == "headless":
            more["headless"] = True
        services.append(service(name, namespace, **more))
        endpoints[host(name, namespace)] = draw(ENDPOINTS)
    return snapshot(*services, endpoints=endpoints, namespaces=("default",))


@st.composite
def names(draw: st.DrawFn) -> str:
    labels = draw(st.lists(LABELS, max_size=4))
    tail = draw(
        st.sampled_from(["default.svc.cluster.local", "shop.svc.cluster.local", "svc.cluster.local", "cluster.local"])
    )
    return ".".join([*labels, tail])


def zone_of(server: Engine) -> dns.zone.Zone:
    """What a secondary has after a transfer."""
    made = server.reply(question("cluster.local", "AXFR"), True, "127.0.0.1", 0.0, 0.0)
    assert isinstance(made, Transfer)
    zone = dns.zone.Zone("cluster.local.", relativize=False)
    for octets in made.messages():
        for rrset in dns.message.from_wire(octets, xfr=True).answer:
            zone.find_rdataset(rrset.name, rrset.rdtype, create=True).update(rrset.to_rdataset())  # type: ignore[no-untyped-call]
    return zone


def expected(
    zone: dns.zone.Zone, bare: set[str], name: dns.name.Name, rtype: dns.rdatatype.RdataType
) -> tuple[str, list[tuple[str, set[str]]]]:
    """(outcome, [(owner, records)]) by RFC 1034 section 4.3.2 on dnspython's zone."""
    chain: list[tuple[str, set[str]]] = []
    for _ in range(8):
        if not name.is_subdomain(zone.origin or dns.name.root):
            return "ELSEWHERE", chain
        node = zone.get_node(name)
        found = node.get_rdataset(dns.rdataclass.IN, rtype) if node else None
        if found is not None:
            return "NOERROR", [*chain, (name.to_text().lower(), {str(record) for record in found})]
        alias = node.get_rdataset(dns.rdataclass.IN, dns.rdatatype.CNAME) if node else None
        if alias is None:
            exists = name.to_text().lower() in bare or any(other.is_subdomain(name) for other in zone)
            return ("NODATA" if exists else "NXDOMAIN"), chain
        chain.append((name.to_text().lower(), {str(record) for record in alias}))
        name = alias[0].target
        if any(owner == name.to_text().lower() for owner, _ in chain):
            return "NOERROR", chain
    return "NOERROR", chain


@settings(deadline=None, max_examples=40)
@given(
    worlds(),
    st.lists(
        st.tuples(names(), st.sampled_from(["A", "AAAA", "SRV", "CNAME", "TXT", "NS", "SOA"])), min_size=5, max_size=25
    ),
)
def test_every_answer_is_what_dnspython_finds_in_the_same_zone(world: Snapshot, asked: list[tuple[str, str]]) -> None:
    server = engine(world, allow_transfer=("127.0.0.1",))
    zone = zone_of(server)
    # Names that exist with nothing below them, which no transfer can carry.
    bare = {
        f"{name}." for name in ("svc.cluster.local", "pod.cluster.local", "dns.cluster.local", "ns.dns.cluster.local")
    }
    bare |= {f"{namespace}.svc.cluster.local." for namespace in world.namespaces}
    bare |= {f"{one.namespace}.svc.cluster.local." for one in world.services.values()}
    every = [(name.to_text(), rtype) for name in zone for rtype in ("A", "SRV")]
    for name, rtype in [*asked, *every]:
        got = ask(server, name, rtype)
        wanted, chain = expected(zone, bare, dns.name.from_text(name), dns.rdatatype.from_text(rtype))
        answer = [(rrset.name.to_text().lower(), {str(record) for record in rrset}) for rrset in got.answer]
        assert answer == chain, (name, rtype)
        assert got.flags & dns.flags.AA
        told = outcome(got)
        if chain and told in ("NOERROR", "NODATA"):
            assert wanted in ("NOERROR", "NODATA"), (name, rtype, wanted)
        else:
            assert told == wanted, (name, rtype)
        if wanted in ("NODATA", "NXDOMAIN"):
            (soa,) = got.authority
            assert soa.ttl == soa[0].minimum
        targets = {
            str(record.target).lower() for rrset in got.answer if rrset.rdtype == dns.rdatatype.SRV for record in rrset
        }
        glue = {(rrset.name.to_text().lower(), rrset.rdtype): set(map(str, rrset)) for rrset in got.additional}
        for target in targets:
            for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
                held = zone.get_rdataset(dns.name.from_text(target), kind)
                assert glue.get((target, kind)) == (set(map(str, held)) if held else None)


@settings(deadline=None, max_examples=20)
@given(worlds(), st.integers(512, 1500), st.sampled_from(["A", "SRV", "AAAA"]))
def test_within_any_size_a_reply_is_whole_or_says_that_it_is_cut(world: Snapshot, payload: int, rtype: str) -> None:
    server = engine(world)
    for name, sets in list(server.zone.names()):
        if len(sets) and name.endswith(wire_name("svc.cluster.local")):
            text = dns.name.from_wire(name, 0)[0].to_text()
            octets = question(text, rtype, use_edns=0, payload=payload)
            reply = server.reply(octets, False, "127.0.0.1", 0.0, 0.0)
            assert isinstance(reply, bytes)
            assert len(reply) <= min(payload, 1232)
            cut = dns.message.from_wire(reply, raise_on_truncation=False)
            whole = ask(server, text, rtype, use_edns=0)
            records, all_records = (sum(map(len, message.answer)) for message in (cut, whole))
            assert bool(cut.flags & dns.flags.TC) == (records < all_records)
            assert read_message(reply).question == octets[12 : 12 + len(name) + 4]
