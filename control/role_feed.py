"""Shell: a role's connection to control: its client, token, feed, and where the last version is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..mesh.bundle import SERVICE_ACCOUNT, Credentials
from ..mesh.feed import Feed
from ..mesh.update import Holdings, build_world
from ..policy.known_fields import known_fields, schema_id
from ..policy.world import Loader, World
from ..proxy.client import HttpFetch
from ..registry.names import split_full_name
from .settings import SettingError, bearer_token, cause, control_url

logger = logging.getLogger("fairlead.feed")


class ControlLink:
    """What a role needs to speak to control."""

    def __init__(self, fetch: HttpFetch, feed: Feed, credentials: Credentials) -> None:
        self.fetch = fetch
        self.feed = feed
        self.credentials = credentials
        self.headers = credentials.headers

    async def close(self) -> None:
        await self.fetch.close()


def feed_for(
    options: Any,
    urls: list[str],
    role: str,
    full_name: str,
    take: Callable[[World], None],
    data: Path | None,
    report: Mapping[str, str],
) -> ControlLink:
    """The feed for a role; raises SettingError for flags that cannot be used."""
    urls = [control_url(url) for url in urls]
    anchors = ""
    if any(url.startswith("https:") for url in urls):
        if not options.ca:
            raise SettingError(
                "--ca: needed to know an https control by (its file DATA-DIR/ca.pem, or GET /fairlead/v1/roots)"
            )
        anchors = options.ca
    fetch = HttpFetch()

    account = getattr(options, "service_account", "")
    named = {SERVICE_ACCOUNT: f"{split_full_name(full_name)[0]}/{account}"} if account else {}

    def headers() -> Mapping[str, str]:
        if not options.token_file:
            return named  # looked at where we come by a Unix socket
        try:
            token = bearer_token(options.token_file)  # read each time: it may be replaced while we run
        except (OSError, ValueError) as error:
            logger.error("--token-file %s: %s: going on without it", options.token_file, cause(error))
            return {}
        return {"authorization": f"Bearer {token}"}

    try:
        credentials = Credentials(fetch, anchors, headers)
    except OSError as error:  # ssl.SSLError is one
        raise SettingError(f"--ca {options.ca}: {cause(error)}") from error
    holdings = Holdings(partial(build_world, loader=Loader()))
    knows = {"schema": schema_id(), "items": ",".join(sorted(holdings.tables()))}
    if role == "sidecar":
        knows["endpoints"] = options.endpoints
    namespace, name = split_full_name(full_name)
    feed = Feed(
        fetch,
        urls,
        holdings,
        take,
        report={"role": role, "namespace": namespace, "workload": name, **report},
        headers=credentials.headers,
        keep=data / "feed.json" if data is not None else None,
        knows=knows,
        fields=known_fields,
    )
    return ControlLink(fetch, feed, credentials)
