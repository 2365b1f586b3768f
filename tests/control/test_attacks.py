"""Attacks on the control API, each with the answer that it must get."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead.control import api as api_module
from fairlead.control import api_door, api_objects, kinds, listing, watch_hub
from fairlead.control.api import ControlApi
from fairlead.control.api_limits import ApiLimits, Buckets, Limits
from fairlead.control.auth import AdminTokens
from fairlead.control.status import StatusError
from tests.control.serving import Client, api_in, api_on, service, store_in
from tests.control.test_rbac import ME, RBAC, binding, grant, options, role, rule

pytestmark = pytest.mark.asyncio
SELF = ("User", "owner")
OWNER: dict[str, Any] = {"Authorization": ME["owner"]}
ROOT: dict[str, Any] = {"Authorization": ME["root"]}
MINE, OTHERS = "/api/v1/namespaces/mine/services", "/api/v1/namespaces/theirs/services"
MERGE: dict[str, Any] = {"Content_Type": "application/merge-patch+json"}


@contextlib.asynccontextmanager
async def two_namespaces(folder: Path, **more: Any) -> AsyncIterator[tuple[ControlApi, Client]]:
    """`owner` is admin of `mine`; `theirs` has a service and a secret."""
    async with api_in(folder, options(folder, **more)) as (api, client):
        for name in ("mine", "theirs"):
            await client.post("/api/v1/namespaces", {"metadata": {"name": name}}, **ROOT)
        await grant(client, "mine", binding("admin", "ClusterRole", "admin", SELF))
        await client.post(OTHERS, service("web", labels={"app": "web"}), **ROOT)
        secret = {"metadata": {"name": "s", "labels": {"app": "web"}}, "stringData": {"password": "hunter2"}}
        await client.post("/api/v1/namespaces/theirs/secrets", secret, **ROOT)
        yield api, client


async def test_an_admin_of_a_namespace_reaches_into_no_other_by_any_verb_or_path(tmp_path: Path) -> None:
    async with two_namespaces(tmp_path) as (api, client):
        await client.post(MINE, service("web"), **OWNER)
        before = api.store.memory.revision
        web, patch = f"{OTHERS}/web", {"metadata": {"labels": {"x": "y"}}}
        apply = {"apiVersion": "v1", "kind": "Service", **service("web")}
        attempts: list[tuple[str, str, Any, dict[str, Any]]] = [
            ("GET", web, None, {}), ("GET", OTHERS, None, {}), ("GET", "/api/v1/services", None, {}),
            ("GET", f"{OTHERS}?watch=1", None, {}), ("GET", "/api/v1/services?watch=true", None, {}),
            ("GET", "/api/v1/services?labelSelector=app%3Dweb", None, {}),
            ("GET", "/api/v1/services?fieldSelector=metadata.namespace%3Dmine", None, {}),
            ("GET", "/api/v1/secrets?labelSelector=app%3Dweb", None, {}), ("GET", "/api/v1/secrets?watch", None, {}),
            ("GET", web, None, {"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}),
            ("GET", OTHERS, None, {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}),
            ("POST", OTHERS, service("new"), {}), ("PUT", web, service("web"), {}), ("DELETE", web, None, {}),
            ("DELETE", OTHERS, None, {}), ("PATCH", web, patch, MERGE), ("PATCH", f"{web}/status", patch, MERGE),
            ("GET", f"{web}/status", None, {}), ("PUT", f"{web}/status", service("web"), {}),
            ("PATCH", f"{web}?fieldManager=x&force=1", apply, {"Content_Type": "application/apply-patch+yaml"}),
            ("GET", "/api/v1/namespaces/theirs", None, {}), ("DELETE", "/api/v1/namespaces/theirs", None, {}),
            ("PATCH", "/api/v1/namespaces/theirs", patch, MERGE), ("PATCH", "/api/v1/namespaces/mine", patch, MERGE),
            ("GET", "/api/v1/namespaces/mine%2F..%2Ftheirs/services", None, {}),
            ("GET", "/api/v1/namespaces/mine/../theirs/services", None, {}),
            ("GET", "/api/v1/namespaces//services", None, {}),
            ("GET", f"{RBAC}/namespaces/theirs/roles", None, {}), ("GET", f"{RBAC}/clusterroles", None, {}),
            ("POST", f"{RBAC}/namespaces/theirs/rolebindings", binding("x", "ClusterRole", "admin", SELF), {}),
            ("POST", f"{RBAC}/clusterrolebindings", binding("x", "ClusterRole", "admin", SELF), {}),
            ("POST", f"{RBAC}/namespaces/mine/rolebindings", binding("x", "ClusterRole", "cluster-admin", SELF), {}),
            ("POST", f"{RBAC}/namespaces/mine/roles", role("x", rule("get", "nodes")), {}),
            ("POST", "/apis/fairlead.dev/v1/meshconfigs", {"metadata": {"name": "default"}, "spec": {}}, {}),
            ("POST", "/api/v1/namespaces", {"metadata": {"name": "new"}}, {}),
            ("POST", "/fairlead/v1/tokens", {"namespace": "theirs"}, {}), ("GET", "/fairlead/v1/tokens", None, {}),
            ("GET", web, None, {"Impersonate_User": "root"}),
            ("GET", web, None, {"Impersonate_User": "system:serviceaccount:theirs:default"}),
            ("GET", web, None, {"X_Remote_User": "root", "X_Remote_Group": "system:masters"}),
            ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": {"user": "root"}}, {}),
        ]  # fmt: skip
        async with client.session.head(client.url + web, headers=OWNER) as answer:
            assert answer.status == 403
        for method, path, body, headers in attempts:
            code, told = await client.ask(method, path, body, **OWNER, **headers)
            assert code in (403, 404), (method, path, code, told)
            assert code == 403 or "//" in path or ".." in path, (method, path, told)
            assert "hunter2" not in json.dumps(told) and "c2VjcmV0" not in json.dumps(told)
        moved = {**service("web"), "metadata": {"name": "web", "namespace": "theirs"}}
        await client.post(MINE, moved, 400, **OWNER)
        await client.put(f"{MINE}/web", moved, 400, **OWNER)
        await client.ask("PATCH", f"{MINE}/web", {"metadata": {"namespace": "theirs"}}, 400, **OWNER, **MERGE)
        assert api.store.memory.revision == before
        owners = {"ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "x"}]}
        await client.ask("PATCH", f"{MINE}/web", {"metadata": owners}, 200, **OWNER, **MERGE)
        await client.delete(f"{MINE}/web?propagationPolicy=Foreground", **OWNER)
        assert (await client.get(web, **ROOT))["metadata"]["name"] == "web"  # what names an owner deletes no other


async def test_a_watch_within_a_namespace_shows_nothing_of_others(tmp_path: Path) -> None:
    async with two_namespaces(tmp_path) as (_, client):
        asked = client.session.get(f"{client.url}{MINE}?watch=true&timeoutSeconds=1", headers=OWNER)
        async with asked as answer:
            await client.post(OTHERS, service("other"), **ROOT)
            await client.delete(f"{OTHERS}/other", **ROOT)
            await client.post(MINE, service("own"), **ROOT)
            events = [json.loads(line) async for line in answer.content]
        assert {event["object"]["metadata"]["namespace"] for event in events} == {"mine"}


async def test_who_loses_the_right_sees_nothing_more_of_an_open_watch(tmp_path: Path) -> None:
    async with two_namespaces(tmp_path) as (_, client):
        bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/mine/rolebindings"
        async with (
            client.session.get(f"{client.url}{MINE}?watch=true", headers=OWNER) as answer,
            client.session.get(f"{client.url}{MINE}?watch=true", headers=ROOT) as other,
        ):
            await client.post(MINE, service("before"), **ROOT)
            assert json.loads(await answer.content.readline())["object"]["metadata"]["name"] == "before"
            await client.post(bindings, binding("more", "ClusterRole", "view", SELF), **ROOT)
            await client.delete(f"{bindings}/admin", **ROOT)
            await client.post(MINE, service("kept"), **ROOT)
            kept = json.loads(await answer.content.readline())["object"]
            assert kept["metadata"]["name"] == "kept"  # who keeps the right in another way keeps the watch
            begun = time.monotonic()
            await client.delete(f"{bindings}/more", **ROOT)
            await client.post(MINE, service("after"), **ROOT)
            rest = (await asyncio.wait_for(answer.content.read(), 10)).splitlines()
            assert time.monotonic() - begun < 1.0
            (event,) = map(json.loads, rest)
            assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 403, "Forbidden")
            assert 'cannot watch resource "services"' in event["object"]["message"]
            names = [json.loads(await other.content.readline())["object"]["metadata"]["name"] for _ in range(3)]
            assert names == ["before", "kept", "after"]
            assert (await client.ask("GET", f"{MINE}?watch=true", **OWNER))[0] == 403


async def test_who_loses_the_credentials_sees_nothing_more_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_hub, "LOOK_S", 0.05)
    async with (
        two_namespaces(tmp_path) as (api, client),
        client.session.get(f"{client.url}{MINE}?watch=true", headers=OWNER) as answer,
    ):
        api.door.authenticator.admins = AdminTokens("another-token root")
        (event,) = map(json.loads, (await asyncio.wait_for(answer.content.read(), 10)).splitlines())
        assert (event["type"], event["object"]["code"]) == ("ERROR", 401)


YAML_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (YAML_BOMB, "application/yaml", 400),
        (YAML_BOMB, "application/apply-patch+yaml", 400),
        ("a: !!python/object/apply:os.system [id]", "application/yaml", 400),
        ("[" * 100_000 + "]" * 100_000, "application/json", 400),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "application/json", 400),
        ("[" * 5000, "application/yaml", 400),
        ("- " * 5000, "application/yaml", 400),
        ('{"metadata": {"name": "x"}, "spec": ' + '{"a":' * 200 + "1" + "}" * 201, "application/json", 400),
        ('{"metadata": {"name": "' + "x" * (4 << 20) + '"}}', "application/json", 413),
        (b"\xff\xfe", "application/json", 400),
        ("{}", "application/cbor", 415),
        ("1" * 5000, "application/json", 400),
    ],
    ids=["bomb", "bomb-applied", "python", "deep-list", "deep-object", "deep-flow", "deep-block", "deep-spec", "huge",
         "not-utf8", "cbor", "number"],
)  # fmt: skip
async def test_bodies_made_to_hurt_are_refused_soon(tmp_path: Path, body: Any, content_type: str, code: int) -> None:
    async with api_in(tmp_path) as (_, client):
        method, path = "POST", "/api/v1/namespaces/default/services"
        if "apply" in content_type:
            method, path = "PATCH", f"{path}/x?fieldManager=f"
        async with asyncio.timeout(10):
            _, told = await client.ask(method, path, body, code, Content_Type=content_type)
        assert told["kind"] == "Status" and len(json.dumps(told)) < 5000
        await client.get("/readyz")


async def answered(port: int, sent: bytes) -> bytes:
    """All that comes until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)  # and no more
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def test_slow_heads_and_slow_bodies_hold_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "FIRST_REQUEST_S", 0.2)
    monkeypatch.setattr(api_module, "KEEPALIVE_S", 0.2)
    monkeypatch.setattr(api_module, "LINGER_S", 0.2)
    monkeypatch.setattr(api_objects, "BODY_TIMEOUT_S", 0.2)
    get = b"GET /version HTTP/1.1\r\nHost: localhost\r\n"
    async with api_in(tmp_path) as (api, client):
        assert await answered(api.port, get + b"X-A: ") == b""
        assert (await answered(api.port, get + b"\r\n" + get + b"X-A: ")).count(b"HTTP/1.1 200") == 1
        post = b"POST /api/v1/namespaces/default/services HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"
        assert b" 408 " in (await answered(api.port, post)).partition(b"\r\n")[0]
        assert b" 400 " in (await answered(api.port, get + b"X-A: " + b"a" * 100_000)).partition(b"\r\n")[0]
        await client.get("/readyz")


