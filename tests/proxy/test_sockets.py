"""Listening sockets that are inherited: found by address or name, used before any is bound, closed if of no use."""

from __future__ import annotations

import os
import socket

import pytest

from fairlead.proxy.sockets import Inherited, Place, Sockets, fits, of_systemd


def listening(kind: str = "tcp", name: str = "outbound", host: str = "127.0.0.1") -> Inherited:
    sock = socket.create_server((host, 0))
    return Place(kind, name, host, sock.getsockname()[1]), sock


@pytest.mark.parametrize(
    ("place", "wanted", "fit"),
    [
        (Place("tcp", "outbound", "127.0.0.1", 80), ("tcp", "other", "127.0.0.1", 80), True),
        (Place("tcp", "outbound", "127.0.0.1", 80), ("tcp", "outbound", "127.0.0.1", 81), False),
        (Place("tcp", "outbound", "127.0.0.1", 80), ("tcp", "outbound", "127.0.0.2", 80), False),
        (Place("tcp", "outbound", "127.0.0.1", 80), ("tcp", "outbound", "127.0.0.1", 0), True),
        (Place("tcp", "outbound", "127.0.0.1", 80), ("tcp", "inbound", "127.0.0.1", 0), False),
        (Place("tcp", "outbound", "127.0.0.1", 80), ("udp", "outbound", "127.0.0.1", 80), False),
        (Place("tcp", "gateway:80", "", 80), ("tcp", "gateway:80", "::", 80), True),
        (Place("tcp", "gateway-80", "0.0.0.0", 8080, True), ("tcp", "gateway:80", "127.0.0.1", 80), True),
        (Place("tcp", "web.socket", "127.0.0.1", 80, True), ("tcp", "outbound", "127.0.0.1", 80), True),
        (Place("tcp", "", "127.0.0.1", 80, True), ("tcp", "", "127.0.0.1", 81), False),
    ],
)
def test_a_socket_fits_by_its_address_or_where_systemd_says_so_by_its_name(
    place: Place, wanted: tuple[str, str, str, int], fit: bool
) -> None:
    assert fits(place, *wanted) == fit


@pytest.mark.asyncio
async def test_all_inherited_sockets_of_an_address_are_used_and_then_none_is_left() -> None:
    sockets = Sockets()
    place, sock = listening()
    sockets.give([(place, sock), (place, sock.dup())])
    assert len(await sockets.listening("127.0.0.1", place.port, "outbound")) == 2
    assert [one for one, _ in sockets.open()] == [place, place]
    with pytest.raises(OSError, match="cannot be listened on"):
        await sockets.listening("127.0.0.1", place.port, "outbound")
    for _, one in sockets.open():
        one.close()
    assert sockets.open() == []


@pytest.mark.asyncio
async def test_what_a_predecessor_has_opened_since_is_asked_for_when_the_address_is_taken() -> None:
    sockets = Sockets()
    place, sock = listening()
    asked = 0

    async def more() -> list[Inherited]:
        nonlocal asked
        asked += 1
        return [(place, sock.dup())]

    sockets.more = more
    (found,) = await sockets.listening("127.0.0.1", place.port, "outbound")
    assert found.getsockname() == sock.getsockname()
    assert asked == 1
    found.close()
    sock.close()


def test_what_is_of_no_use_is_closed_and_told() -> None:
    sockets = Sockets()
    place, sock = listening()
    sockets.give([(place, sock)])
    assert sockets.close_spare() == [place]
    assert sock.fileno() == -1
    assert sockets.close_spare() == []


def test_where_others_listen_beside_it_an_inherited_socket_lets_them() -> None:
    """A predecessor had one process, and its successor several."""
    place, sock = listening()
    sockets = Sockets()
    sockets.reuse_port = True
    sockets.give([(place, sock)])
    with socket.socket() as beside:
        beside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        beside.bind(("127.0.0.1", place.port))
        beside.listen()
    sockets.close_spare()


def test_systemds_variables_of_another_process_are_taken_out_and_not_believed() -> None:
    environment = {"LISTEN_PID": "8", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a", "PATH": "/bin"}
    assert of_systemd(environment, os.getpid()) == ([], [])
    assert environment == {"PATH": "/bin"}
