"""Clusters: endpoints, subsets, how they are secured, limits and detection, what egress says of each."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.policy.decide import decide
from fairlead.policy.tables import Cluster, UpstreamTLS
from tests.policy.test_decide import API, CALLER, SHOP, SUBSETS, WEB
from tests.policy.worlds import World, get


def cluster(text: str, name: str = f"outbound|80||{WEB}", source: str = "shop/api-1") -> Cluster:
    return World(SHOP + text).client(source).clusters[name]


def policy(traffic: str) -> str:
    return f"kind: DestinationRule\nmetadata: {{name: web, namespace: shop}}\nspec: {{host: web, trafficPolicy: {traffic}}}\n---\n"


def test_each_port_and_subset_is_a_cluster() -> None:
    clusters = World(SHOP + SUBSETS).client("shop/api-1").clusters
    outbound = {name for name in clusters if name.startswith("outbound")}
    assert outbound == {
        f"outbound|80||{WEB}", f"outbound|80|v1|{WEB}", f"outbound|80|v2|{WEB}",
        f"outbound|9080||{API}", f"outbound|5432||{API}",
    }  # fmt: skip
    assert [one.endpoint.workload for one in clusters[f"outbound|80|v2|{WEB}"].endpoints] == ["shop/web-2"]
    assert clusters[f"outbound|80|v2|{WEB}"].rule == "shop/web"
    assert clusters[f"outbound|5432||{API}"].protocol == "tcp"
    assert {name for name in clusters if name.startswith("inbound")} == {"inbound|9080||", "inbound|5432||"}
    assert "PassthroughCluster" in clusters


def test_mesh_endpoints_are_reached_by_mutual_tls_at_their_sidecars_port() -> None:
    one = cluster(SUBSETS, f"outbound|80|v1|{WEB}").endpoints[0]
    assert (one.port, one.endpoint.port) == (15006, 8080)
    assert one.tls is not None
    assert (one.tls.mode, one.tls.sni) == ("mesh", f"outbound_.80_.v1_.{WEB}")
    assert one.tls.identities == ("spiffe://cluster.local/ns/shop/sa/web",)


def test_identities_of_one_account_are_one_object() -> None:
    first, second = cluster("").endpoints
    assert first.tls is second.tls


@pytest.mark.parametrize(
    ("text", "mode", "port"),
    [
        (policy("{tls: {mode: DISABLE}}"), None, 8080),
        (policy("{tls: {mode: ISTIO_MUTUAL}}"), "mesh", 15006),
        (policy("{tls: {mode: SIMPLE, sni: s, caCertificates: /ca, subjectAltNames: [n]}}"), "simple", 8080),
        (policy("{tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /ca}}"), "mutual", 8080),
        (
            "kind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: {mtls: {mode: DISABLE}}\n---\n",
            None,
            8080,
        ),
        (
            "kind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n---\n",
            "mesh",
            15006,
        ),
        ("kind: MeshConfig\nmetadata: {name: m}\nspec: {enableAutoMtls: false}\n---\n", None, 8080),
    ],
)
def test_how_endpoints_are_secured(text: str, mode: str | None, port: int) -> None:
    one = cluster(text).endpoints[0]
    assert (one.tls.mode if one.tls else None, one.port) == (mode, port)


API_RULE = """kind: DestinationRule
metadata: {name: up, namespace: NAMESPACE}
spec: {host: web.shop.svc.cluster.local, trafficPolicy: {tls: TLS}MORE}
---
"""


def secured(
    more: str = "", tls: str = "{mode: MUTUAL, credentialName: cert}", namespace: str = "shop", gateway: str = ""
) -> UpstreamTLS:
    text = API_RULE.replace("NAMESPACE", namespace).replace("TLS", tls).replace("MORE", more)
    found = World(SHOP + text).client("shop/api-1", gateway=gateway).clusters[f"outbound|80||{WEB}"].endpoints[0].tls
    assert found is not None
    return found


def test_a_secret_is_for_gateways_and_for_sidecars_that_the_rule_selects() -> None:
    selecting = ", workloadSelector: {matchLabels: {app: api}}"
    assert secured(selecting).credential == ("shop", "cert")
    assert secured(gateway="shop/edge").credential == ("shop", "cert"), "of the gateway's own namespace"
    plain = secured()
    assert plain.credential is None and "workloadSelector" in plain.unusable
    simple = secured(tls="{mode: SIMPLE, credentialName: cert}")
    assert simple.credential is None and not simple.unusable, "by files, of which there are none: the system's roots"
    assert "sds://x is not carried out" in secured(selecting, "{mode: MUTUAL, credentialName: 'sds://x'}").unusable


def test_the_servers_name_is_that_of_the_service_where_the_rule_names_no_other() -> None:
    assert secured(tls="{mode: SIMPLE}").sni == WEB, "not the endpoint's address, which no certificate has"
    assert secured(tls="{mode: SIMPLE, sni: other.example}").sni == "other.example"
    assert secured(tls="{mode: SIMPLE, caCrl: /lists}").crl_file == "/lists"


def test_endpoints_without_sidecar_and_outside_the_mesh_get_plain_text() -> None:
    bare = SHOP.replace("serviceAccountName: web,", "serviceAccountName: web, meshPort: 0,")
    one = World(bare).client("shop/api-1").clusters[f"outbound|80||{WEB}"].endpoints[0]
    assert (one.tls, one.port) == (None, 8080)


def test_limits_and_detection() -> None:
    made = cluster("")
    assert (made.limits.max_connections, made.limits.connect_timeout_s, made.limits.idle_timeout_s) == (0, 10.0, 3600.0)
    assert made.outlier is None
    assert made.load_balancer.kind == "least_request"
    made = cluster(
        policy(
            "{connectionPool: {tcp: {maxConnections: 3, connectTimeout: 250ms, idleTimeout: 5s, tcpKeepalive: {probes: 2, time: 7s}},"
            " http: {http1MaxPendingRequests: 4, http2MaxRequests: 5, maxRequestsPerConnection: 6, maxRetries: 7, idleTimeout: 8s}},"
            " outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 2, interval: 3s, maxEjectionPercent: 50}}"
        )
    )
    limits = made.limits
    assert (limits.max_connections, limits.max_pending, limits.max_requests) == (3, 4, 5)
    assert (limits.max_requests_per_connection, limits.max_retries) == (6, 7)
    assert (limits.connect_timeout_s, limits.idle_timeout_s, limits.keepalive) == (0.25, 8.0, (2, 7.0, 0.0))
    assert limits.tcp_idle_timeout_s == 5.0  # the HTTP one is for HTTP
    assert cluster("").limits.tcp_idle_timeout_s == -1.0
    assert cluster(policy("{connectionPool: {tcp: {idleTimeout: 0s}}}")).limits.tcp_idle_timeout_s == 0.0
    assert made.outlier is not None
    assert (made.outlier.consecutive_5xx, made.outlier.consecutive_gateway, made.outlier.interval_s) == (0, 2, 3.0)
    assert (made.outlier.max_ejection_percent, made.outlier.base_ejection_s) == (50, 30.0)
    assert limits.retry_percent < 0
    budget = cluster(policy("{retryBudget: {percent: 12.5, minRetryConcurrency: 1}}")).limits
    assert (budget.retry_percent, budget.retry_least) == (12.5, 1)
    budget = cluster(policy("{retryBudget: {}, connectionPool: {http: {maxRetries: 1}}}")).limits
    assert (budget.retry_percent, budget.retry_least) == (20.0, 3)
    empty = cluster(policy("{outlierDetection: {}}")).outlier
    assert empty is not None
    assert (empty.consecutive_5xx, empty.max_ejection_percent, empty.interval_s) == (5, 10, 10.0)
    assert (empty.codes, empty.success_hosts, empty.simple) == (None, 0, True)
    rates = cluster(
        policy("{outlierDetection: {successRateRequestVolume: 20, outlierDetectionHttpErrorCodes: [429]}}")
    ).outlier
    assert rates is not None
    assert (rates.success_hosts, rates.success_volume, rates.success_stdev_factor) == (5, 20, 1900)
    assert (rates.codes, rates.simple) == (frozenset({429}), False)


@pytest.mark.parametrize(
    ("settings", "kind", "warmup"),
    [
        ("{simple: PEAK_EWMA}", "peak_ewma", None),
        ("{simple: LEAST_CONN, warmupDurationSecs: 20s}", "least_request", (20.0, 0.1, 1.0)),
        (
            "{simple: ROUND_ROBIN, warmup: {duration: 1m, minimumPercent: 25, aggression: 2}}",
            "round_robin",
            (60.0, 0.25, 2.0),
        ),
        ("{warmup: {duration: 30s}, warmupDurationSecs: 20s}", "least_request", (30.0, 0.1, 1.0)),
        ("{simple: RANDOM, warmup: {duration: 30s}}", "random", None),
    ],
)
def test_balancers_and_how_new_endpoints_warm_up(settings: str, kind: str, warmup: tuple[float, ...] | None) -> None:
    made = cluster(policy(f"{{loadBalancer: {settings}}}")).load_balancer
    assert made.kind == kind
    got = made.warmup
    assert (None if got is None else (got.duration_s, got.minimum, got.aggression)) == warmup


def test_retries_may_go_to_remote_localities() -> None:
    route = "kind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec: {hosts: [web], http: [{retries: {attempts: 4, retryRemoteLocalities: true}, route: [{destination: {host: web}}]}]}\n---\n"
    decision = decide(World(SHOP + route).client("shop/api-1"), get("web.shop"))
    assert decision.retries is not None and decision.retries.remote


@pytest.mark.parametrize(
    ("balancer", "found"),
    [
        ("{simple: ROUND_ROBIN}", ("round_robin", "", "", 1024, None)),
        ("{simple: LEAST_CONN}", ("least_request", "", "", 1024, None)),
        ("{consistentHash: {httpHeaderName: X-User}}", ("ring_hash", "header", "x-user", 1024, None)),
        ("{consistentHash: {useSourceIp: true, maglev: {}}}", ("maglev", "source-ip", "", 65537, None)),
        (
            "{consistentHash: {httpQueryParameterName: u, ringHash: {minimumRingSize: 7}}}",
            ("ring_hash", "query", "u", 7, None),
        ),
        ("{consistentHash: {httpCookie: {name: sid, ttl: 5s}}}", ("ring_hash", "cookie", "sid", 1024, 5.0)),
    ],
)
def test_load_balancers(balancer: str, found: tuple[Any, ...]) -> None:
    made = cluster(policy(f"{{loadBalancer: {balancer}}}")).load_balancer
    assert (made.kind, made.hash_on, made.hash_name, made.table_size, made.cookie_ttl_s) == found


def test_unready_endpoints_are_left_out() -> None:
    sick = SHOP.replace(
        "metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1}}\nspec: {",
        "metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1}}\nspec: {ready: false, ",
    )
    clusters = World(sick).client("shop/api-1").clusters
    assert [one.endpoint.workload for one in clusters[f"outbound|80||{WEB}"].endpoints] == ["shop/web-2"]


def test_egress_policy_stands_beside_each_endpoint() -> None:
    text = (
        "kind: NetworkPolicy\nmetadata: {name: out, namespace: shop}\nspec: {podSelector: {matchLabels: {app: api}},"
        " policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {version: v2}}}], ports: [{port: http}]}]}\n---\n"
    )
    verdicts = {one.endpoint.workload: one.egress for one in cluster(text).endpoints}
    assert {key: verdict.allowed for key, verdict in verdicts.items() if verdict} == {
        "shop/web-1": False,
        "shop/web-2": True,
    }
    assert [one.egress for one in cluster(text, source="shop/web-1").endpoints] == [None, None]


def test_external_services_known_by_name_are_their_own_endpoint() -> None:
    text = (
        "kind: External\nmetadata: {name: e, namespace: shop}\n"
        "spec: {hosts: [api.example.com], resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}\n---\n"
        "kind: External\nmetadata: {name: w, namespace: shop}\n"
        "spec: {hosts: ['*.example.org'], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]}\n---\n"
        "kind: Service\nmetadata: {name: alias, namespace: shop}\nspec: {externalName: db.example.net, ports: [{port: 5432}]}\n---\n"
    )
    clusters = World(SHOP + text).client("shop/api-1").clusters
    (one,) = clusters["outbound|443||api.example.com"].endpoints
    assert (one.address, one.port, one.tls) == ("api.example.com", 443, None)
    assert clusters["outbound|80||*.example.org"].load_balancer.kind == "passthrough"
    (one,) = clusters["outbound|5432||alias.shop.svc.cluster.local"].endpoints
    assert (one.address, one.port) == ("db.example.net", 5432)


def zone(number: int, locality: str) -> str:
    return f"kind: Pod\nmetadata: {{name: z{number}, namespace: shop, labels: {{app: zone}}}}\nspec: {{locality: {locality}}}\n---\n"


ZONES = (
    CALLER.replace("spec: {serviceAccountName: front,", "spec: {locality: r1/z1/s1, serviceAccountName: front,")
    + "kind: Service\nmetadata: {name: zone, namespace: shop}\nspec: {selector: {app: zone}, ports: [{port: 80}]}\n---\n"
    + zone(1, "r1/z1/s1") + zone(2, "r1/z1/s2") + zone(3, "r1/z2/s1") + zone(4, "r2/z1/s1") + zone(5, "r3/z1/s1")
)  # fmt: skip


def zones(balancer: str) -> dict[str, tuple[int, float]]:
    text = f"kind: DestinationRule\nmetadata: {{name: zone, namespace: shop}}\nspec: {{host: zone, trafficPolicy: {balancer}}}\n---\n"
    made = cluster(ZONES + text, "outbound|80||zone.shop.svc.cluster.local", "shop/front-1")
    return {one.endpoint.workload[-2:]: (one.priority, one.locality_weight) for one in made.endpoints}


def test_failover_needs_outlier_detection_and_goes_by_distance() -> None:
    assert {priority for priority, _ in zones("{loadBalancer: {simple: RANDOM}}").values()} == {0}
    assert [priority for priority, _ in zones("{outlierDetection: {}}").values()] == [0, 1, 2, 3, 3]
    failover = "{outlierDetection: {}, loadBalancer: {localityLbSetting: {failover: [{from: r1, to: r3}]}}}"
    assert [priority for priority, _ in zones(failover).values()] == [0, 1, 2, 4, 3]
    off = "{outlierDetection: {}, loadBalancer: {localityLbSetting: {enabled: false}}}"
    assert {priority for priority, _ in zones(off).values()} == {0}


def test_a_distribution_gives_unlisted_localities_nothing() -> None:
    spread = "{loadBalancer: {localityLbSetting: {distribute: [{from: 'r1/*', to: {'r1/*': 75, 'r2/*': 25}}]}}}"
    weights = {name: weight for name, (_, weight) in zones(spread).items()}
    assert weights == {"z1": 25.0, "z2": 25.0, "z3": 25.0, "z4": 25.0}  # three localities share the 75 %


def test_the_mesh_may_set_localities_for_services_that_say_nothing() -> None:
    mesh = "kind: MeshConfig\nmetadata: {name: default}\nspec: {localityLbSetting: {enabled: false}}\n---\n"
    text = (
        ZONES
        + "kind: DestinationRule\nmetadata: {name: zone, namespace: shop}\nspec: {host: zone, trafficPolicy: {outlierDetection: {}}}\n---\n"
    )
    name = "outbound|80||zone.shop.svc.cluster.local"
    assert {one.priority for one in cluster(text, name, "shop/front-1").endpoints} == {0, 1, 2, 3}
    assert {one.priority for one in cluster(text + mesh, name, "shop/front-1").endpoints} == {0}


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("12")), min_size=1, max_size=6),
    st.sampled_from("ab"),
    st.sampled_from("12"),
)
@settings(deadline=None, max_examples=30)  # each compiles a world
def test_a_subset_has_exactly_the_endpoints_with_all_its_labels(
    pods: list[tuple[str, str]], track: str, version: str
) -> None:
    text = "kind: Service\nmetadata: {name: sub, namespace: shop}\nspec: {selector: {app: sub}, ports: [{port: 80}]}\n---\n"
    for number, (one, other) in enumerate(pods):
        text += f"kind: Pod\nmetadata: {{name: s{number}, namespace: shop, labels: {{app: sub, track: {one}, version: '{other}'}}}}\nspec: {{ip: 10.9.0.{number + 1}}}\n---\n"
    text += f"kind: DestinationRule\nmetadata: {{name: sub, namespace: shop}}\nspec: {{host: sub, subsets: [{{name: all}}, {{name: some, labels: {{track: {track}, version: '{version}'}}}}]}}\n---\n"
    clusters = World(SHOP + text).client("shop/api-1").clusters

    def names(subset: str) -> list[str]:
        return sorted(
            one.endpoint.workload for one in clusters[f"outbound|80|{subset}|sub.shop.svc.cluster.local"].endpoints
        )

    every = [f"shop/s{number}" for number in range(len(pods))]
    assert names("") == names("all") == every
    assert names("some") == [name for name, labels in zip(every, pods, strict=True) if labels == (track, version)]


def test_endpoints_are_told_the_client_by_the_proxy_protocol_where_the_rule_says_so() -> None:
    assert cluster("").limits.proxy_protocol == 0
    assert cluster(policy("{proxyProtocol: {}}")).limits.proxy_protocol == 1
    whole = "{proxyProtocol: {version: V2}, portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}"
    assert cluster(policy(whole)).limits.proxy_protocol == 2
