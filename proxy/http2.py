"""HTTP/2 as bytes, both roles, without I/O (RFC 9113).

Feed what the connection read to `receive`; the handler's methods are called meanwhile: head, interim, data, trailers,
reset, refused, writable, goaway, pong, settings_changed. Heads are text of HTTP/1.1 on both sides (http2_heads.py).
What a peer may make us do for nothing is bounded by two budgets (Http2Limits). Runs compiled (with http2.pxd) or
as it stands. Long because frames, windows and the states of streams are one machine.
"""

from __future__ import annotations

from collections import deque
from struct import Struct as Format
from typing import Any

from msgspec import Struct

from .hpack import Decoder, Encoder, HpackError
from .http2_heads import checked_trailers, request_head, response_head
from .message import ProtocolError

# Error codes, RFC 9113 section 7.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 5, 6, 7, 8, 9
ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED = 11, 13
# Types of frames (section 6) and their flags.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 32
# Settings (section 6.5.2).
TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT, INITIAL_WINDOW, MAX_FRAME, MAX_LIST = range(1, 7)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_MOST = 16384
"""Octets of a frame's payload that we take: the value that everybody starts with, and we keep."""
WINDOW_MOST = (1 << 31) - 1
BLOCK_FRAMES_MOST = 64
"""CONTINUATION frames of one head."""
LARGE_HEAD_COST = 50
"""A head beyond the limit counts as so many resets: a client's mistake is answered, an attack ends soon."""
INTERIMS_MOST = 16
SETTINGS_MOST = 64
"""Settings in one frame."""
PIECE = 2048
"""Octets of a payload that is worth a piece of its own in the output, and no copy."""
OURS_MOST = 128
"""Streams that we reset and remember: what was on its way to them is not answered."""
CONTROLS_A_SECOND, RESETS_A_SECOND = 10, 1
"""What budgets forgive with time: a stream may be quiet for hours, with a PING now and then."""
WORTH = 1024
"""Octets that a window must let through to count as something that moved (CVE-2019-9511)."""
_DEFAULT_WINDOW = 65535
_NUMBER = Format(">I")
_SETTING = Format(">HI")
_TWO = Format(">II")


class Http2Limits(Struct, frozen=True):
    max_concurrent: int = 100
    """Streams that a client may have open at a time (the floor that RFC 9113 section 6.5.2 recommends)."""
    stream_window: int = 64 * 1024
    """Octets of one stream's body that we take before the other side has taken them."""
    stream_window_most: int = 256 * 1024
    """The same, of a stream whose body is taken as it comes; all such together get `connection_window` more at most."""
    connection_window: int = 1024 * 1024
    """Octets that may be on their way. Given back when they have come, whoever takes them: no stream waits for the
    reader of another. What is held is bounded by the streams' windows."""
    max_head: int = 60 * 1024
    """Octets of a head, uncompressed (SETTINGS_MAX_HEADER_LIST_SIZE)."""
    resets: int = 500
    """Streams reset, by the peer or for its faults, more than ended well (rapid reset, CVE-2023-44487)."""
    controls: int = 2000
    """Frames that move nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA); 20 more for each that does, or
    three for DATA of less than WORTH."""


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
        self.queue: deque[tuple[bytes, bytes | None, bool]] | None = None
        """(data, trailer lines, last) that wait for the peer's windows."""
        self.offset = 0
        """Octets of the queue's first data that are sent."""
        self.queued = 0
        """Octets of data that wait."""
        self.unconsumed = 0
        """Octets of data received that nobody has taken further."""
        self.unasked = 0
        """Octets taken further for which the peer's window was not opened again."""
        self.window_in = 0
        """Octets that the peer may send."""
        self.window_most = 0
        """What that is after everything was taken further."""
        self.extra = 0
        """Octets that we may send, less the peer's initial window (which may change under us)."""
        self.left = -1
        """Octets of the body that content-length promises; -1: it does not say."""
        self.interims = 0
        self.headed = False
        """Its head (of a response: the final one) has come."""
        self.local_closed = False
        self.remote_closed = False
        self.gone = False
        """Ended or reset: the connection no longer knows it."""


