"""Gateways: which servers a gateway runs, and what each leads to; through compile, decide and explain."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.compile import compile_tables
from fairlead.policy.decide import decide
from fairlead.policy.explain import Explainer, QueryError
from fairlead.policy.gateways import EVERY, Ports
from fairlead.policy.host_names import covers
from fairlead.policy.resources import Gateway, GatewayServer, GatewaySpec, Meta, ServerPort, ServerTLS
from fairlead.policy.tables import Arrival, Decision, SimpleRequest, Tables, Viewpoint
from fairlead.policy.world import World
from fairlead.registry.documents import load
from fairlead.registry.model import Workload

NAMES = itertools.count()
ANY = "'*'"

SHOP = """
kind: Service
apiVersion: v1
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
kind: Service
apiVersion: v1
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{name: tcp, port: 5432}]}
"""


def gateway(servers: str, name: str = "edge", created: int = 1, selector: str = "{istio: ingress}") -> str:
    return f"""
---
kind: Gateway
apiVersion: networking.istio.io/v1
metadata: {{name: {name}, namespace: shop, creationTimestamp: "2026-01-01T00:00:{created:02d}Z"}}
spec: {{selector: {selector}, servers: [{servers}]}}
"""


def rule(spec: str, name: str = "web", namespace: str = "shop", created: int = 1) -> str:
    return f"""
