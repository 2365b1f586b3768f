"""What a new connection is for: names of sockets, server names between sidecars, and the protocols of ports."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.proxy.arrive import address_of, by_server_name, declared, host_at, mesh_name, outbound_arrival


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("10.0.0.1", 80), ("10.0.0.1", 80)),
        (("::ffff:10.0.0.1", 80, 0, 0), ("10.0.0.1", 80)),
        (("::ffff:1", 80, 0, 0), ("::ffff:1", 80)),
        (("fe80::1%eth0", 80, 0, 2), ("fe80::1", 80)),
        ("/run/a.sock", ("", 0)),
        (b"", ("", 0)),
        (None, ("", 0)),
        (("x",), ("", 0)),
    ],
)
def test_names_of_sockets_are_one_form(name: Any, address: tuple[str, int]) -> None:
    assert address_of(name) == address
    made = outbound_arrival(name, host="web", port=80)
    assert (made.source_ip, made.source_port, made.host, made.port) == (*address, "web", 80)


@pytest.mark.parametrize(
    ("sni", "meant"),
    [
        ("outbound_.80_._.web.d.svc", ("web.d.svc", 80)),
        ("outbound_.80_.v1_.web", ("web", 80)),
        ("outbound_.80_.v1_.", None),
        ("outbound_.80_.web", None),
        ("inbound_.80_._.web", None),
        ("outbound_.x_._.web", None),
        ("outbound_.800000_._.web", None),
        ("outbound_.-1_._.web", None),
        ("web.example.com", None),
        ("", None),
        ("outbound_.80_.v1_.a_.b", ("a_.b", 80)),
    ],
)
def test_a_server_name_between_sidecars_says_service_and_port(sni: str, meant: tuple[str, int] | None) -> None:
    assert mesh_name(sni) == meant


@given(st.text(st.characters(max_codepoint=127)) | st.from_regex(r"(outbound|x)?(_\.[0-9a]*){0,4}", fullmatch=True))
def test_any_server_name_is_read_or_is_none(sni: str) -> None:
    found = mesh_name(sni)
    assert found is None or (found[0] and 0 <= found[1] <= 99999)


@pytest.mark.parametrize(("protocol", "kind"), [("HTTP2", "http"), ("grpc-web", "http"), ("tls", "tcp"), ("", "")])
def test_a_port_is_http_tcp_or_not_known(protocol: str, kind: str) -> None:
    tables: Any = SimpleNamespace(ports={("web", 80): protocol})
    assert declared(tables, "web", 80) == kind
    assert declared(tables, "web", 81) == ""


def test_a_virtual_address_leads_to_its_service() -> None:
    services = {"a": SimpleNamespace(addresses=()), "b": SimpleNamespace(addresses=("10.9.0.1", "fd00::1"))}
    tables: Any = SimpleNamespace(snapshot=SimpleNamespace(services=services), tcp=None)
    assert (host_at(tables, "fd00::1"), host_at(tables, "10.9.0.2")) == ("b", "")
    assert not by_server_name(tables, "b", 443)
