"""Defaults of the built-in kinds."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.defaults import DEFAULTS, apply_defaults, fill_items


def test_a_service_says_its_type_and_its_ports_protocol_and_target() -> None:
    made = apply_defaults(
        "services", {"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "d"}]}}
    )
    assert made["spec"] == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "ports": [
            {"port": 80, "protocol": "TCP", "targetPort": 80},
            {"port": 53, "protocol": "UDP", "targetPort": "d"},
        ],
    }


def test_a_network_policy_says_which_directions_it_is_for() -> None:
    name = "networkpolicies.networking.k8s.io"
    assert apply_defaults(name, {"spec": {}})["spec"]["policyTypes"] == ["Ingress"]
    assert apply_defaults(name, {"spec": {"egress": [{}]}})["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert apply_defaults(name, {"spec": {"egress": [{}], "policyTypes": ["Egress"]}})["spec"]["policyTypes"] == [
        "Egress"
    ]
    made = apply_defaults(name, {"spec": {"ingress": [{"ports": [{"port": 80}]}]}})
    assert made["spec"]["ingress"] == [{"ports": [{"port": 80}]}]  # or kubectl would find a difference each time


def test_a_secrets_plain_text_becomes_data() -> None:
    made = apply_defaults("secrets", {"stringData": {"a": "é"}, "data": {"b": "eA=="}})
    assert made == {"type": "Opaque", "data": {"a": "w6k=", "b": "eA=="}}


def test_a_pods_ports_say_their_protocol() -> None:
    made = apply_defaults("pods", {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}})
    assert made["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


def test_what_is_applied_is_filled_in_only_within_what_it_says() -> None:
    assert fill_items("services", {"spec": {"ports": [{"port": 80}]}}) == {
        "spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}
    }
    configs: list[dict[str, Any]] = [{"spec": {}}, {}, {"spec": 5}]
    for config in configs:
        assert fill_items("services", config) == config


ANY = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["ports", "port", "containers", "ingress", "egress", "policyTypes"]), inner)
    ),
)


@given(st.sampled_from(sorted(DEFAULTS)), st.dictionaries(st.sampled_from(["spec", "x"]), ANY))
def test_what_is_not_well_formed_is_left_alone_and_defaults_are_stable(resource: str, body: dict[str, Any]) -> None:
    once = apply_defaults(resource, body)
    assert apply_defaults(resource, once) == once
