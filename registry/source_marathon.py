"""Shell: Marathon: `/v2/apps` with its tasks, and the event stream `/v2/events` that tells when to read it again.

`/shop/web` is the service `web` of namespace `shop` (deeper groups are joined with dashes, an app without a group is in
`default`). A task is at its host and host ports, or at its own address where it has one (networks of mode `container`).
Ready is a task that runs and whose health checks all say so, as Marathon's own load balancers have it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from .listed import Listed, Port, facts_of, wanted
from .model import Facts
from .names import CLUSTER_DOMAIN
from .needs import Fetch
from .source_listed import SourceError

SILENCE_S = 60.0
"""Longest silence of the event stream before it is opened anew, which does no harm where nothing has happened."""
EVENTS = (
    "status_update_event",
    "health_status_changed_event",
    "instance_changed_event",
    "instance_health_changed_event",
    "app_terminated_event",
    "api_post_event",
    "deployment_success",
    "deployment_failed",
    "deployment_step_success",
)
ALIVE = frozenset(("TASK_RUNNING",))
COMING = frozenset(("TASK_STAGING", "TASK_STARTING"))
GOING = frozenset(("TASK_KILLING",))


class MarathonSettings(msgspec.Struct, frozen=True):
    urls: tuple[str, ...] = ("http://127.0.0.1:8080",)
    auth: str = ""
    """user:password of HTTP basic authentication."""
    token: str = ""
    """Of DC/OS: `Authorization: token=...`."""


def settings_of(urls: str, environment: Mapping[str, str]) -> MarathonSettings:
    """`urls`: comma list of URLs or HOST:PORT; `env` for MARATHON_URL. Credentials: MARATHON_AUTH, DCOS_ACS_TOKEN."""
    if urls in ("env", ""):
        urls = environment.get("MARATHON_URL") or "127.0.0.1:8080"
    parts = [part.strip().rstrip("/") for part in urls.split(",") if part.strip()]
    return MarathonSettings(
        urls=tuple(part if "://" in part else f"http://{part}" for part in parts),
        auth=environment.get("MARATHON_AUTH", ""),
        token=environment.get("DCOS_ACS_TOKEN", ""),
    )


class MarathonReader:
    """The addresses are tried in turn."""

    name = "marathon"
    every_s = 30.0

    def __init__(self, fetch: Fetch, settings: MarathonSettings, *, cluster_domain: str = CLUSTER_DOMAIN) -> None:
        self.fetch = fetch
        self._settings = settings
        self._domain = cluster_domain
        self._turn = 0
        self._headers = {"Accept": "application/json"}
        if settings.token:
            self._headers["Authorization"] = f"token={settings.token}"
        elif settings.auth:
            self._headers["Authorization"] = "Basic " + base64.b64encode(settings.auth.encode()).decode()

    async def listen(self, heard: Callable[[], None]) -> None:
        query = "&".join(f"event_type={name}" for name in EVENTS)
        url = self._settings.urls[self._turn % len(self._settings.urls)]
        async with self.fetch.stream(
            "GET",
            f"{url}/v2/events?{query}",
            headers={**self._headers, "Accept": "text/event-stream"},
            idle_timeout_s=SILENCE_S,
        ) as stream:
            if stream.status != 200:
                self._turn += 1
                raise SourceError(f"{url}/v2/events: status {stream.status}")
            heard()
            events = EventLines()
            async for chunk in stream:
                if any(name in EVENTS for name in events.feed(chunk)):
                    heard()

    async def read(self) -> tuple[Facts, list[str]]:
        url = self._settings.urls[self._turn % len(self._settings.urls)]
        path = "/v2/apps?embed=apps.tasks"
        try:
            reply = await self.fetch.request("GET", url + path, headers=self._headers, timeout_s=20.0)
        except Exception:
            self._turn += 1  # another one may answer
            raise
        if reply.status != 200:
            self._turn += 1
            what = "credentials are needed (MARATHON_AUTH, DCOS_ACS_TOKEN)" if reply.status == 401 else ""
            raise SourceError(f"{url}/v2/apps: status {reply.status} {what}".rstrip())
        try:
            told = json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{url}/v2/apps: not an answer of Marathon: {error}") from error
        apps = told.get("apps") if isinstance(told, dict) else None
        if not isinstance(apps, list):
            raise SourceError(f"{url}/v2/apps: expected an object with a list `apps`")
        problems: list[str] = []
        listed: list[Listed] = []
        for app in apps:
            try:
                listed += instances(app)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                name = app.get("id", "?") if isinstance(app, dict) else "?"
                problems.append(f"marathon {name}: {type(error).__name__}: {error}")
        facts, unusable = facts_of(listed, self.name, self._domain)
        return facts, problems + unusable


class EventLines:
    """Names of the events of a text/event-stream, however it is cut (WHATWG HTML, server-sent events)."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._any = False

    def feed(self, chunk: bytes) -> list[str]:
        """The names of the events that are complete now; `message` for one without a name."""
        found = []
        lines = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = lines.pop()[-65536:]
        for line in lines:
            if not line:
                if self._any:
                    found.append(self._name or "message")
                self._name, self._any = "", False
                continue
            field, _, value = line.partition(b":")
            if field == b"event":
                self._name = value.strip().decode("utf-8", "replace")
            elif field == b"data":
                self._any = True
        return found


