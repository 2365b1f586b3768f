"""Shell: an app registered with its Consul agent, kept alive by a TTL check, taken out at the end.

The check is passed at once and then three times in its life; an agent that was restarted and has forgotten the service
(or comes back with the check critical) is told again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from urllib.parse import quote

from .backoff import Backoff
from .consul_catalog import PREFIX, ConsulSettings
from .needs import Fetch, FetchError
from .registration import Registration

TTL_S = 10.0
REAP = "1m"
"""Consul's own least time after which it removes what stays critical, for an app whose host died."""
logger = logging.getLogger("fairlead.registration")


class ConsulRegistration:
    """`run` until cancelled, then `close`."""

    def __init__(
        self, fetch: Fetch, settings: ConsulSettings, registration: Registration, ttl_s: float = TTL_S
    ) -> None:
        self._fetch = fetch
        self._settings = settings
        self._registration = registration
        self._ttl_s = ttl_s
        self.id = f"{registration.namespace}-{registration.service}-{registration.instance}"
        self.registered = asyncio.Event()
        self.error = ""
        self._ready, self._why = True, ""
        self._wake = asyncio.Event()
        self._tried = False
        self._closed = False

    def body(self) -> dict[str, object]:
        """PUT /v1/agent/service/register of Consul's agent API."""
        told = self._registration
        meta = {**told.labels, f"{PREFIX}namespace": told.namespace, f"{PREFIX}workload": told.instance}
        for key, value in (("service-account", told.service_account), ("protocol", told.protocol),
                           ("mesh-port", str(told.mesh_port) if told.mesh_port else "")):  # fmt: skip
            if value:
                meta[PREFIX + key] = value
        if told.zone:
            meta["zone"] = told.zone
        return {
            "ID": self.id,
            "Name": told.service,
            "Address": told.address,
            "Port": told.port,
            "Meta": meta,
            "Check": {"CheckID": f"service:{self.id}", "Name": "fairlead sidecar", "TTL": f"{self._ttl_s:g}s",
                      "Status": "passing" if self._ready else "critical", "DeregisterCriticalServiceAfter": REAP},
        }  # fmt: skip

    def health(self, ready: bool, why: str = "") -> None:
        """Whether the app is ready, from now on; told to Consul at once, with the reason."""
        if (ready, why) != (self._ready, self._why):
            self._ready, self._why = ready, why
            self._wake.set()

    async def run(self) -> None:
        backoff = Backoff(0.25, 5.0)
        known = False
        while not self._closed:
            self._wake.clear()
            try:
                fresh = not known
                if fresh:
                    self._tried = True
                    await self._put("/v1/agent/service/register", self.body())
                known = await self._pass()
                if not known and fresh:
                    raise FetchError("the agent took the registration, but does not let its check pass")
                if not known:
                    continue  # the agent has forgotten us
            except FetchError as error:
                known = False  # it may have been restarted: register again before passing
                self.error = str(error)
                self.registered.clear()
                logger.warning("not registered in Consul: %s", error)
                await asyncio.sleep(backoff.pause(random.random()))
                continue
            backoff.reset()
            self.error = ""
            self.registered.set()
            try:
                async with asyncio.timeout(self._ttl_s / 3):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _pass(self) -> bool:
        """Pass the check, or fail it where the app is not ready; False: the agent does not know it."""
        verb, note = "pass" if self._ready else "fail", f"?note={quote(self._why, safe='')}" if self._why else ""
        reply = await self._fetch.request(
            "PUT",
            self._url(f"/v1/agent/check/{verb}/{quote(f'service:{self.id}', safe='')}{note}"),
            headers=self._headers(),
            timeout_s=5.0,
        )
        if reply.status == 200:
            return True
        if reply.status in (404, 500):
            return False
        raise FetchError(f"the check could not be updated: status {reply.status}: {reply.body[:200]!r}")

    async def _put(self, path: str, body: object = None) -> None:
        octets = json.dumps(body).encode() if body is not None else b""
        reply = await self._fetch.request("PUT", self._url(path), headers=self._headers(), body=octets, timeout_s=5.0)
        if reply.status != 200:
            raise FetchError(f"{path}: status {reply.status}: {reply.body[:200].decode('utf-8', 'replace').strip()}")

    def _url(self, path: str) -> str:
        scope = self._settings.scope
        return self._settings.url + path + (("&" if "?" in path else "?") + scope[1:] if scope else "")

    def _headers(self) -> dict[str, str]:
        return self._settings.headers

    async def hand_over(self) -> None:
        """A successor has registered the same: end without taking it out."""
        self._closed = True
        self._wake.set()
        await self._fetch.close()

    async def close(self) -> None:
        """Take the app out of Consul. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._tried:
            try:
                await self._put(f"/v1/agent/service/deregister/{quote(self.id, safe='')}")
            except FetchError as error:
                logger.warning("could not be taken out of Consul (it will be after %s): %s", REAP, error)
        await self._fetch.close()
