"""NetworkPolicies: the API server's rules and messages."""

from __future__ import annotations

import pytest

from tests.policy.judging import document, errors, warnings

GROUP = "networking.k8s.io/v1"
CIDR = "must be a valid CIDR value"


def policy(spec: str) -> str:
    return document("NetworkPolicy", spec, GROUP)


def ingress(rule: str) -> str:
    return policy(f"podSelector: {{}}\ningress: [{rule}]")


@pytest.mark.parametrize(
    ("rule", "path", "message"),
    [
        ("{from: [{}]}", "from[0]", "Required value: must specify a peer"),
        ("{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}", "from[0]",
         "Forbidden: may not specify both ipBlock and another peer"),
        ("{from: [{ipBlock: {}}]}", "from[0].ipBlock.cidr", "Required value"),
        ("{from: [{ipBlock: {cidr: 10.0.0.0}}]}", "from[0].ipBlock.cidr", CIDR),
        ("{from: [{ipBlock: {cidr: 10.0.0.1/8}}]}", "from[0].ipBlock.cidr", "bits set beyond the prefix"),
        ("{from: [{ipBlock: {cidr: 010.0.0.0/8}}]}", "from[0].ipBlock.cidr", CIDR),
        ("{from: [{ipBlock: {cidr: '::ffff:10.0.0.0/104'}}]}", "from[0].ipBlock.cidr", "IPv4-mapped"),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}", "from[0].ipBlock.except[0]",
         "must be a strict subset of 10.0.0.0/8"),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}]}", "from[0].ipBlock.except[0]", "strict subset"),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/9']}}]}", "from[0].ipBlock.except[0]", "same family"),
        ("{from: [{podSelector: {matchExpressions: [{key: a, operator: Foo}]}}]}",
         "from[0].podSelector.matchExpressions[0].operator", "Unsupported value"),
        ("{from: [{podSelector: {matchExpressions: [{key: a, operator: In}]}}]}",
         "from[0].podSelector.matchExpressions[0].values", "Required value: must be specified when"),
        ("{from: [{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]}",
         "from[0].podSelector.matchExpressions[0].values", "Forbidden: may not be specified when"),
        ("{from: [{podSelector: {matchLabels: {'a b': c}}}]}", "from[0].podSelector.matchLabels", "name part"),
        ("{from: [{podSelector: {matchLabels: {a: 'b c'}}}]}", "from[0].podSelector.matchLabels", "label value"),
        ("{ports: [{protocol: tcp}]}", "ports[0].protocol", 'supported values: "TCP", "UDP", "SCTP"'),
        ("{ports: [{protocol: ''}]}", "ports[0].protocol", "supported values"),
        ("{ports: [{port: 0}]}", "ports[0].port", "must be between 1 and 65535, inclusive"),
        ("{ports: [{port: 65536}]}", "ports[0].port", "between 1 and 65535"),
        ("{ports: [{port: a--b}]}", "ports[0].port", "consecutive hyphens"),
        ("{ports: [{port: '80'}]}", "ports[0].port", "at least one letter"),
        ("{ports: [{port: abcdefghijklmnopq}]}", "ports[0].port", "no more than 15"),
        ("{ports: [{endPort: 90}]}", "ports[0].endPort", "Required value: may not be specified when `port` is not"),
        ("{ports: [{port: http, endPort: 90}]}", "ports[0].endPort", "Forbidden: may not be specified when `port` is"),
        ("{ports: [{port: 91, endPort: 90}]}", "ports[0].endPort", "greater than or equal to"),
        ("{ports: [{port: 91, endPort: 70000}]}", "ports[0].endPort", "between 1 and 65535"),
        ("{form: []}", "form", 'did you mean "from"'),
    ],
)  # fmt: skip
def test_what_the_api_server_refuses_is_refused_in_its_words(rule: str, path: str, message: str) -> None:
    found = errors(ingress(rule))
    assert f"spec.ingress[0].{path}" in found, found
    assert message in found[f"spec.ingress[0].{path}"]


def test_policy_types_and_selector() -> None:
    assert (
        "more than two"
        in errors(policy("podSelector: {}\npolicyTypes: [Ingress, Egress, Ingress]"))["spec.policyTypes"]
    )
    assert "supported values" in errors(policy("podSelector: {}\npolicyTypes: [ingress]"))["spec.policyTypes[0]"]
    assert "spec.podSelector.matchLabels" in errors(policy("podSelector: {matchLabels: {a: -b}}"))


RECIPES = [
    "podSelector: {}",
    "podSelector: {}\npolicyTypes: [Ingress, Egress]",
    "podSelector: {}\ningress: [{}]",
    "podSelector: {}\npolicyTypes: [Egress]\negress: [{}]",
    """
    podSelector: {matchLabels: {role: db}}
    policyTypes: [Ingress, Egress]
    ingress:
      - from:
          - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
          - namespaceSelector: {matchLabels: {project: myproject}}
          - podSelector: {matchLabels: {role: frontend}}
        ports: [{protocol: TCP, port: 6379}]
    egress:
      - to: [{ipBlock: {cidr: 10.0.0.0/24}}]
        ports: [{protocol: TCP, port: 5978}]
    """,
    """
    podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [a, b]}, {key: x, operator: Exists}]}
    ingress:
      - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: monitoring}}}]
        ports: [{port: http}, {protocol: UDP, port: 32000, endPort: 32768}, {}]
    """,
]


@pytest.mark.parametrize("spec", RECIPES)
def test_well_known_recipes_are_taken_unchanged(spec: str) -> None:
    assert errors(policy(spec)) == {}
    assert warnings(policy(spec)) == {}


def test_dead_text_and_surprises_are_warned_of() -> None:
    assert "spec.ingress" in warnings(policy("podSelector: {}\npolicyTypes: [Egress]\ningress: [{}]"))
    assert "all ingress is denied" in warnings(policy("podSelector: {}\negress: [{}]"))["spec.policyTypes"]
