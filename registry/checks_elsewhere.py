"""Definitions of checks in the words of Consul, Nomad and Marathon, and the file of `--checks`, as our checks.

Consul: "Define health checks" (developer.hashicorp.com), configuration files' names and those of its API. Nomad: the
`check` block, and jobs as its API has them (durations in nanoseconds). Marathon: `healthChecks` of an app. What is
given and cannot be carried out is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from .checks import PURPOSES, Check, CheckError, clean_headers, port_number, probe
from .schema import parse_duration


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CONSUL_STATUSES = ((200, 299), (429, 429))
"""429 is Consul's warning, which it takes for ready, as it does exit code 1 of a command."""
_CONSUL_IDLE = _words("failures_before_warning output_max_size service_id deregister_critical_service_after")
_CONSUL = _CONSUL_IDLE | _words(
    "http method header body tls_skip_verify disable_redirects tcp args script grpc grpc_use_tls interval timeout "
    "success_before_passing failures_before_critical status name id check_id notes tls_server_name tcp_use_tls"
)
_CONSUL_REFUSED = {
    "ttl": "the app itself would have to report; use http, tcp, args or grpc",
    "udp": "an answer is not to be told from a firewall's silence; use tcp, http or args",
    "docker_container_id": "give the command that runs in it, e.g. args: [docker, exec, NAME, ...]",
    "alias_service": "the service's own checks are followed where it is used",
    "alias_node": "the node's own checks are followed where it is used",
    "h2ping": "use grpc or http",
    "os_service": "use args, e.g. [systemctl, is-active, NAME]",
}
_NOMAD_IDLE = _words("failures_before_warning address_mode on_update task task_name expose")
_NOMAD = _NOMAD_IDLE | _words(
    "name type path protocol port port_label command args interval timeout method header body tls_skip_verify "
    "grpc_service grpc_use_tls initial_status success_before_passing failures_before_critical check_restart "
    "tls_server_name notes"
)
_MARATHON_IDLE = frozenset(("ipprotocol",))
_MARATHON = _MARATHON_IDLE | _words(
    "protocol path port portindex graceperiodseconds intervalseconds timeoutseconds maxconsecutivefailures command "
    "ignorehttp1xx delayseconds"
)


def file_checks(value: Any, notes: list[str] | None = None) -> list[Check]:
    """What the file of `--checks` says, whichever of the four it speaks. Raises CheckError.

    Fields that mean nothing here are told in `notes`.

    A mapping with `readinessProbe`, `livenessProbe`, `startupProbe` (Kubernetes), `check` or `checks` (Consul, and
    Nomad where they have a `type`), `healthChecks` (Marathon), or `service` around these; or a list of such mappings.
    """
    notes = [] if notes is None else notes
    if isinstance(value, list):
        return [check for one in value for check in file_checks(one, notes)]
    if not isinstance(value, dict):
        raise CheckError("expected a mapping with readinessProbe, checks or healthChecks")
    known = {f"{purpose}Probe" for purpose in PURPOSES} | {"check", "checks", "Check", "Checks", "healthChecks"}
    found: list[Check] = []
    wrapped = value.get("service", value.get("Service"))
    if isinstance(wrapped, dict):
        found += file_checks(wrapped, notes)
    elif not known & set(value):
        raise CheckError(f"expected one of {', '.join(sorted(known))}, got {', '.join(map(str, value)) or 'nothing'}")
    for purpose in PURPOSES:
        if (given := value.get(f"{purpose}Probe")) is not None:
            found += _at(f"{purpose}Probe", partial(_probe, purpose), given, notes)
    for field in ("check", "checks", "Check", "Checks"):
        given = value.get(field)
        for number, one in enumerate(given if isinstance(given, list) else [given] if given is not None else []):
            at = f"{field}[{number}]" if isinstance(given, list) else field
            found += _at(at, consul_or_nomad, one, notes)
    for number, one in enumerate(value.get("healthChecks") or ()):
        found += _at(f"healthChecks[{number}]", marathon, one, notes)
    return found


def _at(field: str, read: Callable[[Any, list[str]], list[Check]], value: Any, notes: list[str]) -> list[Check]:
    own: list[str] = []
    try:
        return read(value, own)
    except CheckError as error:
        raise CheckError(f"{field}: {error}") from None
    finally:
        notes += [f"{field}.{note}" for note in own]


def _probe(purpose: str, value: Any, notes: list[str]) -> list[Check]:
    made = probe(purpose, value)
    if value.get("terminationGracePeriodSeconds") is not None:
        notes.append("terminationGracePeriodSeconds: has no effect: --drain-deadline is what an app is given")
    return [made]


