"""RBAC says what our own verdict says, of every peer and request: both are asked."""

# ruff: noqa: E501 - manifests
from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.control.xds_node import Notes
from fairlead.control.xds_rbac import REMOTE, authorization_rules, network_rules
from fairlead.policy.decide import admit, decide
from fairlead.policy.tables import Arrival, SimpleRequest, Tables
from fairlead.registry.documents import load
from tests.control.xds_worlds import tables_of, world

JSON = dict[str, Any]


# --- what Envoy makes of rules (envoy.config.rbac.v3) -----------------------------------------------------------------


class Asked:
    def __init__(self, identity: str, ip: str, sni: str = "", request: SimpleRequest | None = None) -> None:
        self.identity, self.ip, self.sni, self.request = identity, ip, sni, request
        self.claims: Any = getattr(request, "claims", None)


def allows(rules: list[JSON], asked: Asked) -> bool:
    for one in rules:
        held = any(_policy(policy, asked) for policy in one["policies"].values())
        if held != (one["action"] == "ALLOW"):
            return False
    return True


def _policy(policy: JSON, asked: Asked) -> bool:
    return any(_holds(one, asked) for one in policy["permissions"]) and any(
        _holds(one, asked) for one in policy["principals"]
    )


def _holds(rule: JSON, asked: Asked) -> bool:
    [(kind, value)] = rule.items()
    if kind == "any":
        return bool(value)
    if kind in ("and_ids", "and_rules"):
        return all(_holds(one, asked) for one in value[kind[4:]])
    if kind in ("or_ids", "or_rules"):
        return any(_holds(one, asked) for one in value[kind[3:]])
    if kind in ("not_id", "not_rule"):
        return not _holds(value, asked)
    if kind == "authenticated":
        return bool(asked.identity) and _text(value["principal_name"], asked.identity)
    if kind in ("direct_remote_ip", "remote_ip"):
        block = ipaddress.ip_network(f"{value['address_prefix']}/{value['prefix_len']}", strict=False)
        return ipaddress.ip_address(asked.ip) in block
    if kind == "requested_server_name":
        return _text(value, asked.sni)
    if kind == "metadata":
        return metadata_holds(value, asked.claims)
    assert asked.request is not None, f"{kind} is asked of an opaque connection"
    if kind == "url_path":
        return _text(value["path"], asked.request.path.partition("?")[0])
    assert kind == "header", kind
    name = value["name"]
    if value.get("present_match"):
        return asked.request.header(name) is not None
    pseudo: Mapping[str, str] = {
        ":path": asked.request.path,
        ":method": asked.request.method,
        ":authority": asked.request.authority,
    }
    found = [pseudo[name]] if name in pseudo else asked.request.values(name)
    return any(_text(value["string_match"], one) for one in found)


def metadata_holds(rule: JSON, claims: Any) -> bool:
    value: Any = {"payload": claims} if claims is not None else {}
    assert rule["filter"] == "envoy.filters.http.jwt_authn"
    for segment in rule["path"]:
        value = value.get(segment["key"]) if isinstance(value, Mapping) else None
    return _value(rule["value"], value)


def _value(match: JSON, value: Any) -> bool:
    [(kind, inner)] = match.items()
    if kind == "or_match":
        return any(_value(one, value) for one in inner["value_matchers"])
    if kind == "list_match":
        return isinstance(value, list) and any(_value(inner["one_of"], one) for one in value)
    assert kind == "string_match"
    return isinstance(value, str) and _text(inner, value)


def _text(match: JSON, text: str) -> bool:
    match = dict(match)
    if match.pop("ignore_case", False):
        text = text.lower()
        match = {kind: value.lower() for kind, value in match.items()}
    [(kind, value)] = match.items()
    if kind == "safe_regex":
        return re.fullmatch(value["regex"], text) is not None
    return bool(
        {
            "exact": text == value,
            "prefix": text.startswith(value),
            "suffix": text.endswith(value),
            "contains": value in text,
        }[kind]
    )


# --- worlds -------------------------------------------------------------------------------------------------------------

IPS = {
    "web-1": "10.0.0.1",
    "a-1": "10.0.0.2",
    "a-2": "10.0.0.3",
    "b-1": "10.0.1.4",
    "c-1": "10.0.1.5",
    "h-1": "10.0.2.6",
}
PEERS = [
    ("default", "web-1", "web", {"app": "web"}), ("default", "a-1", "a", {"app": "a", "tier": "one"}),
    ("default", "a-2", "a", {"app": "a", "tier": "two"}), ("other", "b-1", "b", {"app": "b", "tier": "one"}),
    ("other", "c-1", "a", {"app": "c"}),
]  # fmt: skip
IDENTITIES = [
    "", *(f"spiffe://{domain}/ns/{ns}/sa/{sa}" for domain in ("cluster.local", "old.example") for ns, sa in (
        ("default", "web"), ("default", "a"), ("other", "a"), ("other", "b"), ("other", "unknown"), ("empty", "x"))),
    "spiffe://foreign.example/ns/default/sa/a",
]  # fmt: skip
ADDRESSES = [*IPS.values(), "192.168.0.1", "10.0.1.200"]


