"""NetworkPolicy and AuthorizationPolicy of a workload's port as Envoy's RBAC rules, which gRPC has, too.

NetworkPolicy is not translated but asked: of each identity and address that the registry knows, whether our own
verdict admits it; what only addresses say stands beside it. So labels, namespaces and named ports mean what they mean
in a sidecar. AuthorizationPolicy is translated rule by rule, as istiod does. A condition that RBAC cannot hold makes an
ALLOW rule match nobody and drops out of a DENY rule, which then matches more; both are told to `note`. Tokens (of
RequestAuthentication) are proved by a filter before these rules (`xds_tokens`); where there is none (gRPC, ports that
declare no protocol), what has one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..policy.authorize import applies
from ..policy.authorize_values import claim_path, path_pattern, shape
from ..policy.compile_inbound import Inbound
from ..policy.network_policy import parse_address
from ..policy.peer import identify, identity_of
from ..policy.request_authentication import HEADER, PARAMETER, Place
from ..policy.resources import AuthorizationCondition, AuthorizationOperation, AuthorizationRule, AuthorizationSource
from .xds_headers import outside
from .xds_node import JSON, Notes
from .xds_tokens import claim_rules, escaped, principal_rules

DIRECT, REMOTE = "direct_remote_ip", "remote_ip"
NOBODY: JSON = {"not_id": {"any": True}}
ANYBODY: JSON = {"any": True}
UNKNOWN_ACCOUNT = "a-service-account-of-which-no-workload-is-known"


def cidr(text: str) -> JSON:
    """A CidrRange of an address or a block."""
    address, _, length = text.partition("/")
    return {"address_prefix": address, "prefix_len": int(length) if length else 128 if ":" in address else 32}


def _authenticated(**match: Any) -> JSON:
    return {"authenticated": {"principal_name": match}}


def _all(parts: Sequence[JSON], of: str = "ids") -> JSON:
    if not parts:
        return ANYBODY
    return parts[0] if len(parts) == 1 else {f"and_{of}": {of: list(parts)}}


def _any(parts: Sequence[JSON], of: str = "ids") -> JSON:
    return parts[0] if len(parts) == 1 else {f"or_{of}": {of: list(parts)}}


# --- NetworkPolicy ---


def network_rules(inbound: Inbound, port: int, mutual: bool) -> JSON | None:
    """Rules that admit whom ingress NetworkPolicy admits to an own port; None: everybody. `mutual`: peers come by
    mutual TLS, else they are known by their address alone."""
    isolation = inbound.isolation
    blocks = isolation.blocks(port) if isolation is not None else None
    if isolation is None or blocks is None:
        return None
    found = []
    for block in blocks:
        ids: list[JSON] = [{"direct_remote_ip": cidr(block.cidr)}]
        ids += [{"not_id": {"direct_remote_ip": cidr(hole)}} for hole in block.except_]
        found.append(_all(ids))
    found += _identities(inbound, port) if mutual else _addresses(inbound, port)
    policy = {"permissions": [ANYBODY], "principals": found or [NOBODY]}
    return {"action": "ALLOW", "policies": {f"NetworkPolicy of {inbound.workload.key}": policy}}


def _verdict(inbound: Inbound, identity: str, address: str, port: int) -> bool:
    assert inbound.isolation is not None
    peer = identify(inbound.snapshot, inbound.resources.mesh.spec, identity, address)
    return inbound.isolation.verdict(peer, port).allowed


def _addresses(inbound: Inbound, port: int) -> list[JSON]:
    known = dict.fromkeys(one for workload in inbound.snapshot.workloads.values() for one in workload.addresses)
    usable = [one for one in known if parse_address(one) is not None]
    return [{"direct_remote_ip": cidr(one)} for one in usable if _verdict(inbound, "", one, port)]


def _identities(inbound: Inbound, port: int) -> list[JSON]:
    snapshot, mesh = inbound.snapshot, inbound.resources.mesh.spec
    domains = (mesh.trust_domain, *mesh.trust_domain_aliases)
    accounts: dict[tuple[str, str], list[str]] = {}
    for workload in snapshot.workloads.values():
        key = (workload.namespace, workload.service_account or "default")
        accounts.setdefault(key, []).extend(workload.addresses)
    found: list[JSON] = []
    refused: dict[str, list[str]] = {}
    for (namespace, account), addresses in sorted(accounts.items()):
        names = [identity_of(domain, namespace, account) for domain in domains]
        if _verdict(inbound, names[0], "", port):
            found += [_authenticated(exact=name) for name in names]
            continue
        refused.setdefault(namespace, []).extend(names)
        admitted = [
            one for one in dict.fromkeys(addresses)
            if parse_address(one) is not None and _verdict(inbound, names[0], one, port)
        ]  # fmt: skip
        for name in names if admitted else ():
            at = _any([{"direct_remote_ip": cidr(one)} for one in admitted])
            found.append(_all([_authenticated(exact=name), at]))
    for namespace in sorted({*snapshot.namespaces, *(one for one, _ in accounts)}):
        if not _verdict(inbound, identity_of(domains[0], namespace, UNKNOWN_ACCOUNT), "", port):
            continue
        holes = [{"not_id": _authenticated(exact=name)} for name in refused.get(namespace, ())]
        for domain in domains:
            found.append(_all([_authenticated(prefix=f"spiffe://{domain}/ns/{namespace}/sa/"), *holes]))
    return found


# --- AuthorizationPolicy ---


def authorization_rules(
    inbound: Inbound, port: int, http: bool, note: Notes, client: str = DIRECT, proved: bool = False
) -> list[JSON]:
    """RBAC rules in the order in which they are asked: what DENY policies say, then what ALLOW policies do.
    `client`: the principal that is the client's address, behind a gateway as well; empty: there is none. `proved`: a
    filter has looked at tokens before."""
    workload, mesh = inbound.workload, inbound.resources.mesh.spec
    denied: JSON = {} if proved else _tokens(inbound, port, http, note)
    allowed: JSON = {}
    has_allow = False
    for policy in inbound.resources.authorization_policies:
        if not applies(policy, workload, mesh.root_namespace) or policy.spec.action == "AUDIT":
            continue
        allow = policy.spec.action == "ALLOW"
        has_allow = has_allow or allow
        for index, rule in enumerate(policy.spec.rules or []):
            name = f"AuthorizationPolicy {policy.meta.key} rule {index}"
            told = partial(_tell, note, name)
            translator = _Rule(inbound, policy.meta.namespace, port, http, not allow, told, client, proved)
            found = translator.policy(rule)
            if found is not None:
                (allowed if allow else denied)[name] = found
    rules = []
    if denied:
        rules.append({"action": "DENY", "policies": denied})
    if has_allow:
        rules.append({"action": "ALLOW", "policies": allowed})
    return rules


def _tokens(inbound: Inbound, port: int, http: bool, note: Notes) -> JSON:
    """What a DENY says in place of RequestAuthentication; a port declared as TCP has no tokens."""
    tokens = inbound.tokens
    if tokens is None or (not http and inbound.ports.get(port)):
        return {}
    if not http:
        note(f"{tokens.by} is not carried out by xDS; port {port}, which declares no protocol, takes nobody")
        return {tokens.by: {"permissions": [ANYBODY], "principals": [ANYBODY]}}
    note(f"{tokens.by} is not carried out by xDS; requests with a token, or a header that it sets, are refused")
    held = [_token_at(place) for rule in tokens.rules for place in rule.places]
    for name in tokens.stripped:
        both = dict.fromkeys((name, name.replace("-", "_")))  # servers with CGI's names read both alike
        held += [{"header": {"name": one, "present_match": True}} for one in both]
    return {tokens.by: {"permissions": held, "principals": [ANYBODY]}}


def _token_at(place: Place) -> JSON:
    """Something that may be a token stands there."""
    name = place.name
    match: JSON
    if place.kind == HEADER:
        begin = place.prefix.strip()
        match = {"string_match": {"contains": begin, "ignore_case": True}} if begin else {"present_match": True}
    elif place.kind == PARAMETER:
        name, match = ":path", {"string_match": {"safe_regex": {"regex": f".*[?&]{escaped(name)}=.*"}}}
    else:
        name, match = "cookie", {"string_match": {"contains": f"{name}="}}
    return {"header": {"name": name, **match}}


class _Rule:
    """One rule for one port."""

    def __init__(
        self, inbound: Inbound, namespace: str, port: int, http: bool, refuses: bool, note: Callable[[str], None],
        client: str, proved: bool,
    ) -> None:  # fmt: skip
        self._mesh = inbound.resources.mesh.spec
        self._namespace = namespace
        self._port = port
        self.http = http
        self.refuses = refuses
        """Where it matches, the request is denied."""
        self.note = note
        self._client = client
        self.claims = proved or inbound.tokens is None
        """Claims can be asked of; where nobody proves tokens by any rule there are none, in a sidecar either."""
        self._issuers = [rule.issuer for rule in inbound.tokens.rules] if inbound.tokens is not None else []
        self._needs_request = False
        """One of its conditions is about requests."""

    def policy(self, rule: AuthorizationRule) -> JSON | None:
        """None: it never matches; of an opaque connection no ALLOW rule does that asks about requests (Istio)."""
        principals = self._sides([self._source(one.source) for one in rule.from_], "ids")
        permissions = self._sides([self._operation(one.operation) for one in rule.to], "rules")
        lower, upper = self._when(rule.when)
        if self._needs_request and not self.http and not self.refuses:
            return None
        if principals is None or permissions is None or lower is None or upper is None:
            return None
        return {
            "permissions": [_all([one, *upper], "rules") for one in permissions],
            "principals": [_all([one, *lower]) for one in principals],
        }

    def asks_about_requests(self) -> None:
        self._needs_request = True

    def _sides(self, groups: Sequence[list[JSON] | None], of: str) -> list[JSON] | None:
        if not groups:
            return [ANYBODY]
        return [_all(group, of) for group in groups if group is not None] or None

    # A group is a list of conditions that must all hold, None where one of them never does.

    def _source(self, source: AuthorizationSource) -> list[JSON] | None:
        group = _Group(self, "ids")
        group.pair(source.principals, source.not_principals, self._principals)
        group.pair(source.namespaces, source.not_namespaces, lambda v: [_part("ns/{}/sa/[^/]+", v)])
        group.pair(source.service_accounts, source.not_service_accounts, self._account)
        group.pair(source.ip_blocks, source.not_ip_blocks, _direct)
        self._remote(group, "remoteIpBlocks", source.remote_ip_blocks, source.not_remote_ip_blocks)
        group.token("requestPrincipals", source.request_principals, source.not_request_principals, self._request)
        return group.made()

    def _operation(self, operation: AuthorizationOperation) -> list[JSON] | None:
        group = _Group(self, "rules")
        ports = [one for one in operation.ports if shape(one)(str(self._port))]
        if operation.ports and not ports:
            group.never()
        if any(shape(one)(str(self._port)) for one in operation.not_ports):
            group.never()
        group.upper(operation.hosts, operation.not_hosts, lambda v: [_header(":authority", v, True)])
        group.upper(operation.methods, operation.not_methods, lambda v: [_header(":method", v)])
        group.upper(operation.paths, operation.not_paths, _path)
        return group.made()

    def _when(self, conditions: Sequence[AuthorizationCondition]) -> tuple[list[JSON] | None, list[JSON] | None]:
        lower, upper = _Group(self, "ids"), _Group(self, "rules")
        makers: dict[str, Callable[[str], list[JSON]]] = {
            "source.ip": _direct,
            "source.namespace": lambda v: [_part("ns/{}/sa/[^/]+", v)],
            "source.serviceAccount": self._account,
            "source.principal": self._principals,
            "source.trustDomain": lambda v: [_part("{}", v, "/ns/.*")],
        }
        for one in conditions:
            key, values, not_values = one.key, one.values, one.not_values
            if key in makers:
                lower.pair(values, not_values, makers[key])
            elif key == "remote.ip":
                self._remote(lower, key, values, not_values)
            elif key == "destination.port":
                held = [v for v in values if shape(v)(str(self._port))]
                if (values and not held) or any(shape(v)(str(self._port)) for v in not_values):
                    upper.never()
            elif key == "destination.ip":
                upper.pair(values, not_values, lambda v: [{"destination_ip": cidr(v)}])
            elif key == "connection.sni":
                upper.pair(values, not_values, lambda v: [{"requested_server_name": _shape(v)}])
            elif key.startswith("request.headers["):
                self._lines(upper, key[len("request.headers[") : -1].lower(), values, not_values)
            elif key == "request.auth.principal":
                lower.token(key, values, not_values, self._request)
            elif key.startswith("request.auth."):
                upper.token(key, values, not_values, partial(self._claims, claim_path(key)))
            else:
                upper.unable(key, values, not_values)
        return lower.made(), upper.made()

    def _lines(self, group: _Group, name: str, values: Sequence[str], not_values: Sequence[str]) -> None:
        """Of several lines of one header each counts: another line beside a good one does not grant (Envoy alone
        would), nor does a good one beside it spare from a DENY."""
        group.upper(values, not_values, lambda v: [_header(name, v)])
        strict = not_values if self.refuses else values
        if not strict or not self.http:
            return
        others = outside(strict)
        if others is None:
            group.unable(f"request.headers[{name}] with prefixes and suffixes", strict, ())
            return
        stray = {"header": {"name": name, "string_match": {"safe_regex": {"regex": others}}}}
        if self.refuses:
            group.widen(stray)
        else:
            group.require({"not_rule": stray})

    def _remote(self, group: _Group, name: str, values: Sequence[str], not_values: Sequence[str]) -> None:
        if self._client:
            group.pair(values, not_values, lambda v: [{self._client: cidr(v)}])
        else:
            group.unable(name, values, not_values)

    def _request(self, value: str) -> list[JSON]:
        return [_all(one) for one in principal_rules(self._issuers, value)]

    def _claims(self, path: Sequence[str], value: str) -> list[JSON]:
        return claim_rules(path, _shape(value), value) if self._issuers else []

    def _principals(self, value: str) -> list[JSON]:
        domains = (self._mesh.trust_domain, *self._mesh.trust_domain_aliases)
        domain, slash, rest = value.partition("/")
        values = [value]
        if slash and rest.count("/") == 3 and domain in (*domains, "cluster.local"):
            values = [f"{own}/{rest}" for own in domains]
        return [{"authenticated": {"principal_name": _shape(one, "spiffe://")}} for one in values]

    def _account(self, value: str) -> list[JSON]:
        namespace, _, account = value.rpartition("/")
        name = f"/ns/{re.escape(namespace or self._namespace)}/sa/{re.escape(account)}"
        return [_authenticated(safe_regex={"regex": f"spiffe://[^/]+{name}"})]


class _Group:
    """Conditions of one source, operation or `when`, of which all must hold."""

    def __init__(self, rule: _Rule, of: str) -> None:
        self._rule = rule
        self._of = of
        self._parts: list[JSON] = []
        self._never = False

    def made(self) -> list[JSON] | None:
        return None if self._never else self._parts

    def never(self) -> None:
        self._never = True

    def require(self, part: JSON) -> None:
        self._parts.append(part)

    def widen(self, part: JSON) -> None:
        """Also where this holds, and the last condition does not."""
        self._parts[-1] = _any([self._parts[-1], part], self._of)

    def pair(self, values: Sequence[str], not_values: Sequence[str], make: Callable[[str], list[JSON]]) -> None:
        if values:
            some = [each for one in values for each in make(one)]
            if some:
                self._parts.append(_any(some, self._of))
            else:
                self._never = True
        if not_values:
            some = [each for one in not_values for each in make(one)]
            if some:
                self._parts.append({"not_id" if self._of == "ids" else "not_rule": _any(some, self._of)})

    def upper(self, values: Sequence[str], not_values: Sequence[str], make: Callable[[str], list[JSON]]) -> None:
        """Conditions that only a request can answer; of an opaque connection a DENY rule does without them (Istio)."""
        if not values and not not_values:
            return
        self._rule.asks_about_requests()
        if self._rule.http:
            self.pair(values, not_values, make)

    def token(
        self, name: str, values: Sequence[str], not_values: Sequence[str], make: Callable[[str], list[JSON]]
    ) -> None:
        """Conditions about what a token says, which was proved before."""
        if self._rule.claims or not self._rule.http:
            self.upper(values, not_values, make)
        else:
            self.unable(name, values, not_values)

    def unable(self, name: str, values: Sequence[str], not_values: Sequence[str]) -> None:
        if not values and not not_values:
            return
        if self._rule.refuses:
            self._rule.note(f"{name} is not carried out by xDS; the rule denies whatever it says")
        else:
            self._rule.note(f"{name} is not carried out by xDS; the rule allows nobody")
            self._never = True


def _shape(value: str, before: str = "") -> JSON:
    """A value's shape (exact, `prefix*`, `*suffix`, `*`) as a StringMatcher of `before` and the value."""
    if value == "*":
        return {"safe_regex": {"regex": f"{re.escape(before)}.+"}}
    if value.startswith("*"):
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": before + value[:-1]}
    return {"exact": before + value}


def _part(template: str, value: str, after: str = "") -> JSON:
    """A part of an identity by the shape of its value."""
    name = "[^/]+" if value == "*" else "[^/]*".join(re.escape(one) for one in value.split("*"))
    before = "spiffe://" if template == "{}" else "spiffe://[^/]+/"
    return _authenticated(safe_regex={"regex": before + template.format(name) + after})


def _direct(value: str) -> list[JSON]:
    return [{"direct_remote_ip": cidr(value)}]


def _header(name: str, value: str, ignore_case: bool = False) -> JSON:
    match = _shape(value)
    if ignore_case and value != "*":
        match["ignore_case"] = True
    return {"header": {"name": name, "string_match": match}}


def _tell(note: Notes, rule: str, why: str) -> None:
    note(f"{rule}: {why}")


def _path(value: str) -> list[JSON]:
    regex = path_pattern(value)
    return [{"url_path": {"path": {"safe_regex": {"regex": regex}} if regex else _shape(value)}}]
