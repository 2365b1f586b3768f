"""Shell: `fairlead dns`: the DNS server on its own, from manifests, Consul, etcd, or control's feed."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from ..dns.engine import DnsOptions
from ..dns.explain import explain, question, type_number
from ..dns.message import wire_name
from ..dns.query_log import QueryLog
from ..dns.server import DnsServer
from ..dns.tls_files import Certificate
from ..mesh.bundle import Bundle
from ..policy.world import World
from ..proxy.local_server import TEXT, Answer, LocalServer, Query
from ..registry.documents import Document, Problem
from ..registry.facts import facts_of
from ..registry.hub import Registry
from ..registry.snapshot import Snapshot
from .doh import Doh
from .role_common import Signals, Tasks, logger, ready, run
from .role_feed import feed_for
from .role_sources import PRECEDENCE, Sources, need_some
from .settings import SettingError, why

T = TypeVar("T")


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
        ttl=int(options.dns_ttl),
        pods=options.pods,
        autopath=options.autopath,
        search=tuple(options.search),
        consul_domain=options.consul_domain.strip("."),
        consul_datacenter=options.consul_datacenter,
        consul_namespace=options.consul_domain_namespace,
        client_locality=options.locality,
        loop_probe_s=30.0,
        upstream_ca=options.upstream_ca or "",
        allow_transfer=tuple(options.allow_transfer),
        recursion=tuple(options.allow_recursion) if options.allow_recursion else None,
        rate_limit=options.rate_limit,
        max_connections=options.max_connections,
        idle_s=options.idle_timeout,
        nsid=options.nsid,
        cookie_secrets=cookie_secrets(options.cookie_secret_file),
        serial_base=int(time.time()),
    )


def cookie_secrets(path: str | None) -> tuple[bytes, ...]:
    """The secrets in a file, one a line. Raises SettingError."""
    if not path:
        return ()
    try:
        secrets = tuple(bytes.fromhex(line) for line in Path(path).read_text().split())
    except (OSError, ValueError) as error:
        raise SettingError(f"--cookie-secret-file: {why(error)}") from None
    if not secrets or any(len(secret) != 16 for secret in secrets):
        raise SettingError(f"--cookie-secret-file: {path}: expected lines of 32 hexadecimal digits (16 octets)")
    return secrets


class Dns:
    def __init__(self, options: Any) -> None:
        self.options = options
        self.server = DnsServer(dns_options(options))
        self.registry = Registry(PRECEDENCE)
        self.snapshot = Snapshot()
        self.doh: Doh | None = None
        self.draining = False
        self.notes: Callable[[], list[str]] = list
        """What else there is to say at readiness."""

    async def run(self, signals: Signals) -> int:
        options = self.options
        if options.listen is None:
            raise SettingError("--listen: a DNS server needs an address to listen on")
        if options.admin is not None and not ipaddress.ip_address(options.admin[0]).is_loopback:
            raise SettingError(f"--admin: expected a loopback address, got {options.admin[0]}")
        data = Path(options.data_dir) if options.data_dir else None
        tasks = Tasks(signals.stop)
        self.registry.snapshot.subscribe(self._update)
        sources = Sources(options, self.registry, tasks, data, self._documents)
        self.notes = sources.notes
        sources.start_manifests()
        if options.filename:
            signals.on_reload = sources.manifests.look_now if sources.manifests else None
        feed = None
        if options.control:
            feed = feed_for(options, [options.control], "dns", options.name, self._world, data, {})
            feed.feed.start_from_disk()
            Bundle(feed.fetch, feed.feed, feed.credentials)
            tasks.start("feed", feed.feed.run())
        local = LocalServer({("GET", "/healthz/ready"): self._ready, ("GET", "/ready"): self._ready,
                             ("GET", "/health"): health, ("GET", "/metrics"): self._metrics})  # fmt: skip
        admin = LocalServer({("GET", "/dns/query"): self._query})
        try:
            said = await self._listen(local, admin)
            await sources.start()
            ready(f"fairlead dns ready dns={self.server.host}:{self.server.port}{said}")
            await signals.stop.wait()
            self.draining = True
            if options.lameduck and not tasks.failed:
                logger.info("not ready from now on; serving for %g s more", options.lameduck)
                await asyncio.sleep(options.lameduck)
        finally:
            if self.doh is not None:
                await self.doh.close()
            await self.server.close()
            await local.close()
            await admin.close()
            await sources.close()
            await tasks.close()
            if feed is not None:
                await feed.close()
        return 1 if tasks.failed else 0

    async def _listen(self, local: LocalServer, admin: LocalServer) -> str:
        """Open all ports; what the ready line says of those beside the first. Raises SettingError."""
        options = self.options
        await _opened("--listen", options.listen, self.server.start(*options.listen))
        for warning in self.server.warnings:
            logger.warning("dns: %s", warning)
        self.server.warn = lambda text: logger.warning("dns: %s", text)
        if options.query_log != "off":
            self._switch_log()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._switch_log)
        said = ""
        if options.tls_listen is not None or options.https_listen is not None:
            certificate = _certificate(options)
            if options.tls_listen is not None:
                host, port = options.tls_listen
                port = await _opened("--tls-listen", (host, port), self.server.start_tls(host, port, certificate))
                said += f" tls={host}:{port}"
            if options.https_listen is not None:
                self.doh = Doh(self.server.ask)
                self.server.follow(certificate)
                host, port = options.https_listen
                context = certificate.context("h2", "http/1.1")
                await _opened("--https-listen", (host, port), self.doh.start(host, port, context))
                said += f" https={host}:{self.doh.port}"
        for name, where, server in (("health", options.health, local), ("admin", options.admin, admin)):
            if where is not None:
                await _opened(f"--{name}", where, server.start(*where))
                said += f" {name}={where[0]}:{server.port}"
        return said

    def _switch_log(self) -> None:
        """The query log on, or off."""
        if self.server.log is None:
            which = self.options.query_log if self.options.query_log != "off" else "all"
            self.server.set_log(QueryLog(which, _print, asyncio.get_running_loop().call_soon))
        else:
            self.server.set_log(None)
        logger.info("query log %s", "off" if self.server.log is None else f"on ({self.server.log.which})")

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
        self._update(world.snapshot)

    def _update(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.server.update(snapshot)

    def _ready(self, _query: Query) -> Answer:
        notes = "".join(f"note: {note}\n" for note in self.notes())
        if self.draining:
            return 503, TEXT, f"going away\n{notes}".encode("utf-8", "replace")
        if not self.server.ready:
            return 503, TEXT, f"no snapshot of services yet\n{notes}".encode("utf-8", "replace")
        return 200, TEXT, f"ready\n{notes}".encode("utf-8", "replace")

    async def _query(self, query: Query) -> Answer:
        """GET /dns/query?name=NAME&type=TYPE&source=ADDRESS: an answer, and why."""
        asked = dict(parse_qsl(query.query))
        name, rtype, source = asked.get("name", ""), asked.get("type", "A"), asked.get("source", "127.0.0.1")
        try:
            reply = await self.server.ask(question(name, type_number(rtype)), (source, 0))
            told = explain(self.server.engine, self.snapshot, name, rtype, source, reply)
        except ValueError as error:
            return 400, TEXT, f"{error}\n".encode("utf-8", "replace")
        return 200, "application/json", json.dumps(told).encode()

    def _metrics(self, _query: Query) -> Answer:
        lines = self.server.metric_lines()
        if self.doh is not None:
            name = "coredns_dns_https_responses_total"
            lines += [f"# HELP {name} Answers over HTTPS, by status.", f"# TYPE {name} counter"]
            lines += [f'{name}{{status="{status}"}} {count}' for status, count in sorted(self.doh.counts.items())]
        text = "\n".join(lines) + "\n"
        return 200, "text/plain; version=0.0.4; charset=utf-8", text.encode()


async def _opened(flag: str, where: tuple[str, int], opening: Coroutine[Any, Any, T]) -> T:
    """Raises SettingError where an address cannot be listened on."""
    try:
        return await opening
    except OSError as error:
        raise SettingError(f"{flag} {where[0]}:{where[1]} cannot be listened on: {error.strerror or error}") from error


def _certificate(options: Any) -> Certificate:
    if not options.tls_cert or not options.tls_key:
        raise SettingError("--tls-listen and --https-listen need --tls-cert and --tls-key")
    try:
        return Certificate(options.tls_cert, options.tls_key)
    except (OSError, ValueError) as error:
        raise SettingError(f"--tls-cert {options.tls_cert}, --tls-key {options.tls_key}: {why(error)}") from error


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def health(_query: Query) -> Answer:
    return 200, TEXT, b"OK\n"
