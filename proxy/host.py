"""One endpoint as this proxy uses it. Runs compiled (with host.pxd) or as it stands.

How long it keeps idle connections is learnt, so that none is used at the moment at which the endpoint closes it (what
nobody can tell from a request that was lost): from its Keep-Alive header, or from when it was seen to close some.
"""

from __future__ import annotations

from math import exp
from typing import Any

from ..policy.tables import ClusterEndpoint, Warmup
from . import outlier

FRESH_S = 0.5
"""A connection idle for no longer is used without a question. While nothing is known of the endpoint, what may not be
sent twice goes on no other: servers that close after a second exist (uvicorn with `--timeout-keep-alive 1`)."""
MARGIN_S, MARGIN = 0.25, 0.1
"""Seconds, and share of its time, before which a connection that the endpoint is about to close is used no more."""
ALIKE = 0.1
"""Two times at which it closed one are its rule when they differ by no more than this share of them."""
SAME_MOMENT_S = 0.05
"""What is closed within so long is closed by one event."""
SIDECAR_KEEPS_S = 300.0
"""What other sidecars keep idle connections for at least, unless told otherwise (their default: 3600 s)."""
FORGETS_S = 10.0
"""Within so long a latency of the past counts for 1/e (Peak EWMA; Linkerd's value)."""
FAILURE_S, FAILURE_S_MAX = 1.0, 60.0
"""What a failure counts for as a latency at least, and at most after several: to fail at once is not to be fast."""
UNMEASURED_S = 1e-6
"""Latency where nothing is known, for Peak EWMA: among such hosts, requests in flight decide."""
WARM_LEAST = 0.001
"""Share of a host that warms up from 0 %: no weight is 0."""


class Host:
    """Its connections and what they do, and how it has done so far."""

    def __init__(self, endpoint: ClusterEndpoint) -> None:
        self.endpoint = endpoint
        self.name = f"{endpoint.address}:{endpoint.port}"
        self.active = 0
        """Requests in flight."""
        self.connections = 0
        self.idle: list[Any] = []
        """Pooled connections, the most recently used last."""
        self.shared: list[Any] = []
        """HTTP/2 connections, each for many requests at a time."""
        self.one_only = False
        """HTTP/2 was offered, and it chose HTTP/1.1."""
        self.requests = 0
        self.health = outlier.Health()
        self.weight = float(max(endpoint.weight, 1))
        """As balancers count it: of the endpoint, less while it warms up."""
        self.warm_from = -1.0
        """Since when it warms up; below 0: it does not."""
        self.latency_s = UNMEASURED_S
        """Moving average, where it is measured (LiveCluster.measures)."""
        self._latency_at = 0.0
        self.fresh_s = FRESH_S
        """Idle time up to which a connection is used without asking `may_use`."""
        self.closes_s = 0.0
        """The endpoint closes connections that were idle for so long; 0: not known."""
        self.kept_s = SIDECAR_KEEPS_S if endpoint.tls is not None and endpoint.tls.mode == "mesh" else 0.0
        """It was seen to keep one for so long."""
        self._closed_s = 0.0
        """Idle time of the one that it closed last."""
        self._closed_at = 0.0
        self.gone = False
        """It is no longer in the tables, or is to be reached otherwise: its connections end with what they carry."""

    def may_use(self, idle_s: float, again: bool) -> bool:
        """Whether a connection idle for so long may carry a request; `again`: it could be sent once more."""
        closes = self.closes_s
        if closes:
            return idle_s < closes - max(MARGIN_S, closes * MARGIN)
        kept = self.kept_s
        return again or idle_s <= max(FRESH_S, kept - max(MARGIN_S, kept * MARGIN))

    def warm(self, warmup: Warmup | None, now: float) -> bool:
        """Set the weight as it is now; whether it still warms up."""
        self.weight = float(max(self.endpoint.weight, 1))
        if warmup is None or self.warm_from < 0:
            self.warm_from = -1.0
            return False
        age_s = now - self.warm_from
        if age_s >= warmup.duration_s:
            self.warm_from = -1.0
            return False
        share = max(age_s, 0.001) / warmup.duration_s
        self.weight *= max(share ** (1 / warmup.aggression), warmup.minimum, WARM_LEAST)
        return True

    def took(self, seconds: float, now: float) -> None:
        """It answered after so long."""
        before = self.latency_s
        if seconds < before:
            kept = exp((self._latency_at - now) / FORGETS_S)
            seconds = before * kept + seconds * (1 - kept)
        self.latency_s = seconds
        self._latency_at = now

    def failed(self, now: float) -> None:
        """It gave no answer, or one that it is at fault for."""
        self.took(min(max(2 * self.latency_s, FAILURE_S), FAILURE_S_MAX), now)

    def fade(self, now: float) -> None:
        """The past counts for less with time, so that a host nobody asks is asked again."""
        self.latency_s = max(self.latency_s * exp((self._latency_at - now) / FORGETS_S), UNMEASURED_S)
        self._latency_at = now

    def says(self, seconds: float) -> None:
        """Its Keep-Alive header."""
        self._close_after(seconds)

    def was_kept(self, idle_s: float) -> None:
        """A connection idle for so long is still open, or has carried a request."""
        if idle_s > self.kept_s:
            self.kept_s = idle_s
        if self.closes_s and idle_s > 2 * self.closes_s + FRESH_S:  # what was taken for its rule is none
            self.closes_s = 0.0
            self.fresh_s = FRESH_S

    def closed_idle(self, idle_s: float, now: float) -> None:
        """It closed a connection that was idle for so long. Twice at about the same time, and not at the same moment
        (a restart closes all of them), is its rule."""
        if idle_s < self.kept_s:
            self.kept_s = idle_s
        before, at = self._closed_s, self._closed_at
        if before and now - at < SAME_MOMENT_S:
            return
        self._closed_s, self._closed_at = idle_s, now
        if before and abs(before - idle_s) <= ALIKE * max(before, idle_s):
            self._close_after(min(before, idle_s))

    def _close_after(self, seconds: float) -> None:
        self.closes_s = max(seconds, 0.001)
        self.fresh_s = min(FRESH_S, max(0.0, self.closes_s - max(MARGIN_S, self.closes_s * MARGIN)))
