"""AuthorizationPolicy: DENY, then ALLOW, for requests, for opaque connections, and for what is not yet known.

Three questions are asked of a rule: does it match this request; does it match this opaque TCP connection (where HTTP
conditions drop an ALLOW rule and widen a DENY rule, as in Istio); and, before anything was read, may it match some
request, must it match every request. AUDIT rules change no verdict. A policy in the dry-run annotation does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..registry.model import Workload
from .linear_regex import Regex, RegexError
from .match import header_values
from .network_policy import Network, parse_address
from .network_policy import _network as parse_network
from .peer import Peer, split_identity
from .resources import (
    AuthorizationCondition,
    AuthorizationOperation,
    AuthorizationPolicy,
    AuthorizationRule,
    AuthorizationSource,
    MeshConfigSpec,
)
from .tables import Request, Verdict
from .trace import Trace, note
from .visibility import labels_hold

SHOWN_MAX = 200
"""Characters of a value that an explanation repeats."""
DRY_RUN = "istio.io/dry-run"
ALLOWED = Verdict(True, "", "no AuthorizationPolicy applies")


class Subject:
    """What rules look at. `request` is None for an opaque connection, or while nothing was read."""

    __slots__ = ("destination_ip", "path", "peer", "port", "request", "sni")

    def __init__(
        self, peer: Peer, port: int, request: Request | None = None, sni: str = "", destination_ip: str = ""
    ) -> None:
        self.peer = peer
        self.port = port
        """The workload's port."""
        self.request = request
        self.path = request.path.partition("?")[0] if request is not None else ""
        self.sni = sni
        self.destination_ip = destination_ip


Test = Callable[[Subject], bool]


class _Group:
    """Conditions that must all hold; `upper` are those that only a request can answer."""

    __slots__ = ("lower", "upper")

    def __init__(self) -> None:
        self.lower: list[tuple[str, Test]] = []
        self.upper: list[tuple[str, Test]] = []

    def failure(self, subject: Subject, upper: bool) -> str:
        for text, test in self.lower:
            if not test(subject):
                return text
        if upper:
            for text, test in self.upper:
                if not test(subject):
                    return text
        return ""


class Rule:
    __slots__ = ("_from", "_to", "_when", "name", "needs_request")

    def __init__(
        self, rule: AuthorizationRule, name: str, namespace: str, mesh: MeshConfigSpec, refuses: bool = False
    ) -> None:
        """`refuses`: where it matches, the request is denied."""
        self.name = name
        self._from = [_source(one.source, namespace, mesh) for one in rule.from_]
        self._to = [_operation(one.operation) for one in rule.to]
        self._when = _Group()
        for condition in rule.when:
            _condition(condition, self._when, namespace, mesh, refuses)
        self.needs_request = any(group.upper for group in (*self._from, *self._to, self._when))

    @property
    def path(self) -> str:
        return f"spec.rules[{self.name.rpartition(' ')[2]}]"

    def failure(self, subject: Subject, upper: bool = True) -> str:
        """Empty where the rule matches, else the condition that failed. `upper` False leaves HTTP conditions out."""
        for kind, groups in (("from", self._from), ("to", self._to)):
            failures = [group.failure(subject, upper) for group in groups]
            if failures and all(failures):
                return f"{kind}: " + "; ".join(dict.fromkeys(failures))
        failure = self._when.failure(subject, upper)
        return f"when: {failure}" if failure else ""

    def told(self, subject: Subject, upper: bool) -> tuple[str, str]:
        """(in words what was seen and what is wanted, field) of the failure; for explain."""
        for kind, groups in (("from", self._from), ("to", self._to)):
            failures = [group.failure(subject, upper) for group in groups]
            if failures and all(failures):
                told = "; ".join(dict.fromkeys(f"{_seen(one, subject)}" for one in failures))
                path = f".{kind}[0]" if len(failures) == 1 else f".{kind}"
                return f"{kind}: {told}", self.path + path
        failure = self._when.failure(subject, upper)
        return (f"when: {_seen(failure, subject)}", f"{self.path}.when") if failure else ("", self.path)

    def certain(self, subject: Subject) -> bool:
        """Whether it matches every request that may come on this connection."""
        for groups in (self._from, self._to):
            if groups and not any(not group.upper and not group.failure(subject, False) for group in groups):
                return False
        return not self._when.upper and not self._when.failure(subject, False)


