"""PeerAuthentications and AuthorizationPolicies: what Istio refuses is refused with its field."""

from __future__ import annotations

import pytest

from tests.policy.judging import document, errors, warnings

GROUP = "security.istio.io/v1"


def peer(spec: str) -> str:
    return document("PeerAuthentication", spec, GROUP)


def rule(text: str, action: str = "ALLOW") -> str:
    return document("AuthorizationPolicy", f"action: {action}\nrules: [{text}]", GROUP)


@pytest.mark.parametrize(
    ("spec", "path", "says"),
    [
        ("mtls: {mode: ISTIO_MUTUAL}", "spec.mtls.mode", "STRICT"),
        ("portLevelMtls: {8080: {mode: STRICT}}", "spec.portLevelMtls", "selector"),
        ("selector: {matchLabels: {a: b}}\nportLevelMtls: {}", "spec.portLevelMtls", "at least one port"),
        ("selector: {matchLabels: {a: b}}\nportLevelMtls: {0: {mode: STRICT}}", "spec.portLevelMtls[0]", "between 1"),
        ("selector: {matchLabels: {a: b}}\nportLevelMtls: {70000: {}}", "spec.portLevelMtls[70000]", "between 1"),
        ("selector: {matchLabels: {a: b}}\nportLevelMtls: {http: {}}", "spec.portLevelMtls[http]", "the number"),
        ("selector: {matchLabels: {a: '*'}}", "spec.selector.matchLabels", "wildcards"),
        ("selector: {matchLabels: {'': b}}", "spec.selector.matchLabels", "empty"),
    ],
)
def test_peer_authentications_that_istio_refuses(spec: str, path: str, says: str) -> None:
    found = errors(peer(spec))
    assert path in found, found
    assert says in found[path]


def test_peer_authentications_that_istio_takes() -> None:
    for spec in (
        "mtls: {mode: STRICT}",
        "selector: {matchLabels: {a: b}}\nmtls: {}\nportLevelMtls: {8080: {mode: DISABLE}}",
    ):
        assert errors(peer(spec)) == {}
    assert "spec.selector" in warnings(peer("selector: {}"))


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("{from: []}", "from", "at least one entry"),
        ("{from: [{source: {}}]}", "from[0].source", "at least one condition"),
        ("{from: [{source: {principals: []}}]}", "from[0].source.principals", "at least one value"),
        ("{from: [{source: {principals: ['']}}]}", "from[0].source.principals[0]", "empty"),
        ("{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}", "from[0].source.ipBlocks[0]", "CIDR"),
        ("{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}", "from[0].source.serviceAccounts", "namespaces"),
        ("{from: [{source: {serviceAccounts: ['a*']}}]}", "from[0].source.serviceAccounts[0]", "wildcards"),
        ("{from: [{source: {principal: [a]}}]}", "from[0].source.principal", "did you mean"),
        ("{to: [{operation: {}}]}", "to[0].operation", "at least one condition"),
        ("{to: [{operation: {ports: [http]}}]}", "to[0].operation.ports[0]", "the number"),
        ("{to: [{operation: {ports: ['0']}}]}", "to[0].operation.ports[0]", "between 1"),
        ("{to: [{operation: {paths: ['/a/{x}']}}]}", "to[0].operation.paths[0]", "{*} or {**}"),
        ("{to: [{operation: {paths: ['/{**}/{*}']}}]}", "to[0].operation.paths[0]", "last"),
        ("{to: [{operation: {paths: ['/{*}/a*']}}]}", "to[0].operation.paths[0]", "mixed"),
        ("{when: [{key: source.ip}]}", "when[0]", "values or notValues"),
        ("{when: [{key: source.ip, values: [a]}]}", "when[0].values[0]", "CIDR"),
        ("{when: [{key: source.port, values: ['1']}]}", "when[0].key", "source.principal"),
        ("{when: [{key: 'request.headers[a b]', values: [a]}]}", "when[0].key", "name of a header"),
    ],
)  # fmt: skip
def test_rules_that_istio_refuses(text: str, path: str, says: str) -> None:
    found = errors(rule(text))
    assert f"spec.rules[0].{path}" in found, found
    assert says in found[f"spec.rules[0].{path}"]


def test_actions() -> None:
    assert "spec.rules" in errors(document("AuthorizationPolicy", "action: DENY", GROUP))
    assert '"ALLOW", "DENY", "AUDIT"' in errors(rule("{}", "CUSTOM"))["spec.action"]
    assert "spec.action" in errors(rule("{}", "MAYBE"))
    assert "spec.provider" in errors(document("AuthorizationPolicy", "provider: {name: x}", GROUP))
    for text in ("{}", "action: ALLOW", "rules: []", "rules: [{}]", "action: DENY\nrules: [{}]"):
        assert errors(document("AuthorizationPolicy", text, GROUP)) == {}


def test_a_full_policy_is_taken() -> None:
    spec = """
      selector: {matchLabels: {app: httpbin}}
      action: ALLOW
      rules:
        - from:
            - source: {principals: [cluster.local/ns/default/sa/sleep], notIpBlocks: [10.0.0.1, 10.1.0.0/16]}
            - source: {namespaces: [dev], serviceAccounts: []}
          to: [{operation: {methods: [GET], paths: [/info*, "/a/{*}/b/{**}"], hosts: ["*.example.com"], ports: ["80"]}}]
          when: [{key: "request.headers[User-Agent]", values: [Mozilla/*]}, {key: connection.sni, notValues: [a]}]
    """
    assert errors(document("AuthorizationPolicy", spec.replace(", serviceAccounts: []", ""), GROUP)) == {}


def test_what_surprises_is_warned_of() -> None:
    wide = warnings(rule("{to: [{operation: {methods: [POST]}}]}", "DENY"))
    assert "on TCP ports the rule denies without it" in wide["spec.rules[0]"]
    assert warnings(rule("{to: [{operation: {methods: [POST], ports: ['80']}}]}", "DENY")) == {}
    principals = rule(
        "{from: [{source: {requestPrincipals: ['*']}}], when: [{key: request.auth.principal, values: [a]}]}"
    )
    assert list(warnings(principals)) == [
        "spec.rules[0].from[0].source.requestPrincipals", "spec.rules[0].when[0].key",
    ]  # fmt: skip
    proving = document("RequestAuthentication", "jwtRules: [{issuer: 'https://a.example'}]", GROUP)
    assert warnings(f"{principals}---\n{proving}") == {}


def test_a_dry_run_is_told_and_its_annotation_read_strictly() -> None:
    for kind, group, spec in (("AuthorizationPolicy", GROUP, "{}"), ("NetworkPolicy", "networking.k8s.io/v1", "{}")):
        for value, says in (
            ("true", "it refuses nothing"),
            ("True", "it refuses nothing"),
            ("false", ""),
            ("yes", "!"),
        ):
            annotations = f"annotations: {{istio.io/dry-run: '{value}'}}"
            text = f"apiVersion: {group}\nkind: {kind}\nmetadata: {{name: it, {annotations}}}\n"
            found = warnings(text + f"spec: {spec}\n").get("metadata.annotations[istio.io/dry-run]", "")
            wrong = errors(text + f"spec: {spec}\n").get("metadata.annotations[istio.io/dry-run]", "")
            assert says in found if says != "!" else "must be true or false" in wrong, (kind, value, found, wrong)
    spiffe = warnings(rule("{from: [{source: {principals: ['spiffe://a/ns/b/sa/c']}}]}"))
    assert "without spiffe://" in spiffe["spec.rules[0].from[0].source.principals[0]"]
