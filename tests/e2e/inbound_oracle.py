"""Our sidecar and an Envoy fed by one control, each beside a replica of one app: the same connections to both.

Both have the labels and the account of `web`, and the same ports of the app behind them; whoever connects has a
certificate of control's authority for any identity, or none, and an address of loopback of its own. Everything that a
module needs is started once; a world of rules takes the place of another by the API, and is waited for by `status`.
"""

# ruff: noqa: E501 - a table
from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.control import xds_bootstrap
from fairlead.control.xds_node import Node
from fairlead.mesh import csr
from fairlead.mesh.authority import Authority
from fairlead.mesh.identity import parse
from tests.e2e.oracle import Apps, Result, _keys, differences, request
from tests.e2e.pair import FAIRLEAD, Processes, servers
from tests.e2e.test_envoy_oracle_http2 import exchange_by_http2
from tests.servers import free_ports, program

DEADLINE_S = 20.0
HOST = "web.default.svc.cluster.local"
PLURALS = {
    "Pod": "api/v1/namespaces/{}/pods", "Service": "api/v1/namespaces/{}/services", "Secret": "api/v1/namespaces/{}/secrets",
    "Namespace": "api/v1/namespaces",
    "NetworkPolicy": "apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "AuthorizationPolicy": "apis/security.istio.io/v1/namespaces/{}/authorizationpolicies",
    "PeerAuthentication": "apis/security.istio.io/v1/namespaces/{}/peerauthentications",
    "RequestAuthentication": "apis/security.istio.io/v1/namespaces/{}/requestauthentications",
    "Gateway": "apis/networking.istio.io/v1/namespaces/{}/gateways",
    "VirtualService": "apis/networking.istio.io/v1/namespaces/{}/virtualservices",
    "EndpointSlice": "apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "Ingress": "apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "DestinationRule": "apis/networking.istio.io/v1/namespaces/{}/destinationrules",
    "LocalRateLimit": "apis/fairlead.dev/v1/namespaces/{}/localratelimits",
}  # fmt: skip
Document = dict[str, Any]


class Api:
    """Control's API, by one connection a call."""

    def __init__(self, port: int) -> None:
        self.at = f"http://127.0.0.1:{port}/"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        octets = json.dumps(body).encode() if body is not None else None
        asked = urllib.request.Request(self.at + path, octets, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=DEADLINE_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()}") from error

    def path(self, document: Document) -> str:
        return PLURALS[document["kind"]].format(document["metadata"].get("namespace", "default"))


@dataclass(eq=False)
class Arrival:
    """Who connects, how, and what it asks for (see `oracle.request`; of a TCP port the same octets)."""

    text: str
    port: str = "http"
    """Name of the app's port."""
    identity: str = ""
    """Empty: without a certificate; see `plain`."""
    plain: bool = False
    source: str = "127.0.0.9"
    """Not 127.0.0.1, for which Envoy tells an address of its own."""
    http2: bool = False
    host: str = HOST
    differs: str = ""
    """Why the two differ by intention."""

    def __str__(self) -> str:
        who = "plaintext" if self.plain else self.identity or "no certificate"
        return f"{who} from {self.source} to {self.port}{' by HTTP/2' if self.http2 else ''}: {self.text}"


