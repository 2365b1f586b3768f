"""RequestAuthentication as Envoy's filter jwt_authn: tokens of end users proved there as a sidecar proves them.

The filter gets the keys themselves, those of an inline `jwks` or what control fetched from a `jwksUri` (`xds_keys`),
and leaves the claims of a proved token as metadata, of which AuthorizationPolicies ask (`claim_rule`). What Envoy would
overlook and an application behind it might take for proved is refused by a rule of its own before the others: a scheme
of Authorization spelled otherwise, a query parameter given twice, and tokens in cookies. gRPC has no such filter.
"""

from __future__ import annotations

import itertools
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256

from ..policy.json_web_token import LEEWAY_S, TokenError, read_keys
from ..policy.request_authentication import COOKIE, HEADER, PARAMETER, Place, TokenRule, TokenRules
from .xds_node import JSON, Notes, typed

FILTER = "envoy.filters.http.jwt_authn"
PAYLOAD = "payload"
"""Where in the filter's metadata the claims stand."""
NEVER = "never"
"""A provider whose token nobody has."""
NOWHERE: JSON = {"name": "x-fairlead-no-token", "value_prefix": "\x7f"}
"""A place where no token can stand; without any place Envoy looks into those that are usual."""
SPELLINGS = ("Bearer", "bearer", "BEARER")
"""Of the scheme that Envoy, which compares letter by letter, is told of."""
SPACED = ("scope", "permission")
Keys = Callable[[tuple[str, str]], str]
"""The set of keys by `TokenRule.keys_from`, where it is no inline one, as it came; empty: it is not there (yet)."""
_UNKNOWN = urlsafe_b64encode(sha256(b"Fairlead: a key that proves nothing").digest()).rstrip(b"=").decode()
NO_KEYS = json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": _UNKNOWN}]})
"""Envoy takes no empty set. This is the digest of a sentence in place of a key, so nobody has the private one."""


def proving_keys(text: str) -> str:
    """Those keys of a set that may prove tokens, as we judge them: no secret ones, none of another use. Empty: none."""
    try:
        good, _ = read_keys(text.encode())
    except TokenError:
        return ""
    return json.dumps({"keys": good}, sort_keys=True) if good else ""


def token_filters(tokens: TokenRules, keys: Keys, note: Notes) -> list[JSON]:
    """Filters for the beginning of a chain of HTTP: nobody else says what the rules' headers say, then the proof."""
    found = []
    stripped = [each for name in tokens.stripped for each in dict.fromkeys((name, name.replace("-", "_")))]
    if stripped:  # the filter does it too, but not for a preflight, and not for the names as CGI has them
        mutations = {"request_mutations": [{"remove": name} for name in stripped]}
        config = typed("filters.http.header_mutation.v3.HeaderMutation", mutations=mutations)
        found.append({"name": "fairlead.token-headers", "typed_config": config})
    providers = {rule.by: _provider(rule, keys, note) for rule in tokens.rules}
    providers[NEVER] = {
        "issuer": NEVER, "local_jwks": {"inline_string": NO_KEYS},
        "from_headers": [NOWHERE],
    }  # fmt: skip
    own = [{"provider_name": name} for name in providers if name != NEVER]
    rules: list[JSON] = [
        {"match": {"prefix": "/", "headers": [one]}, "requires": {"provider_name": NEVER}}
        for one in _doubtful(tokens, note)
    ]
    rules.append({"match": {"prefix": "/"}, "requires": _requirement(own)})
    config = typed(
        "filters.http.jwt_authn.v3.JwtAuthentication", providers=providers, rules=rules, bypass_cors_preflight=True
    )
    return [*found, {"name": FILTER, "typed_config": config}]


def _requirement(own: list[JSON]) -> JSON:
    """One good token is enough, and none is needed; a bad one is refused (istiod's form)."""
    missing: JSON = {"allow_missing": {}}

    def any_of(parts: list[JSON]) -> JSON:
        return {"requires_any": {"requirements": parts}}

    if len(own) == 1:
        return any_of([*own, missing])
    each = {"requires_all": {"requirements": [any_of([one, missing]) for one in own]}}
    return any_of([*own, each])


def _provider(rule: TokenRule, keys: Keys, note: Notes) -> JSON:
    kind, where = rule.keys_from
    known = proving_keys(where if kind == "inline" else keys(rule.keys_from))
    if not known:
        note(f"{rule.by}: there are no keys of {rule.issuer} (yet); requests with its tokens are refused")
    headers: list[JSON] = []
    for place in rule.places:
        if place.kind == HEADER:
            headers += [{"name": place.name, "value_prefix": one} for one in _prefixes(place)]
    made: JSON = {
        "issuer": rule.issuer,
        "audiences": sorted(rule.audiences),
        "local_jwks": {"inline_string": known or NO_KEYS},
        "forward": rule.forward,
        "from_headers": headers or [NOWHERE],
        "from_params": [one.name for one in rule.places if one.kind == PARAMETER],
        "payload_in_metadata": PAYLOAD,
        "normalize_payload_in_metadata": {"space_delimited_claims": list(dict.fromkeys(rule.spaced))},
        "clock_skew_seconds": int(LEEWAY_S),
        "claim_to_headers": [{"header_name": name, "claim_name": claim} for name, claim in rule.claim_headers],
    }
    if rule.payload_header:
        made["forward_payload_header"] = rule.payload_header
    return made


