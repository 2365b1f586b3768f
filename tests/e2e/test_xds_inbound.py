"""What comes in: the same connections to our sidecar and to an Envoy that the same control feeds, the same comes of them.

By mutual TLS and in plaintext, HTTP/1.1, HTTP/2 and TCP: PeerAuthentication, NetworkPolicy, AuthorizationPolicy,
RequestAuthentication, and what the app is told of its peer. Random worlds stand beside those written by hand.
"""

# ruff: noqa: E501 - a table
from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.inbound_oracle import HOST, Arrival, Document, Members, members, pod, rule, web
from tests.e2e.oracle import Apps
from tests.tokens import ISSUER, Signer, confused, jwks, signer, unsigned

AFTER = "retry-after is ours alone (README)"
A, B, C = (f"spiffe://cluster.local/ns/{one}" for one in ("default/sa/a", "default/sa/b", "other/sa/c"))
PEERS = [
    pod("a-1", "a", "127.0.0.11", tier="one"), pod("a-2", "a", "127.0.0.12", tier="two"),
    pod("b-1", "b", "127.0.0.13", tier="one"), pod("c-1", "c", "127.0.0.14", namespace="other"),
]  # fmt: skip
MINE = {"selector": {"matchLabels": {"app": "web"}}}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    with members(tmp_path_factory.mktemp("members"), Apps("http", "other", "tcp", host="0.0.0.0")) as made:
        made.api.call("POST", "api/v1/namespaces", {"metadata": {"name": "other", "labels": {"team": "two"}}})
        yield made


@dataclass(eq=False)
class World:
    name: str
    rules: Sequence[Document]
    arrivals: Sequence[tuple[Arrival, int]]
    """With the status that both must give (0: the connection is closed)."""
    ports: Sequence[str] = ("http", "other", "tcp")


def policy(*rules: Document, action: str = "ALLOW", name: str = "p") -> Document:
    spec: Document = {**MINE, "action": action, "rules": list(rules)}
    return rule("AuthorizationPolicy", name, spec)


def mtls(mode: str, **ports: str) -> Document:
    """`ports`: mode by the port's name."""
    levels = {f"%{name}": {"mode": one} for name, one in ports.items()}
    made = rule(
        "PeerAuthentication", "web", {**MINE, "mtls": {"mode": mode}, **({"portLevelMtls": levels} if ports else {})}
    )
    made["metadata"]["annotations"] = {"fairlead.dev/force": "true"}  # others came in plaintext a moment ago
    return made


def network(*ingress: Document) -> Document:
    return rule(
        "NetworkPolicy", "n", {"podSelector": MINE["selector"], "policyTypes": ["Ingress"], "ingress": list(ingress)}
    )


def get(path: str = "/", *headers: str, **more: Any) -> Arrival:
    return Arrival(" ".join([f"GET {path}", *headers]), **{"identity": A, **more})