def documents(*rules: JSON) -> list[JSON]:
    found: list[JSON] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": team}}}
        for name, team in (("default", "one"), ("other", "two"), ("empty", "two"))
    ]
    found.append({"apiVersion": "fairlead.dev/v1", "kind": "MeshConfig", "metadata": {"name": "mesh"},
                  "spec": {"trustDomainAliases": ["old.example"]}})  # fmt: skip
    for namespace, name, account, labels in PEERS:
        ports = [{"name": "http", "containerPort": 8080}, {"name": "tcp", "containerPort": 9000}]
        found.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": labels,
                    "annotations": {"fairlead.dev/address": IPS[name]},
                },
                "spec": {"serviceAccountName": account, "containers": [{"name": "m", "ports": ports}]},
            }
        )
    for number, one in enumerate(rules):
        kind = one.pop("kind")
        group = "networking.k8s.io/v1" if kind == "NetworkPolicy" else "security.istio.io/v1"
        meta = {"name": f"p{number}", "namespace": "default"}
        found.append({"apiVersion": group, "kind": kind, "metadata": meta, "spec": one})
    return found


SELECTORS = st.sampled_from(
    [{}, {"matchLabels": {"app": "a"}}, {"matchLabels": {"tier": "one"}}, {"matchLabels": {"app": "none"}},
     {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}]
)  # fmt: skip
NAMESPACES = st.sampled_from([{}, {"matchLabels": {"team": "two"}}, {"matchLabels": {"team": "none"}}])
NETWORK_PEERS = st.one_of(
    SELECTORS.map(lambda one: {"podSelector": one}),
    NAMESPACES.map(lambda one: {"namespaceSelector": one}),
    st.tuples(SELECTORS, NAMESPACES).map(lambda one: {"podSelector": one[0], "namespaceSelector": one[1]}),
    st.sampled_from(
        [{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.1.0/24"]}}, {"ipBlock": {"cidr": "10.0.0.3/32"}}]
    ),
)
NETWORK_PORTS = st.sampled_from([[], [{"port": 8080}], [{"port": "tcp"}], [{"port": 8000, "endPort": 8090}]])
NETWORK_RULES = st.builds(
    lambda peers, ports: {**({"from": peers} if peers else {}), **({"ports": ports} if ports else {})},
    st.lists(NETWORK_PEERS, max_size=2), NETWORK_PORTS,
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(NETWORK_RULES, max_size=2), min_size=1, max_size=2))
def test_network_policy_admits_the_same_peers(policies: list[list[JSON]]) -> None:
    made = [
        {"kind": "NetworkPolicy", "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"],
         "ingress": rules} for rules in policies
    ]  # fmt: skip
    tables = tables_of(world(documents(*made)), "default/web-1")
    for port, identity, ip in itertools.product((8080, 9000), IDENTITIES, ADDRESSES):
        arrival = Arrival("inbound", source_ip=ip, port=port, identity=identity, tls=bool(identity))
        rules = network_rules(tables.inbound, port, bool(identity))
        theirs = rules is None or allows([rules], Asked(identity, ip))
        assert theirs == admit(tables, arrival).allowed, (port, identity, ip, rules)


VALUES = {
    "principals": [
        "cluster.local/ns/default/sa/a",
        "*",
        "cluster.local/ns/other/*",
        "*/sa/b",
        "old.example/ns/other/sa/a",
    ],
    "namespaces": ["default", "oth*", "*"],
    "ipBlocks": ["10.0.0.0/24", "10.0.1.4"],
}
SIDES = {
    "hosts": ["web", "WEB.*", "*.example", "*"], "methods": ["GET", "P*", "*"], "ports": ["8080", "9000"],
    "paths": ["/a", "/a/*", "*/z", "/t/{*}/x", "/t/{**}"],
}  # fmt: skip
CONDITIONS = {
    "source.principal": VALUES["principals"], "source.namespace": VALUES["namespaces"], "source.ip": VALUES["ipBlocks"],
    "source.serviceAccount": ["a", "other/b"], "source.trustDomain": ["cluster.local", "old*"], "destination.port": ["8080"],
    "connection.sni": ["outbound_*", "x"], "request.headers[x-a]": ["one", "o*", "*"],
}  # fmt: skip


