"""Flags of `fairlead kubeconfig`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def kubeconfig_flags(verb: Any, add_client: Callable[[Any], None]) -> None:
    made = verb("kubeconfig", "cli_kubeconfig", "main", "Write a context for kubectl; what is in the file stays.")
    add_client(made)
    made.add_argument("--name", default="fairlead", help="of the cluster, and of user and context (default fairlead)")
    made.add_argument("--user", metavar="NAME", help="name of the user entry, where it is to be another")
    made.add_argument("--context", metavar="NAME", help="name of the context, where it is to be another")
    made.add_argument("-n", "--namespace", help="namespace of the context")
    made.add_argument("--client-certificate", metavar="FILE", help="certificate to show (PEM)")
    made.add_argument("--client-key", metavar="FILE", help="its key (PEM)")
    made.add_argument(
        "--kubeconfig", metavar="FILE",
        help="file to write (default: KUBECONFIG, else ~/.kube/config); - for standard output",
    )  # fmt: skip
    made.add_argument("--use", action="store_true", help="make it the current context even if there is one")
    made.add_argument("--force", action="store_true", help="replace entries of these names that say otherwise")
