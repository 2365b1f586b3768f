"""Where in etcd's keys and values a service's instances are told of: Fairlead's own layout, those of others by name,
and any that a document states.

| name | prefix | keys and values |
|---|---|---|
| `fairlead` | `/services/` | `NAME/INSTANCE` = `{"host": ..., "port": ...}`; see `etcd_values` |
| `skydns` | `/skydns/local/cluster/` | SkyDNS's messages, as of CoreDNS's etcd plugin and registrator's `skydns2` |
| `registrator`, `go-kit` | `/services/` | `NAME/ID` = `HOST:PORT`, or a URL |
| `grpc` | none: state one | `NAME/ADDRESS` = `{"Addr": "HOST:PORT"}`, of etcd's client (naming/endpoints) |
| `go-micro` | `/micro/registry/` | `NAME/NODE` = `{"nodes": [{"id", "address", "metadata"}]}` |
| `kitex` | `kitex/registry-etcd/` | `NAME/ADDRESS` = `{"address", "weight", "tags"}` |

Names of services and instances become DNS labels (`pay.api` is `pay-api`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from .documents import load_mapping
from .etcd_values import Instance, instance, made
from .listed import name_of, settings_of_tags
from .names import CLUSTER_DOMAIN

FIELDS = (
    "address",
    "port",
    "namespace",
    "service",
    "instance",
    "workload",
    "weight",
    "labels",
    "tags",
    "zone",
    "ready",
    "protocol",
    "servicePort",
    "serviceAccount",
    "meshPort",
)
PROTOCOLS = frozenset(("http", "http2", "https", "grpc", "tcp", "tls"))
ENTRIES_MAX = 10_000
"""Instances of one value."""
Paths = tuple[tuple[str, ...], ...]
"""The first of these that is there counts."""


class Layout(msgspec.Struct, frozen=True):
    name: str
    prefix: str
    keys: tuple[tuple[str, ...], ...] = ()
    """Segments below the prefix, each as it stands, or `{VARIABLE}`, `{VARIABLE...}` (several), `{_}` (any); the first
    pattern that fits counts. None: Fairlead's own layout."""
    text: bool = False
    """Whether values are `HOST:PORT` or a URL, not JSON."""
    instances: tuple[str, ...] | None = None
    """Where in the value the list of instances is; None: the value is one (or, itself a list, several)."""
    fields: Mapping[str, Paths] = {}
    defaults: Mapping[str, Any] = {}
    ready_values: tuple[str, ...] = ()
    """What `ready` says of an instance that is, where that is not true or false; lower case."""

    def read(self, key: str, value: bytes, prefix: str, domain: str = CLUSTER_DOMAIN) -> tuple[list[Instance], str]:
        """(the instances of one key and value, what is wrong with others or may be wrong with these). Raises
        ValueError where it has none that can be used."""
        if not self.keys:
            one = instance(key, value, prefix, domain)
            return [one], one.warning
        named = self._named(key.removeprefix(prefix))
        found: list[Instance] = []
        problems: list[str] = []
        entries = self._entries(value)
        for index, entry in enumerate(entries):
            try:
                found.append(self._instance(entry, named, domain))
            except ValueError as error:
                problems.append(f"[{index}]: {error}" if len(entries) > 1 else str(error))
        if problems and not found:
            raise ValueError("; ".join(problems[:5]))
        return found, "; ".join(problems[:5])

    def _named(self, below: str) -> dict[str, str]:
        """What the key says."""
        parts = below.strip("/").split("/")
        for pattern in self.keys:
            found = _fit(pattern, parts)
            if found is not None:
                return found
        raise ValueError("expected a key " + " or ".join("/".join(pattern) for pattern in self.keys))

    def _entries(self, value: bytes) -> list[_Entry]:
        """The instances of a value, each with the whole."""
        if self.text:
            return [_Entry(None, None, text) for text in _texts(value)]
        try:
            told = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from None
        listed = told if self.instances is None else _at(told, self.instances)
        if self.instances is not None and not isinstance(listed, list | dict):
            raise ValueError(f"{'.'.join(self.instances) or 'the value'}: expected a list of instances")
        if isinstance(listed, dict) and self.instances is not None:  # by their names
            listed = list(listed.values())
        entries = listed if isinstance(listed, list) else [listed]
        if len(entries) > ENTRIES_MAX:
            raise ValueError(f"more than {ENTRIES_MAX} instances in one value")
        return [_Entry(one, told, one if isinstance(one, str) else "") for one in entries]

    def _instance(self, entry: _Entry, named: Mapping[str, str], domain: str) -> Instance:
        told: dict[str, Any] = {}
        for name in FIELDS:
            found = entry.text if name == "address" and entry.text else self._field(entry, name)
            if found is None:
                found = named.get(name) or self.defaults.get(name)
            if found is not None:
                told[name] = found
        host, port, protocol = split_address(_text(told, "address"))
        if not host:
            raise ValueError(f"no address: expected one at {_said(self.fields.get('address', ()))}")
        port = port or _number(told, "port", 65535)
        if not port:
            raise ValueError(f"no port: expected one at {_said(self.fields.get('port', ()))}, or in `defaults`")
        service = name_of(_text(told, "service"))
        own = _text(told, "instance") or f"{host}-{port}"
        settings = {
            "host": host,
            "port": port,
            "namespace": name_of(_text(told, "namespace") or "default"),
            "weight": max(_number(told, "weight", 65535, 1), 1),
            "labels": _labels(told),
            "zone": _text(told, "zone"),
            "ready": self._ready(told),
            "protocol": _text(told, "protocol").lower() or protocol,
            "servicePort": _number(told, "servicePort", 65535),
            "serviceAccount": _text(told, "serviceAccount"),
            "meshPort": _number(told, "meshPort", 65535),
            "workload": name_of(told["workload"]) if _text(told, "workload") else "",
        }
        if settings["protocol"] not in PROTOCOLS:
            settings["protocol"] = ""
        return made(service, name_of(own), settings, domain)

    def _field(self, entry: _Entry, name: str) -> Any:
        for path in self.fields.get(name, ()):
            rooted = path[:1] == ("",)  # written with a slash: from the value as a whole
            found = _at(entry.whole if rooted else entry.own, path[1:] if rooted else path)
            if found is not None:
                return found
        return None

    def _ready(self, told: Mapping[str, Any]) -> bool:
        value = told.get("ready", True)
        if isinstance(value, bool) and not self.ready_values:
            return value
        text = str(value).lower()
        if "ready" not in told or text in self.ready_values:
            return True
        if not self.ready_values and text not in ("true", "false", "1", "0"):
            raise ValueError(f"ready: expected true or false, got {value!r}; `readyValues` states other words")
        return not self.ready_values and text in ("true", "1")


