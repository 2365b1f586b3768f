"""Shell: sources and registrations from flags and the environment, with their HTTP clients and what is kept on disk."""

from __future__ import annotations

import logging
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ..proxy.client import HttpFetch
from ..registry import consul_catalog, etcd_values, source_docker, source_marathon, source_nomad
from ..registry.etcd_layout import NAMED, Layout
from ..registry.etcd_layout import parse as parse_layout
from ..registry.hub import Registry
from ..registry.keep import Keep
from ..registry.model import Changed, Facts, SourceStatus, Workload
from ..registry.namespace_map import NamespaceMap
from ..registry.needs import Fetch
from ..registry.registration import Registration
from ..registry.registration_consul import ConsulRegistration
from ..registry.registration_etcd import EtcdRegistration
from ..registry.source_consul import ConsulSource
from ..registry.source_etcd import EtcdSource
from ..registry.source_listed import ListedSource, Reader
from .settings import SettingError, cause, why

logger = logging.getLogger("fairlead.registry")


def context(
    url: str, ca_file: str, cert_file: str, key_file: str, verify: bool = True, ca_path: str = ""
) -> ssl.SSLContext | None:
    """TLS as the environment says; None for plain HTTP. Raises SettingError."""
    if not url.startswith("https:"):
        return None
    try:
        made = ssl.create_default_context(cafile=ca_file or None, capath=ca_path or None)
        if cert_file:
            made.load_cert_chain(cert_file, key_file or None)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(one for one in (ca_file, ca_path, cert_file, key_file) if one)
        raise SettingError(f"TLS for {url}: {files}: {error}") from error
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def check_urls(what: str, urls: Sequence[str]) -> None:
    """Raises SettingError for what can never be connected to, which no trying again would mend."""
    for url in urls:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or re.search(r"[\s\x00-\x1f\x7f]", url):
            raise SettingError(f"{what}: expected HOST:PORT or http(s)://HOST:PORT, got {url!r}")
    if not urls:
        raise SettingError(f"{what}: expected HOST:PORT or http(s)://HOST:PORT, got nothing")


def kept_update(
    registry: Registry, name: str, data: Path | None, first: Callable[[Facts, float], None]
) -> Callable[[Facts, Changed | None], None]:
    """How a source hands over its facts: to the registry and to disk; what was kept is handed to `first` now."""
    keep = Keep(data / f"source-{name}.json") if data is not None else None
    if keep is not None and (found := keep.load()) is not None:
        first(*found)

    def update(facts: Facts, touched: Changed | None) -> None:
        registry.update(name, facts, touched)
        if keep is not None:
            keep.save(facts, time.time())

    return update


def start_stale(registry: Registry, name: str) -> Callable[[Facts, float], None]:
    def take(facts: Facts, saved_at: float) -> None:
        registry.update(name, facts)
        registry.status(SourceStatus(name, "stale", saved_at, "from disk; the source has not confirmed it yet"))

    return take


def aiohttp_fetch(tls: ssl.SSLContext | None, server_name: str = "") -> Fetch:
    from .fetch import AiohttpFetch

    return AiohttpFetch(tls, server_name=server_name)


def consul_settings(url: str, environment: Mapping[str, str]) -> consul_catalog.ConsulSettings:
    """Consul's settings, with the token from its file where the environment names one. Raises SettingError."""
    settings = consul_catalog.settings_of(url, environment)
    check_urls("consul", [settings.url])
    if settings.token or not settings.token_file:
        return settings
    try:
        return msgspec.structs.replace(settings, token=Path(settings.token_file).read_text().strip())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"CONSUL_HTTP_TOKEN_FILE {settings.token_file}: {cause(error)}") from error


def consul_tls(settings: consul_catalog.ConsulSettings) -> ssl.SSLContext | None:
    files = (settings.ca_file, settings.cert_file, settings.key_file)
    return context(settings.url, *files, settings.verify, settings.ca_path)


def consul_source(
    url: str,
    registry: Registry,
    data: Path | None,
    environment: Mapping[str, str],
    namespaces: Sequence[str] = (),
    address_tag: str = "",
) -> ConsulSource:
    """`namespaces`: PATTERN=NAMESPACE, each; `address_tag`: which of the tagged addresses counts."""
    try:
        mapped = NamespaceMap(namespaces)
    except ValueError as error:
        raise SettingError(f"--consul-namespace: {error}") from None
    settings = msgspec.structs.replace(consul_settings(url, environment), address_tag=address_tag)
    tls = consul_tls(settings)
    update = kept_update(registry, "consul", data, start_stale(registry, "consul"))
    fetch = aiohttp_fetch(tls, settings.server_name)
    return ConsulSource(fetch, settings, update, stale_aware(registry), namespaces=mapped)


def etcd_layout(where: str) -> Layout:
    """A layout by its name, or from a file. Raises SettingError."""
    if where in NAMED:
        return NAMED[where]
    try:
        return parse_layout(Path(where).read_text(), where)
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(NAMED)
        raise SettingError(f"--etcd-layout: expected one of {names}, or a file that states one: {why(error)}") from None
    except ValueError as error:
        raise SettingError(f"--etcd-layout: {error}") from None


