"""Shell: an app registered in etcd as a key under a lease that is kept alive, taken out at the end."""

from __future__ import annotations

import asyncio
import json
import logging
import random

from .backoff import Backoff
from .etcd_client import EtcdClient, EtcdError
from .etcd_values import EtcdSettings, b64, workload_name
from .needs import Fetch, FetchError
from .registration import Registration

TTL_S = 10
logger = logging.getLogger("fairlead.registration")


class EtcdRegistration:
    """`run` until cancelled, then `close`."""

    def __init__(
        self,
        fetch: Fetch,
        settings: EtcdSettings,
        registration: Registration,
        prefix: str = "/services/",
        ttl_s: int = TTL_S,
    ) -> None:
        self.client = EtcdClient(fetch, settings)
        self._registration = registration
        self._ttl_s = ttl_s
        self.key = f"{prefix.rstrip('/')}/{registration.service}/{registration.instance}"
        self.registered = asyncio.Event()
        self.error = ""
        self._lease = ""
        self._ready = True
        self._stale = False
        """Whether the key's value is not what it should be."""
        self._wake = asyncio.Event()
        self._put = False
        """Whether the key was put under this lease."""
        self._closed = False

    def value(self) -> dict[str, object]:
        told = self._registration
        made: dict[str, object] = {"host": told.address, "port": told.port, "namespace": told.namespace}
        if not self._ready:
            made["ready"] = False
        named = workload_name(told.service.lower(), told.instance)  # what readers take from the key
        more = {
            "workload": told.instance if named != told.instance else "",
            "labels": told.labels,
            "meshPort": told.mesh_port,
            "serviceAccount": told.service_account,
            "zone": told.zone,
            "protocol": told.protocol,
        }
        return made | {key: value for key, value in more.items() if value}

    def health(self, ready: bool, why: str = "") -> None:
        """Whether the app is ready, from now on; told to etcd at once (which has no place for the reason)."""
        if ready != self._ready:
            self._ready = ready
            self._stale = True
            self._wake.set()

    async def run(self) -> None:
        backoff = Backoff(0.25, 5.0)
        while not self._closed:
            self._wake.clear()
            try:
                if not self._put:
                    await self._take_lease()
                elif self._stale:
                    await self._put_key()
                told = await self.client.call("/v3/lease/keepalive", {"ID": self._lease})
                if not int(told.get("result", {}).get("TTL", 0)):  # lost: expired while we were away
                    self._put = False
                    self.registered.clear()
                    continue
            except (FetchError, EtcdError, KeyError, ValueError) as error:
                self.error = str(error)
                self.registered.clear()
                logger.warning("not registered in etcd: %s", error)
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

    async def _take_lease(self) -> None:
        told = await self.client.call("/v3/lease/grant", {"TTL": str(self._ttl_s)})
        self._lease = str(told["ID"])
        await self._put_key()

    async def _put_key(self) -> None:
        self._stale = self._put = False  # where this fails, a new lease and the key again
        value = json.dumps(self.value(), sort_keys=True)
        await self.client.call("/v3/kv/put", {"key": b64(self.key), "value": b64(value), "lease": self._lease})
        self._put = True

    async def hand_over(self) -> None:
        """A successor has put the same key under a lease of its own: end without taking it out."""
        self._closed = True
        self._wake.set()
        await self.client.fetch.close()

    async def close(self) -> None:
        """Take the app out of etcd. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._lease:
            try:
                await self.client.once("/v3/lease/revoke", {"ID": self._lease})
            except (FetchError, EtcdError) as error:
                logger.warning("could not be taken out of etcd (its lease ends in %d s): %s", self._ttl_s, error)
        await self.client.fetch.close()
