"""The door of the control API: what a request wants, whether that is permitted, and what nobody may grant or change.

Permissions are those of `rbac`. Beyond them: nobody may write a role with rules that they do not have, nor bind one
(unless they have `escalate`, `bind`), and nobody makes a namespace by the way who may not create namespaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from . import rbac
from .api_request import Target
from .auth import WORKLOAD, Principal
from .catalog import Resource
from .rbac import Attributes, Decision, Rbac, Rule, User
from .status import Cause, StatusError, invalid, qualified
from .store import Key, Objects

OURS = "/fairlead/"
"""Paths that name no resource."""
GROUPED_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "HEAD": "get", "DELETE": "delete"}
FULL = (Rule(frozenset("*"), frozenset("*"), frozenset("*")), Rule(frozenset("*"), paths=("*",)))
"""What somebody must have who gathers roles by labels: nobody knows what these will hold."""


def attributes_of(method: str, raw_path: str, query: Mapping[str, str]) -> Attributes:
    """What a request wants (apimachinery's RequestInfo). The path is taken apart as `parse_path` does it."""
    if raw_path.startswith(OURS):
        return _of_ours(method, raw_path)  # thousands a second, by few paths
    return _attributes_of(method, raw_path, query)


def _attributes_of(method: str, raw_path: str, query: Mapping[str, str]) -> Attributes:
    steps = [unquote(step) for step in raw_path.split("/")[1:]]
    if steps and steps[-1] == "":
        steps.pop()
    if steps[:1] == ["api"] and len(steps) > 2:
        group, rest = "", steps[2:]
    elif steps[:1] == ["apis"] and len(steps) > 3:
        group, rest = steps[1], steps[3:]
    else:
        return Attributes(method.lower() if method != "HEAD" else "get", path="/" + "/".join(steps))
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]  # a namespace is within itself, as upstream
        if len(rest) > 2 and not (len(rest) == 3 and group == "" and rest[2] in ("status", "finalize")):
            rest = rest[2:]
    resource, name, subresource = rest[0], *((*rest[1:3], "", "")[:2])
    verb = GROUPED_VERBS.get(method, method.lower())
    if verb == "get" and query.get("watch", "0").lower() not in ("0", "false", "f"):
        verb = "watch"
    elif verb == "get" and not name:
        verb = "list"
    elif verb == "delete" and not name:
        verb = "deletecollection"
    if verb in ("list", "watch") and not name:
        name = named_by(query.get("fieldSelector", ""))
    return Attributes(verb, group, resource, "/".join((subresource, *rest[3:])), namespace, name)


@lru_cache(256)
def _of_ours(method: str, raw_path: str) -> Attributes:
    return _attributes_of(method, raw_path, {})


def named_by(field_selector: str) -> str:
    """The one object that a field selector leaves: rules with resourceNames permit to list and watch that."""
    path, _, value = field_selector.partition("=")  # no regular expression: their time must not grow with blanks
    name = value.removeprefix("=").strip()
    return name if path.strip() == "metadata.name" and not re.search("[,=!]", name) else ""


def wanted_of(target: Target, verb: str) -> Attributes:
    """The same of a target that has been read."""
    resource = target.resource
    namespace = target.name if resource.name == "namespaces" else target.namespace
    return Attributes(verb, resource.group, resource.plural, target.subresource, namespace, target.name)


def user_of(principal: Principal) -> User:
    """Whom permissions are given to: a workload is its service account."""
    if principal.role == WORKLOAD:
        return User(
            rbac.account_name(principal.namespace, principal.service_account), rbac.account_groups(principal.namespace)
        )
    return User(principal.name, principal.groups)


def refusal(user: User, wanted: Attributes, why: str = "") -> StatusError:
    """403 in Kubernetes' words."""
    sentence = wanted.sentence(user.name) + (f": {why}" if why else "")
    if wanted.path:
        return StatusError(403, f"forbidden: {sentence}")
    full = qualified(wanted.resource, wanted.group)
    shown = f'{full} "{wanted.name}"' if wanted.name else full
    return StatusError(
        403, f"{shown} is forbidden: {sentence}", name=wanted.name, group=wanted.group, kind=wanted.resource
    )


