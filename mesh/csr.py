"""A key and a certificate request as JSON, made in a child so that a sidecar need not import cryptography.

`python -P -m fairlead.mesh.csr` prints {"key": PEM, "csr": PEM} and ends. The key is P-256; the request carries no
names, since the authority takes none from it.
"""

from __future__ import annotations

import json
import sys


def make() -> dict[str, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {"key": private.decode(), "csr": csr.public_bytes(pem).decode()}


if __name__ == "__main__":
    json.dump(make(), sys.stdout)
