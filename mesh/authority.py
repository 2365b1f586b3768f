"""The certificate authority of a mesh: signs workloads' requests. Imported by control alone (it needs cryptography).

The identity in a certificate comes from the caller, who has authenticated the workload; of the request only its key is
used, after its signature on itself is checked. Its names and extensions are not looked at. The signer is a root of our
own, or an intermediate of the user's PKI: then its chain goes out with each certificate.
"""

from __future__ import annotations

import binascii
import datetime
import secrets
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .authority_checks import AuthorityError, check_chain, fingerprint
from .identity import SpiffeId
from .leaf import P256, POINT_OCTETS, Mould

ROOT_TTL_S = 10 * 365 * 86400.0
BACKDATE_S = 120.0
"""Certificates begin this much earlier, for clocks that are behind."""
TTL_S_MIN = 5.0
SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_CURVE_HASHES: dict[str, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_SHA256_ECDSA = bytes.fromhex("300a06082a8648ce3d040302")
_SHA384_ECDSA = bytes.fromhex("300a06082a8648ce3d040303")
_SHA512_ECDSA = bytes.fromhex("300a06082a8648ce3d040304")
_SHA256_RSA = bytes.fromhex("300d06092a864886f70d01010b0500")
_CURVE_ALGORITHMS = {"secp256r1": _SHA256_ECDSA, "secp384r1": _SHA384_ECDSA, "secp521r1": _SHA512_ECDSA}
PEM_BEGINS = b"-----BEGIN CERTIFICATE REQUEST-----\n"
PEM_ENDS = b"\n-----END CERTIFICATE REQUEST-----\n"
_TBS_BEGINS = bytes.fromhex("30620201003000") + P256
"""CertificationRequestInfo of the form that sidecars send (RFC 2986), up to the key's point: version 0, no subject."""
_TBS_ENDS = bytes.fromhex("a000")
"""No attributes."""
_SPKI_AT = 7
_TBS_OCTETS = len(_TBS_BEGINS) + POINT_OCTETS + len(_TBS_ENDS)
_VERIFIED = ec.ECDSA(hashes.SHA256())

__all__ = ["Authority", "AuthorityError", "moment", "request_key", "usage"]


def moment(unix: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(unix, datetime.UTC)


class Authority:
    """One signing key with its certificate, and every root that workloads are to trust."""

    def __init__(
        self,
        key: SigningKey,
        certificate: x509.Certificate,
        others: str = "",
        chain: Sequence[x509.Certificate] = (),
    ) -> None:
        """`chain`: the certificates above an intermediate, in order, its root last; empty: it is a root itself."""
        self._key = key
        self.certificate = certificate
        self.root = chain[-1] if chain else certificate
        self.intermediates = [certificate, *chain[:-1]] if chain else []
        """What goes out with each certificate, so that who has the root can follow."""
        pem = serialization.Encoding.PEM
        self._sent = "".join(one.public_bytes(pem).decode() for one in self.intermediates)
        self.roots = self.root.public_bytes(pem).decode() + others
        """PEM of all roots in force: our own first; others while one takes over from another."""
        self.ends = min(one.not_valid_after_utc.timestamp() for one in (certificate, *chain))
        self.begins = max(one.not_valid_before_utc.timestamp() for one in (certificate, *chain))
        self.key_id = subject_key_id(certificate)
        self._mould = _mould(key, certificate, self.key_id)

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
    def load(
        cls,
        key_pem: bytes,
        certificate_pem: bytes,
        others: str = "",
        *,
        roots_pem: bytes = b"",
        trust_domain: str = "",
        now: float | None = None,
    ) -> Authority:
        """From PEM; raises AuthorityError where the parts do not belong together or cannot sign.

        `certificate_pem`: the signer's, and after it those above it (an intermediate); its root may stand in
        `roots_pem` instead. `trust_domain` and `now` (Unix seconds): also check that it may sign for this trust domain
        and is valid; without `now` an expired one is loaded, and refuses when it is to sign.
        """
        try:
            key = serialization.load_pem_private_key(key_pem, None)
            found = x509.load_pem_x509_certificates(certificate_pem)
            roots = x509.load_pem_x509_certificates(roots_pem) if roots_pem.strip() else []
        except (ValueError, TypeError) as error:
            raise AuthorityError(f"the authority's key or certificate cannot be read: {error}") from error
        if isinstance(key, ec.EllipticCurvePrivateKey):
            if key.curve.name not in _CURVE_HASHES:
                raise AuthorityError(
                    f"the authority's key is of curve {key.curve.name}; expected P-256, P-384 or P-521"
                )
        elif not isinstance(key, rsa.RSAPrivateKey):
            raise AuthorityError("the authority's key is neither an elliptic curve key nor RSA")
        elif key.key_size < 2048:
            raise AuthorityError(f"the authority's RSA key has {key.key_size} bits; expected 2048 or more")
        certificate = found[0]
        if key.public_key() != certificate.public_key():
            raise AuthorityError("the authority's key does not belong to its certificate")
        chain = check_chain(certificate, found[1:], roots, trust_domain, now)
        own = fingerprint(chain[-1] if chain else certificate)
        pem = serialization.Encoding.PEM
        more = "".join(one.public_bytes(pem).decode() for one in roots if fingerprint(one) != own)
        return cls(key, certificate, more + others, chain)

    def key_pem(self) -> bytes:
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, csr_pem: bytes, identity: SpiffeId, ttl_s: float, now: float) -> tuple[str, float, int]:
        """A certificate for a request's key: (chain in PEM, end in Unix seconds, serial). Raises AuthorityError."""
        (made,) = self.sign_all([(csr_pem, identity)], ttl_s, now)
        if isinstance(made, AuthorityError):
            raise made
        return made

    def sign_all(
        self, asks: Sequence[tuple[bytes, SpiffeId]], ttl_s: float, now: float
    ) -> list[tuple[str, float, int] | AuthorityError]:
        """The same of several, in the place of each that is refused the reason. Raises AuthorityError where none can be
        signed now. Step by step for all, since each step finds the processor's caches as the one before left them."""
        begins, ends = (int(one) for one in self._life(max(ttl_s, TTL_S_MIN), now))
        points: list[bytes | AuthorityError] = []
        for csr_pem, _ in asks:
            try:
                points.append(request_point(csr_pem))
            except AuthorityError as error:
                points.append(error)
        make, made = self._mould.make, list[tuple[bytes, int] | AuthorityError]()
        for point, (_, identity) in zip(points, asks, strict=True):
            if isinstance(point, AuthorityError):
                made.append(point)
            else:
                serial = secrets.randbits(159) | 1 << 158  # 158 random bits, of 20 octets (RFC 5280, 4.1.2.2)
                made.append((make(serial, begins, ends, point, str(identity)), serial))
        return [
            one if isinstance(one, AuthorityError) else (pem_of(one[0]) + self._sent, float(ends), one[1])
            for one in made
        ]

    def sign_server(self, names: list[str], identity: SpiffeId, ttl_s: float, now: float) -> tuple[bytes, str, float]:
        """A key and certificate for control's own API: (key PEM, chain PEM, end)."""
        key = ec.generate_private_key(ec.SECP256R1())
        begins, ends = self._life(ttl_s, now)
        issuer_id = x509.AuthorityKeyIdentifier(self.key_id, None, None)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fairlead-control")]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment(begins))
            .not_valid_after(moment(ends))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(server_names(names, identity)), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(issuer_id, critical=False)
            .sign(self._key, _hash_of(self._key))
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        ended = certificate.not_valid_after_utc.timestamp()
        return private, certificate.public_bytes(pem).decode() + self._sent, ended

    def _life(self, ttl_s: float, now: float) -> tuple[float, float]:
        """(begin, end) of a certificate made now: within the lives of all above it. Raises AuthorityError."""
        if now >= self.ends - 1:
            raise AuthorityError("the authority's own certificate, or one above it, has expired: a new one is needed")
        if now < self.begins:
            raise AuthorityError(
                f"the authority's own certificate begins in {self.begins - now:.0f} s: the clock of this host is "
                "behind, or that of who made it was ahead"
            )
        return max(now - BACKDATE_S, self.begins), min(now + ttl_s, self.ends)


def plain_request(csr_pem: bytes) -> tuple[bytes, bytes] | None:
    """(what is signed, the signature) of a request of the form that sidecars make (`csr.py`): a P-256 key, no names, no
    attributes, SHA-256. None: it has another form, or none."""
    if not (csr_pem.startswith(PEM_BEGINS) and csr_pem.endswith(PEM_ENDS)):
        return None
    try:
        text = csr_pem[len(PEM_BEGINS) : -len(PEM_ENDS)].replace(b"\n", b"")
        octets = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return None
    tbs, rest = octets[3 : 3 + _TBS_OCTETS], octets[3 + _TBS_OCTETS :]
    signed_at = len(_SHA256_ECDSA) + 3
    if (
        octets[:3] == bytes((0x30, 0x81, (len(octets) - 3) & 0xFF))
        and tbs.startswith(_TBS_BEGINS)
        and tbs.endswith(_TBS_ENDS)
        and rest.startswith(_SHA256_ECDSA)
        and rest[signed_at - 3 : signed_at] == bytes((0x03, (len(rest) - signed_at + 1) & 0xFF, 0x00))
        and len(octets) < 0x80 + 3 + 0x80
    ):
        return tbs, rest[signed_at:]
    return None


def request_point(csr_pem: bytes) -> bytes:
    """The uncompressed point of the key of a request, as `request_key` would give it. Raises AuthorityError."""
    plain = plain_request(csr_pem)
    if plain is None:
        found = request_key(csr_pem)
        return found.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    signed, signature = plain
    try:
        key = serialization.load_der_public_key(signed[_SPKI_AT : -len(_TBS_ENDS)])
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(signature, signed, _VERIFIED)
    except InvalidSignature:
        raise AuthorityError("the request's signature on itself is wrong") from None
    except Exception as error:  # a point that is not on the curve
        raise AuthorityError(f"not a certificate request: {error}") from error
    return signed[_SPKI_AT + len(P256) : -len(_TBS_ENDS)]


def request_key(csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    """The key of a certificate request whose signature on itself is right. Raises AuthorityError."""
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise AuthorityError("the request's key must be of curve P-256")
        digest = csr.signature_hash_algorithm
        if not isinstance(digest, (hashes.SHA256, hashes.SHA384, hashes.SHA512)):
            raise AuthorityError("the request must be signed with SHA-256, SHA-384 or SHA-512")
        key.verify(csr.signature, csr.tbs_certrequest_bytes, ec.ECDSA(digest))
    except AuthorityError:
        raise
    except InvalidSignature:
        raise AuthorityError("the request's signature on itself is wrong") from None
    except Exception as error:  # the library's own: ValueError, TypeError, UnsupportedAlgorithm
        raise AuthorityError(f"not a certificate request: {error}") from error
    return key


def server_names(names: Sequence[str], identity: SpiffeId) -> list[x509.GeneralName]:
    """The subjectAltNames of control's own certificate: its identity, then host names and addresses."""
    import ipaddress

    found: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(identity))]
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def pem_of(der: bytes) -> str:
    """A certificate in PEM."""
    text = binascii.b2a_base64(der, newline=False).decode()
    lines = "\n".join([text[at : at + 64] for at in range(0, len(text), 64)])
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def subject_key_id(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest


def _hash_of(key: SigningKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    return _CURVE_HASHES[key.curve.name] if isinstance(key, ec.EllipticCurvePrivateKey) else hashes.SHA256()


def _mould(key: SigningKey, certificate: x509.Certificate, key_id: bytes) -> Mould:
    digest = _hash_of(key)
    issuer = certificate.subject.public_bytes()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        scheme, elliptic = ec.ECDSA(digest), key
        return Mould(issuer, key_id, _CURVE_ALGORITHMS[key.curve.name], lambda octets: elliptic.sign(octets, scheme))
    old, filled = key, padding.PKCS1v15()
    return Mould(issuer, key_id, _SHA256_RSA, lambda octets: old.sign(octets, filled, digest))


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