class Members:
    """Control, and one of each kind of proxy; `port["fairlead"]` and `port["envoy"]` are their mesh ports."""

    def __init__(self, processes: Processes, apps: Apps) -> None:
        self.processes, self.apps, self.folder = processes, apps, processes.folder
        api, xds, fairlead, envoy, self.admin, fairlead_out, envoy_out = free_ports(7)
        self.port = {"fairlead": fairlead, "envoy": envoy}
        self.outbound = {"fairlead": fairlead_out, "envoy": envoy_out}
        self.api, self._xds = Api(api), xds
        command = [FAIRLEAD, "control", "--listen", f"127.0.0.1:{api}", "--xds-listen", f"127.0.0.1:{xds}",
                   "--data-dir", str(self.folder / "control")]  # fmt: skip
        processes.start("control", command, [api, xds])
        self.authority = self._authority("control")
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}
        self._applied: dict[tuple[str, str], Document] = {}
        self.start()

    def _authority(self, folder: str) -> Authority:
        own = self.folder / folder
        return Authority.load((own / "ca-key.pem").read_bytes(), (own / "ca.pem").read_bytes())

    def start(self) -> None:
        """The two proxies."""
        self.sidecar("default/web-1", "web", self.port["fairlead"], "--outbound", "off")
        self.envoy("default/web-2", "web", {"INBOUND": f"127.0.0.1:{self.port['envoy']}"}, [])

    def sidecar(self, workload: str, account: str, inbound: int, *flags: str, role: str = "sidecar") -> None:
        token = self.folder / f"{account}.token"
        token.write_text(self.api.call("POST", "fairlead/v1/tokens", {"serviceAccount": account})["token"])
        mesh = ["--inbound", f"127.0.0.1:{inbound}"] if inbound else []
        command = [FAIRLEAD, role, "--workload", workload, "--control", self.api.at, "--token-file", str(token),
                   *mesh, "--admin", "off", "--health", "off", "--metrics", "off", *flags]  # fmt: skip
        self.processes.start("fairlead", command, [inbound] if inbound else [])

    def envoy(self, workload: str, account: str, told: dict[str, Any], ports: Sequence[int]) -> None:
        """With a certificate that it finds in its files, as if an agent had put it there."""
        folder = self.folder / "envoy"
        folder.mkdir()
        namespace, _, name = workload.partition("/")
        key, chain = self.certificate(f"spiffe://cluster.local/ns/{namespace}/sa/{account}")
        for file, content in xds_bootstrap.secrets(chain, key, self.authority.roots, "1").items():
            (folder / file).write_text(json.dumps(content))
        made = xds_bootstrap.envoy(
            Node(namespace, name, folder=str(folder)), {"FOLDER": str(folder), "ADDRESS": "127.0.0.3", **told},
            [("127.0.0.1", self._xds)], "", ("127.0.0.1", self.admin), True,
        )  # fmt: skip
        (folder / "envoy.json").write_text(json.dumps(made))
        command = [program("envoy"), "-c", str(folder / "envoy.json"), "--concurrency", "1", "--use-dynamic-base-id",
                   "-l", "warning", "--disable-hot-restart", "--drain-time-s", "1"]  # fmt: skip
        self.processes.start("envoy", command, [self.admin, *ports])

    def certificate(self, identity: str, authority: Authority | None = None) -> tuple[str, str]:
        made = csr.make()
        chain, _, _ = (authority or self.authority).sign(made["csr"].encode(), parse(identity), 3600, time.time())
        return made["key"], chain

    def context(self, identity: str, http2: bool, foreign: bool = False) -> ssl.SSLContext:
        """For a client with this identity; `foreign`: by an authority that nobody knows."""
        name = identity + ("!" if foreign else "")
        if (name, http2) not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2" if http2 else "http/1.1"])
            if identity:
                other = Authority.create("cluster.local", time.time()) if foreign else None
                key, chain = self.certificate(identity, other)
                path = self.folder / f"client-{len(self._contexts)}.pem"
                path.write_text(key + chain)
                context.load_cert_chain(path)
            self._contexts[name, http2] = context
        return self._contexts[name, http2]

    # --- worlds

    def world(self, documents: Sequence[Document], count: int = 2) -> None:
        """These objects in place of those before, once both run them (`count`: those that are there)."""
        wanted = {(self.api.path(one), one["metadata"]["name"]): one for one in documents}
        held = self._applied
        for (path, name), one in list(held.items()):
            if wanted.get((path, name)) != one:
                self.api.call("DELETE", f"{path}/{name}")
                del held[path, name]
        for (path, name), one in wanted.items():
            if (path, name) not in held:
                self.api.call("POST", path, one)
                held[path, name] = one
        end = time.monotonic() + DEADLINE_S
        while True:
            told = self.api.call("GET", "fairlead/v1/status")
            members = told["sidecars"]
            if len(members) == count and all(one["taken"] == told["version"] for one in members):
                return
            refused = [why for one in members for why in one["reasons"]]
            assert not refused, refused
            assert time.monotonic() < end, (told["version"], members)
            time.sleep(0.01)

    def notes(self) -> list[str]:
        """What Envoy does not carry out."""
        members = self.api.call("GET", "fairlead/v1/status")["sidecars"]
        return next(one["not_carried_out"] for one in members if one.get("proxy") == "envoy")

    # --- requests

    def ask(self, proxy: str, arrival: Arrival) -> Result:
        key = f"{proxy}-{next(_keys)}"
        octets = request(arrival.text, arrival.host, key)
        try:
            with self._connected(proxy, arrival) as wire:
                status, headers, body = exchange_by_http2(wire, octets) if arrival.http2 else _exchange(wire, octets)
        except (OSError, EOFError):
            status, headers, body = 0, [], b""
        return Result(status, headers, body, self.apps.seen.get(key, []))

    @contextlib.contextmanager
    def _connected(self, proxy: str, arrival: Arrival) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port[proxy]), 15, (arrival.source, 0)) as wire:
            if arrival.plain:
                yield wire
                return
            number = {"http": 80, "tcp": 90, "other": 81}[arrival.port]
            name = f"outbound_.{number}_._.{HOST}"
            foreign = arrival.identity.endswith("!")
            context = self.context(arrival.identity.removesuffix("!"), arrival.http2, foreign)
            with context.wrap_socket(wire, server_hostname=name) as secure:
                yield secure

    def compare(self, arrival: Arrival, own_body: bool = False) -> tuple[str, Result, Result]:
        """What differs; a difference must last, since what Envoy has taken is in its worker a moment later."""
        end = time.monotonic() + 1.0
        while True:
            ours, theirs = self.ask("fairlead", arrival), self.ask("envoy", arrival)
            told = differences(ours, theirs, arrival.text, own_body)
            if not told or time.monotonic() > end:
                return (f"{arrival}\n{told}" if told else ""), ours, theirs
            time.sleep(0.05)


