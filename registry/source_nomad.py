"""Shell: Nomad's native services (`provider = "nomad"`): blocking queries, and the instances of each service.

Documented at "Services" and "Blocking Queries" of Nomad's HTTP API. A job whose `service` stanza registers in Consul
(`provider = "consul"`, the default) comes by Consul. Nomad's own checks are asked of each allocation
(`/v1/client/allocation/ID/checks`), since registrations say nothing of them: an instance is not ready while a check
fails, but one of `on_update = "ignore"` (mode readiness). A Nomad namespace is the namespace of its services.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from .listed import Listed, Port, facts_of, settings_of_tags, wanted
from .model import Facts
from .names import CLUSTER_DOMAIN
from .needs import Fetch
from .source_listed import SourceError

WAIT_S = 20
READS_AT_ONCE = 16


class NomadSettings(msgspec.Struct, frozen=True):
    url: str = "http://127.0.0.1:4646"
    token: str = ""
    namespace: str = "*"
    region: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    verify: bool = True
    auth: str = ""
    """user:password of HTTP basic authentication."""


def settings_of(url: str, environment: Mapping[str, str]) -> NomadSettings:
    """Settings as Nomad's own tools take them; `url` is a URL, HOST:PORT, or `env` for NOMAD_ADDR."""
    if url in ("env", ""):
        url = environment.get("NOMAD_ADDR") or "127.0.0.1:4646"
    if "://" not in url:
        url = f"http://{url}"
    return NomadSettings(
        url=url.rstrip("/"),
        token=environment.get("NOMAD_TOKEN", ""),
        namespace=environment.get("NOMAD_NAMESPACE") or "*",
        region=environment.get("NOMAD_REGION", ""),
        ca_file=environment.get("NOMAD_CACERT", ""),
        cert_file=environment.get("NOMAD_CLIENT_CERT", ""),
        key_file=environment.get("NOMAD_CLIENT_KEY", ""),
        server_name=environment.get("NOMAD_TLS_SERVER_NAME", ""),
        verify=environment.get("NOMAD_SKIP_VERIFY", "").lower() not in ("1", "true"),
        auth=environment.get("NOMAD_HTTP_AUTH", ""),
    )


