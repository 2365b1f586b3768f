"""At the edge: the same connections to our gateway and to an Envoy that the same control feeds, the same comes of them.

Gateways with VirtualServices bound to them: plain, redirected, TLS by Secrets over SDS (SIMPLE, MUTUAL, ISTIO_MUTUAL),
passed through, octets; policies and tokens of the gateway's workload; an Ingress; Secrets that come and change.
"""

# ruff: noqa: E501 - a table
from __future__ import annotations

import base64
import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.e2e.inbound_oracle import Arrival, Document, Members, members, pod, rule
from tests.e2e.oracle import Apps, service
from tests.servers import free_ports
from tests.tokens import ISSUER, jwks, signer

PORTS = (80, 81, 443, 444, 9000)
HOST = "shop.example"
MINE = {"selector": {"matchLabels": {"istio": "ingressgateway"}}}
MESH = "spiffe://cluster.local/ns/default/sa/a"


@dataclass(eq=False)
class Edge(Arrival):
    """`port` is that of the Gateway; `sni` empty: plaintext. `identity`: as `Members`, or `user` (known to `admin`'s
    authority) or `stranger`."""

    sni: str = ""
    host: str = HOST

    def __str__(self) -> str:
        return f"{self.identity or 'nobody'} from {self.source} to {self.port} {self.sni} ({self.host}): {self.text}"


class Gateways(Members):
    def start(self) -> None:
        self.at = {name: dict(zip(PORTS, free_ports(len(PORTS)), strict=True)) for name in ("fairlead", "envoy")}
        maps = [part for port, own in self.at["fairlead"].items() for part in ("--map", f"{port}={own}")]
        self.ca, self.clients = Authority(), Authority()
        self._files: dict[str, ssl.SSLContext] = {}
        self.shown: bytes | None = b""
        self.fixed = [
            pod("gw-1", "gw", "127.0.0.2", istio="ingressgateway"),
            pod("gw-2", "gw", "127.0.0.3", istio="ingressgateway"),
        ]
        for name, at in self.apps.at.items():
            self.fixed += service(name, [at])
        self.world(self.fixed, 0)
        self.sidecar(
            "default/gw-1",
            "gw",
            0,
            "--labels",
            "istio=ingressgateway",
            "--data-dir",
            str(self.folder / "gw"),
            *maps,
            role="gateway",
        )
        told = {"GATEWAY": True, "MAP": [f"{port}={own}" for port, own in self.at["envoy"].items()]}
        self.envoy("default/gw-2", "gw", told, [])

    def secret(self, name: str, host: str, *, clients: bool = False) -> Document:
        certificate, key = self.ca.issue(host)
        data = {"tls.crt": certificate, "tls.key": key}
        if clients:
            data["ca.crt"] = self.clients.pem
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": encoded}

    @contextlib.contextmanager
    def _connected(self, proxy: str, arrival: Arrival) -> Iterator[socket.socket]:
        assert isinstance(arrival, Edge)
        at = self.at[proxy][int(arrival.port)]
        with socket.create_connection(("127.0.0.1", at), 15, (arrival.source, 0)) as wire:
            if not arrival.sni:
                yield wire
                return
            if arrival.identity in ("user", "stranger"):
                context = self._user(arrival)
            else:
                context = self.context(arrival.identity, arrival.http2)
            with context.wrap_socket(wire, server_hostname=arrival.sni) as secure:
                self.shown = secure.getpeercert(True)
                yield secure

    def _user(self, arrival: Arrival) -> ssl.SSLContext:
        name = f"{arrival.identity}-{arrival.http2}"
        if name not in self._files:
            path = self.folder / f"{name}.pem"
            path.write_text("".join((self.clients if arrival.identity == "user" else self.ca).issue("user.example")))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2" if arrival.http2 else "http/1.1"])
            context.load_cert_chain(path)
            self._files[name] = context
        return self._files[name]


