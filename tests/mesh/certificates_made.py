"""Certificates of every kind that a peer might show, made by the library that Fairlead's authority uses."""

from __future__ import annotations

import time
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fairlead.mesh.authority import Authority, moment, usage
from fairlead.mesh.contexts import Material
from fairlead.mesh.csr import make as make_csr
from fairlead.mesh.identity import make

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER


def authority(trust_domain: str = "cluster.local") -> Authority:
    return Authority.create(trust_domain, time.time())


def material(signer: Authority, name: str = "web", ttl_s: float = 600.0, trust_domain: str = "cluster.local",
             roots: str = "") -> Material:  # fmt: skip
    """What a workload `default/NAME` gets from control."""
    made = make_csr()
    chain, ends, _ = signer.sign(made["csr"].encode(), make(trust_domain, "default", name), ttl_s, time.time())
    return Material(chain, made["key"], roots or signer.roots, time.time(), ends)


def leaf(
    signer: Authority,
    uris: tuple[str, ...] = ("spiffe://cluster.local/ns/default/sa/web",),
    *,
    ca: bool = False,
    key_usage: x509.KeyUsage | None = None,
    key_usage_critical: bool = True,
    extended: tuple[Any, ...] | None = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    begins: float = -60.0,
    ends: float = 7200.0,
) -> tuple[bytes, str, str]:
    """A leaf as asked for, right or wrong: (DER, chain PEM, key PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = time.time()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(signer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(now + begins))
        .not_valid_after(moment(now + ends))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if key_usage is not None or key_usage_critical:
        builder = builder.add_extension(key_usage or usage(authority=False), critical=key_usage_critical)
    if extended is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(extended)), critical=False)
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    made = builder.sign(signer._key, hashes.SHA256())
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(DER), made.public_bytes(PEM).decode(), private.decode()


def issued(
    by: Authority,
    name: str = "intermediate",
    *,
    path_length: int | None = 0,
    key: Any = None,
    ca: bool = True,
    key_usage: x509.KeyUsage | None = None,
    uris: tuple[str, ...] = (),
    constraints: x509.NameConstraints | None = None,
    begins: float = -60.0,
    ends: float = 86400.0,
) -> tuple[x509.Certificate, Any]:
    """A certificate of an authority below another, right or wrong, and its key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = time.time()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(now + begins))
        .not_valid_after(moment(now + ends))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True)
        .add_extension(key_usage or usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(by._key, hashes.SHA256()), key


def pki(path_length: int | None = 1, name: str = "Our PKI") -> Authority:
    """A root of a user's own PKI, which may have intermediates."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), time.time()
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(moment(now - 60))
        .not_valid_after(moment(now + 86400)).add_extension(x509.BasicConstraints(True, path_length), critical=True)
        .add_extension(usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return Authority(key, certificate)


def pem_key(key: Any) -> bytes:
    found: bytes = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return found


def intermediate(root: Authority, **settings: Any) -> Authority:
    """An authority below `root`, as it is loaded."""
    certificate, key = issued(root, **settings)
    return Authority.load(pem_key(key), certificate.public_bytes(PEM) + root.certificate_pem())
