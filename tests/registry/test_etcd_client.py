"""Calls to etcd: endpoints in turn, authentication, watches; by the real server and by a played one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.fetch import AiohttpFetch
from fairlead.registry import etcd_client
from fairlead.registry.etcd_client import DENIED, TRIES, UNAUTHENTICATED, UNAVAILABLE, EtcdClient, EtcdError
from fairlead.registry.etcd_values import EtcdSettings, b64
from fairlead.registry.needs import FetchError, Reply, ReplyStream
from fairlead.registry.source_etcd import EtcdSource
from tests.registry.following import following
from tests.servers import Etcd, etcd, free_ports, running

ONE, TWO = "http://one", "http://two"
RANGE = {"key": b64("/services/"), "range_end": b64("/services0")}
DEADLINE_S = 20.0


class Stream:
    headers: Mapping[str, str] = {}

    def __init__(self, chunks: list[bytes], status: int) -> None:
        self.status, self._chunks = status, chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


class Played:
    """A `Fetch` that answers with what `script` holds, and keeps what it was asked."""

    def __init__(self, *script: Reply | FetchError | list[bytes], status: int = 200) -> None:
        self.script = list(script)
        self.status = status
        """Of streams."""
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    async def request(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"",
                      timeout_s: float = 10.0) -> Reply:  # fmt: skip
        self.asked.append((url, dict(headers or {}), json.loads(body)))
        answer = self.script.pop(0)
        if isinstance(answer, FetchError):
            raise answer
        assert isinstance(answer, Reply)
        return answer

    @contextlib.asynccontextmanager
    async def stream(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"",
                     connect_timeout_s: float = 2.0,
                     idle_timeout_s: float | None = None) -> AsyncIterator[ReplyStream]:  # fmt: skip
        self.asked.append((url, dict(headers or {}), json.loads(body)))
        chunks = self.script.pop(0)
        assert isinstance(chunks, list)
        yield Stream(chunks, self.status)

    async def close(self) -> None:
        pass


def client(played: Played, **settings: Any) -> EtcdClient:
    return EtcdClient(played, EtcdSettings(endpoints=(ONE, TWO), **settings))


def good(**body: Any) -> Reply:
    return Reply(200, {}, json.dumps(body).encode())


def bad(code: int, message: str, status: int = 400) -> Reply:
    return Reply(status, {}, json.dumps({"error": message, "code": code, "message": message}).encode())


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Pauses that are told and not made."""
    asked: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        asked.append(seconds)
        await real(0)

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", sleep)
        yield asked


# --- the real server ------------------------------------------------------------------------------------------------


async def with_users(server: Etcd) -> None:
    """Turn authentication on: `root` may do all, `reader` may read services, `nobody` may do nothing."""
    for name in ("root", "reader", "nobody"):
        await server.call("/v3/auth/user/add", {"name": name, "password": "secret"})
    await server.call("/v3/auth/role/add", {"name": "read"})
    await server.call("/v3/auth/role/grant", {"name": "read", "perm": {"permType": "READ", **RANGE}})
    for user, role in (("root", "root"), ("reader", "read")):
        await server.call("/v3/auth/user/grant", {"user": user, "role": role})
    await server.call("/v3/auth/enable", {})


async def forget_tokens(root: EtcdClient) -> None:
    """A new password, though it is the same, ends what was signed in with the old one; a restart alone does not."""
    await root.call("/v3/auth/user/changepw", {"name": "reader", "password": "secret"})


@contextlib.asynccontextmanager
async def user(server: Etcd, name: str, password: str = "secret") -> AsyncIterator[EtcdClient]:
    made = EtcdClient(AiohttpFetch(), EtcdSettings(endpoints=(server.url,), user=name, password=password))
    try:
        yield made
    finally:
        await made.fetch.close()


def put(name: str, port: int) -> dict[str, str]:
    return {"key": b64(f"/services/web/{name}"), "value": b64(json.dumps({"host": "10.0.0.1", "port": port}))}


