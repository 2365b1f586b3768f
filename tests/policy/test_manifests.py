"""Manifests as people write them, through World.load, to explain and the matrix: what `-f FOLDER` answers."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairlead.policy.explain import Explainer
from fairlead.policy.matrix import matrix
from fairlead.policy.world import World
from fairlead.registry.documents import load

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "manifests"


def world_of(*texts: str) -> World:
    documents = [document for text in texts for document in load(text, "m.yaml")[0]]
    world, reports = World.load(documents, None)
    assert not [report for report in reports if report.errors], reports
    return world


def ask(world: World, url: str, **query: Any) -> dict[str, Any]:
    return Explainer(world).explain({"method": "GET", "url": url, **query})


@pytest.fixture(scope="module")
def shop() -> World:
    return world_of(*(path.read_text() for path in sorted(EXAMPLES.glob("*.yaml"))))


def test_the_example_shop_routes_its_canary_and_keeps_the_intruder_out(shop: World) -> None:
    url = "http://catalogue.default:8080/items"
    answer = ask(shop, url, **{"from": "default/front-1"})
    assert (answer["verdict"], answer["virtualService"], answer["route"]) == ("route", "default/catalogue", "canary")
    assert [(one["subset"], one["weight"]) for one in answer["destinations"]] == [("v1", 90), ("v2", 10)]
    tester = ask(shop, url, headers={"x-tester": "yes"}, **{"from": "default/front-1"})
    assert [one["subset"] for one in tester["destinations"]] == ["v2"]
    intruder = ask(shop, url, **{"from": "default/intruder-1"})
    assert (intruder["verdict"], intruder["status"], intruder["policy"]["by"]) == (
        "denied",
        403,
        "NetworkPolicy default/catalogue-from-front",
    )
    plain = ask(shop, url, plaintext=True, **{"from": "default/front-1"})
    assert plain["policy"]["by"] == "PeerAuthentication istio-system/default"


def test_the_matrix_of_the_example_shop(shop: World) -> None:
    allowed = {(row["source"], row["destination"]) for row in matrix(shop) if row["allowed"]}
    assert ("default/front-1", "default/reviews-1") in allowed
    assert ("default/intruder-1", "default/reviews-1") not in allowed
    assert ("default/intruder-1", "default/front-1") in allowed


OUTSIDE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wiki}
spec: {hosts: ['*.wikipedia.org'], location: MESH_EXTERNAL, resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec: {hosts: [api.example.com], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 443, name: https, protocol: HTTPS}, {number: 80, name: http, protocol: HTTP}]}
---
apiVersion: fairlead.dev/v1
kind: MeshConfig
metadata: {name: mesh}
spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
"""


def test_service_entries_open_a_mesh_that_is_closed() -> None:
    world = world_of(OUTSIDE)
    assert ask(world, "http://en.wikipedia.org/")["verdict"] == "passthrough"
    assert ask(world, "https://en.wikipedia.org/")["verdict"] == "passthrough"
    answer = ask(world, "http://api.example.com/")
    assert (answer["verdict"], answer["endpoints"][0]["address"]) == ("route", "api.example.com")
    secure = ask(world, "https://api.example.com/")
    assert (secure["verdict"], secure["destinations"][0]["port"]) == ("route", 443)
    closed = ask(world, "http://example.org/")
    assert (closed["verdict"], closed["status"]) == ("not-found", 502)


def test_egress_policy_is_asked_about_the_addresses_of_a_name() -> None:
    text = """
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}
---
"""
    world = world_of(text + OUTSIDE)
    answer = ask(world, "http://api.example.com/", **{"from": "default/client"})
    assert answer["verdict"] == "route"
    assert "is asked about each address" in answer["policy"]["why"]


BOOKS = """
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: books}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1, namespace: books, labels: {app: reviews, version: v1}}
spec: {containers: [{name: c, ports: [{containerPort: 9080}]}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v3, namespace: books, labels: {app: reviews, version: v3}}
spec: {containers: [{name: c, ports: [{containerPort: 9080}]}]}
status: {podIP: 10.0.0.3, conditions: [{type: Ready, status: 'False', message: starting}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: books}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {simple: RANDOM}}
  subsets: [{name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: books}
spec:
  hosts: [reviews]
  http:
    - match: [{headers: {end-user: {exact: jason}}}]
      fault: {delay: {percentage: {value: 100}, fixedDelay: 7s}}
      route: [{destination: {host: reviews, subset: v3}}]
    - route: [{destination: {host: reviews, subset: v1}}]
      timeout: 0.5s
      retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'gateway-error,connect-failure'}
"""


def test_the_bookinfo_way_of_routing() -> None:
    world = world_of(BOOKS)
    answer = ask(world, "http://reviews:9080/reviews/0", from_namespace="books")
    assert (answer["verdict"], answer["route"], answer["timeout_s"]) == ("route", 1, 0.5)
    assert answer["retries"] == {"attempts": 3, "perTryTimeout_s": 2.0, "retryOn": ["gateway-error", "connect-failure"]}
    jason = ask(world, "http://reviews:9080/", from_namespace="books", headers=["end-user: jason"])
    assert jason["fault"] == {"delay": {"percentage": 100.0, "fixedDelay_s": 7.0}, "abort": None}
    assert (jason["verdict"], jason["reason"]) == ("unavailable", "FL-NO-HEALTHY")
    assert [(one["address"], one["ready"]) for one in jason["endpoints"]] == [("10.0.0.3", False)]


STATEFUL = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 5432}, {name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, labels: {app: db}}
spec: {hostname: db-0, subdomain: db, containers: [{name: c}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db-1, labels: {app: db}}
spec: {hostname: db-1, subdomain: db, containers: [{name: c}]}
status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}
---
"""


def test_a_member_of_a_headless_service_is_reached_by_its_own_name() -> None:
    world = world_of(STATEFUL)
    for url in ("tcp://db-0.db:5432", "http://db-0.db.default/", "http://db-0.db.default.svc.cluster.local/"):
        answer = ask(world, url)
        assert answer["verdict"] == "route", answer
        assert [one["address"] for one in answer["endpoints"]] == ["10.0.0.1"]
        assert answer["destinations"][0]["host"] == "db-0.db.default.svc.cluster.local"
    assert ask(world, "http://db-1.db.default/")["reason"] == "FL-NO-HEALTHY"
    assert len(ask(world, "http://db.default/")["endpoints"]) == 2
    ruled = world_of(
        STATEFUL
        + "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: db}\n"
        + "spec: {hosts: [db], http: [{directResponse: {status: 207}}]}\n"
    )
    assert ask(ruled, "http://db-0.db.default/")["status"] == 207