WORLDS = [
    World("nothing is forbidden", [], [
        (get(), 200), (get(http2=True), 200), (get(port="other"), 200), (get(port="tcp"), 200),
        (get(identity=C, http2=True), 200), (get(identity=""), 0), (get(identity=A + "!"), 0),
        (get(identity="spiffe://foreign/ns/default/sa/a"), 0), (Arrival("POST /x body:abc", identity=A), 200),
        (Arrival("HEAD /", identity=A), 200), (get("/a/../b//c"), 200), (get("/%61"), 200),
        (get("/", "x-do:503"), 503), (get("/", "x-forwarded-for:192.0.2.1"), 200), (get("/", "x-forwarded-proto:http"), 200),
    ]),
    World("who a peer is nobody else tells", [], [
        (get("/", "x-forwarded-client-cert:By=x;URI=spiffe://cluster.local/ns/default/sa/admin"), 200),
        (get("/", "'X-Forwarded-Client-Cert:By=x'", "'x-forwarded-client-cert:By=y'", http2=True), 200),
    ]),
    World("plaintext to one port is taken", [mtls("PERMISSIVE")], [
        (get(plain=True), 200), (get(), 200), (get(identity=""), 0),
        (get("/", "x-forwarded-client-cert:By=x;URI=spiffe://cluster.local/ns/default/sa/a", plain=True), 200),
    ], ports=["http"]),
    World("plaintext is not taken where mutual TLS is asked for", [mtls("STRICT")],
          [(get(plain=True), 0), (get(), 200)], ports=["http"]),
    World("TLS is not taken where it is off", [mtls("DISABLE")], [(get(plain=True), 200), (get(differs="we answer that no certificate is taken, Envoy closes"), 403)], ports=["http"]),
    World("a port's own mode is before that of the workload", [mtls("STRICT", http="PERMISSIVE")],
          [(get(plain=True), 200), (get(), 200)], ports=["http"]),
    World("a port's own mode is stricter", [mtls("PERMISSIVE", http="STRICT")],
          [(get(plain=True), 0), (get(), 200)], ports=["http"]),
    World("what proxies tell of a client nobody else may", [mtls("PERMISSIVE")], [
        (get("/", "x-forwarded-for:192.0.2.1", "x-forwarded-proto:https", "x-forwarded-host:other", "x-real-ip:192.0.2.1",
             "forwarded:for=192.0.2.1", "x-envoy-external-address:192.0.2.1", "x-fairlead-reason:x", plain=True), 200),
        (get("/", "x-forwarded-for:192.0.2.1", "x-forwarded-proto:https", "x-forwarded-host:other", "x-real-ip:192.0.2.1",
             "forwarded:for=192.0.2.1"), 200),
    ], ports=["http"]),
    World("plaintext to a port of TCP", [mtls("PERMISSIVE")],
          [(get(port="tcp", plain=True), 200), (get(port="tcp"), 200)], ports=["tcp"]),
    World("a network policy names peers by labels, namespaces and blocks", [network(
        {"from": [{"podSelector": {"matchLabels": {"tier": "one"}}}]},
        {"from": [{"namespaceSelector": {"matchLabels": {"team": "two"}}}], "ports": [{"port": 81}]},
        {"from": [{"ipBlock": {"cidr": "127.0.1.0/24", "except": ["127.0.1.8/29"]}}]},
    )], [
        (get(source="127.0.0.11"), 200), (get(source="127.0.0.12"), 403), (get(identity=B), 200), (get(identity=C), 403),
        (get(identity=C, source="127.0.1.1"), 200), (get(identity=C, source="127.0.1.9"), 403),
        (get(port="tcp", identity=B), 200), (get(port="tcp", identity=C), 0), (get(identity=C, http2=True), 403),
        (get(identity="spiffe://cluster.local/ns/default/sa/unknown"), 403),
    ]),
    World("nobody is let in", [network()], [(get(), 403), (get(port="tcp"), 0)]),
    World("a policy of plaintext goes by addresses", [network(
        {"from": [{"podSelector": {"matchLabels": {"app": "b"}}}]},
    )], [(get(plain=True, source="127.0.0.13"), 200), (get(plain=True, source="127.0.0.11"), 403)], ports=["http"]),
    World("an allow list of operations", [policy(
        {"from": [{"source": {"principals": ["cluster.local/ns/default/sa/a"]}}],
         "to": [{"operation": {"methods": ["GET"], "paths": ["/a", "/b/*", "/t/{*}/x", "/u/{**}"]}}]},
        {"from": [{"source": {"namespaces": ["other"]}}], "to": [{"operation": {"hosts": [HOST], "notPaths": ["/no*"]}}]},
        {"when": [{"key": "request.headers[x-key-of-house]", "values": ["one", "t*"]}]},
    )], [
        (get("/a"), 200), (get("/a?x=/b"), 200), (get("/b"), 403), (get("/b/"), 200), (get("/c"), 403),
        (get("/t/1/x"), 200), (get("/t/1/2/x"), 403), (get("/u/1/2"), 200), (get("/t//x"), 403), (get("/x/../a"), 200),
        (get("/A"), 403), (get("/a", identity=B), 403), (Arrival("POST /a", identity=A), 403), (get("/c", identity=C), 200),
        (get("/no", identity=C), 403), (get("/c", identity=C, host="web"), 403), (get("/c", identity=C, http2=True), 200),
        (get("/c", "x-key-of-house:one", identity=B), 200), (get("/c", "x-key-of-house:two", identity=B), 200),
        (get("/c", "x-key-of-house:one", "x-key-of-house:other", identity=B), 403),
        (get("/c", "x-key-of-house:x", identity=B), 403), (get(port="tcp"), 0), (get(port="tcp", identity=C), 0),
    ]),
    World("a deny list beside an allow list", [
        policy({"to": [{"operation": {"paths": ["/secret*"]}}]}, {"from": [{"source": {"notNamespaces": ["default"]}}]},
               {"when": [{"key": "request.headers[x-bad]", "values": ["yes"]}]}, action="DENY", name="d"),
        policy({"from": [{"source": {"principals": ["*"]}}]}),
    ], [
        (get("/"), 200), (get("/secret"), 403), (get("/x/..//secret"), 200), (get("/x/../secret"), 403), (get(identity=C), 403),
        (get("/", "x-bad:yes"), 403), (get("/", "x-bad:no", "x-bad:yes"), 403), (get("/", "x-bad:no"), 200),
        (get(port="tcp"), 0),
    ]),
    World("policies of one port, and of addresses and server names", [
        policy({"to": [{"operation": {"ports": ["%other"]}}]}, {"when": [{"key": "connection.sni", "values": ["outbound_.90_*"]}],
               "from": [{"source": {"ipBlocks": ["127.0.0.11/32"]}}]}),
    ], [
        (get(port="other"), 200), (get(), 403), (get(port="tcp", source="127.0.0.11"), 200), (get(port="tcp"), 0),
    ]),
    World("behind a gateway the client's address counts", [
        policy({"from": [{"source": {"remoteIpBlocks": ["192.0.2.0/24"]}}]}),
    ], [
        (get("/", "x-forwarded-for:192.0.2.1"), 200), (get("/", "x-forwarded-for:192.0.2.1,10.0.0.1"), 403),
        (get("/", "x-forwarded-for:10.0.0.1,192.0.2.1"), 200), (get(), 403),
    ]),
    World("an audit forbids nothing", [policy({}, action="AUDIT")], [(get(), 200), (get(port="tcp"), 200)]),
    World("so many requests and connections", [
        rule("LocalRateLimit", "l", {**MINE, "limits": [
            {"name": "writes", "match": {"methods": ["POST", "PUT"], "uri": {"prefix": "/api/"}}, "response": {"headers": {"x-plan": "free"}},
             "tokenBucket": {"maxTokens": 2, "fillInterval": "1h"}},
            {"name": "one", "match": {"uri": {"exact": "/one"}, "hosts": ["web"], "headers": {"x-a": {"exact": "b"}}},
             "tokenBucket": {"maxTokens": 1, "fillInterval": "1h"}},
            {"name": "shadow", "enforce": False, "match": {"uri": {"regex": "/s.*"}}, "tokenBucket": {"maxTokens": 1, "fillInterval": "1h"}},
        ], "connections": [{"name": "c", "port": "%%tcp", "tokenBucket": {"maxTokens": 2, "fillInterval": "1h"}}]}),
        policy({"to": [{"operation": {"paths": ["/api/secret"], "ports": ["%http"]}}]}, action="DENY"),
    ], [
        (Arrival("POST /api/secret", identity=A), 403), (Arrival("POST /api/a?b", identity=A), 200), (Arrival("GET /api/a", identity=A), 200),
        (Arrival("PUT /api/b", identity=B, http2=True), 200), (Arrival("POST /api/a", identity=A, differs=AFTER), 429), (Arrival("POST /ap", identity=A), 200),
        (get("/one", "x-a:b"), 200), (get("/one", "x-a:c"), 200), (get("/one?x", "x-a:b", differs=AFTER), 429), (get("/one", "x-a:b", host="other", differs=AFTER), 429),
        (get("/s1"), 200), (get("/s2"), 200), (get(port="tcp"), 200), (get(port="tcp"), 200), (get(port="tcp"), 0),
    ]),
    World("allow nothing", [rule("AuthorizationPolicy", "p", {**MINE})], [(get(), 403), (get(port="tcp"), 0), (get(http2=True), 403)]),
]  # fmt: skip


