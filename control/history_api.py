"""Shell: the history of objects over HTTP.

GET  /fairlead/v1/history            ?resource=&namespace=&name=&author=&limit=   changes, newest first
GET  /fairlead/v1/history/diff       ?from=REV&to=REV and the same                what differs (to: now)
POST /fairlead/v1/history/rollback   {"revision", "resource", "namespace", "name", "dryRun"}

Everybody sees and changes what their permissions allow, object by object.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
from aiohttp import web

from .access import Access, user_of, wanted_of
from .api_context import current
from .api_objects import respond
from .api_request import Target
from .auth import ADMIN
from .catalog import Catalog
from .certificates_api import fields, text
from .history import Scope, beyond, differences, entries
from .objects import ObjectOperations
from .rollback import Rollback
from .status import StatusError, bad_request
from .store import CompactedError, Key, Store

LIMIT = 50
LIMIT_MOST = 5000


class HistoryApi:
    def __init__(self, store: Store, catalog: Catalog, operations: ObjectOperations, access: Access) -> None:
        self._store = store
        self._catalog = catalog
        self._access = access
        self._rollback = Rollback(store, catalog, operations, self._permit)

    def routes(self) -> list[web.RouteDef]:
        at = "/fairlead/v1/history"
        return [
            web.get(at, self._list),
            web.get(f"{at}/diff", self._diff),
            web.post(f"{at}/rollback", self._roll_back),
        ]

    def _permit(self, target: Target, verb: str) -> None:
        self._access.check(current().principal, wanted_of(target, verb))

    def _may_see(self, key: Key) -> bool:
        principal, resource = current().principal, self._catalog.by_name.get(key.resource)
        if resource is None:
            return False
        if principal.role == ADMIN:
            return True
        target = Target(resource, "", key.namespace, key.name)
        return self._access.may(user_of(principal), wanted_of(target, "get")).allowed

    def _scope(self, request: web.Request) -> Scope:
        asked = request.query
        resource = asked.get("resource", "")
        if resource and resource not in self._catalog.by_name:
            raise unknown_resource(resource)
        return Scope(resource, asked.get("namespace", ""), asked.get("name", ""), asked.get("author", ""))

    async def _list(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", str(LIMIT))
        if not re.fullmatch(r"[0-9]{1,9}", limit) or not 0 < int(limit) <= LIMIT_MOST:
            raise bad_request(f"limit: expected 1 to {LIMIT_MOST}, got {limit!r}")
        memory, scope = self._store.memory, self._scope(request)
        visible = [change for change in memory.log.all() if scope.has(change.key)]
        allowed = {key for key in {change.key for change in visible} if self._may_see(key)}
        visible = [change for change in visible if change.key in allowed]
        found = await asyncio.to_thread(entries, visible, scope, int(limit))
        body = {"from": memory.log.floor, "to": memory.revision, "changes": msgspec.to_builtins(found)}
        return respond(request, body)

    async def _diff(self, request: web.Request) -> web.Response:
        memory, scope = self._store.memory, self._scope(request)
        before = revision_of(request.query.get("from", ""), "from")
        after = revision_of(request.query.get("to", str(memory.revision)), "to")
        try:
            found = differences(memory, before, after, scope)
        except CompactedError as error:
            raise beyond(error, memory) from None
        listed = [
            {"resource": key.resource, "namespace": key.namespace, "name": key.name,
             "kind": self._catalog.by_name[key.resource].kind, "before": one, "after": two}
            for key, one, two in found
            if self._may_see(key)
        ]  # fmt: skip
        return respond(request, {"from": before, "to": after, "differences": listed})

    async def _roll_back(self, request: web.Request) -> web.Response:
        body = await fields(request)
        revision, dry_run = body.get("revision"), body.get("dryRun", False)
        if not isinstance(revision, int) or isinstance(revision, bool) or not isinstance(dry_run, bool):
            raise bad_request("expected {revision: number, dryRun: true or false}")
        resource = text(body, "resource", "")
        if resource and resource not in self._catalog.by_name:
            raise unknown_resource(resource)
        scope = Scope(resource, text(body, "namespace", ""), text(body, "name", ""))
        current().reason = current().reason or f"rollback to revision {revision}"
        steps, changes = await self._rollback.to(revision, scope, dry_run)
        answer: dict[str, Any] = {"revision": changes[-1].revision if changes else 0,
                                  "changes": msgspec.to_builtins(steps)}  # fmt: skip
        return respond(request, answer)


def unknown_resource(name: str) -> StatusError:
    return bad_request(f"resource: expected a name such as virtualservices.networking.istio.io, got {name!r}")


def revision_of(text: str, name: str) -> int:
    """Raises StatusError 400."""
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise bad_request(f"{name}: expected a revision (a resourceVersion), got {text!r}")
    return int(text)
