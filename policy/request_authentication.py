"""RequestAuthentication: which tokens a workload takes, where they stand in a request, and what is told of them.

A request without a token passes (an AuthorizationPolicy with requestPrincipals demands one); one with a token that
cannot be proved does not. Of several tokens one good one is enough, as with Istio; two in one place are refused, since
the app behind us may read the other one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote_plus

from ..registry.model import Workload
from .json_web_token import TokenError, audience_fault, plain_audience, read_keys, time_fault
from .resources import JWTRule, RequestAuthentication
from .tables import Request
from .visibility import labels_hold

TIMEOUT_S = 5.0
MISSED_ISSUER = "Jwt issuer is not configured"
TWICE = "the request has several tokens in one place"
HEADER, PARAMETER, COOKIE = "header", "query parameter", "cookie"


class Refusal:
    """Why a request with a token goes no further."""

    __slots__ = ("by", "status", "why")

    def __init__(self, status: int, by: str, message: str) -> None:
        self.status = status
        """401, or 403 for an audience that is not allowed (Envoy)."""
        self.by = by
        """`RequestAuthentication namespace/name rule N`, or those that were asked."""
        self.why = message


class Place:
    """Where a token may stand."""

    __slots__ = ("kind", "name", "prefix")

    def __init__(self, kind: str, name: str, prefix: str = "") -> None:
        self.kind = kind
        self.name = name
        self.prefix = prefix

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def tokens(self, request: Request) -> list[str]:
        """All that may be a token here, in order."""
        if self.kind == HEADER:
            found = []
            for value in request.values(self.name):
                value = value.replace("\t", " ") if self.name == "authorization" else value
                begin = value[: len(self.prefix)]
                # The scheme of Authorization is a word of any case (RFC 9110 section 11.1).
                same = begin.lower() == self.prefix.lower() if self.name == "authorization" else begin == self.prefix
                if same and value[len(self.prefix) :].strip():
                    found.append(value[len(self.prefix) :].strip())
            return found
        if self.kind == PARAMETER:
            query = request.path.partition("?")[2].partition("#")[0]
            pairs = [part.partition("=") for part in query.split("&")]
            return [unquote_plus(value) for key, _, value in pairs if unquote_plus(key) == self.name and value]
        return [value.strip('"') for key, value in cookies(request) if key == self.name and value]


def cookies(request: Request) -> list[tuple[str, str]]:
    found = []
    for line in request.values("cookie"):
        for part in line.split(";"):
            key, equals, value = part.strip(" \t").partition("=")
            if equals:
                found.append((key, value))
    return found


DEFAULT_PLACES = (Place(HEADER, "authorization", "Bearer "), Place(PARAMETER, "access_token"))


class TokenRule:
    """One issuer's tokens, as one rule of one RequestAuthentication takes them."""

    __slots__ = (
        "audiences", "by", "claim_headers", "forward", "issuer", "jwks", "jwks_uri", "payload_header", "places",
        "spaced", "timeout_s",
    )  # fmt: skip

    def __init__(self, rule: JWTRule, by: str) -> None:
        self.by = by
        self.issuer = rule.issuer
        self.audiences = frozenset(map(plain_audience, rule.audiences))
        self.jwks = rule.jwks
        self.jwks_uri = rule.jwks_uri or rule.jwks_uri_old
        """Where the keys are; empty with `jwks` empty, too: where OpenID Connect's discovery says."""
        places = [Place(HEADER, one.name.lower(), one.prefix) for one in rule.from_headers]
        places += [Place(PARAMETER, name) for name in rule.from_params]
        places += [Place(COOKIE, name) for name in rule.from_cookies]
        self.places: Sequence[Place] = places or DEFAULT_PLACES
        self.payload_header = rule.output_payload_to_header.lower()
        self.claim_headers = [(one.header.lower(), one.claim) for one in rule.output_claim_to_headers]
        self.forward = rule.forward_original_token
        self.timeout_s = rule.timeout if rule.timeout else TIMEOUT_S
        self.spaced = (*rule.space_delimited_claims, "scope", "permission")

    @property
    def keys_from(self) -> tuple[str, str]:
        """Names the set of keys: (`inline`, text), (`url`, where) or (`issuer`, whose)."""
        if self.jwks:
            return "inline", self.jwks
        return ("url", self.jwks_uri) if self.jwks_uri else ("issuer", self.issuer)

    def fault(self, claims: Mapping[str, Any], now: float) -> Refusal | None:
        """What speaks against a token whose signature is good."""
        try:
            wrong = time_fault(claims, now)
            if wrong:
                return Refusal(401, self.by, wrong)
            wrong = audience_fault(claims, self.audiences)
        except TokenError as error:
            return Refusal(401, self.by, str(error))
        return Refusal(403, self.by, wrong) if wrong else None

    def shown(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """The claims as policies see them: those that are lists written as text are lists."""
        spaced = {name: claims[name].split(" ") for name in self.spaced if isinstance(claims.get(name), str)}
        return {**claims, **spaced} if spaced else claims


class Candidate:
    """A token found in a request, with the rule in whose place it stands."""

    __slots__ = ("place", "rule", "text")

    def __init__(self, rule: TokenRule, place: Place, text: str) -> None:
        self.rule = rule
        self.place = place
        self.text = text


class TokenRules:
    """All rules of one workload. `stripped`: headers that only we may set, in lower case."""

    __slots__ = ("by", "policies", "rules", "stripped")

    def __init__(self, rules: Sequence[TokenRule], policies: Sequence[RequestAuthentication] = ()) -> None:
        self.rules = tuple(rules)
        self.policies = tuple(policies)
        """That the rules are of."""
        self.by = ", ".join(dict.fromkeys(rule.by.partition(" rule ")[0] for rule in rules))
        named = [rule.payload_header for rule in rules] + [name for rule in rules for name, _ in rule.claim_headers]
        self.stripped = tuple(dict.fromkeys(name for name in named if name))

    def candidates(self, request: Request) -> list[Candidate] | Refusal:
        found = []
        for rule in self.rules:
            for place in rule.places:
                tokens = place.tokens(request)
                if len(tokens) > 1:
                    return Refusal(401, rule.by, f"{TWICE} ({place})")
                found += [Candidate(rule, place, text) for text in tokens]
        return found


def is_preflight(request: Request) -> bool:
    """CORS preflights carry no credentials (Fetch), so no token is looked for."""
    return (
        request.method == "OPTIONS"
        and request.header("origin") is not None
        and request.header("access-control-request-method") is not None
    )


def token_rules(
    policies: Sequence[RequestAuthentication], root_namespace: str, workload: Workload
) -> TokenRules | None:
    """Those for a workload; None: there are none."""
    rules, own = [], []
    for policy in policies:
        if policy.meta.namespace not in (root_namespace, workload.namespace):
            continue
        selector = policy.spec.selector
        if selector is not None and not labels_hold(selector.match_labels, workload.labels):
            continue
        own.append(policy)
        by = f"RequestAuthentication {policy.meta.key}"
        rules += [TokenRule(rule, f"{by} rule {index}") for index, rule in enumerate(policy.spec.jwt_rules)]
    return TokenRules(rules, own) if rules else None


def claim_text(claims: Mapping[str, Any], path: str) -> str | None:
    """A claim as the value of a header: text, whole number or truth value, `a.b` of nested ones; None: no such."""
    value: Any = claims
    if path in claims:
        value = claims[path]
    else:
        for step in path.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    return None


def inline_faults(text: str) -> tuple[str, list[str]]:
    """(why the keys cannot be used at all, what is to be said of single ones) of a `jwks`."""
    try:
        keys, faults = read_keys(text.encode())
    except TokenError as error:
        return str(error), []
    return ("" if keys else "no key of it can prove a token: " + "; ".join(faults or ["there is none"])), faults
