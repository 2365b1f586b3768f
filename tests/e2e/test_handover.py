"""A restart that nobody notices: the new process takes the old one's listening sockets, or those that systemd has."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import dns.message
import dns.query
import pytest

from tests.e2e.roles import FAIRLEAD, PACE_S, App, Role, Roles, apps, free_port, roles_in, static_service, until

pytestmark = pytest.mark.asyncio
HOST = "web.default.svc.cluster.local"
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
%s
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: web}}]}]}
"""
SERVER = '    - {port: {number: %d, name: http-%d, protocol: HTTP}, hosts: ["*"]}\n'


class Load:
    """Requests, some each on a connection of its own, some on kept ones; every failure is kept."""

    def __init__(self, *urls: str) -> None:
        self.urls = urls
        self.seen: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = False
        self._tasks: list[asyncio.Task[None]] = []

    async def _run(self, url: str, keep: bool) -> None:
        connector = aiohttp.TCPConnector(force_close=not keep)
        async with aiohttp.ClientSession(connector=connector) as session:
            while not self._stop:
                try:
                    async with session.post(url, headers={"host": HOST}, data=b"x") as answer:
                        await answer.read()
                        self.seen[url] += 1
                        if answer.status != 200:
                            self.failures.append(f"{answer.status} {answer.headers.get('x-fairlead-reason')}")
                except aiohttp.ClientError as error:
                    self.failures.append(repr(error))
                await asyncio.sleep(PACE_S)

    async def more(self, count: int) -> None:
        """Wait until each URL had so many more answers."""
        before = dict(self.seen)

        async def done() -> bool:
            return all(self.seen[url] >= before.get(url, 0) + count for url in self.urls) or bool(self.failures)

        await until("the load to go on", done)


@contextlib.asynccontextmanager
async def load(*urls: str, clients: int = 4) -> AsyncIterator[Load]:
    made = Load(*urls)
    made._tasks = [asyncio.create_task(made._run(url, n % 2 == 0)) for url in urls for n in range(clients)]
    try:
        yield made
    finally:
        made._stop = True
        await asyncio.gather(*made._tasks)


def write(folder: Path, app: App, more: str = "") -> None:
    (folder / "mesh.yaml").write_text(static_service("web", "http", 80, app.port) + "---" + more)


async def start(roles: Roles, *flags: str, verb: str = "sidecar", workers: int = 1) -> Role:
    named = ("--workload", "default/client-1") if verb == "sidecar" else ("--labels", "istio=ingressgateway")
    return await roles.start(
        verb, "-f", str(roles.folder / "mesh.yaml"), *named, "--inbound", "off", "--drain-deadline", "20s",
        "--handover", str(roles.folder / "over.sock"), "--workers", str(workers), *flags,
    )  # fmt: skip


def own(*names: str) -> list[str]:
    return [part for name in names for part in (f"--{name}", f"127.0.0.1:{free_port()}")]


async def healthy(role: Role) -> bool:
    async with aiohttp.ClientSession() as session, session.get(role.url("health", "/healthz/ready")) as answer:
        return answer.status == 200


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (1, 2), (3, 1)])
async def test_a_sidecar_is_restarted_under_load_and_no_request_fails(tmp_path: Path, before: int, after: int) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (app,):
        write(tmp_path, app)
        flags = own("outbound", "health", "admin", "metrics")
        old = await start(roles, *flags, workers=before)
        async with load(old.url("outbound")) as under:
            await under.more(100)
            for workers in (after, before):
                new = await start(roles, *flags, workers=workers)
                assert await healthy(new)
                await under.more(100)
                assert await asyncio.wait_for(old.process.wait(), 20) == 0
                assert "has taken over" in old.log
                await under.more(50)
                old = new
        assert not under.failures, Counter(under.failures)
        mode = (tmp_path / "over.sock").stat().st_mode
        assert mode & 0o777 == 0o600
        assert await old.stop() == 0
        assert not (tmp_path / "over.sock").exists()


