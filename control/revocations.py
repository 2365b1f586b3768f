"""What was taken back of certificates before their end, as kept in the store: by certificate, workload, service account
or token.

    serial:HEX          one certificate; refused here and, by all proxies, in handshakes, until it would have ended
    account:NAME        a service account: gets no certificate, and none that it has is believed, until it is restored
    workload:NAME       a workload: gets no certificate and no feed by its name, until it is restored
    token:ID            what was issued by a token that is revoked; goes with the last of it

Each leads to the certificates that follow from it (`following`): those of the workload, the account or the token that
are on record, and whatever was issued to who showed one of these. So what is renewed from a stolen certificate goes
with it, under whichever name, and nothing of it comes back when the account is restored. Each control plane looks
through its own record, when it hears of an entry and when it starts, so what one has just issued while another revoked
is found, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from .issued import IssuedLeaf
from .store import Change, Key, Objects, Stored, Write

RESOURCE = "revocations.internal.fairlead.dev"
"""Not in the catalog: the object API does not show it."""
SERIAL, ACCOUNT, WORKLOAD, TOKEN = "serial", "account", "workload", "token"
REASON_MOST = 200
"""Characters of a reason that proxies are told, for their log."""


NOT_REFUSED = (
    "revoked certificates are not refused in handshakes: revoke their service account, from which nothing is let in, "
    "or deny it with an AuthorizationPolicy"
)
"""Of Envoy and gRPC."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Something that was taken back."""

    kind: str
    name: str
    """Hexadecimal, or without namespace."""
    namespace: str = ""
    by: str = ""
    reason: str = ""
    at: float = 0.0
    ends: float = 0.0
    """Unix seconds; 0: when it is restored."""
    identity: str = ""
    """Of a certificate."""
    workload: str = ""
    because: str = ""
    """The entry that this one follows from; empty: it was asked for."""

    @property
    def key(self) -> Key:
        return Key(RESOURCE, self.namespace, f"{self.kind}:{self.name}")

    @property
    def title(self) -> str:
        """As people name it."""
        return title_of(self.kind, self.namespace, self.name)

    def told(self) -> str:
        """Who, and why."""
        cause = f", as {self.because} was" if self.because else ""
        return f"by {self.by}{cause}{f': {self.reason}' if self.reason else ''}"[:REASON_MOST]


def title_of(kind: str, namespace: str, name: str) -> str:
    word = {SERIAL: "certificate", ACCOUNT: "service account"}.get(kind, kind)
    return f"{word} {namespace}/{name}" if namespace else f"{word} {name}"


def entry_of(stored: Stored) -> Entry | None:
    try:
        return msgspec.convert(stored.object()["entry"], Entry)
    except (KeyError, msgspec.ValidationError):
        return None  # of another version


def write_of(entry: Entry) -> Write:
    """The write of a new one; a conflict: it is there already."""
    body: dict[str, Any] = {"metadata": {"name": entry.key.name}, "entry": msgspec.to_builtins(entry)}
    if entry.namespace:
        body["metadata"]["namespace"] = entry.namespace
    return Write(entry.key, body, expect=0)


