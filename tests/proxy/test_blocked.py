"""Which addresses are never asked for keys of tokens, however they are written."""

from __future__ import annotations

import pytest

from fairlead.proxy.blocked import Blocked


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
        "::169.254.169.254", "2002:a9fe:a9fe::1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "0.0.0.0", "::",
        "not-an-address",
    ],
)  # fmt: skip
def test_what_is_of_the_link_or_gives_out_credentials_is_blocked_in_every_way_to_write_it(address: str) -> None:
    assert Blocked().why(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "192.0.2.1", "2001:db8::1", "fd00::1"])
def test_loopback_and_other_addresses_are_not_unless_they_are_named(address: str) -> None:
    assert Blocked().why(address) == ""
    assert "jwksBlockedNetworks" in Blocked(
        ["127.0.0.0/8", "::1", "10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "fd00::/8"]
    ).why(address)


def test_what_is_named_is_blocked_inside_of_ipv6_too() -> None:
    assert "jwksBlockedNetworks" in Blocked(["10.0.0.0/8"]).why("::ffff:10.1.2.3")
