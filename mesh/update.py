"""A pushed version to a world: what a sidecar holds of the feed, and what is wrong with what it was offered.

The items are those of control/push.py. A version that cannot be read as a whole is refused with its reasons; the
world of the last good version stays in force.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from ..policy.world import Loader, World
from ..registry.checks import Check
from ..registry.digest import item_digest
from ..registry.documents import Document
from ..registry.model import Changed, Endpoint, Service, Workload
from ..registry.shards import amended
from ..registry.snapshot import Snapshot
from . import provisional, revocations
from .provisional import Provisional
from .revocations import Revoked


class FeedMessage(msgspec.Struct):
    """One line of the feed. Without `set` and `remove` it only says that control is alive."""

    version: str
    full: bool = False
    set: dict[str, msgspec.Raw] = {}
    remove: list[str] = []
    resumed: bool = False
    """It brings what is held, as control was told, to this version, whichever that was."""
    drop: list[str] = []
    """Digests (base64) of what is not to be held, but for what is set, or in `keep`."""
    keep: list[str] = []
    ask: list[str] = []
    """What control wants to be told: `holds`, `fields`."""
    uses: list[str] = []
    """On disk alone: services in use."""

    def after(self, owed: FeedMessage | None) -> FeedMessage:
        """This message together with an earlier one that was not taken."""
        if owed is None or self.full or self.resumed:
            return self
        left = {key: value for key, value in owed.set.items() if key not in self.remove}
        gone = [key for key in owed.remove if key not in self.set]
        return FeedMessage(self.version, owed.full, {**left, **self.set}, [*gone, *self.remove])


class RefusedError(Exception):
    """The offered version cannot be run; `reasons` are sentences for people."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class UnreadableError(RefusedError):
    """A line that is no message: what it was to change is unknown, so the feed must be asked for again."""


_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What msgspec raises: on text that is not UTF-8 UnicodeDecodeError, on deep nesting RecursionError."""

_decode_message = msgspec.json.Decoder(FeedMessage).decode
_decode_service = msgspec.json.Decoder(Service).decode
_decode_endpoints = msgspec.json.Decoder(tuple[Endpoint, ...]).decode
_decode_workload = msgspec.json.Decoder(Workload).decode
_decode_checks = msgspec.json.Decoder(tuple[Check, ...]).decode
_decode_labels = msgspec.json.Decoder(dict[str, str]).decode
_decode_any = msgspec.json.Decoder().decode


TABLES = {
    "service": "_services", "endpoints": "_endpoints", "workload": "_workloads", "checks": "_checks",
    "namespace": "_namespaces", "object": "_objects", "provisional": "_provisional", "revoked": "_revoked",
}  # fmt: skip
FACTS = ("service", "endpoints", "workload", "namespace")
NOTED = {"service": 0, "endpoints": 0, "workload": 1, "checks": 1, "namespace": 2}
"""Which of the sets of `Changed` an item's name goes into."""


