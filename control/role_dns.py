"""Shell: `fairlead dns`: the DNS server on its own, from manifests, Consul, etcd, or control's feed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..dns.engine import DnsOptions
from ..dns.message import wire_name
from ..dns.server import DnsServer
from ..policy.world import World
from ..proxy.local_server import TEXT, Answer, LocalServer, Query
from ..registry.documents import Document, Problem
from ..registry.facts import facts_of
from ..registry.hub import Registry
from .role_common import Signals, Tasks, logger, ready, run
from .role_feed import feed_for
from .role_sources import PRECEDENCE, Sources, need_some
from .settings import SettingError


def main(options: Any) -> int:
    need_some(options)
    return run(lambda signals: Dns(options).run(signals))


def dns_options(options: Any) -> DnsOptions:
    """The server's settings as the command line says them. Raises SettingError."""
    upstreams = options.upstream
    for flag, names in (("--search", options.search), ("--consul-domain", [options.consul_domain])):
        for name in names:
            try:
                wire_name(name)
            except ValueError as error:
                raise SettingError(f"{flag}: {error}") from None
    if options.consul_domain.strip(".").lower() in ("cluster.local", "arpa") or options.consul_domain == ".":
        raise SettingError(f"--consul-domain: {options.consul_domain} is answered for already; usually it is `consul`")
    return DnsOptions(
        upstreams=() if upstreams == ["off"] else tuple(upstreams) if upstreams else None,
        ttl=int(options.ttl),
        pods=options.pods,
        autopath=options.autopath,
        search=tuple(options.search),
        consul_domain=options.consul_domain.strip("."),
        consul_datacenter=options.consul_datacenter,
        consul_namespace=options.consul_namespace,
        client_locality=options.locality,
    )


class Dns:
    def __init__(self, options: Any) -> None:
        self.options = options
        self.server = DnsServer(dns_options(options))
        self.registry = Registry(PRECEDENCE)
        self.draining = False
        self.notes: Callable[[], list[str]] = list
        """What else there is to say at readiness."""

    async def run(self, signals: Signals) -> int:
        options = self.options
        if options.listen is None:
            raise SettingError("--listen: a DNS server needs an address to listen on")
        data = Path(options.data_dir) if options.data_dir else None
        tasks = Tasks(signals.stop)
        self.registry.snapshot.subscribe(self.server.update)
        sources = Sources(options, self.registry, tasks, data, self._documents)
        self.notes = sources.notes
        sources.start_manifests()
        if options.filename:
            signals.on_reload = sources.manifests.look_now if sources.manifests else None
        feed = None
        if options.control:
            feed = feed_for(options, [options.control], "dns", options.name, self._world, data, {})
            feed.feed.start_from_disk()
            tasks.start("feed", feed.feed.run())
        local = LocalServer({("GET", "/healthz/ready"): self._ready, ("GET", "/ready"): self._ready,
                             ("GET", "/health"): health, ("GET", "/metrics"): self._metrics})  # fmt: skip
        try:
            await self._listen(local)
            await sources.start()
            ready(f"fairlead dns ready dns={self.server.host}:{self.server.port}{self._health(local)}")
            await signals.stop.wait()
        finally:
            await self.server.close()
            await local.close()
            await sources.close()
            await tasks.close()
            if feed is not None:
                await feed.close()
        return 1 if tasks.failed else 0

    async def _listen(self, local: LocalServer) -> None:
        try:
            await self.server.start(*self.options.listen)
            for warning in self.server.warnings:
                logger.warning("dns: %s", warning)
            if self.options.health is not None:
                await local.start(*self.options.health)
        except OSError as error:
            host, port = self.options.listen
            raise SettingError(f"{host}:{port} cannot be listened on: {error.strerror or error}") from error

    def _health(self, local: LocalServer) -> str:
        return f" health={self.options.health[0]}:{local.port}" if self.options.health is not None else ""

    def _documents(self, documents: list[Document], problems: list[Problem]) -> None:
        for problem in problems:
            logger.error("%s", problem)
        good, reports = World.load(documents)
        for report in reports:
            for told in report.errors:
                logger.error("%s: %s: %s", report.source, told.path, told.message)
        valid = [document for document, report in zip(documents, reports, strict=True) if report.valid]
        self.registry.update("manifests", facts_of(valid, "manifests", good.resources.mesh.spec.cluster_domain))

    def _world(self, world: World) -> None:
        self.server.update(world.snapshot)

    def _ready(self, _query: Query) -> Answer:
        notes = "".join(f"note: {note}\n" for note in self.notes())
        if not self.server.ready:
            return 503, TEXT, f"no snapshot of services yet\n{notes}".encode("utf-8", "replace")
        return 200, TEXT, f"ready\n{notes}".encode("utf-8", "replace")

    def _metrics(self, _query: Query) -> Answer:
        text = "\n".join(self.server.metric_lines()) + "\n"
        return 200, "text/plain; version=0.0.4; charset=utf-8", text.encode()


def health(_query: Query) -> Answer:
    return 200, TEXT, b"OK\n"
