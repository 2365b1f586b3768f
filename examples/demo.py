"""A mesh on this machine, shown at work: `make demo`, or `make demo ONCE=1` to end by itself.

Starts control, a DNS server and the example shop, each part a process of its own, with a sidecar beside each app, and
sends real traffic through them. Every number printed is counted as it happens. Exit code 0 only if everything that
is claimed was seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import dnslib

HERE = Path(__file__).resolve().parent
FAIRLEAD = str(Path(sys.executable).with_name("fairlead"))
CERTIFICATE_TTL_S = 30
WORKLOADS = {
    # workload: (address, service account, the app's command line)
    "front-1": ("127.0.1.1", "front", ["front.py", "--dns", "127.0.1.1:15053"]),
    "catalogue-v1-1": ("127.0.1.2", "catalogue", ["catalogue.py", "--name", "catalogue-v1-1", "--version", "v1"]),
    "catalogue-v1-2": ("127.0.1.3", "catalogue", ["catalogue.py", "--name", "catalogue-v1-2", "--version", "v1"]),
    "catalogue-v2-1": ("127.0.1.4", "catalogue", ["catalogue.py", "--name", "catalogue-v2-1", "--version", "v2"]),
    "reviews-1": ("127.0.1.5", "reviews", ["reviews.py", "--name", "reviews-1"]),
    "intruder-1": ("127.0.1.6", "intruder", None),
}
DNS = ("127.0.1.9", 15053)
FRONT = "http://127.0.1.1:8080"
COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


class FailedError(Exception):
    """The demo did not see what it says; the message is for people."""


def say(text: str, style: str = "") -> None:
    print(f"\033[{style}m{text}\033[0m" if style and COLOUR else text, flush=True)


def step(title: str, why: str) -> None:
    say(f"\n== {title}", "1;36")
    say(f"   {why}", "2")


def shown(text: str) -> None:
    for line in text.rstrip().splitlines():
        say(f"   {line}")


def check(condition: bool, claim: str) -> None:
    if not condition:
        raise FailedError(claim)
    say(f"   ok: {claim}", "32")


async def until(what: str, ready: Callable[[], Awaitable[bool]], deadline_s: float = 30.0) -> None:
    """Wait until `ready`, or fail saying what was waited for."""
    end = time.monotonic() + deadline_s
    while not await ready():
        if time.monotonic() > end:
            raise FailedError(f"waited {deadline_s:.0f} s for {what}")
        await asyncio.sleep(0.05)


class Mesh:
    """The processes of the demo, and how to ask them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[tuple[str, asyncio.subprocess.Process]] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.control = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def start(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.log").open("wb")
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.processes.append((name, process))

    def dead(self) -> str | None:
        for name, process in self.processes:
            if process.returncode is not None:
                tail = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-15:]
                return f"{name} ended with {process.returncode}:\n" + "\n".join(tail)
        return None

    async def fairlead(self, *arguments: str) -> str:
        """Run one command to its end; its output. Fails with what it said."""
        process = await asyncio.create_subprocess_exec(
            FAIRLEAD, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        if process.returncode:
            raise FailedError(f"fairlead {' '.join(arguments)}: {err.decode().strip() or out.decode().strip()}")
        return out.decode()

    async def answers(self, url: str) -> bool:
        if (dead := self.dead()) is not None:
            raise FailedError(dead)
        try:
            async with self.session.get(url) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def get(self, url: str, **headers: str) -> tuple[int, dict[str, str], str]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(url, headers=sent) as answer:
            return answer.status, dict(answer.headers), await answer.text()

    async def stop(self) -> None:
        await self.session.close()
        for _, process in reversed(self.processes):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for _, process in self.processes:
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()


@contextlib.asynccontextmanager
async def mesh() -> AsyncIterator[Mesh]:
    folder = Path(tempfile.mkdtemp(prefix="fairlead-demo-"))
    made = Mesh(folder)
    try:
        yield made
    except BaseException:
        await made.stop()
        say(f"logs of all processes: {folder}", "2")
        raise
    await made.stop()
    shutil.rmtree(folder, ignore_errors=True)


async def start(mesh: Mesh) -> None:
    step("Starting", "control on its embedded store, a DNS server, five apps, and a sidecar beside each workload")
    await mesh.start(
        "control", FAIRLEAD, "control", "--listen", mesh.control.removeprefix("http://"), "--data-dir",
        str(mesh.folder / "control"), "--certificate-ttl", f"{CERTIFICATE_TTL_S}s",
    )  # fmt: skip
    await until("control", lambda: mesh.answers(f"{mesh.control}/readyz"))
    shown(await mesh.fairlead("apply", "-f", str(HERE / "manifests"), "--control", mesh.control))
    await mesh.start("dns", FAIRLEAD, "dns", "--control", mesh.control, "--listen", f"{DNS[0]}:{DNS[1]}",
                     "--health", f"{DNS[0]}:15021", "--upstream", "off")  # fmt: skip
    for workload, (address, account, app) in WORKLOADS.items():
        token = mesh.folder / f"{workload}.token"
        token.touch(mode=0o600)
        token.write_text(
            await mesh.fairlead("token", "create", "--service-account", account, "--control", mesh.control)
        )
        if app:
            await mesh.start(f"app-{workload}", sys.executable, "-P", str(HERE / "apps" / app[0]), *app[1:],
                             "--listen", f"{address}:8080")  # fmt: skip
        ports = {"outbound": 15001, "inbound": 15006, "admin": 15000, "health": 15021, "metrics": 15090}
        flags = [part for name, port in ports.items() for part in (f"--{name}", f"{address}:{port}")]
        if workload == "front-1":
            flags += ["--dns", f"{address}:15053", "--upstream", "off"]
        await mesh.start(
            f"sidecar-{workload}", FAIRLEAD, "sidecar", "--workload", f"default/{workload}", "--control", mesh.control,
            "--token-file", str(token), "--app-address", address, "--address", address,
            "--data-dir", str(mesh.folder / workload), *flags,
        )  # fmt: skip
    await until("the DNS server", lambda: mesh.answers(f"http://{DNS[0]}:15021/healthz/ready"))
    for workload, (address, _, app) in WORKLOADS.items():
        await until(f"{workload}'s sidecar", lambda a=address: mesh.answers(f"http://{a}:15021/healthz/ready"))  # type: ignore[misc]
        if app:
            await until(f"{workload}'s app", lambda a=address: listening(a, 8080))  # type: ignore[misc]
    say(f"   {len(mesh.processes)} processes run; each sidecar has its own certificate")


async def listening(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def look_up(server: tuple[str, int], name: str, kind: str) -> dnslib.DNSRecord:
    return dnslib.DNSRecord.parse(dnslib.DNSRecord.question(name, kind).send(*server, timeout=3))


async def names(mesh: Mesh) -> None:
    step(
        "Names", "services answer for svc.cluster.local; a sidecar's own DNS leads to a loopback address it listens on"
    )
    catalogue = "catalogue.default.svc.cluster.local"
    for server, name, kind in (
        (DNS, catalogue, "A"),
        (DNS, f"_http._tcp.{catalogue}", "SRV"),
        (("127.0.1.1", 15053), catalogue, "A"),
        (DNS, "nobody.default.svc.cluster.local", "A"),
    ):
        answer = await asyncio.to_thread(look_up, server, name, kind)
        found = ", ".join(str(record.rdata) for record in answer.rr) or dnslib.RCODE[answer.header.rcode]
        shown(f"{server[0]}  {kind:3} {name}\n      {found}")
        if server == DNS and name == catalogue:
            check({str(r.rdata) for r in answer.rr} == {"127.0.1.2", "127.0.1.3", "127.0.1.4"}, "all three instances")
        elif name == catalogue:
            check(str(answer.rr[0].rdata).startswith("127."), "the sidecar's own address for the service")
        elif kind == "A":
            check(dnslib.RCODE[answer.header.rcode] == "NXDOMAIN", "a name that nobody has")


async def canary(mesh: Mesh) -> None:
    step("Canary", "the VirtualService sends nine of ten requests to v1 and one to v2, whoever asks")
    seen: Counter[str] = Counter()
    for _ in range(500):
        status, _, body = await mesh.get(f"{FRONT}/catalogue/items")
        seen[json.loads(body)["version"] if status == 200 else f"status {status}"] += 1
    shown(f"500 requests through the front end: {dict(seen)}")
    check(set(seen) == {"v1", "v2"}, "every request was answered")
    check(20 <= seen["v2"] <= 85, f"v2 got {seen['v2'] / 5:.1f} % (10 % asked for)")
    step("Testers", "who sends `x-tester: yes` always gets v2")
    versions = {
        json.loads((await mesh.get(f"{FRONT}/catalogue/items", x_tester="yes"))[2])["version"] for _ in range(50)
    }
    check(versions == {"v2"}, "50 of 50 requests with the header went to v2")


async def ejection(mesh: Mesh) -> None:
    step(
        "A failing instance",
        "three failures in a row take it out for two seconds; outlierDetection of the DestinationRule",
    )
    broken = "catalogue-v1-2"

    async def switch(state: str) -> None:
        async with mesh.session.post(f"http://{WORKLOADS[broken][0]}:8080/failing/{state}") as answer:
            await answer.read()

    async def ask(times: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        for _ in range(times):
            status, _, body = await mesh.get(f"{FRONT}/catalogue/items")
            seen[f"{json.loads(body)['instance']} {status}"] += 1
        return seen

    await switch("on")
    before = await ask(60)
    shown(f"60 requests from the moment it breaks: {dict(sorted(before.items()))}")
    check(before[f"{broken} 500"] == 3, "it was taken out after its third failure")
    after = await ask(60)
    shown(f"60 requests after that: {dict(sorted(after.items()))}")
    check(not any(key.endswith(" 500") for key in after), "no request failed while it was out")
    await switch("off")

    async def back() -> bool:
        return (await ask(10))[f"{broken} 200"] > 0

    begun = time.monotonic()
    await until(f"{broken} to come back", back)
    check(True, f"it is back {time.monotonic() - begun:.1f} s after it was repaired")


async def limit(mesh: Mesh) -> None:
    step("A limit", "the DestinationRule allows five requests to reviews at once; one more is refused, with the reason")
    answers = await asyncio.gather(*(mesh.get(f"{FRONT}/reviews/1") for _ in range(40)))
    seen = Counter(f"{status} {headers.get('x-fairlead-reason', '')}".strip() for status, headers, _ in answers)
    shown(f"40 requests at once: {dict(seen)}")
    check(
        seen["200"] >= 5 and seen["503 FL-OVERFLOW"] == 40 - seen["200"],
        "the rest was refused, and nothing else failed",
    )
    shown(next(body for status, _, body in answers if status == 503))


async def intruder(mesh: Mesh) -> None:
    step("The intruder", "it has a sidecar and a certificate of the mesh; the NetworkPolicy does not name it")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", str(HERE / "apps" / "intruder.py"), "--proxy", "http://127.0.1.6:15001",
        "http://catalogue.default.svc.cluster.local:8080/items", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said = (await process.communicate())[0].decode()
    shown(said)
    check(said.startswith("403 FL-DENIED"), "refused with 403 FL-DENIED")
    check("default/catalogue-from-front" in said, "the refusal names the policy")
    reader, writer = await asyncio.open_connection("127.0.1.2", 15006)
    writer.write(b"GET /items HTTP/1.1\r\nhost: catalogue.default.svc.cluster.local:8080\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        plain = await asyncio.wait_for(reader.read(), 10)
        check(b"200" not in plain[:20], "without mutual TLS there is no talking to the catalogue's sidecar at all")
    writer.close()


async def renewal(mesh: Mesh) -> None:
    step("Certificates", f"they live {CERTIFICATE_TTL_S} s in this demo, and are renewed under traffic")

    async def serial() -> str:
        found: dict[str, Any] = json.loads((await mesh.get("http://127.0.1.2:15000/certs"))[2])
        return str(found["serial"])

    first, count, failed, begun = await serial(), 0, 0, time.monotonic()
    last = first
    while last == first:
        if time.monotonic() - begun > CERTIFICATE_TTL_S + 10:
            raise FailedError("the certificate was not renewed in its life")
        for _ in range(20):
            status, _, _ = await mesh.get(f"{FRONT}/catalogue/items")
            count += 1
            failed += status != 200
        last = await serial()
    for _ in range(50):
        status, _, _ = await mesh.get(f"{FRONT}/catalogue/items")
        count += 1
        failed += status != 200
    shown(f"catalogue-v1-1: serial {first} became {last}")
    check(failed == 0, f"{count} requests meanwhile, {failed} failed")


async def explain(mesh: Mesh) -> None:
    step("Why?", "the same decision that the sidecar makes, explained")
    url = "http://catalogue.default.svc.cluster.local:8080/items"
    shown(await mesh.fairlead("explain", "--control", mesh.control, "--from", "default/front-1", "GET", url))
    denied = json.loads(
        await mesh.fairlead(
            "explain", "--control", mesh.control, "--from", "default/intruder-1", "-o", "json", "GET", url
        )
    )
    check(
        denied["verdict"] == "denied" and "catalogue-from-front" in str(denied["policy"]),
        "explain refuses the intruder, too",
    )


def farewell(mesh: Mesh) -> None:
    step("Your turn", "the mesh stays up until Ctrl-C")
    shown(
        f"curl -i {FRONT}/catalogue/items\n"
        f"curl -i -H 'x-tester: yes' {FRONT}/catalogue/items\n"
        f"fairlead status --control {mesh.control}\n"
        f"fairlead get virtualservices --control {mesh.control}\n"
        f"kubectl --server {mesh.control} get pods,services,virtualservices -o wide\n"
        f"kubectl --server {mesh.control} edit virtualservice catalogue   # make the canary 50/50, curl again\n"
        f"kubectl --server {mesh.control} delete networkpolicy catalogue-from-front   # let the intruder in\n"
        f"dig @{DNS[0]} -p {DNS[1]} _http._tcp.catalogue.default.svc.cluster.local SRV\n"
        f"logs: {mesh.folder}"
    )


async def main() -> int:
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    begun = time.monotonic()
    try:
        async with mesh() as made:
            acts = asyncio.ensure_future(play(made))
            await asyncio.wait({acts, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
            if not acts.done():
                acts.cancel()
                return 130
            acts.result()
            say(f"\nAll of it was seen to work, in {time.monotonic() - begun:.0f} s.", "1;32")
            if not os.environ.get("ONCE"):
                farewell(made)
                await stop.wait()
        return 0
    except FailedError as error:
        say(f"\nThe demo failed: {error}", "1;31")
        return 1


async def play(made: Mesh) -> None:
    for act in (start, names, canary, ejection, limit, intruder, renewal, explain):
        await act(made)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
