"""DestinationRules: what Istio refuses is refused with its field."""

from __future__ import annotations

import pytest

from tests.policy.judging import document, errors, warnings


def rule(policy: str) -> str:
    return document("DestinationRule", f"host: web\ntrafficPolicy: {policy}")


@pytest.mark.parametrize(
    ("policy", "path", "says"),
    [
        ("{}", "", "at least one setting"),
        ("{loadBalancer: {simple: FASTEST}}", "loadBalancer.simple", "ROUND_ROBIN"),
        ("{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}", "loadBalancer", "only one of"),
        ("{loadBalancer: {consistentHash: {}}}", "loadBalancer.consistentHash", "httpHeaderName"),
        ("{loadBalancer: {consistentHash: {useSourceIp: true, httpHeaderName: a}}}", "loadBalancer.consistentHash",
         "only one of"),
        ("{loadBalancer: {consistentHash: {httpCookie: {ttl: 1s}}}}", "loadBalancer.consistentHash.httpCookie.name",
         "Required"),
        ("{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 100}}}}",
         "loadBalancer.consistentHash.maglev.tableSize", "prime"),
        ("{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {}, ringHash: {}}}}",
         "loadBalancer.consistentHash", "only one of"),
        ("{loadBalancer: {localityLbSetting: {distribute: [{from: a/*, to: {a/*: 50}}]}}}",
         "loadBalancer.localityLbSetting.distribute[0].to", "sum 100"),
        ("{loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}}",
         "loadBalancer.localityLbSetting.failover[0]", "differ"),
        ("{loadBalancer: {localityLbSetting: {failover: [{from: a, to: b/z}]}}}",
         "loadBalancer.localityLbSetting.failover[0].to", "name of a region"),
        ("{loadBalancer: {localityLbSetting: {failover: [{from: '*', to: b}]}}}",
         "loadBalancer.localityLbSetting.failover[0].from", "name of a region"),
        ("{loadBalancer: {localityLbSetting: {failover: [{from: a}]}}}",
         "loadBalancer.localityLbSetting.failover[0].to", "Required"),
        ("{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 101}}]}}}",
         "loadBalancer.localityLbSetting.distribute[0].to[a]", "between 1 and 100"),
        ("{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: '50'}}]}}}",
         "loadBalancer.localityLbSetting.distribute[0].to[a]", "a whole number"),
        ("{loadBalancer: {localityLbSetting: {distribute: [{from: a, weights: {a: 100}}]}}}",
         "loadBalancer.localityLbSetting.distribute[0].weights", "unknown field"),
        ("{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a/*/c: 100}}]}}}",
         "loadBalancer.localityLbSetting.distribute[0].to[a/*/c]", "last part"),
        ("{loadBalancer: {localityLbSetting: {distribute: [{from: a//c, to: {a: 100}}]}}}",
         "loadBalancer.localityLbSetting.distribute[0].from", "REGION/ZONE"),
        ("{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a/*: 50, a/b: 50}}]}}}",
         "loadBalancer.localityLbSetting.distribute[0].to[a/b]", 'overlaps with "a/*"'),
        ("{loadBalancer: {localityLbSetting: {distribute: [{from: a/b, to: {a: 100}}, {from: '*', to: {a: 100}}]}}}",
         "loadBalancer.localityLbSetting.distribute[1].from", 'overlaps with "a/b"'),
        ("{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 100}}], failover: [{from: a, to: b}]}}}",
         "loadBalancer.localityLbSetting.distribute", "failover"),
        ("{loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}], "
         "failoverPriority: [topology.kubernetes.io/zone]}}}",
         "loadBalancer.localityLbSetting.failoverPriority[0]", "topology label"),
        ("{loadBalancer: {localityLbSetting: {failoverPriority: ['=x']}}}",
         "loadBalancer.localityLbSetting.failoverPriority[0]", "LABEL"),
        ("{loadBalancer: {localityLbSetting: {failoverPriority: [1]}}}",
         "loadBalancer.localityLbSetting.failoverPriority[0]", "text"),
        ("{loadBalancer: {localityLbSetting: {enabled: 'no'}}}", "loadBalancer.localityLbSetting.enabled", "true or"),
        ("{loadBalancer: {zoneAwareLbSetting: {enabled: true}}}", "loadBalancer.zoneAwareLbSetting", "may not be used"),
        ("{loadBalancer: {warmup: {aggression: 1}}}", "loadBalancer.warmup.duration", "Required"),
        ("{loadBalancer: {warmup: {duration: 1s, minimumPercent: 101}}}", "loadBalancer.warmup.minimumPercent", "100"),
        ("{loadBalancer: {warmup: {duration: 1s, aggression: 0}}}", "loadBalancer.warmup.aggression", "above 0"),
        ("{outlierDetection: {outlierDetectionHttpErrorCodes: [404, 99]}}",
         "outlierDetection.outlierDetectionHttpErrorCodes[1]", "between 100 and 599"),
        ("{outlierDetection: {successRateMinimumHosts: 0}}", "outlierDetection.successRateMinimumHosts", "between 1"),
        ("{connectionPool: {tcp: {maxConnections: -1}}}", "connectionPool.tcp.maxConnections", "between 0"),
        ("{connectionPool: {tcp: {connectTimeout: 0s}}}", "connectionPool.tcp.connectTimeout", "at least"),
        ("{connectionPool: {http: {idleTimeout: 0s}}}", "connectionPool.http.idleTimeout", "at least"),
        ("{connectionPool: {http: {maxRequests: 1}}}", "connectionPool.http.maxRequests", "did you mean"),
        ("{outlierDetection: {interval: 0s}}", "outlierDetection.interval", "at least"),
        ("{outlierDetection: {maxEjectionPercent: 101}}", "outlierDetection.maxEjectionPercent", "100"),
        ("{outlierDetection: {consecutiveLocalOriginFailures: 1}}", "outlierDetection.consecutiveLocalOriginFailures",
         "splitExternalLocalOriginErrors"),
        ("{tls: {mode: STRICT}}", "tls.mode", "ISTIO_MUTUAL"),
        ("{tls: {mode: MUTUAL}}", "tls.clientCertificate", "Required"),
        ("{tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: /a}}", "tls.insecureSkipVerify", "Forbidden"),
        ("{tls: {mode: SIMPLE, credentialName: a, caCertificates: /a}}", "tls.credentialName", "caCertificates"),
        ("{tls: {mode: MUTUAL, credentialName: a, caCrl: /a}}", "tls.credentialName", "caCrl"),
        ("{tls: {mode: MUTUAL, credentialName: 'sds://a'}}", "tls.credentialName", "name of a Secret"),
        ("{tls: {mode: SIMPLE, insecureSkipVerify: true, credentialName: a}}", "tls.insecureSkipVerify", "credential"),
        ("{tls: {mode: SIMPLE, insecureSkipVerify: true, caCrl: /a}}", "tls.insecureSkipVerify", "caCrl"),
        ("{portLevelSettings: [{loadBalancer: {simple: RANDOM}}]}", "portLevelSettings[0].port", "Required"),
        ("{portLevelSettings: [{port: {number: 80}}]}", "portLevelSettings[0]", "one of loadBalancer"),
        ("{tunnel: {targetHost: a, targetPort: 0}}", "tunnel.targetPort", "between 1"),
        ("{tunnel: {targetHost: 'a_b', targetPort: 1}}", "tunnel.targetHost", "a_b"),
        ("{tunnel: {targetPort: 1}}", "tunnel.targetHost", "Required"),
        ("{tunnel: {targetHost: a, targetPort: 1, protocol: POST}}", "tunnel.protocol", "write CONNECT"),
        ("{tunnel: {targetHost: a, targetPort: 1, protocol: GET}}", "tunnel.protocol", "CONNECT"),
        ("{connectionPool: {http: {http2KeepAlive: {interval: 1s}}}}", "connectionPool.http.http2KeepAlive.timeout",
         "Required"),
        ("{connectionPool: {http: {http2KeepAlive: {timeout: 1s}}}}", "connectionPool.http.http2KeepAlive.interval",
         "Required"),
        ("{connectionPool: {http: {http2KeepAlive: {interval: 1s, timeout: 0s}}}}",
         "connectionPool.http.http2KeepAlive.timeout", "at least"),
    ],
)  # fmt: skip
def test_what_istio_refuses_is_refused_with_its_field(policy: str, path: str, says: str) -> None:
    found = errors(rule(policy))
    place = f"spec.trafficPolicy.{path}" if path else "spec.trafficPolicy"
    assert place in found, found
    assert says in found[place]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("host: ''", "spec.host"),
        ("host: a_b", "spec.host"),
        ("host: web\nsubsets: [{labels: {a: b}}]", "spec.subsets[0].name"),
        ("host: web\nsubsets: [{name: a}, {name: a}]", "spec.subsets[1].name"),
        ("host: web\nsubsets: [{name: a.b}]", "spec.subsets[0].name"),
        ("host: web\nsubsets: [{name: a, labels: {'a b': c}}]", "spec.subsets[0].labels"),
        ("host: web\nsubsets: [{name: a, labels: {version: 1}}]", "spec.subsets[0].labels[version]"),
        ("host: web\nsubsets: [{name: a, trafficPolicy: {tls: {mode: X}}}]", "spec.subsets[0].trafficPolicy.tls.mode"),
        ("host: web\nexportTo: ['~']", "spec.exportTo[0]"),
        ("host: web\nworkloadSelector: {matchLabels: {a: '*'}}", "spec.workloadSelector.matchLabels"),
        ("host: web\nworkloadSelector: {matchLabels: {a: b}}\nexportTo: [other]", "spec.exportTo"),
    ],
)
def test_the_rule_as_a_whole(spec: str, path: str) -> None:
    assert path in errors(document("DestinationRule", spec))


