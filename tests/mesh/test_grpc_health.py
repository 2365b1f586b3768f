"""The client of grpc.health.v1 against an independent codec, byte by byte, and against what servers get wrong."""

from __future__ import annotations

import pytest

from fairlead.mesh.grpc_health import HealthCall, request_message, status_of
from tests.proxy.two import Peer


def answer(call: HealthCall, status: int | None, code: str = "0", message: str = "") -> None:
    """Let an HTTP/2 server answer the call with this ServingStatus and grpc-status."""
    peer = Peer(client=False)
    peer.receive(call.output())
    head = [(":status", "200"), ("content-type", "application/grpc")]
    end = [("grpc-status", code), ("grpc-message", message)]
    if status is None:
        peer.wire.send_headers(1, head + end, end_stream=True)
    else:
        peer.wire.send_headers(1, head)
        body = bytes((8, status)) if status else b""
        peer.wire.send_data(1, b"\0" + len(body).to_bytes(4, "big") + body)
        peer.wire.send_headers(1, end, end_stream=True)
    for octet in peer.take():
        call.receive(bytes((octet,)))


def test_the_request_is_that_of_the_health_protocol() -> None:
    call = HealthCall("my.Service", "10.0.0.1:50051", False)
    peer = Peer(client=False)
    peer.receive(call.output())
    head = peer.heads[1]
    assert (head[":method"], head[":path"]) == ("POST", "/grpc.health.v1.Health/Check")
    assert (head[":authority"], head["te"], head["content-type"]) == ("10.0.0.1:50051", "trailers", "application/grpc")
    assert peer.bodies[1] == b"\0\0\0\0\x0c\x0a\x0amy.Service"
    assert 1 in peer.ended
    assert request_message("") == b"\0\0\0\0\0"
    assert request_message("x" * 200)[5:8] == b"\x0a\xc8\x01"


@pytest.mark.parametrize(
    ("status", "code", "message", "result"),
    [
        (1, "0", "", (True, "SERVING")),
        (2, "0", "", (False, "NOT_SERVING")),
        (0, "0", "", (False, "UNKNOWN")),
        (9, "0", "", (False, "9")),
        (None, "5", "", (False, "gRPC status 5: the server knows no service")),
        (None, "12", "", (False, "gRPC status 12: the server does not have grpc.health.v1.Health")),
        (None, "14", "not%20yet", (False, "gRPC status 14: not yet")),
        (None, "0", "", (False, "the answer is not one uncompressed message")),
        (None, "x", "", (False, "the answer has no grpc-status: not a gRPC server")),
    ],
)
def test_what_the_server_says_is_the_result(status: int | None, code: str, message: str, result: object) -> None:
    call = HealthCall("", "a:1", False)
    answer(call, status, code, message)
    assert call.result == result


def test_a_service_is_named_in_the_words() -> None:
    call = HealthCall("db", "a:1", False)
    answer(call, 2)
    assert call.result == (False, "service 'db' is NOT_SERVING")


def test_what_is_no_grpc_server_is_told_as_that() -> None:
    call = HealthCall("", "a:1", False)
    call.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert call.result is not None
    assert "not a gRPC server" in call.result[1]
    call = HealthCall("", "a:1", False)
    peer = Peer(client=False)
    peer.receive(call.output())
    peer.wire.send_headers(1, [(":status", "404")], end_stream=True)
    call.receive(peer.take())
    assert call.result == (False, "HTTP status 404: not a gRPC server")
    call = HealthCall("", "a:1", False)
    call.closed()
    assert call.result == (False, "the server closed the connection without an answer")


def test_unknown_fields_of_the_answer_are_passed_over_and_broken_ones_refused() -> None:
    def framed(body: bytes) -> bytes:
        return b"\0" + len(body).to_bytes(4, "big") + body

    assert status_of(framed(b"\x12\x03abc\x08\x01\x19" + bytes(8) + b"\x25" + bytes(4))) == 1
    for broken in (
        b"",
        b"\0\0\0\0\5\x08",
        b"\1\0\0\0\2\x08\x01",
        framed(b"\x08"),
        framed(b"\x12\x09a"),
        framed(b"\x0b"),
    ):
        with pytest.raises(ValueError, match="answer"):
            status_of(broken)
