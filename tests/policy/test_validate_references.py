"""References between documents: what is missing is told with its remedy."""

from __future__ import annotations

from tests.policy.judging import document, errors, warnings

SERVICE = document("Service", "selector: {app: web}\nports: [{name: http, port: 80}]", "v1", "web")
POD = ("apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, labels: {app: web, version: v1}, annotations: "
       "{fairlead.dev/address: 10.0.0.1}}\nspec: {containers: [{ports: [{containerPort: 80}]}]}\n")  # fmt: skip
RULE = document("DestinationRule", "host: web\nsubsets: [{name: v1, labels: {version: v1}}]")
PLACE = "spec.http[0].route[0].destination"


def to(destination: str, name: str = "it") -> str:
    return document("VirtualService", f"hosts: [web]\nhttp: [{{route: [{{destination: {destination}}}]}}]", name=name)


def together(*texts: str) -> str:
    return "---\n".join(texts)


def test_a_subset_that_the_rule_does_not_define_is_an_error_with_its_remedy() -> None:
    found = errors(together(SERVICE, POD, RULE, to("{host: web, subset: v2}")))
    says = (
        'subset "v2" of web.default.svc.cluster.local is not defined: DestinationRule default/it has v1; add it there'
    )
    assert found == {f"{PLACE}.subset": f"{says}, or name one that it has"}
    near = errors(together(SERVICE, POD, RULE.replace("name: v1", "name: canary"), to("{host: web, subset: cannary}")))
    assert 'did you mean "canary"?' in near[f"{PLACE}.subset"]


def test_a_subset_of_a_known_service_without_any_rule_is_an_error() -> None:
    assert (
        "no DestinationRule is for this host"
        in errors(together(SERVICE, to("{host: web, subset: v1}")))[f"{PLACE}.subset"]
    )


def test_a_subset_of_nothing_known_is_a_warning() -> None:
    text = to("{host: web, subset: v1}")
    assert errors(text) == {}
    assert {f"{PLACE}.subset", f"{PLACE}.host"} == set(warnings(text))


def test_good_references_are_quiet() -> None:
    text = together(SERVICE, POD, RULE, to("{host: web, subset: v1, port: {number: 80}}"))
    assert errors(text) == {}
    assert warnings(text) == {}


def test_subsets_of_wildcard_rules_and_of_all_rules_of_the_host_count() -> None:
    wild = document("DestinationRule", "host: '*.svc.cluster.local'\nsubsets: [{name: v1}]", name="wild")
    assert errors(together(SERVICE, wild, to("{host: web, subset: v1}"))) == {}
    other = document("DestinationRule", "host: web.default.svc.cluster.local\nsubsets: [{name: v2}]", name="other")
    assert errors(together(SERVICE, RULE, other, to("{host: web, subset: v2}"))) == {}


def test_a_subset_without_endpoints_is_warned_of() -> None:
    rule = RULE.replace("version: v1", "version: v9")
    found = warnings(together(SERVICE, POD, rule, to("{host: web, subset: v1}")))
    assert "no endpoint of web.default.svc.cluster.local is in subset" in found[f"{PLACE}.subset"]
    assert "spec.subsets[0].labels" in found


def test_an_unknown_host_is_warned_of_with_the_name_that_was_meant() -> None:
    assert "did you mean web.default.svc" in warnings(together(SERVICE, to("{host: wep}")))[f"{PLACE}.host"]
    found = warnings(together(SERVICE, to("{host: web.default}")))
    assert "write web.default.svc.cluster.local" in found[f"{PLACE}.host"]
    assert "spec.host" in warnings(document("DestinationRule", "host: web"))


def test_a_port_that_the_service_has_not_is_warned_of() -> None:
    assert "it has 80" in warnings(together(SERVICE, to("{host: web, port: {number: 8080}}")))[f"{PLACE}.port.number"]


def test_gateways_and_delegates_that_are_missing_are_warned_of() -> None:
    spec = "hosts: [web]\ngateways: [edge, mesh]\nhttp: [{delegate: {name: other}}]"
    found = warnings(document("VirtualService", spec))
    assert "no Gateway default/edge is known" in found["spec.gateways[0]"]
    assert "no VirtualService default/other is known" in found["spec.http[0].delegate"]
    delegate = document("VirtualService", "http: [{route: [{destination: {host: web}}]}]", name="other")
    assert "spec.http[0].delegate" not in warnings(together(document("VirtualService", spec), delegate))
    rooted = delegate.replace("spec:\n", "spec:\n  hosts: [x]\n")
    assert "has hosts" in warnings(together(document("VirtualService", spec), rooted))["spec.http[0].delegate"]


def test_a_second_rule_for_a_host_is_warned_of() -> None:
    found = warnings(together(SERVICE, to("{host: web}", "a"), to("{host: web}", "b")))
    assert "VirtualService default/a already" in found["spec.hosts[0]"]


def test_policies_and_services_that_select_nobody_are_warned_of() -> None:
    policies = together(
        POD,
        document("NetworkPolicy", "podSelector: {matchLabels: {app: x}}", "networking.k8s.io/v1"),
        document("AuthorizationPolicy", "selector: {matchLabels: {app: x}}", "security.istio.io/v1"),
    )
    assert set(warnings(policies)) == {"spec.podSelector", "spec.selector"}
    assert warnings(policies.replace("app: x", "app: web")) == {}
    assert "spec.selector" in warnings(together(POD, SERVICE.replace("app: web", "app: x")))
    root = ("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: istio-system}\n"
            "spec: {selector: {matchLabels: {app: web}}}\n")  # fmt: skip
    assert "root namespace is ignored" in warnings(together(POD, root))["spec.selector"]


def test_an_entry_whose_host_another_namespace_defines_is_warned_of() -> None:
    entry = document("ServiceEntry", "hosts: [a.example]\nports: [{number: 80, name: http}]")
    other = entry.replace("name: it", "name: it\n  namespace: other")
    assert "defined in namespace default already" in warnings(together(entry, other))["spec.hosts[0]"]
    assert warnings(entry) == {}


def test_of_several_mesh_configs_one_is_in_force() -> None:
    other, default = (document("MeshConfig", "{}", "fairlead.dev/v1", name) for name in ("other", "default"))
    assert "f.yaml:8 is in force" in warnings(together(other, default))["metadata.name"]
