"""An hour without control, every sidecar restarted in it: `python bench/outage.py [--minutes 60] [--rate 20]`.

Control (embedded store, TLS), four instances of an app, two of its clients, an intruder and two gateways, each with a
sidecar of its own, all as processes; mutual TLS STRICT, NetworkPolicy and AuthorizationPolicy in force. Clients ask
through the gateways and the clients' sidecars, by Host and by the sidecar's DNS, HTTP/1.1, HTTP/2 and TCP; each request
is sent once. Then control is killed (-9), and while it is away every sidecar and gateway is restarted three times: by
hand-over, by kill -9 and by SIGTERM, each time from what it has on disk; an instance dies for good, another fails its
check for a while; a third of the sidecars has certificates that are due for renewal in the outage and end just after
it. Then control comes back: all catch up, and what is changed then is in force.

What "no request fails" means: every request that was sent was answered as it should be. No proxy can answer for a
client whose own sidecar or gateway was killed or ended, so its clients pause then, as an app would that is restarted
with it (for SIGTERM what is under way goes on; before kill -9 it is waited for); a byte stream cannot be repeated, so
TCP pauses for the instant in which an instance's sidecar is killed. HTTP pauses for no instance: the routes retry what
was reset (`retryOn: reset,...`), as their users would have set for requests that may be sent twice. All pauses are
counted.

Exit code 1: a request failed, something got through that policy forbids, or a process did not do as it should.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.outage_load import App, Asked, ask_http, ask_http2, ask_plain, ask_tcp
from bench.rolling import FAIRLEAD, RollingError, Shop, until

WEBS = ("web-1", "web-2", "web-3", "web-4")
CLIENTS = ("shop-1", "shop-2")
EDGES = ("edge-1", "edge-2")
INTRUDER = "intruder-1"
SIDECARS = (*WEBS, *CLIENTS, INTRUDER, *EDGES)
NUMBERS = dict(zip(SIDECARS, (1, 2, 3, 4, 21, 22, 41, 31, 32), strict=True))
SHORT = ("web-2", "shop-2", "edge-2")
"""Those whose certificates are due for renewal in the outage, and end just after it."""
DIES, FAILS = "web-4", "web-3"
"""An instance that ends for good in the outage; one whose app fails its check for a while."""
PODS = {"web": "8080 8081 8082", "shop": "", "intruder": "", "edge": ""}
KINDS = ("hand-over", "kill -9", "SIGTERM")
RULES = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: http2, port: 81, targetPort: 8081}
    - {name: tcp-echo, port: 7, targetPort: 8082}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: edge}
spec: {podSelector: {matchLabels: {app: edge}}, ingress: [{}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [shop, edge]}]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  rules:
    - from: [{source: {principals: [cluster.local/ns/default/sa/shop, cluster.local/ns/default/sa/edge]}}]
      to: [{operation: {paths: [/api/*]}}]
    - from: [{source: {principals: [cluster.local/ns/default/sa/shop]}}]
      to: [{operation: {ports: ["8082"]}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 2s, maxEjectionPercent: 75}
"""
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: %(name)s}
spec:
  selector: {edge: %(name)s}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, bind: %(bind)s, hosts: ["*"]}]
"""
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web%(name)s}
spec:
  hosts: [%(host)s]
  gateways: [%(at)s]
  http:
    - match: [{port: 81}]
      retries: {attempts: 3, retryOn: "reset,connect-failure,refused-stream,503"}
      headers: {response: {set: {x-generation: "%(generation)d"}}}
      route: [{destination: {host: web, port: {number: 81}}}]
    - retries: {attempts: 3, retryOn: "reset,connect-failure,refused-stream,503"}
      headers: {response: {set: {x-generation: "%(generation)d"}}}
      route: [{destination: {host: web, port: {number: 80}}}]
"""


