"""Shell: a process hands its listening sockets to its successor, over a Unix socket of theirs alone.

The old one serves `Holder`; the new one calls `take_over`, gets the sockets, becomes ready, says so, and only then the
old one accepts no more. As the sockets are the same ones, no connection is refused and none in the kernel's queue is
reset; where the successor ends before it is ready, the old one goes on as if nothing had been.

predecessor = await take_over(path, "sidecar default/web-1")    None: nobody is there
predecessor.inherited, predecessor.state
await predecessor.ready()

One packet a message (SOCK_SEQPACKET), JSON, with up to SOCKETS_MOST descriptors (SCM_RIGHTS). The path has mode 0600,
and either side asks the kernel who the other is (SO_PEERCRED): the same user, or root.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..proxy.sockets import Inherited, Place

SOCKETS_MOST = 128
"""Descriptors of one packet; Linux allows 253."""
PACKET_BYTES = 1 << 17
ANSWER_S = 10.0
"""How long either side waits for the other's next word, where that takes no work."""
CONNECT_S = 2.0
BOUND = "handover.sock"
"""The file in a data directory."""
logger = logging.getLogger("fairlead.handover")


class HandoverError(Exception):
    """There is a predecessor, and it hands nothing over; the message says why."""


class Packet(msgspec.Struct, omit_defaults=True):
    op: str
    """take, more, ready; sockets, refused, thanks."""
    who: str = ""
    """Role and workload."""
    places: list[Place] = []
    """Of the packet's descriptors, in their order."""
    last: bool = True
    """False: another packet of the same answer follows."""
    state: dict[str, Any] = {}
    why: str = ""


class Channel:
    """One end of a connection between two processes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)

    def peer(self) -> tuple[int, int]:
        """(process, user) at the other end, as the kernel has it."""
        pid, uid, _ = struct.unpack("3i", self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return pid, uid

    async def send(self, packet: Packet, descriptors: Sequence[int] = ()) -> None:
        data = msgspec.json.encode(packet)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        while True:
            try:
                self.sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
                return
            except BlockingIOError:
                await self._until(asyncio.get_running_loop().add_writer, asyncio.get_running_loop().remove_writer)

    async def receive(self) -> tuple[Packet, list[socket.socket]]:
        """Raises EOFError where the other end is gone, ValueError for what is no packet."""
        while True:
            try:
                data, rights, flags, _ = self.sock.recvmsg(
                    PACKET_BYTES, socket.CMSG_SPACE(SOCKETS_MOST * 4), socket.MSG_CMSG_CLOEXEC
                )
                break
            except BlockingIOError:
                await self._until(asyncio.get_running_loop().add_reader, asyncio.get_running_loop().remove_reader)
            except ConnectionError as error:
                raise EOFError(str(error)) from error
        came = array.array("i")
        for level, kind, octets in rights:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                came.frombytes(octets[: len(octets) - len(octets) % came.itemsize])
        socks = [socket.socket(fileno=number) for number in came]
        if not data:
            raise EOFError("closed")
        try:
            packet = msgspec.json.decode(data, type=Packet)
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(packet.places) != len(socks):
                raise ValueError("a packet was cut off")
        except ValueError:
            for sock in socks:
                sock.close()
            raise
        return packet, socks

    async def _until(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        number = self.sock.fileno()

        def is_ready() -> None:
            if not ready.done():
                ready.set_result(None)

        add(number, is_ready)
        try:
            await ready
        finally:
            remove(number)

    async def send_sockets(self, inherited: Sequence[Inherited], state: dict[str, Any] | None = None) -> None:
        """All of these, in as many packets as it takes."""
        for begin in range(0, max(len(inherited), 1), SOCKETS_MOST):
            part = inherited[begin : begin + SOCKETS_MOST]
            last = begin + SOCKETS_MOST >= len(inherited)
            told = (state or {}) if last else {}
            packet = Packet("sockets", places=[place for place, _ in part], last=last, state=told)
            await self.send(packet, [sock.fileno() for _, sock in part])

    async def receive_sockets(self) -> tuple[list[Inherited], dict[str, Any]]:
        """Raises HandoverError where they are refused; EOFError; ValueError."""
        found: list[Inherited] = []
        while True:
            packet, socks = await self.receive()
            if packet.op == "refused":
                raise HandoverError(packet.why)
            found += zip(packet.places, socks, strict=True)
            if packet.last:
                return found, packet.state

    def close(self) -> None:
        self.sock.close()


class Folder:
    """A path of a Unix socket, however long: by its folder's descriptor, as the kernel takes 107 octets at most."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = path.name

    def at(self, more: str = "") -> str:
        return f"/proc/self/fd/{self._descriptor}/{self._name}{more}"

    def close(self) -> None:
        os.close(self._descriptor)


def may_be(uid: int) -> bool:
    """Whether a user's process may hand us sockets or take ours."""
    return uid in (0, os.geteuid())


