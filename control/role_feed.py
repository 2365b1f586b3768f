"""Shell: a role's connection to control: its client, token, feed, and where the last version is kept."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..mesh.feed import Feed
from ..mesh.update import Holdings, build_world
from ..policy.known_fields import known_fields, schema_id
from ..policy.world import Loader, World
from ..proxy.client import HttpFetch
from ..registry.names import split_full_name
from .settings import SettingError, bearer_token, control_url

logger = logging.getLogger("fairlead.feed")


class ControlLink:
    """What a role needs to speak to control."""

    def __init__(self, fetch: HttpFetch, feed: Feed, headers: Callable[[], Mapping[str, str]]) -> None:
        self.fetch = fetch
        self.feed = feed
        self.headers = headers

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
    tls = None
    if any(url.startswith("https:") for url in urls):
        if not options.ca:
            raise SettingError(
                "--ca: needed to know an https control by (its file DATA-DIR/ca.pem, or GET /fairlead/v1/roots)"
            )
        try:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            tls.load_verify_locations(cafile=options.ca)
        except (OSError, ssl.SSLError) as error:
            raise SettingError(f"--ca {options.ca}: {error}") from error
    fetch = HttpFetch(tls)

    def headers() -> Mapping[str, str]:
        if not options.token_file:
            return {}
        try:
            token = bearer_token(options.token_file)  # read each time: it may be replaced while we run
        except (OSError, ValueError) as error:
            logger.error("--token-file %s: %s", options.token_file, error)
            return {}
        return {"authorization": f"Bearer {token}"}

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
        headers=headers,
        keep=data / "feed.json" if data is not None else None,
        knows=knows,
        fields=known_fields,
    )
    return ControlLink(fetch, feed, headers)
