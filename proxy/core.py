"""What every exchange asks its engine for, several times each: by attributes and calls that cost next to nothing.

Runs compiled (with core.pxd) or as it stands. Engine (engine.py) is the shell around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..policy.tables import Arrival, Decision, Destination, LoadBalancer, Request, Tables, Verdict
from .limits import Settings
from .message import Outcome
from .poller import Protocol
from .pool import Pool
from .rate_limit import Limiter

COMPILED = not __file__.endswith((".py", ".pyc"))


class Rules:
    """The functions of policy/ that exchanges use, given as arguments so that tests can put others in their place."""

    def __init__(
        self,
        decide: Callable[[Tables, Request], Decision],
        admit: Callable[[Tables, Arrival], Verdict],
        pick: Callable[[Decision, float], Destination],
        hash_input: Callable[[LoadBalancer, Request], str | None],
        normalize: Callable[[str, str], str],
        inbound_port: Callable[[Tables, str], int],
        egress_verdict: Callable[[Tables, str, int], Verdict | None],
    ) -> None:
        self.inbound_port = inbound_port
        self.egress_verdict = egress_verdict
        self.decide = decide
        self.admit = admit
        self.pick = pick
        self.hash_input = hash_input
        self.normalize = normalize


class Client(Protocol):
    """What an exchange is told by and tells: a client's HTTP/1 connection, or one stream of its HTTP/2 connection."""

    local: str
    """Its own address, `ip:port`."""
    reading_paused: bool

    def write(self, data: bytes) -> None:
        """HTTP/1: octets of a response."""
        raise NotImplementedError

    def respond(self, text: bytes, end: bool) -> None:
        """HTTP/2: a response's head, as text of HTTP/1.1."""
        raise NotImplementedError

    def send(self, data: bytes, end: bool) -> None:
        """HTTP/2: body octets."""
        raise NotImplementedError

    def finish(self, trailers: bytes) -> None:
        """HTTP/2: the end, with trailers."""
        raise NotImplementedError

    def done(self, exchange: Any, close: bool) -> None:
        """The exchange has ended, and its response, if any, is written."""
        raise NotImplementedError

    def last_request(self, exchange: Any) -> bool:
        """Whether the connection must end after this exchange, for the client's or its own reasons."""
        raise NotImplementedError

    def trailers(self) -> bytes:
        """Trailer lines of the request whose body has ended."""
        raise NotImplementedError

    def arm(self, at: float) -> None:
        """Call the exchange's `wake` at `at` or earlier."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        raise NotImplementedError

    def resume_reading(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        """The response cannot be ended well, and the client must be able to tell."""
        raise NotImplementedError


class Core:
    """`clock()`: seconds, monotonic; `draw()`: a number in [0, 1); `entropy(n)`: n random octets; `observe(outcome)` is
    called once for each exchange and relay."""

    def __init__(
        self,
        tables: Tables,
        settings: Settings,
        clock: Callable[[], float],
        draw: Callable[[], float],
        entropy: Callable[[int], bytes],
        rules: Rules,
        observe: Callable[[Outcome], None],
    ) -> None:
        self.tables = tables
        self.settings = settings
        self.clock = clock
        self.monotonic = False
        """The clock is time.monotonic, and may be read without calling it."""
        self.draw = draw
        self.entropy = entropy
        self.decide = rules.decide
        self.pick = rules.pick
        self.hash_input = rules.hash_input
        self.observe = observe
        self.draining = False
        self.limiter: Limiter | None = None
        """Local rate limits; None: there are none."""
        self.tokens: Any = None
        """TokenCheck (token_check.py); None: no RequestAuthentication applies."""
        self.own_identity = ""
        self.pools: dict[str, Pool] = {}
        """By the cluster's name."""
        self.outbox: Any = None
        self._ids = ""
        self._ids_base = 0
        self._ids_left = 0

    def now(self) -> float:
        """The clock's time."""
        if COMPILED and self.monotonic:
            return fl_monotonic()  # type: ignore[name-defined,no-any-return]  # noqa: F821 (a C function of core.pxd)
        return self.clock()

    def new_id(self) -> str:
        """A random UUID (version 4) as text."""
        left = self._ids_left
        if not left:  # one draw for a thousand, which differ in their last ten bits
            h = self.entropy(16).hex()
            self._ids = f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:29]}"
            self._ids_base = int(h[29:], 16) & ~1023
            left = 1024
        self._ids_left = left = left - 1
        return f"{self._ids}{self._ids_base | left:03x}"

    def pool(self, tables: Tables, name: str) -> Pool | None:
        """The pool of a cluster, made when first asked for; None: the tables have no such cluster."""
        found = self.pools.get(name)
        return found if found is not None else self.new_pool(tables, name)

    def awaits(self, live: Any, told: Callable[[], None]) -> bool:
        """Whether the endpoints of this cluster's service are not known here, but are on their way; then `told` is
        called once, when they have come, or have been waited for long enough."""
        return False

    def new_pool(self, tables: Tables, name: str) -> Pool | None:
        raise NotImplementedError
