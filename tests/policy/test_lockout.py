"""Which changes of policies would cut off control, DNS or their author, and by which policy."""

from __future__ import annotations

import pytest

from fairlead.policy.lockout import cuts
from fairlead.policy.world import World
from fairlead.registry.documents import load

FACTS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: Pod
metadata:
  {name: front-1, namespace: shop, labels: {app: front}, annotations: {fairlead.dev/address: 10.0.0.1, MESH}}
spec: {serviceAccountName: front, containers: [{name: main}]}
---
apiVersion: v1
kind: Pod
metadata:
  {name: dns-1, namespace: sys, labels: {app: dns}, annotations: {fairlead.dev/address: 10.0.0.53, MESH}}
spec:
  serviceAccountName: dns
  containers: [{name: main, ports: [{containerPort: 53, protocol: UDP}, {containerPort: 53}]}]
---
apiVersion: v1
kind: Pod
metadata:
  {name: control-1, namespace: sys, labels: {app: control}, annotations: {fairlead.dev/address: 10.0.0.12, MESH}}
spec: {serviceAccountName: control, containers: [{name: main, ports: [{containerPort: 15012}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: control, namespace: sys}
spec: {selector: {app: control}, ports: [{port: 15012}]}
""".replace("MESH", 'fairlead.dev/mesh-port: "15006"')
OPEN_DNS = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: dns, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
    - to: [{namespaceSelector: {}}]
      ports: [{port: 53, protocol: UDP}, {port: 53}, {port: 15012}]
"""
DENY_EGRESS = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Egress]}
"""
DENY_INGRESS = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: sys}
spec: {podSelector: {matchLabels: {app: control}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}}]}]}
"""
DENY_RULE = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: sys}
spec: {selector: {matchLabels: {app: control}}}
"""
STRICT = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: sys}
spec: {mtls: {mode: STRICT}}
"""
HIDDEN = """
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{hosts: ["./*"]}]}
"""


def world(*texts: str) -> World:
    documents, problems = load((FACTS + "".join(texts)).encode(), "test")
    assert problems == []
    made, reports = World.load(documents)
    assert [report for report in reports if not report.valid] == []
    return made


@pytest.mark.parametrize(
    ("change", "author", "who", "what", "by"),
    [
        (DENY_EGRESS, "", "shop/front-1", "DNS", "NetworkPolicy shop/deny"),
        (DENY_EGRESS, "", "shop/front-1", "the control API", "NetworkPolicy shop/deny"),
        (DENY_RULE, "", "shop/front-1", "the control API", "AuthorizationPolicy sys/nobody"),
        (DENY_INGRESS, "192.0.2.7", "you, at 192.0.2.7,", "the control API", "NetworkPolicy sys/closed"),
        (STRICT, "192.0.2.7", "you, at 192.0.2.7,", "the control API", "PeerAuthentication sys/default"),
        (HIDDEN, "", "shop/front-1", "the control API", "Sidecar shop/default"),
    ],
)
def test_each_kind_of_policy_that_cuts_is_named(change: str, author: str, who: str, what: str, by: str) -> None:
    found = cuts(world(), world(change), author)
    assert [one for one in found if (one.source, one.what) == (who, what) and by in one.by], [str(one) for one in found]
    assert cuts(world(change), world(change), author) == []  # what was closed before may stay so
    assert cuts(world(change), world(), author) == []


def test_what_leaves_control_and_dns_open_is_taken() -> None:
    assert cuts(world(), world(OPEN_DNS)) == []
    assert cuts(world(OPEN_DNS), world(OPEN_DNS, DENY_EGRESS)) == []
    assert cuts(world(), world(DENY_INGRESS), "10.0.0.1") == []
    assert cuts(world(), world(DENY_INGRESS), "127.0.0.1") == []
    assert cuts(world(OPEN_DNS, DENY_EGRESS), world(DENY_EGRESS)) != []  # taking away what allows cuts as well
