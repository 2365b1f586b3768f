"""Shell: the data path as one object: listeners, pools, tables and how they are swapped, draining.

Cores call back into it for clock, draws, identifiers, timers and pools; mesh/ makes one for each sidecar or gateway.
Long because it is the one place where everything that runs is known.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from ..policy.decide import admit, decide, egress_verdict, hash_input, inbound_port, pick
from ..policy.path_normalization import normalize_path
from ..policy.rate_limits import Limit
from ..policy.tables import (
    Arrival,
    Cluster,
    ClusterEndpoint,
    Destination,
    Mirror,
    PoolLimits,
    Tables,
    UpstreamTLS,
    Verdict,
)
from ..registry.model import Endpoint
from ..registry.reasons import DRAINING, DURATION, IDLE, OVERFLOW, RATE, Reason
from . import accept, accept_inbound
from .arrive import address_of
from .cluster import ACTIVE, LiveCluster
from .core import Core, Rules
from .dial import ClientContext, Dialer, VerifyPeer
from .headers import own_response
from .host import Host
from .limits import Members, Settings
from .message import Outcome, RequestHead
from .mirror import Mirror as MirrorCopy
from .outbox import Outbox
from .plaintext import Ledger
from .poller import Listener, Poller, poller_of
from .pool import Pool
from .proxy_protocol import Network, proxy_header
from .rate_limit import Cell, Limiter
from .sockets import Sockets
from .tcp import Session
from .upstream import Upstream
from .wire import Wire
from .withdraw import withdraw

if TYPE_CHECKING:
    from .accept_gateway import ClientOf, GatewayListener, ServerContext
    from .notes import Notes

TICK_S = 1.0
DRAIN_LOOK_S = 0.1
"""How often a drain looks for who is idle."""

ENDPOINTS_S = 5.0
"""Longest wait for endpoints that control has been asked for."""


class Observer(Protocol):
    def done(self, outcome: Outcome) -> None:
        """An exchange or a relay has ended."""
        ...


def policy_rules() -> Rules:
    return Rules(decide, admit, pick, hash_input, normalize_path, inbound_port, egress_verdict)


class Nobody:
    """Observes nothing."""

    def done(self, outcome: Outcome) -> None: ...


def no_context(_tls: UpstreamTLS) -> ssl.SSLContext | None:
    return None


def no_verification(_transport: Any, _tls: UpstreamTLS) -> str | None:
    return "nothing to verify it with"


class Engine(Core):
    """`observer.done(outcome)` is called once for each exchange and relay."""

    def __init__(
        self,
        tables: Tables,
        *,
        client_context: ClientContext = no_context,
        verify_peer: VerifyPeer = no_verification,
        observer: Observer | None = None,
        settings: Settings | None = None,
        rules: Rules | None = None,
    ) -> None:
        rules = rules or policy_rules()
        observe = (observer or Nobody()).done
        super().__init__(tables, settings or Settings(), time.monotonic, random.random, os.urandom, rules, observe)
        self.monotonic = True
        self.admit = rules.admit
        self._normalize = rules.normalize
        self.inbound_port = rules.inbound_port
        self.egress_verdict = rules.egress_verdict
        self.sockets = Sockets()
        """Where listening sockets come from."""
        self.share: Callable[[LiveCluster], None] | None = None
        """Where there are several workers: sets `shared` of a cluster by its limits."""
        self.outside: dict[str, Pool] = {}
        """Passthrough destinations by `address:port`."""
        self.sources: dict[str, int] = {}
        """Clients' connections by source address."""
        self.connections = Members(self.sources)
        """Clients' HTTP connections (Downstream, Downstream2)."""
        self.sessions = Members(self.sources)
        self.relays: set[Any] = set()
        self.entries = Members(self.sources)
        """Connections that have not shown their protocol yet."""
        self.mirrors = 0
        self.refused_connections = dict.fromkeys(
            ("max-connections", "max-connections-per-source", "buffered", "proxy-protocol"), 0
        )
        """By the limit (limits.py) for which they were closed."""
        self.cut_off = 0
        """Connections cut off because they held too much."""
        self.overfull = False
        """More is held in all than the limit `buffered` allows: nobody else may come in."""
        self.missing: Callable[[str], bool] | None = None
        """Whether the endpoints of a service (its host) are not known here and have been asked for now; None: all are
        known."""
        self._awaiting: dict[str, list[Callable[[], None]]] = {}
        """By host, who is to be told when they come."""
        self._dialer = Dialer(client_context, verify_peer, self._may_leave)
        self._listeners: list[Listener] = []
        self._inbounds: list[accept_inbound.Inbound | GatewayListener] = []
        self._own: set[tuple[str, int]] = set()
        self._date_at = 0
        self._date = b""
        self.outbox = Outbox(lambda callback: asyncio.get_running_loop().call_soon(callback))
        self.cut: list[str] = []
        """What the end of a drain cut off, in words."""
        self._tick: asyncio.TimerHandle | None = None
        self._drain_tick: asyncio.TimerHandle | None = None
        self._idle_s = 0.0
        self._served_only = False
        self._silent_since: dict[int, float] = {}
        """By id: when those who have not said anything were first seen in a drain."""
        self._empty: asyncio.Event | None = None
        self._normalization = ""
        self.notes: Notes | None = None
        """What is counted for policies that are only tried out; None: there were none so far."""
        self.plaintext = Ledger()
        """Who comes to the app without mutual TLS."""
        self._ending: list[asyncio.Task[None]] = []
        self._cell_of: Callable[[Limit], Cell | None] = lambda _limit: None
        self._take_tables(tables)

    # --- what cores ask for

    def later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(max(delay_s, 0.0), callback)

    def soon(self, callback: Callable[[], None]) -> asyncio.Handle:
        """After what this turn of the loop has read."""
        return asyncio.get_running_loop().call_soon(callback)

    def date_line(self) -> bytes:
        """`Date` of now, made once a second (RFC 9110 sections 5.6.7 and 6.6.1)."""
        now = int(time.time())
        if now != self._date_at:
            self._date_at = now
            self._date = b"date: " + http_date(now) + b"\r\n"
        return self._date

    def place(self) -> tuple[float, str]:
        """Wall minus monotonic clock in seconds, and this machine's name."""
        return time.time() - self.clock(), socket.gethostname()

    def normalize(self, path: str) -> str:
        return self._normalize(path, self._normalization)

    def new_pool(self, tables: Tables, name: str) -> Pool | None:
        config = tables.clusters.get(name)
        if config is None:
            return None
        found = Pool(LiveCluster(config, self.clock()), self._connect)
        if tables is self.tables:
            self.pools[name] = found
            if self.share is not None:
                self.share(found.live)
        else:
            found.retired = True  # only exchanges that began before a swap still use it
        return found

    def passthrough(self, arrival: Arrival, authority: str) -> Pool | str | Verdict:
        """The pool of a destination outside the registry; or why it may not be reached."""
        if arrival.destination_ip:
            address, port = arrival.destination_ip, arrival.port
        else:
            address, port = _split(authority, arrival.port or 80)
        if not address:
            return "The request names no destination."
        if self.is_own((address, port)):
            return f"{address}:{port} is this proxy itself."
        key = f"{address}:{port}"
        verdict = self.egress_verdict(self.tables, address, port) if _is_address(address) else None
        if verdict is not None and not verdict.allowed:
            return verdict
        found = self.outside.get(key)
        if found is None:
            if len(self.outside) >= self.settings.max_passthrough:
                self._forget_outside()
            endpoint = ClusterEndpoint(address, port, Endpoint(address=address, port=port, source="passthrough"))
            config = Cluster(
                "PassthroughCluster",
                address,
                port,
                "",
                (endpoint,),
                limits=PoolLimits(connect_timeout_s=self.tables.mesh.spec.connect_timeout, idle_timeout_s=60.0),
            )
            found = Pool(LiveCluster(config, self.clock()), self._connect)
            self.outside[key] = found
        return found

    def _may_leave(self, endpoint: ClusterEndpoint, address: str) -> str | None:
        """Egress policy for an endpoint whose name turned out to be `address`; None: it may be used."""
        if _is_address(endpoint.address) or endpoint.egress is not None:
            return None
        verdict = self.egress_verdict(self.tables, address, endpoint.port)
        return None if verdict is None or verdict.allowed else verdict.why or verdict.by

    def awaits(self, live: LiveCluster, told: Callable[[], None]) -> bool:
        host = live.config.host
        if self.missing is None or live.hosts or not self.missing(host):
            return False
        waiting = self._awaiting.get(host)
        if waiting is None:
            waiting = self._awaiting[host] = []
            self.later(ENDPOINTS_S, lambda: self._told(host, waiting))
        waiting.append(told)
        return True

    def _told(self, host: str, waiting: list[Callable[[], None]]) -> None:
        """Let those go on who wait for this host."""
        if self._awaiting.get(host) is waiting:
            del self._awaiting[host]
            for told in waiting:
                told()

    def mirror(self, exchange: Any, mirror: Mirror) -> None:
        """Send a copy of this exchange's request, if there is room for it."""
        pool = self.pool(exchange.tables, mirror.cluster)
        if pool is None or self.mirrors >= self.settings.max_mirrors:
            return
        host = pool.live.choose(None, self.draw, ())
        if host is None and self.missing is not None:
            self.missing(pool.live.config.host)  # for the next; nobody waits for a copy
        if host is None or (host.endpoint.egress is not None and not host.endpoint.egress.allowed):
            return
        limits = pool.live.config.limits
        if limits.max_requests and pool.live.active + pool.live.elsewhere(ACTIVE) >= limits.max_requests:
            return
        destination = exchange.destination or Destination(mirror.cluster, mirror.host, mirror.port)
        MirrorCopy(self, pool, host, exchange, destination).start()

    def dial(
        self,
        endpoint: ClusterEndpoint,
        limits: PoolLimits,
        protocol: Any,
        connected: Callable[[], None],
        failed: Callable[[str], None],
        header: bytes = b"",
    ) -> Any:
        """See Dialer.dial."""
        return self._dialer.dial(
            endpoint, limits, lambda _: protocol, lambda _: connected(), failed, header, tunnel=limits.tunnel
        )

    def _connect(self, pool: Pool, host: Host, two: bool) -> None:
        """`two`: by HTTP/2, without TLS by prior knowledge, else where the endpoint agrees."""

        def choose(transport: Any) -> Any:
            wire = transport.get_extra_info("ssl_object")
            if two and (wire is None or wire.selected_alpn_protocol() == "h2"):
                from .upstream2 import Connection2  # a megabyte, for those who speak it

                return Connection2(pool, host, self.clock, self.outbox)
            upstream = Upstream(pool, host, self.clock, self.outbox)
            upstream.asked_two = two
            return upstream

        limits = pool.live.config.limits
        header = b""
        if limits.proxy_protocol:  # shared by clients, so the proxy's own; X-Forwarded-For tells whose a request is
            header = proxy_header(limits, host.endpoint, None, None)
        self._dialer.dial(
            host.endpoint,
            limits,
            choose,
            lambda upstream: upstream.ready(),
            lambda why: pool.failed(host, why, two),
            header,
            two,
        )

    def serve_two(self, arrival: Arrival, transport: Any, first: bytes) -> None:
        """A client's connection that turned out to be HTTP/2; `first`: what it said so far."""
        from .connection2 import Downstream2  # as above

        downstream = Downstream2(self, arrival)
        transport.set_protocol(downstream)
        downstream.connection_made(transport)
        downstream.data_received(first)

    def connect_tunnel(self, downstream: Any, head: RequestHead) -> None:
        """CONNECT: the client's connection becomes a relay to what the target names."""
        address, port = _split(head.authority, 0)
        came = downstream.arrival
        arrival = Arrival(
            came.listener, source_ip=came.source_ip, source_port=came.source_port, host=address.lower(), port=port
        )
        transport = downstream.transport
        downstream.detach()

        def refuse(reason: Reason, why: str) -> None:
            transport.write(
                own_response(reason.status or 503, why.encode() + b"\n", True, reason.code, self.date_line())
            )
            transport.close()

        session = Session(self, arrival, transport, refuse, b"HTTP/1.1 200 Connection established\r\n\r\n")
        session.outcome.authority = head.authority
        session.start()

    def client_closed(self, downstream: Any) -> None:
        self._check_empty()

    def room(self, listener: str, peer: Any, counted: bool = False) -> bool:
        """Whether one more client, whose socket name is `peer`, may come in; if not, the observer hears why.

        `counted`: it is among the connections already, only its source was not looked at.
        """
        settings = self.settings
        most = settings.max_connections
        each = settings.max_connections_per_source
        have = len(self.connections) + len(self.sessions) + len(self.entries)
        for inbound in self._inbounds:
            have += len(inbound.peeks) + len(inbound.shaking)
        source, port = address_of(peer) if each else ("", 0)
        if most and have >= most and not counted:
            limit, why = "max-connections", f"{have} client connections are open; the limit is {most}."
        elif each and self.sources.get(source, 0) >= each:
            limit = "max-connections-per-source"
            why = f"{self.sources[source]} connections from {source} are open; the limit is {each}."
        elif self.overfull:
            limit, why = (
                "buffered",
                f"{self.buffered()} octets are held in all; the limit is {settings.buffered_bytes}.",
            )
        else:
            return True
        self.refused_connections[limit] += 1
        source, port = address_of(peer)
        self._observe_refusal(Arrival(listener, source_ip=source, source_port=port), why)
        return False

    def over_limit(self, arrival: Arrival) -> bool:
        """Whether a local rate limit closes this new connection, which is counted; the observer then hears why."""
        limiter = self.limiter
        if limiter is None:
            return False
        now = self.clock()
        refusing = limiter.connection(arrival.listener, arrival, now, self.draw)
        if refusing is None:
            return False
        self._observe_refusal(arrival, refusing.why(arrival, now), RATE)
        return True

    def _observe_refusal(self, arrival: Arrival, why: str, reason: Reason = OVERFLOW) -> None:
        outcome = Outcome()
        outcome.kind = "tcp"
        outcome.arrival = arrival
        outcome.reason, outcome.flag, outcome.why = reason.code, reason.flag, why
        outcome.started_at = outcome.ended_at = self.clock()
        self.observe(outcome)

    def running(self) -> Iterable[tuple[Outcome, int, int]]:
        """Connected TCP clients: outcome to be, octets received from the client and sent to it so far."""
        return [
            (session.outcome, session.relay.client.count, session.relay.server.count)
            for session in self.sessions
            if session.relay_running
        ]

    def note_plaintext(self) -> None:
        """Tell the ledger of connections without mutual TLS that live."""
        came = [one.arrival for one in (*self.connections, *self.sessions)]
        self.plaintext.lives([(a.source_ip, a.port) for a in came if is_plain(a)], self.clock())

    def buffered(self) -> int:
        """Octets held for clients and endpoints in all."""
        held: int = sum(connection.buffered() for connection in self.connections)
        return held + sum(map(_held, self.sessions))

    def bound_buffers(self) -> None:
        """Cut off what holds too much, by itself or, the largest first, in all."""
        settings = self.settings
        total = sum(map(_held, self.sessions))
        holding = []
        for connection in list(self.connections):
            held = connection.buffered()
            if settings.buffer_bytes and held > (own := settings.buffer_bytes * connection.shares()):
                self.cut_off += 1
                connection.cut_off(OVERFLOW, f"{held} octets were held for this connection; the limit is {own}.")
            elif held:
                holding.append((held, connection))
                total += held
        most = settings.buffered_bytes
        self.overfull = bool(most) and total > most
        if not self.overfull:
            return
        for held, connection in sorted(holding, key=lambda pair: pair[0], reverse=True):
            if total <= most:
                break
            self.cut_off += 1
            connection.cut_off(
                OVERFLOW, f"{total} octets are held in all, {held} of them for this connection; the limit is {most}."
            )
            total -= held

    def is_own(self, destination: tuple[str, int]) -> bool:
        """Whether this address is one that this engine listens on."""
        address, port = destination
        for own, own_port in self._own:
            if port == own_port and (
                address == own
                or (
                    own in ("0.0.0.0", "::")
                    and (address == "localhost" or address.startswith("127.") or address == "::1")
                )
                or (address == "localhost" and own.startswith("127."))
            ):
                return True
        return False

    # --- tables

    def swap(self, tables: Tables) -> None:
        """From now on decide by these tables. What runs goes on, unless its permission was withdrawn."""
        now = self.clock()
        self.tables = tables
        self._take_tables(tables)
        for name, pool in list(self.pools.items()):
            config = tables.clusters.get(name)
            if config is None:
                del self.pools[name]
                pool.retire()
                continue
            pool.drop_idle(pool.live.update(config, now))
            if self.share is not None:
                self.share(pool.live)
        withdraw(self, tables)
        for host in [host for host in self._awaiting if host in tables.snapshot.endpoints]:
            self._told(host, self._awaiting[host])

    def _take_tables(self, tables: Tables) -> None:
        mesh = tables.mesh.spec
        self._normalization = mesh.path_normalization.normalization
        workload = tables.viewpoint.workload
        self.own_identity = f"spiffe://{mesh.trust_domain}/ns/{workload.namespace}/sa/{workload.service_account}"
        self._take_limits(tables)
        self._take_tokens(tables)
        if self.notes is None and getattr(tables.inbound, "shadow", None) is not None:
            from .notes import Notes  # for those who try policies out

            self.notes = Notes(self.observe, self.running)
            self.observe = self.notes.done
        if self.notes is not None:
            self.notes.tables = tables

    def _take_tokens(self, tables: Tables) -> None:
        """Which tokens of end users are taken: what proves them is imported and kept where somebody asks for them."""
        rules = getattr(tables.inbound, "tokens", None)
        if rules is None:
            if self.tokens is not None:
                self._ending.append(asyncio.get_running_loop().create_task(self.tokens.close()))
                self.tokens = None
            return
        if self.tokens is None:
            from .token_check import TokenCheck  # ten megabytes with cryptography, for those who need it

            self.tokens = TokenCheck()
        self.tokens.update(rules, tables.mesh.spec.jwks_blocked_networks)

    def share_limits(self, cell_of: Callable[[Limit], Cell | None]) -> None:
        """From now on limits for the proxy as a whole count where `cell_of` says, together with other workers."""
        self._cell_of = cell_of
        self.limiter = None
        self._take_limits(self.tables)

    def _take_limits(self, tables: Tables) -> None:
        rules = tables.rate_limits
        if rules is None:
            self.limiter = None
            return
        if self.limiter is None:
            self.limiter = Limiter(self._cell_of)
        self.limiter.update(rules)

    # --- listeners

    async def listen_outbound(
        self, host: str, port: int, *, trusted: tuple[Network, ...] = (), name: str = "outbound"
    ) -> int:
        """Way 2, by Host, and HTTP_PROXY. Returns the port; so do the others.

        `trusted`: peers that must say by the PROXY protocol for whom they come; `name`: as Sockets knows the listener;
        so in the others, too.
        """
        return await self._listen(host, port, accept.arrive_by_host, trusted, name)

    async def listen_named(
        self,
        host: str,
        port: int,
        service_host: str,
        service_port: int,
        *,
        trusted: tuple[Network, ...] = (),
        name: str = "named",
    ) -> int:
        """Ways 1 and 3: `host:port` stands for one port of one service."""
        return await self._listen(host, port, accept.arrive_named(self, service_host, service_port), trusted, name)

    async def listen_original(
        self,
        host: str,
        port: int,
        find: Callable[[Any], tuple[str, int] | None] = accept.original_destination,
        *,
        trusted: tuple[Network, ...] = (),
        name: str = "redirect",
    ) -> int:
        """Way 4: outbound connections that the packet filter redirects."""
        return await self._listen(host, port, accept.arrive_redirected(self, find), trusted, name)

    async def listen_inbound(
        self,
        host: str,
        port: int,
        server_context: Callable[[], ssl.SSLContext | None],
        identity_of: Callable[[Any], str],
        *,
        find: Callable[[Any], tuple[str, int] | None] | None = None,
        trusted: tuple[Network, ...] = (),
        name: str = "inbound",
    ) -> int:
        """Mutual TLS from other sidecars, and plaintext for policy to judge. `find`: as listen_original's."""
        poller = self._poller()
        socks = await self.sockets.listening(host, port, name)
        for sock in socks:
            inbound = accept_inbound.Inbound(self, poller, sock, server_context, identity_of, find, trusted)
            self._inbounds.append(inbound)
        return self._listens(host, socks)

    async def listen_gateway(
        self,
        host: str,
        port: int,
        number: int,
        server_context: ServerContext,
        client_of: ClientOf,
        *,
        trusted: tuple[Network, ...] = (),
    ) -> int:
        """A port of a gateway's servers; `number`: as Gateways have it. Which servers, the tables of the moment say."""
        from .accept_gateway import GatewayListener  # for gateways

        poller = self._poller()
        socks = await self.sockets.listening(host, port, f"gateway:{number}")
        for sock in socks:
            made = GatewayListener(self, poller, sock, number, server_context, client_of, trusted)
            self._inbounds.append(made)
        return self._listens(host, socks)

    async def _listen(
        self, host: str, port: int, arrive: Callable[[Any], Any], trusted: tuple[Network, ...], name: str
    ) -> int:
        poller = self._poller()
        socks = await self.sockets.listening(host, port, name)

        def accepted(sock: socket.socket, peer: Any) -> None:
            wire = Wire(poller, sock, accept.Entry(self, arrive, trusted=trusted))
            wire.know("peername", peer)
            wire.begin()

        self._listeners += [Listener(poller, sock, accepted) for sock in socks]
        return self._listens(host, socks)

    def _poller(self) -> Poller:
        poller = poller_of(asyncio.get_running_loop())
        self.outbox.soon = poller.soon
        return poller

    def _listens(self, host: str, socks: list[socket.socket]) -> int:
        bound: int = socks[0].getsockname()[1]
        self._own.add((host, bound))
        self._start_ticking()
        return bound

    async def unlisten(self, host: str, port: int) -> None:
        """Stop accepting on this address; connections stay."""
        for listener in list(self._listeners):
            if listener.sock.fileno() >= 0 and listener.sock.getsockname()[:2] == (host, port):
                self._listeners.remove(listener)
                listener.close()
        for inbound in list(self._inbounds):
            sock = inbound.listener.sock
            if not inbound.of_gateway or sock.fileno() < 0:
                continue
            own, bound = sock.getsockname()[:2]
            if bound == port and (not host or own == host):
                inbound.stop()  # its handshakes under way go on
        self._own.discard((host, port))

    # --- time and end

    def _start_ticking(self) -> None:
        if self._tick is None:
            self._tick = asyncio.get_running_loop().call_later(TICK_S, self._ticked)

    def _ticked(self) -> None:
        self._tick = asyncio.get_running_loop().call_later(TICK_S, self._ticked)
        now = self.clock()
        for pool in list(self.pools.values()):
            pool.live.sweep(now)
            pool.sweep(now)
        for key, pool in list(self.outside.items()):
            pool.sweep(now)
            if not pool.live.connections and not pool.live.active:
                del self.outside[key]
        self.bound_buffers()
        longest = self.settings.relay_idle_timeout_s
        for relay in list(self.relays):
            if relay.sweep(now, longest):
                idle_s = relay.idle_s if relay.idle_s >= 0 else longest
                relay.abort(IDLE, f"Nothing went through for {idle_s:g} s.")
            elif relay.ends_at and relay.ends_at <= now:
                relay.abort(DURATION, f"It was open for maxConnectionDuration {relay.lasts_s:g} s.")
        self._check_empty()

    def _forget_outside(self) -> None:
        for key, pool in list(self.outside.items()):
            if not pool.live.active:
                del self.outside[key]
                pool.retire()

    def say_farewell(self) -> None:
        """Responses from now on say that their connection ends; connections are still accepted."""
        self.draining = True

    def begin_drain(self, idle_s: float = 0.0, served_only: bool = False) -> None:
        """Accept no more, close what has been idle for `idle_s`; responses from now on say that the connection ends.

        `served_only`: all this for those who come to our app, not for the app's own calls.
        """
        self.draining = True
        self._served_only = served_only
        self._idle_s = idle_s
        for inbound in self._inbounds:
            inbound.listener.accept_rest()
            inbound.stop()
        if not served_only:
            for listener in self._listeners:
                listener.accept_rest()
                listener.close()
        if self._drain_tick is not None:
            self._drain_tick.cancel()
        self._close_idle()

    def _close_idle(self) -> None:
        """Let go who is idle for long enough; again and again, until nothing runs."""
        now = self.clock()
        idle_s, served_only = self._idle_s, self._served_only
        self._drain_tick = self.later(DRAIN_LOOK_S, self._close_idle) if idle_s else None
        for downstream in list(self.connections):
            if served_only and downstream.arrival.listener == "outbound":
                continue
            if idle_s:
                downstream.drain(now - idle_s)
            else:
                downstream.drain()
        silent = [(peek, peek.drop) for inbound in self._inbounds for peek in inbound.peeks if peek.low_water == 1]
        for entry in self.entries:
            if not entry.first and not (served_only and entry.listener == "outbound"):
                silent.append((entry, entry.transport.abort))
        for one, end in silent:
            if now >= self._silent_since.setdefault(id(one), now) + idle_s:
                end()
        self._check_empty()

    def busy(self, served_only: bool = False) -> int:
        """Client connections that still have something running; `served_only`: of those who come to our app."""
        shaking: int = sum(len(inbound.peeks) + len(inbound.shaking) for inbound in self._inbounds)
        if not served_only:
            have: int = len(self.connections) + len(self.sessions) + len(self.entries) + shaking
            return have
        kept = [one.arrival.listener for many in (self.connections, self.sessions) for one in many]
        kept += [one.listener for one in self.entries]
        return shaking + len([listener for listener in kept if listener != "outbound"])

    async def drained(self, deadline_s: float, served_only: bool = False) -> bool:
        """Wait until nothing runs; after `deadline_s` seconds the answer is False, and what still does is cut off and
        named in `cut`, unless others go on (`served_only`)."""
        self._empty = asyncio.Event()
        self._served_only = served_only
        self._check_empty()
        try:
            async with asyncio.timeout(deadline_s):
                await self._empty.wait()
        except TimeoutError:
            if not served_only:
                self.cut = self.running_named()
                self._cut_off()
            return False
        finally:
            if not served_only and self._drain_tick is not None:
                self._drain_tick.cancel()
                self._drain_tick = None
        return True

    def _check_empty(self) -> None:
        if self._empty is not None and not self.busy(self._served_only):
            self._empty.set()

    def running_named(self) -> list[str]:
        """What runs, each in a few words, for people."""
        named = []
        for downstream in self.connections:
            whose = f"from {downstream.arrival.source_ip or 'a client'}"
            exchanges = downstream.running()
            for exchange in exchanges:
                head = exchange.head
                named.append(f"{head.method} {head.authority}{head.path.partition('?')[0]} {whose}")
            if not exchanges:
                upgraded = getattr(downstream, "relay", None) is not None
                named.append(f"{'an upgraded connection' if upgraded else 'a connection without a request'} {whose}")
        for session in self.sessions:
            outcome, arrival = session.outcome, session.arrival
            where = outcome.authority or arrival.host or f"port {arrival.port}"
            named.append(f"TCP to {where} from {arrival.source_ip or 'a client'}")
        rest = self.busy() - len(self.connections) - len(self.sessions)
        return named + ["a connection that has not said anything yet"] * rest

    def _cut_off(self) -> None:
        for downstream in list(self.connections):
            for exchange in downstream.running():
                exchange.client_lost(DRAINING, "The proxy is shutting down.")
            downstream.abort()
        for session in list(self.sessions):
            session.relay.abort(DRAINING, "The proxy is shutting down.")
        for relay in list(self.relays):
            relay.abort(DRAINING, "The proxy is shutting down.")
        for entry in list(self.entries):
            entry.transport.abort()

    async def close(self) -> None:
        """Close everything at once. Idempotent."""
        if not self.draining:
            self.begin_drain()
        for timer in (self._tick, self._drain_tick):
            if timer is not None:
                timer.cancel()
        self._tick = self._drain_tick = None
        self._cut_off()
        for inbound in self._inbounds:
            inbound.close()
        self._dialer.close()
        if self.tokens is not None:
            await self.tokens.close()
        await asyncio.gather(*self._ending)
        for pool in _all_pools(self.pools.values(), self.outside.values()):
            pool.retire()
        for _ in range(100):  # let transports tell their protocols
            if not self.busy():
                break
            await asyncio.sleep(0)
        self._poller().close_if_idle()


