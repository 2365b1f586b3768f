"""Definitions of checks: Kubernetes' probes with their defaults and limits, and flags."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.registry.checks import Check, CheckError, flag_check, pod_checks, probe, resolve_port
from fairlead.registry.model import WorkloadPort


def test_a_probe_has_the_defaults_of_kubernetes() -> None:
    made = probe("readiness", {"httpGet": {"port": 8080}})
    assert made == Check("readiness", "http", port=8080)
    assert (made.initial_delay_s, made.period_s, made.timeout_s) == (0, 10, 1)
    assert (made.success_threshold, made.failure_threshold) == (1, 3)
    assert (made.path, made.statuses, made.tls) == ("/", ((200, 399),), False)
    zeros = {"httpGet": {"port": 8080}, "periodSeconds": 0, "timeoutSeconds": 0, "failureThreshold": 0}
    assert probe("readiness", zeros) == made, "0 stands for the default, as in Kubernetes"


def test_all_fields_of_an_http_probe_are_taken() -> None:
    made = probe(
        "liveness",
        {
            "httpGet": {
                "port": "web", "path": "alive", "scheme": "HTTPS", "host": "10.0.0.9",
                "httpHeaders": [{"name": "Host", "value": "a.example"}, {"name": "X-A", "value": "1"}],
            },
            "initialDelaySeconds": 5, "periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 7,
        },
        {"web": 9090},
    )  # fmt: skip
    assert made == Check(
        "liveness", "http", host="10.0.0.9", port=9090, tls=True, path="/alive",
        headers=(("Host", "a.example"), ("X-A", "1")),
        initial_delay_s=5, period_s=2, timeout_s=3, failure_threshold=7,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "one of httpGet, tcpSocket, exec and grpc"),
        ({"httpGet": {"port": 1}, "exec": {"command": ["a"]}}, "httpGet and exec"),
        ({"exec": {"command": []}}, "exec.command"),
        ({"httpGet": {"port": "nope"}}, "no port named 'nope' (web)"),
        ({"tcpSocket": {"port": 70000}}, "tcpSocket.port"),
        ({"grpc": {"port": 1}, "periodSeconds": -1}, "periodSeconds"),
        ({"httpGet": {"port": 1, "scheme": "FTP"}}, "scheme"),
        ({"httpGet": {"port": 1, "httpHeaders": [{"name": "a\nb"}]}}, "header"),
        ({"httpGet": {"port": 1, "httpHeaders": [{"name": "a", "value": "b\r\nc: d"}]}}, "header"),
        ("text", "expected an object"),
    ],
)
def test_what_cannot_be_a_probe_is_refused_with_its_field(value: Any, words: str) -> None:
    with pytest.raises(CheckError) as told:
        probe("readiness", value, {"web": 1})
    assert words in str(told.value)


@pytest.mark.parametrize("purpose", ["liveness", "startup"])
def test_only_readiness_may_ask_for_several_successes(purpose: str) -> None:
    value = {"tcpSocket": {"port": 1}, "successThreshold": 2}
    assert probe("readiness", value).success_threshold == 2
    with pytest.raises(CheckError, match="successThreshold"):
        probe(purpose, value)


def test_the_probes_of_all_containers_are_those_of_the_pod() -> None:
    containers = [
        {"name": "a", "ports": [{"name": "http", "containerPort": 8080}],
         "readinessProbe": {"httpGet": {"port": "http"}}, "startupProbe": {"exec": {"command": ["true"]}}},
        {"name": "b", "livenessProbe": {"tcpSocket": {"port": 5}}, "readinessProbe": {"tcpSocket": {"port": "http"}}},
    ]  # fmt: skip
    found = pod_checks({"containers": containers})
    assert [(one.purpose, one.kind, one.port) for one in found] == [
        ("startup", "exec", 0), ("readiness", "http", 8080), ("liveness", "tcp", 5),
    ]  # fmt: skip
    assert found[1].label == "readiness a: http :8080/"


def test_flags_are_urls_with_settings_in_their_query() -> None:
    assert flag_check("readiness", "http://:8080/healthz?period=5s&deep=1&status=200-204,404") == Check(
        "readiness", "http", port=8080, path="/healthz?deep=1", period_s=5, statuses=((200, 204), (404, 404))
    )
    assert flag_check("liveness", "tcp://10.0.0.1:5432?failure=1&timeout=500ms") == Check(
        "liveness", "tcp", host="10.0.0.1", port=5432, failure_threshold=1, timeout_s=0.5
    )
    assert flag_check("startup", "grpcs://:50051/my.Service?initial-delay=2") == Check(
        "startup", "grpc", port=50051, tls=True, service="my.Service", initial_delay_s=2
    )
    assert flag_check("readiness", "exec:pg_isready -h 'my host'").command == ("pg_isready", "-h", "my host")
    assert flag_check("readiness", "http://:80/?header=Host:+a.example").headers == (("Host", "a.example"),)


@pytest.mark.parametrize(
    "text",
    ["", "8080", "http://:0/", "ftp://a:1/", "exec:", "exec:'", "tcp://:80/x", "tcp://:80?priod=1s", "http://:80?period=0",
     "http://:80?period=x", "http://:80?failure=0", "http://:80?status=9", "http://[::1/", "http://:99999/",
     "http://u:p@h:80/"],
)  # fmt: skip
def test_flags_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(CheckError):
        flag_check("readiness", text)


def test_ports_are_found_by_number_by_name_and_by_place() -> None:
    ports = [WorkloadPort(8080, "http"), WorkloadPort(9090, "metrics")]
    assert resolve_port(Check("readiness", "tcp", port=1), ports) == 1
    assert resolve_port(Check("readiness", "tcp", port="metrics"), ports) == 9090
    assert resolve_port(Check("readiness", "tcp", port="#1"), ports) == 9090
    assert resolve_port(Check("readiness", "tcp"), ports) == 8080
    for port in ("none", "#2"):
        with pytest.raises(CheckError, match="no port"):
            resolve_port(Check("readiness", "tcp", port=port), ports)
    with pytest.raises(CheckError, match="no port"):
        resolve_port(Check("readiness", "tcp"), [])
