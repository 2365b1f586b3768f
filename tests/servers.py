"""Real Consul and etcd for tests: on free ports, in a folder of the test's own, to be killed, frozen and restarted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from fairlead.control.fetch import AiohttpFetch
from fairlead.registry.etcd_values import b64
from fairlead.registry.needs import FetchError

BIN = Path(os.environ.get("SERVERS", Path(__file__).resolve().parent.parent / ".servers")) / "bin"
DEADLINE_S = 20.0
_given: set[int] = set()
"""Ports handed out in this process."""


def program(name: str) -> str:
    path = BIN / name
    assert path.exists(), f"{path} is missing: run `sh tests/get-servers.sh`"
    return str(path)


SHARES = 16
_share = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", ""))) or 0) % SHARES
"""Of the ports, this process' part: test processes at the same time hand out none that another has handed out."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that outgoing connections get, which could take them."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(16000 + _share, 32000, SHARES)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            found.append(port)
    return found


class Server:
    """One process with its data; `url` is where its clients go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.process: asyncio.subprocess.Process | None = None
        self.fetch = AiohttpFetch()

    def command(self) -> list[str]:
        raise NotImplementedError

    async def is_ready(self) -> bool:
        raise NotImplementedError

    async def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command(), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        end = asyncio.get_running_loop().time() + DEADLINE_S
        while True:
            assert self.process.returncode is None, (self.folder / "log").read_text()[-2000:]
            with contextlib.suppress(FetchError):
                if await self.is_ready():
                    return
            assert asyncio.get_running_loop().time() < end, (self.folder / "log").read_text()[-2000:]
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """kill -9."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            await self.process.wait()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def lose_data(self) -> None:
        """While it is not running: the next start is from nothing."""
        shutil.rmtree(self.folder / "data")

    async def close(self) -> None:
        await self.kill()
        await self.fetch.close()


class Consul(Server):
    """`token`: where it is given, ACLs are on, deny by default, and this is the token that may do everything."""

    def __init__(self, folder: Path, token: str = "") -> None:
        super().__init__(folder)
        self.headers = {"X-Consul-Token": token} if token else {}
        http, server, lan = free_ports(3)
        self.url = f"http://127.0.0.1:{http}"
        self.http_port = http
        settings: dict[str, Any] = {
            "server": True,
            "bootstrap_expect": 1,
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "data_dir": str(folder / "data"),
            "node_name": "test",
            "performance": {"raft_multiplier": 1},
            "disable_update_check": True,
            "ports": {"http": http, "server": server, "serf_lan": lan, "serf_wan": -1, "dns": -1, "grpc": -1},
        }
        if token:
            tokens = {"master": token, "agent": token}
            settings["acl"] = {"enabled": True, "default_policy": "deny", "tokens": tokens}
        (folder / "consul.json").write_text(json.dumps(settings))

    def command(self) -> list[str]:
        return [program("consul"), "agent", "-config-file", str(self.folder / "consul.json")]

    async def is_ready(self) -> bool:
        ask, headers = self.fetch.request, self.headers
        leader = await ask("GET", f"{self.url}/v1/status/leader", headers=headers, timeout_s=1.0)
        nodes = await ask("GET", f"{self.url}/v1/catalog/nodes", headers=headers, timeout_s=1.0)
        return leader.status == 200 and len(leader.body) > 4 and nodes.status == 200 and nodes.body.strip() != b"[]"

    async def put(self, path: str, body: Any = None) -> None:
        octets = json.dumps(body).encode() if body is not None else b""
        reply = await self.fetch.request("PUT", self.url + path, headers=self.headers, body=octets)
        assert reply.status == 200, reply.body

    async def get(self, path: str) -> Any:
        return json.loads((await self.fetch.request("GET", self.url + path, headers=self.headers)).body)

    async def register(self, name: str, own: str, port: int, **more: Any) -> None:
        await self.put("/v1/agent/service/register", {"Name": name, "ID": own, "Port": port, **more})

    async def catalog(self, services: Iterable[Mapping[str, Any]], node: str = "far") -> None:
        """Put many instances into the catalog at once (Consul takes 64 a transaction), at a node without an agent,
        which would take out what it does not know."""
        await self.put("/v1/catalog/register", {"Node": node, "Address": "10.0.0.9"})
        left = iter(services)
        while some := list(islice(left, 64)):
            await self.put("/v1/txn", [{"Service": {"Verb": "set", "Node": node, "Service": one}} for one in some])


