"""Shell: several workers on the same addresses, and the supervisor that has what must be there once.

The supervisor serves no traffic. It follows control or the manifests, gets certificates, compiles each version to see
that it can be run, answers DNS, health, metrics and admin, and starts, watches and ends the workers: processes of their
own that listen with SO_REUSEPORT. It holds every address with a socket that does not listen, so that nobody else takes
it while a worker is away.

sidecar = Supervisor(options, workers=4, drain_s=30.0, command=[...])     otherwise as Sidecar

Long because it is all that there is once for several workers.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import pickle
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from ..policy.tables import Cluster, Tables
from ..policy.world import World
from ..proxy import exposition
from ..proxy.local_server import JSON, Answer, Query
from ..proxy.sockets import Inherited, Place, fits
from . import merged, shared_counts
from . import worker_link as say
from .contexts import Material
from .handover import Channel, HandoverError
from .revocations import Revoked
from .sidecar import DRAIN_IDLE_S, PROMETHEUS, Sidecar, encode
from .sidecar_options import Address, NamedPort, SidecarOptions
from .worker import difference

BACKOFF_S, BACKOFF_S_MAX = 0.1, 10.0
STABLE_S = 60.0
"""A worker that has run for so long begins again with the shortest pause when it ends."""
OWN = ("health", "metrics", "admin", "dns")
"""Listeners of the supervisor itself."""
BACK_MOST = 1000
ANSWER_S = 5.0
"""Longest wait for a worker's part of an admin page; then its last metrics stand in."""
END_S = 5.0
FIRST_S = 60.0
"""Longest wait for a worker to listen at the start."""
logger = logging.getLogger("fairlead.workers")


class Worker:
    """One worker as the supervisor sees it; lives on through restarts of its process."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.link: say.Link | None = None
        self.holds: Mapping[str, bytes] = {}
        """Items that it was sent."""
        self.started = 0.0
        self.restarts = 0
        self.failures = 0
        """Ends in a row, each before STABLE_S."""
        self.problem = "not started"
        """Why it does not serve, or not what it should; empty: it does."""
        self.condition = say.Condition({}, {}, {})
        self.heard = asyncio.Event()
        """It has said whether it could listen."""
        self.error = ""
        self.drained: bool | None = None
        self.channel: Channel | None = None
        """On which listening sockets go to it and come from it."""
        self.inherited: list[Inherited] = []
        """A predecessor's, for its first process."""
        self.served: asyncio.Future[bool] | None = None
        """Whether what ran in the app has ended."""
        self.metrics: merged.Families = {}
        """As last told."""
        self.asked: dict[int, asyncio.Future[bytes]] = {}
        self.trusts = ""
        """The roots that it has put in force last."""


