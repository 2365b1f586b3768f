"""A server that answers as Vault's published API documents say (auth/token, auth/approle, secret/pki): Vault itself
cannot be had where these tests run. What it does beyond signing follows the role's parameters as documented."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from fairlead.mesh.authority import Authority, moment, usage

PURPOSES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class FakeVault:
    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.url = ""
        self.tokens = {"root-token": 0.0}
        """Lease in seconds; 0: for ever."""
        self.renewable = True
        self.namespace = ""
        """Which X-Vault-Namespace is asked for."""
        self.secret_id = "the-secret"
        self.role: dict[str, Any] = {"use_csr_sans": False, "allowed_uri_sans": "spiffe://cluster.local/*"}
        self.sealed = False
        self.logins = 0
        self.renewed = 0
        self.asked: list[tuple[str, dict[str, Any]]] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeVault]:
        app = web.Application(middlewares=[self._around])
        app.add_routes([
            web.get("/v1/auth/token/lookup-self", self._lookup),
            web.post("/v1/auth/token/renew-self", self._renew),
            web.post("/v1/auth/approle/login", self._login),
            web.get("/v1/pki/cert/ca", self._ca),
            web.get("/v1/pki/cert/ca_chain", self._chain),
            web.post("/v1/pki/sign/{role}", self._sign),
        ])  # fmt: skip
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _around(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((request.path, json.loads(body) if body else {}))
        if self.sealed:
            return refused(503, "Vault is sealed")
        if request.headers.get("X-Vault-Request") != "true":
            return refused(412, "required header 'X-Vault-Request' was not set")
        if request.headers.get("X-Vault-Namespace", "") != self.namespace:
            return refused(404, "no handler for route")
        needs = not request.path.startswith(("/v1/pki/cert/", "/v1/auth/approle/"))
        if needs and request.headers.get("X-Vault-Token") not in self.tokens:
            return refused(403, "permission denied")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _lookup(self, request: web.Request) -> web.Response:
        ttl = self.tokens[request.headers["X-Vault-Token"]]
        return web.json_response({"data": {"ttl": ttl, "renewable": bool(ttl and self.renewable)}})

    async def _renew(self, request: web.Request) -> web.Response:
        self.renewed += 1
        token = request.headers["X-Vault-Token"]
        return web.json_response({"auth": {"client_token": token, "lease_duration": self.tokens[token],
                                           "renewable": self.renewable}})  # fmt: skip

    async def _login(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body != {"role_id": "the-role", "secret_id": self.secret_id}:
            return refused(400, "invalid role or secret ID")
        self.logins += 1
        token = f"token-{self.logins}"
        self.tokens[token] = 60.0
        return web.json_response({"auth": {"client_token": token, "lease_duration": 60, "renewable": self.renewable}})

    async def _ca(self, _: web.Request) -> web.Response:
        return web.json_response({"data": {"certificate": self.authority.certificate_pem().decode()}})

    async def _chain(self, _: web.Request) -> web.Response:
        above = [*self.authority.intermediates, self.authority.root] if self.authority.intermediates else []
        return web.json_response({"data": {"certificate": "".join(pem(one) for one in above)}})

    async def _sign(self, request: web.Request) -> web.Response:
        body = await request.json()
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        names: list[x509.GeneralName] = []
        if self.role["use_csr_sans"]:
            with contextlib.suppress(x509.ExtensionNotFound):
                names = list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        else:
            prefix = self.role["allowed_uri_sans"].rstrip("*")
            for uri in body.get("uri_sans", "").split(","):
                if not uri.startswith(prefix):
                    return refused(400, f"URI {uri} is not allowed by this role")
                names.append(x509.UniformResourceIdentifier(uri))
            names += [x509.DNSName(name) for name in body.get("alt_names", "").split(",") if name]
        authority, now = self.authority, time.time()
        builder = (
            x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(authority.certificate.subject)
            .public_key(csr.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(moment(now - 30)).not_valid_after(moment(now + float(body["ttl"].rstrip("s"))))
            .add_extension(usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(list(PURPOSES)), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier(authority.key_id, None, None), critical=False)
        )  # fmt: skip
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        made = builder.sign(authority._key, hashes.SHA256())
        chain = [pem(one) for one in (*authority.intermediates, authority.root)]
        return web.json_response({"data": {
            "certificate": pem(made).strip(), "issuing_ca": chain[0].strip(), "ca_chain": chain,
            "serial_number": f"{made.serial_number:x}", "expiration": int(made.not_valid_after_utc.timestamp()),
        }})  # fmt: skip


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def refused(status: int, why: str) -> web.Response:
    return web.json_response({"errors": [why]}, status=status)
