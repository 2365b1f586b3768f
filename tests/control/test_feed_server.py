"""The feed's server: who leaves is taken out at once, and told when everybody else runs a version without it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fairlead.control import feed_server, scopes, views
from fairlead.control.feed_server import FeedServer, at_least
from fairlead.control.push import Book
from fairlead.control.views import TABLES, Views
from fairlead.registry.digest import item_digest
from fairlead.registry.model import Endpoint, Service, ServicePort, Workload
from fairlead.registry.snapshot import Snapshot

DEADLINE_S = 10.0


def test_a_version_is_at_least_another_of_the_same_run_only() -> None:
    assert at_least("e.3", "e.3")
    assert at_least("e.10", "e.9")
    assert not at_least("e.9", "e.10")
    assert not at_least("f.10", "e.9")
    assert not at_least("", "e.1")


class Served:
    """A feed server whose book loses an item for each workload that leaves."""

    def __init__(self, views: Views | None = None) -> None:
        self.book = Book("e")
        self.book.objects({"object/x/default/a": {"n": 1}})
        self.feed = FeedServer(self.book, lambda *_: None, self.changed, views, left=self.left)
        self.away: list[str] = []
        self.url = ""
        self.session: aiohttp.ClientSession
        self.streams: list[aiohttp.ClientResponse] = []

    def changed(self) -> None:
        gone = {f"object/gone/default/{m.workload}": {"n": 1} for m in self.feed.members.values() if m.leaving}
        if self.book.objects(gone):
            self.feed.publish()

    def left(self, workload: str) -> None:
        self.away.append(workload)

    async def connect(self, name: str, **more: str) -> aiohttp.ClientResponse:
        """A member that runs nothing yet; its first version is read."""
        query = {"role": "sidecar", "namespace": "default", "workload": name, "meshPort": "1", "instance": name, **more}
        answer = await self.session.get(f"{self.url}/fairlead/v1/feed", params=query)
        self.streams.append(answer)
        while b'"version"' not in await answer.content.readline():
            pass
        return answer

    async def ack(self, name: str, version: str, accepted: bool = True, **more: Any) -> None:
        body = {"namespace": "default", "workload": name, "version": version, "accepted": accepted, "instance": name}
        async with self.session.post(f"{self.url}/fairlead/v1/feed/ack", json={**body, **more}) as answer:
            assert answer.status == 204

    async def leave(self, name: str, timeout_s: float = DEADLINE_S, **more: str) -> Any:
        body = {"namespace": "default", "workload": name, "timeout": timeout_s, "instance": name, **more}
        async with self.session.post(f"{self.url}/fairlead/v1/feed/leave", json=body) as answer:
            assert answer.status == 200
            return await answer.json()


@contextlib.asynccontextmanager
async def served(views: Views | None = None) -> AsyncIterator[Served]:
    made = Served(views)
    app = web.Application()
    app.add_routes(made.feed.routes())
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            made.session = session
            async with asyncio.timeout(DEADLINE_S):
                yield made
            for stream in made.streams:
                stream.close()
    finally:
        made.feed.close()
        await runner.cleanup()


@pytest.mark.asyncio
async def test_the_answer_to_a_farewell_comes_when_the_last_of_the_others_runs_a_version_without_it() -> None:
    async with served() as control:
        streams = [await control.connect(name) for name in ("a", "b", "c")]
        for name in ("a", "b", "c"):
            await control.ack(name, "e.1")
        farewell = asyncio.create_task(control.leave("a"))
        for stream in streams[1:]:
            assert b'"e.2"' in await stream.content.readline()
        await control.ack("b", "e.2")
        assert not farewell.done()
        await control.ack("c", "e.2")
        told = await farewell
        assert (told["version"], told["others"], told["pending"], told["refusing"]) == ("e.2", 2, [], [])
        assert told["waited_s"] > 0


@pytest.mark.asyncio
async def test_of_what_a_refusal_says_so_much_is_kept_as_is_read() -> None:
    async with served() as control:
        await control.connect("a")
        body = {"namespace": "default", "workload": "a", "instance": "a", "version": "e.1", "accepted": False}
        reasons = ["x" * 2000] * 100
        async with control.session.post(f"{control.url}/fairlead/v1/feed/ack", json={**body, "reasons": reasons}) as it:
            assert it.status == 204
        kept = control.feed.members["sidecar/default/a"].reasons
        assert len(kept) == 64 and {len(one) for one in kept} == {500}
        async with control.session.post(f"{control.url}/fairlead/v1/feed/ack", json={**body, "reasons": "no"}) as it:
            assert it.status == 400


@pytest.mark.asyncio
async def test_who_refuses_is_named_and_not_waited_for_and_who_goes_is_not_either() -> None:
    async with served() as control:
        _a, b, c = [await control.connect(name) for name in ("a", "b", "c")]
        farewell = asyncio.create_task(control.leave("a"))
        await b.content.readline()
        await control.ack("b", "e.2", accepted=False, reasons=["no"])
        assert not farewell.done()
        c.close()
        assert (await farewell)["refusing"] == ["sidecar/default/b"]


@pytest.mark.asyncio
async def test_after_the_time_given_the_answer_names_those_who_do_not_know_yet() -> None:
    async with served() as control:
        await control.connect("a")
        await control.connect("b")
        told = await control.leave("a", 0.05)
        assert told["pending"] == ["sidecar/default/b"]
        assert control.feed.members["sidecar/default/a"].leaving


@pytest.mark.asyncio
async def test_one_that_has_a_successor_takes_nothing_out() -> None:
    async with served() as control:
        await control.connect("a")
        await control.connect("a", instance="successor")
        told = await control.leave("a")
        assert told["superseded"]
        assert not control.feed.members["sidecar/default/a"].leaving


@pytest.mark.asyncio
async def test_one_that_has_handed_over_is_waited_for_and_is_not_the_workloads_sidecar() -> None:
    async with served() as control:
        await control.connect("a")
        await control.connect("b")
        await control.connect("b", instance="old", handedOver="1")
        assert control.feed.members["sidecar/default/b"].instance == "b"
        farewell = asyncio.create_task(control.leave("a"))
        await control.ack("b", "e.2")
        assert not farewell.done()
        await control.ack("b", "e.2", instance="old")
        assert (await farewell)["pending"] == []


@pytest.mark.asyncio
async def test_when_a_second_sidecar_of_a_workload_ends_the_first_one_is_its_sidecar_again() -> None:
    async with served() as control:
        await control.connect("a")
        await control.ack("a", "e.1")
        second = await control.connect("a", instance="another")
        assert control.feed.members["sidecar/default/a"].instance == "another"
        left = control.feed.hear()
        left.clear()
        second.close()
        await left.wait()
        member = control.feed.members["sidecar/default/a"]
        assert (member.instance, member.taken, member.leaving) == ("a", "e.1", False)
        await control.ack("a", "e.1")


@pytest.mark.asyncio
async def test_who_leaves_while_its_stream_is_away_is_told_of_to_the_registry() -> None:
    async with served() as control:
        await control.leave("a")
        assert control.away == ["default/a"]


@pytest.mark.asyncio
async def test_one_whose_app_does_not_listen_yet_is_out_until_it_says_so_itself() -> None:
    async with served() as control:
        await control.connect("a", leaving="1")
        assert control.feed.members["sidecar/default/a"].leaving
        for instance, status in (("other", 409), ("a", 200)):
            body = {"namespace": "default", "workload": "a", "instance": instance}
            async with control.session.post(f"{control.url}/fairlead/v1/feed/enter", json=body) as answer:
                assert answer.status == status
        assert not control.feed.members["sidecar/default/a"].leaving


@pytest.mark.asyncio
async def test_what_one_that_has_handed_over_says_of_the_app_is_not_what_its_successor_says() -> None:
    async with served() as control:
        await control.connect("a", instance="new", ready="1")
        await control.connect("a", instance="old", handedOver="1", ready="1")
        member = control.feed.members["sidecar/default/a"]
        for instance, status, ready in (("old", 204, True), ("gone", 409, True), ("new", 204, False)):
            body = {"namespace": "default", "workload": "a", "instance": instance, "ready": False, "why": "500"}
            async with control.session.post(f"{control.url}/fairlead/v1/feed/health", json=body) as answer:
                assert answer.status == status
            assert member.ready is ready
        assert member.why == "500"


@pytest.mark.asyncio
async def test_a_farewell_that_cannot_be_read_is_refused() -> None:
    async with served() as control:
        for body in (b"{", b"{}", b'{"namespace":"a","workload":"b","timeout":"soon"}'):
            async with control.session.post(f"{control.url}/fairlead/v1/feed/leave", data=body) as answer:
                assert answer.status == 400


def answers(**more: str) -> dict[str, str]:
    return {"says": "1", "schema": "other", "items": "object,service,endpoints,workload,checks,namespace", **more}


async def asked(stream: aiohttp.ClientResponse) -> list[str]:
    while not (line := await stream.content.readline()).strip():
        pass
    found: list[str] = json.loads(line)["ask"]
    return found


async def message(stream: aiohttp.ClientResponse) -> dict[str, Any]:
    while not (line := await stream.content.readline()).strip():
        pass
    found: dict[str, Any] = json.loads(line)
    return found


async def open_stream(control: Served, name: str, **more: str) -> aiohttp.ClientResponse:
    query = {"role": "sidecar", "namespace": "default", "workload": name, "instance": name, **more}
    answer = await control.session.get(f"{control.url}/fairlead/v1/feed", params=query)
    control.streams.append(answer)
    return answer


async def say(control: Served, name: str, what: str = "say", **more: Any) -> int:
    body = {"namespace": "default", "workload": name, "instance": name, **more}
    async with control.session.post(f"{control.url}/fairlead/v1/feed/{what}", json=body) as answer:
        return answer.status


@pytest.mark.asyncio
async def test_who_comes_back_to_another_run_of_control_tells_what_it_holds_and_is_sent_the_difference() -> None:
    async with served() as control:
        control.book.objects({"object/x/default/b": {"n": 2}})
        same = item_digest("object/x/default/a", b'{"n":1}')
        gone = item_digest("object/x/default/gone", b"{}")
        stream = await open_stream(control, "a", since="before.7", says="1", items=",".join(TABLES))
        assert await asked(stream) == ["holds"]
        assert await say(control, "a", holds=b64encode(same + gone).decode()) == 204
        told = await message(stream)
        assert (told["full"], told["resumed"], told["version"]) == (False, True, "e.2")
        assert (told["set"], told["drop"]) == ({"object/x/default/b": {"n": 2}}, [b64encode(gone).decode()])
        await control.ack("a", "e.2")
        again = await open_stream(control, "a", since="e.1", says="1", items=",".join(TABLES))
        told = await message(again)
        assert "resumed" not in told, "the version says it all"
        assert told["set"] == {"object/x/default/b": {"n": 2}}


@pytest.mark.asyncio
async def test_who_does_not_answer_or_cannot_is_sent_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_server, "SAY_S", 0.01)
    async with served() as control:
        silent = await open_stream(control, "a", since="before.7", says="1", items=",".join(TABLES))
        assert await asked(silent) == ["holds"]
        assert (await message(silent))["full"]
        old = await open_stream(control, "b", since="before.7")
        assert (await message(old))["full"]


@pytest.mark.asyncio
async def test_what_an_older_version_would_not_understand_is_withheld_and_shown() -> None:
    async with served() as control:
        rule = "object/virtualservices.networking.istio.io/default/"
        control.book.objects({f"{rule}old": {"spec": {"hosts": ["a"]}}, f"{rule}new": {"spec": {"novel": 1}}})
        fields = {"virtualservices.networking.istio.io": ["spec", "spec.hosts", "spec.hosts[]"], "x": ["n"]}
        stream = await open_stream(control, "a", **answers())
        assert await asked(stream) == ["fields"]
        assert await say(control, "a", fields=fields) == 204
        told = await message(stream)
        assert told["set"].keys() == {"object/x/default/a", f"{rule}old"}
        withheld = ["virtualservices.networking.istio.io/default/new: it does not know spec.novel"]
        assert control.feed.members["sidecar/default/a"].withheld == withheld
        second = await open_stream(control, "b", **answers())
        assert f"{rule}new" not in (await message(second))["set"], "of this version it is known now"
        control.book.objects({f"{rule}new": {"spec": {"hosts": ["b"]}}})
        control.feed.publish()
        assert (await message(stream))["set"].keys() == {f"{rule}new"}
        assert control.feed.members["sidecar/default/a"].withheld == []


@pytest.mark.asyncio
async def test_items_of_a_kind_that_a_version_does_not_know_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "TABLES", views.TABLES | {"gadget"})
    async with served() as control:
        control.book._change({"gadget/a": b"1"})
        old = await open_stream(control, "a")
        assert (await message(old))["set"].keys() == {"object/x/default/a"}
        new = await open_stream(control, "b", items="object,service,endpoints,workload,checks,namespace,gadget")
        assert (await message(new))["set"].keys() == {"object/x/default/a", "gadget/a"}


@pytest.mark.asyncio
async def test_a_service_that_is_used_is_sent_at_once_and_what_is_for_others_counts_as_taken() -> None:
    ends = (Endpoint("10.0.0.1", 80),)
    services = {host: Service(host, "default", host, (ServicePort(80),)) for host in ("a.x", "b.x")}
    snapshot = Snapshot(1, services, dict.fromkeys(services, ends))
    async with served(Views(lambda: snapshot, lambda _: True)) as control:
        control.feed._views.scopes.facts(snapshot)
        control.book.facts(snapshot)
        stream = await open_stream(control, "a", says="1", endpoints="used")
        assert await asked(stream) == ["holds"]
        assert await say(control, "a", holds="", uses=["a.x"]) == 204
        told = await message(stream)
        assert {key for key in told["set"] if key.startswith("endpoints/")} == {"endpoints/a.x"}
        await control.ack("a", told["version"])
        member = control.feed.members["sidecar/default/a"]
        assert (member.endpoints, member.uses) == ("used", 1)
        assert await say(control, "a", "use", hosts=["B.x"]) == 204
        assert (await message(stream))["set"].keys() == {"endpoints/b.x"}
        changed = Snapshot(2, services, dict.fromkeys(services, ends), {"o/w": Workload("o", "w")})
        control.book.facts(changed)
        control.feed.publish()
        while member.offered != control.book.version:
            await asyncio.sleep(0)
        assert member.taken == control.book.version, "nobody need wait for it"
        assert await say(control, "a", "use", hosts=["x" * 300]) == 400
        assert await say(control, "away", "use", hosts=["a.x"]) == 409
        assert await say(control, "a", holds="!") == 400


@pytest.mark.asyncio
async def test_a_sidecar_that_has_all_of_a_mesh_that_has_grown_says_what_it_uses_and_loses_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scopes, "LARGE", 1)
    service = Service("a.x", "default", "a", (ServicePort(80),))
    small = Snapshot(1, {"a.x": service}, {"a.x": (Endpoint("10.0.0.1", 80),)})
    async with served(Views(lambda: small, lambda _: True)) as control:
        facts = control.feed._views.scopes.facts
        facts(small)
        control.book.facts(small)
        stream = await open_stream(control, "a", says="1", endpoints="auto")
        assert (await message(stream))["set"].keys() >= {"endpoints/a.x"}
        large = Snapshot(2, small.services, {"a.x": tuple(Endpoint("10.0.0.1", n) for n in range(3))})
        facts(large)
        control.book.facts(large)
        control.feed.publish()
        assert await asked(stream) == ["holds"]
        unused = item_digest("endpoints/a.x", b'[{"address":"10.0.0.1","port":80}]')
        assert await say(control, "a", holds=b64encode(unused).decode(), uses=[]) == 204
        assert (await message(stream))["drop"] == [b64encode(unused).decode()]
        assert control.feed.members["sidecar/default/a"].endpoints == "used"


@pytest.mark.asyncio
async def test_a_farewell_whose_timeout_is_no_number_is_refused_before_anything_happens() -> None:
    async with served() as control:
        await control.connect("a")
        for verb in ("leave", "enter"):
            wrong: list[Any] = ["nan", "inf", 10**400, [], None, "x"]
            for told in wrong:
                text = json.dumps({"namespace": "default", "workload": "a", "instance": "a", "timeout": told})
                url = f"{control.url}/fairlead/v1/feed/{verb}"
                async with control.session.post(url, data=text) as answer:
                    assert answer.status == 400, (verb, told)
        assert not control.feed.members["sidecar/default/a"].leaving


@pytest.mark.asyncio
async def test_who_does_not_read_holds_nobody_up_and_is_sent_the_last_of_what_came_meanwhile() -> None:
    async with served() as control:
        slow, quick = await control.connect("slow"), await control.connect("quick")
        assert slow.connection is not None and slow.connection.transport is not None
        slow.connection.transport.pause_reading()
        for number in range(1, 101):
            control.book.objects({"object/x/default/large": {"text": "x" * 200_000, "n": number}})
            control.feed.publish()
            line = await quick.content.readuntil(b"\n")
            assert f'"n":{number}'.encode() in line
        slow.connection.transport.resume_reading()
        seen = []
        while control.book.version.encode() not in (line := await slow.content.readuntil(b"\n"))[:100]:
            seen.append(line)
        assert b'"n":100' in line
        assert len(seen) < 90, "what it had not taken when the next came was one"


@pytest.mark.asyncio
async def test_who_speaks_http_1_0_is_sent_lines_without_chunks() -> None:
    async with served() as control:
        host, _, port = control.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        query = "role=sidecar&namespace=default&workload=old&meshPort=1&instance=old"
        writer.write(f"GET /fairlead/v1/feed?{query} HTTP/1.0\r\n\r\n".encode())
        assert b"chunked" not in (await reader.readuntil(b"\r\n\r\n")).lower()
        while not (line := await reader.readline()).startswith(b'{"version":"e.1"'):
            assert line == b"\n"
        control.book.objects({"object/x/default/a": {"n": 2}})
        control.feed.publish()
        while (line := await reader.readline()) == b"\n":
            pass
        assert line.startswith(b'{"version":"e.2"')
        writer.close()


@pytest.mark.asyncio
async def test_what_is_not_believed_any_more_is_told_with_the_next_version_and_not_with_the_next_sign_of_life() -> None:
    async with served() as control:
        stream = await control.connect("a")
        control.feed.members["sidecar/default/a"].not_believed = ["labels: app is not given to it"]
        control.book.objects({"object/x/default/a": {"n": 2}})
        control.feed.publish()
        async with asyncio.timeout(feed_server.HEARTBEAT_S / 3):
            while (line := await stream.content.readuntil(b"\n")) == b"\n":
                pass
            assert json.loads(line)["claims"] == ["labels: app is not given to it"]
            assert b'"n":2' in await stream.content.readuntil(b"\n")