def test_a_full_rule_is_taken() -> None:
    spec = """
      host: "*.shop.svc.cluster.local"
      exportTo: ["*"]
      trafficPolicy:
        loadBalancer:
          consistentHash: {httpCookie: {name: user, ttl: 0s, path: /}, maglev: {tableSize: 65537}}
        connectionPool:
          tcp: {maxConnections: 100, connectTimeout: 30ms, idleTimeout: 0s, tcpKeepalive: {time: 7200s, interval: 75s}}
          http: {http1MaxPendingRequests: 1, http2MaxRequests: 100, maxRequestsPerConnection: 10, maxRetries: 3}
        outlierDetection: {consecutive5xxErrors: 7, interval: 5m, baseEjectionTime: 15m, maxEjectionPercent: 100}
        portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}}]
      subsets: [{name: V1, labels: {version: v1}}, {name: all}]
    """
    assert errors(document("DestinationRule", spec)) == {}
    assert warnings(document("DestinationRule", spec)) == {}


def test_what_has_no_effect_is_warned_of() -> None:
    found = warnings(rule("{loadBalancer: {simple: RANDOM, warmupDurationSecs: "
                          "1s}, portLevelSettings: [{port: {number: 0}, tls: {mode: DISABLE}}]}"))  # fmt: skip
    assert {
        "spec.trafficPolicy.loadBalancer.warmupDurationSecs",
        "spec.trafficPolicy.portLevelSettings[0].port.number",
    } <= set(found)  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "path", "says"),
    [
        ("{loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}}",
         "loadBalancer.localityLbSetting.failover", "without outlierDetection"),
        ("{loadBalancer: {localityLbSetting: {failoverPriority: [version]}}}",
         "loadBalancer.localityLbSetting.failoverPriority", "without outlierDetection"),
        ("{outlierDetection: {}, loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}, {from: a, to: c}]}}}",
         "loadBalancer.localityLbSetting.failover[1].from", "the first entry counts"),
        ("{loadBalancer: {simple: PEAK_EWMA, warmup: {duration: 10s}}}", "loadBalancer.warmup", "no effect"),
        ("{loadBalancer: {warmup: {duration: 10s}, warmupDurationSecs: 1s}}",
         "loadBalancer.warmupDurationSecs", "no effect"),
        ("{outlierDetection: {consecutiveGatewayErrors: 5}}", "outlierDetection.consecutiveGatewayErrors", "never"),
        ("{outlierDetection: {consecutiveGatewayErrors: 2, outlierDetectionHttpErrorCodes: [404]}}",
         "outlierDetection.consecutiveGatewayErrors", "are not in"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_warned_of(policy: str, path: str, says: str) -> None:
    assert errors(rule(policy)) == {}
    assert says in warnings(rule(policy))[f"spec.trafficPolicy.{path}"]


def test_every_balancer_with_its_settings_is_taken_without_a_word() -> None:
    for balancer in (
        "{simple: PEAK_EWMA}",
        "{warmup: {duration: 30s, minimumPercent: 5, aggression: 1.5}}",
        "{simple: ROUND_ROBIN, warmupDurationSecs: 30s}",
        "{localityLbSetting: {distribute: [{from: a/*, to: {a/*: 75, b/*: 25}}, {from: b, to: {b/z/s: 100}}]}}",
        "{localityLbSetting: {failover: [{from: a, to: b}], failoverPriority: [version=1, network]}}",
    ):
        spec = rule(
            f"{{loadBalancer: {balancer}, outlierDetection: {{outlierDetectionHttpErrorCodes: [429, 503], "
            "successRateMinimumHosts: 3, successRateRequestVolume: 10, successRateStdevFactor: 1500}}"
        )
        assert errors(spec) == {}
        assert not [path for path in warnings(spec) if "trafficPolicy" in path]
