"""An answer and why: which service and source it comes from, which endpoints were left out and for what reason."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from ..registry.model import Endpoint, Service
from ..registry.snapshot import Snapshot
from .consul import has_tag
from .engine import Engine, Pending
from .message import (
    AAAA,
    CNAME,
    NS,
    PTR,
    SOA,
    SRV,
    TXT,
    TYPE_NAMES,
    A,
    Message,
    RRset,
    labels_of,
    name_end,
    parents,
    read_message,
    show_name,
    wire_name,
)
from .metrics import RCODE_NAMES
from .near import wants_near
from .records import Found

TYPES = {name: number for number, name in TYPE_NAMES.items()}


def type_number(text: str) -> int:
    """The number of a record type by its name, or as TYPE123. Raises ValueError."""
    text = text.upper()
    digits = text.removeprefix("TYPE")
    if text in TYPES:
        return TYPES[text]
    if text.startswith("TYPE") and digits.isascii() and digits.isdecimal() and len(digits) < 6 and int(digits) < 65536:
        return int(digits)
    raise ValueError(f"expected a record type such as A, SRV or TYPE65, got {text!r}")


def question(name: str, qtype: int) -> bytes:
    """A query with EDNS and room for a whole answer. Raises ValueError for what is no name."""
    return b"\0\0\1\0\0\1\0\0\0\0\0\1" + wire_name(name) + qtype.to_bytes(2, "big") + b"\0\1\0\0\x29\xff\xff" + bytes(6)


def explain(
    engine: Engine, snapshot: Snapshot, name: str, rtype: str, source: str = "", reply: bytes | None = None
) -> dict[str, Any]:
    """`source`: the client's address; `reply`: what a running server said. Raises ValueError."""
    qtype = type_number(rtype)
    octets = question(name, qtype)
    made = reply if reply is not None else engine.reply(octets, True, source, 0.0, 0.0)
    found = engine.zone.lookup(wire_name(name), qtype, engine.forwards)
    told: dict[str, Any] = {"name": show_name(wire_name(name)), "type": rtype.upper()}
    why: list[str] = []
    message = Message(0, 0, b"")
    if isinstance(made, Pending):
        told["status"] = "FORWARDED"
        why.append(f"{show_name(made.key[0])} is not ours: upstream servers are asked")
        if made.found is not None:
            message.answer = list(made.found.answer)
    elif isinstance(made, bytes):
        message = read_message(made)
        told["status"] = RCODE_NAMES.get(message.rcode, str(message.rcode))
    else:
        raise ValueError("transfers cannot be explained; ask with `dig AXFR`")
    for section, rrsets in (("answer", message.answer), ("authority", message.authority),
                            ("additional", message.additional)):  # fmt: skip
        told[section] = [line for rrset in rrsets for line in lines(rrset)]
    hosts = _hosts(engine, snapshot, found, message, wire_name(name))
    why += _reasons(engine, found, message, told["status"], hosts, wire_name(name))
    told["why"] = why
    told["services"] = [_service(engine, snapshot, host, message, qtype, wire_name(name)) for host in hosts]
    return told


def _hosts(engine: Engine, snapshot: Snapshot, found: Found | None, message: Message, name: bytes) -> list[str]:
    """Services that the answer comes from, or that the name would lie in."""
    hosts: dict[str, None] = {}
    names = [name, *(found.depends if found else ())]
    for rrset in message.answer:
        names.append(rrset.owner.lower())
        if rrset.rtype in (CNAME, PTR):
            names += [data.lower() for data in rrset.rdata]
    for one in names:
        if one[:2] == b"\xffs":
            hosts[one[2:].decode()] = None
        elif one[:1] != b"\xff":
            for above in (one, *parents(one)):
                host = show_name(above).rstrip(".")
                if host in snapshot.services:
                    hosts[host] = None
                    break
    return [host for host in hosts if host in snapshot.services]


