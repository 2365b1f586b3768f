"""Whatever is sent to the control API: an answer that says what is wrong, never a fault of ours, and it goes on."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead.control import api as api_module
from fairlead.control.api import ControlApi
from fairlead.control.feed_server import FeedServer
from fairlead.control.push import Book
from tests.certificates import Authority
from tests.control.serving import SERVICES, VIRTUAL_SERVICES, Client, api_in, service

DEADLINE_S = 20.0


async def raw(port: int, octets: bytes) -> bytes:
    """All that comes until the connection is closed; empty where it is cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(octets)
        async with asyncio.timeout(DEADLINE_S):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def request(method: str, path: str, headers: dict[str, bytes], body: bytes | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1"), b"Host: localhost", b"Connection: close"]
    lines += [name.encode() + b": " + value for name, value in headers.items()]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body or b""])


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


HEADERS = (
    "Fairlead-Change-Cause", "Fairlead-Confirm", "Impersonate-User", "Impersonate-Group", "Expect", "User-Agent",
    "Authorization", "Accept", "Cookie", "X-Anything",
)  # fmt: skip


@pytest.mark.asyncio
async def test_a_header_that_is_not_utf8_is_refused_and_breaks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once it was written into the history, the store refused every further write."""
    made = json.dumps(service("web")).encode()
    async with api_in(tmp_path) as (api, client):
        for name in HEADERS:
            for value in (b"\xff\xfe", b"\xed\xa0\x80"):
                for method, path, body in (("GET", SERVICES, None), ("POST", SERVICES, made), ("GET", "/none", None)):
                    answer = await raw(api.port, request(method, path, {name: value}, body))
                    assert status(answer) == 400, (name, value, answer)
                    assert f"header {name} is not UTF-8".encode() in answer
        answer = await raw(api.port, request("POST", SERVICES, {"Fairlead-Change-Cause": "wörter".encode()}, made))
        assert status(answer) == 201, answer
        await client.post(SERVICES, service("next"))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.asyncio
async def test_a_body_that_is_not_compressed_as_it_says_is_refused_and_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(b"0" * (64 << 20), 9)
    async with api_in(tmp_path) as (api, _):
        for encoding, body, code in (("gzip", b"xxx", 400), ("deflate", b"xxx", 400), ("gzip", bomb, 413),
                                     ("gzip", gzip.compress(json.dumps(service("web")).encode()), 201)):  # fmt: skip
            sent = {"Content-Encoding": encoding.encode(), "Content-Type": b"application/json"}
            answer = await raw(api.port, request("POST", SERVICES, sent, body))
            assert status(answer) == code, (encoding, answer)
            assert code == 201 or b'"kind":"Status"' in answer


@pytest.mark.asyncio
async def test_tls_handshakes_that_stall_and_connections_that_say_nothing_after_one_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "HANDSHAKE_S", 0.3)
    monkeypatch.setattr(api_module, "FIRST_REQUEST_S", 0.6)
    authority = Authority()
    for name, text in zip(("chain.pem", "key.pem"), authority.issue("localhost"), strict=True):
        (tmp_path / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    async with api_in(tmp_path) as (api, client):
        port = await api.start("127.0.0.1", 0, context)
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        sent = (b"", hello[:1], hello, b"GET / HTTP/1.1\r\n")
        answers = await asyncio.gather(*(raw(port, octets) for octets in sent))
        assert all(b"HTTP" not in answer for answer in answers)
        trusting = ssl.create_default_context(cadata=authority.pem)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.read() == b"", "it was finished, and nothing was asked"
        writer.close()
        await client.get("/readyz")


# --- at random ------------------------------------------------------------------------------------------------------

STEPS = st.sampled_from([
    "api", "apis", "v1", "namespaces", "default", "services", "web", "status", "networking.istio.io", "virtualservices",
    "rbac.authorization.k8s.io", "clusterroles", "secrets", "pods", "events", "fairlead", "feed", "ack", "use", "say",
    "health", "leave", "enter", "tokens", "certificates", "history", "rollback", "confirmations", "openapi", "v2", "v3",
    "authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "authentication.k8s.io", "..", "",
    ".", "%2f", "%2e%2e", "%00", "%ff", "%ed%a0%80", "%F0%9F%98%80", "A_", "x" * 300, "*", "-1", "{name}", "a:b",
    "a;b", "%",
]) | st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="#?"), max_size=6)  # fmt: skip
PATHS = st.lists(STEPS, max_size=8).map(lambda steps: "/" + "/".join(steps)) | st.sampled_from(
    [SERVICES, f"{SERVICES}/web", f"{SERVICES}/web/status", VIRTUAL_SERVICES, f"{VIRTUAL_SERVICES}/v",
     "/api/v1/secrets"]
)  # fmt: skip
VALUES = st.sampled_from(
    ["", "0", "1", "true", "-1", "9" * 18, "9" * 40, "%D9%A3", "%C2%B2", "%ff", "%00", "e30", "bnVsbA", "All",
    "x" * 900,
     "a=b", "a%3Db,!c", "a+in+(", "(" * 500, "metadata.name%3Dweb", "a.b.c!%3D", "Exact", "NotOlderThan", "a in (b,c)",
     "eyJ2ZXJzaW9uIjo5OTk5OTk5OTk5OTk5OTk5OTk5OTksIm5hbWVzcGFjZSI6IiIsIm5hbWUiOiIifQ"]
)  # fmt: skip
QUERIES = st.dictionaries(
    st.sampled_from(
        ["labelSelector", "fieldSelector", "continue", "limit", "resourceVersionMatch", "dryRun", "fieldManager", "uid",
         "force", "fieldValidation", "pretty", "timeoutSeconds", "propagationPolicy", "gracePeriodSeconds", "namespace",
         "workload", "role", "since", "meshPort", "ports", "labels", "ready", "includeObject", "revision", "%ff"]
    ),
    VALUES, max_size=4,
).map(lambda query: "&".join(f"{name}={value}" for name, value in query.items()))  # fmt: skip
TEXTS = st.text(max_size=8) | st.sampled_from(["default", "web", "x" * 300, "\0", "../x", "\u202e", "v1", "Service"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
FIELDS = st.sampled_from(
    ["apiVersion", "kind", "metadata", "name", "namespace", "generateName", "labels", "annotations", "ownerReferences",
     "finalizers", "managedFields", "spec", "rules", "subjects", "roleRef", "data", "stringData", "ports", "http",
     "hosts",
     "selector", "op", "path", "from", "value", "$patch", "workload", "version", "reasons", "csr", "serviceAccount",
     "ttl"]
)  # fmt: skip
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS | TEXTS, inner, max_size=5),
    max_leaves=12,
)
OPERATIONS = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "copy", "move", "remove", "replace", "test", "x"])},
        optional={"path": st.sampled_from(["", "/", "/metadata", "/metadata/labels/a", "/spec/ports/-", "/spec/ports/0",
                                           "/spec/ports/9", "/~2", "x", "/metadata/labels"]),
                  "from": st.sampled_from(["", "/spec", "/metadata", "/spec/ports/0", "/metadata/labels"]),
                  "value": JSON},
    ),
    max_size=6,
)  # fmt: skip
BODIES = (
    st.none() | st.binary(max_size=40)
    | (JSON | OPERATIONS).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
)  # fmt: skip
TYPES = st.sampled_from([
    b"application/json", b"application/yaml", b"application/merge-patch+json", b"application/json-patch+json", b"x",
    b"application/strategic-merge-patch+json", b"application/apply-patch+yaml",
    b"application/vnd.kubernetes.protobuf", b"",
])  # fmt: skip
MORE = st.dictionaries(
    st.sampled_from([*HEADERS, "Impersonate-Extra-x", "Content-Encoding", "If-Match", "Range", "Origin"]),
    st.binary(max_size=12).filter(lambda value: not set(value) & set(b"\r\n\0")) | st.sampled_from(
        [b"Bearer x", b"Basic eDp5", b"gzip", b"100-continue", b"application/json;as=Table;v=v1;g=meta.k8s.io",
        b"%ff"]),
    max_size=2,
)  # fmt: skip


def void(_: object) -> None:
    """For callbacks that give nothing."""


def test_whatever_is_asked_is_answered_and_is_no_fault_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def with_feed(api: ControlApi) -> None:
        feed = FeedServer(Book("e"), lambda request, ns, name: void(api.authorize(request, ns, name)), lambda: None)
        api.add_routes(feed.routes())

    with asyncio.Runner() as runner:
        entered = api_in(tmp_path, prepare=with_feed)
        api, client = runner.run(entered.__aenter__())
        runner.run(client.post(SERVICES, service("web")))

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]), PATHS, QUERIES, TYPES,
               BODIES, MORE)  # fmt: skip
        def ask(method: str, path: str, query: str, kind: bytes, body: bytes | None, more: dict[str, bytes]) -> None:
            if method == "GET" and path.rstrip("/") == "/fairlead/v1/feed":
                return  # it has no end
            caplog.clear()
            target = f"{path}?{query}" if query else path
            answer = runner.run(raw(api.port, request(method, target, {"Content-Type": kind, **more}, body)))
            code = status(answer)
            assert 200 <= code < 600 and code != 500, (target, answer)
            severe = [one for one in caplog.records if one.levelno >= logging.ERROR or one.exc_info]
            wrong = [record.getMessage() for record in severe]
            assert not wrong, (target, wrong)

        try:
            ask()
            runner.run(_still_works(client))
        finally:
            runner.run(entered.__aexit__(None, None, None))


async def _still_works(client: Client) -> None:
    made: Any = await client.post(SERVICES, service("last"))
    assert made["metadata"]["name"] == "last"
