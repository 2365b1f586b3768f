"""HTTP/2 as bytes, both roles, without I/O (RFC 9113), on the library h2.

A head becomes the same RequestHead or ResponseHead as an HTTP/1 one: its HTTP/1.1 text is made, and read by the strict
codec of http1.py, so that nothing passes here that would be refused there, and a downgrade can inject nothing. Sending
is the reverse. What a peer may make us do for nothing is bounded by two budgets (Http2Limits). The handler's methods
are called during `receive`: head, interim, data, trailers, reset, writable, goaway, pong, settings_changed.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from hpack import NeverIndexedHeaderTuple
from hyperframe.frame import GoAwayFrame
from msgspec import Struct

from .headers import REASON_PHRASES
from .http1 import RequestParser, ResponseParser
from .message import ProtocolError, RequestHead, ResponseHead

# Error codes, RFC 9113 section 7.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED = 7, 8, 11, 13
_PIECE = 16 * 1024
"""Octets read before the budgets are looked at again."""
_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"host"})
_SENSITIVE = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"})


class Http2Limits(Struct, frozen=True):
    max_concurrent: int = 100
    """Streams that a client may have open at a time (the floor that RFC 9113 section 6.5.2 recommends)."""
    stream_window: int = 256 * 1024
    """Octets of one stream's body that we take before the other side has taken them."""
    connection_window: int = 1024 * 1024
    max_head: int = 60 * 1024
    """Octets of a head, uncompressed (SETTINGS_MAX_HEADER_LIST_SIZE)."""
    resets: int = 500
    """Streams reset, by the peer or for its faults, more than ended well (rapid reset, CVE-2023-44487)."""
    controls: int = 2000
    """Frames that move nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA); 20 more for each that does."""


class Http2Error(Exception):
    """The peer broke the protocol; GOAWAY is in the output, and the connection must be closed. `str()`: why."""

    def __init__(self, why: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(why)
        self.code = code


class Stream:
    """One stream; `owner` is the handler's."""

    def __init__(self, number: int, method: str = "", owner: Any = None) -> None:
        self.id = number
        self.owner = owner
        self.method = method
        self.queue: deque[tuple[bytes, list[Any] | None, bool]] = deque()
        """(data, trailers, last) that wait for the peer's windows."""
        self.queued = 0
        self.unconsumed = 0
        self.local_closed = False
        self.remote_closed = False


class _Connection(h2.connection.H2Connection):
    """h2's connection, on which streams go on after a GOAWAY, as RFC 9113 section 6.8 wants."""

    def _receive_goaway_frame(self, frame: Any) -> Any:
        event = h2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]


