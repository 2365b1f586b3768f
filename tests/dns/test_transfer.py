"""Whole zones for those who may have them, read by dnspython and dig."""

from __future__ import annotations

import asyncio

import dns.message
import dns.query
import dns.rcode
import dns.xfr
import dns.zone
import pytest

from fairlead.dns.engine import Engine
from fairlead.dns.message import show_name
from fairlead.dns.transfer import Transfer
from tests.dns.test_server import dig, running
from tests.dns.world import WORLD, engine, host, question


def allowed(**fields: object) -> Engine:
    return engine(allow_transfer=("127.0.0.0/8", "fd00::/8"), **fields)  # type: ignore[arg-type]


def transferred(server: Engine, octets: bytes) -> list[bytes]:
    made = server.reply(octets, True, "127.0.0.1", 0.0, 0.0)
    assert isinstance(made, Transfer)
    return list(made.messages())


def test_the_zone_comes_whole_with_its_soa_first_and_last() -> None:
    server = allowed()
    messages = [dns.message.from_wire(m, xfr=True) for m in transferred(server, question("cluster.local", "AXFR"))]
    rrsets = [rrset for message in messages for rrset in message.answer]
    assert len(messages) > 1
    assert rrsets[0].rdtype == rrsets[-1].rdtype == 6
    sent = {(r.name.to_text(), r.rdtype, str(record)) for r in rrsets for record in r}
    expected = {
        (show_name(owner), rtype, data)
        for owner, sets in server.zone.names()
        if server.zone.owns(owner) and owner.endswith(server.zone.apex)
        for rtype, rrset in sets.items()
        for data in rrset.rdata
    }
    assert len(sent) == len(expected)
    assert {pair[:2] for pair in sent} == {pair[:2] for pair in expected}


@pytest.mark.parametrize(
    ("name", "rtype", "tcp", "source", "expected"),
    [
        ("cluster.local", "AXFR", True, "192.0.2.1", "REFUSED"),
        ("cluster.local", "IXFR", True, "192.0.2.1", "REFUSED"),
        ("cluster.local", "AXFR", False, "127.0.0.1", "REFUSED"),
        ("svc.cluster.local", "AXFR", True, "127.0.0.1", "NOTAUTH"),
        ("example.com", "AXFR", True, "::ffff:127.0.0.1", "NOTAUTH"),
    ],
)
def test_others_and_what_is_no_zone_are_refused(name: str, rtype: str, tcp: bool, source: str, expected: str) -> None:
    reply = allowed().reply(question(name, rtype), tcp, source, 0.0, 0.0)
    assert isinstance(reply, bytes)
    assert dns.rcode.to_text(dns.rcode.Rcode(reply[3] & 15)) == expected


def test_by_default_nobody_may() -> None:
    reply = engine().reply(question("cluster.local", "AXFR"), True, "127.0.0.1", 0.0, 0.0)
    assert isinstance(reply, bytes)
    assert reply[3] & 15 == 5


def ixfr(serial: int) -> bytes:
    message = dns.message.make_query("cluster.local", "IXFR")
    message.authority.append(dns.rrset.from_text("cluster.local.", 0, "IN", "SOA", f". . {serial} 0 0 0 0"))
    return message.to_wire()


def test_who_has_this_version_gets_its_soa_alone_and_over_udp_everybody() -> None:
    server = allowed()
    (only,) = transferred(server, ixfr(1))
    assert [r.rdtype for r in dns.message.from_wire(only).answer] == [6]
    assert len(transferred(server, ixfr(7))) > 1
    reply = server.reply(ixfr(7), False, "127.0.0.1", 0.0, 0.0)
    assert isinstance(reply, bytes)
    assert [r.rdtype for r in dns.message.from_wire(reply).answer] == [6]


def test_the_serial_goes_on_from_a_base() -> None:
    server = allowed(serial_base=1_700_000_000)
    (soa,) = dns.message.from_wire(transferred(server, ixfr(1_700_000_001))[0]).answer
    assert soa[0].serial == 1_700_000_001


@pytest.mark.asyncio
async def test_dnspython_and_dig_take_it_over_the_wire() -> None:
    async with running(WORLD, allow_transfer=("127.0.0.1",)) as server:
        zone = dns.zone.Zone("cluster.local.", relativize=False)
        await asyncio.to_thread(dns.query.inbound_xfr, "127.0.0.1", zone, port=server.port, timeout=10)
        assert str(zone.get_rdataset(host("web") + ".", "A")[0]) == "10.96.0.1"  # type: ignore[index]
        assert len(zone.get_rdataset(host("huge") + ".", "A")) == 2500  # type: ignore[arg-type]
        reverse = dns.zone.Zone("10.in-addr.arpa.", relativize=False)
        await asyncio.to_thread(dns.query.inbound_xfr, "127.0.0.1", reverse, port=server.port, timeout=10)
        assert reverse.get_rdataset("1.0.96.10.in-addr.arpa.", "PTR")
        out = await dig(server, "cluster.local", "AXFR")
        assert "XFR size:" in out
        assert "Transfer failed" in await dig(server, "none.local", "AXFR")
        assert "status: NOERROR" in await dig(server, "+tcp", host("web"), "A"), "others are served meanwhile"
