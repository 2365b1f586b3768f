"""Processes on cores, their processor time and memory, ports, certificates: what every measurement stands on.

Client and backend run on core 0, the proxy under test on core 1. Processor time is the kernel's clock of a process
(user and system, all its threads, in nanoseconds), summed over the process and its descendants; memory is resident or
proportional (PSS: a page that several processes share counts once).
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CLIENT_CORE, PROXY_CORE, BOTH_CORES = "0", "1", "0,1"
READY_S = 30.0


def free_ports(count: int) -> int:
    """The first of `count` neighbouring free ports, below those that outgoing connections get."""
    for first in range(21000, 32000, 37):
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
    found = [root]
    for one in found:
        found += children.get(one, [])
    return found


def cpu_us(roots: Sequence[int]) -> float:
    """Processor microseconds that the processes and their descendants have used so far."""
    total = 0.0
    for root in roots:
        for pid in processes(root):
            with contextlib.suppress(OSError):
                # CPUCLOCK_SCHED of another process: clock_getcpuclockid(3)
                total += time.clock_gettime_ns((~pid << 3) | 2) / 1000
    return total


def memory_mb(roots: Sequence[int], field: str = "Rss") -> float:
    """Megabytes (2^20) of the processes and their descendants; `field` is Rss or Pss."""
    total = 0
    for root in roots:
        for pid in processes(root):
            with contextlib.suppress(OSError):
                found = re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
                total += int(found[1]) if found else 0
    return total / 1024


@contextlib.contextmanager
def started(commands: list[list[str]], core: str, ports: list[int], folder: Path) -> Iterator[list[int]]:
    """The commands as processes on a core (or several), once all ports listen; ended afterwards."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for number, command in enumerate(commands):
            # Standard output is a file: HAProxy's access log goes there.
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
        end = time.monotonic() + READY_S
        for port in ports:
            while not _listens(port):
                if any(p.poll() is not None for p in running) or time.monotonic() > end:
                    raise RuntimeError(f"{commands}: port {port} does not listen\n{_logs(folder)}")
                time.sleep(0.02)
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


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _logs(folder: Path) -> str:
    found = [*folder.glob("*.out"), *folder.glob("*.err")]
    return "\n".join(f"{p.name}: {p.read_text(errors='replace')[-1500:]}" for p in found)


def certificates(folder: Path) -> None:
    """A CA, a server and a client certificate (P-256) with SPIFFE ids, the same for every proxy."""
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


def described() -> dict[str, str | int | None]:
    """The machine, for the results."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": found[1] if found else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
