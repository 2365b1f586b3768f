"""Tests of proxy/hpack.py and proxy/huffman.py: the RFC's examples, and the hpack package as the other side."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.proxy import hpack as built
from fairlead.proxy import huffman as built_huffman
from tests.proxy.plain import plain

oracle: Any = hpack
BOTH = pytest.mark.parametrize("codec", [built, plain("hpack")], ids=["built", "plain"])
BOTH_HUFFMAN = pytest.mark.parametrize("huffman", [built_huffman, plain("huffman")], ids=["built", "plain"])
NGINX = bytes.fromhex(
    "887690aa69d29ae452a9a74a6b13015db12e0f5889a47e561cc5819700"
    "0f6197e4593e94136a693f75040138a059b8cb771a694c5a37ff0f0d8513efbef01e"
)
"""What a server sent: numbers of two octets, one of them 0."""


def pairs(fields: list[Any]) -> list[tuple[bytes, bytes]]:
    return [(field.name, field.value) for field in fields]


# RFC 7541 appendix C: (blocks on one connection, the last one's fields, the table's size after it).
EXAMPLES: list[tuple[str, list[str], list[tuple[str, str]]]] = [
    ("C.2.1", ["400a637573746f6d2d6b65790d637573746f6d2d686561646572"], [("custom-key", "custom-header")]),
    ("C.2.2", ["040c2f73616d706c652f70617468"], [(":path", "/sample/path")]),
    ("C.2.3", ["100870617373776f726406736563726574"], [("password", "secret")]),
    ("C.2.4", ["82"], [(":method", "GET")]),
    (
        "C.3",
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ],
    ),
    (
        "C.4",
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
        [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ],
    ),
]


@BOTH
@pytest.mark.parametrize(("name", "blocks", "last"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_the_examples_of_the_rfc_are_read(
    codec: ModuleType, name: str, blocks: list[str], last: list[tuple[str, str]]
) -> None:
    decoder = codec.Decoder()
    for block in blocks:
        fields = decoder.decode(bytes.fromhex(block))
    assert pairs(fields) == [(one.encode(), other.encode()) for one, other in last]


@BOTH
def test_responses_of_the_rfc_are_read_while_the_table_evicts(codec: ModuleType) -> None:
    """Appendix C.6, with a table of 256 octets."""
    decoder = codec.Decoder(256)
    blocks = [
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f367"
        "2c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ]
    for block in blocks:
        fields = decoder.decode(bytes.fromhex(block))
    assert pairs(fields) == [
        (b":status", b"200"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
        (b"location", b"https://www.example.com"),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ]


@BOTH
def test_numbers_of_several_octets_are_read_also_where_one_is_zero(codec: ModuleType) -> None:
    assert pairs(codec.Decoder().decode(NGINX)) == [
        (name.encode(), value.encode()) for name, value in oracle.Decoder().decode(NGINX)
    ]


@BOTH
def test_a_block_that_is_cut_is_refused_or_says_less(codec: ModuleType) -> None:
    whole = pairs(codec.Decoder().decode(NGINX))
    for cut in range(len(NGINX)):
        try:
            fields = pairs(codec.Decoder().decode(NGINX[:cut]))
        except codec.HpackError:
            continue
        assert fields == whole[: len(fields)]
        assert len(fields) < len(whole)


MALFORMED = {
    "the index 0": "80",
    "an index beyond the tables": "be",
    "an index far beyond": "ffffffff07",
    "a number without end": "ff8080808080808080808001",
    "a number that ends": "ffff",
    "a string longer than the block": "400a61",
    "a string of 2^28 octets": "407fffffff7f61",
    "no value": "4001 61",
    "a table larger than was allowed": "3fe29f1f",
    "a change of the table's size after a field": "8220",
    "padding of eight bits": "4001 61 82 07ff",
    "padding that is not ones": "4001 61 81 00",
    "the end of a string within it": "4001 61 85 fffffffff0",
    "a name from beyond the table": "7e0161",
}


@BOTH
@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_hpack_is_refused(codec: ModuleType, name: str) -> None:
    with pytest.raises(codec.HpackError) as raised:
        codec.Decoder().decode(bytes.fromhex(MALFORMED[name]))
    assert str(raised.value)


@BOTH
def test_a_list_that_is_too_large_is_told_and_the_table_stays_in_step(codec: ModuleType) -> None:
    encoder = oracle.Encoder()
    decoder = codec.Decoder(4096, 1000)
    assert decoder.decode(encoder.encode([("x-large", "y" * 2000), ("x-small", "1")])) == []
    assert decoder.too_large
    block = encoder.encode([("x-small", "1")])
    assert len(block) == 1
    assert pairs(decoder.decode(block)) == [(b"x-small", b"1")]
    assert not decoder.too_large


@BOTH
def test_an_entry_larger_than_the_table_empties_it(codec: ModuleType) -> None:
    decoder = codec.Decoder(100)
    decoder.decode(b"\x40\x01a\x01b")
    assert pairs(decoder.decode(b"\xbe")) == [(b"a", b"b")]
    decoder.decode(b"\x40\x01a\x7f\x00" + b"c" * 127)
    with pytest.raises(codec.HpackError):
        decoder.decode(b"\xbe")


BAD = [
    (b"", b"1"),
    (b"Upper", b"1"),
    (b"a:b", b"1"),
    (b"a b", b"1"),
    (b"a\r\n", b"1"),
    (b":unknown", b"1"),
    (b"\xc3\xa4", b"1"),
    (b"a", b"b\rc"),
    (b"a", b"b\nc"),
    (b"a", b"b\0c"),
    (b"a", b" b"),
    (b"a", b"b\t"),
    (b":path", b"/\r\n"),
    (b"cookie", b"a\r\n"),
    (b"connection", b"close"),
    (b"transfer-encoding", b"chunked"),
    (b"upgrade", b"h2c"),
    (b"keep-alive", b"1"),
    (b"proxy-connection", b"1"),
    (b"te", b"gzip"),
]


@BOTH
@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_field_that_no_head_may_have_is_bad_and_has_no_line(codec: ModuleType, name: bytes, value: bytes) -> None:
    field = codec.Field(name, value)
    assert field.kind == codec.BAD
    assert field.why
    assert field.line == b""


@BOTH
def test_a_plain_field_has_its_line(codec: ModuleType) -> None:
    for name, value in ((b"x-a", b"1"), (b"te", b"trailers"), (b"a", b""), (b"a", b"\xff b\tc"), (b"x_a", b"1")):
        field = codec.Field(name, value)
        assert (field.kind, field.line) == (codec.PLAIN, name + b": " + value + b"\r\n")
    assert codec.Field(b"host", b"web").kind == codec.HOST
    assert codec.Field(b":method", b"GET").line == b""


@BOTH
def test_a_line_sent_again_costs_one_octet_and_reads_the_same(codec: ModuleType) -> None:
    encoder, decoder = codec.Encoder(), oracle.Decoder()
    text = b"x-tenant: 42\r\nUser-Agent:  curl/8 \r\nAccept: */*\r\n\r\n"
    sizes = []
    for _ in range(3):
        encoder.field(b":method", b"GET")
        encoder.field(b":path", b"/")
        encoder.lines(text, 0)
        block = encoder.take()
        sizes.append(len(block))
        assert decoder.decode(block) == [
            (":method", "GET"),
            (":path", "/"),
            ("x-tenant", "42"),
            ("user-agent", "curl/8"),
            ("accept", "*/*"),
        ]
    assert sizes[1:] == [7, 7]  # the path is said each time


@BOTH
def test_lines_of_one_hop_are_left_out(codec: ModuleType) -> None:
    encoder = codec.Encoder()
    encoder.lines(
        b"Host: a\r\nConnection: x\r\nKeep-Alive: 1\r\nTransfer-Encoding: chunked\r\nTE: gzip\r\nUpgrade: h2c\r\n"
        b"Proxy-Connection: x\r\nte: trailers\r\nx: 1\r\n\r\nbody: no\r\n",
        0,
    )
    assert oracle.Decoder().decode(encoder.take()) == [("te", "trailers"), ("x", "1")]


@BOTH
@pytest.mark.parametrize("name", ["authorization", "cookie", "set-cookie", "proxy-authorization"])
def test_secrets_go_into_no_table(codec: ModuleType, name: str) -> None:
    encoder = codec.Encoder()
    for _ in range(2):
        encoder.lines(name.encode() + b": secret\r\n", 0)
        block = encoder.take()
        [field] = oracle.Decoder().decode(block)
        assert field == (name, "secret")
        assert not field.indexable
        assert len(block) > 5


@BOTH
def test_what_a_peer_kept_out_of_tables_is_kept_out_when_it_goes_on(codec: ModuleType) -> None:
    encoder = codec.Encoder()
    encoder.lines(b"x-api-key-of-this-test: 1\r\n", 0)
    encoder.take()
    [field] = codec.Decoder().decode(oracle.Encoder().encode([("x-api-key-of-this-test", "1", True)]))
    assert field.sensitive
    encoder.lines(b"x-api-key-of-this-test: 1\r\n", 0)
    [sent] = oracle.Decoder().decode(b"\x40\x16x-api-key-of-this-test\x011" + encoder.take())[1:]
    assert not sent.indexable


@BOTH
def test_the_peers_table_size_is_kept_and_said_also_when_it_shrank_between(codec: ModuleType) -> None:
    encoder, decoder = codec.Encoder(), oracle.Decoder()
    lines = b"".join(b"x-%d: %d\r\n" % (n, n) for n in range(20))
    encoder.lines(lines, 0)
    decoder.decode(encoder.take())
    encoder.resize(0)
    encoder.resize(200)
    encoder.lines(lines, 0)
    block = encoder.take()
    assert block[:4] == b"\x20\x3f\xa9\x01"
    assert len(decoder.decode(block)) == 20
    encoder.lines(lines, 0)
    assert len(decoder.decode(encoder.take())) == 20
    encoder.resize(1 << 30)
    encoder.lines(lines, 0)
    decoder.max_allowed_table_size = 1 << 30
    assert len(decoder.decode(encoder.take())) == 20


NAMES = st.one_of(
    st.sampled_from([b"x-a", b"cookie", b"date", b"accept", b"user-agent", b"content-length", b"x-request-id"]),
    st.from_regex(rb"\A[a-z][a-z0-9-]{0,20}\Z"),
).filter(lambda name: name not in (b"host", b"connection", b"upgrade", b"te"))
VALUES = st.binary(max_size=60).map(lambda value: value.translate(None, b"\r\n\0").strip(b" \t"))


@BOTH
@settings(max_examples=200, deadline=None)
@given(
    heads=st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=8), min_size=1, max_size=6), size=st.integers(0, 5000)
)
def test_what_we_write_another_reads_and_the_reverse(
    codec: ModuleType, heads: list[list[tuple[bytes, bytes]]], size: int
) -> None:
    encoder, reader = codec.Encoder(), oracle.Decoder(1 << 20)
    writer, decoder = oracle.Encoder(), codec.Decoder(4096, 1 << 20)
    encoder.resize(size)
    writer.header_table_size = min(size, 4096)
    for head in heads:
        encoder.lines(b"".join(name + b": " + value + b"\r\n" for name, value in head), 0)
        assert [tuple(field) for field in reader.decode(encoder.take(), raw=True)] == head
        assert pairs(decoder.decode(writer.encode(head))) == head


@BOTH_HUFFMAN
@settings(max_examples=300, deadline=None)
@given(text=st.binary(max_size=200))
def test_a_string_in_huffmans_code_is_the_string_again_and_as_another_writes_it(
    huffman: ModuleType, text: bytes
) -> None:
    coded = huffman.huffman_encode(text)
    assert huffman.huffman_decode(coded, 0, len(coded)) == text
    from hpack.huffman_table import decode_huffman

    assert decode_huffman(coded) == text


@BOTH_HUFFMAN
@settings(max_examples=500, deadline=None)
@given(coded=st.binary(max_size=40))
def test_any_octets_are_read_as_another_reads_them(huffman: ModuleType, coded: bytes) -> None:
    from hpack.exceptions import HPACKDecodingError
    from hpack.huffman_table import decode_huffman

    try:
        expected = decode_huffman(coded)
    except HPACKDecodingError:
        expected = None
    got = huffman.huffman_decode(coded, 0, len(coded))
    if expected is None or got is not None:
        assert got == expected
    else:  # the other does not count the padding's bits
        tail = int.from_bytes(coded[-2:], "big")
        assert tail & 0xFF == 0xFF


@BOTH
@settings(max_examples=500, deadline=None)
@given(block=st.binary(max_size=60))
def test_any_block_is_read_or_refused_as_another_does(codec: ModuleType, block: bytes) -> None:
    try:
        expected = [tuple(field) for field in oracle.Decoder(1 << 20).decode(block, raw=True)]
    except oracle.HPACKError:
        expected = None
    try:
        got = pairs(codec.Decoder(4096, 1 << 20).decode(block))
    except codec.HpackError:
        got = None
    if got is not None:
        assert got == expected


@BOTH
def test_a_name_that_is_learnt_to_be_sensitive_leaves_no_value_of_it_in_the_cache(codec: ModuleType) -> None:
    plain = b"\x00\x09x-learnt1\x01v"
    decoder = codec.Decoder()
    assert decoder.decode(plain)[0] is decoder.decode(plain)[0], "it was cached before"
    decoder.decode(b"\x10\x09x-learnt1\x01w")
    assert decoder.decode(plain)[0] is not decoder.decode(plain)[0]
