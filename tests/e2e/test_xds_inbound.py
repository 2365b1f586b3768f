"""What comes in: the same connections to our sidecar and to an Envoy that the same control feeds, the same comes of them.

By mutual TLS and in plaintext, HTTP/1.1, HTTP/2 and TCP: PeerAuthentication, NetworkPolicy, AuthorizationPolicy,
RequestAuthentication, and what the app is told of its peer. Random worlds stand beside those written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.inbound_oracle import HOST, Arrival, Document, Members, members, pod, rule, web
from tests.e2e.oracle import Apps
from tests.tokens import ISSUER, Signer, confused, jwks, signer, unsigned

A, B, C = (f"spiffe://cluster.local/ns/{one}" for one in ("default/sa/a", "default/sa/b", "other/sa/c"))
PEERS = [
    pod("a-1", "a", "127.0.0.11", tier="one"), pod("a-2", "a", "127.0.0.12", tier="two"),
    pod("b-1", "b", "127.0.0.13", tier="one"), pod("c-1", "c", "127.0.0.14", namespace="other"),
]  # fmt: skip
MINE = {"selector": {"matchLabels": {"app": "web"}}}
UNDERSCORES = "a name with an underscore"


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
    different: dict[str, str] = field(default_factory=dict)
    """By the text of an arrival: why the two differ by intention."""


def policy(*rules: Document, action: str = "ALLOW", name: str = "p") -> Document:
    spec: Document = {**MINE, "action": action, "rules": list(rules)}
    return rule("AuthorizationPolicy", name, spec)


def mtls(mode: str, **ports: str) -> Document:
    """`ports`: mode by the port's name."""
    levels = {f"%{name}": {"mode": one} for name, one in ports.items()}
    made = rule("PeerAuthentication", "web", {**MINE, "mtls": {"mode": mode}, **({"portLevelMtls": levels} if ports else {})})
    made["metadata"]["annotations"] = {"fairlead.dev/force": "true"}  # others came in plaintext a moment ago
    return made


def network(*ingress: Document) -> Document:
    return rule("NetworkPolicy", "n", {"podSelector": MINE["selector"], "policyTypes": ["Ingress"], "ingress": list(ingress)})


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
    World("TLS is not taken where it is off", [mtls("DISABLE")], [(get(plain=True), 200), (get(), 403)], ports=["http"],
          different={"GET / ": "a certificate where none is asked for: we answer that it is not taken, Envoy closes"}),
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
    World("allow nothing", [rule("AuthorizationPolicy", "p", {**MINE})], [(get(), 403), (get(port="tcp"), 0), (get(http2=True), 403)]),
]  # fmt: skip


def told_of(both: Members, world: World) -> list[str]:
    """What differs, or is not as it must be."""
    both.world([*web(both.apps, *world.ports), *PEERS, *_numbered(world.rules, both)])
    told = []
    for arrival, status in world.arrivals:
        found, ours, theirs = both.compare(arrival)
        if not arrival.plain and f"{arrival.text} " in world.different:
            if not found:
                told.append(f"{arrival}: no difference any more: {world.different[arrival.text + ' ']}")
            continue
        if found:
            told.append(found)
        if ours.status != status:
            told.append(f"{arrival}: {ours.status}, not {status}")
    return told


def _numbered(rules: Sequence[Document], both: Members) -> list[Document]:
    """Ports of the app stand in rules by name, since they are others each time."""
    import json

    text = json.dumps(rules)
    for name, port in both.apps.at.items():
        text = text.replace(f'"%{name}"', f'"{port}"').replace('{"port": 81}', f'{{"port": {both.apps.at["other"]}}}')
    return json.loads(text)  # type: ignore[no-any-return]


@pytest.mark.parametrize("world", WORLDS, ids=lambda one: one.name)
def test_both_let_the_same_in_and_the_app_sees_the_same(both: Members, world: World) -> None:
    told = told_of(both, world)
    assert not told, "\n".join(told)
