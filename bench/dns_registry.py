"""DNS with a large registry: cost of a query, memory, how soon a change is answered, and a burst of changes.

Run as `python bench/dns_registry.py [seconds]`. The server has ten services, then ten thousand, with ten endpoints each
(and their workloads); load on core 0, the server on core 1. Needs dnsperf. `python bench/dns_registry.py same [seconds]
[rounds]` has servers of both sizes, and unbound with as many names and addresses, side by side, and asks them in turn
for the same ten names, and the large ones for a thousand: what a query costs whatever the size, and as a ratio.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
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
_asked = 0
"""Id of the last question."""

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
    await asyncio.Event().wait()

uvloop.run(main())
"""


def question(number: int, ident: int = 1) -> bytes:
    labels = (f"svc{number}", "default", "svc", "cluster", "local")
    name = b"".join(bytes((len(label),)) + label.encode() for label in labels) + b"\0"
    return ident.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1"


def addresses(client: socket.socket, number: int) -> frozenset[bytes]:
    """The addresses of a service now. What comes of questions that were given up is not taken for its answer."""
    global _asked
    _asked = _asked % 0xFFFF + 1
    octets = question(number, _asked)
    client.send(octets)
    end = time.monotonic() + (client.gettimeout() or 10.0)
    while (reply := client.recv(4096))[:2] != octets[:2] or reply[12 : len(octets)].lower() != octets[12:]:
        if time.monotonic() > end:
            raise TimeoutError(f"no answer for svc{number} among those that come")
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


def fairlead(folder: Path, port: int, services: int, each: int) -> list[str]:
    script = folder / "server.py"
    script.write_text(SERVER)
    return [sys.executable, "-P", str(script), str(port), str(services), str(each)]


def unbound(folder: Path, port: int, services: int, each: int) -> list[str]:
    """With the same names and addresses."""
    lines = [
        "server:", "interface: 127.0.0.1", f"port: {port}", "do-ip6: no", "num-threads: 1", 'username: ""',
        'chroot: ""', f'directory: "{folder}"', 'pidfile: ""', "use-syslog: no", 'module-config: "iterator"',
        "access-control: 127.0.0.0/8 allow", 'local-zone: "cluster.local." static',
    ]  # fmt: skip
    for index in range(services * each):
        address = f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}"
        lines.append(f'local-data: "svc{index // each}.default.svc.cluster.local. 3600 IN A {address}"')
    conf = folder / f"unbound{services}.conf"
    conf.write_text("\n".join([*lines, "remote-control:", "control-enable: no", ""]))
    return [peers.program("unbound") or "unbound", "-d", "-c", str(conf)]


def asked(folder: Path, services: int, count: int) -> Path:
    """A file of so many questions, spread over all services."""
    names = folder / f"{services}-{count}.txt"
    step = max(1, services // count)
    names.write_text("".join(f"svc{n * step}.default.svc.cluster.local A\n" for n in range(min(count, services))))
    return names


def same(seconds: float = 3.0, rounds: int = 5) -> list[dict[str, Any]]:
    """Rows of processor time per query: the median of rounds in which all are asked in turn; then ratios."""
    small, large = SIZES[0][0], SIZES[1][0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        few, many = asked(folder, small, small), asked(folder, large, 1000)
        works = []
        for name, command in (("fairlead", fairlead), ("unbound", unbound)):
            if name != "fairlead" and peers.program(name) is None:
                continue
            for services, each in SIZES:
                port = peers.free_port()
                pid = stack.enter_context(peers.serving(command(folder, port, services, each), port))
                for label, names in (("ten names", few), ("a thousand names", many)):
                    if names is few or services == large:
                        works.append(((name, services, label), pid, port, names))
        taken: dict[tuple[str, int, str], list[float]] = {}
        for turn in range(rounds + 1):
            for key, pid, port, names in works:
                row = peers.measure(pid, port, names, seconds if turn else 3, ("-e",))
                if turn:  # the first warms
                    taken.setdefault(key, []).append(row["us_per_op"])
    us = {key: statistics.median(found) for key, found in taken.items()}
    rows: list[dict[str, Any]] = [
        {"server": name, "services": services, "asked": label, "us": us[name, services, label],
         "least": min(found), "most": max(found)}
        for (name, services, label), found in taken.items()
    ]  # fmt: skip
    for name in dict.fromkeys(name for name, *_ in us):
        few_us = us[name, large, "ten names"]
        rows.append({"server": name, "large_to_small": round(few_us / us[name, small, "ten names"], 3),
                     "thousand_to_ten_names": round(us[name, large, "a thousand names"] / few_us, 3)})  # fmt: skip
    return rows


def measure(services: int, each: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        port = peers.free_port()
        command = ["taskset", "-c", peers.SERVER_CORE, *fairlead(folder, port, services, each)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        try:
            assert process.stdout is not None
            ready = float(process.stdout.readline().split()[1])
            names = asked(folder, services, 1000)
            peers.dnsperf(port, names, 5)  # memory is put in order within the first seconds
            row: dict[str, Any] = {"services": services, "endpoints": services * each, "load_s": ready}
            row |= peers.measure(process.pid, port, names, seconds, ("-e",))
            few = asked(folder, services, 10)  # as many as the smallest registry has: many cost more
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
    given = sys.argv[1:]
    if given[:1] == ["same"]:
        rows = same(float(given[1]) if given[1:] else 3.0, int(given[2]) if given[2:] else 5)
    else:
        rows = run(*map(float, given[:1]))
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
