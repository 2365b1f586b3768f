"""kubectl with a home of its own against an API, for tests, and manifests of each common kind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.control.serving import api_in

MANIFESTS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, labels: {app: web}}
spec:
  host: web
  subsets:
    - {name: v1, labels: {version: v1}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, labels: {app: web}}
spec:
  hosts: [web]
  http:
    - route:
        - destination: {host: web, subset: v1}
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: front}}}]
      ports: [{port: 8080}]
---
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  labels: {app: web, version: v1}
  annotations: {fairlead.dev/address: 127.0.1.1}
spec:
  serviceAccountName: web
  containers:
    - name: web
      ports: [{name: http, containerPort: 8080}]
"""


def config_text(url: str) -> str:
    """A kubeconfig for an API that is open."""
    return (
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n"
        f"clusters: [{{name: here, cluster: {{server: '{url}'}}}}]\n"
        "contexts: [{name: here, context: {cluster: here, user: me}}]\nusers: [{name: me, user: {}}]\n"
    )


class Kubectl:
    """kubectl with a home, a configuration and a cache of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        config = folder / "config"
        config.write_text(config_text(url))
        self._environment = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": str(config),
            "KUBECACHEDIR": str(folder / "cache"), "TMPDIR": str(folder), "KUBE_EDITOR": "false",
        }  # fmt: skip

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "kubectl", *arguments, env={**self._environment, **environment}, cwd=self.folder,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def run(self, *arguments: str, text: str = "", **environment: str) -> tuple[int, str, str]:
        """(exit code, output, errors)"""
        process = await self.start(*arguments, **environment)
        out, error = await asyncio.wait_for(process.communicate(text.encode()), 60)
        return process.returncode or 0, out.decode(), error.decode()

    async def done(self, *arguments: str, text: str = "", **environment: str) -> str:
        code, out, error = await self.run(*arguments, text=text, **environment)
        assert code == 0, f"kubectl {' '.join(arguments)}: {code}\n{out}{error}"
        return out

    async def json(self, *arguments: str) -> Any:
        return json.loads(await self.done(*arguments, "-o", "json"))


@contextlib.asynccontextmanager
async def kubectl_in(folder: Path, text: str = MANIFESTS) -> AsyncIterator[Kubectl]:
    async with api_in(folder) as (_, client):
        kubectl = Kubectl(folder, client.url)
        if text:
            await kubectl.done("apply", "-f", "-", text=text)
        yield kubectl
