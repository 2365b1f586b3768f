"""What Kubernetes refuses of an Ingress, and what this mesh cannot carry out of it."""

from __future__ import annotations

from typing import Any

from ..registry.schema import Findings
from .ingress import REWRITE, USE_REGEX
from .linear_regex import RegexError, search_pattern
from .validate_values import check_host, invalid, listed, mapping, required, warn

Object = dict[str, Any]
_BAD = ("//", "/./", "/../", "%2f", "%2F")
NGINX = "nginx.ingress.kubernetes.io/"
CARRIED_OUT = frozenset({REWRITE, USE_REGEX})


def check_ingress(found: Findings, spec: Object, annotations: Object) -> None:
    if not listed(spec, "rules") and spec.get("defaultBackend") is None:
        invalid(found, "spec", "{}", "either `defaultBackend` or `rules` must be specified")
    if spec.get("defaultBackend") is not None:
        _check_backend(found, "spec.defaultBackend", mapping(spec, "defaultBackend"))
    for name in annotations:
        if name.startswith(NGINX) and name not in CARRIED_OUT:
            warn(found, f"metadata.annotations[{name}]", "has no effect here")
    regex = bool(annotations.get(REWRITE)) or annotations.get(USE_REGEX) == "true"
    for index, rule in enumerate(listed(spec, "rules")):
        path = f"spec.rules[{index}]"
        host = rule.get("host", "")
        if host:
            check_host(found, f"{path}.host", host, partial=False)
        for number, one in enumerate(listed(mapping(rule, "http"), "paths")):
            _check_path(found, f"{path}.http.paths[{number}]", one, regex)
    for index, tls in enumerate(listed(spec, "tls")):
        for number, host in enumerate(listed(tls, "hosts")):
            check_host(found, f"spec.tls[{index}].hosts[{number}]", host, partial=False)
        if not tls.get("secretName"):
            warn(found, f"spec.tls[{index}].secretName", "without a Secret there is no TLS for these hosts")


def _check_path(found: Findings, at: str, one: Object, regex: bool) -> None:
    kind, text = one.get("pathType", ""), one.get("path", "")
    _check_backend(found, f"{at}.backend", mapping(one, "backend"))
    if kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            invalid(found, f"{at}.path", text, "must be an absolute path")
        elif not regex and (any(bad in text for bad in _BAD) or text.endswith(("/.", "/.."))):
            invalid(found, f"{at}.path", text, "must not contain '//', '/./', '/../' or an encoded '/'")
    if regex and kind != "Exact":
        try:
            search_pattern(f"(?i)^{text}.*$")
        except RegexError as error:
            invalid(found, f"{at}.path", text, f"is no regular expression that can be used: {error}")


def _check_backend(found: Findings, at: str, backend: Object) -> None:
    service = mapping(backend, "service")
    if not service:
        required(found, f"{at}.service", "only services are backends here")
    elif not mapping(service, "port"):
        required(found, f"{at}.service.port", "port name or number is required")
