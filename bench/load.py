"""Clients: wrk for HTTP/1.1, h2load for HTTP/2 and gRPC, and two of our own: paced, and with a client certificate.

wrk has no rate, and h2load paces by bursts of all its connections, so that they wait for one another. The paced client
is plain Python on blocking sockets and select(2): one request at a time is due, each on a connection that is idle, at
even distances. Its own cost (some tens of microseconds) goes out when the direct measurement is subtracted. wrk and
h2load have no client certificates: new mutual TLS connections are made by Python processes of ours, never resumed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from bench.machine import CLIENT_CORE, ROOT

HOST = "web.default.svc.cluster.local"
HEADERS = (
    f"Host: {HOST}",
    "User-Agent: bench/1.0 (a client like any other)",
    "Accept: application/json, text/plain, */*",
    "Accept-Language: en-GB,en;q=0.9",
    "Cookie: session=0123456789abcdef0123456789abcdef",
    "X-Tenant: 42",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)
UPLOAD_LUA = """
wrk.method = "POST"
wrk.body = string.rep("x", 1048576)
wrk.headers["Content-Type"] = "application/octet-stream"
"""
GRPC_MESSAGE = b"\0\0\0\0\x64" + b"\n\x62" + b"q" * 98  # one protobuf field of 98 bytes, length-prefixed
PACED_CONNECTIONS = 16
TURN_S = 0.25


class LoadError(Exception):
    """A client saw answers that are not what was asked for."""


def wrk(
    port: int,
    path: str,
    connections: int,
    seconds: int,
    folder: Path,
    more: tuple[str, ...] = (),
    upload: bool = False,
    core: str = CLIENT_CORE,
) -> dict[str, float]:
    """Requests as fast as they are answered; `seconds` is whole, as wrk wants it."""
    headers = [part for header in (*HEADERS, *more) for part in ("-H", header)]
    command = ["taskset", "-c", core, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *headers]
    if upload:
        script = folder / "upload.lua"
        script.write_text(UPLOAD_LUA)
        command += ["-s", str(script)]
    text = subprocess.run([*command, f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True).stdout
    found = re.search(r"(\d+) requests in ([\d.]+)s", text)
    errors = re.search(r"Socket errors: (.*)", text)
    if not found or int(found[1]) == 0 or "Non-2xx" in text:
        raise LoadError(f"wrk {path}: {text.strip()[-600:]}")
    return {
        "requests": float(found[1]),
        "per_s": int(found[1]) / float(found[2]),
        "p50_ms": _duration_ms(text, "50%"),
        "p99_ms": _duration_ms(text, "99%"),
        "socket_errors": float(sum(int(n) for n in re.findall(r"\d+", errors[1]))) if errors else 0.0,
    }


def _duration_ms(text: str, percentile: str) -> float:
    found = re.search(rf"^\s+{percentile}\s+([\d.]+)(us|ms|s)", text, re.MULTILINE)
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]] if found else float("nan")


def h2load(
    port: int, path: str, seconds: int, folder: Path, grpc: bool = False, connections: int = 16, streams: int = 4
) -> dict[str, float]:
    """HTTP/2 by prior knowledge: `streams` requests on each of `connections` at any time. With `grpc`, unary calls.

    Without `seconds`: two thousand, to warm up.
    """
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    headers = [f":authority: {HOST}", *HEADERS[1:]]
    command = ["taskset", "-c", CLIENT_CORE, "h2load", f"-c{connections}", f"-m{streams}"]
    command += [f"-D{seconds}"] if seconds else ["-n2000"]
    if grpc:
        message = folder / "message.bin"
        message.write_bytes(GRPC_MESSAGE)
        headers = [headers[0], "content-type: application/grpc", "te: trailers", *headers[1:]]
        command += ["-d", str(message)]
    command += [part for header in headers for part in ("-H", header)]
    command += ["--log-file", str(log), f"http://127.0.0.1:{port}{path}"]
    text = subprocess.run(command, capture_output=True, text=True).stdout
    found = re.search(r"finished in ([\d.]+)(m?)s.*\nrequests: .*, (\d+) succeeded, (\d+) failed, (\d+) errored", text)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if not found or not codes or found[3] == "0" or codes[2] != "0" or codes[3] != "0" or codes[4] != "0":
        raise LoadError(f"h2load {path}: {text.strip()[-600:]}")
    took = float(found[1]) / (1000 if found[2] else 1)
    times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    return {
        "requests": float(found[3]),
        "per_s": int(found[3]) / took,
        "p50_ms": _quantile(times, 0.5) / 1000,
        "p99_ms": _quantile(times, 0.99) / 1000,
        "socket_errors": float(found[4]) + float(found[5]),
    }


def _quantile(ordered: list[int], share: float) -> float:
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))]) if ordered else float("nan")


def added(port: int, direct: int, path: str, rate: float, seconds: float) -> dict[str, float]:
    """What the proxy at `port` adds to the latency of the backend at port `direct`, both paced alike, `seconds` each.

    They take turns, so that what disturbs the machine hits both. Percentiles are of each one's own requests.
    """
    through: list[int] = []
    beside: list[int] = []
    for _ in range(max(1, round(seconds / TURN_S))):
        beside += paced(direct, path, rate, TURN_S)
        through += paced(port, path, rate, TURN_S)
    found = {"requests": float(len(through)), "per_s": rate, "socket_errors": 0.0}
    for name, times in (("", through), ("direct_", beside)):
        times.sort()
        found |= {f"{name}p50_ms": _quantile(times, 0.5) / 1e6, f"{name}p99_ms": _quantile(times, 0.99) / 1e6}
    return found | {f"added_{key}": found[key] - found[f"direct_{key}"] for key in ("p50_ms", "p99_ms")}


def paced(port: int, path: str, rate: float, seconds: float, connections: int = PACED_CONNECTIONS) -> list[int]:
    """Nanoseconds that each of `rate` GET requests a second took, sent at even distances.

    A request counts from when it is sent (a late timer is not the proxy's), or from when it was due if all connections
    were waiting for the proxy.
    """
    head = "\r\n".join((f"GET {path} HTTP/1.1", *HEADERS, "", "")).encode()
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    for one in sockets:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.sendall(head)  # every connection has its upstream connection before it counts
        answer(one)
    idle = deque(sockets)
    sent: dict[socket.socket, int] = {}
    taken: list[int] = []
    gap = int(1e9 / rate)
    clock = time.perf_counter_ns
    due = clock()
    end = due + int(seconds * 1e9)
    behind = False
    while due < end or sent:
        now = clock()
        while idle and due <= now and due < end:
            one = idle.popleft()
            sent[one] = due if behind else clock()
            one.sendall(head)
            due += gap
        behind = due <= now and due < end  # every connection waits: what comes next counts from when it was due
        wait = max(0.0, (due - clock()) / 1e9) if due < end and not behind else 1.0
        for one in select.select(list(sent), (), (), wait)[0]:
            answer(one)
            taken.append(clock() - sent.pop(one))
            idle.append(one)
    for one in sockets:
        one.close()
    return taken


def answer(one: socket.socket) -> None:
    """Read one whole answer with a Content-Length or chunks; anything but 200 is an error."""
    got = one.recv(65536)
    while b"\r\n\r\n" not in got:
        more = one.recv(65536)
        if not more:
            raise LoadError(f"connection closed within a head: {got[:200]!r}")
        got += more
    if not got.startswith(b"HTTP/1.1 200"):
        raise LoadError(f"paced: {got[:200]!r}")
    head, _, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    while len(body) < int(length[1]) if length else not body.endswith(b"0\r\n\r\n"):
        more = one.recv(65536)
        if not more:
            raise LoadError("connection closed within a body")
        body += more


def tls(folder: Path, port: int, seconds: int) -> dict[str, float]:
    """New mutual TLS connections, a full handshake and one request each, as fast as four threads make them."""
    done = subprocess.run(own(folder, port, "new", seconds), capture_output=True, text=True)
    if done.returncode:
        raise LoadError(f"tls: {done.stderr[-600:]}")
    times = [int(line) for line in done.stdout.split()]
    return {
        "requests": float(len(times)),
        "per_s": len(times) / seconds,
        "p50_ms": _quantile(times, 0.5) / 1e6,
        "p99_ms": _quantile(times, 0.99) / 1e6,
        "socket_errors": 0.0,
    }


@contextlib.contextmanager
def held(folder: Path, port: int, count: int, with_tls: bool) -> Iterator[None]:
    """`count` connections, each of which has had one request answered, open for the length of the block."""
    how = "hold-tls" if with_tls else "hold"
    with subprocess.Popen(
        own(folder, port, how, count), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "held":
            raise LoadError(f"could not hold {count} connections to port {port}")
        yield
        process.communicate("", timeout=60)


def hold(folder: Path, port: int, count: int, with_tls: bool) -> None:
    """So many connections, opened and closed again."""
    with held(folder, port, count, with_tls):
        pass


def own(folder: Path, port: int, how: str, count: int) -> list[str]:
    """The command that runs `main` on the client's core."""
    script = f"import sys; sys.path.append({str(ROOT / 'build' / 'view')!r}); from bench import load; load.main()"
    return ["taskset", "-c", CLIENT_CORE, sys.executable, "-P", "-c", script, str(folder), str(port), how, str(count)]


def main() -> None:
    """What `own` starts: FOLDER PORT new|hold|hold-tls|serve SECONDS, COUNT or GIB."""
    folder, port, how, count = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    if how == "serve":
        serve(port, count << 30)
        return
    context = None if how == "hold" else client_context(folder)
    head = "\r\n".join(("GET /api/items HTTP/1.1", *HEADERS, "", "")).encode()

    def opened() -> socket.socket:
        one = socket.create_connection(("127.0.0.1", port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the request follows the handshake's last message
        if context is not None:
            one = context.wrap_socket(one, server_hostname=f"outbound_.80_._.{HOST}")
        one.sendall(head)
        answer(one)
        return one

    def opened_until(end: float) -> list[int]:
        took = []
        while time.monotonic() < end:
            began = time.perf_counter_ns()
            opened().close()
            took.append(time.perf_counter_ns() - began)
        return took

    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # so that client and proxy work at the same time
        if how == "new":
            times = list(pool.map(opened_until, [time.monotonic() + count] * 4))
            print(*sorted(one for each in times for one in each), sep="\n")
            return
        connections = list(pool.map(lambda _: opened(), range(count)))
    print("held", flush=True)
    sys.stdin.read()
    for one in connections:
        one.close()


def serve(port: int, size: int) -> None:
    """A server of large bodies: answers GET with `size` octets, and anything else once its body is read."""
    block = memoryview(bytearray(1 << 20))

    def answered(one: socket.socket) -> None:
        with contextlib.suppress(OSError), one:
            head = b""
            while more := one.recv(65536):
                head += more
                if b"\r\n\r\n" not in head:
                    continue
                head, _, body = head.partition(b"\r\n\r\n")
                length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
                left = int(length[1]) - len(body) if length else 0
                if left and b"\r\nexpect:" in head.lower():
                    one.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                while left > 0:
                    got = one.recv_into(block, min(left, len(block)))
                    if not got:
                        return
                    left -= got
                one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size if head.startswith(b"GET") else 0))
                for _ in range(size >> 20 if head.startswith(b"GET") else 0):
                    one.sendall(block)
                head = b""

    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            threading.Thread(target=answered, args=(listener.accept()[0],), daemon=True).start()


def client_context(folder: Path) -> ssl.SSLContext:
    """TLS 1.3 with the client's certificate; the server's chain is checked, its name is a SPIFFE id and is not."""
    made = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    made.load_cert_chain(folder / "client.pem", folder / "client.key")
    made.check_hostname = False
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    return made
