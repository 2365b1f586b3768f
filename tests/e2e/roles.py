"""Roles of Fairlead as real processes, and small apps for them to stand beside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.servers import free_ports

FAIRLEAD = str(Path(sys.executable).with_name("fairlead"))
DEADLINE_S = 30.0
PACE_S = 0.02
"""What each client of a load that runs for long pauses between requests: else it takes all that the machine has."""


def static_service(name: str, port_name: str, port: int, at: int) -> str:
    """A Service with one port, and an app of it on loopback."""
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{name: {port_name}, port: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: {port_name}, port: {at}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"""


def free_port() -> int:
    """A port that is free now, for what must be known before a role starts (manifests, restarts)."""
    return free_ports(1)[0]


async def until(what: str, ready: Callable[[], Awaitable[Any]], deadline_s: float = DEADLINE_S) -> Any:
    """The first true result of `ready`; fails naming `what` when the deadline passes."""
    end = asyncio.get_running_loop().time() + deadline_s
    while True:
        found = await ready()
        if found:
            return found
        assert asyncio.get_running_loop().time() < end, f"waited {deadline_s} s for {what}"
        await asyncio.sleep(0.02)


class Role:
    """One `fairlead` process. `at["outbound"]` is the HOST:PORT of its ready line."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, name: str) -> None:
        self.process = process
        self.log_path = log
        self.name = name
        self.at: dict[str, str] = {}
        self._pump: asyncio.Task[None] | None = None
        self.lines: list[str] = []

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    async def ready(self) -> None:
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    line = (await self.process.stdout.readline()).decode()
                    if not line:
                        raise AssertionError(f"{self.name} ended before it was ready:\n{self.log[-4000:]}")
                    self.lines.append(line.rstrip())
                    if line.startswith("fairlead ") and " ready" in line:
                        self.at = dict(part.split("=", 1) for part in line.split() if "=" in part)
                        break
        except TimeoutError:
            raise AssertionError(f"{self.name} was not ready in {DEADLINE_S} s:\n{self.log[-4000:]}") from None
        self._pump = asyncio.ensure_future(self._read_on())

    async def _read_on(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode(errors="replace").rstrip())

    def url(self, port: str, path: str = "/") -> str:
        return f"http://{self.at[port]}{path}"

    async def kill(self) -> None:
        """kill -9."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._end()

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), DEADLINE_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise AssertionError(
                f"{self.name} did not end within {DEADLINE_S} s of SIGTERM:\n{self.log[-4000:]}"
            ) from None
        finally:
            await self._end()
        return self.process.returncode or 0

    async def _end(self) -> None:
        """Read what it wrote to the end, also of one that nobody waited for: else its pipe outlives the loop."""
        await (self._pump or self._read_on())
        self._pump = None

    def said_no_traceback(self) -> None:
        assert "Traceback" not in self.log, self.log[-4000:]


class Roles:
    """Starts roles in one test's folder and ends them with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[Role] = []

    async def start(self, *arguments: str, env: Mapping[str, str] | None = None, wait: bool = True) -> Role:
        name = f"{arguments[0]}-{len(self.running)}"
        path = self.folder / f"{name}.log"
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                FAIRLEAD,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **(env or {})},
                cwd=self.folder,
            )
        role = Role(process, path, name)
        self.running.append(role)
        if wait:
            await role.ready()
        return role

    async def command(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run one command to its end: exit code, standard output, standard error."""
        process = await asyncio.create_subprocess_exec(
            FAIRLEAD,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.folder,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin), DEADLINE_S)
        return process.returncode or 0, out.decode(), err.decode()

    async def close(self) -> None:
        for role in self.running:
            await role.kill()
        for role in self.running:
            role.said_no_traceback()


@contextlib.asynccontextmanager
async def roles_in(folder: Path) -> AsyncIterator[Roles]:
    made = Roles(folder)
    try:
        yield made
    except BaseException:
        for role in made.running:
            print(f"---- {role.name}\n{role.log[-3000:]}")  # shown by pytest with the failure
            await role.kill()
        raise
    await made.close()


class App:
    """A small HTTP server that answers with what it was asked; `failing` makes it answer 500."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.failing = False
        self.seen: list[dict[str, Any]] = []
        self.hold: asyncio.Event | None = None
        """Requests to /hold wait for this."""
        self.held = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        told = {
            "app": self.name,
            "method": request.method,
            "path": request.path_qs,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": len(body),
        }
        self.seen.append(told)
        if self.hold is not None and request.path == "/hold":
            self.held.set()
            await self.hold.wait()
        return web.json_response(told, status=500 if self.failing else 200)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


@contextlib.asynccontextmanager
async def apps(*names: str) -> AsyncIterator[list[App]]:
    made = [App(name) for name in names]
    try:
        for app in made:
            await app.start()
        yield made
    finally:
        for app in made:
            await app.close()


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def ask(
    session: aiohttp.ClientSession, role: Role, host: str, path: str = "/", method: str = "GET", **headers: str
) -> tuple[int, Mapping[str, str], Any]:
    """One request by a sidecar's outbound port, Host as given: status, headers, JSON or text."""
    sent = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with session.request(method, role.url("outbound", path), headers=sent) as answer:
        text = await answer.text()
        try:
            return answer.status, answer.headers, json.loads(text)
        except ValueError:
            return answer.status, answer.headers, text
