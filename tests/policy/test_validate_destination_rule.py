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
    found = warnings(rule("{loadBalancer: {warmupDurationSecs: "
                          "1s}, portLevelSettings: [{port: {number: 0}, tls: {mode: DISABLE}}]}"))  # fmt: skip
    assert {
        "spec.trafficPolicy.loadBalancer.warmupDurationSecs",
        "spec.trafficPolicy.portLevelSettings[0].port.number",
    } <= set(found)  # fmt: skip