def service_and_namespace(app_id: str) -> tuple[str, str]:
    """Of `/shop/web`: web, shop."""
    parts = [part for part in app_id.split("/") if part]
    if not parts:
        raise ValueError(f"id {app_id!r} names no app")
    return parts[-1], "-".join(parts[:-1]) or "default"


def instances(app: Mapping[str, Any]) -> Iterator[Listed]:
    """The tasks of one app; raises for what is malformed."""
    app_id = str(app["id"])
    service, namespace = service_and_namespace(app_id)
    labels = {str(key): str(value) for key, value in (app.get("labels") or {}).items()}
    if not wanted(labels):
        return
    labels["marathon.app"] = app_id
    own = _container_mode(app)
    checks = len(app.get("healthChecks") or ())
    for task in app.get("tasks") or ():
        state = str(task.get("state") or "TASK_RUNNING")
        if state not in ALIVE | COMING | GOING:
            continue
        address, ports = _place(app, task, own)
        if not address:
            continue  # not placed yet
        ready, why = _ready(task, state, checks)
        zone = task.get("zone") or ""
        region = task.get("region") or ""
        yield Listed(
            where=str(task["id"]),
            service=service,
            namespace=namespace,
            instance=f"{service}-{_short(str(task['id']))}",
            address=address,
            ports=ports,
            labels=labels,
            ready=ready,
            why=why,
            terminating=state in GOING,
            locality=f"{region}/{zone}".rstrip("/") if region or zone else "",
        )


def _short(task: str) -> str:
    """Of `shop_web.instance-0a1b2c3d-....marathon-app.1`, what tells it from other tasks."""
    own = task.partition(".")[2].replace("instance-", "").replace("marathon-", "") or task
    return "".join(one for one in own.rpartition("._app")[0] or own if one.isalnum()).removesuffix("app")[-20:] or own


def _container_mode(app: Mapping[str, Any]) -> bool:
    """Whether tasks have addresses of their own."""
    networks = app.get("networks") or []
    if networks:
        return any(network.get("mode") == "container" for network in networks)
    return bool(app.get("ipAddress"))


def _definitions(app: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    container = app.get("container") or {}
    mappings = container.get("portMappings") or (container.get("docker") or {}).get("portMappings")
    return list(mappings or app.get("portDefinitions") or ())


def _place(app: Mapping[str, Any], task: Mapping[str, Any], own: bool) -> tuple[str, tuple[Port, ...]]:
    """Where a task is, and its TCP ports. Clients dial the container's port, else the service port (`10000`)."""
    definitions = _definitions(app)
    hosts = [int(port) for port in task.get("ports") or ()]
    address = str(task.get("host") or "")
    if own:
        addresses = [str(one["ipAddress"]) for one in task.get("ipAddresses") or () if one.get("ipAddress")]
        address = addresses[0] if addresses else ""
    found = []
    taken = 0
    for defined in definitions:
        container = int(defined.get("containerPort") or 0)
        at = 0
        if not (own and defined.get("hostPort") is None) and taken < len(hosts):
            at = hosts[taken]
            taken += 1
        if "tcp" not in str(defined.get("protocol") or "tcp"):
            continue
        real = container if own else at
        dialled = container or int(defined.get("servicePort") or defined.get("port") or 0)
        if real:
            found.append(Port(dialled or real, real, str(defined.get("name") or "")))
    if not definitions:
        found = [Port(port, port) for port in hosts]
    return address, tuple(found)


def _ready(task: Mapping[str, Any], state: str, checks: int) -> tuple[bool, str]:
    if state in COMING:
        return False, f"its state is {state}"
    results = [one for one in task.get("healthCheckResults") or () if isinstance(one, dict)]
    for one in results:
        if not one.get("alive"):
            cause = one.get("lastFailureCause") or "its health check has not succeeded"
            return False, f"{cause}"[:300]
    if checks and len(results) < checks:
        return False, "its health checks have not all been made yet"
    return True, ""
