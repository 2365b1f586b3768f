"""What `fairlead validate` says of objects that do nothing to each other, and that it is silent where they do."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

import pytest

from fairlead.policy.validate import validate
from fairlead.registry.documents import load

NET = "apiVersion: networking.istio.io/v1\n"
SEC = "apiVersion: security.istio.io/v1\n"
K8S = "apiVersion: networking.k8s.io/v1\n"
BASE = (
    "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-db, port: 5432}]}\n---\n"
    "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {selector: {app: web}, ports: [{name: tcp, port: 5432}]}\n---\n"
    "apiVersion: v1\nkind: Service\nmetadata: {name: pure}\nspec: {selector: {app: web}, ports: [{name: http, port: 80}]}\n---\n"
    "apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, labels: {app: web}, annotations: {fairlead.dev/address: 127.0.1.1}}\nspec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}\n---\n"
    "apiVersion: v1\nkind: Pod\nmetadata: {name: front-1, labels: {app: front}, annotations: {fairlead.dev/address: 127.0.1.2}}\nspec: {containers: []}\n---\n"
)  # fmt: skip
GATEWAY = (
    NET
    + "kind: Gateway\nmetadata: {name: edge}\nspec: {selector: {a: b}, servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: [shop.example]}]}\n---\n"
)


def warnings(text: str) -> list[tuple[str, str]]:
    documents, problems = load(BASE + text, "f.yaml")
    assert problems == []
    reports = validate(documents)
    assert all(report.valid for report in reports), [one for report in reports for one in report.sentences()]
    return [(told.path, told.message) for told in reports[-1].warnings]


def vs(spec: str, name: str = "v") -> str:
    return f"{NET}kind: VirtualService\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def to(host: str, more: str = "") -> str:
    return f"route: [{{destination: {{host: {host}{more}}}}}]"


def dr(spec: str, name: str = "d") -> str:
    return f"{NET}kind: DestinationRule\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def np(spec: str) -> str:
    return f"{K8S}kind: NetworkPolicy\nmetadata: {{name: n}}\nspec: {spec}\n"


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        (vs(f"{{http: [{{{to('web')}}}]}}"), "spec.hosts", "no VirtualService delegates to it"),
        (vs(f"{{hosts: [db], http: [{{{to('db')}}}]}}"), "spec.hosts[0]", "no port of db.default.svc.cluster.local speaks HTTP (5432 (tcp))"),
        (vs(f"{{hosts: [pure], tcp: [{{{to('pure')}}}]}}"), "spec.hosts[0]", "its tcp routes are never looked at"),
        (vs(f"{{hosts: [web], http: [{{match: [{{port: 81}}], {to('web')}}}]}}"), "spec.http[0].match[0].port", "no client dials port 81: the hosts of the rule have 80, 5432"),
        (vs(f"{{hosts: [web], http: [{{match: [{{sourceLabels: {{app: nobody}}}}], {to('web')}}}]}}"), "spec.http[0].match[0].sourceLabels", "has app=nobody: the block is never met"),
        (vs(f"{{hosts: [web], http: [{{match: [{{sourceNamespace: mars}}], {to('web')}}}]}}"), "spec.http[0].match[0].sourceNamespace", "no workload of mars that is known is there"),
        (GATEWAY + vs(f"{{hosts: [other.example], gateways: [edge], http: [{{{to('pure')}}}]}}"), "spec.gateways[0]", "has a host of this rule (it has shop.example)"),
        (GATEWAY + vs(f"{{hosts: [shop.example], gateways: [edge], http: [{{{to('web')}}}]}}"), "spec.http[0].route[0].destination", "none of the gateway's (8000): requests get 503"),
        (dr("{host: web, trafficPolicy: {portLevelSettings: [{port: {number: 8080}, loadBalancer: {simple: RANDOM}}]}}"), "spec.trafficPolicy.portLevelSettings[0].port.number", "has no port 8080; it has 80, 5432"),
        (dr("{host: web, subsets: [{name: a, labels: {app: web}}]}") + "---\n" + dr("{host: web.default.svc.cluster.local, subsets: [{name: a, labels: {app: web}}]}", "e"), "spec.subsets[0].name", "DestinationRule default/d is older and defines it, too"),
        (dr("{host: web, trafficPolicy: {tls: {mode: DISABLE}}}") + "---\n" + dr("{host: web, trafficPolicy: {tls: {mode: SIMPLE}}}", "e"), "spec.trafficPolicy", "put both into one rule"),
        (dr("{host: web, workloadSelector: {matchLabels: {app: nobody}}}"), "spec.workloadSelector", "none has app=nobody"),
        (GATEWAY + NET + "kind: Gateway\nmetadata: {name: z}\nspec: {selector: {a: b}, servers: [{port: {number: 8000, name: t, protocol: TCP}, hosts: ['*']}]}\n", "spec.servers[0]", "is not opened: port 8000 is one of http by Gateway default/edge"),
        (NET + "kind: Gateway\nmetadata: {name: z}\nspec: {selector: {a: b}, servers: [{port: {number: 15443, name: t, protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH}, hosts: ['*']}]}\n", "spec.servers[0]", "AUTO_PASSTHROUGH is not carried out"),
        (NET + "kind: Gateway\nmetadata: {name: z}\nspec: {selector: {a: b}, servers: [{port: {number: 443, name: t, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: gone}, hosts: ['*']}]}\n", "spec.servers[0].tls.credentialName", "no Secret default/gone is known"),
        (np("{podSelector: {}, policyTypes: [Ingress], egress: [{}]}"), "spec.egress", "policyTypes does not list Egress"),
        (np("{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: nobody}}}]}]}"), "spec.ingress[0].from[0].podSelector", "has app=nobody: it admits nobody"),
        (np("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: x}}}]}]}"), "spec.ingress[0].from[0].namespaceSelector", "no namespace that is known has team=x"),
        (np("{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}"), "spec.ingress[0].ports[0].port", "declares port 80; they have 8080"),
        (np("{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: grpc}]}]}"), "spec.ingress[0].ports[0].port", "has a port named grpc (TCP); they have http"),
        (SEC + "kind: PeerAuthentication\nmetadata: {name: p}\nspec: {selector: {matchLabels: {app: web}}, portLevelMtls: {80: {mode: DISABLE}}}\n", "spec.portLevelMtls[80]", "declares port 80; they have 8080"),
        (SEC + "kind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {ports: ['80']}}]}]}\n", "spec.rules[0].to[0].operation.ports", "declares port 80; they have 8080"),
        (SEC + "kind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {rules: [{to: [{operation: {paths: [admin]}}]}]}\n", "spec.rules[0].to[0].operation.paths", "a path begins with '/'"),
        (NET + "kind: Sidecar\nmetadata: {name: s}\nspec: {workloadSelector: {labels: {app: nobody}}, egress: [{hosts: ['./*']}]}\n", "spec.workloadSelector", "none has app=nobody"),
        (NET + "kind: ServiceEntry\nmetadata: {name: s}\nspec: {hosts: [x.example], location: MESH_INTERNAL, resolution: STATIC, workloadSelector: {labels: {app: nobody}}, ports: [{number: 80, name: http, protocol: HTTP}]}\n", "spec.workloadSelector", "none has app=nobody"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: grpc}]}\n", "spec.ports[0].targetPort", "has a port named grpc (they have http)"),
        (vs(f"{{hosts: [web], http: [{{{to('web', ', port: {number: 81}')}}}]}}"), "spec.http[0].route[0].destination.port.number", "has no port 81; it has 80, 5432"),
        (vs(f"{{hosts: [web], http: [{{timeout: 2s, retries: {{attempts: 2, perTryTimeout: 1s}}, {to('web', ', port: {number: 80}')}}}]}}"), "spec.http[0].timeout", "3 tries of 1 s are 3 s; 2 of them fit; write timeout: 3s"),
        (vs(f"{{hosts: [web], http: [{{timeout: 1s, retries: {{attempts: 2, perTryTimeout: 1s}}, {to('web', ', port: {number: 80}')}}}]}}"), "spec.http[0].retries.perTryTimeout", "a try that times out is never repeated"),
        (vs("{hosts: [web], http: [{route: [{destination: {host: web}, weight: 50}, {destination: {host: pure}, weight: 30}]}]}"), "spec.http[0].route", "the weights add up to 80, not 100: the shares are 62.5 %, 37.5 %"),
        (vs("{hosts: [web], http: [{route: [{destination: {host: web}, weight: 50}]}]}"), "spec.http[0].route[0].weight", "it is the only destination and gets everything"),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_told_once_with_its_field_and_what_to_do(text: str, path: str, says: str) -> None:
    found = warnings(text)
    assert [told for at, told in found if at == path and says in told], found
    assert len(found) == 1, found


@pytest.mark.parametrize(
    "text",
    [
        vs(f"{{hosts: [web], http: [{{match: [{{port: 80, sourceLabels: {{app: front}}, sourceNamespace: default}}], {to('web')}}}]}}"),
        vs(f"{{http: [{{{to('web')}}}]}}", "inner") + "---\n" + vs("{hosts: [web], http: [{delegate: {name: inner}}]}"),
        GATEWAY + vs(f"{{hosts: ['*.example'], gateways: [edge], http: [{{{to('pure')}}}]}}"),
        GATEWAY + vs(f"{{hosts: [shop.example], gateways: [edge], http: [{{{to('web', ', port: {number: 80}')}}}]}}"),
        dr("{host: web, trafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}}"),
        np("{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: front}}}], ports: [{port: http}, {port: 8000, endPort: 9000}]}]}"),
        np("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}"),
        vs(f"{{hosts: [web], http: [{{timeout: 3s, retries: {{attempts: 2, perTryTimeout: 1s}}, {to('web', ', port: {number: 80}')}}}]}}"),
        vs("{hosts: [web], http: [{route: [{destination: {host: web}, weight: 50}, {destination: {host: pure}, weight: 50}]}]}"),
    ],
)  # fmt: skip
def test_what_has_an_effect_is_not_spoken_of(text: str) -> None:
    assert warnings(text) == []


def test_rules_alone_are_not_held_against_workloads_that_nobody_declared() -> None:
    text = np("{podSelector: {matchLabels: {app: x}}, ingress: [{from: [{podSelector: {matchLabels: {app: y}}}]}]}")
    documents, _ = load(text, "f.yaml")
    assert [report.warnings for report in validate(documents)] == [()]
