"""Steps of a trace, and the object and field that each is about."""

from __future__ import annotations

import pytest

from fairlead.policy.trace import Trace, note, place


def test_a_step_has_its_place_where_it_is_given() -> None:
    trace: Trace = []
    note(trace, "route", "VirtualService a/b route x", "match", "why", "VirtualService a/b", "spec.http[0]")
    note(trace, "host", "web:80", "service", "why")
    assert place(trace[0]) == ("VirtualService a/b", "spec.http[0]")
    assert place(trace[1]) == ("", "") and set(trace[1]) == {"step", "object", "result", "why"}


@pytest.mark.parametrize(
    ("step", "named", "expected"),
    [
        ("authorization", "AuthorizationPolicy a/b rule 2", ("AuthorizationPolicy a/b", "spec.rules[2]")),
        ("authorization", "AuthorizationPolicy a/b", ("AuthorizationPolicy a/b", "")),
        ("network-policy-ingress", "NetworkPolicy a/b rule 1", ("NetworkPolicy a/b", "spec.ingress[1]")),
        ("network-policy-egress", "NetworkPolicy a/b", ("NetworkPolicy a/b", "spec.egress")),
        ("peer-authentication", "PeerAuthentication a/b port 80", ("PeerAuthentication a/b", "spec.portLevelMtls[80]")),
        ("peer-authentication", "PeerAuthentication a/b", ("PeerAuthentication a/b", "spec.mtls")),
        ("peer-authentication", "(default)", ("", "")),
    ],
)
def test_the_name_of_a_policy_tells_its_field(step: str, named: str, expected: tuple[str, str]) -> None:
    assert place({"step": step, "object": named, "result": "allow", "why": ""}) == expected