class _Entry(msgspec.Struct, frozen=True):
    own: Any
    whole: Any
    text: str = ""
    """Address and port, where the instance is no more than that."""


def _fit(pattern: Sequence[str], parts: Sequence[str]) -> dict[str, str] | None:
    """What the variables of a pattern stand for; None: the parts are not of this pattern."""
    several = next((at for at, one in enumerate(pattern) if one.endswith("...}")), None)
    if several is not None:
        more = len(parts) - len(pattern)
        if more < 0:
            return None
        parts = [*parts[:several], "/".join(parts[several : several + more + 1]), *parts[several + more + 1 :]]
    if len(parts) != len(pattern) or not all(parts):
        return None
    found: dict[str, str] = {}
    for segment, part in zip(pattern, parts, strict=True):
        if not segment.startswith("{"):
            if segment != part:
                return None
        elif segment != "{_}":
            found[segment.strip("{.}")] = part
    return found


def _at(value: Any, path: Sequence[str]) -> Any:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _texts(value: bytes) -> list[str]:
    """`HOST:PORT`, or several with commas or on lines of their own."""
    text = value.decode("utf-8", "replace").strip()
    found = [part for part in re.split(r"[\s,]+", text) if part]
    if not found:
        raise ValueError("expected HOST:PORT or a URL, got nothing")
    if len(found) > ENTRIES_MAX:
        raise ValueError(f"more than {ENTRIES_MAX} instances in one value")
    return found


