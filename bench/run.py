"""Fairlead beside HAProxy, nginx, Envoy, unbound and dnsmasq, in one run: `make bench`.

Client and backend run on core 0, the proxy under test on core 1, each with one thread (two workers share both cores
with the client: see `report.workers_table`). Every round goes through all works and all proxies in turn, so that what
disturbs the machine hits them alike; each figure is the median of the rounds. The first number is processor time of the
proxy per request, user and system, all its processes. A whole run writes `bench/results/latest.json` and the README
section made from it; a selection (`--work`, `--proxy`) writes `bench/results/partial.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "build" / "view") not in sys.path:
    sys.path.append(str(ROOT / "build" / "view"))  # where `bench` is found as a package, and the checkout's dns/ is not

from bench import dns, load, machine, memory, peers, peers_envoy, report  # noqa: E402

RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Work:
    kind: str
    """What the proxies are configured for: `bench/peers.py`."""
    how: str = "wrk"
    path: str = "/api/items"
    connections: int = 64
    more: tuple[str, ...] = ()
    rate: int = 0
    only: str = ""
    """The one proxy that has this row."""


WORKS: dict[str, Work] = {
    "one L7 hop": Work("l7"),
    "one L7 hop, new connection each": Work("l7", more=("Connection: close",)),
    "one L7 hop, 1 MiB down": Work("l7", path="/api/big", connections=16),
    "one L7 hop, 1 MiB up": Work("l7", "upload", "/api/upload", 16),
    "one L7 hop, no access log": Work("l7quiet"),
    "one L4 hop": Work("l4"),
    "one L4 hop, 1 MiB down": Work("l4", path="/api/big", connections=16),
    "pair, mutual TLS": Work("pair"),
    "pair, mutual TLS, 1 MiB down": Work("pair", path="/api/big", connections=16),
    "pair, mutual TLS, 1,000 requests/s": Work("pair", "paced", rate=1000),
    "pair, new mutual TLS connection each": Work("pairnew"),
    "TLS client, new mutual TLS connection each": Work("pair", "tls"),
    "HTTP/2 GET": Work("h2", "h2", peers.H2_PATH),
    "gRPC unary": Work("grpc", "grpc", peers.GRPC_PATH),
    "two workers": Work("l7x2", "shared"),
    "one worker, costly routes": Work("heavyx1", only="Fairlead"),
    "two workers, costly routes": Work("heavyx2", "shared", only="Fairlead"),
}
TOOLS = {
    "wrk": "wrk",
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "h2load": "nghttp2-client",
    "nghttpd": "nghttp2-server",
    "dnsperf": "dnsperf",
    "unbound": "unbound",
    "dnsmasq": "dnsmasq-base",
    "taskset": "util-linux",
}


@contextlib.contextmanager
def on_core(core: str) -> Iterator[None]:
    """This process on the client's core, while it is the client."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(one) for one in core.split(",")})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def apply(work: Work, port: int, backend: int, seconds: int, folder: Path) -> dict[str, float]:
    """The load of one work, once."""
    if work.how in ("h2", "grpc"):
        return load.h2load(port, work.path, seconds, folder, grpc=work.how == "grpc")
    if work.how == "paced":
        with on_core(machine.CLIENT_CORE):
            return load.added(port, backend, work.path, work.rate, seconds)
    if work.how == "tls":
        return load.tls(folder, port + 1, seconds)
    core = machine.BOTH_CORES if work.how == "shared" else machine.CLIENT_CORE
    return load.wrk(port, work.path, work.connections, seconds, folder, work.more, work.how == "upload", core)


def warm(work: Work, port: int, folder: Path) -> None:
    """Some hundred requests, so that connections, caches and pools are there."""
    if work.how in ("h2", "grpc"):
        load.h2load(port, work.path, 0, folder, grpc=work.how == "grpc")
    else:
        load.paced(port, work.path, 3000, 0.3)


def measure(
    work: Work, port: int, backend: int, seconds: int, folder: Path, proxy: list[int], behind: list[int]
) -> dict[str, float]:
    """One figure: the load, and what proxy and client spent on it."""
    before, client = machine.cpu_us(proxy), machine.cpu_us(behind) + children_us()
    found = apply(work, port, backend, seconds, folder)
    found["us"] = (machine.cpu_us(proxy) - before) / found["requests"]
    found["client_us"] = (machine.cpu_us(behind) + children_us() - client) / found["requests"]
    found["rss_mb"] = machine.memory_mb(proxy)
    return found


