"""One call of grpc.health.v1.Health/Check as the client of an HTTP/2 connection, without I/O.

Wire format after health.proto of grpc/grpc-proto and "gRPC over HTTP2": a message is a flag, its length in four octets,
and protobuf; HealthCheckRequest has `service` as field 1, HealthCheckResponse has `status` as field 1.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from ..proxy.http2 import Http2, Http2Error
from ..proxy.message import ResponseHead

STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
ANSWER_MOST = 4096
UNIMPLEMENTED = 12
NOT_FOUND = 5


def request_message(service: str) -> bytes:
    """HealthCheckRequest in its frame."""
    name = service.encode()
    body = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(body).to_bytes(4, "big") + body


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes((*made, number))


def status_of(data: bytes) -> int:
    """The status in a framed HealthCheckResponse; raises ValueError for what is none."""
    if len(data) < 5 or data[0] != 0 or int.from_bytes(data[1:5], "big") != len(data) - 5:
        raise ValueError("the answer is not one uncompressed message")
    at, status = 5, 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _read_varint(data, at)
            status = value if tag >> 3 == 1 else status
        elif kind == 2:
            length, at = _read_varint(data, at)
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("the answer is not protobuf")
        if at > len(data):
            raise ValueError("the answer is cut short")
    return status


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 64:
        number |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return number, at
    raise ValueError("the answer is cut short")


class HealthCall:
    """Feed what is read to `receive`, write what `output` gives; `result` is (passed, words) once it is known."""

    def __init__(self, service: str, authority: str, tls: bool) -> None:
        self.result: tuple[bool, str] | None = None
        self._service = service
        self._data = b""
        self._codec = Http2(self, True)
        self._codec.start()
        text = (
            "POST /grpc.health.v1.Health/Check HTTP/1.1\r\n"
            f"host: {authority}\r\ncontent-type: application/grpc\r\nte: trailers\r\nuser-agent: fairlead\r\n\r\n"
        )
        self._stream = self._codec.open(text.encode(), "https" if tls else "http", False, self)
        self._codec.send(self._stream, request_message(service), True)

    def output(self) -> bytes:
        return self._codec.output()

    def receive(self, data: bytes) -> None:
        try:
            self._codec.receive(data)
        except Http2Error as error:
            self._end(False, f"not a gRPC server: {error}")

    def closed(self) -> None:
        """The connection ended."""
        self._end(False, "the server closed the connection without an answer")

    def _end(self, passed: bool, words: str) -> None:
        if self.result is None:
            self.result = (passed, words)

    def _ended(self, code: str | None, message: str) -> None:
        """The call is over, with grpc-status and grpc-message."""
        named = f" {self._service!r}" if self._service else ""
        if code is None or not code.isdigit():
            self._end(False, "the answer has no grpc-status: not a gRPC server")
        elif code != "0":
            hints = {UNIMPLEMENTED: "the server does not have grpc.health.v1.Health",
                     NOT_FOUND: f"the server knows no service{named}"}  # fmt: skip
            told = unquote(message) or hints.get(int(code), "")
            self._end(False, f"gRPC status {code}{': ' if told else ''}{told}")
        else:
            try:
                status = status_of(self._data)
            except ValueError as error:
                self._end(False, str(error))
                return
            name = STATUSES[status] if status < len(STATUSES) else str(status)
            self._end(status == 1, f"service{named} is {name}" if named else name)

    # --- the codec's calls

    def head(self, stream: Any, head: ResponseHead, end: bool) -> None:
        if head.status != 200:
            self._end(False, f"HTTP status {head.status}: not a gRPC server")
        elif end:
            self._ended(head.header("grpc-status"), head.header("grpc-message") or "")

    def data(self, stream: Any, data: bytes, end: bool) -> None:
        self._data += data
        if len(self._data) > ANSWER_MOST:
            self._end(False, "the answer is too large for one of grpc.health.v1")
        elif end:
            self._ended(None, "")

    def trailers(self, stream: Any, block: bytes) -> None:
        found = {}
        for line in block.decode("latin-1").split("\r\n"):
            name, _, value = line.partition(":")
            found[name.lower()] = value.strip()
        self._ended(found.get("grpc-status"), found.get("grpc-message", ""))

    def reset(self, stream: Any, code: int, why: str) -> None:
        self._end(False, f"the server reset the call with code {code}{': ' if why else ''}{why}")

    def goaway(self, last_id: int, code: int, debug: bytes) -> None:
        if code or last_id < self._stream.id:
            self._end(False, f"the server refused the connection with code {code}")

    def interim(self, stream: Any, head: ResponseHead) -> None: ...

    def writable(self, stream: Any) -> None: ...

    def pong(self, payload: bytes) -> None: ...

    def settings_changed(self) -> None: ...
