"""What must hold of a RequestAuthentication beyond its schema; source: Istio's webhook, and what is unsafe besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..registry.schema import Findings
from .request_authentication import inline_faults
from .validate_security import check_selector
from .validate_values import check_header_name, forbidden, invalid, listed, required, warn

Object = Mapping[str, Any]
OURS = frozenset(
    (
        "host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive", "expect",
        "proxy-connection", "authorization", "cookie", "x-forwarded-for", "x-forwarded-proto",
        "x-forwarded-client-cert", "x-request-id", "http2-settings",
    )
)  # fmt: skip
"""Headers that no claim may be written to."""


def check_request_authentication(found: Findings, spec: Object) -> None:
    check_selector(found, spec)
    rules = listed(spec, "jwtRules")
    if not rules:
        warn(found, "spec.jwtRules", "is empty: the object has no effect")
    seen: dict[tuple[str, str], int] = {}
    for index, rule in enumerate(rules):
        path = f"spec.jwtRules[{index}]"
        _check_rule(found, path, rule)
        before = seen.setdefault((rule.get("issuer", ""), str(rule.get("jwks") or rule.get("jwksUri"))), index)
        if before != index and rules[before].get("audiences") == rule.get("audiences"):
            warn(found, path, f"says the same of {rule.get('issuer')} as spec.jwtRules[{before}]")


def _check_rule(found: Findings, path: str, rule: Object) -> None:
    if rule.get("issuer") == "":
        required(found, f"{path}.issuer", "the claim iss of the tokens")
    uris = [key for key in ("jwksUri", "jwks_uri") if rule.get(key)]
    if len(uris) == 2:
        forbidden(found, f"{path}.jwks_uri", "is another name of jwksUri: give one")
    if uris and rule.get("jwks"):
        forbidden(found, f"{path}.jwks", f"may not stand next to {uris[0]}: only one of them may be given")
    for key in uris:
        _check_url(found, f"{path}.{key}", rule[key])
    if not uris and not rule.get("jwks"):
        issuer = str(rule.get("issuer") or "")
        if not issuer.startswith(("https://", "http://")):
            required(
                found, f"{path}.jwks", "jwks or jwksUri, as the issuer is no URL at which keys could be discovered"
            )
        else:
            _check_url(found, f"{path}.issuer", issuer)
    if rule.get("jwks"):
        fault, single = inline_faults(rule["jwks"])
        if fault:
            invalid(found, f"{path}.jwks", "...", fault)
        for one in single if not fault else ():
            (invalid(found, f"{path}.jwks", "...", one) if "private" in one
             else warn(found, f"{path}.jwks", f"{one}: it is left out"))  # fmt: skip
    for key in ("audiences", "fromParams", "fromCookies", "spaceDelimitedClaims"):
        for index, value in enumerate(listed(rule, key)):
            if not value:
                invalid(found, f"{path}.{key}[{index}]", "", "may not be empty")
    for index, header in enumerate(listed(rule, "fromHeaders")):
        check_header_name(found, f"{path}.fromHeaders[{index}].name", header.get("name", ""))
    if rule.get("outputPayloadToHeader"):
        _check_output(found, f"{path}.outputPayloadToHeader", rule["outputPayloadToHeader"])
    for index, one in enumerate(listed(rule, "outputClaimToHeaders")):
        _check_output(found, f"{path}.outputClaimToHeaders[{index}].header", one.get("header", ""))
        if not one.get("claim"):
            required(found, f"{path}.outputClaimToHeaders[{index}].claim", "the claim's name")


def _check_output(found: Findings, path: str, name: str) -> None:
    check_header_name(found, path, name)
    if name.lower() in OURS or name.startswith(":"):
        forbidden(found, path, f"{name} has a meaning of its own; use a header such as x-jwt-payload")


def _check_url(found: Findings, path: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or any(c <= " " or c == "\x7f" for c in url):
        invalid(
            found, path, url[:200], "must be a URL such as https://issuer.example.com/jwks.json, without user or blanks"
        )
    elif parts.scheme == "http":
        warn(found, path, "keys that come by http can be replaced on the way, and with them every token; use https")
