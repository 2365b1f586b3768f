"""Certificates for tests: an authority of one's own."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


class Authority:
    """`pem`: its own certificate."""

    def __init__(self, name: str = "test ca", above: Authority | None = None) -> None:
        """`above`: who vouches for it; None: it is a root."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signing = above or self
        made = signing._builder(self._name, self._key.public_key())
        made = made.add_extension(x509.BasicConstraints(True, None), True)
        made = made.add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), False)
        self.pem = made.sign(signing._key, hashes.SHA256()).public_bytes(PEM).decode()

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, days: int = 2
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=2))
        return made.not_valid_after(now + datetime.timedelta(days=days))

    def issue(self, *names: str, with_rsa: bool = False, days: int = 2) -> tuple[str, str]:
        """(certificate, key) in PEM for these DNS names. `days` that it is good for yet; negative: it has ended."""
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = (
            rsa.generate_private_key(65537, 2048) if with_rsa else ec.generate_private_key(ec.SECP256R1())
        )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        made = self._builder(subject, key.public_key(), days)
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
        made = made.add_extension(x509.BasicConstraints(False, None), True)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
        certificate = made.sign(self._key, hashes.SHA256())
        private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return certificate.public_bytes(PEM).decode(), private.decode()

    def revoke(self, *certificates: str) -> str:
        """A list of revoked certificates (PEM)."""
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        made = made.last_update(now - datetime.timedelta(minutes=1)).next_update(now + datetime.timedelta(days=1))
        for pem in certificates:
            number = x509.load_pem_x509_certificate(pem.encode()).serial_number
            made = made.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
            )
        return made.sign(self._key, hashes.SHA256()).public_bytes(PEM).decode()
