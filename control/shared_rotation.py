"""Shell: a rotation of the root that several control planes of one store take part in.

The key of an authority is never in the store, so each control plane has the files of the successor in its own folder,
put there by the operator. In the store stand how far the rotation is and the new root, which every control plane
distributes from then on, with the key or without. A step is taken by the control plane that is asked, once it is safe
for the sidecars of all of them and every living control plane can follow; then the others follow by themselves, also
those that were away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..mesh.authority_checks import fingerprint
from .authority_files import Issuer
from .issued import Issued
from .rotation import DISTRIBUTING, ISSUING, Holder, RotationError
from .shared_issued import SharedIssued
from .shared_sidecars import AUTHORITY, OWN, SharedSidecars, Trust, certificates
from .store import Change, Key, Write
from .store_shared import SharedStore

RESOURCE = "rotations.internal.fairlead.dev"
KEY = Key(RESOURCE, "", "root")
FINISHED = "finished"
logger = logging.getLogger("fairlead.certificates")


class Shared(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the rotation is."""

    phase: str = ""
    """distributing, issuing, finished; empty: it was given up."""
    since: float = 0.0
    root: str = ""
    """SHA-256 of the new root."""
    pem: str = ""


class SharedRotation:
    """`issuer`: an authority with its key in a file; that of Vault rotates by itself."""

    def __init__(
        self, store: SharedStore, sidecars: SharedSidecars, issuer: Any, issued: SharedIssued, where: str,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._store = store
        self._sidecars = sidecars
        self._issuer = issuer
        self._issued = issued
        self._clock = clock
        self._stepping = False
        self._told = ""
        sidecars.trust = lambda: Trust(where, self._successor(), issuer.issuer())
        sidecars.on_beat.append(self.beat)
        self._unsubscribe = store.memory.subscribe(self._heard)
        self.follow()

    def close(self) -> None:
        self._unsubscribe()

    def _heard(self, changes: Sequence[Change]) -> None:
        if any(change.key == KEY for change in changes):
            self.follow()

    async def beat(self) -> None:
        """Every few seconds. Raises StoreError."""
        self.follow()
        issuer = self._issuer
        if isinstance(issuer, Issuer) and issuer.phase == DISTRIBUTING and not self._stepping:
            shared = self.read()  # begun when we were alone, or died before others were told
            if self._store.memory.get(KEY) is None or shared.root == fingerprint(issuer.current.root):
                await self._say(DISTRIBUTING, issuer.since)
        await self._issued.write(self._clock())

    def _successor(self) -> str:
        """Of the newest root that we have the key of; empty: it is not ours to say (Vault)."""
        issuer = self._issuer
        if not isinstance(issuer, Issuer):
            return ""
        return fingerprint((issuer.successor or issuer.current).root)

    def read(self) -> Shared:
        stored = self._store.memory.get(KEY)
        return msgspec.convert(stored.object()["rotation"], Shared) if stored is not None else Shared()

    # --- following --------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Go as far as the store says, if we can; what stands in the way is logged and shown."""
        if self._stepping or not isinstance(self._issuer, Issuer) or self._store.memory.get(KEY) is None:
            return
        problem = ""
        try:
            self._follow(self._issuer, self.read())
        except (RotationError, ValueError, OSError) as error:
            problem = str(error)
        if problem and problem != self._told:
            logger.error("the rotation of the root: %s", problem)
        self._told = problem

    def _follow(self, issuer: Issuer, shared: Shared) -> None:
        """Raises RotationError, ValueError, OSError."""
        if not shared.phase:
            issuer.announce("")
            if issuer.phase == DISTRIBUTING:
                issuer.abort()
            return
        if fingerprint(issuer.current.root) == shared.root:
            issuer.announce("")
            issuer.outdated = ""
            return  # we have it behind us
        issuer.announce(shared.pem)
        if shared.phase == FINISHED:
            issuer.outdated = f"the root was rotated: {self._lacks(shared)}"
        if issuer.next_root() != shared.root:
            raise RotationError(self._lacks(shared))
        if not issuer.phase:
            issuer.begin(shared.since)
        if shared.phase in (ISSUING, FINISHED) and issuer.phase == DISTRIBUTING:
            issuer.activate(self._clock())
        if shared.phase == FINISHED:
            issuer.finish(self._clock())
            issuer.announce("")
            issuer.outdated = ""

    def _lacks(self, shared: Shared) -> str:
        names = ("ca.pem", "ca-key.pem") if shared.phase == FINISHED else ("next-ca.pem", "next-ca-key.pem")
        return (
            f"copy {names[0]} and {names[1]} of a control plane that has the new root ({shared.root[:16]}...) to "
            f"{self._issuer.folder}/next-ca.pem and next-ca-key.pem"
        )

    # --- leading ----------------------------------------------------------------------------------------------------

    def holders(self) -> list[Holder]:
        """Sidecars of other control planes."""
        return self._sidecars.holders()

    async def issued(self, older: bool = False) -> tuple[Issued, bool]:
        """Raises StoreError."""
        return await self._issued.all(self._clock(), older)

    async def waits(self, phase: str) -> list[str]:
        """What the step after this phase has to wait for at other control planes. Raises StoreError."""
        await self._sidecars.look()
        found = []
        for name, trust in self._sidecars.trusts().items():
            who = f"control plane {trust.where or name}"
            if not trust.where:
                found.append(f"{who} does not say how far it is: it is of an older version, or has too much to say")
            elif phase == DISTRIBUTING and trust.successor != self._successor():
                found.append(f"{who} has no key of the new root: copy next-ca.pem and next-ca-key.pem from "
                             f"{self._issuer.folder} into its --data-dir")  # fmt: skip
            elif phase == ISSUING and trust.signer != self._issuer.issuer():
                found.append(f"{who} does not issue by the new root yet")
        return found

    async def step(self, phase: str, since: float, take: Callable[[], None]) -> None:
        """Say in the store how far it is, then take the step here. Raises StoreError, RotationError."""
        issuer = self._issuer
        if phase == DISTRIBUTING and self.read().phase in (DISTRIBUTING, ISSUING):
            raise RotationError("a rotation is under way at another control plane: `fairlead certs` there shows it")
        self._stepping = True
        try:
            if phase == DISTRIBUTING:
                take()  # makes the successor
            elif phase == FINISHED:
                issuer.may_finish()
            try:
                await self._say(phase, since)
            except BaseException:
                if phase == DISTRIBUTING:
                    issuer.abort()
                raise
            if phase != DISTRIBUTING:
                take()
        finally:
            self._stepping = False

    async def _say(self, phase: str, since: float) -> None:
        """Raises StoreError."""
        memory, successor = self._store.memory, self._issuer.successor
        shared = Shared(phase, since, fingerprint(successor.root), _root_pem(successor)) if phase else Shared()
        writes = [_write(KEY, {"rotation": msgspec.to_builtins(shared)}, memory.get(KEY))]
        if phase == FINISHED:  # who comes with the old one alone is not of this authority any more
            writes.append(_write(AUTHORITY, {"certificates": certificates(successor.roots)}, memory.get(AUTHORITY)))
        await self._store.write(writes, OWN)


def _root_pem(authority: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return str(authority.root.public_bytes(Encoding.PEM).decode())


def _write(key: Key, body: Mapping[str, Any], stored: Any) -> Write:
    return Write(key, {"metadata": {"name": key.name}, **body}, expect=stored.version if stored is not None else 0)
