"""Consul's names: their forms, as its documentation and dns.md have them, in zone-file form."""

from __future__ import annotations

from typing import Any

import dns.flags
import pytest

from fairlead.dns.consul import NODE, NODE_ADDRESS
from fairlead.dns.engine import Engine, Pending
from fairlead.registry.model import Endpoint, Service, ServicePort, Workload
from fairlead.registry.snapshot import Snapshot
from tests.dns.world import ask, engine, host, outcome, question, records, send, service, snapshot


def instance(address: str, port: int = 8080, *tags: str, ready: bool = True, weight: int = 1) -> Endpoint:
    labels = {f"tag.{tag}": "true" for tag in tags}
    return Endpoint(address, port, ready=ready, weight=weight, labels=labels)


def world(*web: Endpoint, version: int = 1) -> Snapshot:
    return snapshot(
        service("web", ports=(ServicePort(80),)),
        service("virtual", addresses=("10.96.0.7",), ports=(ServicePort(81),)),
        service("down", ports=(ServicePort(80),)),
        service("named", ports=(ServicePort(80),)),
        service("away", ports=(ServicePort(80),)),
        service("cart", "shop", ports=(ServicePort(80),)),
        version=version,
        endpoints={
            host("web"): web or WEB,
            host("virtual"): (instance("10.0.0.9"),),
            host("down"): (instance("10.0.0.8", ready=False),),
            host("named"): (instance("web.default.svc.cluster.local"),),
            host("away"): (instance("www.example.com"),),
            host("cart", "shop"): (instance("10.0.1.1"),),
        },
        workloads={
            "default/web-1": Workload(
                "default", "web-1", ("10.0.0.1",), annotations={NODE: "Rack-7", NODE_ADDRESS: "10.0.9.7"}
            ),
            "default/lone": Workload("default", "lone", ("10.0.0.5", "fd00::5")),
        },
    )


WEB = (
    instance("10.0.0.1", 8001, "v1", "Blue", weight=3),
    instance("10.0.0.2", 8002, "v2"),
    instance("fd00::3", 8003, "v2"),
    instance("10.0.0.4", 8004, "v2", ready=False),
)


def serving(found: Snapshot | None = None, **fields: Any) -> Engine:
    return engine(found or world(), consul_domain="consul", **fields)


ANSWERS = """
web.service.consul. A
  = web.service.consul. 5 A 10.0.0.1
  = web.service.consul. 5 A 10.0.0.2
Web.Service.DC1.Consul. AAAA
  = Web.Service.DC1.Consul. 5 AAAA fd00::3
web.service.dc1.dc.consul. AAAA
  = web.service.dc1.dc.consul. 5 AAAA fd00::3
blue.web.service.consul. A
  = blue.web.service.consul. 5 A 10.0.0.1
web.service.consul. SRV
  = web.service.consul. 5 SRV 1 3 8001 0a000001.addr.dc1.consul.
  = web.service.consul. 5 SRV 1 1 8002 0a000002.addr.dc1.consul.
  = web.service.consul. 5 SRV 1 1 8003 fd000000000000000000000000000003.addr.dc1.consul.
  + 0a000001.addr.dc1.consul. 5 A 10.0.0.1
  + 0a000002.addr.dc1.consul. 5 A 10.0.0.2
  + fd000000000000000000000000000003.addr.dc1.consul. 5 AAAA fd00::3
_web._tcp.service.consul. SRV
  = _web._tcp.service.consul. 5 SRV 1 3 8001 0a000001.addr.dc1.consul.
  = _web._tcp.service.consul. 5 SRV 1 1 8002 0a000002.addr.dc1.consul.
  = _web._tcp.service.consul. 5 SRV 1 1 8003 fd000000000000000000000000000003.addr.dc1.consul.
  + 0a000001.addr.dc1.consul. 5 A 10.0.0.1
  + 0a000002.addr.dc1.consul. 5 A 10.0.0.2
  + fd000000000000000000000000000003.addr.dc1.consul. 5 AAAA fd00::3
_web._v1.consul. SRV
  = _web._v1.consul. 5 SRV 1 3 8001 0a000001.addr.dc1.consul.
  + 0a000001.addr.dc1.consul. 5 A 10.0.0.1
_web._v1.service.dc1.consul. A
  = _web._v1.service.dc1.consul. 5 A 10.0.0.1
virtual.virtual.consul. A
  = virtual.virtual.consul. 5 A 10.96.0.7
cart.service.shop.ns.consul. A
  = cart.service.shop.ns.consul. 5 A 10.0.1.1
cart.service.shop.ns.dc1.dc.consul. A
  = cart.service.shop.ns.dc1.dc.consul. 5 A 10.0.1.1
cart.service.shop.ns.dc1.consul. A
  = cart.service.shop.ns.dc1.consul. 5 A 10.0.1.1
rack-7.node.consul. A
  = rack-7.node.consul. 5 A 10.0.9.7
lone.node.dc1.consul. AAAA
  = lone.node.dc1.consul. 5 AAAA fd00::5
0a000001.addr.dc1.consul. A
  = 0a000001.addr.dc1.consul. 5 A 10.0.0.1
FD000000000000000000000000000003.addr.consul. AAAA
  = FD000000000000000000000000000003.addr.consul. 5 AAAA fd00::3
named.service.consul. A
  = named.service.consul. 5 CNAME web.default.svc.cluster.local.
  = web.default.svc.cluster.local. 5 A 10.0.0.1
  = web.default.svc.cluster.local. 5 A 10.0.0.2
consul. NS
  = consul. 5 NS ns.dns.cluster.local.
"""

