"""A small registry and ways to ask about it, for the tests of dns/."""

from __future__ import annotations

from functools import cache
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from fairlead.dns.cache import Entry
from fairlead.dns.engine import DnsOptions, Engine, Pending
from fairlead.dns.transfer import Transfer
from fairlead.registry.model import Endpoint, Service, ServicePort, Workload
from fairlead.registry.snapshot import Snapshot

HTTP = ServicePort(80, "http", target=8080)
ZONE = "svc.cluster.local"


def host(name: str, namespace: str = "default") -> str:
    return f"{name}.{namespace}.{ZONE}"


def service(name: str, namespace: str = "default", **fields: object) -> Service:
    return Service(host(name, namespace), namespace, name, **fields)  # type: ignore[arg-type]


def external(name: str, **fields: object) -> Service:
    return Service(name, "default", name, external=True, **fields)  # type: ignore[arg-type]


def snapshot(
    *services: Service,
    version: int = 1,
    endpoints: dict[str, tuple[Endpoint, ...]] | None = None,
    workloads: dict[str, Workload] | None = None,
    namespaces: tuple[str, ...] = (),
) -> Snapshot:
    return Snapshot(
        version,
        {one.host: one for one in services},
        endpoints or {},
        workloads or {},
        {name: {"kubernetes.io/metadata.name": name} for name in namespaces},
    )


WORLD = snapshot(
    service("web", addresses=("10.96.0.1",), ports=(HTTP, ServicePort(443, "https"))),
    service("dual", addresses=("10.96.0.2", "fd00::2"), ports=(ServicePort(53, "dns", "UDP"),)),
    service("plain", addresses=("10.96.0.3",), ports=(ServicePort(9000),)),
    service("db", headless=True, ports=(ServicePort(5432, "pg"), ServicePort(9187, "metrics"))),
    service("six", headless=True, ports=(HTTP,)),
    service("down", headless=True, ports=(HTTP,)),
    service("eager", headless=True, publish_not_ready=True, ports=(HTTP,)),
    service("cart", "shop", ports=(ServicePort(7000),)),
    service("many", headless=True, ports=(HTTP,)),
    service("huge", headless=True, ports=(HTTP,)),
    service("alias", external_name="web.default.svc.cluster.local."),
    service("outside", external_name="www.example.com"),
    service("dangling", external_name="nothing.default.svc.cluster.local"),
    service("digits", external_name="10.1.2.3"),
    service("ring", external_name="ring2.default.svc.cluster.local"),
    service("ring2", external_name="ring.default.svc.cluster.local"),
    external("api.example.com", addresses=("240.240.0.9",), ports=(HTTP,)),
    external("pool.example.com", ports=(HTTP,)),
    external("named.example.com", resolution="DNS", ports=(HTTP,)),
    external("self.example.com", resolution="DNS", ports=(HTTP,)),
    external("*.wild.example.com", addresses=("240.240.0.10",)),
    endpoints={
        host("web"): (Endpoint("10.1.0.1", 8080, "http"),),
        host("db"): (
            Endpoint("10.1.0.11", 5432, "pg", hostname="db-0"),
            Endpoint("10.1.0.11", 9187, "metrics", hostname="db-0"),
            Endpoint("10.1.0.12", 5433, "pg", hostname="db-1"),
            Endpoint("10.1.0.13", 5432, "pg"),
            Endpoint("10.1.0.14", 5432, "pg", hostname="db-3", ready=False, why="probe failed"),
        ),
        host("six"): (Endpoint("fd00::6", 8080, "http"), Endpoint("fd00:1::", 8080, "http")),
        host("down"): (Endpoint("10.1.0.20", 8080, "http", ready=False),),
        host("eager"): (Endpoint("10.1.0.21", 8080, "http", ready=False),),
        host("cart", "shop"): (
            Endpoint("10.2.0.1", 7001, weight=3),
            Endpoint("10.2.0.2", 7002),
            Endpoint("10.1.0.12", 7003, hostname="shared"),
        ),
        host("many"): tuple(Endpoint(f"10.3.0.{n}", 8080, "http") for n in range(100)),
        host("huge"): tuple(Endpoint(f"10.4.{n // 250}.{n % 250}", 8080, "http") for n in range(2500)),
        "pool.example.com": (Endpoint("192.0.2.1", 80), Endpoint("2001:db8:1::1", 80)),
        "named.example.com": (Endpoint("web.default.svc.cluster.local", 80),),
        "self.example.com": (Endpoint("self.example.com", 80),),
    },
    workloads={"default/web-1": Workload("default", "web-1", ("10.1.0.1", "fd00::1"))},
    namespaces=("default", "shop", "empty"),
)


def engine(
    world: Snapshot | None = WORLD, *, forwards: bool = False, everyone: bool = True, **fields: object
) -> Engine:
    made = Engine(DnsOptions(**fields), forwards=forwards, everyone=everyone)  # type: ignore[arg-type]
    if world is not None:
        made.update(world)
    return made


@cache
def shared() -> Engine:
    """One for all tests that only ask."""
    return engine()


def question(name: str, rtype: str = "A", *, ident: int = 0x1234, **fields: Any) -> bytes:
    """A query as a stub sends it."""
    message = dns.message.make_query(name, rtype, id=ident, **fields)
    return message.to_wire()


def send(
    server: Engine, octets: bytes, *, tcp: bool = False, source: str = "127.0.0.1", draw: float = 0.0
) -> bytes | None:
    """What the server says, by the way that a real one takes; fails where it would ask upstream."""
    reply = (server.tcp if tcp else server.udp).get(octets)
    if reply is not None:
        return reply
    made = server.reply(octets, tcp, source, 0.0, draw)
    assert not isinstance(made, Transfer)
    assert not isinstance(made, Pending), f"wants to ask upstream for {made.key}"
    assert server.metrics.panics == 0
    return made


def finish(server: Engine, pending: Pending, known: Entry | None, now: float, draw: float) -> bytes:
    """The reply to a question that waited."""
    made = server.finish(pending, known, now, draw)
    assert isinstance(made, bytes)
    return made


def ask(server: Engine, name: str, rtype: str = "A", *, tcp: bool = True, **fields: Any) -> dns.message.Message:
    """The answer, read by dnspython, with what must hold for every answer."""
    octets = question(name, rtype, **fields)
    reply = send(server, octets, tcp=tcp)
    assert reply is not None
    return read(octets, reply)


def read(octets: bytes, reply: bytes) -> dns.message.Message:
    sent, got = dns.message.from_wire(octets), dns.message.from_wire(reply)
    assert sent.is_response(got)
    name = got.question[0].name.to_wire()
    assert name is not None
    assert reply[12 : 12 + len(name) + 4] == octets[12 : 12 + len(name) + 4]
    assert (got.edns >= 0) == (sent.edns >= 0)
    assert got.opcode() == sent.opcode()
    assert bool(got.flags & dns.flags.RD) == bool(sent.flags & dns.flags.RD)
    return got


def records(section: list[dns.rrset.RRset]) -> list[str]:
    """`name TTL TYPE data` of each record, sorted, relative names avoided."""
    return sorted(line.replace(" IN ", " ") for rrset in section for line in rrset.to_text().splitlines())


def outcome(answer: dns.message.Message) -> str:
    """NOERROR, NODATA, NXDOMAIN ..."""
    code = dns.rcode.to_text(answer.rcode())
    return "NODATA" if code == "NOERROR" and not answer.answer else code
