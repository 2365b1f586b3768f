"""Memory of the proxies: idle with ten and a thousand upstream services, ten thousand idle connections, large bodies.

`python bench/memory.py --gib 10 [--proxy Fairlead]` puts one body of that size each way through a pair with mutual TLS,
as `make soak` does; `--requests 10000000` looks whether memory is flat meanwhile; `make bench` runs the rest. Idle
connections have each carried one request, and stay open; with TLS they are mutual TLS to the proxy of the destination's
side, so that one process holds the server's part.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
            load.hold(folder, entry, 200, tls)  # what is allocated once is not a connection's
            time.sleep(SETTLE_S)
            before = machine.memory_mb(pids)
            with load.held(folder, entry, count, tls):
                time.sleep(SETTLE_S)
                grown = machine.memory_mb(pids) - before
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


@contextlib.contextmanager
def pair_of(peer: str, behind: Callable[[Path, int], list[str]] | None = None) -> Iterator[tuple[int, list[int], Path]]:
    """A pair with mutual TLS before a backend (nginx, unless `behind` says another): its port, processes, folder."""
    folder = Path(tempfile.mkdtemp(prefix="fairlead-bench-"))
    try:
        machine.certificates(folder)
        backend = machine.free_ports(6)
        port = backend + 1
        commands = peers.PEERS[peer]("pair", folder, port, backend)
        answers = behind(folder, backend) if behind else peers.backend("pair", folder, backend)
        with (
            machine.started([answers], machine.CLIENT_CORE, [backend], folder),
            machine.started(commands, machine.PROXY_CORE, [port + 1, port], folder) as pids,
        ):
            yield port, pids, folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def transfer(peer: str, gib: int) -> dict[str, Any]:
    """Memory of a pair while one body of `gib` GiB goes down and another up, by curl."""
    with pair_of(peer, lambda folder, port: load.own(folder, port, "serve", gib)) as (port, pids, folder):
        huge = folder / "huge"
        huge.touch()
        os.truncate(huge, gib << 30)  # sparse: no disk holds it
        url, host = f"http://127.0.0.1:{port}/api/huge", f"Host: {load.HOST}"
        found: dict[str, Any] = {"work": f"{gib} GiB down and up", "proxy": peer}
        found["before_mb"] = round(machine.memory_mb(pids), 1)
        for name, more, moves in (("down", [], "%{size_download}"), ("up", ["-T", str(huge)], "%{size_upload}")):
            began, sizes = time.monotonic(), [0.0]
            command = ["curl", "-sS", "-f", "-o", "/dev/null", "-H", host, "-w", moves, *more, url]
            with subprocess.Popen(["taskset", "-c", machine.CLIENT_CORE, *command], stdout=subprocess.PIPE) as client:
                while client.poll() is None:
                    sizes.append(machine.memory_mb(pids))
                    time.sleep(0.2)
                moved = client.stdout.read() if client.stdout else b""
            if moved != str(gib << 30).encode():
                raise load.LoadError(f"{peer}: {name}: moved {moved!r} octets, not {gib} GiB")
            found |= {f"{name}_most_mb": round(max(sizes), 1), f"{name}_s": round(time.monotonic() - began, 1)}
    return found


def flat(peer: str, requests: int) -> list[tuple[int, float]]:
    """Memory in MB of a pair with mutual TLS after so and so many requests, until there were `requests`."""
    found: list[tuple[int, float]] = []
    with pair_of(peer) as (port, pids, folder):
        done = 0
        while done < requests:
            done += int(load.wrk(port, "/api/items", 64, 30, folder)["requests"])
            time.sleep(SETTLE_S)
            found.append((done, round(machine.memory_mb(pids), 1)))
            print(f"  {peer}: {found[-1]}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=int, default=10)
    parser.add_argument("--requests", type=int, default=0, help="instead: so many requests, is memory flat?")
    parser.add_argument("--proxy", default="Fairlead", choices=list(peers.PEERS))
    options = parser.parse_args()
    print(flat(options.proxy, options.requests) if options.requests else transfer(options.proxy, options.gib))


if __name__ == "__main__":
    main()
