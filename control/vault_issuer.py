"""Shell: the mesh's authority in Vault's PKI engine: control asks it to sign, and never sees its key.

The role that signs must take no names from requests (`use_csr_sans=false`, `use_csr_common_name=false`), need no common
name (`require_cn=false`) and allow our URI names (`allowed_uri_sans=spiffe://TRUST_DOMAIN/*`, `key_type=ec`,
`key_bits=256`). What comes back is checked before it is handed out: a role that is set otherwise is found out.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ..mesh import trust
from ..mesh.authority import AuthorityError, request_key
from ..mesh.authority_checks import check_chain, fingerprint, is_self_signed
from ..mesh.identity import IdentityError, SpiffeId, make
from .authority_files import API_CERTIFICATE_S, identity_within, server_context
from .certificates_api import UnavailableError
from .rotation import RotationError
from .server_tls import ServerContext
from .settings import SettingError, cause
from .vault_client import Login, Vault, VaultError

LOOK_S = 60.0
"""How often the mount's authorities are looked at."""
logger = logging.getLogger("fairlead.vault")
ROLE = (
    "the role needs use_csr_sans=false, use_csr_common_name=false, require_cn=false, key_type=ec, key_bits=256 and "
    "allowed_uri_sans=spiffe://TRUST_DOMAIN/*"
)