def children_us() -> float:
    """Of clients that have ended: wrk and h2load are children of this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e6


def measure_kind(kind: str, peer: str, works: dict[str, Work], seconds: int) -> dict[str, dict[str, Any]]:
    """All works of one configuration of one proxy, one after another on the same processes."""
    folder = Path(tempfile.mkdtemp(prefix="fairlead-bench-"))
    found: dict[str, dict[str, Any]] = {}
    try:
        machine.certificates(folder)
        backend = machine.free_ports(6)
        port = backend + 1
        commands = peers.PEERS[peer](kind, folder, port, backend)
        shared = any(work.how == "shared" for work in works.values())
        cores = (machine.BOTH_CORES,) * 2 if shared else (machine.CLIENT_CORE, machine.PROXY_CORE)
        with (
            machine.started([peers.backend(kind, folder, backend)], cores[0], [backend], folder) as behind,
            machine.started(commands, cores[1], peers.ports_of(kind, port), folder) as proxy,
        ):
            warm(next(iter(works.values())), port, folder)
            for name, work in works.items():
                length = max(seconds, 2) if work.how == "paced" else seconds
                found[name] = measure(work, port, backend, length, folder, proxy, behind)
    except (load.LoadError, RuntimeError, OSError) as error:
        for name in works:
            found.setdefault(name, {"failed": str(error).strip()[-1500:]})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def run(seconds: int, rounds: int, names: list[str], proxies: list[str]) -> list[dict[str, Any]]:
    """One row for each work and proxy, with the medians of the rounds; `failed` where no round went well."""
    gathered: dict[tuple[str, str], list[dict[str, Any]]] = {}
    kinds = dict.fromkeys(WORKS[name].kind for name in names)
    for turn in range(rounds):
        for kind in kinds:
            for peer in proxies:
                works = {n: WORKS[n] for n in names if WORKS[n].kind == kind and WORKS[n].only in ("", peer)}
                if not works:
                    continue
                for name, found in measure_kind(kind, peer, works, seconds).items():
                    gathered.setdefault((name, peer), []).append(found)
                    said = found.get("failed", "")[:300] or f"{found['us']:.1f} us, {found['per_s']:.0f}/s"
                    print(f"  round {turn + 1}: {name}, {peer}: {said}", file=sys.stderr, flush=True)
    return [
        {"work": name, "proxy": peer, **median(gathered[name, peer])}
        for name in names
        for peer in proxies
        if (name, peer) in gathered
    ]


def median(samples: list[dict[str, Any]]) -> dict[str, Any]:
    good = [sample for sample in samples if "failed" not in sample]
    if not good:
        return {"failed": samples[-1]["failed"]}
    return {"rounds": len(good), **{key: round(statistics.median(s[key] for s in good), 4) for key in good[0]}}


def chosen(text: str) -> list[str]:
    """The works that `--work` means: those of a kind, or with the text in their name; `memory`, `dns`."""
    found = [name for name, work in WORKS.items() if text in (work.kind, name)]
    found = found or [name for name in (*WORKS, "memory", "dns") if text in name]
    if not found:
        names = "\n".join(f"  {name} ({work.kind})" for name, work in WORKS.items())
        raise argparse.ArgumentTypeError(f"no work named like {text!r}; there are:\n{names}\n  memory\n  dns")
    return found


def need(tools: dict[str, str]) -> None:
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [f"{tool} ({package})" for tool, package in tools.items() if not shutil.which(tool)]
    if not (peers.NGINX_MODULES / "ngx_stream_module.so").exists():
        missing.append("nginx's stream module (libnginx-mod-stream)")
    if missing:
        raise SystemExit(f"bench needs {', '.join(missing)}: apt-get install the packages in parentheses")
    if not peers_envoy.ENVOY.exists():
        env = {**os.environ, "PYTHON": sys.executable}
        subprocess.run(["sh", "tests/get-servers.sh"], check=True, cwd=ROOT, env=env)


def versions() -> dict[str, str]:
    """Of the proxies, as they say it themselves."""
    asked = {
        "HAProxy": (["haproxy", "-v"], r"version (\S+?)[-+ ]"),
        "nginx": (["nginx", "-v"], r"nginx/(\S+)"),
        "Envoy": ([str(peers_envoy.ENVOY), "--version"], r"/(\d+\.\d+\.\d+)"),
    }
    found = {}
    for name, (command, pattern) in asked.items():
        done = subprocess.run(command, capture_output=True, text=True)
        said = re.search(pattern, done.stdout + done.stderr)
        found[name] = said[1] if said else "?"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=1, help="of load for each figure, whole (default 1)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--work",
        action="append",
        type=chosen,
        metavar="WORK",
        help="only this: part of its name, or its kind (repeatable)",
    )
    parser.add_argument("--proxy", action="append", choices=list(peers.PEERS), help="only this (may be repeated)")
    options = parser.parse_args()
    need(TOOLS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)  # and of all below
    began = time.monotonic()
    asked = [name for names in options.work for name in names] if options.work else [*WORKS, "memory", "dns"]
    proxies = options.proxy or list(peers.PEERS)
    result: dict[str, Any] = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.described(),
        "versions": versions(),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "rows": run(options.seconds, options.rounds, [w for w in asked if w in WORKS], proxies),
        "memory": memory.run(proxies) if "memory" in asked else [],
        "dns": dns.run(options.seconds, options.rounds) if "dns" in asked else [],
    }
    result["took_s"] = round(time.monotonic() - began)
    whole = not options.work and not options.proxy
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / ("latest.json" if whole else "partial.json")).write_text(json.dumps(result, indent=1) + "\n")
    print(report.section(result))
    if whole:
        report.write_readme(result)
    failed = [
        f"{r['work']}, {r['proxy']}: {r['failed'][:300]}" for r in result["rows"] + result["memory"] if "failed" in r
    ]
    if failed:
        raise SystemExit("no figure for:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