def _fields(values: Mapping[str, list[str]], top: bool = True) -> st.SearchStrategy[JSON]:
    def negated(name: str) -> str:
        return f"not{name[0].upper()}{name[1:]}"

    def some(name: str) -> st.SearchStrategy[tuple[str, list[str]]]:
        listed = st.lists(st.sampled_from(values[name]), min_size=1, max_size=2, unique=True)
        return st.tuples(st.sampled_from([name, negated(name)]), listed)

    return st.lists(st.sampled_from(sorted(values)).flatmap(some), min_size=1, max_size=2).map(dict)


WHEN = st.sampled_from(sorted(CONDITIONS)).flatmap(
    lambda key: st.tuples(
        st.just(key), st.sampled_from(["values", "notValues"]),
        st.lists(st.sampled_from(CONDITIONS[key]), min_size=1, max_size=2, unique=True),
    ).map(lambda one: {"key": one[0], one[1]: one[2]})
)  # fmt: skip
RULES = st.builds(
    lambda sources, operations, when: {
        **({"from": [{"source": one} for one in sources]} if sources else {}),
        **({"to": [{"operation": one} for one in operations]} if operations else {}),
        **({"when": when} if when else {}),
    },
    st.lists(_fields(VALUES), max_size=2), st.lists(_fields(SIDES), max_size=2), st.lists(WHEN, max_size=2),
)  # fmt: skip
POLICIES = st.lists(
    st.builds(lambda action, rules: {"action": action, "rules": rules}, st.sampled_from(["ALLOW", "DENY"]),
              st.lists(RULES, max_size=2)), min_size=1, max_size=2)  # fmt: skip
REQUESTS = [
    ("GET", "web", "/a", []), ("POST", "web.x", "/a/b?c=/z", [("x-a", "one")]), ("PUT", "a.example", "/t/1/x", [("x-a", "")]),
    ("GET", "WEB", "/t/1/2/z", [("x-a", "o")]), ("GET", "web", "/a", [("x-a", "one"), ("x-a", "other")]),
    ("GET", "web", "/a", [("x-a", "x"), ("x-a", "one")]),
]  # fmt: skip


@settings(deadline=None, max_examples=120)
@given(POLICIES)
def test_authorization_policy_allows_the_same_requests_and_connections(policies: list[JSON]) -> None:
    made = [
        {"kind": "AuthorizationPolicy", "selector": {"matchLabels": {"app": "web"}},
         "action": one["action"], **({"rules": one["rules"]} if one["rules"] else {})}
        for one in policies if one["rules"] or one["action"] == "ALLOW"
    ]  # fmt: skip
    tables = tables_of(world(documents(*made)), "default/web-1")
    note = Notes()
    identities = [IDENTITIES[at] for at in (0, 2, 4, 9, 13)]
    for port, identity, ip in itertools.product((8080, 9000), identities, ("10.0.0.2", "10.0.1.4", "192.168.0.1")):
        http = authorization_rules(tables.inbound, port, True, note)
        for method, authority, path, headers in REQUESTS:
            arrival = _arrival(identity, ip, port)
            request = SimpleRequest(arrival, method, authority, path, headers)
            _same(tables, request, http, Asked(identity, ip, arrival.sni, request))
        opaque = authorization_rules(tables.inbound, port, False, note)
        arrival = _arrival(identity, ip, port)
        _same(tables, SimpleRequest(arrival), opaque, Asked(identity, ip, arrival.sni))
    assert note.listed() == []


def _arrival(identity: str, ip: str, port: int) -> Arrival:
    sni = "outbound_.80_._.web" if identity else ""
    return Arrival("inbound", source_ip=ip, port=port, identity=identity, tls=bool(identity), sni=sni)


def _same(tables: Tables, request: SimpleRequest, rules: list[JSON], asked: Asked) -> None:
    ours = decide(tables, request)
    assert allows(rules, asked) == (ours.verdict != "denied"), (ours.why, rules, vars(asked), vars(request))


def claims_asked(*actions: str) -> list[JSON]:
    claims = [{"key": "request.auth.claims[sub]", "values": ["me"]}]
    where = {"selector": {"matchLabels": {"app": "web"}}}
    made = [{"kind": "AuthorizationPolicy", **where, "action": one, "rules": [{"when": claims}]} for one in actions]
    return documents(*made)


