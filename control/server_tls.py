"""Shell: the TLS context of the API's listener, which is made anew without the listener being closed.

All that an event loop asks of a server's context is `wrap_bio`, once for each connection: it is answered by the context
of the moment. Connections that stand keep theirs.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable

RENEW_AT = 2 / 3
"""Share of the life of its certificate after which it is made anew."""
logger = logging.getLogger("fairlead.api")


class ServerContext(ssl.SSLContext):
    """`make` makes a context; with the end of its certificate (Unix seconds)."""

    _now: ssl.SSLContext
    _make: Callable[[], tuple[ssl.SSLContext, float]]
    _clock: Callable[[], float]
    _due: float
    _people: str = ""
    """Authorities of users (PEM), trusted beside those that `make` knows."""

    def __new__(cls, make: Callable[[], tuple[ssl.SSLContext, float]], clock: Callable[[], float]) -> ServerContext:
        made: ServerContext = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made._make, made._clock = make, clock
        made._take()
        return made

    def __init__(self, *_: object) -> None:
        pass

    def _take(self) -> None:
        made, ends = self._make()
        if self._people:
            made.load_verify_locations(cadata=self._people)
        self._now = made
        begun = self._clock()
        self._due = begun + (ends - begun) * RENEW_AT

    def trust_people(self, pem: str) -> None:
        """Take client certificates of these authorities as well, also after a renewal. Raises ssl.SSLError."""
        self._now.load_verify_locations(cadata=pem)
        self._people = pem

    def renew(self) -> None:
        """Make it anew; where that fails the old one stays, and it is said why."""
        try:
            self._take()
        except (ValueError, OSError) as error:
            logger.error("the API's certificate is not renewed: %s", error)
            self._due = self._clock() + 60.0

    def renew_if_due(self) -> None:
        if self._clock() >= self._due:
            self.renew()

    def wrap_bio(self, *given: object, **named: object) -> ssl.SSLObject:
        self.renew_if_due()
        return self._now.wrap_bio(*given, **named)  # type: ignore[arg-type]