class Authorizer:
    """All AuthorizationPolicies of one workload."""

    __slots__ = ("_allow", "_allow_names", "_audit", "_deny", "empty")

    def __init__(self, policies: Sequence[AuthorizationPolicy], workload: Workload, mesh: MeshConfigSpec) -> None:
        self._deny: list[Rule] = []
        self._allow: list[Rule] = []
        self._audit: list[Rule] = []
        self._allow_names: list[str] = []
        for policy in policies:
            if not applies(policy, workload, mesh.root_namespace):
                continue
            refuses = policy.spec.action not in ("ALLOW", "AUDIT")
            rules = [
                Rule(rule, f"AuthorizationPolicy {policy.meta.key} rule {index}", policy.meta.namespace, mesh, refuses)
                for index, rule in enumerate(policy.spec.rules or [])
            ]
            if policy.spec.action == "ALLOW":
                self._allow += rules
                self._allow_names.append(f"AuthorizationPolicy {policy.meta.key}")
            elif policy.spec.action == "AUDIT":
                self._audit += rules
            else:  # DENY, and CUSTOM, which is refused by validation and fails closed here
                self._deny += rules
        self.empty = not (self._deny or self._allow_names)

    def request(self, subject: Subject, trace: Trace | None = None) -> Verdict:
        """The verdict on an HTTP request."""
        if trace is not None:
            for rule in self._audit:
                _note(trace, rule, "audit", subject, True)
        for rule in self._deny:
            failure = rule.failure(subject)
            _note(trace, rule, "deny", subject, True)
            if not failure:
                return Verdict(False, rule.name, f"{rule.name} (DENY) matches")
        return self._allowed(subject, self._allow, True, trace)

    def connection(self, subject: Subject, trace: Trace | None = None) -> Verdict:
        """The verdict on an opaque TCP connection."""
        for rule in self._deny:
            failure = rule.failure(subject, False)
            _note(trace, rule, "deny", subject, False)
            if not failure:
                return Verdict(False, rule.name, f"{rule.name} (DENY) matches the connection")
        usable = [rule for rule in self._allow if not rule.needs_request]
        for rule in self._allow if trace is not None else ():
            if trace is not None and rule.needs_request:
                why = "it asks about requests (methods, paths, headers), and an opaque connection has none"
                note(trace, "authorization", rule.name, "no match", why, rule.name.partition(" rule ")[0], rule.path)
        return self._allowed(subject, usable, False, trace)

    def unread(self, subject: Subject) -> Verdict:
        """Before anything was read: refused only where no request at all would be allowed."""
        for rule in self._deny:
            if rule.certain(subject):
                return Verdict(False, rule.name, f"{rule.name} (DENY) matches whatever is asked")
        return self._allowed(subject, self._allow, False, None)

    def _allowed(self, subject: Subject, rules: Sequence[Rule], upper: bool, trace: Trace | None) -> Verdict:
        if not self._allow_names:
            return ALLOWED if self.empty else Verdict(True, "", "no DENY rule matches, and there is no ALLOW policy")
        for rule in rules:
            failure = rule.failure(subject, upper)
            _note(trace, rule, "allow", subject, upper)
            if not failure:
                return Verdict(True, rule.name, f"{rule.name} (ALLOW) matches")
        names = ", ".join(self._allow_names)
        return Verdict(False, self._allow_names[0], f"no rule of {names} (ALLOW) matches {subject.peer.label}")


def _note(trace: Trace | None, rule: Rule, action: str, subject: Subject, upper: bool) -> None:
    if trace is not None:
        failure, path = rule.told(subject, upper)
        resource = rule.name.partition(" rule ")[0]
        note(trace, "authorization", rule.name, "no match" if failure else action,
             failure or "every condition holds", resource, path)  # fmt: skip


