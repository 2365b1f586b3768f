"""Cases for the oracle that need one request each: matches, rewrites, redirects, header operations, CORS, faults.

Long because it is a table.
"""

# ruff: noqa: E501 - a table
from __future__ import annotations

from typing import Any

from tests.e2e.oracle import ANY, Case, put, to, weighted
from tests.e2e.oracle_formats import FORMATS


def _header(name: str, negate: bool = False, **match: Any) -> dict[str, Any]:
    """A header condition as istiod writes it; without `match`: present."""
    found: dict[str, Any] = {"name": name}
    if match:
        [(kind, value)] = match.items()
        found["string_match"] = {"safe_regex": {"regex": value}} if kind == "regex" else {kind: value}
    else:
        found["present_match"] = True
    if negate:
        found["invert_match"] = True
        if match:
            found["treat_missing_header_as_empty"] = True
    return found


def _query(name: str, **match: Any) -> dict[str, Any]:
    return _header(name, **match)


def _when(*conditions: dict[str, Any], prefix: str = "/") -> dict[str, Any]:
    """A route to v1 where all header conditions hold, and one to v2 for all else, by `_either`."""
    return {"match": {"prefix": prefix, "case_sensitive": True, "headers": list(conditions)}, **to("v1")}


ELSE = {**ANY, **to("v2")}
ELSE_YAML = "\n- route: [{destination: {host: v2}}]"


def _either(name: str, match: str, envoy: dict[str, Any], *requests: str) -> Case:
    """`match` leads to v1, everything else to v2."""
    return Case(
        name,
        f"- match: [{match}]\n  route: [{{destination: {{host: v1}}}}]" + ELSE_YAML,
        [{"match": {"case_sensitive": True, **envoy}, **to("v1")}, ELSE],
        requests,
    )


