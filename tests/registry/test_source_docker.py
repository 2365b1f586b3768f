"""Docker's containers and Swarm's tasks, as the Engine's API documents them; its daemon cannot run here."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.fetch import AiohttpFetch
from fairlead.registry.source_docker import API, DockerReader, DockerSettings, of_container, of_task, settings_of
from fairlead.registry.source_listed import ListedSource
from tests.registry.api_server import Recorded, recorded
from tests.registry.following import Heard, following

WEB = "web.shop.svc.cluster.local"
SERVICE: dict[str, Any] = {
    "ID": "svc1", "Spec": {
        "Name": "shop_web", "Labels": {"com.docker.stack.namespace": "shop", "fairlead.protocol": "http"},
        "EndpointSpec": {"Mode": "vip", "Ports": [
            {"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 80, "PublishMode": "ingress"},
            {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 53, "PublishMode": "ingress"}]}},
}  # fmt: skip
NODE = {"ID": "node1", "Status": {"State": "ready", "Addr": "192.168.1.4"}, "Spec": {"Labels": {"zone": "a"}}}
TASK: dict[str, Any] = {
    "ID": "0kzzo1i0y4jz6027t0k7aezc7", "ServiceID": "svc1", "Slot": 1, "NodeID": "node1", "DesiredState": "running",
    "Status": {"State": "running", "Message": "started"},
    "Spec": {"ContainerSpec": {"Image": "web:1", "Labels": {"version": "1"}}},
    "NetworksAttachments": [
        {"Network": {"ID": "in", "Spec": {"Name": "ingress", "Ingress": True}}, "Addresses": ["10.255.0.10/16"]},
        {"Network": {"ID": "net", "Spec": {"Name": "shop_default"}}, "Addresses": ["10.0.1.3/24"]}],
}  # fmt: skip
CONTAINER: dict[str, Any] = {
    "Id": "8dfafdbc3a40", "Names": ["/shop-web-1"], "State": "running", "Status": "Up 3 minutes (healthy)",
    "Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "version": "2"},
    "Ports": [{"PrivatePort": 8080, "Type": "tcp"}, {"PrivatePort": 8080, "PublicPort": 80, "Type": "tcp", "IP": "::"},
              {"PrivatePort": 53, "Type": "udp"}],
    "NetworkSettings": {"Networks": {"shop_default": {"IPAddress": "172.18.0.2", "NetworkID": "n1"},
                                     "extra": {"IPAddress": "172.19.0.2", "NetworkID": "n2"}}},
}  # fmt: skip


def swarm(server: Recorded) -> None:
    server.documents = {
        f"{API}/info": {"Swarm": {"LocalNodeState": "active", "ControlAvailable": True}},
        f"{API}/services": [SERVICE], f"{API}/nodes": [NODE], f"{API}/tasks": [TASK], f"{API}/containers/json": [],
    }  # fmt: skip
    server.stream_paths = (f"{API}/events",)


def engine(server: Recorded) -> None:
    swarm(server)
    server.documents[f"{API}/info"] = {"Swarm": {"LocalNodeState": "inactive", "ControlAvailable": False}}
    server.documents[f"{API}/containers/json"] = [CONTAINER]


def source(fetch: AiohttpFetch, settings: DockerSettings, heard: Heard) -> ListedSource:
    return ListedSource(DockerReader(fetch, settings), heard.update, heard.tell, hold_s=0.1)


@pytest.mark.asyncio
async def test_tasks_of_a_swarm_are_endpoints_of_their_service() -> None:
    async with (
        recorded(swarm) as server,
        following(lambda heard: source(AiohttpFetch(), DockerSettings(server.url, ""), heard)) as heard,
    ):
        await heard.until(lambda: heard.ports(WEB) == {8080})
        (one,) = heard.endpoints(WEB)
        assert (one.address, one.locality, one.labels) == ("10.0.1.3", "/a", {"version": "1"})
        assert one.workload == "shop/web-1-0kzzo1i0"
        assert heard.facts.services[WEB].ports[0].app_protocol == "http"
        await heard.until(lambda: server.streams)
        starting = copy.deepcopy(TASK)
        starting["Status"] = {"State": "starting", "Message": "pulling"}
        server.documents[f"{API}/tasks"] = [starting]
        await server.say(b'{"Type":"service","Action":"update"}\n')
        await heard.until(lambda: not heard.ports(WEB))
        assert heard.endpoints(WEB)[0].why == "its state is starting: pulling"


@pytest.mark.asyncio
async def test_compose_services_of_one_engine_by_its_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "docker.sock")
    async with (
        recorded(engine, unix=path) as server,
        following(lambda heard: source(AiohttpFetch(socket=path), DockerSettings(socket=path), heard)) as heard,
    ):
        await heard.until(lambda: heard.ports(WEB) == {8080})
        assert [one.address for one in heard.endpoints(WEB)] == ["172.19.0.2"]
        await heard.until(lambda: server.streams)
        sick = {**CONTAINER, "Status": "Up 4 minutes (unhealthy)"}
        server.documents[f"{API}/containers/json"] = [sick]
        await server.say(b'{"Type":"container","Action":"health_status: unhealthy"}\n')
        await heard.until(lambda: not heard.ports(WEB))
        assert heard.endpoints(WEB)[0].why == "Docker says: Up 4 minutes (unhealthy)"
        server.documents[f"{API}/containers/json"] = [{"Id": "x", "Labels": {"fairlead.service": "y"}, "Names": 3}]
        await server.say(b"{}\n")
        await heard.until(lambda: WEB not in heard.facts.services)
        assert heard.status.problems


def task(**more: Any) -> list[Any]:
    return list(of_task({**copy.deepcopy(TASK), **more}, {"svc1": SERVICE}, {"node1": NODE}))


def test_a_task_without_an_overlay_network_is_at_its_node() -> None:
    status = {"State": "running", "PortStatus": {"Ports": [
        {"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 30001, "PublishMode": "host"}]}}  # fmt: skip
    (one,) = task(NetworksAttachments=[], Status=status)
    assert (one.address, [(port.service, port.number) for port in one.ports]) == ("192.168.1.4", [(8080, 30001)])


def test_tasks_that_ended_are_none_and_those_that_are_to_end_are_terminating() -> None:
    assert task(Status={"State": "shutdown"}, DesiredState="shutdown") == []
    assert task(Status={"State": "failed"}) == []
    (one,) = task(DesiredState="shutdown")
    assert one.terminating and one.ready
    assert list(of_task({**TASK, "ServiceID": "gone"}, {"svc1": SERVICE}, {})) == []


def test_a_network_may_be_named() -> None:
    labelled = copy.deepcopy(CONTAINER)
    labelled["Labels"]["fairlead.network"] = "shop_default"
    (one,) = of_container(labelled, "127.0.0.1")
    assert one.address == "172.18.0.2"
    (one,) = of_container({**CONTAINER, "NetworkSettings": {"Networks": {"host": {"IPAddress": ""}}}}, "10.9.9.9")
    assert one.address == "10.9.9.9", "it uses the host's network"


def test_containers_that_say_nothing_of_a_service_are_left_alone() -> None:
    assert list(of_container({**CONTAINER, "Labels": {}}, "")) == []
    assert (
        list(of_container({**CONTAINER, "Labels": {"com.docker.swarm.task.id": "x", "fairlead.service": "y"}}, ""))
        == []
    )


def test_settings_are_those_of_the_docker_command() -> None:
    assert settings_of("env", {}).socket == "/var/run/docker.sock"
    found = settings_of("tcp://10.0.0.1:2376", {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"})
    assert (found.url, found.socket, found.host, found.cert_path) == ("https://10.0.0.1:2376", "", "10.0.0.1", "/certs")
    assert settings_of("unix:///run/user/docker.sock", {}).socket == "/run/user/docker.sock"
