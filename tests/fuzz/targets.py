"""What is fuzzed: each parser of strangers' bytes, with what must hold and the only exceptions that it may raise.

A target takes bytes. What it may raise it catches itself; everything else that comes out is a finding.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from typing import Any

import h2.exceptions
import h11
import hpack as hpack_oracle

from fairlead.control import protobuf_wire, xds_node, xds_wire
from fairlead.control.xds_session import CDS, Session
from fairlead.dns import message as dns_message
from fairlead.dns.engine import DnsOptions, Pending
from fairlead.dns.engine import Engine as DnsEngine
from fairlead.dns.transfer import Transfer
from fairlead.mesh import trust
from fairlead.mesh.grpc_health import HealthCall, status_of
from fairlead.mesh.identity import IdentityError
from fairlead.mesh.update import Holdings, RefusedError, build_world
from fairlead.policy import linear_regex
from fairlead.policy.path_normalization import MODES, PathError, normalize_path
from fairlead.policy.world import Loader
from fairlead.proxy import headers as built_headers
from fairlead.proxy import hpack as built_hpack
from fairlead.proxy import http1 as built
from fairlead.proxy import http2 as built_http2
from fairlead.proxy import proxy_protocol, sniff
from fairlead.proxy.limits import parse as parse_limits
from fairlead.proxy.message import ProtocolError
from fairlead.registry import consul_catalog, documents, etcd_values
from fairlead.registry.snapshot import Snapshot
from tests.dns import world as dns_world
from tests.proxy.plain import plain
from tests.proxy.two import Peer

Target = Callable[[bytes], None]
TARGETS: dict[str, tuple[Target, list[bytes]]] = {}
"""Name to what runs, and inputs to start from."""


def target(*seeds: bytes) -> Callable[[Target], Target]:
    def add(run: Target) -> Target:
        TARGETS[run.__name__] = run, list(seeds)
        return run

    return add


# --- HTTP/2


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


_GET = hpack_oracle.Encoder().encode([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
_POST = hpack_oracle.Encoder().encode(
    [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("content-length", "3")]
)
_OK = hpack_oracle.Encoder().encode([(":status", "200"), ("x", "y")])


class _Heard:
    """What a connection's handler heard, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.bodies: dict[int, bytes] = {}

    def head(self, stream: Any, head: Any, end: bool) -> None:
        self.events.append(("head", stream.id, head.raw, end))

    def interim(self, stream: Any, head: Any) -> None:
        self.events.append(("interim", stream.id, head.raw))

    def data(self, stream: Any, data: bytes, end: bool) -> None:
        self.events.append(("data", stream.id, data, end))

    def trailers(self, stream: Any, block: bytes) -> None:
        self.events.append(("trailers", stream.id, block))

    def reset(self, stream: Any, code: int, why: str) -> None:
        self.events.append(("reset", stream.id, code))

    def refused(self, why: str, large: bool) -> None:
        self.events.append(("refused", why))

    def goaway(self, last_id: int, code: int, debug: bytes) -> None:
        self.events.append(("goaway", last_id, code))

    def writable(self, stream: Any) -> None: ...
    def pong(self, payload: bytes) -> None: ...
    def settings_changed(self) -> None: ...


def _heard(codec: Any, client: bool, pieces: list[bytes]) -> tuple[list[tuple[Any, ...]], int, bytes]:
    """Events, the code of the error (-1: none) and the output."""
    heard = _Heard()
    connection = codec.Http2(heard, client)
    connection.start()
    if client:
        for _ in range(2):
            connection.open(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "http", True, None)
    output = connection.output()
    code = -1
    try:
        for piece in pieces:
            connection.receive(piece)
    except codec.Http2Error as error:
        assert str(error)
        code = error.code
    output += connection.output()
    assert connection.queued == 0
    assert connection.active <= 100
    return heard.events, code, output


def _same_however_it_is_cut(client: bool, data: bytes) -> list[tuple[Any, ...]]:
    _heard(built_http2, client, [data])  # names that a peer keeps out of tables are learnt once, for all connections
    events, code, output = _heard(built_http2, client, [data])
    for codec in (built_http2, plain("http2")):
        for cut in pieces_of(data):
            assert _heard(codec, client, cut) == (events, code, output)
    for event in events:
        if event[0] == "head" and not client:
            parser = plain("http1").RequestParser()
            parser.feed(event[2])
            assert parser.read_head() is not None
            assert parser.unread() == 0
    return events


