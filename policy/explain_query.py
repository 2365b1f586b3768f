"""A question to `explain`: what the command line's flags or one JSON line say, read and checked."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

KEYS = (
    "method", "url", "headers", "from", "from_namespace", "from_labels", "gateway", "port", "source_ip", "plaintext",
    "jwt_claims", "tcp", "sni", "id",
)  # fmt: skip
_ALSO = {"header": "headers", "from_": "from"}
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class QueryError(ValueError):
    """The question cannot be answered as it is; `str()` names the key and the remedy."""


class Query:
    """Checked; texts empty and `port` 0 where not given."""

    __slots__ = (
        "authority",
        "claims",
        "from_labels",
        "from_namespace",
        "from_workload",
        "gateway",
        "headers",
        "host",
        "id",
        "method",
        "path",
        "plaintext",
        "port",
        "scheme",
        "sni",
        "source_ip",
        "tcp",
        "url_port",
    )

    def __init__(self, given: Mapping[str, Any]) -> None:
        values = _normalised(given)
        self.id: Any = values.get("id")
        self.tcp = _flag(values, "tcp")
        self.plaintext = _flag(values, "plaintext")
        self.from_workload = _text(values, "from")
        self.from_namespace = _text(values, "from_namespace")
        self.gateway = _text(values, "gateway")
        self.source_ip = _text(values, "source_ip")
        self.sni = _text(values, "sni")
        self.from_labels = _labels(values.get("from_labels"))
        self.headers = _headers(values.get("headers"))
        self.claims = _claims(values.get("jwt_claims"))
        self.port = _port(values.get("port"))
        if self.from_workload and self.from_workload.count("/") != 1:
            raise QueryError(f"from: {self.from_workload!r} is not NAMESPACE/WORKLOAD")
        if self.gateway and self.gateway.count("/") != 1:
            raise QueryError(f"gateway: {self.gateway!r} is not NAMESPACE/NAME")
        url = _text(values, "url")
        if not url:
            raise QueryError("url: it is missing; give the URL that the client asks for, as http://HOST:PORT/PATH")
        self._read_url(url)
        self.method = "" if self.tcp else (_text(values, "method") or "GET")
        if self.method and not _METHOD.fullmatch(self.method):
            raise QueryError(f"method: {self.method!r} is not an HTTP method")
        for name, value in self.headers:
            if name in ("host", ":authority"):
                self.authority = value

    def _read_url(self, url: str) -> None:
        if "://" not in url:
            url = f"{'tcp' if self.tcp else 'http'}://{url}"
        try:
            parts = urlsplit(url)
            port = parts.port
            host = parts.hostname or ""
        except ValueError as error:
            raise QueryError(f"url: {url!r}: {error}") from error
        if parts.scheme not in ("http", "https", "tcp"):
            raise QueryError(f"url: {url!r} begins with {parts.scheme}://; use http://, https:// or tcp://")
        if not host:
            raise QueryError(f"url: {url!r} has no host")
        self.tcp = self.tcp or parts.scheme == "tcp"
        self.scheme = parts.scheme
        self.host = host
        self.url_port = port or 0
        self.authority = parts.netloc.rpartition("@")[2]
        self.path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if self.tcp and not (self.port or self.url_port):
            raise QueryError(f"url: {url!r} has no port; an opaque connection needs one, as tcp://HOST:PORT")


def _normalised(given: Mapping[str, Any]) -> dict[str, Any]:
    """Keys like the flags: `from-namespace`, `from_namespace` and `fromNamespace` are one. Nothing is ignored."""
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower().lstrip("-").replace("-", "_")
        name = _ALSO.get(name, name)
        if name not in KEYS:
            near = difflib.get_close_matches(name, KEYS, 1)
            raise QueryError(
                f"{key}: unknown; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(KEYS)}")
            )
        values[name] = value
    return values


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise QueryError(f"{key}: expected text, not {value!r}")
    return value


def _flag(values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key)
    if value not in (None, True, False):
        raise QueryError(f"{key}: expected true or false, not {value!r}")
    return bool(value)


def _port(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise QueryError(f"port: {value!r} is not a port number (1 to 65535)")
    return value


def _labels(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part]
        if any(not equals or not key for key, equals, _ in pairs):
            raise QueryError(f"from_labels: {value!r} is not K=V,K=V")
        return {key.strip(): text.strip() for key, _, text in pairs}
    if isinstance(value, Mapping) and all(isinstance(one, str) for pair in value.items() for one in pair):
        return dict(value)
    raise QueryError(f"from_labels: expected K=V,K=V or an object of texts, not {value!r}")


def _headers(value: Any) -> list[tuple[str, str]]:
    """An object, a list of pairs, or a list of `name: value`."""
    if value is None:
        return []
    items = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(items, (list, tuple)):
        raise QueryError(f"headers: expected an object or a list, not {value!r}")
    found: list[tuple[str, str]] = []
    for item in items:
        if isinstance(item, str):
            name, colon, text = item.partition(":") if not item.startswith(":") else (":", "", "")
            if not colon:
                raise QueryError(f"headers: {item!r} is not 'name: value'")
            found.append((name.strip().lower(), text.strip()))
        elif isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str):
            texts = item[1] if isinstance(item[1], (list, tuple)) else [item[1]]
            found += [(item[0].lower(), str(text)) for text in texts]
        else:
            raise QueryError(f"headers: {item!r} is not 'name: value'")
    return found


def _claims(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise QueryError(f"jwt_claims: not JSON: {error}") from error
    if value is not None and not isinstance(value, Mapping):
        raise QueryError(f"jwt_claims: expected an object of claims, not {value!r}")
    return value