OWN, ES, OTHER = signer("RS256"), signer("ES256"), Signer("ES256", "two")
ALL = "of several tokens one good one is enough for us; Envoy wants all of them to be good"
SECOND = "https://second.example.com"


def users(*rules: Document, name: str = "users") -> Document:
    return rule("RequestAuthentication", name, {**MINE, "jwtRules": list(rules)})


def issuer(**more: Any) -> Document:
    return {"issuer": ISSUER, "jwks": jwks(OWN, ES), **more}


def bearing(token: str, path: str = "/", *headers: str, **more: Any) -> Arrival:
    return get(path, f"'authorization:Bearer {token}'", *headers, **more)


def _tokens() -> list[World]:
    good, now = OWN.token(), int(time.time())  # of the import: minutes may go by
    admin = OWN.token(
        {
            "realm": {"roles": ["admin", "user"], "scope": "x y"},
            "scope": "read write",
            "aud": ["shop", "x"],
            "azp": "app",
            "groups": "a b",
            "n": 7,
            "yes": True,
        }
    )
    second = OTHER.token({"iss": SECOND, "sub": "bob"})
    bad = Signer("ES256").token()
    forged = [
        unsigned(),
        unsigned(signature="AAAA"),
        confused(OWN),
        bad,
        OWN.token(kid="three"),
        OWN.token({"exp": now - 61}),
        OWN.token({"nbf": now + 3600}),
        OWN.token({"iss": ISSUER + ".evil"}),
        OWN.token('{"sub": "alice"}'),
        "junk",
        "a.b.c",
        OWN.token({"exp": now - 61, "aud": "bank"}),
        f"{good} x",
        good[:-4] + "AAAA",
    ]
    return [
        World("a token is proved, or there is none", [users(issuer())], [
            (get(), 200), (bearing(good), 200), (bearing(ES.token()), 200), (bearing(good, http2=True), 200),
            (bearing(OWN.token({"exp": now + 3600})), 200),
            *((bearing(one), 401) for one in forged), (get(f"/?access_token={good}&a=b"), 200), (get(f"/?a=b&access_token={bad}"), 401),
            (get(f"/?acces%73_token={bad}"), 401), (get("/", "'authorization:Basic YTpi'"), 200),
            (get("/", f"'authorization:bearer {good}'"), 200), (get("/", f"'authorization:bearer {bad}'"), 401),
            (get("/", f"'authorization:BEARER {bad}'"), 401), (get("/", f"'authorization:beAreR {bad}'"), 401),
            (get("/", f"'authorization:BeareR\t{bad}'"), 401), (get("/", f"'authorization:Bearer  {good}'"), 200),
            (get("/", f"'authorization:Bearer {good}'", f"'authorization:Bearer {bad}'"), 401),
            (get(f"/?access_token={good}&access_token={bad}"), 401), (bearing(good, f"/?access_token={bad}", differs=ALL), 200),
            (get(port="tcp"), 200), (bearing(bad, port="tcp"), 200),
        ]),
        World("the audience counts", [users(issuer(audiences=["shop"]))], [
            (bearing(OWN.token({"aud": "shop"})), 200), (bearing(OWN.token({"aud": ["x", "https://shop/"]})), 200),
            (bearing(OWN.token({"aud": "bank"})), 403), (bearing(good), 403), (get(), 200),
        ]),
        World("two issuers", [users(issuer()), users({"issuer": SECOND, "jwks": jwks(OTHER)}, name="more")], [
            (bearing(good), 200), (bearing(second), 200), (bearing(OTHER.token()), 401), (get(), 200),
            (bearing(OWN.token({"iss": SECOND})), 401), (bearing(OWN.token({"iss": "https://third"})), 401),
            (bearing(good, f"/?access_token={bad}", differs=ALL), 200), (bearing(bad, f"/?access_token={second}", differs=ALL), 200),
        ]),
        World("places of the rule's own", [users(issuer(
            fromHeaders=[{"name": "x-token"}, {"name": "x-other", "prefix": "Key "}], fromParams=["t"], forwardOriginalToken=True))], [
            (get("/", f"x-token:{good}"), 200), (get("/", f"x-token:{bad}"), 401), (get("/", f"'x-other:Key {good}'"), 200),
            (get("/", f"'x-other:Key {bad}'"), 401), (get("/", f"x-other:{bad}"), 200), (get(f"/?t={good}"), 200), (get(f"/?t={bad}"), 401),
            (bearing(bad), 200), (get("/", f"x-token:{good}", f"x-token:{bad}"), 401), (get(f"/?t={good}&t={bad}"), 401),
        ]),
        World("tokens in cookies are refused by Envoy", [users(issuer(fromCookies=["session"], fromParams=["t"]))], [
            (get("/", f"'cookie:a=b; session={good}'", differs="Envoy proves the first of several Cookie lines only"), 200),
            (get("/", f"'cookie:session={bad}'"), 401), (get("/", "'cookie:a=session'"), 200),
            (get("/", f"'cookie:session={good}'", f"'cookie:session={bad}'"), 401), (get(f"/?t={good}"), 200), (get(f"/?t={bad}"), 401),
            (get("/", "cookie:a=b", f"'cookie:x=y;session={bad}'"), 401), (bearing(bad), 200),
        ]),
        World("what the app is told", [users(issuer(outputPayloadToHeader="x-payload", outputClaimToHeaders=[
            {"header": "x-user", "claim": "sub"}, {"header": "x-number", "claim": "n"}, {"header": "x-yes", "claim": "yes"},
            {"header": "x-none", "claim": "none"}]))], [
            (bearing(admin), 200), (bearing(admin, "/", "x-user:root", "x-payload:y", "x_user:root"), 200),
            (get("/", "x-user:root", "x-payload:y", "x_user:root", "X-None:z"), 200),
            (Arrival("OPTIONS / origin:http://o access-control-request-method:GET x-user:root 'authorization:Bearer junk'", identity=A), 200),
        ]),
        World("policies ask of tokens", [
            users(issuer(spaceDelimitedClaims=["groups"]), {"issuer": SECOND, "jwks": jwks(OTHER)}),
            policy(
                {"from": [{"source": {"requestPrincipals": [f"{ISSUER}/*"]}}], "to": [{"operation": {"paths": ["/first"]}}]},
                {"from": [{"source": {"requestPrincipals": ["*/bob", f"{ISSUER}/al*"]}}], "to": [{"operation": {"paths": ["/some"]}}]},
                {"from": [{"source": {"requestPrincipals": ["*"], "notRequestPrincipals": [f"{ISSUER}/alice"]}}],
                 "to": [{"operation": {"paths": ["/not"]}}]},
                {"when": [{"key": "request.auth.claims[realm][roles]", "values": ["admin"]}], "to": [{"operation": {"paths": ["/role"]}}]},
                {"when": [{"key": "request.auth.claims[scope]", "values": ["write"]}], "to": [{"operation": {"paths": ["/scope"]}}]},
                {"when": [{"key": "request.auth.claims[realm][scope]", "values": ["y"]}], "to": [{"operation": {"paths": ["/inner"]}}]},
                {"when": [{"key": "request.auth.claims[groups]", "values": ["b*"]}], "to": [{"operation": {"paths": ["/group"]}}]},
                {"when": [{"key": "request.auth.audiences", "values": ["shop"]}, {"key": "request.auth.presenter", "values": ["app"]}],
                 "to": [{"operation": {"paths": ["/audience"]}}]},
                {"when": [{"key": "request.auth.claims[n]", "values": ["7"]}], "to": [{"operation": {"paths": ["/number"]}}]},
                {"when": [{"key": "request.auth.principal", "values": [f"{ISSUER}/alice"]}], "to": [{"operation": {"paths": ["/who"]}}]},
                {"when": [{"key": "request.auth.claims[groups]", "notValues": ["a"]}], "to": [{"operation": {"paths": ["/no-group"]}}]},
            )], [
            (found, 200 if f"{path} {name}" in (
                "/first good", "/first admin", "/some good", "/some admin", "/some second", "/not second", "/role admin",
                "/scope admin", "/inner admin", "/group admin", "/audience admin", "/who good", "/who admin",
                "/no-group good", "/no-group second", "/no-group none") else 403)
            for path in ("/first", "/some", "/not", "/role", "/scope", "/inner", "/group", "/audience", "/number", "/who", "/no-group")
            for name, found in (("none", get(path)), ("good", bearing(good, path)), ("admin", bearing(admin, path)),
                                ("second", bearing(second, path)))
        ]),
        World("a denial of those without a token", [users(issuer()), policy(
            {"from": [{"source": {"notRequestPrincipals": ["*"]}}]}, action="DENY")], [
            (get(), 403), (bearing(good), 200), (bearing(bad), 401), (get(port="tcp"), 0),
        ]),
    ]  # fmt: skip


