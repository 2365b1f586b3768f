"""Reasons: a stable code, an HTTP status and an Envoy response flag for every answer that Fairlead makes itself."""

from __future__ import annotations


class Reason:
    """`code` is in the access log, a metric label and the header x-fairlead-reason; `flag` is Envoy's response flag."""

    __slots__ = ("code", "flag", "status")

    def __init__(self, code: str, status: int, flag: str) -> None:
        self.code = code
        self.status = status
        """0: there is nobody to answer."""
        self.flag = flag

    def __repr__(self) -> str:
        return self.code


NO_ROUTE = Reason("FL-NO-ROUTE", 404, "NR")
NO_CLUSTER = Reason("FL-NO-CLUSTER", 503, "NC")
NO_HEALTHY = Reason("FL-NO-HEALTHY", 503, "UH")
OVERFLOW = Reason("FL-OVERFLOW", 503, "UO")
CONNECT = Reason("FL-CONNECT", 503, "UF")
RESET = Reason("FL-RESET", 503, "UC")
TIMEOUT = Reason("FL-TIMEOUT", 504, "UT")
IDLE = Reason("FL-IDLE", 0, "SI")
DURATION = Reason("FL-DURATION", 0, "DT")
"""A TCP connection that was open for maxConnectionDuration."""
DENIED = Reason("FL-DENIED", 403, "RBAC")
MALFORMED = Reason("FL-MALFORMED", 400, "DPE")
TOO_LARGE = Reason("FL-TOO-LARGE", 431, "DPE")
"""431 for a head; 413 where a body is what was too large."""
SLOW = Reason("FL-SLOW", 408, "DPE")
UP_MALFORMED = Reason("FL-UP-MALFORMED", 502, "UPE")
FAULT = Reason("FL-FAULT", 0, "FI")
"""Status as the fault says."""
RATE = Reason("FL-RATE", 429, "RL")
DRAINING = Reason("FL-DRAINING", 503, "-")
CLIENT_GONE = Reason("FL-CLIENT-GONE", 0, "DC")
TOKEN = Reason("FL-TOKEN", 401, "-")
"""A token of an end user that cannot be proved (RequestAuthentication)."""
PLAINTEXT = Reason("FL-PLAINTEXT", 0, "-")
"""A plaintext peer where PeerAuthentication asks for mutual TLS; the connection is closed."""

REASONS: dict[str, Reason] = {value.code: value for value in list(globals().values()) if isinstance(value, Reason)}