def _snake(value: Any) -> dict[str, Any]:
    """Keys as configuration files have them (`TLSSkipVerify` is `tls_skip_verify`)."""
    if not isinstance(value, dict):
        raise CheckError("expected an object")
    made = {}
    for key, inner in value.items():
        words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", str(key))
        words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", words).lower()
        made[{"checkid": "check_id", "http_method": "method"}.get(words, words)] = inner
    return {key: inner for key, inner in made.items() if inner not in (None, "", [], {}, False, 0)}


def _unknown(given: Mapping[str, Any], known: frozenset[str], idle: frozenset[str], notes: list[str]) -> None:
    for key in given:
        if key not in known:
            raise CheckError(f"unknown field {key!r}; known: {', '.join(sorted(known))}")
        if key in idle:
            notes.append(f"{key}: has no effect here")


def consul_or_nomad(value: Any, notes: list[str]) -> list[Check]:
    """One check definition; Nomad's have a `type`."""
    given = _snake(value)
    return _nomad(given, notes) if "type" in given else [_consul(given, notes)]


def _consul(given: dict[str, Any], notes: list[str]) -> Check:
    for key, why in _CONSUL_REFUSED.items():
        if key in given:
            raise CheckError(f"{key}: may not be used: {why}")
    _unknown(given, _CONSUL, _CONSUL_IDLE, notes)
    command = given.get("args") or given.get("script")
    kinds = [key for key in ("http", "tcp", "grpc") if key in given] + (["args"] if command else [])
    if len(kinds) != 1:
        raise CheckError(f"expected one of http, tcp, args and grpc, got {' and '.join(kinds) or 'none of them'}")
    if "interval" not in given:
        raise CheckError("interval: needed")
    more: dict[str, Any] = {
        "name": str(given.get("name") or given.get("check_id") or given.get("id") or ""),
        "period_s": duration(given["interval"], "interval"),
        "timeout_s": duration(given.get("timeout", "30s" if command else "10s"), "timeout"),
        **_counts(given),
        "passing_at_first": given.get("status") in ("passing", "warning"),
        **_tls(given),
    }
    if command:
        arguments = tuple(command) if isinstance(command, list) else ("/bin/sh", "-c", str(command))
        return Check("readiness", "exec", command=tuple(map(str, arguments)), exits=(0, 1), **more)
    if "tcp" in given:
        if given.get("tcp_use_tls"):
            raise CheckError("tcp_use_tls: may not be used: use http or grpc, which speak TLS")
        return Check("readiness", "tcp", **_where(str(given["tcp"]), "tcp"), **more)
    if "grpc" in given:
        address, _, service = str(given["grpc"]).partition("/")
        more["tls"] = bool(given.get("grpc_use_tls"))
        return Check("readiness", "grpc", service=service, **_where(address, "grpc"), **more)
    parts = urlsplit(str(given["http"]))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CheckError(f"http: expected a URL, got {given['http']!r}")
    return Check(
        "readiness", "http", host=parts.hostname, port=parts.port or (443 if parts.scheme == "https" else 80),
        tls=parts.scheme == "https", path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        method=str(given.get("method") or "GET").upper(), body=str(given.get("body") or ""),
        headers=_headers(given.get("header")), statuses=_CONSUL_STATUSES,
        redirects=not given.get("disable_redirects"), **more,
    )  # fmt: skip


