"""Client TLS that DestinationRules ask for: from files and Secrets, renewed, revoked, told where it cannot be had."""

from __future__ import annotations

import base64
import os
import ssl
from functools import cache
from pathlib import Path

import pytest

from fairlead.mesh.originations import LOOK_S, Originations
from fairlead.policy.resources import Meta, Secret, SecretSpec
from fairlead.policy.tables import UpstreamTLS
from fairlead.proxy.dial import NoContextError
from tests.certificates import Authority
from tests.mesh.test_server_contexts import NAME, shake


@cache
def authority() -> Authority:
    return Authority("of servers")


def secret(**data: str) -> Secret:
    encoded = {key.replace("_", "."): base64.b64encode(text.encode()).decode() for key, text in data.items()}
    return Secret(Meta("up", "edge"), SecretSpec(encoded))


def server(certificate: tuple[str, str], folder: Path, clients: str = "") -> ssl.SSLContext:
    (folder / "server.pem").write_text("".join(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=clients)
    return context


def written(folder: Path, **texts: str) -> dict[str, str]:
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {name: str(folder / name) for name in texts}


def test_files_are_read_again_when_they_change_and_no_oftener_than_that(tmp_path: Path) -> None:
    files = written(tmp_path, ca=Authority("before").pem)
    tls = UpstreamTLS("simple", ca_file=files["ca"])
    made, there = Originations(), server(authority().issue(NAME), tmp_path)
    first = made.get(tls, False, 0.0)
    with pytest.raises(ssl.SSLError):
        shake(there, first)
    written(tmp_path, ca=authority().pem)
    assert made.get(tls, False, LOOK_S - 1) is first, "not looked at yet"
    second = made.get(tls, False, LOOK_S)
    shake(there, second)
    os.utime(files["ca"])
    assert made.get(tls, False, 2 * LOOK_S) is second, "the same octets"
    os.remove(files["ca"])
    assert made.get(tls, False, 3 * LOOK_S) is second, "what was there before stays"
    assert "ca: No such file" in made.problem()
    written(tmp_path, ca=authority().pem)
    made.get(tls, False, 4 * LOOK_S)
    assert not made.problem()


def test_a_certificate_of_our_own_is_shown_and_renewed_from_files(tmp_path: Path) -> None:
    certificate, key = authority().issue("client")
    files = written(tmp_path, ca=authority().pem, cert=certificate, key=key)
    tls = UpstreamTLS("mutual", ca_file=files["ca"], cert_file=files["cert"], key_file=files["key"])
    made, there = Originations(), server(authority().issue(NAME), tmp_path, authority().pem)
    ours, _ = shake(there, made.get(tls, False, 0.0))
    assert ours.getpeercert()["subject"] == ((("commonName", "client"),),)  # type: ignore[index]
    certificate, key = authority().issue("renewed")
    written(tmp_path, cert=certificate)
    made.get(tls, False, LOOK_S)
    assert "do not belong together" in made.problem()
    written(tmp_path, key=key)
    ours, _ = shake(there, made.get(tls, False, 2 * LOOK_S))
    assert ours.getpeercert()["subject"] == ((("commonName", "renewed"),),)  # type: ignore[index]


def test_a_servers_certificate_that_is_on_the_list_is_refused(tmp_path: Path) -> None:
    bad = authority().issue(NAME)
    files = written(tmp_path, ca=authority().pem, crl=authority().revoke())
    tls = UpstreamTLS("simple", ca_file=files["ca"], crl_file=files["crl"])
    made, there = Originations(), server(bad, tmp_path)
    shake(there, made.get(tls, False, 0.0))
    written(tmp_path, crl=authority().revoke(bad[0]))
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        shake(there, made.get(tls, False, LOOK_S))


def test_a_secret_stands_in_for_files_and_counts_at_once_when_it_changes(tmp_path: Path) -> None:
    tls = UpstreamTLS("mutual", credential=("edge", "up"))
    made, there = Originations(), server(authority().issue(NAME), tmp_path, authority().pem)
    for name in ("client", "renewed"):
        certificate, key = authority().issue(name)
        made.update([secret(tls_crt=certificate, tls_key=key, ca_crt=authority().pem)])
        ours, _ = shake(there, made.get(tls, False, 0.0))
        assert ours.getpeercert()["subject"] == ((("commonName", name),),)  # type: ignore[index]
    bad = authority().issue(NAME)
    revoking = secret(tls_crt=certificate, tls_key=key, ca_crt=authority().pem, ca_crl=authority().revoke(bad[0]))
    made.update([revoking])
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        shake(server(bad, tmp_path), made.get(tls, False, 0.0))


def test_simple_tls_takes_authorities_alone_from_the_secret_or_the_one_beside_it(tmp_path: Path) -> None:
    tls = UpstreamTLS("simple", credential=("edge", "up"))
    there = server(authority().issue(NAME), tmp_path)
    beside = Secret(Meta("up-cacert", "edge"), SecretSpec(string_data={"ca.crt": authority().pem}))
    certificate, key = authority().issue("client")
    for secrets in ([secret(ca_crt=authority().pem)], [secret(cacert=authority().pem)], [beside],
                    [secret(tls_crt=certificate, tls_key=key), beside]):  # fmt: skip
        made = Originations()
        made.update(secrets)
        shake(there, made.get(tls, False, 0.0))


@pytest.mark.parametrize(
    ("tls", "data", "why"),
    [
        (UpstreamTLS("mutual", credential=("edge", "up")), None, "there is no Secret edge/up"),
        (UpstreamTLS("simple", credential=("edge", "up")), None, "there is no Secret edge/up"),
        (UpstreamTLS("simple", credential=("edge", "up")), {"tls_crt": "a"}, "Secret edge/up has no ca.crt"),
        (UpstreamTLS("mutual", credential=("edge", "up")), {"ca_crt": "a"}, "has no tls.crt and tls.key"),
        (UpstreamTLS("simple", credential=("edge", "up")), {"ca_crt": "a"}, "certificate of an authority"),
        (UpstreamTLS("simple", ca_file="/nowhere/ca"), None, "/nowhere/ca: No such file"),
        (UpstreamTLS("mutual"), None, "needs a clientCertificate"),
        (UpstreamTLS("mutual", unusable="it is for gateways"), None, "it is for gateways"),
    ],
)
def test_what_cannot_be_had_is_told_and_no_connection_is_made_without_it(
    tls: UpstreamTLS, data: dict[str, str] | None, why: str
) -> None:
    made = Originations()
    made.update([secret(**data)] if data is not None else [])
    with pytest.raises(NoContextError, match=why):
        made.get(tls, False, 0.0)
