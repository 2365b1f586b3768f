"""Addresses to which a proxy does not go for keys of tokens, whoever names them.

Who may write a RequestAuthentication chooses an address that proxies, and control for Envoys, then ask. Clouds hand out
credentials at addresses of the link (169.254.169.254) and a few others, to whoever asks from the host; nobody has keys
there. Loopback stays allowed, as an issuer beside the app is usual; MeshConfig (`jwksBlockedNetworks`) may name it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NEVER: tuple[Network, ...] = tuple(
    ipaddress.ip_network(one)
    for one in (
        "169.254.0.0/16", "fe80::/10",  # of the link (RFC 3927, RFC 4291): metadata of most clouds
        "fd00:ec2::/32", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",  # AWS, Alibaba, Azure, Oracle
        "0.0.0.0/8", "::/128", "224.0.0.0/4", "ff00::/8", "255.255.255.255/32",  # no host's
    )
)  # fmt: skip
NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""RFC 6052: an IPv4 address in its last 32 bits."""


class Blocked:
    """NEVER, and what an operator names."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """Raises ValueError."""
        self.networks = tuple(networks)
        self._more = tuple(ipaddress.ip_network(one, strict=False) for one in self.networks)

    def why(self, text: str) -> str:
        """Why this address (as a resolver gives it) is not connected to; empty: it may be."""
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return f"{text} is not an address"
        for one in (address, *within(address)):
            for network in NEVER:
                if one in network:
                    return f"{text} is never asked for keys ({network})"
            for network in self._more:
                if one in network:
                    return f"{text} is not asked for keys: jwksBlockedNetworks of MeshConfig has {network}"
        return ""


def within(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 address leads to."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    found: list[Address] = [one for one in (address.ipv4_mapped, address.sixtofour) if one is not None]
    number = int(address)
    if address in NAT64 or 1 < number < 1 << 32:  # or IPv4-compatible (RFC 4291, 2.5.5.1); 1 is loopback
        found.append(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    return found