---
kind: VirtualService
apiVersion: networking.istio.io/v1
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "2026-01-01T00:00:{created:02d}Z"}}
spec: {spec}
"""


def server(port: int, protocol: str, hosts: str, more: str = "") -> str:
    return f"{{port: {{number: {port}, name: p{next(NAMES)}, protocol: {protocol}}}, hosts: [{hosts}]{more}}}"


def plain(hosts: str = ANY, port: int = 80, more: str = "") -> str:
    return server(port, "HTTP", hosts, more)


def secure(hosts: str, mode: str = "SIMPLE", port: int = 443, protocol: str = "HTTPS") -> str:
    with_files = "" if mode in ("PASSTHROUGH", "ISTIO_MUTUAL") else ", credentialName: cert"
    return server(port, protocol, hosts, f", tls: {{mode: {mode}{with_files}}}")


def web(status: int = 0, hosts: str = "shop.example", match: str = "", gateways: str = "edge") -> str:
    what = f"directResponse: {{status: {status}}}" if status else "route: [{destination: {host: web}}]"
    return f"{{hosts: [{hosts}], gateways: [{gateways}], http: [{{{match}{what}}}]}}"


def tables(text: str, labels: dict[str, str] | None = None) -> Tables:
    documents, problems = load(SHOP + text, "edge.yaml")
    assert not problems
    world, reports = World.load(documents)
    assert all(report.valid for report in reports), [report.errors for report in reports]
    workload = Workload("edge", "gateway-1", labels={"istio": "ingress"} if labels is None else labels)
    return compile_tables(world.resources, world.snapshot, Viewpoint(workload, EVERY))


def ask(own: Tables, host: str, path: str = "/", port: int = 80, sni: str = "") -> Decision:
    found = own.gateway.ports[port].server(sni)
    assert found is not None
    arrival = Arrival("gateway", source_ip="203.0.113.7", port=port, sni=sni, tls=bool(sni), server=found.number)
    return decide(own, SimpleRequest(arrival, "GET", host, path, scheme="https" if sni else "http"))


def connect(own: Tables, port: int, sni: str = "") -> Decision:
    return decide(own, SimpleRequest(Arrival("gateway", source_ip="203.0.113.7", port=port, sni=sni)))


def test_a_host_is_there_where_rule_and_server_both_have_it() -> None:
    own = tables(gateway(plain("'*.example'")) + rule(web(201, "shop.example, shop.other")))
    assert ask(own, "shop.example").status == 201
    assert ask(own, "SHOP.example:8080").status == 201, "port and case do not count"
    for unknown in ("shop.other", "other.example", "example"):
        assert (ask(own, unknown).verdict, ask(own, unknown).status) == ("not-found", 404)


def test_a_rule_for_every_host_stands_for_those_of_the_server() -> None:
    own = tables(gateway(plain("a.example, '*.b.example'")) + rule(web(201, ANY)))
    assert [ask(own, host).status for host in ("a.example", "x.b.example", "c.example")] == [201, 201, 404]


def test_rules_of_other_namespaces_attach_only_where_the_server_lets_them() -> None:
    text = rule(web(201, "a.example", gateways="shop/edge"), "theirs", "other")
    text += rule(web(202, "b.example"), "ours")
    assert ask(tables(gateway(plain(ANY)) + text), "a.example").status == 201
    assert ask(tables(gateway(plain("other/*")) + text), "a.example").status == 201
    closed = tables(gateway(plain("./*")) + text)
    assert [ask(closed, host).status for host in ("a.example", "b.example")] == [404, 202]


def test_only_gateways_whose_selector_holds_are_run() -> None:
    text = gateway(plain("a.example")) + gateway(plain("b.example", 81), "other", 2, "{istio: egress}")
    text += gateway(plain("c.example", 82), "every", 3, "{}") + rule(web(201, ANY, gateways="edge, other, every"))
    assert sorted(tables(text).gateway.ports) == [80, 82]
    assert sorted(tables(text, {"istio": "egress"}).gateway.ports) == [81, 82]
    assert ask(tables(text, {}), "c.example", port=82).status == 201


def test_each_server_at_which_tls_ends_has_routes_of_its_own() -> None:
    text = gateway(f"{secure('a.example')}, {secure('b.example')}, {plain('c.example')}")
    own = tables(text + rule(web(201, "a.example, b.example, c.example")))
    assert ask(own, "a.example", port=443, sni="a.example").status == 201
    assert ask(own, "b.example", port=443, sni="a.example").status == 404, "SNI a, Host b"
    assert ask(own, "b.example", port=443, sni="b.example").status == 201
    assert [ask(own, host).status for host in ("c.example", "a.example")] == [201, 404]
    port = own.gateway.ports[443]
    assert port.server("c.example") is None and port.server("") is None, "the handshake is refused"
    assert port.server("A.Example.") is port.server("a.example")


def test_plain_servers_of_one_port_share_their_rules_in_order_of_age() -> None:
    text = gateway(plain("shop.example")) + gateway(plain("shop.example"), "more", 2)
    text += rule(web(201, gateways="more"), "newer", created=9)
    text += rule(web(202, match="match: [{uri: {prefix: /a}}], ", gateways="edge"), "older", created=1)
    text += rule(web(203, match="match: [{uri: {prefix: /a/b}}], ", gateways="more"), "newest", created=10)
    own = tables(text)
    assert [ask(own, "shop.example", path).status for path in ("/", "/a", "/a/b")] == [201, 202, 202]


def test_a_block_for_one_gateway_is_none_of_another() -> None:
    text = gateway(plain("shop.example")) + gateway(plain("shop.example", 81), "more", 2)
    text += rule(
        "{hosts: [shop.example], gateways: [edge, more], http: [{match: [{gateways: [more]}], directResponse:"
        " {status: 299}}, {match: [{port: 80}], directResponse: {status: 280}}]}"
    )
    own = tables(text)
    assert [ask(own, "shop.example").status, ask(own, "shop.example", port=81).status] == [280, 299]


def test_https_redirect_is_for_every_request_of_its_hosts_whatever_the_rules_say() -> None:
    redirecting = plain("'*.example'", more=", tls: {httpsRedirect: true}")
    own = tables(gateway(f"{redirecting}, {secure('shop.example')}, {plain('open.other')}")
                 + rule(web(201, "shop.example, open.other")))  # fmt: skip
    for host in ("shop.example", "without-rule.example"):
        answer = ask(own, host, "/a?b=c")
        assert (answer.verdict, answer.status, answer.location) == ("redirect", 301, f"https://{host}/a?b=c")
    assert ask(own, "shop.example:80", "/").location == "https://shop.example/"
    assert ask(own, "open.other").status == 201
    assert ask(own, "shop.example", port=443, sni="shop.example").status == 201


def test_https_redirect_lets_through_what_came_to_a_trusted_proxy_by_https() -> None:
    redirecting = plain("'*.example'", more=", tls: {httpsRedirect: true}")
    own = tables(gateway(redirecting) + rule(web(201, "shop.example")))
    for host, status in (("shop.example", 201), ("without-rule.example", 404)):
        request = SimpleRequest(Arrival("gateway", port=80), "GET", host, "/", [("x-forwarded-proto", "https")])
        assert decide(own, request).status == status


def test_tls_is_passed_through_by_server_name_and_by_nothing_else() -> None:
    passing = "{hosts: [db.example], gateways: [edge], tls: [{match: [{port: 443, sniHosts: [db.example]}]," \
              " route: [{destination: {host: db}}]}]}"  # fmt: skip
    own = tables(
        gateway(f"{secure('db.example', 'PASSTHROUGH', protocol='TLS')}, {secure('web.example')}") + rule(passing)
    )
    decision = connect(own, 443, "db.example")
    assert [one.cluster for one in decision.destinations] == ["outbound|5432||db.shop.svc.cluster.local"]
    assert connect(own, 443, "DB.example").verdict == "route"
    for name in ("other.example", "web.example", ""):
        assert connect(own, 443, name).verdict == "not-found"


def test_octets_go_by_tcp_rules_also_where_tls_ended() -> None:
    to_db = "{hosts: ['*'], gateways: [edge], tcp: [{match: [{port: 5432}], route: [{destination: {host: db}}]}," \
            " {match: [{port: 5433}], route: [{destination: {host: db, port: {number: 5432}}}]}]}"  # fmt: skip
    own = tables(gateway(f"{server(5432, 'TCP', ANY)}, {secure(ANY, port=5433, protocol='TLS')},"
                         f" {server(6379, 'REDIS', ANY)}") + rule(to_db))  # fmt: skip
    for port in (5432, 5433):
        decision = connect(own, port, "any.example" if port == 5433 else "")
        assert [one.cluster for one in decision.destinations] == ["outbound|5432||db.shop.svc.cluster.local"]
    assert connect(own, 6379).verdict == "not-found"


@pytest.mark.parametrize(
    ("servers", "why"),
    [
        ([plain(), server(80, "TCP", ANY)], "port 80 is one of http by Gateway shop/edge, which came first"),
        ([secure("a.example"), secure("a.example")], "a.example on port 443 belongs to a server that came first"),
        ([secure("a.example", "AUTO_PASSTHROUGH")], "mode AUTO_PASSTHROUGH is not carried out"),
    ],
)
def test_servers_that_cannot_be_run_are_left_out_with_the_reason(servers: list[str], why: str) -> None:
    left_out = tables(gateway(", ".join(servers))).gateway.left_out
    assert [(key, name) for key, name, _ in left_out] == [("shop/edge", f"spec.servers[{len(servers) - 1}]")]
    assert why in left_out[0][2]


def test_policies_of_the_gateways_workload_hold_for_its_clients() -> None:
    text = gateway(plain() + ", " + server(5432, "TCP", ANY)) + rule(web(201, ANY))
    text += """
