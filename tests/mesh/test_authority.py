"""The authority: what it signs, what it refuses, and that OpenSSL and we accept the result."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import example, given
from hypothesis import strategies as st

from fairlead.mesh.authority import Authority, AuthorityError, plain_request, request_key, request_point
from fairlead.mesh.csr import make as make_csr
from fairlead.mesh.identity import make
from fairlead.mesh.trust import identity_of, read_leaf

WEB = make("cluster.local", "default", "web")
REQUEST = base64.b64decode("".join(make_csr()["csr"].splitlines()[1:-1]))


def der_of(pem: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem)


def test_a_signed_request_has_the_callers_identity_and_nothing_of_the_requests_names() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://cluster.local/ns/root/sa/root")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, False)
    pem = csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    chain, ends, serial = Authority.create("cluster.local", time.time()).sign(pem, WEB, 100.0, time.time())
    assert identity_of(der_of(chain)) == WEB
    assert read_leaf(der_of(chain)).serial == serial
    assert read_leaf(der_of(chain)).not_after == ends
    assert "root/sa/root" not in x509.load_pem_x509_certificate(chain.encode()).extensions.__repr__()


def test_a_certificate_never_outlives_its_root() -> None:
    now = time.time()
    short = Authority.create("cluster.local", now, ttl_s=50.0)
    _, ends, _ = short.sign(make_csr()["csr"].encode(), WEB, 1000.0, now)
    assert ends <= now + 50.0
    with pytest.raises(AuthorityError, match="expired"):
        short.sign(make_csr()["csr"].encode(), WEB, 1000.0, now + 51.0)


def test_what_is_no_good_request_is_refused() -> None:
    ca, now = Authority.create("cluster.local", time.time()), time.time()
    csr = make_csr()["csr"]
    broken = csr[:200] + ("A" if csr[200] != "A" else "B") + csr[201:]
    weak = rsa.generate_private_key(65537, 2048)
    other = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(weak, hashes.SHA256())
    for pem in (b"", b"garbage", broken.encode(), other.public_bytes(serialization.Encoding.PEM)):
        with pytest.raises(AuthorityError):
            ca.sign(pem, WEB, 100.0, now)


def test_an_authority_is_the_same_after_it_was_kept() -> None:
    ca = Authority.create("cluster.local", time.time())
    again = Authority.load(ca.key_pem(), ca.certificate_pem())
    assert again.roots == ca.roots
    stranger = Authority.create("cluster.local", time.time())
    with pytest.raises(AuthorityError, match="belong"):
        Authority.load(stranger.key_pem(), ca.certificate_pem())
    with pytest.raises(AuthorityError, match="read"):
        Authority.load(b"garbage", ca.certificate_pem())


def test_the_root_is_an_authority_that_may_sign_leaves_only() -> None:
    root = Authority.create("cluster.local", time.time()).certificate
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert root.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


@given(st.integers(0, len(REQUEST) - 1), st.integers(0, 255))
@example(0, REQUEST[0])
def test_a_request_of_the_form_that_sidecars_send_is_read_as_the_library_reads_it(at: int, octet: int) -> None:
    text = base64.encodebytes(REQUEST[:at] + bytes((octet,)) + REQUEST[at + 1 :]).decode().replace("\n", "")
    lines = "\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}\n-----END CERTIFICATE REQUEST-----\n".encode()

    def found(read: Callable[[bytes], bytes]) -> bytes | None:
        try:
            return read(pem)
        except AuthorityError:
            return None

    def by_library(pem: bytes) -> bytes:
        point = serialization.PublicFormat.UncompressedPoint
        return request_key(pem).public_bytes(serialization.Encoding.X962, point)

    assert found(request_point) == found(by_library)
    if octet == REQUEST[at]:
        assert plain_request(pem) is not None, "it takes the short way"
        assert found(request_point) == REQUEST[36:101]
