"""Shared stores behind TLS and credentials, against the real servers: what works, and what is said where it fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.settings import SettingError
from fairlead.control.store import Key, Stored, StoreError, Write
from fairlead.control.store_open import backend_of, open_store
from fairlead.control.store_shared import SharedStore
from tests.certificates import Authority
from tests.e2e.roles import until
from tests.e2e.test_source_tls import TlsConsul, TlsEtcd, files
from tests.servers import Consul, Etcd

pytestmark = pytest.mark.asyncio
WEB = Key("services", "default", "web")
SOON_S = 10.0
"""Longest time until it is said what is wrong."""


async def works(url: str, environment: Mapping[str, str]) -> None:
    """Two control planes: what one writes the other hears of."""
    async with contextlib.AsyncExitStack() as stack:
        one, two = [await open_store(url, environment) for _ in range(2)]
        for store in (one, two):
            stack.push_async_callback(store.close)
        body = {"metadata": {"name": "web", "namespace": "default"}}
        await one.write([Write(WEB, body, expect=0)])

        async def heard() -> Stored | None:
            return two.memory.get(WEB)

        await until("the other to hear of it", heard)
        await one.write([Write(WEB, None)])


async def refused(url: str, environment: Mapping[str, str], *says: str, wait_s: float = 20.0) -> None:
    """`wait_s`: so long it is tried to open the store, where it may be that this helps."""
    begun = time.monotonic()
    with pytest.raises((StoreError, SettingError)) as told:
        await (await SharedStore.open(backend_of(url, environment), open_s=wait_s)).close()
    message = str(told.value)
    assert all(one in message for one in says), message
    assert "hunter2" not in message and "swordfish" not in message
    assert message.count("store ") <= 1, message
    assert time.monotonic() - begun < SOON_S, "it takes too long to say so"


def more(folder: Path) -> dict[str, str]:
    """A foreign authority, a certificate of it, and one of ours that has ended."""
    other, found = Authority("other ca"), {}
    certificate, key = other.issue("me")
    for name, text in (("other", other.pem), ("foreign", certificate), ("foreign-key", key)):
        (folder / f"{name}.pem").write_text(text)
        found[name] = str(folder / f"{name}.pem")
    return found


@contextlib.asynccontextmanager
async def etcd(folder: Path, made: dict[str, str]) -> AsyncIterator[TlsEtcd]:
    (folder / "etcd").mkdir()
    server = TlsEtcd(folder / "etcd", made)
    try:
        await server.start()
        yield server
    finally:
        await server.close()


async def test_etcd_with_client_certificates(tmp_path: Path) -> None:
    made, wrong = files(tmp_path), more(tmp_path)
    async with etcd(tmp_path, made) as server:
        url = f"etcds://localhost:{server.client_port}/mesh"
        ca, pair = {"ETCDCTL_CACERT": made["ca"]}, {"ETCDCTL_CERT": made["cert"], "ETCDCTL_KEY": made["key"]}
        await works(url, ca | pair)
        await refused(url, pair, "certificate verify failed", "ETCDCTL_CACERT")
        await refused(url, pair | {"ETCDCTL_CACERT": wrong["other"]}, "certificate verify failed", "ETCDCTL_CACERT")
        await refused(url, ca, "ETCDCTL_CERT", wait_s=6.0)
        await refused(url, ca | {"ETCDCTL_CERT": wrong["foreign"], "ETCDCTL_KEY": wrong["foreign-key"]}, "ETCDCTL_CERT",
                      wait_s=6.0)  # fmt: skip
        await refused(url, ca | {"ETCDCTL_CERT": "none.pem", "ETCDCTL_KEY": "none.pem"}, "none.pem")
        await refused(f"etcds://127.0.0.1:{server.client_port}/mesh", ca | pair, "127.0.0.1", "not valid for")


async def test_an_etcd_whose_certificate_has_ended_is_named_so(tmp_path: Path) -> None:
    made = files(tmp_path)
    authority = Authority("short")
    certificate, key = authority.issue("localhost", days=-1)
    for name, text in (("ca", authority.pem), ("cert", certificate), ("key", key)):
        (tmp_path / f"ended-{name}.pem").write_text(text)
    ended = {name: str(tmp_path / f"ended-{name}.pem") for name in ("ca", "cert", "key")}

    class Ended(TlsEtcd):
        async def is_ready(self) -> bool:
            return "serving client traffic" in (self.folder / "log").read_text()

    (tmp_path / "etcd").mkdir()
    server = Ended(tmp_path / "etcd", made)
    server._made = ended
    try:
        await server.start()
        url = f"etcds://localhost:{server.client_port}/mesh"
        await refused(url, {"ETCDCTL_CACERT": ended["ca"]}, "certificate has expired")
    finally:
        await server.close()


async def test_etcd_with_user_and_password(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    server = Etcd(tmp_path / "etcd")
    try:
        await server.start()
        call = server.call
        for user, password in (("root", "hunter2"), ("mesh", "swordfish"), ("reader", "swordfish")):
            await call("/v3/auth/user/add", {"name": user, "password": password})
        for role in ("root", "mesh", "reader"):
            await call("/v3/auth/role/add", {"name": role})
            await call("/v3/auth/user/grant", {"user": role, "role": role})
        from fairlead.registry.etcd_values import b64, prefix_end

        for role, kind in (("mesh", "READWRITE"), ("reader", "READ")):
            grant = {"permType": kind, "key": b64(b"mesh/"), "range_end": b64(prefix_end(b"mesh/"))}
            await call("/v3/auth/role/grant", {"name": role, "perm": grant})
        await call("/v3/auth/enable", {})
        url = f"etcd://127.0.0.1:{server.client_port}/mesh"
        await works(url, {"ETCDCTL_USER": "mesh:swordfish"})
        await works(url, {"ETCDCTL_USER": "mesh", "ETCDCTL_PASSWORD": "swordfish"})
        await refused(url, {}, "ETCDCTL_USER")
        await refused(url, {"ETCDCTL_USER": "mesh:hunter2"}, "invalid user ID or password", "ETCDCTL_USER")
        await refused(url.replace("/mesh", "/other"), {"ETCDCTL_USER": "mesh:swordfish"}, "permission denied", "other/")
        await _reads_only(url)
    finally:
        await server.close()


async def _reads_only(url: str) -> None:
    store = await open_store(url, {"ETCDCTL_USER": "reader:swordfish"})
    try:
        with pytest.raises(StoreError, match="permission denied"):
            await store.write([Write(WEB, {"metadata": {"name": "web", "namespace": "default"}}, expect=0)])
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def consul(folder: Path, made: Any = None, token: str = "") -> AsyncIterator[Consul]:
    (folder / "consul").mkdir()
    server = TlsConsul(folder / "consul", made, token) if made else Consul(folder / "consul", token)
    try:
        await server.start()
        yield server
    finally:
        await server.close()


async def test_consul_with_tls_and_a_token(tmp_path: Path) -> None:
    made, wrong = files(tmp_path), more(tmp_path)
    async with consul(tmp_path, made, "hunter2-hunter2") as server:
        url = f"consuls://localhost:{server.http_port}/mesh"
        ca = {"CONSUL_CACERT": made["ca"], "CONSUL_CLIENT_CERT": made["cert"], "CONSUL_CLIENT_KEY": made["key"]}
        (tmp_path / "token").write_text("hunter2-hunter2\n")
        await works(url, ca | {"CONSUL_HTTP_TOKEN": "hunter2-hunter2"})
        await works(url, ca | {"CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "token")})
        await refused(url, ca, "status 403", "CONSUL_HTTP_TOKEN")
        await refused(url, ca | {"CONSUL_HTTP_TOKEN": "swordfish"}, "403", "CONSUL_HTTP_TOKEN")
        good = {"CONSUL_HTTP_TOKEN": "hunter2-hunter2"}
        await refused(url, ca | good | {"CONSUL_CACERT": wrong["other"]}, "certificate verify failed", "CONSUL_CACERT")
        await refused(url, good | {"CONSUL_CACERT": made["ca"]}, "CONSUL_CLIENT_CERT", wait_s=1.0)
