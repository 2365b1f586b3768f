"""The feed to a thousand sidecars: how soon a change, or an endpoint's removal, is in force in all of them; a flood
of applies; and what it costs when control is restarted.

Run as `python bench/feed.py [--sidecars 1000] [--services 100] [--endpoints 10] [--changes 100]`. Control is the real
one (core 1). The sidecars are simulated in one process (core 0): each follows the feed on a connection of its own with
the sidecar's own reader (mesh/update.py `Holdings`), counts a version as in force when that has taken it, and
acknowledges it on a second connection, as control asks; what each would compile for itself is not part of it
(bench/rules.py measures that). A change begins when its request to the API is sent.

A thousand sidecars in one process wait for each other, as those of a thousand hosts do not. So there are two figures:
until all have taken a change as the simulation has it, with this wait; and as on hosts of their own, where each takes
it as soon as the kernel has it at its socket (SO_TIMESTAMPNS): the latest arrival with its sidecar's own processing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import shutil
import socket
import statistics
import struct
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):
    sys.path.append(str(ROOT / "build" / "view"))

import aiohttp  # noqa: E402
import msgspec  # noqa: E402
import uvloop  # noqa: E402

from bench import machine  # noqa: E402
from fairlead.mesh.update import Holdings  # noqa: E402
from fairlead.policy.known_fields import schema_id  # noqa: E402
from fairlead.policy.world import World  # noqa: E402

FAIRLEAD = str(Path(sys.executable).with_name("fairlead"))
ROUTES = "/apis/networking.istio.io/v1/namespaces/default/virtualservices"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
SERVICES = "/api/v1/namespaces/default/services"
WAIT_S = 60.0
COMPILE_S = 0.02
"""So long after a version came it is acknowledged; a sidecar makes its tables meanwhile, on a processor of its own."""
FLOOD_PER_S, FLOOD_S = 500, 5
SO_TIMESTAMPNS = 35
"""Linux: when the kernel had the octets, beside them; Python has no name for it."""
BUFFER = memoryview(bytearray(262144))
INTO = [BUFFER]
TASKS: set[asyncio.Task[None]] = set()
ENCODE = msgspec.json.Encoder().encode


def give_up(answer: bytes) -> None:
    print(f"control answers {answer!r}", file=sys.stderr, flush=True)
    os._exit(1)


class Sidecar:
    """One simulated sidecar."""

    def __init__(self, number: int, port: int, heard: Callable[[bytes, float], None], endpoints: str = "auto") -> None:
        self.report = {"role": "sidecar", "namespace": "default", "workload": f"app-{number}", "meshPort": "15006",
                       "address": f"10.200.{number >> 8}.{number & 255}", "instance": f"i{number}"}  # fmt: skip
        self.port = port
        self.endpoints = endpoints
        self.heard = heard
        self.holdings = Holdings(lambda *_: World.__new__(World))
        self.octets = 0
        self.messages = 0
        self.acks = 0
        self._ack_due: asyncio.TimerHandle | None = None
        self._pause_s = 0.0
        self._free_at = 0.0
        self._link: Link | None = None
        self._stream: Stream | None = None

    async def connect(self) -> None:
        knows = {"says": "1", "endpoints": self.endpoints, "schema": SCHEMA, "items": ",".join(self.holdings.tables())}
        query = {**self.report, **knows, "since": self.holdings.version}
        loop = asyncio.get_running_loop()
        if self._ack_due is not None:  # to a control that is no more
            self._ack_due.cancel()
            self._ack_due = None
        _, self._link = await loop.create_connection(Link, "127.0.0.1", self.port)
        self._stream = stream = Stream(self)
        await stream.connect(self.port)
        await stream.write(f"GET /fairlead/v1/feed?{urlencode(query)} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())

    def close(self) -> None:
        if self._stream is not None and self._link is not None:
            self._stream.close()
            self._link.transport.close()

    def line(self, line: bytes, arrived_at: float) -> None:
        """A message, and when (Unix seconds) its last octets arrived."""
        self.octets += len(line)
        before, begun = self.holdings.version, time.perf_counter()
        if self.holdings.apply(line):
            self.messages += 1
        elif self.holdings.asked:
            holds = b64encode(self.holdings.digests()).decode()
            self._post("say", {"holds": holds, "uses": []}, lambda _head: None)
        if self.holdings.version != before:
            self.heard(line, arrived_at + time.perf_counter() - begun)
            if self._ack_due is None:
                loop = asyncio.get_running_loop()
                self._ack_due = loop.call_at(max(self._free_at, loop.time() + COMPILE_S), self._ack)

    def _ack(self) -> None:
        self._ack_due = None
        self.acks += 1
        self._free_at = asyncio.get_running_loop().time() + self._pause_s
        self._post("ack", {"version": self.holdings.version, "accepted": True, "reasons": []}, self._acked)

    def _acked(self, head: bytes) -> None:
        at = head.find(b"x-fairlead-pause: ")
        if at >= 0:
            self._pause_s = float(head[at + 18 : head.index(b"\r", at)])
            self._free_at = asyncio.get_running_loop().time() + self._pause_s

    def _post(self, what: str, body: dict[str, Any], answered: Callable[[bytes], None]) -> None:
        assert self._link is not None
        octets = ENCODE({**self.report, **body})
        head = f"POST /fairlead/v1/feed/{what} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(octets)}\r\n\r\n"
        if self._link.transport.is_closing():  # it was idle for too long
            task = asyncio.create_task(self._again(head.encode() + octets, answered))
            TASKS.add(task)
            task.add_done_callback(TASKS.discard)
        else:
            self._link.ask(head.encode() + octets, answered)

    async def _again(self, octets: bytes, answered: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError):
            loop = asyncio.get_running_loop()
            _, self._link = await loop.create_connection(Link, "127.0.0.1", self.port)
            self._link.ask(octets, answered)


class Link(asyncio.Protocol):
    """A connection for answers without a body."""

    transport: Any

    def __init__(self) -> None:
        self._waiting: list[Callable[[bytes], None]] = []
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, octets: bytes, answered: Callable[[bytes], None]) -> None:
        self._waiting.append(answered)
        self.transport.write(octets)

    def data_received(self, data: bytes) -> None:
        self._buffer += data.lower()
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[: end + 2], self._buffer[end + 4 :]
            if b" 204 " not in head[:20]:
                give_up(head)
            self._waiting.pop(0)(head)


class Stream:
    """The feed: HTTP/1.1, chunked, a message a line. A socket by itself, which tells when octets arrived."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._arrived_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._buffer = bytearray()
        self._text = bytearray()
        self._left = -1  # of the chunk; -1: its size is to come, or the head
        self._headed = False

    async def connect(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, ("127.0.0.1", port))
        self._loop = loop
        loop.add_reader(self._socket, self._readable)

    async def write(self, octets: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, octets)

    def close(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._loop = None
        self._socket.close()

    def _readable(self) -> None:
        try:
            count, more, _, _ = self._socket.recvmsg_into(INTO, 64)
        except BlockingIOError:
            return
        except OSError:
            count, more = 0, []
        if not count:
            self.close()
            return
        seconds, nanoseconds = struct.unpack("qq", more[0][2])
        self._arrived_at = seconds + nanoseconds / 1e9
        self.received(BUFFER[:count].tobytes())

    def received(self, data: bytes) -> None:
        buffer = self._buffer
        if self._headed and not buffer and self._left < 0 and not self._text and data.endswith(b"\n\r\n"):
            at = data.find(b"\r\n")
            if int(data[:at], 16) == len(data) - at - 4 and data.find(b"\n", at + 2) == len(data) - 3:
                if line := data[at + 2 : -3]:  # one message by itself, as almost always
                    self._sidecar.line(line, self._arrived_at)
                return
        buffer += data
        if not self._headed:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if not buffer.startswith(b"HTTP/1.1 200"):
                give_up(bytes(buffer[:600]))
            del buffer[: end + 4]
            self._headed = True
        while True:
            if self._left < 0:
                end = buffer.find(b"\r\n")
                if end < 0:
                    break
                self._left = int(buffer[:end], 16)
                del buffer[: end + 2]
            if len(buffer) < self._left + 2:
                break
            self._text += buffer[: self._left]
            del buffer[: self._left + 2]
            self._left = -1
        while (end := self._text.find(b"\n")) >= 0:
            line = bytes(self._text[:end])
            del self._text[: end + 1]
            if line:
                self._sidecar.line(line, self._arrived_at)


class Mesh:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.url = f"http://127.0.0.1:{port}"
        self.sidecars: list[Sidecar] = []
        self.process: Any = None
        self.session: aiohttp.ClientSession
        self._mark = b""
        self._left = 0
        self._all = asyncio.Event()
        self._latest = 0.0

    async def start_control(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            "taskset", "-c", "1", FAIRLEAD, "control", "--listen", f"127.0.0.1:{self.port}", "--data-dir",
            str(self.folder / "control"), stdout=asyncio.subprocess.PIPE, stderr=(self.folder / "log").open("ab"),
        )  # fmt: skip
        while b"ready" not in await self.process.stdout.readline():
            if self.process.returncode is not None:
                raise SystemExit((self.folder / "log").read_text()[-2000:])

    def heard(self, line: bytes, taken_at: float) -> None:
        """`taken_at`: Unix seconds, as on a host of its own."""
        if self._mark and self._mark in line:
            self._latest = max(self._latest, taken_at)
            self._left -= 1
            if not self._left:
                self._all.set()

    async def until_all(self, mark: str, change: Any) -> tuple[float, float]:
        """Seconds from the change until all sidecars run it, in which `mark` can be read; as on hosts of their own, and
        as simulated."""
        self._mark, self._left = mark.encode(), len(self.sidecars)
        self._all.clear()
        self._latest = 0.0
        begun, begun_at = time.perf_counter(), time.time()
        await change
        async with asyncio.timeout(WAIT_S):
            await self._all.wait()
        return self._latest - begun_at, time.perf_counter() - begun

    async def put(self, path: str, body: dict[str, Any], create: bool = False) -> None:
        url = f"{self.url}{path}" + ("" if create else f"/{body['metadata']['name']}")
        async with self.session.request("POST" if create else "PUT", url, json=body) as answer:
            if answer.status not in (200, 201):
                raise SystemExit(f"{answer.status}: {await answer.text()}")

    async def published(self) -> tuple[float, int]:
        """(seconds that control took to write changes to all, added up; how many)."""
        async with self.session.get(f"{self.url}/metrics") as answer:
            text = await answer.text()
        found = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if "publish_seconds_" in line}
        return found["fairlead_feed_publish_seconds_sum"], int(found["fairlead_feed_publish_seconds_count"])

    def cpu_s(self) -> float:
        return machine.cpu_us([self.process.pid]) / 1e6

    def waited_s(self) -> float:
        """Seconds that control could have run and did not, as others had its processor (proc(5), schedstat)."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[1]) / 1e9


def service(number: int) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"svc{number}", "namespace": "default"},
            "spec": {"ports": [{"name": "http", "port": 80}]}}  # fmt: skip


def slice_of(number: int, endpoints: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": f"svc{number}-1", "namespace": "default",
                     "labels": {"kubernetes.io/service-name": f"svc{number}"}},
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [one], "conditions": {"ready": True}} for one in endpoints],
    }  # fmt: skip


def route(mark: str) -> dict[str, Any]:
    rule = {"name": mark, "route": [{"destination": {"host": "svc0"}}]}
    return {
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "svc0", "namespace": "default"}, "spec": {"hosts": ["svc0"], "http": [rule]},
    }  # fmt: skip


def address(service_number: int, number: int) -> str:
    index = service_number * 100 + number
    return f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}"


def told(name: str, seconds: list[tuple[float, float]], goal_ms: float) -> None:
    own, simulated = (sorted(some) for some in zip(*seconds, strict=True))
    at = min(len(own) - 1, int(len(own) * 0.99))
    longest = ", ".join(f"{one * 1000:.0f}" for one in own[:-6:-1])
    print(
        f"{name}: in force in all, as on hosts of their own, after {statistics.median(own) * 1000:.0f} ms (median), "
        f"{own[at] * 1000:.0f} ms (p99 of {len(own)}), goal {goal_ms:g} ms; the longest: {longest}; with the wait for "
        f"each other in one process {statistics.median(simulated) * 1000:.0f} and {simulated[at] * 1000:.0f} ms",
        flush=True,
    )


async def measure(options: argparse.Namespace, folder: Path) -> None:
    mesh = Mesh(folder, machine.free_ports(1))
    await mesh.start_control()
    async with aiohttp.ClientSession() as mesh.session:
        for number in range(options.services):
            await mesh.put(SERVICES, service(number), create=True)
            ends = [address(number, one) for one in range(options.endpoints)]
            await mesh.put(SLICES, slice_of(number, ends), create=True)
        await mesh.put(ROUTES, route("first"), create=True)
        mesh.sidecars = [Sidecar(number, mesh.port, mesh.heard) for number in range(options.sidecars)]
        begun = time.perf_counter()
        for at in range(0, len(mesh.sidecars), 50):
            await asyncio.gather(*(one.connect() for one in mesh.sidecars[at : at + 50]))
        await mesh.until_all("connected", mesh.put(ROUTES, route("connected")))
        print(f"{len(mesh.sidecars)} sidecars connected and up to date after {time.perf_counter() - begun:.1f} s")
        changes, removals = [], []
        own, controls, waits, written = [], [], [], await mesh.published()
        ends = [address(1, one) for one in range(options.endpoints)]
        for number in range(options.changes):
            await asyncio.sleep(0.5)
            changes.append(await mesh.until_all(f"mark-{number}-", mesh.put(ROUTES, route(f"mark-{number}-"))))
            await asyncio.sleep(0.5)
            # What is left of the service can be told by its first address, which no version before had there.
            fresh = [f"10.250.{number >> 8}.{number & 255}", *ends[1:]]
            await mesh.until_all(fresh[0], mesh.put(SLICES, slice_of(1, fresh)))
            await asyncio.sleep(0.5)
            mark = f'"{fresh[0]}"' if len(fresh) > 1 else '"endpoints/svc1'
            cpu, control, waited = time.process_time(), mesh.cpu_s(), mesh.waited_s()
            removals.append(await mesh.until_all(mark, mesh.put(SLICES, slice_of(1, fresh[:-1]))))
            own.append(time.process_time() - cpu)
            controls.append(mesh.cpu_s() - control)
            waits.append(mesh.waited_s() - waited)
        told("a route", changes, 250)
        told("an endpoint's removal", removals, 100)
        sum_s, count = (now - before for now, before in zip(await mesh.published(), written, strict=True))
        print(
            f"control had written a change to all {sum_s / count * 1000:.0f} ms after it was stored (mean); until a "
            f"removal is in force control uses {statistics.median(controls) * 1000:.0f} ms of processor time, with "
            f"acknowledgements, and the simulated sidecars {statistics.median(own) * 1000:.0f} ms (medians)",
            flush=True,
        )
        longest = sorted(zip(removals, waits, strict=True), reverse=True)[:5]
        told_waits = ", ".join(f"{waited * 1000:.0f} of {took[0] * 1000:.0f}" for took, waited in longest)
        print(
            f"of the longest removals control waited for its processor, which others had: {told_waits} ms", flush=True
        )
        await flood(mesh)
        await restart(mesh)
    mesh.process.terminate()
    await mesh.process.wait()


async def flood(mesh: Mesh) -> None:
    """Applies at a steady rate: how far behind the last of them is."""
    cpu, messages, begun = mesh.cpu_s(), mesh.sidecars[0].messages, time.perf_counter()
    waiting: set[asyncio.Task[None]] = set()
    count = FLOOD_PER_S * FLOOD_S
    for number in range(count):
        body = slice_of(number % 50 + 2, [address(number, 1)])
        task = asyncio.create_task(mesh.put(SLICES, body))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
        ahead = number / FLOOD_PER_S - (time.perf_counter() - begun)
        await asyncio.sleep(max(ahead, 0))
    await asyncio.gather(*waiting)
    took = time.perf_counter() - begun
    last = await mesh.until_all("after-flood", mesh.put(ROUTES, route("after-flood")))
    versions = mesh.sidecars[0].messages - messages
    print(
        f"{count} applies in {took:.1f} s ({count / took:.0f} a second): {versions} versions to each sidecar; a change "
        f"after it in force in all after {last[1] * 1000:.0f} ms; control used {mesh.cpu_s() - cpu:.1f} s of processor",
        flush=True,
    )


async def restart(mesh: Mesh) -> None:
    """Control killed and started again: what the sidecars are sent."""
    mesh.process.kill()
    await mesh.process.wait()
    await mesh.start_control()
    whole = len(mesh.sidecars[0].holdings.kept()())
    before = [one.octets for one in mesh.sidecars]
    begun = time.perf_counter()
    for at in range(0, len(mesh.sidecars), 50):
        await asyncio.gather(*(one.connect() for one in mesh.sidecars[at : at + 50]))
    await mesh.until_all("back", mesh.put(ROUTES, route("back")))
    sent = [one.octets - had for one, had in zip(mesh.sidecars, before, strict=True)]
    print(f"after a restart of control all are back and up to date after {time.perf_counter() - begun:.1f} s; each was "
          f"sent {statistics.median(sent):.0f} octets (median), where everything is {whole}", flush=True)  # fmt: skip


SCHEMA = schema_id()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sidecars", type=int, default=1000)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--endpoints", type=int, default=10, help="of each service")
    parser.add_argument("--changes", type=int, default=100)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # control inherits it
    os.sched_setaffinity(0, {0})
    gc.disable()  # a thousand sidecars in one process are more for the collector than each by itself
    folder = Path(tempfile.mkdtemp(prefix="fairlead-feed-"))
    try:
        uvloop.run(measure(options, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
