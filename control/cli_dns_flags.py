"""Shell: the settings of the DNS server on the command line."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Callable
from typing import Any

from .settings import address, seconds


def network(text: str) -> str:
    """An address or a network. Raises argparse.ArgumentTypeError."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a network such as 10.0.0.0/8 or fd00::/8, got {text!r}") from None


def count(text: str) -> int:
    """A whole number, 0 or more. Raises argparse.ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def dns_flags(made: Any) -> None:
    """Long because all settings of the DNS server stand here, in the order of their help."""
    made.add_argument("--listen", type=address, default="127.0.0.1:15053", help="UDP and TCP (default %(default)s)")
    made.add_argument("--health", type=address, default="off", help="health and metrics (default off)")
    made.add_argument(
        "--upstream",
        action="append",
        metavar="ADDRESS",
        help="resolver for other zones, also tls://ADDRESS#NAME (default /etc/resolv.conf; off: none); repeatable",
    )
    made.add_argument("--upstream-ca", metavar="FILE", help="authorities of upstreams over TLS (default: the system's)")
    made.add_argument("--admin", type=address, default="off", help="`fairlead dns query --server` (loopback only; off)")
    made.add_argument("--dns-ttl", type=seconds, default="5s", help="of every record (default 5s)")
    made.add_argument(
        "--pods", choices=("verified", "insecure", "disabled"), default="verified",
        help="names a-b-c-d.NAMESPACE.pod.ZONE: of workloads, of any address, of none (default %(default)s)",
    )  # fmt: skip
    made.add_argument(
        "--autopath", choices=("off", "client", "question"), default="off",
        help="walk the client's search list for it, in its own namespace or the one in the question (default off)",
    )  # fmt: skip
    made.add_argument(
        "--search", action="append", metavar="DOMAIN", default=[],
        help="a search domain that clients have behind the cluster's three; repeatable",
    )  # fmt: skip
    made.add_argument("--consul-domain", metavar="DOMAIN", default="", help="answer Consul's names below it, too")
    made.add_argument("--consul-datacenter", metavar="NAME", default="dc1", help="in those names (default dc1)")
    made.add_argument(
        "--consul-domain-namespace",
        metavar="NS",
        default="default",
        help="of names that say none (default %(default)s)",
    )
    made.add_argument(
        "--locality", metavar="REGION/ZONE/SUBZONE", default="", help="of clients that are no known workload"
    )
    made.add_argument("--tls-listen", type=address, default="off", help="DNS over TLS, usually 0.0.0.0:853 (off)")
    made.add_argument("--https-listen", type=address, default="off", help="DNS over HTTPS, /dns-query (off)")
    made.add_argument("--tls-cert", metavar="FILE", help="certificate chain of both (PEM), read again when it changes")
    made.add_argument("--tls-key", metavar="FILE", help="key of --tls-cert (PEM)")
    made.add_argument(
        "--allow-transfer", action="append", type=network, metavar="NETWORK", default=[],
        help="servers that may have whole zones (AXFR); repeatable",
    )  # fmt: skip
    made.add_argument(
        "--allow-recursion", action="append", type=network, metavar="NETWORK",
        help="who may ask for other zones (default: all if listening on loopback, else private networks)",
    )  # fmt: skip
    made.add_argument(
        "--rate-limit", type=count, metavar="N", default=0,
        help="replies over UDP a second to one client network (/24, /56); beyond, it must come by TCP (0: no limit)",
    )  # fmt: skip
    made.add_argument(
        "--max-connections", type=count, metavar="N", default=1000, help="TCP and TLS clients at a time (default 1000)"
    )
    made.add_argument("--idle-timeout", type=seconds, default="10s", help="of those (default 10s)")
    made.add_argument("--nsid", metavar="NAME", default="", help="what this server calls itself to who asks (RFC 5001)")
    made.add_argument(
        "--cookie-secret-file", metavar="FILE",
        help="secrets of DNS cookies, 32 hexadecimal digits a line, the first to make them (default: a random one)",
    )  # fmt: skip
    made.add_argument(
        "--query-log", choices=("off", "all", "denial", "error"), default="off",
        help="a line for each question on standard output; SIGUSR1 switches all of them on and off (default off)",
    )  # fmt: skip
    made.add_argument(
        "--lameduck", type=seconds, default="0s", help="on SIGTERM, serve on for so long while not ready (default 0s)"
    )


def dns_query_flags(made: Any, add_sources: Callable[[Any], None]) -> None:
    """Of `fairlead dns query`."""
    add_sources(made)
    made.add_argument("--control", metavar="URL", help="from the live mesh of this control API")
    made.add_argument("--token", metavar="TOKEN", help="bearer token for --control")
    made.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    made.add_argument("--ca", metavar="FILE", help="certificate authorities that vouch for the control API (PEM)")
    made.add_argument("--server", type=address, metavar="HOST:PORT", help="as this DNS server answers (its --admin)")
    made.add_argument("--source-ip", metavar="IP", help="address of the client")
    made.add_argument("--consul-domain", metavar="DOMAIN", default="", help="without --server: Consul's names below it")
    made.add_argument("--autopath", choices=("off", "client", "question"), default="off", help="without --server")
    made.add_argument("name", metavar="NAME", help="with type PTR an address, too")
    made.add_argument("type", metavar="TYPE", nargs="?", default="A", help="default A")
    made.add_argument("-o", "--output", choices=("text", "json"), default="text", help="output format")