@pytest.mark.parametrize("workers", [1, 2])
async def test_an_app_whose_checks_pass_stays_ready_while_its_sidecar_is_replaced(tmp_path: Path, workers: int) -> None:
    """Its readiness check is due long after: the new process takes the old one's word, and then checks by itself."""
    async with roles_in(tmp_path) as roles, apps("web") as (app,):
        write(tmp_path, app)
        check = f"http://127.0.0.1:{app.port}/healthz?failure=1&period="
        flags = own("outbound", "health", "admin", "metrics")
        old = await start(roles, *flags, "--readiness", f"{check}100ms", workers=workers)
        await until("the app to be ready", lambda: healthy(old))
        new = await start(roles, *flags, "--readiness", f"{check}100ms&initial-delay=60s", workers=workers)
        assert await healthy(new)
        assert await asyncio.wait_for(old.process.wait(), 20) == 0
        assert await healthy(new)
        last = await start(roles, *flags, "--readiness", f"{check}100ms", workers=workers)
        assert await healthy(last)
        app.failing = True

        async def unready() -> bool:
            return not await healthy(last)

        await until("it to check by itself", unready)


async def test_health_never_says_no_and_dns_never_falls_silent_while_a_sidecar_is_replaced(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (app,):
        port = free_port()
        (tmp_path / "mesh.yaml").write_text(static_service("web", "http", port, app.port))
        flags = [*own("outbound", "health", "admin", "metrics", "dns"), "--upstream", "off"]
        old = await start(roles, *flags)
        where, number = old.at["dns"].rsplit(":", 1)
        question = dns.message.make_query(HOST, "A")
        statuses: Counter[int] = Counter()
        answers: Counter[str] = Counter()
        stop = False

        async def poll() -> None:
            async with aiohttp.ClientSession() as kept:
                while not stop:
                    async with kept.get(old.url("health", "/healthz/ready")) as answer:
                        statuses[answer.status] += 1
                    reply = await asyncio.to_thread(dns.query.udp, question, where, 5, int(number))
                    answers[str(reply.answer[0][0])] += 1
                    await asyncio.sleep(PACE_S)

        polling = asyncio.create_task(poll())

        async def some() -> bool:
            return statuses[200] > 20 or polling.done()

        await until("some answers", some)
        (address,) = answers
        async with load(f"http://{address}:{port}/") as under:
            await under.more(50)
            new = await start(roles, *flags)
            assert await asyncio.wait_for(old.process.wait(), 20) == 0
            await under.more(50)
        assert not under.failures, Counter(under.failures)
        assert await healthy(new)
        stop = True
        await polling
        assert set(statuses) == {200}
        assert set(answers) == {address}


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_gateways_ports_come_and_go_while_it_is_replaced(tmp_path: Path, workers: int) -> None:
    first, second = free_port(), free_port()
    async with roles_in(tmp_path) as roles, apps("web") as (app,):
        write(tmp_path, app, GATEWAY % (SERVER % (first, first)))
        flags = own("health", "admin", "metrics")
        old = await start(roles, *flags, verb="gateway", workers=workers)
        async with load(f"http://127.0.0.1:{first}/") as under:
            await under.more(50)
            write(tmp_path, app, GATEWAY % (SERVER % (first, first) + SERVER % (second, second)))

            async def opened() -> bool:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", second)
                    writer.close()
                    return True
                return False

            await until("the second port", opened)
            new = await start(roles, *flags, verb="gateway", workers=workers)
            await under.more(50)
            async with load(f"http://127.0.0.1:{second}/") as other:
                await other.more(20)
            assert not other.failures
            assert await asyncio.wait_for(old.process.wait(), 20) == 0
            write(tmp_path, app, GATEWAY % (SERVER % (first, first)))

            async def closed() -> bool:
                return not await opened()

            await until("the second port to be closed, also where it was inherited", closed)
            await under.more(50)
        assert not under.failures, Counter(under.failures)
        new.said_no_traceback()


async def test_what_runs_in_the_old_process_ends_there(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (app,):
        app.hold = asyncio.Event()
        write(tmp_path, app)
        flags = own("outbound", "health", "admin", "metrics")
        old = await start(roles, *flags)
        host, port = old.at["outbound"].rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET /hold HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        await app.held.wait()
        await start(roles, *flags)

        async def told() -> bool:
            return "accepting no more" in old.log

        await until("the old process to drain", told)
        assert old.process.returncode is None
        app.hold.set()
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in head.lower()
        writer.close()
        assert await asyncio.wait_for(old.process.wait(), 20) == 0


async def test_where_the_successor_dies_before_it_is_ready_the_old_one_goes_on_and_the_next_one_takes_over(
    tmp_path: Path,
) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (app,):
        write(tmp_path, app)
        flags = own("outbound", "health", "admin", "metrics")
        old = await start(roles, *flags)
        (tmp_path / "none").mkdir()
        async with load(old.url("outbound")) as under:
            await under.more(20)
            dead = await roles.start(  # has everything but a certificate, which its control never gives
                "sidecar", "--control", "http://127.0.0.1:1", "--workload", "default/client-1", "--inbound", "off",
                "--handover", str(tmp_path / "over.sock"), *flags, wait=False,
            )  # fmt: skip

            async def asked() -> bool:
                return "takes over" in old.log

            await until("the successor to have the sockets", asked)
            await under.more(20)
            dead.process.kill()

            async def noticed() -> bool:
                return "ended before it was ready" in old.log

            await until("the old one to notice", noticed)
            await under.more(20)
            await start(roles, *flags)
            assert await asyncio.wait_for(old.process.wait(), 20) == 0
            await under.more(20)
        assert not under.failures, Counter(under.failures)


async def test_sigusr2_starts_the_successor(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (app,):
        write(tmp_path, app)
        flags = own("outbound", "health", "admin", "metrics")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        old = await roles.start(
            "sidecar", "-f", str(tmp_path / "mesh.yaml"), "--workload", "default/client-1", "--inbound", "off",
            "--handover", str(tmp_path / "over.sock"), *flags, env={"NOTIFY_SOCKET": str(tmp_path / "notify")},
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        told: list[str] = []
        successor = 0
        async with load(old.url("outbound")) as under:
            await under.more(20)
            old.process.send_signal(signal.SIGUSR2)
            async with asyncio.timeout(20):
                while not successor or told.count("READY=1") < 2:
                    told += (await loop.sock_recv(listener, 4096)).decode().split("\n")
                    successor = next((int(line[8:]) for line in told if line.startswith("MAINPID=")), 0)

            async def over() -> bool:  # it has our pipe, so the end of the old one cannot be waited for
                return "draining: finished" in old.log

            await until("the old one to end", over)
            await under.more(20)
        listener.close()
        os.kill(successor, signal.SIGTERM)
        assert "RELOADING=1" in told
        assert told.index(f"MAINPID={successor}") < len(told) - 1 - told[::-1].index("READY=1")
        assert not under.failures, Counter(under.failures)

        async def gone() -> bool:
            return not (tmp_path / "over.sock").exists()

        await until("the successor to end", gone)


async def test_another_workloads_sockets_are_not_handed_out(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (app,):
        write(tmp_path, app)
        await start(roles, *own("outbound", "health", "admin", "metrics"))
        code, _, err = await roles.command(
            "sidecar", "-f", str(tmp_path / "mesh.yaml"), "--workload", "default/other-1", "--inbound", "off",
            "--handover", str(tmp_path / "over.sock"), *own("outbound", "health", "admin", "metrics"),
        )  # fmt: skip
        assert code == 2
        assert "it is that of sidecar default/client-1" in err


async def test_sockets_of_systemd_are_used_by_address_and_by_name(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (app,):
        write(tmp_path, app)
        by_address, by_name = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
        outbound, health = by_address.getsockname()[1], by_name.getsockname()[1]
        script = (
            "import os, sys\n"
            "for number, copy in zip((3, 4), [int(one) + 0 for one in sys.argv[1:3]]):\n"
            "    os.dup2(copy, number, inheritable=True)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='unknown:health')\n"
            "os.execv(sys.argv[3], sys.argv[3:])\n"
        )
        copies = [os.dup(sock.fileno()) for sock in (by_address, by_name)]
        log = (tmp_path / "activated.log").open("wb")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(copies[0]), str(copies[1]), FAIRLEAD, "sidecar",
            "-f", str(tmp_path / "mesh.yaml"), "--workload", "default/client-1", "--inbound", "off",
            "--outbound", f"127.0.0.1:{outbound}", "--health", "127.0.0.1:1", "--admin", "off", "--metrics", "off",
            stdout=asyncio.subprocess.PIPE, stderr=log, pass_fds=copies,
        )  # fmt: skip
        role = Role(process, tmp_path / "activated.log", "activated")
        roles.running.append(role)
        await role.ready()
        async with load(role.url("outbound")) as under:
            await under.more(10)
        assert not under.failures
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{health}/readyz") as answer:
            assert answer.status == 200
        by_address.close()
        by_name.close()
        for copy in copies:
            os.close(copy)
        log.close()
