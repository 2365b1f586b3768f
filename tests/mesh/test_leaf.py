"""Certificates as DER: what is written is what two other readers read."""

from __future__ import annotations

import ssl
import time

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from fairlead.mesh.authority import pem_of
from fairlead.mesh.csr import make as make_csr
from fairlead.mesh.identity import make
from fairlead.mesh.leaf import Mould, der, integer, time_of
from fairlead.mesh.trust import elements, identity_of, read_leaf, read_time
from tests.mesh.certificates_made import authority

NAME = st.from_regex(r"[A-Za-z0-9._-]{1,300}", fullmatch=True).filter(lambda name: name not in (".", ".."))
CA = authority()
CSR = make_csr()["csr"].encode()


@given(st.integers(0, 253402300799))
def test_times_are_read_back_and_change_their_form_in_2050(unix: int) -> None:
    (tag, content), = elements(time_of(unix))  # fmt: skip
    assert read_time(tag, content) == unix
    assert (tag == 0x17) == (unix < 2524608000)


@given(st.integers(1, 2**159), st.binary(max_size=70_000))
def test_lengths_and_integers_are_in_their_shortest_form(number: int, content: bytes) -> None:
    ((_, found),) = elements(integer(number))
    assert int.from_bytes(found, "big", signed=True) == number
    assert not (found[0] == 0 and len(found) > 1 and found[1] < 0x80)
    assert elements(der(0x04, content)) == [(0x04, content)], "our reader refuses any longer form"


@given(NAME, NAME, st.floats(5, 10 * 86400))
def test_every_identity_is_read_back_by_us_and_by_the_library(namespace: str, account: str, ttl_s: float) -> None:
    now, identity = time.time(), make("cluster.local", namespace, account)
    chain, ends, serial = CA.sign(CSR, identity, ttl_s, now)
    certificate = x509.load_pem_x509_certificate(chain.encode())
    octets = certificate.public_bytes(Encoding.DER)
    assert identity_of(octets, now) == identity
    leaf = read_leaf(octets)
    assert (leaf.serial, leaf.not_after, leaf.authority_key_id) == (serial, ends, CA.key_id)
    assert pem_of(octets) == chain == ssl.DER_cert_to_PEM_cert(octets)
    certificate.verify_directly_issued_by(CA.certificate)


def test_a_leaf_has_what_spiffe_asks_for_and_nothing_else() -> None:
    chain, _, _ = CA.sign(CSR, make("cluster.local", "default", "web"), 600, time.time())
    certificate = x509.load_pem_x509_certificate(chain.encode())
    assert certificate.version == x509.Version.v3
    assert not certificate.subject.rdns
    kinds = {type(one.value): one for one in certificate.extensions}
    assert set(kinds) == {x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName,
                          x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier}  # fmt: skip
    names = kinds[x509.SubjectAlternativeName]
    assert names.critical
    assert list(names.value) == [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/default/sa/web")]
    assert kinds[x509.BasicConstraints].critical
    assert not kinds[x509.BasicConstraints].value.ca
    usage = kinds[x509.KeyUsage]
    assert usage.critical
    assert usage.value.digital_signature
    assert not (usage.value.key_cert_sign or usage.value.crl_sign)
    assert set(kinds[x509.ExtendedKeyUsage].value) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    key = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    assert kinds[x509.SubjectKeyIdentifier].value == key


def test_a_mould_signs_the_octets_that_stand_in_the_certificate() -> None:
    signed: list[bytes] = []

    def sign(octets: bytes) -> bytes:
        signed.append(octets)
        return b"signature"

    mould = Mould(b"\x30\x00", b"k" * 20, b"\x30\x02\x05\x00", sign)
    made = mould.make(5, 0, 1, b"\x04" + b"p" * 64, "spiffe://a/ns/b/sa/c")
    ((_, content),) = elements(made)
    assert content.startswith(signed[0])
    assert content.endswith(b"\x03\x0a\x00signature")