class Mesh(Shop):
    """The processes: those of bench/rolling.py's shop in how they start and end."""

    def __init__(self, folder: Path, prefix: str) -> None:
        super().__init__(folder, prefix)
        self.tls = f"https://{prefix}.11:15012"
        self.apps: dict[str, App] = {}

    def address(self, workload: str) -> str:
        return f"{self.prefix}.{NUMBERS[workload]}"

    def manifests(self, generation: int) -> str:
        """All rules, with a Pod for each workload; `generation` is in the answers' header."""
        texts = [RULES]
        for name, host, at in (("", "web", "mesh"), ("-edge", '"*"', "edge-1, edge-2")):
            texts.append(ROUTE % {"name": name, "host": host, "at": at, "generation": generation})
        for workload in SIDECARS:
            app = workload.rpartition("-")[0]
            ports = ", ".join(f"{{containerPort: {port}}}" for port in PODS[app].split())
            labels = f"{{app: {app}, edge: {workload}}}" if app == "edge" else f"{{app: {app}}}"
            notes = f'{{fairlead.dev/address: {self.address(workload)}, fairlead.dev/mesh-port: "15006"}}'
            texts.append(
                f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {workload}, labels: {labels}, annotations: {notes}}}\n"
                f"spec: {{serviceAccountName: {app}, containers: [{{name: main, ports: [{ports}]}}]}}\n"
            )
        texts += [GATEWAY % {"name": name, "bind": self.address(name)} for name in EDGES]
        return "\n---\n".join(texts)

    async def start_control(self, ttl_s: float) -> None:
        await self.said_ready(await self.start(
            "control", FAIRLEAD, "control", "--listen", self.control.removeprefix("http://"), "--tls-listen",
            self.tls.removeprefix("https://"), "--tls-names", f"{self.prefix}.11", "--data-dir",
            str(self.folder / "control"), "--certificate-ttl", f"{ttl_s:.0f}s",
        ))  # fmt: skip

    async def begin_all(self, short_ttl_s: float) -> None:
        """Everything, ready; first those with short certificates, then control with its default for the others."""
        for workload in WEBS:
            self.apps[workload] = App(workload)
            await self.apps[workload].start(self.address(workload))
        await self.start_control(short_ttl_s)
        await self.fairlead("apply", "-f", "-", stdin=self.manifests(1))
        for account in PODS:
            token = self.folder / f"{account}.token"
            token.touch(mode=0o600)
            token.write_text(await self.fairlead("token", "create", "--service-account", account))
        await asyncio.gather(*(self.start_sidecar(workload) for workload in SHORT))
        await self.running["control"].end()
        await self.start_control(24 * 3600)
        await asyncio.gather(*(self.start_sidecar(workload) for workload in SIDECARS if workload not in SHORT))
        for workload in SIDECARS:
            await self.healthy(workload)
        await self.caught_up()

    def flags(self, workload: str) -> list[str]:
        at, app = self.address(workload), workload.rpartition("-")[0]
        ports = {"admin": 15000, "health": 15021, "metrics": 15090}
        more: list[str] = []
        if app != "edge":
            ports |= {"outbound": 15001, "inbound": 15006}
            more = ["--app-address", at]
        if app == "web":
            more += ["--readiness", f"http://{at}:8080/healthz?period=1s&failure=2"]
        if workload == "shop-1":  # the only one here with loopback addresses: they are those of the host
            more += ["--dns", f"{at}:15053", "--upstream", "off"]
        if workload == "shop-2":
            more += ["--listen", f"{at}:9007=web.default:7"]
        if app == "edge":
            more += ["--labels", f"app=edge,edge={workload}", "--service-account", "edge"]
        return [
            "--workload", f"default/{workload}", "--control", self.tls, "--ca", str(self.folder / "control" / "ca.pem"),
            "--address", at, "--token-file", str(self.folder / f"{app}.token"), "--data-dir",
            str(self.folder / workload), *more,
            *(part for name, port in ports.items() for part in (f"--{name}", f"{at}:{port}")),
        ]  # fmt: skip

    async def start_sidecar(self, workload: str) -> None:
        role = "gateway" if workload in EDGES else "sidecar"
        await self.said_ready(await self.start(workload, FAIRLEAD, role, *self.flags(workload)))

    async def kill(self, name: str) -> None:
        self.running[name].process.kill()
        await self.running[name].process.wait()

    async def admin(self, workload: str, path: str) -> Any:
        where = f"http://{self.address(workload)}:15000{path}"
        async with aiohttp.ClientSession() as session, session.get(where) as answer:
            return await answer.json(content_type=None)

    async def instances(self, workload: str) -> int:
        """How many endpoints of web:80 a sidecar knows."""
        for cluster in await self.admin(workload, "/clusters"):
            if cluster["name"].startswith("outbound|80|") and "|web." in cluster["name"]:
                return len(cluster["hosts"])
        return 0

    async def caught_up(self, without: tuple[str, ...] = ()) -> None:
        """Until control says that all but these are connected and have its latest version."""

        async def all_have() -> bool:
            told = json.loads(await self.fairlead("status", "-o", "json"))
            have = {one["workload"] for one in told["sidecars"] if one["taken"] == told["version"]}
            return have >= {name for name in SIDECARS if name not in without}

        await until("all sidecars to have control's latest version", all_have)


