"""Where the processor time of a row goes: `python bench/profile.py "pair, mutual TLS" [--proxy Envoy] [--symbols 40]`.

Samples the proxy's processes with perf under the load of that row, and prints the shares of kernel, C library, OpenSSL,
the interpreter, uvloop (`loop`) and each compiled module of Fairlead; then the functions that cost most. perf must
be there (Debian: linux-perf) and allowed (root, or kernel.perf_event_paranoid at most 1). For Python code that is not
compiled, which perf shows as the interpreter: `py-spy record --native --pid PID`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "build" / "view") not in sys.path:
    sys.path.append(str(ROOT / "build" / "view"))

from bench import machine, peers, run  # noqa: E402

RATE_HZ = 4000


def sampled(name: str, peer: str, seconds: int, folder: Path) -> tuple[Path, float]:
    """perf's samples of one row, and processor microseconds per request while they were taken."""
    work = run.WORKS[name]
    machine.certificates(folder)
    backend = machine.free_ports(6)
    port = backend + 1
    commands = peers.PEERS[peer](work.kind, folder, port, backend)
    data = folder / "perf.data"
    with (
        machine.started([peers.backend(work.kind, folder, backend)], machine.CLIENT_CORE, [backend], folder),
        machine.started(commands, machine.PROXY_CORE, peers.ports_of(work.kind, port), folder) as pids,
    ):
        run.warm(work, port, folder)
        everyone = ",".join(str(pid) for root in pids for pid in machine.processes(root))
        command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(RATE_HZ), "-o", str(data), "-p", everyone]
        sampler = threading.Thread(target=subprocess.run, args=([*command, "--", "sleep", str(seconds)],))
        sampler.start()
        found = run.measure(work, port, backend, seconds, folder, pids, [])
        sampler.join()
    return data, found["us"]


def shares(data: Path, keys: str) -> list[tuple[float, str]]:
    """(percent, name) by perf's sort keys, highest first."""
    command = ["perf", "report", "-i", str(data), "--stdio", "--no-children", "--sort", keys, "-g", "none"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^\s+([\d.]+)%\s+(.*\S)", text, re.MULTILINE)
    return [(float(percent), re.sub(r"\.cpython-\S+| +-(?= |$)", "", name)) for percent, name in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=[*run.WORKS], metavar="WORK", help="a row's name, as `make bench` prints it")
    parser.add_argument("--proxy", default="Fairlead", choices=list(peers.PEERS))
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--symbols", type=int, default=30, help="how many functions to print")
    options = parser.parse_args()
    if not shutil.which("perf"):
        raise SystemExit("profile needs perf: apt-get install linux-perf")
    folder = Path(tempfile.mkdtemp(prefix="fairlead-bench-"))
    try:
        data, us = sampled(options.work, options.proxy, options.seconds, folder)
        print(f"{options.work}, {options.proxy}: {us:.1f} us of processor per request\n")
        for percent, name in shares(data, "dso"):
            if percent >= 0.2:
                print(f"{percent:6.2f} %  {us * percent / 100:8.2f} us  {name}")
        print()
        for percent, name in shares(data, "dso,symbol")[: options.symbols]:
            print(f"{percent:6.2f} %  {us * percent / 100:8.2f} us  {name}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
