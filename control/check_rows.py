"""What `fairlead check` finds, as rows: from what control, its feed, its sources and the policies say of themselves.

All pure: `now` is in Unix seconds, answers are as `/fairlead/v1/status` and the roles' own ports give them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..mesh.rotation import is_alarming
from ..policy.policy_coverage import gaps
from ..policy.validate import Report
from ..policy.world import World
from .settings import counted

OK, WARNING, ERROR = "ok", "warning", "error"
SILENT_S = 120.0
"""A source that says it is live, but has confirmed nothing for so long, may be cut off without knowing."""
ROOT_S = 30 * 86400.0
"""A root that ends within this time is warned of."""


class Row(Struct, frozen=True):
    """One thing that was looked at."""

    group: str
    name: str
    status: str
    message: str
    remedy: str = ""


def of_sources(sources: Sequence[Mapping[str, Any]], now: float) -> list[Row]:
    found = []
    for one in sources:
        name, state, at = str(one["name"]), one.get("state", "starting"), one.get("confirmed_at") or 0.0
        age = f"confirmed {shown(now - at)} ago" if at else "never confirmed"
        error = f": {one['error']}" if one.get("error") else ""
        if state == "stale":
            found.append(
                Row(
                    "sources",
                    name,
                    ERROR,
                    f"stale, {age}{error}",
                    "what it said last is served; see that it can be reached",
                )
            )
        elif state != "live":
            found.append(Row("sources", name, ERROR, f"has not said anything yet{error}", "see that it can be reached"))
        elif at and now - at > SILENT_S:
            found.append(Row("sources", name, WARNING, f"silent: {age}", "see that it can be reached"))
        else:
            found.append(Row("sources", name, OK, f"live, {age}"))
        found += [Row("sources", name, WARNING, note) for note in one.get("notes") or ()]
        problems = one.get("problems") or []
        if problems:
            found.append(
                Row(
                    "sources",
                    name,
                    WARNING,
                    f"{counted(len(problems), 'entry')} cannot be used: {problems[0]}",
                    f"mend them where they are written{'; `-o json` has all' if len(problems) > 1 else ''}",
                )
            )
    return found


def behind(members: Sequence[Mapping[str, Any]]) -> set[str]:
    """Those that do not run what they were sent last, and have not refused it."""
    return {key_of(one) for one in members if one["taken"] != one["offered"] and one["refused"] != one["offered"]}


def key_of(member: Mapping[str, Any]) -> str:
    return f"{member['role']} {member['namespace']}/{member['workload']}"


def of_sidecars(members: Sequence[Mapping[str, Any]], late: set[str], world: World | None) -> list[Row]:
    """`late`: those that were behind at both of two looks; `world`: for the workloads whose sidecars are away."""
    found = []
    for one in members:
        key = key_of(one)
        for why in one.get("not_believed", ()):
            what, _, remedy = why.partition("; ")
            found.append(Row("sidecars", key, WARNING, f"what it says of itself is not believed: {what}", remedy))
        if one["refused"]:
            reasons = "; ".join(one["reasons"]) or "no reason given"
            found.append(
                Row(
                    "sidecars",
                    key,
                    ERROR,
                    f"refused version {one['refused']}: {reasons}",
                    f"it goes on with {one['taken'] or 'nothing'}; mend the object, or update the sidecar",
                )
            )
        elif key in late:
            found.append(
                Row(
                    "sidecars",
                    key,
                    ERROR,
                    f"behind: it runs {one['taken'] or 'nothing yet'}, and was sent {one['offered'] or 'nothing yet'}",
                    "look at its log and its load",
                )
            )
        elif one.get("checked") and not one.get("ready"):
            found.append(
                Row("sidecars", key, WARNING, f"its app is not ready: {one.get('why', '')}", "see its /healthchecks")
            )
        else:
            said = "draining, " if one.get("leaving") else ""
            found.append(Row("sidecars", key, OK, f"{said}runs {one['taken'] or 'nothing yet'}"))
    present = {f"{one['namespace']}/{one['workload']}" for one in members if one["role"] != "dns"}
    for workload in world.snapshot.workloads.values() if world is not None else ():
        if workload.key not in present and (workload.mesh_port or workload.source == "sidecars"):
            found.append(
                Row(
                    "sidecars",
                    f"sidecar {workload.key}",
                    ERROR,
                    "not connected to control"
                    + (f"; others dial its mesh port {workload.mesh_port}" if workload.mesh_port else ""),
                    "start it, or delete the workload; with several controls name each by --control",
                )
            )
    return found


def of_policies(world: World, members: Sequence[Mapping[str, Any]] | None) -> list[Row]:
    """`members`: None without a running mesh."""
    sidecars = None
    if members is not None:
        sidecars = {
            f"{one['namespace']}/{one['workload']}": bool(one.get("captured"))
            for one in members
            if one["role"] == "sidecar"
        }
    rows = [
        Row("policies", f"NetworkPolicy {gap.policy}", gap.status, gap.message, gap.remedy)
        for gap in gaps(world, sidecars)
    ]
    said = {row.name for row in rows}
    for policy in world.resources.network_policies:
        name = f"NetworkPolicy {policy.meta.namespace}/{policy.meta.name}"
        if name not in said:
            rows.append(Row("policies", name, OK, "can be enforced in full"))
    return rows


def of_reports(reports: Sequence[Report]) -> list[Row]:
    """Manifests, as `validate` judges them."""
    found = []
    for report in reports:
        name = f"{report.kind} {report.namespace + '/' if report.namespace else ''}{report.name}".strip()
        for status, told in ((ERROR, report.errors), (WARNING, report.warnings)):
            for one in told:
                where = one.at or report.source
                path = f"{one.path}: " if one.path else ""
                found.append(Row("manifests", name or report.source, status, f"{path}{one.message}", where))
    bad = sum(1 for report in reports if not report.valid)
    found.append(Row("manifests", "documents", OK if not bad else ERROR, f"{len(reports)} read, {bad} not valid"))
    return found


def of_certificate(name: str, begins: float, ends: float, now: float, renewed: bool, remedy: str) -> Row:
    """`renewed`: whether it is replaced in good time without anybody's doing."""
    left = ends - now
    if left <= 0:
        return Row("certificates", name, ERROR, f"ended {shown(-left)} ago", remedy)
    if renewed and is_alarming(begins, ends, now):
        return Row("certificates", name, WARNING, f"ends in {shown(left)} and is not renewed", remedy)
    if not renewed and left < ROOT_S:
        return Row("certificates", name, WARNING, f"ends in {shown(left)}", remedy)
    return Row("certificates", name, OK, f"ends in {shown(left)}")


def of_revocations(answer: Mapping[str, Any]) -> list[Row]:
    """What was taken back by name, who still uses it, and who cannot refuse it."""
    rows = []
    for one in answer["revoked"]:
        if not one.get("because"):
            why = f": {one['reason']}" if one.get("reason") else ""
            rows.append(Row("certificates", one["what"], OK, f"revoked by {one.get('by') or 'nobody known'}{why}"))
    for one in answer["using"]:
        rows.append(
            Row("certificates", one["workload"], WARNING, f"uses certificate {one['serial']}, which is revoked",
                "it needs a token that is good, or is not the one it says it is")
        )  # fmt: skip
    if answer["revoked"]:
        rows += [Row("certificates", "xDS", WARNING, told) for told in answer["unable"]]
    return rows


def shown(seconds: float) -> str:
    """A duration for people."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(seconds, 0.0):.0f}s"