class SecureApps(Apps):
    """Its app `secure` speaks TLS."""

    def __init__(self, folder: Path, *names: str) -> None:
        super().__init__(*names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (folder / "secure.pem").write_text("".join(Authority().issue("db.example")))
        context.load_cert_chain(folder / "secure.pem")
        for server in self._servers:
            if server.name == "secure":
                server.socket = context.wrap_socket(server.socket, server_side=True)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    folder = tmp_path_factory.mktemp("gateways")
    with members(folder, SecureApps(folder, "v1", "v2", "secure"), Gateways) as made:
        assert isinstance(made, Gateways)
        yield made


def gateway(*servers: Document, name: str = "edge") -> Document:
    return rule("Gateway", name, {"selector": {"istio": "ingressgateway"}, "servers": list(servers)})


def server(port: int, *hosts: str, protocol: str = "HTTP", **tls: Any) -> Document:
    made: Document = {
        "port": {"number": port, "name": f"p{port}-{hosts[0].strip('*.')}", "protocol": protocol},
        "hosts": list(hosts),
    }
    return made | ({"tls": tls} if tls else {})


def routes(*http: Document, hosts: Sequence[str] = (HOST,), name: str = "shop", **more: Any) -> Document:
    spec: Document = {"hosts": list(hosts), "gateways": ["edge"], **more}
    return rule("VirtualService", name, spec | ({"http": list(http)} if http else {}))


def to(app: str, **more: Any) -> Document:
    return {"route": [{"destination": {"host": app}}], **more}


def get(path: str = "/", *headers: str, port: int = 80, **more: Any) -> Edge:
    return Edge(" ".join([f"GET {path}", *headers]), str(port), **more)


@dataclass(eq=False)
class World:
    name: str
    rules: Sequence[Document | tuple[Any, ...]]
    """A tuple: arguments of `Gateways.secret`."""
    arrivals: Sequence[tuple[Edge, int]]


BOTH = [{**to("v1"), "match": [{"uri": {"prefix": "/one"}}]}, to("v2")]
WORLDS = [
    World("hosts and rules of two Gateways", [
        gateway(server(80, HOST, "*.wild.example"), server(81, "*")),
        routes(*BOTH), routes(to("v1"), hosts=["a.wild.example"], name="wild"), routes(to("v2"), hosts=["other.example"], name="other"),
        routes({**to("v2"), "match": [{"uri": {"exact": "/late"}}]}, {**to("v1"), "match": [{"port": 81, "uri": {"prefix": "/x"}}]}, name="zz"),
    ], [
        (get(), 200), (get("/one"), 200), (get("/late"), 200), (get("/x"), 200), (get("/x", port=81), 200), (get(host="none.example"), 404),
        (get(host="a.wild.example"), 200), (get(host="b.wild.example"), 404), (get(host=HOST + ":80"), 200), (get(host=HOST + ":1234"), 200),
        (get(host="SHOP.example"), 200), (get(host="other.example"), 404), (get(host="other.example", port=81), 200),
        (get(http2=True), 200), (Edge("POST /one body:x", "80"), 200), (get(port=9000), 0),
        (get("/", "x-forwarded-for:192.0.2.1", "x-forwarded-proto:https", "x-envoy-attempt-count:7", "x-request-id:mine",
             "x-forwarded-client-cert:By=x", "x-real-ip:192.0.2.9"), 200),
    ]),
    World("plain HTTP is redirected", [
        gateway(server(80, HOST, httpsRedirect=True), server(80, "open.example"), server(443, HOST, protocol="HTTPS", mode="SIMPLE", credentialName="shop")),
        routes(*BOTH), routes(to("v1"), hosts=["open.example"], name="open"), ("shop", HOST),
    ], [
        (get("/one?x=1"), 301), (get(host=HOST + ":80"), 301), (get(host="open.example"), 200), (get("/one", port=443, sni=HOST), 200),
        (get("/", "x-forwarded-proto:https"), 301), (Edge("POST /a body:x", "80"), 301),
    ]),
    World("TLS by name", [
        gateway(server(443, HOST, protocol="HTTPS", mode="SIMPLE", credentialName="shop"),
                server(443, "*.wild.example", protocol="HTTPS", mode="SIMPLE", credentialName="wild", minProtocolVersion="TLSV1_3"),
                server(443, "admin.example", protocol="HTTPS", mode="MUTUAL", credentialName="admin"),
                server(443, "maybe.example", protocol="HTTPS", mode="OPTIONAL_MUTUAL", credentialName="admin"),
                server(443, "mesh.example", protocol="HTTPS", mode="ISTIO_MUTUAL"),
                server(443, "lost.example", protocol="HTTPS", mode="SIMPLE", credentialName="lost"),
                server(443, "db.example", protocol="TLS", mode="PASSTHROUGH"),
                server(444, "*", protocol="TLS", mode="SIMPLE", credentialName="shop")),
        routes(*BOTH), routes(to("v1"), hosts=["a.wild.example", "admin.example", "maybe.example", "mesh.example", "lost.example"], name="w"),
        routes(hosts=["db.example"], name="db", tls=[{"match": [{"port": 443, "sniHosts": ["db.example"]}], "route": [{"destination": {"host": "secure"}}]}]),
        routes(hosts=["*"], name="octets", tcp=[{"match": [{"port": 444}], "route": [{"destination": {"host": "v2"}}]}]),
        ("shop", HOST), ("wild", "*.wild.example"), ("admin", "admin.example", True),
    ], [
        (get("/one", port=443, sni=HOST), 200), (get("/", port=443, sni=HOST, http2=True), 200), (get("/", port=443, sni="none.example"), 0),
        (get("/", port=443, sni=HOST, host="a.wild.example"), 404), (get("/", port=443, sni="a.wild.example", host="a.wild.example"), 200),
        (get("/", port=443, sni="admin.example", host="admin.example"), 0), (get("/", port=443, sni="lost.example", host="lost.example"), 0),
        (get("/", port=443, sni="admin.example", host="admin.example", identity="user"), 200),
        (get("/", port=443, sni="admin.example", host="admin.example", identity="stranger"), 0),
        (get("/", port=443, sni="admin.example", host="admin.example", identity="user", http2=True), 200),
        (get("/", port=443, sni="maybe.example", host="maybe.example", identity="user"), 200),
        (get("/", port=443, sni="maybe.example", host="maybe.example"), 200),
        (get("/", port=443, sni="maybe.example", host="maybe.example", identity="stranger"), 0),
        (get("/", port=443, sni="mesh.example", host="mesh.example", identity=MESH), 200),
        (get("/", port=443, sni="mesh.example", host="mesh.example", identity="user"), 0),
        (get("/", port=443, sni="mesh.example", host="mesh.example"), 0),
        (get("/", port=443, sni="db.example", host="db.example"), 200), (get("/", port=443), 0), (get("/", port=444, sni="any.example"), 200),
    ]),
    World("octets", [
        gateway(server(9000, "*", protocol="TCP")),
        routes(hosts=["*"], tcp=[{"match": [{"port": 9000}], "route": [{"destination": {"host": "v1"}}]}]),
    ], [(get(port=9000), 200), (get(port=80), 0)]),
    World("policies of the gateway's workload", [
        gateway(server(80, "*")), routes(*BOTH, hosts=["*"]),
        rule("AuthorizationPolicy", "p", {**MINE, "rules": [
            {"to": [{"operation": {"paths": ["/one*"], "ports": ["80"]}}], "from": [{"source": {"ipBlocks": ["127.0.0.0/24"]}}]},
            {"from": [{"source": {"remoteIpBlocks": ["127.0.1.0/24"]}}]},
            {"from": [{"source": {"requestPrincipals": ["*"]}}]}]}),
        rule("RequestAuthentication", "u", {**MINE, "jwtRules": [{"issuer": ISSUER, "jwks": jwks(signer("RS256"))}]}),
    ], [
        (get("/one"), 200), (get("/"), 403), (get("/", source="127.0.1.1"), 200), (get("/one", "x-forwarded-for:127.0.1.1", source="127.0.2.1"), 403),
        (get("/", f"'authorization:Bearer {signer('RS256').token()}'"), 200), (get("/one", "'authorization:Bearer x'"), 401),
    ]),
    World("a network policy of the gateway", [
        gateway(server(80, "*")), routes(*BOTH, hosts=["*"]),
        rule("NetworkPolicy", "n", {"podSelector": MINE["selector"], "ingress": [{"from": [{"ipBlock": {"cidr": "127.0.1.0/24"}}]}]}),
    ], [(get(source="127.0.1.1"), 200), (get(), 403)]),
    World("routes do what they do in a sidecar", [
        gateway(server(80, "*")),
        routes({**to("v1"), "match": [{"uri": {"prefix": "/a"}}], "rewrite": {"uri": "/b", "authority": "x.example"}},
               {**to("v1"), "match": [{"uri": {"prefix": "/h"}}], "headers": {"request": {"set": {"x-a": "b"}, "remove": ["x-b"]}}},
               {"match": [{"uri": {"prefix": "/r"}}], "redirect": {"uri": "/new", "redirectCode": 308}},
               {"match": [{"uri": {"prefix": "/d"}}], "directResponse": {"status": 418, "body": {"string": "tea"}}},
               {**to("v1"), "match": [{"uri": {"prefix": "/f"}}], "fault": {"abort": {"httpStatus": 555, "percentage": {"value": 100}}}},
               {**to("v2"), "match": [{"sourceLabels": {"istio": "ingressgateway"}, "queryParams": {"q": {"exact": "1"}}}]}, hosts=["*"]),
    ], [
        (get("/a/x"), 200), (get("/h", "x-b:c"), 200), (get("/r/x?y"), 308), (get("/d"), 418), (get("/f"), 555), (get("/?q=1"), 200), (get("/"), 404),
        (get("/%61"), 200), (get("/x/../a"), 200), (get("/", "x-do:503", host="none"), 404),
    ]),
]  # fmt: skip


@pytest.mark.parametrize("world", WORLDS, ids=lambda one: one.name)
def test_both_do_the_same_at_the_edge(both: Gateways, world: World) -> None:
    rules = [
        both.secret(one[0], one[1], clients=len(one) > 2) if isinstance(one, tuple) else one for one in world.rules
    ]
    both.world([*both.fixed, *rules])
    told = []
    for arrival, status in world.arrivals:
        found, ours, _ = both.compare(arrival, own_body=status == 418)
        if arrival.differs and not found:
            told.append(f"{arrival}: no difference any more: {arrival.differs}")
        elif found and not arrival.differs:
            told.append(found)
        if ours.status != status:
            told.append(f"{arrival}: {ours.status}, not {status}")
    assert not told, "\n".join(told)


def test_a_secret_that_changes_is_shown_to_new_clients_and_one_that_comes_late_is_used(both: Gateways) -> None:
    rules = [gateway(server(443, HOST, protocol="HTTPS", mode="SIMPLE", credentialName="shop")), routes(*BOTH)]
    seen: list[bytes | None] = []
    for number in range(3):
        secrets = [both.secret("shop", HOST)] if number else []
        both.world([*both.fixed, *rules, *secrets])
        arrival = get(port=443, sni=HOST)
        found, ours, _ = both.compare(arrival)
        assert (found, ours.status) == ("", 200 if number else 0)
        if number:
            seen += [both.shown]
            both.ask("fairlead", arrival)
            assert both.shown == seen[-1]
    assert seen[0] != seen[1]


def test_an_ingress_comes_with_it(both: Gateways) -> None:
    backend = {"service": {"name": "v1", "port": {"number": 80}}}
    ingress = {
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "i", "annotations": {"kubernetes.io/ingress.class": "istio"}},
        "spec": {"tls": [{"hosts": ["in.example"], "secretName": "in"}], "rules": [
            {"host": "in.example", "http": {"paths": [{"path": "/a", "pathType": "Prefix", "backend": backend}]}}]},
    }  # fmt: skip
    both.world([*both.fixed, ingress, both.secret("in", "in.example")])
    told = []
    for arrival, status in (
        (get("/a/b", host="in.example"), None), (get("/ab", host="in.example"), None),
        (get("/a/b", port=443, sni="in.example", host="in.example"), 200), (get("/ab", port=443, sni="in.example", host="in.example"), 404),
        (get("/a", port=443, sni="x.example", host="in.example"), None),
    ):  # fmt: skip
        found, ours, _ = both.compare(arrival)
        told += [found] if found else []
        assert status in (None, ours.status), arrival
    assert not told, "\n".join(told)