MATCHES = [
    _either("uri exact", "{uri: {exact: /a}}", {"path": "/a"},
            "GET /a", "GET /a?x=1", "GET /a/", "GET /A", "GET /ab", "GET /a/../a", "GET /%61", "GET /a#x", "GET /a?"),
    _either("uri exact without case", "{uri: {exact: /aB}, ignoreUriCase: true}",
            {"path": "/aB", "case_sensitive": False}, "GET /ab", "GET /AB?x", "GET /aB/", "GET /b"),
    _either("uri prefix", "{uri: {prefix: /foo}}", {"prefix": "/foo"},
            "GET /foo", "GET /foobar", "GET /foo/bar?x", "GET /fo", "GET /Foo", "GET /x/foo", "GET //foo", "GET /x/../foo"),
    _either("uri prefix without case", "{uri: {prefix: /Foo}, ignoreUriCase: true}",
            {"prefix": "/Foo", "case_sensitive": False}, "GET /FOO/x", "GET /foob", "GET /fo"),
    _either("uri prefix with slash", "{uri: {prefix: /foo/}}", {"prefix": "/foo/"}, "GET /foo", "GET /foo/", "GET /foo/x"),
    _either("uri regex", "{uri: {regex: '/v[0-9]+/.*'}}", {"safe_regex": {"regex": "/v[0-9]+/.*"}},
            "GET /v1/x", "GET /v12/", "GET /v/x", "GET /v1", "GET /V1/x", "GET /v1/x?y=/v2/", "GET /x/v1/x"),
    _either("uri regex without case has no effect", "{uri: {regex: '/abc'}, ignoreUriCase: true}",
            {"safe_regex": {"regex": "/abc"}, "case_sensitive": False}, "GET /abc", "GET /ABC"),
    _either("uri regex alternation is whole", "{uri: {regex: '/a|/b'}}", {"safe_regex": {"regex": "/a|/b"}},
            "GET /a", "GET /b", "GET /ab", "GET /a/b"),
    _either("uri regex does not see the query", "{uri: {regex: '.*[?].*'}}", {"safe_regex": {"regex": ".*[?].*"}},
            "GET /a?b", "GET /a"),
    _either("method", "{method: {exact: POST}}", {"prefix": "/", "headers": [_header(":method", exact="POST")]},
            "POST /", "GET /", "PUT /", "DELETE / body:x", "POST / body:hello"),
    _either("method regex", "{method: {regex: 'GET|HEAD'}}",
            {"prefix": "/", "headers": [_header(":method", regex="GET|HEAD")]}, "GET /", "HEAD /", "POST /", "PATCH /"),
    _either("authority exact has the port", "{authority: {exact: authority-exact-has-the-port.test}}",
            {"prefix": "/", "headers": [_header(":authority", exact="authority-exact-has-the-port.test")]},
            "GET /", "GET / host:*:80", "GET / host:AUTHORITY-exact-has-the-port.test"),
    _either("authority prefix", "{authority: {prefix: authority-prefix.test}}",
            {"prefix": "/", "headers": [_header(":authority", prefix="authority-prefix.test")]},
            "GET /", "GET / host:*:80"),
    _either("scheme", "{scheme: {exact: http}}", {"prefix": "/", "headers": [_header(":scheme", exact="http")]},
            "GET /", "GET / x-forwarded-proto:https", "GET / x-forwarded-proto:http"),
    _either("header exact", "{headers: {x-a: {exact: one}}}", {"prefix": "/", "headers": [_header("x-a", exact="one")]},
            "GET / x-a:one", "GET / X-A:one", "GET / x-a:One", "GET /", "GET / x-a:", "GET / x-a:one x-a:two",
            "GET / x-a:one x-a:one", "GET / 'x-a:  one  '"),
    _either("header lines are joined", "{headers: {x-a: {exact: 'one,two'}}}",
            {"prefix": "/", "headers": [_header("x-a", exact="one,two")]},
            "GET / x-a:one x-a:two", "GET / x-a:one,two", "GET / 'x-a:one, two'", "GET / x-a:two x-a:one"),
    _either("header prefix", "{headers: {x-a: {prefix: 'on'}}}", {"prefix": "/", "headers": [_header("x-a", prefix="on")]},
            "GET / x-a:one", "GET / x-a:on", "GET / x-a:o", "GET /", "GET / x-a:two x-a:one"),
    _either("header regex", "{headers: {x-a: {regex: '[a-c]+'}}}",
            {"prefix": "/", "headers": [_header("x-a", regex="[a-c]+")]},
            "GET / x-a:abc", "GET / x-a:abd", "GET / x-a:", "GET /", "GET / x-a:a x-a:b"),
    _either("header present", "{headers: {x-a: {}}}", {"prefix": "/", "headers": [_header("x-a")]},
            "GET / x-a:1", "GET / x-a:", "GET /", "GET / x-ab:1"),
    _either("two headers", "{headers: {x-a: {exact: '1'}, x-b: {exact: '2'}}}",
            {"prefix": "/", "headers": [_header("x-a", exact="1"), _header("x-b", exact="2")]},
            "GET / x-a:1 x-b:2", "GET / x-a:1", "GET / x-b:2", "GET / x-a:2 x-b:1"),
    _either("cookie regex", "{headers: {cookie: {regex: '^(.*?;)?(user=jason)(;.*)?$'}}}",
            {"prefix": "/", "headers": [_header("cookie", regex="^(.*?;)?(user=jason)(;.*)?$")]},
            "GET / cookie:user=jason", "GET / cookie:a=b;user=jason;c=d", "GET / cookie:user=jasons", "GET /",
            "GET / cookie:a=b cookie:user=jason"),
    _either("without header exact", "{withoutHeaders: {x-a: {exact: one}}}",
            {"prefix": "/", "headers": [_header("x-a", True, exact="one")]},
            "GET /", "GET / x-a:one", "GET / x-a:two", "GET / x-a:", "GET / x-a:one x-a:two"),
    _either("without header present", "{withoutHeaders: {x-a: {}}}", {"prefix": "/", "headers": [_header("x-a", True)]},
            "GET /", "GET / x-a:1", "GET / x-a:"),
    _either("without header regex that takes the empty string", "{withoutHeaders: {x-a: {regex: '.*'}}}",
            {"prefix": "/", "headers": [_header("x-a", True, regex=".*")]}, "GET /", "GET / x-a:1"),
    _either("without header prefix", "{withoutHeaders: {x-a: {prefix: 'on'}}}",
            {"prefix": "/", "headers": [_header("x-a", True, prefix="on")]}, "GET /", "GET / x-a:one", "GET / x-a:two"),
    _either("query exact", "{queryParams: {k: {exact: v}}}", {"prefix": "/", "query_parameters": [_query("k", exact="v")]},
            "GET /?k=v", "GET /?k=V", "GET /?K=v", "GET /?k=v&k=w", "GET /?k=w&k=v", "GET /?a=b&k=v", "GET /", "GET /?k=",
            "GET /?k", "GET /?k=%76", "GET /?k=v#f", "GET /?kk=v", "GET /?k=v=w", "GET /?&k=v", "GET /??k=v", "GET /?k=v;a=b"),
    _either("query empty", "{queryParams: {k: {exact: ''}}}", {"prefix": "/", "query_parameters": [_query("k", exact="")]},
            "GET /?k=", "GET /?k", "GET /?k=1", "GET /", "GET /?k&k=1", "GET /?"),
    _either("query present", "{queryParams: {k: {}}}", {"prefix": "/", "query_parameters": [_query("k")]},
            "GET /?k=", "GET /?k", "GET /?k=1", "GET /", "GET /?kk=1", "GET /?a&k"),
    _either("query regex", "{queryParams: {k: {regex: '[0-9]+'}}}",
            {"prefix": "/", "query_parameters": [_query("k", regex="[0-9]+")]},
            "GET /?k=12", "GET /?k=1a", "GET /?k=", "GET /?k=a&k=1", "GET /?k=1&k=a"),
    _either("query prefix", "{queryParams: {k: {prefix: ab}}}",
            {"prefix": "/", "query_parameters": [_query("k", prefix="ab")]}, "GET /?k=abc", "GET /?k=a", "GET /?k=xab"),
    Case("no route", "- match: [{uri: {exact: /only}}]\n  route: [{destination: {host: v1}}]",
         [{"match": {"path": "/only"}, **to("v1")}], ["GET /only", "GET /other", "POST /other body:x", "HEAD /other"]),
    Case("order", """
- match: [{uri: {prefix: /a}, headers: {x-a: {exact: '1'}}}, {uri: {exact: /b}}]
  route: [{destination: {host: v1}}]
- match: [{uri: {prefix: /a/b}}]
  route: [{destination: {host: v2}}]
- match: [{uri: {prefix: /a}}]
  route: [{destination: {host: v3}}]
""", [
        {"match": {"prefix": "/a", "headers": [_header("x-a", exact="1")]}, **to("v1")},
        {"match": {"path": "/b"}, **to("v1")},
        {"match": {"prefix": "/a/b"}, **to("v2")},
        {"match": {"prefix": "/a"}, **to("v3")},
    ], ["GET /a/b x-a:1", "GET /a/b", "GET /a", "GET /b", "GET /b/", "GET /ab", "GET /c"]),
    Case("unknown service", "- route: [{destination: {host: nowhere}}]", [{**ANY, **to("nowhere")}], ["GET /", "HEAD /"]),
    Case("no endpoints", "- route: [{destination: {host: empty}}]", [{**ANY, **to("empty")}], ["GET /", "POST / body:x"]),
    Case("nobody listens", "- route: [{destination: {host: dead}}]", [{**ANY, **to("dead")}], ["GET /"]),
]  # fmt: skip