class Predecessor:
    def __init__(self, channel: Channel, pid: int, inherited: list[Inherited], state: dict[str, Any]) -> None:
        self.pid = pid
        self.inherited = inherited
        self.state = state
        self._channel: Channel | None = channel

    async def more(self) -> list[Inherited]:
        """What it has opened since; nothing where it is gone."""
        if self._channel is None:
            return []
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._channel.send(Packet("more"))
                return (await self._channel.receive_sockets())[0]
        except (OSError, EOFError, ValueError, HandoverError, TimeoutError) as error:
            logger.warning("the predecessor (process %d) does not say what it has opened since: %s", self.pid, error)
            return []

    async def ready(self) -> None:
        """From now on it accepts no more."""
        if self._channel is None:
            return
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._channel.send(Packet("ready"))
                await self._channel.receive()
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            logger.warning("the predecessor (process %d) ended before it was told: %s", self.pid, error)
        self.close()

    def close(self) -> None:
        """Without `ready` before: it goes on."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


async def take_over(path: Path, who: str) -> Predecessor | None:
    """The sockets of the process that serves `path`; None: there is none. Raises HandoverError."""
    try:
        folder = Folder(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HandoverError(f"{path}: {error.strerror}") from error
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    channel = Channel(sock)
    try:
        sock.settimeout(CONNECT_S)
        sock.connect(folder.at())
        sock.setblocking(False)
        pid, uid = channel.peer()
        if not may_be(uid):
            raise HandoverError(f"{path} is served by process {pid} of user {uid}")
        async with asyncio.timeout(ANSWER_S):
            await channel.send(Packet("take", who))
            inherited, state = await channel.receive_sockets()
    except (FileNotFoundError, ConnectionRefusedError):
        channel.close()  # nobody, or one that was killed
        return None
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        channel.close()
        raise HandoverError(f"{path}: {error or 'no answer (does another process take over just now?)'}") from error
    except HandoverError as error:
        channel.close()
        raise HandoverError(f"{path}: {error}") from None
    finally:
        folder.close()
    return Predecessor(channel, pid, inherited, state)


class Holder:
    """Serves `path` for a successor. `offer()` gives copies of what is open, and state; `taken(pid)` is called when the
    successor is ready: nothing must be accepted from then on."""

    def __init__(
        self,
        path: Path,
        who: str,
        offer: Callable[[], Awaitable[tuple[list[Inherited], dict[str, Any]]]],
        taken: Callable[[int], None],
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = path
        self._who = who
        self._offer = offer
        self._taken = taken
        self._failed = failed
        self._sock: socket.socket | None = None
        self._inode = 0
        self._task: asyncio.Task[None] | None = None
        self.closing = ""
        """Why nothing is handed over any more; empty: it is."""

    def start(self) -> None:
        """Raises OSError. A file that is there is replaced: its process has handed over to us, or is dead."""
        folder = Folder(self._path)
        draft = f".{os.getpid()}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(folder.at(draft))
            before = os.umask(0o177)
            try:
                sock.bind(folder.at(draft))
            finally:
                os.umask(before)
            sock.listen(4)
            os.rename(folder.at(draft), folder.at())
            self._inode = os.stat(folder.at()).st_ino
        except OSError:
            sock.close()
            raise
        finally:
            folder.close()
        self._sock = sock
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        assert self._sock is not None
        waiting = Channel(self._sock)
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                await waiting._until(loop.add_reader, loop.remove_reader)
                continue
            channel = Channel(sock)
            try:
                await self._talk(channel)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                logger.warning("a hand-over came to nothing, going on: %s", error or "no answer in time")
            finally:
                channel.close()

    async def _talk(self, channel: Channel) -> None:
        pid, uid = channel.peer()
        if not may_be(uid):
            logger.warning("process %d of user %d asked for our sockets: refused", pid, uid)
            return
        async with asyncio.timeout(ANSWER_S):
            packet, _ = await channel.receive()
        why = self.closing
        if not why and packet.who != self._who:
            why = f"it is that of {self._who} (process {os.getpid()}), not of {packet.who}; give each its own"
        if why:
            await channel.send(Packet("refused", why=why))
            return
        logger.info("process %d takes over: handing it our listening sockets", pid)
        try:
            while packet.op in ("take", "more"):
                inherited, state = await self._offer()
                try:
                    await channel.send_sockets(inherited, state)
                finally:
                    for _, sock in inherited:
                        sock.close()
                packet, _ = await channel.receive()  # however long it takes to be ready
        except (OSError, EOFError) as error:
            self._failed()
            raise EOFError(f"process {pid} ended before it was ready") from error
        if packet.op != "ready":
            raise ValueError(f"process {pid} said {packet.op!r}")
        self.closing = "it has handed over to another process"
        self._taken(pid)
        await channel.send(Packet("thanks"))

    async def close(self) -> None:
        """No more of it; the file goes unless it is a successor's."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._sock is not None:
            self._sock.close()
            self._sock = None
            with contextlib.suppress(OSError):
                if os.stat(self._path).st_ino == self._inode:
                    self._path.unlink()
