"""Shell: changes under confirmation over HTTP, and the clock that takes them back.

`POST /fairlead/v1/confirmations` {"timeoutSeconds"} answers {"id", "deadline"}; writes with the header
`Fairlead-Confirm: ID` are then under it. `POST .../ID/confirm` makes them stay, `DELETE .../ID` takes them back at
once, `GET` lists what waits. Everybody confirms their own; administrators all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web

from .api_context import current, who
from .api_objects import respond
from .auth import ADMIN
from .certificates_api import fields
from .confirmations import Confirmations, Record
from .status import StatusError, not_found
from .store import Cause, Change, ConflictError, Store, StoreError

ID_BYTES = 4
RETRY_S = 1.0
"""Between attempts where the store cannot be written."""
LOOK_S = 5.0
"""At least so often the clock is looked at: it may be set."""
ATTEMPTS = 20
logger = logging.getLogger("fairlead.confirm")


class ConfirmApi:
    """Handlers, and `run`. `clock`: Unix seconds; `draw(n)`: n random bytes."""

    def __init__(
        self, store: Store, records: Confirmations, clock: Callable[[], float], draw: Callable[[int], bytes],
        told: Callable[..., None],
    ) -> None:  # fmt: skip
        self._store = store
        self._records = records
        self._clock = clock
        self._draw = draw
        self._told = told
        """Takes the fields of an audit line."""
        self._news = asyncio.Event()
        store.memory.subscribe(self._changed)

    def _changed(self, _changes: list[Change] | Any) -> None:
        self._news.set()

    def routes(self) -> list[web.RouteDef]:
        at = "/fairlead/v1/confirmations"
        return [
            web.post(at, self._begin),
            web.get(at, self._list),
            web.post(f"{at}/{{id}}/confirm", self._confirm),
            web.delete(f"{at}/{{id}}", self._revert),
        ]

    async def _begin(self, request: web.Request) -> web.Response:
        body = await fields(request)
        who, now = current().principal, self._clock()
        record, write = self._records.begin(self._draw(ID_BYTES).hex(), who, body.get("timeoutSeconds"), now)
        await self._store.write([write])
        current().audit["confirmation"] = record.id
        return respond(request, shown(record), 201)

    async def _list(self, request: web.Request) -> web.Response:
        who = current().principal
        mine = [record for record in self._records.all() if who.role == ADMIN or record.author == who.name]
        return respond(request, {"confirmations": [shown(record) for record in mine]})

    async def _confirm(self, request: web.Request) -> web.Response:
        name, who = request.match_info["id"], current().principal
        current().audit["confirmation"] = name
        for _ in range(ATTEMPTS):
            record = self._records.of(name, who)
            try:
                await self._store.write([self._records.confirm(name, who, self._clock())])
            except ConflictError:
                continue
            return respond(request, shown(record))
        raise StatusError(409, "it keeps changing; try again")

    async def _revert(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        current().audit["confirmation"] = name
        record = self._records.of(name, current().principal)
        if not await self._take_back(name, current().reason or f"confirmation {name} reverted"):
            raise not_found("confirmations", "", name)
        return respond(request, shown(record))

    async def _take_back(self, name: str, why: str) -> bool:
        """`why`: for the history. Whether this did it, and not another control plane. Raises StoreError."""
        for _ in range(ATTEMPTS):
            writes = self._records.revert(name)
            if not writes:
                return False
            try:
                await self._store.write(writes, Cause(who(), why))
            except ConflictError:
                await asyncio.sleep(0)
                continue
            return True
        return False

    async def run(self) -> None:
        """Take back what is not confirmed in time, for ever; first what ended while nobody was there."""
        while True:
            self._news.clear()
            for record in self._records.due(self._clock()):
                try:
                    if await self._take_back(record.id, f"{record.id} of {record.author} was not confirmed in time"):
                        logger.warning("%s of %s was not confirmed and is taken back", record.id, record.author)
                        self._told(
                            user="fairlead:control", verb="revert", confirmation=record.id, of=record.author,
                            objects=sorted(record.before), reason="not confirmed in time",
                        )  # fmt: skip
                except StoreError as error:
                    logger.error("%s cannot be taken back yet: %s", record.id, error)
                    await asyncio.sleep(RETRY_S)
            deadline = self._records.next_deadline()
            wait_s = LOOK_S if deadline is None else min(max(deadline - self._clock(), 0.0), LOOK_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):  # wait_for would swallow the end of this task
                    await self._news.wait()


def shown(record: Record) -> dict[str, Any]:
    """Without the objects: they are for who may read them."""
    return {
        "id": record.id, "author": record.author, "deadline": record.deadline, "timeoutSeconds": record.timeout_s,
        "objects": sorted(record.before),
    }  # fmt: skip