def _exchange(wire: socket.socket, octets: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    import http.client

    wire.sendall(octets)
    answer = http.client.HTTPResponse(wire, method=octets.split(b" ", 1)[0].decode())
    try:
        answer.begin()
    except http.client.HTTPException as error:
        raise EOFError(str(error)) from error
    body = answer.read()
    return answer.status, [(name.lower(), value) for name, value in answer.getheaders()], body


@contextlib.contextmanager
def members(folder: Path, apps: Apps, kind: type[Members] = Members) -> Iterator[Members]:
    try:
        with servers(folder) as processes:
            yield kind(processes, apps)
            for name in ("fairlead", "control"):
                assert "Traceback" not in processes.log(name), processes.log(name)
    finally:
        apps.close()


# --- what worlds are made of ------------------------------------------------------------------------------------------


def web(apps: Apps, *ports: str) -> list[Document]:
    """Both replicas and their service, with these of the ports http (80), other (81: HTTP, too) and tcp (90)."""
    names = {"http": ("http", 80), "other": ("http-other", 81), "tcp": ("tcp", 90)}
    found: list[Document] = [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [
                {"name": names[one][0], "port": names[one][1], "targetPort": apps.at[one]} for one in ports]},
        }
    ]  # fmt: skip
    for name, address in (("web-1", "127.0.0.2"), ("web-2", "127.0.0.3")):
        found.append(pod(name, "web", address, [(names[one][0], apps.at[one]) for one in ports]))
    return found


def pod(
    name: str, app: str, address: str, ports: Sequence[tuple[str, int]] = (), namespace: str = "default", **labels: str
) -> Document:
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app, **labels},
                     "annotations": {"fairlead.dev/address": address}},
        "spec": {"serviceAccountName": app, "containers": [
            {"name": "main", "ports": [{"name": f"p{number}", "containerPort": number} for _, number in ports]}]},
    }  # fmt: skip


def rule(kind: str, name: str, spec: Document, namespace: str = "default") -> Document:
    group = {
        "NetworkPolicy": "networking.k8s.io/v1", "Gateway": "networking.istio.io/v1",
        "VirtualService": "networking.istio.io/v1", "LocalRateLimit": "fairlead.dev/v1",
        "DestinationRule": "networking.istio.io/v1",
    }.get(kind, "security.istio.io/v1")  # fmt: skip
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}