async def test_a_flood_of_watches_of_one_user_starves_nobody(tmp_path: Path) -> None:
    async with two_namespaces(tmp_path, limits=Limits(watches=3)) as (api, client):
        open_ones = []
        for _ in range(3):
            answer = await client.session.get(f"{client.url}{MINE}?watch=true", headers=OWNER)
            assert answer.status == 200
            open_ones.append(answer)
        async with client.session.get(f"{client.url}{MINE}?watch=true", headers=OWNER) as answer:
            assert answer.status == 429 and answer.headers["Retry-After"] == "5"
            assert "user owner has 3 watches open, the limit is 3" in (await answer.json())["message"]
        await client.get(MINE, **OWNER)
        async with client.session.get(f"{client.url}{MINE}?watch=true", headers=ROOT) as answer:
            assert answer.status == 200
        for answer in open_ones:
            answer.close()
        while api.limits.watching:
            await asyncio.sleep(0)


async def test_a_flood_of_requests_is_answered_429_with_retry_after(tmp_path: Path) -> None:
    async with two_namespaces(tmp_path, limits=Limits(requests_per_second=0.1, burst=5)) as (_, client):
        codes = [(await client.ask("GET", MINE, **OWNER))[0] for _ in range(8)]
        assert codes == [200] * 5 + [429] * 3
        async with client.session.get(f"{client.url}{MINE}", headers=OWNER) as answer:
            assert 0 < int(answer.headers["Retry-After"]) <= 11
            assert (await answer.json())["reason"] == "TooManyRequests"
        assert [(await client.ask("GET", MINE, **ROOT))[0] for _ in range(8)] == [200] * 8
        guesses = [(await client.ask("GET", MINE, Authorization=f"Bearer guess-{n}"))[0] for n in range(60)]
        assert guesses[0] == 401 and guesses[-1] == 429


