"""Shell: from flags to who may use the API: authorities for client certificates, and the OpenID Connect issuer."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from . import oidc
from .client_certificates import ClientAuthorities
from .fetch import AiohttpFetch
from .oidc_keys import OidcVerifier
from .settings import SettingError, cause


def client_authorities(options: Any, mesh_roots: str) -> ClientAuthorities:
    """Raises SettingError."""
    path = options.client_ca_file
    if not path:
        return ClientAuthorities()
    try:
        return ClientAuthorities(Path(path).read_bytes(), mesh_roots.encode())
    except (OSError, ValueError) as error:
        raise SettingError(f"--client-ca-file {path}: {cause(error)}") from error


def oidc_issuer(options: Any) -> tuple[OidcVerifier, AiohttpFetch] | None:
    """The verifier and the client to be closed; None: no issuer is configured. Raises SettingError."""
    if not options.oidc_issuer_url:
        return None
    context = None
    if options.oidc_ca_file:
        try:
            context = ssl.create_default_context(cafile=options.oidc_ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingError(f"--oidc-ca-file {options.oidc_ca_file}: {cause(error)}") from error
    required = {}
    for text in options.oidc_required_claim:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise SettingError(f"--oidc-required-claim: expected CLAIM=VALUE, got {text!r}")
        required[name] = value
    fetch = AiohttpFetch(context)
    settings = oidc.Settings(
        options.oidc_issuer_url, options.oidc_client_id, options.oidc_username_claim, options.oidc_username_prefix,
        options.oidc_groups_claim, options.oidc_groups_prefix, required,
        tuple(name.strip() for name in options.oidc_signing_algs.split(",") if name.strip()),
    )  # fmt: skip
    try:
        return OidcVerifier(settings, fetch), fetch
    except ValueError as error:
        raise SettingError(str(error)) from error
