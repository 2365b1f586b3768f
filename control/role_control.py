"""Shell: `fairlead control`: store, API, authority, registry with its sources, feed to sidecars, in one process.

Long because it joins all parts of control, in the order in which they begin and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from ..policy.kinds import BY_NAME
from ..policy.world import Loader, World
from ..registry.documents import Document, Problem
from ..registry.facts import facts_of
from ..registry.facts_kept import KeptFacts
from ..registry.hub import Registry
from ..registry.snapshot import Snapshot
from . import confirmations, grants, rbac, tokens
from .access_setup import client_authorities, oidc_issuer
from .api import ControlApi, Options, is_loopback
from .api_context import current
from .api_limits import Limits
from .auth import WORKLOAD
from .claims import GROUPS, Judged
from .conditions import REPORTED, some
from .feed_server import FeedServer, Member
from .feed_stream import Stream
from .gather import Gather
from .history import beyond
from .history_api import revision_of
from .kinds import parts
from .lockout_guard import LockoutGuard
from .mtls_api import MtlsApi
from .overlay import Overlay
from .past import objects_at, world_at
from .pod_status import PodStatuses
from .push import Book
from .revocations import NOT_REFUSED, Entry, items_of
from .role_authority import AuthorityRole, lasting_name, open_issuer
from .role_common import Signals, Tasks, ready, run, unless_stopped
from .role_sources import PRECEDENCE, Sources
from .role_status import StatusWriter
from .rules_in_force import RulesInForce
from .settings import SettingError, why
from .shared_plaintext import SharedPlaintext
from .shared_sidecars import SharedSidecars, agree_on_authority
from .sidecars import Known, Sidecars
from .status import StatusError
from .store import Change, CompactedError, Key, Store, StoreError
from .store_open import open_store
from .store_shared import SharedStore
from .stored_facts import kept_facts
from .views import Views
from .vouching import Vouching
from .workload_socket import is_own_address

GARBAGE = (20_000, 20, 50)
"""Thresholds of the collector; Python's own are for less that lives for long."""
if TYPE_CHECKING:
    from .xds_server import XdsServer

logger = logging.getLogger("fairlead.control")
ABSENT_LOOK_S = 600.0
"""Between looks for workloads that nobody will see again."""

FACT_RESOURCES = frozenset(
    (
        "namespaces",
        "services",
        "pods",
        "endpointslices.discovery.k8s.io",
        "serviceentries.networking.istio.io",
        "workloadentries.networking.istio.io",
    )
)
"""Resources that become facts of the registry; sidecars get them compiled, not as objects."""
RULE_RESOURCES = frozenset(
    (
        "virtualservices.networking.istio.io",
        "destinationrules.networking.istio.io",
        "networkpolicies.networking.k8s.io",
        "peerauthentications.security.istio.io",
        "authorizationpolicies.security.istio.io",
        "requestauthentications.security.istio.io",
        "gateways.networking.istio.io",
        "sidecars.networking.istio.io",
        "ingresses.networking.k8s.io",
        "ingressclasses.networking.k8s.io",
        "localratelimits.fairlead.dev",
        "meshconfigs.fairlead.dev",
    )
)
"""Resources that go to sidecars as they are."""
SECRETS = "secrets"
SENT_RESOURCES = RULE_RESOURCES | {SECRETS}
CERTIFICATE_KEYS = frozenset(("tls.crt", "tls.key", "ca.crt", "ca.crl", "cert", "key", "cacert", "crl"))
"""What proxies need of Secrets; nothing else of them leaves the store."""


def _rules_of(objects: Mapping[str, Mapping[str, Any] | None]) -> dict[str, dict[str, Any]]:
    """What goes into the book: objects as they are; of Secrets what certificates are made of, and only those that
    have any."""
    found: dict[str, dict[str, Any]] = {}
    for key, body in objects.items():
        if body is None:
            continue
        made = dict(body)
        if key.split("/")[1] in REPORTED:
            made.pop("status", None)  # written by control, for people
        if key.startswith(f"object/{SECRETS}/"):
            for part in ("data", "stringData"):
                had = body.get(part)
                made[part] = {k: v for k, v in had.items() if k in CERTIFICATE_KEYS} if isinstance(had, dict) else {}
            if not made["data"] and not made["stringData"]:
                continue
        found[key] = made
    return found