def told_of(both: Members, world: World) -> list[str]:
    """What differs, or is not as it must be."""
    both.world([*web(both.apps, *world.ports), *PEERS, *_numbered(world.rules, both)])
    told = []
    for arrival, status in world.arrivals:
        found, ours, _ = both.compare(arrival)
        if arrival.differs and not found:
            told.append(f"{arrival}: no difference any more: {arrival.differs}")
        elif found and not arrival.differs:
            told.append(found)
        if ours.status != status:
            told.append(f"{arrival}: {ours.status}, not {status}")
    return told


def _numbered(rules: Sequence[Document], both: Members) -> list[Document]:
    """Ports of the app stand in rules by name, since they are others each time."""
    text = json.dumps(rules)
    for name, port in both.apps.at.items():
        text = (
            text.replace(f'"%%{name}"', str(port))
            .replace(f'"%{name}"', f'"{port}"')
            .replace('{"port": 81}', f'{{"port": {both.apps.at["other"]}}}')
        )
    return json.loads(text)  # type: ignore[no-any-return]


@pytest.mark.parametrize("world", [*WORLDS, *_tokens()], ids=lambda one: one.name)
def test_both_let_the_same_in_and_the_app_sees_the_same(both: Members, world: World) -> None:
    told = told_of(both, world)
    assert not told, "\n".join(told)


