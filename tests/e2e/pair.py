"""Two sidecars with mutual TLS between them as processes: real servers behind one, real clients before the other.

Everything is started once for a test module, by plain functions: the clients are programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.machine import certificates, memory_mb
from tests.servers import BIN, free_ports, program

FAIRLEAD = str(Path(sys.executable).with_name("fairlead"))
BACKEND = Path(__file__).with_name("backend.py")
HOST = "web.default.svc.cluster.local"
DEADLINE_S = 30.0
NOBODY = 65534
SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: web}}, ports: [{{name: {port_name}, port: {port}, targetPort: {name}}}]}}
---
"""
PODS = """
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  labels: {{app: web}}
  annotations: {{fairlead.dev/address: 127.0.0.1, fairlead.dev/mesh-port: "{mesh}"}}
spec:
  serviceAccountName: server
  containers: [{{name: main, ports: [{ports}]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: client-1, labels: {{app: client}}, annotations: {{fairlead.dev/address: 127.0.0.1}}}}
spec: {{serviceAccountName: client, containers: [{{name: main}}]}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: istio-system}}
spec: {{mtls: {{mode: STRICT}}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: web}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{app: client}}}}}}]}}]
"""


class Processes:
    """Servers of one test module: started, waited for, ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, name: str, command: Sequence[str], ports: Sequence[int], **more: Any) -> subprocess.Popen[bytes]:
        """The command as a process, once all ports listen."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **more)
        self.running.append((name, process))
        end = time.monotonic() + DEADLINE_S
        for port in ports:
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, f"{name} ended:\n{self.log(name)}"
                assert time.monotonic() < end, f"{name} does not listen on port {port}:\n{self.log(name)}"
                time.sleep(0.02)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def close(self) -> None:
        for _, process in reversed(self.running):
            process.send_signal(signal.SIGKILL)
            process.wait()


class Pair:
    """`outbound`: the port by host; `listen[NAME]`: the port before the sidecars of each TCP service."""

    def __init__(self, processes: Processes, http: int, services: Mapping[str, tuple[str, int]]) -> None:
        """`services`: NAME: (name of its port in the manifest, port of its server)."""
        self.processes = processes
        self.folder = folder = processes.folder
        self.mesh, self.outbound, metrics_in, metrics_out = free_ports(4)
        self.listen = dict(zip(services, free_ports(len(services)), strict=True))
        everything = {"web": ("http", http), **services}
        text = "".join(
            SERVICE.format(name=name, port_name=port_name, port=80 if name == "web" else 1000)
            for name, (port_name, _) in everything.items()
        )
        ports = ", ".join(f"{{name: {name}, containerPort: {port}}}" for name, (_, port) in everything.items())
        (folder / "mesh.yaml").write_text(text + PODS.format(mesh=self.mesh, ports=ports))
        if not (folder / "ca.pem").exists():
            certificates(folder)
        self.sidecars = [
            self._sidecar("inbound", "web-1", "server", [self.mesh], "--inbound", f"127.0.0.1:{self.mesh}",
                          "--outbound", "off", "--metrics", f"127.0.0.1:{metrics_in}"),
            self._sidecar("outbound", "client-1", "client", [self.outbound, *self.listen.values()], "--inbound", "off",
                          "--outbound", f"127.0.0.1:{self.outbound}", "--metrics", f"127.0.0.1:{metrics_out}",
                          *(part for name, port in self.listen.items()
                            for part in ("--listen", f"127.0.0.1:{port}={name}.default:1000"))),
        ]  # fmt: skip

    def _sidecar(self, name: str, workload: str, who: str, ports: list[int], *flags: str) -> subprocess.Popen[bytes]:
        folder = self.folder
        command = [FAIRLEAD, "sidecar", "-f", str(folder / "mesh.yaml"), "--workload", f"default/{workload}",
                   "--admin", "off", "--health", "off", "--access-log", str(folder / f"{name}.access"),
                   "--cert", str(folder / f"{who}.pem"), "--key", str(folder / f"{who}.key"),
                   "--ca", str(folder / "ca.pem")]  # fmt: skip
        return self.processes.start(name, [*command, *flags], ports)

    def url(self, path: str = "/") -> str:
        """By the sidecar's outbound port; the Host header says the service."""
        return f"http://127.0.0.1:{self.outbound}{path}"

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self.outbound}"

    def memory_mb(self) -> float:
        return memory_mb([process.pid for process in self.sidecars])

    def said_nothing_bad(self) -> None:
        for name in ("inbound", "outbound"):
            said = self.processes.log(name)
            assert "Traceback" not in said, said


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[Processes]:
    """Nothing yet but a place to start servers in; prints their logs where a test fails."""
    # Clients by the thousand; every process started here inherits it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    made = Processes(folder)
    try:
        yield made
    finally:
        made.close()


