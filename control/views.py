"""What each reader of the feed is to have: its Secrets, its facts, and of both only what its version understands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set
from typing import Any, Protocol

import msgspec

from ..mesh.update import Holdings, build_world
from ..policy.known_fields import Understanding, schema_id
from ..registry.model import Workload
from ..registry.snapshot import Snapshot
from .push import ALL, NONE, View
from .scopes import EVERY, Scopes
from .wanted_secrets import WantedSecrets

BASE_TABLES = frozenset(("object", "service", "endpoints", "workload", "checks", "namespace"))
"""First parts of the keys of items, as versions know them that do not say what they know."""
TABLES = frozenset(Holdings(build_world).tables())
"""As we know them."""
SCHEMAS_MOST = 100
_decode = msgspec.json.decode


class Named(Protocol):
    """As feed_server.Member."""

    namespace: str
    workload: str
    proved: str


class Reader(Named, Protocol):
    """The same, with what it asks for."""

    role: str
    labels: dict[str, str]
    address: str
    endpoints: str
    scoped: bool
    schema: str
    tables: frozenset[str]
    uses: frozenset[str]


class Understood:
    """Which items another version understands; what was found out of an object is kept while that does not change."""

    def __init__(self, fields: Mapping[str, Collection[str]]) -> None:
        self._understanding = Understanding(fields)
        self._known: dict[str, tuple[int, str]] = {}

    def why_not(self, key: str, number: int, value: bytes) -> str:
        known = self._known.get(key)
        if known is None or known[0] != number:
            body = _decode(value)
            lacks = self._understanding.lacks(key.split("/", 2)[1], body) if isinstance(body, dict) else []
            known = self._known[key] = (number, "; ".join(lacks))
        return known[1]


class Views:
    """`snapshot()`: the registry's, as it is now. `proved(key)`: whether who acts for a workload has shown no more
    than that it is this workload. `holder(key)`: the service account that a workload is of now; None: of none yet."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], proved: Callable[[str], bool],
        holder: Callable[[str], str | None] = lambda _key: None,
    ) -> None:  # fmt: skip
        self._snapshot = snapshot
        self._holder = holder
        self._proved = proved
        self._secrets = WantedSecrets()
        self.scopes = Scopes()
        self._own_schema = ""
        self._schemas: dict[str, Understood] = {}
        """By the name that a version gives to what it knows."""
        self._last: dict[str, View] = {}

    def objects(self, changed: Mapping[str, Mapping[str, Any] | None]) -> None:
        self._secrets.take(changed)
        self.scopes.objects(changed)

    def begin(self, reader: Reader) -> None:
        """It has connected, or has outgrown what it was sent: decide what stays so from now on."""
        reader.scoped = reader.role == "sidecar" and self.scopes.scoped(reader.endpoints)

    def outgrown(self, reader: Reader) -> bool:
        """Whether there is too much by now for it to have everything."""
        return reader.role == "sidecar" and not reader.scoped and self.scopes.scoped(reader.endpoints, has_all=True)

    def stranger(self, reader: Named) -> bool:
        """Whether its workload is another account's than the one that it proved when it connected: somebody has
        declared the workload since then, or has come who may have its name."""
        if not reader.proved:
            return False
        return self._holder(f"{reader.namespace}/{reader.workload}") not in (None, reader.proved)

    def knows_schema(self, name: str) -> bool:
        """Whether it is known what a version understands that calls that `name`; empty: it says nothing, and is taken
        to understand everything."""
        if name and not self._own_schema:
            self._own_schema = schema_id()
        return not name or name == self._own_schema or name in self._schemas

    def learn_schema(self, name: str, fields: Mapping[str, Collection[str]]) -> None:
        if not self.knows_schema(name) and len(self._schemas) < SCHEMAS_MOST:
            self._schemas[name] = Understood(fields)

    def forget(self, key: str) -> None:
        """This reader has gone."""
        self._last.pop(key, None)
        self.scopes.forget(key)

    def secrets_of(self, full_name: str, workload: Workload, gateway: bool) -> frozenset[str]:
        """Item keys of the Secrets of a proxy that is served in another way (xDS)."""
        known = self._snapshot().workloads.get(full_name)
        return self._secrets.of(known or workload, gateway, not self._proved(full_name))

    def of(self, key: str, reader: Reader) -> View:
        """The view of a reader; the same object while nothing of it changes. `key` names the reader."""
        tables: Set[str] | None = None if reader.tables >= TABLES else reader.tables
        last = self._last.get(key)
        if (  # as almost always: nothing that could make it another concerns anybody
            last is not None
            and last.scope is ALL
            and not reader.scoped
            and self._secrets.are_nobodys
            and not self.scopes.name_any
            and last.tables is tables
            and not last.secrets
            and last.understands is self._schemas.get(reader.schema)
        ):
            return last
        full_name = f"{reader.namespace}/{reader.workload}"
        if reader.role == "dns":
            made = View(understands=self._schemas.get(reader.schema), tables=tables)
        else:
            known = self._snapshot().workloads.get(full_name)
            workload = known or Workload(
                reader.namespace, reader.workload, (reader.address,) if reader.address else (), labels=reader.labels
            )
            scope = ALL
            if reader.role == "sidecar" and reader.endpoints != EVERY:
                scope = self.scopes.of(key, workload, reader.uses, reader.scoped)
            secrets = self._secrets.of(workload, reader.role == "gateway", not self._proved(full_name))
            understands = self._schemas.get(reader.schema)
            if (
                last is not None
                and last.scope is scope
                and last.understands is understands
                and last.tables is tables
                and last.secrets == secrets
                and last.workload == full_name
            ):
                return last  # as for almost all readers at almost all changes, without making one
            made = View(secrets or NONE, full_name, scope, understands, tables)
        if last is not None and last == made:
            return last
        self._last[key] = made
        return made