# --- random worlds ----------------------------------------------------------------------------------------------------

RANDOM_WORLDS, RANDOM_ARRIVALS = 16, 16
SOURCES = ["127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14", "127.0.1.1", "127.0.1.9"]
IDENTITIES = [A, B, C, "spiffe://cluster.local/ns/default/sa/unknown", "spiffe://cluster.local/ns/other/sa/a"]
FIELDS: dict[str, list[str]] = {
    "principals": ["cluster.local/ns/default/sa/a", "*", "cluster.local/ns/other/*", "*/sa/b"], "namespaces": ["default", "oth*", "*"],
    "ipBlocks": ["127.0.0.0/24", "127.0.1.9"], "remoteIpBlocks": ["192.0.2.0/24"],
    "requestPrincipals": ["*", f"{ISSUER}/alice", f"{ISSUER}/*", "*/bob"],
}  # fmt: skip
SIDES: dict[str, list[str]] = {
    "hosts": ["web*", HOST.upper(), "*.local", "*"], "methods": ["GET", "P*", "*"], "ports": ["%http", "%tcp"],
    "paths": ["/a", "/a/*", "*z", "/t/{*}/x", "/t/{**}"],
}  # fmt: skip
KEYS: dict[str, list[str]] = {
    "request.headers[x-a]": ["one", "o*", "*"], "request.headers[x-b]": ["*e", "two"], "source.ip": ["127.0.0.0/24"],
    "source.serviceAccount": ["a", "other/c"], "source.namespace": ["default"], "connection.sni": ["outbound_.80_*"], "destination.port": ["%http"], "remote.ip": ["192.0.2.1"],
    "request.auth.claims[scope]": ["read", "w*"], "request.auth.claims[sub]": ["alice", "*"],
}  # fmt: skip
PATHS = ["/a", "/a/b?c=/z", "/t/1/x", "/t/1/2/z", "/z", "/A", "/x/../a", "/a%2fb", "//a", "/a?%00", "/"]


