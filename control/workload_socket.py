"""Shell: the Unix socket by which workloads of this host reach control: its path, and who is at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import socket
import stat
import struct
from pathlib import Path

from .settings import cause
from .socket_users import SocketUsers


def clear_path(path: str) -> None:
    """Remove a socket that nobody listens on any more. Raises ValueError where something else is there, OSError."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(path)
        raise ValueError(f"{path}: another process listens there")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ValueError(f"{path} is there, and is no socket")
        os.unlink(path)


def open_to_all(path: str) -> None:
    """Whoever connects is known by the kernel's word."""
    os.chmod(path, 0o666)


def peer_uid(transport: asyncio.BaseTransport) -> int:
    """The user at the other end of a Unix socket, as it was when it connected."""
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as end:
        _, uid, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def read_users(path: str) -> SocketUsers:
    """Raises ValueError naming the file."""
    try:
        return SocketUsers(Path(path).read_text() if path else "", lambda name: pwd.getpwnam(name).pw_uid)
    except (OSError, ValueError) as error:
        raise ValueError(f"users of the socket {path}: {cause(error)}") from error


def is_own_address(address: str) -> bool:
    """Whether this host has the address: then who comes from this host may have it."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
