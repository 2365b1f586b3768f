"""Shell: `fairlead sidecar` and `fairlead run`: a sidecar from manifests or from control's feed, with its signals.

Long because it joins all parts of a sidecar, in the order in which they begin and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..mesh.contexts import Material, first_certificate
from ..mesh.identity import IdentityError
from ..mesh.memory import settle
from ..mesh.sidecar import Sidecar
from ..mesh.sidecar_options import NamedPort, SidecarOptions
from ..mesh.trust import identity_of
from ..mesh.update import RefusedError
from ..policy.world import Loader, World
from ..proxy.limits import Settings
from ..proxy.limits import parse as parse_limits
from ..proxy.proxy_protocol import Network, parse_trusted
from ..registry.documents import Document, Problem
from ..registry.model import SourceStatus, Workload, WorkloadPort
from ..registry.names import service_host, split_full_name
from ..registry.needs import FetchError
from ..registry.source_manifests import Manifests
from ..registry.supervise import supervised
from .role_checks import checks_of
from .role_common import Signals, Tasks, logger, ready
from .role_common import run as run_role
from .role_drain import Departure
from .role_handover import Handover
from .settings import SettingError, address, control_url, give_way, why

if TYPE_CHECKING:
    from ..mesh.certificates import Certificates
    from .role_feed import ControlLink
    from .role_run import App

REGISTERED_S = 10.0
"""Longest wait for our registration before a predecessor may end without taking back its own."""
TELL_S = 3.0
"""After so long it is said why a role is not ready."""
WORKERS_MAX = 64
NOT_YET = "the app does not listen yet"
LISTENS_S = 0.05
"""How often it is looked whether it does."""
ENTER_S = 5.0
"""Longest wait for others to know that we are ready."""
ENTER_AGAIN_S = 1.0


def main(options: Any) -> int:
    return run_role(lambda signals: Role(options, None).run(signals))


def run(options: Any) -> int:
    """`fairlead run -- CMD`: the exit code is the app's."""
    return run_role(lambda signals: Role(options, options.command).run(signals))


def sidecar_options(options: Any) -> SidecarOptions:
    """The command line as a sidecar's settings; raises SettingError."""
    give_way(options, "control", "filename")
    if bool(options.filename) == bool(options.control):
        raise SettingError("give either -f PATH (manifests) or --control URL")
    if bool(options.cert) != bool(options.key) or (options.cert and not options.ca):
        raise SettingError("--cert, --key and --ca go together")
    if (
        options.admin is not None
        and not options.admin[0].startswith("127.")
        and options.admin[0] not in ("::1", "localhost")
    ):
        raise SettingError(f"--admin {options.admin[0]}: it may listen on loopback only")
    namespace, name = split_full_name(options.workload)
    ports = [part for part in options.ports.split(",") if part]
    if not all(part.isdigit() and 0 < int(part) <= 65535 for part in ports):
        raise SettingError(f"--ports: expected port numbers, got {options.ports!r}")
    gateway = options.verb == "gateway"
    own = options.address or (options.inbound[0] if options.inbound and options.inbound[0] != "0.0.0.0" else "")
    workload = Workload(
        namespace=namespace,
        name=name,
        addresses=(own,) if own else (),
        ports=tuple(WorkloadPort(int(part)) for part in ports),
        labels=options.labels,
        service_account=options.service_account or "default",
        mesh_port=options.inbound[1] if options.inbound else 0,
    )
    if gateway and options.workers > 1 and 0 in moved_of(options.map).values():
        raise SettingError("--map PORT=0: each worker would have a port of its own; name the port")
    if gateway and not options.labels and not options.group:
        raise SettingError(
            "--labels: a gateway serves the Gateways whose selector its labels match, e.g. istio=ingressgateway"
        )
    upstreams = options.upstream
    checks = checks_of(options)
    return SidecarOptions(
        workload=workload,
        outbound=options.outbound,
        inbound=options.inbound,
        redirect=options.redirect_listen,
        captured=options.capture == "nftables",
        admin=options.admin,
        health=options.health,
        metrics=options.metrics,
        dns=options.dns,
        named=tuple(named_port(text) for text in options.listen),
        upstreams=() if upstreams == ["off"] else tuple(upstreams) if upstreams else None,
        search=tuple(options.search) if options.autopath else None,
        app_address=options.app_address or "",
        access_log=options.access_log or "",
        limits=limits_of(options.limit),
        proxies=proxies_of(options.proxy_protocol),
        gateway=gateway,
        moved=moved_of(options.map) if gateway else {},
        needs_certificate=bool(options.control) and not options.cert,
        checks=checks,
        commands=not options.control or options.enable_script_checks,
        lone=not options.control and not options.register,
    )