def _counts(given: Mapping[str, Any]) -> dict[str, int]:
    """Consul counts as Kubernetes does, with 0 for 1 (agent/checks/check.go, StatusHandler)."""
    made = {}
    for field, ours in (
        ("success_before_passing", "success_threshold"),
        ("failures_before_critical", "failure_threshold"),
    ):
        value = given.get(field, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CheckError(f"{field}: expected a whole number, got {value!r}")
        made[ours] = value
    return made


def _tls(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"verify": not given.get("tls_skip_verify"), "server_name": str(given.get("tls_server_name") or "")}


def _headers(value: Any) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise CheckError("header: expected {NAME: [VALUES]}")
    return clean_headers(
        (str(name), str(one))
        for name, values in value.items()
        for one in (values if isinstance(values, list) else [values])
    )


def _where(text: str, field: str) -> dict[str, Any]:
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        raise CheckError(f"{field}: expected HOST:PORT, got {text!r}")
    return {"host": host.strip("[]"), "port": port_number(int(port), field)}


def duration(value: Any, field: str) -> float:
    """Seconds of Go's duration text, or of nanoseconds, as both APIs send them. Raises CheckError."""
    seconds = parse_duration(value) if isinstance(value, str) else None
    if isinstance(value, int) and not isinstance(value, bool):
        seconds = value / 1e9
    if seconds is None or not 0 < seconds < 86400 * 366:
        raise CheckError(f"{field}: expected a duration such as 10s, got {value!r}")
    return seconds


def _nomad(given: dict[str, Any], notes: list[str]) -> list[Check]:
    """A readiness check, and with `check_restart` a liveness check that restarts the app as Nomad would."""
    _unknown(given, _NOMAD, _NOMAD_IDLE, notes)
    kind = str(given["type"])
    for field in ("interval", "timeout"):
        if field not in given:
            raise CheckError(f"{field}: needed")
    more: dict[str, Any] = {
        "name": str(given.get("name") or ""),
        "period_s": duration(given["interval"], "interval"),
        "timeout_s": duration(given["timeout"], "timeout"),
        **_counts(given),
        "passing_at_first": given.get("initial_status") == "passing",
        **_tls(given),
    }
    port = given.get("port", given.get("port_label", 0))
    more["port"] = int(port) if str(port).isdigit() else str(port)
    if kind == "script":
        command = given.get("command")
        if not command:
            raise CheckError("command: needed by a check of type script")
        more.pop("port")
        made = Check(
            "readiness", "exec", command=(str(command), *map(str, given.get("args") or ())), exits=(0, 1), **more
        )
    elif kind == "tcp":
        made = Check("readiness", "tcp", **more)
    elif kind == "grpc":
        made = Check(
            "readiness",
            "grpc",
            service=str(given.get("grpc_service") or ""),
            tls=bool(given.get("grpc_use_tls")),
            **more,
        )
    elif kind == "http":
        path = str(given.get("path") or "")
        if not path.startswith("/"):
            raise CheckError(f"path: expected a path that begins with /, got {path!r}")
        made = Check(
            "readiness", "http", path=path, tls=str(given.get("protocol") or "http").lower() == "https",
            method=str(given.get("method") or "GET").upper(), body=str(given.get("body") or ""),
            headers=_headers(given.get("header")), statuses=_CONSUL_STATUSES, **more,
        )  # fmt: skip
    else:
        raise CheckError(f"type: expected http, tcp, grpc or script, got {kind!r}")
    restart = given.get("check_restart")
    if restart is None:
        return [made]
    restart = _snake(restart[0] if isinstance(restart, list) and restart else restart)
    limit = restart.get("limit", 0)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise CheckError(f"check_restart.limit: expected a whole number, got {limit!r}")
    if not limit:
        return [made]
    grace = duration(restart.get("grace", "1s"), "check_restart.grace")
    return [
        made,
        replace(made, purpose="liveness", failure_threshold=limit, success_threshold=1, initial_delay_s=grace),
    ]


def marathon(value: Any, notes: list[str]) -> list[Check]:
    """Unhealthy at the first failure; restarted after `maxConsecutiveFailures` of them (0: never), the grace apart."""
    if not isinstance(value, dict):
        raise CheckError("expected an object")
    given = {str(key).lower(): inner for key, inner in value.items() if inner is not None}
    _unknown(given, _MARATHON, _MARATHON_IDLE, notes)
    if given.get("ignorehttp1xx"):
        raise CheckError("ignoreHttp1xx: may not be used: an interim answer is never the result of a check")
    protocol = str(given.get("protocol") or "HTTP").upper().removeprefix("MESOS_")
    more: dict[str, Any] = {
        "grace_s": _plain(given, "gracePeriodSeconds", 300), "period_s": _plain(given, "intervalSeconds", 60) or 60,
        "timeout_s": _plain(given, "timeoutSeconds", 20) or 20, "initial_delay_s": _plain(given, "delaySeconds", 15),
    }  # fmt: skip
    index = _plain(given, "portIndex", 0)
    more["port"] = port_number(given["port"], "port") if "port" in given else f"#{index:g}"
    if protocol == "COMMAND":
        more.pop("port")
        command = given.get("command")
        text = command.get("value") if isinstance(command, dict) else command
        if not isinstance(text, str) or not text:
            raise CheckError("command: expected {value: COMMAND}")
        made = Check("readiness", "exec", command=("/bin/sh", "-c", text), failure_threshold=1, **more)
    elif protocol == "TCP":
        made = Check("readiness", "tcp", failure_threshold=1, **more)
    elif protocol in ("HTTP", "HTTPS"):
        path = str(given.get("path") or "/")
        made = Check(
            "readiness", "http", path=path if path.startswith("/") else f"/{path}", tls=protocol == "HTTPS",
            failure_threshold=1, **more,
        )  # fmt: skip
    else:
        raise CheckError(f"protocol: expected HTTP, HTTPS, TCP, COMMAND or MESOS_ and one of these, got {protocol!r}")
    most = int(_plain(given, "maxConsecutiveFailures", 3))
    if not most:
        return [made]
    return [made, replace(made, purpose="liveness", failure_threshold=most)]


def _plain(given: Mapping[str, Any], field: str, default: float) -> float:
    value = given.get(field.lower(), default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise CheckError(f"{field}: expected a number, 0 or more, got {value!r}")
    return value