_ADDRESS = re.compile(
    r"(?:([a-zA-Z][a-zA-Z0-9+.-]*)://)?(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]*)(?::([0-9]{1,5}))?(?:[/?].*)?"
)
_STANDARD = {"http": 80, "https": 443}


def split_address(text: str) -> tuple[str, int, str]:
    """(host, port or 0, protocol or "") of HOST, HOST:PORT, [IPV6]:PORT or SCHEME://HOST:PORT/...; or ValueError."""
    text = text.strip()
    if text.count(":") > 1 and "[" not in text and "://" not in text:
        return text, 0, ""  # an IPv6 address without a port
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(f"expected HOST:PORT or a URL, got {text[:100]!r}")
    scheme, host, port = (match[1] or "").lower(), match[2].strip("[]"), int(match[3] or 0)
    return host, port or _STANDARD.get(scheme, 0), scheme if scheme in PROTOCOLS else ""


def _said(paths: Paths) -> str:
    return " or ".join(repr(".".join(path)) for path in paths) or "`fields` (it states none)"


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name, "")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{name}: expected text, got {str(value)[:100]!r}")
    return str(value)


def _number(told: Mapping[str, Any], name: str, most: int, default: int = 0) -> int:
    value = told.get(name, default)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or not 0 <= value <= most:
        raise ValueError(f"{name}: expected a whole number up to {most}, got {str(value)[:100]!r}")
    return int(value)


def _labels(told: Mapping[str, Any]) -> dict[str, str]:
    """Labels and tags; tags are a list, or text with commas: `k=v` as it stands, any other as `tag.NAME`."""
    tags = told.get("tags", [])
    if isinstance(tags, str):
        tags = [tag.strip() for tag in tags.split(",")]
    if isinstance(tags, dict):
        labels, tags = dict(tags), []
    else:
        labels = {}
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("tags: expected a list of texts, or an object")
    more = told.get("labels", {})
    if not isinstance(more, dict):
        raise ValueError("labels: expected an object")
    labels |= settings_of_tags(tags) | more
    return {str(key): _plain(value) for key, value in labels.items() if isinstance(value, str | int | float)}


