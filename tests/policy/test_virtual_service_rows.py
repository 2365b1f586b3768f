"""VirtualService: rows of Istio's semantics that no other test looks at, each as it is documented or really done."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

from typing import Any

import pytest

from fairlead.policy.decide import decide
from fairlead.policy.tables import Arrival, Decision, SimpleRequest, Tables
from tests.policy.test_decide import API, SHOP, SUBSETS, WEB, ask, clusters, connect, rule
from tests.policy.worlds import World, get

ANSWER = "directResponse: {status: %d}"


def answer(status: int, match: str = "") -> str:
    return f"{{{f'match: [{match}], ' if match else ''}{ANSWER % status}}}"


def edge(text: str) -> Tables:
    return World(SHOP + SUBSETS + text).client(namespace="shop", gateway="shop/edge")


def at_edge(own: Tables, host: str, path: str = "/", **headers: Any) -> Decision:
    return decide(own, get(host, path, listener="shop/edge", **headers))


# --- which rule (2.2)


@pytest.mark.parametrize("name", ["web.shop", "web.shop.svc", "web", WEB, f"{WEB}.", WEB.upper()])
def test_a_wildcard_rule_stands_for_all_spellings_of_the_services_that_it_covers(name: str) -> None:
    text = rule(f"{{hosts: ['*.shop.svc.cluster.local'], http: [{answer(299)}]}}")
    assert ask(text, get(name)).status == 299
    text += rule(f"{{hosts: [web], http: [{answer(298)}]}}", "narrow", created=5)
    assert ask(text, get(name)).status == 298
    assert ask(text, get("api:9080")).status == 299


def test_at_a_gateway_the_most_specific_host_is_chosen_without_falling_back() -> None:
    text = rule(f"{{hosts: ['*.example'], gateways: [edge], http: [{answer(299)}]}}", "wide")
    text += rule(f"{{hosts: [a.example], gateways: [edge], http: [{answer(298, '{uri: {prefix: /x}}')}]}}", "narrow")
    own = edge(text)
    assert (at_edge(own, "a.example", "/x").status, at_edge(own, "b.example").status) == (298, 299)
    assert (at_edge(own, "a.example", "/y").status, at_edge(own, "a.example", "/y").verdict) == (404, "not-found")


@pytest.mark.parametrize("catch_all", ["{uri: {prefix: /}}", "{uri: {regex: '.*'}}", "{}"])
def test_what_catches_all_is_last_at_a_gateway_and_ends_the_list_at_a_sidecar(catch_all: str) -> None:
    first = f"http: [{answer(299, catch_all)}]"
    second = f"http: [{answer(298, '{uri: {exact: /x}}')}]"
    own = edge(
        rule(f"{{hosts: [a.example], gateways: [edge], {first}}}", "a", created=1)
        + rule(f"{{hosts: [a.example], gateways: [edge], {second}}}", "b", created=2)
    )
    assert (at_edge(own, "a.example", "/x").status, at_edge(own, "a.example", "/y").status) == (298, 299)
    both = f"http: [{answer(299, catch_all)}, {answer(298, '{uri: {exact: /x}}')}]"
    assert ask(rule(f"{{hosts: [web], {both}}}"), get("web", "/x")).status == 299


def test_a_prefix_of_everything_with_another_condition_catches_not_all() -> None:
    text = rule(
        f"{{hosts: [a.example], gateways: [edge], http: [{answer(299, '{uri: {prefix: /}, headers: {x: {exact: y}}}')}]}}",
        "a",
    ) + rule(f"{{hosts: [a.example], gateways: [edge], http: [{answer(298, '{uri: {prefix: /x}}')}]}}", "b")
    own = edge(text)
    assert (at_edge(own, "a.example", "/x", x="y").status, at_edge(own, "a.example", "/x").status) == (299, 298)


# --- routes (2.3), destinations (2.5)


def test_the_name_of_the_match_stands_behind_the_routes() -> None:
    spec = "{hosts: [web], http: [{name: r, match: [{name: m, uri: {prefix: /m}}, {uri: {prefix: /n}}], route: [{destination: {host: web}}]}]}"
    assert ask(rule(spec), get("web", "/m")).route == "r.m"
    assert ask(rule(spec), get("web", "/n")).route == "r"


def test_at_a_gateway_a_destination_without_port_has_the_services_only_port_else_the_servers() -> None:
    own = edge(
        rule("{hosts: [a.example], gateways: [edge], http: [{route: [{destination: {host: web}}]}]}", "a")
        + rule("{hosts: [b.example], gateways: [edge], http: [{route: [{destination: {host: api}}]}]}", "b")
    )
    decision = decide(own, get("a.example", listener="shop/edge", port=8443))
    assert clusters(decision) == [f"outbound|80||{WEB}"]
    assert clusters(at_edge(own, "b.example")) == [f"outbound|80||{API}"], "it has two ports: the server's number"


def test_regex_of_headers_is_of_a_whole_line_and_one_of_several_lines_is_enough() -> None:
    """Envoy since 1.39; before, lines were joined first, as istio's documentation still has it."""
    whole = answer(299, "{headers: {x: {regex: 'a'}}}")
    text = rule(f"{{hosts: [web], http: [{whole}, {answer(404)}]}}")
    request = SimpleRequest(Arrival("outbound"), "GET", "web", "/", [("X", "a"), ("x", "b")])
    assert ask(text, request).status == 299
    request = SimpleRequest(Arrival("outbound"), "GET", "web", "/", [("x", "ab"), ("x", "b")])
    assert ask(text, request).status == 404