class Supervisor(Sidecar):
    """A Sidecar for those who use it; `items()` gives the world that was put in force, as what it is made of."""

    def __init__(self, options: SidecarOptions, workers: int, drain_s: float, command: list[str]) -> None:
        super().__init__(msgspec.structs.replace(options, inbound=None, outbound=None, redirect=None, named=()))
        self.items: Callable[[], Mapping[str, bytes]] = dict
        self._wanted = options
        self._drain_s = drain_s
        self._command = command
        """Starts a worker, with the numbers of three inherited descriptors added: link, memory, sockets."""
        self._workers = [Worker(number) for number in range(workers)]
        self._held: Mapping[str, bytes] = {}
        self._places = shared_counts.Places()
        self._buckets = shared_counts.SharedBuckets()
        self._ejections: dict[tuple[str, str], say.Ejection] = {}
        self._gone: merged.Families = {}
        """Counters of processes that are no more."""
        self._reserved: list[socket.socket] = []
        self._memory_descriptor = -1
        self._memory = memoryview(b"")
        self._watchers: set[asyncio.Task[None]] = set()
        self._ending = False
        self._asked = 0
        self._plaintext_back: list[dict[str, Any]] = []
        """Of plaintext, what control has not heard."""
        self._crowded = False
        self._used: set[str] = set()
        """Hosts that workers were asked for."""
        self.contexts.taken = self._certificate
        self.contexts.on_revoked.append(self._revocations)

    def in_use(self) -> set[str]:
        return self._used

    # --- what workers are told

    def update(self, world: World) -> None:
        super().update(world)
        assert self._tables is not None
        self._held = dict(self.items())
        limited = [name for name, cluster in self._tables.clusters.items() if _limited(cluster)]
        self._places.assign(limited)
        if (crowded := len(limited) > shared_counts.CLUSTERS_MAX) and not self._crowded:
            logger.warning(
                "%d clusters have limits; beyond %d each worker applies them alone", len(limited),
                shared_counts.CLUSTERS_MAX,
            )  # fmt: skip
        self._crowded = crowded
        if not self._buckets.assign(shared_counts.wanted_buckets(self._tables)):
            logger.warning("beyond %d local rate limits each worker applies them alone", shared_counts.BUCKETS_MAX)
        for worker in self._workers:
            self._send_items(worker)

    def _send_items(self, worker: Worker) -> None:
        if worker.link is None or self._tables is None:
            return
        line = difference(self._tables.version, worker.holds, self._held)
        worker.holds = self._held
        listen = [(*at, *meant) for at, meant in self._listen_wanted.items()]
        worker.link.send(say.Items(line, dict(self._places.assigned()), listen, dict(self._buckets.assigned())))

    def _certificate(self, material: Material) -> None:
        for worker in self._workers:
            self._send_certificate(worker, material)

    def _revocations(self, revoked: Revoked) -> None:
        for worker in self._workers:
            if worker.link is not None:
                worker.link.send(say.Revocations(revoked.items()))

    def trusting(self, roots: str) -> bool:
        return all(worker.link is None or worker.trusts == roots for worker in self._workers)

    def _send_certificate(self, worker: Worker, material: Material | None) -> None:
        if worker.link is not None and material is not None:
            worker.link.send(
                say.Certificate(material.certificates, material.key, material.roots, material.issued, material.ends)
            )

    def _serve_gateways(self, tables: Tables, world: World) -> None:
        """Workers do."""

    async def _listen_loopbacks(self) -> None:
        """Workers do, told with the items."""
        self._listen_task = None

    def reopen_log(self) -> None:
        super().reopen_log()
        for worker in self._workers:
            if worker.link is not None:
                worker.link.send(say.ReopenLog())

    # --- start and end

    async def start(self) -> dict[str, str]:
        self._reserve()
        size = shared_counts.size(len(self._workers))
        self._memory_descriptor = os.memfd_create("fairlead-counts")
        os.ftruncate(self._memory_descriptor, size)
        self._memory = memoryview(mmap.mmap(self._memory_descriptor, size))
        self._buckets.begin(self._memory, len(self._workers))
        self._share_out()
        for worker in self._workers:
            await self._spawn(worker)
        try:
            async with asyncio.timeout(FIRST_S):
                for worker in self._workers:
                    await worker.heard.wait()
        except TimeoutError:
            self._ending = True
            raise OSError(f"worker {worker.number} did not listen within {FIRST_S:g} s") from None
        for worker in self._workers:
            if worker.problem:
                self._ending = True
                raise OSError(worker.error or worker.problem)
        listening = self.at
        self.at = {}
        await super().start()
        self.at.update(listening)
        return self.at

    def _reserve(self) -> None:
        """Hold the addresses, and find out the ports that were left open. Raises OSError naming the address."""
        options = self._wanted
        found: dict[str, Address] = {}
        wanted: dict[str, Address | None] = {
            "inbound": options.inbound, "outbound": options.outbound, "redirect": options.redirect,
        }  # fmt: skip
        wanted |= {f"listen{number}": (named.host, named.port) for number, named in enumerate(options.named)}
        for name, at in wanted.items():
            if at is not None:
                found[name] = (at[0], self._hold(name, *at))
                self.at[name] = f"{at[0]}:{found[name][1]}"
        named = tuple(
            NamedPort(*found[f"listen{number}"], one.service, one.service_port)
            for number, one in enumerate(options.named)
        )
        self._wanted = msgspec.structs.replace(
            options, admin=None, health=None, metrics=None, dns=None, inbound=found.get("inbound"),
            outbound=found.get("outbound"), redirect=found.get("redirect"), named=named,
        )  # fmt: skip

    def _hold(self, name: str, host: str, port: int) -> int:
        try:
            held = self.sockets.claim("held", name, host, port)
            if held:
                self._reserved += held
                self.sockets.note("held", name, host, held)
                return int(held[0].getsockname()[1])
            family, kind, protocol, _, at = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            # Without SO_REUSEPORT first: two proxies of one user would otherwise share a port without a word.
            live = [one for one in self.sockets.peek() if fits(one[0], "tcp", name, host, port)]
            for place, sock in live:  # of a predecessor without workers: others come to listen beside it
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                bound = (at[0], place.port, *at[2:])
            if not live:
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(at)
                    bound = probe.getsockname()
                    probe.listen(1)
            own = socket.socket(family, kind, protocol)
            self._reserved.append(own)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            own.bind(bound)
            self.sockets.note("held", name, host, [own])
        except OSError as error:
            told = error.strerror or str(error)
            told = told if "cannot be listened on" in told else f"{host}:{port} cannot be listened on: {told}"
            raise OSError(f"{name}: {told}") from error
        return int(bound[1])

    def leave(self) -> None:
        super().leave()
        for worker in self._workers:
            if worker.link is not None:
                worker.link.send(say.Leave())

    async def drain_served(self, deadline_s: float) -> bool:
        self.leave()
        waiting = []
        for worker in self._workers:
            if worker.link is not None:
                worker.served = asyncio.get_running_loop().create_future()
                waiting.append(worker.served)
                worker.link.send(say.Drain(deadline_s, True))
        if waiting:
            await asyncio.wait(waiting, timeout=deadline_s + END_S)
        return all(one.done() and one.result() for one in waiting)

    def _share_out(self) -> None:
        """A predecessor's listening sockets to the workers, all of them: one without anybody would swallow clients."""
        turn: dict[Place, int] = {}
        for place, sock in self.sockets.spare():
            if place.kind != "tcp" or place.name in OWN:
                self.sockets.give([(place, sock)])
                continue
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # those that others of us bind beside it
            number = turn[place] = turn.get(place, -1) + 1
            self._workers[number % len(self._workers)].inherited.append((place, sock))

    async def offer(self) -> tuple[list[Inherited], dict[str, Any]]:
        inherited, state = await super().offer()
        for worker in self._workers:
            if worker.link is None or worker.channel is None:
                continue
            worker.link.send(say.Ask(0, "sockets"))
            try:
                async with asyncio.timeout(ANSWER_S):
                    inherited += (await worker.channel.receive_sockets())[0]
            except (OSError, EOFError, ValueError, HandoverError, TimeoutError) as error:
                logger.warning("worker %d does not give its sockets: %s", worker.number, error)
        return inherited, state

    async def drain(self, deadline_s: float, idle_s: float = DRAIN_IDLE_S) -> bool:
        self.draining = self._ending = True
        running = [worker for worker in self._workers if worker.process is not None]
        for worker in running:
            if worker.link is not None:
                worker.link.send(say.Drain(deadline_s, idle_s=idle_s))
        try:
            async with asyncio.timeout(deadline_s + END_S):
                for worker in running:
                    assert worker.process is not None
                    await worker.process.wait()
        except TimeoutError:
            return False
        return all(worker.drained is not False for worker in running)

    def kill(self) -> None:
        """End every process at once: they would drain when they find us gone."""
        for worker in self._workers:
            if worker.process is not None and worker.process.returncode is None:
                worker.process.kill()

    async def close(self) -> None:
        self._ending = True
        for worker in self._workers:
            if worker.link is not None:
                worker.link.send(say.End())
        for worker in self._workers:
            if worker.process is not None:
                try:
                    async with asyncio.timeout(END_S):
                        await worker.process.wait()
                except TimeoutError:
                    logger.warning("worker %d does not end: killed", worker.number)
                    worker.process.kill()
        for task in list(self._watchers):
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        for held in self._reserved:
            held.close()
        if self._memory_descriptor >= 0:
            os.close(self._memory_descriptor)
            self._memory_descriptor = -1
        await super().close()

    # --- processes

    async def _spawn(self, worker: Worker) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        numbers = (theirs.fileno(), self._memory_descriptor, far.fileno())
        try:
            worker.process = await asyncio.create_subprocess_exec(
                *self._command, *map(str, numbers), stdin=asyncio.subprocess.DEVNULL, pass_fds=numbers,
                start_new_session=True,
            )  # fmt: skip
        finally:
            theirs.close()
            far.close()
        if worker.channel is not None:
            worker.channel.close()
        worker.channel = Channel(channel)
        inherited, worker.inherited = worker.inherited, []
        await worker.channel.send_sockets(inherited)
        for _, sock in inherited:
            sock.close()
        worker.started = time.monotonic()
        worker.problem = f"worker {worker.number} is starting"
        worker.error = ""
        worker.heard.clear()
        worker.holds = {}
        worker.trusts = ""
        link = say.Link(say.Up, lambda message: self._heard(worker, message), lambda: None)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        worker.link = link
        link.send(say.Begin(pickle.dumps(self._wanted), worker.number, len(self._workers), self._drain_s))
        self._send_certificate(worker, self.contexts.material)
        worker.link.send(say.Revocations(self.contexts.revoked.items()))
        if self.app_unready:
            link.send(say.AppUnready(self.app_unready, self.told))
        self._send_items(worker)
        self._forget_ejections()
        for ejection in self._ejections.values():
            link.send(ejection)
        task = asyncio.get_running_loop().create_task(self._watch(worker, worker.process, link))
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    async def _watch(self, worker: Worker, process: asyncio.subprocess.Process, link: say.Link) -> None:
        """Wait for the end of a worker's process; start another unless the end was wanted."""
        code = await process.wait()
        link.close()
        worker.link = None
        shared_counts.forget(self._memory, worker.number)
        merged.add(self._gone, worker.metrics, counters_only=True)
        worker.metrics = {}
        for future in worker.asked.values():
            future.cancel()
        if worker.served is not None and not worker.served.done():
            worker.served.set_result(True)
        worker.asked.clear()
        worker.heard.set()
        worker.problem = f"worker {worker.number} has ended"
        self._take_condition(worker, say.Condition({}, {}, {}))
        if self._ending:
            return
        lived = time.monotonic() - worker.started
        worker.failures = 1 if lived >= STABLE_S else worker.failures + 1
        pause = min(BACKOFF_S * 2.0 ** (worker.failures - 1), BACKOFF_S_MAX)
        why = f"{_ended(code)}{': ' + worker.error if worker.error else ''}"
        worker.problem = f"worker {worker.number} ended ({why})"
        logger.error(
            "worker %d (process %d) ended after %.1f s: %s; starting another in %.1f s", worker.number, process.pid,
            lived, why, pause,
        )  # fmt: skip
        await asyncio.sleep(pause)
        if self._ending:
            return
        worker.restarts += 1
        try:
            await self._spawn(worker)
        except OSError as error:
            logger.error("worker %d cannot be started: %s", worker.number, error)
            worker.problem = f"worker {worker.number} cannot be started: {error}"

    def _heard(self, worker: Worker, message: Any) -> None:
        if isinstance(message, say.Listening):
            worker.error = message.error
            worker.problem = message.error and f"worker {worker.number}: {message.error}"
            worker.heard.set()
        elif isinstance(message, say.Refused):
            if message.reasons:
                worker.problem = f"worker {worker.number} refuses the version in force: {'; '.join(message.reasons)}"
                logger.error("%s", worker.problem)
            elif worker.heard.is_set() and not worker.error:
                worker.problem = ""
        elif isinstance(message, say.NotListened):
            self._listen_failures = {(address, port): why for address, port, why in message.failures}
            if self._tables is not None and self.dns is not None:
                self._answer_addresses(self._tables.snapshot)
        elif isinstance(message, say.Trusting):
            worker.trusts = message.roots
        elif isinstance(message, say.Condition):
            self._take_condition(worker, message)
        elif isinstance(message, say.Uses):
            self._used.update(message.hosts)
            ask = self.missing
            if message.missing and ask is not None:
                for host in message.hosts:
                    ask(host)
        elif isinstance(message, say.Told):
            future = worker.asked.pop(message.number, None)
            if future is not None and not future.done():
                future.set_result(message.body)
        elif isinstance(message, say.Drained):
            if not message.served_only:
                worker.drained = message.whole
                self.cut += message.cut
            elif worker.served is not None and not worker.served.done():
                worker.served.set_result(message.whole)
        elif isinstance(message, say.Ejection):
            self._forget_ejections()
            self._ejections[(message.cluster, message.host)] = message
            for other in self._workers:
                if other is not worker and other.link is not None:
                    other.link.send(message)

    def _take_condition(self, worker: Worker, condition: say.Condition) -> None:
        """`at` is that of all workers: they share addresses."""
        worker.condition = condition
        found: dict[str, str] = {}
        for one in self._workers:
            found |= one.condition.at
        for name in [name for name in self.at if name.startswith("gateway:") and name not in found]:
            del self.at[name]
        self.at.update(found)

    def _forget_ejections(self) -> None:
        now = time.monotonic()
        self._ejections = {key: known for key, known in self._ejections.items() if known.until > now}

    # --- own ports

    def app_is_unready(self, why: str) -> None:
        super().app_is_unready(why)
        for worker in self._workers:
            if worker.link is not None:
                worker.link.send(say.AppUnready(why, self.told))

    def problems(self, app: bool = True) -> list[str]:
        found = super().problems(app) + [worker.problem for worker in self._workers if worker.problem]
        return found + self._of_workers(lambda worker: worker.condition.problems)

    def _noted(self) -> list[str]:
        return super()._noted() + self._of_workers(lambda worker: worker.condition.notes)

    def _of_workers(self, told: Callable[[Worker], Mapping[str, str]]) -> list[str]:
        """What workers say of themselves, once where all of them say it."""
        found: dict[str, list[int]] = {}
        for worker in self._workers:
            for name, why in told(worker).items():
                found.setdefault(f"{name}: {why}", []).append(worker.number)
        return [
            text if len(numbers) == len(self._workers) else f"worker {', '.join(map(str, numbers))}: {text}"
            for text, numbers in found.items()
        ]

    async def _ask(self, what: str) -> list[tuple[Worker, bytes | None]]:
        """What each worker answers; None: nothing in time."""
        asked = []
        for worker in self._workers:
            if worker.link is not None:
                self._asked += 1
                future = worker.asked[self._asked] = asyncio.get_running_loop().create_future()
                worker.link.send(say.Ask(self._asked, what))
                asked.append((worker, future))
        if asked:
            await asyncio.wait([future for _, future in asked], timeout=ANSWER_S)
        return [
            (worker, future.result() if future.done() and not future.cancelled() else None) for worker, future in asked
        ]

    def _metrics(self, _query: Query) -> Awaitable[Answer]:
        return self._all_metrics()

    async def _all_metrics(self) -> Answer:
        for worker, body in await self._ask("metrics"):
            if body is not None:
                worker.metrics = merged.read(body.decode())
        total: merged.Families = {}
        merged.add(total, self._gone)
        for worker in self._workers:
            merged.add(total, worker.metrics)
        own = merged.read("\n".join(self.metrics.lines()))
        own = {name: found for name, found in own.items() if name not in total or name == "fairlead_ready"}
        lines = merged.lines(total | own) + exposition.family(
            "fairlead_workers", "gauge", "Workers that serve.", [({}, sum(not w.problem for w in self._workers))]
        )
        lines += exposition.family(
            "fairlead_worker_restarts_total", "counter", "Processes that ended and were replaced.",
            [({"worker": str(worker.number)}, worker.restarts) for worker in self._workers],
        )  # fmt: skip
        if self.dns is not None and "dns" in self.at:
            lines += self.dns.metric_lines()
        return 200, PROMETHEUS, ("\n".join(lines) + "\n").encode()

    async def take_plaintext(self) -> list[dict[str, Any]]:
        back, self._plaintext_back = self._plaintext_back, []
        told = [msgspec.json.decode(body) for _, body in await self._ask("plaintext") if body is not None]
        return back + [entry for one in told for entry in one]

    def give_back_plaintext(self, entries: list[dict[str, Any]]) -> None:
        self._plaintext_back = entries[:BACK_MOST]

    def _clusters(self, _query: Query) -> Awaitable[Answer]:
        return self._all_clusters()

    async def _all_clusters(self) -> Answer:
        told = [msgspec.json.decode(body) for _, body in await self._ask("clusters") if body is not None]
        return 200, JSON, encode(merged.clusters(told))

    def _server_info(self, query: Query) -> Answer:
        status, kind, body = super()._server_info(query)
        told = msgspec.json.decode(body)
        told["workers"] = [
            {
                "number": worker.number,
                "pid": worker.process.pid if worker.process is not None else None,
                "uptime_s": round(time.monotonic() - worker.started, 1),
                "restarts": worker.restarts,
                "problem": "; ".join(
                    [worker.problem] * bool(worker.problem)
                    + [f"{name}: {why}" for name, why in worker.condition.problems.items()]
                ),
            }
            for worker in self._workers
        ]
        return status, kind, encode(told)


def _limited(cluster: Cluster) -> bool:
    return shared_counts.limited(cluster.limits)


def _ended(code: int) -> str:
    """An exit code of asyncio in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
