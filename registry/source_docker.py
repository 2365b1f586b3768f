"""Shell: Docker and Swarm: containers or tasks by the Engine's API, and the events that tell when to read them again.

On a Swarm manager, services and their tasks (`/services`, `/tasks`, `/nodes`); everywhere the containers of this engine
that have a label `fairlead.service` or are a Compose service. The stack, or the Compose project, is the namespace:
`web` of the project `shop` is `web.shop`, so that its containers call it `web`, as they do with Docker's own DNS. A
Swarm's events say nothing of tasks on other nodes, so tasks are read every two seconds as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from .listed import PREFIX, Listed, Port, facts_of, wanted
from .model import Facts
from .names import CLUSTER_DOMAIN
from .needs import Fetch
from .source_listed import UNHEARD_S, SourceError

API = "/v1.41"
"""Docker 20.10 and later."""
STACK, PROJECT, COMPOSE = "com.docker.stack.namespace", "com.docker.compose.project", "com.docker.compose.service"
OF_DOCKER = ("com.docker.", "desktop.docker.")
"""Labels that Docker's tools make for themselves."""
EVENTS = quote(json.dumps({"type": ["container", "service", "node"]}))
BEFORE = frozenset(("new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"))


class DockerSettings(msgspec.Struct, frozen=True):
    url: str = "http://docker"
    socket: str = "/var/run/docker.sock"
    """Path of the engine's Unix socket; empty: `url`."""
    host: str = "127.0.0.1"
    """Address of containers that use the host's network, and of this engine's published ports."""
    cert_path: str = ""
    """Folder with ca.pem, cert.pem and key.pem."""
    verify: bool = False


def settings_of(where: str, environment: Mapping[str, str]) -> DockerSettings:
    """Settings as the docker command takes them; `where` is unix:///PATH, tcp://HOST:PORT, http(s)://..., or `env`."""
    if where in ("env", ""):
        where = environment.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    verify = environment.get("DOCKER_TLS_VERIFY", "") not in ("", "0")
    cert_path = environment.get("DOCKER_CERT_PATH", "") if verify else ""
    if where.startswith("unix://"):
        return DockerSettings(socket=where.removeprefix("unix://"))
    scheme, _, rest = where.rpartition("://")
    if scheme in ("", "tcp"):
        scheme = "https" if verify else "http"
    host = rest.rpartition(":")[0] or rest
    return DockerSettings(f"{scheme}://{rest.rstrip('/')}", "", host.strip("[]"), cert_path, verify)


class DockerReader:
    name = "docker"

    def __init__(self, fetch: Fetch, settings: DockerSettings, *, cluster_domain: str = CLUSTER_DOMAIN) -> None:
        self.fetch = fetch
        self.every_s = 30.0
        self._settings = settings
        self._domain = cluster_domain

    async def listen(self, heard: Callable[[], None]) -> None:
        async with self.fetch.stream("GET", f"{self._settings.url}{API}/events?filters={EVENTS}") as stream:
            if stream.status != 200:
                raise SourceError(f"/events: status {stream.status}")
            heard()
            async for _ in stream:
                heard()

    async def read(self) -> tuple[Facts, list[str]]:
        info = await self._get("/info")
        swarm = info.get("Swarm") if isinstance(info, dict) else None
        manager = isinstance(swarm, dict) and bool(swarm.get("ControlAvailable"))
        problems: list[str] = []
        listed: list[Listed] = []
        if manager:
            self.every_s = UNHEARD_S
            services = _by_id(await self._get("/services"))
            nodes = _by_id(await self._get("/nodes"))
            for task in _list(await self._get("/tasks"), "/tasks"):
                self._take(lambda task=task: of_task(task, services, nodes), task, listed, problems)  # type: ignore[misc]
        else:
            self.every_s = 30.0
        running = quote(json.dumps({"status": ["running"]}))
        for container in _list(await self._get(f"/containers/json?filters={running}"), "/containers/json"):
            self._take(
                lambda container=container: of_container(container, self._settings.host),  # type: ignore[misc]
                container, listed, problems,
            )  # fmt: skip
        facts, unusable = facts_of(listed, self.name, self._domain)
        return facts, problems + unusable

    def _take(self, read: Callable[[], Iterator[Listed]], told: Any, listed: list[Listed], problems: list[str]) -> None:
        try:
            listed += [one for one in read() if wanted(one.labels)]
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            name = told.get("ID") or told.get("Id") or "?" if isinstance(told, dict) else "?"
            problems.append(f"docker {str(name)[:12]}: {error}")

    async def _get(self, path: str) -> Any:
        reply = await self.fetch.request("GET", f"{self._settings.url}{API}{path}", timeout_s=20.0)
        if reply.status != 200:
            what = reply.body[:200].decode("utf-8", "replace").strip()
            raise SourceError(f"{path.partition('?')[0]}: status {reply.status}: {what}")
        try:
            return json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{path}: not an answer of Docker: {error}") from error


def _list(told: Any, path: str) -> list[Any]:
    if not isinstance(told, list):
        raise SourceError(f"{path}: expected a list")
    return told


