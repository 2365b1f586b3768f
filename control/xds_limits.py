"""LocalRateLimit as Envoy's filters local_ratelimit: one filter with one bucket for each limit, in the rules' order.

A limit's conditions are a descriptor of its own, made by a match of headers. What Envoy has no way to say is told to
`note` and not limited: buckets of each client, and limits of a VirtualService's route.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..policy.host_names import covers
from ..policy.rate_limits import CLIENT, CONNECTION, Limit
from ..policy.resources import RateLimitMatch, Resources, StringMatch
from ..policy.tables import Tables
from .xds_node import JSON, Notes, seconds, typed
from .xds_routes import matched

FILTER = "envoy.filters.http.local_ratelimit"
NETWORK = "envoy.filters.network.local_ratelimit"


def _bucket(limit: Limit) -> JSON:
    return {
        "max_tokens": limit.max_tokens,
        "tokens_per_fill": limit.tokens_per_fill,
        "fill_interval": seconds(limit.fill_interval_s),
    }


def request_limits(
    tables: Tables, resources: Resources, listener: str, port: int, note: Notes, services: Sequence[str] = ()
) -> list[JSON]:
    """HTTP filters. `listener`: inbound, outbound or gateway; `port`: the one that its chain is for, 0: any;
    `services`: the hosts of which one is asked for whatever Host says, as the TLS server name tells."""
    found = []
    for limit in tables.rate_limits.requests.get(listener, ()) if tables.rate_limits is not None else ():
        match = _written(resources, limit)
        if match is None or (limit.port and port and limit.port != port):
            continue
        why = ""
        if limit.per == CLIENT:
            why = "a bucket of each client (per: CLIENT)"
        elif limit.route is not None:
            why = "`match.route`"
        elif limit.port and not port:
            why = "`match.port` of what goes out"
        if why:
            note(f"LocalRateLimit {limit.key} limit {limit.name}: {why} is not carried out by xDS; nothing is limited")
            continue
        named = bool(services) and all(_is_for(limit, one) for one in services)
        found.append(_http(limit, match, not named))
    return found


def _written(resources: Resources, limit: Limit) -> RateLimitMatch | None:
    for rule in resources.local_rate_limits:
        if rule.meta.key == limit.key:
            return next((one.match for one in rule.spec.limits if one.name == limit.name), None)
    return None


def _is_for(limit: Limit, host: str) -> bool:
    return host in limit.hosts or any(covers(suffix, host) for suffix in limit.suffixes)


def _http(limit: Limit, match: RateLimitMatch, by_host: bool) -> JSON:
    entry = {"key": "header_match", "value": limit.label}
    headers = _headers(limit, match, by_host) or [{"name": ":method", "present_match": True}]
    action = {"header_value_match": {"descriptor_value": limit.label, "headers": headers}}
    whole: JSON = {"numerator": 100, "denominator": "HUNDRED"}
    config = typed(
        "filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix=limit.label.replace("/", "_"),
        status={"code": limit.status},
        filter_enabled={"default_value": whole},
        filter_enforced={
            "default_value": {"numerator": round(limit.enforced_percentage * 10_000), "denominator": "MILLION"}
        },
        # Envoy wants a bucket for all else, which nothing takes from.
        token_bucket={**_bucket(limit), "max_tokens": 4294967295},
        always_consume_default_token_bucket=False,
        descriptors=[{"entries": [entry], "token_bucket": _bucket(limit)}],
        rate_limits=[{"actions": [action]}],
        response_headers_to_add=[
            {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for name, value in limit.headers
        ],
        local_rate_limit_per_downstream_connection=limit.per == CONNECTION,
        rate_limited_as_resource_exhausted=limit.exhausted,
    )
    return {"name": f"fairlead.rate-limit-{limit.label.replace('/', '.')}", "typed_config": config}


def _headers(limit: Limit, match: RateLimitMatch, by_host: bool) -> list[JSON]:
    found = []
    if limit.methods:
        found.append(_regex(":method", "|".join(re.escape(one) for one in sorted(limit.methods))))
    if by_host and (limit.hosts or limit.suffixes):
        hosts = [re.escape(one) for one in sorted(limit.hosts)]
        hosts += [".+" + re.escape(one.lstrip("*")) if one != "*" else ".*" for one in limit.suffixes]
        found.append(_regex(":authority", rf"(?i:{'|'.join(hosts)})\.?(?::[0-9]+)?"))
    if match.uri is not None:
        found.append(_regex(":path", _path(match.uri)))
    found += [matched(name, one) for name, one in match.headers.items()]
    return found


def _regex(name: str, regex: str) -> JSON:
    return {"name": name, "string_match": {"safe_regex": {"regex": regex}}}


def _path(match: StringMatch) -> str:
    """Of a path with its query, where the rule is about the path."""
    if match.exact is not None:
        return rf"{re.escape(match.exact)}(?:\?.*)?"
    if match.prefix is not None:
        return rf"{re.escape(match.prefix)}.*"
    return rf"(?:{match.regex})(?:\?.*)?"


def connection_limits(tables: Tables, listener: str, port: int, note: Notes) -> list[JSON]:
    """Network filters, before all others; chains share a limit's bucket."""
    found = []
    limits: Sequence[Limit] = ()
    if tables.rate_limits is not None:
        limits = tables.rate_limits.connections.get(listener, ())
    for limit in limits:
        if limit.port and port and limit.port != port:
            continue
        if limit.per == CLIENT or not limit.enforced_percentage or (limit.port and not port):
            why = "per: CLIENT" if limit.per == CLIENT else "`port`" if limit.port and not port else "counting alone"
            note(f"LocalRateLimit {limit.key} limit {limit.name}: {why} of connections is not carried out by xDS")
            continue
        name = limit.label.replace("/", "_")
        config = typed(
            "filters.network.local_ratelimit.v3.LocalRateLimit",
            stat_prefix=name, token_bucket=_bucket(limit), share_key=name,
        )  # fmt: skip
        found.append({"name": NETWORK, "typed_config": config})
    return found
