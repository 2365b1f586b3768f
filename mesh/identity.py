"""SPIFFE ids: parsed and printed to the letter of the SPIFFE-ID standard, compared octet by octet."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

MAX_OCTETS = 2048
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


class IdentityError(ValueError):
    """Not a SPIFFE id, or not one of a workload; the message says what is wrong with it."""


class SpiffeId(NamedTuple):
    """`spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`."""

    trust_domain: str
    namespace: str
    service_account: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


def split(text: str) -> tuple[str, list[str]]:
    """Trust domain and path segments of any SPIFFE id; raises IdentityError. Nothing is decoded or normalised."""
    if len(text.encode("utf-8", "surrogateescape")) > MAX_OCTETS:
        raise IdentityError(f"a SPIFFE id has at most {MAX_OCTETS} octets")
    if not text.startswith("spiffe://"):
        raise IdentityError(f"expected spiffe://TRUST_DOMAIN/PATH, got {text[:80]!r}")
    domain, slash, path = text[9:].partition("/")
    if not _TRUST_DOMAIN.fullmatch(domain):
        raise IdentityError(f"trust domain: expected lower-case letters, digits, `.`, `-`, `_`, got {domain[:80]!r}")
    if not slash:
        return domain, []
    segments = path.split("/")
    for segment in segments:
        if segment in (".", "..") or not _SEGMENT.fullmatch(segment):
            raise IdentityError(f"path: {segment[:80]!r} is not a segment of a SPIFFE id")
    return domain, segments


def parse(text: str) -> SpiffeId:
    """A workload's id; raises IdentityError for any other."""
    domain, segments = split(text)
    if len(segments) != 4 or segments[0] != "ns" or segments[2] != "sa":
        raise IdentityError(f"expected spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT, got {text[:200]!r}")
    return SpiffeId(domain, segments[1], segments[3])


@lru_cache(1024)
def make(trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
    """An id from its parts; raises IdentityError where they make none."""
    return parse(f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
