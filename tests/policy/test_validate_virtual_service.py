"""VirtualServices: what Istio refuses is refused with its field, what Istio warns of is warned of."""

from __future__ import annotations

import pytest

from tests.policy.judging import document, errors, route, warnings

TO = "route: [{destination: {host: web}}]"


def test_a_plain_rule_is_good() -> None:
    assert errors(route(TO)) == {}


@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ("timeout: 0s\n" + TO, "timeout", "at least 1ms"),
        ("timeout: 5\n" + TO, "timeout", "expected a duration"),
        ("name: x", "route", "a route, a redirect, a directResponse or a delegate"),
        ("redirect: {uri: /x}\n" + TO, "redirect", "may not have both route and redirect"),
        ("redirect: {uri: /x}\nfault: {abort: {httpStatus: 500}}", "redirect", "both redirect and fault"),
        ("directResponse: {status: 200}\nrewrite: {uri: /x}", "directResponse", "both directResponse and rewrite"),
        ("delegate: {name: x}\n" + TO, "delegate", "both route and delegate"),
        ("rewrite: {}\n" + TO, "rewrite", "uri, authority or uriRegexRewrite"),
        ("rewrite: {uriRegexRewrite: {match: a}}\n" + TO, "rewrite.uriRegexRewrite.rewrite", "Required"),
        ("rewrite: {uri: /a, uriRegexRewrite: {match: a, rewrite: b}}\n" + TO, "rewrite", "only one of"),
        ("match: [{uri: {exact: a, prefix: b}}]\n" + TO, "match[0].uri", "only one of"),
        ("match: [{uri: {regex: ''}}]\n" + TO, "match[0].uri.regex", "may not be empty"),
        ("match: [{uri: {regex: '(?=a)'}}]\n" + TO, "match[0].uri.regex", "RE2"),
        (r"match: [{uri: {regex: '(a)\1'}}]" + "\n" + TO, "match[0].uri.regex", "RE2"),
        ("match: [{uri: {regex: '" + "a" * 1025 + "'}}]\n" + TO, "match[0].uri.regex", "1024"),
        ("match: [{method: {prefix: ''}}]\n" + TO, "match[0].method.prefix", "may not be empty"),
        ("match: [{headers: {x: {regex: '*'}}}]\n" + TO, "match[0].headers[x].regex", "for presence write {}"),
        ("match: [{headers: {'': {exact: a}}}]\n" + TO, "match[0].headers[]", "may not be empty"),
        ("match: [{headers: {'a b': {exact: a}}}]\n" + TO, "match[0].headers[a b]", "not the name of a header"),
        ("match: [{headers: {'@request.auth.claims.a': {exact: b}}}]\n" + TO,
         "match[0].headers[@request.auth.claims.a]", "at a gateway only"),
        ("match: [{port: 70000}]\n" + TO, "match[0].port", "65535"),
        ("match: [{gateways: [ns/*]}]\n" + TO, "match[0].gateways[0]", "NAMESPACE/NAME"),
        ("match: [{sourceLabels: {'a b': c}}]\n" + TO, "match[0].sourceLabels", "name part"),
        ("route: [{destination: {host: '*'}}]", "route[0].destination.host", "must name a host"),
        ("route: [{destination: {host: ''}}]", "route[0].destination.host", "Required"),
        ("route: [{}]", "route[0].destination", "Required"),
        ("route: [{destination: {host: a_b}}]", "route[0].destination.host", "the label 'a_b'"),
        ("route: [{destination: {host: web, subset: a.b}}]", "route[0].destination.subset", "one label"),
        ("route: [{destination: {host: web, port: {number: 0}}}]", "route[0].destination.port.number", "between 1"),
        ("route: [{destination: {host: web, port: {numbr: 1}}}]", "route[0].destination.port.numbr",
         'did you mean "number"?'),
        ("route: [{destination: {host: web}, weight: -1}]", "route[0].weight", "at least 0"),
        ("route: [{destination: {host: web}, weight: 1.5}]", "route[0].weight", "a whole number"),
        ("route: [{destination: {host: web}}, {destination: {host: web}}]", "route", "may not all be 0"),
        ("redirect: {}", "redirect", "uri, prefixRewrite, authority, port or scheme"),
        ("redirect: {uri: /a, prefixRewrite: /b}", "redirect", "only one of"),
        ("redirect: {prefixRewrite: /b}\nmatch: [{uri: {exact: /a}}]", "redirect.prefixRewrite", "by prefix"),
        ("redirect: {port: 80, derivePort: FROM_REQUEST_PORT}", "redirect", "only one of"),
        ("redirect: {scheme: ftp}", "redirect.scheme", "Unsupported"),
        ("redirect: {uri: /a, redirectCode: 200}", "redirect.redirectCode", "300"),
        ("directResponse: {status: 99}", "directResponse.status", "200"),
        ("directResponse: {status: 200, body: {string: a, bytes: YQ==}}", "directResponse.body", "only one of"),
        ("retries: {attempts: 0, perTryTimeout: 1s}\n" + TO, "retries.attempts", "perTryTimeout may not be given"),
        ("retries: {attempts: -1}\n" + TO, "retries.attempts", "at least 0"),
        ("retries: {attempts: 1, retryOn: '5xx, reset'}\n" + TO, "retries.retryOn", "no blanks after commas"),
        ("retries: {attempts: 1, retryOn: '5XX'}\n" + TO, "retries.retryOn", 'did you mean "5xx"'),
        ("retries: {attempts: 1, retryOn: '503,'}\n" + TO, "retries.retryOn", "not a retry condition"),
        ("retries: {attempts: 1, backoff: 0s}\n" + TO, "retries.backoff", "at least 1ms"),
        ("headers: {request: {set: {x: '50%'}}}\n" + TO, "headers.request.set[x]", "write %%"),
        ("headers: {request: {set: {x: '%no%'}}}\n" + TO, "headers.request.set[x]", "write %%"),
        ("headers: {response: {add: {x: '%NO_SUCH%'}}}\n" + TO, "headers.response.add[x]", "known are REQ(X?Y)"),
        ("headers: {request: {set: {x: '%REQ%'}}}\n" + TO, "headers.request.set[x]", "needs the name of a header"),
        ("fault: {}\n" + TO, "fault", "delay, abort or both"),
        ("fault: {delay: {fixedDelay: 0s, percentage: {value: 1}}}\n" + TO, "fault.delay.fixedDelay", "at least"),
        ("fault: {delay: {exponentialDelay: 1s}}\n" + TO, "fault.delay.exponentialDelay", "may not be used"),
        ("fault: {abort: {httpStatus: 99}}\n" + TO, "fault.abort.httpStatus", "200"),
        ("fault: {abort: {grpcStatus: BAD}}\n" + TO, "fault.abort.grpcStatus", "UNAVAILABLE"),
        ("fault: {abort: {httpStatus: 500, grpcStatus: OK}}\n" + TO, "fault.abort", "only one of"),
        ("fault: {abort: {httpStatus: 500, percentage: {value: 101}}}\n" + TO, "fault.abort.percentage.value", "100"),
        ("fault: {abort: {httpStatus: 500, percentage: {value: 0.00001}}}\n" + TO, "fault.abort.percentage.value",
         "0.0001"),
        ("mirror: {host: web}\nmirrors: [{destination: {host: web}}]\n" + TO, "", "only one of mirror, mirrors"),
        ("mirror: {host: web}\nmirrorPercentage: {value: -1}\n" + TO, "mirrorPercentage.value", "between 0 and 100"),
        ("corsPolicy: {allowOrigins: [{}]}\n" + TO, "corsPolicy.allowOrigins[0]", "exact, prefix or regex"),
        ("corsPolicy: {allowMethods: [get]}\n" + TO, "corsPolicy.allowMethods[0]", '"GET"'),
        ("corsPolicy: {allowHeaders: ['']}\n" + TO, "corsPolicy.allowHeaders[0]", "may not be empty"),
        ("corsPolicy: {maxAge: 1.5s}\n" + TO, "corsPolicy.maxAge", "whole seconds"),
        ("headers: {request: {set: {'': a}}}\n" + TO, "headers.request.set[]", "may not be empty"),
        ("headers: {request: {set: {':path': a}}}\n" + TO, "headers.request.set[:path]", "':'"),
        ("headers: {request: {remove: [Host]}}\n" + TO, "headers.request.remove[0]", "in requests"),
        ("headers: {response: {set: {host: a}}}\n" + TO, "headers.response.set[host]", "in requests"),
        ("headers: {request: {set: {a: 50%}}}\n" + TO, "headers.request.set[a]", "%%"),
        ("headers: {request: {set: {host: a}}}\nrewrite: {authority: b}\n" + TO, "", "more than once"),
    ],
)  # fmt: skip
def test_what_istio_refuses_is_refused_with_its_field(fields: str, path: str, says: str) -> None:
    found = errors(route(fields))
    place = f"spec.http[0].{path}" if path else "spec.http[0]"
    assert place in found, found
    assert says in found[place]