def etcd_source(
    urls: str, prefix: str, registry: Registry, data: Path | None, environment: Mapping[str, str], layout: str = ""
) -> EtcdSource:
    """`prefix`: empty for the layout's own; `layout`: a name or a file, empty for Fairlead's."""
    stated = etcd_layout(layout or "fairlead")
    settings = etcd_values.settings_of(urls, environment)
    check_urls("etcd", settings.endpoints)
    tls = context(settings.endpoints[0], settings.ca_file, settings.cert_file, settings.key_file, settings.verify)
    update = kept_update(registry, "etcd", data, start_stale(registry, "etcd"))
    return EtcdSource(aiohttp_fetch(tls), settings, update, stale_aware(registry), prefix=prefix, layout=stated)


def nomad_source(url: str, registry: Registry, data: Path | None, environment: Mapping[str, str]) -> ListedSource:
    settings = source_nomad.settings_of(url, environment)
    check_urls("nomad", [settings.url])
    tls = context(settings.url, settings.ca_file, settings.cert_file, settings.key_file, settings.verify)
    return _listed(source_nomad.NomadReader(aiohttp_fetch(tls, settings.server_name), settings), registry, data)


def marathon_source(urls: str, registry: Registry, data: Path | None, environment: Mapping[str, str]) -> ListedSource:
    settings = source_marathon.settings_of(urls, environment)
    check_urls("marathon", settings.urls)
    tls = context(settings.urls[0], environment.get("SSL_CERT_FILE", ""), "", "")
    return _listed(source_marathon.MarathonReader(aiohttp_fetch(tls), settings), registry, data)


def docker_source(where: str, registry: Registry, data: Path | None, environment: Mapping[str, str]) -> ListedSource:
    from .fetch import AiohttpFetch

    settings = source_docker.settings_of(where, environment)
    folder = f"{settings.cert_path}/" if settings.cert_path else ""
    if settings.socket:
        if not settings.socket.startswith("/"):
            raise SettingError(f"docker: expected unix:///PATH or tcp://HOST:PORT, got {where!r}")
        fetch = AiohttpFetch(socket=settings.socket)
    else:
        check_urls("docker", [settings.url])
        files = (f"{folder}ca.pem", f"{folder}cert.pem", f"{folder}key.pem") if folder else ("", "", "")
        fetch = AiohttpFetch(context(settings.url, *files))
    return _listed(source_docker.DockerReader(fetch, settings), registry, data)


def _listed(reader: Reader, registry: Registry, data: Path | None) -> ListedSource:
    update = kept_update(registry, reader.name, data, start_stale(registry, reader.name))
    return ListedSource(reader, update, stale_aware(registry))


def stale_aware(registry: Registry) -> Callable[[SourceStatus], None]:
    """Status updates to the registry; while facts from disk are in use, "starting" is told as "stale"."""

    told: set[str] = set()

    def tell(status: SourceStatus) -> None:
        before = registry.snapshot.value.sources.get(status.name)
        for problem in status.problems:
            if problem not in told:
                logger.warning("%s: an entry cannot be used: %s", status.name, problem)
        for note in status.notes:
            if note not in told:
                logger.warning("%s: %s", status.name, note)
        told.clear()
        told.update(status.problems, status.notes)
        if status.state == "starting" and before is not None and before.state == "stale" and before.confirmed_at:
            error = status.error or before.error
            status = SourceStatus(status.name, "stale", before.confirmed_at, error, status.problems, status.notes)
        registry.status(status)

    return tell


def registration(options: Any, workload: Workload, environment: Mapping[str, str]) -> Any:
    """The registration that --register and --service ask for; raises SettingError."""
    where, _, url = options.register.partition("=")
    if where not in ("consul", "etcd"):
        raise SettingError(f"--register: expected consul=URL or etcd=URLS, got {options.register!r}")
    name, _, port = (options.service or "").rpartition(":")
    if not name or not port.isdigit() or not 0 < int(port) <= 65535:
        raise SettingError("--service: expected NAME:PORT, the name to register as and the app's port")
    if not workload.addresses:
        raise SettingError("--address: needed to register, since others must know where to come to")
    told = Registration(
        service=name,
        instance=workload.name,
        namespace=workload.namespace,
        address=workload.addresses[0],
        port=int(port),
        labels=workload.labels,
        service_account=options.service_account or "",
        mesh_port=workload.mesh_port,
    )
    if where == "consul":
        consul = consul_settings(url or "env", environment)
        tls = consul_tls(consul)
        return ConsulRegistration(HttpFetch(tls, consul.server_name or None), consul, told)
    etcd = etcd_values.settings_of(url or "env", environment)
    check_urls("etcd", etcd.endpoints)
    tls = context(etcd.endpoints[0], etcd.ca_file, etcd.cert_file, etcd.key_file, etcd.verify)
    return EtcdRegistration(HttpFetch(tls), etcd, told)
