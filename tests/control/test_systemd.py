"""What systemd hears of a role: datagrams on a path or an abstract socket, and nothing where it did not ask."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from fairlead.control.systemd import Notifier


def listener(at: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(at)
    made.settimeout(5)
    return made


def heard(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode().split("\n")


def test_a_role_says_ready_reloading_stopping_and_who_succeeds_it(tmp_path: Path) -> None:
    with listener(str(tmp_path / "notify")) as sock:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}, 7)
        notifier.ready("sidecar ready\nhealth=1")
        assert heard(sock) == ["READY=1", "STATUS=sidecar ready health=1"]
        notifier.reloading()
        first, second = heard(sock)
        assert first == "RELOADING=1"
        assert int(second.removeprefix("MONOTONIC_USEC=")) > 0
        notifier.stopping("draining")
        assert heard(sock) == ["STOPPING=1", "STATUS=draining"]
        notifier.handed_over(42)
        assert heard(sock) == ["MAINPID=42"]


def test_an_abstract_socket_is_told_too(tmp_path: Path) -> None:
    name = f"fairlead-{tmp_path.name}-{id(tmp_path)}"
    with listener("\0" + name) as sock:
        Notifier({"NOTIFY_SOCKET": "@" + name}, 7).ready("x")
        assert heard(sock) == ["READY=1", "STATUS=x"]


def test_its_variables_are_not_inherited_by_what_we_start_but_by_a_successor() -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "100", "WATCHDOG_PID": "7", "PATH": "/bin"}
    notifier = Notifier(environment, 7)
    assert environment == {"PATH": "/bin"}
    assert notifier.environment == {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "100"}
    assert notifier.watchdog_s == 100 / 2e6


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "vsock:2:1"},
        {"NOTIFY_SOCKET": "/no/such/socket"},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "100", "WATCHDOG_PID": "8"},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"},
    ],
)
def test_where_there_is_nothing_to_tell_nothing_fails(environment: dict[str, str]) -> None:
    notifier = Notifier(environment, 7)
    notifier.ready("x")
    notifier.ready("x")
    assert notifier.watchdog_s == 0.0


@pytest.mark.asyncio
async def test_signs_of_life_come_from_the_event_loop_at_half_the_time(tmp_path: Path) -> None:
    with listener(str(tmp_path / "notify")) as sock:
        sock.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "40000"}, 7)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        notifier.watch()
        async with asyncio.timeout(5):
            for _ in range(4):
                assert await loop.sock_recv(sock, 100) == b"WATCHDOG=1"
        assert loop.time() - begun >= 3 * 0.02 - 0.005  # uvloop tells whole milliseconds
