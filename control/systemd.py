"""Shell: what a role tells systemd (sd_notify(3)), where it wants to know: ready, reloading, stopping, alive.

One datagram for each, of `NAME=VALUE` lines, to the Unix socket in NOTIFY_SOCKET; `@` at its front: an abstract one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import MutableMapping

logger = logging.getLogger("fairlead")
OWN = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
STATUS_MOST = 500
"""Characters of a status line."""


class Notifier:
    """Takes its variables out of `environment`: what we start is not the service's main process."""

    def __init__(self, environment: MutableMapping[str, str], pid: int) -> None:
        self.environment = {name: environment[name] for name in OWN[:2] if name in environment}
        """For a successor, which becomes the service's main process."""
        address, usec, whose = (environment.pop(name, "") for name in OWN)
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._failed = False
        self.watchdog_s = 0.0
        """How often a sign of life is sent: half of what systemd waits; 0: never."""
        if not address:
            return
        if address[0] not in "@/":
            logger.warning("NOTIFY_SOCKET=%s: expected a path or @NAME; systemd is not told", address)
            self._address = ""
            return
        if usec.isdigit() and int(usec) and whose in ("", str(pid)):
            self.watchdog_s = int(usec) / 2e6

    def tell(self, **state: str) -> None:
        """Send these; a socket that is not there is logged once."""
        if not self._address:
            return
        lines = "\n".join(f"{name}={value}" for name, value in state.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(lines.encode("utf-8", "replace"), self._address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                logger.warning("systemd is not told (%s): NOTIFY_SOCKET: %s", ", ".join(state), error)

    def ready(self, status: str) -> None:
        self.tell(READY="1", STATUS=_line(status))

    def status(self, status: str) -> None:
        self.tell(STATUS=_line(status))

    def reloading(self) -> None:
        """`ready` must follow. The time tells systemd which reload it is about (Type=notify-reload)."""
        self.tell(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))

    def stopping(self, status: str) -> None:
        self.tell(STOPPING="1", STATUS=_line(status))

    def handed_over(self, pid: int) -> None:
        """The service's main process is another one from now on."""
        self.tell(MAINPID=str(pid))

    def watch(self) -> None:
        """Begin to send signs of life from the event loop; they end when it hangs."""
        if self.watchdog_s:
            self.tell(WATCHDOG="1")
            asyncio.get_running_loop().call_later(self.watchdog_s, self.watch)


def _line(text: str) -> str:
    return text.replace("\n", " ")[:STATUS_MOST]


def for_this_process() -> Notifier:
    return Notifier(os.environ, os.getpid())
