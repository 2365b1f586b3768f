"""Tries, timeouts, shares, mirrors, hashes and limits: Fairlead and Envoy do the same with them."""
# ruff: noqa: E501 - a table

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import yaml

from tests.e2e.oracle import (
    ANY,
    UNLIMITED,
    Apps,
    Case,
    Client,
    Oracle,
    cluster,
    differences,
    eventually,
    oracle,
    request,
    retrying,
    service,
    to,
    weighted,
)

HASHED = 4
PREDICATE: dict[str, Any] = {"retry_host_predicate": []}


def _tries(
    name: str, retries: str, policy: dict[str, Any] | None, *requests: str, host: str = "once", **more: Any
) -> Case:
    rule = f"- retries: {retries}\n  route: [{{destination: {{host: {host}}}}}]"
    for key, value in more.items():
        rule += f"\n  {key}: {value}"
    return Case(name, rule, [{**ANY, **to(host, retry_policy=policy, **more)}], requests)


DEFAULTS = Case("default retries", "- route: [{destination: {host: once}}]", [{**ANY, **to("once")}],
                ["GET / x-do:503,200", "GET / x-do:reset,200", "POST / x-do:reset,200 body:x", "GET / x-do:500,200"])  # fmt: skip
TRIES = [
    DEFAULTS,
    _tries("5xx", "{attempts: 2, retryOn: 5xx}", retrying("5xx", 2), "GET / x-do:500,200", "GET / x-do:503,599,200",
           "GET / x-do:500,502,504", "GET / x-do:500,404", "GET / x-do:reset,200", "GET / x-do:reset,reset,reset",
           "POST / x-do:503,200 body:hello", "GET / x-do:429,200", "HEAD / x-do:500,204", "GET / x-do:500,reset,200"),
    _tries("gateway-error", "{attempts: 1, retryOn: gateway-error}", retrying("gateway-error", 1), "GET / x-do:500,200",
           "GET / x-do:502,200", "GET / x-do:503,200", "GET / x-do:504,200", "GET / x-do:502,503", "GET / x-do:501,200",
           "GET / x-do:reset,200"),
    _tries("reset", "{attempts: 1, retryOn: reset}", retrying("reset", 1), "GET / x-do:reset,200", "GET / x-do:503,200",
           "GET / x-do:close,200", "PUT / x-do:reset,200 body:x"),
    _tries("connect-failure", "{attempts: 2, retryOn: connect-failure}", retrying("connect-failure", 2),
           "GET / x-do:reset,200", "GET / x-do:503,200"),
    _tries("retriable-4xx", "{attempts: 1, retryOn: retriable-4xx}", retrying("retriable-4xx", 1), "GET / x-do:409,200",
           "GET / x-do:404,200", "GET / x-do:429,200"),
    _tries("codes", "{attempts: 2, retryOn: '404,503'}", retrying("retriable-status-codes", 2, (404, 503)),
           "GET / x-do:404,503,200", "GET / x-do:500,200", "GET / x-do:reset,200"),
    _tries("several", "{attempts: 1, retryOn: 'retriable-4xx,connect-failure,418'}",
           retrying("retriable-4xx,connect-failure,retriable-status-codes", 1, (418,)), "GET / x-do:409,200",
           "GET / x-do:418,200", "GET / x-do:500,200"),
    _tries("reset-before-request", "{attempts: 1, retryOn: reset-before-request}", retrying("reset-before-request", 1),
           "GET / x-do:reset,200"),
    _tries("none", "{attempts: 0}", None, "GET / x-do:503,200", "GET / x-do:reset,200"),
    _tries("no such condition for plain requests", "{attempts: 1, retryOn: 'unavailable,cancelled,refused-stream'}",
           retrying("unavailable,cancelled,refused-stream", 1), "GET / x-do:503,200", "GET / x-do:reset,200"),
    _tries("codes do not cover connection failures", "{attempts: 1, retryOn: '503'}",
           retrying("retriable-status-codes", 1, (503,)), "GET /", host="dead"),
    _tries("per try and 5xx", "{attempts: 1, perTryTimeout: 150ms, retryOn: 5xx}", retrying("5xx", 1, per_try_timeout="0.15s"),
           "GET / x-do:hang,200", "GET / x-do:hang,hang", "GET / x-do:hang,503"),
    _tries("per try and reset", "{attempts: 1, perTryTimeout: 150ms, retryOn: reset}",
           retrying("reset", 1, per_try_timeout="0.15s"), "GET / x-do:hang,200"),
    _tries("per try and gateway-error", "{attempts: 1, perTryTimeout: 150ms, retryOn: gateway-error}",
           retrying("gateway-error", 1, per_try_timeout="0.15s"), "GET / x-do:hang,200"),
    _tries("per try by default", "{attempts: 2, perTryTimeout: 150ms}",
           retrying("connect-failure,refused-stream,unavailable,cancelled", 2, per_try_timeout="0.15s"), "GET / x-do:hang,200"),
    _tries("timeout of all tries", "{attempts: 5, perTryTimeout: 200ms, retryOn: 5xx}",
           retrying("5xx", 5, per_try_timeout="0.2s"), "GET / x-do:hang", timeout="0.3s"),
    _tries("timeout", "{attempts: 2, retryOn: 5xx}", retrying("5xx", 2), "GET / x-do:hang", "POST / x-do:hang body:x", "GET /",
           "GET / x-do:503,hang", timeout="0.2s"),
]  # fmt: skip
SHARES = Case(
    "shares", "- route: [{destination: {host: v1}, weight: 1}, {destination: {host: v2}, weight: 3}, {destination: {host: v3}}]",
    [{**ANY, **weighted([{"name": "v1", "weight": 1}, {"name": "v2", "weight": 3}])}])  # fmt: skip
