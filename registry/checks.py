"""What is checked of an app, and how often: probes of a Pod, and the same in the words of `--readiness URL`.

Fields, defaults and limits are those of a Kubernetes Probe (API v1). Definitions of Consul, Nomad and Marathon
become the same (checks_elsewhere.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from .schema import parse_duration

PURPOSES = ("startup", "liveness", "readiness")
KINDS = ("http", "tcp", "exec", "grpc")
OUTPUT_MOST = 4096
"""Octets of a check's output that are kept; Consul's default (`output_max_size`)."""


class CheckError(ValueError):
    """A definition that cannot be used; `str()` names the field and what is expected."""


class Check(Struct, frozen=True, omit_defaults=True):
    """One check of the own app."""

    purpose: str
    """startup, liveness, readiness."""
    kind: str
    """http, tcp, exec, grpc."""
    name: str = ""
    host: str = ""
    """Empty: where the app listens."""
    port: int | str = 0
    """A number, the name of one of the workload's ports, `#N` for the Nth of them from 0; 0: the first."""
    tls: bool = False
    """HTTPS, or gRPC over TLS."""
    verify: bool = False
    """Look at the certificate; Kubernetes does not, Consul does."""
    server_name: str = ""
    """Name that the certificate must have; empty: the host."""
    path: str = "/"
    method: str = "GET"
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)
    """Ranges of HTTP statuses that pass."""
    redirects: bool = True
    """Follow those to the same host."""
    command: tuple[str, ...] = ()
    exits: tuple[int, ...] = (0,)
    """Exit codes that pass."""
    service: str = ""
    """Of grpc.health.v1; empty: the server as a whole."""
    initial_delay_s: float = 0.0
    period_s: float = 10.0
    timeout_s: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace_s: float = 0.0
    """Failures before the first success do not count for so long after the app's start (Marathon)."""
    passing_at_first: bool = False
    """Passes until it has failed (Consul's `status`); liveness always does."""

    @property
    def label(self) -> str:
        """What it is, for people: `readiness http :8080/healthz`."""
        if self.kind == "exec":
            what = " ".join(self.command)[:80]
        else:
            port = f":{self.port}" if self.port else ""
            what = f"{self.host}{port}"
            if self.kind == "http":
                what += self.path
            elif self.kind == "grpc" and self.service:
                what += f"/{self.service}"
        return f"{self.purpose} {self.name or f'{self.kind} {what}'.rstrip()}"


def pod_checks(spec: Mapping[str, Any]) -> tuple[Check, ...]:
    """The probes of a Pod's containers; what cannot be used is left out (`validate` tells)."""
    containers = spec.get("containers")
    several = isinstance(containers, list) and len(containers) > 1
    found: list[Check] = []
    for container in containers if isinstance(containers, list) else ():
        if isinstance(container, dict):
            named = str(container.get("name") or "") if several else ""
            made, _ = container_checks(container)
            found += [_named(check, named) for check in made]
    return tuple(found)


def _named(check: Check, container: str) -> Check:
    return replace(check, name=f"{container}: {check.label.partition(' ')[2]}") if container else check


def container_checks(container: Mapping[str, Any]) -> tuple[list[Check], list[tuple[str, str]]]:
    """The probes of a container, and (field, what is wrong) of those that cannot be used."""
    ports = container.get("ports")
    named = {
        str(port["name"]): port.get("containerPort")
        for port in (ports if isinstance(ports, list) else ())
        if isinstance(port, dict) and port.get("name")
    }
    found, wrong = [], []
    for purpose in PURPOSES:
        field = f"{purpose}Probe"
        value = container.get(field)
        if value is None:
            continue
        try:
            found.append(probe(purpose, value, named))
        except CheckError as error:
            wrong.append((field, str(error)))
    return found, wrong