def _by_id(told: Any) -> dict[str, dict[str, Any]]:
    return {str(one.get("ID")): one for one in _list(told, "/services") if isinstance(one, dict)}


def _labels(given: Any) -> dict[str, str]:
    """Without what Docker's tools keep there for themselves."""
    labels = {str(key): str(value) for key, value in (given or {}).items()}
    return {key: value for key, value in labels.items() if not key.startswith(OF_DOCKER)}


# --- Swarm ------------------------------------------------------------------------------------------------------------


def of_task(
    task: Mapping[str, Any], services: Mapping[str, Mapping[str, Any]], nodes: Mapping[str, Mapping[str, Any]]
) -> Iterator[Listed]:
    """A task of a service, by its address in an overlay network, else by its node's and the port published there."""
    service = services.get(str(task.get("ServiceID")))
    state = str((task.get("Status") or {}).get("State") or "")
    desired = str(task.get("DesiredState") or "")
    if service is None or state not in BEFORE or (desired not in ("running", "ready") and state != "running"):
        return
    spec = service["Spec"]
    stack = str((spec.get("Labels") or {}).get(STACK) or "")
    name = str(spec["Name"])
    if stack and name.startswith(f"{stack}_"):
        name = name[len(stack) + 1 :]
    labels = _labels(spec.get("Labels")) | _labels(((task.get("Spec") or {}).get("ContainerSpec") or {}).get("Labels"))
    published = [
        one for one in (spec.get("EndpointSpec") or {}).get("Ports") or () if one.get("Protocol", "tcp") == "tcp"
    ]
    ports = tuple(Port(int(one["TargetPort"]), int(one["TargetPort"])) for one in published if one.get("TargetPort"))
    node = nodes.get(str(task.get("NodeID"))) or {}
    address = _overlay(task, labels.get(f"{PREFIX}network", ""))
    if not address:
        address = str((node.get("Status") or {}).get("Addr") or "")
        here = ((task.get("Status") or {}).get("PortStatus") or {}).get("Ports") or ()
        own = [one for one in here if one.get("Protocol", "tcp") == "tcp" and one.get("PublishedPort")]
        ports = tuple(Port(int(one["TargetPort"]), int(one["PublishedPort"])) for one in own)
    if not address:
        return  # not placed yet
    running = state == "running"
    told = (task.get("Status") or {}).get("Err") or (task.get("Status") or {}).get("Message") or ""
    slot = task.get("Slot") or str(task.get("NodeID"))[:12]
    zone = str(((node.get("Spec") or {}).get("Labels") or {}).get("zone") or "")
    yield Listed(
        where=f"task {str(task['ID'])[:12]} of {spec['Name']}",
        service=name,
        namespace=stack or "default",
        instance=f"{name}-{slot}-{str(task['ID'])[:8]}",
        address=address,
        ports=ports,
        labels=labels,
        ready=running,
        why="" if running else f"its state is {state}: {told}".rstrip(": ")[:300],
        terminating=running and desired not in ("running", "ready"),
        locality=f"/{zone}" if zone else "",
    )


def _overlay(task: Mapping[str, Any], wished: str) -> str:
    """Its address in the network `wished`, else in the first that is not the ingress network."""
    for attached in task.get("NetworksAttachments") or ():
        network = attached.get("Network") or {}
        spec = network.get("Spec") or {}
        if spec.get("Ingress") or (wished and spec.get("Name") != wished and network.get("ID") != wished):
            continue
        for address in attached.get("Addresses") or ():
            return str(address).partition("/")[0]
    return ""


# --- one engine -------------------------------------------------------------------------------------------------------


def of_container(container: Mapping[str, Any], host: str) -> Iterator[Listed]:
    """A container by its address in a network, else (host network) by its host's."""
    given = {str(key): str(value) for key, value in (container.get("Labels") or {}).items()}
    service = given.get(f"{PREFIX}service") or given.get(COMPOSE)
    if not service or "com.docker.swarm.task.id" in given:
        return
    name = str((container.get("Names") or [str(container["Id"])[:12]])[0]).lstrip("/")
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    wished = given.get(f"{PREFIX}network", "")
    addresses = [
        str(one.get("IPAddress") or one.get("GlobalIPv6Address") or "")
        for network, one in sorted(networks.items())
        if not wished or wished in (network, one.get("NetworkID"))
    ]
    addresses = [address for address in addresses if address]
    exposed = sorted({int(one["PrivatePort"]) for one in container.get("Ports") or () if one.get("Type") == "tcp"})
    health = str(container.get("Status") or "")
    ready, why = True, ""
    if "(unhealthy)" in health or "(health: starting)" in health:
        ready, why = False, f"Docker says: {health}"
    if str(container.get("State") or "running") != "running":
        ready, why = False, f"its state is {container.get('State')}"
    yield Listed(
        where=name,
        service=service,
        namespace=given.get(PROJECT) or "default",
        instance=name,
        address=addresses[0] if addresses else host,
        ports=tuple(Port(port, port) for port in exposed),
        labels=_labels(given),
        ready=ready,
        why=why,
    )
