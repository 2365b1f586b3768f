"""AuthorizationPolicy: order, shapes, identities, negative fields, opaque connections, aliases, templates."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

from typing import Any

import pytest

from fairlead.policy.authorize import Authorizer
from fairlead.policy.authorize_values import Subject, path_shape, shape
from fairlead.policy.peer import identify
from fairlead.policy.tables import Verdict
from fairlead.registry.model import Workload
from tests.policy.worlds import World, get

AMY = "spiffe://cluster.local/ns/a/sa/amy"


def policy(rules: str, action: str = "ALLOW", name: str = "p", namespace: str = "a", more: str = "") -> str:
    return (
        f"kind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}{more}}}\n"
        f"spec: {{action: {action}{', rules: ' + rules if rules else ''}}}\n---\n"
    )


def authorizer(text: str, labels: dict[str, str] | None = None) -> tuple[Authorizer, World]:
    world = World(text)
    workload = Workload("a", "server", labels=labels or {})
    return Authorizer(world.resources.authorization_policies, workload, world.resources.mesh.spec), world


def judge(
    text: str, identity: str = AMY, path: str = "/", ip: str = "10.0.0.1", port: int = 8080, **request: Any
) -> Verdict:
    authorizer_, world = authorizer(text)
    peer = identify(world.snapshot, world.resources.mesh.spec, identity, ip)
    return authorizer_.request(Subject(peer, port, get(request.pop("host", "web"), path, **request)))


def test_order_of_actions() -> None:
    assert judge("").allowed
    assert not judge(policy("")).allowed, "spec: {} matches never, so everything is denied"
    assert judge(policy("[{}]")).allowed
    assert judge(policy("[{}]"), identity="").allowed
    assert not judge(policy("[{}]", "DENY")).allowed
    assert not judge(policy("[{}]") + policy("[{}]", "DENY", "d")).allowed
    get_only = policy("[{to: [{operation: {methods: [GET]}}]}]", "DENY")
    assert judge(get_only, method="POST").allowed, "with DENY policies only, the rest is allowed"
    assert judge(policy("[{}]", "AUDIT")).allowed
    either = policy("[{to: [{operation: {methods: [GET]}}]}]") + policy(
        "[{to: [{operation: {methods: [PUT]}}]}]", name="q"
    )
    assert [judge(either, method=one).allowed for one in ("GET", "PUT", "POST")] == [True, True, False]


def test_dry_run_neither_grants_nor_denies() -> None:
    dry = ", annotations: {istio.io/dry-run: 'true'}"
    assert judge(policy("", more=dry)).allowed
    assert judge(policy("[{}]", "DENY", more=dry)).allowed


def test_which_workloads_a_policy_selects() -> None:
    assert judge(policy("", namespace="b")).allowed
    assert not judge(policy("", namespace="istio-system")).allowed
    selecting = policy("").replace("action: ALLOW", "selector: {matchLabels: {app: x}}")
    for text in (selecting, selecting.replace("namespace: a", "namespace: istio-system")):
        assert authorizer(text)[0].empty
        assert not authorizer(text, {"app": "x"})[0].empty


def source(fields: str) -> str:
    return policy(f"[{{from: [{{source: {{{fields}}}}}]}}]")


@pytest.mark.parametrize(
    ("fields", "identity", "allowed"),
    [
        ("principals: [cluster.local/ns/a/sa/amy]", AMY, True),
        ("principals: ['cluster.local/ns/a*']", AMY, True),
        ("principals: ['*/sa/amy']", AMY, True),
        ("principals: ['*']", AMY, True),
        ("principals: ['*']", "", False),
        ("principals: [cluster.local/ns/a/sa/bob]", AMY, False),
        ("notPrincipals: [cluster.local/ns/a/sa/bob]", AMY, True),
        ("notPrincipals: [cluster.local/ns/a/sa/bob]", "", True),
        ("notPrincipals: ['*']", "", True),
        ("namespaces: [a]", AMY, True),
        ("namespaces: ['a*']", AMY.replace("/a/", "/abc/"), True),
        ("namespaces: [a]", AMY.replace("/a/", "/ab/"), False),
        ("namespaces: [a]", "", False),
        ("notNamespaces: [a]", "", True),
        ("serviceAccounts: [amy]", AMY, True),
        ("serviceAccounts: [a/amy]", AMY, True),
        ("serviceAccounts: [amy]", AMY.replace("/ns/a/", "/ns/b/"), False),
        ("principals: [cluster.local/ns/a/sa/amy], namespaces: [b]", AMY, False),
        ("ipBlocks: [10.0.0.0/24]", AMY, True),
        ("ipBlocks: [10.0.1.0/24]", AMY, False),
        ("notIpBlocks: [10.0.0.0/24]", AMY, False),
        ("remoteIpBlocks: [10.0.0.1]", AMY, True),
        ("namespaces: [a], notPrincipals: ['*/sa/amy']", AMY, False),
    ],
)
def test_sources(fields: str, identity: str, allowed: bool) -> None:
    assert judge(source(fields), identity).allowed is allowed


@pytest.mark.parametrize(
    ("operation", "request_", "allowed"),
    [
        ("hosts: [Web.Example]", {"host": "WEB.example"}, True),
        ("hosts: [web]", {"host": "web:80"}, False),
        ("hosts: ['web:*']", {"host": "web:80"}, True),
        ("methods: [get]", {}, False),
        ("paths: [/a]", {"path": "/a?x"}, True),
        ("paths: [/a]", {"path": "/A"}, False),
        ("paths: ['/a*']", {"path": "/abc"}, True),
        ("paths: ['*.jpg']", {"path": "/x.jpg"}, True),
        ("paths: ['/a/{*}/c']", {"path": "/a/b/c"}, True),
        ("paths: ['/a/{*}/c']", {"path": "/a/b/b/c"}, False),
        ("paths: ['/a/{*}/c']", {"path": "/a//c"}, False),
        ("paths: ['/a/{**}']", {"path": "/a/b/c"}, True),
        ("notPaths: [/admin]", {"path": "/admin"}, False),
        ("ports: ['8080']", {}, True),
        ("ports: ['80']", {}, False),
        ("methods: [GET], paths: [/x]", {"path": "/y"}, False),
    ],
)
def test_operations(operation: str, request_: dict[str, Any], allowed: bool) -> None:
    assert judge(policy(f"[{{to: [{{operation: {{{operation}}}}}]}}]"), **request_).allowed is allowed


@pytest.mark.parametrize(
    ("condition", "request_", "allowed"),
    [
        ("key: 'request.headers[X-Role]', values: [admin]", {"x_role": "admin"}, True),
        ("key: 'request.headers[x-role]', values: [admin]", {}, False),
        ("key: 'request.headers[x-role]', notValues: [admin]", {}, True),
        ("key: source.ip, values: [10.0.0.0/8]", {}, True),
        ("key: source.namespace, values: [a]", {}, True),
        ("key: source.principal, notValues: ['*']", {}, False),
        ("key: source.trustDomain, values: [cluster.local]", {}, True),
        ("key: source.serviceAccount, values: [a/amy]", {}, True),
        ("key: destination.port, values: ['8080']", {}, True),
        (
            "key: request.auth.principal, values: ['https://i/amy']",
            {"claims": {"iss": "https://i", "sub": "amy"}},
            True,
        ),
        ("key: request.auth.principal, values: ['*']", {"claims": {"iss": "https://i"}}, False),
        ("key: request.auth.audiences, values: [x]", {"claims": {"aud": ["y", "x"]}}, True),
        ("key: request.auth.presenter, values: [x]", {"claims": {"azp": "x"}}, True),
        ("key: 'request.auth.claims[scope]', values: [write]", {"claims": {"scope": "read write"}}, True),
        ("key: 'request.auth.claims[a][b]', values: [c]", {"claims": {"a": {"b": ["c"]}}}, True),
        ("key: 'request.auth.claims[n]', values: ['1']", {"claims": {"n": 1}}, False),
        ("key: no.such.key, notValues: [x]", {}, False),
    ],
)
def test_conditions(condition: str, request_: dict[str, Any], allowed: bool) -> None:
    assert judge(policy(f"[{{when: [{{{condition}}}]}}]"), **request_).allowed is allowed


@pytest.mark.parametrize(
    ("lines", "condition", "granted", "denied"),
    [  # what an ALLOW rule with the condition grants, and what a DENY rule with it denies
        (["admin", "user"], "values: [admin]", False, True),
        (["admin", "admin"], "values: ['adm*']", True, True),
        (["admin", "user"], "notValues: [admin]", False, True),
        (["user", "guest"], "notValues: [admin]", True, True),
        (["user,admin"], "values: [admin]", False, False),
    ],
)
def test_another_line_of_a_header_neither_grants_nor_hides(
    lines: list[str], condition: str, granted: bool, denied: bool
) -> None:
    text = f"[{{when: [{{key: 'request.headers[x-role]', {condition}}}]}}]"
    for action, allowed in (("ALLOW", granted), ("DENY", not denied)):
        authorizer_, world = authorizer(policy(text, action))
        request = get("web")
        request.headers = [("x-role", line) for line in lines]
        peer = identify(world.snapshot, world.resources.mesh.spec, AMY, "10.0.0.1")
        assert authorizer_.request(Subject(peer, 8080, request)).allowed is allowed, action


def on_tcp(text: str, identity: str = AMY) -> bool:
    authorizer_, world = authorizer(text)
    return authorizer_.connection(
        Subject(identify(world.snapshot, world.resources.mesh.spec, identity, ""), 8080)
    ).allowed


def test_on_opaque_connections_http_conditions_drop_an_allow_rule_and_widen_a_deny_rule() -> None:
    assert on_tcp(policy("[{to: [{operation: {ports: ['8080']}}]}]"))
    assert not on_tcp(policy("[{to: [{operation: {ports: ['8080']}}, {operation: {methods: [GET]}}]}]"))
    assert not on_tcp(policy("[{to: [{operation: {ports: ['8080'], methods: [GET]}}]}]", "DENY"))
    assert not on_tcp(policy("[{to: [{operation: {methods: [GET]}}]}]", "DENY"))
    identity_and_path = policy("[{from: [{source: {namespaces: [a]}}], to: [{operation: {paths: [/x]}}]}]", "DENY")
    assert not on_tcp(identity_and_path)
    assert on_tcp(identity_and_path, AMY.replace("/ns/a/", "/ns/b/"))


def unread(text: str, identity: str = AMY) -> bool:
    authorizer_, world = authorizer(text)
    return authorizer_.unread(Subject(identify(world.snapshot, world.resources.mesh.spec, identity, ""), 8080)).allowed


def test_before_anything_is_read_only_hopeless_connections_are_refused() -> None:
    assert unread(policy("[{to: [{operation: {methods: [GET]}}]}]"))
    assert unread(policy("[{to: [{operation: {methods: [GET]}}]}]", "DENY"))
    assert not unread(policy("[{from: [{source: {namespaces: [a]}}]}]", "DENY"))
    assert not unread(policy("[{from: [{source: {namespaces: [b]}}], to: [{operation: {methods: [GET]}}]}]"))
    assert not unread(policy(""))


@pytest.mark.parametrize(
    ("rule", "refused"),
    [
        ("{when: [{key: source.namespace, values: [a]}]}", True),
        ("{when: [{key: source.namespace, values: [b]}]}", False),
        ("{when: [{key: 'request.headers[x]', values: [y]}]}", False),
        ("{when: [{key: source.namespace, values: [a]}, {key: 'request.headers[x]', values: [y]}]}", False),
        ("{to: [{operation: {ports: ['8080']}}]}", True),
        ("{to: [{operation: {ports: ['1']}}]}", False),
        ("{to: [{operation: {ports: ['1']}}, {operation: {ports: ['8080']}}]}", True),
        ("{to: [{operation: {ports: ['8080'], methods: [GET]}}]}", False),
        ("{from: [{source: {namespaces: [b]}}], to: [{operation: {ports: ['8080']}}]}", False),
        ("{}", True),
    ],
)
def test_a_connection_is_refused_unread_only_where_a_rule_that_denies_matches_every_request(
    rule: str, refused: bool
) -> None:
    assert unread(policy(f"[{rule}]", "DENY")) is not refused


def test_each_step_on_a_connection_is_told_also_the_rules_that_ask_about_requests() -> None:
    text = policy("[{from: [{source: {namespaces: [b]}}]}]", "DENY", "d") + policy(
        "[{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {ports: ['8080']}}]}]"
    )
    authorizer_, world = authorizer(text)
    subject = Subject(identify(world.snapshot, world.resources.mesh.spec, AMY, ""), 8080)
    trace: list[dict[str, str]] = []
    assert (
        authorizer_.connection(subject, trace).by
        == authorizer_.connection(subject).by
        == "AuthorizationPolicy a/p rule 1"
    )
    assert [(step["object"], step["result"]) for step in trace] == [
        ("AuthorizationPolicy a/d rule 0", "no match"),
        ("AuthorizationPolicy a/p rule 0", "no match"),
        ("AuthorizationPolicy a/p rule 1", "allow"),
    ]
    assert "an opaque connection has none" in trace[1]["why"]
    assert [(action, rule.name[-6:]) for action, rule in authorizer_.rules()] == [
        ("deny", "rule 0"), ("allow", "rule 0"), ("allow", "rule 1")
    ]  # fmt: skip


def test_a_denial_names_the_policy_whoever_it_is_told_by() -> None:
    nothing = policy("", name="first") + policy("[{from: [{source: {namespaces: [b]}}]}]", name="second")
    assert judge(nothing).by == "AuthorizationPolicy a/first"
    assert (
        judge(nothing).why
        == "no rule of AuthorizationPolicy a/first, AuthorizationPolicy a/second (ALLOW) matches " + AMY
    )
    assert judge(policy("[{}]", "DENY")).why == "AuthorizationPolicy a/p rule 0 (DENY) matches"
    assert (
        judge(policy("[{from: [{source: {namespaces: [b]}}]}]", "DENY")).why
        == "no DENY rule matches, and there is no ALLOW policy"
    )
    assert judge("").why == "no AuthorizationPolicy applies"


def test_what_audits_is_told_and_decides_nothing() -> None:
    authorizer_, world = authorizer(policy("[{}]", "AUDIT"))
    subject = Subject(identify(world.snapshot, world.resources.mesh.spec, AMY, ""), 80, get("web"))
    trace: list[dict[str, str]] = []
    assert authorizer_.request(subject, trace).by == ""
    assert [(step["object"], step["result"]) for step in trace] == [("AuthorizationPolicy a/p rule 0", "audit")]
    assert authorizer_.empty


def test_trust_domain_aliases_widen_only_the_exact_form() -> None:
    mesh = "kind: MeshConfig\nmetadata: {name: m}\nspec: {trustDomain: new.example, trustDomainAliases: [old.example]}\n---\n"
    for domain, pattern, allowed in (
        ("new.example", "cluster.local/ns/a/sa/amy", True),
        ("old.example", "cluster.local/ns/a/sa/amy", True),
        ("old.example", "new.example/ns/a/sa/amy", True),
        ("cluster.local", "cluster.local/ns/a/sa/amy", False),
        ("other.example", "other.example/ns/a/sa/amy", True),
        ("old.example", "new.example/ns/a*", False),
        ("old.example", "*/ns/a/sa/amy", True),
    ):
        text = mesh + source(f"principals: ['{pattern}']")
        assert judge(text, f"spiffe://{domain}/ns/a/sa/amy").allowed is allowed, (domain, pattern)


def test_the_verdict_names_the_rule_and_the_trace_the_condition() -> None:
    text = policy("[{from: [{source: {namespaces: [b]}}]}, {to: [{operation: {methods: [GET]}}]}]")
    authorizer_, world = authorizer(text)
    subject = Subject(identify(world.snapshot, world.resources.mesh.spec, AMY, ""), 80, get("web"))
    trace: list[dict[str, str]] = []
    assert authorizer_.request(subject, trace).by == "AuthorizationPolicy a/p rule 1"
    assert [step["why"] for step in trace] == ["from: namespace is 'a', wanted b", "every condition holds"]
    assert judge(text, method="PUT").by == "AuthorizationPolicy a/p"


def test_shapes() -> None:
    assert shape("a*b")("a*b") and not shape("a*b")("axb")
    assert shape("*")("x") and not shape("*")("")
    assert path_shape("/v.1/{*}")("/v.1/x") and not path_shape("/v.1/{*}")("/vx1/x")