def _rewritten(
    name: str, rewrite: str, match: str, envoy_match: dict[str, Any], action: dict[str, Any], *more: str
) -> Case:
    head = f"- match: [{match}]\n  " if match else "- "
    return Case(name, f"{head}rewrite: {rewrite}\n  route: [{{destination: {{host: v1}}}}]" + (ELSE_YAML if match else ""),
                [{"match": envoy_match, **to("v1", **action)}, ELSE], more)  # fmt: skip


REWRITES = [
    _rewritten("rewrite prefix", "{uri: /new}", "{uri: {prefix: /old}}", {"prefix": "/old"}, {"prefix_rewrite": "/new"},
               "GET /old", "GET /old/x?y=1", "GET /older", "GET /old?", "GET /other"),
    _rewritten("rewrite prefix to slash", "{uri: /}", "{uri: {prefix: /api}}", {"prefix": "/api"}, {"prefix_rewrite": "/"},
               "GET /api", "GET /api/x", "GET /apidocs", "GET /api/?q"),
    _rewritten("rewrite prefix with slash", "{uri: /}", "{uri: {prefix: /api/}}", {"prefix": "/api/"},
               {"prefix_rewrite": "/"}, "GET /api/", "GET /api/x", "GET /api"),
    _rewritten("rewrite without case", "{uri: /New}", "{uri: {prefix: /old}, ignoreUriCase: true}",
               {"prefix": "/old", "case_sensitive": False}, {"prefix_rewrite": "/New"}, "GET /OLD/X"),
    _rewritten("rewrite exact", "{uri: /new}", "{uri: {exact: /old}}", {"path": "/old"}, {"prefix_rewrite": "/new"},
               "GET /old", "GET /old?x=1"),
    _rewritten("rewrite regex", "{uri: /new}", "{uri: {regex: '/o.*'}}", {"safe_regex": {"regex": "/o.*"}},
               {"prefix_rewrite": "/new"}, "GET /old", "GET /old/x/y?x=1"),
    _rewritten("rewrite without a path condition", "{uri: /new}", "", {"prefix": "/"}, {"prefix_rewrite": "/new"},
               "GET /old", "GET /", "GET /?x"),
    _rewritten("rewrite without leading slash", "{uri: new}", "{uri: {prefix: /old}}", {"prefix": "/old"},
               {"prefix_rewrite": "new"}, "GET /old/x"),
    _rewritten("rewrite to the same", "{uri: /old}", "{uri: {prefix: /old}}", {"prefix": "/old"},
               {"prefix_rewrite": "/old"}, "GET /old/x"),
    _rewritten("rewrite keeps escapes", "{uri: /new}", "{uri: {prefix: /old}}", {"prefix": "/old"},
               {"prefix_rewrite": "/new"}, "GET /old/%2F%20x?%20", "GET /old/a%2fb"),
    _rewritten("rewrite authority", "{authority: other.example}", "", {"prefix": "/"},
               {"host_rewrite_literal": "other.example"}, "GET /x", "GET / host:*:80"),
    _rewritten("rewrite both", "{authority: 'o.example:8080', uri: /n}", "{uri: {prefix: /o}}", {"prefix": "/o"},
               {"prefix_rewrite": "/n", "host_rewrite_literal": "o.example:8080"}, "GET /o/x"),
    _rewritten("regex rewrite with groups", "{uriRegexRewrite: {match: '^/service/([^/]+)(/.*)$', rewrite: '\\2/instance/\\1'}}",
               "", {"prefix": "/"},
               {"regex_rewrite": {"pattern": {"regex": "^/service/([^/]+)(/.*)$"}, "substitution": "\\2/instance/\\1"}},
               "GET /service/foo/v1/api?x=1", "GET /service/foo", "GET /other"),
    _rewritten("regex rewrite everywhere", "{uriRegexRewrite: {match: 'one', rewrite: 'two'}}", "{uri: {prefix: /a}}",
               {"prefix": "/a"}, {"regex_rewrite": {"pattern": {"regex": "one"}, "substitution": "two"}},
               "GET /a/one/one?one", "GET /aone", "GET /aONE"),
    _rewritten("regex rewrite without case and with nothing", "{uriRegexRewrite: {match: '(?i)/xxx/', rewrite: '/yyy/'}}", "",
               {"prefix": "/"}, {"regex_rewrite": {"pattern": {"regex": "(?i)/xxx/"}, "substitution": "/yyy/"}},
               "GET /aaa/XxX/bbb", "GET /xxx"),
    _rewritten("regex rewrite of an empty match", "{uriRegexRewrite: {match: 'x*', rewrite: '-'}}", "",
               {"prefix": "/"}, {"regex_rewrite": {"pattern": {"regex": "x*"}, "substitution": "-"}},
               "GET /axxb", "GET /"),
    _rewritten("regex rewrite with whole match", "{uriRegexRewrite: {match: '/a(b)?', rewrite: '[\\0|\\1]'}}", "",
               {"prefix": "/"}, {"regex_rewrite": {"pattern": {"regex": "/a(b)?"}, "substitution": "[\\0|\\1]"}},
               "GET /ab/a", "GET /abab"),
]  # fmt: skip


