"""Shell: the store that --store names, with credentials and TLS from the variables of etcdctl and Consul's tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..registry import etcd_values
from .settings import SettingError
from .source_setup import aiohttp_fetch, check_urls, consul_settings, consul_tls, context
from .store import LOG_AGE_S, LOG_ENTRIES, Store
from .store_backend import Backend
from .store_consul import ConsulBackend
from .store_etcd import EtcdBackend
from .store_shared import SharedStore
from .store_sqlite import SqliteStore

SCHEMES = ("sqlite", "etcd", "etcds", "consul", "consuls")
EXPECTED = "expected sqlite:PATH, etcd://HOST:PORT,.../PREFIX or consul://HOST:PORT/PREFIX"


def split(text: str) -> tuple[str, str, str]:
    """(scheme, hosts or path, prefix) of --store. Raises SettingError."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in SCHEMES:
        raise SettingError(f"--store: {EXPECTED}, got {text!r}")
    if scheme == "sqlite":
        path = rest.removeprefix("//")
        if not path:
            raise SettingError(f"--store: {EXPECTED}, got {text!r}")
        return scheme, path, ""
    if not rest.startswith("//"):
        raise SettingError(f"--store: {EXPECTED}, got {text!r}")
    hosts, _, prefix = rest[2:].partition("/")
    prefix = prefix.strip("/") or "fairlead"
    if "@" in hosts:
        raise SettingError("--store: no credentials here, where others see them: set ETCDCTL_USER or CONSUL_HTTP_TOKEN")
    if any(not part or part in (".", "..") for part in prefix.split("/")) or not prefix.isascii() or "?" in prefix:
        raise SettingError(f"--store: a prefix is made of names with / between, got {prefix!r}")
    return scheme, hosts, prefix


def backend_of(text: str, environment: Mapping[str, str]) -> Backend:
    """The storage of a shared store. No host: as ETCDCTL_ENDPOINTS or CONSUL_HTTP_ADDR say. Raises SettingError."""
    scheme, hosts, prefix = split(text)
    if scheme.startswith("etcd"):
        secure = scheme == "etcds"
        urls = ",".join(f"https://{host}" for host in hosts.split(",") if host) if secure else hosts
        settings = etcd_values.settings_of(urls or "env", environment)
        check_urls("--store", settings.endpoints)
        tls = context(settings.endpoints[0], settings.ca_file, settings.cert_file, settings.key_file, settings.verify)
        return EtcdBackend(aiohttp_fetch(tls), settings, prefix)
    listed = [host for host in hosts.split(",") if host] or ["env"]
    found = [
        consul_settings(f"https://{host}" if scheme == "consuls" and host != "env" else host, environment)
        for host in listed
    ]
    first = found[0]
    return ConsulBackend(aiohttp_fetch(consul_tls(first), first.server_name), first, [one.url for one in found], prefix)


async def open_store(
    text: str,
    environment: Mapping[str, str],
    *,
    log_entries: int = LOG_ENTRIES,
    log_age_s: float = LOG_AGE_S,
) -> Store:
    """Raises SettingError, StoreError."""
    scheme, path, _ = split(text)
    if scheme == "sqlite":
        return await SqliteStore.open(Path(path), log_entries=log_entries, log_age_s=log_age_s)
    return await SharedStore.open(backend_of(text, environment), log_entries=log_entries, log_age_s=log_age_s)