def _plain(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- layouts by name, and from documents


def _path(text: str) -> tuple[str, ...]:
    """`a.b.0`; from the value as a whole, where the instance is an entry of a list: `/a.b`."""
    steps = tuple(text.removeprefix("/").split(".")) if text.strip("/") else ()
    return ("", *steps) if text.startswith("/") else steps


def _layout(name: str, prefix: str, *keys: str, **more: Any) -> Layout:
    fields = {key: tuple(_path(one) for one in ([value] if isinstance(value, str) else value))
              for key, value in more.pop("fields", {}).items()}  # fmt: skip
    return Layout(name, prefix, tuple(tuple(key.strip("/").split("/")) for key in keys), fields=fields, **more)


OWN = Layout("fairlead", "/services/")
NAMED: Mapping[str, Layout] = {
    one.name: one
    for one in (
        OWN,
        _layout(
            "skydns", "/skydns/local/cluster/",
            "svc/{namespace}/{service}/{instance}", "{service}/{instance}", "{service}",
            fields={"address": "host", "port": "port", "weight": "weight"},
        ),
        _layout("registrator", "/services/", "{service}/{instance}", text=True),
        _layout("go-kit", "/services/", "{service}/{instance}", text=True),
        _layout("grpc", "", "{service...}/{instance}", fields={"address": "Addr", "labels": "Metadata"}),
        _layout(
            "go-micro", "/micro/registry/", "{service}/{_}", instances=("nodes",),
            fields={"address": "address", "instance": "id", "labels": "metadata"},
        ),
        _layout(
            "kitex", "kitex/registry-etcd/", "{service}/{instance}",
            fields={"address": "address", "weight": "weight", "tags": "tags"},
        ),
    )
}  # fmt: skip


def parse(text: str, source: str) -> Layout:
    """A layout from its document (YAML or JSON), or its `spec` alone. Raises ValueError that names field and remedy.

    ```
    prefix: /apps/
    key: "{namespace}/{service}/{instance}"   # or several; {service...}: more segments, {_}: anything
    value: json                               # text: HOST:PORT or a URL
    instances: nodes                          # where the value has its list of instances; "": it is that list
    fields: {address: ip, port: ports.http, weight: w, tags: tags, ready: status}   # or a list, the first counts
    readyValues: [UP]
    defaults: {namespace: shop, port: 8080}
    ```
    """
    told = load_mapping(text, source)
    if "spec" in told or "kind" in told:
        if told.get("kind") != "EtcdLayout" or told.get("apiVersion") != "fairlead.dev/v1":
            raise ValueError(f"{source}: expected apiVersion fairlead.dev/v1, kind EtcdLayout")
        stated: Any = told.get("spec")
    else:
        stated = told
    known = ("prefix", "key", "value", "instances", "fields", "readyValues", "defaults")
    if not isinstance(stated, dict):
        raise ValueError(f"{source}: spec: expected an object")
    if unknown := sorted(set(map(str, stated)) - set(known)):
        raise ValueError(f"{source}: unknown field {unknown[0]!r}; known are {', '.join(known)}")
    try:
        return _stated(stated)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _stated(told: Mapping[str, Any]) -> Layout:
    keys = told.get("key", "{service}/{instance}")
    keys = [keys] if isinstance(keys, str) else keys
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) and key.strip("/") for key in keys):
        raise ValueError('key: expected text such as "{service}/{instance}", or a list of such')
    value = told.get("value", "json")
    if value not in ("json", "text"):
        raise ValueError(f"value: expected json or text, got {value!r}")
    fields = _fields(told.get("fields", {}), "fields")
    for key in keys:
        _check_key(key, "service" in fields or "service" in _mapping(told, "defaults"))
    if value == "json" and "address" not in fields and not (isinstance(told.get("instances"), str)):
        raise ValueError("fields.address: needed, to say where in the value the address is (`host`, or `HOST:PORT`)")
    defaults = _mapping(told, "defaults")
    if unknown := sorted(set(defaults) - set(FIELDS)):
        raise ValueError(f"defaults.{unknown[0]}: unknown; known are {', '.join(FIELDS)}")
    words = told.get("readyValues", [])
    if not isinstance(words, list) or not all(isinstance(word, str | int) for word in words):
        raise ValueError("readyValues: expected a list of texts")
    instances = told.get("instances")
    if instances is not None and not isinstance(instances, str):
        raise ValueError("instances: expected a path such as nodes")
    prefix = told.get("prefix", "/services/")
    if not isinstance(prefix, str):
        raise ValueError("prefix: expected text")
    return _layout(
        "stated", prefix, *keys, text=value == "text", instances=None if instances is None else _path(instances),
        fields=fields, defaults=defaults, ready_values=tuple(_plain(word).lower() for word in words),
    )  # fmt: skip


def _mapping(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = told.get(name, {})
    if not isinstance(found, dict):
        raise ValueError(f"{name}: expected an object")
    return found


def _fields(told: Any, name: str) -> dict[str, list[str]]:
    if not isinstance(told, dict):
        raise ValueError(f"{name}: expected an object")
    found = {}
    for key, value in told.items():
        if key not in FIELDS:
            raise ValueError(f"{name}.{key}: unknown; known are {', '.join(FIELDS)}")
        paths = [value] if isinstance(value, str) else value
        if not isinstance(paths, list) or not paths or not all(isinstance(path, str) and path for path in paths):
            raise ValueError(f"{name}.{key}: expected a path such as meta.ip, or a list of such")
        found[key] = paths
    return found


def _check_key(key: str, service_elsewhere: bool) -> None:
    several = 0
    names = []
    for segment in key.strip("/").split("/"):
        if "{" not in segment and "}" not in segment:
            continue
        match = re.fullmatch(r"\{(namespace|service|instance|_)(\.\.\.)?\}", segment)
        if match is None:
            raise ValueError(
                f"key: {segment!r}: expected a word, or one of {{namespace}} {{service}} {{instance}} {{_}}"
            )
        several += bool(match[2])
        names.append(match[1])
    if several > 1:
        raise ValueError(f"key: {key!r}: only one of the variables may stand for several segments")
    if "service" not in names and not service_elsewhere:
        raise ValueError(f"key: {key!r}: expected {{service}} in it, or `service` in fields or defaults")