def _redirect(
    name: str, redirect: str, envoy: dict[str, Any], *requests: str, match: str = "", **envoy_match: Any
) -> Case:
    code = envoy.pop("code", "MOVED_PERMANENTLY")
    head = f"- match: [{match}]\n  " if match else "- "
    return Case(name, f"{head}redirect: {redirect}" + (ELSE_YAML if match else ""),
                [{"match": envoy_match or {"prefix": "/"}, "redirect": {"response_code": code, **envoy}}, ELSE], requests)  # fmt: skip


REDIRECTS = [
    _redirect("redirect uri", "{uri: /new}", {"path_redirect": "/new"}, "GET /old", "GET /old?x=1", "POST /x body:y",
              "HEAD /", "GET / host:*:80", "GET / x-forwarded-proto:https"),
    _redirect("redirect uri with query", "{uri: '/new?a=b'}", {"path_redirect": "/new?a=b"}, "GET /old", "GET /old?x=1"),
    _redirect("redirect authority", "{authority: other.example}", {"host_redirect": "other.example"}, "GET /a?b",
              "GET /a host:*:80"),
    _redirect("redirect authority with port", "{authority: 'other.example:81'}", {"host_redirect": "other.example:81"},
              "GET /a?b", "GET /a host:*:80"),
    _redirect("redirect scheme", "{scheme: https}", {"scheme_redirect": "https"}, "GET /a?b", "GET / host:*:80",
              "GET / x-forwarded-proto:https"),
    _redirect("redirect scheme to the same", "{scheme: http}", {"scheme_redirect": "http"}, "GET /a?b", "GET / host:*:80"),
    _redirect("redirect port", "{port: 8443}", {"port_redirect": 8443}, "GET /a?b", "GET / host:*:80"),
    _redirect("redirect scheme and port", "{scheme: https, port: 443}", {"scheme_redirect": "https"}, "GET /a?b"),
    _redirect("redirect scheme and other port", "{scheme: https, port: 80}",
              {"scheme_redirect": "https", "port_redirect": 80}, "GET /a", "GET / host:*:80"),
    _redirect("redirect port 80", "{port: 80}", {}, "GET /a"),
    _redirect("redirect request port", "{scheme: https, derivePort: FROM_REQUEST_PORT}",
              {"scheme_redirect": "https", "port_redirect": 80}, "GET /a", "GET / host:*:80"),
    _redirect("redirect protocol default", "{scheme: https, derivePort: FROM_PROTOCOL_DEFAULT}",
              {"scheme_redirect": "https"}, "GET /a", "GET / host:*:80"),
    _redirect("redirect everything", "{uri: /n, authority: o.example, scheme: https, redirectCode: 302, port: 1}",
              {"path_redirect": "/n", "host_redirect": "o.example", "scheme_redirect": "https", "port_redirect": 1,
               "code": "FOUND"}, "GET /a?b"),
    _redirect("redirect prefix", "{prefixRewrite: /new}", {"prefix_rewrite": "/new"}, "GET /old", "GET /old/x?y=1",
              "GET /older", "GET /other", match="{uri: {prefix: /old}}", prefix="/old"),
    _redirect("redirect prefix without condition", "{prefixRewrite: /new/}", {"prefix_rewrite": "/new/"}, "GET /old", "GET /"),
    _redirect("redirect 303", "{uri: /n, redirectCode: 303}", {"path_redirect": "/n", "code": "SEE_OTHER"}, "GET /"),
    _redirect("redirect 307", "{uri: /n, redirectCode: 307}", {"path_redirect": "/n", "code": "TEMPORARY_REDIRECT"},
              "POST / body:x"),
    _redirect("redirect 308", "{uri: /n, redirectCode: 308}", {"path_redirect": "/n", "code": "PERMANENT_REDIRECT"}, "GET /"),
    Case("redirect with headers", """
- redirect: {uri: /n}
  headers: {response: {set: {x-set: s}, add: {x-add: a}, remove: [location]}, request: {set: {x-r: r}}}
""", [{**ANY, "redirect": {"path_redirect": "/n"}, "request_headers_to_add": put(("x-r", "r")),
       "response_headers_to_add": [*put(("x-set", "s")), *put(("x-add", "a"), append=True)],
       "response_headers_to_remove": ["location"]}], ["GET /"]),
]  # fmt: skip

