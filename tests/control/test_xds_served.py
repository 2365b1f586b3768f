"""What changes makes new resources, and nothing else does."""

from __future__ import annotations

from fairlead.control.xds_served import Served
from fairlead.control.xds_session import CDS, EDS, LDS, RDS
from tests.control.xds_worlds import Got, node, world

SERVICES = "".join(
    f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {space}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}
---
"""
    for name, space in (("web", "default"), ("db", "default"), ("far", "other"))
)


def pod(name: str) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: web}}, annotations: {{fairlead.dev/address: 10.0.0.1}}}}
spec: {{containers: [{{name: m, ports: [{{containerPort: 80}}]}}]}}
---
"""


def test_an_endpoint_changes_its_own_resource_alone() -> None:
    served = Served(node())
    one = world(SERVICES)
    first = served.build(one.resources, one.snapshot, "1")
    two = world(SERVICES + pod("web-1"))
    second = served.build(two.resources, two.snapshot, "2")
    assert first[CDS] == second[CDS]
    assert (first[LDS], first[RDS]) == (second[LDS], second[RDS])
    changed = {name for name, entry in second[EDS].items() if first[EDS][name] != entry}
    assert changed == {"outbound|80||web.default.svc.cluster.local"}


def test_a_workload_sees_what_its_sidecar_lets_it_see() -> None:
    sidecar = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: default}
spec: {egress: [{hosts: ['./*']}]}
"""
    assert "outbound|80||far.other.svc.cluster.local" in Got(SERVICES).clusters
    got = Got(SERVICES + sidecar)
    assert "outbound|80||far.other.svc.cluster.local" not in got.clusters
    assert "far.other:80" not in got.hosts()


def test_a_workload_that_no_source_declares_is_as_its_node_describes_it() -> None:
    got = Got(SERVICES, node("default/db-7", INBOUND="0.0.0.0:15006", PORTS=["80"], LABELS={"app": "db"}))
    assert "inbound|80||" in got.clusters
    [chain, *_] = got.listeners["inbound"]["filter_chains"]
    assert chain["name"] == "inbound_80_tls"


def test_local_rate_limits_are_carried_out_by_envoy_and_told_not_to_be_by_grpc() -> None:
    limit = """
apiVersion: fairlead.dev/v1
kind: LocalRateLimit
metadata: {name: l}
spec:
  context: SIDECAR_OUTBOUND
  limits: [{name: all, tokenBucket: {maxTokens: 1, tokensPerFill: 1, fillInterval: 1s}}]
"""
    got = Got(SERVICES + limit)
    assert got.notes == []
    [manager] = got.listeners["outbound"]["filter_chains"][0]["filters"]
    assert manager["typed_config"]["http_filters"][0]["name"] == "fairlead.rate-limit-default.l.all"
    assert "LocalRateLimit is not carried out by gRPC" in Got(SERVICES + limit, node(agent="grpc")).notes
