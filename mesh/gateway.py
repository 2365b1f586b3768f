"""Shell: what makes a sidecar's parts a gateway: listening on what its Gateways say, certificates of its servers.

gateway = GatewayPorts(contexts, namespace, {80: 8080}, networks)
gateway.update(engine, tables, secrets)     the first, and every one after it
await gateway.start(at)                     listen; from then on `update` does
await gateway.close()
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..policy.gateways import Ports
from ..policy.resources import Secret
from ..policy.tables import Tables
from ..proxy.proxy_protocol import Network
from .contexts import Contexts
from .server_contexts import ServerContexts

LOOK_S = 10.0
"""How often certificates in files are looked at."""
logger = logging.getLogger("fairlead.gateway")


class GatewayPorts:
    """`moved`: ports to listen on in place of those that Gateways name, as a Service's targetPort does."""

    def __init__(self, contexts: Contexts, moved: Mapping[int, int], trusted: tuple[Network, ...] = ()) -> None:
        self.servers = ServerContexts(contexts)
        self.failures: dict[int, str] = {}
        """By port: why it cannot be listened on."""
        self.on_change: Callable[[], None] | None = None
        """Told when what is listened on has changed."""
        self._moved = moved
        self._trusted = trusted
        self._engine: Any = None
        self._ports: Ports | None = None
        self._at: dict[str, str] = {}
        self._listening: dict[tuple[str, int], int] = {}
        """(address, port of a Gateway) to the port that is bound."""
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started = False
        self._told: set[str] = set()

    def update(self, engine: Any, tables: Tables, secrets: Sequence[Secret]) -> None:
        self._engine, self._ports = engine, tables.gateway
        self.servers.update(tables.gateway, secrets, tables.viewpoint.workload.namespace)
        self.failures = {}
        self._tell()
        if self._started and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._follow())

    async def start(self, at: dict[str, str]) -> None:
        """Listen on what there is; `at` gets where, as `gateway:80` to `0.0.0.0:8080`."""
        self._at = at
        self._started = True
        await self._follow()
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def listen_no_more(self) -> None:
        """Whatever Gateways come and go."""
        self._started = False

    async def close(self) -> None:
        self._started = False
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def problem(self) -> str:
        """Why the gateway is not ready; empty: it is."""
        if self._ports is None or not self._ports.servers:
            return (
                "no Gateway selects this workload yet"
                if self._ports is None or not self._ports.names
                else "no server can be run"
            )
        missing = {number for _, number in self._wanted() - self._listening.keys()}
        told = [self.failures.get(number, "not served yet") for number in sorted(missing)]
        return "; ".join(f"port {number}: {why}" for number, why in zip(sorted(missing), told, strict=True))

    def _wanted(self) -> set[tuple[str, int]]:
        """(address, port) of all that is to be listened on."""
        ports = self._ports.ports if self._ports is not None else {}
        return {(bind, number) for number, port in ports.items() for bind in port.binds if port.servers}

    def note(self) -> str:
        """What is not as its Gateways want it."""
        ports = self._ports
        left = [f"Gateway {key} {name}: {why}" for key, name, why in ports.left_out] if ports is not None else []
        return "; ".join([*left, *(f"{name}: {why}" for name, why in self.servers.problems.items())])

    def _tell(self) -> None:
        """Each problem once in the log, as long as it lasts."""
        now = {f"{name}: {why}" for name, why in self.servers.problems.items()}
        if self._ports is not None:
            now |= {f"Gateway {key} {name} is left out: {why}" for key, name, why in self._ports.left_out}
        for sentence in sorted(now - self._told):
            logger.warning("%s", sentence)
        self._told = now

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        self.servers.look()
        self._tell()
        if self.failures and self._task is None and self._started:  # what was taken may be free by now
            self.failures = {}
            self._task = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        """Listen on what is wanted and on nothing else; goes on while what is wanted changes."""
        try:
            while self._started:
                wanted = self._wanted()
                stale = [at for at in self._listening if at not in wanted]
                todo = sorted(at for at in wanted if at not in self._listening and at[1] not in self.failures)
                if not stale and not todo:
                    return
                for at in stale:
                    await self._engine.unlisten(at[0], self._listening.pop(at))
                    self._at.pop(_name(*at), None)
                for bind, number in todo:
                    await self._listen(bind, number)
        finally:
            self._task = None
            if self.on_change is not None:
                self.on_change()

    async def _listen(self, bind: str, number: int) -> None:
        at = self._moved.get(number, number)
        try:
            bound = await self._engine.listen_gateway(
                bind, at, number, self.servers.of, self.servers.client_of, trusted=self._trusted
            )
        except OSError as error:
            hint = ""
            if at < 1024 and error.errno in (1, 13):
                hint = f" (ports below 1024 need CAP_NET_BIND_SERVICE, or --map {number}={number + 8000})"
            why = (error.strerror or str(error)).rpartition("cannot be listened on: ")[2]
            self.failures[number] = f"it cannot be listened on: {why}{hint}"
            logger.error("port %d of the gateway: %s", number, self.failures[number])
            return
        self._listening[(bind, number)] = bound
        self._at[_name(bind, number)] = f"{bind or '*'}:{bound}"
        logger.info("port %d of the gateway is served at %s", number, self._at[_name(bind, number)])


def _name(bind: str, number: int) -> str:
    return f"gateway:{number}" if not bind else f"gateway:{bind}:{number}"
