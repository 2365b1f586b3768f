"""Consul and etcd behind TLS that asks for a client's certificate, by their own tools' environment variables."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.fetch import AiohttpFetch
from fairlead.control.role_sources import PRECEDENCE
from fairlead.control.source_setup import consul_source, etcd_source
from fairlead.registry.hub import Registry
from tests.certificates import Authority
from tests.e2e.roles import until
from tests.e2e.test_registry_promises import running
from tests.servers import Consul, Etcd

pytestmark = pytest.mark.asyncio
WEB = "web.default.svc.cluster.local"


def files(folder: Path) -> dict[str, str]:
    ca = Authority()
    certificate, key = ca.issue("localhost", "server.test.consul", "me")
    found = {}
    for name, text in (("ca", ca.pem), ("cert", certificate), ("key", key)):
        path = folder / f"{name}.pem"
        path.write_text(text)
        found[name] = str(path)
    return found


def context(made: dict[str, str]) -> ssl.SSLContext:
    tls = ssl.create_default_context(cafile=made["ca"])
    tls.load_cert_chain(made["cert"], made["key"])
    return tls


class TlsConsul(Consul):
    def __init__(self, folder: Path, made: dict[str, str], token: str = "") -> None:
        super().__init__(folder, token)
        told = json.loads((folder / "consul.json").read_text())
        told["ports"] |= {"http": -1, "https": self.http_port}
        told |= {"ca_file": made["ca"], "cert_file": made["cert"], "key_file": made["key"],
                 "verify_incoming_https": True, "verify_outgoing": False}  # fmt: skip
        (folder / "consul.json").write_text(json.dumps(told))
        self.url = f"https://localhost:{self.http_port}"
        self.fetch = AiohttpFetch(context(made))


class TlsEtcd(Etcd):
    def __init__(self, folder: Path, made: dict[str, str]) -> None:
        super().__init__(folder)
        self.url = f"https://localhost:{self.client_port}"
        self._made = made
        self.fetch = AiohttpFetch(context(made))

    def command(self) -> list[str]:
        made = self._made
        given = super().command()
        given[given.index("--listen-client-urls") + 1] = f"https://127.0.0.1:{self.client_port}"
        return [*given, "--cert-file", made["cert"], "--key-file", made["key"], "--trusted-ca-file", made["ca"],
                "--client-cert-auth"]  # fmt: skip


async def follows(made: Any, registry: Registry, port: int) -> None:
    async def there() -> bool:
        return {one.port for one in registry.snapshot.value.endpoints.get(WEB, ())} == {port}

    async with running(made):
        await until("the endpoint over TLS", there)


async def refused(made: Any, registry: Registry, name: str, said: str) -> None:
    async def told() -> bool:
        status = registry.snapshot.value.sources.get(name)
        return status is not None and said in status.error.lower()

    async with running(made):
        await until(f"an error with {said}", told)
    assert not registry.snapshot.value.services


async def test_consul_by_consuls_variables(tmp_path: Path) -> None:
    (tmp_path / "consul").mkdir()
    made = files(tmp_path)
    server = TlsConsul(tmp_path / "consul", made)
    try:
        await server.start()
        await server.register("web", "web-1", 8001)
        where = {"CONSUL_HTTP_ADDR": f"localhost:{server.http_port}", "CONSUL_HTTP_SSL": "true"}
        both = {
            **where,
            "CONSUL_CACERT": made["ca"],
            "CONSUL_CLIENT_CERT": made["cert"],
            "CONSUL_CLIENT_KEY": made["key"],
        }
        byte = where | {"CONSUL_HTTP_ADDR": f"127.0.0.1:{server.http_port}"}
        for environment in (both, both | byte | {"CONSUL_TLS_SERVER_NAME": "server.test.consul"}):
            registry = Registry(PRECEDENCE)
            await follows(consul_source("env", registry, None, environment), registry, 8001)
        for environment, said in (
            (where, "certificate verify failed"),
            ({**where, "CONSUL_CACERT": made["ca"]}, "localhost"),  # it may just be closed: TLS 1.3
            (both | byte, "certificate"),
        ):
            registry = Registry(PRECEDENCE)
            await refused(consul_source("env", registry, None, environment), registry, "consul", said)
    finally:
        await server.close()


async def test_etcd_by_etcdctls_variables(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    made = files(tmp_path)
    server = TlsEtcd(tmp_path / "etcd", made)
    try:
        await server.start()
        await server.put("/services/web/web-1", {"host": "10.0.0.1", "port": 8001})
        where = {"ETCDCTL_ENDPOINTS": f"https://localhost:{server.client_port}"}
        both = {**where, "ETCDCTL_CACERT": made["ca"], "ETCDCTL_CERT": made["cert"], "ETCDCTL_KEY": made["key"]}
        registry = Registry(PRECEDENCE)
        await follows(etcd_source("env", "", registry, None, both), registry, 8001)
        for environment, said in (
            (where, "certificate verify failed"),
            ({**where, "ETCDCTL_CACERT": made["ca"]}, "localhost"),
        ):
            registry = Registry(PRECEDENCE)
            await refused(etcd_source("env", "", registry, None, environment), registry, "etcd", said)
    finally:
        await server.close()


async def test_etcd_in_a_layout_that_a_file_states_with_a_list_in_each_key(tmp_path: Path) -> None:
    """Also a service that loses an entry of its list, and a value that becomes malformed."""
    (tmp_path / "etcd").mkdir()
    (tmp_path / "layout.yaml").write_text(
        "prefix: /apps/\nkey: '{namespace}/{service}'\ninstances: ''\nfields: {address: at, ready: up}\n"
    )
    server = Etcd(tmp_path / "etcd")
    try:
        await server.start()
        await server.put("/apps/shop/web", [{"at": "10.0.0.1:80"}, {"at": "10.0.0.2:81"}, {"at": "x y"}])
        registry = Registry(PRECEDENCE)
        host = "web.shop.svc.cluster.local"

        def ports() -> set[int]:
            return {one.port for one in registry.snapshot.value.endpoints.get(host, ()) if one.ready}

        async def has(*wanted: int) -> bool:
            return ports() == set(wanted)

        async with running(etcd_source(server.url, "", registry, None, {}, str(tmp_path / "layout.yaml"))):
            await until("both", lambda: has(80, 81))
            problems = registry.snapshot.value.sources["etcd"].problems
            assert [problem.split(": ")[0] for problem in problems] == ["/apps/shop/web"]
            assert "[2]" in problems[0]
            await server.put("/apps/shop/web", [{"at": "10.0.0.2:81"}, {"at": "10.0.0.3:82", "up": False}])
            await until("one", lambda: has(81))
            assert not registry.snapshot.value.sources["etcd"].problems
            await server.put("/apps/shop/web", "no JSON")
            await until("none", lambda: has())
            assert registry.snapshot.value.sources["etcd"].problems
    finally:
        await server.close()
