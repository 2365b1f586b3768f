"""Shell: an agent's side of `xds_agents`, and how it takes its Envoy out of service."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence

import msgspec

from ..mesh.bundle import fingerprints
from ..mesh.contexts import Material
from ..proxy.client import HttpFetch
from ..registry.needs import FetchError

AGENT_S = 2.0
"""How often an agent speaks, unless control wants to hear it less often."""
AGENT_S_MOST = 60.0
TIMEOUT_S = 5.0
LOOK_S = 0.1
LEAVE_SHARE = 0.5
"""Of the time to drain, at most so much is spent on being taken out of discovery."""
logger = logging.getLogger("fairlead.agent")


class RefusedError(Exception):
    """Control does not let this account act for this workload; the message says why."""


class Trust(msgspec.Struct):
    """What control answers."""

    roots: str = ""
    issuer: str = ""
    again: float = AGENT_S
    """After how many seconds it wants to hear of us again."""


async def tell(
    fetch: HttpFetch, urls: Sequence[str], headers: Mapping[str, str], namespace: str, workload: str,
    held: Material | None,
) -> Trust | None:  # fmt: skip
    """Tell control what stands in the files, and hear what is in force; None: it is of an older version. Raises
    RefusedError, FetchError where no control plane answers."""
    body: dict[str, object] = {"namespace": namespace, "workload": workload}
    if held is not None:
        body |= {"roots": fingerprints(held.roots), "serial": f"{held.serial:x}", "issuer": held.issuer,
                 "notAfter": held.ends}  # fmt: skip
    error = "no control plane is known"
    for url in urls:
        try:
            reply = await fetch.request(
                "POST", f"{url}/fairlead/v1/feed/agent", headers={**headers, "content-type": "application/json"},
                body=json.dumps(body).encode(), timeout_s=TIMEOUT_S,
            )  # fmt: skip
        except FetchError as failed:
            error = str(failed)
            continue
        if reply.status in (401, 403):
            raise RefusedError(_said(reply.body))
        if reply.status == 404:
            return None
        if reply.status == 200:
            try:
                return msgspec.json.decode(reply.body, type=Trust)
            except msgspec.MsgspecError as failed:
                raise FetchError(f"{url}: the answer cannot be read: {failed}") from None
        error = f"{url}: status {reply.status}"
    raise FetchError(error)


def _said(body: bytes) -> str:
    """The sentence of a Kubernetes Status, else the text."""
    try:
        told = json.loads(body)
        return str(told["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace").strip()[:500] or "no reason given"


async def drain(
    fetch: HttpFetch, urls: Sequence[str], headers: Mapping[str, str], role: str, name: tuple[str, str],
    admin: str, time_s: float,
) -> None:  # fmt: skip
    """Take a workload out of discovery, then let its Envoy (`admin`: HOST:PORT) take no new connections, and wait until
    those that stand have ended; `time_s` for all of it. What fails is told, and the rest is done."""
    end = time.monotonic() + time_s
    wait_s = time_s * LEAVE_SHARE
    body = {"namespace": name[0], "workload": name[1], "role": role, "timeout": wait_s}
    for url in urls:
        try:
            reply = await fetch.request(
                "POST", f"{url}/fairlead/v1/feed/leave", headers={**headers, "content-type": "application/json"},
                body=json.dumps(body).encode(), timeout_s=wait_s + TIMEOUT_S,
            )  # fmt: skip
            logger.info("out of discovery: %s", reply.body.decode("utf-8", "replace").strip()[:300])
            break
        except FetchError as error:
            logger.warning("control was not told that the workload leaves: %s", error)
    try:
        # Clients are asked to go (Connection: close, GOAWAY); once they have, or the time is over, nobody gets in.
        for path in ("/healthcheck/fail", "/drain_listeners?graceful&skip_exit"):
            await _post(fetch, admin, path)
        while (left := await _active(fetch, admin)) and time.monotonic() < end:
            await asyncio.sleep(LOOK_S)
        await _post(fetch, admin, "/drain_listeners")
    except FetchError as error:
        logger.warning("Envoy's admin at %s does not answer: %s", admin, error)
        return
    logger.info("Envoy is drained%s", f", with {left} connections left" if left else "")


async def _post(fetch: HttpFetch, admin: str, path: str) -> None:
    reply = await fetch.request("POST", f"http://{admin}{path}", timeout_s=TIMEOUT_S)
    if reply.status != 200:
        logger.warning("Envoy's admin answered %s with status %d", path, reply.status)


async def _active(fetch: HttpFetch, admin: str) -> int:
    """Connections at listeners other than the admin's."""
    reply = await fetch.request(
        "GET", f"http://{admin}/stats?filter=^listener\\..*downstream_cx_active$&format=json", timeout_s=TIMEOUT_S
    )
    try:
        stats = json.loads(reply.body)["stats"]
        return sum(int(one.get("value", 0)) for one in stats if not one["name"].startswith("listener.admin."))
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0
