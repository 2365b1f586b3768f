"""The proxy's own limits and deadlines, each with a name, a unit and a default."""

from __future__ import annotations

from msgspec import Struct


class Settings(Struct, frozen=True):
    head_timeout_s: float = 15.0
    """From a request's first octet (on a new connection: from the start) to the end of its head; then 408."""
    body_timeout_s: float = 300.0
    """Longest pause within a request's body; then 408."""
    idle_timeout_s: float = 3600.0
    """A client's connection without a request is closed after this."""
    relay_idle_timeout_s: float = 3600.0
    """A relay on which nothing moves is closed after this."""
    linger_s: float = 2.0
    """After an answer that came before the request's end: how long what is still sent is read and thrown away."""
    linger_bytes: int = 1024 * 1024
    replay_bytes: int = 64 * 1024
    """Body octets kept for another try or a mirror; a longer body is sent once."""
    hold_bytes: int = 256 * 1024
    """Octets read ahead from one client (pipelined requests, a body before the endpoint is connected)."""
    peek_timeout_s: float = 10.0
    """How long an inbound connection may take to show whether it speaks TLS."""
    handshake_timeout_s: float = 10.0
    first_speaker_s: float = 0.1
    """On a port of undeclared protocol: how long the client has to speak first; then the server may."""
    max_connections: int = 65536
    """Client connections of one listener at a time; beyond it new ones are closed at once."""
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
