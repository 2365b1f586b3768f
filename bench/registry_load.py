"""A large registry from the real etcd and the real Consul, by the DNS role: load, one change to the answer, memory.

Run as `python bench/registry_load.py [etcd|consul|both] [services] [changes]`; each service has ten endpoints, in
Consul with checks, on CONSUL_NODES nodes (100). The servers come from tests/get-servers.sh. A change is timed from
before it is put into the store (etcd: the instance's address; Consul: its check, its address, an instance that comes,
one that goes) to the first DNS answer that has it; `store_cpu_ms` and `cpu_ms` are the processor time of the store and
of the DNS role for each change, with the questions that wait for it.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):
    sys.path.append(str(ROOT / "build" / "view"))  # where `bench` is found as a package, and the checkout's dns/ is not

from bench.dns import free_port, memory_mb, peak_mb, processor_seconds  # noqa: E402
from bench.dns_registry import addresses  # noqa: E402

SERVICES, EACH, CHANGES = 10_000, 10, 200
BIN = Path(os.environ.get("SERVERS", ROOT / ".servers")) / "bin"
DEADLINE_S = 100.0


Change = Callable[[int, int], tuple[bytes, bool]]


def address(service: int, number: int, turn: int = 0) -> str:
    index = service * EACH + number
    return f"10.{64 * turn + (index >> 16)}.{index >> 8 & 255}.{index & 255}"


def packed(service: int, turn: int) -> bytes:
    """Address of the first instance, as it stands in an answer."""
    return socket.inet_aton(address(service, 0, turn))


class Store(ABC):
    """A real server in a folder of its own, and its API over one connection."""

    name = ""
    flags: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._connection: http.client.HTTPConnection | None = None

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def is_ready(self) -> bool: ...

    @abstractmethod
    def fill(self, services: int) -> None: ...

    @abstractmethod
    def changes(self) -> dict[str, Change]:
        """By name: what puts turn T of service N's first instance into the store, and says which address is then in
        the answer, or (False) not in it."""

    def start(self) -> None:
        log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder)
        end = time.monotonic() + 30
        while True:
            try:
                if self.is_ready():
                    return
            except (OSError, http.client.HTTPException):
                self._connection = None
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.1)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self._connection.request(method, path, json.dumps(body).encode() if body is not None else b"")
        answer = self._connection.getresponse()
        octets = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self.name}: {path}: {answer.status}: {octets[:300]!r}")
        return json.loads(octets) if octets.strip() else None


class Etcd(Store):
    name, flags = "etcd", ("--etcd",)

    def command(self) -> list[str]:
        url, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{free_port()}"
        return [str(BIN / "etcd"), "--data-dir", str(self.folder / "data"), "--listen-client-urls", url,
                "--advertise-client-urls", url, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", f"default={peer}", "--unsafe-no-fsync"]  # fmt: skip

    def is_ready(self) -> bool:
        return bool(self.call("GET", "/health"))

    def _put(self, service: int, number: int, turn: int = 0) -> dict[str, Any]:
        value = {"host": address(service, number, turn), "port": 8080, "labels": {"version": "1"}, "zone": "a"}
        key = f"/services/svc{service}/svc{service}-{number}"
        return {"key": _b64(key), "value": _b64(json.dumps(value))}

    def fill(self, services: int) -> None:
        for some in _batches(services, 128):
            self.call("POST", "/v3/kv/txn", {"success": [{"request_put": self._put(s, n)} for s, n in some]})

    def changes(self) -> dict[str, Change]:
        def moved(service: int, turn: int) -> tuple[bytes, bool]:
            self.call("POST", "/v3/kv/put", self._put(service, 0, turn))
            return packed(service, turn), True

        return {"address": moved}


class Consul(Store):
    name, flags = "consul", ("--consul",)
    NODES = int(os.environ.get("CONSUL_NODES", 100))

    def command(self) -> list[str]:
        server, lan = free_port(), free_port()
        settings = {
            "server": True, "bootstrap_expect": 1, "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
            "data_dir": str(self.folder / "data"), "node_name": "bench", "disable_update_check": True,
            "performance": {"raft_multiplier": 1}, "limits": {"http_max_conns_per_client": 200},
            "ports": {"http": self.port, "server": server, "serf_lan": lan, "serf_wan": -1, "dns": -1, "grpc": -1},
        }  # fmt: skip
        (self.folder / "consul.json").write_text(json.dumps(settings))
        return [str(BIN / "consul"), "agent", "-config-file", str(self.folder / "consul.json")]

    def is_ready(self) -> bool:
        return len(self.call("GET", "/v1/status/leader") or "") > 2 and bool(self.call("GET", "/v1/catalog/nodes"))

    def _entry(self, service: int, number: int, turn: int = 0, status: str = "passing") -> list[dict[str, Any]]:
        own, node = f"svc{service}-{number}", f"n{(service * EACH + number) % self.NODES}"
        instance = {"ID": own, "Service": f"svc{service}", "Address": address(service, number, turn), "Port": 8080,
                    "Tags": ["http", "version=1"], "Meta": {"zone": "a"}}  # fmt: skip
        check = {"Node": node, "CheckID": f"service:{own}", "Name": "alive", "Status": status, "Output": "HTTP 200 OK",
                 "ServiceID": own}  # fmt: skip
        return [{"Service": {"Verb": "set", "Node": node, "Service": instance}},
                {"Check": {"Verb": "set", "Check": check}}]  # fmt: skip

    def fill(self, services: int) -> None:
        for node in range(self.NODES):
            self.call("PUT", "/v1/catalog/register", {"Node": f"n{node}", "Address": f"10.255.0.{node}"})
        for some in _batches(services, 32):
            self.call("PUT", "/v1/txn", [one for s, n in some for one in self._entry(s, n)])

    def changes(self) -> dict[str, Change]:
        def moved(service: int, turn: int) -> tuple[bytes, bool]:
            self.call("PUT", "/v1/txn", self._entry(service, 0, turn)[:1])
            return packed(service, turn), True

        def judged(service: int, turn: int) -> tuple[bytes, bool]:
            self.call("PUT", "/v1/txn", self._entry(service, 0, turn, "critical" if turn else "passing")[1:])
            return packed(service, 0), not turn

        def extra(service: int) -> tuple[str, str, str]:
            host = f"172.{16 + (service >> 16)}.{service >> 8 & 255}.{service & 255}"
            return f"n{service % self.NODES}", f"svc{service}-extra", host

        def came(service: int, _turn: int) -> tuple[bytes, bool]:
            node, own, host = extra(service)
            instance = {"ID": own, "Service": f"svc{service}", "Port": 8080, "Address": host}
            self.call("PUT", "/v1/txn", [{"Service": {"Verb": "set", "Node": node, "Service": instance}}])
            return socket.inet_aton(host), True

        def went(service: int, _turn: int) -> tuple[bytes, bool]:
            node, own, host = extra(service)
            self.call("PUT", "/v1/catalog/deregister", {"Node": node, "ServiceID": own})
            return socket.inet_aton(host), False

        return {"check": judged, "address": moved, "new": came, "gone": went}


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _batches(services: int, size: int) -> Iterator[list[tuple[int, int]]]:
    every = [(service, number) for service in range(services) for number in range(EACH)]
    for at in range(0, len(every), size):
        yield every[at : at + size]


def measure(store: Store, services: int, changes: int) -> dict[str, Any]:
    try:
        return _measured(store, services, changes)
    finally:
        store.stop()


def _measured(store: Store, services: int, changes: int) -> dict[str, Any]:
    start = time.monotonic()
    store.start()
    store.fill(services)
    row: dict[str, Any] = {"store": store.name, "services": services, "endpoints": services * EACH,
                           "filled_s": round(time.monotonic() - start, 1)}  # fmt: skip
    port = free_port()
    command = [sys.executable, "-P", "-c", "import sys; from fairlead.control.cli import main; sys.exit(main())", "dns",
               *store.flags, f"http://127.0.0.1:{store.port}", "--listen", f"127.0.0.1:{port}", "--health", "off",
               "--upstream", "off"]  # fmt: skip
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, cwd="/", env={**os.environ, "FAIRLEAD_LOG_LEVEL": "WARNING"}
    )
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5.0)
            client.connect(("127.0.0.1", port))
            _until(client, services - 1, lambda found: len(found) == EACH)
            row["load_s"] = round(time.monotonic() - start, 1)
            row["loaded_rss_mb"] = round(memory_mb(process.pid), 1)
            row["load_cpu_s"] = round(processor_seconds(process.pid), 1)
            for name, change in store.changes().items():
                first = 0 if name == "check" else 1  # others than those whose check has failed
                spent = (processor_seconds(store.pid), processor_seconds(process.pid))
                taken = [_one(client, change, (step * 7919 + first) % services) for step in range(changes)]
                taken.sort()
                row[f"{name}_store_cpu_ms"] = round(1000 * (processor_seconds(store.pid) - spent[0]) / changes, 1)
                row[f"{name}_cpu_ms"] = round(1000 * (processor_seconds(process.pid) - spent[1]) / changes, 1)
                row[f"{name}_p50_ms"] = round(1000 * statistics.median(taken), 1)
                row[f"{name}_p99_ms"] = round(1000 * taken[int(len(taken) * 0.99)], 1)
                row[f"{name}_worst_ms"] = round(1000 * taken[-1], 1)
        row["rss_mb"], row["peak_mb"] = round(memory_mb(process.pid), 1), round(peak_mb(process.pid), 1)
        return row
    finally:
        process.terminate()
        process.wait()


def _one(client: socket.socket, change: Change, service: int) -> float:
    """Seconds from before a change to the first answer that has it."""
    before = addresses(client, service)
    turns = [turn for turn in range(4) if packed(service, turn) in before]
    turn = turns[0] % 3 + 1 if turns else 0
    start = time.monotonic()
    expected, there = change(service, turn)
    _until(client, service, lambda found: bool(found) and (expected in found) == there)
    taken = time.monotonic() - start
    time.sleep(random.uniform(0, 0.02))  # so that changes do not run in step with what is waited for
    return taken


def _until(client: socket.socket, service: int, good: Callable[[frozenset[bytes]], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            if good(addresses(client, service)):
                return
        except (TimeoutError, ConnectionRefusedError):
            time.sleep(0.05)
        if time.monotonic() > end:
            raise RuntimeError(f"svc{service} is not answered as it should be after {DEADLINE_S:g} s")


def run(which: str = "both", services: int = SERVICES, changes: int = CHANGES) -> list[dict[str, Any]]:
    rows = []
    for kind in (Etcd, Consul):
        if which in ("both", kind.name):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(kind(Path(folder)), services, changes))
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    given = sys.argv[1:]
    run(given[0] if given else "both", *map(int, given[1:3]))


if __name__ == "__main__":
    main()
