"""Flags of who may use the control API, and of `apply --confirm` and `confirm`."""

from __future__ import annotations

from typing import Any

from .settings import seconds

FORCE_HELP = "also what would cut the control API, DNS, your own path, or clients in plaintext off"


def share(text: str) -> float:
    """Seconds a second. Raises ValueError."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


def access_flags(made: Any) -> None:
    """Of `fairlead control`: the names and meaning of kube-apiserver's flags."""
    made.add_argument("--client-ca-file", metavar="FILE", help="authorities (PEM) of certificates that name users: "
                      "CN is the user, each O a group")  # fmt: skip
    made.add_argument("--allow-plain", action="store_true", help="let --listen go beyond loopback without TLS")
    made.add_argument(
        "--user-processor-time", type=share, default=0.25, metavar="SECONDS",
        help="of control's processor a second that the requests of one user may take, and 10 at once; then 429 "
        "(default 0.25; 0: no limit; administrators and workloads' own requests have none)",
    )  # fmt: skip
    made.add_argument("--oidc-issuer-url", metavar="URL", default="", help="take id tokens of this OIDC issuer")
    made.add_argument("--oidc-client-id", metavar="ID", default="", help="audience that its tokens must have")
    made.add_argument("--oidc-username-claim", metavar="CLAIM", default="sub", help="names the user (default sub)")
    made.add_argument(
        "--oidc-username-prefix", metavar="PREFIX", default="",
        help="before each user's name (default the issuer and #, for email nothing); -: none",
    )  # fmt: skip
    made.add_argument("--oidc-groups-claim", metavar="CLAIM", default="", help="names the user's groups")
    made.add_argument("--oidc-groups-prefix", metavar="PREFIX", default="", help="before each group's name")
    made.add_argument(
        "--oidc-required-claim", metavar="CLAIM=VALUE", action="append", default=[], help="must be so; repeatable"
    )
    made.add_argument(
        "--oidc-signing-algs", metavar="NAMES", default="RS256", help="accepted algorithms, with commas (default RS256)"
    )
    made.add_argument("--oidc-ca-file", metavar="FILE", help="authorities (PEM) that vouch for the issuer")


def confirm_flags(made: Any) -> None:
    """Of `fairlead apply`."""
    made.add_argument(
        "--confirm", type=seconds, default=None, metavar="SECONDS",
        help="take everything back after this, in control and in the sidecars, unless `fairlead confirm` is called",
    )  # fmt: skip
    made.add_argument("--force", action="store_true", help=FORCE_HELP)


def confirm_verb(verb: Any, add_client: Any) -> None:
    made = verb("confirm", "cli_confirm", "confirm", "Keep what `apply --confirm` has changed, or take it back.")
    add_client(made)
    made.add_argument("id", nargs="?", metavar="ID", help="as apply printed it (default: the only one of yours)")
    which = made.add_mutually_exclusive_group()
    which.add_argument("--revert", action="store_true", help="take it back now")
    which.add_argument("--list", action="store_true", help="show what waits to be confirmed")