EVEN = Case(
    "even shares", "- route: [{destination: {host: v1}, weight: 5}, {destination: {host: v2}, weight: 5}]",
    [{**ANY, **weighted([{"name": "v1", "weight": 5}, {"name": "v2", "weight": 5}])}])  # fmt: skip
SHADOW = {"trace_sampled": False, "disable_shadow_host_suffix_append": True}
MIRRORED = Case(
    "mirror", "- mirror: {host: v2}\n  rewrite: {uri: /new}\n  route: [{destination: {host: v1}}]\n"
    "  headers: {request: {set: {x-a: '1'}}}",
    [{**ANY, **to("v1", prefix_rewrite="/new", request_mirror_policies=[{**SHADOW, "cluster": "v2"}]),
      "request_headers_to_add": [{"header": {"key": "x-a", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]}],
    ["GET /x", "POST /x body:hello", "GET /x x-do:503", "GET / x-request-id:mine"])  # fmt: skip
TWO_MIRRORS = Case(
    "mirrors", "- mirrors: [{destination: {host: v2}}, {destination: {host: v3}, percentage: {value: 0}}, "
    "{destination: {host: nowhere}}]\n  route: [{destination: {host: v1}}]",
    [{**ANY, **to("v1", request_mirror_policies=[{"cluster": "v2"}, {"cluster": "nowhere"}])}], ["GET /x"])  # fmt: skip
OTHER_HOST = Case("another endpoint", "- retries: {attempts: 5, retryOn: connect-failure}\n  route: [{destination: {host: half}}]",
                  [{**ANY, **to("half", retry_policy=retrying("connect-failure", 5))}])  # fmt: skip


def _hash(name: str, policy: dict[str, Any]) -> Case:
    action = to(name, hash_policy=[policy], retry_policy=retrying("connect-failure", 2, **PREDICATE))
    return Case(name, f"- route: [{{destination: {{host: {name}}}}}]", [{**ANY, **action}])


BY_HEADER = _hash("by-header", {"header": {"header_name": "x-user"}})
BY_COOKIE = _hash("by-cookie", {"cookie": {"name": "who", "ttl": "3600s", "path": "/p"}})
BY_SESSION = _hash("by-session", {"cookie": {"name": "who", "ttl": "0s"}})
BY_GIVEN = _hash("by-given", {"cookie": {"name": "who"}})
BY_QUERY = _hash("by-query", {"query_parameter": {"name": "user"}})
BY_SOURCE = _hash("by-source", {"connection_properties": {"source_ip": True}})
KEYS = {
    BY_HEADER: "httpHeaderName: x-user",
    BY_COOKIE: "httpCookie: {name: who, ttl: 3600s, path: /p}",
    BY_SESSION: "httpCookie: {name: who, ttl: 0s}",
    BY_GIVEN: "httpCookie: {name: who}",
    BY_QUERY: "httpQueryParameterName: user",
    BY_SOURCE: "useSourceIp: true",
}
LIMITED = {
    "one-request": ("http: {http2MaxRequests: 1}", {"max_requests": 1}),
    "no-pending": ("tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}", {"max_connections": 1, "max_pending_requests": 1}),
    "one-retry": ("http: {maxRetries: 1}", {"max_retries": 1}),
}  # fmt: skip
LIMITS = {
    name: Case(name, f"- retries: {{attempts: 1, retryOn: 5xx}}\n  route: [{{destination: {{host: {name}}}}}]",
               [{**ANY, **to(name, retry_policy=retrying("5xx", 1))}])
    for name in LIMITED
}  # fmt: skip
CASES = [*TRIES, SHARES, EVEN, MIRRORED, TWO_MIRRORS, OTHER_HOST, *KEYS, *LIMITS.values()]


def _rule(name: str, policy: str) -> str:
    return (
        f"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\n"
        f"spec: {{host: {name}, trafficPolicy: {{{policy}}}}}\n---\n"
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    hashed = [f"h{number}" for number in range(HASHED)]
    apps = Apps("v1", "v2", "v3", "once", "limited", *hashed)
    ports = [apps.at[name] for name in hashed]
    manifests: list[Any] = [*service("dead", [1]), *service("half", [1, apps.at["v1"]])]
    rules = ""
    clusters = {"dead": cluster("dead", [1]), "half": cluster("half", [1, apps.at["v1"]])}
    for case, key in KEYS.items():
        name = case.name
        manifests += service(name, ports)
        rules += _rule(name, f"loadBalancer: {{consistentHash: {{{key}}}}}")
        clusters[name] = cluster(name, ports, lb_policy="RING_HASH", ring_hash_lb_config={"minimum_ring_size": 1024})
    for name, (pool, limits) in LIMITED.items():
        manifests += service(name, [apps.at["limited"]])
        rules += _rule(name, f"connectionPool: {{{pool}}}")
        every = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), UNLIMITED)
        clusters[name] = cluster(name, [apps.at["limited"]], circuit_breakers={"thresholds": [{**every, **limits}]})
    more = yaml.safe_dump_all(manifests) + "---\n" + rules
    with oracle(tmp_path_factory.mktemp("oracle"), CASES, apps, more, clusters) as made:
        yield made


@pytest.mark.parametrize(
    ("case", "text"), [pytest.param(case, text, id=f"{case.name}: {text}") for case in TRIES for text in case.requests]
)
def test_both_try_as_often_and_give_the_same_answer(both: Oracle, case: Case, text: str) -> None:
    ours, theirs = both.both(case, text)
    told = differences(ours, theirs, text)
    assert not told, told


@pytest.mark.parametrize(("case", "share"), [(SHARES, 0.25), (EVEN, 0.5)])
def test_weights_are_shares_in_both(both: Oracle, case: Case, share: float) -> None:
    """1,000 draws: five standard deviations are at most 0.08."""
    for proxy in ("fairlead", "envoy"):
        apps = Counter(both.ask(proxy, case, "GET /").seen[0].app for _ in range(1000))
        assert set(apps) == {"v1", "v2"}, proxy
        assert abs(apps["v1"] / 1000 - share) < 0.08, (proxy, apps)


@pytest.mark.parametrize("text", MIRRORED.requests)
def test_a_mirror_gets_the_same_copy_from_both(both: Oracle, text: str) -> None:
    ours, theirs = both.both(MIRRORED, text, expected=2)
    for result in (ours, theirs):
        result.seen.sort(key=lambda one: one.app)
        copy = result.seen[1]  # Envoy marks its copies as calls of its own, from its own address
        copy.headers = [pair for pair in copy.headers if pair[0] not in ("x-envoy-internal", "x-forwarded-for")]
    told = differences(ours, theirs, text)
    assert not told, told


def test_mirrors_of_no_share_and_to_nowhere_get_nothing(both: Oracle) -> None:
    ours, theirs = both.both(TWO_MIRRORS, "GET /x", expected=2)
    assert sorted(one.app for one in ours.seen) == sorted(one.app for one in theirs.seen) == ["v1", "v2"]


def test_a_connection_that_fails_is_tried_at_another_endpoint_by_both(both: Oracle) -> None:
    for _ in range(20):
        for result in both.both(OTHER_HOST, "GET /"):
            assert (result.status, result.seen[0].app) == (200, "v1")


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (BY_HEADER, "GET / x-user:{}"),
        (BY_COOKIE, "GET / cookie:who={}"),
        (BY_COOKIE, "GET / 'cookie:a=b; who={}; c=d'"),
        (BY_GIVEN, "GET / cookie:who={}"),
        (BY_QUERY, "GET /?a=b&user={}"),
    ],
)
def test_one_key_goes_to_one_endpoint_and_many_keys_to_all_in_both(both: Oracle, case: Case, text: str) -> None:
    for proxy in ("fairlead", "envoy"):
        reached = set()
        for user in range(40):
            apps = {both.ask(proxy, case, text.format(user)).seen[0].app for _ in range(3)}
            assert len(apps) == 1, (proxy, user)
            reached |= apps
        assert len(reached) == HASHED, proxy


