"""Two processes that hand sockets over, as two ends in one: who may, what travels, and what happens when one dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.mesh import handover
from fairlead.mesh.handover import Channel, HandoverError, Holder, Packet, take_over
from fairlead.proxy.sockets import Inherited, Place

pytestmark = pytest.mark.asyncio
WHO = "sidecar default/web-1"


class Old:
    """The process that has the sockets."""

    def __init__(self, path: Path, count: int) -> None:
        self.socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        self.taken: list[int] = []
        self.failures = 0
        self.changed = asyncio.Event()
        self.holder = Holder(path, WHO, self.offer, self._taken, self._failed)

    async def offer(self) -> tuple[list[Inherited], dict[str, Any]]:
        return [
            (Place("tcp", f"listen{n}", "127.0.0.1", sock.getsockname()[1]), sock.dup())
            for n, sock in enumerate(self.socks)
        ], {"loopbacks": {"a": "127.64.0.1"}}

    def _taken(self, pid: int) -> None:
        self.taken.append(pid)
        self.changed.set()

    def _failed(self) -> None:
        self.failures += 1
        self.changed.set()


@contextlib.asynccontextmanager
async def old_at(path: Path, count: int = 2) -> AsyncIterator[Old]:
    made = Old(path, count)
    made.holder.start()
    try:
        async with asyncio.timeout(20):
            yield made
    finally:
        await made.holder.close()
        for sock in made.socks:
            sock.close()


def close(inherited: list[Inherited]) -> None:
    for _, sock in inherited:
        sock.close()


@pytest.mark.parametrize("count", [0, 1, handover.SOCKETS_MOST, handover.SOCKETS_MOST + 1, 300])
async def test_all_sockets_and_the_state_arrive_and_a_connection_to_the_old_is_accepted_by_the_new(
    tmp_path: Path, count: int
) -> None:
    async with old_at(tmp_path / "over.sock", count) as old:
        new = await take_over(tmp_path / "over.sock", WHO)
        assert new is not None
        assert new.pid == os.getpid()
        assert new.state == {"loopbacks": {"a": "127.64.0.1"}}
        assert [place.name for place, _ in new.inherited] == [f"listen{n}" for n in range(count)]
        for place, sock in new.inherited:
            assert sock.getsockname()[1] == place.port
        if count:
            waiting = socket.create_connection(old.socks[-1].getsockname())
            for sock in old.socks:
                sock.close()
            accepted, _ = new.inherited[-1][1].accept()
            accepted.close()
            waiting.close()
        assert old.taken == []
        await new.ready()
        assert old.taken == [os.getpid()]
        close(new.inherited)


async def test_nobody_is_there_before_the_first_and_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "over.sock"
    assert await take_over(path, WHO) is None
    assert await take_over(tmp_path / "no" / "folder" / "over.sock", WHO) is None
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dead.bind(str(path))
    dead.close()
    assert await take_over(path, WHO) is None
    async with old_at(path):  # what a dead one left is replaced
        new = await take_over(path, WHO)
        assert new is not None
        new.close()
        close(new.inherited)


async def test_a_successor_that_ends_before_it_is_ready_changes_nothing_and_another_may_come(tmp_path: Path) -> None:
    path = tmp_path / "over.sock"
    async with old_at(path) as old:
        for failures in (1, 2):
            new = await take_over(path, WHO)
            assert new is not None
            old.changed.clear()
            new.close()
            close(new.inherited)
            await old.changed.wait()
            assert (old.failures, old.taken) == (failures, [])
        new = await take_over(path, WHO)
        assert new is not None
        old.socks.append(socket.create_server(("127.0.0.1", 0)))
        more = await new.more()
        assert len(more) == 3
        await new.ready()
        assert old.taken
        close(new.inherited + more)


async def test_the_second_of_two_successors_is_told_that_it_is_too_late(tmp_path: Path) -> None:
    path = tmp_path / "over.sock"
    async with old_at(path):
        new = await take_over(path, WHO)
        assert new is not None
        await new.ready()
        with pytest.raises(HandoverError, match="it has handed over to another process"):
            await take_over(path, WHO)
        close(new.inherited)


async def test_one_that_drains_and_one_of_another_workload_hand_nothing_over(tmp_path: Path) -> None:
    path = tmp_path / "over.sock"
    async with old_at(path) as old:
        with pytest.raises(HandoverError, match="it is that of sidecar default/web-1"):
            await take_over(path, "sidecar default/other")
        old.holder.closing = "it is draining"
        with pytest.raises(HandoverError, match="it is draining"):
            await take_over(path, WHO)


async def test_only_the_same_user_or_root_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert handover.may_be(os.geteuid())
    assert handover.may_be(0)
    assert not handover.may_be(os.geteuid() + 1)
    path = tmp_path / "over.sock"
    async with old_at(path) as old:
        assert path.stat().st_mode & 0o777 == 0o600
        monkeypatch.setattr(handover, "may_be", lambda _uid: False)
        with pytest.raises(HandoverError, match="is served by process"):
            await take_over(path, WHO)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(path))
        channel = Channel(sock)
        await channel.send(Packet("take", WHO))
        with pytest.raises(EOFError):
            await channel.receive()
        assert old.taken == []
        channel.close()


async def test_what_is_no_packet_ends_the_talk_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "over.sock"
    async with old_at(path) as old:
        for octets in (
            b"{",
            b"[]",
            b'{"op":1}',
            b'{"op":"take","places":[{"kind":"tcp","name":"","host":"","port":1}]}',
        ):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.connect(str(path))
            sock.send(octets)
            channel = Channel(sock)
            with pytest.raises(EOFError):
                await channel.receive()
            channel.close()
        new = await take_over(path, WHO)
        assert new is not None
        await new.ready()
        assert old.taken
        close(new.inherited)


async def test_a_path_may_be_longer_than_a_socket_address(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    async with old_at(folder / "over.sock"):
        new = await take_over(folder / "over.sock", WHO)
        assert new is not None
        new.close()
        close(new.inherited)


async def test_a_successors_file_stays_when_the_old_one_ends(tmp_path: Path) -> None:
    path = tmp_path / "over.sock"
    async with old_at(path) as old:
        async with old_at(path):
            await old.holder.close()
            assert path.exists()
        assert not path.exists()
