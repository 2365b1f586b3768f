"""The rules around a decision, for explain: those not in force for the same host, TCP and TLS routes, clusters."""

from __future__ import annotations

from .compile_hosts import visible_rules
from .compile_view import View, speaks_http
from .delegates import merged_from
from .destination_rules import MergedRule
from .gateways import attached
from .host_names import complete, covers
from .network_policy import _network as parse_network
from .network_policy import parse_address
from .resources import DestinationRule, L4MatchAttributes, TLSMatchAttributes, VirtualService
from .tables import Arrival, Cluster
from .trace import Trace, note
from .visibility import exported, gateway_name, labels_hold


def rule_resource(key: str) -> str:
    return f"DestinationRule {key}"


# --- VirtualServices ------------------------------------------------------------------------------------------------


def other_rules(view: View, host: str, chosen: str, http: bool, trace: Trace) -> None:
    """A step for each VirtualService that names `host` and does not count for this client, with the reason.

    `chosen`: the rule in force, empty where none is. At a gateway the rules of one host are put together, and for
    opaque connections all that stand for the host are looked at; else one alone counts.
    """
    visible = {rule.meta.key for rule in visible_rules(view)}
    domain = view.cluster_domain
    ranks = {rule.meta.key: _rank(rule, host, domain) for rule in view.resources.virtual_services if rule.spec.hosts}
    best = max((rank for key, rank in ranks.items() if key in visible), default=0)
    for rule in view.resources.virtual_services:
        key = rule.meta.key
        if not ranks.get(key) or key == chosen or not (rule.spec.http if http else rule.spec.tls or rule.spec.tcp):
            continue
        why, path = "", "spec.hosts"
        if key not in visible:
            why, path = _why_unseen(view, rule)
        elif not view.gateway and ranks[key] < best:
            why = "another rule names the host more exactly, and only the most exact counts"
        elif not view.gateway and http and chosen:
            why = f"VirtualService {chosen} is older, and of rules for one host the oldest with a route counts alone"
        if why:
            name = f"VirtualService {key}"
            note(trace, "virtual-service", name, "not in force", why, name, path)


def _rank(rule: VirtualService, host: str, domain: str) -> int:
    """How exactly a rule names a host: longer is more exact, a name without star the most; 0: it does not."""
    names = [complete(one, rule.meta.namespace, domain) for one in rule.spec.hosts]
    return max((1000 if one == host else len(one) for one in names if one == host or covers(one, host)), default=0)


def _why_unseen(view: View, rule: VirtualService) -> tuple[str, str]:
    """(why, field) of a rule that this client does not see."""
    if not exported(rule.spec.export_to, rule.meta.namespace, view.namespace):
        return (
            f"exportTo is {', '.join(rule.spec.export_to)}, the client's namespace is {view.namespace}",
            "spec.exportTo",
        )
    own = (*(view.gateways.names if view.gateways is not None else ()), view.gateway or "mesh")
    if not attached(own, rule.spec.gateways, rule.meta.namespace):
        wanted = ", ".join(rule.spec.gateways) or "mesh"
        return f"gateways is {wanted}, the request comes by {view.gateway or 'mesh'}", "spec.gateways"
    return "the Sidecar in force hides it: no egress host of it covers the rule", "spec.hosts"


# --- the port -------------------------------------------------------------------------------------------------------


def describe_port(protocol: str) -> str:
    """What a port's declared protocol means for the rules."""
    if not protocol:
        return "no protocol is declared for the port: the first octets tell; HTTP routes apply to HTTP"
    if speaks_http(protocol):
        return f"the port is declared {protocol}: HTTP routes apply"
    return f"the port is declared {protocol}: connections are opaque, tcp and tls routes apply"