@pytest.mark.parametrize(
    ("spec", "path", "says"),
    [
        ("hosts: [web]", "spec", "http, tls or tcp"),
        ("hosts: ['*']\nhttp: [{%s}]" % TO, "spec.hosts[0]", "'*' is not taken"),  # noqa: UP031
        ("hosts: [a.b, A.B]\nhttp: [{%s}]" % TO, "spec.hosts[1]", "Duplicate"),  # noqa: UP031
        ("hosts: ['*.b', a.b]\nhttp: [{%s}]" % TO, "spec.hosts[1]", "overlaps"),  # noqa: UP031
        ("hosts: ['a.*.b']\nhttp: [{%s}]" % TO, "spec.hosts[0]", "first character"),  # noqa: UP031
        ("hosts: [web]\ngateways: [a/b/c]\nhttp: [{%s}]" % TO, "spec.gateways[0]", "NAMESPACE/NAME"),  # noqa: UP031
        ("hosts: [web]\nexportTo: ['*', a]\nhttp: [{%s}]" % TO, "spec.exportTo", "alone"),  # noqa: UP031
        ("hosts: [web]\nexportTo: [., default]\nhttp: [{%s}]" % TO, "spec.exportTo[1]", "Duplicate"),  # noqa: UP031
        ("hosts: [web]\nexportTo: ['~']\nhttp: [{%s}]" % TO, "spec.exportTo[0]", "must be '.', '*'"),  # noqa: UP031
        ("gateways: [mesh]\nhttp: [{%s}]" % TO, "spec.gateways", "delegate"),  # noqa: UP031
        ("http: [{delegate: {name: x}}]", "spec.http[0].delegate", "not delegate again"),
        ("hosts: [a.b]\ntls: [{%s}]" % TO, "spec.tls[0].match", "sniHosts"),  # noqa: UP031
        ("hosts: [a.b]\ntls: [{match: [{port: 1}], %s}]" % TO, "spec.tls[0].match[0].sniHosts", "Required"),  # noqa: UP031
        ("hosts: [a.b]\ntls: [{match: [{sniHosts: [c.d]}], %s}]" % TO, "spec.tls[0].match[0].sniHosts[0]", "covered"),  # noqa: UP031
        ("hosts: [a.b]\ntcp: [{match: [{port: 1}]}]", "spec.tcp[0].route", "at least one destination"),
        ("hosts: [a.b]\ntcp: [{match: [{destinationSubnets: [10.0.0.0/33]}], %s}]" % TO,  # noqa: UP031
         "spec.tcp[0].match[0].destinationSubnets[0]", "CIDR"),
    ],
)  # fmt: skip
def test_the_rule_as_a_whole(spec: str, path: str, says: str) -> None:
    found = errors(document("VirtualService", spec))
    assert path in found, found
    assert says in found[path]