DIRECT = [
    Case("direct response", "- directResponse: {status: 418, body: {string: hello}}",
         [{**ANY, "direct_response": {"status": 418, "body": {"inline_string": "hello"}}}],
         ["GET /", "HEAD /", "POST / body:x"]),
    Case("direct response without body", "- directResponse: {status: 503}", [{**ANY, "direct_response": {"status": 503}}],
         ["GET /"]),
    Case("direct response 204", "- directResponse: {status: 204}", [{**ANY, "direct_response": {"status": 204}}], ["GET /"]),
    Case("direct response bytes", "- directResponse: {status: 200, body: {bytes: aGVsbG8=}}",
         [{**ANY, "direct_response": {"status": 200, "body": {"inline_bytes": "aGVsbG8="}}}], ["GET /"]),
    Case("direct response with type", """
- directResponse: {status: 200, body: {string: '{}'}}
  headers: {response: {set: {content-type: application/json}, add: {x-a: '1'}}}
""", [{**ANY, "direct_response": {"status": 200, "body": {"inline_string": "{}"}},
       "response_headers_to_add": [*put(("content-type", "application/json")), *put(("x-a", "1"), append=True)]}], ["GET /"]),
    Case("direct response with an added type", """
- directResponse: {status: 200, body: {string: '{}'}}
  headers: {response: {add: {content-type: application/json}, remove: [date]}}
""", [{**ANY, "direct_response": {"status": 200, "body": {"inline_string": "{}"}},
       "response_headers_to_add": put(("content-type", "application/json"), append=True),
       "response_headers_to_remove": ["date"]}], ["GET /"]),
]  # fmt: skip

