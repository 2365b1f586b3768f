"""Random requests to one table of routes: Fairlead and Envoy agree on every one of them. The seed is fixed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.e2e.oracle import Apps, Case, Oracle, differences, oracle, put, to

REQUESTS = 1500
RULES = """
- match:
  - {uri: {exact: /}, headers: {x-a: {exact: one}}}
  - {uri: {exact: /A/B}, ignoreUriCase: true, method: {exact: PUT}}
  route: [{destination: {host: v1}}]
- match: [{uri: {prefix: /a/}, queryParams: {k: {exact: '1'}}, withoutHeaders: {x-b: {}}}]
  rewrite: {uri: /rewritten/}
  headers:
    request: {set: {x-a: set, x-path: '%REQ(:PATH)%'}, add: {x-b: added}, remove: [x-c]}
    response: {remove: [x-old]}
  route: [{destination: {host: v2}}]
- match: [{uri: {regex: '/[ab]+/[0-9]*(/.*)?'}, withoutHeaders: {x-a: {prefix: t}}}]
  rewrite: {uriRegexRewrite: {match: '/([ab])', rewrite: '/<\\1>'}}
  route: [{destination: {host: v3}}]
- match: [{method: {regex: 'P.*'}, headers: {x-a: {regex: 't[wh].*'}, x-c: {}}}]
  redirect: {prefixRewrite: /moved, authority: other.example, redirectCode: 308}
- match: [{uri: {prefix: /b}, headers: {x-b: {prefix: t}}}]
  redirect: {scheme: https, uri: /secure}
- match: [{queryParams: {k: {regex: '[0-9]+'}}, withoutHeaders: {x-c: {exact: one}}}, {queryParams: {j: {}}}]
  directResponse: {status: 202, body: {string: direct}}
  headers: {response: {set: {x-a: '%REQ(X-A?X-B)%'}}}
- match: [{uri: {prefix: /a}, scheme: {exact: https}}]
  rewrite: {authority: new.example}
  route: [{destination: {host: v1}}]
- match: [{uri: {prefix: /c}, ignoreUriCase: true}]
  corsPolicy: {allowOrigins: [{exact: 'http://one'}, {regex: 't.*'}], allowMethods: [GET], exposeHeaders: [x-old]}
  rewrite: {uri: /}
  route: [{destination: {host: v2}}]
- match: [{authority: {exact: 'random.test:80'}}, {uri: {prefix: /a/b}}]
  route: [{destination: {host: v3}}]
"""


def _h(name: str, negate: bool = False, **match: Any) -> dict[str, Any]:
    [(kind, value)] = match.items()
    if kind == "present":
        return {"name": name, "present_match": True, **({"invert_match": True} if negate else {})}
    test = {"safe_regex": {"regex": value}} if kind == "regex" else {kind: value}
    found = {"name": name, "string_match": test}
    return {**found, "invert_match": True, "treat_missing_header_as_empty": True} if negate else found


def _cors() -> dict[str, Any]:
    return {
        "envoy.filters.http.cors": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
            "filter_enabled": {"default_value": {"numerator": 100}},
            "forward_not_matching_preflights": True,
            "allow_origin_string_match": [{"exact": "http://one"}, {"safe_regex": {"regex": "t.*"}}],
            "allow_methods": "GET",
            "expose_headers": "x-old",
        }
    }


_DIRECT = {
    "direct_response": {"status": 202, "body": {"inline_string": "direct"}},
    "response_headers_to_add": put(("x-a", "%REQ(X-A?X-B)%")),
}
_REGEX = {"pattern": {"regex": "/([ab])"}, "substitution": "/<\\1>"}
_MOVED = {"prefix_rewrite": "/moved", "host_redirect": "other.example", "response_code": "PERMANENT_REDIRECT"}
ENVOY: list[dict[str, Any]] = [
    {"match": {"path": "/", "headers": [_h("x-a", exact="one")]}, **to("v1")},
    {"match": {"path": "/A/B", "case_sensitive": False, "headers": [_h(":method", exact="PUT")]}, **to("v1")},
    {
        "match": {
            "prefix": "/a/",
            "headers": [_h("x-b", True, present=True)],
            "query_parameters": [_h("k", exact="1")],
        },
        **to("v2", prefix_rewrite="/rewritten/"),
        "request_headers_to_add": [
            *put(("x-a", "set"), ("x-path", "%REQ(:PATH)%")),
            *put(("x-b", "added"), append=True),
        ],
        "request_headers_to_remove": ["x-c"],
        "response_headers_to_remove": ["x-old"],
    },
    {
        "match": {"safe_regex": {"regex": "/[ab]+/[0-9]*(/.*)?"}, "headers": [_h("x-a", True, prefix="t")]},
        **to("v3", regex_rewrite=_REGEX),
    },
    {
        "match": {
            "prefix": "/",
            "headers": [_h("x-a", regex="t[wh].*"), _h("x-c", present=True), _h(":method", regex="P.*")],
        },
        "redirect": _MOVED,
    },
    {
        "match": {"prefix": "/b", "headers": [_h("x-b", prefix="t")]},
        "redirect": {"scheme_redirect": "https", "path_redirect": "/secure"},
    },
    {
        "match": {
            "prefix": "/",
            "headers": [_h("x-c", True, exact="one")],
            "query_parameters": [_h("k", regex="[0-9]+")],
        },
        **_DIRECT,
    },
    {"match": {"prefix": "/", "query_parameters": [_h("j", present=True)]}, **_DIRECT},
    {
        "match": {"prefix": "/a", "headers": [_h(":scheme", exact="https")]},
        **to("v1", host_rewrite_literal="new.example"),
    },
    {
        "match": {"prefix": "/c", "case_sensitive": False},
        **to("v2", prefix_rewrite="/"),
        "typed_per_filter_config": _cors(),
    },
    {"match": {"prefix": "/", "headers": [_h(":authority", exact="random.test:80")]}, **to("v3")},
    {"match": {"prefix": "/a/b"}, **to("v3")},
]
RULE_OF = [0, 0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 8]
"""Which of the rules each of Envoy's routes is of."""


