"""Fairlead for each kind of work, with everything on: routing, NetworkPolicy, metrics, access log."""

from __future__ import annotations

import string
import sys
from pathlib import Path

FAIRLEAD = str(Path(sys.executable).with_name("fairlead"))

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: {protocol}, port: 80, targetPort: app}}, {{name: tcp-raw, port: 81, targetPort: app}}]
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}-1
  labels: {{app: {name}}}
  annotations: {{fairlead.dev/address: 127.0.0.1{mesh}}}
spec:
  serviceAccountName: server
  containers: [{{name: app, ports: [{{name: app, containerPort: {backend}}}]}}]
---
"""
RULES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec:
  host: {name}
  trafficPolicy: {{connectionPool: {{http: {{{pool}}}}}}}
  subsets: [{{name: beta, labels: {{app: {name}}}}}, {{name: main, labels: {{app: {name}}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [{name}]
  http:
{rules}
    - match: [{{uri: {{prefix: /api}}, headers: {{x-beta: {{exact: "yes"}}}}}}]
      route: [{{destination: {{host: {name}, subset: beta}}}}]
    - match: [{{uri: {{prefix: /api}}}}]
      route: [{{destination: {{host: {name}, subset: main}}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}}}
spec:
  podSelector: {{matchLabels: {{app: {name}}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{app: client}}}}}}]}}]
---
"""
CLIENT = """
apiVersion: v1
kind: Pod
metadata:
  name: client-1
  labels: {app: client}
  annotations: {fairlead.dev/address: 127.0.0.1}
spec: {serviceAccountName: client, containers: [{name: client}]}
"""
WHO = ("server", "client")
HEAVY_RULES = 1000
"""Regular expressions over a header, none of which matches: they make the client's share of the cost small."""


def fairlead(work: str, folder: Path, port: int, backend: int) -> list[list[str]]:
    """The commands of one kind of work (see `bench/peers.py`)."""
    many = work.startswith(("known", "routed"))
    names = [f"service-{n}" for n in range(int(work.lstrip(string.ascii_lowercase)))] if many else ["web"]
    template = SERVICE if work.startswith("known") else SERVICE + RULES
    mesh = f', fairlead.dev/mesh-port: "{port + 1}"' if work.startswith("pair") else ""
    pool = "maxRequestsPerConnection: 1" if work == "pairnew" else "http1MaxPendingRequests: 100000"
    heavy = "\n".join(
        f'    - match: [{{headers: {{x-tenant: {{regex: "v{n}[0-9]+(alpha|beta)"}}}}}}]\n'
        "      route: [{destination: {host: web, subset: beta}}]"
        for n in range(HEAVY_RULES if work.startswith("heavy") else 0)
    )
    protocol = {"h2": "http2", "grpc": "grpc"}.get(work, "http")
    (folder / "fairlead.yaml").write_text(
        "".join(
            template.format(name=name, mesh=mesh, backend=backend, pool=pool, protocol=protocol, rules=heavy)
            for name in names
        )
        + CLIENT
    )
    common = [FAIRLEAD, "sidecar", "-f", str(folder / "fairlead.yaml"), "--admin", "off", "--health", "off"]
    log = "off" if work == "l7quiet" else str(folder / "fairlead-out.log")
    client = [*common, "--workload", "default/client-1", "--metrics", f"127.0.0.1:{port + 2}", "--inbound", "off",
              "--access-log", log]  # fmt: skip
    if work.endswith("x2"):
        client += ["--workers", "2"]
    if work == "l4":
        return [[*client, "--outbound", "off", "--listen", f"127.0.0.1:{port}=web.default:81"]]
    if not work.startswith("pair"):
        return [[*client, "--outbound", f"127.0.0.1:{port}"]]
    ca = str(folder / "ca.pem")
    tls = {who: ["--cert", str(folder / f"{who}.pem"), "--key", str(folder / f"{who}.key"), "--ca", ca] for who in WHO}
    server = [*common, "--workload", "default/web-1", "--metrics", f"127.0.0.1:{port + 3}", "--outbound", "off",
              "--inbound", f"127.0.0.1:{port + 1}", "--access-log", str(folder / "fairlead-in.log")]  # fmt: skip
    return [[*server, *tls["server"]], [*client, "--outbound", f"127.0.0.1:{port}", *tls["client"]]]
