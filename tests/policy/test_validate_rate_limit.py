"""LocalRateLimits that are refused, or warned of, each with its remedy."""

from __future__ import annotations

import pytest

from tests.policy.judging import document, errors, warnings

BUCKET = "tokenBucket: {maxTokens: 10, fillInterval: 1s}"
SERVICE = document("Service", "selector: {app: web}\nports: [{name: http, port: 80}]", "v1", "web")
POD = ("apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, labels: {app: web}, annotations: "
       "{fairlead.dev/address: 10.0.0.1}}\nspec: {containers: [{ports: [{containerPort: 8080}]}]}\n")  # fmt: skip
RULE = document("VirtualService", "hosts: [web]\nhttp: [{name: api, route: [{destination: {host: web}}]}]", name="web")


def limits(spec: str) -> str:
    return document("LocalRateLimit", spec, "fairlead.dev/v1")


def limit(fields: str, context: str = "") -> str:
    return limits((f"context: {context}\n" if context else "") + f"limits:\n- {{name: a, {fields}}}")


def together(*texts: str) -> str:
    return "---\n".join(texts)


def test_a_good_one_is_quiet() -> None:
    text = limits(
        "selector: {matchLabels: {app: web}}\n"
        "limits:\n"
        f"- {{name: all, {BUCKET}, per: CLIENT, percentage: {{value: 12.5}}}}\n"
        f"- {{name: api, match: {{hosts: [web], port: 8080, methods: [GET], uri: {{prefix: /api}}}}, {BUCKET},"
        " response: {status: 503, headers: {retry-after: '1'}, grpcResourceExhausted: true}}\n"
        f"connections: [{{name: all, {BUCKET}, port: 8080, per: CLIENT, enforce: false}}]"
    )
    assert errors(together(SERVICE, POD, text)) == {}
    assert warnings(together(SERVICE, POD, text)) == {}


@pytest.mark.parametrize(
    ("spec", "path", "says"),
    [
        ("selector: {}", "spec.limits", "connections, or both"),
        ("limits: [{name: a}]", "spec.limits[0].tokenBucket", "Required value"),
        (f"limits: [{{{BUCKET}}}]", "spec.limits[0].name", "Required value"),
        (f"limits: [{{name: 'a b', {BUCKET}}}]", "spec.limits[0].name", "letters, digits"),
        (f"limits: [{{name: a, {BUCKET}}}, {{name: a, {BUCKET}}}]", "spec.limits[1].name", "Duplicate value"),
        (f"limits: [{{name: a, {BUCKET}, per: NODE}}]", "spec.limits[0].per", "PROXY"),
        (f"connections: [{{name: a, {BUCKET}, per: CONNECTION}}]", "spec.connections[0].per", "CLIENT"),
        (f"context: ANY\nlimits: [{{name: a, {BUCKET}}}]", "spec.context", "SIDECAR_INBOUND"),
    ],
)
def test_what_is_missing_or_ill_is_told(spec: str, path: str, says: str) -> None:
    assert says in errors(limits(spec))[path]


@pytest.mark.parametrize(
    ("bucket", "field", "says"),
    [
        ("maxTokens: 0, fillInterval: 1s", "maxTokens", "1"),
        ("maxTokens: 1, tokensPerFill: 0, fillInterval: 1s", "tokensPerFill", "1"),
        ("maxTokens: 1, fillInterval: 0s", "fillInterval", "ms"),
        ("maxTokens: 1, fillInterval: 49ms", "fillInterval", "50ms or more, as in Envoy"),
        ("maxTokens: 1, fillInterval: 10ms", "fillInterval", "the same rate is tokensPerFill: 5, fillInterval: 50ms"),
    ],
)
def test_a_bucket_that_would_hold_nothing_or_is_filled_too_often_is_refused(bucket: str, field: str, says: str) -> None:
    assert says in errors(limit(f"tokenBucket: {{{bucket}}}"))[f"spec.limits[0].tokenBucket.{field}"]


@pytest.mark.parametrize(
    ("match", "path", "says"),
    [
        ("hosts: ['we b']", "hosts[0]", "Invalid value"),
        ("route: {virtualService: a/b/c}", "route.virtualService", "namespace/name"),
        ("route: {virtualService: web}", "route", "use context SIDECAR_OUTBOUND or GATEWAY"),
        ("methods: ['G T']", "methods[0]", "not an HTTP method"),
        ("uri: {}", "uri", "exact, prefix or regex"),
        ("uri: {regex: '('}", "uri.regex", "RE2"),
        ("headers: {'a b': {exact: c}}", "headers", "is not the name of a header"),
        ("port: 0", "port", "1"),
    ],
)
def test_a_match_that_cannot_be_read_or_never_matches_is_refused(match: str, path: str, says: str) -> None:
    assert says in errors(limit(f"match: {{{match}}}, {BUCKET}"))[f"spec.limits[0].match.{path}"]


