"""Shell: keeps web pages away from the API where it is open."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from aiohttp import web

from .status import StatusError


def check_not_a_browser(request: web.Request) -> None:
    """Where the API is open on loopback, a web page in somebody's browser must not be able to use it.

    Pages of other sites send Origin or Sec-Fetch-Site; a name that an attacker points to 127.0.0.1 shows in Host.
    """
    host = request.headers.get("Host", "")
    foreign = request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") or (
        request.headers.get("Origin", "") not in ("", f"http://{host}")
    )
    if foreign or not is_local(host):
        raise StatusError(
            403, "the open development API takes no requests from web pages or under other names than localhost; "
            "configure an administrators' token (--api-token-file) to use it so",
        )  # fmt: skip


@lru_cache(64)
def is_local(host: str) -> bool:
    """Whether a Host header is an address, or a name that cannot point elsewhere than to this host."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    name = name.strip("[]").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in ("", "localhost") or name.endswith(".localhost")
    return True
