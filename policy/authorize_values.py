"""What AuthorizationPolicy rules compare: the values of a request or connection, and the shapes that they must have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .linear_regex import Regex, RegexError
from .match import header_values
from .network_policy import Network, parse_address
from .network_policy import _network as parse_network
from .peer import Peer, split_identity
from .resources import AuthorizationCondition, AuthorizationOperation, AuthorizationSource, MeshConfigSpec
from .tables import Request

SHOWN_MAX = 200
"""Characters of a value that an explanation repeats."""


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


class Group:
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


# --- shapes ---------------------------------------------------------------------------------------------------------


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


def _remote_ip(subject: Subject) -> str:
    """The client's address: as the trusted proxies before us tell it; of a peer with a mesh identity (a gateway) as the
    last entry of its X-Forwarded-For; else the peer's own."""
    request = subject.request
    if request is None:
        return subject.peer.ip
    told = getattr(request, "remote_ip", "")
    if told:
        return str(told)
    if subject.peer.identity and request.arrival.listener == "inbound":
        last = (request.header("x-forwarded-for") or "").rpartition(",")[2].strip()
        if last and parse_address(last) is not None:
            return last
    return subject.peer.ip


def _method(subject: Subject) -> str:
    return subject.request.method if subject.request is not None else ""


def _host(subject: Subject) -> str:
    return subject.request.authority.lower() if subject.request is not None else ""


def source_group(source: AuthorizationSource, namespace: str, mesh: MeshConfigSpec) -> Group:
    group = Group()
    low, high = group.lower, group.upper
    _pair(low, "principal", source.principals, source.not_principals, _principals(mesh))
    _pair(low, "namespace", source.namespaces, source.not_namespaces, _text(_identity_part(1)))
    _pair(low, "service account", source.service_accounts, source.not_service_accounts, _service_accounts(namespace))
    _pair(low, "source address", source.ip_blocks, source.not_ip_blocks, _addresses(_peer_ip))
    _pair(low, "remote address", source.remote_ip_blocks, source.not_remote_ip_blocks, _addresses(_remote_ip))
    _pair(high, "request principal", source.request_principals, source.not_request_principals, _text(request_principal))
    return group


def operation_group(operation: AuthorizationOperation) -> Group:
    group = Group()
    _pair(group.lower, "port", operation.ports, operation.not_ports, _text(lambda subject: str(subject.port)))
    _pair(
        group.upper, "host", operation.hosts, operation.not_hosts, _text(_host, lambda pattern: shape(pattern.lower()))
    )
    _pair(group.upper, "method", operation.methods, operation.not_methods, _text(_method))
    _pair(group.upper, "path", operation.paths, operation.not_paths, _text(lambda subject: subject.path, path_shape))
    return group


def add_condition(
    condition: AuthorizationCondition, group: Group, namespace: str, mesh: MeshConfigSpec, refuses: bool
) -> None:
    key = condition.key
    lower: dict[str, Callable[[Sequence[str]], Test]] = {
        "source.ip": _addresses(_peer_ip),
        "remote.ip": _addresses(_remote_ip),
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
        path = claim_path(key)
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


def claim_path(key: str) -> list[str]:
    """The claim that `request.auth...` means, step by step; empty: none."""
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
    "source.trustDomain": _identity_part(0), "source address": _peer_ip, "remote address": _remote_ip,
    "source.ip": _peer_ip, "remote.ip": _remote_ip, "request principal": request_principal,
    "request.auth.principal": request_principal, "destination.ip": lambda subject: subject.destination_ip,
    "destination.port": lambda subject: str(subject.port), "port": lambda subject: str(subject.port),
    "connection.sni": lambda subject: subject.sni, "host": _host, "method": _method,
    "path": lambda subject: subject.path,
}  # fmt: skip


def seen(failure: str, subject: Subject) -> str:
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
        get = lambda one: str(_claim(one, claim_path(name)) or "")  # noqa: E731
    if not verb or get is None:
        return failure
    value = get(subject)
    shown = repr(value[:SHOWN_MAX]) if value else "absent"
    return f"{name} is {shown}, wanted {'none of ' if negated else ''}{values}"
