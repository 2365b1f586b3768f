"""Real HTTP/2 and gRPC clients through two sidecars with mutual TLS between them.

By port: a TCP service (relayed as it is), a service of HTTP/2, one of gRPC; and TLS of the app's own with ALPN.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.pair import Pair, run, servers, start_app
from tests.servers import free_ports

BIG = 3_000_000
PORTS = ("tcp", "http2", "grpc")
"""What the manifest says of the service's port."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with servers(tmp_path_factory.mktemp("http2")) as processes:
        folder = processes.folder
        http, _ = start_app(processes)
        (folder / "www").mkdir()
        (folder / "www" / "small.txt").write_bytes(b"small")
        (folder / "www" / "big.bin").write_bytes(bytes(range(256)) * (BIG // 256))
        plain, secure, rpc = free_ports(3)
        common = [
            "nghttpd",
            "-a",
            "127.0.0.1",
            "-d",
            str(folder / "www"),
            "--trailer",
            "x-trailer: yes",
            "--echo-upload",
        ]
        processes.start("plain", [*common, "--no-tls", str(plain)], [plain])
        keys = [str(folder / "server.key"), str(folder / "server.pem")]
        processes.start("secure", [*common, str(secure), *keys], [secure])
        processes.start("grpc", [sys.executable, "-P", str(Path(__file__).with_name("grpc_app.py")), str(rpc)], [rpc])
        services = {f"web-{port}": (port, plain) for port in PORTS} | {f"rpc-{port}": (port, rpc) for port in PORTS}
        made = Pair(processes, http, {**services, "secure": ("tcp-secure", secure)})
        yield made
        made.said_nothing_bad()


# --- HTTP/2 ---------------------------------------------------------------------------------------------------------


def curl(*arguments: str, stdin: bytes = b"") -> bytes:
    return run("curl", "--silent", "--show-error", "--max-time", "30", *arguments, stdin=stdin)


@pytest.mark.parametrize("port", PORTS)
def test_curl_by_prior_knowledge_gets_large_bodies_and_uploads(pair: Pair, port: str) -> None:
    url = f"http://127.0.0.1:{pair.listen[f'web-{port}']}"
    prior = "--http2-prior-knowledge"
    assert curl(prior, f"{url}/big.bin") == bytes(range(256)) * (BIG // 256)
    body = b"0123456789" * 100_000
    assert curl(prior, "--data-binary", "@-", f"{url}/echo", stdin=body) == body


def test_curl_and_the_app_agree_on_http_2_by_alpn_and_share_one_connection_through_the_pair(pair: Pair) -> None:
    where = f"server.bench:443:127.0.0.1:{pair.listen['secure']}"
    to = ("--http2", "--cacert", str(pair.folder / "ca.pem"), "--connect-to", where)
    urls = [part for _ in range(10) for part in ("-o", "/dev/null", "https://server.bench/small.txt")]
    said = curl(*to, "-w", "%{num_connects} %{http_version} %{http_code}\n", *urls).decode().splitlines()
    assert said == ["1 2 200", *["0 2 200"] * 9]
    assert curl(*to, "https://server.bench/big.bin") == bytes(range(256)) * (BIG // 256)


@pytest.mark.parametrize("port", PORTS)
def test_h2load_gets_every_answer_of_many_streams_on_few_connections(pair: Pair, port: str) -> None:
    url = f"http://127.0.0.1:{pair.listen[f'web-{port}']}/small.txt"
    text = run("h2load", "-n5000", "-c10", "-m50", url).decode()
    assert "5000 succeeded, 0 failed, 0 errored, 0 timeout" in text, text


NODE = """
const http2 = require('http2');
const session = http2.connect(`http://127.0.0.1:${process.argv[1]}`);
let left = 100, trailers = 0;
for (let n = 0; n < 100; n++) {
  const stream = session.request({ ':path': '/small.txt' });
  let text = '';
  stream.on('trailers', (got) => { if (got['x-trailer'] === 'yes') trailers++; });
  stream.on('data', (part) => text += part);
  stream.on('end', () => {
    if (text !== 'small') throw new Error(text);
    if (--left === 0) { console.log(`${trailers} trailers`); session.destroy(); }
  });
  stream.end();
}
"""


@pytest.mark.parametrize("port", PORTS)
def test_nodes_http2_client_has_a_hundred_streams_and_their_trailers(pair: Pair, port: str) -> None:
    assert run("node", "-e", NODE, str(pair.listen[f"web-{port}"])) == b"100 trailers\n"


# --- gRPC -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=PORTS)
def channel(request: pytest.FixtureRequest, pair: Pair) -> Iterator[Any]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{pair.listen[f'rpc-{request.param}']}", options) as made:
        yield made


def test_grpc_unary_calls_with_metadata_large_messages_and_an_error_with_its_text(channel: Any) -> None:
    call = channel.unary_unary("/test.Test/Echo")
    answer, about = call.with_call(b"hello", metadata=(("x-ask", "value"),), timeout=10)
    assert answer == b"hello"
    assert ("x-head", "value") in about.initial_metadata()
    assert {("x-trailer", "value"), ("x-raw-bin", b"\0\xff")} <= set(about.trailing_metadata())
    large = bytes(range(256)) * 20_000
    assert call(large, timeout=20) == large
    assert [future.result(10) for future in [call.future(b"%d" % n) for n in range(200)]] == [
        b"%d" % n for n in range(200)
    ]
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test.Test/Fail")(b"", timeout=10)
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not now: ünready")
    with pytest.raises(grpc.RpcError) as unknown:
        channel.unary_unary("/test.Test/Nothing")(b"", timeout=10)
    assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_grpc_streams_in_both_directions(channel: Any) -> None:
    answers = list(channel.unary_stream("/test.Test/Count")(b"5000", timeout=30))
    assert [int(answer.rstrip(b".")) for answer in answers] == list(range(5000))
    parts = (b"z" * 10_000 for _ in range(500))
    assert channel.stream_unary("/test.Test/Total")(parts, timeout=30) == b"5000000"

    turn = threading.Semaphore(1)

    def questions() -> Iterator[bytes]:
        for number in range(100):
            turn.acquire()
            yield b"question %d" % number

    heard = 0
    for number, answer in enumerate(channel.stream_stream("/test.Test/Chat")(questions(), timeout=30)):
        assert answer == (b"question %d" % number)[::-1]
        heard += 1
        turn.release()  # each question follows the answer before it
    assert heard == 100


def test_grpc_deadlines_and_cancellations_reach_the_server(channel: Any) -> None:
    def cancelled() -> int:
        return int(channel.unary_unary("/test.Test/Cancellations")(b"", timeout=10))

    before = cancelled()
    wait = channel.unary_unary("/test.Test/Wait")
    with pytest.raises(grpc.RpcError) as late:
        wait(b"", timeout=0.2)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    call = wait.future(b"")
    stream = channel.unary_stream("/test.Test/Count")(b"1000000")
    assert next(stream).startswith(b"0.")
    call.cancel()
    stream.cancel()
    assert call.cancelled()
    while cancelled() < before + 2:
        pass  # bounded by the deadline of each question, and by the test's own