def _h2_heads(data: bytes) -> dict[int, bytes] | None:
    """Paths of the requests, by stream, as the h2 package reads them; None: it refuses something."""
    peer = Peer(False)
    try:
        peer.receive(data)
    except h2.exceptions.ProtocolError:
        return None
    return {number: head.get(":path", "").encode("latin-1") for number, head in peer.heads.items()}


@target(
    built_http2.PREFACE + frame(4, 0, 0) + frame(1, 5, 1, _GET) + frame(1, 4, 3, _POST) + frame(0, 1, 3, b"abc"),
    built_http2.PREFACE + frame(4, 0, 0, b"\0\4\0\0\0\1") + frame(1, 1, 1, _GET[:2]) + frame(9, 4, 1, _GET[2:]),
    built_http2.PREFACE
    + frame(4, 0, 0)
    + frame(1, 4, 1, _GET)
    + frame(0, 8, 1, b"\2hi\0\0")
    + frame(3, 0, 1, bytes(4)),
    built_http2.PREFACE
    + frame(4, 0, 0)
    + frame(6, 0, 0, bytes(8))
    + frame(8, 0, 0, b"\0\0\1\0")
    + frame(7, 0, 0, bytes(8)),
)
def http2_client_says(data: bytes) -> None:
    """Cuts and compilation change nothing; heads are whole HTTP/1.1; what h2 also takes, it reads the same."""
    events = _same_however_it_is_cut(False, data)
    theirs = _h2_heads(data)
    if theirs is not None:
        for event in events:  # we may refuse more, and never read another path of a stream
            if event[0] == "head":
                assert theirs[event[1]] == event[2].split(b" ", 2)[1]


@target(
    frame(4, 0, 0) + frame(1, 4, 1, _OK) + frame(0, 1, 1, b"body") + frame(1, 5, 3, _OK),
    frame(4, 0, 0, b"\0\3\0\0\0\1") + frame(4, 1, 0) + frame(1, 4, 1, _OK) + frame(1, 5, 1, b"\0\1x\1y"),
)
def http2_server_says(data: bytes) -> None:
    _same_however_it_is_cut(True, data)


@target(_GET, _POST, b"\x40\x01a\x01b\xbe", b"\x3f\xe1\x1f\x82", b"\x41\x8c\xf1\xe3\xc2\xe5\xf2:k\xa0\xab\x90\xf4\xff")
def hpack_block(data: bytes) -> None:
    """Read alike compiled or not, twice on one connection; what is read goes on and comes back the same."""
    results = []
    for codec in (built_hpack, plain("hpack")):
        decoder = codec.Decoder(4096, 2000)
        got: list[Any] = []
        try:
            for _ in range(2):
                fields = decoder.decode(data)
                got.append(([(field.name, field.value, field.kind, field.line) for field in fields], decoder.too_large))
                assert sum(len(field.name) + len(field.value) + 32 for field in fields) <= 2000
        except codec.HpackError as error:
            got.append(str(error))
        results.append(got)
    assert results[0] == results[1]
    for fields_of in results[0]:
        if isinstance(fields_of, str):
            continue
        lines = [field[3] for field in fields_of[0] if field[2] == built_hpack.PLAIN]
        encoder = built_hpack.Encoder()
        encoder.lines(b"".join(lines), 0)
        again = built_hpack.Decoder().decode(encoder.take())
        assert [field.line for field in again] == lines


# --- HTTP/1.1


