"""Shell: `fairlead registry services|endpoints|sources` and `fairlead env`: from manifests, control or the sources."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from ..registry import listing
from ..registry.model import SourceStatus
from ..registry.service_env import environment
from ..registry.snapshot import Snapshot
from .cli_client import failed, print_columns
from .settings import REGISTRIES, SettingError, counted, give_way

FIRST_ANSWER_S = 20.0
"""For Consul or etcd to say what they have."""
Known = tuple[Snapshot, dict[str, SourceStatus]]


def known(options: Any) -> Known:
    """What there is, and how its sources do. Raises ApiError, UnreachableError, SettingError, TimeoutError."""
    give_way(options, "control", "filename", *REGISTRIES)
    direct = any(getattr(options, name) for name in REGISTRIES)
    if bool(options.filename or direct) == bool(options.control):
        raise SettingError("give either -f PATH, --consul, --etcd or another source, or --control URL")
    from .cli_offline import live_world, load_world

    if not options.control:
        snapshot = load_world(options)[0].snapshot
        manifests = {"manifests": SourceStatus("manifests", "live", time.time())} if options.filename else {}
        return snapshot, {**manifests, **snapshot.sources}
    from .api_client import ApiClient

    snapshot = live_world(options)[0].snapshot
    told = ApiClient.of(options).call("GET", "/fairlead/v1/status")
    statuses = msgspec.convert(told["sources"], list[SourceStatus])
    return snapshot, {status.name: status for status in statuses}


def ask_sources(options: Any) -> Snapshot:
    """What Consul, etcd and so on have. Raises SettingError, TimeoutError."""
    return asyncio.run(_ask_sources(argparse.Namespace(**{**vars(options), "filename": []})))


async def _ask_sources(options: Any) -> Snapshot:
    """Follow Consul, etcd and so on until each has said what it has."""
    from ..registry.hub import Registry
    from .role_common import Tasks
    from .role_sources import PRECEDENCE, Sources

    registry = Registry(PRECEDENCE)
    stop = asyncio.Event()
    tasks = Tasks(stop)
    sources = Sources(options, registry, tasks, None, lambda _documents, _problems: None)
    wanted = [name for name in REGISTRIES if getattr(options, name)]

    def missing() -> dict[str, str]:
        statuses = registry.snapshot.value.sources
        found = {name: statuses.get(name) or SourceStatus(name) for name in wanted}
        return {name: status.error for name, status in found.items() if status.state != "live"}

    try:
        await sources.start()
        async with asyncio.timeout(FIRST_ANSWER_S):
            while missing() and not stop.is_set():
                await asyncio.sleep(0.02)
    except TimeoutError:
        told = "; ".join(f"{name}: {error or 'no answer'}" for name, error in missing().items())
        raise TimeoutError(f"nothing within {FIRST_ANSWER_S:g} s from {told}") from None
    finally:
        await tasks.close()
        await sources.close()
    return registry.snapshot.value


def _told(options: Any, show: Callable[[Known], int]) -> int:
    from .api_client import ApiError, UnreachableError

    try:
        return show(known(options))
    except (ApiError, UnreachableError, TimeoutError) as error:
        return failed(str(error))


def registry(options: Any) -> int:
    """Exit code 1 where a source is stale (`sources`), or where it cannot be asked."""
    rows_of = {"services": listing.services, "endpoints": listing.endpoints, "sources": listing.sources}
    return _told(options, lambda found: _show(options, rows_of[options.registry_verb](*found, time.time())))


def _show(options: Any, rows: list[dict[str, Any]]) -> int:
    what, namespace = options.registry_verb, options.namespace
    if namespace and what != "sources":
        rows = [row for row in rows if _namespace(row) == namespace]
    name = getattr(options, "name", None)
    if name:
        rows = [row for row in rows if name in (row.get("name"), row.get("host"), row.get("service"), _short(row))]
    if options.output == "json":
        print(json.dumps(rows, indent=2))
    elif rows:
        wide = options.output == "wide"
        print_columns({"services": _services, "endpoints": _endpoints, "sources": _sources}[what](rows, wide))
    else:
        print(f"no {what} found", file=sys.stderr)
    return 1 if what == "sources" and any(row["state"] != "live" for row in rows) else 0


def _namespace(row: dict[str, Any]) -> str:
    return str(row["namespace"]) if "namespace" in row else str(row["service"]).partition(".")[2].partition(".")[0]


def _short(row: dict[str, Any]) -> str:
    return ".".join(str(row.get("service") or row.get("host") or "").split(".")[:1])


def shown_age(row: dict[str, Any]) -> str:
    seconds = row["age_s"]
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}" + (" stale" if row.get("stale") else "")
    return f"{seconds:.0f}s" + (" stale" if row.get("stale") else "")


def _pairs(values: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in (values or {}).items()) or "-"


def _services(rows: list[dict[str, Any]], wide: bool) -> list[list[str]]:
    lines = [["NAMESPACE", "NAME", "TYPE", "ADDRESSES", "PORTS", "READY", "SOURCE", "AGE"]]
    if wide:
        lines[0] += ["HOST", "SELECTOR", "ALL SOURCES"]
    for row in rows:
        ports = ",".join(f"{p['name'] + ':' if p['name'] else ''}{p['port']}/{p['protocol']}" for p in row["ports"])
        at = ",".join(row["addresses"]) or row["external_name"] or "-"
        line = [row["namespace"], row["name"], row["type"], at, ports or "-", f"{row['ready']}/{row['endpoints']}",
                row["source"] or "-", shown_age(row)]  # fmt: skip
        lines.append(line + ([row["host"], _pairs(row["selector"]), ",".join(row["sources"])] if wide else []))
    return lines


def _endpoints(rows: list[dict[str, Any]], wide: bool) -> list[list[str]]:
    lines = [["SERVICE", "ADDRESS", "PORT", "READY", "SOURCE", "AGE", "WHY"]]
    if wide:
        lines[0][6:6] = ["WORKLOAD", "IDENTITY", "MESH PORT", "WEIGHT", "LOCALITY", "LABELS"]
    for row in rows:
        port = f"{row['port']}{'/' + row['port_name'] if row['port_name'] else ''}"
        ready = "yes" if row["ready"] else "ending" if row["used"] else "no"
        line = [row["service"], row["address"], port, ready, row["source"] or "-", shown_age(row), row["why"] or "-"]
        if wide:
            line[6:6] = [row["workload"] or "-", row["service_account"] or "-", str(row["mesh_port"] or "-"),
                         str(row["weight"]), row["locality"] or "-", _pairs(row["labels"])]  # fmt: skip
        lines.append(line)
    return lines


def _sources(rows: list[dict[str, Any]], wide: bool) -> list[list[str]]:
    lines = [["SOURCE", "STATE", "AGE", "SERVICES", "ENDPOINTS", "WORKLOADS", "ERROR"]]
    for row in rows:
        problems = row["problems"]
        more = f"{counted(len(problems), 'entry')} cannot be used: {problems[0]}" if problems else ""
        said = "; ".join(filter(None, (row["error"], more, *row["notes"]))) or "-"
        lines.append([row["source"], row["state"], shown_age(row), str(row["services"]), str(row["endpoints"]),
                      str(row["workloads"]), said])  # fmt: skip
        if wide:
            lines += [["", "", "", "", "", "", problem] for problem in problems[1:]]
    return lines


def env(options: Any) -> int:
    """The variables of a namespace's services, one a line; for `eval` with --export."""

    def show(found: Known) -> int:
        namespace = options.namespace
        if options.workload:
            key = options.workload if "/" in options.workload else f"{namespace}/{options.workload}"
            workload = found[0].workloads.get(key)
            if workload is None:
                return failed(f"--workload: {key} is not known; `fairlead registry endpoints -o wide` shows workloads")
            namespace = workload.namespace
            if not workload.service_links:
                print(f"{key} wants none (enableServiceLinks: false)", file=sys.stderr)
                if options.output == "json":
                    print("{}")
                return 0
        made = environment(found[0].services, namespace, options.by_name)
        if options.output == "json":
            print(json.dumps(made, indent=2))
            return 0
        for name, value in made.items():
            print(f"export {name}={shlex.quote(value)}" if options.export else f"{name}={value}")
        if not made:
            print(
                f"no service of namespace {namespace} has an address of its own (clusterIP): "
                "see --service-cidr of control, or --by-name",
                file=sys.stderr,
            )
        return 0

    return _told(options, show)
