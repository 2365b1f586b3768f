"""Service accounts that are revoked, for Envoy and gRPC: a DENY policy that all of them have.

They are told of no certificate, so that they refuse none in a handshake; but whose service account is revoked as a
whole has an identity that a rule can name. What comes from it is denied where it arrives, as by any
AuthorizationPolicy: requests, connections, at gateways, too. Its trust domain does not matter, as in a sidecar.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from ..policy.resources import (
    AuthorizationFrom,
    AuthorizationPolicy,
    AuthorizationPolicySpec,
    AuthorizationRule,
    AuthorizationSource,
    Meta,
    Resources,
)

NAME = "revoked:service-accounts"
"""No object of the API can have it."""


class RevokedAccounts:
    """Adds the policy; the same object for the same rules and accounts, on which caches depend."""

    def __init__(self) -> None:
        self._last: tuple[Resources, frozenset[tuple[str, str]], Resources] | None = None

    def added(self, resources: Resources, accounts: Iterable[tuple[str, str]]) -> Resources:
        """`accounts`: (namespace, name)."""
        revoked = frozenset(accounts)
        if not revoked:
            return resources
        last = self._last
        if last is None or last[0] is not resources or last[1] != revoked:
            policies = (*resources.authorization_policies, _policy(revoked, resources.mesh.spec.root_namespace))
            last = self._last = resources, revoked, replace(resources, authorization_policies=policies)
        return last[2]


def _policy(accounts: frozenset[tuple[str, str]], root_namespace: str) -> AuthorizationPolicy:
    principals = [f"*/ns/{namespace}/sa/{name}" for namespace, name in sorted(accounts)]
    rule = AuthorizationRule(from_=[AuthorizationFrom(AuthorizationSource(principals=principals))])
    return AuthorizationPolicy(
        Meta(NAME, root_namespace, source="control"), AuthorizationPolicySpec(action="DENY", rules=[rule])
    )