def run(*command: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, timeout_s: float = 60.0) -> bytes:
    """A client to its end: what it printed. A failure shows all that it said."""
    path = shutil.which(command[0]) or ""
    assert path, f"{command[0]} is missing: run `sh tests/get-servers.sh`"
    done = subprocess.run(
        [path, *command[1:]], input=stdin, capture_output=True, timeout=timeout_s, env={**os.environ, **(env or {})}
    )
    assert done.returncode == 0, f"{command} exits with {done.returncode}:\n{done.stdout!r}\n{done.stderr.decode()}"
    return done.stdout


def told(answer: bytes) -> Any:
    """What the app saw of a request, as it answered in JSON."""
    return json.loads(answer)


def start_app(processes: Processes) -> tuple[int, int]:
    """The app of `backend.py`: its ports for HTTP and for HTTPS."""
    http, https = free_ports(2)
    folder = processes.folder
    certificates(folder)
    processes.start("app", [sys.executable, "-P", str(BACKEND), str(http), str(https), str(folder)], [http, https])
    return http, https


def start_redis(processes: Processes) -> int:
    (port,) = free_ports(1)
    command = [
        program("redis-server"),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(processes.folder),
    ]
    processes.start("redis", command, [port])
    return port


def start_nats(processes: Processes) -> int:
    (port,) = free_ports(1)
    processes.start("nats", [program("nats-server"), "-a", "127.0.0.1", "-p", str(port)], [port])
    return port


def start_postgres(processes: Processes) -> int:
    """PostgreSQL with TLS, for those who ask for it; it does not run as root."""
    (port,) = free_ports(1)
    found = [
        *Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        *BIN.parent.glob("postgres/usr/lib/postgresql/*/bin/initdb"),
    ]
    assert found, "PostgreSQL's server is missing: run `sh tests/get-servers.sh`"
    programs = found[0].parent
    libraries = [str(path) for path in BIN.parent.glob("postgres/usr/lib/*-linux-gnu")]
    user: dict[str, Any] = {
        "cwd": "/",
        "env": {**os.environ, **({"LD_LIBRARY_PATH": libraries[0]} if libraries else {})},
    }
    data = processes.folder / "postgres"
    data.mkdir(mode=0o700)
    for name in ("server.pem", "server.key"):
        shutil.copy(processes.folder / name, data / name)
        (data / name).chmod(0o600)
    if os.geteuid() == 0:
        user |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        for path in (data, *data.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        for path in (processes.folder, *processes.folder.parents):
            if path.stat().st_uid == 0 and not path.stat().st_mode & 0o001:
                path.chmod(path.stat().st_mode | 0o011)  # a temporary folder of root's own: let it through
    subprocess.run(
        [programs / "initdb", "-D", data / "db", "-A", "trust", "-N", "-U", "app", "--no-locale"],
        check=True, capture_output=True, **user,
    )  # fmt: skip
    options = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "ssl": "on",
        "ssl_cert_file": data / "server.pem",
        "ssl_key_file": data / "server.key",
    }
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    processes.start("postgres", [str(programs / "postgres"), "-D", str(data / "db"), *settings], [port], **user)
    return port