def test_what_rbac_cannot_hold_allows_nobody_denies_more_and_is_told() -> None:
    """gRPC proves no tokens."""
    [body] = [one.body for one in load(TOKENS, "f.yaml")[0]]
    tables = tables_of(world([*claims_asked("ALLOW", "DENY"), body]), "default/web-1")
    note = Notes()
    rules = authorization_rules(tables.inbound, 8080, True, note)
    assert [(one["action"], len(one["policies"])) for one in rules] == [("DENY", 2), ("ALLOW", 0)]
    assert not allows(rules, Asked(IDENTITIES[1], "10.0.0.2", "", SimpleRequest(_arrival("", "10.0.0.2", 8080))))
    assert note.listed()[1:] == [
        "AuthorizationPolicy default/p0 rule 0: request.auth.claims[sub] is not carried out by xDS; the rule allows nobody",
        "AuthorizationPolicy default/p1 rule 0: request.auth.claims[sub] is not carried out by xDS; the rule denies "
        "whatever it says",
    ]


def test_without_a_request_authentication_there_are_no_claims() -> None:
    tables = tables_of(world(claims_asked("ALLOW", "DENY")), "default/web-1")
    note = Notes()
    [rules] = authorization_rules(tables.inbound, 8080, True, note)
    assert rules == {"action": "ALLOW", "policies": {}}
    assert note.listed() == []


def test_several_lines_of_a_header_with_prefixes_and_suffixes_are_closed() -> None:
    where = {"selector": {"matchLabels": {"app": "web"}}}
    when = [{"key": "request.headers[x-a]", "values": ["a*", "*b"]}]
    made = documents({"kind": "AuthorizationPolicy", **where, "rules": [{"when": when}]})
    note = Notes()
    [rules] = authorization_rules(tables_of(world(made), "default/web-1").inbound, 8080, True, note)
    assert rules == {"action": "ALLOW", "policies": {}}
    assert "request.headers[x-a] with prefixes and suffixes is not carried out by xDS" in note.listed()[0]


@pytest.mark.parametrize("mutual", [True, False])
def test_without_a_policy_everybody_is_admitted(mutual: bool) -> None:
    tables = tables_of(world(documents()), "default/web-1")
    assert network_rules(tables.inbound, 8080, mutual) is None
    assert authorization_rules(tables.inbound, 8080, True, Notes()) == []


TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  jwtRules:
  - {issuer: i, jwksUri: "http://k/", outputClaimToHeaders: [{header: x-user, claim: sub}]}
  - {issuer: j, jwksUri: "http://k/", fromCookies: [session]}
"""


def test_what_may_be_a_token_is_refused_where_nobody_proves_it_and_the_rest_passes() -> None:
    [body] = [one.body for one in load(TOKENS, "f.yaml")[0]]
    tables = tables_of(world([*documents(), body]), "default/web-1")
    note = Notes()
    rules = authorization_rules(tables.inbound, 8080, True, note)
    assert note.listed() == [
        "RequestAuthentication default/users is not carried out by xDS; requests with a token, or a header that it "
        "sets, are refused"
    ]
    assert authorization_rules(tables.inbound, 9000, False, note) == [], "a port of TCP has no tokens"

    def passes(path: str, *headers: tuple[str, str]) -> bool:
        request = SimpleRequest(_arrival("", "10.0.0.2", 8080), "GET", "web", path, list(headers))
        return allows(rules, Asked("", "10.0.0.2", "", request))

    assert passes("/?q=access_token", ("authorization", "Basic YQ=="), ("cookie", "a=b"))
    for path, *headers in (
        ("/", ("authorization", "bearer\tx.y.z")), ("/?access_token=x",), ("/?a=1&acces%73_token=x",),
        ("/", ("cookie", "a=b; session=x")), ("/", ("x-user", "admin")), ("/", ("x_user", "admin")),
    ):  # fmt: skip
        assert not passes(path, *headers), (path, headers)


def test_the_client_behind_a_gateway_is_asked_for_where_it_is_known() -> None:
    rule = [{"from": [{"source": {"remoteIpBlocks": ["203.0.113.0/24"]}}]}]
    where = {"selector": {"matchLabels": {"app": "web"}}}
    made = documents({"kind": "AuthorizationPolicy", **where, "action": "DENY", "rules": rule})
    inbound, note = tables_of(world(made), "default/web-1").inbound, Notes()
    [denies] = authorization_rules(inbound, 8080, True, note, REMOTE)
    assert "remote_ip" in str(denies) and "direct_remote_ip" not in str(denies)
    assert note.listed() == []
    assert not allows(authorization_rules(inbound, 8080, True, note, ""), Asked("", "10.0.0.2"))
    assert "remoteIpBlocks is not carried out" in note.listed()[0]
