"""Rolling restarts under load: `python bench/rolling.py [--requests 100000]`.

The example shop, with a gateway before it and two instances of what it has one of, is loaded by clients that never send
a request twice. Meanwhile everything is restarted, again and again, one after the other: each app with its sidecar by
SIGTERM (`fairlead run`), each sidecar alone by hand-over and then by SIGTERM, the gateway by hand-over. Exit code 1: a
request failed, whatever became of it, or a process did not end with exit code 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parent.parent
FAIRLEAD = str(Path(sys.executable).with_name("fairlead"))
HOST = "front.default.svc.cluster.local"
DEADLINE_S = 60.0
PATHS = ("/catalogue/items", "/catalogue/items", "/catalogue/items", "/reviews/1")
"""One for each client in turn: the shop allows five requests to reviews at a time."""
MORE = """
apiVersion: v1
kind: Pod
metadata: {name: front-2, labels: {app: front}, annotations: {fairlead.dev/address: 127.0.1.7, fairlead.dev/mesh-port: "15006"}}
spec: {serviceAccountName: front, containers: [{name: front, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-2, labels: {app: reviews}, annotations: {fairlead.dev/address: 127.0.1.8, fairlead.dev/mesh-port: "15006"}}
spec: {serviceAccountName: reviews, containers: [{name: reviews, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, bind: 127.0.1.10, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: front}}]}]}
"""  # noqa: E501
WORKLOADS = {
    # workload: (last number of its address, service account, the app's command line)
    "front-1": (1, "front", ["front.py"]),
    "front-2": (7, "front", ["front.py"]),
    "catalogue-v1-1": (2, "catalogue", ["catalogue.py", "--name", "catalogue-v1-1", "--version", "v1"]),
    "catalogue-v1-2": (3, "catalogue", ["catalogue.py", "--name", "catalogue-v1-2", "--version", "v1"]),
    "catalogue-v2-1": (4, "catalogue", ["catalogue.py", "--name", "catalogue-v2-1", "--version", "v2"]),
    "catalogue-v2-2": (9, "catalogue", ["catalogue.py", "--name", "catalogue-v2-2", "--version", "v2"]),
    "reviews-1": (5, "reviews", ["reviews.py", "--name", "reviews-1"]),
    "reviews-2": (8, "reviews", ["reviews.py", "--name", "reviews-2"]),
}
SECOND_V2 = """
apiVersion: v1
kind: Pod
metadata: {name: catalogue-v2-2, labels: {app: catalogue, version: v2}, annotations: {fairlead.dev/address: 127.0.1.9, fairlead.dev/mesh-port: "15006"}}
spec: {serviceAccountName: catalogue, containers: [{name: catalogue, ports: [{name: http, containerPort: 8080}]}]}
"""  # noqa: E501


class RollingError(Exception):
    """What should not have been; the message is for people."""


class Process:
    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    async def end(self, tell: bool = True) -> None:
        """SIGTERM if `tell`, then its end. Raises RollingError where it is not a good one."""
        if tell:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(self.process.wait(), DEADLINE_S)
        except TimeoutError:
            self.process.kill()
            raise RollingError(f"{self.name} did not end within {DEADLINE_S:g} s; its log: {self.log}") from None
        if code != 0 or b"cut off" in self.log.read_bytes():
            raise RollingError(f"{self.name} ended with {code}, or cut something off; its log: {self.log}")


class Shop:
    """The processes. `prefix`: the first three numbers of their addresses, so that several can run at a time."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder = folder
        self.prefix = prefix
        self.control = f"http://{prefix}.11:15010"
        self.front = (f"{prefix}.10", 8080)
        self.running: dict[str, Process] = {}
        self.every: list[Process] = []
        self.restarts: Counter[str] = Counter()

    async def start(self, name: str, *command: str) -> Process:
        log = self.folder / f"{len(self.every):04d}-{name}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, "NO_PROXY": "*"},
            )
        made = self.running[name] = Process(name, process, log)
        self.every.append(made)
        return made

    async def fairlead(self, *arguments: str, stdin: str = "") -> str:
        process = await asyncio.create_subprocess_exec(
            FAIRLEAD, *arguments, "--control", self.control, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate(stdin.encode())
        if process.returncode:
            raise RollingError(f"fairlead {' '.join(arguments)}: {err.decode().strip() or out.decode().strip()}")
        return out.decode()

    async def said_ready(self, process: Process) -> None:
        """The ready line, or the process's end."""
        await until(
            f"{process.name} to be ready ({process.log})",
            lambda: b" ready " in process.log.read_bytes() or process.process.returncode is not None,
        )
        if process.process.returncode is not None:
            raise RollingError(f"{process.name} ended before it was ready; its log: {process.log}")

    async def begin(self) -> None:
        control = await self.start("control", FAIRLEAD, "control", "--listen", self.control.removeprefix("http://"),
                                   "--data-dir", str(self.folder / "control"))  # fmt: skip
        await self.said_ready(control)
        texts = [path.read_text() for path in sorted((ROOT / "examples" / "manifests").glob("*.yaml"))]
        await self.fairlead(
            "apply", "-f", "-", stdin="\n---\n".join([*texts, MORE, SECOND_V2]).replace("127.0.1", self.prefix)
        )
        for account in ("front", "catalogue", "reviews", "gateway"):
            token = self.folder / f"{account}.token"
            token.touch(mode=0o600)
            given = ("--labels", "istio=ingressgateway") if account == "gateway" else ()
            token.write_text(await self.fairlead("token", "create", "--service-account", account, *given))
        await asyncio.gather(*(self.start_run(workload) for workload in WORKLOADS))
        await self.start_gateway()
        for workload in WORKLOADS:
            await self.healthy(workload)

    def address(self, workload: str) -> str:
        return f"{self.prefix}.{WORKLOADS[workload][0]}"

    def app(self, workload: str) -> list[str]:
        at = self.address(workload)
        made = [sys.executable, "-P", str(ROOT / "examples" / "apps" / WORKLOADS[workload][2][0])]
        made += [*WORKLOADS[workload][2][1:], "--listen", f"{at}:8080"]
        return made + (["--proxy", f"http://{at}:15001"] if workload.startswith("front") else [])

    def flags(self, workload: str) -> list[str]:
        at = self.address(workload)
        ports = {"outbound": 15001, "inbound": 15006, "admin": 15000, "health": 15021, "metrics": 15090}
        return [
            "--workload", f"default/{workload}", "--control", self.control, "--app-address", at, "--address", at,
            "--token-file", str(self.folder / f"{WORKLOADS[workload][1]}.token"),
            "--data-dir", str(self.folder / workload),
            *(part for name, port in ports.items() for part in (f"--{name}", f"{at}:{port}")),
        ]  # fmt: skip

    async def start_run(self, workload: str) -> None:
        await self.said_ready(
            await self.start(workload, FAIRLEAD, "run", *self.flags(workload), "--", *self.app(workload))
        )

    async def start_sidecar(self, workload: str) -> None:
        await self.said_ready(await self.start(workload, FAIRLEAD, "sidecar", *self.flags(workload)))

    async def start_gateway(self) -> None:
        at = self.front[0]
        await self.said_ready(await self.start(
            "gateway", FAIRLEAD, "gateway", "--labels", "istio=ingressgateway", "--workload", "default/edge-1",
            "--control", self.control, "--token-file", str(self.folder / "gateway.token"), "--service-account",
            "gateway", "--address", at, "--data-dir", str(self.folder / "gateway"), "--admin", f"{at}:15000",
            "--health", f"{at}:15021", "--metrics", f"{at}:15090",
        ))  # fmt: skip

    # --- restarts

    async def app_by_drain(self, workload: str) -> None:
        """App and sidecar together."""
        await self.running[workload].end()
        await self.start_run(workload)
        await self.healthy(workload)
        self.restarts["app and sidecar by SIGTERM"] += 1

    async def apart(self, workload: str) -> None:
        """From `run` to an app and a sidecar of its own; the sidecar by hand-over, then by SIGTERM; and back."""
        await self.running[workload].end()
        app = await self.start(f"{workload}-app", *self.app(workload))
        await until(f"{workload}'s app", lambda: listening(self.address(workload)))
        await self.start_sidecar(workload)
        before = self.running[workload]
        await self.start_sidecar(workload)
        await before.end(tell=False)
        self.restarts["sidecar by hand-over"] += 1
        await self.running[workload].end()
        await self.start_sidecar(workload)
        self.restarts["sidecar by SIGTERM"] += 1
        await self.running[workload].end()
        app.process.send_signal(signal.SIGTERM)
        await app.process.wait()
        await self.start_run(workload)
        await self.healthy(workload)

    async def healthy(self, workload: str) -> None:
        """As anybody would wait who restarts one after the other."""

        async def ready() -> bool:
            try:
                reader, writer = await asyncio.open_connection(self.address(workload), 15021)
            except OSError:
                return False
            writer.write(b"GET /healthz/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer.startswith(b"HTTP/1.1 200 ")

        await until(f"{workload} to be ready", ready)

    async def gateway_by_handover(self) -> None:
        before = self.running["gateway"]
        await self.start_gateway()
        await before.end(tell=False)
        self.restarts["gateway by hand-over"] += 1

    async def round(self, workloads: Iterable[str] = WORKLOADS) -> None:
        workloads = list(workloads)
        for workload in workloads:
            await self.app_by_drain(workload)
            await self.gateway_by_handover()
        for workload in workloads[::-1]:
            await self.apart(workload)

    async def stop(self) -> None:
        for one in reversed(self.every):
            if one.process.returncode is None:
                one.process.send_signal(signal.SIGTERM)
        for one in self.every:
            try:
                await asyncio.wait_for(one.process.wait(), 15)
            except TimeoutError:
                one.process.kill()
                await one.process.wait()


@contextlib.asynccontextmanager
async def shop(folder: Path, prefix: str) -> AsyncIterator[Shop]:
    made = Shop(folder, prefix)
    try:
        await made.begin()
        yield made
    finally:
        await made.stop()


async def until(what: str, ready: Callable[[], bool | Awaitable[bool]]) -> None:
    end = time.monotonic() + DEADLINE_S
    while True:
        found = ready()
        if found is True or (not isinstance(found, bool) and await found):
            return
        if time.monotonic() > end:
            raise RollingError(f"waited {DEADLINE_S:g} s for {what}")
        await asyncio.sleep(0.02)


async def listening(host: str) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, 8080)
    except OSError:
        return False
    writer.close()
    return True


class Load:
    """Clients on kept connections; each request is sent once, and what is not answered with 200 has failed."""

    def __init__(self, at: tuple[str, int], clients: int, pause_s: float = 0.0) -> None:
        self.answered = 0
        self.failures: Counter[str] = Counter()
        self.connections = 0
        self._at = at
        self._pause_s = pause_s
        self._stop = False
        self._tasks = [asyncio.create_task(self._client(PATHS[n % len(PATHS)])) for n in range(clients)]

    async def _client(self, path: str) -> None:
        request = f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
        while not self._stop:
            try:
                reader, writer = await asyncio.open_connection(*self._at)
            except OSError as error:
                self.failures[f"{path}: {error!r}"] += 1
                await asyncio.sleep(0.01)
                continue
            self.connections += 1
            try:
                while not self._stop and not reader.at_eof() and await self._one(path, request, reader, writer):
                    await asyncio.sleep(self._pause_s)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _one(self, path: str, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether another may follow on this connection."""
        try:
            writer.write(request)
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)).lower()
            length = int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
        except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.failures[f"{path}: {error!r}"] += 1
            return False
        if head[9:12] == b"200":
            self.answered += 1
        else:
            self.failures[f"{path}: {head[9:12].decode()} {body[:150].decode(errors='replace').strip()}"] += 1
        return b"\r\nconnection: close\r\n" not in head

    async def end(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)


async def run(
    requests: int,
    folder: Path,
    prefix: str = "127.0.3",
    clients: int = 8,
    workloads: Iterable[str] = WORKLOADS,
    pause_s: float = 0.0,
) -> Load:
    """Restart everything while `requests` are answered, and at least once; `workloads`: or these and the gateway.
    `pause_s`: of each client after an answer."""
    async with shop(folder, prefix) as made:
        load = Load(made.front, clients, pause_s)
        begun = time.monotonic()
        rounds = 0
        try:
            while load.answered < requests or not rounds:
                await made.round(workloads)
                rounds += 1
                print(
                    f"{time.monotonic() - begun:6.0f} s: {load.answered} answered on {load.connections} connections, "
                    f"{sum(load.failures.values())} failed; {dict(made.restarts)}",
                    flush=True,
                )
        finally:
            await load.end()
        return load


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fairlead-rolling-"))
    try:
        load = uvloop.run(run(options.requests, folder, clients=options.clients))
    except RollingError as error:
        print(f"{error}; logs: {folder}", file=sys.stderr)
        return 1
    for why, count in load.failures.most_common(20):
        print(f"{count:6} {why}")
    failed = sum(load.failures.values())
    print(f"{load.answered + failed} requests, {failed} failed" + (f"; logs: {folder}" if failed else ""))
    if not failed:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
