"""What is issued and trusted, and the steps of a rotation, over HTTP; and what attackers of the authority get."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from fairlead.control.api import ControlApi, Options
from fairlead.control.authority_files import Issuer, open_authority
from fairlead.control.certs_api import CertsApi
from fairlead.control.feed_server import FeedServer
from fairlead.control.issued import Issued, IssuedLeaf
from fairlead.control.push import Book
from fairlead.mesh.csr import make as make_csr
from fairlead.mesh.pem import load_chain
from fairlead.mesh.trust import identity_of
from tests.control.serving import Client, api_on, store_in
from tests.control.test_certificates_api import CERTIFICATES, make_token
from tests.mesh.certificates_made import authority, leaf, material

pytestmark = pytest.mark.asyncio
CERTS, STEP = "/fairlead/v1/certs", "/fairlead/v1/certs/rotation"
WEB = "spiffe://cluster.local/ns/shop/sa/web"


class Control:
    def __init__(self, api: ControlApi, client: Client, issuer: Issuer, folder: Path) -> None:
        self.api = api
        self.client = client
        self.issuer = issuer
        self.folder = folder
        self.record = Issued()
        self.certs: CertsApi

    async def connected(self, name: str) -> Any:
        """A sidecar's feed; the first trust line is read."""
        query = {"role": "sidecar", "namespace": "shop", "workload": name, "meshPort": "1", "instance": name}
        answer = await self.client.session.get(f"{self.client.url}/fairlead/v1/feed", params=query)
        return answer, await self.trust_line(answer)

    async def trust_line(self, answer: Any) -> Any:
        while not (line := await answer.content.readline()).startswith(b'{"trust":'):
            assert line
        return json.loads(line)["trust"]

    async def says(self, name: str, roots: list[str], issuer: str, code: int = 204) -> None:
        body = {"namespace": "shop", "workload": name, "instance": name, "roots": roots, "serial": "1",
                "issuer": issuer, "notAfter": time.time() + 100}  # fmt: skip
        await self.client.post("/fairlead/v1/feed/trust", body, code)

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "audit").read_text().splitlines()]


@contextlib.asynccontextmanager
async def control(folder: Path) -> AsyncIterator[Control]:
    issuer = open_authority(folder, "cluster.local", 600.0)
    options = Options(audit_file=str(folder / "audit"))
    made: list[Control] = []

    def prepare(api: ControlApi) -> None:
        feed = FeedServer(Book("e"), lambda request, ns, name: void(api.authorize(request, ns, name)), lambda: None)
        found = Control(api, None, issuer, folder)  # type: ignore[arg-type]
        found.certs = CertsApi(issuer, found.record, feed)

        def put(leaves: Sequence[IssuedLeaf]) -> None:
            for one in leaves:
                found.record.add(one)

        api.certificates.record = put
        api.add_routes([*feed.routes(), *found.certs.routes()])
        made.append(found)

    async with store_in(folder) as store, api_on(
        store, options, prepare, issuer=issuer, identity_of=issuer.identity_of
    ) as (_, client):  # fmt: skip
        made[0].client = client
        yield made[0]


def void(_: object) -> None:
    pass


