"""From a leaf certificate to an identity, or to the reason why there is none."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from fairlead.mesh import trust
from fairlead.mesh.identity import IdentityError
from fairlead.mesh.trust import expect, identity_of, read_leaf, read_time
from tests.mesh.certificates_made import DER, authority, leaf

CA = authority()
GOOD = leaf(CA)[0]
WEB = "spiffe://cluster.local/ns/default/sa/web"


def usage_of(**true: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{name: true.get(name, False) for name in names})


def test_a_right_leaf_gives_its_identity() -> None:
    assert str(identity_of(GOOD)) == WEB
    assert str(identity_of(leaf(CA, extended=None)[0])) == WEB


def test_serial_and_validity_are_those_that_the_library_reads() -> None:
    found, told = read_leaf(GOOD), x509.load_der_x509_certificate(GOOD)
    assert found.serial == told.serial_number
    assert found.not_before == told.not_valid_before_utc.timestamp()
    assert found.not_after == told.not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("der", "why"),
    [
        (leaf(CA, ())[0], "0 URI names"),
        (leaf(CA, (WEB, "spiffe://cluster.local/ns/default/sa/other"))[0], "2 URI names"),
        (leaf(CA, ("https://cluster.local/ns/default/sa/web",))[0], "spiffe://"),
        (leaf(CA, ("spiffe://cluster.local/ns/default/sa/web/more",))[0], "/ns/"),
        (leaf(CA, ca=True)[0], "authority"),
        (leaf(CA, key_usage=usage_of(digital_signature=True, key_cert_sign=True))[0], "signing of certificates"),
        (leaf(CA, key_usage=usage_of(digital_signature=True, crl_sign=True))[0], "signing of certificates"),
        (leaf(CA, key_usage=usage_of(key_encipherment=True))[0], "digital signatures"),
        (leaf(CA, key_usage_critical=False)[0], "keyUsage"),
        (leaf(CA, extended=(ExtendedKeyUsageOID.SERVER_AUTH,))[0], "clientAuth"),
        (CA.certificate.public_bytes(DER), "authority"),
        (None, "no certificate"),
        (b"", "no certificate"),
        (b"\x30\x03\x02\x01\x01", "not a certificate"),
    ],
)
def test_what_spiffe_forbids_is_refused_with_its_reason(der: bytes | None, why: str) -> None:
    with pytest.raises(IdentityError, match=why):
        identity_of(der)


def test_a_certificate_that_is_known_is_refused_all_the_same_once_it_has_ended() -> None:
    der = leaf(CA)[0]
    end = read_leaf(der).not_after
    assert identity_of(der, end - 1) == identity_of(der, end)
    with pytest.raises(IdentityError, match="has ended"):
        identity_of(der, end + 1)


def test_good_certificates_are_remembered_in_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_KNOWN_MOST", 2)
    for _ in range(5):
        identity_of(leaf(CA)[0])
    assert 0 < len(trust._known) <= 2


def test_a_server_must_be_one_of_those_the_service_may_be() -> None:
    assert expect(GOOD, (WEB,), ("cluster.local",)) == ""
    assert "may be" in expect(GOOD, ("spiffe://cluster.local/ns/default/sa/other",), ("cluster.local",))
    assert "nobody" in expect(GOOD, (), ("cluster.local",))
    assert "trust domain" in expect(GOOD, (WEB,), ("elsewhere",))


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_one_changed_octet_never_does_more_than_raise(at: int, octet: int) -> None:
    changed = GOOD[:at] + bytes([octet]) + GOOD[at + 1 :]
    try:
        identity_of(changed)
    except IdentityError:
        pass


def test_a_certificate_cut_anywhere_is_refused() -> None:
    for at in range(len(GOOD)):
        with pytest.raises(IdentityError):
            identity_of(GOOD[:at])


@given(st.binary(max_size=300))
def test_no_octets_do_more_than_raise(der: bytes) -> None:
    with pytest.raises(IdentityError):
        identity_of(der)


@given(st.datetimes(datetime.datetime(1950, 1, 1), datetime.datetime(2049, 12, 31)))
def test_times_are_read_as_the_calendar_has_them(when: datetime.datetime) -> None:
    when = when.replace(microsecond=0)
    expected = when.replace(tzinfo=datetime.UTC).timestamp()
    assert read_time(0x18, when.strftime("%Y%m%d%H%M%SZ").encode()) == expected
    assert read_time(0x17, when.strftime("%y%m%d%H%M%SZ").encode()) == expected


def test_a_boolean_that_is_not_der_is_refused() -> None:
    authority_leaf = leaf(CA, ca=True)[0]
    at = authority_leaf.index(b"\x01\x01\xff", authority_leaf.index(bytes.fromhex("551d13")) + 6)
    with pytest.raises(IdentityError, match="boolean"):
        identity_of(authority_leaf[: at + 2] + b"\x01" + authority_leaf[at + 3 :])
