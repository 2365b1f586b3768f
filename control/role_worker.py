"""Shell: one of the processes of `fairlead sidecar --workers N`; started by its supervisor, not by people."""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop

from ..mesh.worker import Worker
from .role_common import set_up_log, unheard


def main(arguments: list[str]) -> int:
    link, memory, sockets = (int(number) for number in arguments)
    # The supervisor is told by signals, and we by it: Ctrl-C and systemd reach every process of the group.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    set_up_log()

    async def whole() -> int:
        asyncio.get_running_loop().set_exception_handler(unheard)
        return await Worker(memory, sockets).run(link)

    return uvloop.run(whole())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