class Holdings:
    """Everything received so far, as items."""

    def __init__(self, build: Callable[[list[dict[str, Any]], Snapshot], World]) -> None:
        self._build = build
        """Objects as written and the facts to a world; raises RefusedError."""
        self.version = ""
        """The version held; `since` of the next request."""
        self.offered = ""
        """The version last offered, taken or not."""
        self._owed: FeedMessage | None = None
        """What was refused and is missing from what is held: differences that follow count from it."""
        self.raw: dict[str, bytes] = {}
        self._services: Mapping[str, Service] = {}
        self._endpoints: Mapping[str, tuple[Endpoint, ...]] = {}
        self._workloads: Mapping[str, Workload] = {}
        self._namespaces: Mapping[str, dict[str, str]] = {}
        self._drafts: dict[str, dict[str, Any]] = {}
        """By table of facts, what is to be put in or (None) taken out: a world may have the table as it is."""
        self._objects: dict[str, dict[str, Any]] = {}
        self._checks: dict[str, tuple[Check, ...]] = {}
        """Of the own workload: nobody else's are told."""
        self._checked: dict[str, tuple[Workload, tuple[Check, ...], Workload]] = {}
        """(workload, checks, both together) by workload, so that what did not change stays the same object."""
        self._number = 0
        self.asked: list[str] = []
        """What control wants to be told, by the last line."""
        self.uses: set[str] = set()
        """Hosts of services in use, or asked for."""
        self._touched: tuple[set[str], set[str], set[str]] | None = None
        """Hosts, workloads and namespaces of the last line that was taken; None: not known."""
        self._forgot = False
        self._provisional: dict[str, Provisional] = {}
        self._arrived: list[str] = []
        """Those of them that came with the latest line."""
        self._revoked: dict[str, revocations.Why] = {}
        self.revoked_number = 0
        """Grows when what is revoked changes."""
        self._diverged = False
        """We have gone back by ourselves: differences count from what we do not hold any more."""

    def apply(self, line: bytes) -> bool:
        """Take one line of the feed; whether it changed anything. Raises RefusedError, having taken nothing of it.

        A refused line is offered again together with the next, because control goes on from it.
        """
        try:
            message = _decode_message(line)
        except _UNREADABLE as error:
            raise UnreadableError([f"a line of the feed is not a message: {error}"]) from error
        self.asked = message.ask
        if not (message.full or message.set or message.remove or message.drop):
            if message.resumed:
                self.version = self.offered = message.version
                self._owed, self._diverged = None, False
            return False
        if self._diverged and not (message.full or message.resumed):
            self.version = ""
            raise UnreadableError(["what was provisional has been taken back here: control must send everything"])
        self.offered = message.version
        message = message.after(self._owed)
        decoded, reasons = {}, []
        for key, value in message.set.items():
            try:
                decoded[key] = self._read(key, bytes(value))
            except _UNREADABLE as error:
                reasons.append(f"{key}: {error}")
        self._owed = message if reasons else None
        if reasons:
            raise RefusedError(reasons)
        self._diverged = False
        self._touched = None if self._forgot else (set(), set(), set())
        self._forgot = False
        if message.full:
            self._clear(keep=set(message.set))
            self.uses.update(message.uses)
        for key in (*message.remove, *self._dropped(message)):
            self._drop(key)
        for key, value in message.set.items():
            octets = bytes(value)
            if message.full and self.raw.get(key) == octets:
                continue  # after a reconnection: the same object stays
            self.raw[key] = octets
            table, _, name = key.partition("/")
            self._put(table, name, decoded[key])
            self._note(table, name)
        self._settle()
        self._arrived = [key for key in message.set if key.startswith("provisional/")]
        self.version = message.version
        self._number += 1
        return True

    def digests(self) -> bytes:
        """Of what is held, one after the other."""
        return b"".join([item_digest(key, value) for key, value in self.raw.items()])

    def _dropped(self, message: FeedMessage) -> Iterable[str]:
        """Keys of what is not to be held any more."""
        if not message.drop:
            return ()
        dropped = {b64decode(one) for one in message.drop}
        kept = {*message.set, *message.keep}
        return [key for key, value in self.raw.items() if key not in kept and item_digest(key, value) in dropped]

    def missing(self, host: str) -> bool:
        """Whether a service's endpoints were not sent to us, as we do not use it."""
        return host in self._services and host not in self._endpoints

    # --- what is in force for a time ---------------------------------------------------------------------------------

    def arrived(self, now: float) -> bool:
        """The latest line came from control, not from disk: deadlines are put on our clock; whether there are any."""
        for key in self._arrived:
            one = self._provisional[key.partition("/")[2]]
            one.arrived(now)
            self.raw[key] = provisional.encode(one)
        return bool(self._arrived)

    def deadline(self) -> float | None:
        """When the next provisional objects end; None: there are none."""
        return min((one.deadline for one in self._provisional.values()), default=None)

    def take_back(self, now: float) -> list[str]:
        """Go back to what was before everything that is due; the names of what ended. Call `world` then."""
        ended = [name for name, one in self._provisional.items() if one.is_due(now)]
        for name in ended:
            for key, value in self._provisional[name].before.items():
                if bytes(value) == b"null":
                    self._drop(key)
                else:
                    table, _, rest = key.partition("/")
                    self.raw[key] = bytes(value)
                    self._put(table, rest, self._read(key, bytes(value)))
            self._drop(f"provisional/{name}")
        self._settle()
        if ended:
            self.version, self._owed, self._diverged, self._touched = "", None, True, None
            self._number += 1
        return ended

    def revoked(self) -> Revoked:
        """What control has taken back of certificates."""
        return Revoked({name: told.why for name, told in self._revoked.items()})

    def world(self) -> World:
        """The world of what is held; raises RefusedError with every reason."""
        with_checks: dict[str, Workload | None] = {}
        for key, checks in self._checks.items():
            if (workload := self._workloads.get(key)) is not None:
                before = self._checked.get(key)
                if before is None or before[0] is not workload or before[1] is not checks:
                    before = (workload, checks, msgspec.structs.replace(workload, checks=checks))
                    self._checked[key] = before
                with_checks[key] = before[2]
        workloads = amended(self._workloads, with_checks)
        changed = None if self._touched is None else Changed(*map(frozenset, self._touched))
        snapshot = Snapshot(self._number, self._services, self._endpoints, workloads, self._namespaces, changed=changed)
        return self._build(list(self._objects.values()), snapshot)

    def forget(self) -> None:
        """Hold nothing, so that control is asked for everything."""
        self._clear(keep=set())
        self._settle()
        self.version, self._owed, self._forgot, self._diverged = "", None, True, False

    def kept(self) -> Callable[[], bytes]:
        """What makes one full message of all that is held now, in any thread: what is kept on disk."""
        version, raw, uses = self.version, dict(self.raw), sorted(self.uses)

        def dump() -> bytes:
            items = {key: msgspec.Raw(value) for key, value in raw.items()}
            return msgspec.json.encode({"version": version, "full": True, "set": items, "uses": uses})

        return dump

    def tables(self) -> Iterable[str]:
        """First parts of the keys of items that we understand."""
        return TABLES

    def _put(self, table: str, name: str, value: Any) -> None:
        """None: take it out. What concerns facts is in their tables after `_settle`."""
        if table in FACTS:
            self._drafts.setdefault(table, {})[name] = value
        elif value is None:
            getattr(self, TABLES[table]).pop(name, None)
        else:
            getattr(self, TABLES[table])[name] = value

    def _settle(self) -> None:
        for table, changed in self._drafts.items():
            setattr(self, TABLES[table], amended(getattr(self, TABLES[table]), changed))
        self._drafts.clear()

    def _note(self, table: str, name: str) -> None:
        self.revoked_number += table == "revoked"
        if self._touched is not None and (at := NOTED.get(table)) is not None:
            self._touched[at].add(name)

    def _read(self, key: str, value: bytes) -> Any:
        table = key.partition("/")[0]
        if table == "service":
            return _decode_service(value)
        if table == "endpoints":
            return _decode_endpoints(value)
        if table == "workload":
            return _decode_workload(value)
        if table == "checks":
            return _decode_checks(value)
        if table == "namespace":
            return _decode_labels(value)
        if table == "object":
            body = _decode_any(value)
            if not isinstance(body, dict):
                raise ValueError("expected an object")
            return body
        if table == "provisional":
            return provisional.decode(value)
        if table == "revoked":
            return revocations.read(key.partition("/")[2], value)
        raise ValueError("a kind of item that this version of fairlead does not know: upgrade the sidecar")

    def _clear(self, keep: set[str]) -> None:
        for key in [key for key in self.raw if key not in keep]:
            self._drop(key)

    def _drop(self, key: str) -> None:
        if self.raw.pop(key, None) is not None:
            table, _, name = key.partition("/")
            self._put(table, name, None)
            self._note(table, name)


def build_world(objects: list[dict[str, Any]], snapshot: Snapshot, loader: Loader | None = None) -> World:
    """Objects of the feed to a world; raises RefusedError with everything that is wrong."""
    loader = loader or Loader()
    known = loader.again(objects, snapshot)  # what changes most often is an endpoint
    if known is not None:
        return known
    documents = [Document.of(body, f"control:{_revision(body)}") for body in objects]
    world, reports = loader.load(documents, snapshot, references=False)
    reasons = [
        f"{report.kind} {report.namespace}/{report.name}: {told.path}: {told.message}"
        for report in reports
        for told in report.errors
    ]
    if reasons:
        raise RefusedError(reasons)
    return world


def _revision(body: Mapping[str, Any]) -> str:
    metadata = body.get("metadata")
    return str(metadata.get("resourceVersion", "")) if isinstance(metadata, dict) else ""