def pieces_of(data: bytes) -> list[list[bytes]]:
    """The input whole, in two halves, and octet by octet."""
    cuts = [[data], [data[: len(data) // 2], data[len(data) // 2 :]]]
    return [*cuts, [data[k : k + 1] for k in range(len(data))]] if len(data) < 400 else cuts


def requests_in(codec: Any, pieces: list[bytes]) -> tuple[list[tuple[Any, bytes, bytes]], bool]:
    """(head, body, trailers) of the requests that are whole, and whether the input was refused."""
    parser = codec.RequestParser()
    found: list[tuple[Any, bytes, bytes]] = []
    head, body = None, b""
    try:
        for piece in pieces:
            parser.feed(piece)
            while True:
                if head is None:
                    head = parser.read_head()
                    if head is None:
                        break
                got = parser.read_body()
                body += got
                if parser.complete:
                    found.append((head, body, parser.trailers if head.chunked else b""))
                    head, body = None, b""
                    parser.next_message()
                elif not got:
                    break
    except ProtocolError as error:
        assert 400 <= error.status < 600
        assert str(error)
        return found, True
    return found, False


def facts(request: tuple[Any, bytes, bytes]) -> tuple[Any, ...]:
    head, body, trailers = request
    return head.method, head.authority, head.path, head.minor, head.keep_alive, head.upgrade, head.raw, body, trailers


@target(
    b"GET /a?b HTTP/1.1\r\nHost: web:80\r\nConnection: close, X\r\nX: 1\r\n\r\n",
    b"POST http://web/x HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"
    b"GET / HTTP/1.0\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
    b"\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
)
def http1_requests(data: bytes) -> None:
    """Cuts and compilation change nothing; what is taken goes on as one request that others read the same."""
    results = [requests_in(codec, cut) for codec in (built, plain("http1")) for cut in pieces_of(data)]
    requests, refused = results[0]
    for other, other_refused in results[1:]:
        assert [facts(one) for one in other] == [facts(one) for one in requests]
        assert other_refused == refused
    for head, body, _ in requests:
        if head.method != "CONNECT":
            goes_on_as_one(head, body)


def goes_on_as_one(head: Any, body: bytes) -> None:
    framing = b"transfer-encoding: chunked\r\n" if head.chunked else b""
    sent = built_headers.request_bytes(head, head.path, "" if head.authority else "host", None, False, framing)
    if head.chunked:
        sent += (built.chunk(body) if body else b"") + built.LAST_CHUNK
    else:
        sent += body
    (again,), refused = requests_in(plain("http1"), [sent])
    assert not refused
    assert (again[0].method, again[0].path, again[1]) == (head.method, head.path, body)
    assert again[0].minor == 1
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(sent)
    read = b""
    event: Any = connection.next_event()
    assert isinstance(event, h11.Request), event
    assert (event.method.decode(), event.target.decode()) == (head.method, head.path)
    while not isinstance(event, h11.EndOfMessage):
        event = connection.next_event()
        if isinstance(event, h11.Data):
            read += bytes(event.data)
    assert read == body
    assert not connection.trailing_data[0]


def responses_in(codec: Any, method: str, pieces: list[bytes]) -> tuple[list[tuple[Any, ...]], bytes, bool, int, bool]:
    """Facts of the heads, the body, whether it is whole, what is left over, whether the input was refused."""
    parser = codec.ResponseParser()
    parser.expect(method)
    heads: list[tuple[Any, ...]] = []
    body, final, left = b"", False, 0
    try:
        for number, piece in enumerate(pieces):
            if final and parser.complete:
                left = sum(map(len, pieces[number:]))
                break
            parser.feed(piece)
            while not final:
                head = parser.read_head()
                if head is None:
                    break
                heads.append((head.status, head.minor, head.keep_alive, head.chunked, head.until_close, head.raw))
                final = head.status >= 200 or head.status == 101
            if final:
                body += parser.read_body()
        left += parser.unread()
        parser.eof()
    except ProtocolError as error:
        assert error.status == 502
        return heads, body, False, left, True
    return heads, body, parser.complete, left, False


@target(
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nall of it",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nsurplus",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00",
)
def http1_responses(data: bytes) -> None:
    """Cuts and compilation change nothing; nothing without a body has one; only the final head is followed by one."""
    for method in ("GET", "HEAD"):
        results = [responses_in(codec, method, cut) for codec in (built, plain("http1")) for cut in pieces_of(data)]
        heads, body, whole, left, refused = results[0]
        for other in results[1:]:
            assert (other[0], other[4]) == (heads, refused)
            if refused:  # what came before the fault may have been handed on already
                assert other[1].startswith(body) or body.startswith(other[1])
            else:
                assert other == results[0]
        assert all(100 <= head[0] < 1000 for head in heads)
        assert all(head[0] < 200 for head in heads[:-1])
        if heads and (method == "HEAD" or heads[-1][0] in (204, 304)) and heads[-1][0] != 101:
            assert not body
        assert not (whole and refused)
        assert len(body) + left <= len(data)


# --- first bytes


def never_changes_its_mind(read: Callable[[bytes], Any], undecided: Any, data: bytes) -> None:
    """What a prefix decides, more octets do not change."""
    decided = undecided
    for k in range(len(data) + 1):
        now = read(data[:k])
        if decided == undecided:
            decided = now
        else:
            assert now == decided, (k, now, decided)


@target(
    b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x00\x05", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"SSH-2.0-x\r\n", b"EHLO x\r\n"
)
def sniffed_protocol(data: bytes) -> None:
    never_changes_its_mind(sniff.speaks, sniff.MORE, data[: min(len(data), 200)])


def _hello(data: bytes) -> Any:
    try:
        found = sniff.client_hello(data)
    except ValueError:
        return "refused"
    if found is None:
        return None
    assert found.sni == found.sni.lower()
    assert found.sni.isascii()
    return found.sni, found.alpn


def _client_hello(sni: bytes) -> bytes:
    name = b"\x00" + len(sni).to_bytes(2, "big") + sni
    listed = len(name).to_bytes(2, "big") + name
    alpn = b"\x00\x03\x02h2"
    extensions = b"\x00\x00" + len(listed).to_bytes(2, "big") + listed + b"\x00\x10\x00\x05" + alpn
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


@target(_client_hello(b"web.default"), _client_hello(b"outbound_.80_._.web")[:50])
def tls_client_hello(data: bytes) -> None:
    never_changes_its_mind(_hello, None, data[:600])


def _proxy_header(data: bytes) -> Any:
    try:
        read = proxy_protocol.read(data)
    except ValueError as error:
        assert str(error)
        return "refused"
    if read is None:
        return None
    header, length = read
    assert 0 < length <= len(data)
    for address in (header.source, header.destination):
        if address is not None:
            ipaddress.ip_address(address[0])
            assert 0 <= address[1] <= 65535
    return header.source, header.destination, header.tlvs, length


@target(
    b"PROXY TCP4 10.0.0.1 10.0.0.2 4711 80\r\nGET /",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x12\x34\x00\x50rest",
    b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
)
def proxy_header(data: bytes) -> None:
    never_changes_its_mind(_proxy_header, None, data[:700])


# --- paths, patterns, limits


@target(b"/a/../b", b"/%2e%2e/%2F", b"/a;x/..;/b?c", b"\\..\\a", b"/%c0%af")
def normal_path(data: bytes) -> None:
    """A normal form is normal; it begins as a path does; the query is as it came."""
    text = data.decode("latin-1")
    for mode in MODES:
        try:
            once = normalize_path(text, mode)
        except PathError:
            continue
        assert normalize_path(once, mode) == once
        assert once.partition("?")[1:] == text.partition("?")[1:]
        if text.startswith("/"):
            assert once.startswith("/")
            segments = once.partition("?")[0].split("/")
            assert mode == "NONE" or not {".", ".."} & set(segments)
            assert mode in ("NONE", "BASE") or "" not in segments[1:-1]


@target(b"a|b", b"(a+)+$", b"[[:alpha:]]", b"\\Qx\\E", b"(?i)x{2,3}")
def regular_expression(data: bytes) -> None:
    try:
        linear_regex.Regex(data.decode("latin-1"))
    except linear_regex.RegexError as error:
        assert str(error)


@target(b"max-head=32KiB", b"via=x", b"head-timeout=1.5s")
def limit(data: bytes) -> None:
    try:
        parse_limits([data.decode("latin-1")])
    except ValueError as error:
        assert "limit" in str(error)


# --- DNS

_QUESTION = bytes.fromhex("123401000001000000000001") + b"\x03web\x07default\x03svc\x07cluster\x05local\0\0\1\0\1"
_OPT = bytes.fromhex("0000291000000080000000")
_ANSWER = bytes.fromhex("123481800001000200000000") + _QUESTION[12:] + bytes.fromhex(
    "c00c0005000100000005000401620000"
) + bytes.fromhex("c00c000100010000000500040a600001")  # fmt: skip


@target(_QUESTION + _OPT, _QUESTION[:10] + b"\0\0" + _QUESTION[12:], _ANSWER)
def dns_question(data: bytes) -> None:
    """A question is answered with its own id, within its size, or not at all."""
    read = dns_message.read_query(data)
    if isinstance(read, bytes):
        assert read[:2] == data[:2]
        assert read[2] & 0x80
    for tcp in (False, True):
        reply = _DNS.reply(data, tcp, "127.0.0.1", 1.0, 0.5, tcp)
        if isinstance(reply, Transfer):
            for message in reply.messages():
                assert message[:2] == data[:2]
                assert len(message) <= 65535
            continue
        while isinstance(reply, Pending):
            reply = _DNS.finish(reply, None, 1.0, 0.5)
        if reply is not None:
            assert reply[:2] == data[:2]
            assert len(reply) <= (65535 if tcp else 4096)
            dns_message.read_message(reply) if reply[5] == 1 else None


_DNS = DnsEngine(
    DnsOptions(
        consul_domain="consul",
        autopath="question",
        pods="insecure",
        allow_transfer=("127.0.0.1",),
        nsid="n",
        cookie_secrets=(bytes(16),),
    ),
    forwards=False,
    everyone=True,
)
_DNS.update(dns_world.WORLD)


@target(_ANSWER, _QUESTION + _OPT)
def dns_answer(data: bytes) -> None:
    try:
        read = dns_message.read_message(data)
    except dns_message.Malformed:
        return
    for section in (read.answer, read.authority, read.additional):
        for rrset in section:
            assert 0 <= rrset.ttl <= 0x7FFFFFFF
            assert len(rrset.owner) <= 255


# --- certificates, the feed, registries, manifests


@target(bytes.fromhex("3003020101"), bytes.fromhex("30820004a0030201023000"))
def certificate(data: bytes) -> None:
    try:
        leaf = trust.read_leaf(data)
    except IdentityError:
        return
    assert all(uri.isascii() for uri in leaf.uris)
    try:
        trust.identity_of(data)
    except IdentityError:
        pass


_SERVICE = {"host": "web.default.svc.cluster.local", "namespace": "default", "name": "web", "ports": [{"number": 80}]}


@target(
    json.dumps({"version": "1", "full": True, "set": {"service/web": _SERVICE, "namespace/a": {"b": "c"}}}).encode(),
    b'{"version":"2","set":{"object/x":{"apiVersion":"v1","kind":"Service","metadata":{"name":"x"}}},"remove":["a/b"]}',
    b'{"version":"3"}',
)
def feed_line(data: bytes) -> None:
    """A line is taken whole or not at all; what is kept of it reads back the same; a world is built or refused."""
    holdings = Holdings(lambda objects, snapshot: build_world(objects, snapshot, Loader()))
    before = dict(holdings.raw)
    try:
        if not holdings.apply(data):
            return
    except RefusedError as error:
        assert error.reasons
        assert holdings.raw == before
        return
    again = Holdings(lambda objects, snapshot: build_world(objects, snapshot, Loader()))
    again.apply(holdings.kept()())
    assert again.raw == holdings.raw
    try:
        holdings.world()
    except RefusedError as error:
        assert error.reasons


@target(
    frame(4, 0, 0)
    + frame(1, 4, 1, b"\x88")
    + frame(0, 0, 1, b"\0\0\0\0\2\x08\1")
    + frame(1, 5, 1, b"\0\x0bgrpc-status\x010"),
    frame(4, 0, 0) + frame(1, 5, 1, b"\x88\0\x0bgrpc-status\x0214"),
    frame(4, 0, 0) + frame(3, 0, 1, b"\0\0\0\7") + frame(7, 0, 0, bytes(8)),
    b"HTTP/1.1 200 OK\r\n\r\n",
)
def grpc_health_answer(data: bytes) -> None:
    results = []
    for pieces in pieces_of(data):
        call = HealthCall("", "a:1", False)
        for piece in pieces:
            call.receive(piece)
        call.output()
        call.closed()
        assert call.result is not None
        assert call.result[1]
        results.append(call.result)
    assert len(set(results)) == 1, "however it is cut, the result is the same"
    try:
        status_of(data)
    except ValueError as error:
        assert str(error)


@target(
    b'{"host": "10.0.0.7", "port": 8080, "labels": {"a": "b"}, "ready": false, "weight": 3}',
    b'{"host": "web.example.com", "port": 1, "namespace": "shop", "meshPort": 15006, "protocol": "http"}',
)
def etcd_value(data: bytes) -> None:
    for key in ("/services/web/web-1", "/services/" + data[:20].decode("latin-1")):
        try:
            read = etcd_values.instance(key, data, "/services/")
        except ValueError as error:
            assert str(error)
            continue
        assert 0 < read.endpoint.port <= 65535
        assert read.endpoint.address
        assert 0 < read.endpoint.weight <= 65535


@target(
    b'[{"Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": {"ID": "web-1", "Port": 80, "Tags": ["a=b"], '
    b'"Meta": {"zone": "z"}, "Weights": {"Passing": 2}}, "Checks": [{"Status": "critical", "Output": "x"}]}]',
    b'[{"Node": null, "Service": {"ID": 1, "Port": "80"}}, 5, null]',
)
def consul_answer(data: bytes) -> None:
    """Malformed instances are told of and left out; the others are taken."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(told, list):
        return
    found, problems = consul_catalog.facts_of_service("web", told, "default")
    endpoints = [endpoint for several in found.endpoints.values() for endpoint in several]
    assert len(endpoints) + len(problems) == len(told)
    assert all(0 < endpoint.port <= 65535 for endpoint in endpoints)


@target(
    b"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n---\nkind: x\n",
    b"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: a\nspec:\n  hosts: [a]\n  http:\n"
    b"  - route: [{destination: {host: a}}]\n    timeout: 5s\n",
    b"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\n"
    b"spec: {podSelector: {}, ingress: [{}]}\n",
    b'{"apiVersion": "v1", "kind": "List", "items": [{"kind": "Namespace"}]}',
)
def manifest(data: bytes) -> None:
    """Whatever is in a file, it is loaded or told of with its line."""
    loaded, problems = documents.load(data, "fuzz.yaml")
    assert all(str(problem) for problem in problems)
    _, reports = Loader().load(loaded, Snapshot(1, {}, {}, {}, {}))
    assert len(reports) == len(loaded)


# --- xDS


def _discovery(delta: bool, data: bytes) -> None:
    name = f"service.discovery.v3.{'Delta' if delta else ''}DiscoveryRequest"
    try:
        message = xds_wire.decode(name, data)
    except protobuf_wire.WireError:
        return
    try:
        xds_node.read_node(message.get("node") or {})
    except xds_node.NodeError:
        pass
    session = Session(delta)
    session.update("1", {CDS: {"a": ("1", b"x")}})
    session.request(message)
    session.request(message)
    for response in session.take():
        kind = "Delta" if delta else ""
        assert xds_wire.encode(f"service.discovery.v3.{kind}DiscoveryResponse", response)


_NODE = {"id": "a/b", "metadata": {"FAIRLEAD": {"PORTS": [80.0], "OUTBOUND": "127.0.0.1:1", "LABELS": {"a": "b"}}}}


@target(
    xds_wire.encode("service.discovery.v3.DiscoveryRequest", {"node": _NODE, "type_url": CDS, "resource_names": ["a"]}),
    xds_wire.encode("service.discovery.v3.DiscoveryRequest", {"type_url": CDS, "error_detail": {"message": "no"}}),
)
def xds_request(data: bytes) -> None:
    _discovery(False, data)


@target(
    xds_wire.encode(
        "service.discovery.v3.DeltaDiscoveryRequest",
        {"node": _NODE, "type_url": CDS, "resource_names_subscribe": ["*"], "initial_resource_versions": {"a": "1"}},
    )
)
def xds_difference(data: bytes) -> None:
    _discovery(True, data)
