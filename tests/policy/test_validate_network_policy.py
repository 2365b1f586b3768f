"""NetworkPolicies: the API server's rules and messages."""

from __future__ import annotations

import pytest

from tests.policy.judging import document, errors, warnings
from tests.policy.test_validate_names import QUALIFIED, VALUE

GROUP = "networking.k8s.io/v1"
CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


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
        ("{from: [{ipBlock: {cidr: 10.0.0.0}}]}", "from[0].ipBlock.cidr", f'Invalid value: "10.0.0.0": {CIDR}'),
        ("{from: [{ipBlock: {cidr: 10.0.0.300/8}}]}", "from[0].ipBlock.cidr", f'Invalid value: "10.0.0.300/8": {CIDR}'),
        ("{from: [{ipBlock: {cidr: 010.0.0.0/8}}]}", "from[0].ipBlock.cidr",
         'Invalid value: "010.0.0.0/8": must not have leading 0s'),
        ("{from: [{ipBlock: {cidr: '::ffff:10.0.0.0/104'}}]}", "from[0].ipBlock.cidr",
         'Invalid value: "::ffff:10.0.0.0/104": must not have an IPv4-mapped IPv6 address'),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}", "from[0].ipBlock.except[0]",
         'Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`'),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}]}", "from[0].ipBlock.except[0]",
         'Invalid value: "11.0.0.0/9": must be a strict subset of `cidr`'),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/9']}}]}", "from[0].ipBlock.except[0]",
         'Invalid value: "fd00::/9": must be a strict subset of `cidr`'),
        ("{from: [{podSelector: {matchExpressions: [{key: a, operator: Foo}]}}]}",
         "from[0].podSelector.matchExpressions[0].operator", 'Invalid value: "Foo": not a valid selector operator'),
        ("{from: [{podSelector: {matchExpressions: [{key: a, operator: In}]}}]}",
         "from[0].podSelector.matchExpressions[0].values",
         "Required value: must be specified when `operator` is 'In' or 'NotIn'"),
        ("{from: [{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]}",
         "from[0].podSelector.matchExpressions[0].values",
         "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
        ("{from: [{podSelector: {matchLabels: {'a b': c}}}]}", "from[0].podSelector.matchLabels",
         f'Invalid value: "a b": name part {QUALIFIED}'),
        ("{from: [{podSelector: {matchLabels: {a: 'b c'}}}]}", "from[0].podSelector.matchLabels",
         f'Invalid value: "b c": {VALUE}'),
        ("{ports: [{protocol: ''}]}", "ports[0].protocol",
         'Unsupported value: "": supported values: "TCP", "UDP", "SCTP"'),
        ("{ports: [{port: 0}]}", "ports[0].port", "Invalid value: 0: must be between 1 and 65535, inclusive"),
        ("{ports: [{port: 65536}]}", "ports[0].port", "Invalid value: 65536: must be between 1 and 65535, inclusive"),
        ("{ports: [{port: a--b}]}", "ports[0].port", 'Invalid value: "a--b": must not contain consecutive hyphens'),
        ("{ports: [{port: '80'}]}", "ports[0].port", 'Invalid value: "80": must contain at least one letter (a-z)'),
        ("{ports: [{endPort: 90}]}", "ports[0].endPort",
         "Invalid value: 90: may not be specified when `port` is not specified"),
        ("{ports: [{port: http, endPort: 90}]}", "ports[0].endPort",
         "Invalid value: 90: may not be specified when `port` is non-numeric"),
        ("{ports: [{port: 91, endPort: 90}]}", "ports[0].endPort",
         "Invalid value: 90: must be greater than or equal to `port`"),
        ("{ports: [{port: 91, endPort: 70000}]}", "ports[0].endPort",
         "Invalid value: 70000: must be between 1 and 65535, inclusive"),
    ],
)  # fmt: skip
def test_what_the_api_server_refuses_is_refused_in_its_words(rule: str, path: str, message: str) -> None:
    found = errors(ingress(rule))
    assert f"spec.ingress[0].{path}" in found, found
    assert found[f"spec.ingress[0].{path}"] == message


def test_what_is_near_is_said_behind_the_api_servers_words() -> None:
    found = errors(ingress("{ports: [{protocol: tcp}], form: []}"))
    told = 'Unsupported value: "tcp": supported values: "TCP", "UDP", "SCTP"'
    assert found["spec.ingress[0].ports[0].protocol"].startswith(told)
    assert 'did you mean "from"' in found["spec.ingress[0].form"]


def test_bits_beyond_the_prefix_are_taken_and_warned_of_as_upstream() -> None:
    text = ingress("{from: [{ipBlock: {cidr: 10.0.0.1/8, except: [10.1.2.3/16]}}]}")
    assert errors(text) == {}
    told, also = (warnings(text)[f"spec.ingress[0].from[0].ipBlock.{path}"] for path in ("cidr", "except[0]"))
    assert told.startswith(
        'CIDR value "10.0.0.1/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.0.0.1/32"?)'
    )
    assert also.endswith("it is taken as 10.1.0.0/16")


def test_policy_types_and_selector() -> None:
    many = errors(policy("podSelector: {}\npolicyTypes: [Ingress, Egress, Ingress]"))["spec.policyTypes"]
    assert many == 'Invalid value: ["Ingress", "Egress", "Ingress"]: may not specify more than two policyTypes'
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