def _seen(failure: str, subject: Subject) -> str:
    """`method is none of GET` as `method is 'POST', wanted GET`: with the value that the rule looked at."""
    name, verb, values = failure.partition(" is none of ")
    negated = not verb
    if negated:
        name, verb, values = failure.partition(" is one of ")
    get = _VALUES.get(name)
    if get is None and name.startswith("request.headers["):
        header = name[len("request.headers[") : -1].lower()
        get = lambda one: ", ".join(header_values(one.request, header)) if one.request is not None else ""  # noqa: E731
    elif get is None and name.startswith("request.auth."):
        get = lambda one: str(_claim(one, _claim_path(name)) or "")  # noqa: E731
    if not verb or get is None:
        return failure
    value = get(subject)
    shown = repr(value[:SHOWN_MAX]) if value else "absent"
    return f"{name} is {shown}, wanted {'none of ' if negated else ''}{values}"


def applies(policy: AuthorizationPolicy, workload: Workload, root_namespace: str) -> bool:
    """Whether the policy selects the workload; in the root namespace it does so everywhere in the mesh."""
    if policy.meta.annotations.get(DRY_RUN, "").lower() == "true":
        return False
    if policy.meta.namespace not in (root_namespace, workload.namespace):
        return False
    selector = policy.spec.selector
    return selector is None or labels_hold(selector.match_labels, workload.labels)


# --- values ---------------------------------------------------------------------------------------------------------


def shape(pattern: str) -> Callable[[str], bool]:
    """A value's shape: exact, `prefix*`, `*suffix`, or `*` for present and not empty."""
    if pattern == "*":
        return lambda text: text != ""
    if pattern.startswith("*"):
        return lambda text: text.endswith(pattern[1:])
    if pattern.endswith("*"):
        return lambda text: text.startswith(pattern[:-1])
    return lambda text: text == pattern


def path_shape(pattern: str) -> Callable[[str], bool]:
    """As `shape`; or a template with `{*}` (one segment) and `{**}` (anything), which is matched as a whole."""
    source = path_pattern(pattern)
    if not source:
        return shape(pattern)
    try:
        return Regex(source).matches
    except RegexError:
        return lambda text: False


def path_pattern(pattern: str) -> str:
    """The regular expression of a path template; empty: it is none, but a shape."""
    if "{*}" not in pattern and "{**}" not in pattern:
        return ""
    return "".join({"{*}": "[^/]+", "{**}": ".*"}.get(part) or _quoted(part) for part in _template_parts(pattern))


def _template_parts(pattern: str) -> list[str]:
    parts, rest = [], pattern
    while rest:
        starts = [at for at in (rest.find("{*}"), rest.find("{**}")) if at >= 0]
        if not starts:
            parts.append(rest)
            break
        at = min(starts)
        operator = "{**}" if rest.startswith("{**}", at) else "{*}"
        parts += [rest[:at], operator] if at else [operator]
        rest = rest[at + len(operator) :]
    return parts


def _quoted(text: str) -> str:
    return "".join(character if character.isalnum() else f"\\{character}" for character in text)


def any_of(patterns: Sequence[str], make: Callable[[str], Callable[[str], bool]] = shape) -> Callable[[str], bool]:
    tests = [make(pattern) for pattern in patterns]
    return lambda text: any(test(text) for test in tests)


def _pair(
    conditions: list[tuple[str, Test]],
    name: str,
    values: Sequence[str],
    not_values: Sequence[str],
    make: Callable[[Sequence[str]], Test],
) -> None:
    """Add the positive and the negative list of one field; both are required where both are given."""
    if values:
        conditions.append((f"{name} is none of {', '.join(values)}", make(values)))
    if not_values:
        positive = make(not_values)
        conditions.append((f"{name} is one of {', '.join(not_values)}", lambda subject: not positive(subject)))


def _text(
    get: Callable[[Subject], str], make: Callable[[str], Callable[[str], bool]] = shape
) -> Callable[[Sequence[str]], Test]:
    def test_of(values: Sequence[str]) -> Test:
        test = any_of(values, make)
        return lambda subject: test(get(subject))

    return test_of


