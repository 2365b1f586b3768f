# ruff: noqa: E501
"""A mesh under every kind of load for long, with everything changing: does memory stay flat? `make soak`

Control and two sidecars with mutual TLS between them serve requests of mixed kinds (small, with bodies, chunked, large
downloads, HTTP/1.0, a new connection each, unknown hosts, malformed, abandoned half-way, TCP) while a route is swapped,
an endpoint comes and goes, and certificates are renewed every few seconds. At intervals the load rests, the endpoints
leave so that all connections close, and the resident memory of each process is told: what is left then is what was
forgotten. Exits with 1 if a process has grown by more than --allowed-mb from the first rest to the last, or if more
than one request in a thousand was not answered as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

FAIRLEAD = str(Path(sys.executable).with_name("fairlead"))
HOST = "web.default.svc.cluster.local"
ROUTE = "/apis/networking.istio.io/v1/namespaces/default/virtualservices"
PODS = "/api/v1/namespaces/default/pods"
BIG = b"x" * (1 << 20)
HEAD = f"host: {HOST}\r\nuser-agent: soak\r\naccept: */*\r\nx-tenant: 42\r\n"
ALLOWED_MB = 1.5
OCTETS = 7000
REST_S = 12
"""Longer than twice the period after which a sidecar gives memory back (mesh/memory.py)."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def resident_kb(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


class App(asyncio.Protocol):
    """Answers every request by its path; what is no HTTP is sent back."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            size = end + 4
            if b"transfer-encoding: chunked" in head:
                last = self.buffer.find(b"0\r\n\r\n", size)
                if last < 0:
                    return
                size = last + 5
            elif (at := head.find(b"content-length: ")) >= 0:
                size += int(head[at + 16 :].split(b"\r", 1)[0])
            if len(self.buffer) < size:
                return
            self.buffer = self.buffer[size:]
            body = BIG if head.startswith(b"get /big") else b"y" * 100
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


class Echo(asyncio.Protocol):
    """Sends back OCTETS and closes."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.left = OCTETS

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.left -= len(data)
        if self.left <= 0:
            self.transport.close()


