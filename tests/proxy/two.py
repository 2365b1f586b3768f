"""The other end of an HTTP/2 connection in the test's hands: the h2 package as an independent implementation."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hyperframe.frame import GoAwayFrame


def _fields(event: Any) -> dict[str, str]:
    return dict(event.headers)


class _Goes(h2.connection.H2Connection):
    """h2 ends a connection with the first GOAWAY; RFC 9113 section 6.8 lets its streams end."""

    def _receive_goaway_frame(self, frame: Any) -> Any:
        event = h2.events.ConnectionTerminated()
        event.error_code, event.last_stream_id, event.additional_data = frame.error_code, frame.last_stream_id, None
        return [], [event]


class Peer:
    """`receive(data)` notes what came; `take()` is what to send. Everything by stream id."""

    def __init__(self, client: bool, settings: dict[Any, int] | None = None) -> None:
        config = h2.config.H2Configuration(
            client_side=client, header_encoding="latin-1", validate_outbound_headers=False
        )
        self.wire = _Goes(config)
        if settings:
            self.wire.local_settings = h2.settings.Settings(client=client, initial_values=settings)
        self.wire.initiate_connection()
        self.heads: dict[int, dict[str, str]] = {}
        self.interims: dict[int, list[dict[str, str]]] = {}
        self.trailers: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.gone: list[tuple[int, int]] = []
        self.pongs: list[bytes] = []
        self.unacknowledged: dict[int, int] = {}
        self.more = b""
        self.acknowledge = True
        """Give windows back at once."""

    def take(self) -> bytes:
        data, self.more = self.wire.data_to_send() + self.more, b""
        return data

    def go_away(self, last: int) -> None:
        """GOAWAY; the streams up to `last` go on."""
        frame = GoAwayFrame(0)
        frame.last_stream_id = last
        self.more += frame.serialize()

    def receive(self, data: bytes) -> None:
        for event in self.wire.receive_data(data):
            self._note(event)

    def _note(self, event: Any) -> None:
        number = getattr(event, "stream_id", 0) or 0
        if isinstance(event, h2.events.RequestReceived | h2.events.ResponseReceived):
            assert number not in self.heads, "a second head"
            self.heads[number] = _fields(event)
            self.bodies.setdefault(number, b"")
        elif isinstance(event, h2.events.InformationalResponseReceived):
            self.interims.setdefault(number, []).append(_fields(event))
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers[number] = _fields(event)
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[number] += event.data
            if self.acknowledge:
                self.wire.acknowledge_received_data(event.flow_controlled_length, number)
            else:
                self.unacknowledged[number] = self.unacknowledged.get(number, 0) + event.flow_controlled_length
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(number)
        elif isinstance(event, h2.events.StreamReset):
            self.resets[number] = int(event.error_code or 0)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.gone.append((event.last_stream_id or 0, int(event.error_code or 0)))
        elif isinstance(event, h2.events.PingAckReceived):
            self.pongs.append(event.ping_data)

    def acknowledge_all(self) -> None:
        for number, octets in self.unacknowledged.items():
            self.wire.acknowledge_received_data(octets, number)
        self.unacknowledged = {}

    # --- a client's

    def request(self, *more: tuple[str, str], method: str = "GET", path: str = "/x", end: bool = True) -> int:
        """Open a stream; its id."""
        number = self.wire.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", "web"), (":path", path), *more]
        self.wire.send_headers(number, head, end_stream=end)
        return number

    def call(self, *more: tuple[str, str], end: bool = False) -> int:
        """A gRPC call."""
        kind = (("te", "trailers"), ("content-type", "application/grpc"))
        return self.request(*kind, *more, method="POST", path="/shop.Cart/Add", end=end)

    # --- a server's

    def answer(self, number: int, *more: tuple[str, str], status: str = "200", end: bool = True) -> None:
        self.wire.send_headers(number, [(":status", status), *more], end_stream=end)

    def data(self, number: int, data: bytes, end: bool = False) -> None:
        self.wire.send_data(number, data, end_stream=end)

    def window(self, number: int) -> int:
        """Octets that may be sent on a stream now."""
        return int(self.wire.local_flow_control_window(number))


class Conversation:
    """A Peer joined to one of our connections with the transport of fakes.py between them."""

    def __init__(self, ours: Any, transport: Any, peer: Peer) -> None:
        self.ours = ours
        self.transport = transport
        self.peer = peer

    def pump(self) -> None:
        """Carry octets both ways until nobody has any more; nothing to a side that does not read."""
        while True:
            out = self.peer.take()
            if out and not self.transport.closed:
                self.ours.data_received(out)
            back = self.transport.take()
            if back:
                self.peer.receive(back)
            if not out and not back:
                return