def _reasons(
    engine: Engine, found: Found | None, message: Message, status: str, hosts: Sequence[str], name: bytes
) -> list[str]:
    zone = engine.zone
    why = []
    if not zone.synced:
        why.append("no snapshot of services has come yet")
    elif zone.owns(name):
        why.append(f"{show_name(name)} lies in a zone that is answered here")
    elif found is not None:
        why.append("a ServiceEntry's host: its addresses are answered here")
    elif status == "REFUSED":
        why.append("the name is not ours, and there is no upstream server that this client may ask")
    for rrset in message.answer:
        if rrset.rtype == CNAME and not (found and any(rrset.owner.lower() == r.owner for r in found.answer)):
            target = show_name(rrset.rdata[0])
            why.append(f"autopath: the client's search list leads to {target}")
    if status == "NXDOMAIN":
        below = f"; it would lie below the service {hosts[0]}" if hosts and show_name(name) != f"{hosts[0]}." else ""
        why.append(f"no such name{below}")
    elif status == "NOERROR" and not message.answer:
        why.append("the name exists, but has no record of this type")
    why += [f"{host} is left out: {problem}" for host, problem in zone.problems.items() if host in hosts]
    return why


def _service(
    engine: Engine, snapshot: Snapshot, host: str, message: Message, qtype: int, name: bytes
) -> dict[str, Any]:
    service = snapshot.services[host]
    known = engine.zone.service(host)
    override = known[2] if known else ()
    source = snapshot.sources.get(service.source)
    given = {data for section in (message.answer, message.additional) for rrset in section
             if rrset.rtype in (A, AAAA) for data in rrset.rdata}  # fmt: skip
    kind = _kind(service, override)
    tag = _tag(engine, name)
    return {
        "host": host,
        "source": service.source,
        "state": source.state if source else "",
        "confirmedAt": source.confirmed_at if source else 0.0,
        "kind": kind,
        "addresses": list(override or service.addresses),
        "nearestFirst": wants_near(service),
        "endpoints": [_endpoint(one, service, kind, given, qtype, tag) for one in snapshot.endpoints.get(host, ())],
    }


def _kind(service: Service, override: Sequence[str]) -> str:
    if override:
        return "sidecar address"
    if service.external_name:
        return "alias"
    return "virtual address" if service.addresses and not service.headless else "endpoints"


def _tag(engine: Engine, name: bytes) -> str:
    """The tag that one of Consul's names asks for."""
    if engine.zone.consul is None or not engine.zone.consul.owns(name):
        return ""
    return engine.zone.consul.tag_of(name)


def _endpoint(
    endpoint: Endpoint, service: Service, kind: str, given: set[bytes], qtype: int, tag: str
) -> dict[str, Any]:
    try:
        packed = ipaddress.ip_address(endpoint.address).packed
    except ValueError:
        packed = b""
    used = packed in given
    why = ""
    if not used:
        if not endpoint.ready and not service.publish_not_ready:
            why = endpoint.why or "not ready"
        elif tag and not has_tag(endpoint, tag):
            why = f"it has no tag {tag}"
        elif not packed:
            why = "its address is a name"
        elif (qtype == A and len(packed) == 16) or (qtype == AAAA and len(packed) == 4):
            why = "its address is of the other family"
        elif kind != "endpoints":
            why = f"clients are given the service's {kind}"
        else:
            why = "it does not belong to this name"
    return {
        "address": endpoint.address,
        "port": endpoint.port,
        "portName": endpoint.port_name,
        "ready": endpoint.ready,
        "given": used,
        "why": why,
        "source": endpoint.source,
        "workload": endpoint.workload,
        "locality": endpoint.locality,
    }


def lines(rrset: RRset) -> list[str]:
    """As zone files have them."""
    rtype = TYPE_NAMES.get(rrset.rtype, f"TYPE{rrset.rtype}")
    return [f"{show_name(rrset.owner)} {rrset.ttl} IN {rtype} {_data(rrset.rtype, data)}" for data in rrset.rdata]


def _data(rtype: int, data: bytes) -> str:
    if rtype in (A, AAAA):
        return str(ipaddress.ip_address(data))
    if rtype in (CNAME, NS, PTR):
        return show_name(data)
    if rtype == SRV:
        numbers = " ".join(str(int.from_bytes(data[at : at + 2], "big")) for at in (0, 2, 4))
        return f"{numbers} {show_name(data[6:])}"
    if rtype == SOA:
        first = name_end(data, 0)
        second = first + name_end(data[first:], 0)
        numbers = " ".join(str(int.from_bytes(data[at : at + 4], "big")) for at in range(second, len(data), 4))
        return f"{show_name(data[:first])} {show_name(data[first:second])} {numbers}"
    if rtype == TXT:
        return " ".join('"' + _text(part) + '"' for part in labels_of(data + b"\0"))
    return f"\\# {len(data)} {data.hex()}"


def _text(part: bytes) -> str:
    return "".join(chr(o) if 0x20 <= o < 0x7F and o not in b'"\\' else f"\\{o:03d}" for o in part)
