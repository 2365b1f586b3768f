"""Cases for the oracle: format operators in header operations."""

# ruff: noqa: E501 - a table
from __future__ import annotations

from tests.e2e.oracle import ANY, Case, put, to


def _set(name: str, request: dict[str, str], response: dict[str, str], *requests: str) -> Case:
    """A route to v1 that sets these headers."""
    spec = {"request": {"set": request}, "response": {"set": response}}
    return Case(name, f"- name: main\n  headers: {spec}\n  route: [{{destination: {{host: v1}}}}]",
                [{"name": "main", **ANY, **to("v1"), "request_headers_to_add": put(*request.items()),
                  "response_headers_to_add": put(*response.items())}], requests)  # fmt: skip


FORMATS = [
    _set("operators about the client", {
        "x-1": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "x-2": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
        "x-3": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "x-4": "%PROTOCOL%", "x-5": "%HOSTNAME%",
        "x-6": "a %PROTOCOL% b 100%%", "x-7": "%DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT%",
    }, {"x-1": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "x-4": "%PROTOCOL%"}, "GET /"),
    _set("operators about the request", {
        "x-1": "%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)%", "x-2": "%REQ(X-A)%", "x-3": "%REQ(X-A?X-B)%",
        "x-4": "%REQ(X-A):3%", "x-5": "%REQ(x-a?:path):2%", "x-6": "[%REQ(X-A)%]", "x-7": "%REQ(USER-AGENT)%",
        "x-8": "%REQ(:SCHEME)%", "x-9": "%REQ(X-FORWARDED-PROTO)%",
    }, {"x-1": "%REQ(:METHOD)%", "x-2": "%REQ(X-A)%", "x-3": "%REQ(X-B?X-A)%", "x-4": "%REQ(X-REQUEST-ID)%", "x-5": "%STREAM_ID%"},
         "GET /p?q=1 x-a:hello x-request-id:mine", "GET / x-a:Ã© x-request-id:mine", "GET /p x-b:other x-request-id:mine", "GET / x-a: x-b:b x-request-id:mine",
         "GET / x-a:one x-a:two x-request-id:mine", "POST / x-a:1 user-agent:u x-2:before x-request-id:mine body:x"),
    _set("operators about the answer", {"x-1": "%RESP(X-OLD)%", "x-2": "%RESPONSE_FLAGS%"}, {
        "x-1": "%RESP(X-OLD)%", "x-2": "%RESP(X-NONE?X-OLD):2%", "x-3": "%RESPONSE_CODE%", "x-4": "%RESPONSE_FLAGS%",
        "x-5": "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "x-6": "%ROUTE_NAME%", "x-7": "%REQUESTED_SERVER_NAME%",
        "x-8": "%DOWNSTREAM_PEER_URI_SAN%", "x-9": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "x-old": "%RESP(X-NONE)%",
    }, "GET /", "GET / x-do:404", "GET / x-do:503,500"),
    _set("operators about time", {"x-1": "%START_TIME(%Y-%m-%d)%", "x-2": "at %START_TIME(%Y)%"},
         {"x-1": "%START_TIME(%Y/%m/%dT%H)%"}, "GET /"),
    Case("operators that append", """
- headers: {request: {add: {x-a: '%REQ(X-B)%'}}, response: {add: {x-multi: '%RESP(X-OLD)%', x-new: '%RESP(X-NONE)%'}}}
  route: [{destination: {host: v1}}]
""", [{**ANY, **to("v1"), "request_headers_to_add": put(("x-a", "%REQ(X-B)%"), append=True),
       "response_headers_to_add": put(("x-multi", "%RESP(X-OLD)%"), ("x-new", "%RESP(X-NONE)%"), append=True)}],
         ["GET / x-a:1 x-b:2", "GET / x-a:1", "GET / x-b:2"]),
    Case("operators and removal", """
- headers: {request: {set: {x-a: '%REQ(X-B)%', x-c: '%REQ(X-D)%'}, remove: [x-a, x-d]}}
  route: [{destination: {host: v1}}]
""", [{**ANY, **to("v1"), "request_headers_to_add": put(("x-a", "%REQ(X-B)%"), ("x-c", "%REQ(X-D)%")),
       "request_headers_to_remove": ["x-a", "x-d"]}], ["GET / x-a:1 x-b:2", "GET / x-a:1", "GET / x-d:4 x-c:3"]),
    Case("operators of an answer of the proxy", """
- name: direct
  directResponse: {status: 418, body: {string: tea}}
  headers: {response: {set: {x-1: '%REQ(X-A)%', x-2: '%RESPONSE_CODE%', x-3: '%ROUTE_NAME%', x-4: '%UPSTREAM_HOST%'}}}
""", [{"name": "direct", **ANY, "direct_response": {"status": 418, "body": {"inline_string": "tea"}},
       "response_headers_to_add": put(("x-1", "%REQ(X-A)%"), ("x-2", "%RESPONSE_CODE%"), ("x-3", "%ROUTE_NAME%"),
                                      ("x-4", "%UPSTREAM_HOST%"))}], ["GET / x-a:1", "GET /"]),
    Case("operators with rewrites", """
- headers: {request: {set: {x-1: '%REQ(:PATH)%', x-2: '%REQ(:AUTHORITY)%', x-3: '%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%'}}}
  rewrite: {uri: /new, authority: other.example}
  route: [{destination: {host: v1}}]
""", [{**ANY, **to("v1", prefix_rewrite="/new", host_rewrite_literal="other.example"), "request_headers_to_add": put(
        ("x-1", "%REQ(:PATH)%"), ("x-2", "%REQ(:AUTHORITY)%"), ("x-3", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"))}], ["GET /old"]),
]  # fmt: skip
