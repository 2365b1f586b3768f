"""The proxy's own limits and deadlines, each with a name, a unit and a default, and how they are given by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import fields, replace


class Settings(Struct, frozen=True):
    """`_s` is seconds, `_bytes` octets. 0 switches a limit off unless it is said otherwise."""

    # Heads of requests.
    max_head_bytes: int = 60 * 1024
    """Of a head, request line included; then 431. Envoy's default."""
    max_headers: int = 100
    """Header lines of a head; then 431. Envoy's default."""
    max_target_bytes: int = 16 * 1024
    """Of a request target; then 414. HAProxy's default."""
    head_timeout_s: float = 15.0
    """From a request's first octet (on a new connection: from the start) to the end of its head; then 408."""
    # Bodies of requests.
    body_timeout_s: float = 300.0
    """Longest pause within a request's body; then 408. Envoy's stream idle timeout."""
    body_min_rate: int = 100
    """Octets a second, least for a body of stated length over body_rate_window_s; then 408. A body in chunks is a
    stream, whose pace is its own."""
    body_rate_window_s: float = 30.0
    """Time over which body_min_rate is measured; what passes while we do not read does not count."""
    request_timeout_s: float = 0.0
    """From a request's head to the end of its body; then 408. Off as in Envoy; 300 s is advised at the edge."""
    # Connections of clients.
    write_timeout_s: float = 300.0
    """How long a client may take not one octet of what waits for it; then it is cut off. As Envoy's stream idle."""
    idle_timeout_s: float = 3600.0
    """A client's connection without a request is closed after this. Envoy's default."""
    relay_idle_timeout_s: float = 3600.0
    """A relay on which nothing moves is closed after this. Envoy's default."""
    max_connections: int = 65536
    """Client connections at a time; beyond it new ones are closed at once."""
    max_connections_per_source: int = 0
    """Client connections of one source address at a time; beyond it new ones are closed at once. Off as in peers."""
    buffer_bytes: int = 2 * 1024 * 1024
    """Held for one client's connection and its endpoint's, looked at each second; beyond it the two are cut off."""
    buffered_bytes: int = 512 * 1024 * 1024
    """Held in all; beyond it new connections are closed at once, and those that hold most are cut off."""
    linger_s: float = 2.0
    """After an answer that came before the request's end: how long what is still sent is read and thrown away."""
    max_linger_bytes: int = 1024 * 1024
    """How much of it."""
    replay_bytes: int = 64 * 1024
    """Of a body kept for another try or a mirror; a longer body is sent once."""
    hold_bytes: int = 256 * 1024
    """Read ahead from one client (a body before the endpoint is connected)."""
    # New connections.
    peek_timeout_s: float = 10.0
    """How long an inbound connection may take to show whether it speaks TLS, where its server says nothing either."""
    handshake_timeout_s: float = 10.0
    """Of a TLS handshake."""
    undecided_s: float = 5.0
    """On a port of undeclared protocol: how long octets may stay what could begin a request line; then they are opaque.
    As Istio's protocolDetectionTimeout. A silent client is not waited for: whoever speaks first decides."""
    refused_grace_s: float = 0.5
    """On a port of undeclared protocol whose endpoint cannot be reached: how long the client has to speak HTTP, and be
    answered 503, before the connection is closed."""
    # The rest.
    max_mirrors: int = 256
    """Copies to mirrors in flight."""
    max_passthrough: int = 1024
    """Destinations outside the registry whose pools are kept."""
    trusted_proxies: int = 0
    """Proxies before the edge whose X-Forwarded-For entries are believed; of anybody else nothing is."""
    via: str = ""
    """Name to give in Via (RFC 9110 section 7.6.3), in both directions; empty: none, as Envoy and Istio by default."""
    expected_timeout_header: bool = True
    """Send x-envoy-expected-rq-timeout-ms where a timeout is set."""


_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_OCTETS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "": 1}
_VALUE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([A-Za-z]*)")


def _name(field: str) -> str:
    return field.removesuffix("_bytes").removesuffix("_s").replace("_", "-")


def _fields() -> dict[str, Any]:
    return {_name(field.name): field for field in fields(Settings)}


def described() -> list[tuple[str, str, str]]:
    """(name, default with its unit, field) of every limit."""
    found = []
    for name, field in _fields().items():
        default = field.default
        if field.name.endswith("_bytes"):
            unit = next(unit for unit, factor in reversed(list(_OCTETS.items())[:3]) if default % factor == 0)
            text = f"{default // _OCTETS[unit]} {unit}"
        elif field.name.endswith("_s"):
            text = f"{default:g} s" if default else "off"
        elif isinstance(default, bool):
            text = "true" if default else "false"
        else:
            text = str(default) or "none"
        found.append((name, text, field.name))
    return found


def parse(texts: Iterable[str]) -> Settings:
    """`NAME=VALUE` each; durations as `500ms`, `10s`, `2m`, sizes as `32KiB`. Raises ValueError with the remedy."""
    known = _fields()
    given = {}
    for text in texts:
        name, equals, value = text.partition("=")
        field = known.get(name)
        if field is None:
            raise ValueError(f"limit {name}: there is no such limit; there are {', '.join(known)}")
        if not equals:
            raise ValueError(f"limit {name}: expected NAME=VALUE, got {text!r}")
        given[field.name] = _value(name, field.name, field.default, value)
    return replace(Settings(), **given)


def _value(name: str, field: str, default: object, text: str) -> object:
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(f"limit {name}: expected true or false, got {text!r}")
        return text == "true"
    if isinstance(default, str):
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{0,64}", text):
            raise ValueError(f"limit {name}: expected a name without blanks, got {text!r}")
        return text
    match = _VALUE.fullmatch(text)
    units = _SECONDS if field.endswith("_s") else _OCTETS if field.endswith("_bytes") else {"": 1}
    expected = (
        "a duration such as 500ms, 10s, 2m or 1h"
        if units is _SECONDS
        else "a size such as 100, 1KiB or 2MiB"
        if units is _OCTETS
        else "a whole number"
    )
    if match is None or match[2] not in units or (units is not _SECONDS and "." in match[1]):
        raise ValueError(f"limit {name}: expected {expected}, got {text!r}")
    return float(match[1]) * units[match[2]] if units is _SECONDS else int(match[1]) * int(units[match[2]])


class Members:
    """A set of connections, sessions or the like, counted by the source address that their `arrival` had when they were
    added, in a dictionary that several sets share; a source without any is not in it."""

    def __init__(self, sources: dict[str, int]) -> None:
        self.sources = sources
        self._source: dict[Any, str] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._source)

    def __contains__(self, member: object) -> bool:
        return member in self._source

    def add(self, member: Any) -> None:
        if member not in self._source:
            source = self._source[member] = member.arrival.source_ip
            self.sources[source] = self.sources.get(source, 0) + 1

    def discard(self, member: Any) -> None:
        source = self._source.pop(member, None)
        if source is not None:
            left = self.sources[source] - 1
            if left:
                self.sources[source] = left
            else:
                del self.sources[source]
