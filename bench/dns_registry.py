"""DNS with a large registry: cost of a query, memory, how soon a change is answered, and a burst of changes.

Run as `python bench/dns_registry.py [seconds]`. The server has ten services, then ten thousand, with ten endpoints each
(and their workloads); load on core 0, the server on core 1. Needs dnsperf; for unbound beside it see bench/dns.py.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):
    sys.path.append(str(ROOT / "build" / "view"))  # where `bench` is found as a package, and the checkout's dns/ is not

from bench import dns as peers  # noqa: E402

SIZES = ((10, 10), (10_000, 10))
"""(services, endpoints of each)."""
CHANGES = 400
BURST = 10_000

# One endpoint's address changes with each line `change N` on standard input; `burst N` makes N changes in one second.
SERVER = """
import asyncio, sys, time, uvloop
from fairlead.dns.engine import DnsOptions
from fairlead.dns.server import DnsServer
from fairlead.registry.model import Changed, Endpoint, Service, ServicePort, Workload
from fairlead.registry.snapshot import Snapshot

def endpoint(service, number, turn=0):
    index = service * 10 + number
    address = f"10.{64 * turn + (index >> 16)}.{index >> 8 & 255}.{index & 255}"
    return Endpoint(address, 8080, "http", workload=f"default/svc{service}-{number}", namespace="default", source="x")

class World:
    def __init__(self, count, each):
        self.server = DnsServer(DnsOptions(upstreams=(), ttl=3600))
        self.count, self.each, self.version, self.turn = count, each, 0, 0
        hosts = [f"svc{n}.default.svc.cluster.local" for n in range(count)]
        ports = (ServicePort(80, "http"),)
        self.services = {h: Service(h, "default", f"svc{n}", ports) for n, h in enumerate(hosts)}
        self.endpoints = {h: tuple(endpoint(n, k) for k in range(each)) for n, h in enumerate(hosts)}
        self.workloads = {
            e.workload: Workload("default", e.workload[8:], (e.address,))
            for ends in self.endpoints.values() for e in ends
        }
        self.publish(None)

    def publish(self, changed):
        self.version += 1
        self.server.update(Snapshot(self.version, self.services, self.endpoints, self.workloads, changed=changed))

    def change(self, number):
        number %= self.count
        host = f"svc{number}.default.svc.cluster.local"
        self.turn += 1
        old = self.endpoints[host]
        turn = 1 + (int(old[0].address.split(".")[1]) // 64) % 3
        self.endpoints[host] = (endpoint(number, 0, turn), *old[1:])
        self.publish(Changed(frozenset((host,))))

    async def burst(self, count):
        start = time.monotonic()
        for step in range(count):
            self.change(step * 7919)
            ahead = (step + 1) / count - (time.monotonic() - start)
            if ahead > 0.001:
                await asyncio.sleep(ahead)
            elif not step % 20:
                await asyncio.sleep(0)
        print(f"burst {time.monotonic() - start:.3f} {self.version} {self.server._version}", flush=True)

async def main():
    start = time.monotonic()
    world = World(int(sys.argv[2]), int(sys.argv[3]))
    await world.server.start("127.0.0.1", int(sys.argv[1]))
    loop = asyncio.get_running_loop()
    print(f"ready {time.monotonic() - start:.2f}", flush=True)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).split():
        if line[0] == b"change":
            world.change(int(line[1]))
        else:
            await world.burst(int(line[1]))

uvloop.run(main())
"""


def question(number: int) -> bytes:
    labels = (f"svc{number}", "default", "svc", "cluster", "local")
    name = b"".join(bytes((len(label),)) + label.encode() for label in labels) + b"\0"
    return b"\0\1\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1"


def addresses(client: socket.socket, number: int) -> frozenset[bytes]:
    octets = question(number)
    client.send(octets)
    reply = client.recv(4096)
    count = int.from_bytes(reply[6:8], "big")
    return frozenset(reply[len(octets) + 16 * n + 12 : len(octets) + 16 * n + 16] for n in range(count))


def change_latencies(process: subprocess.Popen[str], port: int, services: int) -> list[float]:
    """Seconds from a change to the first answer that has it, one change at a time."""
    assert process.stdin is not None
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(("127.0.0.1", port))
        for step in range(CHANGES):
            number = step * 7919 % services
            before = addresses(client, number)
            start = time.perf_counter()
            process.stdin.write(f"change {number}\n")
            process.stdin.flush()
            while addresses(client, number) == before:
                pass
            found.append(time.perf_counter() - start)
    return sorted(found)


def burst(process: subprocess.Popen[str], port: int, services: int) -> dict[str, Any]:
    """BURST changes in a second: questions answered meanwhile, the slowest, and when the last change is in."""
    assert process.stdin is not None
    assert process.stdout is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.connect(("127.0.0.1", port))
        last = (BURST - 1) * 7919 % services
        before = addresses(client, last)
        process.stdin.write(f"burst {BURST}\n")
        process.stdin.flush()
        took: list[float] = []
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            start = time.perf_counter()
            addresses(client, len(took) % services)
            took.append(time.perf_counter() - start)
        while addresses(client, last) == before and time.monotonic() < end + 60:
            start = time.perf_counter()
            addresses(client, len(took) % services)
            took.append(time.perf_counter() - start)
        absorbed = time.monotonic() - end + 1.0
        seconds = float(process.stdout.readline().split()[1])
        return {
            "burst_s": seconds,
            "burst_answered": len(took),
            "p99_ms": round(1000 * sorted(took)[int(len(took) * 0.99)], 2),
            "worst_ms": round(1000 * max(took), 1),
            "absorbed_s": round(absorbed, 2),
            "last_is_in": addresses(client, last) != before,
        }


def measure(services: int, each: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        script = folder / "server.py"
        script.write_text(SERVER)
        port = peers.free_port()
        command = [
            "taskset",
            "-c",
            peers.SERVER_CORE,
            sys.executable,
            "-P",
            str(script),
            str(port),
            str(services),
            str(each),
        ]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        try:
            assert process.stdout is not None
            ready = float(process.stdout.readline().split()[1])
            names = folder / "names.txt"
            step = max(1, services // 1000)
            names.write_text("".join(f"svc{n}.default.svc.cluster.local A\n" for n in range(0, services, step)))
            peers.dnsperf(port, names, 1)
            row: dict[str, Any] = {"services": services, "endpoints": services * each, "load_s": ready}
            row |= peers.measure(process.pid, port, names, seconds, ("-e",))
            few = folder / "few.txt"  # as many as the smallest registry has: what is asked costs more if it is much
            few.write_text("".join(f"svc{n * step}.default.svc.cluster.local A\n" for n in range(10)))
            peers.dnsperf(port, few, 1)
            row["ten_names"] = peers.measure(process.pid, port, few, seconds, ("-e",))
            latencies = change_latencies(process, port, services)
            row["change_p50_ms"] = round(1000 * statistics.median(latencies), 2)
            row["change_p99_ms"] = round(1000 * latencies[int(len(latencies) * 0.99)], 2)
            row |= burst(process, port, services)
            row["rss_mb"] = round(peers.memory_mb(process.pid), 1)
            row["peak_mb"] = round(peers.peak_mb(process.pid), 1)
            return row
        finally:
            process.kill()
            process.wait()


def run(seconds: float = 3.0) -> list[dict[str, Any]]:
    return [measure(services, each, seconds) for services, each in SIZES]


def main() -> None:
    for row in run(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