class Http2:
    """One connection. `output()` is what is to be written now."""

    def __init__(self, handler: Any, client: bool, limits: Http2Limits | None = None) -> None:
        self.handler = handler
        self.client = client
        self.limits = limits or Http2Limits()
        self.streams: dict[int, Stream] = {}
        self.queued = 0
        """Octets of data that wait for windows."""
        self.peer_max_concurrent = WINDOW_MOST
        self.peer_settings_seen = False
        self.goaway_sent = False
        self.goaway_received = False
        self._decoder = Decoder(4096, self.limits.max_head)
        self._encoder = Encoder(4096)
        self._out = bytearray()
        self.pending = 0
        """Octets of larger pieces in the output."""
        self._pieces: list[bytes] = []
        """What is before it, in larger pieces."""
        self._rest = b""
        self._preface = not client
        """The client's preface is to come."""
        self._dead = False
        self._acked = False
        """The peer knows our settings."""
        self._next_id = 1
        self._highest = 0
        """Of the peer's streams."""
        self._last_id = 0
        """Of those that we took on."""
        self._resets = 0
        self._ours: dict[int, int] = {}
        """Streams that we reset before the peer had ended them, the oldest first: what it may still send of each."""
        self._controls = 0
        self._forgiven = 0.0
        self._block: list[bytes] = []
        self._block_of = 0
        """The stream whose head is not whole; 0: none."""
        self._block_size = 0
        self._block_ends = False
        self._blocked: dict[int, Stream] = {}
        """Streams with something in their queues."""
        self._window_in = self.limits.connection_window
        self._unasked = 0
        self._half = self.limits.connection_window // 2
        self._stream_window = self.limits.stream_window
        self._more = max(0, self.limits.stream_window_most - self._stream_window)
        self._grown = 0
        """Streams whose windows are wider by `_more`."""
        self._grown_most = self.limits.connection_window // self._more if self._more else 0
        self._pings = 0
        """Of ours, without an answer."""
        self._window_out = _DEFAULT_WINDOW
        self._initial_out = _DEFAULT_WINDOW
        self._frame_out = FRAME_MOST
        self._resets_most = self.limits.resets
        self._controls_most = self.limits.controls

    @property
    def active(self) -> int:
        return len(self.streams)

    # --- both roles

    def start(self) -> None:
        limits = self.limits
        settings = _SETTING.pack(INITIAL_WINDOW, limits.stream_window) + _SETTING.pack(MAX_LIST, limits.max_head)
        if self.client:
            self._out += PREFACE
            settings += _SETTING.pack(ENABLE_PUSH, 0)
        else:
            settings += _SETTING.pack(MAX_CONCURRENT, limits.max_concurrent)
        self._frame(SETTINGS, 0, 0, settings)
        if limits.connection_window > _DEFAULT_WINDOW:
            self._frame(WINDOW_UPDATE, 0, 0, _NUMBER.pack(limits.connection_window - _DEFAULT_WINDOW))

    def output(self) -> bytes:
        out = self._out
        pieces = self._pieces
        data = bytes(out)
        out.clear()
        if pieces:
            pieces.append(data)
            data = b"".join(pieces)
            pieces.clear()
            self.pending = 0
        return data

    def receive(self, data: bytes) -> None:
        """Take what the connection read; raises Http2Error."""
        if self._dead:
            return
        if self._rest:
            data = self._rest + data
            self._rest = b""
        size = len(data)
        at = 0
        if self._preface:
            if data[:24] != PREFACE[:size]:
                raise self._broken("the client's connection preface is not HTTP/2's", PROTOCOL_ERROR)
            if size < 24:
                self._rest = data
                return
            self._preface = False
            at = 24
        octets = data  # compiled: a pointer
        while size - at >= 9:
            length = (octets[at] << 16) | (octets[at + 1] << 8) | octets[at + 2]
            if length > FRAME_MOST:
                raise self._broken(f"a frame of {length} octets; the most is {FRAME_MOST}", FRAME_SIZE_ERROR)
            start = at + 9
            if size - start < length:
                break
            kind = octets[at + 3]
            flags = octets[at + 4]
            number = ((octets[at + 5] & 127) << 24) | (octets[at + 6] << 16) | (octets[at + 7] << 8) | octets[at + 8]
            at = start + length
            self._take(kind, flags, number, data, start, at)
            if self._dead:
                return
        if at < size:
            self._rest = data[at:] if at else data

    def _take(self, kind: int, flags: int, number: int, data: bytes, start: int, stop: int) -> None:
        """One frame; its payload is data[start:stop]."""
        if self._block_of and (kind != CONTINUATION or number != self._block_of):
            raise self._broken("a head is interrupted by another frame", PROTOCOL_ERROR)
        if not self.peer_settings_seen and (kind != SETTINGS or flags & ACK):
            raise self._broken("the first frame is not SETTINGS", PROTOCOL_ERROR)
        if kind == DATA:
            self._take_data(flags, number, data, start, stop)
        elif kind == HEADERS:
            self._take_headers(flags, number, data, start, stop)
        elif kind == WINDOW_UPDATE:
            self._take_window(number, data[start:stop])
        elif kind == SETTINGS:
            self._take_settings(flags, number, data[start:stop])
        elif kind == RST_STREAM:
            self._take_reset(number, data[start:stop])
        elif kind == PING:
            self._take_ping(flags, number, data[start:stop])
        elif kind == CONTINUATION:
            self._take_continuation(flags, data[start:stop])
        elif kind == GOAWAY:
            self._take_goaway(number, data[start:stop])
        elif kind == PUSH_PROMISE:
            raise self._broken("PUSH_PROMISE, which nobody may send here", PROTOCOL_ERROR)
        else:
            if kind == PRIORITY and number == 0:
                raise self._broken("PRIORITY of stream 0", PROTOCOL_ERROR)
            if kind == PRIORITY and stop - start != 5:
                raise self._broken("PRIORITY has not 5 octets", FRAME_SIZE_ERROR)
            self._moves_nothing()  # what is unknown is ignored (section 5.5)

    def _broken(self, why: str, code: int) -> Http2Error:
        """The connection is over; the error is to be raised."""
        self._dead = True
        self.shutdown(code)
        return Http2Error(why, code)

    def _moves_nothing(self) -> None:
        self._controls += 1
        if self._controls > self._controls_most:
            raise self._broken(f"more than {self._controls_most} frames that move nothing", ENHANCE_YOUR_CALM)

    def _moved(self) -> None:
        self._forgive(20)

    def _forgive(self, controls: int) -> None:
        self._controls = self._controls - controls if self._controls > controls else 0

    def _count_resets(self, cost: int) -> None:
        self._resets += cost
        if self._resets > self._resets_most:
            raise self._broken(f"more than {self._resets_most} streams were reset", ENHANCE_YOUR_CALM)

    def _is_idle(self, number: int) -> bool:
        """Whether nobody has opened this stream yet."""
        if self.client:
            return number & 1 == 0 or number >= self._next_id
        return number & 1 == 0 or number > self._highest

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        out = self._out
        length = len(payload)
        out.append(length >> 16)
        out.append((length >> 8) & 255)
        out.append(length & 255)
        out.append(kind)
        out.append(flags)
        out.append(number >> 24)
        out.append((number >> 16) & 255)
        out.append((number >> 8) & 255)
        out.append(number & 255)
        if length > PIECE:
            self._pieces.append(bytes(out))
            self._pieces.append(payload)
            self.pending += length
            out.clear()
        else:
            out += payload

    # --- sending

    def send(self, stream: Stream, data: bytes, end: bool) -> None:
        """Send body octets, as the peer's windows allow; what they don't waits (`stream.queued`)."""
        if stream.gone or stream.local_closed:
            return
        if stream.queue is None:
            sent = self._send_data(stream, data, 0, end)
            if sent < 0:
                return
            stream.queue = deque()
            stream.offset = sent
            stream.queued -= sent
            self.queued -= sent
            self._blocked[stream.id] = stream
        stream.queue.append((data, None, end))
        stream.queued += len(data)
        self.queued += len(data)

    def send_trailers(self, stream: Stream, block: bytes) -> None:
        """`block`: lines `name: value`, each with its CRLF. Ends the stream."""
        if stream.gone or stream.local_closed:
            return
        if stream.queue is None:
            self._send_trailers(stream, block)
        else:
            stream.queue.append((b"", block, True))

    def _send_trailers(self, stream: Stream, block: bytes) -> None:
        self._encoder.lines(block, 0)
        self._send_block(stream.id, True)
        self._local_end(stream)

    def _send_data(self, stream: Stream, data: bytes, at: int, last: bool) -> int:
        """Send from octet `at` on; -1: all is sent, else up to which octet."""
        size = len(data)
        while True:
            room = self._initial_out + stream.extra
            if room > self._window_out:
                room = self._window_out
            if room > self._frame_out:
                room = self._frame_out
            left = size - at
            if left > room and left:  # an end needs no window (section 6.9.1)
                if room <= 0:
                    return at
                self._frame(DATA, 0, stream.id, data[at : at + room])
                at += room
                stream.extra -= room
                self._window_out -= room
                if room >= WORTH:
                    self._moved()
                continue
            self._frame(DATA, END_STREAM if last else 0, stream.id, data[at:] if at else data)
            stream.extra -= left
            self._window_out -= left
            self._moved()
            if last:
                self._local_end(stream)
            return -1

    def _pump(self, stream: Stream) -> None:
        """Send what waits, as far as the windows are open."""
        queue = stream.queue
        if queue is None:
            return
        while queue:
            data, trailers, last = queue[0]
            if trailers is not None:
                queue.clear()
                self._send_trailers(stream, trailers)
                break
            before = stream.offset
            sent = self._send_data(stream, data, before, last)
            moved = (len(data) if sent < 0 else sent) - before
            stream.queued -= moved
            self.queued -= moved
            if sent >= 0:
                stream.offset = sent
                return
            stream.offset = 0
            queue.popleft()
        stream.queue = None
        self._blocked.pop(stream.id, None)
        self.handler.writable(stream)

    def _pump_all(self) -> None:
        if self._blocked and self._window_out > 0:
            for stream in list(self._blocked.values()):
                self._pump(stream)
                if self._window_out <= 0:
                    break

    def _send_block(self, number: int, end: bool) -> None:
        """The encoder's block, in as many frames as it needs."""
        block = self._encoder.take()
        most = self._frame_out
        flags = END_STREAM if end else 0
        if len(block) <= most:
            self._frame(HEADERS, flags | END_HEADERS, number, block)
        else:
            self._frame(HEADERS, flags, number, block[:most])
            for at in range(most, len(block), most):
                piece = block[at : at + most]
                self._frame(CONTINUATION, END_HEADERS if at + most >= len(block) else 0, number, piece)
        self._moved()

    def _local_end(self, stream: Stream) -> None:
        stream.local_closed = True
        if stream.remote_closed:
            self._ended(stream)

    def _ended(self, stream: Stream) -> None:
        """Both sides have ended it."""
        if not stream.gone:
            stream.gone = True
            stream.owner = None  # each knows the other
            self.streams.pop(stream.id, None)
            if self._resets > 0:
                self._resets -= 1
            if stream.window_most > self._stream_window:
                self._grown -= 1

    def _forget(self, stream: Stream) -> None:
        """It was reset: nothing of it waits any more, and what nobody took is nobody's."""
        stream.gone = True
        self.streams.pop(stream.id, None)
        if stream.queue is not None:
            stream.queue = None
            self._blocked.pop(stream.id, None)
            self.queued -= stream.queued
            stream.queued = 0
        if stream.window_most > self._stream_window:
            self._grown -= 1

    def reset(self, stream: Stream, code: int) -> None:
        """RST_STREAM; what is queued is forgotten."""
        if not stream.gone:
            stream.owner = None  # each knows the other
            self._forget(stream)
            self._say_reset(stream.id, code, stream.remote_closed, stream.window_in)

    def _say_reset(self, number: int, code: int, ended: bool, window: int) -> None:
        """`ended`: the peer sends no more of it anyway; else it may send `window` octets, not knowing yet."""
        self._frame(RST_STREAM, 0, number, _NUMBER.pack(code))
        if not ended:
            ours = self._ours
            if len(ours) >= OURS_MOST:
                del ours[next(iter(ours))]
            ours[number] = window

    def consumed(self, stream: Stream, octets: int) -> None:
        """Received octets were passed on: the peer may send as many more."""
        if octets > stream.unconsumed:
            octets = stream.unconsumed
        if octets > 0:
            stream.unconsumed -= octets
            self._give_stream(stream, octets)

    def _give_back(self, octets: int) -> None:
        """Open the connection's window, in steps of half of it."""
        self._unasked += octets
        if self._unasked >= self._half:
            self._frame(WINDOW_UPDATE, 0, 0, _NUMBER.pack(self._unasked))
            self._window_in += self._unasked
            self._unasked = 0

    def _give_stream(self, stream: Stream, octets: int) -> None:
        if stream.remote_closed or stream.gone:
            return
        stream.unasked += octets
        if stream.unasked * 2 >= stream.window_most:
            more = stream.unasked
            if stream.window_most == self._stream_window and not stream.unconsumed and self._grown < self._grown_most:
                self._grown += 1
                stream.window_most += self._more
                more += self._more
            self._frame(WINDOW_UPDATE, 0, stream.id, _NUMBER.pack(more))
            stream.window_in += more
            stream.unasked = 0

    def announce_end(self) -> None:
        """GOAWAY that refuses nothing yet: streams on their way are served; who reads it opens no more."""
        self._frame(GOAWAY, 0, 0, _TWO.pack(WINDOW_MOST, NO_ERROR))

    def shutdown(self, code: int = NO_ERROR) -> None:
        """GOAWAY; streams that there are go on, new ones are refused."""
        self.goaway_sent = True
        self._frame(GOAWAY, 0, 0, _TWO.pack(self._last_id, code))

    def ping(self, payload: bytes) -> None:
        """Ask whether the peer is there; `payload` has 8 octets."""
        self._pings += 1
        self._frame(PING, 0, 0, payload)

    # --- the server's side, the client's side

    def respond(self, stream: Stream, text: bytes, end: bool) -> None:
        """A response's head as HTTP/1.1 text; also 1xx, with `end` false."""
        if stream.gone or stream.local_closed:
            return
        self._encoder.field(b":status", text[9:12])
        self._encoder.lines(text, text.find(b"\r\n") + 2)
        self._send_block(stream.id, end)
        if end:
            self._local_end(stream)

    def open(self, text: bytes, scheme: str, end: bool, owner: Any) -> Stream:
        """A new stream with this request's head, HTTP/1.1 text."""
        line_end = text.find(b"\r\n")
        line = text[:line_end]
        method, _, target = line.partition(b" ")
        stream = Stream(self._next_id, method.decode("ascii"), owner)
        stream.window_in = stream.window_most = self._stream_window
        self._next_id += 2
        self.streams[stream.id] = stream
        encoder = self._encoder
        encoder.field(b":method", method)
        encoder.field(b":scheme", b"https" if scheme == "https" else b"http")
        encoder.field(b":authority", _authority(text, line_end))
        encoder.field(b":path", target[: target.rfind(b" ")])
        encoder.lines(text, line_end + 2)
        self._send_block(stream.id, end)
        if end:
            stream.local_closed = True
        return stream

    # --- what came

    def _fault(self, stream: Stream, code: int, why: str) -> None:
        """The peer's fault in one stream: it is reset, and counted."""
        owner = stream.owner
        self.reset(stream, code)
        stream.owner = owner
        self.handler.reset(stream, code, why)
        stream.owner = None
        self._count_resets(1)

    def _closed_stream(self, number: int, octets: int, ended: bool) -> None:
        """Something came for a stream that is over, with DATA of so many octets; `ended`: the last (section 5.1)."""
        window = self._ours.get(number)
        if window is None:
            self._frame(RST_STREAM, 0, number, _NUMBER.pack(STREAM_CLOSED))
        elif ended:
            del self._ours[number]
        else:
            self._ours[number] = window - octets
            if 0 < octets <= window:
                return
        self._moves_nothing()

    def calm(self, seconds: float) -> None:
        """So much time has passed: what the budgets hold is forgiven at CONTROLS_A_SECOND and RESETS_A_SECOND."""
        self._forgiven += seconds
        whole = int(self._forgiven)
        if whole:
            self._forgiven -= whole
            self._controls = max(0, self._controls - whole * CONTROLS_A_SECOND)
            self._resets = max(0, self._resets - whole * RESETS_A_SECOND)

    def _take_data(self, flags: int, number: int, data: bytes, start: int, stop: int) -> None:
        length = stop - start
        if self._is_idle(number):
            raise self._broken(f"DATA of stream {number}, which is not open", PROTOCOL_ERROR)
        self._window_in -= length
        if self._window_in < 0:
            raise self._broken("more DATA than the connection's window allows", FLOW_CONTROL_ERROR)
        self._give_back(length)
        if flags & PADDED:
            padding = data[start] if length else 0
            if length <= padding:
                raise self._broken("DATA with more padding than octets", PROTOCOL_ERROR)
            start += 1
            stop -= padding
        octets = data  # compiled: a pointer
        piece = octets[start:stop]
        stream = self.streams.get(number)
        if stream is None:
            self._closed_stream(number, length, (flags & END_STREAM) != 0)
            return
        stream.window_in -= length
        if stream.window_in < 0:
            raise self._broken(f"more DATA than the window of stream {number} allows", FLOW_CONTROL_ERROR)
        size = stop - start
        stream.unconsumed += size
        if size != length:  # padding
            self._give_stream(stream, length - size)
        ended = (flags & END_STREAM) != 0
        if stream.remote_closed:
            self._fault(stream, STREAM_CLOSED, "DATA after the end of its stream")
        elif not stream.headed:
            self._fault(stream, PROTOCOL_ERROR, "DATA before the head")
        elif stream.left >= 0 and (size > stream.left or (ended and size != stream.left)):
            self._fault(stream, PROTOCOL_ERROR, "the body has another length than content-length says")
        else:
            if size:
                self._forgive(20 if size >= WORTH else 3)
            elif not ended:
                self._moves_nothing()
            if stream.left >= 0:
                stream.left -= size
            stream.remote_closed = ended
            self.handler.data(stream, piece, ended)
            if ended and stream.local_closed:
                self._ended(stream)

    def _take_headers(self, flags: int, number: int, data: bytes, start: int, stop: int) -> None:
        if number & 1 == 0:
            raise self._broken(f"HEADERS of stream {number}, which no client may open", PROTOCOL_ERROR)
        if flags & PADDED:
            padding = data[start] if stop > start else 0
            start += 1
            stop -= padding
        if flags & WITH_PRIORITY:
            start += 5
        if stop < start:
            raise self._broken("HEADERS with more padding than octets", PROTOCOL_ERROR)
        block = data[start:stop]
        ends = (flags & END_STREAM) != 0
        if flags & END_HEADERS:
            self._take_block(number, block, ends)
            return
        self._block_of = number
        self._block = [block]
        self._block_size = len(block)
        self._block_ends = ends

    def _take_continuation(self, flags: int, piece: bytes) -> None:
        if not self._block_of:
            raise self._broken("CONTINUATION without a head before it", PROTOCOL_ERROR)
        self._block.append(piece)
        self._block_size += len(piece)
        if self._block_size > self.limits.max_head or len(self._block) > BLOCK_FRAMES_MOST:
            raise self._broken(
                f"a head of more than {self.limits.max_head} octets or {BLOCK_FRAMES_MOST} frames", ENHANCE_YOUR_CALM
            )
        if flags & END_HEADERS:
            number = self._block_of
            block = b"".join(self._block)
            self._block = []
            self._block_of = 0
            self._take_block(number, block, self._block_ends)

    def _take_block(self, number: int, block: bytes, ended: bool) -> None:
        """A whole head or the trailers of a stream."""
        try:
            fields = self._decoder.decode(block)
        except HpackError as error:
            raise self._broken(str(error), COMPRESSION_ERROR) from None
        large = self._decoder.too_large
        stream = self.streams.get(number)
        if stream is not None:
            if large:
                self._fault(stream, PROTOCOL_ERROR, f"a head of more than {self.limits.max_head} octets")
            elif stream.remote_closed:
                self._fault(stream, STREAM_CLOSED, "HEADERS after the end of its stream")
            elif stream.headed:
                self._trailers(stream, fields, ended)
            else:
                self._response(stream, fields, ended)
        elif self.client or number <= self._highest:
            if self._is_idle(number):
                raise self._broken(f"HEADERS of stream {number}, which is not open", PROTOCOL_ERROR)
            self._closed_stream(number, 0, ended)
        else:
            self._highest = number
            self._request(number, fields, ended, large)

    def _request(self, number: int, fields: list[Any], ended: bool, large: bool) -> None:
        stream = Stream(number)
        stream.window_in = stream.window_most = self._stream_window
        if self.goaway_sent or len(self.streams) >= self.limits.max_concurrent:
            stream.gone = True
            self._say_reset(number, REFUSED_STREAM, ended, self._stream_window)
            if self._acked:
                self._count_resets(1)
            else:  # it could not know better, which is cheaper but no excuse for ever
                self._moves_nothing()
            return
        self.streams[number] = stream
        self._last_id = number
        if large:
            self.respond(stream, b"HTTP/1.1 431 \r\ncontent-length: 0\r\nx-fairlead-reason: FL-TOO-LARGE\r\n\r\n", True)
            self.reset(stream, NO_ERROR)
            self.handler.refused(f"a head of more than {self.limits.max_head} octets", True)
            self._count_resets(LARGE_HEAD_COST)
            return
        self._moved()
        try:
            head = request_head(fields, ended)
        except ProtocolError as error:
            self._refuse(stream, HTTP_1_1_REQUIRED if error.status == 501 else PROTOCOL_ERROR, str(error))
            return
        stream.headed = True
        stream.method = head.method
        stream.left = head.content_length
        stream.remote_closed = ended
        if ended and stream.left > 0:
            self._refuse(stream, PROTOCOL_ERROR, "content-length promises a body")
            return
        self.handler.head(stream, head, ended)

    def _refuse(self, stream: Stream, code: int, why: str) -> None:
        """A request that is none; nobody has heard of its stream yet."""
        self.reset(stream, code)
        self.handler.refused(why, False)
        self._count_resets(1)

    def _response(self, stream: Stream, fields: list[Any], ended: bool) -> None:
        self._moved()
        try:
            head = response_head(fields, stream.method, ended)
        except ProtocolError as error:
            self._fault(stream, PROTOCOL_ERROR, str(error))
            return
        if head.status < 200:
            stream.interims += 1
            if ended or stream.interims > INTERIMS_MOST:
                self._fault(stream, PROTOCOL_ERROR, "too many interim responses, or one that ends the stream")
            else:
                self.handler.interim(stream, head)
            return
        stream.headed = True
        stream.remote_closed = ended
        bodiless = stream.method == "HEAD" or head.status in (204, 304)
        stream.left = 0 if bodiless else head.content_length
        if ended and stream.left > 0:
            self._fault(stream, PROTOCOL_ERROR, "content-length promises a body")
            return
        self.handler.head(stream, head, ended)
        if ended and stream.local_closed:
            self._ended(stream)

    def _trailers(self, stream: Stream, fields: list[Any], ended: bool) -> None:
        try:
            block = checked_trailers(fields, ended)
            if stream.left > 0:
                raise ProtocolError("the body has another length than content-length says")
        except ProtocolError as error:
            self._fault(stream, PROTOCOL_ERROR, str(error))
            return
        stream.remote_closed = True
        self.handler.trailers(stream, block)
        if stream.local_closed:
            self._ended(stream)

    def _take_reset(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise self._broken("RST_STREAM has not 4 octets", FRAME_SIZE_ERROR)
        if self._is_idle(number):
            raise self._broken(f"RST_STREAM of stream {number}, which is not open", PROTOCOL_ERROR)
        stream = self.streams.get(number)
        if stream is None:
            self._moves_nothing()
            return
        code = int.from_bytes(payload, "big")
        early = self.client and code == NO_ERROR and stream.remote_closed  # an answer that needs no more of its request
        self._forget(stream)
        self.handler.reset(stream, code, "")
        stream.owner = None
        if not early:
            self._count_resets(1)

    def _take_window(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise self._broken("WINDOW_UPDATE has not 4 octets", FRAME_SIZE_ERROR)
        octets = int.from_bytes(payload, "big") & WINDOW_MOST
        self._moves_nothing()
        if number == 0:
            self._window_out += octets
            if octets == 0 or self._window_out > WINDOW_MOST:
                raise self._broken("WINDOW_UPDATE by 0 or beyond the most", PROTOCOL_ERROR if octets == 0 else 3)
            self._pump_all()
            return
        if self._is_idle(number):
            raise self._broken(f"WINDOW_UPDATE of stream {number}, which is not open", PROTOCOL_ERROR)
        stream = self.streams.get(number)
        if stream is None:
            return
        stream.extra += octets
        if octets == 0 or self._initial_out + stream.extra > WINDOW_MOST:
            code = PROTOCOL_ERROR if octets == 0 else FLOW_CONTROL_ERROR
            self._fault(stream, code, "WINDOW_UPDATE by 0 or beyond the most")
        else:
            self._pump(stream)

    def _take_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise self._broken("SETTINGS of a stream", PROTOCOL_ERROR)
        if len(payload) % 6 or (flags & ACK and payload):
            raise self._broken("SETTINGS of a wrong size", FRAME_SIZE_ERROR)
        if len(payload) > 6 * SETTINGS_MOST:
            raise self._broken(f"more than {SETTINGS_MOST} settings in one frame", ENHANCE_YOUR_CALM)
        self._moves_nothing()
        if flags & ACK:
            self._acked = True
            return
        for setting, value in _SETTING.iter_unpack(payload):
            self._set(setting, value)
        self._frame(SETTINGS, ACK, 0, b"")
        self.peer_settings_seen = True
        self.handler.settings_changed()
        self._pump_all()

    def _set(self, setting: int, value: int) -> None:
        if setting == TABLE_SIZE:
            self._encoder.resize(value)
        elif setting == ENABLE_PUSH:
            if value > (0 if self.client else 1):
                raise self._broken(f"SETTINGS_ENABLE_PUSH is {value}", PROTOCOL_ERROR)
        elif setting == MAX_CONCURRENT:
            self.peer_max_concurrent = min(value, WINDOW_MOST)
        elif setting == INITIAL_WINDOW:
            if value > WINDOW_MOST:
                raise self._broken(f"SETTINGS_INITIAL_WINDOW_SIZE is {value}", FLOW_CONTROL_ERROR)
            for stream in self.streams.values():
                if value + stream.extra > WINDOW_MOST:
                    raise self._broken("SETTINGS_INITIAL_WINDOW_SIZE overflows a window", FLOW_CONTROL_ERROR)
            self._initial_out = value
        elif setting == MAX_FRAME:
            if not FRAME_MOST <= value < 1 << 24:
                raise self._broken(f"SETTINGS_MAX_FRAME_SIZE is {value}", PROTOCOL_ERROR)
            self._frame_out = min(value, 65536)

    def _take_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise self._broken("PING of a stream", PROTOCOL_ERROR)
        if len(payload) != 8:
            raise self._broken("PING has not 8 octets", FRAME_SIZE_ERROR)
        if flags & ACK and self._pings:
            self._pings -= 1
        else:
            self._moves_nothing()
        if flags & ACK:
            self.handler.pong(payload)
        else:
            self._frame(PING, ACK, 0, payload)

    def _take_goaway(self, number: int, payload: bytes) -> None:
        if number:
            raise self._broken("GOAWAY of a stream", PROTOCOL_ERROR)
        if len(payload) < 8:
            raise self._broken("GOAWAY has less than 8 octets", FRAME_SIZE_ERROR)
        self._moves_nothing()
        self.goaway_received = True
        last, code = _TWO.unpack_from(payload)
        self.handler.goaway(last & WINDOW_MOST, code, payload[8:])


def _authority(text: bytes, line_end: int) -> bytes:
    """The value of Host in a head's text."""
    at = line_end
    while at >= 0 and text[at + 2 : at + 7].lower() != b"host:":
        at = text.find(b"\r\n", at + 2)
    if at < 0:
        return b""
    return text[at + 7 : text.find(b"\r\n", at + 2)].strip(b" \t")
