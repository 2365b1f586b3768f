"""Values of flags: what is taken, and what is refused with a sentence."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.control import settings
from fairlead.control.settings import SettingError
from fairlead.control.source_setup import check_urls


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (settings.address, "off", None),
        (settings.address, "[::1]:80", ("::1", 80)),
        (settings.address, ":80", ("127.0.0.1", 80)),
        (settings.seconds, "500ms", 0.5),
        (settings.seconds, "24h", 86400.0),
        (settings.workload_name, "shop/web-1", "shop/web-1"),
        (settings.workload_name, "web-1", "web-1"),
        (settings.host, "10.0.0.1", "10.0.0.1"),
        (settings.host, "::1", "::1"),
        (settings.host, "app_1.local", "app_1.local"),
        (settings.host, "", ""),
        (settings.trust_domain, "cluster.local", "cluster.local"),
        (settings.control_url, "https://control:15012/", "https://control:15012"),
    ],
)
def test_a_good_value_is_taken(read: Callable[[str], Any], text: str, value: Any) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (settings.address, "80x"),
        (settings.address, "host:99999"),
        (settings.seconds, "-1s"),
        (settings.seconds, "nan"),
        (settings.seconds, "inf"),
        (settings.seconds, "9999999999h"),
        (settings.workload_name, "a/b/c"),
        (settings.workload_name, "/b"),
        (settings.workload_name, "a/"),
        (settings.workload_name, "a b/c"),
        (settings.workload_name, "a/b\n"),
        (settings.host, "foo:80"),
        (settings.host, "a b"),
        (settings.host, "a..b"),
        (settings.trust_domain, "a b"),
        (settings.trust_domain, "A"),
        (settings.trust_domain, ""),
    ],
)
def test_a_bad_value_is_refused_with_what_is_expected(read: Callable[[str], Any], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        read(text)


@pytest.mark.parametrize("text", ["foo", "http://", "http://[:1", "http://a:x", "http://a b", "ftp://a", "http://a:0"])
def test_a_control_url_that_nobody_could_connect_to_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="--control: expected http://HOST:PORT"):
        settings.control_url(text)


@pytest.mark.parametrize("url", ["http://a:x", "http://::::", "http://x y", "foo://a", "http://"])
def test_a_source_that_nobody_could_connect_to_is_refused(url: str) -> None:
    with pytest.raises(SettingError, match="consul: expected HOST:PORT"):
        check_urls("consul", [url])


def test_no_source_at_all_is_refused() -> None:
    with pytest.raises(SettingError, match="etcd: expected"):
        check_urls("etcd", [])


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"two words", b"line\r\nx-injected: 1", b"n\xc3\xa9"])
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "token").write_bytes(data)
    with pytest.raises(ValueError):
        settings.bearer_token(str(tmp_path / "token"))


def test_a_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"abc.def\n")
    assert settings.bearer_token(str(tmp_path / "token")) == "abc.def"