HEADERS = [
    Case("request headers", """
- headers: {request: {set: {x-set: s, X-Case: C}, add: {x-add: a}, remove: [x-gone, X-Gone-Too]}}
  route: [{destination: {host: v1}}]
""", [{**ANY, **to("v1"), "request_headers_to_add": [*put(("X-Case", "C"), ("x-set", "s")), *put(("x-add", "a"), append=True)],
       "request_headers_to_remove": ["x-gone", "X-Gone-Too"]}],
         ["GET /", "GET / x-set:o x-set:p x-add:1 x-add:2 x-gone:1 x-gone:2 x-gone-too:3 x-case:c", "GET / x-set: x-add:"]),
    Case("response headers", """
- headers: {response: {set: {x-multi: s, x-old: n, x-new: n}, add: {x-app: a, x-multi: b, set-cookie: c=d}, remove: [x-gone]}}
  route: [{destination: {host: v1}}]
""", [{**ANY, **to("v1"),
       "response_headers_to_add": [*put(("x-multi", "s"), ("x-new", "n"), ("x-old", "n")),
                                   *put(("set-cookie", "c=d"), ("x-app", "a"), ("x-multi", "b"), append=True)],
       "response_headers_to_remove": ["x-gone"]}],
         ["GET /", "GET / x-answer:x-gone:1 x-answer:X-Gone:2 x-answer:set-cookie:a=b"]),
    Case("remove and set and add of one name", """
- headers:
    request: {set: {x-a: s}, add: {x-a: a, x-b: b}, remove: [x-a, x-b]}
    response: {set: {x-old: s}, add: {x-old: a, x-multi: b}, remove: [x-old, x-multi]}
  route: [{destination: {host: v1}}]
""", [{**ANY, **to("v1"),
       "request_headers_to_add": [*put(("x-a", "s")), *put(("x-a", "a"), ("x-b", "b"), append=True)],
       "request_headers_to_remove": ["x-a", "x-b"],
       "response_headers_to_add": [*put(("x-old", "s")), *put(("x-multi", "b"), ("x-old", "a"), append=True)],
       "response_headers_to_remove": ["x-old", "x-multi"]}], ["GET /", "GET / x-a:1 x-b:2"]),
    Case("empty values are ignored", """
- headers: {request: {set: {x-a: ''}, add: {x-b: ''}}, response: {set: {x-old: ''}}}
  route: [{destination: {host: v1}}]
""", [{**ANY, **to("v1"), "request_headers_to_add": [*put(("x-a", "")), *put(("x-b", ""), append=True)],
       "response_headers_to_add": put(("x-old", ""))}], ["GET / x-a:1", "GET /"]),
    Case("percent signs", """
- headers: {request: {set: {x-a: '100%%', x-b: '%%%%a'}}, response: {set: {x-old: '50%% of 2'}}}
  route: [{destination: {host: v1}}]
""", [{**ANY, **to("v1"), "request_headers_to_add": put(("x-a", "100%%"), ("x-b", "%%%%a")),
       "response_headers_to_add": put(("x-old", "50%% of 2"))}], ["GET /"]),
    Case("authority by set", "- headers: {request: {set: {Host: new.example}}}\n  route: [{destination: {host: v1}}]",
         [{**ANY, **to("v1", host_rewrite_literal="new.example")}], ["GET /"]),
    Case("one destination with headers", """
- headers: {request: {set: {x-a: route, x-r: r}, remove: [x-d]}, response: {set: {x-old: route}}}
  route:
  - destination: {host: v1}
    headers: {request: {set: {x-a: own, x-d: d}, add: {x-a: more}}, response: {set: {x-old: own}, remove: [x-multi]}}
""", [{**ANY, **to("v1"),
       "request_headers_to_add": [*put(("x-a", "route"), ("x-r", "r")), *put(("x-a", "own"), ("x-d", "d")),
                                  *put(("x-a", "more"), append=True)],
       "request_headers_to_remove": ["x-d"],
       "response_headers_to_add": put(("x-old", "route"), ("x-old", "own")), "response_headers_to_remove": ["x-multi"]}],
         ["GET /", "GET / x-a:1 x-d:2"]),
    Case("several destinations with headers", """
- headers: {request: {set: {x-a: route, x-r: r}, add: {x-c: route}, remove: [x-d]}, response: {set: {x-old: route}}}
  route:
  - destination: {host: v1}
    weight: 100
    headers: {request: {set: {x-a: own, x-d: d}, add: {x-c: own}}, response: {set: {x-old: own}, remove: [x-multi]}}
  - {destination: {host: v2}, weight: 0}
""", [{**ANY, **weighted([{"name": "v1", "weight": 100,
                           "request_headers_to_add": [*put(("x-a", "own"), ("x-d", "d")), *put(("x-c", "own"), append=True)],
                           "response_headers_to_add": put(("x-old", "own")), "response_headers_to_remove": ["x-multi"]}]),
       "request_headers_to_add": [*put(("x-a", "route"), ("x-r", "r")), *put(("x-c", "route"), append=True)],
       "request_headers_to_remove": ["x-d"], "response_headers_to_add": put(("x-old", "route"))}],
         ["GET /", "GET / x-a:1 x-c:1 x-d:2"]),
    Case("headers that frame or that a proxy sets", """
- headers:
    request: {set: {x-envoy-attempt-count: '9', x-request-id: mine, x-forwarded-proto: https, user-agent: ua}}
    response: {set: {x-envoy-upstream-service-time: '9', date: never, content-type: text/html}}
  route: [{destination: {host: v1}}]
""", [{**ANY, **to("v1"),
       "request_headers_to_add": put(("user-agent", "ua"), ("x-envoy-attempt-count", "9"), ("x-forwarded-proto", "https"),
                                     ("x-request-id", "mine")),
       "response_headers_to_add": put(("content-type", "text/html"), ("date", "never"),
                                      ("x-envoy-upstream-service-time", "9"))}],
         ["GET /", "GET / user-agent:me x-request-id:theirs x-forwarded-proto:http x-envoy-attempt-count:3"]),
    Case("what goes on", "- route: [{destination: {host: v1}}]\n  timeout: 2500ms",
         [{**ANY, **to("v1", timeout="2.5s")}],
         ["GET /", "GET / x-request-id:mine", "GET / x-forwarded-for:1.2.3.4 x-forwarded-proto:https", "GET / te:trailers",
          "GET / x-envoy-attempt-count:7 x-envoy-expected-rq-timeout-ms:9", "POST / body:hello", "POST /", "OPTIONS /",
          "GET / accept:a accept:b user-agent:u cookie:a=b cookie:c=d", "GET / x-empty:", "GET / 'x-a: a  b\t c '",
          "GET / x-do:204", "GET / x-do:304", "GET / x-do:404", "GET / x-do:500", "HEAD /", "GET / x-do:301",
          "GET / x-answer:Set-Cookie:a=b x-answer:Set-Cookie:c=d", "GET / connection:close",
          "GET / connection:x-hop x-hop:1", "GET / keep-alive:5", "GET / proxy-connection:keep-alive",
          "GET / x-answer:keep-alive:timeout=5", "GET / x-answer:proxy-authenticate:Basic", "GET / x-answer:trailer:x",
          "GET / x-envoy-original-path:/forged", "GET / x-forwarded-client-cert:By=me", "GET / x-envoy-internal:true",
          "GET / x-envoy-external-address:1.1.1.1", "GET / x-envoy-decorator-operation:x", "GET / x-forwarded-host:h",
          "GET / x-envoy-upstream-rq-timeout-ms:1000", "GET / x-envoy-max-retries:2", "GET / x-envoy-retry-on:5xx",
          "GET / x-answer:x-envoy-upstream-service-time:77", "GET / x-answer:x-envoy-attempt-count:77",
          "GET / authorization:secret", "GET / upgrade-insecure-requests:1", "GET / via:me"]),
]  # fmt: skip

