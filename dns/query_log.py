"""Shell: one line for each question, as CoreDNS's log plugin writes it, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable

from .message import TYPE_NAMES, Query, read_query, show_name
from .metrics import RCODE_NAMES

_HELD_MOST = 512
"""Lines held before they are written, whatever the loop does."""
_FLAGS = ((0x80, 0, "qr"), (0x04, 0, "aa"), (0x02, 0, "tc"), (0x01, 0, "rd"), (0x80, 1, "ra"), (0x20, 1, "ad"),
          (0x10, 1, "cd"))  # fmt: skip
CLASSES = ("all", "denial", "error")


class QueryLog:
    """`which`: all; denial (names or types that are missing, and errors); error. `write` takes lines of text."""

    def __init__(
        self, which: str, write: Callable[[str], object], soon: Callable[[Callable[[], None]], object]
    ) -> None:
        """`soon(callback)` runs it after what the loop is doing now."""
        if which not in CLASSES:
            raise ValueError(f"expected one of {', '.join(CLASSES)}, got {which!r}")
        self.which = which
        self.failed = 0
        """Lines that could not be written."""
        self._write = write
        self._soon = soon
        self._held: list[str] = []

    def datagram(self, message: bytes, client: tuple[str, int], reply: bytes) -> None:
        self.add(message, client, reply, "udp")

    def add(self, message: bytes, client: tuple[str, int], reply: bytes, proto: str) -> None:
        """A question was answered."""
        rcode = reply[3] & 15
        if self.which != "all" and not rcode and (self.which == "error" or reply[6:8] != b"\0\0"):
            return
        if self.which == "error" and rcode == 3:
            return
        if not self._held:
            self._soon(self.flush)
        self._held.append(line(message, client, reply, proto))
        if len(self._held) >= _HELD_MOST:
            self.flush()

    def flush(self) -> None:
        held, self._held = self._held, []
        if held:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime())
            try:
                self._write("".join(f"{stamp}{text}\n" for text in held))
            except OSError:  # a full disk, a reader that went away: answering goes on
                self.failed += len(held)


def line(message: bytes, client: tuple[str, int], reply: bytes, proto: str) -> str:
    """`ADDRESS:PORT - ID "TYPE CLASS NAME PROTO SIZE DO BUFSIZE" RCODE FLAGS RSIZE`."""
    query = read_query(message)
    if isinstance(query, Query) and query.question:
        rtype = TYPE_NAMES.get(query.qtype, f"TYPE{query.qtype}")
        asked = f"{rtype} IN {show_name(query.name)} {proto} {len(message)} {str(query.do).lower()} {query.payload}"
    else:
        asked = f"- - - {proto} {len(message)} false 512"
    host = f"[{client[0]}]" if ":" in client[0] else client[0]
    flags = ",".join(name for bit, octet, name in _FLAGS if reply[2 + octet] & bit)
    code = reply[3] & 15
    rcode = RCODE_NAMES.get(code, str(code))
    return f'{host}:{client[1]} - {int.from_bytes(message[:2], "big")} "{asked}" {rcode} {flags} {len(reply)}'