class VaultIssuer:
    """As authority_files.Issuer, with Vault behind it."""

    kind = "vault"
    phase = ""
    since = 0.0

    def __init__(
        self, vault: Vault, trust_domain: str, ttl_s: float, *, mount: str, role: str, server_role: str,
        roots_file: Path | None, names: list[str],
    ) -> None:  # fmt: skip
        self.vault = vault
        self.trust_domain = trust_domain
        self.ttl_s = ttl_s
        self._mount = mount.strip("/")
        self._role = role
        self._server_role = server_role or role
        self._roots_file = roots_file
        self._names = names
        """Of the API's own certificate (xDS's, too); empty: it has none."""
        self._server: tuple[str, str, float] = ("", "", 0.0)
        """(chain, key, end)."""
        self._chain: list[x509.Certificate] = []
        """Of the mount's issuer, its root last."""
        self._roots: list[x509.Certificate] = []
        self._signers: dict[str, str] = {}
        """PEM of an issuing certificate and what is sent above it, of those that were found good."""
        self.changed: list[Callable[[], None]] = []

    # --- as the API asks --------------------------------------------------------------------------------------------

    async def issue(self, csr: str, namespace: str, service_account: str, now: float) -> dict[str, Any]:
        """Raises ValueError for a request that is none, UnavailableError where Vault does not sign it."""
        identity = make(self.trust_domain, namespace, service_account)
        key = request_key(csr.encode("ascii", "replace"))
        chain, leaf = await self._sign(self._role, csr, key, {"uri_sans": str(identity)}, self.ttl_s)
        der = leaf.public_bytes(Encoding.DER)
        try:
            found = trust.identity_of(der, now)
        except IdentityError as error:
            raise UnavailableError(f"what Vault's role {self._role} signs is no identity: {error}; {ROLE}") from None
        if found != identity:
            raise UnavailableError(f"Vault's role {self._role} signed {found} in place of {identity}; {ROLE}")
        return {
            "certificates": chain,
            "roots": self.roots(),
            "notAfter": _timestamp(leaf),
            "identity": str(identity),
            "serial": f"{leaf.serial_number:x}",
            "issuer": trust.read_leaf(der).authority_key_id.hex(),
        }

    def roots(self) -> str:
        return "".join(_pem(one) for one in self._roots)

    def issuer(self) -> str:
        """Empty: which of its issuers Vault takes is its own affair."""
        return ""

    def states(self) -> list[tuple[x509.Certificate, str, str]]:
        issuing = {fingerprint(one) for one in self._chain}
        found = [(one, "root", "issuing" if fingerprint(one) in issuing else "trusted") for one in self._roots]
        return found + [(one, "intermediate", "issuing") for one in self._chain if not is_self_signed(one)]

    def identity_of(self, der: bytes) -> str:
        return identity_within(der, self.trust_domain)

    def begin(self, _now: float) -> None:
        raise RotationError(
            "the authority is Vault's: put the new root into --ca-roots, wait until `fairlead certs` shows that all "
            "trust it, then make the new issuer the default of Vault's mount; take the old root out once no "
            "certificate of it is left"
        )

    activate = finish = begin

    def abort(self) -> None:
        self.begin(0.0)

    def server_context(self, names: list[str]) -> ServerContext:
        def made() -> tuple[ssl.SSLContext, float]:
            chain, key, ends = self._server
            return server_context(chain, key, self.roots()), ends

        return ServerContext(made, time.time)

    def server_material(self, _names: list[str]) -> tuple[bytes, bytes, bytes]:
        """(key, chain, roots) in PEM of the API's own certificate, for a server of control's beside the API."""
        chain, key, _ = self._server
        return key.encode(), chain.encode(), self.roots().encode()

    # --- Vault ------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Log in, learn the authorities, get the API's certificate. Raises VaultError, OSError, ValueError."""
        await self.vault.log_in()
        await self.look()
        if self._names:
            await self._serve()

    async def run(self) -> None:
        """Keep the token alive, look for new authorities, renew the API's certificate, for ever."""
        async with asyncio.TaskGroup() as together:
            together.create_task(self.vault.keep_alive())
            together.create_task(self._look_on())

    async def _look_on(self) -> None:
        begun = time.time()
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                changed = await self.look()
                ends = self._server[2]
                if self._names and time.time() >= begun + (ends - begun) / 2:
                    await self._serve()
                    begun, changed = time.time(), True
            except (VaultError, UnavailableError, OSError, ValueError) as error:
                logger.error("%s; what is in force stays", error)
                continue
            if changed:
                for tell in self.changed:
                    tell()

    async def look(self) -> bool:
        """Learn the mount's authorities and the roots beside them; whether any is new. Raises VaultError, OSError,
        ValueError."""
        own = (await self.vault.ask("GET", f"{self._mount}/cert/ca")).get("data") or {}
        above = (await self.vault.ask("GET", f"{self._mount}/cert/ca_chain")).get("data") or {}
        text = f"{own.get('certificate') or ''}\n{above.get('certificate') or above.get('ca_chain') or ''}"
        try:
            found = x509.load_pem_x509_certificates(text.encode())
            given = _read(self._roots_file)
            first = found[0]
            chain = check_chain(first, [], _distinct([*found[1:], *given], first), self.trust_domain, time.time())
        except AuthorityError as error:
            raise AuthorityError(f"Vault's mount {self._mount}: {error}") from None
        except ValueError as error:
            raise ValueError(f"Vault's mount {self._mount} has no authority that can be read: {error}") from None
        whole = [first, *chain]
        roots = _distinct([whole[-1], *given])
        changed = roots != self._roots or whole != self._chain
        self._chain, self._roots = whole, roots
        if changed:
            self._signers.clear()
        return changed

    async def _serve(self) -> None:
        """The API's own key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        identity: SpiffeId = make(self.trust_domain, "fairlead-system", "control")
        addresses, hosts = _parted(self._names)
        asked = {"uri_sans": str(identity), "alt_names": ",".join(hosts), "ip_sans": ",".join(addresses)}
        csr = request.public_bytes(Encoding.PEM).decode()
        chain, leaf = await self._sign(self._server_role, csr, key.public_key(), asked, API_CERTIFICATE_S)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self._server = chain, private, leaf.not_valid_after_utc.timestamp()

    async def _sign(
        self, role: str, csr: str, key: ec.EllipticCurvePublicKey, names: Mapping[str, str], ttl_s: float
    ) -> tuple[str, x509.Certificate]:
        """(what is sent, the leaf). Raises UnavailableError."""
        body = {"csr": csr, "common_name": "", "exclude_cn_from_sans": True, "format": "pem",
                "ttl": f"{int(ttl_s)}s", **names}  # fmt: skip
        try:
            answer = (await self.vault.ask("POST", f"{self._mount}/sign/{role}", body)).get("data") or {}
        except VaultError as error:
            raise UnavailableError(f"Vault: {error}") from None
        try:
            leaf = x509.load_pem_x509_certificate(str(answer.get("certificate", "")).encode())
            same = leaf.public_key() == key
        except ValueError as error:
            raise UnavailableError(f"Vault's answer has no certificate: {error}") from None
        if not same:
            raise UnavailableError("Vault's answer is a certificate for another key than was asked for")
        return _pem(leaf) + self._above(answer), leaf

    def _above(self, answer: Mapping[str, Any]) -> str:
        """The intermediates that are sent with a leaf. Raises UnavailableError where its root is none of ours."""
        issuing = str(answer.get("issuing_ca") or "").strip()
        if issuing in self._signers:
            return self._signers[issuing]
        try:
            more = [str(one) for one in answer.get("ca_chain") or []]
            found = _distinct(x509.load_pem_x509_certificates("\n".join([issuing, *more]).encode()))
            chain = check_chain(found[0], [], _distinct([*found[1:], *self._roots], found[0]), self.trust_domain, None)
        except ValueError as error:
            raise UnavailableError(f"Vault's issuer: {error}") from None
        whole = [found[0], *chain]
        if fingerprint(whole[-1]) not in {fingerprint(one) for one in self._roots}:
            raise UnavailableError(
                f"Vault signs under root {fingerprint(whole[-1])[:16]}, which workloads do not trust: put it into "
                "--ca-roots first, and wait until `fairlead certs` shows that all trust it"
            )
        self._signers[issuing] = sent = "".join(_pem(one) for one in whole if not is_self_signed(one))
        return sent


async def open_vault(options: Any, environment: Mapping[str, str]) -> VaultIssuer:
    """As the flags and Vault's own variables say. Raises SettingError, OSError, ValueError."""
    url = environment.get("VAULT_ADDR", "") if options.vault == "env" else options.vault
    if not url.startswith(("http://", "https://")):
        raise SettingError(
            f"--vault: expected http://HOST:PORT, https://HOST:PORT, or `env` and VAULT_ADDR, got {url!r}"
        )
    authorities = options.vault_ca or environment.get("VAULT_CACERT", "")
    tls = ssl.create_default_context(cafile=authorities or None) if url.startswith("https:") else None
    vault = Vault(
        url, login_of(options, environment), options.vault_namespace or environment.get("VAULT_NAMESPACE", ""), tls
    )
    names = []
    hosts = [listen[0] for listen in (options.tls_listen, options.xds_tls_listen) if listen is not None]
    if hosts:
        given = [*hosts, "localhost", "127.0.0.1", *options.tls_names.split(",")]
        names = [name for name in dict.fromkeys(given) if name and name not in ("0.0.0.0", "::")]
    issuer = VaultIssuer(
        vault, options.trust_domain, options.certificate_ttl, mount=options.vault_mount, role=options.vault_role,
        server_role=options.vault_server_role, roots_file=Path(options.ca_roots) if options.ca_roots else None,
        names=names,
    )  # fmt: skip
    try:
        await issuer.open()
    except (VaultError, UnavailableError, OSError, ValueError) as error:
        await vault.close()
        raise SettingError(f"--vault: {error}") from None
    return issuer


