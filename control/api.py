"""Shell: the control API as a whole: who may in, what became of it, and the servers it listens on.

api = ControlApi(store, issuer, Options())
api.add_routes([...])                        further routes, below /fairlead/v1/
await api.start("127.0.0.1", 15010)          plain; open to all on loopback while no token is configured
await api.start("0.0.0.0", 15012, ssl=...)   TLS; may be called several times
stop = api.subscribe(changed)                {item key: object or None} with every change
await api.close()

Long because it is where all parts of the API meet, around each request and at its beginning and end.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import random
import secrets
import ssl as tls
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from .access import Access
from .access_reviews import AccessReviews
from .admission import Admission, BodyCheck, LookUp
from .api_body import YamlLoad
from .api_context import Context, begin, current
from .api_door import Door, is_large, is_operator
from .api_limits import ApiLimits, Limits
from .api_objects import ObjectApi, respond
from .api_refusals import BODY_BYTES_MAX, http_logger, readable, refusal_of
from .api_request import Form
from .aside import ASIDE_BYTES, Made, Thread, metered
from .audit import FEED, Audit
from .auth import Authenticator, Principal, check_own, forbidden
from .catalog import Catalog
from .certificates_api import CertificatesApi, Issuer
from .cluster_ips import ClusterIPs, Network
from .conditions import only_status
from .confirm_api import ConfirmApi
from .confirmations import Confirmations
from .history_api import HistoryApi
from .lockout_guard import LockoutGuard
from .objects import Changing, ObjectOperations
from .openapi import OpenApi, SchemaOf
from .rbac import RESOURCES, Attributes
from .recorded import RecordedStore, missing_claims
from .server_tls import ServerContext
from .status import StatusError, qualified
from .store import (
    Change,
    ConflictError,
    Key,
    Store,
    Stored,
    StoreError,
    Write,
)
from .watch_hub import WATCHES_MAX, WatchHub
from .workload_socket import clear_path, open_to_all, read_users

FIRST_REQUEST_S = 15.0
"""A new connection must bring its first request within this."""
HANDSHAKE_S = 10.0
"""And have finished its TLS handshake before that."""
KEEPALIVE_S = 75.0
"""And each further one within this after the one before."""
LINGER_S = 2.0
"""So long a body is read on that was answered before it had come."""
SHUTDOWN_S = 5.0
"""So long running requests are waited for when the API closes."""
GIT_VERSION = "v1.32.0"
"""Of the Kubernetes API whose behaviour this follows; clients compare it with their own."""
NOTHING = Attributes("")
logger = logging.getLogger("fairlead.api")


class Options(msgspec.Struct):
    """Settings of the API."""

    version: str = "0.1.0"
    admin_token_file: str = ""
    """Bearer tokens of administrators (`auth`); empty: none, and loopback is open."""
    audit_file: str = ""
    """Audit lines go here; empty: to the log `fairlead.audit`."""
    allow_plain: bool = False
    """Let a listener beyond loopback go without TLS; it needs credentials all the same."""
    confirmable: frozenset[str] = RESOURCES
    """Resources whose changes can be under confirmation."""
    limits: Limits = Limits()
    """Of each user."""
    service_ranges: tuple[Network, ...] = ()
    """Where ClusterIPs are taken from; empty: none is given out."""
    socket_users_file: str = ""
    """Which users of this host are which service accounts (`socket_users`), for `start_socket`."""


class Parts(msgspec.Struct):
    """What the API is told about kinds; `fairlead.control.kinds.parts()` has the real ones."""

    kinds: Iterable[Any]
    check: BodyCheck
    schema_of: SchemaOf
    load_yaml: YamlLoad
    look_up: LookUp | None = None


Changed = Callable[[Mapping[str, dict[str, Any] | None]], None]


class ControlApi:
    """One API server over one store. Make it, and use it, within a running loop."""

    def __init__(
        self,
        store: Store,
        issuer: Issuer | None = None,
        options: Options | None = None,
        *,
        parts: Parts | None = None,
        identity_of: Callable[[bytes], str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`identity_of`: the SPIFFE id of a verified client certificate (DER), or ValueError.

        Raises OSError and ValueError where the audit or the token file cannot be used.
        """
        if parts is None:
            from .kinds import parts as real_parts

            parts = real_parts(store)
        self.store = store
        self._recorded = RecordedStore(store)
        self.options = options or Options()
        self.catalog = Catalog(parts.kinds)
        self.hub = WatchHub(store.memory, random.random, clock)
        self.operations = ObjectOperations(
            self._recorded, self.catalog, Admission(parts.check, parts.look_up), clock, secrets.token_bytes,
            ClusterIPs(self.options.service_ranges),
        )  # fmt: skip
        self.checks: dict[str, Callable[[], str]] = {}
        """Further parts of /readyz: name to what is wrong with it, empty: nothing."""
        self.counts: dict[tuple[str, int], int] = {}
        """Answers by method and status code."""
        self._clock = clock
        self.access = Access(store.memory)
        self.limits = ApiLimits(self.options.limits, WATCHES_MAX)
        who = Authenticator(store.memory, identity_of)
        self.door = Door(who, self.access, self.limits, lambda: self._clock(), self.options.admin_token_file)
        self.door.sync = store.sync if store.shared else None
        self.hub.again = lambda request: self.door.again(request, current())
        self.door.socket_users = read_users(self.options.socket_users_file)
        self.operations.check_write = lambda target, before, after: self.access.check_write(
            current().principal, target, before, after
        )
        self.operations.together = self._together
        self._thread = Thread()
        self.operations.aside = self._aside
        self.operations.guards.append(self._check_lockout)
        self.lockout: LockoutGuard | None = None
        """Refuses policies that would cut control, DNS or their author off, where the registry is known."""
        self.confirmations = Confirmations(store.memory, self.options.confirmable, self._as_carried)
        self.confirming = ConfirmApi(self._recorded, self.confirmations, clock, secrets.token_bytes, self._told)
        self._audit_descriptor = -1
        self._audit = Audit(self._open_audit())
        self._servers: list[asyncio.Server] = []
        self._fresh: dict[Any, asyncio.TimerHandle] = {}
        openapi = OpenApi(self.catalog, parts.schema_of, self.options.version)
        objects = ObjectApi(store, self.catalog, self.operations, openapi, self.hub, parts.load_yaml, clock)
        self.certificates = CertificatesApi(store, issuer, clock, secrets.token_bytes)
        self.app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[self._around])
        self.app.add_routes(self._own_routes())
        self.app.add_routes(self.certificates.routes())
        self.app.add_routes(self.confirming.routes())
        self.app.add_routes(HistoryApi(self._recorded, self.catalog, self.operations, self.access).routes())
        self.app.add_routes(AccessReviews(self.access, parts.load_yaml, self._aside).routes())
        self.app.add_routes(objects.routes())
        self._runner: web.AppRunner | None = None
        self.port = 0
        """Of the first listener."""

    # --- for the rest of control ------------------------------------------------------------------------------------

    def add_routes(self, routes: Iterable[web.AbstractRouteDef]) -> None:
        """Further handlers, before `start`. Below /fairlead/ workloads get in, so call `authorize` there."""
        self.app.add_routes(routes)

    def authorize(
        self, request: web.Request, namespace: str, workload: str, service_account: str | None = None
    ) -> Principal:
        """Refuse (StatusError 401, 403) who may not act for this workload; without one, who is no administrator.

        `service_account`: that of the workload, where the registry knows it.
        """
        principal = current().principal
        if not namespace and not workload:
            if not is_operator(current()):
                raise forbidden(principal, "see this", "it is for administrators")
            return principal
        if principal.one_time:
            raise forbidden(principal, "read a feed", "a one-time token is good for one certificate only")
        check_own(principal, namespace, workload, service_account)
        return principal

    def authorize_peer(
        self, certificate: bytes | None, loopback: bool, namespace: str, workload: str, service_account: str | None
    ) -> Principal:
        """As `authorize`, for who shows a verified certificate (DER) elsewhere than in a request; without one, whom a
        loopback listener for development lets in."""
        principal = self.door.authenticator.principal("", certificate, loopback and self.door.is_open, self._clock())
        check_own(principal, namespace, workload, service_account)
        return principal

    def objects(self, resources: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
        """Every object by its item key, in its preferred version. `resources`: names such as `services`; None: all."""
        return {
            item_key(stored.key): self.shown(stored)
            for resource in self.catalog.resources
            if resources is None or resource.name in resources
            for stored in self.store.memory.all(resource.name)
        }

    def shown(self, stored: Stored) -> dict[str, Any]:
        """An object of the catalog with its preferred apiVersion and its kind."""
        resource = self.catalog.by_name[stored.key.resource]
        return {"apiVersion": resource.api_version(), "kind": resource.kind, **stored.object()}

    def subscribe(
        self, changed: Changed, resources: Collection[str] | None = None, status: bool = True
    ) -> Callable[[], None]:
        """Call `changed` with {item key: object, None for a removed one} of every commit; returns how to end that.

        Without `status`, changes of nothing but a status that control writes itself are not told.
        """

        def take(changes: Sequence[Change]) -> None:
            told = {
                item_key(change.key): self.shown(change.after) if change.after is not None else None
                for change in changes
                if change.key.resource in self.catalog.by_name
                and (resources is None or change.key.resource in resources)
                and (status or not only_status(change))
            }
            if told:
                changed(told)

        return self.store.memory.subscribe(take)

    # --- servers ----------------------------------------------------------------------------------------------------

    async def start(self, host: str, port: int, ssl: tls.SSLContext | None = None) -> int:
        """Listen; the port. Raises OSError, and ValueError for a listener that would be open to the network."""
        if ssl is not None and self.door.authorities:
            if isinstance(ssl, ServerContext):
                ssl.trust_people(self.door.authorities.pem)
            else:
                ssl.load_verify_locations(cadata=self.door.authorities.pem)
        if ssl is None and not is_loopback(host):
            if self.door.is_open:
                raise ValueError(
                    f"the plain API on {host} would be open to everybody who can reach it: listen on loopback, "
                    "use TLS (--tls-listen), or have credentials (--api-token-file) and --allow-plain"
                )
            if not self.options.allow_plain:
                raise ValueError(
                    f"the plain API on {host} would show credentials to everybody on the way: use --tls-listen, or "
                    "--allow-plain where something else protects them"
                )
        await self._set_up()
        server = await asyncio.get_running_loop().create_server(
            self._connection, host, port, ssl=ssl, backlog=1024, reuse_address=True,
            ssl_handshake_timeout=None if ssl is None else HANDSHAKE_S,
        )  # fmt: skip
        self._servers.append(server)
        actual = int(server.sockets[0].getsockname()[1])
        if ssl is None and is_loopback(host):
            self.door.open_ports.add(actual)
        self.port = self.port or actual
        return actual

    async def start_socket(self, path: str) -> str:
        """Listen on a Unix socket, for workloads on this host; its path. Raises OSError."""
        await self._set_up()
        clear_path(path)
        self._servers.append(await asyncio.get_running_loop().create_unix_server(self._connection, path, backlog=1024))
        open_to_all(path)
        return path

    async def _set_up(self) -> None:
        if self._runner is None:
            # Log no access lines; cancel a handler whose client has gone, so that watches end at once.
            self._runner = web.AppRunner(
                self.app,
                access_log=None,
                logger=http_logger(),
                handler_cancellation=True,
                keepalive_timeout=KEEPALIVE_S,
                lingering_time=LINGER_S,
                shutdown_timeout=SHUTDOWN_S,
            )
            await self._runner.setup()
            assert self._runner.server is not None
            self._runner.server.request_handler = readable(self._runner.server.request_handler)
        await self._make_defaults()
        for wrong in self.operations.address_problems:
            logger.warning("%s", wrong)
        self.operations.address_problems.clear()
        await self._claim_addresses()
        for wrong in await self.operations.give_addresses():
            logger.error("no ClusterIP: %s", wrong)

    async def _make_defaults(self) -> None:
        """The namespace `default`, and the roles that everybody counts on."""
        writes = self.operations.default_roles()
        if self.store.memory.get(Key("namespaces", "", "default")) is None:
            writes.append(self.operations.namespace_write("default"))
        if writes:
            try:
                await self.store.write(writes)
            except ConflictError:
                pass  # another control plane has just made them
            except StoreError as error:
                logger.error("namespace default and the default roles not made: %s", error)

    async def _claim_addresses(self) -> None:
        """Of Services that were stored before control planes shared the store."""
        try:
            if self.store.shared and (claims := missing_claims(self.store.memory)):
                await self.store.write(claims)
        except ConflictError:
            pass  # another control plane does the same
        except StoreError as error:
            logger.error("ClusterIPs are not claimed yet: %s", error)

    def _connection(self) -> asyncio.Protocol:
        """A protocol for a new connection, which is closed if it does not bring a request soon."""
        assert self._runner is not None
        assert self._runner.server is not None
        protocol = self._runner.server()
        self._fresh[protocol] = asyncio.get_running_loop().call_later(FIRST_REQUEST_S, self._too_slow, protocol)
        return protocol

    def _too_slow(self, protocol: Any) -> None:
        self._fresh.pop(protocol, None)
        if protocol.transport is not None:
            protocol.transport.abort()

    async def close(self) -> None:
        """Stop listening, end every watch, let running requests finish. The store stays open."""
        for server in self._servers:
            server.close()
        self.hub.close()
        for handle in self._fresh.values():
            handle.cancel()
        self._fresh.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._thread.close()
        if self._audit_descriptor >= 0:
            os.close(self._audit_descriptor)
            self._audit_descriptor = -1

    # --- around every request ---------------------------------------------------------------------------------------

    @web.middleware
    async def _around(self, request: web.Request, handler: Any) -> web.StreamResponse:
        handle = self._fresh.pop(request.protocol, None)
        if handle is not None:
            handle.cancel()
        request_id, context = secrets.token_hex(8), begin()
        refusal: StatusError | None = None
        response: web.StreamResponse
        try:
            context.address = request.remote or ""
            context.reason = unquote(request.headers.get("Fairlead-Change-Cause", ""))
            context.confirm = request.headers.get("Fairlead-Confirm", "")
            context.force = request.headers.get("Fairlead-Force", "").lower() == "true"
            await self.door.enter(request, context)
            response = await metered(handler(request), context.charge)
            if is_large(response):
                name_ours(response, request_id)
                await self.door.hand_over(request, context, response)
        except (asyncio.CancelledError, ConnectionError):
            raise  # the client has gone; aiohttp knows
        except Exception as error:
            refusal = refusal_of(error)
            response = respond(request, refusal.body(), refusal.code, Form("application/json"))
            if refusal.retry_after_s:
                response.headers["Retry-After"] = str(refusal.retry_after_s)
            if refusal.code == 401:
                response.headers["WWW-Authenticate"] = 'Bearer realm="fairlead"'
            if isinstance(error, web.HTTPException) and error.headers.get("Allow"):
                response.headers["Allow"] = error.headers["Allow"]
        finally:
            self.door.leave(context)
        if not response.prepared:
            name_ours(response, request_id)
        counted = (request.method, response.status)
        self.counts[counted] = self.counts.get(counted, 0) + 1
        if request.method not in ("GET", "HEAD", "OPTIONS") or (refusal and refusal.code in (401, 403)):
            self._record(request, context, request_id, response.status, refusal)
        return response

    async def _aside(self, size: int, work: Callable[[], Made]) -> Made:
        """Work of the request that this task handles (`aside.Aside`)."""
        if size < ASIDE_BYTES:
            return work()
        context = current()
        check, context.check_work = context.check_work, lambda: None  # what has been begun is done
        return await self._thread.run(context.principal.name, work, check, context.charge)

    def _check_lockout(self, changing: Changing) -> None:
        if self.lockout is not None and not current().force:
            self.lockout.check({key: after for key, (_, after) in changing.items()}, current().address)

    def _together(self, changing: list[tuple[Key, Stored | None]]) -> list[Write]:
        context = current()
        if context.confirm:
            context.audit["confirmation"] = context.confirm
        return self.confirmations.writes(changing, context.confirm, context.principal, self._clock())

    def _as_carried(self, key: Key, body: dict[str, Any]) -> dict[str, Any]:
        resource = self.catalog.by_name[key.resource]
        return {"apiVersion": resource.api_version(), "kind": resource.kind, **body}

    def _told(self, **fields: Any) -> None:
        self._audit.record(self._clock(), **fields)

    def _record(
        self, request: web.Request, context: Context, request_id: str, code: int, refusal: StatusError | None
    ) -> None:
        if code == 204 and request.path.startswith(FEED):
            return  # as `Audit.record` has it, and before anything is gathered for it
        target, wanted = context.target, context.wanted or NOTHING
        self._audit.record(
            self._clock(),
            auditId=request_id,
            user=context.principal.name,
            groups=list(context.principal.groups),
            sourceIP=request.remote or "",
            userAgent=request.headers.get("User-Agent", "")[:200],
            verb=request.method.lower(),
            path=request.path,
            resource=target.resource.name if target else qualified(wanted.resource, wanted.group),
            namespace=target.namespace if target else wanted.namespace,
            name=(target.name if target else wanted.name) or context.name,
            subresource=target.subresource if target else wanted.subresource,
            access=wanted.verb,
            decision=context.decision,
            rule=context.rule,
            code=code,
            reason=refusal.reason if refusal else "",
            # A refusal may repeat a value, and a Secret's values stay out of every log.
            message=refusal.message if refusal and not (target and target.resource.name == "secrets") else "",
            **{"dryRun": "dryRun" in request.query, **context.audit},
        )

    def _open_audit(self) -> Callable[[bytes], None]:
        if not self.options.audit_file:
            log = logging.getLogger("fairlead.audit")
            return lambda line: log.info("%s", line[:-1].decode())
        self._audit_descriptor = os.open(
            self.options.audit_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        return self._write_audit

    def _write_audit(self, line: bytes) -> None:
        try:
            os.write(self._audit_descriptor, line)
        except OSError as error:
            logger.error("audit line not written (%s): %s", error, line.decode())

    # --- health -----------------------------------------------------------------------------------------------------

    def _own_routes(self) -> list[web.RouteDef]:
        return [
            web.get("/version", self._version),
            web.get("/version/", self._version),
            web.get("/livez", self._live),
            web.get("/healthz", self._live),
            web.get("/readyz", self._ready),
            web.get("/healthz/ready", self._ready),
        ]

    async def _version(self, request: web.Request) -> web.Response:
        major, minor = GIT_VERSION[1:].split(".")[:2]
        return respond(
            request,
            {"major": major, "minor": minor, "gitVersion": f"{GIT_VERSION}+fairlead-{self.options.version}",
             "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
             "compiler": "", "platform": ""},
        )  # fmt: skip

    async def _live(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _ready(self, request: web.Request) -> web.Response:
        wrong = {"store": await self.store.probe(), **{name: check() for name, check in self.checks.items()}}
        failed = [name for name, problem in wrong.items() if problem]
        if not failed and "verbose" not in request.query:
            return web.Response(text="ok")
        lines = [f"[-]{name} failed: {problem}" if problem else f"[+]{name} ok" for name, problem in wrong.items()]
        lines.append(f"readyz check {'failed' if failed else 'passed'}")
        return web.Response(text="\n".join(lines) + "\n", status=503 if failed else 200)


def create_app(store: Store, issuer: Issuer | None = None, options: Options | None = None) -> web.Application:
    """The API as an aiohttp application, for who brings a server of their own."""
    return ControlApi(store, issuer, options).app


def name_ours(response: web.StreamResponse, request_id: str) -> None:
    response.headers["Audit-Id"] = request_id
    response.headers["Server"] = "fairlead"


def item_key(key: Key) -> str:
    """`object/virtualservices.networking.istio.io/default/web`, as the feed calls it."""
    return f"object/{key.resource}/{key.namespace}/{key.name}"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
