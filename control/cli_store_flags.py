"""Flags of the store and of its history: `control --store`, `history`, `diff`, `rollback`, `store`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .cli_access_flags import FORCE_HELP
from .settings import seconds

WHERE = (
    "sqlite:PATH, etcd://HOST:PORT,.../PREFIX, consul://HOST:PORT/PREFIX (etcds, consuls: TLS); without a host as "
    "ETCDCTL_* and CONSUL_* say, from which credentials come as well"
)


def store_flags(made: Any) -> None:
    """Of `fairlead control`."""
    made.add_argument(
        "--store", metavar="WHERE",
        help=f"where objects are kept (default sqlite:store.db in --data-dir); several control planes can share etcd "
        f"or Consul: {WHERE}",
    )  # fmt: skip
    made.add_argument(
        "--history-age", type=seconds, default="30d", help="how long changes are kept for history and rollback (30d)"
    )
    made.add_argument(
        "--history-revisions", type=int, default=10_000, metavar="N", help="and how many of them (default %(default)s)"
    )


def history_verbs(verb: Any, add_client: Callable[[Any], None], add_files: Callable[[Any], None]) -> None:
    made = verb("history", "cli_history", "history", "Show what was changed: when, by whom, why, with what result.")
    add_client(made)
    _objects(made)
    made.add_argument("--author", default="", help="changes of this user only")
    made.add_argument("--limit", type=int, default=50, metavar="N", help="most changes shown (default %(default)s)")
    made.add_argument("-o", "--output", choices=("table", "json"), default="table", help="output format")
    made = verb(
        "diff", "cli_history", "diff",
        "Show what a revision changed, what differs between two, or what `apply -f` would change; exit 1 if anything.",
    )  # fmt: skip
    add_client(made)
    add_files(made)
    made.add_argument("revisions", nargs="*", type=int, metavar="REVISION", help="one, or two to compare")
    made.add_argument("--kind", metavar="KIND", help="of these objects only")
    made.add_argument("--name", metavar="NAME", default="", help="of this object only")
    made.add_argument("-n", "--namespace", help="of this namespace only; with -f of documents that name none")
    made.add_argument("-o", "--output", choices=("text", "json"), default="text", help="output format")
    made = verb("rollback", "cli_history", "rollback", "Bring objects back to what they were at a revision, at once.")
    add_client(made)
    made.add_argument("revision", type=int, metavar="REVISION")
    _objects(made)
    made.add_argument("--reason", default="", help="why, for the history")
    made.add_argument("--dry-run", action="store_true", help="say what would change, change nothing")
    made.add_argument("--force", action="store_true", help=FORCE_HELP)


def _objects(made: Any) -> None:
    made.add_argument("kind", nargs="?", metavar="KIND", help="of these objects only")
    made.add_argument("name", nargs="?", default="", metavar="NAME", help="of this object only")
    made.add_argument("-n", "--namespace", help="of this namespace only (with NAME: default)")


def store_verbs(verb: Any) -> None:
    group = verb("store", "cli_store", "copy", "Copy, back up and restore what control keeps.")
    which = group.add_subparsers(dest="store_verb", metavar="VERB", required=True)
    made = verb("copy", "cli_store", "copy", "Copy a store with its history, e.g. from SQLite to etcd.", which)
    made.add_argument("source", metavar="FROM", help=WHERE)
    made.add_argument("destination", metavar="TO", help="likewise; must be empty")
    made.add_argument("--force", action="store_true", help="replace what is there")
    made = verb("backup", "cli_store", "backup", "Write a store with its history to a file, while it is in use.", which)
    made.add_argument("source", metavar="FROM", help=WHERE)
    made.add_argument("file", metavar="FILE", help="readable for its owner only: Secrets are in it")
    made = verb("restore", "cli_store", "restore", "Fill a store from such a file.", which)
    made.add_argument("file", metavar="FILE")
    made.add_argument("destination", metavar="TO", help=f"must be empty: {WHERE}")
    made.add_argument("--force", action="store_true", help="replace what is there, and everybody lists again")
