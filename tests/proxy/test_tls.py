"""TLS as bytes, in conversations with the standard library's: cut at every byte, damaged, paused, half-closed."""

from __future__ import annotations

import ctypes
import functools
import os
import ssl
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.machine import certificates
from fairlead.proxy.message import TruncatedError
from fairlead.proxy.poller import Transport
from fairlead.proxy.tls import FIRST_RECORD, RECORD_MAX, SIDECAR_ALPN, Tls


@functools.cache
def folder() -> Path:
    made = Path(tempfile.mkdtemp())
    certificates(made)
    return made


def context(server: bool, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, alpn: str = SIDECAR_ALPN) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.maximum_version = version
    made.set_alpn_protocols([alpn])
    made.load_verify_locations(folder() / "ca.pem")
    if server:
        made.load_cert_chain(folder() / "server.pem", folder() / "server.key")
    return made


class Raw(Transport):
    """The transport below."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.writes = 0
        self.closed = self.aborted = self.paused = False
        self.buffered = 0

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data
        self.writes += 1

    def take(self) -> bytes:
        taken = bytes(self.sent)
        self.sent.clear()
        return taken

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 5)}.get(name, default)


class App:
    """The protocol above."""

    keep = True

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.eof = 0
        self.lost: list[Exception | None] = []
        self.transport: Any = None
        self.on_data: Callable[[], None] = lambda: None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got.append(data)
        self.on_data()

    def eof_received(self) -> bool:
        self.eof += 1
        return self.keep

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)


class Talk:
    """Ours is the client, or the server; the peer is an ssl.SSLObject."""

    def __init__(self, server: bool = False, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, cut: int = 0,
                 alpn: str = SIDECAR_ALPN, name: str = "server.bench") -> None:  # fmt: skip
        self.cut = cut
        self.app, self.raw = App(), Raw()
        self.made: list[Exception | None] = []
        self.later: list[Callable[[], None]] = []
        self.ours = Tls(self.app, context(server, version, alpn), self.made.append, self.later.append, server,
                        None if server else name)  # fmt: skip
        self.to_peer, self.from_peer = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = context(not server, version, alpn).wrap_bio(
            self.to_peer, self.from_peer, not server, "server.bench" if server else None
        )
        self.ours.connection_made(self.raw)
        for _ in range(6):
            self.pass_on()
            try:
                self.peer.do_handshake()
            except ssl.SSLError:
                pass
            self.deliver()

    def pass_on(self) -> None:
        self.to_peer.write(self.raw.take())

    def deliver(self) -> None:
        data = self.from_peer.read()
        step = self.cut or len(data) or 1
        for at in range(0, len(data), step):
            self.ours.data_received(data[at : at + step])

    def says(self, data: bytes) -> None:
        self.peer.write(data)
        self.deliver()

    def heard(self) -> bytes:
        self.pass_on()
        got = b""
        try:
            while data := self.peer.read(65536):
                got += data
        except ssl.SSLWantReadError:
            pass
        return got

    def peer_ends(self) -> None:
        try:
            self.peer.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.deliver()

    @property
    def text(self) -> bytes:
        return b"".join(self.app.got)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize("cut", [0, 1, 2, 3, 5, 7, 100])
def test_both_roles_talk_however_their_octets_are_cut(server: bool, version: ssl.TLSVersion, cut: int) -> None:
    talk = Talk(server, version, cut)
    assert talk.made == [None]
    assert talk.app.transport is talk.ours
    talk.says(b"question")
    talk.says(b"more" * 9000)
    assert talk.text == b"question" + b"more" * 9000
    talk.ours.write(b"answer")
    assert talk.heard() == b"answer"
    talk.ours.writelines([b"a", b"b" * 70000])
    assert talk.heard() == b"a" + b"b" * 70000
    assert talk.ours.get_extra_info("peername") == ("192.0.2.1", 5)
    assert talk.ours.get_extra_info("ssl_object").version() == talk.peer.version()


def test_a_message_cut_at_every_place_arrives_whole() -> None:
    talk = Talk()
    for at in range(1, 60):
        talk.app.got.clear()
        talk.peer.write(b"x" * 40)
        data = talk.from_peer.read()
        talk.ours.data_received(data[:at])
        talk.ours.data_received(data[at:])
        assert talk.text == b"x" * 40, at


def test_the_first_records_are_short_and_later_ones_long_and_each_write_is_one() -> None:
    talk = Talk()
    talk.raw.writes = 0

    def lengths(size: int) -> list[int]:
        talk.ours.write(b"x" * size)
        data, found = talk.raw.take(), []
        while data:
            length = int.from_bytes(data[3:5], "big")
            found.append(length)
            data = data[5 + length :]
        return found

    assert max(lengths(10 * FIRST_RECORD)) < FIRST_RECORD + 50
    lengths(20000)
    assert max(lengths(100_000)) > RECORD_MAX
    assert talk.raw.writes == 3


def test_nothing_is_read_while_the_protocol_pauses() -> None:
    talk = Talk()
    talk.app.on_data = talk.ours.pause_reading
    for each in (b"one", b"two", b"three"):
        talk.peer.write(each)
    talk.deliver()
    assert talk.app.got == [b"one"]
    assert talk.raw.paused
    talk.ours.resume_reading()
    assert talk.raw.paused, "what came first is read first"
    talk.later.pop()()
    assert talk.app.got == [b"one", b"two"]
    talk.app.on_data = lambda: None
    talk.ours.resume_reading()
    talk.later.pop()()
    assert talk.app.got == [b"one", b"two", b"three"]
    assert not talk.raw.paused


@pytest.mark.parametrize("server", [False, True])
def test_after_write_eof_reading_goes_on(server: bool) -> None:
    talk = Talk(server)
    assert talk.ours.can_write_eof()
    talk.ours.write(b"all")
    talk.ours.write_eof()
    talk.ours.write(b"dropped")
    assert talk.heard() == b"all"
    assert not talk.raw.closed
    talk.peer.write(b"late answer")
    talk.deliver()
    assert talk.text == b"late answer"
    talk.peer_ends()
    assert talk.app.eof == 1


def test_write_eof_loses_nothing_that_waits_to_be_read() -> None:
    talk = Talk()
    talk.ours.pause_reading()
    talk.says(b"waiting")
    talk.ours.write_eof()
    talk.ours.resume_reading()
    talk.later.pop()()
    assert talk.text == b"waiting"


def test_after_the_peers_close_notify_writing_goes_on_where_the_protocol_says_so() -> None:
    talk = Talk()
    talk.peer_ends()
    assert talk.app.eof == 1
    assert not talk.raw.closed
    talk.ours.write(b"still")
    assert talk.heard() == b"still"
    assert talk.ours.eof_received(), "the raw connection stays for what still goes out"
    talk.ours.close()
    assert talk.raw.closed
    talk.ours.connection_lost(None)
    assert talk.app.lost == [None]


def test_a_protocol_that_does_not_keep_it_has_it_closed_with_close_notify() -> None:
    talk = Talk()
    talk.app.keep = False
    talk.peer_ends()
    assert talk.raw.closed
    assert talk.raw.sent, "close_notify"


@pytest.mark.parametrize(
    ("version", "alpn"), [(ssl.TLSVersion.TLSv1_2, SIDECAR_ALPN), (ssl.TLSVersion.TLSv1_3, "http/1.1")]
)
def test_peers_that_close_on_close_notify_are_not_half_closed(version: ssl.TLSVersion, alpn: str) -> None:
    assert not Talk(version=version, alpn=alpn).ours.can_write_eof()


@pytest.mark.parametrize(("alpn", "kind"), [(SIDECAR_ALPN, ConnectionResetError), ("http/1.1", TruncatedError)])
@pytest.mark.parametrize("tail", [b"", b"\x17\x03\x03", b"\x17\x03\x03\x00\x20abc"])
def test_an_end_without_close_notify_is_an_error_and_no_end_of_data(
    tail: bytes, alpn: str, kind: type[Exception]
) -> None:
    talk = Talk(alpn=alpn)
    talk.says(b"half of it")
    talk.ours.data_received(tail)
    assert not talk.ours.eof_received()
    talk.ours.connection_lost(None)
    assert talk.app.eof == 0
    assert type(talk.app.lost[0]) is kind


@pytest.mark.parametrize(
    "damage",
    [
        b"\x17\x03\x03\x00\x20" + bytes(32),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x17\x03\x03\xff\xff",
        b"\x17\x03\x03\x42\x00" + bytes(0x4200),
    ],
)
def test_damaged_and_oversized_records_end_the_connection_with_an_alert(damage: bytes) -> None:
    talk = Talk()
    talk.ours.data_received(damage)
    assert talk.raw.closed
    assert bytes(talk.raw.sent[:1]) in (b"\x15", b"\x17")
    talk.ours.connection_lost(None)
    assert isinstance(talk.app.lost[0], ssl.SSLError)
    assert talk.app.got == []


def test_garbage_never_raises_and_is_never_handed_on() -> None:
    for size in range(1, 200):
        for server in (False, True):
            app, raw, made = App(), Raw(), []  # type: ignore[var-annotated]
            ours = Tls(app, context(server), made.append, lambda _: None, server, None if server else "server.bench")
            ours.connection_made(raw)
            ours.data_received(os.urandom(size))
            ours.eof_received()
            ours.connection_lost(None)
            assert len(made) == 1 and made[0] is not None
            assert raw.closed and not app.got and not app.lost


def test_a_certificate_that_is_refused_is_named_and_the_peer_gets_an_alert() -> None:
    talk = Talk(name="other.bench")
    assert isinstance(talk.made[0], ssl.SSLCertVerificationError)
    assert len(talk.made) == 1
    assert talk.raw.closed
    assert talk.app.transport is None


def test_a_handshake_may_be_given_up_once_and_only_while_it_lasts() -> None:
    talk = Talk()
    talk.ours.give_up(TimeoutError())
    assert not talk.raw.closed
    raw, made = Raw(), []  # type: ignore[var-annotated]
    ours = Tls(App(), context(True), made.append, lambda _: None, True)
    ours.connection_made(raw)
    ours.give_up(TimeoutError())
    ours.connection_lost(None)
    assert [type(each) for each in made] == [TimeoutError]
    assert raw.closed


def test_abort_never_waits_and_a_failure_before_a_full_buffer_aborts() -> None:
    talk = Talk()
    talk.raw.buffered = 5
    assert talk.ours.get_write_buffer_size() == 5
    talk.ours.data_received(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert talk.raw.aborted
    other = Talk()
    other.ours.abort()
    assert other.raw.aborted and not other.raw.sent
    assert other.ours.is_closing()


def test_a_lost_connection_holds_nothing_of_openssl_whoever_holds_it() -> None:
    talk = Talk(server=True)
    wire = weakref.ref(talk.ours.get_extra_info("ssl_object"))
    talk.ours.connection_lost(None)
    assert wire() is None
    talk.ours.close()
    talk.ours.write(b"too late")
    assert talk.ours.is_closing()
    assert talk.ours.get_extra_info("ssl_object") is None
    assert talk.ours.get_extra_info("peercert", "none") == "none"


class KeyUpdates:
    """The peer's KeyUpdates, which the standard library cannot ask for."""

    def __init__(self, talk: Talk) -> None:
        with open("/proc/self/maps") as maps:
            self.library = ctypes.CDLL(next(line.split()[-1] for line in maps if "libssl" in line))
        self.library.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
        self.library.SSL_do_handshake.argtypes = [ctypes.c_void_p]
        inner = getattr(talk.peer, "_sslobj", talk.peer)
        self.peer = ctypes.c_void_p.from_address(id(inner) + 24).value  # PyObject_HEAD, Socket, then SSL *

    def one(self) -> None:
        assert self.library.SSL_key_update(self.peer, 1) == 1  # SSL_KEY_UPDATE_REQUESTED
        self.library.SSL_do_handshake(self.peer)


@pytest.mark.parametrize("together", [1, 1000])
@pytest.mark.parametrize("server", [True, False])
def test_key_updates_without_end_are_refused(server: bool, together: int) -> None:
    """Each costs us 20 microseconds and, if it asks for ours, 27 octets that wait for a peer that does not read."""
    talk = Talk(server=server)
    updates = KeyUpdates(talk)
    for _ in range(1000 // together):
        for _ in range(together):
            updates.one()
        talk.deliver()
    assert talk.raw.closed or talk.raw.aborted
    assert len(talk.raw.sent) < 27 * 256
    assert isinstance(talk.ours.error, ssl.SSLError)


def test_key_updates_now_and_then_and_many_small_records_are_as_good_as_any() -> None:
    talk = Talk(server=True)
    updates = KeyUpdates(talk)
    for turn in range(200):
        for number in range(300 if turn % 20 == 0 else 3):
            talk.peer.write(b"%04d" % number)
        updates.one()
        talk.peer.write(b"after")
        talk.deliver()
        talk.heard()
    assert not talk.raw.closed and not talk.raw.aborted
    assert talk.app.got.count(b"after") == 200