def _some(draw: random.Random, choices: dict[str, list[str]]) -> Document:
    found: Document = {}
    for name in draw.sample(sorted(choices), draw.choice((1, 1, 2))):
        key = name if draw.random() < 0.7 else f"not{name[0].upper()}{name[1:]}"
        found[key] = draw.sample(choices[name], draw.choice((1, 1, 2)) if len(choices[name]) > 1 else 1)
    return found


def _random_rule(draw: random.Random) -> Document:
    made: Document = {}
    if draw.random() < 0.6:
        made["from"] = [{"source": _some(draw, FIELDS)} for _ in range(draw.choice((1, 2)))]
    if draw.random() < 0.6:
        made["to"] = [{"operation": _some(draw, SIDES)} for _ in range(draw.choice((1, 2)))]
    if not made or draw.random() < 0.3:
        key = draw.choice(sorted(KEYS))
        values = draw.sample(KEYS[key], 1)
        made["when"] = [{"key": key, draw.choice(("values", "values", "notValues")): values}]
    return made


def _random_network(draw: random.Random) -> Document:
    peers = [
        {"podSelector": {"matchLabels": {"tier": "one"}}}, {"namespaceSelector": {}}, {"podSelector": {}},
        {"namespaceSelector": {"matchLabels": {"team": "two"}}}, {"ipBlock": {"cidr": "127.0.0.0/23", "except": ["127.0.1.8/29"]}},
        {"podSelector": {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, "namespaceSelector": {}},
    ]  # fmt: skip
    ingress: Document = {"from": draw.sample(peers, draw.choice((1, 2)))}
    if draw.random() < 0.3:
        ingress["ports"] = [{"port": 81}]
    return network(ingress)


def random_rules(draw: random.Random) -> list[Document]:
    found = [
        policy(*(_random_rule(draw) for _ in range(draw.choice((1, 2)))), name=f"p{number}",
               action=draw.choice(("ALLOW", "ALLOW", "DENY", "AUDIT")))
        for number in range(draw.choice((0, 1, 2)))
    ]  # fmt: skip
    if draw.random() < 0.5:
        found.append(_random_network(draw))
    if draw.random() < 0.6:
        found.append(users(issuer(outputClaimToHeaders=[{"header": "x-user", "claim": "sub"}])))
    return found


def random_arrival(draw: random.Random, plain: bool) -> Arrival:
    headers = draw.sample(["x-a:one", "x-a:o", "x-a:", "x-b:tone", "x-b:two", "x-forwarded-for:192.0.2.1", "x-user:root",
                           "x-forwarded-for:10.1.1.1,192.0.2.7"], draw.choice((0, 1, 2)))  # fmt: skip
    if draw.random() < 0.5:
        tokens = [
            OWN.token(),
            OWN.token({"sub": "bob", "scope": "write x"}),
            OWN.token({"scope": "read"}),
            unsigned(),
            "x",
        ]
        headers.append(f"'authorization:Bearer {draw.choice(tokens)}'")
    method = draw.choice(["GET", "GET", "POST", "PUT", "HEAD"])
    return Arrival(
        " ".join([method, draw.choice(PATHS), *headers]), port="http" if plain else draw.choice(["http", "http", "other", "tcp"]),
        identity="" if plain else draw.choice(IDENTITIES), plain=plain, source=draw.choice(SOURCES),
        http2=not plain and draw.random() < 0.3, host=draw.choice([HOST, HOST, "web", "WEB.x"]),
    )  # fmt: skip


@pytest.mark.parametrize("plain", [False, True])
def test_both_agree_on_random_worlds(both: Members, plain: bool) -> None:
    draw = random.Random(5 if plain else 4)
    told, passed = [], 0
    for number in range(RANDOM_WORLDS):
        rules = random_rules(draw)
        both.world(
            [*web(both.apps, *(["http"] if plain else ["http", "other", "tcp"])), *PEERS, *_numbered(rules, both)]
        )
        for _ in range(RANDOM_ARRIVALS):
            arrival = random_arrival(draw, plain)
            if arrival.port == "tcp":
                arrival.http2 = False
            found, ours, _ = both.compare(arrival)
            passed += ours.status == 200
            if found:
                told.append(f"world {number}: {json.dumps(rules)}\n{found}")
    assert not told, "\n".join(told)
    assert RANDOM_WORLDS < passed < RANDOM_WORLDS * RANDOM_ARRIVALS * 0.9, "these worlds show nothing"