_ORIGIN = "origin:http://a.example"
_PREFLIGHT = f"{_ORIGIN} access-control-request-method:PUT access-control-request-headers:x-one"


def _cors(name: str, policy: str, envoy: dict[str, Any], *requests: str) -> Case:
    config = {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
              "filter_enabled": {"default_value": {"numerator": 100}}, "forward_not_matching_preflights": True,
              **envoy}  # fmt: skip
    return Case(name, f"- corsPolicy: {policy}\n  route: [{{destination: {{host: v1}}}}]",
                [{**ANY, **to("v1"), "typed_per_filter_config": {"envoy.filters.http.cors": config}}], requests)  # fmt: skip


CORS = [
    _cors("cors", "{allowOrigins: [{exact: 'http://a.example'}], allowMethods: [GET, PUT], allowHeaders: [x-one, x-two], "
          "exposeHeaders: [x-three, x-four], maxAge: 24h, allowCredentials: true}",
          {"allow_origin_string_match": [{"exact": "http://a.example"}], "allow_methods": "GET,PUT",
           "allow_headers": "x-one,x-two", "expose_headers": "x-three,x-four", "max_age": "86400", "allow_credentials": True},
          f"OPTIONS /x {_PREFLIGHT}", f"OPTIONS / {_ORIGIN}", f"GET / {_ORIGIN}", "GET /", "GET / origin:http://b.example",
          "OPTIONS / origin:http://b.example access-control-request-method:GET", "OPTIONS / access-control-request-method:GET",
          f"GET / {_PREFLIGHT}", f"POST / {_ORIGIN} body:x", "GET / origin:",
          f"GET / {_ORIGIN} x-answer:access-control-allow-origin:*"),
    _cors("cors any", "{allowOrigins: [{exact: '*'}], allowMethods: ['*'], allowHeaders: ['*'], exposeHeaders: ['*']}",
          {"allow_origin_string_match": [{"exact": "*"}], "allow_methods": "*", "allow_headers": "*", "expose_headers": "*"},
          f"OPTIONS /x {_PREFLIGHT}", f"OPTIONS / {_ORIGIN} access-control-request-method:GET", f"GET / {_ORIGIN}"),
    _cors("cors regex and prefix", "{allowOrigins: [{regex: 'https?://[a-c][.]example'}, {prefix: 'http://x'}]}",
          {"allow_origin_string_match": [{"safe_regex": {"regex": "https?://[a-c][.]example"}}, {"prefix": "http://x"}]},
          f"OPTIONS / {_PREFLIGHT}", f"GET / {_ORIGIN}", "GET / origin:http://xyz", "GET / origin:http://d.example",
          "OPTIONS / origin:http://d.example access-control-request-method:GET"),
    _cors("cors ignoring", "{allowOrigins: [{exact: 'http://b.example'}], unmatchedPreflights: IGNORE, allowCredentials: false}",
          {"allow_origin_string_match": [{"exact": "http://b.example"}], "forward_not_matching_preflights": False,
           "allow_credentials": False},
          f"OPTIONS / {_PREFLIGHT}", f"GET / {_ORIGIN}", "GET / origin:http://b.example",
          "OPTIONS / origin:http://b.example access-control-request-method:GET"),
]  # fmt: skip


