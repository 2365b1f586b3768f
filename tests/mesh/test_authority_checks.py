"""An intermediate of the user's own PKI: taken where clients would accept its leaves, else refused with the reason."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from fairlead.mesh.authority import Authority, AuthorityError
from fairlead.mesh.contexts import Contexts
from tests.mesh.certificates_made import authority, intermediate, issued, leaf, material, pem_key, pki
from tests.mesh.test_contexts import serving
from tests.mesh.test_sessions import connect

PEM = Encoding.PEM
ROOT = pki()


def loaded(certificate: x509.Certificate, key: Any, above: bytes = b"", **more: Any) -> Authority:
    given = {"trust_domain": "cluster.local", "now": time.time(), **more}
    return Authority.load(pem_key(key), certificate.public_bytes(PEM) + above, **given)


def refused(certificate: x509.Certificate, key: Any, above: bytes = b"", **more: Any) -> str:
    with pytest.raises(AuthorityError) as caught:
        loaded(certificate, key, above, **more)
    return str(caught.value)


def test_an_intermediate_is_taken_with_its_root_in_either_file() -> None:
    certificate, key = issued(ROOT)
    for made in (
        loaded(certificate, key, ROOT.certificate_pem()), loaded(certificate, key, roots_pem=ROOT.certificate_pem())
    ):  # fmt: skip
        assert made.roots == ROOT.certificate_pem().decode()
        assert made.intermediates == [certificate]
    other = pki(name="Another")
    more = loaded(certificate, key, roots_pem=ROOT.certificate_pem() + other.certificate_pem())
    assert more.roots == (ROOT.certificate_pem() + other.certificate_pem()).decode(), "further roots are trusted, too"


def test_a_chain_of_any_order_is_put_in_order() -> None:
    root = pki(None)
    middle, middle_key = issued(root, "middle", path_length=1)
    certificate, key = issued(Authority(middle_key, middle), "last")
    made = loaded(certificate, key, root.certificate_pem() + middle.public_bytes(PEM))
    assert [one.subject.rfc4514_string() for one in made.intermediates] == ["CN=last", "CN=middle"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"ca": False}, "is not an authority's"),
        ({"key_usage": x509.KeyUsage(True, *[False] * 8)}, "may not sign certificates"),
        ({"begins": -100.0, "ends": -50.0}, "has expired at"),
        ({"begins": 500.0, "ends": 5000.0}, "is the clock of this host right"),
        ({"uris": ("spiffe://other.example",)}, "is of trust domain other.example, this mesh is cluster.local"),
        ({"uris": ("spiffe://cluster.local/ns/a/sa/b",)}, "has no path"),
        ({"uris": ("spiffe://UPPER",)}, "a SPIFFE id that is none"),
    ],
)
def test_what_may_not_sign_is_named_with_its_fault(settings: dict[str, Any], why: str) -> None:
    told = refused(*issued(ROOT, **settings), ROOT.certificate_pem())
    assert why in told
    assert "CN=intermediate" in told


@pytest.mark.parametrize(
    ("permitted", "excluded", "why"),
    [
        (["other.example"], None, "permits URI names of other.example alone"),
        ([".cluster.local"], None, "permits URI names of .cluster.local alone"),
        (None, ["cluster.local"], "excludes URI names of cluster.local"),
        (["cluster.local"], None, ""), ([".local"], None, ""), (None, ["other.example"], ""),
    ],
)  # fmt: skip
def test_name_constraints_that_keep_our_trust_domain_out_are_found_on_load(
    permitted: list[str] | None, excluded: list[str] | None, why: str
) -> None:
    def names(texts: list[str] | None) -> list[x509.GeneralName] | None:
        return [x509.UniformResourceIdentifier(one) for one in texts] if texts is not None else None

    made = issued(ROOT, constraints=x509.NameConstraints(names(permitted), names(excluded)))
    if why:
        assert why in refused(*made, ROOT.certificate_pem())
    else:
        loaded(*made, ROOT.certificate_pem())


def test_a_path_length_above_that_forbids_the_intermediate_is_found_on_load() -> None:
    short = pki(0)
    told = refused(*issued(short), short.certificate_pem())
    assert "CN=Our PKI" in told
    assert "path length of 0, but 1 authorities stand below it" in told


def test_a_missing_link_a_stranger_in_the_chain_and_a_foreign_key_are_named() -> None:
    certificate, key = issued(ROOT)
    assert "was issued by `CN=Our PKI`, which is in none of the files" in refused(certificate, key)
    stranger = pki(name="Stranger")
    assert "`CN=Stranger` in the chain is not above" in refused(
        certificate, key, ROOT.certificate_pem() + stranger.certificate_pem()
    )
    other = ec.generate_private_key(ec.SECP256R1())
    assert "does not belong to its certificate" in refused(certificate, other, ROOT.certificate_pem())
    weak = rsa.generate_private_key(65537, 1024)
    assert "has 1024 bits" in refused(issued(ROOT, key=weak)[0], weak, ROOT.certificate_pem())
    _, chain, leaf_key = leaf(ROOT)
    with pytest.raises(AuthorityError, match="not an authority's"):
        Authority.load(leaf_key.encode(), chain.encode() + ROOT.certificate_pem())


@pytest.mark.parametrize("key", [ec.SECP384R1(), ec.SECP521R1(), "rsa"], ids=["P-384", "P-521", "RSA"])
@pytest.mark.asyncio
async def test_openssl_takes_leaves_of_intermediates_of_every_kind_of_key(key: Any) -> None:
    made = rsa.generate_private_key(65537, 2048) if key == "rsa" else ec.generate_private_key(key)
    signer = intermediate(ROOT, key=made)
    server, client = Contexts(lambda: ("cluster.local",)), Contexts(lambda: ("cluster.local",))
    server.take(material(signer))
    client.take(material(signer, "other"))
    async with serving(server) as listening, asyncio.timeout(20):
        assert (await connect(listening, client))[1:] == (None, b"hello")
        client.take(material(authority(), "other", roots=ROOT.certificate_pem().decode()))
        assert (await connect(listening, client))[2] == b"", "a certificate of another root opens nothing"
