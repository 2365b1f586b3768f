"""Which rule of the mesh an Envoy or gRPC application refuses, as far as its refusal (NACK) tells.

A refusal is a sentence about a resource of xDS. Rules are named in it where the resource has their names (policies, the
tokens they ask for, servers of Gateways); a cluster's is known by its name, and a VirtualService's by the regular
expression that the sentence repeats. Reasons then begin with kind and name, as those of sidecars do, so that statuses
and events of the rules have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..policy.resources import HTTPMatchRequest, VirtualService
from ..policy.tables import Tables

KINDS = (
    "AuthorizationPolicy", "NetworkPolicy", "RequestAuthentication", "Gateway", "VirtualService", "DestinationRule",
    "PeerAuthentication", "LocalRateLimit",
)  # fmt: skip
_NAMED = re.compile(rf"\b({'|'.join(KINDS)}) ([a-z0-9.-]+/[a-z0-9.-]*[a-z0-9])")
REGEX_LEAST = 3
"""Characters of a regular expression by which its rule is known."""


def origins(tables: Tables) -> dict[str, str]:
    """The rule (`Kind namespace/name`) by a text that a refusal of what it became has in it."""
    found = {
        name: f"DestinationRule {cluster.rule}" for name, cluster in tables.clusters.items() if cluster.rule
    }  # fmt: skip
    rules: dict[str, VirtualService] = {}
    for domains in tables.http.ports.values():
        for virtual in domains.values():
            if virtual.rule is not None:
                rules[virtual.rule.meta.key] = virtual.rule
    for key, rule in sorted(rules.items()):
        for text in _regexes(rule):
            if len(text) >= REGEX_LEAST:
                found.setdefault(f"'{text}'", f"VirtualService {key}")
    return found


def _regexes(rule: VirtualService) -> Iterable[str]:
    for route in rule.spec.http:
        for block in route.match:
            yield from _of_block(block)


def _of_block(block: HTTPMatchRequest) -> Iterable[str]:
    parts = [block.uri, block.method, block.scheme, block.authority, *block.headers.values()]
    parts += [*block.without_headers.values(), *block.query_params.values()]
    for one in parts:
        if one is not None and one.regex:
            yield one.regex


def blamed(reasons: Sequence[str], known: Mapping[str, str]) -> list[str]:
    """The reasons, each once for every rule that it is about, or as it is."""
    found: list[str] = []
    for why in reasons:
        hits = [text for text in known if text in why]
        longest = [one for one in hits if not any(one != other and one in other for other in hits)]
        owners = dict.fromkeys(known[one] for one in longest)
        owners |= dict.fromkeys(f"{kind} {key}" for kind, key in _NAMED.findall(why))
        found += [f"{owner}: {why}" for owner in owners] or [why]
    return list(dict.fromkeys(found))
