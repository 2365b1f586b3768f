"""Who vouches for what workloads say of themselves: WorkloadGroups, tokens, and where they are seen to come from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from ..registry.snapshot import Snapshot
from . import grants, tokens
from .claims import Claim, Grant, Judged, believed, groups_of, judge
from .feed_server import Member
from .sidecars import Known
from .store import Objects


class Vouching:
    """`objects`: the store's; `is_ours(address)`: whether control's host has this address; `clock`: Unix seconds."""

    def __init__(
        self,
        objects: Objects,
        snapshot: Callable[[], Snapshot],
        is_ours: Callable[[str], bool],
        clock: Callable[[], float],
        connected: Callable[[str], bool] = lambda _workload: False,
    ) -> None:
        """`connected(workload)`: whether a reader of the feed is this one."""
        self._objects = objects
        self._snapshot = snapshot
        self._is_ours = is_ours
        self._clock = clock
        self._is_connected = connected
        self._groups: dict[str, list[Grant]] = {}
        """By source."""
        self._proved: dict[str, str] = {}
        """The service account that the sidecar of a workload authenticated as; it goes before what it says."""
        self._judged: dict[str, tuple[tuple[Claim, str, str, int], Judged]] = {}
        """What was found of each, and of what: it is asked for all whenever one of them moves."""
        self._epoch = 0
        self._tokens: dict[str, str] = {}
        """Id of the token that it showed last."""
        self._idle: set[str] = set()
        """Workloads of these that were not there at the last look, and have not come since."""

    def groups(self, source: str, objects: Mapping[str, Mapping[str, Any]]) -> bool:
        """The objects of a source by item key, or its WorkloadGroups among them; whether these are others."""
        before, self._groups[source] = self._groups.get(source, []), groups_of(objects)
        if before == self._groups[source]:
            return False
        self.changed()
        return True

    def changed(self, workload: str = "") -> None:
        """Groups or tokens are others, or what was given to this workload."""
        if workload:
            self._judged.pop(workload, None)
        else:
            self._epoch += 1

    def prove(self, workload: str, service_account: str, token: str = "") -> None:
        """Who acts for this workload has shown that it is of this service account, and no more."""
        self._proved[workload] = service_account
        self._tokens[workload] = token
        self._idle.discard(workload)

    def prune(self) -> None:
        """Forget whose a workload is that was there neither now nor at the last look. To be called now and then, at
        intervals longer than it takes to come once an account is shown."""
        workloads = self._snapshot().workloads
        absent = {key for key in self._proved if key not in workloads and not self._is_connected(key)}
        for key in absent & self._idle:
            for table in (self._proved, self._tokens, self._judged):
                table.pop(key, None)
        self._idle = absent - self._idle

    def holder(self, workload: str) -> str | None:
        """The service account whose workload (namespace/name) this is: as declared, else of who came first. None: it is
        nobody's yet."""
        known = self._snapshot().workloads.get(workload)
        if (declared := self.declared(workload)) is not None:
            return declared
        proved = self._proved.get(workload)
        if proved and (known is not None or self._is_connected(workload)):
            return proved
        return known.service_account if known is not None else None

    def declared(self, workload: str) -> str | None:
        """The service account that a source states for it; None: none does."""
        known = self._snapshot().workloads.get(workload)
        return known.service_account if known is not None and known.source != "sidecars" else None

    def takes_over(self, namespace: str, workload: str, service_account: str, token: str = "") -> bool:
        """Whether who comes now may have a name that somebody else has taken: it was given to this one (a token made
        with --workload), and to that one was not."""
        key = f"{namespace}/{workload}"
        other = self.holder(key)
        if other in (None, service_account) or self.declared(key) is not None:
            return False
        mine, theirs = (service_account, token), (str(other), self._tokens.get(key, ""))
        return self._named(namespace, workload, *mine) and not self._named(namespace, workload, *theirs)

    def _named(self, namespace: str, workload: str, account: str, token: str) -> bool:
        return any(one.workload for one in self._given(namespace, workload, account, token))

    def by_token(self, tokens: Collection[str]) -> frozenset[str]:
        """Workloads that came by one of these tokens."""
        return frozenset(workload for workload, token in self._tokens.items() if token in tokens)

    def proved(self, workload: str) -> bool:
        return workload in self._proved

    def account(self, workload: str, said: str) -> str:
        return self._proved.get(workload) or said

    def judge(self, namespace: str, workload: str, claim: Claim) -> Judged:
        key = f"{namespace}/{workload}"
        account = self._proved.get(key)
        known = self._snapshot().workloads.get(key)
        if account is None or (known is not None and known.source != "sidecars"):
            return believed(claim)
        state = (claim, account, self._tokens.get(key, ""), self._epoch)
        kept_of = self._judged.get(key)
        if kept_of is None or kept_of[0] != state:
            kept_of = self._judged[key] = state, self._look(namespace, workload, claim, account)
        return kept_of[1]

    def _look(self, namespace: str, workload: str, claim: Claim, account: str) -> Judged:
        key = f"{namespace}/{workload}"
        found = self._given(namespace, workload, account, self._tokens.get(key, ""))
        return judge(claim, key, account, found, self._is_ours)

    def _given(self, namespace: str, workload: str, account: str, shown: str) -> list[Grant]:
        """What groups, the token of this id and those before it give."""
        found = [
            one for of_source in self._groups.values() for one in of_source if one.for_(namespace, account, workload)
        ]
        kept = grants.find(self._objects, namespace, account, workload, self._clock())
        if kept is not None and kept.for_(namespace, account, workload):
            found.append(kept)
        token = tokens.known(self._objects, shown)
        given = grants.of_token(token) if token is not None else None
        if given is not None and given != kept and given.for_(namespace, account, workload):
            found.append(given)
        return found

    def vouch(self, member: Member) -> tuple[Judged, list[str]]:
        """Reduce a member to what of it counts; (that, what is newly found not to, and why)."""
        judged = self.judge(member.namespace, member.workload, member.claimed)
        member.labels, member.address = judged.labels, judged.address
        member.group = judged.grant.group if judged.grant is not None else ""
        before, member.not_believed = member.not_believed, list(judged.refused)
        return judged, [why for why in judged.refused if why not in before]

    def known(self, member: Member, judged: Judged) -> Known:
        """A member as the registry is to have it."""
        made = Known(
            member.namespace, member.workload, judged.address, member.mesh_port,
            member.proved or self.account(f"{member.namespace}/{member.workload}", member.service_account),
            judged.labels,
            tuple(member.ports), member.role == "gateway", member.leaving, member.checked,
            "" if member.ready else member.why or "not ready", named=judged.named,
            proved=bool(member.proved),
        )  # fmt: skip
        of = judged.grant
        if of is None or not of.group:
            return made
        return msgspec.structs.replace(
            made, service_ports=of.ports, locality=of.locality, weight=of.weight, checks=of.checks
        )
