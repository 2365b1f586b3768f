"""Applies a second through the API, on each kind of store: `python bench/applies.py --store sqlite --store etcd`.

Real HTTP clients (aiohttp, keep-alive) create VirtualServices and apply changes to them server-side, as `kubectl apply
--server-side` does; each answer comes when the change is on disk (SQLite with synchronous=FULL, etcd with fsync, which
its test servers otherwise go without). Clients run in processes of their own; control, its store and the clients share
the machine's cores. Servers come from tests/get-servers.sh.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "build" / "view") not in sys.path:
    sys.path.append(str(ROOT / "build" / "view"))

import aiohttp  # noqa: E402

from bench import machine  # noqa: E402

PATH = "/apis/networking.istio.io/v1/namespaces/default/virtualservices"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(url: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if len(urllib.request.urlopen(url, timeout=1.0).read()) > 1:
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise SystemExit(f"{url} does not answer")
        time.sleep(0.05)


def start_store(kind: str, folder: Path) -> tuple[list[subprocess.Popen[bytes]], str]:
    """(its processes, --store). On disk, with fsync."""
    if kind == "sqlite":
        return [], f"sqlite:{folder}/store.db"
    program = ROOT / ".servers" / "bin" / kind
    one, two, three = free_ports(3)
    if kind == "etcd":
        url, peer = f"http://127.0.0.1:{one}", f"http://127.0.0.1:{two}"
        command = [
            str(program), "--data-dir", f"{folder}/etcd", "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        ]  # fmt: skip
        ready = f"{url}/health"
    else:
        url = f"http://127.0.0.1:{one}"
        ports = {"http": one, "server": two, "serf_lan": three, "serf_wan": -1, "dns": -1, "grpc": -1}
        settings = {"server": True, "bootstrap_expect": 1, "bind_addr": "127.0.0.1", "data_dir": f"{folder}/consul",
                    "ports": ports, "performance": {"raft_multiplier": 1}}  # fmt: skip
        (folder / "consul.json").write_text(json.dumps(settings))
        command = [str(program), "agent", "-config-file", str(folder / "consul.json")]
        ready = f"{url}/v1/kv/?keys&consistent&wait=1s"
    with (folder / "store.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    if kind == "etcd":
        wait_for(ready)
    else:
        wait_for(f"{url}/v1/status/leader")
        time.sleep(3.0)  # until the leader that it names takes writes
    return [process], f"{kind}://{url.partition('://')[2]}/bench"


def body(name: str, value: int) -> dict[str, Any]:
    route = {"destination": {"host": f"{name}.default.svc.cluster.local"}, "weight": 100}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "labels": {"app": name, "value": str(value)}},
        "spec": {
            "hosts": [name],
            "http": [
                {"match": [{"uri": {"prefix": f"/v{value}"}}], "route": [route], "timeout": f"{value % 50 + 1}s"},
                {"route": [route], "retries": {"attempts": 2, "perTryTimeout": "1s", "retryOn": "5xx"}},
            ],
        },
    }


def client(url: str, name: str, connections: int, seconds: float, results: Any) -> None:
    """One process; puts (applies, latencies)."""
    results.put(asyncio.run(_client(url, name, connections, seconds)))


async def _client(url: str, name: str, connections: int, seconds: float) -> tuple[int, list[float]]:
    latencies: list[float] = []
    headers = {"Content-Type": "application/apply-patch+yaml"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        end = time.monotonic() + seconds

        async def one(lane: int) -> None:
            count = 0
            while time.monotonic() < end:
                own = f"{name}-{lane}-{count % 20}"
                begun = time.monotonic()
                async with session.patch(
                    f"{url}{PATH}/{own}?fieldManager=bench&force=true",
                    data=json.dumps(body(own, count)),
                    headers=headers,
                ) as answer:
                    if answer.status not in (200, 201):
                        raise SystemExit(f"{answer.status}: {await answer.text()}")
                    await answer.read()
                latencies.append(time.monotonic() - begun)
                count += 1

        await asyncio.gather(*(one(lane) for lane in range(connections)))
    return len(latencies), latencies


def run(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="applies-", dir=options.folder))
    servers, where = start_store(kind, folder)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with (folder / "control.log").open("wb") as log:
        control = subprocess.Popen(
            [str(Path(sys.executable).with_name("fairlead")), "control", "--store", where, "--data-dir",
             str(folder / "data"), "--listen", f"127.0.0.1:{port}"],
            stdout=log, stderr=log, env={**os.environ, "FAIRLEAD_LOG_LEVEL": "WARNING"},
        )  # fmt: skip
    try:
        wait_for(f"{url}/readyz")
        results: Any = multiprocessing.get_context("spawn").Queue()
        clients = [
            multiprocessing.get_context("spawn").Process(
                target=client, args=(url, f"c{n}", options.connections // options.clients, options.seconds, results)
            )
            for n in range(options.clients)
        ]
        before = machine.cpu_us([control.pid])
        for process in clients:
            process.start()
        found = [results.get() for _ in clients]
        for process in clients:
            process.join()
        count = sum(one for one, _ in found)
        latencies = sorted(value for _, own in found for value in own)
        return {
            "store": kind,
            "applies": count,
            "applies_per_s": round(count / options.seconds, 1),
            "median_ms": round(statistics.median(latencies) * 1000, 1),
            "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 1),
            "control_cpu_us": round((machine.cpu_us([control.pid]) - before) / count, 1),
        }
    finally:
        control.terminate()
        control.wait()
        for server in servers:
            server.terminate()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--store", action="append", choices=("sqlite", "etcd", "consul"), help="repeatable; default all"
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--clients", type=int, default=1, help="processes that they are spread over")
    parser.add_argument("--folder", help="where the stores lie (default: the system's for temporary files)")
    options = parser.parse_args()
    for kind in options.store or ("sqlite", "etcd", "consul"):
        print(json.dumps(run(kind, options)), flush=True)


if __name__ == "__main__":
    main()
