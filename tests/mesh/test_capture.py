"""Capture by nftables: the rules as text, and the real filter in a network namespace of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead.mesh.capture import CaptureError, removal, rules

NAMESPACE = f"fairlead-{os.getpid()}"
FAIRLEAD = str(Path(sys.executable).with_name("fairlead"))
SIDECAR_UID, APP_UID = 64001, 64002
MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.200.0.1]}]
---
apiVersion: v1
kind: Pod
metadata: {name: client-1, labels: {app: client}}
"""
SERVER = """
import http.server, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"from {sys.argv[1]} id {self.headers['x-request-id']}".encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = socketserver.TCPServer((sys.argv[1], int(sys.argv[2])), Handler)  # HTTPServer would ask DNS for its own name
print("ready", flush=True)
server.serve_forever()
"""


def test_the_sidecars_own_connections_and_loopback_are_left_alone_before_anything_is_redirected() -> None:
    lines = [
        line.strip() for line in rules(user=7, redirect_port=15002, exclude=("10.0.0.0/8", "fd00::/8")).splitlines()
    ]
    redirect = next(n for n, line in enumerate(lines) if "redirect to" in line)
    for first in (
        "meta skuid 7 return",
        'oifname "lo" return',
        "ip daddr 10.0.0.0/8 return",
        "ip6 daddr fd00::/8 return",
    ):
        assert lines.index(first) < redirect


def test_inbound_rules_leave_the_listeners_own_ports_alone() -> None:
    text = rules(user=7, inbound_port=15006, own_ports=(15021,), app_ports=(8080, 80))
    assert "tcp dport { 15006, 15021 } return" in text
    assert "tcp dport { 80, 8080 } redirect to :15006" in text
    assert "hook output" not in text


@pytest.mark.parametrize(
    "wrong",
    [{}, {"redirect_port": 70000}, {"redirect_port": 1, "user": -1}, {"redirect_port": 1, "exclude": ("10.0.0.1/8",)}],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(CaptureError):
        rules(**{"user": 1, **wrong})  # type: ignore[arg-type]


def sh(*command: str, text: str = "") -> str:
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace with an address of its own and a route to anywhere, joined to nothing."""
    sh("ip", "netns", "add", NAMESPACE)
    try:
        inside = ("ip", "-n", NAMESPACE)
        sh(*inside, "link", "set", "lo", "up")
        sh(*inside, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        sh(*inside, "link", "set", "eth1", "up")
        sh(*inside, "addr", "add", "10.200.0.1/24", "dev", "eth0")
        sh(*inside, "link", "set", "eth0", "up")
        sh(*inside, "route", "add", "default", "dev", "eth0")
        yield NAMESPACE
    finally:
        sh("ip", "netns", "del", NAMESPACE)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may read, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_rules_are_taken_and_removed_by_the_real_nft(namespace: str) -> None:
    inside = ("ip", "netns", "exec", namespace, "nft")
    for _ in range(2):
        sh(*inside, "-f", "-", text=rules(user=7, redirect_port=15002, inbound_port=15006, exclude=("10.0.0.0/8",)))
    assert "redirect to :15002" in sh(*inside, "list", "ruleset")
    for _ in range(2):
        sh(*inside, "-f", "-", text=removal())
    assert "fairlead" not in sh(*inside, "list", "ruleset")


@pytest.mark.asyncio
async def test_an_app_that_knows_nothing_of_it_goes_by_its_sidecar(namespace: str, open_folder: Path) -> None:
    """curl to a virtual address: redirected, routed by the original destination, answered by the endpoint."""
    (open_folder / "mesh.yaml").write_text(MANIFESTS)
    (open_folder / "server.py").write_text(SERVER)
    inside = ["ip", "netns", "exec", namespace]
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    running: list[asyncio.subprocess.Process] = []
    user = SIDECAR_UID if can_run(SIDECAR_UID) else 0

    async def start(*command: str, uid: int = 0) -> asyncio.subprocess.Process:
        who = ["setpriv", f"--reuid={uid}", "--clear-groups"] if uid else []
        process = await asyncio.create_subprocess_exec(
            *inside, *who, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment
        )
        running.append(process)
        return process

    try:
        server = await start(sys.executable, str(open_folder / "server.py"), "10.200.0.1", "8080")
        assert server.stdout is not None
        assert await server.stdout.readline() == b"ready\n"
        sidecar = await start(
            FAIRLEAD, "sidecar", "-f", str(open_folder / "mesh.yaml"), "--workload", "default/client-1",
            "--outbound", "off", "--inbound", "off", "--redirect-listen", "0.0.0.0:15002",
                "--admin", "127.0.0.1:15000", "--health", "off",
            "--metrics", "off", uid=user,
        )  # fmt: skip
        assert sidecar.stdout is not None
        async with asyncio.timeout(20):
            while b" ready" not in (line := await sidecar.stdout.readline()):
                assert line, "the sidecar ended"
        sh(*inside, FAIRLEAD, "capture", "apply", "--user", str(user), "--redirect-port", "15002")
        curl = await start("curl", "-s", "--max-time", "10", "http://10.96.0.10/hello", uid=APP_UID)
        assert curl.stdout is not None
        said = (await curl.stdout.read()).decode()
        assert said.startswith("from 10.200.0.1 id "), said
        assert not said.endswith("None"), "the request did not pass the sidecar, which gives every request an id"
        clusters = json.loads(sh(*inside, "curl", "-s", "http://127.0.0.1:15000/clusters"))
        assert any(cluster["name"] == "outbound|80||web.default.svc.cluster.local" for cluster in clusters)
        direct = await start("curl", "-s", "--max-time", "10", "http://10.200.0.1:15002/", uid=APP_UID)
        assert await direct.wait() != 0, "a connection straight to the capture port must not go round in circles"
        sh(*inside, FAIRLEAD, "capture", "remove")
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for process in running:
            if process.stdout is not None:
                await process.stdout.read()
            await process.wait()


def can_run(uid: int) -> bool:
    """Whether another user may run our interpreter (not where it lies in root's home)."""
    done = subprocess.run(
        ["setpriv", f"--reuid={uid}", "--clear-groups", FAIRLEAD, "version"], capture_output=True, check=False
    )
    return done.returncode == 0