def test_one_address_goes_to_one_endpoint_in_both(both: Oracle) -> None:
    for proxy in ("fairlead", "envoy"):
        assert len({both.ask(proxy, BY_SOURCE, "GET /").seen[0].app for _ in range(20)}) == 1


@pytest.mark.parametrize("case", [BY_HEADER, BY_GIVEN, BY_QUERY])
def test_without_a_key_any_endpoint_is_taken_by_both(both: Oracle, case: Case) -> None:
    for proxy in ("fairlead", "envoy"):
        results = [both.ask(proxy, case, "GET /") for _ in range(60)]
        assert len({result.seen[0].app for result in results}) > 1, proxy
        assert not any(name == "set-cookie" for result in results for name, _ in result.headers)


@pytest.mark.parametrize("case", [BY_COOKIE, BY_SESSION])
def test_both_make_a_cookie_that_leads_back(both: Oracle, case: Case) -> None:
    shapes = []
    for proxy in ("fairlead", "envoy"):
        first = both.ask(proxy, case, "GET /")
        [cookie] = [value for name, value in first.headers if name == "set-cookie"]
        pair, _, attributes = cookie.partition("; ")
        name, _, value = pair.partition("=")
        assert value.strip('"')
        shapes.append((name, sorted(one.lower() for one in attributes.split("; "))))
        for _ in range(5):
            again = both.ask(proxy, case, f"GET / cookie:{pair}")
            assert again.seen[0].app == first.seen[0].app
            assert not any(name == "set-cookie" for name, _ in again.headers)
    ours, theirs = shapes
    if case is BY_SESSION:  # without a path Envoy's is for the folder of its request alone; ours is for the whole site
        theirs[1].append("path=/")
    assert ours == theirs