@dataclass
class Stream:
    """One kind of requests through one sidecar or gateway, at even distances."""

    name: str
    via: str
    ask: Callable[[Stream], Any]
    wanted: Asked = Asked.ANSWERED
    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    busy: bool = False
    pauses: int = 0
    paused_s: float = 0.0
    kept: Any = None
    """The connection that the next request may use."""
    generation: str = ""
    """As in the last answer."""


class Load:
    """All streams, `rate` requests a second together."""

    def __init__(self, mesh: Mesh, rate: float) -> None:
        at = mesh.address
        one, two = at("shop-1"), at("shop-2")
        dns = (one, 15053)
        self.streams = [
            *(Stream(f"{edge} HTTP/1.1", edge, ask_http((at(edge), 8080))) for edge in EDGES),
            *(Stream(f"{edge} HTTP/2", edge, ask_http2((at(edge), 8080))) for edge in EDGES),
            Stream("shop-1 HTTP/1.1 by DNS", "shop-1", ask_http(80, dns=dns)),
            Stream("shop-2 HTTP/1.1 by Host", "shop-2", ask_http((two, 15001))),
            Stream("shop-1 HTTP/2 by DNS", "shop-1", ask_http2(81, dns=dns)),
            Stream("shop-2 HTTP/2 by Host", "shop-2", ask_http2((two, 15001), port=":81")),
            Stream("shop-1 TCP by DNS", "shop-1", ask_tcp(7, dns=dns)),
            Stream("shop-2 TCP by port", "shop-2", ask_tcp((two, 9007))),
            Stream("intruder", INTRUDER, ask_http((at(INTRUDER), 15001)), Asked.DENIED),
            Stream("shop-2 where it may not", "shop-2", ask_http((two, 15001), path="/admin"), Asked.DENIED),
            Stream("by plain text", "web-1", ask_plain((at("web-1"), 15006)), Asked.DENIED),
        ]
        self._quiet: Counter[str] = Counter()
        self._pause_s = len(self.streams) / rate
        self._stop = False
        self._tasks = [
            asyncio.create_task(self._run(stream, n / len(self.streams))) for n, stream in enumerate(self.streams)
        ]

    async def _run(self, stream: Stream, phase: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + phase * self._pause_s
        while not self._stop:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + self._pause_s, loop.time())
            if self._quiet[stream.name]:
                continue
            stream.busy = True
            try:
                got, said = await stream.ask(stream)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                got, said = Asked.FAILED, repr(error)
            stream.busy = False
            if got is stream.wanted:
                stream.answered += 1
            else:
                stream.failures[said] += 1
                print(f"    {time.strftime('%H:%M:%S')} {stream.name}: {got.name} {said}", flush=True)

    @contextlib.asynccontextmanager
    async def quiet(self, chosen: Callable[[Stream], bool], wait: bool) -> AsyncIterator[None]:
        """No new request of these streams; `wait`: until those under way are answered."""
        streams = [stream for stream in self.streams if chosen(stream)]
        begun = time.monotonic()
        for stream in streams:
            self._quiet[stream.name] += 1
            stream.pauses += 1
        try:
            if wait:
                await until("requests to be answered", lambda: not any(stream.busy for stream in streams))
            yield
        finally:
            for stream in streams:
                self._quiet[stream.name] -= 1
                stream.paused_s += time.monotonic() - begun

    @property
    def failed(self) -> int:
        return sum(sum(stream.failures.values()) for stream in self.streams)

    @property
    def answered(self) -> int:
        return sum(stream.answered for stream in self.streams)

    async def end(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)
        for stream in self.streams:
            if stream.kept is not None:
                stream.kept.close()