NEGATIVE = """
web.service.consul TXT NODATA
0a000001.addr.consul AAAA NODATA
consul A NODATA
service.consul A NODATA
service.dc1.consul A NODATA
dc1.consul A NODATA
node.consul A NODATA
_tcp.service.consul A NODATA
virtual.virtual.consul AAAA NODATA
down.service.consul A NXDOMAIN
none.service.consul A NXDOMAIN
v3.web.service.consul A NXDOMAIN
v1.v2.web.service.consul A NXDOMAIN
web.service.dc2.consul A NXDOMAIN
web.service.dc2.dc.consul A NXDOMAIN
cart.service.consul A NXDOMAIN
web.virtual.consul A NXDOMAIN
none.node.consul A NXDOMAIN
0a0000.addr.consul A NXDOMAIN
0a00000g.addr.consul A NXDOMAIN
x.0a000001.addr.consul A NXDOMAIN
_a._b._c.service.consul SRV NXDOMAIN
web.nonsense.consul A NXDOMAIN
"""


def tables() -> list[tuple[str, str, list[str], list[str]]]:
    found: list[tuple[str, str, list[str], list[str]]] = []
    for line in ANSWERS.strip().splitlines():
        if not line.startswith(" "):
            name, rtype = line.split()
            found.append((name, rtype, [], []))
        else:
            kind, record = line.strip().split(" ", 1)
            (found[-1][2] if kind == "=" else found[-1][3]).append(record)
    return found


@pytest.mark.parametrize(
    ("name", "rtype", "answer", "additional"), tables(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_each_form_is_answered(name: str, rtype: str, answer: list[str], additional: list[str]) -> None:
    got = ask(serving(), name, rtype)
    assert records(got.answer) == sorted(answer)
    assert records(got.additional) == sorted(additional)
    assert got.flags & dns.flags.AA


@pytest.mark.parametrize("line", NEGATIVE.strip().splitlines())
def test_what_is_missing_is_denied_so_that_it_may_be_kept(line: str) -> None:
    name, rtype, expected = line.split()
    got = ask(serving(), name, rtype)
    assert outcome(got) == expected
    (soa,) = got.authority
    assert soa.name.to_text() == "consul."
    assert soa.ttl == soa[0].minimum == 5


@pytest.mark.parametrize("name", ["geo.query.consul", "web.connect.consul", "web.ingress.dc1.consul"])
def test_what_needs_consul_itself_is_refused(name: str) -> None:
    assert outcome(ask(serving(), name)) == "REFUSED"


def test_without_the_setting_there_is_no_such_zone() -> None:
    assert outcome(ask(engine(world()), "web.service.consul")) == "REFUSED"


@pytest.mark.parametrize("name", ["web.service.consul", "v1.web.service.consul", "_web._tcp.service.consul"])
def test_a_change_is_in_the_next_answer(name: str) -> None:
    server = serving()
    octets = question(name, "SRV")
    before = send(server, octets)
    assert send(server, octets)
    assert len(server.udp.young) == 1, "kept"
    server.update(world(instance("10.0.0.1", 9001, "v1"), version=2))
    after = send(server, octets)
    assert after is not None
    assert before != after
    assert b"\x23\x29" in after, "the new port"


def test_a_tag_that_is_taken_away_is_gone_though_no_record_of_kubernetes_changes() -> None:
    server = serving(world(instance("10.0.0.1", 8001, "v1")))
    assert outcome(ask(server, "v1.web.service.consul")) == "NOERROR"
    server.update(world(instance("10.0.0.1", 8001, "v2"), version=2))
    assert outcome(ask(server, "v1.web.service.consul")) == "NXDOMAIN"


def test_a_node_that_is_gone_is_gone() -> None:
    server = serving()
    assert outcome(ask(server, "rack-7.node.consul")) == "NOERROR"
    assert outcome(ask(server, "lone.node.consul")) == "NOERROR"
    server.update(snapshot(version=2))
    assert outcome(ask(server, "rack-7.node.consul")) == "NXDOMAIN"
    assert outcome(ask(server, "lone.node.consul")) == "NXDOMAIN"


def test_an_instance_outside_is_asked_for_upstream() -> None:
    server = serving()
    server.forwards = True
    waiting = server.reply(question("away.service.consul"), True, "127.0.0.1", 0.0, 0.0)
    assert isinstance(waiting, Pending)
    assert waiting.key[0] == b"\3www\7example\3com\0"


def test_a_sidecars_address_stands_for_the_service_but_not_for_a_tag() -> None:
    server = serving()
    server.update(world(version=2), {host("web"): ("127.64.0.9",)})
    assert records(ask(server, "web.service.consul").answer) == ["web.service.consul. 5 A 127.64.0.9"]
    assert records(ask(server, "v1.web.service.consul").answer) == ["v1.web.service.consul. 5 A 10.0.0.1"]


def test_an_alias_of_ours_may_lead_there() -> None:
    found = world()
    alias = Service(host("alias"), "default", "alias", external_name="web.service.consul")
    server = serving(snapshot(*found.services.values(), alias, endpoints=dict(found.endpoints)))
    assert records(ask(server, host("alias")).answer) == [
        f"{host('alias')}. 5 CNAME web.service.consul.",
        "web.service.consul. 5 A 10.0.0.1",
        "web.service.consul. 5 A 10.0.0.2",
    ]


def test_before_the_first_snapshot_nothing_is_denied() -> None:
    assert outcome(ask(engine(None, consul_domain="consul"), "web.service.consul")) == "SERVFAIL"