def main(options: Any) -> int:
    return run(lambda signals: Control(options).run(signals))


class Control:
    """One control plane process."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.data = Path(options.data_dir)
        self.book = Book(secrets.token_hex(4))
        self.store: Store
        self._shared: SharedSidecars | None = None
        """What other control planes of the same store know of sidecars."""
        self.registry = Registry(PRECEDENCE)
        self._facts: KeptFacts
        """Of the API's objects."""
        self._overlay: Overlay
        self._changed_facts: set[str] = set()
        """Item keys of objects that are not taken into the facts yet."""
        self._refresh = Gather(self._take_facts)
        self._vouching: Vouching
        self._views = Views(
            lambda: self.registry.snapshot.value, lambda workload: self._vouching.proved(workload),
            lambda workload: self._vouching.holder(workload),
        )  # fmt: skip
        self._rules = RulesInForce()
        self._xds_server: XdsServer | None = None
        self._unsaved = asyncio.Event()
        """What is known of sidecars is not on disk yet."""

    async def run(self, signals: Signals) -> int:
        """Exit code. Raises SettingError. Long because all of a control plane begins, and ends, in this order."""
        options = self.options
        if options.certificate_ttl < 1:
            raise SettingError("--certificate-ttl: expected a second or more, usually 24h")
        if bool(options.workload_socket) != bool(options.workload_users):
            raise SettingError("--workload-socket and --workload-users go together")
        if options.listen is None and options.tls_listen is None:
            raise SettingError("--listen and --tls-listen are both off: nobody could reach control")
        gc.disable()  # what is read now stays
        try:
            self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
            issuer = await open_issuer(options, self.data)
            self.sidecars = Sidecars(read_if_there(self.data / "sidecars.json"))
            self._overlay = Overlay(self.registry, self.sidecars)
            opening = open_store(
                options.store or f"sqlite:{self.data / 'store.db'}", os.environ,
                log_entries=options.history_revisions, log_age_s=options.history_age,
            )  # fmt: skip
            self.store = await unless_stopped(signals, opening)
            if isinstance(self.store, SharedStore):
                try:
                    await agree_on_authority(self.store, issuer.roots(), str(self.data))
                except BaseException:
                    await self.store.close()
                    raise
        except (OSError, ValueError, StoreError) as error:
            flags = f"--store, --data-dir {self.data}" if options.store else f"--data-dir {self.data}"
            raise SettingError(f"{flags}: {why(error)}") from error
        try:
            self.api = ControlApi(
                self.store,
                issuer,
                Options(
                    admin_token_file=options.api_token_file or "",
                    audit_file=str(self.data / "audit.log"),
                    service_ranges=options.service_cidr,
                    socket_users_file=options.workload_users or "",
                    confirmable=RULE_RESOURCES | rbac.RESOURCES,
                    allow_plain=options.allow_plain,
                    limits=Limits(work=options.user_processor_time),
                ),
                parts=parts(self.store, lambda: self.registry.snapshot.value),
                identity_of=issuer.identity_of,
            )
        except (OSError, ValueError) as error:
            raise SettingError(str(error)) from error  # the message names the file
        self._pods = PodStatuses(
            lambda key: self.registry.snapshot.value.workloads.get(key),
            lambda key: self.sidecars.known.get(key),
            time.time,
        )
        self.api.hub.readers["pods"] = self._pods.shown
        self.api.lockout = LockoutGuard(lambda: self._rules.seen, lambda: self.registry.snapshot.value)
        self.api.door.authorities = client_authorities(options, issuer.roots())
        issuer_of_users = oidc_issuer(options)
        self.api.door.oidc = issuer_of_users[0] if issuer_of_users else None
        snapshot = self.registry.snapshot
        self._vouching = Vouching(self.store.memory, lambda: snapshot.value, is_own_address, time.time, self._reads)
        self.feed = FeedServer(
            self.book, self._authorize, self._members_changed, self._views, self._sidecar_left, self._vouch
        )
        try:
            mtls = MtlsApi(
                self.data / "plaintext.json", write_private, lambda: self._rules.seen,
                lambda: self.registry.snapshot.value, self._authorize,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise SettingError(f"--data-dir {self.data}: plaintext.json: {error}") from error
        self.api.operations.guards.append(mtls.guard)
        self.api.add_routes(mtls.routes())
        self.api.add_routes([*self.feed.routes(), web.get("/fairlead/v1/status", self._status)])
        self.api.add_routes([web.get("/fairlead/v1/world", self._world), web.get("/metrics", self._metrics)])
        self.authority = AuthorityRole(issuer, self.data, self.api, self.feed)
        tasks = Tasks(signals.stop)
        self._xds_server = xds = self._xds() if options.xds_listen or options.xds_tls_listen else None
        self._refuse_revoked()
        sources = Sources(options, self.registry, tasks, self.data, self._manifests_changed)
        tasks.start("sidecars", self._save_sidecars())
        tasks.start("absent sidecars", self._forget_absent())
        if isinstance(self.store, SharedStore):
            self._shared = SharedSidecars(self.store, self.book, self.feed, self._members_changed)
            self.feed.elsewhere, name = self._shared.until_known, lasting_name(self.data)
            self.feed.run_elsewhere = self._shared.until_run
            self.authority.share(self.store, self._shared, self.data)
            mtls.shared = SharedPlaintext(self.store, name, mtls.ledger, mtls.changed, time.time)
            self._shared.on_beat.append(mtls.shared.beat)
            tasks.start("shared sidecars", self._shared.run())
            self._members_changed()  # what others know
        self.authority.start(tasks)
        tasks.start("plaintext", mtls.run())
        self._take_rules(self._rules.change(_rules_of(self.api.objects(SENT_RESOURCES))))
        self._vouching.groups("control", self.api.objects({GROUPS}))
        self._facts = kept_facts(self.api, FACT_RESOURCES)
        self._overlay.take("control", self._facts.facts)
        sources.start_manifests()
        settle()

        def reload() -> None:
            self.authority.reload()
            if sources.manifests:
                sources.manifests.look_now()

        signals.on_reload = reload
        wanted = FACT_RESOURCES | SENT_RESOURCES | {GROUPS}
        unsubscribe = self.api.subscribe(self._objects_changed, wanted, status=False)
        self.store.memory.subscribe(self._control_changed)
        tasks.start("confirmations", self.api.confirming.run())
        self.registry.snapshot.subscribe(self._facts_changed)
        self._facts_changed(self.registry.snapshot.value)
        self.api.checks["sources"] = sources.problem
        statuses = StatusWriter(
            self.store, self.api.catalog, self.book, self.feed, lambda: self._rules.seen,
            lambda: self.registry.snapshot.value,
            leads=self._shared.leads if self._shared else lambda: True,
            elsewhere=self._shared.seats if self._shared else tuple,
        )  # fmt: skip
        tasks.start("statuses", statuses.run())
        try:
            at = await self._listen(issuer)
            if xds is not None:
                at |= await self._listen_xds(xds, issuer)
                tasks.start("xds", xds.run())
            await sources.start()
            ready(f"fairlead control ready {' '.join(f'{name}={where}' for name, where in at.items())}")
            await signals.stop.wait()
        finally:
            unsubscribe()
            self._refresh.close()
            statuses.close()
            if self._shared is not None:
                await self._shared.close()
            self.feed.close()
            if xds is not None:
                await xds.close()
            await self.api.close()
            if issuer_of_users:
                await issuer_of_users[1].close()
            await sources.close()
            await tasks.close()
            await self.authority.close()
            mtls.close()
            if self._unsaved.is_set():
                write_private(self.data / "sidecars.json", self.sidecars.dump())
            await self.store.close()
        return 1 if tasks.failed else 0

    async def _listen(self, issuer: Any) -> dict[str, str]:
        options, at = self.options, {}
        flag, where = "--listen", options.listen
        try:
            if options.listen is not None:
                host, port = options.listen
                at["api"] = f"{host}:{await self.api.start(host, port)}"
            if options.tls_listen is not None:
                flag, where = "--tls-listen", options.tls_listen
                host, port = options.tls_listen
                names = [name for name in options.tls_names.split(",") if name]
                context = issuer.server_context([host, "localhost", "127.0.0.1", *names])
                self.authority.contexts.append(context)
                at["tls"] = f"{host}:{await self.api.start(host, port, ssl=context)}"
            if options.workload_socket:
                flag, where = "--workload-socket", None
                at["socket"] = await self.api.start_socket(options.workload_socket)
        except OSError as error:
            told = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            named = f"{where[0]}:{where[1]}" if where else options.workload_socket
            raise SettingError(f"{flag} {named} cannot be listened on: {told}") from error
        except ValueError as error:
            raise SettingError(f"{flag}: {error}") from error
        return at

    def _xds(self) -> XdsServer:
        try:
            from .xds_server import XdsServer
        except ImportError as error:
            raise SettingError(f"--xds-listen: {error}") from error
        if self.options.xds_listen is not None and not is_loopback(self.options.xds_listen[0]):
            raise SettingError("--xds-listen has no TLS and may be on loopback only; use --xds-tls-listen")
        loader = Loader()

        def world() -> World:
            bodies = [body for key, body in self._rules.seen.items() if not key.startswith(f"object/{SECRETS}/")]
            snapshot = self.registry.snapshot.value
            known = loader.again(bodies, snapshot)
            documents = [Document.of(body, "control") for body in bodies] if known is None else []
            return known or loader.load(documents, snapshot, references=False)[0]

        return XdsServer(
            self.feed, world, lambda: self.book.version, self._authorize_peer, lambda key: self._rules.seen.get(key)
        )

    async def _listen_xds(self, xds: XdsServer, issuer: Any) -> dict[str, str]:
        options, at = self.options, {}
        try:
            if options.xds_listen is not None:
                host, port = options.xds_listen
                at["xds"] = f"{host}:{xds.listen(host, port)}"
            if options.xds_tls_listen is not None:
                host, port = options.xds_tls_listen
                names = [host, "localhost", "127.0.0.1", *(name for name in options.tls_names.split(",") if name)]
                at["xds-tls"] = f"{host}:{xds.listen_tls(host, port, lambda: issuer.server_material(names))}"
        except OSError as error:
            raise SettingError(f"--xds-listen: {error}") from error
        await xds.start()
        return at

    def _authorize_peer(self, certificate: bytes | None, loopback: bool, namespace: str, workload: str) -> str:
        account = self._vouching.holder(f"{namespace}/{workload}")
        principal = self.api.authorize_peer(certificate, loopback, namespace, workload, account)
        if principal.role != WORKLOAD:
            return account or ""
        self._why_revoked(namespace, workload)
        self._vouching.prove(f"{namespace}/{workload}", principal.service_account)
        return principal.service_account

    # --- from the API's objects to the feed -----------------------------------------------------------------------

    def _objects_changed(self, changed: Mapping[str, dict[str, Any] | None]) -> None:
        rules = {key: value for key, value in changed.items() if key.split("/", 2)[1] in SENT_RESOURCES}
        if rules:
            self._take_rules(self._rules.change(dict.fromkeys(rules) | _rules_of(rules)))
        if any(key.startswith(f"object/{GROUPS}/") for key in changed):
            if self._vouching.groups("control", self.api.objects({GROUPS})):
                self._members_changed()
            changed = {key: value for key, value in changed.items() if not key.startswith(f"object/{GROUPS}/")}
        if len(rules) < len(changed):
            for key, value in changed.items():
                if value is None and key.startswith("object/pods/"):
                    self.sidecars.forget([key.removeprefix("object/pods/")])
                    if self._shared is not None:
                        self._shared.forget([key.removeprefix("object/pods/")])
            self._changed_facts |= changed.keys() - rules.keys()
            self._refresh.ask()  # many objects of one `apply` become one change of facts

    def _control_changed(self, changes: Sequence[Change]) -> None:
        """Objects of control's own, in the store."""
        if any(change.key.resource == confirmations.RESOURCE for change in changes):
            self._take_rules({})
        given = {grants.workload_of(change.key) for change in changes if change.key.resource == grants.RESOURCE}
        for key in given:
            self._vouching.changed(key)
        if self._connected(given):
            self._members_changed()
        if revoked := tokens.revoked(changes, time.time()):
            self._vouching.changed()
            self.feed.cut(self._vouching.by_token(revoked), "its token was revoked")

    def _refuse_revoked(self) -> None:
        """Have who is revoked cut off and kept out, and everybody told."""
        revocations = self.api.door.authenticator.revocations
        self.feed.serial_of = lambda _request: current().principal.serial

        def why_not(stream: Stream) -> str:
            member = stream.member
            return revocations.why(member.namespace, member.proved, stream.serial, member.workload)

        def changed(news: Mapping[Key, Entry | None]) -> None:
            self._publish(self.book.objects(items_of(news)), urgent=True)
            self.feed.look_again()
            if self._xds_server is not None:
                self._xds_server.look_again()

        self.feed.why_not = why_not
        if self._xds_server is not None:
            self._xds_server.revoked = revocations.accounts
            self._xds_server.not_told = lambda: [NOT_REFUSED] if revocations.in_handshakes() else []
        revocations.changed.append(changed)
        self.book.objects(items_of(revocations.entries))

    def _why_revoked(self, namespace: str, workload: str) -> None:
        """Raises StatusError 403."""
        if why := self.api.door.authenticator.revocations.why(namespace, "", workload=workload):
            raise StatusError(403, f"{namespace}/{workload} may not come in: {why}")

    def _take_rules(self, changed: dict[str, dict[str, Any] | None]) -> None:
        """Put rules that changed into the book, with what of them is under confirmation."""
        changed |= self._rules.provide(self.api.confirmations.items())
        self._views.objects({key: value for key, value in changed.items() if key.startswith("object/")})
        self._publish(self.book.objects(changed))

    def _facts_changed(self, snapshot: Snapshot) -> None:
        self._views.scopes.facts(snapshot)
        self._publish(self.book.facts(snapshot), self.book.loses)

    def _publish(self, changed: bool, urgent: bool = False) -> None:
        if changed:
            self.feed.publish(urgent)

    def _take_facts(self) -> None:
        changed, self._changed_facts = self._changed_facts, set()
        touched = self._facts.take(changed)
        self._overlay.take("control", self._facts.facts, touched)
        if self._connected(touched.workloads) or not touched.workloads.isdisjoint(self.sidecars.known):
            self._members_changed()  # what is declared now need not be believed any more, or must be

    def _manifests_changed(self, documents: list[Document], problems: list[Problem]) -> None:
        for problem in problems:
            logger.error("%s", problem)
        _, reports = World.load(documents)
        good = []
        for document, report in zip(documents, reports, strict=True):
            if report.valid:
                good.append(document)
            for told in report.errors:
                logger.error("%s: %s: %s", report.source, told.path, told.message)
        rules, groups = {}, {}
        for document in good:
            if document.kind == "WorkloadGroup":
                groups[f"object/{GROUPS}/{document.namespace}/{document.name}"] = document.body
            kind = BY_NAME.get((document.api_version, document.kind))
            if kind is not None and (kind.name in RULE_RESOURCES or kind.name == SECRETS):
                namespace = document.namespace if kind.namespaced else ""
                rules[f"object/{kind.name}/{namespace}/{document.name}"] = document.body
        self._take_rules(self._rules.declare(_rules_of(rules)))
        self._overlay.take("manifests", facts_of(good, "manifests"))
        self._vouching.groups("manifests", groups)
        self._members_changed()

    def _vouch(self, member: Member) -> Judged:
        before = member.not_believed
        judged, new = self._vouching.vouch(member)
        if member.not_believed != before:
            self.feed.publish()  # it is told, though no fact may be another
        for reason in new:
            logger.warning("%s/%s is not believed: %s", member.namespace, member.workload, reason)
        return judged

    def _connected(self, workloads: Iterable[str]) -> bool:
        """Whether any of these workloads has a sidecar here."""
        return any(f"{role}/{key}" in self.feed.members for key in workloads for role in ("sidecar", "gateway"))

    def _reads(self, workload: str) -> bool:
        return self._connected((workload,)) or f"dns/{workload}" in self.feed.members

    def _members_changed(self) -> None:
        members, disowned = [], self.sidecars.disown(self._vouching.declared)
        for key, member in self.feed.members.items():
            if member.role in ("sidecar", "gateway") and not self._views.stranger(member):
                judged = self._vouch(member)
                if key.count("/") == 2:  # one that has handed over is only waited for
                    members.append(self._vouching.known(member, judged))
        if self._shared is not None:
            self._shared.connected(members)
            there, nowhere = self._shared.elsewhere()
            self.sidecars.gone(one for one in nowhere if one.is_of(self._vouching.declared(one.key)))
            members += [one for one in there if one.is_of(self._vouching.declared(one.key))]
        if told := self.sidecars.connected(members) | disowned:
            self._overlay.told(told)
            self._unsaved.set()
        self._tell_pods({one.key: one for one in members})

    def _tell_pods(self, connected: Mapping[str, Known]) -> None:
        if changed := self._pods.heard(connected):
            places = (key.partition("/") for key in changed)
            self.api.hub.touch("pods", ((namespace, name) for namespace, _, name in places))

    async def _save_sidecars(self) -> None:
        """Beside everything else: the disk holds up nobody who waits for what changed."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            await asyncio.to_thread(write_private, self.data / "sidecars.json", self.sidecars.dump())

    async def _forget_absent(self) -> None:
        while True:
            await asyncio.sleep(ABSENT_LOOK_S)
            before = self.sidecars.dump()
            if gone := self.sidecars.expire(self._is_declared, time.time()):
                logger.info("forgotten, since their sidecars have been away for long: %s", some(sorted(gone)))
                self._overlay.told(gone)
            self._vouching.prune()
            if self.sidecars.dump() != before:
                self._unsaved.set()
            if self._shared is not None:
                with contextlib.suppress(StoreError):  # the store says so itself
                    await self._shared.expire(self._is_declared, time.time())

    def _is_declared(self, workload: str) -> bool:
        return self._vouching.declared(workload) is not None

    def _sidecar_left(self, workload: str) -> None:
        if self._shared is not None:
            self._shared.leave(workload)
        if self.sidecars.leave(workload):
            write_private(self.data / "sidecars.json", self.sidecars.dump())
            self._overlay.told((workload,))
            namespace, _, name = workload.partition("/")
            self.api.hub.touch("pods", ((namespace, name),))

    # --- requests ---------------------------------------------------------------------------------------------------

    def _authorize(self, request: web.Request, namespace: str, workload: str) -> str:
        """The proved service account; empty: none. Raises StatusError 401, 403."""
        who, key = current().principal, f"{namespace}/{workload}"
        over = self._vouching.takes_over(namespace, workload, who.service_account, who.token_id)
        principal = self.api.authorize(request, namespace, workload, None if over else self._vouching.holder(key))
        if principal.role != WORKLOAD:
            return ""
        self._why_revoked(namespace, workload)
        self._vouching.prove(key, principal.service_account, principal.token_id)
        if over:
            self.feed.cut({key}, "somebody has come to whom its name was given")
        return principal.service_account

    async def _status(self, request: web.Request) -> web.Response:
        self.api.authorize(request, "", "")
        members = sorted(self.feed.members.values(), key=lambda m: (m.role, m.namespace, m.workload))
        body = {
            "version": self.book.version,
            "items": len(self.book),
            "sources": list(self.registry.snapshot.value.sources.values()),
            "sidecars": members,
        }
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _world(self, request: web.Request) -> web.Response:
        """Everything a decision is made from, as one feed message, with the revisions of the objects that state facts,
        which travel as items without: for `fairlead explain --control`."""
        self.api.authorize(request, "", "")
        at = request.query.get("at", "")
        facts = self._objects_at(FACT_RESOURCES, at) if at else self.api.objects(FACT_RESOURCES)
        revisions = {
            f"{body['kind']} {body['metadata'].get('namespace', '')}/{body['metadata']['name']}": (
                body["metadata"].get("resourceVersion", "")
            )
            for body in facts.values()
        }
        if at:
            rules = {**self._rules.manifests, **_rules_of(self._objects_at(RULE_RESOURCES, at))}
            others = [(name, said) for name in PRECEDENCE[1:] if (said := self.registry.facts(name)) is not None]
            message = await asyncio.to_thread(world_at, rules, facts, others, PRECEDENCE)
        else:
            message = self.book.everything()
        return web.json_response({**json.loads(message), "revisions": revisions})

    def _objects_at(self, resources: Collection[str], at: str) -> dict[str, dict[str, Any]]:
        """Raises StatusError 400, 410."""
        try:
            return objects_at(self.api, resources, revision_of(at, "at"))
        except CompactedError as error:
            raise beyond(error, self.store.memory) from None

    async def _metrics(self, request: web.Request) -> web.Response:
        self.api.authorize(request, "", "")
        lines = [
            "# TYPE fairlead_feed_sidecars gauge",
            f"fairlead_feed_sidecars {len(self.feed.members)}",
            "# TYPE fairlead_feed_refused gauge",
            f"fairlead_feed_refused {sum(1 for m in self.feed.members.values() if m.refused)}",
            "# HELP fairlead_feed_publish_seconds From a change until it is written to all sidecars.",
            "# TYPE fairlead_feed_publish_seconds summary",
            f"fairlead_feed_publish_seconds_sum {self.feed.publish_s:.6f}",
            f"fairlead_feed_publish_seconds_count {self.feed.publishes}",
            "# TYPE fairlead_feed_items gauge",
            f"fairlead_feed_items {len(self.book)}",
            "# TYPE fairlead_api_requests_total counter",
            *(f'fairlead_api_requests_total{{method="{m}",code="{c}"}} {n}' for (m, c), n in self.api.counts.items()),
            "# TYPE fairlead_certificates_issued_total counter",
            f"fairlead_certificates_issued_total {self.api.certificates.issued}",
            "# TYPE fairlead_certificates_refused_total counter",
            f"fairlead_certificates_refused_total {self.api.certificates.refused}",
            "# TYPE fairlead_store_writable gauge",
            f"fairlead_store_writable {int(not self.store.problem())}",
            *self.authority.metrics(),
            "# TYPE fairlead_source_live gauge",
            *(
                f'fairlead_source_live{{source="{s.name}"}} {int(s.state == "live")}'
                for s in self.registry.snapshot.value.sources.values()
            ),
            "# TYPE fairlead_source_problems gauge",
            *(
                f'fairlead_source_problems{{source="{s.name}"}} {len(s.problems)}'
                for s in self.registry.snapshot.value.sources.values()
            ),
            "# TYPE fairlead_source_confirmed_timestamp_seconds gauge",
            *(
                f'fairlead_source_confirmed_timestamp_seconds{{source="{s.name}"}} {s.confirmed_at}'
                for s in self.registry.snapshot.value.sources.values()
            ),
            "# TYPE fairlead_source_age_seconds gauge",
            *(
                f'fairlead_source_age_seconds{{source="{s.name}"}} {max(0.0, time.time() - s.confirmed_at):.1f}'
                for s in self.registry.snapshot.value.sources.values()
                if s.confirmed_at
            ),
        ]
        return web.Response(text="\n".join(lines) + "\n", content_type="text/plain", charset="utf-8")


def settle() -> None:
    """After the start: what is there stays, and the collector of garbage need not look at it again and again, which
    would hold up everybody for the time that this takes."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)


def read_if_there(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def write_private(path: Path, data: bytes) -> None:
    """Replace a file at once; only its owner may read it. A full disk is logged and leaves the old one."""
    draft = path.with_suffix(".new")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        logger.error("%s could not be written: %s", path, error)
        with contextlib.suppress(OSError):
            draft.unlink()
