"""Environment variables of services, in the kubelet's words."""

from __future__ import annotations

from fairlead.registry.model import Service, ServicePort
from fairlead.registry.service_env import environment


def service(name: str, *ports: ServicePort, namespace: str = "default", **more: object) -> Service:
    host = f"{name}.{namespace}.svc.cluster.local"
    return Service(host, namespace, name, ports, **more)  # type: ignore[arg-type]


def all_of(*services: Service) -> dict[str, Service]:
    return {one.host: one for one in services}


REDIS = service("redis-primary", ServicePort(6379), addresses=("10.0.0.11",))


def test_the_example_of_kubernetes_documentation() -> None:
    assert environment(all_of(REDIS), "default") == {
        "REDIS_PRIMARY_PORT": "tcp://10.0.0.11:6379",
        "REDIS_PRIMARY_PORT_6379_TCP": "tcp://10.0.0.11:6379",
        "REDIS_PRIMARY_PORT_6379_TCP_ADDR": "10.0.0.11",
        "REDIS_PRIMARY_PORT_6379_TCP_PORT": "6379",
        "REDIS_PRIMARY_PORT_6379_TCP_PROTO": "tcp",
        "REDIS_PRIMARY_SERVICE_HOST": "10.0.0.11",
        "REDIS_PRIMARY_SERVICE_PORT": "6379",
    }


def test_several_ports_have_their_names_and_the_first_is_the_port() -> None:
    web = service("web", ServicePort(80, "http"), ServicePort(53, "dns-udp", "UDP"), addresses=("fd00::1", "10.0.0.1"))
    made = environment(all_of(web), "default")
    assert made["WEB_SERVICE_PORT"] == "80"
    assert (made["WEB_SERVICE_PORT_HTTP"], made["WEB_SERVICE_PORT_DNS_UDP"]) == ("80", "53")
    assert made["WEB_PORT"] == "tcp://[fd00::1]:80"
    assert made["WEB_PORT_53_UDP"] == "udp://[fd00::1]:53"
    assert made["WEB_PORT_53_UDP_PROTO"] == "udp"


def test_only_services_of_the_namespace_with_an_address_have_variables() -> None:
    others = all_of(
        service("other", ServicePort(80), namespace="shop", addresses=("10.0.0.2",)),
        service("headless", ServicePort(80), headless=True),
        service("alias", ServicePort(80), external_name="a.example"),
        service("bare", ServicePort(80)),
        Service("api.example.com", "default", "api", (ServicePort(443),), addresses=("10.0.0.3",), external=True),
    )
    assert environment(others, "default") == {}
    by_name = environment(others, "default", by_name=True)
    assert by_name["BARE_SERVICE_HOST"] == "bare.default.svc.cluster.local"
    assert {name.partition("_")[0] for name in by_name} == {"BARE", "HEADLESS"}
