"""Shell: `fairlead confirm`, and what `apply --confirm` needs of control."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from .api_client import ApiClient, ApiError, UnreachableError

PATH = "/fairlead/v1/confirmations"


def begin(client: ApiClient, timeout_s: float) -> str:
    """The id under which changes are to be made. Raises ApiError, UnreachableError."""
    answer = client.call("POST", PATH, {"timeoutSeconds": timeout_s})
    client.headers["Fairlead-Confirm"] = answer["id"]
    return str(answer["id"])


def ended(client: ApiClient, name: str, timeout_s: float, code: int, changed: bool) -> int:
    """After the last document: say how to confirm, or take back what was applied where something was refused."""
    if not code and not changed:
        client.call("DELETE", f"{PATH}/{name}")
        print("unchanged: nothing to confirm")
        return 0
    if code:
        try:
            client.call("DELETE", f"{PATH}/{name}")
            print("fairlead: something was refused, so everything is taken back", file=sys.stderr)
        except (ApiError, UnreachableError) as error:
            print(f"fairlead: {error}; it is taken back in {timeout_s:g} s", file=sys.stderr)
        return code
    print(f"taken back in {timeout_s:g} s unless confirmed: fairlead confirm {name}")
    return 0


def confirm(options: Any) -> int:
    """Exit 1 where there is nothing to confirm, or it has ended."""
    client = ApiClient.of(options)
    try:
        waiting = client.call("GET", PATH)["confirmations"]
        if options.list:
            for one in waiting:
                left = max(0, math.ceil(one["deadline"] - time.time()))
                print(f"{one['id']}  {one['author']}  {left} s left  {', '.join(one['objects']) or '-'}")
            if not waiting:
                print("nothing waits to be confirmed", file=sys.stderr)
            return 0
        if not options.id and len(waiting) != 1:
            names = ", ".join(one["id"] for one in waiting)
            print(
                f"fairlead: {f'name one of {names}' if waiting else 'nothing waits to be confirmed'}", file=sys.stderr
            )
            return 1
        name = options.id or waiting[0]["id"]
        if options.revert:
            client.call("DELETE", f"{PATH}/{name}")
        else:
            client.call("POST", f"{PATH}/{name}/confirm", {})
    except ApiError as error:
        hint = "; it was confirmed or taken back, or is somebody else's: see --list" if error.code == 404 else ""
        print(f"fairlead: {error}{hint}", file=sys.stderr)
        return 1
    except UnreachableError as error:
        print(f"fairlead: {error}", file=sys.stderr)
        return 1
    print(f"{name} {'taken back' if options.revert else 'confirmed'}")
    return 0