@pytest.mark.parametrize(
    "fields",
    [
        "match: [{uri: {prefix: ''}}]\n" + TO,
        "match: [{withoutHeaders: {x: {}}, headers: {y: {}}, queryParams: {q: {exact: ''}}}]\n" + TO,
        "match: [{withoutHeaders: {x: {regex: '*'}}}]\n" + TO,
        "route: [{destination: {host: web}, weight: 0}]",
        "route: [{destination: {host: web}, weight: 1}, {destination: {host: web}}]",
        "retries: {attempts: 0}\n" + TO,
        "retries: {attempts: 3, retryOn: '503,gateway-error,cancelled', perTryTimeout: 2s}\n" + TO,
        "redirect: {uri: /a, redirectCode: 308}\nheaders: {response: {set: {a: 100%%}}}",
        "directResponse: {status: 503, body: {string: away}}",
        "fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 0.0001}}}\n" + TO,
        "headers: {request: {set: {Host: a.b, x: '%DOWNSTREAM_REMOTE_ADDRESS%'}}}\n" + TO,
        "mirror: {host: web}\nmirrorPercentage: {value: 0}\n" + TO,
        "corsPolicy: {allowOrigins: [{exact: '*'}], allowMethods: ['*', GET], maxAge: 24h}\n" + TO,
        "route: [{destination: {host: web.default.svc.cluster.local., port: {number: 80}}}]",
    ],
)
def test_what_istio_takes_is_taken(fields: str) -> None:
    assert errors(route(fields)) == {}