def limits_of(texts: list[str]) -> Settings:
    """`--limit NAME=VALUE`, any number of them. Raises SettingError."""
    try:
        return parse_limits(texts)
    except ValueError as error:
        raise SettingError(f"--limit: {error}") from error


def moved_of(texts: list[str]) -> dict[int, int]:
    """`--map 80=8080`, any number of them. Raises SettingError."""
    found: dict[int, int] = {}
    for text in texts:
        named, _, own = text.partition("=")
        if not all(one.isdigit() and int(one) <= 65535 for one in (named, own)) or not int(named):
            raise SettingError(f"--map {text!r}: expected a Gateway's port and the one to listen on, as 80=8080")
        found[int(named)] = int(own)
    return found


def proxies_of(texts: list[str]) -> dict[str, tuple[Network, ...]]:
    """`--proxy-protocol LISTENER=NETWORK,...`, any number of them. Raises SettingError."""
    found: dict[str, tuple[Network, ...]] = {}
    for text in texts:
        listener, equals, networks = text.partition("=")
        if listener not in ("inbound", "outbound", "redirect", "listen", "gateway") or not equals:
            raise SettingError(
                f"--proxy-protocol {text!r}: expected inbound=, outbound=, redirect=, listen= or gateway= and networks"
            )
        try:
            found[listener] = found.get(listener, ()) + parse_trusted(networks)
        except ValueError as error:
            raise SettingError(f"--proxy-protocol {listener}: {error}") from error
    return found


def named_port(text: str) -> NamedPort:
    """`127.0.0.1:9001=web.default:80`; the service as NAME, NAME.NAMESPACE or a full name."""
    local, equals, meant = text.partition("=")
    service, colon, port = meant.rpartition(":")
    try:
        where = address(local)
    except ValueError:
        where = None
    except Exception as error:  # argparse's own error class
        raise SettingError(f"--listen {text}: {error}") from error
    if not equals or not colon or not port.isdigit() or where is None or not service:
        raise SettingError(
            f"--listen: expected ADDRESS=SERVICE:PORT such as 127.0.0.1:9001=web.default:80, got {text!r}"
        )
    parts = service.split(".")
    if len(parts) <= 2:
        service = service_host(parts[1] if len(parts) == 2 else "default", parts[0])
    elif parts[2:] == ["svc"]:
        service = service_host(parts[1], parts[0])
    return NamedPort(where[0], where[1], service.lower().rstrip("."), int(port))


def made_sidecar(options: Any) -> Sidecar:
    """One process, or with --workers a supervisor of several."""
    settings = sidecar_options(options)
    if options.workers == 1:
        return Sidecar(settings)
    if not 1 < options.workers <= WORKERS_MAX:
        raise SettingError(f"--workers: expected a number from 1 to {WORKERS_MAX}, got {options.workers}")
    from ..mesh.workers import Supervisor

    command = [sys.executable, "-P", "-m", __name__.rpartition(".")[0] + ".role_worker"]
    return Supervisor(settings, options.workers, options.drain_deadline, command)