def opaque_rules(view: View, host: str, arrival: Arrival, rules: list[VirtualService], trace: Trace) -> None:
    """A step for each block of a tls or tcp route of `rules`: whether it holds for the connection, else why not."""
    for rule in rules:
        if not rule.spec.tls and not rule.spec.tcp:
            continue
        name = f"VirtualService {rule.meta.key}"
        if rule.spec.hosts:
            note(trace, "virtual-service", name, "looked at", f"its hosts stand for {host}", name, "spec.hosts")
        for index, tls in enumerate(rule.spec.tls):
            for number, block in enumerate(tls.match):
                failure, field = _tls_failure(view, block, rule, arrival)
                _note_l4(trace, name, f"tls route {index}", f"spec.tls[{index}].match[{number}]", field, failure)
        for index, tcp in enumerate(rule.spec.tcp):
            label = f"tcp route {index}"
            if not tcp.match:
                _note_l4(trace, name, label, f"spec.tcp[{index}]", "", "")
            for number, own in enumerate(tcp.match):
                failure, field = _l4_failure(view, own, rule, arrival)
                if not failure and own.source_subnet and not _within([own.source_subnet], arrival.source_ip):
                    failure = f"source address is {arrival.source_ip or 'unknown'}, wanted {own.source_subnet}"
                    field = ".sourceSubnet"
                _note_l4(trace, name, label, f"spec.tcp[{index}].match[{number}]", field, failure)


def _note_l4(trace: Trace, name: str, label: str, path: str, field: str, failure: str) -> None:
    result = "no match" if failure else "match"
    note(trace, "route", f"{name} {label}", result, failure or "every condition holds", name, path + field)


def _tls_failure(view: View, block: TLSMatchAttributes, rule: VirtualService, arrival: Arrival) -> tuple[str, str]:
    if not any(
        one.lower() == arrival.sni.lower() or covers(one.lower(), arrival.sni.lower()) for one in block.sni_hosts
    ):
        return f"server name is {arrival.sni or 'absent'}, wanted {', '.join(block.sni_hosts)}", ".sniHosts"
    return _l4_failure(view, block, rule, arrival)


def _l4_failure(
    view: View, block: L4MatchAttributes | TLSMatchAttributes, rule: VirtualService, arrival: Arrival
) -> tuple[str, str]:
    """(what was seen and what is wanted, field) of the first condition that fails; empty where all hold."""
    if block.port and block.port != arrival.port:
        return f"port is {arrival.port}, wanted {block.port}", ".port"
    own = view.gateway or "mesh"
    if block.gateways and own not in [gateway_name(name, rule.meta.namespace) for name in block.gateways]:
        return f"the connection comes by {own}, wanted {', '.join(block.gateways)}", ".gateways"
    if block.source_namespace and block.source_namespace != view.namespace:
        return f"the client's namespace is {view.namespace}, wanted {block.source_namespace}", ".sourceNamespace"
    if not labels_hold(block.source_labels, view.workload.labels):
        has = ", ".join(f"{key}={view.workload.labels.get(key, '(none)')}" for key in block.source_labels)
        wanted = ", ".join(f"{key}={value}" for key, value in block.source_labels.items())
        return f"the client has {has}, wanted {wanted}", ".sourceLabels"
    if block.destination_subnets and not _within(block.destination_subnets, arrival.destination_ip):
        seen, wanted = arrival.destination_ip or "not known", ", ".join(block.destination_subnets)
        return f"the dialled address is {seen}, wanted {wanted}", ".destinationSubnets"
    return "", ""


def _within(subnets: list[str], text: str) -> bool:
    address = parse_address(text)
    networks = [parse_network(one) for one in subnets]
    return address is not None and any(one is not None and address in one for one in networks)


# --- clusters ---------------------------------------------------------------------------------------------------------


