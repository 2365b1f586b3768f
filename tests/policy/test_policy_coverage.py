"""What NetworkPolicies ask for and a proxy cannot enforce."""

from __future__ import annotations

from fairlead.policy.policy_coverage import gaps
from fairlead.policy.world import World
from fairlead.registry.documents import load

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: dns-1, namespace: shop, labels: {app: dns}}
spec: {containers: [{name: a, ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: tcp, containerPort: 53}]}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {containers: [{name: a, ports: [{containerPort: 80}]}]}
status: {podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: agent-1, namespace: shop, labels: {app: agent}}
spec: {hostNetwork: true, containers: [{name: a, ports: [{containerPort: 80}]}]}
status: {podIP: 10.0.0.3}
---
"""


def world(policy: str) -> World:
    documents, problems = load(PODS + policy, "x.yaml")
    assert not problems
    made, reports = World.load(documents)
    assert all(report.valid for report in reports), [report.errors for report in reports]
    return made


def policy(spec: str, name: str = "p") -> str:
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
    return f"{head}metadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"


def test_ports_of_udp_and_sctp_are_named_by_their_fields() -> None:
    made = world(
        policy(
            "{podSelector: {matchLabels: {app: web}}, egress: [{}, {ports: [{port: 80}, {port: 53, protocol: UDP}]}], "
            "ingress: [{ports: [{port: 9, protocol: SCTP}]}], policyTypes: [Ingress, Egress]}"
        )
    )
    (gap,) = gaps(made)
    assert (gap.policy, gap.status) == ("shop/p", "warning")
    assert "spec.ingress[0].ports[0] (SCTP), spec.egress[1].ports[1] (UDP)" in gap.message


def test_a_policy_of_tcp_alone_that_selects_workloads_of_tcp_alone_has_no_gap() -> None:
    made = world(policy("{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}"))
    assert gaps(made) == []
    assert gaps(made, {"shop/web-1": True}) == []


def test_workloads_whose_ports_of_udp_stay_open_are_named() -> None:
    (gap,) = gaps(world(policy("{podSelector: {matchLabels: {app: dns}}}")))
    assert "stay open: shop/dns-1 53/UDP" in gap.message


def test_workloads_on_the_hosts_network_and_selectors_of_nobody_are_told() -> None:
    assert (
        "host's network, as in Kubernetes: shop/agent-1"
        in gaps(world(policy("{podSelector: {matchLabels: {app: agent}}}")))[0].message
    )
    assert "selects no workload" in gaps(world(policy("{podSelector: {matchLabels: {app: none}}}")))[0].message


def test_in_a_running_mesh_workloads_without_a_sidecar_or_capture_are_told() -> None:
    made = world(policy("{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}"))
    (bare,) = gaps(made, {})
    assert (bare.status, "without a sidecar: shop/web-1" in bare.message) == ("error", True)
    (passing,) = gaps(made, {"shop/web-1": False})
    assert passing.status == "warning"
    assert passing.message.startswith(
        "Ingress that dials an app's own port directly and Egress that an app sends directly"
    )


def test_of_many_workloads_a_few_are_named() -> None:
    pods = "".join(
        f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: w{n}, namespace: shop, labels: {{app: many}}}}\n"
        f"status: {{podIP: 10.1.0.{n}}}\n"
        for n in range(1, 9)
    )
    (gap,) = gaps(world(policy("{podSelector: {matchLabels: {app: many}}}") + pods), {})
    assert gap.message.endswith("and 3 more")
