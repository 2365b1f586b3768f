"""Kubernetes Ingress as what gateways run: a Gateway for each, a VirtualService for each of their hosts. Pure.

Semantics: Kubernetes' documentation of Ingress, Istio's controller for what it leaves open. Ours are those that name
MeshConfig's `ingressClass`, or an IngressClass whose controller is in CONTROLLERS; those without a class where an
IngressClass of ours is marked as the default, or `ingressControllerMode` is DEFAULT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from ..registry.snapshot import Snapshot
from .host_names import complete
from .linear_regex import RegexError, search_pattern
from .resources import (
    DestinationRef,
    Gateway,
    GatewayServer,
    GatewaySpec,
    HTTPMatchRequest,
    HTTPRewrite,
    HTTPRoute,
    HTTPRouteDestination,
    Ingress,
    IngressBackend,
    IngressPath,
    Meta,
    PortSelector,
    Resources,
    ServerPort,
    ServerTLS,
    StringMatch,
    VirtualService,
    VirtualServiceSpec,
)

CONTROLLERS = frozenset({"fairlead.dev/ingress-controller", "istio.io/ingress-controller"})
CLASS = "kubernetes.io/ingress.class"
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
REWRITE = "nginx.ingress.kubernetes.io/rewrite-target"
USE_REGEX = "nginx.ingress.kubernetes.io/use-regex"
SECRET = "kubernetes-gateway://"
"""How the credential of a generated server begins: then namespace and name of the Secret."""
EXACT, PREFIX = "Exact", "Prefix"


def with_ingresses(resources: Resources, snapshot: Snapshot) -> Resources:
    """The resources with what Ingresses of our classes stand for."""
    mesh = resources.mesh.spec
    ours = [one for one in resources.ingresses if why_not(one, resources) == ""]
    gateways = ingress_gateways(resources)
    if not gateways:
        return resources
    rules = _rules(ours, snapshot, mesh.cluster_domain)
    return replace(
        resources,
        virtual_services=resources.virtual_services + tuple(rules),
        gateways=resources.gateways + gateways,
    )


def ingress_gateways(resources: Resources) -> tuple[Gateway, ...]:
    """The Gateways that Ingresses of our classes stand for."""
    selector = resources.mesh.spec.ingress_selector
    return tuple(_gateway(one, selector) for one in resources.ingresses if why_not(one, resources) == "")


def why_not(ingress: Ingress, resources: Resources) -> str:
    """Why an Ingress is none of ours; empty: it is."""
    mesh = resources.mesh.spec
    if mesh.ingress_controller_mode == "OFF":
        return "MeshConfig's ingressControllerMode is OFF"
    name = ingress.meta.annotations.get(CLASS) or ingress.spec.ingress_class_name
    classes = {one.meta.name: one for one in resources.ingress_classes if one.spec.controller in CONTROLLERS}
    if not name:
        if mesh.ingress_controller_mode == "DEFAULT":
            return ""
        if any(one.meta.annotations.get(DEFAULT_CLASS) == "true" for one in classes.values()):
            return ""
        return f"it names no class, and no IngressClass of {' or '.join(sorted(CONTROLLERS))} is the default"
    if name == mesh.ingress_class or name in classes:
        return ""
    return f"class {name} is neither MeshConfig's ingressClass ({mesh.ingress_class}) nor an IngressClass of ours"


def gateway_key(ingress: Ingress) -> str:
    """The name of the Gateway that it stands for."""
    return f"{ingress.meta.namespace}/{ingress.meta.name}.ingress"


def _gateway(ingress: Ingress, selector: str) -> Gateway:
    namespace = ingress.meta.namespace
    servers = [GatewayServer(ServerPort(80, "http", "HTTP"), ["*"])]
    for number, tls in enumerate(ingress.spec.tls):
        if tls.secret_name:
            settings = ServerTLS(mode="SIMPLE", credential_name=f"{SECRET}{namespace}/{tls.secret_name}")
            servers.append(GatewayServer(ServerPort(443, f"https-{number}", "HTTPS"), tls.hosts or ["*"], tls=settings))
    return Gateway(_meta(ingress, gateway_key(ingress).partition("/")[2]), GatewaySpec(servers, {"istio": selector}))


def _meta(ingress: Ingress, name: str) -> Meta:
    meta = ingress.meta
    return Meta(name, meta.namespace, created=meta.created, source=meta.source, resource_version=meta.resource_version)


def backends(ingress: Ingress) -> Iterator[tuple[str, IngressBackend]]:
    """(path, backend) of all that an Ingress sends traffic to."""
    if ingress.spec.default_backend is not None:
        yield "spec.defaultBackend", ingress.spec.default_backend
    for index, rule in enumerate(ingress.spec.rules):
        for number, path in enumerate(rule.http.paths if rule.http is not None else ()):
            yield f"spec.rules[{index}].http.paths[{number}].backend", path.backend


class _Path:
    """One path of a host: how it is ordered, and its route."""

    __slots__ = ("order", "route")

    def __init__(self, order: tuple[int, int, int], route: HTTPRoute) -> None:
        self.order = order
        self.route = route


def _rules(ingresses: Sequence[Ingress], snapshot: Snapshot, domain: str) -> list[VirtualService]:
    """All Ingresses of a host together: the longest path first, exact before prefix, the older Ingress first; then
    their default backends."""
    hosts: dict[str, tuple[Ingress, list[_Path]]] = {}
    keys: dict[str, dict[str, None]] = {}
    for age, ingress in enumerate(ingresses):
        named = [rule.host or "*" for rule in ingress.spec.rules]
        for rule in ingress.spec.rules:
            _, paths = hosts.setdefault(rule.host or "*", (ingress, []))
            for path in rule.http.paths if rule.http is not None else ():
                made = _path(ingress, path, age, snapshot, domain)
                if made is not None:
                    paths.append(made)
        backend = ingress.spec.default_backend
        if backend is not None:
            for host in dict.fromkeys((*named, "*")):
                target = _destination(ingress, backend, snapshot, domain)
                if target is not None:
                    route = HTTPRoute(name="default-backend", route=[HTTPRouteDestination(target)])
                    hosts.setdefault(host, (ingress, []))[1].append(_Path((1, age, 0), route))
        for host in (*named, *(("*",) if backend is not None else ())):
            keys.setdefault(host, {})[gateway_key(ingress)] = None
    rules = []
    for host, (first, paths) in hosts.items():
        routes = [path.route for path in sorted(paths, key=lambda one: one.order)]
        spec = VirtualServiceSpec(hosts=[host], gateways=list(keys[host]), http=routes)
        rules.append(VirtualService(_meta(first, f"{first.meta.name}.ingress.{host}"), spec))
    return rules


def _path(ingress: Ingress, path: IngressPath, age: int, snapshot: Snapshot, domain: str) -> _Path | None:
    target = _destination(ingress, path.backend, snapshot, domain)
    if target is None:
        return None
    text = path.path
    rewrite = ingress.meta.annotations.get(REWRITE, "")
    uses_regex = bool(rewrite) or ingress.meta.annotations.get(USE_REGEX) == "true"
    matches: list[HTTPMatchRequest]
    change = None
    kind = path.path_type
    if uses_regex and kind != EXACT:  # ingress-nginx: location ~* "^PATH"
        matches = [_match(StringMatch(regex=f"(?i){text}.*"))]
    else:
        kind, text, matches = _matches(kind, text)
    if rewrite:
        pattern = f"^{re.escape(text)}$" if kind == EXACT else f"(?i)^{text}.*$"
        change = HTTPRewrite(uri_regex_rewrite={"match": pattern, "rewrite": _references(rewrite, pattern)})
    route = HTTPRoute(match=matches, route=[HTTPRouteDestination(target)], rewrite=change)
    return _Path((0, -len(text), 0 if kind == EXACT else 1), route)


def _references(rewrite: str, pattern: str) -> str:
    """nginx's `$1` as RE2's; a group that the pattern has not is empty."""
    try:
        groups = search_pattern(pattern).groups
    except RegexError:  # refused by validation
        groups = 0
    return re.sub(
        r"\$(\d)", lambda found: f"\\{found[1]}" if int(found[1]) <= groups else "", rewrite.replace("\\", "\\\\")
    )


def _match(uri: StringMatch) -> HTTPMatchRequest:
    return HTTPMatchRequest(uri=uri)


def _matches(kind: str, text: str) -> tuple[str, str, list[HTTPMatchRequest]]:
    """What it is in the end, the path that its order goes by, and the conditions; none: everything."""
    if kind not in (EXACT, PREFIX):  # ImplementationSpecific, as Istio's controller has it
        if text in ("", "*", "/*", ".*"):
            kind, text = PREFIX, "/"
        elif text.endswith(("/*", ".*")):
            return PREFIX, text[:-2], [_match(StringMatch(prefix=text[:-2] + ("/" if text.endswith("/*") else "")))]
        else:
            kind = EXACT
    if kind == EXACT:
        return kind, text, [_match(StringMatch(exact=text))]
    text = text.rstrip("/")
    if not text:
        return kind, "/", []
    return kind, text, [_match(StringMatch(exact=text)), _match(StringMatch(prefix=f"{text}/"))]


def _destination(ingress: Ingress, backend: IngressBackend, snapshot: Snapshot, domain: str) -> DestinationRef | None:
    """None: the service has no port of that name, or the backend is no service."""
    service = backend.service
    if service is None:
        return None
    host = complete(service.name, ingress.meta.namespace, domain)
    port = service.port
    number = port.number if port is not None else 0
    if port is not None and port.name:
        known = snapshot.services.get(host)
        number = next((one.number for one in known.ports if one.name == port.name), 0) if known is not None else 0
        if not number:
            return None
    return DestinationRef(host, port=PortSelector(number) if number else None)