class Outage:
    """What happens while control is away."""

    def __init__(self, mesh: Mesh, load: Load) -> None:
        self.mesh = mesh
        self.load = load
        self.done: Counter[str] = Counter()
        self.begun = time.monotonic()

    def say(self, text: str) -> None:
        load = self.load
        print(
            f"{time.monotonic() - self.begun:6.0f} s: {text}; {load.answered} as they should be, {load.failed} failed",
            flush=True,
        )

    async def restart(self, name: str, how: str) -> None:
        mesh, load = self.mesh, self.load
        own = (lambda stream: stream.via == name) if name not in WEBS else lambda _: False
        if how == "hand-over":
            before = mesh.running[name]
            await mesh.start_sidecar(name)
            await before.end(tell=False)
        elif how == "SIGTERM":
            async with load.quiet(own, wait=False):
                await mesh.running[name].end()
                await mesh.start_sidecar(name)
                await mesh.healthy(name)
        elif name in WEBS:
            async with load.quiet(lambda stream: "TCP" in stream.name, wait=True):
                await mesh.kill(name)
            answered = load.answered
            await until("requests while it is dead", lambda: load.answered > answered + 10)
            await mesh.start_sidecar(name)
        else:
            async with load.quiet(own, wait=True):
                await mesh.kill(name)
                await mesh.start_sidecar(name)
                await mesh.healthy(name)
        await mesh.healthy(name)
        self.done[how] += 1
        self.say(f"{name} by {how}")

    async def dies(self, name: str) -> None:
        """App and sidecar, for good. Byte streams that it carries cannot be saved by anybody."""
        async with self.load.quiet(lambda stream: "TCP" in stream.name, wait=True):
            await self.mesh.kill(name)
            await self.mesh.apps[name].close()
        self.done["an instance died"] += 1
        self.say(f"{name} died")

    async def fails(self, name: str, failing: bool) -> None:
        """Its own sidecar must find out, and peers must go elsewhere, though nobody is there to tell them."""
        app = self.mesh.apps[name]
        app.failing = failing
        if failing:
            await asyncio.sleep(4.0)  # two failures in a row of a check each second
            app.bothered = 0
        elif app.bothered:
            raise RollingError(f"{app.bothered} requests came to the app of {name} after its check had failed")
        self.done["an app failed its check" if failing else "and passed it again"] += 1
        self.say(f"the app of {name} {'fails' if failing else 'passes'} its check")

    def plan(self, names: tuple[str, ...], kinds: tuple[str, ...]) -> list[Callable[[], Any]]:
        """What is done, in order, at even distances."""
        steps: list[Callable[[], Any]] = []
        for number, how in enumerate(kinds):
            for name in names:
                if name != DIES or number == 0:
                    steps.append(lambda name=name, how=how: self.restart(name, how))  # type: ignore[misc]
            if number == 0:
                steps.append(lambda: self.dies(DIES))
        middle = len(steps) * 5 // 9
        steps.insert(middle, lambda: self.fails(FAILS, True))
        steps.insert(middle + 3, lambda: self.fails(FAILS, False))
        return steps

    async def run(self, seconds: float, steps: list[Callable[[], Any]]) -> None:
        end = self.begun + seconds
        for number, step in enumerate(steps):
            at = self.begun + seconds * (number + 0.5) / len(steps)
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            await step()
        await asyncio.sleep(max(0.0, end - time.monotonic()))