class Access:
    """Permissions over one store."""

    def __init__(self, memory: Objects) -> None:
        self._memory = memory
        self.rbac = Rbac(memory)

    def may(self, user: User, wanted: Attributes) -> Decision:
        return self.rbac.decide(user, wanted)

    def check(self, principal: Principal, wanted: Attributes) -> Decision:
        """Raises StatusError 403."""
        user = user_of(principal)
        if principal.one_time:
            raise refusal(user, wanted, "a one-time token is good for one certificate only")
        decision = self.may(user, wanted)
        if not decision.allowed:
            raise refusal(user, wanted)
        return decision

    def impersonated(self, principal: Principal, headers: Mapping[str, str], groups: list[str]) -> Principal:
        """Whom the Impersonate-* headers name, or the same. Raises StatusError 400, 403."""
        name = headers.get("Impersonate-User", "")
        others = [key for key in headers if key.lower().startswith("impersonate-")]
        if not others:
            return principal
        if not name:
            raise StatusError(400, "Impersonate-User is needed with the other Impersonate- headers")
        if any(key.lower() not in ("impersonate-user", "impersonate-group") for key in others):
            raise StatusError(400, "Impersonate-Uid and Impersonate-Extra- are not known here: users have neither")
        account = re.fullmatch(r"system:serviceaccount:([^:]+):([^:]+)", name)
        if account:
            self.check(principal, Attributes("impersonate", "", "serviceaccounts", "", account[1], account[2]))
            groups = groups or list(rbac.account_groups(account[1])[:2])
        else:
            self.check(principal, Attributes("impersonate", "", "users", name=name))
        for group in groups:
            self.check(principal, Attributes("impersonate", "", "groups", name=group))
        everybody = rbac.UNAUTHENTICATED if name == "system:anonymous" else rbac.AUTHENTICATED
        role = "admin" if rbac.MASTERS in groups else "user"
        return Principal(role, name, groups=tuple(dict.fromkeys((*groups, everybody))))

    # --- what is to be written --------------------------------------------------------------------------------------

    def check_write(
        self, principal: Principal, target: Target, before: Mapping[str, Any] | None, after: Mapping[str, Any]
    ) -> None:
        """What permission by verb and resource does not say. `before` None: it is new. Raises StatusError 403, 404."""
        user = user_of(principal)
        resource = target.resource
        if before is None:
            self._check_new(user, target, str(after["metadata"].get("name", "")))
        if resource.group != rbac.GROUP or target.subresource:
            return
        if resource.plural in ("roles", "clusterroles"):
            self._check_role(user, target, before, after)
        else:
            self._check_binding(user, target, before, after)

    def _check_new(self, user: User, target: Target, name: str) -> None:
        """Server-side apply of what is not there creates it; and its namespace is only made by who may."""
        wanted = Attributes("create", target.resource.group, target.resource.plural, "", target.namespace, name)
        if target.name and not self.may(user, wanted).allowed:
            raise refusal(user, wanted)
        if target.namespace and self._memory.get(Key("namespaces", "", target.namespace)) is None:
            make = Attributes("create", "", "namespaces", "", "", target.namespace)
            if not self.may(user, make).allowed:
                raise StatusError(
                    404, f'namespaces "{target.namespace}" not found', name=target.namespace, kind="namespaces"
                )

    def _check_role(
        self, user: User, target: Target, before: Mapping[str, Any] | None, after: Mapping[str, Any]
    ) -> None:
        def granted(body: Mapping[str, Any]) -> tuple[Any, Any, Any]:
            # By its labels others gather it: whoever sets them gives its rules to all who have these.
            return body.get("rules") or [], body.get("aggregationRule"), body["metadata"].get("labels") or {}

        if before is not None and granted(before) == granted(after):
            return
        name = str(after["metadata"].get("name", ""))
        escalate = Attributes("escalate", rbac.GROUP, target.resource.plural, "", target.namespace, name)
        if self.may(user, escalate).allowed:
            return
        gathers = any(body is not None and body.get("aggregationRule") is not None for body in (before, after))
        wanted = FULL if gathers else rbac.read_rules(after)
        self._check_held(user, target.resource, target.namespace, name, wanted, "attempting to grant")

    def _check_binding(
        self, user: User, target: Target, before: Mapping[str, Any] | None, after: Mapping[str, Any]
    ) -> None:
        reference = after.get("roleRef") or {}
        name = str(after["metadata"].get("name", ""))
        if before is not None and before.get("roleRef") != reference:
            cause = Cause("roleRef", "Invalid value: cannot change roleRef: delete the binding and make it again")
            raise invalid(target.resource.kind, rbac.GROUP, name, [cause])
        if before is not None and before.get("subjects") == after.get("subjects"):
            return
        kind, role = str(reference.get("kind", "")), str(reference.get("name", ""))
        plural = "roles" if kind == "Role" else "clusterroles"
        namespace = target.namespace
        if self.may(user, Attributes("bind", rbac.GROUP, plural, "", namespace, role)).allowed:
            return
        rules = self.rbac.rules_of_role(kind, role, namespace)
        if rules is None:
            raise StatusError(
                404, f'{plural}.{rbac.GROUP} "{role}" not found', name=role, group=rbac.GROUP, kind=plural
            )
        self._check_held(user, target.resource, namespace, name, rules, "attempting to grant")

    def _check_held(
        self, user: User, resource: Resource, namespace: str, name: str, rules: tuple[Rule, ...], doing: str
    ) -> None:
        try:
            missing = self.rbac.missing(user, namespace, rules)
        except ValueError as error:
            raise invalid(resource.kind, resource.group, name, [Cause("rules", f"Invalid value: {error}")]) from None
        if missing:
            groups = " ".join(f'"{group}"' for group in user.groups)
            raise StatusError(
                403,
                f'{qualified(resource.plural, resource.group)} "{name}" is forbidden: user "{user.name}" '
                f"(groups=[{groups}]) is {doing} RBAC permissions not currently held:\n{rbac.shown(missing)}",
                name=name, group=resource.group, kind=resource.plural,
            )  # fmt: skip
