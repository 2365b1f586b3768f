"""What must hold of a DestinationRule beyond its schema; source: Istio's webhook and CRD rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..registry.schema import Findings
from .credentials import place_of
from .locality import TOPOLOGY, overlap
from .validate_values import (
    SUBSET_RULE,
    check_export_to,
    check_host,
    check_labels,
    check_port,
    check_workload_selector,
    forbidden,
    host_fault,
    invalid,
    is_ip,
    is_label,
    listed,
    mapping,
    not_supported,
    required,
    warn,
)

MAGLEV_MAX = 5_000_011
FILES = ("clientCertificate", "privateKey", "caCertificates")
BLOCKS = ("loadBalancer", "connectionPool", "outlierDetection", "tls")

Object = Mapping[str, Any]


def check_destination_rule(found: Findings, spec: Object, namespace: str) -> None:
    host = spec.get("host", "")
    if host:
        check_host(found, "spec.host", host)
    selector = spec.get("workloadSelector")
    export_to = listed(spec, "exportTo")
    check_export_to(found, "spec.exportTo", export_to, namespace)
    if selector is not None:
        labels = mapping(selector, "matchLabels")
        check_workload_selector(found, "spec.workloadSelector.matchLabels", labels)
        if not labels:
            warn(found, "spec.workloadSelector", "is empty: the rule is for all clients of its namespace")
        if len(export_to) > 1 or (export_to and export_to[0] not in (".", namespace)):
            invalid(
                found,
                "spec.exportTo",
                ", ".join(export_to),
                "with workloadSelector only the own namespace may be given",
            )
    selected = selector is not None and bool(mapping(selector, "matchLabels"))
    if spec.get("trafficPolicy") is not None:
        _check_policy(found, "spec.trafficPolicy", spec["trafficPolicy"], selected)
    names: set[str] = set()
    for index, subset in enumerate(listed(spec, "subsets")):
        path = f"spec.subsets[{index}]"
        name = subset.get("name", "")
        if name and not is_label(name):
            invalid(found, f"{path}.name", name, SUBSET_RULE)
        if name in names:
            found.errors.append((f"{path}.name", f'Duplicate value: "{name}"'))
        names.add(name)
        check_labels(found, f"{path}.labels", mapping(subset, "labels"))
        if subset.get("trafficPolicy") is not None:
            _check_policy(found, f"{path}.trafficPolicy", subset["trafficPolicy"], selected)


def _check_policy(found: Findings, path: str, policy: Object, selected: bool) -> None:
    """`selected`: the rule has a workloadSelector."""
    if not policy:
        required(found, path, "at least one setting; leave the empty trafficPolicy out")
    _check_blocks(found, path, policy, selected)
    if policy.get("tunnel") is not None:
        _check_tunnel(found, f"{path}.tunnel", policy["tunnel"])
    ports: set[int] = set()
    for index, one in enumerate(listed(policy, "portLevelSettings")):
        at = f"{path}.portLevelSettings[{index}]"
        number = mapping(one, "port").get("number")
        if one.get("port") is None:
            required(found, f"{at}.port")
        elif number in (None, 0):
            warn(found, f"{at}.port.number", "0 is no port: the entry has no effect")
        else:
            check_port(found, f"{at}.port.number", number)
            if number in ports:
                warn(found, f"{at}.port.number", f"port {number} stands twice; the first entry counts")
            ports.add(number)
        if not any(one.get(block) is not None for block in BLOCKS):
            required(found, at, f"one of {', '.join(BLOCKS)}")
        _check_blocks(found, at, one, selected)


def _check_blocks(found: Findings, path: str, policy: Object, selected: bool) -> None:
    if policy.get("loadBalancer") is not None:
        _check_load_balancer(found, f"{path}.loadBalancer", policy["loadBalancer"], policy.get("outlierDetection"))
    if policy.get("outlierDetection") is not None:
        _check_outlier(found, f"{path}.outlierDetection", policy["outlierDetection"])
    if policy.get("tls") is not None:
        _check_tls(found, f"{path}.tls", policy["tls"], selected)


def _check_load_balancer(found: Findings, path: str, settings: Object, outlier: Any) -> None:
    hashing = settings.get("consistentHash")
    if hashing is not None:
        keys = [
            key
            for key in ("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName")
            if hashing.get(key) not in (None, "", False)
        ]
        if not keys:
            required(
                found, f"{path}.consistentHash", "httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName"
            )
        if hashing.get("minimumRingSize") is not None:
            warn(found, f"{path}.consistentHash.minimumRingSize", "is deprecated: write ringHash.minimumRingSize")
        size = mapping(hashing, "maglev").get("tableSize")
        if size is not None and (size >= MAGLEV_MAX or not _is_prime(size)):
            invalid(found, f"{path}.consistentHash.maglev.tableSize", size, f"must be a prime below {MAGLEV_MAX}")
    if settings.get("localityLbSetting") is not None:
        check_locality(found, f"{path}.localityLbSetting", settings["localityLbSetting"], outlier)
    _check_warmup(found, path, settings)


def _is_prime(number: int) -> bool:
    if number < 2:
        return False
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def check_locality(found: Findings, path: str, setting: Object, outlier: Any) -> None:
    """Istio's rules for a localityLbSetting; `outlier` None: there is no outlierDetection beside it."""
    distribute, failover = listed(setting, "distribute"), listed(setting, "failover")
    priority = listed(setting, "failoverPriority")
    if distribute and failover:
        forbidden(found, f"{path}.distribute", "may not stand next to failover")
    if distribute and priority and not failover:
        warn(found, f"{path}.failoverPriority", "has no effect next to distribute")
    for index, label in enumerate(priority):
        at = f"{path}.failoverPriority[{index}]"
        if not label.partition("=")[0]:
            invalid(found, at, label, "must be LABEL or LABEL=VALUE")
        elif failover and label in TOPOLOGY:
            forbidden(found, at, "a topology label may not stand next to failover, which orders localities itself")
    for name, given in (("failover", failover), ("failoverPriority", priority)):
        if given and outlier is None:
            warn(found, f"{path}.{name}", "takes no effect without outlierDetection")
    for index, one in enumerate(distribute):
        at = f"{path}.distribute[{index}]"
        shares = mapping(one, "to")
        if sum(shares.values()) != 100:
            invalid(found, f"{at}.to", sum(shares.values()), "weights must be from 1 to 100, and their sum 100")
        _check_locality_name(found, f"{at}.from", one.get("from", ""))
        for locality in shares:
            _check_locality_name(found, f"{at}.to[{locality}]", locality)
        _check_overlaps(found, [(f"{at}.to[{locality}]", locality) for locality in shares])
    _check_overlaps(
        found, [(f"{path}.distribute[{index}].from", one.get("from", "")) for index, one in enumerate(distribute)]
    )
    regions: set[str] = set()
    for index, one in enumerate(failover):
        at = f"{path}.failover[{index}]"
        for key in ("from", "to"):
            if "/" in one.get(key, "") or "*" in one.get(key, ""):
                invalid(found, f"{at}.{key}", one[key], "must be the name of a region")
        if one.get("from") == one.get("to"):
            invalid(found, at, one.get("from", ""), "from and to must differ")
        if one.get("from") in regions:
            warn(found, f"{at}.from", f"region {one['from']} stands twice; the first entry counts")
        regions.add(one.get("from", ""))