class Mesh:
    """Control, a sidecar `web` with its app and a sidecar `front` by which the load comes."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.workers = workers
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.at: dict[str, dict[str, str]] = {}
        self.url = f"http://127.0.0.1:{free_port()}"
        self.mesh_port = free_port()
        self.app_port = self.echo_port = 0
        self.session: Any = None

    async def role(self, name: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.log").open("wb")
        process = await asyncio.create_subprocess_exec(
            FAIRLEAD, *arguments, stdout=asyncio.subprocess.PIPE, stderr=log, stdin=asyncio.subprocess.DEVNULL
        )
        self.processes[name] = process
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        if " ready" not in line:
            raise SystemExit(f"{name} did not start:\n{(self.folder / f'{name}.log').read_text()[-3000:]}")
        self.at[name] = dict(part.split("=", 1) for part in line.split() if "=" in part)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for protocol, name in ((App, "app_port"), (Echo, "echo_port")):
            server = await loop.create_server(protocol, "127.0.0.1", 0)
            setattr(self, name, server.sockets[0].getsockname()[1])
        self.session = aiohttp.ClientSession()
        await self.role("control", "control", "--listen", self.url[7:], "--data-dir", str(self.folder / "control"),
                        "--certificate-ttl", "12s")  # fmt: skip
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {
            "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"},
                                                  {"name": "tcp-echo", "port": 7, "targetPort": "tcp-echo"}]}}  # fmt: skip
        await self.post("/api/v1/namespaces/default/services", service)
        await self.post(PODS, self.pod("web-1", "web", "127.0.0.1"))
        await self.post(PODS, self.pod("front-1", "front", "127.0.0.1"))
        await self.post(ROUTE, self.route(0))
        common = ("--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
        for name, more in (
            ("web", ("--inbound", f"0.0.0.0:{self.mesh_port}", "--app-address", "127.0.0.1", "--outbound", "off")),
            ("front", ("--inbound", "off", "--outbound", "127.0.0.1:0", "--listen", f"127.0.0.1:0={HOST}:7",
                       "--workers", str(self.workers))),
        ):  # fmt: skip
            token = self.folder / f"{name}.token"
            made = await asyncio.create_subprocess_exec(
                FAIRLEAD, "token", "create", "--service-account", name, "--control", self.url,
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            token.write_bytes((await made.communicate())[0])
            await self.role(name, "sidecar", "--workload", f"default/{name}-1", "--control", self.url, "--token-file",
                            str(token), "--access-log", str(self.folder / f"{name}.access"), *common, *more)  # fmt: skip

    def pod(self, name: str, app: str, address: str) -> dict[str, Any]:
        ports = [
            {"name": "http", "containerPort": self.app_port},
            {"name": "tcp-echo", "containerPort": self.echo_port},
        ]
        notes = {"fairlead.dev/address": address}
        if app == "web":
            notes["fairlead.dev/mesh-port"] = str(self.mesh_port)
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}, "annotations": notes},
                "spec": {"serviceAccountName": app, "containers": [{"name": "m", "ports": ports if app == "web" else []}]}}  # fmt: skip

    def route(self, number: int) -> dict[str, Any]:
        teapot = {"match": [{"uri": {"exact": f"/teapot/{number}"}}], "directResponse": {"status": 418}}
        other = {"route": [{"destination": {"host": "web"}}], "timeout": f"{10 + number % 5}s"}
        return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "web"},
                "spec": {"hosts": ["web"], "http": [teapot, other]}}  # fmt: skip

    async def post(self, path: str, body: dict[str, Any]) -> None:
        async with self.session.post(self.url + path, json=body) as answer:
            if answer.status not in (200, 201):
                raise SystemExit(f"{path}: {answer.status} {await answer.text()}")

    async def change(self, number: int) -> None:
        """Another route; and an endpoint that comes or goes."""
        patch = json.dumps({"spec": self.route(number)["spec"]})
        kind = {"content-type": "application/merge-patch+json"}
        async with self.session.patch(f"{self.url}{ROUTE}/web", data=patch, headers=kind) as answer:
            assert answer.status == 200, await answer.text()
        if number % 2:
            await self.post(PODS, self.pod("web-2", "web", "127.0.0.2"))
        else:
            await self.delete("web-2")

    async def delete(self, pod: str) -> None:
        async with self.session.delete(f"{self.url}{PODS}/{pod}"):
            pass

    async def rest(self, most: dict[str, float]) -> dict[str, int]:
        """Let every connection between the sidecars close, and wait for memory to be given back: kilobytes at rest.

        `most`: kilobytes by process at which it need not wait longer; it waits for REST_S anyhow where that is empty.
        """
        for pod in ("web-1", "web-2"):
            await self.delete(pod)
        for name, port in (("front", "admin"), ("web", "admin")):
            while True:
                async with self.session.get(f"http://{self.at[name][port]}/clusters") as answer:
                    if not sum(cluster["connections"] for cluster in await answer.json()):
                        break
                await asyncio.sleep(0.1)
        for _ in range(REST_S):
            await asyncio.sleep(1)
            found = self.resident()
            if most and all(kb <= most.get(name, kb) for name, kb in found.items()):
                break
        return found

    async def wake(self) -> None:
        await self.post(PODS, self.pod("web-1", "web", "127.0.0.1"))

    def resident(self) -> dict[str, int]:
        """Kilobytes by process; a supervisor's workers by their numbers."""
        found = {}
        for name, process in self.processes.items():
            found[name] = resident_kb(process.pid)
            for number, child in enumerate(children(process.pid)):
                found[f"{name}-worker{number}"] = resident_kb(child)
        return found

    async def close(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            await process.wait()
        await self.session.close()


def children(pid: int) -> list[int]:
    """Lasting children: those that make a key for a moment are left out."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in found if b"role_worker" in Path(f"/proc/{one}/cmdline").read_bytes()]


class Load:
    """Requests of mixed kinds until `total` are done."""

    def __init__(self, mesh: Mesh, clients: int) -> None:
        self.mesh = mesh
        self.total = 0
        self.clients = clients
        self.done = 0
        self.kinds: Counter[str] = Counter()
        self.unexpected: Counter[str] = Counter()
        self.said = ""
        """The beginning of the body read last: answers of Fairlead's own say why."""
        host, port = mesh.at["front"]["outbound"].rsplit(":", 1)
        self.outbound = (host, int(port))
        host, port = mesh.at["front"]["listen0"].rsplit(":", 1)
        self.tcp = (host, int(port))

    async def until_served(self) -> None:
        """Wait until the endpoint that came back is known to the sidecar."""
        while True:
            reader, writer = await asyncio.open_connection(*self.outbound)
            writer.write(f"GET / HTTP/1.1\r\n{HEAD}\r\n".encode())
            status = await self._answer(reader)
            writer.close()
            if status == 200:
                return
            await asyncio.sleep(0.1)

    async def run(self, total: int) -> None:
        """Until `total` requests are done."""
        self.total = total
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))

    async def _client(self, number: int) -> None:
        odd: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("abandoned", self._abandoned), ("tcp", self._tcp), ("malformed", self._malformed), ("http/1.0", self._old),
            ("unknown host", self._unknown), ("abandoned download", self._abandoned_download),
        ]  # fmt: skip
        turn = number * 7
        while self.done < self.total:
            try:
                await self._keep_alive()
                kind, once = odd[turn % len(odd)]
                turn += 1
                await once()
                self._count(kind)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.unexpected[type(error).__name__] += 1

    def _count(self, kind: str) -> None:
        self.done += 1
        self.kinds[kind] += 1

    async def _keep_alive(self) -> None:
        """200 requests on one connection: most of them small."""
        reader, writer = await asyncio.open_connection(*self.outbound)
        try:
            for number in range(200):
                if self.done >= self.total:
                    return
                if number == 199:
                    kind, out = "download", f"GET /big HTTP/1.1\r\n{HEAD}\r\n".encode()
                elif number % 20 == 5:
                    kind = "body"
                    out = f"POST /items HTTP/1.1\r\n{HEAD}content-length: 10000\r\n\r\n".encode() + b"z" * 10000
                elif number % 20 == 10:
                    kind = "chunked"
                    out = f"POST /items HTTP/1.1\r\n{HEAD}transfer-encoding: chunked\r\n\r\n".encode()
                    out += b"3e8\r\n" + b"c" * 1000 + b"\r\n0\r\n\r\n"
                else:
                    kind, out = "small", f"GET /api/items/{number} HTTP/1.1\r\n{HEAD}\r\n".encode()
                writer.write(out)
                status = await self._answer(reader)
                if status != 200:
                    self.unexpected[f"{kind} {status} {self.said[:150]}"] += 1
                self._count(kind)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> int:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        at = head.lower().find(b"content-length: ")
        if at >= 0:
            self.said = (await reader.readexactly(int(head[at + 16 :].split(b"\r", 1)[0])))[:200].decode("latin-1")
        return int(head[9:12])

    async def _once(self, request: bytes, statuses: tuple[int, ...]) -> None:
        reader, writer = await asyncio.open_connection(*self.outbound)
        try:
            writer.write(request)
            status = await self._answer(reader)
            if status not in statuses:
                self.unexpected[f"{request[:20]!r} {status}"] += 1
        finally:
            writer.close()

    async def _old(self) -> None:
        await self._once(f"GET /old HTTP/1.0\r\n{HEAD}\r\n".encode(), (200,))

    async def _unknown(self) -> None:
        await self._once(b"GET / HTTP/1.1\r\nhost: nobody.default.svc.cluster.local\r\n\r\n", (404, 502, 503))

    async def _malformed(self) -> None:
        await self._once(f"GET / HTTP/1.1\r\n{HEAD}content-length: 1\r\ncontent-length: 2\r\n\r\n".encode(), (400,))

    async def _abandoned(self) -> None:
        _, writer = await asyncio.open_connection(*self.outbound)
        writer.write(f"POST /items HTTP/1.1\r\n{HEAD}content-length: 100000\r\n\r\nhalf".encode())
        await writer.drain()
        writer.transport.abort()

    async def _abandoned_download(self) -> None:
        reader, writer = await asyncio.open_connection(*self.outbound)
        writer.write(f"GET /big HTTP/1.1\r\n{HEAD}\r\n".encode())
        await reader.read(1000)
        writer.transport.abort()

    async def _tcp(self) -> None:
        reader, writer = await asyncio.open_connection(*self.tcp)
        try:
            writer.write(b"\x00\x01hello" * (OCTETS // 7))
            await asyncio.wait_for(reader.readexactly(OCTETS), 30)
        finally:
            writer.close()


async def soak(options: argparse.Namespace, folder: Path) -> int:
    mesh = Mesh(folder, options.workers)
    try:
        await mesh.start()
        load = Load(mesh, options.clients)
        begun, changes = time.monotonic(), 0
        seen: list[dict[str, int]] = []
        for point in range(1, options.points + 1):
            running = asyncio.ensure_future(load.run(options.requests * point // options.points))
            while not running.done():
                await asyncio.wait({running}, timeout=options.change_s)
                changes += 1
                await mesh.change(changes)
            await running
            full = mesh.resident()
            changes += changes % 2  # web-2 is gone
            most = {name: kb + options.allowed_mb * 1024 for name, kb in seen[0].items()} if seen else {}
            seen.append(await mesh.rest(most))
            tell(load.done, time.monotonic() - begun, changes, full, seen[-1])
            if point < options.points:
                await mesh.wake()
                await load.until_served()
        return judge(options, load, seen)
    finally:
        await mesh.close()


def tell(done: int, seconds: float, changes: int, full: dict[str, int], rest: dict[str, int]) -> None:
    memory = "  ".join(f"{name} {full[name] / 1024:.1f} {kb / 1024:.1f}" for name, kb in rest.items() if name in full)
    print(f"{done:>10} requests {seconds:>7.1f} s {changes:>5} changes  MB under load, at rest: {memory}", flush=True)


def judge(options: argparse.Namespace, load: Load, seen: list[dict[str, int]]) -> int:
    grown = {name: round((seen[-1][name] - kb) / 1024, 2) for name, kb in seen[0].items() if name in seen[-1]}
    verdict = {
        "requests": load.done, "kinds": dict(load.kinds), "unexpected": dict(load.unexpected), "grown_mb": grown,
        "allowed_mb": options.allowed_mb,
    }  # fmt: skip
    print(json.dumps(verdict), flush=True)
    if sum(load.unexpected.values()) > load.done / 1000:
        return 1
    return int(any(mb > options.allowed_mb for name, mb in grown.items() if name != "control"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1, help="of the sidecar that the load comes by")
    parser.add_argument("--change-s", type=float, default=1.0, help="between changes of route and endpoint")
    parser.add_argument("--points", type=int, default=20, help="how often it rests")
    parser.add_argument("--allowed-mb", type=float, default=ALLOWED_MB)
    options = parser.parse_args()
    os.environ.setdefault("FAIRLEAD_LOG_LEVEL", "WARNING")
    with tempfile.TemporaryDirectory() as folder:
        return uvloop.run(soak(options, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
