"""What the command line says where control does not answer, or not as it should."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from fairlead.control.api_client import ApiClient, UnreachableError, remedy, warnings_of
from fairlead.control.cli import main
from tests.servers import free_ports


def verification(text: str) -> ssl.SSLCertVerificationError:
    return ssl.SSLCertVerificationError(1, f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {text}")


@pytest.mark.parametrize(
    ("url", "cause", "said"),
    [
        ("https://c", verification("self-signed certificate in certificate chain"), "--ca FILE"),
        ("https://c", verification("unable to get local issuer certificate"), "--ca FILE"),
        ("https://c", verification("certificate has expired"), "clocks"),
        ("https://c", verification("certificate is not yet valid"), "clocks"),
        ("https://c", verification("Hostname mismatch, certificate is not valid for 'c'."), "--tls-names"),
        ("https://c", ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "does not speak TLS"),
        ("http://c", ConnectionResetError(104, "Connection reset by peer"), "https://"),
        ("http://c", ConnectionRefusedError(111, "Connection refused"), "Does `fairlead control` run there"),
    ],
)
def test_each_cause_has_its_own_remedy(url: str, cause: Exception, said: str) -> None:
    assert said in remedy(url, cause)


def test_nobody_there_is_said_in_words_without_numbers() -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(UnreachableError, match="no answer from control at http") as caught:
        ApiClient(url).call("GET", "/version")
    assert f"{url}: Connection refused. Does" in str(caught.value)


def test_files_that_cannot_be_used_are_named_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for flags, said in (
        (["--token-file", "/nowhere"], "--token-file /nowhere: No such file or directory"),
        (["--control", "https://127.0.0.1:1", "--ca", "/nowhere"], "--ca /nowhere: No such file or directory"),
        (["--control", "https://127.0.0.1:1", "--ca", str(tmp_path / "empty")], "there is no certificate (PEM) in it"),
    ):
        assert main(["get", "pods", *flags]) == 2
        assert capsys.readouterr().err.endswith(f"{said}\n")


def test_warnings_of_the_server_are_read_as_it_quotes_them() -> None:
    assert warnings_of(['299 - "a \\"b\\" and a \\\\"', '299 fairlead "c"']) == ['a "b" and a \\', "c"]