# --- redirects (2.6), faults (2.9), mirrors (2.10), CORS (2.11)


def test_a_fault_without_its_value_does_nothing() -> None:
    spec = "{hosts: [web], http: [{route: [{destination: {host: web}}], fault: {abort: {percentage: {value: 100}}, delay: {percentage: {value: 100}}}}]}"
    fault = ask(rule(spec), get("web")).fault
    assert fault is None or (fault.abort_status, fault.abort_grpc_status, fault.delay_s) == (0, "", 0.0)


@pytest.mark.parametrize(
    ("fields", "percentage"),
    [
        ("mirror: {host: api}", 100.0),
        ("mirror: {host: api}, mirrorPercent: 7", 7.0),
        ("mirror: {host: api}, mirrorPercent: 7, mirrorPercentage: {value: 0.5}", 0.5),
        ("mirrors: [{destination: {host: api}, percentage: {value: 3}}]", 3.0),
    ],
)
def test_how_much_is_mirrored(fields: str, percentage: float) -> None:
    text = rule(
        f"{{hosts: [web], http: [{{route: [{{destination: {{host: web}}}}], {fields.replace('host: api', 'host: api, port: {number: 9080}')}}}]}}"
    )
    (mirror,) = ask(text, get("web")).mirrors
    assert mirror.percentage == percentage


def test_an_explicit_zero_mirrors_nothing() -> None:
    text = rule(
        "{hosts: [web], http: [{route: [{destination: {host: web}}], mirror: {host: api, port: {number: 9080}}, mirrorPercentage: {value: 0}}]}"
    )
    assert all(one.percentage == 0 for one in ask(text, get("web")).mirrors)


@pytest.mark.parametrize("instead", ["redirect: {uri: /elsewhere}", "directResponse: {status: 299}"])
def test_cors_is_not_looked_at_where_the_answer_is_ours(instead: str) -> None:
    text = rule(f"{{hosts: [web], http: [{{{instead}, corsPolicy: {{allowOrigins: [{{exact: 'https://a'}}]}}}}]}}")
    decision = ask(text, get("web", method="OPTIONS", origin="https://a", access_control_request_method="GET"))
    assert decision.status in (299, 301)
    assert decision.response_headers is None or not decision.response_headers.set


@pytest.mark.parametrize(
    ("unmatched", "verdict"),
    [("", "route"), (", unmatchedPreflights: FORWARD", "route"), (", unmatchedPreflights: IGNORE", "direct-response")],
)
def test_preflights_of_other_origins_go_on_or_get_an_answer_without_permission(unmatched: str, verdict: str) -> None:
    text = rule(
        f"{{hosts: [web], http: [{{route: [{{destination: {{host: web}}}}], corsPolicy: {{allowOrigins: [{{exact: 'https://a'}}]{unmatched}}}}}]}}"
    )
    decision = ask(text, get("web", method="OPTIONS", origin="https://b", access_control_request_method="GET"))
    assert decision.verdict == verdict
    if verdict != "route":
        assert decision.status == 200
        names = [name for name, _ in decision.response_headers.set] if decision.response_headers is not None else []
        assert "access-control-allow-origin" not in names


# --- delegates (2.13)


def delegated(root: str, inner: str, request: SimpleRequest) -> Decision:
    text = rule(f"{{hosts: [web], http: [{{match: [{root}], delegate: {{name: part}}}}, {answer(404)}]}}")
    return ask(text + rule(f"{{http: [{answer(299, inner)}]}}", "part"), request)


