"""Shell: the sources of a role from its settings: manifests, Consul, etcd, schedulers; one registry."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..registry.documents import Document, Problem
from ..registry.hub import Registry
from ..registry.model import SourceStatus
from ..registry.source_manifests import Manifests
from ..registry.supervise import Source, supervised
from .role_common import Tasks
from .settings import SettingError, counted

PRECEDENCE = ("control", "manifests", "sidecars", "consul", "etcd", "nomad", "docker", "marathon")
"""A service that several sources have is taken from the first of these that has it."""
SCHEDULERS = ("nomad", "docker", "marathon")
logger = logging.getLogger("fairlead.sources")


class Sources:
    """Starts what --filename, --consul, --etcd and so on ask for; `documents` hears of manifests that change."""

    def __init__(
        self,
        options: Any,
        registry: Registry,
        tasks: Tasks,
        data: Path | None,
        documents: Callable[[list[Document], list[Problem]], None],
    ) -> None:
        self._options = options
        self._registry = registry
        self._tasks = tasks
        self._data = data
        self._running: list[Any] = []
        self.manifests = Manifests(options.filename, documents, registry.status) if options.filename else None

    def start_manifests(self) -> None:
        """Read them for the first time, and follow them."""
        if self.manifests is not None:
            self.manifests.read()
            if unread := self.manifests.unread():
                raise SettingError(f"-f {unread[0]}")
            self._supervise(self.manifests)

    async def start(self) -> None:
        options = self._options
        if options.consul:
            from .source_setup import consul_source

            more = options.consul_namespace, options.consul_address
            self._follow(consul_source(options.consul, self._registry, self._data, os.environ, *more))
        if options.etcd:
            from .source_setup import etcd_source

            prefix, layout = options.etcd_prefix, options.etcd_layout
            self._follow(etcd_source(options.etcd, prefix, self._registry, self._data, os.environ, layout))
        for name in SCHEDULERS:
            if where := getattr(options, name):
                from . import source_setup

                make = getattr(source_setup, f"{name}_source")
                self._follow(make(where, self._registry, self._data, os.environ))

    def _follow(self, source: Any) -> None:
        self._running.append(source)
        self._supervise(source)

    def _supervise(self, source: Source) -> None:
        def last() -> SourceStatus | None:
            return self._registry.snapshot.value.sources.get(source.name)

        self._tasks.start(source.name, supervised(source, last, self._registry.status))

    def problem(self) -> str:
        """For /readyz: a source that has never said anything; empty: none."""
        waiting = [
            status.name
            for status in self._registry.snapshot.value.sources.values()
            if status.state == "starting" and status.name != "manifests"
        ]
        return f"nothing yet from {', '.join(waiting)}" if waiting else ""

    def notes(self) -> list[str]:
        """What is not as it should be and keeps nobody from working: a source away, entries left out."""
        said = []
        for status in self._registry.snapshot.value.sources.values():
            if status.state != "live" and status.error:
                said.append(f"{status.name}: {status.state}: {status.error}")
            if status.problems:
                said.append(
                    f"{status.name}: {counted(len(status.problems), 'entry')} cannot be used: {status.problems[0]}"
                )
            said += [f"{status.name}: {note}" for note in status.notes]
        return said

    async def close(self) -> None:
        for source in self._running:
            await source.close()


def need_some(options: Any) -> None:
    given = ("filename", "consul", "etcd", *SCHEDULERS, "control")
    if not any(getattr(options, name, None) for name in given):
        raise SettingError("give a source: -f PATH, --consul, --etcd, --nomad, --docker, --marathon or --control")
