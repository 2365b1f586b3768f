"""AuthorizationPolicy: DENY, then ALLOW, for requests, for opaque connections, and for what is not yet known.

Three questions are asked of a rule: does it match this request; does it match this opaque TCP connection (where HTTP
conditions drop an ALLOW rule and widen a DENY rule, as in Istio); and, before anything was read, may it match some
request, must it match every request. AUDIT rules change no verdict, nor do policies that are dry runs (dry_run.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..registry.model import Workload
from .authorize_values import Group, Subject, add_condition, operation_group, seen, source_group
from .network_policy import is_dry_run
from .resources import (
    AuthorizationPolicy,
    AuthorizationRule,
    MeshConfigSpec,
)
from .tables import Verdict
from .trace import Trace, note
from .visibility import labels_hold

ALLOWED = Verdict(True, "", "no AuthorizationPolicy applies")


class Rule:
    __slots__ = ("_from", "_to", "_when", "name", "needs_request")

    def __init__(
        self, rule: AuthorizationRule, name: str, namespace: str, mesh: MeshConfigSpec, refuses: bool = False
    ) -> None:
        """`refuses`: where it matches, the request is denied."""
        self.name = name
        self._from = [source_group(one.source, namespace, mesh) for one in rule.from_]
        self._to = [operation_group(one.operation) for one in rule.to]
        self._when = Group()
        for condition in rule.when:
            add_condition(condition, self._when, namespace, mesh, refuses)
        self.needs_request = any(group.upper for group in (*self._from, *self._to, self._when))

    @property
    def path(self) -> str:
        return f"spec.rules[{self.name.rpartition(' ')[2]}]"

    def failure(self, subject: Subject, upper: bool = True) -> str:
        """Empty where the rule matches, else the condition that failed. `upper` False leaves HTTP conditions out."""
        for kind, groups in (("from", self._from), ("to", self._to)):
            failures = [group.failure(subject, upper) for group in groups]
            if failures and all(failures):
                return f"{kind}: " + "; ".join(dict.fromkeys(failures))
        failure = self._when.failure(subject, upper)
        return f"when: {failure}" if failure else ""

    def told(self, subject: Subject, upper: bool) -> tuple[str, str]:
        """(in words what was seen and what is wanted, field) of the failure; for explain."""
        for kind, groups in (("from", self._from), ("to", self._to)):
            failures = [group.failure(subject, upper) for group in groups]
            if failures and all(failures):
                told = "; ".join(dict.fromkeys(f"{seen(one, subject)}" for one in failures))
                path = f".{kind}[0]" if len(failures) == 1 else f".{kind}"
                return f"{kind}: {told}", self.path + path
        failure = self._when.failure(subject, upper)
        return (f"when: {seen(failure, subject)}", f"{self.path}.when") if failure else ("", self.path)

    def certain(self, subject: Subject) -> bool:
        """Whether it matches every request that may come on this connection."""
        for groups in (self._from, self._to):
            if groups and not any(not group.upper and not group.failure(subject, False) for group in groups):
                return False
        return not self._when.upper and not self._when.failure(subject, False)


class Authorizer:
    """All AuthorizationPolicies of one workload."""

    __slots__ = ("_allow", "_allow_names", "_audit", "_deny", "empty")

    def __init__(self, policies: Sequence[AuthorizationPolicy], workload: Workload, mesh: MeshConfigSpec) -> None:
        self._deny: list[Rule] = []
        self._allow: list[Rule] = []
        self._audit: list[Rule] = []
        self._allow_names: list[str] = []
        for policy in policies:
            if not applies(policy, workload, mesh.root_namespace):
                continue
            refuses = policy.spec.action not in ("ALLOW", "AUDIT")
            rules = [
                Rule(rule, f"AuthorizationPolicy {policy.meta.key} rule {index}", policy.meta.namespace, mesh, refuses)
                for index, rule in enumerate(policy.spec.rules or [])
            ]
            if policy.spec.action == "ALLOW":
                self._allow += rules
                self._allow_names.append(f"AuthorizationPolicy {policy.meta.key}")
            elif policy.spec.action == "AUDIT":
                self._audit += rules
            else:  # DENY, and CUSTOM, which is refused by validation and fails closed here
                self._deny += rules
        self.empty = not (self._deny or self._allow_names)

    def request(self, subject: Subject, trace: Trace | None = None) -> Verdict:
        """The verdict on an HTTP request."""
        if trace is not None:
            for rule in self._audit:
                _note(trace, rule, "audit", subject, True)
        for rule in self._deny:
            failure = rule.failure(subject)
            _note(trace, rule, "deny", subject, True)
            if not failure:
                return Verdict(False, rule.name, f"{rule.name} (DENY) matches")
        return self._allowed(subject, self._allow, True, trace)

    def connection(self, subject: Subject, trace: Trace | None = None) -> Verdict:
        """The verdict on an opaque TCP connection."""
        for rule in self._deny:
            failure = rule.failure(subject, False)
            _note(trace, rule, "deny", subject, False)
            if not failure:
                return Verdict(False, rule.name, f"{rule.name} (DENY) matches the connection")
        usable = [rule for rule in self._allow if not rule.needs_request]
        for rule in self._allow if trace is not None else ():
            if trace is not None and rule.needs_request:
                why = "it asks about requests (methods, paths, headers), and an opaque connection has none"
                note(trace, "authorization", rule.name, "no match", why, rule.name.partition(" rule ")[0], rule.path)
        return self._allowed(subject, usable, False, trace)

    def rules(self) -> list[tuple[str, Rule]]:
        """(deny or allow, rule) in the order in which they are asked."""
        return [("deny", rule) for rule in self._deny] + [("allow", rule) for rule in self._allow]

    def unread(self, subject: Subject) -> Verdict:
        """Before anything was read: refused only where no request at all would be allowed."""
        for rule in self._deny:
            if rule.certain(subject):
                return Verdict(False, rule.name, f"{rule.name} (DENY) matches whatever is asked")
        return self._allowed(subject, self._allow, False, None)

    def _allowed(self, subject: Subject, rules: Sequence[Rule], upper: bool, trace: Trace | None) -> Verdict:
        if not self._allow_names:
            return ALLOWED if self.empty else Verdict(True, "", "no DENY rule matches, and there is no ALLOW policy")
        for rule in rules:
            failure = rule.failure(subject, upper)
            _note(trace, rule, "allow", subject, upper)
            if not failure:
                return Verdict(True, rule.name, f"{rule.name} (ALLOW) matches")
        names = ", ".join(self._allow_names)
        return Verdict(False, self._allow_names[0], f"no rule of {names} (ALLOW) matches {subject.peer.label}")


def _note(trace: Trace | None, rule: Rule, action: str, subject: Subject, upper: bool) -> None:
    if trace is not None:
        failure, path = rule.told(subject, upper)
        resource = rule.name.partition(" rule ")[0]
        note(trace, "authorization", rule.name, "no match" if failure else action,
             failure or "every condition holds", resource, path)  # fmt: skip


def applies(policy: AuthorizationPolicy, workload: Workload, root_namespace: str) -> bool:
    """Whether the policy is in force for the workload; one that is a dry run is for none (dry_run.py)."""
    return not is_dry_run(policy.meta) and selects_workload(policy, workload, root_namespace)


def selects_workload(policy: AuthorizationPolicy, workload: Workload, root_namespace: str) -> bool:
    """Whether the policy selects the workload; in the root namespace it does so everywhere in the mesh."""
    if policy.meta.namespace not in (root_namespace, workload.namespace):
        return False
    selector = policy.spec.selector
    return selector is None or labels_hold(selector.match_labels, workload.labels)