async def returned(outage: Outage, seconds: float) -> None:
    """Control comes back: all catch up, nobody loses endpoints, certificates are renewed, a change is in force."""
    mesh = outage.mesh
    before = {name: (await mesh.admin(name, "/certs"))["serial"] for name in SHORT}
    fewest: list[int] = []
    seen = asyncio.Event()

    async def look() -> None:
        while not seen.is_set():
            fewest.extend([await mesh.instances(name) for name in ("shop-1", "shop-2", "edge-1")])
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        await after_return(outage, seconds, before)
        seen.set()
        await looking
    finally:
        looking.cancel()
    if min(fewest) < len(WEBS) - 1:
        raise RollingError(f"a sidecar had only {min(fewest)} endpoints of {len(WEBS)} when control came back")
    outage.say(f"at least {min(fewest)} of {len(WEBS)} endpoints were known at any time")


async def after_return(outage: Outage, seconds: float, before: dict[str, str]) -> None:
    mesh, load = outage.mesh, outage.load
    begun = time.monotonic()
    await mesh.start_control(24 * 3600)
    await mesh.caught_up(without=(DIES,))
    outage.say(f"control is back, all have its version {time.monotonic() - begun:.1f} s after its start")
    await mesh.fairlead("apply", "-f", "-", stdin=mesh.manifests(2))
    answering = [stream for stream in load.streams if "HTTP" in stream.name]
    await until("a change to be in force", lambda: all(stream.generation == "2" for stream in answering))
    outage.say("what was changed after it is in force")

    async def renewed() -> bool:
        return not [name for name in SHORT if (await mesh.admin(name, "/certs"))["serial"] == before[name]]

    end = time.monotonic() + 70  # a certificate's next try is at most a minute away
    while not await renewed():
        if time.monotonic() > end:
            raise RollingError("certificates were not renewed after control was back")
        await asyncio.sleep(0.5)
    outage.say("certificates that were due are renewed")
    await asyncio.sleep(seconds)


async def run(
    seconds: float, folder: Path, rate: float = 20.0, prefix: str = "127.0.5",
    names: tuple[str, ...] = SIDECARS, kinds: tuple[str, ...] = KINDS, after_s: float = 60.0,
) -> Load:  # fmt: skip
    """The whole of it; raises RollingError where a process did not do as it should."""
    mesh = Mesh(folder, prefix)
    try:
        await mesh.begin_all(seconds * 1.1 + 60)
        load = Load(mesh, rate)
        outage = Outage(mesh, load)
        try:
            await until("traffic", lambda: all(stream.answered > 2 for stream in load.streams) or load.failed > 0)
            await mesh.kill("control")
            outage.begun = time.monotonic()
            outage.say("control was killed")
            await outage.run(seconds, outage.plan(names, kinds))
            for name in SHORT:
                told = await mesh.admin(name, "/certs")
                print(f"    the certificate of {name} ends in {told['seconds_left']:.0f} s", flush=True)
            await returned(outage, after_s)
        finally:
            await load.end()
        print(dict(outage.done))
        return load
    finally:
        await mesh.stop()
        for app in mesh.apps.values():
            await app.close()


def told(load: Load) -> str:
    """A line a stream."""
    lines = [f"{'stream':26} {'as wanted':>9} {'failed':>6} {'pauses':>6} {'paused s':>8}"]
    for stream in load.streams:
        failed = sum(stream.failures.values())
        lines.append(
            f"{stream.name:26} {stream.answered:9} {failed:6} {stream.pauses:6} {stream.paused_s:8.1f}"
            + "".join(f"\n    {count:5} {why}" for why, count in stream.failures.most_common(5))
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second, all streams together")
    parser.add_argument("--prefix", default="127.0.5", help="first three numbers of the addresses that are used")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fairlead-outage-"))
    try:
        load = uvloop.run(run(options.minutes * 60, folder, options.rate, options.prefix))
    except RollingError as error:
        print(f"{error}; logs: {folder}", file=sys.stderr)
        return 1
    print(told(load))
    print(
        f"{load.answered + load.failed} requests, {load.failed} failed" + (f"; logs: {folder}" if load.failed else "")
    )
    if not load.failed:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if load.failed else 0


if __name__ == "__main__":
    sys.exit(main())