async def test_each_step_is_refused_until_every_sidecar_says_that_it_is_safe(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        client = found.client
        stream, trust = await found.connected("web-1")
        old = trust["issuer"]
        (root,) = (await client.get(CERTS))["authorities"]
        await found.says("web-1", [root["fingerprint"]], old)
        shown = await client.get(CERTS)
        assert (shown["authorities"][0]["trustedBy"], shown["connected"], shown["rotation"]) == (1, 1, None)
        shown = await client.post(STEP, {"step": "start"}, 200)
        trust = await found.trust_line(stream)
        assert (trust["roots"].count("BEGIN"), trust["issuer"]) == (2, old)
        new_root = next(one["fingerprint"] for one in shown["authorities"] if one["state"] == "incoming")
        refused = await client.post(STEP, {"step": "issue"}, 409)
        assert "not yet: sidecar/shop/web-1 does not trust the new root yet" in refused["message"]
        await found.says("web-1", [root["fingerprint"], new_root], old)
        await client.post(STEP, {"step": "issue"}, 200)
        trust = await found.trust_line(stream)
        assert trust["issuer"] == found.issuer.issuer() != old
        refused = await client.post(STEP, {"step": "finish"}, 409)
        assert "uses a certificate of the old root" in refused["message"]
        await found.says("web-1", [root["fingerprint"], new_root], trust["issuer"])
        shown = await client.post(STEP, {"step": "finish"}, 200)
        assert shown["trustOldRoots"] == {"sidecar/shop/web-1": [root["fingerprint"]]}, "until it says otherwise"
        await found.says("web-1", [new_root], trust["issuer"])
        shown = await client.get(CERTS)
        assert (shown["trustOldRoots"], shown["leaves"][0]["issuer"]) == ({}, trust["issuer"])
        assert [line["rotation"] for line in found.audit() if "rotation" in line] == ["start", "issue", "finish"]
        stream.close()


async def test_force_takes_a_step_that_would_wait_and_the_audit_log_says_so(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        stream, _ = await found.connected("web-1")
        await found.client.post(STEP, {"step": "start"}, 200)
        await found.client.post(STEP, {"step": "issue"}, 409)
        await found.client.post(STEP, {"step": "issue", "force": True}, 200)
        assert found.audit()[-1]["forced"] is True
        for body in ({"step": "other"}, {"step": "start", "force": 1}, {}):
            await found.client.post(STEP, body, 400)
        stream.close()


async def test_a_root_is_dropped_though_a_certificate_of_an_absent_workload_has_not_ended_that_is_revoked(
    tmp_path: Path,
) -> None:
    async with control(tmp_path) as found:
        old, now = found.issuer.issuer(), time.time()
        found.record.add(IssuedLeaf("ab", WEB, "shop/away", old, now, now + 300))
        await found.client.post(STEP, {"step": "start"}, 200)
        await found.client.post(STEP, {"step": "issue"}, 200)
        refused = await found.client.post(STEP, {"step": "finish"}, 409)
        assert "shop/away is not connected; its certificate of the old root" in refused["message"]
        found.certs.revoked = lambda: [{"kind": "serial", "name": "ab"}]
        assert (await found.client.get(CERTS))["rotation"]["waitsFor"] == []
        await found.client.post(STEP, {"step": "finish"}, 200)


async def test_workloads_neither_see_certificates_nor_rotate_and_report_for_themselves_alone(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        token = await make_token(found.client)
        await found.client.get(CERTS, 403, Authorization=token)
        await found.client.post(STEP, {"step": "start"}, 403, Authorization=token)
        body = {"namespace": "other", "workload": "web-1", "roots": []}
        await found.client.post("/fairlead/v1/feed/trust", body, 403, Authorization=token)
        await found.says("nobody", [], "", 409)
        await found.client.post("/fairlead/v1/feed/trust", "{", 400)


async def test_what_ends_soon_is_a_warning_and_a_metric_long_before(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        ends, now = found.issuer.authority.ends, time.time()
        assert found.certs.warnings(now) == []
        (warning,) = found.certs.warnings(ends - 29 * 86400)
        assert "ends in 29.0 days: `fairlead certs rotate`" in warning
        lines = found.certs.metrics(now)
        assert any(line.startswith("fairlead_certificate_authority_expiry_timestamp_seconds{kind=") for line in lines)
        assert "fairlead_root_rotation_phase 0" in lines


# --- attacks --------------------------------------------------------------------------------


def request_of(key: Any, *extensions: x509.ExtensionType, name: str = "") -> str:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.PEM).decode()


async def test_a_request_gets_nothing_of_the_names_and_extensions_that_it_asks_for(tmp_path: Path) -> None:
    admin = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/istio-system/sa/admin")
    key = ec.generate_private_key(ec.SECP256R1())
    several = [x509.DNSName("control.example"), x509.UniformResourceIdentifier(WEB), admin]
    tricks = [
        request_of(key, x509.SubjectAlternativeName([admin]), name=str(admin.value)),
        request_of(key, x509.BasicConstraints(True, None), x509.KeyUsage(*[True] * 9)),
        request_of(key, x509.SubjectAlternativeName(several)),
        request_of(key, x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x")),
    ]
    async with control(tmp_path) as found:
        token = await make_token(found.client)
        for csr in tricks:
            told = await found.client.post(CERTIFICATES, {"csr": csr}, 200, Authorization=token)
            certificate = x509.load_pem_x509_certificate(told["certificates"].encode())
            assert str(identity_of(certificate.public_bytes(Encoding.DER))) == WEB
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert list(names) == [x509.UniformResourceIdentifier(WEB)]
            assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            assert not certificate.subject.rdns
            assert len(certificate.extensions) == 6


async def test_weak_and_strange_keys_and_signatures_are_refused_and_the_refusal_is_in_the_audit_log(
    tmp_path: Path,
) -> None:
    good = make_csr()["csr"]
    der = x509.load_pem_x509_csr(good.encode()).public_bytes(Encoding.DER)
    bad = x509.load_der_x509_csr(der[:-1] + bytes([der[-1] ^ 1])).public_bytes(Encoding.PEM).decode()
    old = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(
        ec.generate_private_key(ec.SECP256R1()), hashes.SHA224()
    ).public_bytes(Encoding.PEM).decode()  # fmt: skip
    cases = [
        (request_of(rsa.generate_private_key(65537, 1024)), "must be of curve P-256"),
        (request_of(ec.generate_private_key(ec.SECP224R1())), "must be of curve P-256"),
        (request_of(ec.generate_private_key(ec.SECP384R1())), "must be of curve P-256"),
        (request_of(ed25519.Ed25519PrivateKey.generate()), "must be of curve P-256"),
        (bad, "signature on itself is wrong"),
        (old, "must be signed with SHA-256"),
        (good.replace("CERTIFICATE REQUEST", "CERTIFICATE"), "not a certificate request"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "not a certificate request"),
    ]
    async with control(tmp_path) as found:
        token = await make_token(found.client)
        for csr, why in cases:
            refused = await found.client.post(CERTIFICATES, {"csr": csr}, 400, Authorization=token)
            assert why in refused["message"]
            line = found.audit()[-1]
            assert (line["code"], line["user"].partition(":")[0]) == (400, "token")
            assert why in line["message"]
        assert len(found.record) == 0


async def test_a_stolen_one_time_token_is_worth_nothing_once_it_was_used_and_both_tries_are_on_record(
    tmp_path: Path,
) -> None:
    async with control(tmp_path) as found:
        token = await make_token(found.client, oneTime=True)
        await found.client.post(CERTIFICATES, {"csr": make_csr()["csr"], "workload": "web-1"}, 200, Authorization=token)
        refused = await found.client.post(CERTIFICATES, {"csr": make_csr()["csr"]}, 401, Authorization=token)
        assert "has been used" in refused["message"]
        issued, stolen = (line for line in found.audit() if line["path"] == CERTIFICATES)
        assert (issued["identity"], issued["by"], issued["workload"]) == (WEB, "token", "shop/web-1")
        assert (stolen["code"], stolen["reason"]) == (401, "Unauthorized")
        assert "has been used" in stolen["message"]
        secret = token.split("_", 2)[2]
        assert secret not in (tmp_path / "audit").read_text()


async def test_a_workload_that_asks_for_another_identity_gets_none_and_is_on_record(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        token, csr = await make_token(found.client), make_csr()["csr"]
        for more in ({"namespace": "bank"}, {"serviceAccount": "pay"}, {"namespace": "bank", "serviceAccount": "pay"}):
            await found.client.post(CERTIFICATES, {"csr": csr, **more}, 403, Authorization=token)
            assert found.audit()[-1]["code"] == 403


async def test_an_expired_token_is_refused(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        token = await make_token(found.client, ttlSeconds=60)
        now = time.time()
        found.api.certificates._clock = found.api._clock = lambda: now + 61
        refused = await found.client.post(CERTIFICATES, {"csr": make_csr()["csr"]}, 401, Authorization=token)
        assert "has expired" in refused["message"]


def with_certificate(roots: str, chain: str, key: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=roots)
    load_chain(context, chain, key)
    return context


async def test_over_tls_the_present_certificate_renews_itself_and_any_other_opens_nothing(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        port = await found.api.start("127.0.0.1", 0, ssl=found.issuer.server_context(["127.0.0.1"]))
        own, roots, csr = found.issuer.authority, found.issuer.roots(), make_csr()["csr"]

        async def ask(context: ssl.SSLContext, **body: str) -> tuple[int, Any]:
            connector = aiohttp.TCPConnector(ssl=context, force_close=True)
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.post(f"https://127.0.0.1:{port}{CERTIFICATES}", json={"csr": csr, **body}) as answer,
            ):
                return answer.status, await answer.json()

        good = material(own)
        code, told = await ask(with_certificate(roots, good.certificates, good.key))
        assert (code, told["identity"]) == (200, "spiffe://cluster.local/ns/default/sa/web")
        assert found.audit()[-1]["by"] == "certificate"
        code, _ = await ask(with_certificate(roots, good.certificates, good.key), serviceAccount="pay")
        assert code == 403
        assert (await ask(ssl.create_default_context(cadata=roots)))[0] == 401, "without one"
        for uris, code in (
            (("spiffe://other.example/ns/default/sa/web",), 401), ((), 401), (("spiffe://cluster.local",), 401),
            (("spiffe://cluster.local/ns/default/sa/web", "spiffe://cluster.local/ns/default/sa/pay"), 401),
        ):  # fmt: skip
            _, chain, key = leaf(own, uris)
            assert (await ask(with_certificate(roots, chain, key)))[0] == code, uris
        _, chain, key = leaf(own, ca=True)
        assert (await ask(with_certificate(roots, chain, key)))[0] == 401, "an authority's"
        foreign = material(authority())
        _, expired, expired_key = leaf(own, begins=-100, ends=-50)
        for chain, key in ((foreign.certificates, foreign.key), (expired, expired_key)):
            with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
                await ask(with_certificate(roots, chain, key))
