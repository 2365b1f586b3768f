"""TLS of a gateway's servers: where certificates come from, what is asked of clients, renewal."""

from __future__ import annotations

import base64
import os
import ssl
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fairlead.mesh.contexts import Contexts
from fairlead.mesh.server_contexts import ServerContexts
from fairlead.policy.gateways import Ports, Server
from fairlead.policy.resources import (
    Gateway,
    GatewayServer,
    GatewaySpec,
    Meta,
    Secret,
    SecretSpec,
    ServerPort,
    ServerTLS,
    TLSCertificate,
)
from tests.certificates import Authority

NAME = "shop.example"


@cache
def authority(name: str = "ca") -> Authority:
    return Authority(name)


@cache
def pair(name: str = NAME, with_rsa: bool = False) -> tuple[str, str]:
    return authority().issue(name, with_rsa=with_rsa)


def secret(name: str, namespace: str = "edge", **data: str) -> Secret:
    encoded = {key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return Secret(Meta(name, namespace), SecretSpec(encoded))


def ports_of(*settings: ServerTLS, protocol: str = "HTTPS") -> Ports:
    servers = [
        GatewayServer(ServerPort(443 + number, f"p{number}", protocol), ["*"], tls=tls)
        for number, tls in enumerate(settings)
    ]
    return Ports([Gateway(Meta("edge", "shop"), GatewaySpec(servers))])


def made(tls: ServerTLS, *secrets: Secret) -> tuple[ServerContexts, Server]:
    contexts = ServerContexts(Contexts(lambda: ()))
    ports = ports_of(tls)
    contexts.update(ports, secrets, "edge")
    return contexts, ports.servers[0]


def shake(context: ssl.SSLContext | None, client: ssl.SSLContext | None = None) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A handshake in memory: (server's, client's object). Raises ssl.SSLError where one side refuses."""
    assert context is not None
    if client is None:
        client = ssl.create_default_context(cadata=authority().pem)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=NAME)
    done: set[Any] = set()
    for _ in range(8):
        for side in (theirs, ours):
            if side not in done:
                try:
                    side.do_handshake()
                    done.add(side)
                except ssl.SSLWantReadError:
                    pass
    assert len(done) == 2
    return ours, theirs


def client_with(certificate: tuple[str, str] | None, folder: Path, alpn: list[str] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority().pem)
    if certificate is not None:
        (folder / "client.pem").write_text(certificate[0] + certificate[1])
        context.load_cert_chain(folder / "client.pem")
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


SIMPLE = ServerTLS(mode="SIMPLE", credential_name="cert")


def test_a_secret_of_the_gateways_namespace_is_the_certificate_in_both_spellings() -> None:
    certificate, key = pair()
    for data in ({"tls_crt": certificate, "tls_key": key}, {"cert": certificate, "key": key}):
        contexts, server = made(SIMPLE, secret("cert", **data))
        assert not contexts.problems
        ours, theirs = shake(contexts.of(server))
        assert theirs.getpeercert()["subject"] == ((("commonName", NAME),),)  # type: ignore[index]
        assert contexts.client_of(server, None) == ""
        assert ours.version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("tls", "secrets", "why"),
    [
        (SIMPLE, (), "there is no Secret edge/cert"),
        (SIMPLE, (secret("cert", "shop"),), "there is one in shop, but it must be in the gateway's namespace"),
        (SIMPLE, (secret("cert", tls_crt="x"),), "Secret cert has no tls.crt and tls.key"),
        (SIMPLE, (Secret(Meta("cert", "edge"), SecretSpec({"tls.crt": "%%%"})),), "tls.crt is not PEM in base64"),
        (ServerTLS(mode="SIMPLE", credential_name="sds://x"), (), "sds://x is not carried out"),
        (
            ServerTLS(mode="SIMPLE", server_certificate="/nowhere.pem", private_key="/k"),
            (),
            "/nowhere.pem: No such file",
        ),
        (
            ServerTLS(mode="MUTUAL", credential_name="cert"),
            (secret("cert", tls_crt=pair()[0], tls_key=pair()[1]),),
            "has no ca.crt, and there is no Secret edge/cert-cacert",
        ),
        (
            SIMPLE,
            (secret("cert", tls_crt=pair()[0], tls_key=pair("other.example")[1]),),
            "key and certificate do not belong together",
        ),
        (SIMPLE, (secret("cert", tls_crt="no pem", tls_key="no pem"),), "TLS: "),
    ],
)
def test_what_cannot_be_had_is_told_and_gives_no_context(tls: ServerTLS, secrets: tuple[Secret, ...], why: str) -> None:
    contexts, server = made(tls, *secrets)
    assert contexts.of(server) is None
    assert why in contexts.problems["Gateway shop/edge spec.servers[0]"]


def test_a_renewed_certificate_is_for_new_connections_and_an_unusable_one_changes_nothing() -> None:
    certificate, key = pair()
    contexts, server = made(SIMPLE, secret("cert", tls_crt=certificate, tls_key=key))
    first = contexts.of(server)
    contexts.update(ports_of(SIMPLE), [secret("cert", tls_crt=certificate, tls_key=key)], "edge")
    assert contexts.of(server) is first, "nothing has changed"
    contexts.update(ports_of(SIMPLE), [secret("cert", tls_crt=certificate, tls_key="broken")], "edge")
    assert contexts.of(server) is first and contexts.problems
    renewed = authority().issue(NAME)
    contexts.update(ports_of(SIMPLE), [secret("cert", tls_crt=renewed[0], tls_key=renewed[1])], "edge")
    assert contexts.of(server) is not first and not contexts.problems
    _, theirs = shake(contexts.of(server))
    assert ssl.DER_cert_to_PEM_cert(theirs.getpeercert(True) or b"").split() == renewed[0].split()


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.write_text(pair()[0])
    key.write_text(pair()[1])
    contexts, server = made(ServerTLS(mode="SIMPLE", server_certificate=str(certificate), private_key=str(key)))
    first = contexts.of(server)
    contexts.look()
    assert contexts.of(server) is first
    renewed = authority().issue(NAME)
    certificate.write_text(renewed[0])
    contexts.look()
    assert contexts.of(server) is first and contexts.problems, "half of it is there"
    key.write_text(renewed[1])
    contexts.look()
    assert contexts.of(server) is not first and not contexts.problems
    os.remove(key)
    contexts.look()
    assert contexts.of(server) is not None and "k.pem" in "".join(contexts.problems.values())


@pytest.mark.parametrize("beside", [False, True])
def test_mutual_tls_asks_for_a_certificate_of_its_authorities(tmp_path: Path, beside: bool) -> None:
    certificate, key = pair()
    own = {"tls_crt": certificate, "tls_key": key}
    secrets = [secret("cert", **own), secret("cert-cacert", ca_crt=authority().pem)]
    if not beside:
        secrets = [secret("cert", **own, ca_crt=authority().pem)]
    tls = ServerTLS(mode="MUTUAL", credential_name="cert", subject_alt_names=["known.example"])
    contexts, server = made(tls, *secrets)
    assert not contexts.problems
    known = authority().issue("known.example", "more.example")
    ours, _ = shake(contexts.of(server), client_with(known, tmp_path))
    assert contexts.client_of(server, Shown(ours)) == ""
    ours, _ = shake(contexts.of(server), client_with(authority().issue("other.example"), tmp_path))
    assert contexts.client_of(server, Shown(ours)) is None, "of our authority, and not who may come"
    for stranger in (None, authority("another ca").issue("known.example")):
        with pytest.raises(ssl.SSLError):
            shake(contexts.of(server), client_with(stranger, tmp_path))


def test_optional_mutual_tls_takes_clients_without_a_certificate_and_refuses_strangers(tmp_path: Path) -> None:
    certificate, key = pair()
    tls = ServerTLS(mode="OPTIONAL_MUTUAL", credential_name="cert", subject_alt_names=["known.example"])
    contexts, server = made(tls, secret("cert", tls_crt=certificate, tls_key=key, ca_crt=authority().pem))
    ours, _ = shake(contexts.of(server), client_with(None, tmp_path))
    assert contexts.client_of(server, Shown(ours)) == ""
    ours, _ = shake(contexts.of(server), client_with(authority().issue("other.example"), tmp_path))
    assert contexts.client_of(server, Shown(ours)) is None
    with pytest.raises(ssl.SSLError):
        shake(contexts.of(server), client_with(authority("another ca").issue("known.example"), tmp_path))


def test_revoked_certificates_of_clients_are_refused(tmp_path: Path) -> None:
    good, bad = authority().issue("good.example"), authority().issue("bad.example")
    for name, text in {
        "c": pair()[0],
        "k": pair()[1],
        "ca": authority().pem,
        "crl": authority().revoke(bad[0]),
    }.items():
        (tmp_path / name).write_text(text)
    tls = ServerTLS(mode="MUTUAL", server_certificate=str(tmp_path / "c"), private_key=str(tmp_path / "k"),
                    ca_certificates=str(tmp_path / "ca"), ca_crl=str(tmp_path / "crl"))  # fmt: skip
    contexts, server = made(tls)
    assert not contexts.problems
    shake(contexts.of(server), client_with(good, tmp_path))
    with pytest.raises(ssl.SSLError):
        shake(contexts.of(server), client_with(bad, tmp_path))


@pytest.mark.parametrize("authorities", ["", "no pem"])
def test_without_an_authority_mutual_tls_lets_nobody_in(authorities: str, tmp_path: Path) -> None:
    """An empty file of authorities must not mean that no client is asked for a certificate."""
    for name, text in {"c": pair()[0], "k": pair()[1], "ca": authorities}.items():
        (tmp_path / name).write_text(text)
    tls = ServerTLS(mode="MUTUAL", server_certificate=str(tmp_path / "c"), private_key=str(tmp_path / "k"),
                    ca_certificates=str(tmp_path / "ca"))  # fmt: skip
    contexts, server = made(tls)
    assert contexts.of(server) is None
    assert "certificate of an authority" in "".join(contexts.problems.values())


def test_a_secrets_list_revokes_too_and_what_is_no_list_is_not_taken_for_none(tmp_path: Path) -> None:
    good, bad = authority().issue("good.example"), authority().issue("bad.example")
    own = {"tls_crt": pair()[0], "tls_key": pair()[1], "ca_crt": authority().pem}
    tls = ServerTLS(mode="MUTUAL", credential_name="cert")
    contexts, server = made(tls, secret("cert", **own, ca_crl=authority().revoke(bad[0])))
    shake(contexts.of(server), client_with(good, tmp_path))
    with pytest.raises(ssl.SSLError):
        shake(contexts.of(server), client_with(bad, tmp_path))
    contexts.update(ports_of(tls), [secret("cert", **own, ca_crl=authority().revoke())], "edge")
    shake(contexts.of(server), client_with(bad, tmp_path))
    for text in ("", Authority("of a stranger").pem):
        contexts, server = made(tls, secret("cert", **own, ca_crl=text))
        assert contexts.of(server) is None
        assert "list of revoked certificates" in "".join(contexts.problems.values())
    beside = [secret("cert", tls_crt=pair()[0], tls_key=pair()[1]),
              secret("cert-cacert", ca_crt=authority().pem, ca_crl=authority().revoke(bad[0]))]  # fmt: skip
    contexts, server = made(tls, *beside)
    with pytest.raises(ssl.SSLError):
        shake(contexts.of(server), client_with(bad, tmp_path))


def test_each_certificate_of_a_chain_is_looked_for_as_envoy_does(tmp_path: Path) -> None:
    middle = Authority("middle", authority())
    client = middle.issue("client.example")
    shown = (client[0] + middle.pem, client[1])
    own = {"tls_crt": pair()[0], "tls_key": pair()[1], "ca_crt": authority().pem}
    tls = ServerTLS(mode="MUTUAL", credential_name="cert")
    for lists, good in (
        (authority().revoke() + middle.revoke(), True),
        (authority().revoke(), False),
        (middle.revoke(), False),
        (authority().revoke(middle.pem) + middle.revoke(), False),
        (authority().revoke() + middle.revoke(client[0]), False),
    ):
        contexts, server = made(tls, secret("cert", **own, ca_crl=lists))
        if good:
            shake(contexts.of(server), client_with(shown, tmp_path))
        else:
            with pytest.raises(ssl.SSLError):
                shake(contexts.of(server), client_with(shown, tmp_path))


def test_versions_ciphers_and_protocols_are_as_the_server_says(tmp_path: Path) -> None:
    tls = ServerTLS(mode="SIMPLE", credential_name="cert", max_protocol_version="TLSV1_2",
                    cipher_suites=["NO-SUCH-SUITE", "ECDHE-ECDSA-AES128-GCM-SHA256"])  # fmt: skip
    certificate, key = pair()
    contexts, server = made(tls, secret("cert", tls_crt=certificate, tls_key=key))
    ours, theirs = shake(contexts.of(server), client_with(None, tmp_path, ["h2", "http/1.1"]))
    assert (ours.version(), (ours.cipher() or [""])[0]) == ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")
    assert theirs.selected_alpn_protocol() == "h2"
    old = client_with(None, tmp_path)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    newer = ServerTLS(mode="SIMPLE", credential_name="cert", min_protocol_version="TLSV1_3")
    contexts, server = made(newer, secret("cert", tls_crt=certificate, tls_key=key))
    with pytest.raises(ssl.SSLError):
        shake(contexts.of(server), old)


def test_octets_behind_tls_speak_no_protocol_by_alpn(tmp_path: Path) -> None:
    certificate, key = pair()
    contexts = ServerContexts(Contexts(lambda: ()))
    ports = ports_of(SIMPLE, protocol="TLS")
    contexts.update(ports, [secret("cert", tls_crt=certificate, tls_key=key)], "edge")
    _, theirs = shake(contexts.of(ports.servers[0]), client_with(None, tmp_path, ["h2", "http/1.1"]))
    assert theirs.selected_alpn_protocol() is None


def test_two_certificates_serve_clients_of_either_kind_of_key(tmp_path: Path) -> None:
    texts = {"ec.c": pair()[0], "ec.k": pair()[1], "rsa.c": pair(NAME, True)[0], "rsa.k": pair(NAME, True)[1]}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    files = [TLSCertificate(str(tmp_path / f"{kind}.c"), str(tmp_path / f"{kind}.k")) for kind in ("ec", "rsa")]
    contexts, server = made(ServerTLS(mode="SIMPLE", tls_certificates=files))
    assert not contexts.problems
    for ciphers in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"):
        client = client_with(None, tmp_path)
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers(ciphers)
        assert (shake(contexts.of(server), client)[0].cipher() or [""])[0] == ciphers


class Shown:
    """A transport, as far as it is asked."""

    def __init__(self, wire: ssl.SSLObject) -> None:
        self.wire = wire

    def get_extra_info(self, name: str) -> Any:
        return {"peercert": self.wire.getpeercert(), "ssl_object": self.wire}[name]
