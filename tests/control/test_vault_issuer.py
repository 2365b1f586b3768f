"""The authority in Vault, played by a server after its API documents: what is asked of it, and what is not believed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from argparse import Namespace
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fairlead.control.certificates_api import UnavailableError
from fairlead.control.rotation import RotationError
from fairlead.control.settings import SettingError
from fairlead.control.vault_issuer import VaultIssuer, open_vault
from fairlead.mesh.csr import make as make_csr
from tests.control.fake_vault import FakeVault
from tests.control.test_authority_files import client, shaken
from tests.mesh.certificates_made import authority, intermediate, pki

pytestmark = pytest.mark.asyncio
WEB = "spiffe://cluster.local/ns/default/sa/web"


def options(url: str, **more: Any) -> Namespace:
    given = {
        "vault": url, "vault_mount": "pki", "vault_role": "fairlead", "vault_namespace": "", "vault_ca": None,
        "vault_token_file": None, "vault_role_id_file": None, "vault_secret_id_file": None, "vault_server_role": "",
        "trust_domain": "cluster.local", "certificate_ttl": 600.0, "ca_roots": None,
        "tls_listen": None, "xds_tls_listen": None,
        "tls_names": "",
    }  # fmt: skip
    return Namespace(**given | more)


@contextlib.asynccontextmanager
async def opened(vault: FakeVault, **more: Any) -> AsyncIterator[VaultIssuer]:
    async with vault.running():
        issuer = await open_vault(options(vault.url, **more), {"VAULT_TOKEN": "root-token"})
        try:
            yield issuer
        finally:
            await issuer.vault.close()


async def issue(issuer: VaultIssuer, csr: str = "") -> dict[str, Any]:
    return await issuer.issue(csr or make_csr()["csr"], "default", "web", time.time())


async def test_vault_signs_what_the_caller_is_and_its_intermediate_goes_out_with_the_leaf() -> None:
    root = pki()
    vault = FakeVault(intermediate(root))
    async with opened(vault) as issuer:
        told = await issue(issuer)
        assert (told["identity"], told["roots"]) == (WEB, root.certificate_pem().decode())
        chain = x509.load_pem_x509_certificates(told["certificates"].encode())
        assert [one.subject.rfc4514_string() for one in chain] == ["", "CN=intermediate"]
        assert issuer.identity_of(chain[0].public_bytes(Encoding.DER)) == WEB
        assert told["issuer"] == vault.authority.key_id.hex()
        path, body = vault.asked[-1]
        assert path == "/v1/pki/sign/fairlead"
        assert (body["uri_sans"], body["ttl"], body["common_name"]) == (WEB, "600s", "")
        assert [(kind, state) for _, kind, state in issuer.states()] == [
            ("root", "issuing"),
            ("intermediate", "issuing"),
        ]
        with pytest.raises(RotationError, match="--ca-roots"):
            issuer.begin(0.0)


async def test_names_in_a_request_reach_no_certificate_even_where_the_role_takes_them() -> None:
    vault = FakeVault(authority())
    vault.role["use_csr_sans"] = True
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://cluster.local/ns/default/sa/pay")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, False)
    text = csr.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    async with opened(vault) as issuer:
        with pytest.raises(UnavailableError, match=r"signed spiffe://cluster.local/ns/default/sa/pay in place of"):
            await issue(issuer, text)
        with pytest.raises(UnavailableError, match="use_csr_sans=false"):
            await issue(issuer)


async def test_a_root_that_workloads_do_not_trust_yet_hands_out_nothing(tmp_path: Path) -> None:
    vault = FakeVault(authority())
    async with opened(vault) as issuer:
        await issue(issuer)
        vault.authority = authority()
        with pytest.raises(UnavailableError, match=r"do not trust: put it into --ca-roots first"):
            await issue(issuer)
        assert await issuer.look(), "once the mount has it, or --ca-roots, it is told to all"
        await issue(issuer)


async def test_what_vault_refuses_is_said_with_its_reason() -> None:
    vault = FakeVault(authority())
    async with opened(vault) as issuer:
        vault.role["allowed_uri_sans"] = "spiffe://other/*"
        with pytest.raises(UnavailableError, match="not allowed by this role"):
            await issue(issuer)
        vault.sealed = True
        with pytest.raises(UnavailableError, match="sealed"):
            await issue(issuer)
        with pytest.raises(ValueError, match="not a certificate request"):
            await issue(issuer, "garbage")


async def test_an_approle_logs_in_again_when_its_token_has_ended(tmp_path: Path) -> None:
    (tmp_path / "role").write_text("the-role\n")
    (tmp_path / "secret").write_text("the-secret\n")
    vault = FakeVault(authority())
    vault.namespace = "team/a"
    async with opened(
        vault, vault_role_id_file=str(tmp_path / "role"), vault_secret_id_file=str(tmp_path / "secret"),
        vault_namespace="team/a",
    ) as issuer:  # fmt: skip
        await issue(issuer)
        vault.tokens.clear()  # it was revoked, or has ended
        await issue(issuer)
        assert vault.logins == 2


async def test_a_token_is_renewed_at_half_of_its_life() -> None:
    vault = FakeVault(authority())
    vault.tokens["root-token"] = 2.0
    async with opened(vault) as issuer:
        running = asyncio.create_task(issuer.run())
        try:
            async with asyncio.timeout(10):
                while vault.renewed < 2:
                    await asyncio.sleep(0.02)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_the_apis_own_certificate_is_vaults_too() -> None:
    vault = FakeVault(pki())
    async with opened(vault, tls_listen=("0.0.0.0", 1), tls_names="control.example") as issuer:
        context = issuer.server_context([])
        assert await shaken(context, client(issuer.roots()), "control.example") == (None, "hello")
        with pytest.raises(ssl.SSLCertVerificationError):
            await shaken(context, client(issuer.roots()), "other.example")


@pytest.mark.parametrize(
    ("more", "environment", "why"),
    [
        ({}, {}, "give --vault-token-file"), ({"vault": "vault:8200"}, {}, "expected http"),
        ({"vault_token_file": "/nonexistent"}, {}, "/nonexistent"), ({}, {"VAULT_TOKEN": "wrong"}, "permission denied"),
        ({"vault_mount": "none"}, {"VAULT_TOKEN": "root-token"}, "404"),
        ({"trust_domain": "other"}, {"VAULT_TOKEN": "root-token"}, "is of trust domain cluster.local"),
    ],
)  # fmt: skip
async def test_what_cannot_work_ends_the_start_with_the_reason(
    more: dict[str, Any], environment: dict[str, str], why: str
) -> None:
    vault = FakeVault(authority())
    async with vault.running():
        with pytest.raises(SettingError, match=why):
            await open_vault(options(vault.url, **more), environment)