class Http2:
    """One connection. `output()` is what is to be written now."""

    def __init__(self, handler: Any, client: bool, limits: Http2Limits | None = None) -> None:
        self.handler = handler
        self.client = client
        self.limits = limits or Http2Limits()
        config = h2.config.H2Configuration(
            client_side=client, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._h2 = _Connection(config)
        self.streams: dict[int, Stream] = {}
        self.peer_settings_seen = False
        self.goaway_sent = False
        self.goaway_received = False
        self._last_id = 0
        self._resets = 0
        self._controls = 0
        self._own = b""
        self._dead = False

    @property
    def peer_max_concurrent(self) -> int:
        return int(self._h2.remote_settings.max_concurrent_streams)

    @property
    def queued(self) -> int:
        return sum(stream.queued for stream in self.streams.values())

    @property
    def active(self) -> int:
        return len(self.streams)

    # --- both roles

    def start(self) -> None:
        codes = h2.settings.SettingCodes
        values = {
            codes.INITIAL_WINDOW_SIZE: self.limits.stream_window,
            codes.MAX_HEADER_LIST_SIZE: self.limits.max_head,
            codes.ENABLE_PUSH: 0,
        }
        if not self.client:
            del values[codes.ENABLE_PUSH]
            values[codes.MAX_CONCURRENT_STREAMS] = self.limits.max_concurrent
        self._h2.local_settings = h2.settings.Settings(client=self.client, initial_values=values)
        self._h2.max_inbound_frame_size = self._h2.local_settings.max_frame_size
        self._h2.decoder.max_header_list_size = self.limits.max_head
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(self.limits.connection_window - 65535)

    def output(self) -> bytes:
        data: bytes = self._h2.data_to_send() + self._own
        self._own = b""
        return data

    def receive(self, data: bytes) -> None:
        """Take what the connection read; raises Http2Error."""
        for at in range(0, len(data), _PIECE):
            if self._dead:
                return
            try:
                events = self._h2.receive_data(data[at : at + _PIECE])
            except h2.exceptions.DenialOfServiceError as error:
                raise self._broken(str(error), ENHANCE_YOUR_CALM) from None
            except h2.exceptions.ProtocolError as error:
                raise self._broken(str(error) or type(error).__name__, int(error.error_code)) from None
            for event in events:
                self._event(event)
            if self._resets > self.limits.resets:
                raise self._broken(f"more than {self.limits.resets} streams were reset", ENHANCE_YOUR_CALM)
            if self._controls > self.limits.controls:
                raise self._broken(f"more than {self.limits.controls} frames that move nothing", ENHANCE_YOUR_CALM)

    def _broken(self, why: str, code: int) -> Http2Error:
        self._dead = True
        if not self.goaway_sent or code:
            self.shutdown(code)
        return Http2Error(why, code)

    def send(self, stream: Stream, data: bytes, end: bool) -> None:
        """Send body octets, as the peer's windows allow; what they don't waits (`stream.queued`)."""
        self._queue(stream, data, None, end)

    def send_trailers(self, stream: Stream, block: bytes) -> None:
        """`block`: lines `name: value`, each with its CRLF. Ends the stream."""
        self._queue(stream, b"", _fields(block), True)

    def _queue(self, stream: Stream, data: bytes, trailers: list[Any] | None, last: bool) -> None:
        if stream.id in self.streams and not stream.local_closed:
            stream.queue.append((data, trailers, last))
            stream.queued += len(data)
            self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        waited = stream.queued
        connection = self._h2
        try:
            while stream.queue:
                data, trailers, last = stream.queue[0]
                if trailers is not None:
                    connection.send_headers(stream.id, trailers, end_stream=True)
                else:
                    room = min(connection.local_flow_control_window(stream.id), connection.max_outbound_frame_size)
                    if len(data) > room:
                        if room <= 0:
                            break
                        connection.send_data(stream.id, data[:room])
                        stream.queue[0] = (data[room:], None, last)
                        stream.queued -= room
                        self._moved()
                        continue
                    connection.send_data(stream.id, data, end_stream=last)
                    self._moved()
                stream.queued -= len(data)
                stream.queue.popleft()
                if last:
                    stream.local_closed = True
                    self._close_if_done(stream)
        except h2.exceptions.ProtocolError:  # the stream ended under us: its reset is told by its event
            stream.queue.clear()
            stream.queued = 0
        if waited and not stream.queued:
            self.handler.writable(stream)

    def reset(self, stream: Stream, code: int) -> None:
        """RST_STREAM; what is queued is forgotten."""
        if self.streams.pop(stream.id, None) is None:
            return
        stream.queue.clear()
        stream.queued = 0
        try:
            if stream.unconsumed:  # the connection's window must not shrink by what nobody will take
                self._h2.acknowledge_received_data(stream.unconsumed, stream.id)
                stream.unconsumed = 0
            self._h2.reset_stream(stream.id, code)
        except h2.exceptions.ProtocolError:
            pass  # it has ended already

    def consumed(self, stream: Stream, octets: int) -> None:
        """Received octets were passed on: the peer may send as many more."""
        octets = min(octets, stream.unconsumed)
        if octets > 0:
            stream.unconsumed -= octets
            try:
                self._h2.acknowledge_received_data(octets, stream.id)
            except h2.exceptions.ProtocolError:
                pass  # the stream has ended; h2 counts for the connection first

    def shutdown(self, code: int = NO_ERROR) -> None:
        """GOAWAY; streams that there are go on, new ones are refused."""
        self.goaway_sent = True
        frame = GoAwayFrame(0)
        frame.last_stream_id = self._last_id
        frame.error_code = code
        self._own += self._h2.data_to_send() + frame.serialize()

    def ping(self, payload: bytes) -> None:
        self._h2.ping(payload)

    # --- the server's side, the client's side

    def respond(self, stream: Stream, text: bytes, end: bool) -> None:
        """A response's head as HTTP/1.1 text; also 1xx, with `end` false."""
        if stream.id not in self.streams or stream.local_closed:
            return
        line, _, rest = text.partition(b"\r\n")
        self._send_head(stream, [(b":status", line[9:12]), *_fields(rest)], end)

    def open(self, text: bytes, scheme: str, end: bool, owner: Any) -> Stream:
        """A new stream with this request's head, HTTP/1.1 text."""
        line, _, rest = text.partition(b"\r\n")
        method, _, target = line.partition(b" ")
        path = target.rpartition(b" ")[0]
        authority = next(
            (field.partition(b":")[2].strip() for field in rest.split(b"\r\n") if field[:5].lower() == b"host:"), b""
        )
        number = self._h2.get_next_available_stream_id()
        stream = self.streams[number] = Stream(number, method.decode("ascii"), owner)
        pseudo = [(b":method", method), (b":scheme", scheme.encode()), (b":authority", authority), (b":path", path)]
        self._send_head(stream, [*pseudo, *_fields(rest)], end)
        return stream

    def _send_head(self, stream: Stream, fields: list[Any], end: bool) -> None:
        try:
            self._h2.send_headers(stream.id, fields, end_stream=end)
        except h2.exceptions.ProtocolError:
            return  # the stream ended under us: its reset is told by its event
        self._moved()
        if end:
            stream.local_closed = True
            self._close_if_done(stream)

    # --- what came

    def _moved(self) -> None:
        self._controls = max(0, self._controls - 20)

    def _close_if_done(self, stream: Stream) -> None:
        if stream.local_closed and stream.remote_closed and self.streams.pop(stream.id, None) is not None:
            self._resets = max(0, self._resets - 1)

    def _event(self, event: Any) -> None:
        events = h2.events
        if isinstance(event, events.DataReceived):
            self._data(event)
        elif isinstance(event, events.RequestReceived):
            self._request(event)
        elif isinstance(event, events.ResponseReceived | events.InformationalResponseReceived):
            self._response(event)
        elif isinstance(event, events.TrailersReceived):
            self._trailers(event)
        elif isinstance(event, events.StreamReset):
            self._resets += 1
            stream = self.streams.pop(event.stream_id, None)
            if stream is not None:
                stream.queue.clear()
                stream.queued = 0
                self.handler.reset(stream, int(event.error_code), "")
        elif isinstance(event, events.WindowUpdated):
            self._controls += 1
            self._pump_all(event.stream_id)
        elif isinstance(event, events.RemoteSettingsChanged):
            self._controls += 1
            self.peer_settings_seen = True
            self.handler.settings_changed()
            self._pump_all(0)
        elif isinstance(event, events.PingReceived | events.PriorityUpdated | events.SettingsAcknowledged):
            self._controls += 1
        elif isinstance(event, events.PingAckReceived):
            self.handler.pong(event.ping_data)
        elif isinstance(event, events.ConnectionTerminated):
            self.goaway_received = True
            self.handler.goaway(event.last_stream_id or 0, int(event.error_code or 0), event.additional_data or b"")

    def _pump_all(self, number: int | None) -> None:
        if number:
            stream = self.streams.get(number)
            if stream is not None:
                self._pump(stream)
            return
        for stream in list(self.streams.values()):
            if stream.queue:
                self._pump(stream)

    def _data(self, event: Any) -> None:
        stream = self.streams.get(event.stream_id)
        ended = event.stream_ended is not None
        given = event.flow_controlled_length if stream is None else event.flow_controlled_length - len(event.data)
        if given:  # padding, and what nobody waits for
            try:
                self._h2.acknowledge_received_data(given, event.stream_id)
            except h2.exceptions.ProtocolError:
                pass  # the stream has ended
        if event.data:
            self._moved()
        elif not ended:
            self._controls += 1
        if stream is None:
            return
        stream.unconsumed += len(event.data)
        if ended:
            stream.remote_closed = True
        self.handler.data(stream, event.data, ended)
        if ended:
            self._close_if_done(stream)

    def _fault(self, stream: Stream, code: int, why: str, told: bool) -> None:
        """The peer's fault in one stream: it is reset, and counted."""
        self._resets += 1
        self.reset(stream, code)
        if told:
            self.handler.reset(stream, code, why)

    def _request(self, event: Any) -> None:
        self._moved()
        stream = self.streams[event.stream_id] = Stream(event.stream_id)
        if self.goaway_sent:
            self._fault(stream, REFUSED_STREAM, "", False)
            return
        self._last_id = event.stream_id
        ended = event.stream_ended is not None
        try:
            head = _request_head(event.headers, ended)
        except ProtocolError as error:
            self._fault(stream, HTTP_1_1_REQUIRED if error.status == 501 else PROTOCOL_ERROR, str(error), False)
            return
        stream.method = head.method
        stream.remote_closed = ended
        self.handler.head(stream, head, ended)

    def _response(self, event: Any) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        self._moved()
        interim = isinstance(event, h2.events.InformationalResponseReceived)
        ended = not interim and event.stream_ended is not None
        try:
            head = _response_head(event.headers, stream.method, ended)
        except ProtocolError as error:
            self._fault(stream, PROTOCOL_ERROR, str(error), True)
            return
        if interim:
            self.handler.interim(stream, head)
            return
        stream.remote_closed = ended
        self.handler.head(stream, head, ended)
        if ended:
            self._close_if_done(stream)

    def _trailers(self, event: Any) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        try:
            block = _text(event.headers)
        except ProtocolError as error:
            self._fault(stream, PROTOCOL_ERROR, str(error), True)
            return
        stream.remote_closed = True
        self.handler.trailers(stream, block)
        self._close_if_done(stream)


def _fields(text: bytes) -> list[Any]:
    """Header lines as HPACK takes them, without what belongs to a connection (RFC 9113 section 8.2.2)."""
    found: list[Any] = []
    for line in text.split(b"\r\n"):
        if line:
            name, _, value = line.partition(b":")
            name, value = name.lower(), value.strip(b" \t")
            if name in _HOP or (name == b"te" and value.lower() != b"trailers"):
                continue
            found.append(NeverIndexedHeaderTuple(name, value) if name in _SENSITIVE else (name, value))
    return found


def _text(headers: Any) -> bytes:
    """Regular fields as header lines; cookies joined (RFC 9113 section 8.2.3). Raises ProtocolError."""
    lines = []
    cookies = []
    for name, value in headers:
        if name[:1] == b":":
            continue
        if not name or b":" in name or name != name.lower() or any(c in b"\r\n\0" for c in name + value):
            raise ProtocolError("a field with octets that no field may have")
        if name in _HOP and name != b"host":
            raise ProtocolError(f"the field {name.decode('latin-1')} belongs to HTTP/1 connections")
        if name == b"cookie":
            cookies.append(value)
        else:
            lines.append(name + b": " + value + b"\r\n")
    if cookies:
        lines.append(b"cookie: " + b"; ".join(cookies) + b"\r\n")
    return b"".join(lines)


def _request_head(headers: Any, ended: bool) -> RequestHead:
    pseudo = {name: value for name, value in headers if name[:1] == b":"}
    method, path, authority = pseudo.get(b":method", b""), pseudo.get(b":path", b""), pseudo.get(b":authority")
    if b":protocol" in pseudo:
        raise ProtocolError("extended CONNECT (RFC 8441) is not offered", status=501)
    if method != b"CONNECT" and pseudo.get(b":scheme") not in (b"http", b"https"):
        raise ProtocolError(":scheme is neither http nor https")
    if method != b"CONNECT" and path[:1] != b"/" and (path, method) != (b"*", b"OPTIONS"):
        raise ProtocolError(":path begins with no `/`")
    hosts = [value for name, value in headers if name == b"host"]
    if authority is None:
        authority = hosts[0] if hosts else b""
    if any(host.lower() != authority.lower() for host in hosts) or len(hosts) > 1:
        raise ProtocolError(":authority and Host differ")
    if any(c in b"\r\n\0 " for c in method + authority + path):
        raise ProtocolError("a pseudo-header with octets that it may not have")
    fields = _text([field for field in headers if field[0] != b"host"])
    parser = RequestParser()
    parser.feed(method + b" " + (path or authority) + b" HTTP/1.1\r\nhost: " + authority + b"\r\n" + fields + b"\r\n")
    head = parser.read_head()
    if head is None:
        raise ProtocolError("the head is not whole")
    head.major = 2
    head.chunked = not ended and head.content_length < 0
    return head


def _response_head(headers: Any, method: str, ended: bool) -> ResponseHead:
    status = next((value for name, value in headers if name == b":status"), b"")
    parser = ResponseParser()
    parser.expect(method)
    phrase = REASON_PHRASES.get(int(status) if status.isdigit() and len(status) == 3 else 0, "")
    parser.feed(b"HTTP/1.1 %b %b\r\n" % (status[:8], phrase.encode()) + _text(headers) + b"\r\n")
    head = parser.read_head()
    if head is None or head.status == 101:
        raise ProtocolError("a status that HTTP/2 does not have")
    head.major = 2
    head.until_close = False
    head.keep_alive = True
    head.chunked = not ended and head.content_length < 0
    return head