---
kind: AuthorizationPolicy
apiVersion: security.istio.io/v1
metadata: {name: no-admin, namespace: edge}
spec:
  selector: {matchLabels: {istio: ingress}}
  action: DENY
  rules: [{to: [{operation: {paths: [/admin*]}}]}, {from: [{source: {ipBlocks: [198.51.100.0/24]}}]}]
"""
    own = tables(text)
    assert ask(own, "a.example", "/").status == 201
    refused = ask(own, "a.example", "/admin/x")
    assert (refused.verdict, refused.status) == ("denied", 403)
    assert refused.policy is not None and "no-admin" in refused.policy.by
    arrival = Arrival("gateway", source_ip="198.51.100.9", port=80)
    assert decide(own, SimpleRequest(arrival, "GET", "a.example", "/")).verdict == "denied"
    assert tables(text, {"istio": "other"}).gateway.ports == {}


def test_network_policy_of_the_gateways_workload_holds_for_its_clients() -> None:
    text = (
        gateway(plain())
        + rule(web(201, ANY))
        + """
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: inside, namespace: edge}
spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: 80}]}]}
"""
    )
    own = tables(text)
    assert ask(own, "a.example").status == 201
    refused = decide(own, SimpleRequest(Arrival("gateway", source_ip="192.0.2.1", port=80), "GET", "a.example", "/"))
    assert (refused.verdict, refused.status) == ("denied", 403)


# --- explain ----------------------------------------------------------------------------------------------------------


def explained(text: str, url: str, **more: Any) -> dict[str, Any]:
    documents, _ = load(SHOP + text, "edge.yaml")
    return Explainer(World.load(documents)[0]).explain({"url": url, "gateway": "shop/edge", **more})


def test_explain_enters_by_the_server_that_the_url_means() -> None:
    servers = [
        plain("shop.example", 8080),
        secure("shop.example", port=8443),
        secure("db.example", "PASSTHROUGH", 8443),
    ]
    text = gateway(", ".join(servers)) + rule(web(201)) + rule(
        "{hosts: [db.example], gateways: [edge], tls: [{match: [{sniHosts: [db.example]}],"
        " route: [{destination: {host: db, port: {number: 5432}}}]}]}", "db"
    )  # fmt: skip
    assert explained(text, "http://shop.example/")["status"] == 201, "the only port that speaks it"
    assert explained(text, "https://shop.example:8443/")["status"] == 201
    passed = explained(text, "https://db.example/")
    assert passed["destinations"][0]["host"] == "db.shop.svc.cluster.local"
    assert any((one["object"], one["path"]) == ("Gateway shop/edge spec.servers[2]", "spec.servers[2]")
               for one in passed["trace"] if "path" in one)  # fmt: skip
    assert explained(text, "http://other.example/")["status"] == 404
    with pytest.raises(QueryError, match=r"no server of Gateway shop/edge on port 8443 has the name other\.example"):
        explained(text, "https://other.example/")
    with pytest.raises(QueryError, match=r"has no server of http on port 81; it has 8080 \(http\), 8443 \(tls\)"):
        explained(text, "http://shop.example:81/")


# --- properties -------------------------------------------------------------------------------------------------------

HOST = st.sampled_from(["*", "*.example", "a.example", "*.a.example", "b.a.example", "other"])
ASKED = st.sampled_from(["a.example", "b.a.example", "c.b.a.example", "other", "x.example"])
SERVER = st.builds(
    lambda port, protocol, hosts, mode: GatewayServer(
        ServerPort(port, "p", protocol), hosts, tls=ServerTLS(mode=mode) if protocol in ("HTTPS", "TLS") else None
    ),
    st.sampled_from([80, 443, 8443]),
    st.sampled_from(["HTTP", "HTTPS", "TLS", "TCP", "grpc", "https"]),
    st.lists(
        st.builds(lambda space, host: space + host, st.sampled_from(["", "./", "*/", "shop/"]), HOST),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["", "PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH"]),
)


@given(st.lists(st.lists(SERVER, min_size=1, max_size=4), max_size=3), ASKED)
def test_every_server_is_run_or_left_out_and_names_find_one_that_has_them(servers: list[list[Any]], name: str) -> None:
    gateways = [Gateway(Meta(f"g{n}", "shop"), GatewaySpec(some)) for n, some in enumerate(servers)]
    ports = Ports(gateways)
    assert len(ports.servers) + len(ports.left_out) == sum(map(len, servers))
    assert all(port.servers for port in ports.ports.values() if not ports.left_out)
    numbers = [one.number for one in ports.servers if one.number]
    assert len(set(numbers)) == len(numbers)
    for port in ports.ports.values():
        found = port.server(name) if port.servers else None
        if found is not None and port.kind == "tls":
            assert any(covers(host, name) for _, host in found.hosts)


@given(HOST, HOST, ASKED)
def test_what_a_server_admits_is_within_both_hosts(own: str, theirs: str, name: str) -> None:
    gateway_ = Gateway(Meta("g", "shop"), GatewaySpec([GatewayServer(ServerPort(80, "p", "HTTP"), [own])]))
    admitted = Ports([gateway_]).servers[0].admits(theirs, "any")
    assert any(covers(host, name) for host in admitted) == (covers(own, name) and covers(theirs, name))
