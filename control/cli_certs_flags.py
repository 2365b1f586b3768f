"""Flags of control's authority, and of `fairlead certs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .settings import seconds


def authority_flags(made: Any) -> None:
    for name, text in (
        ("--ca-certificate", "sign with an intermediate of your own PKI: its certificate, then those above it (PEM)"),
        ("--ca-key", "key of --ca-certificate (PEM)"),
        ("--ca-roots", "the root above it, where the chain lacks it, and further ones to be trusted (PEM)"),
    ):
        made.add_argument(name, metavar="FILE", help=text)
    made.add_argument("--vault", metavar="URL", help="sign with Vault's PKI engine; `env` for VAULT_ADDR")
    made.add_argument("--vault-mount", metavar="PATH", default="pki", help="its mount (default %(default)s)")
    made.add_argument("--vault-role", metavar="NAME", default="fairlead", help="its role (default %(default)s)")
    made.add_argument("--vault-namespace", metavar="NAME", default="", help="Vault's namespace (or VAULT_NAMESPACE)")
    made.add_argument("--vault-ca", metavar="FILE", help="authorities that vouch for Vault (PEM; or VAULT_CACERT)")
    made.add_argument("--vault-token-file", metavar="FILE", help="file with Vault's token (or VAULT_TOKEN)")
    made.add_argument("--vault-role-id-file", metavar="FILE", help="AppRole: file with the role id")
    made.add_argument("--vault-secret-id-file", metavar="FILE", help="AppRole: file with the secret id")
    made.add_argument(
        "--vault-server-role", metavar="NAME", default="",
        help="role that may sign the API's own names (default: that of --vault-role)",
    )  # fmt: skip
    made.add_argument(
        "--workload-socket", metavar="PATH", help="Unix socket by which workloads on this host get their certificate"
    )
    made.add_argument(
        "--workload-users", metavar="FILE",
        help="who may be which service account there: lines `USER NAMESPACE/SERVICE_ACCOUNT[,...]`",
    )  # fmt: skip


def certs_flags(verb: Any, client: Callable[[Any], None], output: Callable[..., None]) -> None:
    made = verb("certs", "cli_certs", "certs", "Roots, intermediates and certificates: days left, and who trusts what.")
    client(made)
    output(made, ("table", "json"))
    made.add_argument("--leaves", action="store_true", help="every certificate, not only those that end soon")
    which = made.add_subparsers(dest="certs_verb", metavar="VERB")
    for name, text in (
        (
            "revoke",
            "Take certificates back: refused from now on by control and in handshakes, with all renewed from them.",
        ),
        ("restore", "Let in again what was revoked. Certificates of before stay revoked until they end."),
    ):
        made = verb(name, "cli_revoke", name, text, which)
        client(made)
        output(made)
        what = made.add_mutually_exclusive_group(required=True)
        what.add_argument("--serial", metavar="HEX", help="one certificate, as `fairlead certs --leaves` shows it")
        what.add_argument("--workload", metavar="NAMESPACE/NAME", help="all of a workload, which gets no other")
        what.add_argument("--service-account", metavar="NAMESPACE/NAME", help="all of it, which gets no other")
        made.add_argument(
            "--reason", default="", metavar="TEXT", help="why; kept, audited, and told to proxies for their log"
        )
        if name == "revoke":
            made.add_argument("--force", action="store_true", help="also a serial that is not on record")
        else:
            made.add_argument(
                "--certificates", action="store_true", help="believe its certificates of before again, too"
            )
    made = verb(
        "rotate", "cli_certs", "rotate",
        "Replace the root: each step waits until it cannot break a handshake.", which,
    )  # fmt: skip
    client(made)
    output(made)
    made.add_argument(
        "--step", choices=("start", "issue", "finish", "abort"),
        help="take this step alone (default: all that are left); abort: give up before the new root issues",
    )  # fmt: skip
    made.add_argument("--force", action="store_true", help="do not wait: some handshakes may fail")
    made.add_argument(
        "--timeout", type=seconds, default="1h", help="longest wait for each step (default 1h); run again to go on"
    )