def _principal(subject: Subject) -> str:
    return subject.peer.identity.removeprefix("spiffe://")


def _identity_part(index: int) -> Callable[[Subject], str]:
    def part(subject: Subject) -> str:
        split = split_identity(subject.peer.identity)
        return split[index] if split is not None else ""

    return part


def _principals(mesh: MeshConfigSpec) -> Callable[[Sequence[str]], Test]:
    """With trust-domain aliases: the exact five-segment form stands for the local domain and all aliases."""
    domains = (mesh.trust_domain, *mesh.trust_domain_aliases)

    def test_of(values: Sequence[str]) -> Test:
        patterns: list[str] = []
        for value in values:
            domain, slash, rest = value.partition("/")
            if slash and rest.count("/") == 3 and domain in (*domains, "cluster.local"):
                patterns += [f"{own}/{rest}" for own in domains]
            else:
                patterns.append(value)
        test = any_of(patterns)
        return lambda subject: test(_principal(subject))

    return test_of


def _service_accounts(namespace: str) -> Callable[[Sequence[str]], Test]:
    def test_of(values: Sequence[str]) -> Test:
        pairs = {tuple(value.split("/", 1)) if "/" in value else (namespace, value) for value in values}

        def test(subject: Subject) -> bool:
            split = split_identity(subject.peer.identity)
            return split is not None and (split[1], split[2]) in pairs

        return test

    return test_of


def _addresses(get: Callable[[Subject], str]) -> Callable[[Sequence[str]], Test]:
    def test_of(values: Sequence[str]) -> Test:
        networks: list[Network] = [network for network in map(parse_network, values) if network is not None]
        readable = len(networks) == len(values)

        def test(subject: Subject) -> bool:
            address = parse_address(get(subject))
            return readable and address is not None and any(address in network for network in networks)

        return test

    return test_of


def _peer_ip(subject: Subject) -> str:
    return subject.peer.ip


def _method(subject: Subject) -> str:
    return subject.request.method if subject.request is not None else ""


def _host(subject: Subject) -> str:
    return subject.request.authority.lower() if subject.request is not None else ""


def _source(source: AuthorizationSource, namespace: str, mesh: MeshConfigSpec) -> _Group:
    group = _Group()
    low, high = group.lower, group.upper
    _pair(low, "principal", source.principals, source.not_principals, _principals(mesh))
    _pair(low, "namespace", source.namespaces, source.not_namespaces, _text(_identity_part(1)))
    _pair(low, "service account", source.service_accounts, source.not_service_accounts, _service_accounts(namespace))
    _pair(low, "source address", source.ip_blocks, source.not_ip_blocks, _addresses(_peer_ip))
    _pair(low, "remote address", source.remote_ip_blocks, source.not_remote_ip_blocks, _addresses(_peer_ip))
    _pair(high, "request principal", source.request_principals, source.not_request_principals, _text(request_principal))
    return group


def _operation(operation: AuthorizationOperation) -> _Group:
    group = _Group()
    _pair(group.lower, "port", operation.ports, operation.not_ports, _text(lambda subject: str(subject.port)))
    _pair(
        group.upper, "host", operation.hosts, operation.not_hosts, _text(_host, lambda pattern: shape(pattern.lower()))
    )
    _pair(group.upper, "method", operation.methods, operation.not_methods, _text(_method))
    _pair(group.upper, "path", operation.paths, operation.not_paths, _text(lambda subject: subject.path, path_shape))
    return group