def login_of(options: Any, environment: Mapping[str, str]) -> Login:
    """Raises SettingError."""
    if options.vault_role_id_file:
        secret = options.vault_secret_id_file
        return Login(role_id=Path(options.vault_role_id_file), secret_id=Path(secret) if secret else None)
    if options.vault_token_file:
        path = Path(options.vault_token_file)

        def token() -> str:
            try:
                return path.read_text().strip()
            except OSError as error:
                raise VaultError(f"--vault-token-file {path}: {cause(error)}") from None

        return Login(token)
    if environment.get("VAULT_TOKEN"):
        return Login(lambda: environment["VAULT_TOKEN"])
    raise SettingError(
        "--vault: give --vault-token-file, VAULT_TOKEN, or --vault-role-id-file and --vault-secret-id-file"
    )


def _parted(names: list[str]) -> tuple[list[str], list[str]]:
    """(addresses, host names)."""
    addresses = [name for name in names if name.replace(".", "").isdigit() or ":" in name]
    return addresses, [name for name in names if name not in addresses]


def _distinct(certificates: list[x509.Certificate], without: x509.Certificate | None = None) -> list[x509.Certificate]:
    found = {fingerprint(one): one for one in certificates}
    if without is not None:
        found.pop(fingerprint(without), None)
    return list(found.values())


def _read(path: Path | None) -> list[x509.Certificate]:
    if path is None:
        return []
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"--ca-roots {path}: {error}") from None


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _timestamp(certificate: x509.Certificate) -> str:
    ends = certificate.not_valid_after_utc
    return datetime.fromtimestamp(ends.timestamp(), UTC).isoformat().replace("+00:00", "Z")
