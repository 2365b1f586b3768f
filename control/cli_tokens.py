"""Shell: `fairlead token list` and `fairlead token revoke`."""

from __future__ import annotations

import json
import time
from typing import Any

from .api_client import ApiClient, ApiError, UnreachableError
from .cli_client import failed, print_columns

PATH = "/fairlead/v1/tokens"


def list_tokens(options: Any) -> int:
    try:
        found = ApiClient.of(options).call("GET", PATH)["tokens"]
    except (ApiError, UnreachableError) as error:
        return failed(str(error))
    found = [one for one in found if options.namespace in ("", one["namespace"])]
    if options.output == "json":
        print(json.dumps({"tokens": found}, indent=2))
        return 0
    now = time.time()
    rows = [["ID", "NAMESPACE", "SERVICE ACCOUNT", "WORKLOAD", "KIND", "STATE", "LAST USED", "MADE BY"]]
    for one in sorted(found, key=lambda one: (one["namespace"], one["serviceAccount"], one.get("createdAt", 0.0))):
        kind = "one-time" if one.get("oneTime") else "reusable"
        rows.append([one["id"], one["namespace"], one["serviceAccount"], one.get("workload") or "any", kind,
                     state_of(one, now), moment(one.get("usedAt", 0.0)), one.get("createdBy") or "-"])  # fmt: skip
    print_columns(rows)
    return 0


def state_of(token: dict[str, Any], now: float) -> str:
    """Whether it can still be used, and until when."""
    if token.get("oneTime") and token.get("usedAt"):
        return "used"
    ends = float(token.get("expiresAt", 0.0))
    return f"expired {moment(ends)}" if now >= ends else f"until {moment(ends)}"


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds)) if seconds else "never"


def revoke(options: Any) -> int:
    client, code = ApiClient.of(options), 0
    client.give_reason(options.reason)
    flags = [name for name in ("withdraw", "certificates") if getattr(options, name)]
    query = f"?{'&'.join(flags)}" if flags else ""
    for given in options.ids:
        name = given.split("_")[1] if given.startswith("flt_") and given.count("_") >= 2 else given
        try:
            answer = client.call("DELETE", f"{PATH}/{name}{query}")
            print(f"token {name} revoked")
            for serial in (answer or {}).get("certificates", ()):
                print(f"certificate {serial} revoked")
        except ApiError as error:
            code = failed(f"{error}{'; see `fairlead token list`' if error.code == 404 else ''}")
        except UnreachableError as error:
            return failed(str(error))
    return code