class Role:
    def __init__(self, options: Any, command: list[str] | None) -> None:
        self.options = options
        self.command = command
        self.sidecar = made_sidecar(options)
        self.loader = Loader()
        self.manifests: Manifests | None = None
        self.handover: Handover
        self.certificates: Certificates | None = None
        self._undeclared = False
        """Whether our workload stands in no manifest."""
        self.problem = ""
        """Why the manifests last read are not in force, or not all of them."""
        self.kept_out = NOT_YET if command else ""
        """Why the app is not to be found yet, whatever its checks say."""
        self._tell: Callable[[bool, str], None] | None = None
        """Tells (ready, why not) where the app is registered."""

    async def run(self, signals: Signals) -> int:
        options, sidecar = self.options, self.sidecar
        data = Path(options.data_dir) if options.data_dir else None
        tasks = Tasks(signals.stop)
        link: ControlLink | None = None
        registration: Any = None
        sidecar.on_quit = signals.stop.set
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, sidecar.reopen_log)
        handover = self.handover = Handover.of(options, sidecar, self.command, signals.notifier)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, handover.start_successor)
        try:
            await handover.begin()
            self._static_certificate()
            if options.control:
                link = self._follow_control(data, tasks)
                if not await self._first_world(link, signals):
                    return self._ended_early(signals, tasks)
            else:
                self.manifests = Manifests(options.filename, self._documents)
                self.manifests.read()
                if unread := self.manifests.unread():
                    raise SettingError(f"-f {unread[0]}")
                if sidecar.engine is None:
                    raise SettingError(f"-f: no manifest that can be used: {self.problem or 'nothing there'}")
                tasks.start("manifests", supervised(self.manifests, lambda: None, self._manifests_failed))
                signals.on_reload = self.manifests.look_now
                sidecar.notes["manifests"] = lambda: self.problem
            if self.command:
                sidecar.app_awaited = NOT_YET
                sidecar.checks["app"] = sidecar.app_problem
            if handover.succeeds:  # who serves now goes on until nothing but the sockets is missing here
                await self._until_ready(signals, sidecar.lacks)
            try:
                at = await sidecar.start()
            except OSError as error:
                raise SettingError(str(error)) from error
            await self._until_ready(signals, partial(sidecar.problems, app=False))
            registration = await self._register(tasks)
            if registration is not None and handover.succeeds:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REGISTERED_S):
                        await registration.registered.wait()
            if not signals.stop.is_set():
                if not self.command and not handover.succeeds:
                    await self._be_known(link)
                await handover.ready()
            settle()
            role = "gateway" if sidecar.options.gateway else "sidecar"
            if not signals.stop.is_set():
                ready(
                    f"fairlead {role} ready workload={options.workload} " + " ".join(f"{k}={v}" for k, v in at.items())
                )
            return await self._serve(signals, tasks, registration, link)
        finally:
            await handover.close()
            if registration is not None:
                await registration.close()
            await tasks.close()
            await sidecar.close()
            if link is not None:
                await link.close()

    async def _serve(self, signals: Signals, tasks: Tasks, registration: Any, link: ControlLink | None) -> int:
        """Run until told to stop, or until the app ends; then drain."""
        sidecar, options, app = self.sidecar, self.options, None
        if self.command and not signals.stop.is_set():
            from .role_run import App

            app = App(self.command, sidecar, options.restart, options.drain_deadline)
            await app.start()
            tasks.start("app", self._enter(app, link))
        elif not self.command and not sidecar.app_up:
            sidecar.app_started()
        signals.at_once += [sidecar.kill, *([app.kill] if app is not None else [])]
        stopped = asyncio.ensure_future(signals.stop.wait())
        ended = asyncio.ensure_future(app.watch()) if app is not None else None
        taken = asyncio.ensure_future(self.handover.taken.wait())
        await asyncio.wait({stopped, taken, *({ended} if ended else ())}, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (stopped, taken, *((ended,) if ended else ())):  # the app is not started again from here on
            waiting.cancel()
        self.handover.refuse("it is draining")
        served = self._serves()
        departure = Departure(
            sidecar, options.drain_deadline, options.minimum_drain,
            link.feed if link is not None and served else None, registration,
        )  # fmt: skip
        if self.handover.taken.is_set():
            if self.certificates is not None:
                self.certificates.hand_over()
            await departure.hand_over(self.handover.successor)
            return 1 if tasks.failed else 0
        # Nobody need be waited for once the app is gone: whoever comes finds nothing.
        await departure.leave(wait=app is None or not app.ended)
        if app is not None:
            if not app.ended:
                await departure.finish_served()
            await app.end(signals.number, departure.left_s())
        await departure.finish()
        if ended is not None and app is not None:
            await asyncio.gather(ended, return_exceptions=True)
            await app.close()
            return app.code
        if self.command:
            return 128 + signals.number
        return 1 if tasks.failed else 0

    async def _enter(self, app: App, link: ControlLink | None) -> None:
        """Go into discovery when the app is ready; out of it when it has ended to be started again, and in again."""
        sidecar = self.sidecar
        while True:
            await self._until_up(app)
            gone = app.gone
            sidecar.app_awaited, self.kept_out = "not all others know yet that the app is ready", ""
            self._tell_registration()
            await self._be_known(link)
            sidecar.app_awaited = ""
            await gone.wait()
            sidecar.app_awaited = self.kept_out = NOT_YET
            self._tell_registration()
            if link is not None and self._serves():
                try:
                    await link.feed.leave(0.0)
                except FetchError as error:
                    logger.warning("control cannot be told that the app is started again: %s", error)
            await app.up.wait()

    async def _until_up(self, app: App) -> None:
        """Until its checks say that it is ready; where none can say so, until it listens on all of its ports."""
        sidecar = self.sidecar
        sidecar.app_awaited = NOT_YET
        while True:
            told = sidecar.app is not None and sidecar.app.tells_ready
            ports = [] if told or app.ended else await app.silent_ports(*sidecar.app_ports())
            if not app.ended and not ports and not sidecar.app_unready:
                return
            sidecar.app_awaited = f"{NOT_YET} on port {', '.join(map(str, ports))}" if ports else NOT_YET
            await asyncio.sleep(LISTENS_S)

    def _tell_registration(self) -> None:
        """How our app is, where it is registered."""
        app, why = self.sidecar.app, self.sidecar.app_unready or self.kept_out
        if self._tell is not None:
            self._tell(not why, why or (app.summary() if app is not None else ""))

    def _serves(self) -> bool:
        """Others may come to our app because of us."""
        return self.options.inbound is not None or bool(self.command)

    async def _be_known(self, link: ControlLink | None) -> None:
        """Go into control's registry, and wait a while until all others know."""
        if link is None or not self._serves():
            return
        with contextlib.suppress(TimeoutError):  # one that started from disk is quicker than its connection
            async with asyncio.timeout(ENTER_S):
                while not link.feed.connected and not link.feed.error:
                    await asyncio.sleep(LISTENS_S)
        while not self.sidecar.draining:
            try:
                await link.feed.enter(ENTER_S)
                return
            except FetchError as error:
                logger.warning("control cannot be told that we are ready: %s", error)
                await asyncio.sleep(ENTER_AGAIN_S)

    def _ended_early(self, signals: Signals, tasks: Tasks) -> int:
        """The exit code where the end comes before anything was served."""
        if tasks.failed or not signals.stop.is_set():
            return 1
        return 128 + signals.number if self.command else 0

    def _static_certificate(self) -> None:
        options = self.options
        if not options.cert:
            return
        try:
            certificate, key, roots = (Path(name).read_text() for name in (options.cert, options.key, options.ca))
            self.sidecar.contexts.take(Material(certificate, key, roots))
        except (OSError, ValueError, IdentityError, ssl.SSLError) as error:
            raise SettingError(
                f"--cert {options.cert}, --key {options.key}, --ca {options.ca}: {why(error)}"
            ) from error

    def _follow_control(self, data: Path | None, tasks: Tasks) -> ControlLink:
        from .role_feed import feed_for

        options, sidecar = self.options, self.sidecar
        workload = sidecar.options.workload
        report = {
            "meshPort": str(workload.mesh_port),
            "address": workload.addresses[0] if workload.addresses else "",
            "ports": options.ports,
            "labels": ",".join(f"{key}={value}" for key, value in workload.labels.items()),
            "serviceAccount": options.service_account,
        }
        if options.capture != "off":
            report["captured"] = "1"
        if options.group:
            report["group"] = options.group
        urls = [url for text in options.control for url in text.split(",") if url]
        role = "gateway" if sidecar.options.gateway else "sidecar"
        link = feed_for(options, urls, role, options.workload, sidecar.update, data, report)
        link.feed.in_use, sidecar.missing = sidecar.in_use, link.feed.use
        self._hand_on(lambda: link.feed.items)
        if self._serves() and not self.handover.succeeds:
            link.feed.not_yet()  # before we listen, and our app
        sidecar.on_health.append(partial(link.feed.health, describe=self._described))
        if not self.options.register:
            sidecar.peers_are_told(False)
            link.feed.on_connect.append(lambda: sidecar.peers_are_told(True))
            link.feed.on_lost.append(lambda: sidecar.peers_are_told(False))
        if sidecar.options.checks:
            link.feed.health(sidecar.app_up, "" if sidecar.app_up else "the app is not started yet")
        link.feed.plaintext(sidecar.take_plaintext, sidecar.give_back_plaintext)
        link.feed.on_revoked = sidecar.contexts.revoke
        link.feed.start_from_disk()
        tasks.start("feed", link.feed.run())
        sidecar.notes["control"] = lambda: "" if link.feed.connected else f"not connected ({link.feed.error}); going on"
        sidecar.notes["disk"] = lambda: link.feed.unsaved
        sidecar.notes["version"] = lambda: (
            f"the latest is refused: {'; '.join(link.feed.refused)}" if link.feed.refused else ""
        )
        from ..mesh.bundle import Bundle

        certificates = None
        if not options.cert:
            from ..mesh.certificates import Certificates, renewal_metrics

            certificates = self.certificates = Certificates(
                link.fetch,
                [control_url(url) for url in urls],
                {"namespace": workload.namespace, "workload": workload.name},
                link.headers,
                sidecar.contexts.take,
                data / "certificate.json" if data is not None else None,
            )
            sidecar.notes["certificate"] = lambda: certificates.alarm() or certificates.error
            sidecar.contexts.on_revoked.append(certificates.revoked)
            sidecar.notes["certificate-kept"] = lambda: certificates.unsaved
            sidecar.metrics.more.append(partial(renewal_metrics, certificates))
        bundle = Bundle(
            link.fetch, link.feed, link.credentials, certificates, lambda: sidecar.contexts.material, sidecar.trusting
        )
        if certificates is not None:
            certificates.start_from_disk()
            certificates.revoked(sidecar.contexts.revoked)
            tasks.start("certificates", certificates.run())
        tasks.start("bundle", bundle.run())
        return link

    def _described(self) -> list[dict[str, Any]]:
        app = self.sidecar.app
        return app.describe()["checks"] if app is not None else []

    def _hand_on(self, items: Callable[[], Mapping[str, bytes]]) -> None:
        """Where there are workers: what they make the next world of."""
        if self.options.workers > 1:
            self.sidecar.items = items  # type: ignore[attr-defined]

    async def _first_world(self, link: ControlLink, signals: Signals) -> bool:
        """Wait for a version to be in force; False: told to stop before."""
        stop = asyncio.ensure_future(signals.stop.wait())
        have = asyncio.ensure_future(link.feed.in_force.wait())
        told_at = time.monotonic()
        try:
            while not have.done() and not stop.done():
                await asyncio.wait({stop, have}, timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
                if not have.done() and time.monotonic() - told_at > 5.0:
                    told_at = time.monotonic()
                    why = link.feed.error or "; ".join(link.feed.refused) or "no version yet"
                    logger.warning("waiting for a first version from control: %s", why)
            return have.done() and not stop.done()
        finally:
            stop.cancel()
            have.cancel()

    async def _until_ready(self, signals: Signals, what: Callable[[], list[str]]) -> None:
        tell_at = time.monotonic() + TELL_S
        while (problems := what()) and not signals.stop.is_set():
            if time.monotonic() >= tell_at:
                tell_at = float("inf")
                logger.warning("not ready yet: %s", "; ".join(problems))
            await asyncio.sleep(0.02)

    def _manifests_failed(self, status: SourceStatus) -> None:
        self.problem = status.error

    def _documents(self, documents: list[Document], problems: list[Problem]) -> None:
        world, reports = self.loader.load(documents)
        wrong = [str(problem) for problem in problems]
        for report in reports:
            wrong += [f"{report.source}: {told.path}: {told.message}" for told in report.errors]
        for sentence in wrong:
            logger.error("%s", sentence)
        self._hand_on(lambda: items_of(documents))
        if not problems:  # else it may stand in what could not be read
            self._warn_of_unknown(world)
        try:
            self.sidecar.update(world)
        except RefusedError as error:
            wrong.append(str(error))
            logger.error("the manifests are not put in force: %s", error)
        self.problem = "; ".join(wrong)

    def _warn_of_unknown(self, world: World) -> None:
        """Rules select workloads by labels, and what is misspelt has none."""
        own, known = self.sidecar.options.workload.key, world.snapshot.workloads
        undeclared = own not in known and not self.options.labels
        if undeclared and not self._undeclared:
            from difflib import get_close_matches

            near = get_close_matches(own, known, 1)
            logger.warning(
                "no manifest declares workload %s%s: rules that select by labels pass it over; declare it as a Pod or "
                "WorkloadEntry, or give --labels", own, f" (did you mean {near[0]}?)" if near else "",
            )  # fmt: skip
        self._undeclared = undeclared

    async def _register(self, tasks: Tasks) -> Any:
        """Register the app as the flags say; the registration, or None."""
        options = self.options
        if not options.register:
            return None
        from .source_setup import registration

        if not options.service_account and (material := self.sidecar.contexts.material) is not None:
            # Callers expect the account that is registered: it has to be the one in our certificate.
            leaf = ssl.PEM_cert_to_DER_cert(first_certificate(material.certificates))
            options = Namespace(**{**vars(options), "service_account": identity_of(leaf).service_account})
        made = registration(options, self.sidecar.options.workload, os.environ)
        self._tell = made.health
        self._tell_registration()
        self.sidecar.on_health.append(lambda _ready, _why: self._tell_registration())
        tasks.start("registration", made.run())
        return made


def items_of(documents: list[Document]) -> Mapping[str, bytes]:
    from ..mesh import worker

    return worker.items_of(documents)