async def test_buckets_fill_by_time_and_limits_end_with_their_requests() -> None:
    buckets = Buckets(2.0, 4.0)
    assert [buckets.take("a", 100.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, pytest.approx(0.5)]
    assert buckets.take("b", 100.0) == 0.0
    assert buckets.take("a", 100.5) == 0.0
    limits = ApiLimits(Limits(in_flight=1, watches=5), 10)
    limits.begin("a", False, False, 0.0)
    with pytest.raises(StatusError, match="under way"):
        limits.begin("a", False, False, 0.0)
    limits.end("a", False)
    limits.begin("a", False, False, 0.0)
    for user in ("a", "b"):
        for _ in range(5 if user == "a" else 4):
            limits.begin(user, False, True, 0.0)
    with pytest.raises(StatusError, match="9 watches are open already"):
        limits.begin("c", False, True, 0.0)
    limits.begin("root", True, True, 0.0)  # a share is kept for who repairs


async def test_no_secret_is_in_a_log_a_dump_or_an_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = "/api/v1/namespaces/theirs/secrets"
    marks = ("hunter2", "aHVudGVyMg", "an-admin-token", "owner-token", "secret-guess")
    async with two_namespaces(tmp_path) as (_, client):
        made = await client.post("/fairlead/v1/tokens", {"namespace": "mine"}, **ROOT)
        told = [
            await client.ask("GET", MINE, Authorization="Bearer secret-guess-1"),
            await client.ask("GET", MINE, Authorization="Basic secret-guess-2"),
            await client.ask("GET", MINE, Authorization="Bearer eyJ.secret-guess.x"),
            await client.ask("POST", secrets, {"metadata": {"name": "x"}, "data": {"a": "hunter2!"}}, **ROOT),
            await client.ask("PATCH", f"{secrets}/s", {"data": {"password": 5}, "hunter2": 1}, **ROOT, **MERGE),
            await client.ask("POST", secrets, {"metadata": {"name": "s"}, "stringData": {"p": "hunter2"}}, **ROOT),
            await client.ask("GET", f"{secrets}/s", **OWNER),
            await client.ask("GET", secrets, **OWNER),
            await client.ask("GET", "/fairlead/v1/tokens", **ROOT),
            await client.ask("GET", secrets, Accept="application/json;as=Table;v=v1;g=meta.k8s.io", **ROOT),
            await client.ask("DELETE", f"{secrets}/s", **ROOT),
        ]
        said = json.dumps([answer for code, answer in told if code >= 400] + [told[8][1], told[10][1]])
        # A table carries the objects' metadata only.
        assert not [mark for mark in marks if mark in json.dumps(told[9])]
    logs = caplog.text + (tmp_path / "audit").read_text()
    for mark in (*marks, made["token"], made["token"].split("_", 2)[2]):
        assert mark not in logs.replace(str(tmp_path), ""), mark
    for mark in (*marks[2:], made["token"]):
        assert mark not in said, mark
    stored = (tmp_path / "store.db").read_bytes() + b"".join(p.read_bytes() for p in tmp_path.glob("store.db-*"))
    assert made["token"].split("_", 2)[2].encode() not in stored


async def test_a_deletion_that_means_to_be_dry_is_never_a_real_one(tmp_path: Path) -> None:
    async with two_namespaces(tmp_path) as (api, client):
        await client.post(MINE, service("web"), **OWNER)
        before = api.store.memory.revision
        for wrong in ("All", ["all"], ["All", ""], [""], {"All": True}, True):
            await client.delete(f"{MINE}/web", {"dryRun": wrong}, 400, **OWNER)
            await client.delete(MINE, {"dryRun": wrong}, 400, **OWNER)
        for query in ("dryRun=", "dryRun", "dryRun=&dryRun=All", "dryRun=All&dryRun=no", "dryRun=all"):
            await client.delete(f"{MINE}/web?{query}", code=400, **OWNER)
            await client.delete(f"{MINE}?{query}", code=400, **OWNER)
            await client.post(f"{MINE}?{query}", service("new"), 400, **OWNER)
            await client.put(f"{MINE}/web?{query}", service("web"), 400, **OWNER)
            await client.ask(
                "PATCH", f"{MINE}/web?{query}", {"metadata": {"labels": {"a": "b"}}}, 400, **OWNER, **MERGE
            )
        # What knows of no dry runs does nothing rather than all of it.
        await client.post("/fairlead/v1/confirmations?dryRun=All", {"timeoutSeconds": 5}, 400, **OWNER)
        await client.post("/fairlead/v1/tokens?dryRun=All", {}, 400, **ROOT)
        uid = (await client.get(f"{MINE}/web", **OWNER))["metadata"]["uid"]
        await client.delete(MINE, {"preconditions": {"uid": uid}}, 400, **OWNER)
        await client.delete(f"{MINE}/web?dryRun=All&dryRun=All", **OWNER)
        await client.delete(f"{MINE}/web", {"dryRun": ["All"]}, **OWNER)
        assert api.store.memory.revision == before
        lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
        assert all(line.get("dryRun") for line in lines[-2:])


async def test_who_loses_the_right_while_they_wait_for_a_version_is_refused(tmp_path: Path) -> None:
    async with two_namespaces(tmp_path) as (api, client):
        await client.post(MINE, service("web"), **OWNER)
        bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/mine/rolebindings"
        for path in (f"{MINE}/web?", f"{MINE}?", f"{MINE}?watch=true&"):
            coming = api.store.memory.revision + 1
            asked = asyncio.create_task(client.ask("GET", f"{path}resourceVersion={coming}", **OWNER))
            while not any(api.limits._running.get(("owner", watch)) for watch in (True, False)):
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            await client.delete(f"{bindings}/admin", **ROOT)
            code, told = await asyncio.wait_for(asked, 10)
            assert code == 403 and "cannot" in told["message"], (path, told)
            await grant(client, "mine", binding("admin", "ClusterRole", "admin", SELF))


async def test_who_changes_permissions_all_the_time_keeps_no_idle_stream_asking(tmp_path: Path) -> None:
    async with two_namespaces(tmp_path) as (api, client):
        asked, again = 0, api.hub.again
        assert again is not None

        async def counted(request: Any) -> None:
            nonlocal asked
            asked += 1
            await again(request)

        api.hub.again = counted
        async with client.session.get(f"{client.url}{MINE}?watch=true", headers=OWNER) as answer:
            begun = time.monotonic()
            for n in range(100):
                await grant(client, "mine", binding(f"b{n}", "ClusterRole", "view", ("User", "x")))
            most = 2 + (time.monotonic() - begun) / watch_hub.WAKE_S
            assert asked <= most
            await client.delete("/apis/rbac.authorization.k8s.io/v1/namespaces/mine/rolebindings/admin", **ROOT)
            (event,) = map(json.loads, (await asyncio.wait_for(answer.content.read(), 10)).splitlines())
            assert event["object"]["code"] == 403


async def held_open(port: int, path: str, count: int) -> list[asyncio.StreamWriter]:
    """Connections that ask as the owner, and read nothing."""
    made = []
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {ME['owner']}\r\n\r\n".encode())
        made.append(writer)
    return made


async def test_who_does_not_read_their_answers_gets_no_more_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_namespaces(tmp_path, limits=Limits(unread_bytes=9 << 20)) as (api, client):
        for n in range(20):
            await client.post(MINE, service(f"s{n}", annotations={"a": "x" * 200_000}), **OWNER)
        readers = await held_open(api.port, MINE, 5)
        while api.counts.get(("GET", 429), 0) < 3:  # each takes 4 MB
            await asyncio.sleep(0.001)
        assert api.limits._running == {("owner", False): 2}
        assert len((await client.get(MINE, **ROOT))["items"]) == 20
        for writer in readers:
            writer.transport.abort()
        while api.limits._unread:
            await asyncio.sleep(0.001)
        monkeypatch.setattr(api_door, "READ_S", 0.05)
        monkeypatch.setattr(api_door, "READ_BYTES_A_SECOND", 1 << 40)
        (writer,) = await held_open(api.port, MINE, 1)
        while not api.limits._unread:
            await asyncio.sleep(0.001)
        while api.limits._unread:
            await asyncio.sleep(0.001)  # it had its time
        writer.transport.abort()
        assert len((await client.get(MINE, **OWNER))["items"]) == 20


async def test_a_watch_holds_no_copies_for_who_does_not_read_and_lets_them_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    spliced = listing.spliced

    def counted(*given: Any) -> bytes:
        nonlocal made
        made += 1
        return spliced(*given)

    monkeypatch.setattr(watch_hub, "spliced", counted)
    async with two_namespaces(tmp_path) as (api, client):
        for n in range(60):
            await client.post(MINE, service(f"s{n}", annotations={"a": "x" * 200_000}), **OWNER)
        readers = await held_open(api.port, f"{MINE}?watch=true", 1)
        while not api.limits.watching or not made:
            await asyncio.sleep(0.001)
        for _ in range(100):
            await client.get("/readyz")
        assert made < 40, "what is not taken must not be made"  # what the kernel's buffers take is
        monkeypatch.setattr(watch_hub, "STALLED_S", 0.05)
        readers += await held_open(api.port, f"{MINE}?watch=true", 1)
        while api.limits.watching < 2:
            await asyncio.sleep(0.001)
        while api.limits.watching > 1:
            await asyncio.sleep(0.001)  # who takes nothing is let go
        for writer in readers:
            writer.transport.abort()


async def test_guesses_from_an_address_hold_up_guesses_only(tmp_path: Path) -> None:
    async with two_namespaces(tmp_path) as (_, client):
        for n in range(60):
            await client.ask("GET", MINE, Authorization=f"Bearer guess-{n}")
        assert (await client.ask("GET", MINE, **OWNER))[0] == 429
        assert (await client.ask("GET", MINE))[0] == 401  # who shows no token is not taken for who guesses
        await client.get("/readyz")


async def test_much_yaml_is_read_beside_the_loop(tmp_path: Path) -> None:
    threads: list[int] = []
    ports = "".join(f"  - {{port: {n + 1}, name: p{n}}}\n" for n in range(1000))
    text = f"metadata: {{name: big}}\nspec:\n  ports:\n{ports}"
    async with store_in(tmp_path) as store:
        known = kinds.parts(store)

        def load(body: bytes) -> Any:
            threads.append(threading.get_ident())
            return kinds.load_yaml(body)

        async with api_on(store, parts=msgspec.structs.replace(known, load_yaml=load)) as (_, client):
            path = "/api/v1/namespaces/default/services"
            await client.post(path, text, Content_Type="application/yaml")
            applied = "apiVersion: v1\nkind: Service\n" + text
            await client.ask("PATCH", f"{path}/big?fieldManager=a&force=1", applied, 200,
                             Content_Type="application/apply-patch+yaml")  # fmt: skip
            await client.post(
                path, "metadata: {name: small}\nspec: {ports: [{port: 1}]}", Content_Type="application/yaml"
            )
    here = threading.get_ident()
    assert [one == here for one in threads] == [False, False, True]