def probe(purpose: str, value: Any, ports: Mapping[str, Any] | None = None) -> Check:
    """A Kubernetes Probe; `ports`: the container's by name. Raises CheckError."""
    if not isinstance(value, dict):
        raise CheckError("expected an object")
    handlers = [key for key in ("httpGet", "tcpSocket", "exec", "grpc") if value.get(key) is not None]
    if len(handlers) != 1:
        raise CheckError(
            f"expected one of httpGet, tcpSocket, exec and grpc, got {' and '.join(handlers) or 'none of them'}"
        )
    handler = value[handlers[0]]
    if not isinstance(handler, dict):
        raise CheckError(f"{handlers[0]}: expected an object")
    more: dict[str, Any] = {
        "initial_delay_s": _seconds(value, "initialDelaySeconds", 0),
        "period_s": _seconds(value, "periodSeconds", 10) or 10,
        "timeout_s": _seconds(value, "timeoutSeconds", 1) or 1,
        "success_threshold": _seconds(value, "successThreshold", 1) or 1,
        "failure_threshold": _seconds(value, "failureThreshold", 3) or 3,
    }
    if purpose != "readiness" and more["success_threshold"] != 1:
        raise CheckError(f"successThreshold: must be 1 for a {purpose} probe")
    if handlers[0] == "exec":
        command = handler.get("command")
        if not isinstance(command, list) or not command or not all(isinstance(part, str) for part in command):
            raise CheckError("exec.command: expected a list of texts, the program first")
        return Check(purpose, "exec", command=tuple(command), **more)
    more["port"] = _port(handler, handlers[0], ports or {})
    more["host"] = str(handler.get("host") or "")
    if handlers[0] == "tcpSocket":
        return Check(purpose, "tcp", **more)
    if handlers[0] == "grpc":
        return Check(purpose, "grpc", service=str(handler.get("service") or ""), **more)
    scheme = str(handler.get("scheme") or "HTTP").upper()
    if scheme not in ("HTTP", "HTTPS"):
        raise CheckError(f"httpGet.scheme: expected HTTP or HTTPS, got {scheme!r}")
    headers = []
    for header in handler.get("httpHeaders") or ():
        if not isinstance(header, dict) or not header.get("name"):
            raise CheckError("httpGet.httpHeaders: expected a list of {name, value}")
        headers.append((str(header["name"]), str(header.get("value") or "")))
    path = str(handler.get("path") or "/")
    return Check(
        purpose, "http", tls=scheme == "HTTPS", path=path if path.startswith("/") else f"/{path}",
        headers=clean_headers(headers), **more,
    )  # fmt: skip


