"""Shell: `fairlead certs` and `fairlead certs rotate`."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

from .api_client import ApiClient, ApiError, UnreachableError
from .cli_client import failed, print_columns
from .cli_tokens import moment
from .settings import counted

STEPS = {None: "start", "distributing": "issue", "issuing": "finish"}
SAID = {
    "start": "the new root is being distributed",
    "issue": "the new root issues; certificates are being replaced",
    "finish": "the old root is dropped",
    "abort": "the rotation is given up",
}
PAUSE_S = 0.5
SHOWN_MOST = 5
SOON_SHARE = 1 / 3


def certs(options: Any) -> int:
    """Exit 1 where something wants attention."""
    try:
        answer = ApiClient.of(options).call("GET", "/fairlead/v1/certs")
    except (ApiError, UnreachableError) as error:
        return failed(str(error))
    if options.output == "json":
        print(json.dumps(answer, indent=2))
    else:
        show(answer, options.leaves)
    for warning in answer["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    return 1 if answer["warnings"] or answer["trustOldRoots"] else 0


def show(answer: dict[str, Any], everything: bool) -> None:
    """For people."""
    rows = [["KIND", "NAME", "FINGERPRINT", "STATE", "DAYS LEFT", "TRUSTED BY"]]
    for one in answer["authorities"]:
        trusted = f"{one['trustedBy']} of {answer['connected']}" if "trustedBy" in one else "-"
        rows.append(
            [one["kind"], one["name"], one["fingerprint"][:16], one["state"], f"{one['daysLeft']:.1f}", trusted]
        )
    print_columns(rows)
    rotation = answer["rotation"]
    if rotation is not None:
        print(f"\nrotation: {rotation['phase']}")
        for reason in rotation["waitsFor"]:
            print(f"  waits: {reason}")
    for name, roots in answer["trustOldRoots"].items():
        print(
            f"\n{name} still trusts {len(roots)} roots that are none of ours: {', '.join(root[:16] for root in roots)}"
        )
    if revoked := answer.get("revoked"):
        shown = revoked if everything else [one for one in revoked if not one.get("because")]
        print(
            f"\n{counted(len(revoked), 'revocation')}" + ("; with what follows: --leaves" if shown != revoked else "")
        )
        print_columns([["REVOKED", "WORKLOAD", "BY", "AT", "UNTIL", "REASON"], *map(revoked_row, shown)])
    leaves = answer["leaves"] if everything else [leaf for leaf in answer["leaves"] if ends_soon(leaf)]
    print(
        f"\n{counted(len(answer['leaves']), 'certificate')} of workloads"
        + ("" if everything or not leaves else "; soon to end:")
    )
    if leaves:
        rows = [["WORKLOAD", "IDENTITY", "SERIAL", "ISSUER", "DAYS LEFT", "CONNECTED", "BY"]]
        rows += [
            [leaf["workload"], leaf["identity"] or "-", leaf["serial"][:16], leaf["issuer"][:8] or "-",
             f"{leaf['secondsLeft'] / 86400:.2f}", "yes" if leaf["connected"] else "no",
             leaf["by"] + (" (revoked)" if leaf.get("revoked") else "")]
            for leaf in leaves
        ]  # fmt: skip
        print_columns(rows)


def revoked_row(one: dict[str, Any]) -> list[str]:
    reason = one.get("reason", "")
    because = f"{one['because']} was revoked" if one.get("because") else ""
    until = moment(one["ends"]) if one.get("ends") else "restored"
    why = "; ".join(filter(None, (because, reason))) or "-"
    return [one["what"], one.get("workload") or "-", one.get("by") or "-", moment(one.get("at", 0.0)), until, why]


def ends_soon(leaf: dict[str, Any]) -> bool:
    """It should have been renewed."""
    issued = leaf.get("issuedAt")
    return bool(issued and leaf["secondsLeft"] < (leaf["notAfter"] - issued) * SOON_SHARE)


def rotate(options: Any) -> int:
    try:
        client = ApiClient.of(options)
        if options.step:
            return take(client, options, options.step)
        while True:
            rotation = client.call("GET", "/fairlead/v1/certs")["rotation"]
            step = STEPS[rotation["phase"] if rotation is not None else None]
            code = take(client, options, step)
            if code or step == "finish":
                return code
    except (ApiError, UnreachableError) as error:
        return failed(str(error))


def take(client: ApiClient, options: Any, step: str) -> int:
    """One step, when nothing it would break is left; exit 1 after --timeout. Raises ApiError, UnreachableError."""
    end, said = time.monotonic() + options.timeout, ""
    while True:
        try:
            answer = client.call("POST", "/fairlead/v1/certs/rotation", {"step": step, "force": options.force})
        except ApiError as error:
            if error.code != 409 or not str(error).startswith("not yet: "):
                raise
            text = str(error)
            if re.sub(r"\d+ s\b", "", text) != said:  # once for each of whom it waits for, not for each second
                said = re.sub(r"\d+ s\b", "", text)
                print(f"{step}: waits: {text.removeprefix('not yet: ')}", file=sys.stderr)
            if time.monotonic() >= end:
                return failed(f"{step}: not possible within {options.timeout:.0f} s; `fairlead certs rotate` goes on")
            time.sleep(PAUSE_S)
            continue
        if options.output == "json":
            print(json.dumps({"step": step, **answer}))
        else:
            print(f"{step}: {SAID[step]}", flush=True)
        return 0
