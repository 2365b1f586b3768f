"""DNS over UDP and TCP: processor microseconds per query of Fairlead, unbound and dnsmasq, by dnsperf.

Load runs on core 0, the server on core 1, all in one run, so that the numbers can be compared. Run as
`python bench/dns.py [seconds]`; `run(seconds)` returns the rows. Needs dnsperf, and unbound and dnsmasq for their rows.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = 1000
RESULTS = Path(__file__).resolve().parent / "results"
TICK = os.sysconf("SC_CLK_TCK")
LOAD_CORE, SERVER_CORE = "0", "1"

# What a server process of ours runs: the DNS role's core and sockets on services made here, nothing else.
SERVER = """
import asyncio, sys, uvloop
from fairlead.dns.engine import DnsOptions
from fairlead.dns.server import DnsServer
from fairlead.registry.model import Service, ServicePort
from fairlead.registry.snapshot import Snapshot

async def main():
    services = {}
    for n in range(int(sys.argv[2])):
        host = f"svc{n}.default.svc.cluster.local"
        address = f"10.96.{n // 250}.{n % 250 + 1}"
        services[host] = Service(host, "default", f"svc{n}", (ServicePort(80, "http"),), (address,))
    upstreams = tuple(filter(None, sys.argv[3].split(",")))
    server = DnsServer(DnsOptions(upstreams=upstreams, ttl=3600))
    server.update(Snapshot(1, services))
    await server.start("127.0.0.1", int(sys.argv[1]))
    await asyncio.Event().wait()

uvloop.run(main())
"""


def address_of(number: int) -> str:
    return f"10.96.{number // 250}.{number % 250 + 1}"


def free_port() -> int:
    """One that is free for both transports."""
    with socket.socket(type=socket.SOCK_STREAM) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        return int(tcp.getsockname()[1])


def program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")


def fairlead(folder: Path, port: int, upstream: str = "", names: int = NAMES) -> list[str]:
    script = folder / "server.py"
    script.write_text(SERVER)
    return [sys.executable, "-P", str(script), str(port), str(names), upstream]


def unbound(folder: Path, port: int) -> list[str]:
    lines = [
        "server:", "interface: 127.0.0.1", f"port: {port}", "do-ip6: no", "num-threads: 1", 'username: ""',
        'chroot: ""',
        f'directory: "{folder}"', 'pidfile: ""', "use-syslog: no", 'module-config: "iterator"',
        "access-control: 127.0.0.0/8 allow", 'local-zone: "cluster.local." static',
    ]  # fmt: skip
    lines += [f'local-data: "svc{n}.default.svc.cluster.local. 3600 IN A {address_of(n)}"' for n in range(NAMES)]
    conf = folder / "unbound.conf"
    conf.write_text("\n".join([*lines, "remote-control:", "control-enable: no", ""]))
    return [program("unbound") or "unbound", "-d", "-c", str(conf)]


def dnsmasq(folder: Path, port: int) -> list[str]:
    hosts = folder / "hosts"
    hosts.write_text("".join(f"{address_of(n)} svc{n}.default.svc.cluster.local\n" for n in range(NAMES)))
    return [
        program("dnsmasq") or "dnsmasq", "-k", "-p", str(port), "-a", "127.0.0.1", "-z", "-u", "root", "-R", "-h",
        "-H", str(hosts), "-c", "10000", "-S", "/cluster.local/", "--pid-file=", "-C", "/dev/null",
    ]  # fmt: skip


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        try:
            tasks = Path(f"/proc/{one}/task").iterdir()
            for task in tasks:
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            pass
    return found


def processor_seconds(pid: int) -> float:
    """User and system time of a process tree, with that of children already gone."""
    ticks = 0
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15] if one == pid else fields[11:13]))
    return ticks / TICK


def memory_mb(pid: int) -> float:
    total = 0
    for one in tree(pid):
        try:
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total / 1024


def peak_mb(pid: int) -> float:
    """The most that a process, without those below it, ever had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@contextmanager
