"""Control with 10,000 services and 100,000 endpoints: memory, the time of a start, what a change costs.

Run as `python bench/control_scale.py [--services 10000] [--endpoints 10] [--pods]`. The store is written first (a row
for each Service and EndpointSlice, and with --pods for each endpoint's Pod), then control is started with it, as a
process of its own (core 1), and asked over its API. Ten sidecars follow its feed meanwhile: five that ask for
everything, five for what they use.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):
    sys.path.append(str(ROOT / "build" / "view"))

import aiohttp  # noqa: E402
import uvloop  # noqa: E402

from bench import machine  # noqa: E402
from bench.feed import ROUTES, SLICES, Mesh, Sidecar, address, route, service, slice_of  # noqa: E402
from fairlead.control.store import Key, Write  # noqa: E402
from fairlead.control.store_sqlite import SqliteStore  # noqa: E402

GROUP = 2_000
CHANGES = 20


def objects(services: int, endpoints: int, pods: bool) -> Iterator[Write]:
    for number in range(services):
        ends = [address(number, one) for one in range(endpoints)]
        listed = slice_of(number, ends)
        for one, entry in enumerate(listed["endpoints"]) if pods else ():
            entry["targetRef"] = {"kind": "Pod", "namespace": "default", "name": f"svc{number}-{one}"}
        kinds = [("services", service(number)), ("endpointslices.discovery.k8s.io", listed)]
        kinds += [("pods", pod(number, one)) for one in range(endpoints)] if pods else []
        for resource, body in kinds:
            key = Key(resource, "default", body["metadata"]["name"])
            yield Write(key, {name: part for name, part in body.items() if name not in ("apiVersion", "kind")})


def pod(number: int, one: int) -> dict[str, Any]:
    meta = {"name": f"svc{number}-{one}", "namespace": "default", "labels": {"app": f"svc{number}"}}
    spec = {"containers": [{"name": "app", "ports": [{"containerPort": 8080}]}]}
    return {"kind": "Pod", "metadata": meta, "spec": spec, "status": {"podIP": address(number, one)}}


async def write_store(folder: Path, options: argparse.Namespace) -> int:
    store = await SqliteStore.open(folder / "control" / "store.db")
    await store.write([Write(Key("namespaces", "", "default"), {"metadata": {"name": "default"}})])
    group: list[Write] = []
    count = 0
    for write in objects(options.services, options.endpoints, options.pods):
        group.append(write)
        count += 1
        if len(group) == GROUP:
            await store.write(group)
            group = []
    await store.write(group)
    await store.close()
    return count


async def measure(options: argparse.Namespace, folder: Path) -> None:
    count = await write_store(folder, options)
    mesh = Mesh(folder, machine.free_ports(1))
    try:
        await ask(mesh, count)
    finally:
        if mesh.process is not None:
            mesh.process.terminate()
            await mesh.process.wait()


async def ask(mesh: Mesh, count: int) -> None:
    begun = time.perf_counter()
    await mesh.start_control()
    print(f"{count} objects: control is ready after {time.perf_counter() - begun:.1f} s (goal 10), with "
          f"{machine.memory_mb([mesh.process.pid]):.0f} MB (goal 1,000)", flush=True)  # fmt: skip
    async with aiohttp.ClientSession() as mesh.session:
        await mesh.put(ROUTES, route("first"), create=True)
        for kind, number in (("all", 0), ("used", 5)):
            for one in mesh.sidecars:
                one.close()
            mesh.sidecars = [Sidecar(number + one, mesh.port, mesh.heard, kind) for one in range(5)]
            for one in mesh.sidecars:
                await one.connect()
            await mesh.until_all(f"to-{kind}", mesh.put(ROUTES, route(f"to-{kind}")))
            held = statistics.median(len(one.holdings.kept()()) for one in mesh.sidecars)
            print(f"a sidecar that asks for {kind} endpoints is sent {held / 1e6:.1f} MB", flush=True)
        took = []
        for number in range(CHANGES):
            body = slice_of(7, [f"10.251.0.{number}"])
            cpu = mesh.cpu_s()
            await mesh.put(SLICES, body)
            await mesh.until_all(f"after-{number}-", mesh.put(ROUTES, route(f"after-{number}-")))
            took.append(mesh.cpu_s() - cpu)
        print(f"an endpoint's change and a route's cost {statistics.median(took) * 1000:.0f} ms of processor together; "
              f"then control has {machine.memory_mb([mesh.process.pid]):.0f} MB", flush=True)  # fmt: skip
        async with mesh.session.get(f"{mesh.url}/fairlead/v1/status") as answer:
            print(f"items of the feed: {json.loads(await answer.text())['items']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--endpoints", type=int, default=10, help="of each service")
    parser.add_argument("--pods", action="store_true", help="with a Pod behind each endpoint")
    options = parser.parse_args()
    os.sched_setaffinity(0, {0})
    folder = Path(tempfile.mkdtemp(prefix="fairlead-control-"))
    try:
        uvloop.run(measure(options, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