def is_plain(arrival: Arrival) -> bool:
    """Whether STRICT would refuse it."""
    return arrival.listener == "inbound" and not (arrival.tls and arrival.identity)


def _all_pools(*many: Iterable[Pool]) -> Iterable[Pool]:
    for pools in many:
        yield from pools


def http_date(unix: int) -> bytes:
    """Seconds since 1970 as an IMF-fixdate (RFC 9110 section 5.6.7), whatever the locale."""
    at = time.gmtime(unix)
    return b"%b, %02d %b %d %02d:%02d:%02d GMT" % (
        (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")[at.tm_wday],
        at.tm_mday,
        b"JanFebMarAprMayJunJulAugSepOctNovDec"[3 * at.tm_mon - 3 : 3 * at.tm_mon],
        at.tm_year,
        at.tm_hour,
        at.tm_min,
        at.tm_sec,
    )


def _held(session: Session) -> int:
    """Octets that wait in a relay."""
    held = 0
    for end in (session.relay.client, session.relay.server):
        held += sum(map(len, end.held))
        if end.transport is not None and not end.lost:
            held += end.transport.get_write_buffer_size()
    return held


def _split(authority: str, default_port: int) -> tuple[str, int]:
    """(host, port) of `host[:port]`, IPv6 literals without their brackets."""
    if authority.startswith("["):
        host, _, rest = authority[1:].partition("]")
        port = rest[1:]
    else:
        host, _, port = authority.partition(":")
    return host, int(port) if port.isdigit() else default_port


def _is_address(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdigit()
