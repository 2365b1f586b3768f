"""What policies that are only tried out would refuse, and what AUDIT policies note: no verdict changes by either.

A policy is a dry run by annotation (`istio.io/dry-run: "true"`, or `fairlead.dev/dry-run: "true"`). Those are judged as
if all of them were in force beside the others: a DENY that matches, an ALLOW or a NetworkPolicy in whose company
nothing would admit the request any more. What is refused as it is counts for none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..registry.model import Workload
from ..registry.snapshot import Snapshot
from .authorize import Rule, selects_workload
from .authorize_values import Subject
from .network_policy import Isolation, is_dry_run, isolation_of
from .peer import Peer
from .resources import AuthorizationPolicy, NetworkPolicy, Resources


class Note:
    """`kind`: dry-run or audit; `by`: the policy, with its rule where one matched."""

    __slots__ = ("by", "kind")

    def __init__(self, kind: str, by: str) -> None:
        self.kind = kind
        self.by = by

    def __str__(self) -> str:
        return f"{self.kind} {self.by}"


class Shadow:
    """Of one workload: its policies that are tried out, and those that note."""

    __slots__ = (
        "_allow",
        "_audit",
        "_deny",
        "_egress",
        "_egress_names",
        "_granted",
        "_ingress",
        "_ingress_names",
        "_open",
    )

    def __init__(self, resources: Resources, snapshot: Snapshot, workload: Workload) -> None:
        mesh = resources.mesh.spec
        self._deny: list[Rule] = []
        self._allow: list[str] = []
        """Names of ALLOW policies that are tried out."""
        self._granted: list[Rule] = []
        """The rules of all ALLOW policies, in force or not."""
        self._audit: list[Rule] = []
        self._open = True
        """No ALLOW policy is in force."""
        for policy in resources.authorization_policies:
            if selects_workload(policy, workload, mesh.root_namespace):
                self._take(policy, resources)
        self._ingress, self._ingress_names = _isolation(resources.network_policies, snapshot, workload, "Ingress")
        self._egress, self._egress_names = _isolation(resources.network_policies, snapshot, workload, "Egress")

    def _take(self, policy: AuthorizationPolicy, resources: Resources) -> None:
        action, tried = policy.spec.action, is_dry_run(policy.meta)
        refuses = action not in ("ALLOW", "AUDIT")
        name = f"AuthorizationPolicy {policy.meta.key}"
        rules = [
            Rule(rule, f"{name} rule {index}", policy.meta.namespace, resources.mesh.spec, refuses)
            for index, rule in enumerate(policy.spec.rules or [])
        ]
        if action == "AUDIT":
            self._audit += [] if tried else rules
        elif action == "ALLOW":
            self._granted += rules
            if tried:
                self._allow.append(name)
            else:
                self._open = False
        elif tried:
            self._deny += rules

    @property
    def empty(self) -> bool:
        return not (self._deny or self._allow or self._audit or self._ingress or self._egress)

    @property
    def outbound(self) -> bool:
        """Whether anything is to be said of what goes out."""
        return self._egress is not None

    def came_in(self, subject: Subject, http: bool, allowed: bool) -> Iterator[Note]:
        """Of a request (`http`) or a connection that came in; `allowed`: nothing in force refused it."""
        for rule in self._audit:
            if not rule.failure(subject, http):
                yield Note("audit", rule.name)
        if not allowed:
            return
        if self._ingress is not None and not self._ingress.verdict(subject.peer, subject.port).allowed:
            yield from (Note("dry-run", name) for name in self._ingress_names)
        for rule in self._deny:
            if not rule.failure(subject, http):
                yield Note("dry-run", rule.name)
        if self._allow and self._open:
            usable = self._granted if http else [rule for rule in self._granted if not rule.needs_request]
            if all(rule.failure(subject, http) for rule in usable):
                yield from (Note("dry-run", name) for name in self._allow)

    def went_out(self, peer: Peer, port: int) -> Iterator[Note]:
        """Of what went to `port` of an endpoint."""
        if self._egress is not None and not self._egress.verdict(peer, port).allowed:
            yield from (Note("dry-run", name) for name in self._egress_names)


def _isolation(
    policies: Sequence[NetworkPolicy], snapshot: Snapshot, workload: Workload, direction: str
) -> tuple[Isolation | None, list[str]]:
    """The isolation that the policies which are tried out would bring, and their names. A workload that is isolated
    already would only be opened by more of them."""
    if isolation_of(policies, snapshot, workload, direction) is not None:
        return None, []
    tried = isolation_of(policies, snapshot, workload, direction, dry_run=True)
    return tried, tried.names if tried is not None else []


def shadow_of(resources: Resources, snapshot: Snapshot, workload: Workload) -> Shadow | None:
    """None where nothing is tried out or noted."""
    if not any(
        policy.spec.action == "AUDIT" or is_dry_run(policy.meta) for policy in resources.authorization_policies
    ) and not any(is_dry_run(policy.meta) for policy in resources.network_policies):
        return None
    made = Shadow(resources, snapshot, workload)
    return None if made.empty else made
