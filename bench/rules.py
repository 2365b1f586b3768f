"""What rules cost: `decide` by a table of many hosts, compiling the tables of a large mesh, and one endpoint's change.

`python bench/rules.py` measures in processor time of this process, on one core, and prints a table and the goals. The
world is made as a sidecar gets it: lines of the feed, to a world, to tables.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "build" / "view") not in sys.path:
    sys.path.append(str(ROOT / "build" / "view"))

from fairlead.mesh.update import Holdings, build_world  # noqa: E402
from fairlead.policy.compile import CompileCache, compile_tables  # noqa: E402
from fairlead.policy.decide import decide  # noqa: E402
from fairlead.policy.tables import Arrival, Tables, Viewpoint  # noqa: E402
from fairlead.policy.world import Loader  # noqa: E402
from fairlead.proxy.http1 import RequestParser  # noqa: E402
from fairlead.proxy.message import RequestHead  # noqa: E402
from fairlead.registry.model import Workload  # noqa: E402

ROUTES = 10
DECIDE_US, COMPILE_S, CHANGE_MS = 3.0, 1.0, 5.0
"""The goals."""
HEAD = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n"
    "X-Request-Id: 5b1a\r\nCookie: session=1234567890\r\nAuthorization: Bearer abcdef\r\n\r\n"
)


def service(name: str, rules: bool, endpoints: int) -> dict[str, Any]:
    """Items of the feed: a service, its endpoints, a VirtualService of ten routes, a DestinationRule."""
    host = f"{name}.default.svc.cluster.local"
    made: dict[str, Any] = {
        f"service/{host}": {
            "host": host, "name": name, "namespace": "default",
            "ports": [{"number": 80, "name": "http", "protocol": "TCP", "app_protocol": "http", "target": 8080}],
        },
        f"endpoints/{host}": [one_endpoint(name, number, True) for number in range(endpoints)],
    }  # fmt: skip
    if rules:
        routes = [
            {
                "name": f"r{number}",
                "match": [{"uri": {"prefix": f"/area-{number}/"}, "headers": {"x-stage": {"exact": "live"}}}]
                if number % 3 == 0
                else [{"uri": {"prefix": f"/area-{number}/"}}],
                "route": [{"destination": {"host": name, "subset": "v1" if number % 2 else "v2"}}],
            }
            for number in range(ROUTES - 1)
        ]
        routes.append({"name": "rest", "route": [{"destination": {"host": name}}]})
        labels = [{"name": version, "labels": {"version": version}} for version in ("v1", "v2")]
        for kind, spec in (
            ("VirtualService", {"hosts": [name], "http": routes}),
            ("DestinationRule", {"host": name, "subsets": labels}),
        ):
            made[f"object/{kind}/default/{name}"] = {
                "apiVersion": "networking.istio.io/v1", "kind": kind,
                "metadata": {"name": name, "namespace": "default"}, "spec": spec,
            }  # fmt: skip
    return made


def one_endpoint(name: str, number: int, ready: bool) -> dict[str, Any]:
    return {
        "address": f"10.{number}.{hash_byte(name)}.{number + 1}", "port": 8080, "port_name": "http", "ready": ready,
        "labels": {"app": name, "version": "v1" if number % 2 else "v2"}, "namespace": "default",
    }  # fmt: skip


def hash_byte(name: str) -> int:
    return sum(name.encode()) % 250


class Mesh:
    """A sidecar's part of it: what it holds, and the tables of that."""

    def __init__(self, services: int, endpoints: int, rules: bool) -> None:
        self.names = [f"svc-{number:04d}" for number in range(services)]
        self.each = endpoints // services
        items: dict[str, Any] = {"namespace/default": {}}
        for name in self.names:
            items |= service(name, rules, self.each)
        self.line = json.dumps({"version": "1", "full": True, "set": items}).encode()
        self.holdings = Holdings(partial(build_world, loader=Loader()))
        self.cache = CompileCache()
        self.viewpoint = Viewpoint(Workload("default", "client"))
        self.version = 1

    def take(self, line: bytes) -> Tables:
        self.holdings.apply(line)
        return self.tables(self.cache)

    def tables(self, cache: CompileCache) -> Tables:
        world = self.holdings.world()
        return compile_tables(world.resources, world.snapshot, self.viewpoint, str(self.version), cache)

    def change(self, name: str, ready: bool) -> bytes:
        self.version += 1
        host = f"{name}.default.svc.cluster.local"
        endpoints = [one_endpoint(name, number, ready or number > 0) for number in range(self.each)]
        return json.dumps({"version": str(self.version), "set": {f"endpoints/{host}": endpoints}}).encode()


def took(work: Callable[[], object]) -> float:
    """Seconds of processor time."""
    began = time.process_time()
    work()
    return time.process_time() - began


def decide_us(tables: Tables, names: list[str], path: str, repeats: int = 40) -> float:
    """Microseconds for a decision, over requests to all of these hosts in turn; their heads are read beforehand."""
    arrival = Arrival("outbound")
    heads = [request(path, f"{name}.default.svc.cluster.local", arrival) for name in names]

    def loop(heads: list[Any] = heads, tables: Tables = tables) -> None:
        for head in heads:
            decide(tables, head)

    def nothing(heads: list[Any] = heads) -> None:
        for _ in heads:
            pass

    loop()  # what is looked up once for each host
    best = min(took(loop) for _ in range(repeats))
    return (best - min(took(nothing) for _ in range(5))) / len(heads) * 1e6


def request(path: str, host: str, arrival: Arrival) -> RequestHead:
    """A head as the proxy has read it."""
    parser = RequestParser()
    parser.feed(HEAD.format(path=path, host=host).encode())
    head = parser.read_head()
    assert head is not None
    head.arrival = arrival
    return head


def measure(services: int, endpoints: int) -> dict[str, float]:
    found: dict[str, float] = {}
    mesh = Mesh(services, endpoints, rules=True)
    found["first version: feed to world to tables, s"] = took(lambda: mesh.take(mesh.line))
    tables = mesh.tables(mesh.cache)
    found["compile anew, s"] = min(took(lambda: mesh.tables(CompileCache())) for _ in range(3))
    changes = []
    for number in range(20):
        line = mesh.change(mesh.names[number % len(mesh.names)], number % 2 == 0)
        changes.append(took(lambda line=line: mesh.take(line)) * 1e3)  # type: ignore[misc]
    found["one endpoint's change: feed to tables, median, ms"] = sorted(changes)[len(changes) // 2]
    for label, path in (("first", "/area-1/x?y=1"), ("last", "/else/x?y=1")):
        found[f"decide, {label} of {ROUTES} routes, us"] = decide_us(tables, mesh.names, path)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10_000)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    gc.collect()
    sizes = {"all": (options.services, options.endpoints), "a hundredth": (max(options.services // 100, 1), 100)}
    rows = {label: measure(*size) for label, size in sizes.items()}
    if options.output == "json":
        print(json.dumps(rows, indent=2))
        return 0
    few = rows["a hundredth"]
    goals = {"compile anew": COMPILE_S, "one endpoint's change": CHANGE_MS, "decide": DECIDE_US}
    print(
        f"{options.services} services with {ROUTES} routes each, {options.endpoints} endpoints; beside it a hundredth"
    )
    for name, value in rows["all"].items():
        goal = goals.get(name.partition(",")[0].partition(":")[0])
        told = "" if goal is None else f"  goal: {goal:g}: {'met' if value <= goal else 'missed'}"
        print(f"  {name:52} {value:8.2f} {few[name]:8.2f}{told}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
