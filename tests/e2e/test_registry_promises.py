"""What the registry promises, each with the real Consul or etcd behind a gate that the test can shut.

Removals are not held back; a source's age shows; what was known outlives the source, also on disk; when it is back it
is compared in full; most of a service does not go at one look; of several sources the first counts; control watches for
all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.push import Book, View
from fairlead.control.role_sources import PRECEDENCE
from fairlead.control.source_setup import consul_source, etcd_source
from fairlead.dns.message import A, wire_name
from fairlead.dns.records import ZoneOptions
from fairlead.dns.zone import Zone
from fairlead.mesh.update import Holdings, build_world
from fairlead.registry.hub import Registry
from fairlead.registry.keep import Keep
from fairlead.registry.model import Endpoint, Facts, Service, ServicePort, SourceStatus
from tests.e2e.roles import client, roles_in, until
from tests.servers import Consul, Etcd, consul, etcd

pytestmark = pytest.mark.asyncio
HOST = "web.default.svc.cluster.local"


class Gate:
    """A relay before a server: shut, it cuts what runs and refuses what comes."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        try:
            inner, outer = await asyncio.open_connection("127.0.0.1", self._to)
            self._open.add(outer)
            await asyncio.gather(self._pass(reader, outer), self._pass(inner, writer))
            self._open.discard(outer)
        except OSError:
            pass
        finally:
            writer.transport.abort()
            self._open.discard(writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.transport.abort()


class Mesh:
    """What control and DNS do with a registry, in one process: a book for sidecars, a zone for questions."""

    def __init__(self) -> None:
        self.registry = Registry(PRECEDENCE)
        self.book = Book("e")
        self.zone = Zone(ZoneOptions())
        self.sidecar = Holdings(build_world)
        self._news = asyncio.Event()
        self.registry.snapshot.subscribe(self._take)

    def _take(self, snapshot: Any) -> None:
        self.book.facts(snapshot)
        self.zone.update(snapshot)
        number = self.book.number_of(self.sidecar.version)
        message = self.book.difference(number, View(), View()) if number >= 0 else self.book.everything()
        if message is not None:
            self.sidecar.apply(message)

    def dns(self) -> set[str]:
        found = self.zone.lookup(wire_name(HOST), A, False)
        assert found is not None
        return {".".join(map(str, data)) for rrset in found.answer for data in rrset.rdata}

    def peers(self) -> set[str]:
        """The endpoints that a sidecar uses."""
        return {one.address for one in self.sidecar.world().snapshot.endpoints.get(HOST, ()) if one.ready}

    def status(self, name: str) -> SourceStatus:
        return self.registry.snapshot.value.sources.get(name) or SourceStatus(name)

    async def becomes(self, *last: int) -> None:
        wanted = {f"10.0.0.{number}" for number in last}

        async def is_so() -> bool:
            return self.dns() == wanted == self.peers()

        await until(f"{wanted}, now {self.dns()}", is_so)

    async def state(self, name: str, what: Callable[[SourceStatus], bool]) -> None:
        async def is_so() -> bool:
            return what(self.status(name))

        await until(f"another state of {name}", is_so)


@contextlib.asynccontextmanager
async def running(source: Any) -> AsyncIterator[None]:
    task = asyncio.ensure_future(source.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await source.close()


class Backed:
    """A registry's server behind a gate, and how to put instances in and take them out."""

    def __init__(self, name: str, server: Any) -> None:
        self.name = name
        self.server: Any = server
        self.gate = Gate(server.http_port if name == "consul" else server.client_port)

    def source(self, mesh: Mesh, data: Path | None = None) -> Any:
        url = f"http://127.0.0.1:{self.gate.port}"
        if self.name == "consul":
            made: Any = consul_source(url, mesh.registry, data, {})
        else:
            made = etcd_source(url, "/services/", mesh.registry, data, {})
        made._hold_s = 1.0
        return made

    async def put(self, *last: int) -> None:
        for number in last:
            if self.name == "consul":
                await self.server.register("web", f"web-{number}", 80, Address=f"10.0.0.{number}")
            else:
                await self.server.put(f"/services/web/{number}", json.dumps({"host": f"10.0.0.{number}", "port": 80}))

    async def forget_history(self) -> None:
        """Who was away can no longer hear what happened, only how it is now; Consul never tells more."""
        if self.name == "etcd":
            revision = await self.server.put("/other", "x")
            await self.server.call("/v3/kv/compaction", {"revision": str(revision), "physical": True})

    async def remove(self, *last: int) -> None:
        for number in last:
            if self.name == "consul":
                await self.server.put(f"/v1/agent/service/deregister/web-{number}")
            else:
                await self.server.delete(f"/services/web/{number}")


@pytest.fixture(params=["consul", "etcd"])
def which(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.asynccontextmanager
async def backed(which: str, folder: Path) -> AsyncIterator[Backed]:
    made: contextlib.AbstractAsyncContextManager[Consul | Etcd] = consul(folder) if which == "consul" else etcd(folder)
    async with made as server:
        found = Backed(which, server)
        await found.gate.open()
        try:
            yield found
        finally:
            await found.gate.shut()


async def test_a_removal_is_in_dns_and_on_its_way_to_sidecars_before_the_source_goes_on() -> None:
    mesh = Mesh()
    service = Service(HOST, "default", "web", (ServicePort(80),))
    two = tuple(Endpoint(f"10.0.0.{n}", 80) for n in (1, 2))
    mesh.registry.update("consul", Facts(services={HOST: service}, endpoints={HOST: two}))
    assert mesh.dns() == mesh.peers() == {"10.0.0.1", "10.0.0.2"}
    mesh.registry.update("consul", Facts(services={HOST: service}, endpoints={HOST: two[:1]}))
    assert mesh.dns() == mesh.peers() == {"10.0.0.1"}, "no timer, no turn of the loop lies between"
    mesh.registry.update("consul", Facts(services={HOST: service}))
    assert mesh.dns() == mesh.peers() == set(), "nor is the last one kept back"


async def test_removals_on_a_running_watch_are_never_held_however_many_they_are(which: str, tmp_path: Path) -> None:
    async with backed(which, tmp_path) as it:
        mesh = Mesh()
        await it.put(1, 2, 3, 4)
        async with running(it.source(mesh)):
            await mesh.becomes(1, 2, 3, 4)
            await it.remove(1, 2, 3)
            await mesh.becomes(4)
            assert mesh.status(it.name).error == ""


async def test_a_silent_source_is_stale_with_its_age_and_what_it_said_stays(which: str, tmp_path: Path) -> None:
    async with backed(which, tmp_path) as it:
        mesh = Mesh()
        await it.put(1, 2)
        async with running(it.source(mesh)):
            await mesh.becomes(1, 2)
            assert mesh.status(it.name).state == "live"
            confirmed_at = mesh.status(it.name).confirmed_at
            assert confirmed_at > 0
            await it.gate.shut()
            await mesh.state(it.name, lambda status: status.state == "stale")
            assert mesh.status(it.name).error
            assert confirmed_at <= mesh.status(it.name).confirmed_at, "its age is since then"
            await mesh.becomes(1, 2)
            await it.gate.open()
            await mesh.state(it.name, lambda status: status.state == "live")


async def test_when_a_source_is_back_it_is_compared_in_full(which: str, tmp_path: Path) -> None:
    async with backed(which, tmp_path) as it:
        mesh = Mesh()
        await it.put(1, 2, 3)
        async with running(it.source(mesh)):
            await mesh.becomes(1, 2, 3)
            await it.gate.shut()
            await mesh.state(it.name, lambda status: status.state == "stale")
            await it.remove(2)
            await it.put(4)
            assert mesh.dns() == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
            await it.gate.open()
            await mesh.becomes(1, 3, 4)


async def test_a_source_that_comes_back_with_little_is_looked_at_twice_and_that_is_told(
    which: str, tmp_path: Path
) -> None:
    async with backed(which, tmp_path) as it:
        mesh = Mesh()
        await it.put(1, 2, 3, 4)
        async with running(it.source(mesh)):
            await mesh.becomes(1, 2, 3, 4)
            await it.gate.shut()
            await mesh.state(it.name, lambda status: status.state == "stale")
            await it.remove(1, 2, 3)
            await it.forget_history()
            await it.gate.open()
            await mesh.state(it.name, lambda status: "missing" in status.error)
            assert mesh.dns() == mesh.peers() == {f"10.0.0.{n}" for n in (1, 2, 3, 4)}
            await mesh.becomes(4)
            await mesh.state(it.name, lambda status: status.state == "live" and not status.error)


async def on_disk(path: Path, endpoints: int) -> None:
    """A thread writes it, which goes on when the source is closed."""

    async def written() -> bool:
        found = Keep(path).load()
        return found is not None and sum(map(len, found[0].endpoints.values())) == endpoints

    await until(f"{path} to have {endpoints} endpoints", written)


async def test_a_cold_start_without_the_source_serves_what_is_on_disk_and_says_how_old_it_is(
    which: str, tmp_path: Path
) -> None:
    async with backed(which, tmp_path) as it:
        first = Mesh()
        await it.put(1, 2)
        async with running(it.source(first, tmp_path / "kept")):
            await first.becomes(1, 2)
            await on_disk(tmp_path / "kept" / f"source-{which}.json", 2)
        await it.gate.shut()
        again = Mesh()
        async with running(it.source(again, tmp_path / "kept")):
            assert again.dns() == again.peers() == {"10.0.0.1", "10.0.0.2"}
            await again.state(it.name, lambda status: status.state == "stale" and status.confirmed_at > 0)
            await it.put(3)
            await it.gate.open()
            await again.becomes(1, 2, 3)
            await again.state(it.name, lambda status: status.state == "live")


async def test_of_several_sources_the_first_defines_a_service_and_all_give_endpoints(
    which: str, tmp_path: Path
) -> None:
    async with backed(which, tmp_path) as it:
        mesh = Mesh()
        await it.put(1)
        async with running(it.source(mesh)):
            await mesh.becomes(1)
            own = Service(HOST, "default", "web", (ServicePort(8443, "tls"),), source="control")
            mesh.registry.update(
                "control", Facts(services={HOST: own}, endpoints={HOST: (Endpoint("10.0.0.9", 80, source="control"),)})
            )
            await mesh.becomes(1, 9)
            assert mesh.registry.snapshot.value.services[HOST].ports == (ServicePort(8443, "tls"),)
            mesh.registry.update("control", Facts())
            await mesh.becomes(1)
            assert mesh.registry.snapshot.value.services[HOST].source == it.name


async def test_control_shows_a_stale_source_with_its_age_as_a_metric_and_watches_once_for_all(tmp_path: Path) -> None:
    async with backed("consul", tmp_path) as it, roles_in(tmp_path) as roles, client() as session:
        await it.put(1)
        control = await roles.start(
            "control", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"),
            "--consul", f"127.0.0.1:{it.gate.port}",
        )  # fmt: skip
        url = f"http://{control.at['api']}"

        async def metric(name: str) -> float | None:
            async with session.get(f"{url}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            label = f'{name}{{source="consul"}} '
            return next((float(line.removeprefix(label)) for line in lines if line.startswith(label)), None)

        async def live() -> bool:
            return await metric("fairlead_source_live") == 1

        await until("Consul to be live", live)
        before = it.gate.connections
        for number in range(2):
            await roles.start(
                "dns",
                "--control",
                url,
                "--name",
                f"default/dns-{number}",
                "--listen",
                "127.0.0.1:0",
                "--upstream",
                "off",
            )
        assert it.gate.connections <= before + 1, "who is fed by control asks nothing of Consul"
        await it.gate.shut()

        async def stale() -> bool:
            return await metric("fairlead_source_live") == 0

        await until("Consul to be stale", stale)
        first = await metric("fairlead_source_age_seconds")
        assert first is not None

        async def older() -> bool:
            return (await metric("fairlead_source_age_seconds") or 0.0) > first

        await until("it to grow older", older)
        code, out, _ = await roles.command("status", "--control", url)
        assert code == 0
        assert "stale" in out
        await it.gate.open()
        await until("Consul to be live again", live)
