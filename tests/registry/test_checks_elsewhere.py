"""Checks as Consul, Nomad and Marathon write them. The documents are those of their own documentation, cut short."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.registry.checks import Check, CheckError
from fairlead.registry.checks_elsewhere import file_checks


def test_consul_http_with_everything() -> None:
    notes: list[str] = []
    found = file_checks(
        {"service": {"name": "web", "check": {
            "id": "api", "name": "HTTP API on port 5000", "http": "https://localhost:5000/health?deep",
            "tls_server_name": "web.example", "method": "POST", "header": {"Content-Type": ["application/json"]},
            "body": "{}", "interval": "10s", "timeout": "1s", "success_before_passing": 3,
            "failures_before_warning": 1, "failures_before_critical": 2,
        }}},
        notes,
    )  # fmt: skip
    assert found == [
        Check(
            "readiness", "http", name="HTTP API on port 5000", host="localhost", port=5000, tls=True, verify=True,
            server_name="web.example", path="/health?deep", method="POST", body="{}",
            headers=(("Content-Type", "application/json"),), statuses=((200, 299), (429, 429)),
            period_s=10, timeout_s=1, success_threshold=3, failure_threshold=2,
        )
    ]  # fmt: skip
    assert notes == ["check.failures_before_warning: has no effect here"]


def test_consul_tcp_grpc_and_commands_also_in_the_names_of_its_api() -> None:
    found = file_checks(
        {"checks": [
            {"tcp": "[::1]:22", "interval": "10s"},
            {"GRPC": "127.0.0.1:12345/my_service", "GRPCUseTLS": True, "TLSSkipVerify": True, "Interval": "10s"},
            {"args": ["/usr/local/bin/check_mem.py", "-limit", "256MB"], "interval": "5s", "status": "passing"},
        ]}
    )  # fmt: skip
    assert found == [
        Check("readiness", "tcp", host="::1", port=22, verify=True, timeout_s=10, failure_threshold=1),
        Check("readiness", "grpc", host="127.0.0.1", port=12345, service="my_service", tls=True, timeout_s=10,
              failure_threshold=1),
        Check("readiness", "exec", command=("/usr/local/bin/check_mem.py", "-limit", "256MB"), exits=(0, 1),
              verify=True, period_s=5, timeout_s=30, failure_threshold=1, passing_at_first=True),
    ]  # fmt: skip


def test_nomad_checks_are_ready_and_restart_as_their_job_says() -> None:
    found = file_checks(
        {"checks": [
            {"name": "alive", "type": "tcp", "port": "db", "interval": "10s", "timeout": "2s"},
            {"Name": "http", "Type": "http", "Path": "/_healthz", "PortLabel": "http", "Interval": 5_000_000_000,
             "Timeout": 2_000_000_000, "CheckRestart": {"Limit": 3, "Grace": 90_000_000_000}},
            {"type": "script", "command": "/bin/check", "args": ["-x"], "interval": "1m", "timeout": "5s",
             "task": "web"},
        ]}
    )  # fmt: skip
    http: dict[str, Any] = {
        "name": "http",
        "port": "http",
        "path": "/_healthz",
        "period_s": 5,
        "timeout_s": 2,
        "verify": True,
    }
    http["statuses"] = ((200, 299), (429, 429))
    assert found == [
        Check("readiness", "tcp", name="alive", port="db", timeout_s=2, failure_threshold=1, verify=True),
        Check("readiness", "http", failure_threshold=1, **http),
        Check("liveness", "http", failure_threshold=3, initial_delay_s=90, **http),
        Check("readiness", "exec", command=("/bin/check", "-x"), exits=(0, 1), period_s=60, timeout_s=5,
              failure_threshold=1, verify=True),
    ]  # fmt: skip


def test_marathon_health_checks_with_its_defaults() -> None:
    found = file_checks(
        {"healthChecks": [
            {"protocol": "MESOS_HTTP", "path": "/api/health", "portIndex": 1, "maxConsecutiveFailures": 0},
            {"protocol": "COMMAND", "command": {"value": "curl -f localhost"}, "gracePeriodSeconds": 3,
             "intervalSeconds": 60, "timeoutSeconds": 10, "delaySeconds": 0},
        ]}
    )  # fmt: skip
    assert found[0] == Check(
        "readiness", "http", port="#1", path="/api/health", grace_s=300, period_s=60, timeout_s=20, initial_delay_s=15,
        failure_threshold=1,
    )  # fmt: skip
    assert [(one.purpose, one.failure_threshold, one.command) for one in found[1:]] == [
        ("readiness", 1, ("/bin/sh", "-c", "curl -f localhost")),
        ("liveness", 3, ("/bin/sh", "-c", "curl -f localhost")),
    ]


def test_kubernetes_probes_and_lists_of_definitions_may_stand_in_the_file() -> None:
    found = file_checks([{"readinessProbe": {"tcpSocket": {"port": 1}}}, {"check": {"tcp": "a:2", "interval": "1s"}}])
    assert [(one.kind, one.port) for one in found] == [("tcp", 1), ("tcp", 2)]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x", "expected a mapping"),
        ({"cheks": []}, "expected one of"),
        ({"check": {"ttl": "30s"}}, "check: ttl: may not be used"),
        ({"check": {"tcp": "a:1"}}, "check: interval: needed"),
        ({"checks": [{"tcp": "a:1", "interval": "1s"}, {"tcp": "a", "interval": "1s"}]}, "checks[1]: tcp"),
        ({"check": {"tcp": "a:1", "http": "http://a", "interval": "1s"}}, "http and tcp"),
        ({"check": {"tcp": "a:1", "interval": "1s", "tpc": 1}}, "unknown field 'tpc'"),
        ({"check": {"tcp": "a:1", "interval": "soon"}}, "interval: expected a duration"),
        ({"check": {"type": "http", "path": "x", "interval": "1s", "timeout": "1s"}}, "path"),
        ({"check": {"type": "udp", "interval": "1s", "timeout": "1s"}}, "type"),
        ({"check": {"type": "tcp", "interval": "1s", "timeout": "1s", "check_restart": {"limit": "a"}}}, "limit"),
        ({"healthChecks": [{"protocol": "SMTP"}]}, "healthChecks[0]: protocol"),
        ({"healthChecks": [{"intervalSeconds": -1}]}, "intervalSeconds"),
        ({"readinessProbe": {"exec": {}}}, "readinessProbe: exec.command"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_by_name(value: Any, words: str) -> None:
    with pytest.raises(CheckError) as told:
        file_checks(value)
    assert words in str(told.value)
