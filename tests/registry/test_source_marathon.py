"""Marathon's apps and tasks, as its HTTP API documents them; its server cannot run here."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.fetch import AiohttpFetch
from fairlead.registry.source_listed import ListedSource
from fairlead.registry.source_marathon import EventLines, MarathonReader, MarathonSettings, instances, settings_of
from tests.registry.api_server import Recorded, recorded
from tests.registry.following import Heard, following

WEB = "web.shop.svc.cluster.local"
BRIDGED: dict[str, Any] = {
    "id": "/shop/web", "instances": 2, "labels": {"version": "1", "fairlead.protocol": "http"},
    "container": {"type": "DOCKER", "portMappings": [
        {"containerPort": 80, "hostPort": 0, "servicePort": 10019, "protocol": "tcp", "name": "http"},
        {"containerPort": 8125, "hostPort": 0, "servicePort": 10020, "protocol": "udp", "name": "stats"},
        {"containerPort": 9000, "hostPort": 0, "servicePort": 10021, "protocol": "udp,tcp", "name": "admin"},
    ]},
    "networks": [{"mode": "container/bridge"}],
    "healthChecks": [{"protocol": "MESOS_HTTP", "path": "/health", "portIndex": 0}],
    "tasks": [
        {"id": "shop_web.instance-0a1b2c3d-aaaa.marathon-app", "host": "10.1.0.5", "ports": [31201, 31202, 31203],
         "state": "TASK_RUNNING", "ipAddresses": [{"ipAddress": "172.17.0.3", "protocol": "IPv4"}],
         "healthCheckResults": [{"alive": True, "consecutiveFailures": 0}], "region": "eu", "zone": "a"},
        {"id": "shop_web.instance-0a1b2c3d-bbbb.marathon-app", "host": "10.1.0.6", "ports": [31301, 31302, 31303],
         "state": "TASK_RUNNING", "healthCheckResults": [
             {"alive": False, "consecutiveFailures": 3, "lastFailureCause": "ConnectionAttemptFailedException"}]},
    ],
}  # fmt: skip


def app(**more: Any) -> dict[str, Any]:
    return {**copy.deepcopy(BRIDGED), **more}


def documents(server: Recorded) -> None:
    server.documents = {"/v2/apps": {"apps": [app()]}}  # changed by who asks for it
    server.stream_paths = ("/v2/events",)


def source(server: Recorded, heard: Heard, **more: Any) -> ListedSource:
    settings = MarathonSettings(urls=(server.url,), **more)
    return ListedSource(MarathonReader(AiohttpFetch(), settings), heard.update, heard.tell, hold_s=0.1)


@pytest.mark.asyncio
async def test_tasks_of_a_bridged_app_are_at_their_hosts_and_host_ports() -> None:
    async with recorded(documents) as server, following(lambda heard: source(server, heard, auth="me:x")) as heard:
        await heard.until(lambda: WEB in heard.facts.services)
        ports = heard.facts.services[WEB].ports
        assert [(one.number, one.name, one.app_protocol) for one in ports] == [
            (80, "http", "http"), (9000, "admin", "http"),
        ]  # fmt: skip
        first = [one for one in heard.endpoints(WEB) if one.address == "10.1.0.5"]
        assert [(one.port, one.port_name, one.ready) for one in first] == [
            (31201, "http", True),
            (31203, "admin", True),
        ]
        assert first[0].locality == "eu/a" and first[0].labels == {"version": "1", "marathon.app": "/shop/web"}
        second = [one for one in heard.endpoints(WEB) if one.address == "10.1.0.6"]
        assert {(one.ready, one.why) for one in second} == {(False, "ConnectionAttemptFailedException")}
        assert server.asked[0][2]["Authorization"].startswith("Basic ")


@pytest.mark.asyncio
async def test_a_change_is_heard_of_by_the_event_stream_however_it_is_cut() -> None:
    async with recorded(documents) as server, following(lambda heard: source(server, heard)) as heard:
        await heard.until(lambda: heard.ports(WEB) == {31201, 31203} and server.streams and not heard.status.error)
        query = next(query for path, query, _ in server.asked if path == "/v2/events")
        assert "event_type" in query
        moved = app()
        moved["tasks"][0]["ports"] = [32001, 32002, 32003]
        server.documents["/v2/apps"] = {"apps": [moved]}
        for octets in (b"event: status_upd", b"ate_event\r\nda", b'ta: {"x": 1}\r', b"\n\r\n"):
            await server.say(octets)
        await heard.until(lambda: heard.ports(WEB) == {32001, 32003})


@pytest.mark.asyncio
async def test_a_refusal_says_what_to_do() -> None:
    def refusing(server: Recorded) -> None:
        documents(server)
        server.status["/v2/apps"] = 401

    async with recorded(refusing) as server, following(lambda heard: source(server, heard)) as heard:
        await heard.until(lambda: "MARATHON_AUTH" in heard.status.error)


def test_an_app_on_the_hosts_network_is_dialled_at_its_service_port() -> None:
    told = app(container=None, networks=[{"mode": "host"}], healthChecks=[],
               portDefinitions=[{"port": 10000, "name": "http", "protocol": "tcp"}])  # fmt: skip
    one = next(instances(told))
    assert [(port.service, port.number, port.name) for port in one.ports] == [(10000, 31201, "http")]
    assert (one.service, one.namespace, one.instance) == ("web", "shop", "web-0a1b2c3daaaa")


def test_an_app_with_addresses_of_its_own_is_dialled_there() -> None:
    told = app(networks=[{"mode": "container", "name": "dcos"}])
    for mapping in told["container"]["portMappings"]:
        mapping["hostPort"] = None
    one = next(instances(told))
    assert one.address == "172.17.0.3"
    assert [(port.service, port.number) for port in one.ports] == [(80, 80), (9000, 9000)]
    assert len(list(instances(told))) == 1, "the other one has no address yet"


def test_tasks_are_ready_once_all_checks_have_said_so() -> None:
    told = app()
    told["tasks"][0].pop("healthCheckResults")
    told["tasks"][1] = {**told["tasks"][0], "id": "x.y", "state": "TASK_STAGING"}
    told["tasks"].append({**told["tasks"][0], "id": "x.z", "state": "TASK_KILLING"})
    told["tasks"].append({**told["tasks"][0], "id": "x.w", "state": "TASK_FAILED"})
    unchecked, staging, killed = instances(told)
    assert (unchecked.ready, unchecked.why) == (False, "its health checks have not all been made yet")
    assert (staging.ready, staging.why) == (False, "its state is TASK_STAGING")
    assert killed.terminating


def test_groups_are_namespaces() -> None:
    assert [
        (one.service, one.namespace)
        for path in ("/web", "/shop/web", "/eu/shop/web")
        for one in list(instances(app(id=path)))[:1]
    ] == [("web", "default"), ("web", "shop"), ("web", "eu-shop")]


def test_settings() -> None:
    found = settings_of("a:1, https://b/", {"MARATHON_AUTH": "u:p"})
    assert (found.urls, found.auth) == (("http://a:1", "https://b"), "u:p")
    assert settings_of("env", {"MARATHON_URL": "http://m:8080"}).urls == ("http://m:8080",)


@given(st.lists(st.sampled_from(["status_update_event", "deployment_info", ""]), max_size=5), st.data())
def test_events_are_the_same_however_they_are_cut(names: list[str], data: st.DataObject) -> None:
    octets = b"".join(f"event: {name}\r\ndata: x\r\n\r\n".encode() if name else b"\r\n" for name in names)
    lines, found, at = EventLines(), [], 0
    while at < len(octets):
        step = data.draw(st.integers(1, 9))
        found += lines.feed(octets[at : at + step])
        at += step
    assert found == [name for name in names if name]
