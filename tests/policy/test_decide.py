"""Routing as Istio does it, quirks included, and the verdicts at the workload's own door."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.policy.compile import compile_tables
from fairlead.policy.decide import admit, decide, egress_verdict, hash_input, inbound_port, pick
from fairlead.policy.tables import Arrival, Decision, Destination, LoadBalancer, SimpleRequest, Viewpoint
from tests.policy.worlds import World, get

SHOP = """
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
kind: Service
metadata: {name: api, namespace: shop}
spec: {selector: {app: api}, ports: [{name: http, port: 9080}, {name: tcp-db, port: 5432}]}
---
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1}}
spec: {serviceAccountName: web, containers: [{ports: [{name: http, containerPort: 8080}]}]}
---
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web, version: v2}}
spec: {serviceAccountName: web, containers: [{ports: [{name: http, containerPort: 8080}]}]}
---
kind: Pod
metadata: {name: api-1, namespace: shop, labels: {app: api}}
spec: {serviceAccountName: api, containers: [{ports: [{containerPort: 9080}, {containerPort: 5432}]}]}
---
"""
WEB = "web.shop.svc.cluster.local"
API = "api.shop.svc.cluster.local"
SUBSETS = """
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
"""


def rule(spec: str, name: str = "web", namespace: str = "shop", created: int = 0) -> str:
    return (
        f"kind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}, created: {created}}}\n"
        f"spec: {spec}\n---\n"
    )


def ask(text: str, request: SimpleRequest, namespace: str = "shop", **client: Any) -> Decision:
    return decide(World(SHOP + SUBSETS + text).client(namespace=namespace, **client), request)


def clusters(decision: Decision) -> list[str]:
    return [destination.cluster for destination in decision.destinations]


# --- plain services -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [WEB, f"{WEB}.", "web.shop.svc", "web.shop", "web", "WEB.Shop", "web.shop:80", "web:80"]
)
def test_a_service_is_found_by_all_its_spellings(name: str) -> None:
    decision = ask("", get(name))
    assert (decision.verdict, clusters(decision)) == ("route", [f"outbound|80||{WEB}"])


def test_the_bare_name_counts_only_in_the_services_own_namespace() -> None:
    assert ask("", get("web"), namespace="other").verdict == "passthrough"
    assert ask("", get("web.shop"), namespace="other").verdict == "route"


def test_plain_service_has_two_retries_and_no_timeout() -> None:
    decision = ask("", get("web"))
    assert decision.timeout_s is None
    assert decision.retries is not None
    assert decision.retries.attempts == 2
    assert decision.retries.conditions == {"connect-failure", "refused-stream", "unavailable", "cancelled"}
    assert not decision.retries.status_codes


def test_a_decision_that_depends_on_nothing_is_shared() -> None:
    tables = World(SHOP).client(namespace="shop")
    assert decide(tables, get("web", "/a")) is decide(tables, get("web", "/b"))


def test_by_host_a_service_without_port_80_is_taken_at_its_only_http_port() -> None:
    assert clusters(ask("", get("api"))) == [f"outbound|9080||{API}"]
    assert ask("", get("api", port=80)).verdict == "passthrough"
    assert ask("", get("api:81")).verdict == "passthrough"


def test_unknown_hosts_pass_through_or_are_refused() -> None:
    decision = ask("", get("example.com:8443"))
    assert (decision.verdict, decision.destinations[0].host, decision.destinations[0].port) == (
        "passthrough",
        "example.com",
        8443,
    )
    closed = "kind: MeshConfig\nmetadata: {name: m}\nspec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n---\n"
    decision = ask(closed, get("example.com"))
    assert (decision.verdict, decision.status, decision.reason) == ("not-found", 502, "FL-NO-ROUTE")
    assert ask(closed, get("web")).verdict == "route"


def test_named_ports_and_loopback_addresses_say_the_service_whatever_the_host_header_says() -> None:
    assert clusters(ask("", get("localhost:9000", host=WEB, port=80))) == [f"outbound|80||{WEB}"]


def test_services_not_exported_to_the_client_do_not_exist() -> None:
    text = "kind: Service\nmetadata: {name: own, namespace: shop}\nspec: {exportTo: ['.'], ports: [{port: 80}]}\n---\n"
    assert ask(text, get("own.shop"), namespace="shop").verdict == "route"
    assert ask(text, get("own.shop"), namespace="other").verdict == "passthrough"


def test_headless_services_cover_the_names_below_them() -> None:
    text = "kind: Service\nmetadata: {name: db, namespace: shop}\nspec: {clusterIP: None, ports: [{port: 80}]}\n---\n"
    assert clusters(ask(text, get("db-0.db.shop.svc.cluster.local"))) == ["outbound|80||db.shop.svc.cluster.local"]


def test_an_alias_leads_to_the_real_service_and_only_its_full_name_takes_rules() -> None:
    alias = (
        "kind: Service\nmetadata: {name: shopfront, namespace: shop}\n"
        "spec: {externalName: web.shop.svc.cluster.local}\n---\n"
    )
    assert clusters(ask(alias, get("shopfront.shop"))) == [f"outbound|80||{WEB}"]
    text = alias + rule("{hosts: [shopfront], http: [{directResponse: {status: 418}}]}")
    assert ask(text, get("shopfront.shop.svc.cluster.local")).status == 418
    assert ask(text, get("shopfront.shop")).verdict == "route"


# --- which VirtualService ---------------------------------------------------------------------------------------------

V1 = "{hosts: [web], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: web, subset: v1}}]}]}"
V2 = "{hosts: [web], http: [{route: [{destination: {host: web, subset: v2}}]}]}"


def test_the_oldest_rule_is_used_alone_and_what_it_does_not_match_is_404() -> None:
    text = rule(V2, "young", created=2) + rule(V1, "old", created=1)
    assert clusters(ask(text, get("web", "/a"))) == [f"outbound|80|v1|{WEB}"]
    decision = ask(text, get("web", "/b"))
    assert (decision.verdict, decision.status, decision.reason) == ("not-found", 404, "FL-NO-ROUTE")
    assert decision.virtual_service == "shop/old"


def test_equal_age_goes_by_name() -> None:
    assert ask(rule(V2, "b") + rule(V1, "a"), get("web", "/b")).verdict == "not-found"


def test_a_rule_without_routes_for_this_client_is_skipped_as_a_whole() -> None:
    filtered = "{hosts: [web], http: [{match: [{sourceLabels: {app: other}}], route: [{destination: {host: web, subset: v1}}]}]}"
    assert clusters(ask(rule(filtered), get("web"))) == [f"outbound|80||{WEB}"]
    assert clusters(ask(rule(filtered), get("web"), labels={"app": "other"})) == [f"outbound|80|v1|{WEB}"]
    text = rule(filtered, "old", created=1) + rule(V2, "young", created=2)
    assert clusters(ask(text, get("web"))) == [f"outbound|80|v2|{WEB}"]


def test_the_most_specific_host_wins_over_age() -> None:
    wide = "{hosts: ['*.shop.svc.cluster.local'], http: [{directResponse: {status: 200}}]}"
    text = rule(wide, "wide", created=1) + rule(V2, "exact", created=2)
    assert clusters(ask(text, get("web"))) == [f"outbound|80|v2|{WEB}"]
    assert ask(text, get("api:9080")).verdict == "direct-response"


def test_rules_of_client_service_and_third_namespaces_are_equal() -> None:
    spec = "{hosts: [web.shop.svc.cluster.local], http: [{directResponse: {status: 204}}]}"
    assert ask(rule(spec, namespace="third"), get("web"), namespace="shop").status == 204


def test_export_to_hides_a_rule() -> None:
    spec = "{hosts: [web.shop.svc.cluster.local], exportTo: ['.'], http: [{directResponse: {status: 204}}]}"
    assert ask(rule(spec), get("web.shop"), namespace="other").verdict == "route"
    assert ask(rule(spec), get("web.shop"), namespace="shop").status == 204


def test_short_names_belong_to_the_namespace_of_the_rule_and_dotted_ones_are_never_completed() -> None:
    assert ask(rule(V2, namespace="other"), get("web.shop"), namespace="other").destinations[0].subset == ""
    dotted = "{hosts: [web], http: [{route: [{destination: {host: web.shop}}]}]}"
    assert clusters(ask(rule(dotted), get("web"))) == ["outbound|80||web.shop"]


def test_a_literal_host_claims_that_spelling_on_port_80_only() -> None:
    literal = "{hosts: [web.shop], http: [{directResponse: {status: 201}}]}"
    assert ask(rule(literal), get("web.shop")).status == 201
    assert ask(rule(literal), get(WEB)).verdict == "route"
    elsewhere = "{hosts: [api.shop], http: [{directResponse: {status: 201}}]}"
    assert ask(rule(elsewhere), get("api.shop:9080")).verdict == "route"


def test_hosts_unknown_to_the_registry_exist_on_port_80_alone() -> None:
    spec = "{hosts: [outside.example], http: [{route: [{destination: {host: web}}]}]}"
    assert clusters(ask(rule(spec), get("outside.example"))) == [f"outbound|80||{WEB}"]
    assert ask(rule(spec), get("outside.example:8080")).verdict == "passthrough"


def test_a_rule_for_a_gateway_alone_is_none_of_a_sidecars() -> None:
    spec = "{hosts: [web], gateways: [edge], http: [{directResponse: {status: 204}}]}"
    assert ask(rule(spec), get("web")).verdict == "route"
    both = "{hosts: [web], gateways: [edge, mesh], http: [{directResponse: {status: 204}}]}"
    assert ask(rule(both), get("web")).status == 204


def test_http_routes_have_no_effect_on_tcp_ports() -> None:
    spec = "{hosts: [api], http: [{directResponse: {status: 204}}]}"
    assert ask(rule(spec), get("api:5432")).verdict == "route"
    assert ask(rule(spec), get("api:9080")).status == 204


# --- matching -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "request_", "hit"),
    [
        ("{uri: {prefix: /foo}}", get("web", "/foobar"), True),
        ("{uri: {exact: /foo}}", get("web", "/foo/"), False),
        ("{uri: {exact: /foo}}", get("web", "/foo?a=b"), True),
        ("{uri: {regex: '/v[0-9]+/.*'}}", get("web", "/v12/x"), True),
        ("{uri: {regex: '/v[0-9]+'}}", get("web", "/v12/x"), False),
        ("{uri: {exact: /Foo}, ignoreUriCase: true}", get("web", "/fOO"), True),
        ("{uri: {prefix: /Foo}, ignoreUriCase: true}", get("web", "/foobar"), True),
        ("{uri: {regex: /Foo}, ignoreUriCase: true}", get("web", "/foo"), False),
        ("{method: {exact: POST}}", get("web"), False),
        ("{method: {exact: POST}}", get("web", method="POST"), True),
        ("{authority: {exact: web}}", get("web:80"), False),
        ("{authority: {exact: 'web:80'}}", get("web:80"), True),
        ("{scheme: {exact: http}}", get("web"), True),
        ("{headers: {X-User: {exact: amy}}}", get("web", x_user="amy"), True),
        ("{headers: {x-user: {exact: amy}}}", get("web", x_user="Amy"), False),
        ("{headers: {x-user: {}}}", get("web", x_user=""), True),
        ("{headers: {x-user: {}}}", get("web"), False),
        ("{headers: {x-user: {prefix: a}}}", get("web", x_user="amy"), True),
        ("{withoutHeaders: {x-user: {}}}", get("web"), True),
        ("{withoutHeaders: {x-user: {}}}", get("web", x_user="amy"), False),
        ("{withoutHeaders: {x-user: {exact: amy}}}", get("web", x_user="bob"), True),
        ("{withoutHeaders: {x-user: {exact: amy}}}", get("web", x_user="amy"), False),
        ("{withoutHeaders: {x-user: {exact: amy}}}", get("web"), True),
        ("{withoutHeaders: {x-user: {regex: '.*'}}}", get("web"), False),
        ("{withoutHeaders: {x-user: {regex: '*'}}}", get("web"), True),
        ("{queryParams: {k: {exact: ''}}}", get("web", "/?k"), True),
        ("{queryParams: {k: {exact: ''}}}", get("web", "/?k="), True),
        ("{queryParams: {k: {exact: a}}}", get("web", "/?k=a&k=b"), True),
        ("{queryParams: {k: {exact: b}}}", get("web", "/?k=a&k=b"), False),
        ("{queryParams: {k: {exact: 'a b'}}}", get("web", "/?k=a%20b"), False),
        ("{queryParams: {k: {}}}", get("web", "/?j=1"), False),
        ("{port: 80}", get("web:80"), True),
        ("{sourceNamespace: shop}", get("web"), True),
        ("{uri: {prefix: /a}, headers: {x: {exact: b}}}", get("web", "/a"), False),
    ],
)
def test_match_conditions(match: str, request_: SimpleRequest, hit: bool) -> None:
    spec = f"{{hosts: [web], http: [{{match: [{match}], directResponse: {{status: 299}}}}, {{directResponse: {{status: 500}}}}]}}"
    assert (ask(rule(spec), request_).status == 299) is hit


def test_blocks_are_alternatives_and_the_first_route_that_matches_wins() -> None:
    spec = (
        "{hosts: [web], http: ["
        "{match: [{uri: {exact: /a}}, {uri: {exact: /b}}], directResponse: {status: 201}},"
        "{match: [{uri: {prefix: /}}], directResponse: {status: 202}},"
        "{match: [{uri: {exact: /c}}], directResponse: {status: 203}}]}"
    )
    assert [ask(rule(spec), get("web", path)).status for path in ("/a", "/b", "/c")] == [201, 201, 202]


def test_port_conditions_are_about_the_port_dialled_not_the_host_header() -> None:
    spec = "{hosts: [web], http: [{match: [{port: 80}], directResponse: {status: 299}}]}"
    assert ask(rule(spec), get("web:9999", host=WEB, port=80)).status == 299


def test_gateways_in_a_block_switch_off_its_source_conditions() -> None:
    spec = (
        "{hosts: [web], http: [{match: [{gateways: [mesh], sourceLabels: {app: other}, sourceNamespace: other}],"
        " directResponse: {status: 299}}]}"
    )
    assert ask(rule(spec), get("web")).status == 299
    spec = (
        "{hosts: [web], gateways: [mesh, edge], http: [{match: [{gateways: [edge]}], directResponse: {status: 299}}]}"
    )
    assert ask(rule(spec), get("web")).verdict == "route"


def test_a_hostile_regex_takes_no_time() -> None:
    spec = "{hosts: [web], http: [{match: [{uri: {regex: '/(a+)+b'}}], directResponse: {status: 299}}, {directResponse: {status: 200}}]}"
    assert ask(rule(spec), get("web", "/" + "a" * 5000)).status == 200


# --- destinations -------------------------------------------------------------------------------------------------------


def test_without_a_port_the_destination_has_the_port_that_was_dialled() -> None:
    spec = "{hosts: [web], http: [{route: [{destination: {host: api}}]}]}"
    tables = World(SHOP + rule(spec)).client(namespace="shop")
    decision = decide(tables, get("web"))
    assert clusters(decision) == [f"outbound|80||{API}"]
    assert f"outbound|80||{API}" not in tables.clusters
    assert f"outbound|9080||{API}" in tables.clusters


def test_weights_are_shares_a_missing_one_is_zero_and_a_single_one_does_not_count() -> None:
    spec = (
        "{hosts: [web], http: [{route: [{destination: {host: web, subset: v1}, weight: 1},"
        "{destination: {host: web, subset: v2}, weight: 3}, {destination: {host: web}}]}]}"
    )
    decision = ask(rule(spec), get("web"))
    assert [(one.subset, one.weight) for one in decision.destinations] == [("v1", 1), ("v2", 3)]
    drawn = [pick(decision, draw / 100).subset for draw in range(100)]
    assert (drawn.count("v1"), drawn.count("v2")) == (25, 75)
    single = ask(rule("{hosts: [web], http: [{route: [{destination: {host: web}, weight: 0}]}]}"), get("web"))
    assert pick(single, 0.99).host == WEB


def test_the_sum_of_weights_is_never_overrun() -> None:
    decision = Decision("route", destinations=(Destination("a", "a", 1, "", 1), Destination("b", "b", 1, "", 2)))
    assert pick(decision, 0.0).cluster == "a"
    assert pick(decision, 0.9999999999999999).cluster == "b"


# --- what is done to the request ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "rewrite", "path", "new"),
    [
        ("{uri: {prefix: /api}}", "{uri: /}", "/api/x?q=1", "//x?q=1"),
        ("{uri: {prefix: /api}}", "{uri: /}", "/apidocs", "/docs"),
        ("{uri: {prefix: /api/}}", "{uri: /}", "/api/x", "/x"),
        ("{uri: {exact: /old}}", "{uri: /new}", "/old?q=1", "/new?q=1"),
        ("{uri: {regex: '/o.*'}}", "{uri: /new}", "/old/deep", "/new"),
        ("{method: {exact: GET}}", "{uri: /new}", "/old", "/newold"),
        ("{uri: {prefix: /}}", "{uriRegexRewrite: {match: '^/user/([0-9]+)/(.*)$', rewrite: '/\\2/of/\\1'}}", "/user/7/cart?x", "/cart/of/7?x"),
        ("{uri: {prefix: /}}", "{uriRegexRewrite: {match: 'a', rewrite: b}}", "/aXa?a", "/bXb?a"),
        ("{uri: {prefix: /}}", "{uriRegexRewrite: {match: 'x*', rewrite: '-'}}", "/axxb", "-/-a-b-"),
        ("{uri: {prefix: /API}, ignoreUriCase: true}", "{uri: /v1}", "/api/x", "/v1/x"),
    ],
)  # fmt: skip
def test_rewrites(match: str, rewrite: str, path: str, new: str) -> None:
    spec = (
        f"{{hosts: [web], http: [{{match: [{match}], rewrite: {rewrite}, route: [{{destination: {{host: web}}}}]}}]}}"
    )
    assert ask(rule(spec), get("web", path)).path == new


@pytest.mark.parametrize(
    ("redirect", "authority", "path", "location"),
    [
        ("{uri: /new}", "web:8080", "/old?q=1", "http://web:8080/new?q=1"),
        ("{uri: '/new?x=2'}", "web", "/old?q=1", "http://web/new?x=2"),
        ("{authority: b.example}", "web:80", "/old", "http://b.example/old"),
        ("{scheme: https}", "web:80", "/x", "https://web/x"),
        ("{scheme: https}", "web:8080", "/x", "https://web:8080/x"),
        ("{scheme: https, port: 443}", "web:8080", "/x", "https://web/x"),
        ("{port: 8443}", "web:80", "/x", "http://web:8443/x"),
        ("{derivePort: FROM_REQUEST_PORT}", "web:999", "/x", "http://web/x"),
        ("{derivePort: FROM_PROTOCOL_DEFAULT}", "web:999", "/x", "http://web/x"),
        ("{prefixRewrite: /new}", "web", "/old/x", "http://web/new/x"),
    ],
)
def test_redirects(redirect: str, authority: str, path: str, location: str) -> None:
    spec = f"{{hosts: [web], http: [{{match: [{{uri: {{prefix: /old}}}}, {{uri: {{exact: /x}}}}], redirect: {redirect}}}]}}"
    decision = ask(rule(spec), get(authority, path, host=WEB, port=80))
    assert (decision.verdict, decision.status, decision.location) == ("redirect", 301, location)


def test_redirect_codes_that_istio_does_not_carry_out_drop_the_route() -> None:
    spec = "{hosts: [web], http: [{redirect: {uri: /x, redirectCode: 305}}, {directResponse: {status: 201}}]}"
    assert ask(rule(spec), get("web")).status == 201
    spec = "{hosts: [web], http: [{redirect: {uri: /x, redirectCode: 308}}]}"
    assert ask(rule(spec), get("web")).status == 308


def headers_of(route: str) -> tuple[Any, Any]:
    decision = ask(rule(f"{{hosts: [web], http: [{route}]}}"), get("web"))
    return decision, decision.destinations[0].request_headers


def test_with_one_destination_its_set_wins_over_the_routes() -> None:
    _, operations = headers_of(
        "{headers: {request: {set: {x: route}, add: {y: '1'}}},"
        " route: [{destination: {host: web}, headers: {request: {set: {x: own}, add: {Y: '2'}, remove: [z]}}}]}"
    )
    assert operations.set == (("x", "own"),)
    assert operations.add == (("y", "1"), ("y", "2"))
    assert operations.remove == ("z",)


def test_with_several_destinations_the_routes_set_wins_and_its_remove_deletes() -> None:
    _, operations = headers_of(
        "{headers: {request: {set: {x: route}, remove: [z]}}, route: ["
        "{destination: {host: web, subset: v1}, weight: 1, headers: {request: {set: {x: own, z: own}}}},"
        "{destination: {host: web, subset: v2}, weight: 1}]}"
    )
    assert operations.set == (("x", "route"),)
    assert operations.remove == ("z",)


def test_the_authority_is_the_routes_in_all_cases_and_set_beats_add() -> None:
    decision, operations = headers_of(
        "{headers: {request: {add: {Host: added.example}, set: {':authority': set.example}}},"
        " route: [{destination: {host: web}, headers: {request: {set: {host: own.example}}}}]}"
    )
    assert decision.authority == "set.example"
    assert operations is None
    decision, _ = headers_of(
        "{route: [{destination: {host: web, subset: v1}, weight: 1, headers: {request: {set: {host: one.example}}}},"
        "{destination: {host: web, subset: v2}, weight: 1}]}"
    )
    assert decision.authority is None
    assert [one.authority for one in decision.destinations] == ["one.example", None]
    decision, _ = headers_of("{rewrite: {authority: new.example}, route: [{destination: {host: web}}]}")
    assert decision.authority == "new.example"


def route(settings_: str) -> Decision:
    return ask(rule(f"{{hosts: [web], http: [{{{settings_}, route: [{{destination: {{host: web}}}}]}}]}}"), get("web"))


def test_retries_are_what_the_route_says() -> None:
    assert route("retries: {attempts: 0}").retries is None
    retries = route("retries: {attempts: 3, perTryTimeout: 2s, retryOn: '5xx,503', backoff: 100ms}").retries
    assert retries is not None
    assert (retries.attempts, retries.per_try_timeout_s, retries.backoff_s) == (3, 2.0, 0.1)
    assert retries.conditions == {"5xx", "retriable-status-codes"}
    assert retries.status_codes == {503}
    mesh = "kind: MeshConfig\nmetadata: {name: m}\nspec: {defaultHttpRetryPolicy: {attempts: 5, retryOn: reset}}\n---\n"
    retries = ask(mesh, get("web")).retries
    assert retries is not None
    assert (retries.attempts, set(retries.conditions)) == (5, {"reset"})


def test_faults_without_percentage_never_fire() -> None:
    fault = route("fault: {delay: {fixedDelay: 5s}, abort: {httpStatus: 503, percentage: {value: 50}}}").fault
    assert fault is not None
    assert (fault.delay_s, fault.delay_percentage) == (5.0, 0.0)
    assert (fault.abort_status, fault.abort_percentage) == (503, 50.0)
    assert route("fault: {abort: {percentage: {value: 100}}}").fault is None


def test_mirrors_default_to_everything_and_those_without_target_are_skipped() -> None:
    mirrors = route("mirror: {host: web, subset: v2}").mirrors
    assert [(one.cluster, one.percentage) for one in mirrors] == [(f"outbound|80|v2|{WEB}", 100.0)]
    assert route("mirror: {host: web}, mirrorPercentage: {value: 0}").mirrors == ()
    assert route("mirror: {host: nowhere}").mirrors == ()
    found = route(
        "mirrors: [{destination: {host: web}, percentage: {value: 5}}, {destination: {host: web, subset: v1}}]"
    )
    assert [one.percentage for one in found.mirrors] == [5.0, 100.0]


@pytest.mark.parametrize(
    ("match", "lines", "holds"),
    [
        ("headers: {x-a: {exact: one}}", ["two", "one"], True),
        ("headers: {x-a: {exact: 'two,one'}}", ["two", "one"], False),
        ("headers: {x-a: {exact: 'two,one'}}", ["two,one"], True),
        ("headers: {x-a: {regex: '[a-z]+'}}", ["2", "one"], True),
        ("headers: {x-a: {prefix: t}}", ["one", "three"], True),
        ("withoutHeaders: {x-a: {exact: one}}", ["two", "one"], False),
        ("withoutHeaders: {x-a: {exact: one}}", ["two", "three"], True),
    ],
)
def test_of_a_header_with_several_lines_one_that_fits_is_enough(match: str, lines: list[str], holds: bool) -> None:
    request = get("web")
    request.headers = [("x-a", line) for line in lines]
    decision = ask(
        rule(f"{{hosts: [web], http: [{{match: [{{{match}}}], route: [{{destination: {{host: web}}}}]}}]}}"), request
    )
    assert decision.verdict == ("route" if holds else "not-found")


@pytest.mark.parametrize(("told", "scheme"), [("https", "https"), ("http", "http"), ("ftp", "http"), (None, "http")])
def test_the_scheme_is_the_one_that_a_trusted_peer_tells(told: str | None, scheme: str) -> None:
    headers: dict[str, Any] = {} if told is None else {"x_forwarded_proto": told}
    spec = rule(
        "{hosts: [web], http: [{match: [{scheme: {exact: https}}], redirect: {uri: /tls}}, {redirect: {uri: /plain}}]}"
    )
    decision = ask(spec, get("web", **headers))
    assert decision.location == (f"{scheme}://web/tls" if scheme == "https" else "http://web/plain")


def test_cors_answers_preflights_and_never_blocks() -> None:
    policy = "corsPolicy: {allowOrigins: [{exact: 'https://a.example'}], allowMethods: [GET, PUT], allowHeaders: ['*'], maxAge: 24h, allowCredentials: true, exposeHeaders: [x-a]}"
    spec = rule(f"{{hosts: [web], http: [{{{policy}, route: [{{destination: {{host: web}}}}]}}]}}")
    asked: dict[str, Any] = {"access_control_request_method": "PUT", "access_control_request_headers": "x-token"}
    preflight = ask(spec, get("web", method="OPTIONS", origin="https://a.example", **asked))
    assert (preflight.verdict, preflight.status) == ("direct-response", 200)
    assert preflight.response_headers is not None
    assert dict(preflight.response_headers.set) == {
        "access-control-allow-origin": "https://a.example",
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET,PUT",
        "access-control-allow-headers": "x-token",
        "access-control-expose-headers": "x-a",
        "access-control-max-age": "86400",
    }
    assert ask(spec, get("web", method="OPTIONS", origin="https://b.example", **asked)).verdict == "route"
    actual = ask(spec, get("web", origin="https://a.example"))
    assert actual.destinations[0].response_headers is not None
    assert dict(actual.destinations[0].response_headers.set)["access-control-expose-headers"] == "x-a"
    other = ask(spec, get("web", origin="https://b.example"))
    assert (other.verdict, other.destinations[0].response_headers) == ("route", None)


# --- delegates -------------------------------------------------------------------------------------------------------


def test_delegates_fill_in_routes_and_their_names_belong_to_their_own_namespace() -> None:
    root = rule(
        "{hosts: [web], http: [{name: r, match: [{uri: {prefix: /team}}], timeout: 3s,"
        " delegate: {name: part, namespace: team}}, {directResponse: {status: 404}}]}"
    )
    part = rule(
        "{http: [{name: d, match: [{uri: {prefix: /team/a}}], route: [{destination: {host: app}}]},"
        " {match: [{uri: {prefix: /other}}], directResponse: {status: 418}}, {directResponse: {status: 202}}]}",
        "part",
        "team",
    )
    decision = ask(root + part, get("web", "/team/a/1"))
    assert (clusters(decision), decision.route, decision.timeout_s) == (
        ["outbound|80||app.team.svc.cluster.local"],
        "r-d",
        3.0,
    )
    assert ask(root + part, get("web", "/team/b")).status == 202
    assert ask(root + part, get("web", "/other")).status == 404
    assert ask(root, get("web", "/team/a")).status == 404


# --- gateways --------------------------------------------------------------------------------------------------------


def test_at_a_gateway_rules_are_joined_and_catch_alls_move_behind() -> None:
    text = rule(
        "{hosts: [shop.example], gateways: [edge], http: [{route: [{destination: {host: api}}]}]}", "a", created=1
    )
    text += rule(
        "{hosts: [shop.example], gateways: [shop/edge], http: [{match: [{uri: {prefix: /w}}], route: [{destination: {host: web}}]}]}",
        "b",
        created=2,
    )
    world = World(SHOP + text)
    tables = world.client(namespace="shop", gateway="shop/edge")
    assert clusters(decide(tables, get("shop.example", "/w", listener="shop/edge"))) == [f"outbound|80||{WEB}"]
    assert clusters(decide(tables, get("shop.example:80", "/", listener="shop/edge"))) == [f"outbound|80||{API}"]
    assert decide(tables, get("other.example", listener="shop/edge")).status == 404


# --- TCP and TLS ------------------------------------------------------------------------------------------------------


def connect(text: str, arrival: Arrival, **client: Any) -> Decision:
    return decide(World(SHOP + SUBSETS + text).client(namespace="shop", **client), SimpleRequest(arrival))


def test_tcp_goes_to_the_service_or_by_the_first_route_that_matches() -> None:
    arrival = Arrival("outbound", host="api.shop", port=5432)
    assert clusters(connect("", arrival)) == [f"outbound|5432||{API}"]
    spec = (
        "{hosts: [api], tcp: [{match: [{sourceLabels: {app: x}}], route: [{destination: {host: web, port: {number: 80}}}]},"
        "{match: [{port: 5432}], route: [{destination: {host: api, subset: v2}}]}]}"
    )
    assert clusters(connect(rule(spec), arrival)) == [f"outbound|5432|v2|{API}"]
    assert clusters(connect(rule(spec), arrival, labels={"app": "x"})) == [f"outbound|80||{WEB}"]


def test_tls_routes_go_by_the_most_specific_server_name_whatever_the_order() -> None:
    service = "kind: Service\nmetadata: {name: sec, namespace: shop}\nspec: {clusterIPs: [10.9.0.1], ports: [{name: tls, port: 443}]}\n---\n"
    spec = (
        "{hosts: [sec], tls: [{match: [{sniHosts: ['*.example']}], route: [{destination: {host: web}}]},"
        "{match: [{sniHosts: [a.example]}], route: [{destination: {host: api}}]}]}"
    )
    for name, target in (("a.example", API), ("b.example", WEB), ("other.net", "sec.shop.svc.cluster.local")):
        arrival = Arrival("outbound", destination_ip="10.9.0.1", port=443, sni=name)
        assert clusters(connect(service + rule(spec), arrival)) == [f"outbound|443||{target}"]


def test_unknown_connections_pass_through_or_are_closed() -> None:
    arrival = Arrival("outbound", destination_ip="192.0.2.7", port=25)
    assert connect("", arrival).verdict == "passthrough"
    closed = "kind: MeshConfig\nmetadata: {name: m}\nspec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n---\n"
    decision = connect(closed, arrival)
    assert (decision.verdict, decision.status) == ("not-found", 0)


# --- inbound ---------------------------------------------------------------------------------------------------------

CALLER = """
kind: Pod
metadata: {name: front-1, namespace: shop, labels: {app: front}}
spec: {serviceAccountName: front, ip: 10.2.0.1}
---
kind: Pod
metadata: {name: odd-1, namespace: shop, labels: {app: odd}}
spec: {serviceAccountName: odd, ip: 10.2.0.2}
---
"""
FRONT = "spiffe://cluster.local/ns/shop/sa/front"
ODD = "spiffe://cluster.local/ns/shop/sa/odd"
ONLY_FRONT = """
kind: NetworkPolicy
metadata: {name: web-from-front, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: front}}}], ports: [{port: http}]}]
---
"""


def inbound(identity: str = FRONT, port: int = 8080, ip: str = "10.2.0.1") -> Arrival:
    return Arrival("inbound", source_ip=ip, port=port, identity=identity, tls=bool(identity))


def at_web(text: str, arrival: Arrival, path: str = "/", method: str = "GET", **headers: str) -> Decision:
    world = World(SHOP + CALLER + text)
    tables = compile_tables(world.resources, world.snapshot, Viewpoint(world.workloads["shop/web-1"]))
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return decide(tables, SimpleRequest(arrival, method, "web.shop", path, pairs))


def test_admitted_requests_go_to_the_workloads_own_port() -> None:
    decision = at_web("", inbound())
    assert (decision.verdict, clusters(decision)) == ("route", ["inbound|8080||"])
    assert decision.retries is not None
    assert decision.retries.conditions == {"reset-before-request"}


def test_network_policy_denies_with_its_name() -> None:
    assert at_web(ONLY_FRONT, inbound()).verdict == "route"
    decision = at_web(ONLY_FRONT, inbound(ODD, ip="10.2.0.2"))
    assert (decision.verdict, decision.status, decision.reason) == ("denied", 403, "FL-DENIED")
    assert decision.policy is not None
    assert "shop/web-from-front" in decision.policy.by


def test_strict_refuses_peers_without_identity_and_disable_refuses_mutual_tls() -> None:
    strict = (
        "kind: PeerAuthentication\nmetadata: {name: s, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n---\n"
    )
    decision = at_web(strict, inbound(""))
    assert (decision.verdict, decision.reason) == ("denied", "FL-PLAINTEXT")
    assert at_web(strict, inbound()).verdict == "route"
    assert at_web(strict.replace("STRICT", "DISABLE"), inbound()).verdict == "denied"
    assert at_web("", inbound("")).verdict == "route"


def test_authorization_policy_judges_each_request() -> None:
    policy = (
        "kind: AuthorizationPolicy\nmetadata: {name: readers, namespace: shop}\n"
        "spec: {selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {methods: [GET], paths: [/pub*]}}]}]}\n---\n"
    )
    allowed = at_web(policy, inbound(), "/public?x=1")
    assert (allowed.verdict, allowed.policy and allowed.policy.by) == (
        "route",
        "AuthorizationPolicy shop/readers rule 0",
    )
    assert at_web(policy, inbound(), "/private").status == 403
    assert at_web(policy, inbound(), "/public", "POST").status == 403


def test_connections_are_refused_before_they_are_read_only_where_nothing_could_be_allowed() -> None:
    world = World(SHOP + CALLER + ONLY_FRONT)
    tables = compile_tables(world.resources, world.snapshot, Viewpoint(world.workloads["shop/web-1"]))
    assert admit(tables, inbound()).allowed
    assert not admit(tables, inbound(ODD, ip="10.2.0.2")).allowed
    policy = (
        "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n"
        "spec: {rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/front]}}], to: [{operation: {methods: [GET]}}]}]}\n---\n"
    )
    world = World(SHOP + CALLER + policy)
    tables = compile_tables(world.resources, world.snapshot, Viewpoint(world.workloads["shop/web-1"]))
    assert admit(tables, inbound()).allowed
    assert not admit(tables, inbound(ODD, ip="10.2.0.2")).allowed
    opaque = decide(tables, SimpleRequest(inbound()))
    assert opaque.verdict == "denied", "an ALLOW rule with an HTTP condition does not count for opaque connections"


def test_tls_without_an_identity_is_not_mutual_and_an_identity_without_tls_is_not_proved() -> None:
    strict = "kind: PeerAuthentication\nmetadata: {name: s, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n---\n"
    for tls, identity in ((True, ""), (False, FRONT)):
        arrival = Arrival("inbound", source_ip="10.2.0.1", port=8080, identity=identity, tls=tls)
        assert at_web(strict, arrival).reason == "FL-PLAINTEXT"
        assert at_web(strict.replace("STRICT", "DISABLE"), arrival).verdict == "route"


EVERYBODY = "kind: AuthorizationPolicy\nmetadata: {name: all, namespace: shop}\nspec: {rules: [{}]}\n---\n"
NOBODY = "kind: AuthorizationPolicy\nmetadata: {name: none, namespace: shop}\nspec: {}\n---\n"


@pytest.mark.parametrize("method", ["GET", ""], ids=["request", "connection"])
def test_what_one_kind_of_policy_refuses_the_other_does_not_permit(method: str) -> None:
    assert at_web(ONLY_FRONT + EVERYBODY, inbound(), method=method).verdict == "route"
    assert at_web(ONLY_FRONT + EVERYBODY, inbound(ODD, ip="10.2.0.2"), method=method).verdict == "denied"
    assert at_web(ONLY_FRONT + NOBODY, inbound(), method=method).verdict == "denied"
    assert at_web(ONLY_FRONT, inbound(), method=method).verdict == "route"


@pytest.mark.parametrize("listener", ["inbound", "gateway"])
def test_a_connection_is_admitted_by_both_kinds_of_policy(listener: str) -> None:
    def admitted(text: str, identity: str = FRONT, ip: str = "10.2.0.1") -> bool:
        world = World(SHOP + CALLER + text)
        tables = compile_tables(world.resources, world.snapshot, Viewpoint(world.workloads["shop/web-1"]))
        return admit(tables, Arrival(listener, source_ip=ip, port=8080, identity=identity, tls=True)).allowed

    assert admitted("")
    assert admitted(ONLY_FRONT)
    assert not admitted(ONLY_FRONT, ODD, "10.2.0.2")
    assert not admitted(NOBODY)
    assert not admitted(ONLY_FRONT + NOBODY)
    assert not admitted(ONLY_FRONT + EVERYBODY, ODD, "10.2.0.2")
    assert admitted(ONLY_FRONT + EVERYBODY)


def test_weights_that_are_all_zero_leave_the_first() -> None:
    first, second = (Destination(name, "h", 80, weight=0) for name in "ab")
    assert [pick(Decision("route", destinations=(first, second)), draw) for draw in (0.0, 0.5, 0.999)] == [first] * 3
    heavy = Destination("c", "h", 80, weight=1)
    assert [pick(Decision("route", destinations=(first, heavy)), draw) for draw in (0.0, 0.999)] == [heavy] * 2


def test_the_mesh_server_name_says_the_workloads_port() -> None:
    world = World(SHOP)
    tables = compile_tables(world.resources, world.snapshot, Viewpoint(world.workloads["shop/web-1"]))
    assert inbound_port(tables, f"outbound_.80_.v1_.{WEB}") == 8080
    assert inbound_port(tables, f"outbound_.81_._.{WEB}") == 0
    assert inbound_port(tables, f"outbound_.9080_._.{API}") == 0
    for bad in ("", "web", "outbound_.x_._.web", "outbound_.80_.web"):
        assert inbound_port(tables, bad) == 0


def test_egress_to_addresses_outside_follows_the_policy() -> None:
    policy = (
        "kind: NetworkPolicy\nmetadata: {name: out, namespace: shop}\n"
        "spec: {policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]}]}\n---\n"
    )
    tables = World(SHOP + policy).client("shop/web-1")
    allowed = [egress_verdict(tables, address, 443) for address in ("192.0.2.1", "192.0.2.200", "198.51.100.1")]
    assert [one is not None and one.allowed for one in allowed] == [True, False, False]
    assert egress_verdict(World(SHOP).client("shop/web-1"), "192.0.2.1", 443) is None


# --- hashing ----------------------------------------------------------------------------------------------------------


def test_what_is_hashed() -> None:
    request = get("web", "/?user=amy&user=bob", cookie='a=1; sid="x7"', x_user="amy")
    request.arrival.source_ip = "10.0.0.9"
    assert hash_input(LoadBalancer("ring_hash", "header", "x-user"), request) == "amy"
    assert hash_input(LoadBalancer("ring_hash", "cookie", "sid"), request) == "x7"
    assert hash_input(LoadBalancer("ring_hash", "query", "user"), request) == "amy"
    assert hash_input(LoadBalancer("ring_hash", "source-ip"), request) == "10.0.0.9"
    assert hash_input(LoadBalancer("ring_hash", "header", "absent"), request) is None
    assert hash_input(LoadBalancer(), request) is None


# --- properties --------------------------------------------------------------------------------------------------------

EVERYTHING = World(
    SHOP
    + SUBSETS
    + CALLER
    + ONLY_FRONT
    + rule(V1)
    + rule("{hosts: ['*.wild.example'], http: [{match: [{uri: {regex: '(a|b)*c'}}], redirect: {uri: /x}}]}", "wild")
)
CLIENT = EVERYTHING.client(namespace="shop")
SERVER = EVERYTHING.client("shop/web-1")


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(["", "GET", "POST", "weird"]),
    authority=st.one_of(
        st.text(max_size=30), st.sampled_from(["web", "web.shop:80", "a.wild.example", "[::1]:80", ":"])
    ),
    path=st.one_of(st.text(max_size=30), st.sampled_from(["/a", "*", "/a?b=c#d"])),
    headers=st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4),
    listener=st.sampled_from(["outbound", "inbound", "shop/edge"]),
    port=st.integers(-1, 70000),
    texts=st.tuples(st.text(max_size=12), st.text(max_size=12), st.text(max_size=30), st.text(max_size=12)),
)
def test_decide_is_total_and_the_trace_changes_nothing(
    method: str,
    authority: str,
    path: str,
    headers: list[tuple[str, str]],
    listener: str,
    port: int,
    texts: tuple[str, str, str, str],
) -> None:
    source_ip, host, identity, sni = texts
    arrival = Arrival(
        listener, source_ip=source_ip, port=port, host=host, identity=identity, sni=sni, destination_ip=source_ip
    )
    request = SimpleRequest(arrival, method, authority, path, headers)
    for tables in (CLIENT, SERVER):
        plain, traced = decide(tables, request), decide(tables, request, [])
        assert plain.verdict in (
            "route",
            "redirect",
            "direct-response",
            "not-found",
            "denied",
            "unavailable",
            "passthrough",
        )
        assert (plain.verdict, plain.status, plain.route, clusters(plain), plain.location, plain.path) == (
            traced.verdict,
            traced.status,
            traced.route,
            clusters(traced),
            traced.location,
            traced.path,
        )
        admit(tables, arrival)
        if plain.destinations:
            assert pick(plain, 0.5) in plain.destinations


def test_tcp_routes_may_ask_for_the_dialled_address_and_the_clients() -> None:
    spec = (
        "{hosts: [api], tcp: [{match: [{destinationSubnets: [10.9.0.0/16], sourceSubnet: 10.1.0.0/16}],"
        " route: [{destination: {host: web, port: {number: 80}}}]}]}"
    )
    for destination, source, target in (
        ("10.9.0.1", "10.1.0.1", f"outbound|80||{WEB}"),
        ("10.8.0.1", "10.1.0.1", f"outbound|5432||{API}"),
        ("10.9.0.1", "10.2.0.1", f"outbound|5432||{API}"),
    ):
        arrival = Arrival("outbound", host=API, port=5432, destination_ip=destination, source_ip=source)
        assert clusters(connect(rule(spec), arrival)) == [target]
