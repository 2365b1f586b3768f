"""Shell: the listening sockets of a process: new ones, or ones that a predecessor or systemd has handed to it.

sockets = Sockets()
sockets.give(inherited)                               what there is to be used before anything new is bound
await sockets.listening("127.0.0.1", 15001, "outbound")    the sockets of an address
sockets.open()                                        those that are open now, to hand on
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from . import poller


class Place(Struct, frozen=True):
    """Where a socket listens, as it was asked for."""

    kind: str
    """tcp, udp; held: bound, not listening."""
    name: str
    """The listener's: outbound, inbound, gateway:80, health ..."""
    host: str
    port: int
    """The one that is bound."""
    systemd: bool = False
    """The name is the unit's (FileDescriptorName=, with - for our :), and counts whatever the address."""


Inherited = tuple[Place, socket.socket]


class Sockets:
    def __init__(self) -> None:
        self.reuse_port = False
        """Several processes listen on the same addresses (SO_REUSEPORT); the kernel spreads connections over them."""
        self.more: Callable[[], Awaitable[list[Inherited]]] | None = None
        """Asks a predecessor, as long as there is one, for what it has opened since."""
        self._spare: list[Inherited] = []
        self._open: list[Inherited] = []

    def give(self, inherited: Iterable[Inherited]) -> None:
        for place, sock in inherited:
            sock.setblocking(False)
            if place.kind == "tcp" and self.reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._spare.append((place, sock))

    def spare(self) -> list[Inherited]:
        """What was given and is not used, from now on the caller's."""
        left, self._spare = self._spare, []
        return left

    def peek(self) -> list[Inherited]:
        """What was given and is not used."""
        return list(self._spare)

    def close_spare(self) -> list[Place]:
        """Close what was given and is of no use; what that was."""
        left = self.spare()
        for _, sock in left:
            sock.close()
        return [place for place, _ in left]

    def open(self) -> list[Inherited]:
        self._open = [(place, sock) for place, sock in self._open if sock.fileno() >= 0]
        return list(self._open)

    def note(self, kind: str, name: str, host: str, socks: Sequence[socket.socket]) -> None:
        """These are open, too, and are handed on while they are."""
        self.open()
        self._open += [(Place(kind, name, host, sock.getsockname()[1]), sock) for sock in socks]

    def claim(self, kind: str, name: str, host: str, port: int) -> list[socket.socket]:
        """The inherited sockets for this; of systemd by address, or by the name that the unit gives them."""
        mine = [(place, sock) for place, sock in self._spare if fits(place, kind, name, host, port)]
        if mine:
            first = mine[0][0]
            mine = [(place, sock) for place, sock in mine if place == first]
            taken = [sock for _, sock in mine]
            self._spare = [(place, sock) for place, sock in self._spare if sock not in taken]
        return [sock for _, sock in mine]

    async def listening(self, host: str, port: int, name: str = "") -> list[socket.socket]:
        """As poller.listening: inherited, or new. Raises OSError."""
        socks = self.claim("tcp", name, host, port)
        if not socks:
            try:
                socks = await poller.listening(host, port, self.reuse_port)
            except OSError:
                if self.more is None:
                    raise
                self.give(await self.more())
                socks = self.claim("tcp", name, host, port)
                if not socks:
                    raise
        self.note("tcp", name, host, socks)
        return socks


def fits(place: Place, kind: str, name: str, host: str, port: int) -> bool:
    if place.kind != kind:
        return False
    if place.systemd and name and place.name in (name, name.replace(":", "-")):
        return True
    if (place.host or "::") != (host or "::"):
        return False
    return place.port == port if port else place.name == name


FIRST_DESCRIPTOR = 3


def of_systemd(environment: Any, pid: int) -> tuple[list[Inherited], list[str]]:
    """Sockets of socket activation (sd_listen_fds(3)), and what cannot be used. Takes its variables out.

    Each is known by its address; where FileDescriptorName= names a listener (outbound, inbound, gateway:80), by that.
    """
    whose, count, names = (environment.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if not count.isdigit() or whose != str(pid):
        return [], []
    found: list[Inherited] = []
    problems: list[str] = []
    named = names.split(":")
    for number in range(int(count)):
        sock = socket.socket(fileno=FIRST_DESCRIPTOR + number)
        sock.set_inheritable(False)
        name = named[number] if number < len(named) else ""
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            problems.append(f"socket {name or number} of systemd is of no Internet family")
            sock.close()
            continue
        kind = "udp" if sock.type == socket.SOCK_DGRAM else "tcp"
        if kind == "tcp" and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.listen(poller.BACKLOG)
        address, port = sock.getsockname()[:2]
        found.append((Place(kind, name, address, port, True), sock))
    return found, problems