@pytest.mark.asyncio
async def test_with_authentication_on_users_may_do_what_etcd_lets_them_do(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        await server.put("/services/web/web-1", "{}")
        await with_users(server)
        async with user(server, "reader") as reader:
            told = await reader.call("/v3/kv/range", RANGE)
            assert [base64.b64decode(entry["key"]) for entry in told["kvs"]] == [b"/services/web/web-1"]
            with pytest.raises(EtcdError, match="permission denied") as denied:
                await reader.call("/v3/kv/put", put("web-2", 80))
            assert denied.value.code == DENIED
        async with user(server, "nobody") as nobody:
            with pytest.raises(EtcdError, match="permission denied"):
                await nobody.call("/v3/kv/range", RANGE)
        async with user(server, "reader", "wrong") as wrong:
            with pytest.raises(EtcdError, match="authentication failed"):
                await wrong.call("/v3/kv/range", RANGE)
        async with user(server, "") as anonymous:
            with pytest.raises(EtcdError, match="user name is empty"):
                await anonymous.call("/v3/kv/range", RANGE)


@pytest.mark.asyncio
async def test_a_token_that_the_server_no_longer_knows_is_asked_for_anew(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        await with_users(server)
        async with user(server, "root") as root:
            await root.call("/v3/kv/put", put("web-1", 80))
            async with user(server, "reader") as reader:
                await reader.call("/v3/kv/range", RANGE)
                token = reader._token
                await forget_tokens(root)
                with pytest.raises(EtcdError, match="invalid auth token") as caught:
                    await reader.once("/v3/kv/range", RANGE)
                assert caught.value.code == UNAUTHENTICATED
                assert len((await reader.call("/v3/kv/range", RANGE))["kvs"]) == 1
                assert reader._token not in ("", token)


class EtcdWithJwt(Etcd):
    """Its tokens tell at which revision of users and roles they were made, and are good for no later one."""

    def command(self) -> list[str]:
        (self.folder / "secret").write_text("secret")
        return [*super().command(), "--auth-token", f"jwt,priv-key={self.folder}/secret,sign-method=HS256,ttl=1h"]


@pytest.mark.asyncio
async def test_a_token_older_than_the_latest_change_of_users_is_asked_for_anew(tmp_path: Path) -> None:
    async with running(EtcdWithJwt(tmp_path)) as server:
        await with_users(server)
        async with user(server, "root") as root, user(server, "reader") as reader:
            await reader.call("/v3/kv/range", RANGE)
            await root.call("/v3/auth/user/add", {"name": "another", "password": "secret"})
            with pytest.raises(EtcdError, match="revision of auth store is old"):
                await reader.once("/v3/kv/range", RANGE)
            assert "header" in await reader.call("/v3/kv/range", RANGE)


@pytest.mark.asyncio
async def test_a_source_with_a_user_goes_on_after_the_server_forgot_its_token(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server, user(server, "root") as root:
        await with_users(server)
        await root.call("/v3/kv/put", put("web-1", 8001))
        settings = EtcdSettings(endpoints=(server.url,), user="reader", password="secret")
        host = "web.default.svc.cluster.local"
        async with following(lambda heard: EtcdSource(AiohttpFetch(), settings, heard.update, heard.tell)) as heard:
            await heard.until(lambda: heard.ports(host) == {8001})
            await root.call("/v3/kv/put", put("web-2", 8002))
            await heard.until(lambda: heard.ports(host) == {8001, 8002})
            await forget_tokens(root)
            await server.kill()
            await server.start()
            await root.call("/v3/kv/put", put("web-3", 8003))
            await heard.until(lambda: heard.ports(host) == {8001, 8002, 8003} and heard.status.state == "live")


@pytest.mark.asyncio
async def test_a_dead_endpoint_is_passed_over_and_a_watch_tells_every_change_in_order(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        dead = f"http://127.0.0.1:{free_ports(1)[0]}"
        subject = EtcdClient(AiohttpFetch(), EtcdSettings(endpoints=(dead, server.url)))
        try:
            told = await subject.call("/v3/kv/range", RANGE)
            assert subject.endpoint == server.url
            revision = int(told["header"]["revision"])
            for port in range(20):
                await server.put("/services/web/a", str(port))
            seen: list[str] = []
            async with asyncio.timeout(DEADLINE_S):
                async for result in subject.watch(b"/services/", revision + 1):
                    seen += [base64.b64decode(event["kv"]["value"]).decode() for event in result.get("events", [])]
                    if len(seen) == 20:
                        break
            assert seen == [str(port) for port in range(20)]
        finally:
            await subject.fetch.close()


# --- a played one ---------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_user_signs_in_once_and_the_token_goes_with_every_call() -> None:
    played = Played(good(token="t"), good(n=1), good(n=2), [b'{"result":{}}\n'])
    subject = client(played, user="me", password="pw")
    assert (await subject.call("/v3/a", {}), await subject.call("/v3/b", {})) == ({"n": 1}, {"n": 2})
    assert played.asked[0][0] == f"{ONE}/v3/auth/authenticate"
    assert played.asked[0][2] == {"name": "me", "password": "pw"}
    assert "authorization" not in played.asked[0][1]
    assert [headers["authorization"] for _, headers, _ in played.asked[1:]] == ["t", "t"]
    assert [result async for result in until_ended(subject)] == [{}]
    assert played.asked[-1][1]["authorization"] == "t"


async def until_ended(subject: EtcdClient) -> AsyncIterator[dict[str, Any]]:
    with pytest.raises(EtcdError, match="the watch ended"):
        async for result in subject.watch(b"/services/", 7):
            yield result


@pytest.mark.asyncio
async def test_an_unavailable_endpoint_and_a_silent_one_give_way_to_the_next(at_once: list[float]) -> None:
    played = Played(bad(UNAVAILABLE, "no leader", 503), FetchError("too slow"), good(n=1))
    assert await client(played).call("/v3/a", {}) == {"n": 1}
    assert [url for url, _, _ in played.asked] == [f"{ONE}/v3/a", f"{TWO}/v3/a", f"{ONE}/v3/a"]
    assert len(at_once) == 2


@pytest.mark.asyncio
@pytest.mark.usefixtures("at_once")
async def test_after_all_tries_the_last_error_is_told() -> None:
    played = Played(*[bad(UNAVAILABLE, "no leader", 503)] * TRIES)
    with pytest.raises(EtcdError, match="no leader"):
        await client(played).call("/v3/a", {})
    assert not played.script
    with pytest.raises(FetchError, match="too slow"):
        await client(Played(*[FetchError("too slow")] * TRIES)).call("/v3/a", {})


@pytest.mark.asyncio
async def test_what_etcd_refuses_is_not_tried_again() -> None:
    played = Played(bad(3, "key is not provided"))
    with pytest.raises(EtcdError, match="key is not provided") as caught:
        await client(played).call("/v3/a", {})
    assert caught.value.code == 3


@pytest.mark.asyncio
async def test_a_token_refused_every_time_is_an_error_in_the_end() -> None:
    script = [good(token="t"), bad(UNAUTHENTICATED, "invalid auth token", 401)] * TRIES
    with pytest.raises(EtcdError, match="invalid auth token"):
        await client(Played(*script), user="me").call("/v3/a", {})


@pytest.mark.asyncio
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("status", [200, 502])
async def test_an_answer_that_is_not_etcds_is_told_with_its_beginning(body: bytes, status: int) -> None:
    with pytest.raises(EtcdError, match=f"not an answer of etcd \\(status {status}\\)"):
        await client(Played(Reply(status, {}, body))).once("/v3/a", {})


@pytest.mark.asyncio
@pytest.mark.parametrize("body", [b"{}", b'{"code": "x", "error": 1}', b'{"code": null}'])
async def test_an_error_without_a_proper_code_is_an_error_all_the_same(body: bytes) -> None:
    with pytest.raises(EtcdError) as caught:
        await client(Played(Reply(500, {}, body))).once("/v3/a", {})
    assert caught.value.code == -1


@pytest.mark.asyncio
async def test_a_watch_reads_the_same_however_it_is_cut() -> None:
    whole = b'{"result":{"created":true}}\n\n{"result":{"events":[{"kv":{"key":"YQ=="}}]}}\n'
    expected = [{"created": True}, {"events": [{"kv": {"key": "YQ=="}}]}]
    for end in range(len(whole) + 1):
        assert [result async for result in until_ended(client(Played([whole[:end], whole[end:]])))] == expected
    played = Played([whole[at : at + 1] for at in range(len(whole))])
    assert [result async for result in until_ended(client(played))] == expected
    url, headers, body = played.asked[0]
    assert url == f"{ONE}/v3/watch"
    assert headers["grpc-metadata-hasleader"] == "true"
    assert body["create_request"]["start_revision"] == "7"
    assert body["create_request"]["range_end"] == b64("/services0")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (b'{"error":{"grpc_code":14,"http_code":503,"message":"no leader"}}', 14, "no leader"),
        (b'{"error":{"code":14,"message":"no leader"}}', 14, "no leader"),
        (b'{"error":"no leader","code":14,"message":"no leader"}', 14, "no leader"),
        (b'{"result":[]}', -1, "no result"),
        (b"{}", -1, "no result"),
        (b"[]", -1, "not a message of a watch"),
        (b"garbage", -1, "not a message of a watch"),
    ],
)
async def test_what_ends_a_watch_says_why(line: bytes, code: int, message: str) -> None:
    with pytest.raises(EtcdError, match=message) as caught:
        await anext(client(Played([line + b"\n"])).watch(b"/services/", 1))
    assert caught.value.code == code


@pytest.mark.asyncio
async def test_a_refusal_without_an_end_of_line_is_read_too() -> None:
    played = Played([b'{"error":"invalid auth token",', b'"code":16,"message":"invalid auth token"}'], status=401)
    with pytest.raises(EtcdError, match="invalid auth token") as caught:
        await anext(client(played).watch(b"/services/", 1))
    assert caught.value.code == UNAUTHENTICATED


@pytest.mark.asyncio
async def test_a_line_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_client, "LINE_BYTES_MAX", 1000)
    with pytest.raises(EtcdError, match="too long"):
        await anext(client(Played([b"x" * 600, b"x" * 600])).watch(b"/services/", 1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["result", "error", "code", "grpc_code", "message"]), inner)
    ),
    max_leaves=8,
)


@given(st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()), st.sampled_from([200, 500]))
def test_whatever_comes_is_an_answer_or_an_etcd_error(data: bytes, status: int) -> None:
    async def both() -> None:
        with contextlib.suppress(EtcdError):
            assert isinstance(await client(Played(Reply(status, {}, data))).once("/v3/a", {}), dict)
        with contextlib.suppress(EtcdError):
            async for result in client(Played([data + b"\n"], status=status)).watch(b"/services/", 1):
                assert isinstance(result, dict)

    asyncio.run(both())
