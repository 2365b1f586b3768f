"""ClusterIPs of Services: given out of `--service-cidr`, kept in the objects, as kube-apiserver does.

A Service that needs an address and names none gets the one that its name leads to, or the next free one: deleted and
made again it has the same, where nobody took it meanwhile. The lower part of a range is left to addresses that are
asked for by name while there are others (KEP-3070). What is in the objects is what is taken; nothing else is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from .status import Cause

Network = IPv4Network | IPv6Network
RANGE_MOST = 1 << 20
"""Addresses of a range that are used; kube-apiserver's own limit for IPv4 and IPv6."""
TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "")


class AddressError(Exception):
    """The addresses that a Service asks for cannot be had."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.causes = [Cause(field, message)]


def parse_ranges(text: str) -> tuple[Network, ...]:
    """`10.96.0.0/16`, or one of each family with a comma between. Raises ValueError."""
    found: list[Network] = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        network = ip_network(part)
        if network.num_addresses < 8:
            raise ValueError(f"{part}: too small, 8 addresses are the least")
        found.append(network)
    if not 1 <= len(found) <= 2 or len({network.version for network in found}) != len(found):
        raise ValueError(f"expected a range such as 10.96.0.0/16, or one of IPv4 and one of IPv6, got {text!r}")
    return tuple(found)


class ClusterIPs:
    """Who has which address. Without ranges none is given out, and only duplicates are refused."""

    def __init__(self, ranges: Sequence[Network] = ()) -> None:
        self.ranges = tuple(ranges)
        self._taken: dict[str, str] = {}
        """namespace/name by address."""
        self._of: dict[str, list[str]] = {}
        """The other way round."""
        self._pending: dict[str, str] = {}
        """The same, of writes that are on their way."""

    def load(self, services: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Take what is stored, by namespace/name; what should not be is told."""
        wrong = []
        for key, body in services:
            self._of[key] = addresses_of(body)
            for address in self._of[key]:
                owner = self._taken.setdefault(address, key)
                if owner != key:
                    wrong.append(f"Service {key}: {address} is {owner}'s, too")
                elif self.ranges and self._range_of(address) is None:
                    wrong.append(f"Service {key}: {address} is not in {self._shown()}")
        return wrong

    def changed(self, key: str, body: Mapping[str, Any] | None) -> None:
        """A Service was stored, or removed (None)."""
        now = addresses_of(body) if body is not None else []
        for address in self._of.pop(key, ()):
            if self._taken.get(address) == key:
                del self._taken[address]
        if now:
            self._of[key] = now
        for address in now:
            self._taken.setdefault(address, key)

    @contextmanager
    def held(self, key: str, current: Mapping[str, Any] | None, body: dict[str, Any]) -> Iterator[None]:
        """Give `body` its addresses, and hold them until its write is through. Raises AddressError."""
        mine = self._assign(key, current, body)
        self._pending |= dict.fromkeys(mine, key)
        try:
            yield
        finally:
            for address in mine:
                if self._pending.get(address) == key:
                    del self._pending[address]

    def _assign(self, key: str, current: Mapping[str, Any] | None, body: dict[str, Any]) -> list[str]:
        """The addresses that this write holds; the spec is written in place."""
        spec = body.get("spec")
        if not isinstance(spec, dict):
            return []
        had = addresses_of(current, headless=True) if current is not None else []
        if spec.get("type") == "ExternalName":
            if self.ranges and had and addresses_of(body, headless=True) == had:
                for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                    spec.pop(field, None)
            return []
        asked = addresses_of(body, headless=True)
        if not self.ranges:
            wanted = [address for address in asked if address != "None"]
            self._check_free(key, wanted)
            return wanted
        if not asked and had:
            asked = had  # who leaves it out means to leave it as it is
        if had and asked[:1] != had[:1]:
            raise AddressError("spec.clusterIPs[0]", f'Invalid value: "{asked[0]}": may not change once set')
        if asked[:1] == ["None"]:
            spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
            return []
        fields = self._families(spec, asked)
        for address in asked:
            if self._range_of(address) is None:
                raise AddressError(
                    "spec.clusterIPs",
                    f'Invalid value: ["{address}"]: failed to allocate IP {address}: the provided IP ({address}) is '
                    f"not in the valid range. The range of valid IPs is {self._shown()}",
                )
        self._check_free(key, asked)
        found = list(asked[: len(fields)])
        for network in fields[len(found) :]:
            found.append(self._next(key, network))
        spec["clusterIP"], spec["clusterIPs"] = found[0], found
        spec["ipFamilies"] = [f"IPv{network.version}" for network in fields]
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        return found

    def _families(self, spec: Mapping[str, Any], asked: Sequence[str]) -> list[Network]:
        """The ranges of a Service's addresses, in order."""
        policy = spec.get("ipFamilyPolicy") or "SingleStack"
        by_name = {f"IPv{network.version}": network for network in self.ranges}
        families = [str(family) for family in spec.get("ipFamilies") or ()]
        families = families or [f"IPv{ip_address(address).version}" for address in asked]
        for index, family in enumerate(families):
            if family not in by_name:
                raise AddressError(
                    f"spec.ipFamilies[{index}]", f'Invalid value: "{family}": not configured on this cluster'
                )
        families = families or [f"IPv{self.ranges[0].version}"]
        if policy == "SingleStack":
            return [by_name[families[0]]]
        families += [name for name in by_name if name not in families]
        if policy == "RequireDualStack" and len(families) < 2:
            raise AddressError(
                "spec.ipFamilyPolicy",
                'Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services '
                "(--service-cidr with two ranges)",
            )
        return [by_name[family] for family in families[:2]]

    def _check_free(self, key: str, addresses: Iterable[str]) -> None:
        for address in addresses:
            owner = self._taken.get(address) or self._pending.get(address)
            if owner not in (None, key):
                raise AddressError(
                    "spec.clusterIPs",
                    f'Invalid value: ["{address}"]: failed to allocate IP {address}: provided IP is already allocated '
                    f"(to Service {owner})",
                )

    def _next(self, key: str, network: Network) -> str:
        low, high = usable(network)
        size = high - low + 1
        static = min(max(16, size // 16), 256) if size > 32 else 0
        digest = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
        for first, count in ((low + static, size - static), (low, static)):
            for step in range(count):
                address = str(_address(network, first + (digest + step) % count))
                if address not in self._taken and address not in self._pending:
                    return address
        raise AddressError("spec.clusterIPs", f"failed to allocate an IP: range {network} is full")

    def _range_of(self, address: str) -> Network | None:
        number = ip_address(address)
        for network in self.ranges:
            low, high = usable(network)
            if number.version == network.version and low <= int(number) <= high:
                return network
        return None

    def _shown(self) -> str:
        return " and ".join(map(str, self.ranges))


def _address(network: Network, number: int) -> IPv4Address | IPv6Address:
    return IPv4Address(number) if network.version == 4 else IPv6Address(number)


def usable(network: Network) -> tuple[int, int]:
    """The first and the last address that may be given out: not the network's own, nor IPv4's broadcast."""
    first = int(network.network_address) + 1
    last = int(network.broadcast_address) - (1 if network.version == 4 else 0)
    return first, min(last, first + RANGE_MOST - 1)


def addresses_of(body: Mapping[str, Any], headless: bool = False) -> list[str]:
    """A Service's ClusterIPs in their usual form; with `headless` also `None`. What is malformed is passed over."""
    spec = body.get("spec")
    if not isinstance(spec, Mapping):
        return []
    listed = spec.get("clusterIPs")
    single = spec.get("clusterIP")
    given = [single] if single and not (isinstance(listed, list) and listed[:1] == [single]) else listed
    found = []
    for one in given if isinstance(given, list) else ():
        if one == "None":
            found += ["None"] if headless else []
        elif isinstance(one, str) and one:
            try:
                found.append(str(ip_address(one)))
            except ValueError:
                continue
    return found


def needs_address(body: Mapping[str, Any]) -> bool:
    """Whether a stored Service should have an address and has none."""
    spec = body.get("spec")
    return isinstance(spec, Mapping) and spec.get("type", "") in TYPES and not addresses_of(body, headless=True)
