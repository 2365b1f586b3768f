"""Shell: the keys of an OpenID Connect issuer: discovery, its key set, and new keys when it rotates them.

Keys are asked for again at most every ten seconds where a token is signed by a key that is not known, and every ten
minutes else; an issuer that does not answer leaves the keys read before in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from urllib.parse import urlsplit

from ..policy.json_web_token import TokenError, read_json, read_keys
from ..proxy.signatures import KeySet
from ..registry.needs import Fetch, FetchError
from . import oidc

REFRESH_S = 600.0
AGAIN_S = 10.0
"""Least time between two looks."""
TIMEOUT_S = 5.0
DOCUMENT_BYTES_MAX = 1 << 20
logger = logging.getLogger("fairlead.oidc")


class OidcVerifier:
    """One issuer. `fetch` is closed by who made it."""

    def __init__(self, settings: oidc.Settings, fetch: Fetch) -> None:
        """Raises ValueError that names the flag."""
        parts = urlsplit(settings.issuer_url)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"--oidc-issuer-url: expected https://HOST/..., got {settings.issuer_url!r}")
        if not settings.client_id:
            raise ValueError("--oidc-client-id: needed with --oidc-issuer-url: tokens must be for us")
        unknown = [name for name in settings.signing_algs if name not in oidc.ALGORITHMS]
        if unknown:
            raise ValueError(f"--oidc-signing-algs: {unknown[0]} is not one of {', '.join(oidc.ALGORITHMS)}")
        self.settings = settings
        self._fetch = fetch
        self.keys = KeySet([])
        self.error = "its keys have not been read yet"
        """Why the keys cannot be read; empty: they can."""
        self._looked = float("-inf")
        self._looking = asyncio.Lock()

    async def verify(self, text: str, now: float) -> tuple[str, tuple[str, ...]]:
        """(user name, groups) of an id token. Raises OidcError."""
        if time.monotonic() - self._looked > REFRESH_S:
            await self._look(self._looked)
        try:
            return oidc.verify(self.settings, self.keys, text, now)
        except oidc.UnknownKeyError as error:
            under_way = self._looking.locked()
            if under_way or time.monotonic() - self._looked > AGAIN_S:
                if under_way:  # somebody else is asking for keys, and this one may be among them
                    async with self._looking:
                        pass
                else:
                    await self._look(self._looked)
                with contextlib.suppress(oidc.UnknownKeyError):
                    return oidc.verify(self.settings, self.keys, text, now)
            if self.error:
                raise oidc.OidcError(f"{error}; {self.settings.issuer_url}: {self.error}") from None
            raise

    async def _look(self, seen: float) -> None:
        """Read the keys, unless somebody has done so since `seen`."""
        async with self._looking:
            if self._looked != seen:
                return
            self._looked = time.monotonic()
            try:
                found = await self._read()
            except (FetchError, ValueError) as error:
                self.error = str(error)
                logger.error("keys of %s: %s; those read before stay in force", self.settings.issuer_url, error)
                return
            self.keys, self.error = found, ""

    async def _read(self) -> KeySet:
        issuer = self.settings.issuer_url
        document = await self._get(issuer.rstrip("/") + "/.well-known/openid-configuration")
        try:
            body = read_json(document)
        except TokenError as error:
            raise ValueError(f"its discovery document is not JSON: {error}") from None
        told, address = (body.get("issuer"), body.get("jwks_uri")) if isinstance(body, dict) else (None, None)
        if told != issuer:
            raise ValueError(f"its discovery document is of issuer {told!r}")
        if not isinstance(address, str) or urlsplit(address).scheme != "https":
            raise ValueError("its discovery document has no jwks_uri with https")
        good, faults = read_keys(await self._get(address))
        for fault in faults:
            logger.info("%s: %s is passed over", address, fault)
        return KeySet(good)

    async def _get(self, url: str) -> bytes:
        answer = await self._fetch.request("GET", url, timeout_s=TIMEOUT_S)
        if answer.status != 200:
            raise ValueError(f"{url} answered {answer.status}")
        if len(answer.body) > DOCUMENT_BYTES_MAX:
            raise ValueError(f"{url} answered more than {DOCUMENT_BYTES_MAX} bytes")
        return answer.body
