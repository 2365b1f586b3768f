"""One endpoint as this proxy uses it. Runs compiled (with host.pxd) or as it stands."""

from __future__ import annotations

from typing import Any

from ..policy.tables import ClusterEndpoint
from . import outlier


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
        self.gone = False
        """It is no longer in the tables, or is to be reached otherwise: its connections end with what they carry."""
