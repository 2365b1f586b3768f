"""A revoked service account is denied by whatever Envoy and gRPC are given, and by nothing when it is restored."""

from __future__ import annotations

from fairlead.control.xds_node import Notes
from fairlead.control.xds_rbac import authorization_rules
from fairlead.control.xds_revoked import RevokedAccounts
from tests.control.test_xds_rbac import Asked, allows
from tests.control.xds_worlds import tables_of, world

MANIFESTS = """
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}, annotations: {fairlead.dev/address: 10.0.0.1}}
spec: {containers: [{name: main, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: some}
spec: {rules: [{from: [{source: {namespaces: [default]}}]}]}
"""


def test_what_comes_from_a_revoked_account_is_denied_in_whichever_trust_domain() -> None:
    one, revoked = world(MANIFESTS), RevokedAccounts()
    resources = revoked.added(one.resources, [("default", "stranger")])
    assert resources is revoked.added(one.resources, [("default", "stranger")]), "caches depend on it"
    for http in (True, False):
        inbound = tables_of(type(one)(resources=resources, snapshot=one.snapshot), "default/web-1").inbound
        notes = Notes()
        rules = authorization_rules(inbound, 8080, http, notes)
        assert not notes.listed()
        for domain in ("cluster.local", "old.example"):
            for account, may in (("stranger", False), ("other-stranger", True), ("friend", True)):
                asked = Asked(f"spiffe://{domain}/ns/default/sa/{account}", "10.0.0.2")
                assert allows(rules, asked) is may, (domain, account, http)


def test_without_any_the_rules_are_those_that_they_were() -> None:
    one, revoked = world(MANIFESTS), RevokedAccounts()
    revoked.added(one.resources, [("default", "stranger")])
    assert revoked.added(one.resources, []) is one.resources
