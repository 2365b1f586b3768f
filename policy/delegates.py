"""Delegates: routes of one VirtualService filled in by another, merged as Istio does."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .host_names import complete
from .resources import DestinationRef, HTTPMatchRequest, HTTPRoute, StringMatch, VirtualService
from .visibility import exported

_SETTINGS = (
    "rewrite", "direct_response", "timeout", "retries", "fault", "mirror", "mirrors", "mirror_percentage",
    "mirror_percent", "cors_policy", "headers",
)  # fmt: skip


def with_delegates(root: VirtualService, rules: Sequence[VirtualService], cluster_domain: str) -> VirtualService:
    """`root` with its delegating routes replaced by those of the delegates; a missing delegate leaves the route as it
    is, for the compiler to drop and to say so."""
    if not any(route.delegate is not None for route in root.spec.http):
        return root
    routes: list[HTTPRoute] = []
    for route in root.spec.http:
        delegate = _find(route, root, rules)
        if delegate is None:
            routes.append(route)
            continue
        for inner in delegate.spec.http:
            merged = _merge(route, inner, delegate, cluster_domain)
            if merged is not None and inner.delegate is None:
                routes.append(merged)
    return msgspec.structs.replace(root, spec=msgspec.structs.replace(root.spec, http=routes))


def merged_from(
    root: VirtualService, rules: Sequence[VirtualService], cluster_domain: str
) -> list[tuple[int, VirtualService | None, int]]:
    """(route of `root`, delegate, its route) for each route of `with_delegates`; for explain."""
    found: list[tuple[int, VirtualService | None, int]] = []
    for outer, route in enumerate(root.spec.http):
        delegate = _find(route, root, rules)
        if delegate is None:
            found.append((outer, None, outer))
            continue
        for index, inner in enumerate(delegate.spec.http):
            if inner.delegate is None and _merge(route, inner, delegate, cluster_domain) is not None:
                found.append((outer, delegate, index))
    return found


def _find(route: HTTPRoute, root: VirtualService, rules: Sequence[VirtualService]) -> VirtualService | None:
    if route.delegate is None:
        return None
    namespace = route.delegate.namespace or root.meta.namespace
    for rule in rules:
        if rule.meta.name == route.delegate.name and rule.meta.namespace == namespace and not rule.spec.hosts:
            return rule if exported(rule.spec.export_to, namespace, root.meta.namespace) else None
    return None


def _merge(root: HTTPRoute, inner: HTTPRoute, delegate: VirtualService, domain: str) -> HTTPRoute | None:
    """One route of the delegate within the root route; None where one of its blocks fits no block of the root."""
    blocks = _merge_matches(root.match, inner.match)
    if blocks is None:
        return None
    changes: dict[str, object] = {
        name: getattr(root, name)
        for name in _SETTINGS
        if getattr(inner, name) in (None, []) and getattr(root, name) not in (None, [])
    }
    name = "-".join(part for part in (root.name, inner.name) if part)
    made = msgspec.structs.replace(inner, name=name, match=blocks, **changes)
    return _in_namespace(made, delegate.meta.namespace, domain)


def _in_namespace(route: HTTPRoute, namespace: str, domain: str) -> HTTPRoute:
    """Short names in a delegate belong to its own namespace, not to the root's: complete them here."""

    def completed(reference: DestinationRef) -> DestinationRef:
        return msgspec.structs.replace(reference, host=complete(reference.host, namespace, domain))

    return msgspec.structs.replace(
        route,
        route=[msgspec.structs.replace(one, destination=completed(one.destination)) for one in route.route],
        mirrors=[msgspec.structs.replace(one, destination=completed(one.destination)) for one in route.mirrors],
        mirror=completed(route.mirror) if route.mirror is not None else None,
    )


def _merge_matches(root: list[HTTPMatchRequest], inner: list[HTTPMatchRequest]) -> list[HTTPMatchRequest] | None:
    if not root:
        return inner
    if not inner:
        return root
    merged = []
    for own in inner:
        fitting = [_merge_block(outer, own) for outer in root if _compatible(outer, own)]
        if not fitting:
            return None
        merged += fitting
    return merged


def _merge_block(root: HTTPMatchRequest, inner: HTTPMatchRequest) -> HTTPMatchRequest:
    changes: dict[str, object] = {}
    for name in ("uri", "scheme", "method", "authority"):
        if getattr(inner, name) is None:
            changes[name] = getattr(root, name)
    for name in ("headers", "without_headers", "query_params", "source_labels"):
        changes[name] = {**getattr(root, name), **getattr(inner, name)}
    changes["port"] = inner.port or root.port
    changes["source_namespace"] = inner.source_namespace or root.source_namespace
    changes["gateways"] = inner.gateways or root.gateways
    changes["ignore_uri_case"] = inner.ignore_uri_case or root.ignore_uri_case
    changes["name"] = "-".join(part for part in (root.name, inner.name) if part)
    return msgspec.structs.replace(inner, **changes)


def _compatible(root: HTTPMatchRequest, inner: HTTPMatchRequest) -> bool:
    for name in ("uri", "scheme", "method", "authority"):
        if not _inside(getattr(root, name), getattr(inner, name)):
            return False
    for name in ("headers", "without_headers", "query_params"):
        outer, own = getattr(root, name), getattr(inner, name)
        if any(not _inside(outer[key], own[key]) for key in outer.keys() & own.keys()):
            return False
    if root.ignore_uri_case != inner.ignore_uri_case:
        return False
    if root.port and inner.port and root.port != inner.port:
        return False
    if root.source_namespace and root.source_namespace != inner.source_namespace:
        return False
    shared = root.source_labels.keys() & inner.source_labels.keys()
    if any(root.source_labels[key] != inner.source_labels[key] for key in shared):
        return False
    return not root.gateways or set(inner.gateways) <= set(root.gateways)


def _inside(root: StringMatch | None, inner: StringMatch | None) -> bool:
    """Whether the delegate's condition lies within the root's; a regex conflicts with any other condition."""
    if root is None or inner is None:
        return True
    if root.regex is not None or inner.regex is not None:
        return False
    if root.exact is not None:
        return inner.exact == root.exact
    if root.prefix is not None:
        return (inner.exact or inner.prefix or "").startswith(root.prefix)
    return True
