"""BLAKE2 by itself: `hashlib` would load OpenSSL's digests as well, half a megabyte that a sidecar has no use for."""

from __future__ import annotations

try:
    from _blake2 import blake2b  # where CPython keeps it
except ImportError:  # another Python
    from hashlib import blake2b

__all__ = ["blake2b"]


def item_digest(key: str, value: bytes) -> bytes:
    """16 octets that stand for one item of the feed and its value, wherever and whenever they are computed."""
    return blake2b(key.encode() + b"\0" + value, digest_size=16).digest()
