"""What a certificate must be to sign for a mesh: the checks of an authority that is loaded. Needs cryptography.

RFC 5280, 4.2.1.3, 4.2.1.9, 4.2.1.10 and 6.1; SPIFFE X509-SVID, 2 to 4. Every refusal says which certificate it is
about, what is wrong with it, and what is needed.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from .identity import IdentityError, split

CHAIN_MOST = 8
"""Certificates above a signer."""


class AuthorityError(ValueError):
    """A request that is not signed, or an authority that cannot sign; the message is for people."""


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of its DER, in hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def check_chain(
    signer: x509.Certificate,
    above: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    trust_domain: str,
    now: float | None,
) -> list[x509.Certificate]:
    """The certificates above a signer in order, its root last; none where it is a root. Raises AuthorityError."""
    _check_one(signer, 0, now)
    chain: list[x509.Certificate] = []
    at, left = signer, [*above, *roots]
    while not is_self_signed(at):
        issuer = next((one for one in left if _issued(one, at)), None)
        if issuer is None:
            raise AuthorityError(
                f"the certificate of {_name(at)} was issued by {_name_of(at.issuer)}, which is in none of the files: "
                "give the whole chain up to the root (in the certificate's file, or the root in that of the roots)"
            )
        if len(chain) >= CHAIN_MOST:
            raise AuthorityError(f"more than {CHAIN_MOST} certificates stand above the authority's")
        left.remove(issuer)
        chain.append(issuer)
        at = issuer
    unused = [one for one in left if one in above]
    if unused:
        raise AuthorityError(
            f"the certificate of {_name(unused[0])} in the chain is not above the authority's: remove it"
        )
    for below, one in enumerate((signer, *chain)):
        if below:
            _check_one(one, below, now)
        if trust_domain:
            _check_names(one, trust_domain)
    return chain


def is_self_signed(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer and _issued(certificate, certificate)


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # wrong name, wrong signature, a key of another kind, an algorithm that is not supported
        return False
    return True


def _check_one(certificate: x509.Certificate, below: int, now: float | None) -> None:
    """`below`: how many authorities stand between it and workloads' certificates."""
    name = _name(certificate)
    try:
        extensions = certificate.extensions
    except (ValueError, x509.DuplicateExtension) as error:
        raise AuthorityError(f"the extensions of the certificate of {name} cannot be read: {error}") from error
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = None
    if constraints is None or not constraints.ca:
        raise AuthorityError(f"the certificate of {name} is not an authority's (basicConstraints: CA true is needed)")
    if constraints.path_length is not None and constraints.path_length < below:
        raise AuthorityError(
            f"the certificate of {name} has a path length of {constraints.path_length}, but {below} authorities "
            "stand below it: what they issue would be refused by every client"
        )
    try:
        signs = extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        signs = True
    if not signs:
        raise AuthorityError(f"the certificate of {name} may not sign certificates (keyUsage: keyCertSign is needed)")
    if now is not None:
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now >= ends.timestamp():
            raise AuthorityError(f"the certificate of {name} has expired at {_shown(ends)}")
        if now < begins.timestamp():
            raise AuthorityError(
                f"the certificate of {name} is not valid before {_shown(begins)}: is the clock of this host right?"
            )


def _check_names(certificate: x509.Certificate, trust_domain: str) -> None:
    """Its own SPIFFE id, if it has one, is that of the trust domain; its name constraints let the domain pass."""
    name = _name(certificate)
    for uri in _uris(certificate):
        if not uri.startswith("spiffe://"):
            continue
        try:
            domain, path = split(uri)
        except IdentityError as error:
            raise AuthorityError(f"the certificate of {name} has a SPIFFE id that is none: {error}") from None
        if domain != trust_domain:
            raise AuthorityError(
                f"the certificate of {name} is of trust domain {domain}, this mesh is {trust_domain} (--trust-domain)"
            )
        if path:
            raise AuthorityError(f"the certificate of {name} has {uri} for its id; an authority's has no path")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return
    permitted, excluded = _domains(constraints.permitted_subtrees), _domains(constraints.excluded_subtrees)
    for limit in excluded:
        if _within(trust_domain, limit):
            raise AuthorityError(
                f"the certificate of {name} excludes URI names of {limit} (nameConstraints), and so trust domain "
                f"{trust_domain}"
            )
    if permitted and not any(_within(trust_domain, limit) for limit in permitted):
        raise AuthorityError(
            f"the certificate of {name} permits URI names of {' and '.join(permitted)} alone (nameConstraints), not of "
            f"trust domain {trust_domain}"
        )


def _domains(subtrees: Iterable[x509.GeneralName] | None) -> list[str]:
    return [one.value.lower() for one in subtrees or () if isinstance(one, x509.UniformResourceIdentifier)]


def _within(domain: str, limit: str) -> bool:
    """RFC 5280, 4.2.1.10: a host, or with a period before it all below it."""
    return domain.endswith(limit) and domain != limit[1:] if limit.startswith(".") else domain == limit


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(names.get_values_for_type(x509.UniformResourceIdentifier))


def _name(certificate: x509.Certificate) -> str:
    return _name_of(certificate.subject)


def _name_of(name: x509.Name) -> str:
    return f"`{name.rfc4514_string()[:200]}`" if name.rdns else "(no name)"


def _shown(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")
