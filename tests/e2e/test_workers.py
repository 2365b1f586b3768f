"""`fairlead sidecar --workers N`: several processes on the same addresses that behave as one sidecar."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp
import dns.message
import dns.query
import pytest

from tests.e2e.roles import App, Role, Roles, apps, ask, client, free_port, roles_in, until
from tests.e2e.test_mesh import ONLY_FRIENDS, shop
from tests.e2e.test_sidecar_from_manifests import HOST, ROUTES, WEB

pytestmark = pytest.mark.asyncio
QUIET = ("--inbound", "off", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
LIMITS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    connectionPool: {http: {http2MaxRequests: 3}}
"""
OUTLIERS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100}
"""


async def start(roles: Roles, v1: App, v2: App, more: str = "", *flags: str, workers: int = 2) -> Role:
    folder = roles.folder / "manifests"
    folder.mkdir(exist_ok=True)
    (folder / "web.yaml").write_text(WEB.format(v1=v1.port, v2=v2.port) + "---" + more)
    return await roles.start(
        "sidecar", "-f", str(folder), "--workload", "default/client-1", "--outbound", "127.0.0.1:0", *QUIET, *flags,
        "--workers", str(workers), "--drain-deadline", "10s",
    )  # fmt: skip


async def page(session: aiohttp.ClientSession, role: Role, port: str, path: str) -> tuple[int, Any]:
    async with session.get(role.url(port, path)) as answer:
        text = await answer.text()
        return answer.status, await answer.json() if answer.content_type == "application/json" else text


async def processes(session: aiohttp.ClientSession, role: Role) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await page(session, role, "admin", "/server_info"))[1]["workers"]
    return found


def sample(text: str, name: str, *having: str) -> float:
    """The sum of a metric's samples whose labels have all these parts."""
    lines = [line for line in text.split("\n") if line.startswith(name) and all(part in line for part in having)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_workers_serve_one_address_and_count_as_one(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        role = await start(roles, v1, v2, ROUTES)
        for _ in range(40):  # a connection for each, so that the kernel spreads them over both
            async with aiohttp.ClientSession() as once:
                assert (await ask(once, role, HOST))[2]["app"] == "v1"
        told = await processes(session, role)
        assert len({worker["pid"] for worker in told}) == 2
        status, text = await page(session, role, "metrics", "/metrics")
        assert status == 200
        assert sample(text, "istio_requests_total{") == 40
        assert sample(text, "istio_request_duration_milliseconds_count") == 40
        assert sample(text, "fairlead_workers ") == 2
        assert text.count("# TYPE istio_requests_total counter") == 1
        clusters = (await page(session, role, "admin", "/clusters"))[1]
        (web,) = [cluster for cluster in clusters if "web" in cluster["name"]]
        assert sum(host["requests"] for host in web["hosts"]) == 40
        assert (await page(session, role, "health", "/healthz/ready"))[0] == 200
        assert await role.stop() == 0


async def test_what_the_manifests_say_anew_holds_in_all_workers(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2):
        role = await start(roles, v1, v2, ROUTES)
        changed = ROUTES.replace("- route: [{destination: {host: web, subset: v1}}]",
                                 "- route: [{destination: {host: web, subset: v2}}]")  # fmt: skip
        (tmp_path / "manifests" / "web.yaml").write_text(WEB.format(v1=v1.port, v2=v2.port) + "---" + changed)
        role.process.send_signal(signal.SIGHUP)

        async def all_v2() -> bool:
            for _ in range(12):
                async with aiohttp.ClientSession() as once:
                    if (await ask(once, role, HOST))[2]["app"] != "v2":
                        return False
            return True

        await until("both workers to route by the new manifest", all_v2)


async def test_a_worker_that_is_killed_is_replaced_and_its_counts_stay(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        role = await start(roles, v1, v2, ROUTES)
        for _ in range(30):
            async with aiohttp.ClientSession() as once:
                await ask(once, role, HOST)
        before = (await page(session, role, "metrics", "/metrics"))[1]
        victim = (await processes(session, role))[1]
        os.kill(victim["pid"], signal.SIGKILL)

        async def replaced() -> bool:
            now = (await processes(session, role))[1]
            return now["pid"] != victim["pid"] and not now["problem"]

        await until("the worker to be replaced", replaced)
        for _ in range(20):
            async with aiohttp.ClientSession() as once:
                assert (await ask(once, role, HOST))[0] == 200
        after = (await page(session, role, "metrics", "/metrics"))[1]
        assert sample(before, "istio_requests_total{") == 30
        assert sample(after, "istio_requests_total{") == 50
        assert sample(after, "fairlead_worker_restarts_total", 'worker="1"') == 1
        assert "worker 1 (process" in role.log
        assert "signal SIGKILL" in role.log
        assert (await page(session, role, "health", "/healthz/ready"))[0] == 200


async def test_not_ready_while_a_worker_is_away(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        role = await start(roles, v1, v2, ROUTES)
        os.kill((await processes(session, role))[0]["pid"], signal.SIGKILL)

        async def unready() -> str:
            status, text = await page(session, role, "health", "/healthz/ready")
            return text if status == 503 else ""

        assert "worker 0" in await until("readiness to be withdrawn", unready)

        async def ready() -> bool:
            return (await page(session, role, "health", "/healthz/ready"))[0] == 200

        await until("readiness to come back", ready)


async def hold(role: Role, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Requests to /hold, each on a connection of its own."""
    host, port = role.at["outbound"].rsplit(":", 1)
    made = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET /hold HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        made.append((reader, writer))
    return made


async def test_a_limit_holds_over_all_workers(tmp_path: Path) -> None:
    """http2MaxRequests 3, to the digit where requests come one after another."""
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2):
        v1.hold, v2.hold = asyncio.Event(), asyncio.Event()
        role = await start(roles, v1, v2, LIMITS, workers=3)
        held: list[Any] = []
        statuses: list[bytes] = []
        for _ in range(24):  # one after another, spread over the workers by the kernel
            (pair,) = await hold(role, 1)
            held.append(pair)
            seen = len(v1.seen) + len(v2.seen)
            line = asyncio.ensure_future(pair[0].readline())

            async def decided(line: asyncio.Future[bytes] = line, seen: int = seen) -> bool:
                return line.done() or len(v1.seen) + len(v2.seen) > seen

            before = seen
            await until("the request to be sent on or refused", decided)
            if line.done():
                statuses.append(line.result())
            else:
                assert len(v1.seen) + len(v2.seen) <= before + 1
                held[-1] = (line, pair[1])
        assert len(v1.seen) + len(v2.seen) == 3
        assert len(statuses) == 21
        assert all(b" 503 " in status for status in statuses)
        v1.hold.set()
        v2.hold.set()
        for _, writer in held:
            writer.close()


async def test_an_endpoint_ejected_by_one_worker_is_out_in_all(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        v1.failing = True
        role = await start(roles, v1, v2, OUTLIERS, workers=3)
        async with aiohttp.ClientSession() as one:  # one connection: one worker sees it fail
            for _ in range(200):  # which endpoint is asked is drawn
                await ask(one, role, HOST)
                if len(v1.seen) == 2:
                    break
        for _ in range(30):
            async with aiohttp.ClientSession() as once:
                assert (await ask(once, role, HOST))[2]["app"] == "v2"
        assert len(v1.seen) == 2
        text = (await page(session, role, "metrics", "/metrics"))[1]
        assert sample(text, "fairlead_cluster_ejections_total", "web") == 1
        assert sample(text, "fairlead_cluster_ejected_hosts", "web") == 1
        victim = (await processes(session, role))[0]
        os.kill(victim["pid"], signal.SIGKILL)

        async def replaced() -> bool:
            now = (await processes(session, role))[0]
            return now["pid"] != victim["pid"] and not now["problem"]

        await until("the worker to be replaced", replaced)
        for _ in range(20):
            async with aiohttp.ClientSession() as once:
                assert (await ask(once, role, HOST))[2]["app"] == "v2"


async def test_sigterm_lets_the_requests_of_all_workers_end(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        v1.hold, v2.hold = asyncio.Event(), asyncio.Event()
        role = await start(roles, v1, v2, workers=2)
        held = await hold(role, 12)

        async def all_there() -> bool:
            return len(v1.seen) + len(v2.seen) == 12

        await until("all requests to be under way", all_there)
        pids = [worker["pid"] for worker in await processes(session, role)]
        role.process.send_signal(signal.SIGTERM)

        async def refusing() -> bool:
            return (await page(session, role, "health", "/healthz/ready"))[0] == 503

        await until("readiness to be withdrawn", refusing)
        v1.hold.set()
        v2.hold.set()
        for reader, writer in held:
            assert b" 200 " in await reader.readline()
            writer.close()
        assert await role.process.wait() == 0
        assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        role = await start(roles, v1, v2)
        pids = [worker["pid"] for worker in await processes(session, role)]
        await role.kill()

        async def gone() -> bool:
            return not any(alive(pid) for pid in pids)

        await until("the workers to end", gone)


async def test_an_address_in_use_is_told_as_with_one_process(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2):
        first = await start(roles, v1, v2)
        taken = first.at["outbound"]
        code, _, err = await roles.command(
            "sidecar", "-f", str(tmp_path / "manifests"), "--workload", "default/client-1", "--outbound", taken, *QUIET,
            "--workers", "2",
        )  # fmt: skip
        assert code != 0
        assert f"outbound: {taken} cannot be listened on" in err
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            code, _, err = await roles.command(
                "sidecar", "-f", str(tmp_path / "manifests"), "--workload", "default/client-1",
                "--outbound", f"127.0.0.1:{port}", *QUIET, "--workers", "2",
            )  # fmt: skip
        assert code != 0
        assert f"outbound: 127.0.0.1:{port} cannot be listened on" in err


async def test_a_number_of_workers_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        code, _, err = await roles.command(
            "sidecar", "-f", str(tmp_path), "--workload", "default/client-1", "--workers", "0"
        )
        assert code != 0
        assert "--workers: expected a number from 1 to 64" in err


async def test_in_a_mesh_workers_share_the_certificate_and_follow_control(tmp_path: Path) -> None:
    async with shop(tmp_path, "--certificate-ttl", "6s", workers=2) as mesh:
        for _ in range(10):
            async with aiohttp.ClientSession() as once:
                assert (await ask(once, mesh.sidecars["friend"], HOST))[0] == 200

        async def serial() -> str:
            return str((await page(mesh.session, mesh.sidecars["web"], "admin", "/certs"))[1]["serial"])

        seen = {await serial()}
        while len(seen) < 3:  # renewed twice: the first certificate is over
            for _ in range(5):
                async with aiohttp.ClientSession() as once:
                    status, _, body = await ask(once, mesh.sidecars["friend"], HOST)
                    assert status == 200, body
            seen.add(await serial())
        await mesh.apply(ONLY_FRIENDS)

        async def all_refuse() -> bool:
            for _ in range(8):
                async with aiohttp.ClientSession() as once:
                    if (await ask(once, mesh.sidecars["stranger"], HOST))[0] != 403:
                        return False
            return True

        await until("the policy to hold in all workers", all_refuse)
        victim = (await processes(mesh.session, mesh.sidecars["web"]))[0]
        os.kill(victim["pid"], signal.SIGKILL)

        async def replaced() -> bool:
            now = (await processes(mesh.session, mesh.sidecars["web"]))[0]
            return now["pid"] != victim["pid"] and not now["problem"]

        await until("the worker to be replaced, with certificate and policy", replaced)
        assert await all_refuse()
        for _ in range(8):
            async with aiohttp.ClientSession() as once:
                assert (await ask(once, mesh.sidecars["friend"], HOST))[0] == 200


async def test_a_key_goes_to_workers_by_no_file_and_no_command_line(tmp_path: Path) -> None:
    async with shop(tmp_path, workers=2) as mesh:
        told = await processes(mesh.session, mesh.sidecars["web"])
        for worker in told:
            proc = Path(f"/proc/{worker['pid']}")
            assert b"PRIVATE KEY" not in (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
            links = [os.readlink(path) for path in (proc / "fd").iterdir() if path.is_symlink()]
            files = [link for link in links if link.startswith("/") and not link.startswith(("/dev/null", "/proc"))]
            assert not [name for name in files if "fairlead-" in name and "counts" not in name], files


async def test_workers_listen_on_the_loopback_addresses_that_dns_answers_with(tmp_path: Path) -> None:
    port = free_port()
    manifests = WEB.replace("port: 80}}]", f"port: {port}}}}}]")
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        folder = tmp_path / "manifests"
        folder.mkdir()
        (folder / "web.yaml").write_text(manifests.format(v1=v1.port, v2=v2.port))
        role = await roles.start(
            "sidecar", "-f", str(folder), "--workload", "default/client-1", "--outbound", "off", *QUIET,
            "--dns", "127.0.0.1:0", "--upstream", "off", "--workers", "2",
        )  # fmt: skip
        question = dns.message.make_query(HOST, "A")
        where, number = role.at["dns"].rsplit(":", 1)
        answer = await asyncio.to_thread(dns.query.udp, question, where, 5, int(number))
        (address,) = [str(record) for record in answer.answer[0]]
        assert address.startswith("127.")
        for _ in range(12):
            async with aiohttp.ClientSession() as once, once.get(f"http://{address}:{port}/") as got:
                assert got.status == 200
        victim = (await processes(session, role))[0]
        os.kill(victim["pid"], signal.SIGKILL)

        async def replaced() -> bool:
            now = (await processes(session, role))[0]
            return now["pid"] != victim["pid"] and not now["problem"]

        await until("the worker to be replaced", replaced)
        for _ in range(12):
            async with aiohttp.ClientSession() as once, once.get(f"http://{address}:{port}/") as got:
                assert got.status == 200
