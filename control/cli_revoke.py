"""Shell: `fairlead certs revoke` and `fairlead certs restore`."""

from __future__ import annotations

import json
import sys
from typing import Any

from .api_client import ApiClient, ApiError, UnreachableError
from .cli_client import failed
from .settings import counted

PATH = "/fairlead/v1/certs"
SHOWN_MOST = 5


def revoke(options: Any) -> int:
    """Exit 1 where not all that are connected refuse it yet."""
    answer = _ask(options, "revocations", {"force": options.force})
    if answer is None:
        return 1
    if options.output == "json":
        print(json.dumps(answer, indent=2))
    else:
        print(f"{answer['what']} {'revoked' if answer['new'] else 'was revoked before'}")
        for one in answer["certificates"]:
            if answer["what"] != f"certificate {one['name']}":
                print(f"certificate {one['name']} of {one.get('workload') or one.get('identity')} revoked")
    for warning in answer["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    return _in_force(answer)


def restore(options: Any) -> int:
    answer = _ask(options, "restore", {"certificates": options.certificates})
    if answer is None:
        return 1
    if options.output == "json":
        print(json.dumps(answer, indent=2))
    else:
        left = len(answer["stillRevoked"])
        more = f"; {counted(left, 'certificate')} of before stay revoked until they end" if left else ""
        print(f"{answer['what']} restored{more}")
    return _in_force(answer)


def _in_force(answer: dict[str, Any]) -> int:
    pending = answer["pending"]
    if not pending:
        return 0
    names = ", ".join(pending[:SHOWN_MOST]) + (f" and {len(pending) - SHOWN_MOST} more" if pending[SHOWN_MOST:] else "")
    return failed(f"not known to all yet: {names}; `fairlead status`")


def _ask(options: Any, what: str, more: dict[str, Any]) -> dict[str, Any] | None:
    named = {"serial": options.serial, "workload": options.workload, "serviceAccount": options.service_account}
    body = {name: value for name, value in named.items() if value}
    client = ApiClient.of(options)
    client.give_reason(options.reason)
    try:
        answer: dict[str, Any] = client.call("POST", f"{PATH}/{what}", {**body, **more})
    except (ApiError, UnreachableError) as error:
        failed(str(error))
        return None
    return answer
