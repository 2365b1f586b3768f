"""Shell: the ledger of plaintext as sidecars report it and people read it, and the guard before a switch to STRICT.

POST /fairlead/v1/feed/plaintext   a sidecar's report, as its own workload
GET  /fairlead/v1/mtls             ?namespace=&workload=; for administrators
POST /fairlead/v1/mtls/forget      {"namespace", "workload", "source"}
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from ..policy.parse import parse
from ..policy.resources import MeshConfig, MeshConfigSpec, PeerAuthentication
from ..registry.documents import Document
from ..registry.snapshot import Snapshot
from .api_context import current
from .api_objects import body_of
from .lockout_guard import is_forced, item
from .objects import Changing
from .plaintext import Forgotten, PlaintextLedger, Report, refusal
from .status import StatusError

if TYPE_CHECKING:
    from .shared_plaintext import SharedPlaintext

PEERS = "peerauthentications.security.istio.io"
MESH = "meshconfigs.fairlead.dev"
REPORTS_MOST = 2000
SAVE_S = 1.0
Bodies = Mapping[str, Mapping[str, Any]]


class PlaintextReport(msgspec.Struct):
    namespace: str
    workload: str
    entries: list[Report]
    role: str = "sidecar"


class Forget(msgspec.Struct):
    namespace: str
    workload: str = ""
    source: str = ""


class MtlsApi:
    """`rules()`: the objects in force by item key; `save(octets)` writes the ledger."""

    def __init__(
        self,
        path: Path,
        save: Callable[[Path, bytes], None],
        rules: Callable[[], Bodies],
        snapshot: Callable[[], Snapshot],
        authorize: Callable[[web.Request, str, str], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises OSError and ValueError for a ledger on disk that cannot be read."""
        self._path = path
        self._save = save
        self._rules = rules
        self._snapshot = snapshot
        self._authorize = authorize
        self._clock = clock
        self.ledger = PlaintextLedger(path.read_bytes() if path.is_file() else b"")
        self.shared: SharedPlaintext | None = None
        """With other control planes of the same store."""
        self._unsaved = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/fairlead/v1/feed/plaintext", self._report),
            web.get("/fairlead/v1/mtls", self._show),
            web.post("/fairlead/v1/mtls/forget", self._forget),
        ]

    async def run(self) -> None:
        """Keep the ledger on disk; what is written is at most a second behind."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            await asyncio.to_thread(self._save, self._path, self.ledger.dump())
            await asyncio.sleep(SAVE_S)

    def close(self) -> None:
        if self._unsaved.is_set():
            self._save(self._path, self.ledger.dump())

    async def _report(self, request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await body_of(request), type=PlaintextReport)
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=f"not a report of plaintext: {error}") from None
        self._authorize(request, body.namespace, body.workload)
        destination = f"{body.namespace}/{body.workload}"
        self.ledger.take(destination, body.entries[:REPORTS_MOST], self._snapshot(), self._clock())
        self._unsaved.set()
        return web.Response(status=204)

    async def _show(self, request: web.Request) -> web.Response:
        self._authorize(request, "", "")
        namespace, workload = request.query.get("namespace", ""), request.query.get("workload", "")
        policies, root = self._policies()
        rows = [
            row
            for ledger in self._ledgers()
            for row in ledger.rows(ledger.entries(namespace, workload), policies, root, self._snapshot(), self._clock())
        ]
        return web.Response(body=msgspec.json.encode({"entries": rows}), content_type="application/json")

    async def _forget(self, request: web.Request) -> web.Response:
        self._authorize(request, "", "")
        try:
            body = msgspec.json.decode(await body_of(request), type=Forget)
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=f"expected namespace, workload and source: {error}") from None
        one = Forgotten(body.namespace, body.workload, body.source, self._clock())
        gone = await self.shared.forget(one) if self.shared is not None else self.ledger.drop([one])
        self._unsaved.set()
        return web.json_response({"forgotten": gone})

    def changed(self) -> None:
        """The ledger was changed from elsewhere."""
        self._unsaved.set()

    def _ledgers(self) -> list[PlaintextLedger]:
        return [self.ledger, *(self.shared.ledgers() if self.shared is not None else ())]

    # --- the guard ----------------------------------------------------------------------------------------------------

    def _policies(self, bodies: Bodies | None = None) -> tuple[list[PeerAuthentication], str]:
        """PeerAuthentications in order of age, and the root namespace."""
        bodies = self._rules() if bodies is None else bodies
        found: list[PeerAuthentication] = []
        root = MeshConfigSpec().root_namespace
        for key, body in bodies.items():
            resource = key.split("/")[1]
            if resource in (PEERS, MESH):
                made = parse(Document.of(dict(body), key)).resource
                if isinstance(made, PeerAuthentication):
                    found.append(made)
                elif isinstance(made, MeshConfig):
                    root = made.spec.root_namespace
        return sorted(found, key=lambda one: (one.meta.created, one.meta.name, one.meta.namespace)), root

    def guard(self, changing: Changing) -> None:
        """Refuse (StatusError 403) changes after which somebody who came lately in plaintext would be refused."""
        concerned = {  # MeshConfig says which namespace is the root's
            key: after
            for key, (before, after) in changing.items()
            if key.resource in (PEERS, MESH) and not is_forced(before if after is None else after)
        }
        if not concerned or current().force:
            return
        if self.shared is not None and self.shared.unknown and any(map(_may_be_strict, concerned.values())):
            first = next(iter(concerned))
            raise StatusError(
                403,
                f'{first.resource} "{first.name}" is forbidden: whether anybody still comes in plaintext is not known: '
                f"{self.shared.unknown}; try again in some seconds, or force it",
                name=first.name,
                kind=first.resource.split(".")[0],
            )
        bodies = dict(self._rules())
        old, root = self._policies(bodies)
        for key, after in concerned.items():
            bodies.pop(item(key), None)
            if after is not None:
                bodies[item(key)] = after
        new, new_root = self._policies(bodies)
        now = self._clock()
        refused = [
            one
            for ledger in self._ledgers()
            for one in ledger.refused_by(old, new, root, self._snapshot(), now, new_root)
        ]
        if refused:
            first = next(iter(concerned))
            raise StatusError(
                403,
                f'{first.resource} "{first.name}" is forbidden: {refusal(refused, now)}',
                name=first.name,
                kind=first.resource.split(".")[0],
            )


def _may_be_strict(after: Mapping[str, Any] | None) -> bool:
    """What is removed may uncover it."""
    return after is None or b"STRICT" in msgspec.json.encode(after)
