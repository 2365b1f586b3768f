"""A control API on a port of its own over a store in a folder, for tests."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from fairlead.control.api import ControlApi, Options
from fairlead.control.store import Store
from fairlead.control.store_sqlite import SqliteStore

VIRTUAL_SERVICES = "/apis/networking.istio.io/v1/namespaces/default/virtualservices"
SERVICES = "/api/v1/namespaces/default/services"


def virtual_service(name: str, host: str = "web", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, **metadata},
        "spec": {"hosts": [host], "http": [{"route": [{"destination": {"host": host}}]}]},
    }


def service(name: str, port: int = 80, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, **metadata},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": port, "targetPort": 8080}]},
    }


class Client:
    """Requests to one API."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def ask(
        self, method: str, path: str, body: Any = None, code: int | None = None, **headers: str
    ) -> tuple[int, Any]:
        """(status, decoded JSON or text). `code`: what the status must be; header names with _ for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            text = body if isinstance(body, (bytes, str)) else json.dumps(body)
            data = io.BytesIO(text.encode() if isinstance(text, str) else text)
        async with self.session.request(method, self.url + path, headers=sent, data=data) as answer:
            received = await answer.read()
            decoded = json.loads(received) if "json" in answer.content_type else received.decode()
            if code is not None:
                assert answer.status == code, f"{method} {path}: {answer.status} {decoded}"
            return answer.status, decoded

    async def get(self, path: str, code: int = 200, **headers: str) -> Any:
        return (await self.ask("GET", path, code=code, **headers))[1]

    async def post(self, path: str, body: Any, code: int = 201, **headers: str) -> Any:
        return (await self.ask("POST", path, body, code, **headers))[1]

    async def put(self, path: str, body: Any, code: int = 200, **headers: str) -> Any:
        return (await self.ask("PUT", path, body, code, **headers))[1]

    async def patch(self, path: str, body: Any, kind: str = "merge-patch+json", code: int = 200) -> Any:
        return (await self.ask("PATCH", path, body, code, Content_Type=f"application/{kind}"))[1]

    async def delete(self, path: str, body: Any = None, code: int = 200, **headers: str) -> Any:
        return (await self.ask("DELETE", path, body, code, **headers))[1]


@contextlib.asynccontextmanager
async def store_in(folder: Path, **settings: Any) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(folder / "store.db", **settings)
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def api_on(
    store: Store, options: Options | None = None, prepare: Callable[[ControlApi], None] | None = None, **more: Any
) -> AsyncIterator[tuple[ControlApi, Client]]:
    """An API that listens on a free port of loopback, and a client of it."""
    api = ControlApi(store, options=options, **more)
    if prepare:
        prepare(api)
    port = await api.start("127.0.0.1", 0)
    session = aiohttp.ClientSession()
    try:
        yield api, Client(session, f"http://127.0.0.1:{port}")
    finally:
        await session.close()
        await api.close()


@contextlib.asynccontextmanager
async def api_in(folder: Path, options: Options | None = None, **more: Any) -> AsyncIterator[tuple[ControlApi, Client]]:
    async with store_in(folder) as store, api_on(store, options, **more) as pair:
        yield pair
