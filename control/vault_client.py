"""Shell: the part of Vault's HTTP API that signing needs: requests with a token that is kept alive.

A token (file or VAULT_TOKEN), or AppRole (role id and secret id in files), which is logged in with again when its token
has ended. A token that can be renewed is, at half of its life. Written after Vault's API documents (auth/token,
auth/approle, secret/pki); OpenBao has the same.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from ..registry.backoff import Backoff

TIMEOUT_S = 10.0
RENEW_AT = 0.5
"""Share of a token's life."""
LEAST_S = 1.0
ERRORS_SHOWN = 3
logger = logging.getLogger("fairlead.vault")


class VaultError(Exception):
    """Vault cannot be reached, or refuses; the message says which, and what was asked. `status` 0: no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Login:
    """How to get a token: a file or text with one, or AppRole."""

    def __init__(
        self, token: Callable[[], str] | None = None, role_id: Path | None = None, secret_id: Path | None = None
    ) -> None:
        self.token = token
        self.role_id = role_id
        self.secret_id = secret_id


class Vault:
    """`url`: VAULT_ADDR. Close with `close()`."""

    def __init__(self, url: str, login: Login, namespace: str = "", tls: ssl.SSLContext | None = None) -> None:
        self._url = url.rstrip("/")
        self._login = login
        self._tls = tls
        self._headers = {"X-Vault-Request": "true", **({"X-Vault-Namespace": namespace} if namespace else {})}
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        self._token = ""
        self._renew_at = float("inf")
        """Monotonic."""
        self._renewable = False
        self.error = ""
        """Why the token could not be renewed; empty: it was, or need not be."""

    async def close(self) -> None:
        await self._session.close()

    async def log_in(self) -> None:
        """Raises VaultError."""
        login = self._login
        if login.token is not None:
            self._token = login.token()
            told = (await self._ask("GET", "auth/token/lookup-self", None, self._token)).get("data") or {}
            self._take(float(told.get("ttl") or 0), bool(told.get("renewable")))
            return
        assert login.role_id is not None
        body = {"role_id": _text(login.role_id)}
        if login.secret_id is not None:
            body["secret_id"] = _text(login.secret_id)
        self._take_auth(await self._ask("POST", "auth/approle/login", body, ""))

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request below /v1/; its JSON. Where the token has ended, once more with a new one. Raises VaultError."""
        try:
            return await self._ask(method, path, body, self._token)
        except VaultError as error:
            if error.status != 403:
                raise
            refused = self._token
            await self.log_in()
            if self._token == refused:
                raise
        return await self._ask(method, path, body, self._token)

    async def keep_alive(self) -> None:
        """Renew the token, for ever; one that cannot be renewed is got anew."""
        backoff = Backoff(LEAST_S, 60.0)
        while True:
            await asyncio.sleep(min(max(self._renew_at - time.monotonic(), 0.0), 3600.0))
            if time.monotonic() < self._renew_at:
                continue
            try:
                if self._renewable:
                    self._take_auth(await self._ask("POST", "auth/token/renew-self", {}, self._token))
                else:
                    await self.log_in()
                self.error = ""
                backoff.reset()
            except VaultError as error:
                self.error = f"Vault's token could not be renewed: {error}"
                logger.error("%s", self.error)
                if error.status == 403:
                    self._renewable = False  # it has ended, or reached its longest life
                self._renew_at = time.monotonic() + backoff.pause(random.random())

    def _take_auth(self, answer: Mapping[str, Any]) -> None:
        auth = answer.get("auth") or {}
        if not auth.get("client_token"):
            raise VaultError("Vault's answer to a login has no client_token")
        self._token = str(auth["client_token"])
        self._take(float(auth.get("lease_duration") or 0), bool(auth.get("renewable")))

    def _take(self, ttl_s: float, renewable: bool) -> None:
        """ttl 0: the token never ends."""
        self._renewable = renewable
        again = renewable or self._login.role_id is not None
        self._renew_at = time.monotonic() + max(ttl_s * RENEW_AT, LEAST_S) if ttl_s and again else float("inf")
        if ttl_s and not again:
            logger.warning(
                "Vault's token cannot be renewed and ends in %.0f s: put a new one in its file in time", ttl_s
            )

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, token: str) -> dict[str, Any]:
        headers = {**self._headers, **({"X-Vault-Token": token} if token else {})}
        url = f"{self._url}/v1/{path}"
        try:
            async with self._session.request(
                method, url, json=body, headers=headers, ssl=self._tls if self._tls is not None else True,
                allow_redirects=False,
            ) as answer:  # fmt: skip
                text = await answer.read()
                told = _json(text)
                if answer.status >= 300:
                    why = "; ".join(map(str, (told.get("errors") or [])[:ERRORS_SHOWN])) or "no reason given"
                    sealed = " (sealed, or not active)" if answer.status == 503 else ""
                    raise VaultError(f"{method} {path}: status {answer.status}{sealed}: {why}", answer.status)
                return told
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise VaultError(f"no answer from Vault at {self._url}: {error or type(error).__name__}") from None


def _json(text: bytes) -> dict[str, Any]:
    import msgspec

    try:
        told = msgspec.json.decode(text) if text.strip() else {}
    except msgspec.MsgspecError:
        told = {}
    return told if isinstance(told, dict) else {}


def _text(path: Path) -> str:
    """Raises VaultError naming the file."""
    try:
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise VaultError(f"{path}: {error}") from None
    if not found:
        raise VaultError(f"{path} is empty")
    return found
