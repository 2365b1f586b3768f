"""A mesh whose members are sidecars of ours, Envoys and gRPC applications, all fed by one control."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.roles import DEADLINE_S, App, Role, Roles, apps, client, free_port, roles_in, until
from tests.servers import program

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""


def host(name: str) -> str:
    return f"{name}.default.svc.cluster.local"


def service(name: str, port_name: str = "http", port: int = 80) -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: {port_name}, port: {port}, targetPort: main}}]}}
"""


def pod(name: str, app: str, mesh_port: int = 0, port: int = 0) -> str:
    ports = f"[{{name: main, containerPort: {port}}}]" if port else "[]"
    mesh = f', fairlead.dev/mesh-port: "{mesh_port}"' if mesh_port else ""
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}}}, annotations: {{fairlead.dev/address: 127.0.0.1{mesh}}}}}
spec: {{serviceAccountName: {app}, containers: [{{name: main, ports: {ports}}}]}}
"""


class Envoy:
    """A real Envoy with the agent beside it."""

    def __init__(self, process: asyncio.subprocess.Process, agent: Role, admin: int, outbound: int, log: Path) -> None:
        self.process = process
        self.agent = agent
        self.admin = f"http://127.0.0.1:{admin}"
        self.outbound = f"http://127.0.0.1:{outbound}"
        self.log_path = log

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class Mesh:
    def __init__(self, roles: Roles, session: aiohttp.ClientSession) -> None:
        self.roles = roles
        self.session = session
        self.envoys: list[Envoy] = []
        self.control_url = f"http://127.0.0.1:{free_port()}"
        self.xds_port = free_port()
        self.plain_port = free_port()
        self.control: Role
        self.flags: Sequence[str] = ()

    async def start_control(self) -> None:
        self.control = await self.roles.start(
            "control", "--listen", self.control_url.removeprefix("http://"),
            "--xds-tls-listen", f"127.0.0.1:{self.xds_port}", "--xds-listen", f"127.0.0.1:{self.plain_port}",
            "--data-dir", str(self.roles.folder / "control"), *self.flags,
        )  # fmt: skip

    async def apply(self, *texts: str) -> None:
        code, out, err = await self.roles.command(
            "apply", "-f", "-", "--control", self.control_url, stdin="---".join(texts).encode()
        )
        assert code == 0, out + err

    async def delete(self, kind: str, name: str) -> None:
        code, out, err = await self.roles.command("delete", kind, name, "--control", self.control_url)
        assert code == 0, out + err

    async def token(self, account: str) -> Path:
        path = self.roles.folder / f"{account}.token"
        if not path.exists():
            code, out, err = await self.roles.command(
                "token", "create", "--service-account", account, "--control", self.control_url
            )
            assert code == 0, err
            path.write_text(out)
        return path

    async def sidecar(self, workload: str, account: str, inbound: int) -> Role:
        return await self.roles.start(
            "sidecar", "--workload", workload, "--control", self.control_url,
            "--token-file", str(await self.token(account)), "--outbound", "127.0.0.1:0",
            "--inbound", f"127.0.0.1:{inbound}", "--admin", "off", "--health", "off", "--metrics", "off",
        )  # fmt: skip

    async def beside(self, kind: str, workload: str, account: str, *flags: str, xds: int = 0) -> tuple[Role, Path]:
        """The agent of an Envoy or a gRPC application, and the bootstrap that it wrote."""
        folder = self.roles.folder / f"{kind}-{account}-{workload.replace('/', '-')}"
        agent = await self.roles.start(
            kind, "--workload", workload, "--control", self.control_url, "--xds", f"127.0.0.1:{xds or self.xds_port}",
            "--token-file", str(await self.token(account)), "--data-dir", str(folder), "--address", "127.0.0.1", *flags,
        )  # fmt: skip
        return agent, Path(agent.at["bootstrap"])

    async def envoy(self, workload: str, account: str, inbound: int = 0, *flags: str) -> Envoy:
        admin, outbound = free_port(), free_port()
        agent, bootstrap = await self.beside(
            "envoy", workload, account, "--admin", f"127.0.0.1:{admin}", "--outbound", f"127.0.0.1:{outbound}",
            "--inbound", f"127.0.0.1:{inbound}" if inbound else "off", *flags,
        )  # fmt: skip
        log = self.roles.folder / f"envoy-{len(self.envoys)}.log"
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                program("envoy"), "-c", str(bootstrap), "--concurrency", "1", "--use-dynamic-base-id",
                "--disable-hot-restart", "-l", "warning", "--drain-time-s", "1",
                stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        made = Envoy(process, agent, admin, outbound, log)
        self.envoys.append(made)

        async def live() -> bool:
            assert process.returncode is None, log.read_text()[-3000:]
            with contextlib.suppress(aiohttp.ClientError):
                async with self.session.get(f"{made.admin}/ready") as answer:
                    return answer.status == 200
            return False

        await until(f"{workload}'s Envoy to be ready", live)
        return made

    async def ask(
        self, at: str, name: str, path: str = "/", method: str = "GET", **headers: str
    ) -> tuple[int, Any, str]:
        """One request by an outbound port: status, headers, text."""
        sent = {"host": name, **{key.replace("_", "-"): value for key, value in headers.items()}}
        async with self.session.request(method, at + path, headers=sent) as answer:
            return answer.status, answer.headers, await answer.text()

    async def until_answers(self, at: str, name: str, status: int = 200, path: str = "/") -> str:
        last: list[Any] = []

        async def answers() -> bool:
            try:
                last[:] = await self.ask(at, name, path)
            except aiohttp.ClientError as error:
                last[:] = [0, {}, str(error)]
            return bool(last[0] == status)

        try:
            await until(f"{status} of {name}", answers, 15.0)
        except AssertionError as error:
            raise AssertionError(f"{error}; last {last}") from None
        return str(last[2])

    async def member(self, workload: str) -> dict[str, Any] | None:
        async with self.session.get(f"{self.control_url}/fairlead/v1/status") as answer:
            told = await answer.json()
        found: list[dict[str, Any]] = [
            one for one in told["sidecars"] if f"{one['namespace']}/{one['workload']}" == workload
        ]
        return found[0] if found else None

    async def close(self) -> None:
        for one in self.envoys:
            await one.stop()


@contextlib.asynccontextmanager
async def mesh_in(folder: Path, *names: str, control: Sequence[str] = ()) -> AsyncIterator[tuple[Mesh, list[App]]]:
    """Control (with these flags) and apps; nothing is applied yet."""
    async with roles_in(folder) as roles, apps(*names) as found, client() as session:
        made = Mesh(roles, session)
        made.flags = control
        try:
            await made.start_control()
            yield made, found
        except BaseException:
            for one in made.envoys:
                print(f"---- envoy\n{one.log_path.read_text(errors='replace')[-4000:]}")
            raise
        finally:
            await made.close()


def told(text: str) -> Any:
    return json.loads(text)


__all__ = ["DEADLINE_S", "STRICT", "Envoy", "Mesh", "host", "mesh_in", "pod", "service", "told"]
