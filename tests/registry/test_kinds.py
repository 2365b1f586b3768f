"""The table of kinds that state facts: upstream manifests are taken, typing errors are found."""

from __future__ import annotations

from typing import Any

import yaml

from fairlead.registry.kinds import FACT_KINDS
from fairlead.registry.schema import Findings, check, openapi

POD = """
spec:
  serviceAccountName: web
  terminationGracePeriodSeconds: 5
  nodeSelector: {disk: ssd}
  volumes: [{name: cache, emptyDir: {}}]
  initContainers: [{name: init, image: busybox}]
  containers:
    - name: web
      image: nginx:1.27
      imagePullPolicy: IfNotPresent
      command: [nginx]
      env: [{name: A, value: b}]
      resources: {limits: {cpu: 100m}}
      volumeMounts: [{name: cache, mountPath: /c}]
      securityContext: {runAsNonRoot: true}
      ports: [{name: http, containerPort: 80, protocol: TCP}]
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: "True"}]}
"""
SERVICE = """
spec:
  type: ClusterIP
  ipFamilies: [IPv4]
  ipFamilyPolicy: SingleStack
  internalTrafficPolicy: Cluster
  sessionAffinity: None
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10]
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http, protocol: TCP, appProtocol: http}]
status: {loadBalancer: {}}
"""
KINDS = {kind.kind: kind for kind in FACT_KINDS}


def look(kind: str, text: str) -> Findings:
    found = Findings()
    check(KINDS[kind].schema, yaml.safe_load(text), "", found)
    return found


def test_ordinary_pods_and_services_are_taken_without_noise() -> None:
    for kind, text in (("Pod", POD), ("Service", SERVICE.replace("None", '"None"'))):
        found = look(kind, text)
        assert (found.errors, found.unknown, found.warnings) == ([], [], []), kind


def test_a_typing_error_is_found_in_pods_and_services_too() -> None:
    assert [path for path, _ in look("Pod", POD.replace("image: nginx", "imgae: nginx")).unknown] == [
        "spec.containers[0].imgae"
    ]
    found = look("Service", "spec: {selecter: {a: b}, ports: [{port: 80}]}")
    assert found.unknown == [("spec.selecter", 'unknown field "selecter": did you mean "selector"?')]


def test_what_has_no_effect_is_told_by_name() -> None:
    found = look("Service", "spec: {type: LoadBalancer, loadBalancerIP: 1.2.3.4, ports: [{port: 80, nodePort: 30080}]}")
    assert [path for path, _ in found.warnings] == ["spec.loadBalancerIP", "spec.ports[0].nodePort"]
    probe = "{tcpSocket: {port: 1}, terminationGracePeriodSeconds: 5}"
    found = look("Pod", f"spec: {{containers: [{{name: a, livenessProbe: {probe}}}]}}")
    assert [path for path, _ in found.warnings] == ["spec.containers[0].livenessProbe.terminationGracePeriodSeconds"]


def test_names_are_unique_and_complete() -> None:
    assert len({kind.name for kind in FACT_KINDS}) == len(FACT_KINDS)
    for kind in FACT_KINDS:
        assert kind.singular == kind.kind.lower()
        assert kind.api_versions


def test_every_schema_has_an_openapi_form() -> None:
    def walk(node: dict[str, Any]) -> None:
        assert node.get("type") or node.get("anyOf") or node.get("x-kubernetes-preserve-unknown-fields")
        for field in node.get("properties", {}).values():
            walk(field)
        if "items" in node:
            walk(node["items"])

    for kind in FACT_KINDS:
        walk(openapi(kind.schema))