def test_snake_case_is_read() -> None:
    text = document("VirtualService", "hosts: [web]\nhttp: [{%s, retries: {attempts: 1, per_try_timeout: 0s}}]" % TO)  # noqa: UP031
    assert "spec.http[0].retries.perTryTimeout" in errors(text)


def test_every_problem_is_told_at_once() -> None:
    text = route(
        "timeout: 0s\nretries: {attempts: x}\nroute: [{destination: {host: web, port: {number: 99999}}}]\nfoo: 1"
    )
    assert set(errors(text)) == {
        "spec.http[0].timeout", "spec.http[0].retries.attempts", "spec.http[0].route[0].destination.port.number",
        "spec.http[0].foo",
    }  # fmt: skip


def test_routes_after_a_catch_all_are_warned_of() -> None:
    spec = "hosts: [web]\nhttp: [{match: [{uri: {prefix: /}}], %s}, {match: [{uri: {exact: /a}}], %s}]" % (TO, TO)  # noqa: UP031
    assert "never reached: spec.http[0]" in warnings(document("VirtualService", spec))["spec.http[1]"]
    spec = "hosts: [web]\nhttp: [{match: [{uri: {prefix: /}, port: 80}], %s}, {%s}]" % (TO, TO)  # noqa: UP031
    assert "spec.http[1]" not in warnings(document("VirtualService", spec))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ("fault: {abort: {httpStatus: 500}}\n" + TO, "fault.abort"),
        ("redirect: {uri: /a, redirectCode: 304}", "redirect.redirectCode"),
        ("mirror: {host: web}\nmirrorPercent: 5\n" + TO, "mirrorPercent"),
        ("match: [{gateways: [mesh], sourceLabels: {a: b}}]\n" + TO, "match[0]"),
        ("match: [{statPrefix: x}]\n" + TO, "match[0].statPrefix"),
        ("headers: {request: {set: {x: '%ENVIRONMENT(TOKEN)%'}}}\n" + TO, "headers.request.set[x]"),
        ("headers: {request: {add: {x: 'a %DYNAMIC_METADATA(a:b)%'}}}\n" + TO, "headers.request.add[x]"),
        ("headers: {response: {set: {x: '%DOWNSTREAM_TLS_VERSION%'}}}\n" + TO, "headers.response.set[x]"),
    ],
)
def test_what_surprises_is_warned_of(fields: str, path: str) -> None:
    assert f"spec.http[0].{path}" in warnings(route(fields))
    assert errors(route(fields)) == {}