class Revocations:
    """All that are in the store now, for who asks at each request. `changed` is told of what came and went."""

    def __init__(self, memory: Objects) -> None:
        self._memory = memory
        self.entries: dict[Key, Entry] = {}
        self.changed: list[Callable[[Mapping[Key, Entry | None]], None]] = []
        for stored in memory.all(RESOURCE):
            if (entry := entry_of(stored)) is not None:
                self.entries[stored.key] = entry
        memory.subscribe(self._take)

    def _take(self, changes: Sequence[Change]) -> None:
        news: dict[Key, Entry | None] = {}
        for change in changes:
            if change.key.resource == RESOURCE:
                entry = entry_of(change.after) if change.after is not None else None
                news[change.key] = entry
                if entry is None:
                    self.entries.pop(change.key, None)
                else:
                    self.entries[change.key] = entry
        if news:
            for tell in self.changed:
                tell(news)

    def of(self, kind: str, namespace: str, name: str) -> Entry | None:
        return self.entries.get(Key(RESOURCE, namespace, f"{kind}:{name}"))

    def why(self, namespace: str, account: str, serial: str = "", workload: str = "") -> str:
        """Why who shows this is refused; empty: it is not. `serial`: hexadecimal."""
        for kind, where, name in ((SERIAL, "", serial), (ACCOUNT, namespace, account), (WORKLOAD, namespace, workload)):
            entry = self.of(kind, where, name) if name else None
            if entry is not None:
                return f"{entry.title} was revoked {entry.told()}"
        return ""

    def why_leaf(self, leaf: IssuedLeaf) -> str:
        """Why a certificate that was just issued is not handed out: something was revoked meanwhile."""
        cause = self._cause(leaf, {})
        return f"{cause.title} was revoked {cause.told()}" if cause is not None else ""

    def _cause(self, leaf: IssuedLeaf, more: Mapping[str, Entry]) -> Entry | None:
        """The entry that takes this certificate with it. `more`: by serial, besides those that are kept."""
        parent = (more.get(leaf.parent) or self.of(SERIAL, "", leaf.parent)) if leaf.parent else None
        if parent is not None:
            return parent
        if leaf.token and (found := self.of(TOKEN, "", leaf.token)) is not None:
            return found
        namespace, _, name = leaf.workload.partition("/")
        return self.of(WORKLOAD, namespace, name) or self.of(ACCOUNT, *account_of(leaf.identity))

    def following(self, leaves: Iterable[IssuedLeaf], now: float) -> list[Entry]:
        """Entries for certificates that follow from what is revoked, and have none yet."""
        found: dict[str, Entry] = {}
        if not self.entries:
            return []
        for leaf in sorted(leaves, key=lambda leaf: leaf.issued_at):  # each after the one that was shown for it
            if leaf.not_after <= now or self.of(SERIAL, "", leaf.serial) is not None:
                continue
            cause = self._cause(leaf, found)
            if cause is not None:
                because = cause.because or cause.title
                found[leaf.serial] = of_leaf(leaf, cause.by, cause.reason, now, because)
        return list(found.values())

    def outdated(self, now: float) -> list[Write]:
        """Writes that forget what has ended by itself."""
        return [
            Write(key, None, expect=stored.version)
            for key, entry in self.entries.items()
            if entry.ends and entry.ends <= now and (stored := self._memory.get(key)) is not None
        ]

    def accounts(self) -> list[tuple[str, str]]:
        """Service accounts, as (namespace, name)."""
        return [(entry.namespace, entry.name) for entry in self.entries.values() if entry.kind == ACCOUNT]

    def in_handshakes(self) -> bool:
        """Whether proxies have anything to refuse."""
        return any(entry.kind in (SERIAL, ACCOUNT) for entry in self.entries.values())

    def listed(self) -> list[Entry]:
        """The latest first."""
        return sorted(self.entries.values(), key=lambda entry: (-entry.at, entry.kind, entry.namespace, entry.name))


def of_leaf(leaf: IssuedLeaf, by: str, reason: str, now: float, because: str = "") -> Entry:
    return Entry(SERIAL, leaf.serial, "", by, reason, now, leaf.not_after, leaf.identity, leaf.workload, because)


def account_of(identity: str) -> tuple[str, str]:
    """(namespace, service account) of a SPIFFE id."""
    parts = identity.split("/")
    return (parts[4], parts[6]) if len(parts) == 7 else ("", "")


def item_of(key: Key, entry: Entry | None) -> tuple[str, dict[str, Any] | None]:
    """The item of the feed; an empty key: proxies need not know of it, since its certificates are named themselves."""
    kind, _, name = key.name.partition(":")
    if kind == SERIAL:
        item = f"revoked/serial:{name}"
    elif kind == ACCOUNT:
        item = f"revoked/account:{key.namespace}/{name}"
    else:
        return "", None
    return item, {"why": entry.told()} if entry is not None else None


def items_of(news: Mapping[Key, Entry | None]) -> dict[str, dict[str, Any] | None]:
    made = (item_of(key, entry) for key, entry in news.items())
    return {item: body for item, body in made if item}


def matching(objects: Objects, because: str) -> Iterator[Stored]:
    """The certificates that were revoked because something was."""
    for stored in objects.all(RESOURCE):
        entry = entry_of(stored)
        if entry is not None and entry.because == because:
            yield stored
