"""Memory of the proxies: idle with ten and a thousand upstream services, ten thousand idle connections, a soak.

`python bench/memory.py soak --requests 10000000 [--proxy Fairlead]` puts so many requests through a pair with mutual
TLS and prints memory as it goes; `make bench` runs the rest. Idle connections have each carried one request, and stay
open; with TLS they are mutual TLS to the proxy of the destination's side, so that one process holds the server's part.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "build" / "view") not in sys.path:
    sys.path.append(str(ROOT / "build" / "view"))

from bench import load, machine, peers  # noqa: E402

CONNECTIONS = 10_000
SETTLE_S = 1.0


def run(proxies: list[str], connections: int = CONNECTIONS) -> list[dict[str, Any]]:
    """One row for each work and proxy: `mb` or `kb_each`."""
    rows = []
    works: tuple[tuple[str, Callable[[str], dict[str, float]]], ...] = (
        ("ten upstream services", lambda peer: idle(peer, "known10")),
        ("a thousand services known", lambda peer: idle(peer, "known1000")),
        ("a thousand, each with routes, subsets and policy", lambda peer: idle(peer, "routed1000")),
        ("idle connection", lambda peer: idle_connections(peer, connections, False)),
        ("idle connection, mutual TLS", lambda peer: idle_connections(peer, connections, True)),
    )
    for work, measured in works:
        for peer in proxies:
            try:
                found: dict[str, Any] = measured(peer)
            except (load.LoadError, RuntimeError, OSError, subprocess.SubprocessError) as error:
                found = {"failed": str(error).strip()[-1500:]}
            rows.append({"work": work, "proxy": peer, **found})
            print(f"  memory: {work}, {peer}: {found}", file=sys.stderr, flush=True)
    return rows


def idle(peer: str, kind: str) -> dict[str, float]:
    """A proxy that knows the services of a kind, before any request."""
    folder = Path(tempfile.mkdtemp(prefix="fairlead-bench-"))
    try:
        port = machine.free_ports(6) + 1
        commands = peers.PEERS[peer](kind, folder, port, port - 1)
        with machine.started(commands, machine.PROXY_CORE, [port], folder) as pids:
            time.sleep(SETTLE_S)
            return {"mb": round(machine.memory_mb(pids), 1), "pss_mb": round(machine.memory_mb(pids, "Pss"), 1)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def idle_connections(peer: str, count: int, tls: bool) -> dict[str, float]:
    """Kilobytes that each of `count` idle connections costs its proxy."""
    folder = Path(tempfile.mkdtemp(prefix="fairlead-bench-"))
    kind = "pair" if tls else "l7"
    try:
        machine.certificates(folder)
        backend = machine.free_ports(6)
        port = backend + 1
        commands = peers.PEERS[peer](kind, folder, port, backend)
        entry = port
        if tls:
            entry, commands = port + 1, commands[:1]
        with (
            machine.started([peers.backend(kind, folder, backend)], machine.CLIENT_CORE, [backend], folder),
            machine.started(commands, machine.PROXY_CORE, [entry], folder) as pids,
        ):
            hold(folder, entry, 200, tls)  # what is allocated once is not a connection's
            time.sleep(SETTLE_S)
            before = machine.memory_mb(pids)
            with subprocess.Popen(
                ["taskset", "-c", machine.CLIENT_CORE, *_holder(folder, entry, count, tls)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as holder:
                assert holder.stdout is not None
                if holder.stdout.readline().strip() != "held":
                    raise RuntimeError(f"{peer}: could not hold {count} connections")
                time.sleep(SETTLE_S)
                grown = machine.memory_mb(pids) - before
                holder.communicate("", timeout=30)
            time.sleep(SETTLE_S)
            after = machine.memory_mb(pids)
        return {
            "connections": count,
            "kb_each": round(grown * 1024 / count, 2),
            "before_mb": round(before, 1),
            "closed_mb": round(after, 1),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _holder(folder: Path, port: int, count: int, tls: bool) -> list[str]:
    return [sys.executable, "-P", __file__, "hold", str(folder), str(port), str(count), *(["--tls"] if tls else [])]


def hold(folder: Path, port: int, count: int, tls: bool) -> None:
    subprocess.run(_holder(folder, port, count, tls), input="", text=True, check=True, stdout=subprocess.DEVNULL)


def holding(folder: Path, port: int, count: int, tls: bool) -> None:
    """Open `count` connections, one request on each, say `held`, and keep them until standard input ends."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    context = None
    if tls:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "client.pem", folder / "client.key")
        context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    head = "\r\n".join(("GET /api/items HTTP/1.1", *load.HEADERS, "", "")).encode()

    def opened(_: int) -> socket.socket:
        one = socket.create_connection(("127.0.0.1", port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the request follows the handshake's last message
        if context is not None:
            one = context.wrap_socket(one, server_hostname="outbound_.80_._.web.default.svc.cluster.local")
        one.sendall(head)
        load.answer(one)
        return one

    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # so that client and proxy work at the same time
        held = list(pool.map(opened, range(count)))
    print("held", flush=True)
    sys.stdin.read()
    for one in held:
        one.close()


def soak(peer: str, requests: int, seconds: int = 10) -> dict[str, Any]:
    """Memory of a pair with mutual TLS, and of one L7 hop within it, while `requests` requests go through."""
    folder = Path(tempfile.mkdtemp(prefix="fairlead-bench-"))
    try:
        machine.certificates(folder)
        backend = machine.free_ports(6)
        port = backend + 1
        commands = peers.PEERS[peer]("pair", folder, port, backend)
        with (
            machine.started([peers.backend("pair", folder, backend)], machine.CLIENT_CORE, [backend], folder),
            machine.started(commands, machine.PROXY_CORE, [port + 1, port], folder) as pids,
        ):
            load.wrk(port, "/api/items", 64, seconds, folder)
            sizes, done = [machine.memory_mb(pids)], 0.0
            print(f"{peer}: {sizes[0]:.1f} MB after {seconds} s", flush=True)
            while done < requests:
                # Connections come and go, bodies are small and large: what could leak is used.
                done += load.wrk(port, "/api/items", 64, seconds, folder)["requests"]
                done += load.wrk(port, "/api/items", 32, 2, folder, ("Connection: close",))["requests"]
                done += load.wrk(port, "/api/big", 8, 1, folder)["requests"]
                for log in folder.glob("*.log"):
                    with log.open("r+") as file:
                        file.truncate()  # the disk is not what is soaked
                sizes.append(machine.memory_mb(pids))
                print(f"{peer}: {done:,.0f} requests, {sizes[-1]:.1f} MB", flush=True)
        half = sizes[len(sizes) // 2 :]
        return {
            "work": f"soak of {requests:,} requests",
            "proxy": peer,
            "requests": int(done),
            "start_mb": round(sizes[0], 1),
            "end_mb": round(sizes[-1], 1),
            "second_half_growth_mb": round(half[-1] - statistics.median(half), 2),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    does = parser.add_subparsers(dest="does", required=True)
    soaking = does.add_parser("soak")
    soaking.add_argument("--requests", type=int, default=10_000_000)
    soaking.add_argument("--seconds", type=int, default=10, help="between two looks at the memory")
    soaking.add_argument("--proxy", default="Fairlead", choices=list(peers.PEERS))
    held = does.add_parser("hold", help="used by the measurement itself")
    held.add_argument("folder", type=Path)
    held.add_argument("port", type=int)
    held.add_argument("count", type=int)
    held.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    if options.does == "hold":
        holding(options.folder, options.port, options.count, options.tls)
        return
    print(soak(options.proxy, options.requests, options.seconds))


if __name__ == "__main__":
    main()