def serving(command: list[str], port: int) -> Iterator[int]:
    """The process, pinned to its core, from when it answers."""
    process = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        query = b"\0\1\1\0\0\1\0\0\0\0\0\0\4svc0\7default\3svc\7cluster\5local\0\0\1\0\1"
        end = time.monotonic() + 20
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.2)
            client.connect(("127.0.0.1", port))
            while True:
                try:
                    client.send(query)
                    if client.recv(4096):
                        break
                except OSError:
                    if time.monotonic() > end or process.poll() is not None:
                        raise RuntimeError(f"{command[0]} does not answer on port {port}") from None
                    time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def dnsperf(port: int, questions: Path, seconds: float, *more: str) -> dict[str, float]:
    command = [
        "taskset", "-c", LOAD_CORE, program("dnsperf") or "dnsperf", "-s", "127.0.0.1", "-p", str(port),
        "-d", str(questions), "-l", str(max(1, round(seconds))), "-T", "1", "-c", "10", "-q", "100", *more,
    ]  # fmt: skip
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for key, pattern in (
        ("completed", r"Queries completed:\s+(\d+)"),
        ("lost", r"Queries lost:\s+(\d+)"),
        ("per_second", r"Queries per second:\s+([\d.]+)"),
        ("latency_s", r"Average Latency \(s\):\s+([\d.]+)"),
    ):
        match = re.search(pattern, out)
        found[key] = float(match[1]) if match else 0.0
    return found


WORKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("dns udp A", "known", ()),
    ("dns udp A edns", "known", ("-e",)),
    ("dns udp NXDOMAIN", "missing", ()),
    ("dns udp A at 10k/s", "known", ("-Q", "10000")),
    ("dns tcp A", "known", ("-m", "tcp")),
)
SERVERS: tuple[tuple[str, Callable[[Path, int], list[str]]], ...] = (
    ("fairlead", fairlead),
    ("unbound", unbound),
    ("dnsmasq", dnsmasq),
)


def run(seconds: float = 4.0, rounds: int = 1) -> list[dict[str, Any]]:
    """One row for each work and server: `us_per_op` of processor, `ops_per_s`, `rss_mb`; the median of `rounds`."""
    if program("dnsperf") is None:
        print("bench/dns.py: dnsperf is not installed (Debian: dnsperf); no DNS rows", file=sys.stderr)
        return []
    samples: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for name, command in SERVERS:
            if name != "fairlead" and program(name) is None:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                questions = {kind: folder / f"{kind}.txt" for kind in ("known", "missing")}
                questions["known"].write_text("".join(f"svc{n}.default.svc.cluster.local A\n" for n in range(NAMES)))
                questions["missing"].write_text(
                    "".join(f"w{n}.example.com.default.svc.cluster.local A\n" for n in range(NAMES))
                )
                port = free_port()
                with serving(command(folder, port), port) as pid:
                    dnsperf(port, questions["known"], 1)  # warm
                    for work, kind, more in WORKS:
                        row = measure(pid, port, questions[kind], seconds, more)
                        samples.setdefault((work, name), []).append({"work": work, "server": name, **row})
    return [sorted(rows, key=lambda row: row["us_per_op"])[len(rows) // 2] for rows in samples.values()]


def measure(pid: int, port: int, questions: Path, seconds: float, more: tuple[str, ...]) -> dict[str, Any]:
    before = processor_seconds(pid)
    result = dnsperf(port, questions, seconds, *more)
    used = processor_seconds(pid) - before
    return {
        "us_per_op": round(1e6 * used / max(result["completed"], 1), 2),
        "ops_per_s": round(result["per_second"]),
        "rss_mb": round(memory_mb(pid), 1),
        "mean_us": round(1e6 * result["latency_s"]),
        "lost": int(result["lost"]),
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| work | server | us/query | queries/s | mean us | RSS MB | lost |", "|---|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row["work"], row["us_per_op"])):
        lines.append(
            f"| {row['work']} | {row['server']} | {row['us_per_op']} | {row['ops_per_s']} | {row['mean_us']} "
            f"| {row['rss_mb']} | {row['lost']} |"
        )
    return "\n".join(lines)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    rows = run(seconds, rounds)
    RESULTS.mkdir(exist_ok=True)
    about = {"machine": platform.processor() or platform.machine(), "kernel": platform.release(), "seconds": seconds}
    (RESULTS / "dns.json").write_text(json.dumps({**about, "rounds": rounds, "rows": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