def clean_headers(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The headers as they are; raises CheckError for what no HTTP header can be."""
    made = tuple(headers)
    for name, value in made:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\r\n\x00]", value):
            raise CheckError(f"header {name!r}: not a name and value of HTTP")
    return made


def _seconds(value: Mapping[str, Any], field: str, default: int) -> int:
    given = value.get(field, default)
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, int) or given < 0 or given > 1 << 31:
        raise CheckError(f"{field}: expected a whole number, 0 or more, got {given!r}")
    return given


def _port(handler: Mapping[str, Any], name: str, ports: Mapping[str, Any]) -> int:
    given = handler.get("port")
    if isinstance(given, str) and given.isdigit():
        given = int(given)
    if isinstance(given, str):
        if given not in ports:
            known = ", ".join(sorted(ports)) or "none has a name"
            raise CheckError(f"{name}.port: the container has no port named {given!r} ({known})")
        given = ports[given]
    return port_number(given, f"{name}.port")


def port_number(given: Any, field: str) -> int:
    """A port; raises CheckError that names the field."""
    if isinstance(given, bool) or not isinstance(given, int) or not 0 < given <= 65535:
        raise CheckError(f"{field}: expected a port, 1 to 65535, got {given!r}")
    return given


# --- flags ----------------------------------------------------------------------------------------------------------

_SETTINGS = {
    "initial-delay": "initial_delay_s", "period": "period_s", "timeout": "timeout_s",
    "success": "success_threshold", "failure": "failure_threshold",
}  # fmt: skip


def flag_check(purpose: str, text: str) -> Check:
    """`http://:8080/healthz?period=5s`, `tcp://:5432`, `grpc://:50051/SERVICE`, `exec:COMMAND`. Raises CheckError.

    Of the query, `period`, `timeout`, `initial-delay`, `success`, `failure`, `status` and `header` are settings; the
    rest is sent.
    """
    form = (
        "expected http(s)://[HOST]:PORT/PATH, tcp://[HOST]:PORT, grpc(s)://[HOST]:PORT[/SERVICE] or exec:COMMAND, "
        f"got {text!r}"
    )
    if text.startswith("exec:"):
        import shlex  # for those who have such a check

        try:
            command = tuple(shlex.split(text.removeprefix("exec:")))
        except ValueError as error:
            raise CheckError(f"{text!r}: {error}") from None
        if not command:
            raise CheckError(form)
        return Check(purpose, "exec", command=command)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise CheckError(form) from None
    scheme = parts.scheme
    if scheme not in ("http", "https", "tcp", "grpc", "grpcs") or parts.username is not None:
        raise CheckError(form)
    if port is None and scheme in ("http", "https") and parts.hostname:
        port = 443 if scheme == "https" else 80
    if not port:
        raise CheckError(form)
    more: dict[str, Any] = {"host": parts.hostname or "", "port": port, "tls": scheme in ("https", "grpcs")}
    sent: list[tuple[str, str]] = []
    headers: list[tuple[str, str]] = []
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key in _SETTINGS:
            more[_SETTINGS[key]] = _setting(key, value)
        elif key == "status" and scheme in ("http", "https"):
            more["statuses"] = statuses(value)
        elif key == "header" and scheme in ("http", "https"):
            name, _, said = value.partition(":")
            headers.append((name.strip(), said.strip()))
        else:
            sent.append((key, value))
    if purpose != "readiness" and more.get("success_threshold", 1) != 1:
        raise CheckError(f"success: must be 1 for a {purpose} check")
    if scheme in ("http", "https"):
        path = (parts.path or "/") + (f"?{urlencode(sent)}" if sent else "")
        return Check(purpose, "http", path=path, headers=clean_headers(headers), **more)
    if sent:
        raise CheckError(f"{text!r}: unknown setting {sent[0][0]!r}; known: {', '.join(sorted(_SETTINGS))}")
    if scheme == "tcp":
        if parts.path.strip("/"):
            raise CheckError(form)
        return Check(purpose, "tcp", **more)
    return Check(purpose, "grpc", service=parts.path.strip("/"), **more)


def _setting(key: str, value: str) -> float | int:
    if key in ("success", "failure"):
        if not value.isdigit() or not 1 <= int(value) <= 10_000:
            raise CheckError(f"{key}: expected a whole number, 1 or more, got {value!r}")
        return int(value)
    seconds = float(value) if value.isdigit() else parse_duration(value)
    if seconds is None or seconds < 0 or (seconds == 0 and key != "initial-delay"):
        raise CheckError(f"{key}: expected a duration such as 5s or 500ms, got {value!r}")
    return seconds


def statuses(text: str) -> tuple[tuple[int, int], ...]:
    """`200-299,429` to ranges. Raises CheckError."""
    found = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        numbers = (low, high if dash else low)
        if not all(one.isdigit() and 100 <= int(one) <= 599 for one in numbers) or int(numbers[0]) > int(numbers[1]):
            raise CheckError(f"status: expected statuses such as 200-299,404, got {text!r}")
        found.append((int(numbers[0]), int(numbers[1])))
    return tuple(found)


def resolve_port(check: Check, ports: Iterable[Any]) -> int:
    """The port that a check means, among the workload's (WorkloadPort). Raises CheckError."""
    if isinstance(check.port, int) and check.port:
        return check.port
    known = list(ports)
    if isinstance(check.port, str) and check.port.startswith("#"):
        place = int(check.port[1:])
        if place < len(known):
            return int(known[place].number)
    elif isinstance(check.port, str):
        for one in known:
            if one.name == check.port:
                return int(one.number)
    elif known:
        return int(known[0].number)
    meant = f"no port {check.port!r}" if check.port else "no port"
    raise CheckError(f"{check.label}: the workload has {meant}; give the check a number, or the workload its ports")