def other_destination_rules(
    view: View, host: str, service_namespace: str, chosen: MergedRule | None, trace: Trace
) -> None:
    """A step for each DestinationRule for `host` that is not the one in force, with the reason."""
    key_in_force = chosen.key if chosen is not None else ""
    client, root = view.workload, view.mesh.root_namespace
    for rule in view.resources.destination_rules:
        key, namespace = rule.meta.key, rule.meta.namespace
        if key == key_in_force or not covers(complete(rule.spec.host, namespace, view.cluster_domain), host):
            continue
        selector = rule.spec.workload_selector
        labels = selector.match_labels if selector is not None else {}
        path, result = "spec.host", "not in force"
        if labels and (namespace != client.namespace or not labels_hold(labels, client.labels)):
            wanted = ", ".join(f"{name}={value}" for name, value in labels.items())
            why, path = f"its workloadSelector wants clients of {namespace} with {wanted}", "spec.workloadSelector"
        elif namespace not in (client.namespace, service_namespace, root):
            why = f"it is of namespace {namespace}; those of {client.namespace} (client), {service_namespace} (service)"
            why += f" and {root} (root) count"
        elif not exported(rule.spec.export_to, namespace, client.namespace):
            why = f"exportTo is {', '.join(rule.spec.export_to)}, the client's namespace is {client.namespace}"
            path = "spec.exportTo"
        elif chosen is not None and _merges(rule, chosen, view.cluster_domain):
            why = f"its subsets are added to those of {key_in_force}, which is older and for the same host"
            result = "merged"
        else:
            why = f"DestinationRule {key_in_force} comes first"
            why += " (the client's namespace before the service's, exact hosts before wildcards)"
        note(trace, "destination-rule", rule_resource(key), result, why, rule_resource(key), path)


def _merges(rule: DestinationRule, chosen: MergedRule, domain: str) -> bool:
    selector = rule.spec.workload_selector
    return (
        rule.meta.namespace == chosen.namespace
        and complete(rule.spec.host, rule.meta.namespace, domain) == chosen.host
        and sorted(rule.spec.export_to) == sorted(chosen.export_to)
        and (selector.match_labels if selector is not None else {}) == chosen.selector
    )


def subset_place(view: View, chosen: MergedRule, subset: str) -> tuple[str, str]:
    """(resource, field) that defines a subset of a rule, which may be several put together."""
    for rule in view.resources.destination_rules:
        if _merges(rule, chosen, view.cluster_domain):
            for index, one in enumerate(rule.spec.subsets):
                if one.name == subset:
                    return rule_resource(rule.meta.key), f"spec.subsets[{index}]"
    return rule_resource(chosen.key), "spec.subsets"


def describe_cluster(cluster: Cluster) -> str:
    """Load balancer and limits of a cluster, those that differ from the default."""
    balancer = cluster.load_balancer
    key = f" on {balancer.hash_on} {balancer.hash_name}".rstrip() if balancer.hash_on else ""
    told = [f"load balancer {balancer.kind}{key}"]
    told.append("outlier detection on" if cluster.outlier is not None else "no outlier detection")
    if len({one.priority for one in cluster.endpoints}) > 1:
        told.append("locality failover: lower priorities are asked only where those before them are not enough")
    return ", ".join(told)


def origin(view: View, resource: str, path: str) -> tuple[str, str, str]:
    """(resource, path, delegate): where a field of a rule is written, in the rule itself or in the delegate that its
    route was taken from, if any."""
    kind, _, key = resource.partition(" ")
    if kind != "VirtualService" or not path.startswith("spec.http["):
        return resource, path, ""
    rule = next((one for one in view.resources.virtual_services if one.meta.key == key), None)
    if rule is None or not any(route.delegate is not None for route in rule.spec.http):
        return resource, path, ""
    number, _, below = path.removeprefix("spec.http[").partition("]")
    routes = merged_from(rule, view.resources.virtual_services, view.cluster_domain)
    if not number.isdigit() or int(number) >= len(routes):
        return resource, path, ""
    outer, delegate, index = routes[int(number)]
    if delegate is None:
        return resource, f"spec.http[{outer}]{below}", ""
    inner = delegate.spec.http[index]
    if below.startswith(".match") and not inner.match:
        return resource, f"spec.http[{outer}]{below}", delegate.meta.key
    if rule.spec.http[outer].match:  # the blocks of both are put together: which one it was cannot be said in one line
        below = ""
    return f"VirtualService {delegate.meta.key}", f"spec.http[{index}]{below}", delegate.meta.key
