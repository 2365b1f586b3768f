"""Shell: the aggregated discovery service (ADS) over gRPC, for Envoy and proxyless gRPC (extra `fairlead[xds]`).

A stream is a member of the feed as a sidecar's is: it stands in `fairlead status` with the version that it runs, its
mesh port is part of the registry, and a drain waits for it. Who it is, its certificate says: the node's id must name a
workload of that namespace and service account.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from ..policy.world import World
from .claims import Claim
from .feed_server import FeedServer, Member
from .protobuf_wire import WireError
from .status import StatusError
from .xds_gateway import parsed
from .xds_keys import FetchedKeys
from .xds_node import GRPC, Node, NodeError, peer_of, read_node
from .xds_revoked import RevokedAccounts
from .xds_served import SERVER, Served, declared
from .xds_session import LDS, Session, TooManyError
from .xds_wire import decode, encode

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # our children are made by spawning; its handlers only warn
try:
    import grpc
    import grpc.aio
except ImportError as missing:
    raise ImportError("grpcio is not installed: `pip install 'fairlead[xds]'`") from missing

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
REQUEST_MAX = 4 << 20
STREAMS_MAX = 20_000
STREAMS_OF_CONNECTION = 100
SERVERS_MAX = 1000
"""Server listeners that one application of gRPC may ask for."""
WAITING_MOST = 16
"""So many responses may wait for those before them to be written; then no more requests are read."""
PING_S = 10.0
"""After so long without a word a client is pinged, and is gone when it does not answer for as long."""
CLOSE_S = 0.5
STRANGER = "this workload is not of the service account that this client has a certificate of"
logger = logging.getLogger("fairlead.xds")
Authorize = Callable[[bytes | None, bool, str, str], str]
"""(client certificate in DER, came to the plain listener, namespace, workload) to the proved service account, empty
where none is; raises StatusError."""


class Client:
    """A node with what it is served, and its streams: gRPC opens one for each target, and one for its servers."""

    def __init__(self, node: Node, member: Member) -> None:
        self.node = node
        self.member = member
        self.served = Served(node)
        self.servers: frozenset[str] = frozenset()
        self.streams: dict[Session, asyncio.Event] = {}
        self.resources: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.building = asyncio.Lock()

    def heard(self, version: str) -> bool:
        """Take over what its streams run and refuse; whether it is something new."""
        member, sessions = self.member, list(self.streams)
        before = (member.taken, member.refused, member.reasons)
        reasons = list(dict.fromkeys(why for one in sessions for why in one.reasons))
        if reasons:
            member.refused = next(one.refused for one in sessions if one.reasons)
            member.reasons = self.served.blame(reasons)
        else:
            member.refused, member.reasons = "", []
            if sessions and all(one.taken == version for one in sessions):
                member.taken = version
        return before != (member.taken, member.refused, member.reasons)


class XdsServer:
    """`world()`: rules and facts of now, without Secrets; `item(key)`: an object of the feed's book by its key."""

    def __init__(
        self, feed: FeedServer, world: Callable[[], World], version: Callable[[], str], authorize: Authorize,
        item: Callable[[str], Mapping[str, Any] | None] = lambda _key: None,
    ) -> None:  # fmt: skip
        self._feed = feed
        self._world = world
        self._version = version
        self._authorize = authorize
        self._object = item
        self.not_told: Callable[[], list[str]] = list
        """What no client of xDS can be told."""
        ping_ms = int(PING_S * 1000)
        self.revoked: Callable[[], list[tuple[str, str]]] = list
        """Service accounts that are revoked, as (namespace, name)."""
        self._revoked = RevokedAccounts()
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", REQUEST_MAX),
                ("grpc.max_concurrent_streams", STREAMS_OF_CONNECTION),
                ("grpc.keepalive_time_ms", ping_ms),
                ("grpc.keepalive_timeout_ms", ping_ms),
                ("grpc.http2.max_pings_without_data", 0),  # 0: any number
                ("grpc.http2.ping_timeout_ms", ping_ms),
            ]
        )
        self._streams = 0
        handlers = {
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self._whole),
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._difference),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self._clients: dict[str, Client] = {}
        self._owners: dict[Session, Client] = {}
        self._plain_port = 0
        self._wake = feed.watch()
        self._keys = FetchedKeys(self._wake.set)

    def listen(self, host: str, port: int) -> int:
        """Without TLS, on loopback, for development. The port that it is. Raises OSError."""
        self._plain_port = self._bound(host, port, None)
        return self._plain_port

    def listen_tls(self, host: str, port: int, material: Callable[[], tuple[bytes, bytes, bytes]]) -> int:
        """With mutual TLS. `material()`: (key, chain, roots) of now, all PEM; asked at each handshake."""

        def configuration() -> Any:
            key, chain, roots = material()
            return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=roots)

        credentials = grpc.dynamic_ssl_server_credentials(configuration(), configuration, True)
        return self._bound(host, port, credentials)

    def _bound(self, host: str, port: int, credentials: Any) -> int:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            add = self._server.add_insecure_port
            bound = add(where) if credentials is None else self._server.add_secure_port(where, credentials)
        except RuntimeError as error:
            raise OSError(f"xDS cannot listen on {where}: {error}") from error
        if not bound:
            raise OSError(f"xDS cannot listen on {where}")
        return int(bound)

    async def start(self) -> None:
        await self._server.start()

    async def close(self) -> None:
        await self._server.stop(CLOSE_S)
        await self._keys.close()

    async def run(self) -> None:
        """Push what changes, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for client in list(self._clients.values()):
                try:
                    await self._refresh(client)
                except Exception:  # it keeps what it has, and the others get what is theirs
                    logger.exception("%s is not served what is new: its resources could not be made", client.node.key)

    async def _refresh(self, client: Client) -> None:
        """Make what it is served of rules and facts of now, in a thread: a first time takes a second where there are a
        thousand services, and others must not wait for it."""
        async with client.building:
            world, version = self._world(), self._version()
            if self._feed.stranger(client.member):
                self._cut(client, STRANGER)
                return
            self._want_keys(world)
            build, node = client.served.build, client.node
            rules = self._revoked.added(world.resources, self.revoked())
            secrets = parsed(map(self._object, self._feed.secrets_of(declared(node)))) if node.gateway else {}
            client.resources = await asyncio.to_thread(
                build, rules, world.snapshot, version, client.servers, self._keys, secrets
            )
        client.member.offered = version
        client.member.not_carried_out = [*client.served.notes, *self.not_told()]
        for session, wake in list(client.streams.items()):
            session.update(version, client.resources)
            wake.set()
        self._tell(client)

    def look_again(self) -> None:
        """End the streams of who would not be let in any more."""
        for client in list(self._clients.values()):
            for session, wake in list(client.streams.items()):
                try:
                    shown = session.certificate
                    self._authorize(shown, shown is None, client.node.namespace, client.node.workload)
                except StatusError as error:
                    logger.warning("%s is cut off: %s", client.node.key, error)
                    self._end(session, wake, str(error))

    def _want_keys(self, world: World) -> None:
        resources = world.resources
        self._keys.update(resources.request_authentications, resources.mesh.spec.jwks_blocked_networks)

    def _cut(self, client: Client, why: str) -> None:
        for session, wake in list(client.streams.items()):
            self._end(session, wake, why)

    def _end(self, session: Session, wake: asyncio.Event, why: str) -> None:
        """It is nobody's from now on, also where it does not read what is being written to it."""
        session.cut = why
        wake.set()
        self._gone(session)

    def _tell(self, client: Client) -> None:
        reasons = client.member.reasons
        if client.heard(client.member.offered):
            client.member.confirmed_at = time.time()
            if client.member.reasons and client.member.reasons != reasons:
                told = "; ".join(client.member.reasons)
                logger.error("%s refused version %s: %s", client.node.key, client.member.refused, told)
            self._feed.heard()

    # --- streams ------------------------------------------------------------------------------------------------------

    async def _whole(self, requests: AsyncIterator[bytes], context: Any) -> None:
        await self._stream(requests, context, Session(), "Discovery")

    async def _difference(self, requests: AsyncIterator[bytes], context: Any) -> None:
        await self._stream(requests, context, Session(True), "DeltaDiscovery")

    async def _stream(self, requests: AsyncIterator[bytes], context: Any, session: Session, kind: str) -> None:
        if self._streams >= STREAMS_MAX:
            why = f"this control plane has {STREAMS_MAX} streams of xDS already"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why)
        self._streams += 1
        try:
            await self._serve(requests, context, session, kind)
        finally:
            self._streams -= 1
            self._gone(session)

    async def _serve(self, requests: AsyncIterator[bytes], context: Any, session: Session, kind: str) -> None:
        wake, room = asyncio.Event(), asyncio.Event()
        reading = asyncio.ensure_future(self._read(requests, context, session, wake, room, kind))
        reading.add_done_callback(lambda _: wake.set())
        try:
            while not reading.done() and not session.cut:
                await wake.wait()
                wake.clear()
                while not session.cut and (responses := session.take()):
                    room.set()
                    for response in responses:
                        if session.cut:  # while the one before was being read
                            break
                        await context.write(encode(f"service.discovery.v3.{kind}Response", response))
                if (client := self._owners.get(session)) is not None:
                    self._tell(client)  # what came while it was reading may have been nothing new to it
            if session.cut:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, session.cut)
            error = reading.exception() if not reading.cancelled() else None
            if isinstance(error, (NodeError, WireError, TooManyError)):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            elif isinstance(error, StatusError):
                code = grpc.StatusCode.UNAUTHENTICATED if error.code == 401 else grpc.StatusCode.PERMISSION_DENIED
                await context.abort(code, str(error))
            elif error is not None and not isinstance(error, (asyncio.CancelledError, grpc.aio.UsageError)):
                logger.error("a stream of xDS ended", exc_info=error)
                await context.abort(grpc.StatusCode.INTERNAL, "see the log of control")
        finally:
            reading.cancel()

    async def _read(
        self, requests: AsyncIterator[bytes], context: Any, session: Session, wake: asyncio.Event, room: asyncio.Event,
        kind: str,
    ) -> None:  # fmt: skip
        client: Client | None = None
        async for octets in requests:
            message = decode(f"service.discovery.v3.{kind}Request", octets)
            if client is None:
                client = await self._connected(message, context, session, wake)
            wanted = [*(message.get("resource_names") or ()), *(message.get("resource_names_subscribe") or ())]
            servers = {one for one in wanted if message.get("type_url") == LDS and one.startswith(SERVER)}
            if client.node.kind == GRPC and servers - client.servers:
                if len(client.servers | servers) > SERVERS_MAX:
                    raise TooManyError(f"{client.node.key} asks for more than {SERVERS_MAX} servers")
                client.servers |= servers
                await self._refresh(client)
            session.request(message)
            self._tell(client)
            wake.set()
            while session.waiting >= WAITING_MOST:
                room.clear()
                await room.wait()

    async def _connected(self, message: dict[str, Any], context: Any, session: Session, wake: asyncio.Event) -> Client:
        """The client of a stream's first request. Raises NodeError, StatusError."""
        node = read_node(message.get("node") or {})
        shown = context.auth_context().get("x509_pem_cert")
        session.certificate = certificate = ssl.PEM_cert_to_DER_cert(shown[0].decode()) if shown else None
        account = self._authorize(certificate, certificate is None, node.namespace, node.workload)
        proved = account if certificate is not None else ""
        if node.kind != GRPC:
            self._want_keys(self._world())
            await self._keys.first()  # what it has of an earlier control plane serves until then
        key = repr(node)
        client = self._clients.get(key)
        if client is not None and client.member.proved != proved:
            self._cut(client, STRANGER)
            client = None
        if client is None:
            member = Member(
                "gateway" if node.gateway else "sidecar", node.namespace, node.workload, node.address, node.mesh_port,
                account, node.labels, list(node.ports), time.time(), proxy=node.kind,
            )  # fmt: skip
            member.proved = proved
            member.claimed = Claim(node.labels, node.address, node.group, peer_of(context.peer()))
            self._feed.vouch(member)
            client = self._clients[key] = Client(node, member)
            name = f"{member.role}/{node.key}"
            self._feed.members[name] = member
            logger.info("%s connected as %s (mesh port %s)", name, node.kind, node.mesh_port or "none")
            self._feed.moved()
        client.streams[session] = wake
        self._owners[session] = client
        self._authorize(certificate, certificate is None, node.namespace, node.workload)  # it may be revoked meanwhile
        await self._refresh(client)
        return client

    def _gone(self, session: Session) -> None:
        client = self._owners.pop(session, None)
        if client is None:
            return
        del client.streams[session]
        key = repr(client.node)
        if client.streams or self._clients.get(key) is not client:
            return
        del self._clients[key]
        name = f"{client.member.role}/{client.node.key}"
        if self._feed.members.get(name) is client.member:
            del self._feed.members[name]
            others = [one.member for one in self._clients.values() if one.node.key == client.node.key]
            if others:  # an application that speaks gRPC beside its Envoy, or its predecessor
                self._feed.members[name] = others[-1]
            logger.info("%s disconnected", name)
            self._feed.heard()
            self._feed.moved()