def _case() -> Case:
    """The table, with each route's number in its answers."""
    rules = yaml.safe_load(RULES)
    for number, rule in enumerate(rules):
        rule.setdefault("headers", {}).setdefault("response", {}).setdefault("set", {})["x-route"] = str(number)
    for number, route in zip(RULE_OF, ENVOY, strict=True):
        route["response_headers_to_add"] = [*put(("x-route", str(number))), *route.get("response_headers_to_add", [])]
    return Case("random", yaml.safe_dump(rules), ENVOY)


CASE = _case()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    with oracle(tmp_path_factory.mktemp("oracle"), [CASE], Apps("v1", "v2", "v3")) as made:
        yield made


def random_request(draw: random.Random) -> str:
    """A request that most conditions of the table hold for now and then."""
    segments = ["a", "b", "ab", "A", "c", "C", "B", "1", "22", "", ".", "..", "%61", "%2F", "x;y=z", "%2e%2e", "moved"]
    path = "".join("/" + draw.choice(segments) for _ in range(draw.choice([1, 1, 2, 2, 3, 4])))
    if draw.random() < 0.4:
        pairs = ["k=1", "k=", "k", "k=12", "k=x", "j", "j=1", "l=2", "K=1", "k=1%31", ""]
        path += "?" + "&".join(draw.choice(pairs) for _ in range(draw.choice([1, 1, 2, 3])))
    values = ["one", "two", "three", "", "One", "t", "one,two", "http://one", "two words"]
    headers = [
        f"'{draw.choice(['x-a', 'X-A', 'x-b', 'x-c', 'x-d'])}:{draw.choice(values)}'"
        for _ in range(draw.choice([0, 1, 1, 2, 3, 4]))
    ]
    if draw.random() < 0.15:
        headers.append(f"x-forwarded-proto:{draw.choice(['http', 'https', 'ftp'])}")
    if draw.random() < 0.2:
        headers.append("host:*:80")
    if draw.random() < 0.25:
        headers.append(f"origin:{draw.choice(['http://one', 'two', 'http://other'])}")
        if draw.random() < 0.5:
            headers.append("access-control-request-method:GET")
    if draw.random() < 0.2:
        headers.append("body:hello")
    method = draw.choice(["GET", "GET", "GET", "PUT", "POST", "HEAD", "OPTIONS", "DELETE", "PATCH"])
    return " ".join([method, path, *headers])


def test_both_agree_on_random_requests_to_every_route(both: Oracle) -> None:
    draw = random.Random(20)
    told = []
    reached = set()
    for _ in range(REQUESTS):
        text = random_request(draw)
        ours, theirs = both.both(CASE, text)
        told.append(differences(ours, theirs, text, own_body=theirs.status == 202))
        reached |= {value for name, value in theirs.headers if name == "x-route"}
    assert not any(told), "\n".join(filter(None, told))
    assert reached == {str(number) for number in RULE_OF}
