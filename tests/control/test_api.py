"""The API as a whole: what the rest of control gets from it, TLS and certificates, slow clients, closing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fairlead.control import api as api_module
from fairlead.control import tokens
from fairlead.control.api import ControlApi, create_app
from fairlead.control.authority_files import open_authority
from fairlead.mesh.csr import make as make_csr
from tests.control.serving import SERVICES, VIRTUAL_SERVICES, Client, api_in, api_on, service, store_in, virtual_service

pytestmark = pytest.mark.asyncio
KEY = "object/services/default/web"


async def test_changes_are_told_with_their_item_keys_and_objects(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        heard: list[Any] = []
        stop = api.subscribe(lambda changed: heard.append(dict(changed)))
        only: list[Any] = []
        api.subscribe(only.append, {"pods"})
        made = await client.post(SERVICES, service("web"))
        await client.post("/fairlead/v1/tokens", {})
        await client.delete(f"{SERVICES}/web")
        stop()
        await client.post(SERVICES, service("other"))
        assert heard == [{KEY: made}, {KEY: None}]
        assert only == []


async def test_objects_are_listed_in_their_preferred_version_without_tokens(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        await client.post("/fairlead/v1/tokens", {})
        older = {**virtual_service("a"), "apiVersion": "networking.istio.io/v1alpha3"}
        await client.post(VIRTUAL_SERVICES.replace("/v1/", "/v1alpha3/"), older)
        found = api.objects()
        assert {key for key in found if "rbac" not in key} == {
            "object/namespaces//default",
            "object/virtualservices.networking.istio.io/default/a",
        }
        assert found["object/virtualservices.networking.istio.io/default/a"]["apiVersion"] == "networking.istio.io/v1"
        assert api.objects({"services"}) == {}


async def test_a_subscriber_that_fails_stops_neither_the_write_nor_the_watches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_changed: Any) -> None:
        raise RuntimeError("a fault")

    async with api_in(tmp_path) as (api, client):
        heard: list[Any] = []
        api.store.memory._subscribers.insert(0, fail)
        api.subscribe(heard.append)
        await client.post(SERVICES, service("web"))
        assert len(heard) == 1
    assert "a subscriber of the store failed" in caplog.text


async def test_further_routes_get_in_by_the_same_door(tmp_path: Path) -> None:
    def prepare(api: ControlApi) -> None:
        async def feed(request: web.Request) -> web.Response:
            principal = api.authorize(request, request.query.get("namespace", ""), request.query.get("workload", ""))
            return web.json_response({"role": principal.role})

        async def broken(request: web.Request) -> web.Response:
            raise RuntimeError("a fault of ours")

        api.add_routes([web.get("/fairlead/v1/feed", feed), web.get("/fairlead/v1/broken", broken)])

    async with store_in(tmp_path) as store, api_on(store, prepare=prepare) as (api, client):
        api.checks["feed"] = lambda: "" if len(store.memory.all(tokens.RESOURCE)) < 2 else "too much"
        assert "ok" in await client.get("/readyz")
        made = await client.post("/fairlead/v1/tokens", {"namespace": "shop", "serviceAccount": "web"})
        mine = f"Bearer {made['token']}"
        feed = "/fairlead/v1/feed"
        assert await client.get(feed) == {"role": "admin"}
        assert await client.get(f"{feed}?namespace=shop&workload=w", Authorization=mine) == {"role": "workload"}
        await client.get(f"{feed}?namespace=other&workload=w", 403, Authorization=mine)
        await client.get(feed, 403, Authorization=mine)
        once = await client.post("/fairlead/v1/tokens", {"namespace": "shop", "oneTime": True})
        await client.get(f"{feed}?namespace=shop&workload=w", 403, Authorization=f"Bearer {once['token']}")
        failed = await client.get("/fairlead/v1/broken", 500)
        assert "fault of ours" not in json.dumps(failed)
        _, text = await client.ask("GET", "/readyz?verbose", code=503)
        assert "[-]feed failed: too much" in text
        assert "[+]store ok" in text


async def test_workloads_come_by_certificate_over_tls_and_renew_it(tmp_path: Path) -> None:
    issuer = open_authority(tmp_path, "cluster.local", 3600.0)
    trusted = ssl.create_default_context(cadata=issuer.roots())
    async with (
        store_in(tmp_path) as store,
        api_on(store, issuer=issuer, identity_of=issuer.identity_of) as (api, client),
    ):
        port = await api.start("127.0.0.1", 0, ssl=issuer.server_context(["127.0.0.1"]))
        url = f"https://127.0.0.1:{port}"
        token = (await client.post("/fairlead/v1/tokens", {"namespace": "shop", "serviceAccount": "web"}))["token"]
        request = make_csr()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted)) as session:
            secure = Client(session, url)
            await secure.get("/fairlead/v1/roots")
            await secure.get(SERVICES, 401)  # TLS is never open, on loopback neither
            await secure.post("/fairlead/v1/certificates", {"csr": request["csr"]}, 401)
            issued = await secure.post(
                "/fairlead/v1/certificates", {"csr": request["csr"]}, 200, Authorization=f"Bearer {token}"
            )
        assert issued["identity"] == "spiffe://cluster.local/ns/shop/sa/web"
        chain = tmp_path / "chain.pem"
        chain.write_text(issued["certificates"] + request["key"])
        mine = ssl.create_default_context(cadata=issuer.roots())
        mine.load_cert_chain(chain)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=mine)) as session:
            secure = Client(session, url)
            renewed = await secure.post("/fairlead/v1/certificates", {"csr": make_csr()["csr"]}, 200)
            assert renewed["identity"] == issued["identity"]
            assert renewed["serial"] != issued["serial"]
            other = {"csr": make_csr()["csr"], "namespace": "other"}
            await secure.post("/fairlead/v1/certificates", other, 403)
            await secure.get(SERVICES, 403)


async def test_a_certificate_of_another_authority_is_not_even_heard(tmp_path: Path) -> None:
    issuer = open_authority(tmp_path, "cluster.local", 3600.0)
    (tmp_path / "foreign").mkdir()
    foreign = open_authority(tmp_path / "foreign", "cluster.local", 3600.0)
    request = make_csr()
    issued = foreign.issue(request["csr"], "shop", "web", 1e9 + 8e8)
    chain = tmp_path / "chain.pem"
    chain.write_text(issued["certificates"] + request["key"])
    context = ssl.create_default_context(cadata=issuer.roots())
    context.load_cert_chain(chain)
    async with store_in(tmp_path) as store, api_on(store, issuer=issuer, identity_of=issuer.identity_of) as (api, _):
        port = await api.start("127.0.0.1", 0, ssl=issuer.server_context(["127.0.0.1"]))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"https://127.0.0.1:{port}/fairlead/v1/roots")


async def test_a_connection_that_brings_no_request_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "FIRST_REQUEST_S", 0.1)
    async with api_in(tmp_path) as (api, client):
        for first in (b"", b"GET / HTTP/1.1\r\nHost: loc"):
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(first)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()
        await client.get(SERVICES)


async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.control.api_objects.BODY_TIMEOUT_S", 0.1)
    async with api_in(tmp_path) as (api, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(f"POST {SERVICES} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{".encode())
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()


async def test_closing_ends_watches_and_leaves_no_thread_or_task(tmp_path: Path) -> None:
    before = threading.active_count()
    async with api_in(tmp_path) as (api, client):
        async with client.session.get(f"{client.url}{SERVICES}?watch=true") as watch:
            await api.close()
            assert await asyncio.wait_for(watch.read(), 10) == b""
        with pytest.raises(aiohttp.ClientError):
            await client.get(SERVICES)
    assert threading.active_count() == before


async def test_the_application_can_be_served_by_others(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        runner = web.AppRunner(create_app(store))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        async with aiohttp.ClientSession() as session:
            await Client(session, f"http://127.0.0.1:{port}").get("/version")
            await Client(session, f"http://127.0.0.1:{port}").get(SERVICES, 401)  # open only where ControlApi listens
        await runner.cleanup()


async def test_people_get_indented_json(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        for headers, query, pretty in (
            ({"User-Agent": "curl/8"}, "", True), ({}, "?pretty=true", True), ({}, "", False),
            ({"User-Agent": "curl/8"}, "?pretty=0", False),
        ):  # fmt: skip
            async with client.session.get(f"{client.url}/version{query}", headers=headers) as answer:
                assert ("\n  " in await answer.text()) is pretty
