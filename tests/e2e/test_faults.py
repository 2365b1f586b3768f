"""What goes wrong around running roles: kill -9 under traffic, a full disk, garbage on every port, damaged files."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import random
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.roles import Role, until
from tests.e2e.test_mesh import HOST, Shop, shop

pytestmark = pytest.mark.asyncio

GARBAGE = (
    b"", b"\r\n" * 50, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", bytes(1000), random.Random(1).randbytes(4000),
    b"GET", b"GET / HTTP/1.1\r\nHost: web\r\n", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
    b"GET http://[::1 HTTP/1.1\r\nHost: [::1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n", b"GET /%zz\x00 HTTP/1.1\r\nHost: web\r\n\r\n",
)  # fmt: skip
QUERY = (
    struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0)
    + b"".join(bytes([len(label)]) + label.encode() for label in HOST.split("."))
    + b"\0\0\1\0\1"
)


class Traffic:
    """Requests of `friend` without end, counted by status or error."""

    def __init__(self, mesh: Shop) -> None:
        self.mesh = mesh
        self.seen: collections.Counter[int | str] = collections.Counter()

    async def run(self) -> None:
        while True:
            try:
                status, _, _ = await self.mesh.ask("friend")
                self.seen[status] += 1
            except OSError as error:
                self.seen[type(error).__name__] += 1
                await asyncio.sleep(0.01)

    async def flows(self, count: int = 50) -> None:
        """Wait for `count` good answers from now on."""
        wanted = self.seen[200] + count

        async def enough() -> bool:
            return self.seen[200] >= wanted

        await until(f"{count} good answers; so far {dict(self.seen)}", enough)


@contextlib.asynccontextmanager
async def traffic(mesh: Shop) -> AsyncIterator[Traffic]:
    made = Traffic(mesh)
    tasks = [asyncio.ensure_future(made.run()) for _ in range(4)]
    try:
        await made.flows()
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def create(mesh: Shop, name: str, size: int = 0) -> tuple[int, str]:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": {"filler": "x" * size}}}
    async with mesh.session.post(f"{mesh.url}/api/v1/namespaces", json=body) as answer:
        return answer.status, await answer.text()


async def namespaces(mesh: Shop) -> set[str]:
    async with mesh.session.get(f"{mesh.url}/api/v1/namespaces") as answer:
        return {item["metadata"]["name"] for item in (await answer.json())["items"]}


async def text(mesh: Shop, url: str) -> tuple[int, str]:
    async with mesh.session.get(url) as answer:
        return answer.status, await answer.text()


async def test_kill_9_of_each_role_under_traffic_loses_nothing_that_was_accepted(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh, traffic(mesh) as flow:
        accepted: list[str] = []

        async def write(writer: int) -> None:
            number = 0
            with contextlib.suppress(Exception):
                while True:
                    number += 1
                    name = f"ns-{writer}-{number}"
                    if (await create(mesh, name))[0] == 201:
                        accepted.append(name)

        writers = [asyncio.ensure_future(write(number)) for number in range(4)]

        async def some() -> bool:
            return len(accepted) >= 20

        await until("20 accepted writes", some)
        assert mesh.control is not None
        await mesh.control.kill()
        await asyncio.gather(*writers)
        before = collections.Counter(flow.seen)
        await flow.flows()
        assert flow.seen - before == {200: flow.seen[200] - before[200]}, "control's death may cost no request"
        status, ready = await text(mesh, mesh.sidecars["web"].url("health", "/healthz/ready"))
        assert (status, "control: not connected" in ready) == (200, True)

        for name in ("web", "friend"):  # both start from what they kept on disk: there is no control
            await mesh.sidecars[name].kill()
            await mesh.start_sidecar(name)
            await flow.flows()

        await mesh.start_control()
        assert set(accepted) <= await namespaces(mesh)
        await flow.flows()
        # A client sees its own killed sidecar in one of these ways, by what it was about to do.
        lost = {"ClientConnectorError", "ClientOSError", "ClientConnectionResetError", "ServerDisconnectedError"}
        assert set(flow.seen) <= {200, 503, *lost}


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    path = folder / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path


async def test_a_full_disk_refuses_writes_keeps_what_was_accepted_and_shows(tmp_path: Path) -> None:
    with small_disk(tmp_path / "control", 4), small_disk(tmp_path / "web", 1):
        async with shop(tmp_path) as mesh:
            fillers = [fill(tmp_path / "control"), fill(tmp_path / "web")]
            accepted, refused = [], ""
            for number in range(40):
                status, told = await create(mesh, f"ns-{number}", 100_000)
                assert status in (201, 507), told
                if status == 201:
                    accepted.append(f"ns-{number}")
                else:
                    refused = told
            assert "is full: nothing was changed; free some space" in refused
            status, told = await text(mesh, f"{mesh.url}/readyz")
            assert (status, "store" in told, "is full" in told) == (503, True, True)
            assert "fairlead_store_writable 0" in (await text(mesh, f"{mesh.url}/metrics"))[1]
            assert (await mesh.ask("friend"))[0] == 200

            assert mesh.control is not None
            await mesh.control.kill()
            await mesh.start_control()  # on the full disk; its feed begins a new epoch, which web cannot keep
            assert set(accepted) <= await namespaces(mesh)

            async def told_by_web() -> bool:
                status, ready = await text(mesh, mesh.sidecars["web"].url("health", "/healthz/ready"))
                assert status == 200
                return "could not be kept on disk" in ready

            await until("web to say that it cannot keep the version", told_by_web)
            assert (await mesh.ask("friend"))[0] == 200

            for filler in fillers:
                filler.unlink()

            async def writable() -> bool:
                return (await create(mesh, "again"))[0] in (201, 409) and (await text(mesh, f"{mesh.url}/readyz"))[
                    0
                ] == 200

            await until("control to write again", writable)
            assert set(accepted) <= await namespaces(mesh)


def held(role: Role) -> tuple[int, int]:
    """Resident KiB and open descriptors."""
    status = Path(f"/proc/{role.process.pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(resident.split()[1]), len(os.listdir(f"/proc/{role.process.pid}/fd"))


async def throw(at: str, octets: bytes, reset: bool = False) -> None:
    """Send, end, and read what comes back; or reset the connection at once."""
    host, port = at.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        with contextlib.suppress(OSError):
            writer.write(octets)
            if reset:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return
            writer.write_eof()
            async with asyncio.timeout(10.0):
                await reader.read(1 << 20)
    finally:
        writer.transport.abort()


async def test_garbage_on_every_port_leaves_nothing_behind_and_stops_nobody(tmp_path: Path) -> None:
    draw = random.Random(2)
    async with shop(tmp_path) as mesh:
        assert mesh.control is not None
        dns = await mesh.roles.start(
            "dns", "--control", mesh.url, "--token-file", str(tmp_path / "web.token"), "--name", "default/web-1",
            "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0", "--upstream", "off",
        )  # fmt: skip
        web = mesh.sidecars["web"]
        ports = [(web, web.at[name]) for name in ("outbound", "inbound", "admin", "health", "metrics")]
        ports += [(mesh.control, mesh.control.at["api"]), (dns, dns.at["dns"]), (dns, dns.at["health"])]

        async def rounds(count: int) -> None:
            for _ in range(count):
                for _, at in ports:
                    parts = [draw.choice(GARBAGE)[: draw.randrange(200)] for _ in range(20)]
                    await asyncio.gather(
                        *(throw(at, octets) for octets in (*GARBAGE, *parts)),
                        *(throw(at, octets, reset=True) for octets in (*GARBAGE, *parts)),
                    )

        await rounds(1)
        roles = (web, mesh.control, dns)
        before = [held(role) for role in roles]
        await rounds(3)
        host, port = dns.at["dns"].rsplit(":", 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for _ in range(2000):
                datagrams.sendto(draw.randbytes(draw.randrange(1, 600)), (host, int(port)))
                datagrams.sendto(QUERY[: draw.randrange(len(QUERY))], (host, int(port)))

        assert (await mesh.ask("friend"))[0] == 200
        for role, (resident, descriptors) in zip(roles, before, strict=True):

            async def settled(role: Role = role, most: int = descriptors + 4) -> bool:
                return held(role)[1] <= most

            await until(f"{role.name} to close what was opened ({held(role)} now)", settled)
            assert held(role)[0] < resident + 16_384, "KiB"
            role.said_no_traceback()
        await answers(host, int(port))


async def answers(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.connect((host, port))

        async def answered() -> Any:
            await loop.sock_sendall(asking, QUERY)
            with contextlib.suppress(TimeoutError):
                return (await asyncio.wait_for(loop.sock_recv(asking, 4096), 0.5))[:2] == QUERY[:2]

        await until("an answer from DNS", answered)


async def test_files_kept_for_a_cold_start_that_are_damaged_are_told_and_made_anew(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:
        await mesh.sidecars["web"].kill()
        for damaged in (b"\xff\xfe garbage", b'{"version":"x","full":true,"set":{"zz":3}}', b"[" * 100_000):
            for name in ("feed.json", "certificate.json"):
                (tmp_path / "web" / name).write_bytes(damaged)
            web = await mesh.start_sidecar("web")
            assert (await mesh.ask("friend"))[0] == 200
            for name in ("feed.json", "certificate.json"):
                assert f"{name} is not used" in web.log
            await web.kill()
            web.said_no_traceback()
