"""The same requests by HTTP/2: Fairlead and Envoy do the same with them, too."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import pytest
import yaml

from tests.e2e.oracle import Apps, Case, Oracle, Result, cluster, differences, oracle, request, service
from tests.e2e.oracle_cases import CORS, DIFFERENT, DIRECT, FAULTS, HEADERS, REDIRECTS, REWRITES
from tests.e2e.oracle_formats import FORMATS

CASES = [*REWRITES, *REDIRECTS, *DIRECT, *HEADERS, *CORS, *FAULTS, *FORMATS]
HOP = ("connection:", "keep-alive:", "proxy-connection:", "te:", "x-answer:", "upgrade", "host:")
"""Of these HTTP/2 has none, or they are the endpoint's business; and its Host is another field."""
DIFFERENT_TOO = {
    (
        "redirect uri",
        "GET / x-forwarded-proto:https",
    ): "what a trusted peer says of its client counts in both versions; "
    "Envoy takes HTTP/2's :scheme, which is that of the last hop",
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    clusters = {"empty": cluster("empty", []), "dead": cluster("dead", [1])}
    more = yaml.safe_dump_all([*service("empty", []), *service("dead", [1])])
    with oracle(tmp_path_factory.mktemp("oracle"), CASES, Apps("v1", "v2", "v3"), more, clusters) as made:
        yield made


def by_http2(port: int, octets: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    """An HTTP/1.1 request as HTTP/2 with prior knowledge, on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), 15) as wire:
        return exchange_by_http2(wire, octets)


def exchange_by_http2(wire: socket.socket, octets: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    """As `by_http2`, on a connection that is there. Raises EOFError where it ends first."""
    head, _, body = octets.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    authority = dict(pairs)["host"]
    fields = [(":method", method), (":scheme", "http"), (":authority", authority), (":path", target)]
    fields += [pair for pair in pairs if pair[0] != "host"]
    config = h2.config.H2Configuration(header_encoding="latin-1", validate_outbound_headers=False)
    own = h2.connection.H2Connection(config)
    own.initiate_connection()
    own.send_headers(1, fields, end_stream=not body)
    if body:
        own.send_data(1, body, end_stream=True)
    headers: list[tuple[str, str]] = []
    content = b""
    wire.sendall(own.data_to_send())
    while True:
        data = wire.recv(65536)
        if not data:
            raise EOFError("the connection ended before the answer did")
        for event in own.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                headers = [(str(name), str(value)) for name, value in event.headers]
            elif isinstance(event, h2.events.DataReceived):
                content += event.data
            elif isinstance(event, h2.events.StreamEnded):
                return int(dict(headers)[":status"]), headers[1:], content
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                raise EOFError(str(event))
        wire.sendall(own.data_to_send())


def _asked() -> list[tuple[Case, str]]:
    return [
        (case, text)
        for case in CASES
        for text in case.requests
        if (case.name, text) not in DIFFERENT and not any(f" {part}" in text for part in HOP)
    ]


@pytest.mark.parametrize(("case", "text"), [pytest.param(*one, id=f"{one[0].name}: {one[1]}") for one in _asked()])
def test_both_do_the_same_with_a_request_by_http2(both: Oracle, case: Case, text: str) -> None:
    results = []
    for proxy in ("fairlead", "envoy"):
        key = f"{proxy}-2-{case.host}-{text}".replace(" ", "_")
        status, headers, body = by_http2(both.port[proxy], request(text, case.host, key))
        results.append(Result(status, headers, body, both.apps.seen.get(key, [])))
    told = differences(results[0], results[1], text, own_body=case in DIRECT)
    if (case.name, text) in DIFFERENT_TOO:
        assert told, f"no difference any more: {DIFFERENT_TOO[case.name, text]}"
    else:
        assert not told, told
