"""--store: what is understood, and what is refused with what is expected."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.control.settings import SettingError
from fairlead.control.store_consul import ConsulBackend
from fairlead.control.store_etcd import EtcdBackend
from fairlead.control.store_open import backend_of, split


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqlite:/var/lib/x.db", ("sqlite", "/var/lib/x.db", "")),
        ("sqlite:x.db", ("sqlite", "x.db", "")),
        ("etcd://a:1,b:2", ("etcd", "a:1,b:2", "fairlead")),
        ("etcd://a:1/mesh/prod/", ("etcd", "a:1", "mesh/prod")),
        ("consul:///x", ("consul", "", "x")),
    ],
)
def test_what_is_understood(text: str, expected: Any) -> None:
    assert split(text) == expected


@pytest.mark.parametrize("text", ["", "etcd", "etcd:", "etcd:a:1", "mysql://a", "sqlite:", "etcd://a/../b", "/path"])
def test_anything_else_is_refused_with_the_forms_that_there_are(text: str) -> None:
    with pytest.raises(SettingError, match=r"--store: (expected sqlite:PATH|a prefix)"):
        split(text)


def test_credentials_have_no_place_in_it() -> None:
    with pytest.raises(SettingError, match="ETCDCTL_USER"):
        split("etcd://root:secret@a:1")


def test_hosts_and_tls_are_those_of_the_tools_variables_where_none_are_named() -> None:
    etcd = backend_of("etcd:///x", {"ETCDCTL_ENDPOINTS": "a:1,b:2", "ETCDCTL_USER": "me:pw"})
    assert isinstance(etcd, EtcdBackend)
    assert etcd.client.settings.endpoints == ("http://a:1", "http://b:2")
    assert etcd.client.settings.user == "me"
    assert etcd.url == "etcd://a:1,b:2/x"
    secure = backend_of("etcds://a:1", {})
    assert isinstance(secure, EtcdBackend)
    assert secure.client.settings.endpoints == ("https://a:1",)
    consul = backend_of("consul:///x", {"CONSUL_HTTP_ADDR": "c:8500", "CONSUL_HTTP_TOKEN": "t"})
    assert isinstance(consul, ConsulBackend)
    assert consul.url == "consul://c:8500/x"
    several = backend_of("consul://a:1,b:2/x", {})
    assert several.url == "consul://a:1,b:2/x"