class Etcd(Server):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.client_port, self.peer_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.client_port}"

    def command(self) -> list[str]:
        peer = f"http://127.0.0.1:{self.peer_port}"
        return [
            program("etcd"), "--name", "test", "--data-dir", str(self.folder / "data"),
            "--listen-client-urls", self.url,
            "--advertise-client-urls", self.url, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"test={peer}", "--unsafe-no-fsync",
        ]  # fmt: skip

    async def is_ready(self) -> bool:
        return (await self.fetch.request("GET", f"{self.url}/health", timeout_s=1.0)).status == 200

    async def call(self, path: str, body: Any) -> Any:
        reply = await self.fetch.request("POST", self.url + path, body=json.dumps(body).encode())
        assert reply.status == 200, reply.body
        return json.loads(reply.body)

    async def put(self, key: str, value: Any) -> int:
        text = value if isinstance(value, str) else json.dumps(value)
        return int((await self.call("/v3/kv/put", {"key": b64(key), "value": b64(text)}))["header"]["revision"])

    async def delete(self, key: str) -> None:
        await self.call("/v3/kv/deleterange", {"key": b64(key)})

    async def value(self, key: str) -> Any:
        import base64

        found = (await self.call("/v3/kv/range", {"key": b64(key)})).get("kvs", [])
        return json.loads(base64.b64decode(found[0]["value"])) if found else None


class EtcdMember(Etcd):
    """One of a cluster."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder)
        self.name = name
        self.cluster = ""

    def command(self) -> list[str]:
        given = super().command()
        given[given.index("--name") + 1] = self.name
        given[given.index("--initial-cluster") + 1] = self.cluster
        return [*given, "--heartbeat-interval", "100", "--election-timeout", "500"]

    async def leads(self) -> bool:
        told = await self.call("/v3/maintenance/status", {})
        return bool(told.get("leader")) and told["leader"] == told["header"]["member_id"]


@contextlib.asynccontextmanager
async def etcd_cluster(folder: Path, size: int = 3) -> AsyncIterator[list[EtcdMember]]:
    """A real cluster on loopback."""
    members = []
    for number in range(size):
        (own := folder / f"etcd{number}").mkdir()
        members.append(EtcdMember(own, f"m{number}"))
    for member in members:
        member.cluster = ",".join(f"{one.name}=http://127.0.0.1:{one.peer_port}" for one in members)
    try:
        await asyncio.gather(*(member.start() for member in members))
        yield members
    finally:
        await asyncio.gather(*(member.close() for member in members))


class ConsulMember(Consul):
    """One of a cluster."""

    def join(self, name: str, members: list[ConsulMember]) -> None:
        path = self.folder / "consul.json"
        settings = json.loads(path.read_text())
        settings |= {
            "node_name": name,
            "node_id": f"00000000-0000-0000-0000-0000000000{members.index(self):02d}",
            "bootstrap_expect": len(members),
            "retry_join": [f"127.0.0.1:{one.lan_port}" for one in members if one is not self],
            "retry_interval": "1s",
            "leave_on_terminate": False,
        }
        path.write_text(json.dumps(settings))

    @property
    def lan_port(self) -> int:
        return int(json.loads((self.folder / "consul.json").read_text())["ports"]["serf_lan"])


@contextlib.asynccontextmanager
async def consul_cluster(folder: Path, size: int = 3) -> AsyncIterator[list[ConsulMember]]:
    """Servers that elect a leader, on loopback."""
    members = []
    for number in range(size):
        (own := folder / f"consul{number}").mkdir()
        members.append(ConsulMember(own))
    for number, member in enumerate(members):
        member.join(f"m{number}", members)
    try:
        await asyncio.gather(*(member.start() for member in members))
        yield members
    finally:
        await asyncio.gather(*(member.close() for member in members))


@contextlib.asynccontextmanager
async def running(server: Server) -> AsyncIterator[Any]:
    try:
        await server.start()
        yield server
    finally:
        await server.close()


def consul(folder: Path, token: str = "") -> contextlib.AbstractAsyncContextManager[Consul]:
    (folder / "consul").mkdir()
    return running(Consul(folder / "consul", token))


def etcd(folder: Path) -> contextlib.AbstractAsyncContextManager[Etcd]:
    (folder / "etcd").mkdir()
    return running(Etcd(folder / "etcd"))
