"""Shell: a sidecar put together: engine, certificates of the moment, DNS, its own ports, the access log, the drain.

sidecar = Sidecar(options)
sidecar.update(world)         the first world, and every one after it
await sidecar.start()         {"outbound": "127.0.0.1:15001", ...}
sidecar.leave()               not ready, responses say that their connections end
await sidecar.drain(30.0)     no new connections, what runs ends
await sidecar.close()

Long because it is where everything of the role meets.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins
from msgspec.structs import replace

from ..policy.compile import CompileCache, compile_tables
from ..policy.compile_inbound import placed
from ..policy.gateways import EVERY
from ..policy.tables import Tables, Viewpoint
from ..policy.world import World
from ..proxy import accept, exposition
from ..proxy.access_log import AccessLog, FormatError
from ..proxy.engine import Engine
from ..proxy.local_server import JSON, TEXT, Answer, Handler, LocalServer, Query
from ..proxy.metrics import Metrics
from ..proxy.poller import poller_of
from ..proxy.recorder import Recorder
from ..proxy.sockets import Inherited, Sockets
from ..registry.model import Workload
from ..registry.snapshot import Snapshot
from . import loopback
from .app_health import refuse, without_app
from .contexts import Contexts
from .distrust import Distrust
from .identity import IdentityError, parse
from .memory import Tidy
from .sidecar_options import Address, SidecarOptions
from .update import RefusedError

if TYPE_CHECKING:
    from ..dns.server import DnsServer
    from .gateway import GatewayPorts
    from .health import Checker

LOG_FLUSH_S = 0.2
DRAIN_IDLE_S = 1.0
"""How long a connection must be idle to be closed by a drain: who uses it meanwhile is told that it ends."""
HANDED_IDLE_S = 5.0
"""The same where a successor serves: nobody need hurry."""
ASKED_MOST = 64
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
logger = logging.getLogger("fairlead.sidecar")


class Sidecar:
    def __init__(self, options: SidecarOptions) -> None:
        self.options = options
        self.engine: Engine | None = None
        self.sockets = Sockets()
        """Where listening sockets come from."""
        self.contexts = Contexts(self._trust_domains)
        Distrust(self.contexts)
        self.metrics = Metrics(options.workload)
        self.recorder = Recorder(self.metrics)
        self.dns: DnsServer | None = None
        self.gateway: GatewayPorts | None = None
        self.app: Checker | None = None
        """Checks of the own app; None: there are none."""
        self.app_unready = ""
        """Why the app is not ready, as its checks say; empty: it is, or nobody checks it."""
        self.told = not options.lone
        """Somebody tells peers whether the app is ready, so that those that have others do not come."""
        self.app_awaited = ""
        """Why the app is not ready whatever its checks say: who starts it waits for it."""
        self.app_doomed = asyncio.Event()
        """Set while checks say that the app must be restarted."""
        self.on_health: list[Callable[[bool, str], None]] = []
        """Told (ready, why not) when the app's health changes."""
        self.draining = False
        """Not ready for good."""
        self.cut: list[str] = []
        """What the end of the drain cut off, in words."""
        self.asked_ready: dict[str, float] = {}
        """When (monotonic) readiness was last asked, by address."""
        self.at: dict[str, str] = {}
        self.checks: dict[str, Callable[[], str]] = {}
        """Further conditions of readiness: name to what is wrong, empty: nothing."""
        self.notes: dict[str, Callable[[], str]] = {}
        """What is not as it should be and does not make us unready (control away, a stale source)."""
        self.notes["upstream-tls"] = self.contexts.others.problem
        self.missing: Callable[[str], bool] | None = None
        """Asks for the endpoints of a service that are not known here; whether they will come. None: all are known."""
        self.on_quit: Callable[[], None] | None = None
        self._world: World | None = None
        """As it was given last."""
        self.app_up = False
        """The app runs, as far as we know."""
        self._app_was_ready = False
        """As a predecessor has found it."""
        self._health_told = False
        self._app_task: asyncio.Task[None] | None = None
        self._tables: Tables | None = None
        self._cache = CompileCache()
        self._updated_at = 0.0
        self._locals: list[LocalServer] = []
        self._log: AccessLog | None = None
        self._log_descriptor = -1
        self._log_path = ""
        self._log_task: asyncio.Task[None] | None = None
        self._loopbacks: dict[str, str] = {}
        self._listening: set[tuple[str, int]] = set()
        self._listen_wanted: dict[tuple[str, int], tuple[str, int]] = {}
        self._listen_task: asyncio.Task[None] | None = None
        self._listen_ended = False
        self._handed_over = False
        self._listen_failures: dict[tuple[str, int], str] = {}
        self._started = time.time()
        self._tidy = Tidy(lambda: self.contexts.handshakes, did=lambda: self.recorder.count)

    # --- what it knows ----------------------------------------------------------------------------------------------

    def update(self, world: World) -> None:
        """Put a world in force. Raises RefusedError, with the tables in force unchanged, where it cannot be run."""
        given, workload = world, self._own(world)
        version = str(world.snapshot.version)
        if self.app_unready:
            world = without_app(world, workload, self.app_unready)
        try:
            viewpoint = Viewpoint(workload, EVERY if self.options.gateway else "")
            tables = compile_tables(world.resources, world.snapshot, viewpoint, version, self._cache)
            log = self._make_log(tables)
        except (ValueError, FormatError) as error:
            raise RefusedError([str(error)]) from error
        if self.options.app_address:
            for name, cluster in tables.clusters.items():
                if name.startswith("inbound|") and not placed(tables.inbound, cluster.port):
                    for endpoint in cluster.endpoints:
                        endpoint.address = self.options.app_address
        if self.app_unready and not self.told:
            refuse(tables, workload, not self.options.lone)
        self.metrics.workload = workload
        self.metrics.trust_domain = tables.mesh.spec.trust_domain
        self.metrics.identities = self._one_workload
        if self._log is not None and self._log is not log:
            self._write(self._log.lines.take())  # in the format they were made for
        self._tables = tables
        self._world = given
        self._log = log
        self.recorder.log = log.lines if log is not None else None
        self._updated_at = time.time()
        self.contexts.others.update(world.resources.secrets)
        self.contexts.require(tables.mesh.spec.mesh_mtls.min_protocol_version)
        if self.engine is None:
            self.engine = Engine(
                tables,
                client_context=self.contexts.client,
                verify_peer=self.contexts.verify,
                observer=self.recorder,
                settings=self.options.limits,
            )
            self.engine.sockets = self.sockets
            self.notes["request-authentication"] = self._lacking_keys
            self.engine.missing = self.missing
            self.metrics.running = self.engine.running
        else:
            self.engine.swap(tables)
        if self.options.gateway:
            self._serve_gateways(tables, world)
        if self.options.dns is not None:
            self._give_addresses(world)
        self._take_checks(workload)

    def _take_checks(self, workload: Workload) -> None:
        """Check what the manifest of the own workload says; a gateway has no app, its probes would ask itself."""
        if self.options.gateway:
            return
        checks = workload.checks
        if not self.options.commands and any(check.kind == "exec" for check in checks):
            checks = tuple(check for check in checks if check.kind != "exec")
            self.notes.setdefault("checks", lambda: "commands from control are not run: --enable-script-checks")
        else:
            self.notes.pop("checks", None)
        if self.app is None:
            if not checks and not self.options.checks:
                return
            from .health import Checker  # for those whose app is checked

            self.app = Checker(self.options.checks, self._where_app_is, self._health_changed, self.app_doomed)
            self.checks["app"] = self.app_problem
            if self.app_up:
                self.app_started()
        self.app.take(checks)
        self._health_changed()

    def _where_app_is(self) -> tuple[Workload, str]:
        workload = self._own(self._world) if self._world is not None else self.options.workload
        address = workload.addresses[0] if workload.addresses else "127.0.0.1"
        return workload, self.options.app_address or address

    def app_started(self) -> None:
        """The app runs; where we do not start it: it is taken to run from now on."""
        self.app_up = True
        if self.app is not None:
            if self._app_task is None:
                self._app_task = asyncio.get_running_loop().create_task(self.app.run())
            self.app.app_started(self._app_was_ready)
        self._app_was_ready = False

    def check_no_more(self) -> None:
        """The app is somebody else's to check, or told to end."""
        if self._app_task is not None:
            self._app_task.cancel()

    def app_problem(self) -> str:
        """Why the app is not ready; empty: it is."""
        return self.app_unready or self.app_awaited

    def app_ended(self, why: str) -> None:
        self.app_up = False
        if self.app is not None:
            self.app.app_ended(why)

    def _health_changed(self) -> None:
        assert self.app is not None
        health = self.app.health
        why = "" if health.ready else health.why
        if why == self.app_unready and self._health_told:
            return
        self._health_told = True
        self.app_is_unready(why)
        for tell in self.on_health:
            tell(health.ready, health.why)

    def app_is_unready(self, why: str) -> None:
        """Put in force what follows; empty: the app is ready."""
        self.app_unready = why
        if self._world is not None:
            try:
                self.update(self._world)
            except RefusedError as error:  # it was taken before: a fault of ours
                logger.error("what follows from the health of the app cannot be put in force: %s", error)

    def peers_are_told(self, told: bool) -> None:
        """Whether control can tell peers how the app is: else we tell them ourselves that it is not ready."""
        if told != self.told:
            self.told = told
            if self.app_unready:
                self.app_is_unready(self.app_unready)

    def _serve_gateways(self, tables: Tables, world: World) -> None:
        if self.gateway is None:
            from .gateway import GatewayPorts  # for gateways

            made = GatewayPorts(self.contexts, self.options.moved, self.options.proxies.get("gateway", ()))
            self.checks["gateway"] = made.problem
            self.notes["gateway"] = made.note
            self.gateway = made
        self.gateway.update(self.engine, tables, world.resources.secrets)

    def _own(self, world: World) -> Workload:
        """Our workload: as the registry has it, else as the command line has it."""
        given = self.options.workload
        known = world.snapshot.workloads.get(given.key)
        if known is None or known.source != "sidecars":
            return known or given
        # Control may not believe us our labels and address: policies that select them are in force here all the same.
        return replace(known, labels={**given.labels, **known.labels}, addresses=known.addresses or given.addresses)

    def _one_workload(self, identity: str) -> Workload | None:
        if self._tables is None or not identity:
            return None
        try:
            peer = parse(identity)
        except IdentityError:
            return None
        found = self._tables.snapshot.workloads_as(peer.namespace, peer.service_account)
        return found[0] if len(found) == 1 else None

    def trusting(self, roots: str) -> bool:
        """Whether whoever serves here trusts these roots, which the contexts have taken: workers are a moment later."""
        return True

    def _trust_domains(self) -> tuple[str, ...]:
        if self._tables is None:
            return ()
        mesh = self._tables.mesh.spec
        return (mesh.trust_domain, *mesh.trust_domain_aliases)

    def _give_addresses(self, world: World) -> None:
        """Loopback addresses for services with ports, for DNS to answer and for us to listen on."""
        wanted = {
            host: service
            for host, service in world.snapshot.services.items()
            if any(port.protocol == "TCP" for port in service.ports)
            and not (service.headless or service.external_name or "*" in host)
        }
        self._loopbacks = loopback.assign(wanted, self._loopbacks)
        self._listen_wanted = {
            (address, port.number): (host, port.number)
            for host, address in self._loopbacks.items()
            for port in wanted[host].ports
            if port.protocol == "TCP"
        }
        if self.dns is None:
            from ..dns.engine import DnsOptions  # 1.5 MB, for those who asked for it
            from ..dns.server import DnsServer

            options = self.options
            self.dns = DnsServer(
                DnsOptions(
                    cluster_domain=world.resources.mesh.spec.cluster_domain,
                    upstreams=options.upstreams,
                    autopath="off" if options.search is None else "client",
                    search=options.search or (),
                    client_namespace=options.workload.namespace,
                )
            )
        self._listen_failures.clear()  # what could not be listened on may be free by now
        self._answer_addresses(world.snapshot)
        if self.at and self._listen_task is None and not self._listen_ended:
            self._listen_task = asyncio.get_running_loop().create_task(self._listen_loopbacks())

    def _answer_addresses(self, snapshot: Snapshot) -> None:
        """Let DNS answer with the addresses that we listen on, all but those that could not be had."""
        assert self.dns is not None
        lost = {address for address, _ in self._listen_failures}
        self.dns.update(snapshot, {host: (at,) for host, at in self._loopbacks.items() if at not in lost})

    async def _listen_loopbacks(self) -> None:
        """Listen on what is wanted and on nothing else; goes on while what is wanted changes."""
        assert self.engine is not None
        try:
            while True:
                todo = [
                    at for at in self._listen_wanted if at not in self._listening and at not in self._listen_failures
                ]
                stale = [at for at in self._listening if at not in self._listen_wanted]
                if not todo and not stale:
                    return
                for at in stale:
                    self._listening.discard(at)
                    await self.engine.unlisten(*at)
                for at in todo:
                    meant = self._listen_wanted.get(at)
                    if meant is None:
                        continue
                    try:
                        await self.engine.listen_named(*at, *meant, name="loopback")
                        self._listening.add(at)
                    except OSError as error:
                        why = self._listen_failures[at] = (error.strerror or str(error)).rpartition(": ")[2]
                        hint = " (ports below 1024 need CAP_NET_BIND_SERVICE)" if at[1] < 1024 else ""
                        logger.warning("%s:%d for %s cannot be listened on: %s%s", *at, meant[0], why, hint)
        finally:
            self._listen_task = None
            self._listening_changed()

    def _listening_changed(self) -> None:
        if self._listen_failures and self._tables is not None:
            self._answer_addresses(self._tables.snapshot)

    # --- start and end ----------------------------------------------------------------------------------------------

    async def start(self) -> dict[str, str]:
        """Listen everywhere; where. Raises OSError that names the address."""
        assert self.engine is not None, "update with a first world before start"
        engine, options, proxies = self.engine, self.options, self.options.proxies
        if self._log is not None:
            self._log.lines.soon = self._soon()
        self._log_task = asyncio.get_running_loop().create_task(self._write_log())
        if options.inbound is not None:
            find = accept.original_destination if options.captured else None
            listen = partial(
                engine.listen_inbound,
                server_context=self.contexts.server,
                identity_of=self.contexts.identity_of,
                find=find,
                trusted=proxies.get("inbound", ()),
            )
            await self._listen("inbound", options.inbound, listen)
        if options.outbound is not None:
            await self._listen(
                "outbound", options.outbound, partial(engine.listen_outbound, trusted=proxies.get("outbound", ()))
            )
        if options.redirect is not None:
            await self._listen(
                "redirect", options.redirect, partial(engine.listen_original, trusted=proxies.get("redirect", ()))
            )
        for number, named in enumerate(options.named):
            listen = partial(
                engine.listen_named,
                service_host=named.service,
                service_port=named.service_port,
                trusted=proxies.get("listen", ()),
            )
            await self._listen(f"listen{number}", (named.host, named.port), listen)
        if self.gateway is not None:
            await self.gateway.start(self.at)
        if options.dns is not None and self.dns is not None:
            await self._listen_loopbacks()
            await self._start_dns(options.dns)
            self.at["dns"] = f"{options.dns[0]}:{self.dns.port}"
            for warning in self.dns.warnings:
                logger.warning("dns: %s", warning)
        await self._start_own()  # last: who asks must not hear of what is only about to be served
        self.metrics.more.append(self._more_metrics)
        self.metrics.more.append(lambda: engine.notes.lines() if engine.notes is not None else ())
        self._tidy.start()
        self._app_was_ready = False  # what is checked from now on, nobody has checked before
        return self.at

    async def _start_own(self) -> None:
        options = self.options
        await self._start_local("health", options.health, {
            ("GET", "/healthz/ready"): self._ready, ("GET", "/readyz"): self._ready,
            ("GET", "/healthz/live"): live, ("GET", "/livez"): live,
        })  # fmt: skip
        await self._start_local("metrics", options.metrics, {
            ("GET", "/metrics"): self._metrics, ("GET", "/stats/prometheus"): self._metrics,
        })  # fmt: skip
        await self._start_local("admin", options.admin, {
            ("GET", "/ready"): self._ready, ("GET", "/certs"): self._certs, ("GET", "/clusters"): self._clusters,
            ("GET", "/listeners"): lambda _q: (200, JSON, encode(self.at)), ("GET", "/server_info"): self._server_info,
            ("GET", "/config_dump"): self._config_dump, ("GET", "/stats/prometheus"): self._metrics,
            ("GET", "/metrics"): self._metrics, ("POST", "/quitquitquit"): self._quit,
            ("GET", "/healthchecks"): self._healthchecks,
        })  # fmt: skip

    async def _start_dns(self, at: Address) -> None:
        assert self.dns is not None
        udp = self.sockets.claim("udp", "dns", *at)
        tcp = self.sockets.claim("tcp", "dns", *at)
        if len(udp) == len(tcp) == 1:
            await self.dns.start(*at, (udp[0], tcp[0]))
        else:
            for sock in (*udp, *tcp):
                sock.close()
            await self.dns.start(*at)
        assert self.dns.socks is not None
        for kind, sock in zip(("udp", "tcp"), self.dns.socks, strict=True):
            self.sockets.note(kind, "dns", at[0], [sock])

    def _lacking_keys(self) -> str:
        """Keys of issuers that are not there, so that their tokens fail."""
        tokens = self.engine.tokens if self.engine is not None else None
        return f"no keys of {lacking}" if tokens is not None and (lacking := tokens.problem()) else ""

    # --- plaintext --------------------------------------------------------------------------------------------------

    async def take_plaintext(self) -> list[dict[str, Any]]:
        """Who came, or is here, without mutual TLS since this was asked last."""
        if self.engine is None:
            return []
        self.engine.note_plaintext()
        return self.engine.plaintext.take(self.engine.clock())

    def give_back_plaintext(self, entries: list[dict[str, Any]]) -> None:
        if self.engine is not None:
            self.engine.plaintext.give_back(entries, self.engine.clock())

    # --- a successor, a predecessor ---------------------------------------------------------------------------------

    async def offer(self) -> tuple[list[Inherited], dict[str, Any]]:
        """Copies of all listening sockets, and what else a successor has to know."""
        return [(place, sock.dup()) for place, sock in self.sockets.open()], {
            "loopbacks": self._loopbacks, "app_ready": self.app_up and not self.app_unready,
        }  # fmt: skip

    def inherit(self, inherited: list[Inherited], state: dict[str, Any]) -> None:
        """Before the first world: what a predecessor has offered."""
        self.sockets.give(inherited)
        self._loopbacks = dict(state.get("loopbacks", {}))
        self.app_up = self._app_was_ready = bool(state.get("app_ready"))

    def hand_over(self) -> None:
        """A successor has the sockets and is ready: stop with the own ports, and stay ready to whoever still asks."""
        self._handed_over = True
        self.check_no_more()
        for server in self._locals:
            server.stop()
        if self.dns is not None and "dns" in self.at:
            self.dns.stop()

    async def _listen(self, name: str, at: Address, listen: Callable[..., Any]) -> None:
        host, port = at
        try:
            self.at[name] = f"{host}:{await listen(host, port, name=name)}"
        except OSError as error:
            told = error.strerror or str(error)
            told = told if "cannot be listened on" in told else f"{host}:{port} cannot be listened on: {told}"
            raise OSError(f"{name}: {told}") from error

    async def _start_local(self, name: str, at: Address | None, routes: Mapping[tuple[str, str], Handler]) -> None:
        if at is None:
            return
        server = LocalServer(routes)
        await self._listen(name, at, partial(server.start, sockets=self.sockets))
        self._locals.append(server)

    def leave(self) -> None:
        """Become not ready, so that nobody new comes; who comes is served, and told that its connection ends."""
        self.draining = True
        if self.engine is not None:
            self.engine.say_farewell()

    async def drain_served(self, deadline_s: float) -> bool:
        """Accept no more for the app and let what runs in it end; its own calls go on. False: the deadline passed."""
        assert self.engine is not None
        self.leave()
        self.engine.begin_drain(DRAIN_IDLE_S, served_only=True)
        return await self.engine.drained(deadline_s, served_only=True)

    async def drain(self, deadline_s: float, idle_s: float = DRAIN_IDLE_S) -> bool:
        """Become not ready, accept no more, let what runs end; False: the deadline cut off what stands in `cut`."""
        assert self.engine is not None
        self.leave()
        self._listen_no_more()
        self.engine.begin_drain(idle_s)
        whole = await self.engine.drained(deadline_s)
        self.cut = self.engine.cut
        return whole

    def running(self) -> int:
        """Client connections that are not at their end."""
        return self.engine.busy() if self.engine is not None else 0

    def _listen_no_more(self) -> None:
        """Whatever versions still come."""
        self._listen_ended = True
        if self.gateway is not None:
            self.gateway.listen_no_more()

    def app_ports(self) -> tuple[str, list[int]]:
        """Where the app is to listen, as far as it is known."""
        assert self._tables is not None
        workload = self._tables.viewpoint.workload
        address = self.options.app_address or (workload.addresses[0] if workload.addresses else "")
        return address, [port.number for port in workload.ports if port.protocol == "TCP"] if address else []

    def kill(self) -> None:
        """End at once what other processes we have."""

    async def close(self) -> None:
        self._tidy.stop()
        if self._app_task is not None:
            self._app_task.cancel()
            await asyncio.gather(self._app_task, return_exceptions=True)
        if self.gateway is not None:
            await self.gateway.close()
        if self._listen_task is not None:
            self._listen_task.cancel()
            await asyncio.gather(self._listen_task, return_exceptions=True)
        if self.engine is not None:
            await self.engine.close()
        if self.dns is not None and "dns" in self.at:
            await self.dns.close()
        for server in self._locals:
            await server.close()
        if self._log_task is not None:
            self._log_task.cancel()
            await asyncio.gather(self._log_task, return_exceptions=True)
            if self._log is not None:
                self._write(self._log.lines.take())
        if self._log_descriptor > 2:
            os.close(self._log_descriptor)

    # --- the access log ---------------------------------------------------------------------------------------------

    def _make_log(self, tables: Tables) -> AccessLog | None:
        """The access log that MeshConfig asks for; the one in force where it asks for the same. Raises FormatError."""
        mesh = tables.mesh.spec
        path = self.options.access_log or mesh.access_log_file
        if path in ("", "off"):
            return None
        before = self._tables.mesh.spec if self._tables is not None else None
        same = before is not None and (before.access_log_encoding, before.access_log_format) == (
            mesh.access_log_encoding, mesh.access_log_format,
        )  # fmt: skip
        log = self._log
        if not same or log is None:
            log = AccessLog(mesh.access_log_encoding, mesh.access_log_format, self._soon())
            log.lines.skew = time.time() - time.monotonic()
        if path != self._log_path:
            self._open_log(path)
        return log

    def _soon(self) -> Callable[[Callable[[], None]], None] | None:
        """Calls back at the end of the loop's turn; None: no loop runs yet (`start` does the rest)."""
        try:
            return poller_of(asyncio.get_running_loop()).soon
        except RuntimeError:
            return None

    def _open_log(self, path: str) -> None:
        if self._log_descriptor > 2:
            os.close(self._log_descriptor)
        self._log_path = path
        if path in ("-", "/dev/stdout"):
            self._log_descriptor = 1
        elif path == "/dev/stderr":
            self._log_descriptor = 2
        else:
            try:
                self._log_descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            except OSError as error:
                logger.error("access log %s cannot be written: %s", path, error)
                self._log_descriptor = -1

    def reopen_log(self) -> None:
        """After somebody moved the file away (SIGUSR1)."""
        if self._log_path:
            self._open_log(self._log_path)

    async def _write_log(self) -> None:
        """Lines are written in a thread, since the reader of a pipe may not read."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOG_FLUSH_S)
            if self._log is None:
                continue
            self._log.lines.skew = time.time() - time.monotonic()
            lines = self._log.lines.take()
            if lines:
                await loop.run_in_executor(None, self._write, lines)

    def _write(self, lines: bytes) -> None:
        if not lines:
            return
        view = memoryview(lines)
        try:
            while view and self._log_descriptor >= 0:
                view = view[os.write(self._log_descriptor, view) :]
        except OSError:
            pass
        if view and self._log is not None:
            self._log.lost += bytes(view).count(b"\n")

    # --- own ports --------------------------------------------------------------------------------------------------

    def problems(self, app: bool = True) -> list[str]:
        """Why we are not ready; empty: we are. Without `app`: whatever becomes of our app."""
        found = ["draining"] if self.draining and not self._handed_over else []
        found += self.lacks()
        checks = [(name, check) for name, check in self.checks.items() if app or name != "app"]
        return found + [f"{name}: {why}" for name, check in checks if (why := check())]

    def _noted(self) -> list[str]:
        return [f"{name}: {why}" for name, check in self.notes.items() if (why := check())]

    def lacks(self) -> list[str]:
        """What is missing to serve at all."""
        found = ["no configuration yet"] if self._tables is None else []
        if self.options.needs_certificate and self.contexts.material is None:
            found.append("no certificate yet")
        return found

    def _ready(self, query: Query) -> Answer:
        if query.source in self.asked_ready or len(self.asked_ready) < ASKED_MOST:
            self.asked_ready[query.source] = time.monotonic()
        problems = self.problems()
        notes = [f"note: {text}" for text in self._noted()]
        text = "\n".join([*(problems or ["ready"]), *notes]) + "\n"
        return (503 if problems else 200), TEXT, text.encode()

    def _metrics(self, _query: Query) -> Answer | Awaitable[Answer]:
        lines = self.metrics.lines()
        if self.dns is not None and "dns" in self.at:
            lines += self.dns.metric_lines()
        return 200, PROMETHEUS, ("\n".join(lines) + "\n").encode()

    def _more_metrics(self) -> list[str]:
        engine, family = self.engine, exposition.family
        assert engine is not None
        pools = list(engine.pools.values())
        material = self.contexts.material

        def each(attribute: str) -> list[tuple[dict[str, str], float]]:
            return [({"cluster": pool.live.config.name}, getattr(pool.live, attribute)) for pool in pools]

        plain = engine.plaintext.metric_samples()
        lines = family("fairlead_plaintext_connections_total", "counter", "Connections without mutual TLS.", plain)
        lines += family("istio_build", "gauge", "Build.", [({"component": "proxy", "tag": "fairlead-0.1.0"}, 1)])
        for name, attribute in (
            ("active_requests", "active"),
            ("connections", "connections"),
            ("pending_requests", "pending"),
        ):
            lines += family(f"fairlead_cluster_{name}", "gauge", f"Of each cluster: {attribute}.", each(attribute))
        lines += family("fairlead_cluster_ejections_total", "counter", "Hosts ejected.", each("ejections_total"))
        lines += family("fairlead_cluster_ejected_hosts", "gauge", "Hosts out now.", each("ejected"))
        if engine.limiter is not None:
            lines += engine.limiter.lines()
        lines += family("fairlead_connections", "gauge", "Client connections.", [({}, engine.busy())])
        lines += family(
            "fairlead_connections_refused_total",
            "counter",
            "Closed at once, by the limit.",
            [({"limit": limit}, n) for limit, n in engine.refused_connections.items()],
        )
        lines += family("fairlead_connections_cut_off_total", "counter", "They held too much.", [({}, engine.cut_off)])
        lines += family(
            "fairlead_buffered_bytes", "gauge", "Held for clients and endpoints.", [({}, engine.buffered())]
        )
        lines += family(
            "fairlead_tables_updated_timestamp_seconds", "gauge", "When tables last changed.", [({}, self._updated_at)]
        )
        lines += family("fairlead_ready", "gauge", "1 if ready.", [({}, int(not self.problems()))])
        if self.app is not None:
            told = self.app.describe()["checks"]
            lines += family("fairlead_app_ready", "gauge", "1 if checks say so.", [({}, int(not self.app_unready))])
            lines += family(
                "fairlead_health_checks_total",
                "counter",
                "Runs of the checks of the app.",
                [
                    ({"check": one["check"], "result": result}, count)
                    for one in told
                    for result, count in (("passed", one["runs"] - one["failures"]), ("failed", one["failures"]))
                ],
            )
        if self._log is not None:
            lines += family("fairlead_access_log_lines_total", "counter", "Lines written.", [({}, self._log.written)])
            lines += family("fairlead_access_log_dropped_total", "counter", "Lines dropped.", [({}, self._log.dropped)])
        if material is not None:
            lines += family(
                "fairlead_certificate_expiry_timestamp_seconds",
                "gauge",
                "End of our certificate.",
                [({}, material.ends)],
            )
        refused = [({"why": why}, count) for why, count in self.contexts.refused.items()]
        return lines + family("fairlead_peers_refused_total", "counter", "After their handshake.", refused)

    def _healthchecks(self, _query: Query) -> Answer:
        nothing = {"ready": True, "why": "nothing is checked", "checks": []}
        return 200, JSON, encode(self.app.describe() if self.app is not None else nothing)

    def _certs(self, _query: Query) -> Answer:
        material = self.contexts.material
        if material is None:
            return 404, TEXT, b"no certificate yet\n"
        told = {
            "serial": f"{material.serial:x}",
            "identity": self.engine.own_identity if self.engine is not None else "",
            "issued": material.issued,
            "ends": material.ends,
            "seconds_left": round(material.ends - time.time(), 1),
        }
        return 200, JSON, encode(told)

    def _clusters(self, _query: Query) -> Answer | Awaitable[Answer]:
        return 200, JSON, encode(self.clusters())

    def in_use(self) -> set[str]:
        """Hosts of the services that requests were sent to."""
        pools = self.engine.pools.values() if self.engine is not None else ()
        return {pool.live.config.host for pool in pools if pool.live.requests}

    def clusters(self) -> list[dict[str, Any]]:
        """Of each cluster in use, what it does (LiveCluster.describe)."""
        assert self.engine is not None
        now = self.engine.clock()
        pools = [*self.engine.pools.values(), *self.engine.outside.values()]
        return [pool.live.describe(now) for pool in pools]

    def _server_info(self, _query: Query) -> Answer:
        assert self._tables is not None
        told = {
            "version": "0.1.0",
            "workload": self._tables.viewpoint.workload.key,
            "tables": self._tables.version,
            "uptime_s": round(time.time() - self._started, 1),
            "draining": self.draining,
        }
        return 200, JSON, encode(told)

    def _config_dump(self, _query: Query) -> Answer:
        """What is in force, without secrets: keys never leave the contexts."""
        assert self._tables is not None
        snapshot = self._tables.snapshot
        told = {
            "version": self._tables.version,
            "workload": to_builtins(self._tables.viewpoint.workload),
            "mesh": to_builtins(self._tables.mesh.spec),
            "services": to_builtins(dict(snapshot.services)),
            "endpoints": to_builtins(dict(snapshot.endpoints)),
            "clusters": {
                name: {
                    "rule": cluster.rule,
                    "protocol": cluster.protocol,
                    "endpoints": [f"{e.address}:{e.port}{' tls' if e.tls else ''}" for e in cluster.endpoints],
                }
                for name, cluster in self._tables.clusters.items()
            },
            "loopback_addresses": self._loopbacks,
        }
        return 200, JSON, encode(told)

    def _quit(self, _query: Query) -> Answer:
        if self.on_quit is None:
            return 404, TEXT, b"not offered here\n"
        asyncio.get_running_loop().call_soon(self.on_quit)
        return 200, TEXT, b"ending\n"


def live(_query: Query) -> Answer:
    return 200, TEXT, b"live\n"


def encode(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=False).encode() + b"\n"