class NomadReader:
    """`checks`: whether allocations are asked for the state of their checks (one request each at every read)."""

    name = "nomad"
    every_s = 10.0
    """Checks change without an event."""

    def __init__(
        self, fetch: Fetch, settings: NomadSettings, *, cluster_domain: str = CLUSTER_DOMAIN, checks: bool = True
    ) -> None:
        self.fetch = fetch
        self._settings = settings
        self._domain = cluster_domain
        self._checks = checks

    async def listen(self, heard: Callable[[], None]) -> None:
        index = 0
        while True:
            new, _ = await self._get("/v1/services", {"namespace": self._settings.namespace}, index)
            if new != index or not index:
                heard()
            index = new if new >= index and new > 0 else 0  # went backwards: restored from a snapshot

    async def read(self) -> tuple[Facts, list[str]]:
        _, told = await self._get("/v1/services", {"namespace": self._settings.namespace})
        names = []
        for group in _list(told, "/v1/services"):
            services = group.get("Services") if isinstance(group, dict) else None
            for one in services if isinstance(services, list) else ():
                if isinstance(one, dict) and one.get("ServiceName"):
                    names.append((str(group.get("Namespace") or "default"), str(one["ServiceName"])))
        limit = asyncio.Semaphore(READS_AT_ONCE)
        found = await asyncio.gather(*(self._service(namespace, name, limit) for namespace, name in names))
        entries = [entry for one in found for entry in one]
        failing = await self._failing(entries, limit) if self._checks else {}
        problems: list[str] = []
        listed = []
        for entry in entries:
            try:
                one = instance(entry, failing, _shared_port(entries, entry))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                problems.append(f"nomad {entry.get('ID', '?')}: {error}")
                continue
            if wanted(one.labels):
                listed.append(one)
        facts, unusable = facts_of(listed, self.name, self._domain)
        return facts, problems + unusable

    async def _service(self, namespace: str, name: str, limit: asyncio.Semaphore) -> list[dict[str, Any]]:
        path = f"/v1/service/{quote(name, safe='')}"
        async with limit:
            _, told = await self._get(path, {"namespace": namespace})
        return [entry for entry in _list(told, path) if isinstance(entry, dict)]

    async def _failing(self, entries: list[dict[str, Any]], limit: asyncio.Semaphore) -> dict[tuple[str, str], str]:
        """What fails, by allocation and service. An allocation that cannot be asked has nothing against it."""
        wanted = {(str(entry.get("AllocID")), str(entry.get("Namespace") or "default")) for entry in entries}
        found: dict[tuple[str, str], str] = {}

        async def ask(allocation: str, namespace: str) -> None:
            path = f"/v1/client/allocation/{quote(allocation, safe='')}/checks"
            async with limit:
                try:
                    _, told = await self._get(path, {"namespace": namespace})
                except SourceError:
                    return
            for check in told.values() if isinstance(told, dict) else ():
                if isinstance(check, dict) and check.get("Status") == "failure" and check.get("Mode") != "readiness":
                    output = str(check.get("Output") or "").strip().split("\n")[0]
                    why = f"check {check.get('Check') or check.get('ID')} fails: {output}"[:300]
                    found.setdefault((allocation, str(check.get("Service"))), why)

        await asyncio.gather(*(ask(allocation, namespace) for allocation, namespace in sorted(wanted)))
        return found

    async def _get(self, path: str, query: dict[str, str], index: int = 0) -> tuple[int, Any]:
        """(index, answer), blocking where `index` is given. Raises SourceError, FetchError."""
        told = {**query, "stale": ""}
        if self._settings.region:
            told["region"] = self._settings.region
        if index:
            told |= {"index": str(index), "wait": f"{WAIT_S}s"}
        headers = {"X-Nomad-Token": self._settings.token} if self._settings.token else {}
        if self._settings.auth:
            import base64  # for those who use it

            headers["Authorization"] = "Basic " + base64.b64encode(self._settings.auth.encode()).decode()
        reply = await self.fetch.request(
            "GET",
            f"{self._settings.url}{path}?{urlencode(told)}",
            headers=headers,
            timeout_s=WAIT_S * 17 / 16 + 5 if index else 10.0,
        )
        if reply.status == 403:
            raise SourceError(f"{path}: the token may not read services: give one with read-job (NOMAD_TOKEN)")
        if reply.status != 200:
            raise SourceError(f"{path}: status {reply.status}: {reply.body[:200].decode('utf-8', 'replace').strip()}")
        if reply.headers.get("x-nomad-knownleader") == "false":
            raise SourceError(f"{path}: Nomad has no leader")
        try:
            return int(reply.headers.get("x-nomad-index", "0")), json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{path}: not an answer of Nomad: {error}") from error


def _list(told: Any, path: str) -> list[Any]:
    if told is None:
        return []
    if not isinstance(told, list):
        raise SourceError(f"{path}: expected a list")
    return told


def _shared_port(entries: list[dict[str, Any]], of: Mapping[str, Any]) -> int:
    """The port that clients dial: the one that all instances share, else 80, as they have random ones."""
    ports = {
        str(entry.get("Port"))
        for entry in entries
        if (entry.get("ServiceName"), entry.get("Namespace")) == (of.get("ServiceName"), of.get("Namespace"))
    }
    only = next(iter(ports)) if len(ports) == 1 else ""
    return int(only) if only.isdigit() and len(only) < 6 else 80


def instance(entry: Mapping[str, Any], failing: Mapping[tuple[str, str], str], service_port: int) -> Listed:
    """One registration; raises for what is malformed."""
    name, allocation = str(entry["ServiceName"]), str(entry["AllocID"])
    labels = settings_of_tags(str(tag) for tag in entry.get("Tags") or ())
    labels |= {"nomad.job": str(entry.get("JobID") or ""), "nomad.alloc": allocation}
    port = entry.get("Port")
    if isinstance(port, bool) or not isinstance(port, int):
        raise ValueError(f"Port {port!r} is no number")
    why = failing.get((allocation, name), "")
    datacenter = str(entry.get("Datacenter") or "")
    return Listed(
        where=str(entry.get("ID") or name),
        service=name,
        namespace=str(entry.get("Namespace") or "default"),
        instance=f"{entry.get('JobID') or name}-{allocation[:8]}",
        address=str(entry.get("Address") or ""),
        ports=(Port(service_port, port),),
        labels=labels,
        ready=not why,
        why=why,
        locality=datacenter,
    )