@pytest.mark.parametrize(
    ("answer", "path", "says"),
    [
        ("status: 200", "status", "400"),
        ("headers: {content-length: '5'}", "headers[content-length]", "the proxy's own"),
        ("headers: {':status': '200'}", "headers[:status]", "the proxy's own"),
        ('headers: {x-a: "b\\r\\nc: d"}', "headers[x-a]", "control characters"),
    ],
)
def test_an_answer_that_could_not_be_sent_is_refused(answer: str, path: str, says: str) -> None:
    assert says in errors(limit(f"response: {{{answer}}}, {BUCKET}"))[f"spec.limits[0].response.{path}"]


@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ("enforce: false, percentage: {value: 5}", "percentage", "has no effect: enforce is false"),
        ("percentage: {value: 0}", "percentage.value", "refuses nothing"),
        ("match: {methods: [get]}", "match.methods[0]", "GET is another one"),
        ("match: {methods: [CONNECT]}", "match.methods[0]", "counts as a connection"),
    ],
)
def test_what_has_no_effect_is_warned_of(fields: str, path: str, says: str) -> None:
    assert says in warnings(limit(f"{fields}, {BUCKET}"))[f"spec.limits[0].{path}"]


def test_a_limit_beside_a_narrower_one_for_the_same_is_warned_of_whichever_comes_first() -> None:
    wide = "{name: wide, match: {methods: [GET]}, tokenBucket: {maxTokens: 20, tokensPerFill: 2, fillInterval: 1s}}"
    narrow = f"{{name: narrow, match: {{methods: [GET]}}, {BUCKET}}}"
    for order, at in ((f"{wide}, {narrow}", 0), (f"{narrow}, {wide}", 1)):
        found = warnings(limits(f"limits: [{order}]"))
        assert found == {f"spec.limits[{at}]": "is never reached: narrow counts the same and lets less through"}
    shadow = narrow.replace("name: narrow", "name: narrow, enforce: false")
    burst = narrow.replace("maxTokens: 10", "maxTokens: 30")
    each = narrow.replace("name: narrow", "name: narrow, per: CLIENT")
    for other in (shadow, burst, each, narrow.replace("GET", "PUT")):
        assert warnings(limits(f"limits: [{wide}, {other}]")) == {}


def test_routes_that_do_not_exist_are_errors_that_name_those_that_do() -> None:
    def asking(route: str) -> str:
        return limit(f"match: {{route: {route}}}, {BUCKET}", "SIDECAR_OUTBOUND")

    at = "spec.limits[0].match.route"
    assert errors(together(SERVICE, RULE, asking("{virtualService: web, name: api}"))) == {}
    assert errors(together(SERVICE, RULE, asking("{virtualService: default/web}"))) == {}
    found = errors(together(SERVICE, RULE, asking("{virtualService: other/web}")))
    assert found == {f"{at}.virtualService": "no VirtualService other/web is known; the limit counts nothing"}
    found = errors(together(SERVICE, RULE, asking("{virtualService: web, name: apis}")))
    assert 'default/web has no http route "apis"; it has api' in found[f"{at}.name"]


def test_what_it_selects_and_names_must_be_there() -> None:
    nobody = limits(f"selector: {{matchLabels: {{app: none}}}}\nlimits: [{{name: a, {BUCKET}}}]")
    assert "selects no workload" in warnings(together(SERVICE, POD, nobody))["spec.selector"]
    port = limit(f"match: {{port: 80}}, {BUCKET}")
    found = warnings(together(SERVICE, POD, port))
    assert found == {"spec.limits[0].match.port": "no workload that it selects declares port 80; they have 8080"}
    host = limit(f"match: {{hosts: [wep, example.com]}}, {BUCKET}")
    says = "no service wep.default.svc.cluster.local is known; it matches nothing"
    assert warnings(together(SERVICE, POD, host)) == {"spec.limits[0].match.hosts[0]": says}
    connections = limits(f"connections: [{{name: a, port: 80, {BUCKET}}}]")
    assert "declares port 80" in warnings(together(SERVICE, POD, connections))["spec.connections[0].port"]


def test_who_comes_from_an_envoy_filter_is_told_the_kind() -> None:
    found = errors(document("EnvoyFilter", "workloadSelector: {labels: {app: web}}", "networking.istio.io/v1alpha3"))
    assert "write a LocalRateLimit" in found["kind"]
