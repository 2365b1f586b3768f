"""The contract's JSON, and that it says what decide decides and what the policies of both ends say."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.policy.decide import decide
from fairlead.policy.explain import Explainer, QueryError, explain, render
from tests.policy.test_decide import CALLER, ONLY_FRONT, SHOP, SUBSETS, WEB, rule
from tests.policy.worlds import World, get

KEYS = [
    "verdict", "status", "reason", "virtualService", "route", "destinations", "request", "response", "redirect",
    "directResponse", "timeout_s", "retries", "fault", "mirrors", "endpoints", "policy", "trace",
]  # fmt: skip
CANARY = rule(
    "{hosts: [web], http: [{name: testers, match: [{headers: {x-tester: {exact: 'yes'}}}],"
    " route: [{destination: {host: web, subset: v2}}]},"
    "{match: [{uri: {prefix: /api/}}], rewrite: {uri: /}, timeout: 2s, headers: {request: {set: {X-A: b}}},"
    " fault: {delay: {fixedDelay: 1s, percentage: {value: 10}}}, mirror: {host: web, subset: v2},"
    " retries: {attempts: 1, retryOn: 5xx, perTryTimeout: 500ms}, route: [{destination: {host: web, subset: v1}, weight: 90},"
    " {destination: {host: web, subset: v2}, weight: 10}]},"
    "{match: [{uri: {exact: /old}}], redirect: {uri: /new}},"
    "{match: [{uri: {exact: /hi}}], directResponse: {status: 203, body: {string: hello}}}]}"
)


def asked(text: str, url: str = "http://web.shop/", source: str = "shop/front-1", **more: Any) -> dict[str, Any]:
    query = {"method": "GET", "url": url, **({"from": source} if source else {}), **more}
    return explain(World(SHOP + SUBSETS + CALLER + text), query)


def test_every_key_of_the_contract_is_always_there() -> None:
    for url in (
        "http://web.shop/api/x",
        "http://web.shop/old",
        "http://web.shop/hi",
        "http://web.shop/none",
        "http://x/",
    ):
        assert list(asked(CANARY, url)) == KEYS
    assert list(asked("", "tcp://api.shop:5432")) == KEYS


def test_a_route_with_everything() -> None:
    answer = asked(CANARY, "http://web.shop/api/x?q=1")
    assert answer["verdict"] == "route"
    assert (answer["status"], answer["reason"]) == (None, None)
    assert (answer["virtualService"], answer["route"]) == ("shop/web", 1)
    assert answer["destinations"] == [
        {"host": WEB, "subset": "v1", "port": 80, "weight": 90, "headers": {
            "request": {"set": {"x-a": "b"}, "add": {}, "remove": []},
            "response": {"set": {}, "add": {}, "remove": []}}},
        {"host": WEB, "subset": "v2", "port": 80, "weight": 10, "headers": {
            "request": {"set": {"x-a": "b"}, "add": {}, "remove": []},
            "response": {"set": {}, "add": {}, "remove": []}}},
    ]  # fmt: skip
    assert answer["request"] == {
        "method": "GET",
        "authority": "web.shop",
        "path": "/x?q=1",
        "headers": {"set": {"x-a": "b"}, "add": {}, "remove": []},
    }
    assert answer["timeout_s"] == 2.0
    assert answer["retries"] == {"attempts": 1, "perTryTimeout_s": 0.5, "retryOn": ["5xx"]}
    assert answer["fault"] == {"delay": {"percentage": 10.0, "fixedDelay_s": 1.0}, "abort": None}
    assert answer["mirrors"] == [{"host": WEB, "subset": "v2", "port": 80, "percentage": 100.0}]
    assert [one["why"] for one in answer["endpoints"]] == ["ready", "ready"]
    assert answer["policy"]["allowed"] is True


def test_the_trace_names_objects_and_the_condition_that_failed() -> None:
    trace = asked(CANARY, "http://web.shop/hi")["trace"]
    steps = [(step["object"], step["result"]) for step in trace]
    assert ("VirtualService shop/web route testers", "no match") in steps
    assert ("VirtualService shop/web route 3", "match") in steps
    failed = next(step for step in trace if step["result"] == "no match")
    assert failed["why"] == "header x-tester is absent, wanted exact 'yes'"
    assert (failed["resource"], failed["path"]) == (
        "VirtualService shop/web",
        "spec.http[0].match[0].headers[x-tester]",
    )
    assert all(set(step) >= {"step", "object", "result", "why"} for step in trace)


def test_endpoints_say_their_priority_or_the_share_of_their_locality() -> None:
    rule = "kind: DestinationRule\nmetadata: {name: web, namespace: shop}\nspec: {host: web, trafficPolicy: {outlierDetection: {}, loadBalancer: {localityLbSetting: %s}}}\n---\n"
    failover = asked(rule % "{failoverPriority: [version=v1]}")["endpoints"]
    assert [one["why"] for one in failover] == [
        "ready; priority 0 of 0 to 1: takes all traffic while 72 % of it are healthy",
        "ready; priority 1 of 0 to 1: takes what those before it cannot",
    ]


def test_answers_of_our_own() -> None:
    redirect = asked(CANARY, "http://web.shop/old?x=1")
    assert (redirect["verdict"], redirect["status"]) == ("redirect", 301)
    assert redirect["redirect"] == {"location": "http://web.shop/new?x=1", "status": 301}
    direct = asked(CANARY, "http://web.shop/hi")
    assert (direct["verdict"], direct["directResponse"]) == ("direct-response", {"status": 203, "body": "hello"})
    lost = asked(CANARY, "http://web.shop/none")
    assert (lost["verdict"], lost["status"], lost["reason"]) == ("not-found", 404, "FL-NO-ROUTE")
    assert lost["virtualService"] == "shop/web"


def test_a_plain_service_has_no_rule_and_istios_default_retries() -> None:
    answer = asked("")
    assert (answer["virtualService"], answer["route"], answer["timeout_s"]) == (None, None, None)
    assert answer["retries"] == {
        "attempts": 2,
        "perTryTimeout_s": None,
        "retryOn": ["connect-failure", "refused-stream", "unavailable", "cancelled"],
    }
    assert answer["destinations"] == [{"host": WEB, "subset": None, "port": 80, "weight": 100}]


def test_unavailable_says_whether_the_destination_or_its_endpoints_are_missing() -> None:
    spec = rule("{hosts: [web], http: [{route: [{destination: {host: web, subset: v9}}]}]}")
    answer = asked(spec)
    assert (answer["verdict"], answer["status"], answer["reason"]) == ("unavailable", 503, "FL-NO-CLUSTER")
    assert any("has no subset v9" in step["why"] for step in answer["trace"])
    sick = SHOP.replace("spec: {serviceAccountName: web,", "spec: {serviceAccountName: web, ready: false,")
    answer = explain(World(sick), {"method": "GET", "url": "http://web.shop/"})
    assert (answer["verdict"], answer["reason"]) == ("unavailable", "FL-NO-HEALTHY")
    assert [(one["ready"], one["why"]) for one in answer["endpoints"]] == [(False, "readiness probe failed")] * 2


def test_network_policy_of_the_destination_denies_with_its_name() -> None:
    assert asked(ONLY_FRONT)["policy"]["by"] == "NetworkPolicy shop/web-from-front rule 0"
    answer = asked(ONLY_FRONT, source="shop/odd-1")
    assert (answer["verdict"], answer["status"], answer["reason"]) == ("denied", 403, "FL-DENIED")
    assert answer["policy"]["allowed"] is False
    assert answer["policy"]["by"] == "NetworkPolicy shop/web-from-front"
    assert "shop/odd-1" in answer["policy"]["why"]


def test_clients_may_be_imagined_by_namespace_and_labels() -> None:
    labelled = asked(ONLY_FRONT, source="", from_namespace="shop", from_labels="app=front")
    assert labelled["verdict"] == "route"
    assert asked(ONLY_FRONT, source="", from_namespace="shop")["verdict"] == "denied"
    assert asked(ONLY_FRONT, source="")["verdict"] == "denied"
    other: dict[str, Any] = {"from-namespace": "other", "from-labels": {"app": "front"}}
    assert asked(ONLY_FRONT, source="", **other)["verdict"] == "denied"


def test_egress_policy_of_the_source_counts_for_each_endpoint() -> None:
    text = (
        "kind: NetworkPolicy\nmetadata: {name: out, namespace: shop}\nspec: {podSelector: {matchLabels: {app: front}},"
        " policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {version: v1}}}]}]}\n---\n"
    )
    answer = asked(text)
    assert answer["verdict"] == "route"
    assert "1 of 2 ready endpoints would refuse" in answer["policy"]["why"]
    answer = asked(text, "tcp://api.shop:5432")
    assert (answer["verdict"], answer["status"], answer["policy"]["by"]) == ("denied", None, "NetworkPolicy shop/out")
    assert asked(text, "http://192.0.2.1/")["verdict"] == "denied"


def test_strict_mutual_tls_refuses_a_client_without_identity() -> None:
    text = "kind: PeerAuthentication\nmetadata: {name: s, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n---\n"
    assert asked(text)["verdict"] == "route"
    for more in ({"plaintext": True}, {"source": "", "source_ip": "192.0.2.9"}):
        answer = asked(text, **more)
        assert (answer["verdict"], answer["status"], answer["reason"]) == ("denied", None, "FL-PLAINTEXT")
        assert answer["policy"]["by"] == "PeerAuthentication shop/s"
    off = "kind: DestinationRule\nmetadata: {name: off, namespace: shop}\nspec: {host: web, trafficPolicy: {tls: {mode: DISABLE}}}\n---\n"
    answer = explain(World(SHOP + text + off), {"url": "http://web.shop/"})
    assert answer["verdict"] == "denied"


def test_without_mutual_tls_a_principal_is_nobody() -> None:
    text = (
        "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n"
        "spec: {selector: {matchLabels: {app: web}}, rules: [{from: [{source: {namespaces: [shop]}}]}]}\n---\n"
        "kind: DestinationRule\nmetadata: {name: web, namespace: shop}\nspec: {host: web, trafficPolicy: {tls: {mode: DISABLE}}}\n---\n"
    )
    assert (
        explain(World(SHOP + CALLER + text), {"url": "http://web.shop/", "from": "shop/front-1"})["verdict"] == "denied"
    )
    secure = text.replace("DISABLE", "ISTIO_MUTUAL")
    assert (
        explain(World(SHOP + CALLER + secure), {"url": "http://web.shop/", "from": "shop/front-1"})["verdict"]
        == "route"
    )


def test_a_workloads_own_address_is_judged_by_its_policies_too() -> None:
    address = "http://10.1.0.1:8080/"  # shop/web-1
    assert asked(ONLY_FRONT, address)["verdict"] == "passthrough"
    assert asked(ONLY_FRONT, address)["policy"]["by"] == "NetworkPolicy shop/web-from-front rule 0"
    assert asked(ONLY_FRONT, address, source="shop/odd-1")["verdict"] == "denied"
    assert asked(ONLY_FRONT, "tcp://10.1.0.1:8080", source="shop/odd-1")["verdict"] == "denied"
    strict = "kind: PeerAuthentication\nmetadata: {name: s, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n---\n"
    assert asked(strict, address)["reason"] == "FL-PLAINTEXT"


def test_authorization_sees_the_request_as_it_is_sent() -> None:
    text = (
        "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n"
        "spec: {selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {paths: [/x]}}],"
        " when: [{key: 'request.headers[x-a]', values: [b]}]}]}\n---\n"
    )
    answer = asked(CANARY + text, "http://web.shop/api/x")
    assert (answer["verdict"], answer["policy"]["by"]) == ("route", "AuthorizationPolicy shop/p rule 0")
    assert asked(text, "http://web.shop/x")["verdict"] == "denied"


def test_claims_of_a_token() -> None:
    text = (
        "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n"
        "spec: {rules: [{from: [{source: {requestPrincipals: ['iss/amy']}}],"
        " when: [{key: 'request.auth.claims[groups]', values: [admin]}]}]}\n---\n"
    )
    claims = {"iss": "iss", "sub": "amy", "groups": ["dev", "admin"]}
    assert asked(text, jwt_claims=claims)["verdict"] == "route"
    assert asked(text, jwt_claims='{"iss": "iss", "sub": "bob"}')["verdict"] == "denied"
    assert asked(text)["verdict"] == "denied"


def test_passthrough_and_an_id_that_is_repeated() -> None:
    answer = asked("", "http://example.com/x", id=7)
    assert (answer["id"], answer["verdict"], answer["status"]) == (7, "passthrough", None)
    assert answer["destinations"] == [{"host": "example.com", "subset": None, "port": 80, "weight": 100}]
    assert "id" not in asked("", "http://example.com/x")


def test_a_request_may_enter_by_a_gateway() -> None:
    text = rule("{hosts: [shop.example], gateways: [edge], http: [{route: [{destination: {host: web}}]}]}", "edge")
    assert asked(text, "http://shop.example/", source="", gateway="shop/edge")["verdict"] == "route"
    assert asked(text, "http://other.example/", source="", gateway="shop/edge")["status"] == 404


def test_headers_come_in_three_forms_and_a_host_header_replaces_the_authority() -> None:
    for headers in ({"X-Tester": "yes"}, [["x-tester", "yes"]], ["X-Tester: yes"]):
        assert asked(CANARY, headers=headers)["route"] == "testers"
    assert asked("", "http://10.0.0.1/", headers=["Host: web.shop"])["destinations"][0]["host"] == WEB


def test_paths_are_normalised_first() -> None:
    assert asked(CANARY, "http://web.shop/a/../api/%78")["request"]["path"] == "/x"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"method": "GET"}, "url: it is missing"),
        ({"url": "ftp://x/"}, "begins with ftp://"),
        ({"url": "http:///x"}, "has no host"),
        ({"url": "http://x:99999/"}, "url: "),
        ({"url": "tcp://x"}, "has no port"),
        ({"url": "http://x/", "from": "front"}, "is not NAMESPACE/WORKLOAD"),
        ({"url": "http://x/", "from": "shop/nobody"}, "there is no workload shop/nobody; known: shop/api-1"),
        ({"url": "http://x/", "from_labels": "app"}, "is not K=V"),
        ({"url": "http://x/", "port": 0}, "is not a port number"),
        ({"url": "http://x/", "jwt_claims": "{"}, "jwt_claims: not JSON"),
        ({"url": "http://x/", "headers": ["nocolon"]}, "is not 'name: value'"),
        ({"url": "http://x/", "headers": 3}, "expected an object or a list"),
        ({"url": "http://x/", "methd": "GET"}, "did you mean method?"),
        ({"url": "http://x/", "method": "G T"}, "is not an HTTP method"),
        ({"url": "http://x/", "tcp": "yes"}, "expected true or false"),
        ({"url": "http://x/a%00"}, "FL-MALFORMED"),
        ({"url": 3}, "expected text"),
    ],
)
def test_bad_questions_say_what_is_wrong(query: dict[str, Any], says: str) -> None:
    with pytest.raises(QueryError) as caught:
        explain(World(SHOP), query)
    assert says in str(caught.value)


def test_the_text_for_people_has_the_verdict_the_rule_and_the_steps() -> None:
    text = render(asked(CANARY + ONLY_FRONT, "http://web.shop/api/x", source="shop/odd-1"))
    assert text.startswith(
        "denied 403 FL-DENIED: no ingress rule of NetworkPolicy shop/web-from-front admits shop/odd-1"
    )
    for part in ("VirtualService shop/web, route 1", "timeout   2 s", "mirror", "DENIED: no ingress rule", "no match"):
        assert part in text, text


WORLD = World(SHOP + SUBSETS + CALLER + CANARY)
EXPLAINER = Explainer(WORLD)
TABLES = WORLD.client("shop/front-1")


@settings(max_examples=150, deadline=None)
@given(
    host=st.sampled_from(["web.shop", "web", "api.shop:9080", "example.com", "WEB.shop.svc.cluster.local.", "api"]),
    path=st.lists(st.sampled_from([*"ab/api.", "%2F", "%61"]), max_size=12).map("".join),
    headers=st.lists(st.tuples(st.sampled_from(["x-tester", "a"]), st.sampled_from(["yes", "no"])), max_size=2),
)
def test_explain_says_what_decide_decides(host: str, path: str, headers: list[tuple[str, str]]) -> None:
    answer = EXPLAINER.explain({"url": f"http://{host}/{path}", "headers": headers, "from": "shop/front-1"})
    request = get(host, answer["request"]["path"] if answer["route"] != 1 else "/api" + answer["request"]["path"])
    request.headers = headers
    decision = decide(TABLES, request)
    assert [(one["host"], one["subset"] or "", one["port"]) for one in answer["destinations"]] == [
        (one.host, one.subset, one.port) for one in decision.destinations
    ]
