"""The child that makes a key and a request."""

from __future__ import annotations

import json
import subprocess
import sys

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def made_by_the_child() -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fairlead.mesh.csr"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_the_child_prints_a_p256_key_and_a_request_for_it_without_names() -> None:
    made = made_by_the_child()
    key = serialization.load_pem_private_key(made["key"].encode(), None)
    request = x509.load_pem_x509_csr(made["csr"].encode())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    assert len(request.subject) == 0
    assert len(request.extensions) == 0


def test_every_key_is_a_new_one() -> None:
    assert made_by_the_child()["key"] != made_by_the_child()["key"]
