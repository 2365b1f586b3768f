"""The certificate authority of a mesh: signs workloads' requests. Imported by control alone (it needs cryptography).

The identity in a certificate comes from the caller, who has authenticated the workload; of the request only its key is
used, after its signature on itself is checked.
"""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .identity import SpiffeId

ROOT_TTL_S = 10 * 365 * 86400.0
BACKDATE_S = 120.0
"""Certificates begin this much earlier, for clocks that are behind."""
TTL_S_MIN = 5.0


class AuthorityError(ValueError):
    """A request that is not signed, or an authority that cannot sign; the message is for people."""


def moment(unix: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(unix, datetime.UTC)


class Authority:
    """One signing key with its certificate, and every root that workloads are to trust."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, others: str = "") -> None:
        self._key = key
        self.certificate = certificate
        self.roots = certificate.public_bytes(serialization.Encoding.PEM).decode() + others
        """PEM of all roots in force: our own first; others while one takes over from another."""

    @classmethod
    def create(cls, trust_domain: str, now: float, ttl_s: float = ROOT_TTL_S) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Fairlead root of {trust_domain}"[:64])])
        own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment(now - BACKDATE_S))
            .not_valid_after(moment(now + ttl_s))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage(authority=True), critical=True)
            .add_extension(own_id, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def load(cls, key_pem: bytes, certificate_pem: bytes, others: str = "") -> Authority:
        """From PEM; raises AuthorityError where the two do not belong together or cannot sign."""
        try:
            key = serialization.load_pem_private_key(key_pem, None)
            certificate = x509.load_pem_x509_certificate(certificate_pem)
        except (ValueError, TypeError) as error:
            raise AuthorityError(f"the authority's key or certificate cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthorityError("the authority's key is not an elliptic curve key")
        if key.public_key() != certificate.public_key():
            raise AuthorityError("the authority's key does not belong to its certificate")
        try:
            is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
            is_authority = False
        if not is_authority:
            raise AuthorityError("the authority's certificate is not an authority's (basicConstraints)")
        return cls(key, certificate, others)

    def key_pem(self) -> bytes:
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, csr_pem: bytes, identity: SpiffeId, ttl_s: float, now: float) -> tuple[str, float, int]:
        """A certificate for a request's key: (chain in PEM, end in Unix seconds, serial). Raises AuthorityError."""
        try:
            csr = x509.load_pem_x509_csr(csr_pem)
            key = csr.public_key()
            good = csr.is_signature_valid
        except (ValueError, InvalidSignature, TypeError) as error:
            raise AuthorityError(f"not a certificate request: {error}") from error
        if not good:
            raise AuthorityError("the request's signature on itself is wrong")
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise AuthorityError("the request's key must be of curve P-256")
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(identity))]
        return self._issue(key, names, x509.Name([]), max(ttl_s, TTL_S_MIN), now)

    def sign_server(self, names: list[str], identity: SpiffeId, ttl_s: float, now: float) -> tuple[bytes, str, float]:
        """A key and certificate for control's own API: (key PEM, chain PEM, end)."""
        import ipaddress

        key = ec.generate_private_key(ec.SECP256R1())
        found: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(identity))]
        for name in dict.fromkeys(names):
            try:
                found.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                found.append(x509.DNSName(name))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fairlead-control")])
        chain, end, _ = self._issue(key.public_key(), found, subject, ttl_s, now)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return pem, chain, end

    def _issue(
        self,
        key: ec.EllipticCurvePublicKey,
        names: list[x509.GeneralName],
        subject: x509.Name,
        ttl_s: float,
        now: float,
    ) -> tuple[str, float, int]:
        ends = self.certificate.not_valid_after_utc.timestamp()
        if now >= ends - 1:
            raise AuthorityError("the authority's own certificate has expired: a new root is needed")
        until = min(now + ttl_s, ends)
        issuer_id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment(max(now - BACKDATE_S, self.certificate.not_valid_before_utc.timestamp())))
            .not_valid_after(moment(until))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=not subject)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        return pem, certificate.not_valid_after_utc.timestamp(), certificate.serial_number


def usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