@pytest.mark.parametrize(
    ("root", "inner", "path", "status"),
    [
        ("{uri: {prefix: /a}}", "{uri: {prefix: /a/b}}", "/a/b", 299),
        ("{uri: {prefix: /a}}", "{uri: {exact: /a/b}}", "/a/b", 299),
        ("{uri: {prefix: /a}}", "{uri: {prefix: /b}}", "/b", 404),
        ("{uri: {prefix: /a/b}}", "{uri: {prefix: /a}}", "/a/b", 404),
        ("{uri: {exact: /a}}", "{uri: {exact: /a}}", "/a", 299),
        ("{uri: {exact: /a}}", "{uri: {exact: /b}}", "/a", 404),
        ("{uri: {exact: /a}}", "{uri: {prefix: /a}}", "/a", 404),
        ("{uri: {regex: /a.*}}", "{uri: {prefix: /a}}", "/a", 404),
        ("{uri: {prefix: /a}}", "{uri: {regex: /a.*}}", "/a", 404),
        ("{uri: {prefix: /a}}", "{method: {exact: GET}}", "/a", 299),
        ("{uri: {prefix: /a}}", "{method: {exact: GET}}", "/b", 404),
        ("{uri: {prefix: /a}}", "{uri: {prefix: /a}, ignoreUriCase: true}", "/a", 404),
        ("{uri: {prefix: /a}, ignoreUriCase: true}", "{headers: {x: {exact: y}}}", "/a", 404),
        ("{uri: {prefix: /a}, ignoreUriCase: true}", "{headers: {x: {exact: y}}, ignoreUriCase: true}", "/A", 299),
        ("{port: 80}", "{port: 80}", "/", 299),
        ("{port: 80}", "{port: 81}", "/", 404),
        ("{sourceNamespace: shop}", "{uri: {prefix: /}}", "/", 404),
        ("{sourceNamespace: shop}", "{sourceNamespace: shop}", "/", 299),
        ("{headers: {x: {exact: y}}}", "{headers: {x: {exact: z}}}", "/", 404),
        ("{headers: {x: {exact: y}}}", "{headers: {v: {exact: w}}}", "/", 299),
        ("{headers: {v: {exact: other}}}", "{uri: {prefix: /}}", "/", 404),
    ],
)  # fmt: skip
def test_a_delegates_match_must_lie_within_the_roots(root: str, inner: str, path: str, status: int) -> None:
    assert delegated(root, inner, get("web", path, x="y", v="w")).status == status


def test_a_delegates_route_with_a_block_that_fits_nowhere_is_dropped_as_a_whole() -> None:
    text = rule("{hosts: [web], http: [{match: [{uri: {prefix: /a}}], delegate: {name: part}}]}")
    part = f"{{http: [{answer(299, '{uri: {prefix: /a/x}}, {uri: {prefix: /b}}')}, {answer(298)}]}}"
    assert ask(text + rule(part, "part"), get("web", "/a/x")).status == 298


def test_settings_of_the_delegate_win_as_whole_blocks_and_the_root_fills_what_is_missing() -> None:
    root = "{hosts: [web], http: [{timeout: 3s, retries: {attempts: 7}, headers: {request: {set: {a: root}}}, delegate: {name: part}}]}"
    part = "{http: [{route: [{destination: {host: web}}], headers: {request: {set: {b: part}}}}]}"
    decision = ask(rule(root) + rule(part, "part"), get("web"))
    assert decision.timeout_s == 3.0 and decision.retries is not None and decision.retries.attempts == 7
    (one,) = decision.destinations
    assert one.request_headers is not None and one.request_headers.set == (("b", "part"),)


@pytest.mark.parametrize(("export_to", "status"), [("", 299), (", exportTo: ['.']", 404), (", exportTo: [shop]", 299)])
def test_a_delegate_of_another_namespace_must_be_exported_to_the_roots(export_to: str, status: int) -> None:
    root = rule(f"{{hosts: [web], http: [{{delegate: {{name: part, namespace: team}}}}, {answer(404)}]}}")
    assert ask(root + rule(f"{{http: [{answer(299)}]{export_to}}}", "part", "team"), get("web")).status == status


# --- TCP and TLS (2.14)

SECURE = "kind: Service\nmetadata: {name: sec, namespace: shop}\nspec: {clusterIPs: [10.9.0.1], ports: [{name: tls, port: 443}]}\n---\n"
TO_SECURE = {"destination_ip": "10.9.0.1", "port": 443}


def test_a_server_name_that_two_rules_have_belongs_to_the_older() -> None:
    route = "{hosts: [sec], tls: [{match: [{sniHosts: [a.example]}], route: [{destination: {host: %s}}]}]}"
    text = SECURE + rule(route % "api", "young", created=2) + rule(route % "web", "old", created=1)
    found = connect(text, Arrival("outbound", sni="a.example", **TO_SECURE))  # type: ignore[arg-type]
    assert clusters(found) == [f"outbound|443||{WEB}"]


@pytest.mark.parametrize(
    ("condition", "hit"),
    [
        ("sourceNamespace: shop", True),
        ("sourceNamespace: other", False),
        ("sourceLabels: {app: x}", True),
        ("sourceLabels: {app: y}", False),
        ("port: 443", True),
        ("port: 444", False),
        ("gateways: [mesh]", True),
        ("gateways: [edge]", False),
        ("gateways: [mesh], sourceLabels: {app: y}", False),
        ("destinationSubnets: [10.9.0.0/24]", True),
        ("destinationSubnets: [10.8.0.0/24]", False),
    ],
)
@pytest.mark.parametrize("kind", ["tls", "tcp"])
def test_conditions_of_octets_are_all_looked_at(kind: str, condition: str, hit: bool) -> None:
    """Unlike with HTTP, `gateways` does not switch off conditions on the source."""
    names = "sniHosts: [a.example], " if kind == "tls" else ""
    text = SECURE + rule(
        f"{{hosts: [sec], {kind}: [{{match: [{{{names}{condition}}}], route: [{{destination: {{host: web}}}}]}}]}}"
    )
    found = connect(text, Arrival("outbound", sni="a.example", **TO_SECURE), labels={"app": "x"})  # type: ignore[arg-type]
    assert clusters(found) == [f"outbound|443||{WEB if hit else 'sec.shop.svc.cluster.local'}"]
