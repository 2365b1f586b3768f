"""Users by client certificate: CN and O, of an authority for people alone."""

from __future__ import annotations

import datetime
import json
import ssl
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fairlead.control import watch_hub
from fairlead.control.authority_files import open_authority
from fairlead.control.client_certificates import ClientAuthorities, user_of_certificate
from tests.control.serving import SERVICES, Client, api_on, store_in

WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
Signed = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def made(
    names: list[tuple[Any, str]], by: Signed | None = None, ca: bool = False, uri: str = "", days: int = 1
) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(oid, text) for oid, text in names])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(
            by[0].subject if by else subject, subject, key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca, None), True)
    )
    if uri:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False)
    return builder.sign(by[1] if by else key, hashes.SHA256()), key


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def context(folder: Path, roots: str, leaf: Signed, *chain: x509.Certificate) -> ssl.SSLContext:
    made_context = ssl.create_default_context(cadata=roots)
    key = leaf[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "me.pem").write_bytes(pem(leaf[0], *chain) + key)
    made_context.load_cert_chain(folder / "me.pem")
    return made_context


@pytest.mark.asyncio
async def test_cn_is_the_user_and_each_o_a_group_and_no_authority_speaks_for_the_other(tmp_path: Path) -> None:
    issuer = open_authority(tmp_path, "cluster.local", 3600.0)
    root = made([(NameOID.COMMON_NAME, "people")], ca=True)
    middle = made([(NameOID.COMMON_NAME, "middle")], root, ca=True)
    alice = [(NameOID.COMMON_NAME, "alice"), (NameOID.ORGANIZATION_NAME, "dev"), (NameOID.ORGANIZATION_NAME, "ops")]
    master = [(NameOID.COMMON_NAME, "root"), (NameOID.ORGANIZATION_NAME, "system:masters")]
    spiffe = "spiffe://cluster.local/ns/shop/sa/web"
    async with store_in(tmp_path) as store, api_on(store, issuer=issuer, identity_of=issuer.identity_of) as (api, _):
        api.door.authorities = ClientAuthorities(pem(root[0]), issuer.roots().encode())
        port = await api.start("127.0.0.1", 0, ssl=issuer.server_context(["127.0.0.1"]))

        async def ask(leaf: Signed, *chain: x509.Certificate, path: str = WHO, code: int = 201) -> Any:
            connector = aiohttp.TCPConnector(ssl=context(tmp_path, issuer.roots(), leaf, *chain))
            async with aiohttp.ClientSession(connector=connector) as session:
                client = Client(session, f"https://127.0.0.1:{port}")
                return (await client.ask("POST" if path == WHO else "GET", path, {} if path == WHO else None, code))[1]

        found = (await ask(made(alice, root)))["status"]["userInfo"]
        assert found == {"username": "alice", "groups": ["dev", "ops", "system:authenticated"]}
        await ask(made(alice, middle), middle[0], path=SERVICES, code=403)
        await ask(made(master, middle), middle[0], path=SERVICES, code=200)
        # Whatever people's authority signs, it is never a workload.
        for leaf, chain in ((made(alice, root, uri=spiffe), ()), (made(alice, middle, uri=spiffe), (middle[0],))):
            assert (await ask(leaf, *chain))["status"]["userInfo"]["username"] == "alice"
            await ask(leaf, *chain, path="/fairlead/v1/tokens", code=403)
        await ask(made([(NameOID.ORGANIZATION_NAME, "system:masters")], root), path=SERVICES, code=401)
        stranger = made([(NameOID.COMMON_NAME, "stranger")], ca=True)
        for leaf in (made(master, stranger), made(master, root, days=-1)):
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                await ask(leaf, path=SERVICES)


def test_an_authority_of_the_mesh_is_not_one_of_people() -> None:
    root = made([(NameOID.COMMON_NAME, "mesh")], ca=True)
    with pytest.raises(ValueError, match="workloads could pass for them"):
        ClientAuthorities(pem(root[0]), pem(root[0]))
    with pytest.raises(ValueError):
        ClientAuthorities(b"nothing")
    assert not ClientAuthorities()


def test_certificates_without_one_name_are_refused() -> None:
    for names in ([], [(NameOID.COMMON_NAME, "a"), (NameOID.COMMON_NAME, "b")], [(NameOID.COMMON_NAME, "a\nb")]):
        leaf, _ = made(names)
        with pytest.raises(ValueError):
            user_of_certificate(leaf.public_bytes(serialization.Encoding.DER))
    with pytest.raises(ValueError, match="cannot be read"):
        user_of_certificate(b"nonsense")


@pytest.mark.asyncio
async def test_a_connection_does_not_outlive_the_certificate_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_hub, "LOOK_S", 0.01)
    issuer = open_authority(tmp_path, "cluster.local", 3600.0)
    root = made([(NameOID.COMMON_NAME, "people")], ca=True)
    master = made([(NameOID.COMMON_NAME, "root"), (NameOID.ORGANIZATION_NAME, "system:masters")], root)
    ahead = 0.0
    async with store_in(tmp_path) as store, api_on(store, clock=lambda: time.time() + ahead) as (api, _):
        api.door.authorities = ClientAuthorities(pem(root[0]), issuer.roots().encode())
        port = await api.start("127.0.0.1", 0, ssl=issuer.server_context(["127.0.0.1"]))
        connector = aiohttp.TCPConnector(ssl=context(tmp_path, issuer.roots(), master), limit=1)
        async with aiohttp.ClientSession(connector=connector) as session:
            client = Client(session, f"https://127.0.0.1:{port}")
            await client.get(SERVICES)
            async with session.get(f"{client.url}{SERVICES}?watch=1") as answer:
                ahead = 90_000.0
                (line,) = (await answer.content.read()).splitlines()
            assert json.loads(line)["object"]["code"] == 401
            assert "it has expired" in (await client.get(SERVICES, 401))["message"]
