"""Statuses of sources on their way to the registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.control.settings import SettingError
from fairlead.control.source_setup import (
    consul_settings,
    consul_source,
    docker_source,
    marathon_source,
    nomad_source,
    stale_aware,
)
from fairlead.registry.hub import Registry
from fairlead.registry.keep import Keep
from fairlead.registry.model import Facts, Service, SourceStatus
from fairlead.registry.names import is_address


def test_an_entry_that_cannot_be_used_is_logged_once_while_it_stays_so(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(("etcd",))
    tell = stale_aware(registry)
    for problems in (("/services/a/1: bad",), ("/services/a/1: bad",), (), ("/services/a/1: bad",)):
        tell(SourceStatus("etcd", "live", 1.0, "", problems))
    assert caplog.text.count("etcd: an entry cannot be used: /services/a/1: bad") == 2
    assert registry.snapshot.value.sources["etcd"].problems == ("/services/a/1: bad",)


@pytest.mark.parametrize("text", ["10.0.0.1", "::1", "fe80::1%eth0", "db-1.example.com", "my_host"])
def test_an_address_is_an_ip_address_or_a_host_name(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize("text", ["", "a b", "a\n", "\x00", "a/b", "h\u00f6st", "a" * 256])
def test_what_no_client_can_dial_is_no_address(text: str) -> None:
    assert not is_address(text)


def test_consuls_token_may_be_in_a_file_and_one_given_itself_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("t1\n")
    assert consul_settings("env", {"CONSUL_HTTP_TOKEN_FILE": str(file)}).token == "t1"
    assert consul_settings("env", {"CONSUL_HTTP_TOKEN_FILE": str(file), "CONSUL_HTTP_TOKEN": "t2"}).token == "t2"
    with pytest.raises(SettingError, match="CONSUL_HTTP_TOKEN_FILE"):
        consul_settings("env", {"CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "none")})


def test_what_names_no_scheduler_is_said_with_what_was_expected(tmp_path: Path) -> None:
    registry = Registry()
    with pytest.raises(SettingError, match="nomad: expected HOST:PORT"):
        nomad_source("http://", registry, None, {})
    with pytest.raises(SettingError, match="marathon: expected HOST:PORT"):
        marathon_source(" ,", registry, None, {})
    with pytest.raises(SettingError, match="docker: expected unix:///PATH"):
        docker_source("unix://here", registry, None, {})
    with pytest.raises(SettingError, match="docker: expected HOST:PORT"):
        docker_source("ftp://here", registry, None, {})
    with pytest.raises(SettingError, match="TLS for https"):
        docker_source("tcp://h:2376", registry, None, {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)})
    with pytest.raises(SettingError, match="--consul-namespace: expected PATTERN=NAMESPACE"):
        consul_source("env", registry, None, {}, ["payments"])


def test_a_scheduler_that_does_not_answer_at_start_leaves_what_is_on_disk(tmp_path: Path) -> None:
    registry = Registry()
    facts = Facts(
        services={"web.default.svc.cluster.local": Service("web.default.svc.cluster.local", "default", "web")}
    )
    Keep(tmp_path / "source-nomad.json").save(facts, 5.0)
    nomad_source("127.0.0.1:1", registry, tmp_path, {})
    assert registry.snapshot.value.services == facts.services
    assert registry.snapshot.value.sources["nomad"].state == "stale"