def _check_overlaps(found: Findings, localities: list[tuple[str, str]]) -> None:
    for index, (path, locality) in enumerate(localities):
        before = next((other for _, other in localities[:index] if overlap(locality, other)), None)
        if before is not None:
            invalid(found, path, locality, f'overlaps with "{before}": a locality must be covered by one of them only')


def _check_locality_name(found: Findings, path: str, locality: str) -> None:
    parts = locality.split("/")
    if "*" in locality and not (parts[-1] == "*" and "*" not in "".join(parts[:-1])):
        invalid(found, path, locality, "a star may only be the last part")
    elif len(parts) > 3 or not all(parts):
        invalid(found, path, locality, "must be REGION, REGION/ZONE or REGION/ZONE/SUBZONE")


def _check_warmup(found: Findings, path: str, settings: Object) -> None:
    given = next((name for name in ("warmup", "warmupDurationSecs") if settings.get(name) is not None), "")
    if not given:
        return
    if mapping(settings, "warmup").get("aggression", 1.0) <= 0:
        invalid(found, f"{path}.warmup.aggression", settings["warmup"]["aggression"], "must be above 0")
    if given == "warmup" and settings.get("warmupDurationSecs") is not None:
        warn(found, f"{path}.warmupDurationSecs", "has no effect next to warmup")
    other = "consistentHash" if settings.get("consistentHash") is not None else settings.get("simple")
    if other in ("consistentHash", "RANDOM", "PASSTHROUGH", "PEAK_EWMA"):
        warn(found, f"{path}.{given}", f"has no effect with {other}: only ROUND_ROBIN and LEAST_REQUEST know it")