def _while_one_hangs(both: Oracle, proxy: str, case: Case, then: Callable[[], Any]) -> Any:
    """What `then` gives while a request is under way at the app."""
    client, key = Client(both.port[proxy]), f"{proxy}-{case.name}"
    octets = request("GET / x-do:hang", case.host, key)
    thread = threading.Thread(target=_quietly, args=(client, octets), daemon=True)
    thread.start()
    both.apps.wait(key, 1)
    try:
        return then()
    finally:
        client.abandon()
        thread.join(10)


def _quietly(client: Client, octets: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):  # it is abandoned
        client.send(octets)


def test_a_request_too_many_gets_the_same_answer_from_both(both: Oracle) -> None:
    case = LIMITS["one-request"]
    results = [
        _while_one_hangs(both, proxy, case, partial(both.ask, proxy, case, "GET /")) for proxy in ("fairlead", "envoy")
    ]
    told = differences(results[0], results[1], "GET /")
    assert not told, told
    assert results[0].status == 503
    assert ("x-envoy-overloaded", "true") in results[0].headers
    assert results[0].seen == []


def test_of_three_requests_one_waits_for_the_connection_and_two_are_refused_by_both(both: Oracle) -> None:
    case = LIMITS["no-pending"]

    def refused(proxy: str) -> list[tuple[int, list[tuple[str, str]], bytes]]:
        clients = [Client(both.port[proxy]) for _ in range(3)]
        found: list[tuple[int, list[tuple[str, str]], bytes]] = []

        def ask(client: Client) -> None:
            with contextlib.suppress(OSError, ValueError):  # the one that waits is abandoned
                found.append(client.send(request("GET /", case.host, "waits")))

        threads = [threading.Thread(target=ask, args=(client,), daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        eventually("two of three to be refused", lambda: len(found) == 2)
        for client in clients:
            client.abandon()
        for thread in threads:
            thread.join(10)
        return found

    for proxy in ("fairlead", "envoy"):
        for status, headers, _ in _while_one_hangs(both, proxy, case, partial(refused, proxy)):
            assert (status, dict(headers).get("x-envoy-overloaded")) == (503, "true"), proxy
