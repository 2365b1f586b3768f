"""Listening sockets of the data path, and the poller that serves them; test_wire.py has connections."""

from __future__ import annotations

import asyncio
import resource
import socket
from typing import Any

import pytest

from fairlead.proxy.poller import Listener, Poller, listening
from tests.proxy.test_wire import DEADLINE_S, poller

pytestmark = pytest.mark.asyncio
__all__ = ["poller"]


async def test_a_listener_takes_many_at_a_time_and_no_more_once_closed(poller: Poller) -> None:
    (sock,) = await listening("127.0.0.1", 0)
    came: list[socket.socket] = []
    all_there = asyncio.Event()

    def accepted(sock: socket.socket, peer: Any) -> None:
        came.append(sock)
        assert sock.getpeername() == peer
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if len(came) == 100:
            all_there.set()

    listener = Listener(poller, sock, accepted)
    clients = [socket.create_connection(sock.getsockname()) for _ in range(100)]
    async with asyncio.timeout(DEADLINE_S):
        await all_there.wait()
    name = sock.getsockname()
    listener.close()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(name)
    for each in (*came, *clients):
        each.close()


async def test_what_the_kernel_has_queued_is_taken_before_the_socket_is_closed(poller: Poller) -> None:
    (sock,) = await listening("127.0.0.1", 0)
    came: list[socket.socket] = []
    listener = Listener(poller, sock, lambda each, _peer: came.append(each))
    clients = [socket.create_connection(sock.getsockname()) for _ in range(200)]  # the loop has had no turn
    assert not came
    listener.accept_rest()
    listener.close()
    listener.accept_rest()
    assert len(came) == 200
    for each in (*came, *clients):
        each.close()


async def test_out_of_descriptors_a_listener_waits_and_goes_on(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    (sock,) = await listening("127.0.0.1", 0)
    came: list[socket.socket] = []
    there = asyncio.Event()

    def accepted(each: socket.socket, _peer: Any) -> None:
        came.append(each)
        there.set()

    listener = Listener(poller, sock, accepted)
    client = socket.socket()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, before[1]))
    try:
        client.connect(sock.getsockname())
        for _ in range(50):
            await asyncio.sleep(0)
        assert came == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    async with asyncio.timeout(DEADLINE_S):
        await there.wait()
    listener.close()
    for each in (*came, client):
        each.close()


async def test_all_addresses_are_listened_on_at_one_port_and_a_taken_one_is_named() -> None:
    socks = await listening("", 0)
    ports = {sock.getsockname()[1] for sock in socks}
    assert len(ports) == 1
    port = ports.pop()
    with socket.create_connection(("127.0.0.1", port)):
        pass
    with pytest.raises(OSError, match=rf"127.0.0.1:{port} cannot be listened on: Address already in use"):
        await listening("127.0.0.1", port)
    for sock in socks:
        sock.close()