def _check_outlier(found: Findings, path: str, settings: Object) -> None:
    local = settings.get("consecutiveLocalOriginFailures")
    if local and not settings.get("splitExternalLocalOriginErrors"):
        invalid(
            found,
            f"{path}.consecutiveLocalOriginFailures",
            local,
            "needs splitExternalLocalOriginErrors: true",
        )
    five, gateway = settings.get("consecutive5xxErrors", 5), settings.get("consecutiveGatewayErrors", 0)
    if five and gateway >= five:
        warn(
            found,
            f"{path}.consecutiveGatewayErrors",
            f"{gateway} is never reached: consecutive5xxErrors counts the same answers, and ejects at {five}",
        )
    codes = listed(settings, "outlierDetectionHttpErrorCodes")
    if codes and gateway and not {502, 503, 504} & set(codes):
        warn(found, f"{path}.consecutiveGatewayErrors", "502, 503, 504 are not in outlierDetectionHttpErrorCodes")


def _check_tunnel(found: Findings, path: str, tunnel: Object) -> None:
    protocol, host = tunnel.get("protocol") or "CONNECT", tunnel.get("targetHost", "")
    if protocol == "POST":
        forbidden(found, f"{path}.protocol", "tunnels by POST are not made; write CONNECT, which forward proxies speak")
    elif protocol != "CONNECT":
        not_supported(found, f"{path}.protocol", protocol, ("CONNECT",))
    if host and not is_ip(host) and (fault := host_fault(host, wildcard=False)):
        invalid(found, f"{path}.targetHost", host, fault)


def _check_tls(found: Findings, path: str, tls: Object, selected: bool) -> None:
    mode = tls.get("mode", "DISABLE")
    if tls.get("insecureSkipVerify") and (tls.get("caCertificates") or tls.get("subjectAltNames")):
        forbidden(found, f"{path}.insecureSkipVerify", "may not stand next to caCertificates or subjectAltNames")
    if tls.get("insecureSkipVerify") and (tls.get("credentialName") or tls.get("caCrl")):
        forbidden(found, f"{path}.insecureSkipVerify", "may not stand next to credentialName or caCrl")
    named = tls.get("credentialName") if mode in ("SIMPLE", "MUTUAL") else ""
    if named:
        given = [key for key in (*FILES, "caCrl") if tls.get(key)]
        if given:
            forbidden(found, f"{path}.credentialName", f"may not stand next to {', '.join(given)}: the Secret has them")
        if place_of(named, "") is None:
            invalid(found, f"{path}.credentialName", named, "must be the name of a Secret of the client's namespace")
        if not selected:
            told = "is for gateways alone: sidecars take it only from a rule with a workloadSelector"
            warn(found, f"{path}.credentialName", told)
    if mode == "MUTUAL" and not named:
        for key in ("clientCertificate", "privateKey"):
            if not tls.get(key):
                required(found, f"{path}.{key}", "mode MUTUAL shows a certificate of its own")
    if mode == "ISTIO_MUTUAL":
        given = [key for key in (*FILES, "caCrl", "credentialName") if tls.get(key)]
        if given:
            warn(found, path, f"{', '.join(given)}: has no effect with ISTIO_MUTUAL, which uses the mesh's own")