def _condition(
    condition: AuthorizationCondition, group: _Group, namespace: str, mesh: MeshConfigSpec, refuses: bool
) -> None:
    key = condition.key
    lower: dict[str, Callable[[Sequence[str]], Test]] = {
        "source.ip": _addresses(_peer_ip),
        "remote.ip": _addresses(_peer_ip),
        "source.namespace": _text(_identity_part(1)),
        "source.serviceAccount": _service_accounts(namespace),
        "source.principal": _principals(mesh),
        "source.trustDomain": _text(_identity_part(0)),
        "destination.ip": _addresses(lambda subject: subject.destination_ip),
        "destination.port": _text(lambda subject: str(subject.port)),
        "connection.sni": _text(lambda subject: subject.sni),
    }
    if key in lower:
        _pair(group.lower, key, condition.values, condition.not_values, lower[key])
    elif key.startswith("request.headers[") and key.endswith("]"):
        name = key[len("request.headers[") : -1].lower()
        _pair(group.upper, key, condition.values, (), _lines(name, not refuses))
        _pair(group.upper, key, (), condition.not_values, _lines(name, refuses))
    elif key == "request.auth.principal":
        _pair(group.upper, key, condition.values, condition.not_values, _text(request_principal))
    elif key.startswith("request.auth."):
        path = _claim_path(key)
        _pair(group.upper, key, condition.values, condition.not_values, _claims(path))
    else:  # validation refuses unknown keys; a condition that cannot be read never holds
        group.lower.append((f"unknown key {key}", lambda subject: False))


def _lines(name: str, every: bool) -> Callable[[Sequence[str]], Test]:
    """A header's values. Of one with several lines each is looked at, as in Envoy, and what is in doubt is refused:
    another line beside them neither grants what needs a value (`every`) nor hides one that is denied."""

    def test_of(values: Sequence[str]) -> Test:
        test = any_of(values)

        def holds(subject: Subject) -> bool:
            found = header_values(subject.request, name) if subject.request is not None else []
            return bool(found) and (all if every else any)(test(one) for one in found)

        return holds

    return test_of


# --- tokens: claims come with the request where a verified token gave them --------------------------------------------


def _claims_of(subject: Subject) -> Mapping[str, Any]:
    claims = getattr(subject.request, "claims", None)
    return claims if isinstance(claims, Mapping) else {}


def request_principal(subject: Subject) -> str:
    """`iss/sub` of a verified token; empty where there is none or one of the two is missing."""
    claims = _claims_of(subject)
    issuer, name = claims.get("iss"), claims.get("sub")
    return f"{issuer}/{name}" if isinstance(issuer, str) and isinstance(name, str) and issuer and name else ""


def _claim_path(key: str) -> list[str]:
    if key == "request.auth.audiences":
        return ["aud"]
    if key == "request.auth.presenter":
        return ["azp"]
    return key.removeprefix("request.auth.claims").replace("]", "").split("[")[1:]


def _claim(subject: Subject, path: Sequence[str]) -> Any:
    value: Any = _claims_of(subject)
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _claims(path: Sequence[str]) -> Callable[[Sequence[str]], Test]:
    def test_of(values: Sequence[str]) -> Test:
        test = any_of(values)

        def holds(subject: Subject) -> bool:
            value = _claim(subject, path)
            if isinstance(value, str):
                found = value.split(" ") if path[-1:] in (["scope"], ["permission"]) else [value]
            else:
                found = [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
            return bool(path) and any(test(one) for one in found)

        return holds

    return test_of


# --- what explain shows of a subject, by the name of a condition ------------------------------------------------------


def _account(subject: Subject) -> str:
    split = split_identity(subject.peer.identity)
    return f"{split[1]}/{split[2]}" if split is not None else ""


_VALUES: dict[str, Callable[[Subject], str]] = {
    "principal": _principal, "source.principal": _principal, "namespace": _identity_part(1),
    "source.namespace": _identity_part(1), "service account": _account, "source.serviceAccount": _account,
    "source.trustDomain": _identity_part(0), "source address": _peer_ip, "remote address": _peer_ip,
    "source.ip": _peer_ip, "remote.ip": _peer_ip, "request principal": request_principal,
    "request.auth.principal": request_principal, "destination.ip": lambda subject: subject.destination_ip,
    "destination.port": lambda subject: str(subject.port), "port": lambda subject: str(subject.port),
    "connection.sni": lambda subject: subject.sni, "host": _host, "method": _method,
    "path": lambda subject: subject.path,
}  # fmt: skip