def _prefixes(place: Place) -> list[str]:
    if place.name == "authorization" and place.prefix.lower() == "bearer ":
        return [f"{one} " for one in SPELLINGS]
    return [place.prefix]


def _doubtful(tokens: TokenRules, note: Notes) -> list[JSON]:
    """Headers that are refused whatever stands beside them."""
    found = []
    places = {str(place): place for rule in tokens.rules for place in rule.places}
    for place in places.values():
        if place.kind == HEADER and place.name == "authorization" and place.prefix.strip():
            found.append(_header("authorization", _misspelled(place.prefix.strip())))
        elif place.kind == PARAMETER:
            name = escaped(place.name)
            found.append(_header(":path", rf"[^?]*\?(?:.*&)?{name}=.*&{name}=.*"))
        elif place.kind == COOKIE:
            # Envoy proves the first of several lines of Cookie, leaves all of them, and cannot be asked how many are
            # there: the app might read one that nobody has proved.
            note(f"tokens in the cookie {place.name} are not carried out by xDS; requests with it are refused")
            found.append(_header("cookie", rf"(?:.*;)?[ \t]*{re.escape(place.name)}=.*"))
    return found


def _header(name: str, regex: str) -> JSON:
    return {"name": name, "string_match": {"safe_regex": {"regex": regex}}}


def _misspelled(word: str) -> str:
    """A scheme that means the word but is not spelled as the filter is told, or is followed by a tab."""
    told = set(SPELLINGS) if word.lower() == "bearer" else {word}
    letters = [dict.fromkeys((c.lower(), c.upper())) for c in word[:8]]
    others = ["".join(one) + word[8:] for one in itertools.product(*letters)]
    wrong = "|".join(re.escape(one) for one in others if one not in told)
    return rf"(?:.*,)?[ \t]*(?:(?:{wrong})[ \t].*|(?i:{re.escape(word)})\t.*)"


def escaped(name: str) -> str:
    """A regular expression of a parameter's name, each character as it is or in percent-encoding."""
    return "".join(f"(?:{re.escape(c)}|(?i:{''.join(f'%{octet:02x}' for octet in c.encode())}))" for c in name)


# --- what policies ask of a token -------------------------------------------------------------------------------------


def claim_rule(path: Sequence[str], match: JSON) -> JSON:
    """A condition (of a Permission, or a Principal) that holds of a claim's text, or of one of its texts."""
    one: JSON = {"string_match": match}
    either = {"or_match": {"value_matchers": [one, {"list_match": {"one_of": one}}]}}
    segments = [{"key": key} for key in (PAYLOAD, *path)]
    return {"metadata": {"filter": FILTER, "path": segments, "value": either}}


def claim_rules(path: Sequence[str], match: JSON, value: str) -> list[JSON]:
    """As `claim_rule`; of nested scopes, which Envoy leaves as they are, each of the words. Empty: nothing holds."""
    if not path:
        return []
    found = [claim_rule(path, match)]
    if path[-1] in SPACED and len(path) > 1:
        found.append(claim_rule(path, {"safe_regex": {"regex": rf"(?:[^ ]* )*{_word(value)}(?: [^ ]*)*"}}))
    return found


def _word(value: str) -> str:
    if value == "*":
        return "[^ ]+"
    if value.startswith("*"):
        return "[^ ]*" + re.escape(value[1:])
    if value.endswith("*"):
        return re.escape(value[:-1]) + "[^ ]*"
    return re.escape(value)


def principal_rules(issuers: Sequence[str], value: str) -> list[list[JSON]]:
    """Alternatives, each a list of conditions that must all hold, under which `issuer/subject` of a proved token has
    the shape `value`. The issuer is one of those that the rules name, so the text is taken apart before it is there."""

    def sub(match: JSON) -> JSON:
        return claim_rule(("sub",), match)

    anything: JSON = {"safe_regex": {"regex": "(?s:.+)"}}
    found: list[list[JSON]] = []
    for issuer in dict.fromkeys(issuers):
        own, before = claim_rule(("iss",), {"exact": issuer}), f"{issuer}/"
        if value == "*":
            found.append([own, sub(anything)])
        elif value.startswith("*"):
            tail = value[1:]
            found.append([own, sub(anything), sub({"suffix": tail})])
            for at in range(1, len(tail)):
                if before.endswith(tail[:at]):
                    found.append([own, sub({"exact": tail[at:]})])
            if before.endswith(tail):  # a subject is never empty, so the text never ends there
                continue
        elif value.endswith("*"):
            head = value[:-1]
            if before.startswith(head):
                found.append([own, sub(anything)])
            elif head.startswith(before):
                found.append([own, sub({"prefix": head.removeprefix(before)})])
        elif value.startswith(before) and value != before:
            found.append([own, sub({"exact": value.removeprefix(before)})])
    return found
