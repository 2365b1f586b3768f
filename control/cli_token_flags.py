"""Flags of `token list` and `token revoke`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def token_verbs(verb: Callable[..., Any], which: Any, add_client: Callable[[Any], None], add_output: Any) -> None:
    """The flags of both."""
    made = verb("list", "cli_tokens", "list_tokens", "Show workload tokens, without their secrets.", which)
    add_client(made)
    made.add_argument("-n", "--namespace", default="", help="of this namespace only")
    add_output(made, ("table", "json"))
    text = (
        "Take tokens back: nobody gets in with them any more. Certificates that were got with them stay, and over TLS "
        "renew themselves, unless --certificates is given."
    )
    made = verb("revoke", "cli_tokens", "revoke", text, which)
    add_client(made)
    made.add_argument(
        "--withdraw", action="store_true", help="and the labels and addresses that they gave to workloads"
    )
    made.add_argument(
        "--certificates", action="store_true", help="and revoke what was issued by them, and renewed from that"
    )
    made.add_argument("--reason", default="", metavar="TEXT", help="why; kept, and told to proxies for their log")
    made.add_argument("ids", nargs="+", metavar="ID", help="as `fairlead token list` shows it, or the token itself")