def _fault(name: str, fault: str, envoy: dict[str, Any], *requests: str, more: str = "", **route: Any) -> Case:
    config = {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault", **envoy}
    return Case(name, f"- fault: {fault}{more}\n  route: [{{destination: {{host: v1}}}}]",
                [{**ANY, **to("v1"), "typed_per_filter_config": {"envoy.filters.http.fault": config}, **route}],
                requests)  # fmt: skip


_ALL = {"numerator": 1000000, "denominator": "MILLION"}

FAULTS = [
    _fault("abort", "{abort: {httpStatus: 418, percentage: {value: 100}}}",
           {"abort": {"http_status": 418, "percentage": _ALL}}, "GET /", "POST / body:x", "HEAD /"),
    _fault("abort without percentage", "{abort: {httpStatus: 418}}", {"abort": {"http_status": 418}}, "GET /"),
    _fault("abort with headers", "{abort: {httpStatus: 503, percentage: {value: 100}}}",
           {"abort": {"http_status": 503, "percentage": _ALL}}, "GET /",
           more="\n  headers: {response: {set: {x-a: '1'}}}", response_headers_to_add=put(("x-a", "1"))),
    _fault("delay", "{delay: {fixedDelay: 20ms, percentage: {value: 100}}}",
           {"delay": {"fixed_delay": "0.020s", "percentage": _ALL}}, "GET /"),
    _fault("delay and abort", "{delay: {fixedDelay: 20ms, percentage: {value: 100}}, abort: {httpStatus: 400, percentage: {value: 100}}}",
           {"delay": {"fixed_delay": "0.020s", "percentage": _ALL}, "abort": {"http_status": 400, "percentage": _ALL}}, "GET /"),
    _fault("abort grpc status", "{abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}",
           {"abort": {"grpc_status": 14, "percentage": _ALL}}, "GET /"),
]  # fmt: skip

PATHS = [
    Case("paths", "- match: [{uri: {prefix: /admin}}]\n  directResponse: {status: 403}" + ELSE_YAML,
         [{"match": {"prefix": "/admin"}, "direct_response": {"status": 403}}, ELSE],
         ["GET /admin/x", "GET /a/../admin", "GET /./admin", "GET /%61dmin", "GET /a/%2e%2e/admin", "GET /a/%2E./admin",
          "GET //admin", "GET /a//../admin", "GET /a%2f..%2fadmin", "GET /a%5c..%5cadmin", "GET /a\\..\\admin",
          "GET /%2561dmin", "GET /..", "GET /../..", "GET /a/..", "GET /a/.", "GET /a/./", "GET /a/../", "GET /.a", "GET /a..",
          "GET /...", "GET /a;b=c/d", "GET /%7Euser/%2d%5f", "GET /%41%c3%a9", "GET /é", "GET /a%20b", "GET /?../x",
          "GET /a?b/../c", "GET /a/%2F/b", "GET /a%3fb", "GET /a%23b", "GET /:80", "GET /a:b@c", "GET /[a]", "GET /a|b",
          "GET /{a}", "GET /a^b", "GET /a`b", "GET '/a<b>'", "GET '/a\"b'", "GET /%", "GET /%zz", "GET /%2", "GET /%00",
          "GET /a?%00", "GET /a?%zz", "GET /%ff", "GET /a//b", "GET /a/b//", "GET ///", "GET *", "OPTIONS *",
          "GET http://paths.test/admin", "GET http://paths.test/x?y", "GET http://paths.test", "GET https://paths.test/x"]),
]  # fmt: skip
TABLE = [*MATCHES, *REWRITES, *REDIRECTS, *DIRECT, *HEADERS, *CORS, *FAULTS, *PATHS, *FORMATS]

_RAW = "Envoy escapes what RFC 3986 does not allow in a path; we pass it on as it came, and policy sees the same"
_ESCAPE = "half an escape has no normal form: what a rule sees and what the app makes of it might differ"
_NOT_HONOURED = (
    "how often and how long is tried is for rules to say; Envoy takes it from the request, and the header out"
)
_FORGED = "only this proxy may tell an endpoint what it rewrote"
DIFFERENT: dict[tuple[str, str], str] = {
    **{("paths", f"GET {path}"): _RAW for path in ("/a|b", "/{a}", "/a^b", "/a`b", "'/a<b>'", "'/a\"b'")},
    **{("paths", f"GET {path}"): _ESCAPE for path in ("/%", "/%zz", "/%2")},
    ("paths", "OPTIONS *"): "it is for the server as a whole (RFC 9112 section 3.2.4), whom the rule without condition names",
    ("paths", "GET https://paths.test/x"): "who wants TLS to the end must not get it without",
    ("what goes on", "GET / accept:a accept:b user-agent:u cookie:a=b cookie:c=d"): "lines are passed on as they came",
    ("what goes on", "GET / x-answer:trailer:x"): "no trailer can follow a body with a length",
    ("what goes on", "GET / x-envoy-original-path:/forged"): _FORGED,
    ("what goes on", "GET / x-envoy-internal:true"): "it says nothing to us, and is the app's to use",
    **{("what goes on", f"GET / {header}"): _NOT_HONOURED
       for header in ("x-envoy-upstream-rq-timeout-ms:1000", "x-envoy-max-retries:2", "x-envoy-retry-on:5xx")},
    ("cors any", f"OPTIONS / {_ORIGIN} access-control-request-method:GET"): "nothing was asked: Envoy has an empty line",
    ("operators and removal", "GET / x-d:4 x-c:3"): "operators read what came, so that a header can be given another name",
    **{("operators of an answer of the proxy", f"GET /{more}"): "the status is known: Envoy says 0" for more in ("", " x-a:1")},
    ("abort grpc status", "GET /"): "a fault that looks like success to whoever makes no gRPC call would be none",
}  # fmt: skip
"""Requests with which both do not do the same by intention, and why."""
