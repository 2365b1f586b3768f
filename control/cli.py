"""The command line: one parser for all verbs; each verb's code is imported only when it is called.

Long because the flags of all verbs stand here, in the order of their help.

Exit codes: 0 done; 1 failed, or something checked was not valid; 2 usage; 130 interrupted; `run` passes the app's.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from .cli_access_flags import FORCE_HELP, access_flags, confirm_flags, confirm_verb
from .cli_certs_flags import authority_flags, certs_flags
from .cli_dns_flags import dns_flags, dns_query_flags
from .cli_kubeconfig_flags import kubeconfig_flags
from .cli_store_flags import history_verbs, store_flags, store_verbs
from .cli_token_flags import token_verbs
from .settings import (
    Parser,
    SettingError,
    address,
    header,
    host,
    labels,
    seconds,
    service_cidr,
    trust_domain,
    workload_name,
)

OUTPUTS = ("text", "json")


def add_files(parser: Any, required: bool = False) -> None:
    parser.add_argument(
        "-f", "--filename", action="append", metavar="PATH", required=required, default=[],
        help="manifest file or folder (YAML or JSON), - for standard input; may be given several times",
    )  # fmt: skip


def add_sources(parser: Any) -> None:
    add_files(parser)
    parser.add_argument(
        "--consul", metavar="URL", help="take services from Consul; `env` for CONSUL_HTTP_ADDR and its companions"
    )
    parser.add_argument(
        "--consul-namespace", metavar="PATTERN=NAMESPACE", action="append", default=[],
        help="namespace of Consul's services with such names (`pay-*=payments`); the first that fits, else default",
    )  # fmt: skip
    parser.add_argument(
        "--consul-address", metavar="TAG", default="",
        help="take this tagged address of Consul's services and nodes (wan, lan_ipv6, ...) where there is one",
    )  # fmt: skip
    parser.add_argument(
        "--etcd", metavar="URLS", help="take services from etcd v3 (comma-separated endpoints; `env` for ETCDCTL_*)"
    )
    parser.add_argument(
        "--etcd-prefix", metavar="PREFIX", default="", help="where services stand in etcd (default: as the layout says)"
    )
    parser.add_argument(
        "--etcd-layout", metavar="NAME|FILE", default="",
        help="how they stand there: fairlead (default), skydns, registrator, go-kit, grpc, go-micro, kitex, or a file "
        "that states it; see README.md",
    )  # fmt: skip
    parser.add_argument(
        "--nomad", metavar="URL", help="take Nomad's native services; `env` for NOMAD_ADDR and its companions"
    )
    parser.add_argument(
        "--docker",
        metavar="WHERE",
        help="take containers and Swarm tasks: unix:///PATH, tcp://HOST:PORT; `env`: DOCKER_*",
    )
    parser.add_argument("--marathon", metavar="URLS", help="take the apps of Marathon; `env` for MARATHON_URL")


def add_client(parser: Any) -> None:
    parser.add_argument(
        "--control", metavar="URL", default="http://127.0.0.1:15010", help="the control API (default %(default)s)"
    )
    parser.add_argument("--token", metavar="TOKEN", help="bearer token")
    parser.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    parser.add_argument("--ca", metavar="FILE", help="certificate authorities that vouch for the control API (PEM)")


def add_colour(parser: Any) -> None:
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto",
        help="colours: auto is on a terminal, unless NO_COLOR is set (FORCE_COLOR: elsewhere, too)",
    )  # fmt: skip


def add_output(parser: Any, choices: Sequence[str] = OUTPUTS) -> None:
    parser.add_argument("-o", "--output", choices=choices, default=choices[0], help="output format")


def build() -> Parser:
    parser = Parser(
        prog="fairlead",
        description="Service discovery, DNS and a sidecar mesh for hosts without Kubernetes.",
        epilog="Exit codes: 0 done; 1 failed, refused or not valid; 2 usage; 130 interrupted. `run` gives the app's,\n"
        "`diff` 1 for differences and 2 for failures. Each flag can stand in the environment: FAIRLEAD_DATA_DIR is\n"
        "--data-dir.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, module: str, function: str, text: str, of: Any = verbs, **more: Any) -> Parser:
        made: Parser = of.add_parser(name, help=text, description=text, **more)
        made.set_defaults(module=module, function=function)
        return made

    _offline_verbs(verb)
    _roles(verb)
    _check_verb(verb)
    _capture_verbs(verb)
    _client_verbs(verb)
    _registry_verbs(verb)
    return parser


def _offline_verbs(verb: Any) -> None:
    made = verb("version", "cli_offline", "version", "Print the version.")
    add_output(made)
    made = verb("validate", "cli_offline", "validate", "Check manifests; exit 1 if any document is not valid.")
    add_files(made, required=True)
    add_output(made)
    add_colour(made)
    made = verb("explain", "cli_offline", "explain", "Show what would happen to a request, and why.")
    add_sources(made)
    made.add_argument(
        "--control", metavar="URL", help="explain against the live mesh of this control API instead of -f"
    )
    made.add_argument("--token", metavar="TOKEN", help="bearer token for --control")
    made.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    made.add_argument("--ca", metavar="FILE", help="certificate authorities that vouch for the control API (PEM)")
    made.add_argument(
        "--at", type=int, metavar="REVISION", help="with --control: as the objects were at this revision of the history"
    )
    made.add_argument("--from", dest="from_", metavar="NAMESPACE/WORKLOAD", help="who asks")
    made.add_argument("--from-namespace", metavar="NS", help="namespace of a hypothetical client")
    made.add_argument("--from-labels", type=labels, metavar="K=V,...", help="labels of a hypothetical client")
    made.add_argument("--gateway", metavar="NAMESPACE/NAME", help="the request enters by this Gateway resource")
    made.add_argument("--port", type=int, metavar="N", help="the service port dialled")
    made.add_argument(
        "-H", "--header", action="append", type=header, default=[], metavar="'NAME: VALUE'", help="repeatable"
    )
    made.add_argument("--source-ip", metavar="IP", help="address of the client")
    made.add_argument("--plaintext", action="store_true", help="the client has no identity (no mutual TLS)")
    made.add_argument("--jwt-claims", metavar="JSON", help="claims of a verified token")
    made.add_argument("--tcp", action="store_true", help="an opaque TCP connection; URL is tcp://HOST:PORT")
    made.add_argument("--sni", metavar="NAME", help="server name of a TLS connection")
    made.add_argument("--requests", metavar="FILE", help="many requests, one JSON object a line, keys like the flags")
    made.add_argument("method", nargs="?", metavar="METHOD")
    made.add_argument("url", nargs="?", metavar="URL")
    add_output(made)
    add_colour(made)
    made = verb(
        "test", "cli_expectations", "main", "Hold routes and policies against what is expected of them; see README.md."
    )
    made.add_argument("files", nargs="+", metavar="FILE", help="YAML with a list `tests` (or a folder of such files)")
    add_files(made)
    made.add_argument("--control", metavar="URL", help="test the live mesh of this control API instead of -f")
    made.add_argument("--token", metavar="TOKEN", help="bearer token for --control")
    made.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    made.add_argument("--ca", metavar="FILE", help="certificate authorities that vouch for the control API (PEM)")
    add_output(made, ("text", "json", "junit"))
    add_colour(made)
    policy = verb("policy", "cli_offline", "matrix", "Questions about policies.")
    which = policy.add_subparsers(dest="policy_verb", metavar="VERB", required=True)
    text = "Who may reach whom, for every pair of workloads and declared port."
    matrix = verb("matrix", "cli_offline", "matrix", text, which)
    text = "Why a workload may reach another, or may not, rule by rule; exit 1 if not."
    matrix.add_argument("-n", "--namespace", default="", help="pairs with a workload of this namespace only")
    pair = verb("explain", "cli_offline", "explain_policy", text, which)
    pair.add_argument("source", metavar="NS/WORKLOAD|IP", help="who calls; an address comes in plaintext")
    pair.add_argument("destination", metavar="NS/WORKLOAD[:PORT]", help="whom; default: each port that it declares")
    pair.add_argument("--plaintext", action="store_true", help="the caller has no identity (no mutual TLS)")
    for made in (matrix, pair):
        add_sources(made)
        made.add_argument("--control", metavar="URL", help="the live mesh of this control API instead of -f")
        made.add_argument("--token", metavar="TOKEN", help="bearer token for --control")
        made.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
        made.add_argument("--ca", metavar="FILE", help="certificate authorities that vouch for the control API (PEM)")
        add_output(made)
    add_colour(pair)


def _roles(verb: Any) -> None:
    """Long because all flags of these roles stand here, in the order of their help."""
    made = verb("control", "role_control", "main", "Run the control plane: API, store, registry, authority, feed.")
    add_sources(made)
    made.add_argument(
        "--listen", type=address, default="127.0.0.1:15010", help="plain API, for development (default %(default)s)"
    )
    made.add_argument(
        "--tls-listen", type=address, default="off", help="API with TLS, usually 0.0.0.0:15012 (default off)"
    )
    made.add_argument(
        "--xds-tls-listen", type=address, default="off",
        help="xDS with mutual TLS for Envoy and proxyless gRPC, usually 0.0.0.0:15014 (default off)",
    )  # fmt: skip
    made.add_argument("--xds-listen", type=address, default="off", help="xDS without TLS, on loopback (default off)")
    made.add_argument("--data-dir", metavar="DIR", default="fairlead-data", help="store, authority, last snapshots")
    store_flags(made)
    made.add_argument(
        "--service-cidr", type=service_cidr, default="", metavar="RANGE",
        help="give Services without clusterIP an address of this range, e.g. 10.96.0.0/16; with IPv6 two, with a comma",
    )  # fmt: skip
    made.add_argument(
        "--trust-domain",
        type=trust_domain,
        default="cluster.local",
        help="trust domain of the mesh (default %(default)s)",
    )
    made.add_argument(
        "--certificate-ttl", type=seconds, default="24h", help="life of workload certificates (default 24h)"
    )
    authority_flags(made)
    made.add_argument(
        "--api-token-file", metavar="FILE", help="bearer tokens, one a line: TOKEN [NAME [GROUP,...]]; always asked for"
    )
    access_flags(made)
    made.add_argument(
        "--tls-names", metavar="NAMES", default="", help="further names and addresses in the API's certificate"
    )

    made = verb("dns", "role_dns", "main", "Run the DNS server.")
    add_sources(made)
    made.add_argument("--control", metavar="URL", help="take services from this control API")
    made.add_argument("--token-file", metavar="FILE", help="workload token for --control")
    made.add_argument("--ca", metavar="FILE", help="certificate authorities that vouch for --control (PEM)")
    made.add_argument(
        "--name",
        type=workload_name,
        default="default/dns",
        metavar="NAMESPACE/NAME",
        help="how this server calls itself to control",
    )
    dns_flags(made)
    made.add_argument("--data-dir", metavar="DIR", help="keep the last snapshot here for a cold start")
    dns_query_flags(
        verb(
            "query", "cli_dns", "query", "Show an answer and why: sources, and endpoints left out.",
            made.add_subparsers(dest="dns_verb", metavar="query"),
        ),
        add_sources,
    )  # fmt: skip

    made = verb("sidecar", "role_sidecar", "main", "Run the proxy beside one workload.")
    _sidecar_flags(made)
    made = verb(
        "run", "role_sidecar", "run", "Run a sidecar and, once it is ready, the app behind --; exit with its code."
    )
    _sidecar_flags(made)
    made.add_argument(
        "--restart", choices=("never", "on-failure", "always"), default="never",
        help="start the app again when its checks give it up or it fails; always: also when it ends",
    )  # fmt: skip
    made.add_argument("command", nargs="+", metavar="-- CMD", help="the app and its arguments")
    made = verb("gateway", "role_sidecar", "main", "Run the proxy at the edge, as the Gateways that select it say.")
    _sidecar_flags(made, True)
    made.add_argument(
        "--map", action="append", default=[], metavar="PORT=PORT",
        help="listen on another port than the one that Gateways name, e.g. 80=8080; repeatable",
    )  # fmt: skip
    _beside(verb)
    made = verb("healthcheck", "cli_client", "healthcheck", "Exit 0 if a role is ready (for container health checks).")
    made.add_argument("--health", type=address, default="127.0.0.1:15021", help="the role's health port")


def _beside(verb: Any) -> None:
    """Of who stands beside a client of xDS, which is no sidecar of ours."""
    for name, text in (
        ("envoy", "Beside an Envoy: write its bootstrap, get its certificate and keep it renewed."),
        ("grpc", "Beside a proxyless gRPC application: write its GRPC_XDS_BOOTSTRAP, keep its certificate renewed."),
    ):
        made = verb(name, "role_xds", name, text)
        made.add_argument(
            "--workload", required=True, type=workload_name, metavar="NAMESPACE/NAME", help="the workload that it is"
        )
        made.add_argument(
            "--control", action="append", metavar="URL", required=True, help="the control API; repeatable"
        )
        made.add_argument(
            "--xds", action="append", type=address, metavar="HOST:PORT", required=True,
            help="control's --xds-tls-listen (without --token-file: its --xds-listen); repeatable",
        )  # fmt: skip
        made.add_argument("--token-file", metavar="FILE", help="workload token for --control")
        made.add_argument("--ca", metavar="FILE", help="certificate authorities of --control (PEM)")
        made.add_argument("--data-dir", metavar="DIR", required=True, help="folder for bootstrap, key and certificate")
        made.add_argument("--address", type=host, help="the workload's address as others reach it")
        made.add_argument(
            "--ports", default="", metavar="PORT,...", help="the app's ports, where no manifest declares them"
        )
        made.add_argument(
            "--labels", type=labels, default="", metavar="K=V,...", help="the workload's labels, likewise"
        )
        made.add_argument(
            "--group", default="", metavar="NAME", help="WorkloadGroup that it is of, with all its labels"
        )
        made.add_argument("--once", action="store_true", help="write the files and end")
        if name == "envoy":
            _envoy_flags(made)


def _envoy_flags(made: Any) -> None:
    made.add_argument("--outbound", type=address, default="127.0.0.1:15001", help="Envoy's port by host; off: none")
    made.add_argument("--inbound", type=address, default="0.0.0.0:15006", help="Envoy's port for mutual TLS; off: none")
    made.add_argument("--admin", type=address, default="127.0.0.1:15000", help="Envoy's admin; off: none")
    made.add_argument(
        "--listen", action="append", default=[], metavar="ADDRESS=SERVICE:PORT",
        help="named port of Envoy, e.g. 127.0.0.1:9001=web.default:80",
    )  # fmt: skip
    made.add_argument(
        "--gateway", action="store_true", help="serve the Gateways that select this workload, and nothing else"
    )
    made.add_argument(
        "--map", action="append", default=[], metavar="PORT=PORT",
        help="with --gateway: listen on another port than the one that Gateways name, e.g. 80=8080; repeatable",
    )  # fmt: skip
    made.add_argument("--app-address", type=host, help="where the app listens (default: at the workload's address)")
    made.add_argument(
        "--drain", type=seconds, default="0s",
        help="at SIGTERM take the workload out of discovery and drain Envoy's listeners by its admin, in at most so "
        "long; for where Envoy ends with us (default 0s: leave Envoy as it is)",
    )  # fmt: skip
    made.add_argument(
        "--state-of-the-world", action="store_true", help="ask for the whole at each change, not for the difference"
    )


def _check_verb(verb: Any) -> None:
    made = verb(
        "check", "cli_check", "check",
        "Say what is wrong with a running mesh, a role, or the policies of manifests; exit 1 for errors.",
    )  # fmt: skip
    add_files(made)
    made.add_argument(
        "--control", metavar="URL", action="append", default=[],
        help="a control API (default: http://127.0.0.1:15010, where nothing else is given); repeatable",
    )  # fmt: skip
    made.add_argument("--token", metavar="TOKEN", help="bearer token for --control")
    made.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    made.add_argument("--ca", metavar="FILE", help="certificate authorities that vouch for the control API (PEM)")
    for name, text in (
        ("admin", "the admin port of a sidecar or gateway"),
        ("health", "the health port of any role"),
        ("dns", "a DNS server"),
    ):
        made.add_argument(
            f"--{name}", type=address, action="append", default=[], metavar="HOST:PORT", help=f"{text}; repeatable"
        )
    made.add_argument("--dns-name", action="append", default=[], metavar="NAME", help="what --dns has to answer, too")
    add_output(made, ("table", "short", "json"))
    add_colour(made)


def _mtls_verbs(verb: Any) -> None:
    mtls = verb("mtls", "cli_mtls", "show", "Who still comes in plaintext, and the switch to STRICT.")
    add_client(mtls)
    add_output(mtls)
    mtls.add_argument("--check", action="store_true", help="exit 1 if STRICT would refuse anybody")
    mtls.set_defaults(of="")
    which = mtls.add_subparsers(dest="mtls_verb", metavar="VERB")
    made = verb("show", "cli_mtls", "show", "The ledger, as without a verb, of one destination.", which)
    add_client(made)
    add_output(made)
    made.add_argument("--check", action="store_true", help="exit 1 if STRICT would refuse anybody")
    made.add_argument("of", nargs="?", default="", metavar="NS[/WORKLOAD]")
    made = verb(
        "strict", "cli_mtls", "strict", "Take mutual TLS alone; refused while somebody comes in plaintext.", which
    )
    add_client(made)
    made.add_argument("of", metavar="NS[/WORKLOAD]")
    made.add_argument("--force", action="store_true", help="whoever comes in plaintext may fail")
    made = verb("forget", "cli_mtls", "forget", "Drop entries, once their clients are dealt with.", which)
    add_client(made)
    made.add_argument("of", metavar="NS[/WORKLOAD]")
    made.add_argument("--source", metavar="NS/WORKLOAD|ADDRESS", help="this source alone")


def _capture_verbs(verb: Any) -> None:
    capture = verb("capture", "cli_capture", "capture", "nftables rules that bring an app's traffic to its sidecar.")
    which = capture.add_subparsers(dest="capture_verb", metavar="VERB", required=True)
    for name, text in (("apply", "Put the rules in force."), ("show", "Print the rules.")):
        made = verb(name, "cli_capture", "capture", text, which)
        made.add_argument("--user", required=True, help="user of the sidecar's process, whose traffic is left alone")
        made.add_argument(
            "--redirect-port", type=int, default=0, help="the sidecar's --redirect-listen; 0: not outbound"
        )
        made.add_argument("--inbound-port", type=int, default=0, help="the sidecar's --inbound; 0: not inbound")
        made.add_argument("--own-ports", default="15021,15090", help="ports never captured (default %(default)s)")
        made.add_argument("--app-ports", default="", help="inbound ports to capture (default: all others)")
        made.add_argument("--exclude", default="", help="destinations (CIDR,...) left alone")
    verb("remove", "cli_capture", "capture", "Take the rules away.", which)


def _sidecar_flags(made: Any, gateway: bool = False) -> None:
    """Long because all flags of the role stand here, in the order of its help."""
    add_files(made)
    made.add_argument(
        "--workload",
        required=not gateway,
        type=workload_name,
        metavar="NAMESPACE/NAME",
        help="the workload that it serves",
        default="default/gateway" if gateway else None,
    )
    made.add_argument(
        "--control",
        action="append",
        metavar="URL",
        help="take everything from this control API; several: tried in turn",
    )
    made.add_argument("--token-file", metavar="FILE", help="workload token for --control")
    made.add_argument("--ca", metavar="FILE", help="certificate authorities: of --control, and of the mesh with --cert")
    made.add_argument("--cert", metavar="FILE", help="own certificate chain (PEM), where control does not issue it")
    made.add_argument("--key", metavar="FILE", help="key of --cert (PEM)")
    made.add_argument(
        "--outbound",
        type=address,
        default="off" if gateway else "127.0.0.1:15001",
        help="by host, also an HTTP proxy; off: none",
    )
    made.add_argument(
        "--inbound",
        type=address,
        default="off" if gateway else "0.0.0.0:15006",
        help="mutual TLS from other sidecars; off: none",
    )
    made.add_argument("--admin", type=address, default="127.0.0.1:15000", help="admin (loopback only); off: none")
    made.add_argument("--health", type=address, default="0.0.0.0:15021", help="health; off: none")
    made.add_argument("--metrics", type=address, default="0.0.0.0:15090", help="Prometheus; off: none")
    made.add_argument("--dns", type=address, default="off", help="DNS that answers services with loopback addresses")
    made.add_argument("--upstream", action="append", metavar="ADDRESS", help="resolver for other zones of --dns")
    made.add_argument(
        "--autopath", action="store_true", help="--dns walks the search list of the workload's namespace for its app"
    )
    made.add_argument(
        "--search", type=host, action="append", metavar="DOMAIN", default=[],
        help="a search domain that the app has behind the cluster's three, for --autopath; repeatable",
    )  # fmt: skip
    made.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="ADDRESS=SERVICE:PORT",
        help="named port, e.g. 127.0.0.1:9001=web.default:80",
    )
    made.add_argument(
        "--redirect-listen", type=address, default="off", help="listener for connections redirected by nftables"
    )
    made.add_argument(
        "--capture", choices=("off", "nftables"), default="off", help="how connections get here (default %(default)s)"
    )
    made.add_argument("--app-address", type=host, help="where the app listens (default: at the workload's address)")
    made.add_argument(
        "--address", type=host, help="the workload's address as others reach it (default: of the inbound listener)"
    )
    made.add_argument(
        "--ports", default="", metavar="PORT,...", help="the app's ports, where no manifest declares them"
    )
    made.add_argument("--labels", type=labels, default="", metavar="K=V,...", help="the workload's labels, likewise")
    made.add_argument("--service-account", default="", help="the workload's service account, likewise")
    made.add_argument(
        "--group", default="", metavar="NAME", help="WorkloadGroup of its namespace that it is of, with all its labels"
    )
    made.add_argument(
        "--register", metavar="WHERE", help="register the app: consul=URL or etcd=URLS (`consul`, `etcd`: environment)"
    )
    made.add_argument("--service", metavar="NAME:PORT", help="the service to register as, and the app's port")
    _check_flags(made, gateway)
    made.add_argument("--data-dir", metavar="DIR", help="keep the last version and certificate here for a cold start")
    made.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that serve the same addresses (default 1)"
    )
    made.add_argument(
        "--drain-deadline", type=seconds, default="30s",
        help="on SIGTERM: from the signal to the end, whatever still runs (default 30s)",
    )  # fmt: skip
    made.add_argument(
        "--handover", metavar="PATH",
        help="Unix socket by which a successor takes over the listening sockets (default handover.sock in --data-dir; "
        "off: none)",
    )  # fmt: skip
    made.add_argument(
        "--minimum-drain", type=seconds, default=None, metavar="SECONDS",
        help="on SIGTERM: least time between not ready and no more accepting, for those who poll readiness "
        "(default: 5s where another host has polled it in the last minute, else 0s)",
    )  # fmt: skip
    made.add_argument(
        "--access-log", metavar="FILE", help="file, - for standard output, off; default as MeshConfig says"
    )
    made.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a limit of the proxy, such as max-head=32KiB or head-timeout=10s; README.md lists them; repeatable",
    )
    made.add_argument(
        "--proxy-protocol",
        action="append",
        default=[],
        metavar="LISTENER=NETWORK,...",
        help="peers that must say by the PROXY protocol (1 or 2) who their client is, e.g. inbound=10.0.0.0/8; "
        "LISTENER is inbound, outbound, redirect, listen or gateway; repeatable",
    )


def _check_flags(made: Any, gateway: bool) -> None:
    if gateway:  # there is no app
        made.set_defaults(enable_script_checks=False)
        return
    made.add_argument(
        "--endpoints", choices=("auto", "used", "all"), default="auto",
        help="which endpoints --control sends: of the services in use (others are asked for when they are first used), "
        "or all; auto (the default): all in a mesh of up to 5000; a Sidecar resource's egress goes before, but for all",
    )  # fmt: skip
    for name, text in (
        ("readiness", "whether the app takes traffic, e.g. http://:8080/healthz?period=5s, tcp://:5432, grpc://:50051, "
         "exec:COMMAND; repeatable"),
        ("liveness", "whether the app must be restarted, likewise"),
        ("startup", "whether the app is through with starting, likewise; the others wait for it"),
    ):  # fmt: skip
        made.add_argument(f"--{name}", action="append", default=[], metavar="URL", help=text)
    made.add_argument(
        "--checks", action="append", default=[], metavar="FILE",
        help="checks as Kubernetes, Consul, Nomad or Marathon write them (YAML or JSON)",
    )  # fmt: skip
    made.add_argument(
        "--enable-script-checks", action="store_true", help="run commands that --control gives as checks, too"
    )


def _client_verbs(verb: Any) -> None:
    made = verb("apply", "cli_client", "apply", "Create or change resources on the control plane.")
    add_files(made, required=True)
    add_client(made)
    made.add_argument("-n", "--namespace", default="default", help="namespace of documents that name none")
    made.add_argument("--dry-run", action="store_true", help="check on the server, change nothing")
    made.add_argument("--reason", default="", help="why, for `fairlead history`")
    confirm_flags(made)
    confirm_verb(verb, add_client)
    history_verbs(verb, add_client, add_files)
    store_verbs(verb)
    made = verb("get", "cli_client", "get", "Show resources.")
    add_client(made)
    made.add_argument("kind", metavar="KIND", help="kind, plural or short name, e.g. virtualservices, vs")
    made.add_argument("name", nargs="?", metavar="NAME")
    made.add_argument("-n", "--namespace", default="default", help="namespace (default %(default)s)")
    made.add_argument("-A", "--all-namespaces", action="store_true", help="of every namespace")
    made.add_argument("-l", "--selector", default="", help="label selector")
    add_output(made, ("table", "json", "yaml", "name"))
    made = verb("delete", "cli_client", "delete", "Delete resources, by kind and name or by manifest.")
    add_client(made)
    add_files(made)
    made.add_argument("kind", nargs="?", metavar="KIND")
    made.add_argument("name", nargs="?", metavar="NAME")
    made.add_argument("-n", "--namespace", default="default", help="namespace (default %(default)s)")
    made.add_argument("--reason", default="", help="why, for `fairlead history`")
    made.add_argument("--force", action="store_true", help=FORCE_HELP)
    _mtls_verbs(verb)
    made = verb("status", "cli_client", "status", "Show connected sidecars, what they run, and how sources are doing.")
    add_client(made)
    add_output(made)
    kubeconfig_flags(verb, add_client)
    certs_flags(verb, add_client, add_output)
    token = verb("token", "cli_client", "token", "Workload tokens: make them, show them, take them back.")
    which = token.add_subparsers(dest="token_verb", metavar="VERB", required=True)
    token_verbs(verb, which, add_client, add_output)
    text = "Make a token that lets a workload get its certificate and feed."
    made = verb("create", "cli_client", "token", text, which)
    add_client(made)
    made.add_argument("-n", "--namespace", default="default", help="namespace (default %(default)s)")
    made.add_argument("--service-account", default="default", help="whom it stands for (default %(default)s)")
    made.add_argument("--ttl", type=seconds, default="24h", help="how long it can be used (default 24h)")
    made.add_argument("--one-time", action="store_true", help="can be used for one certificate only")
    made.add_argument("--workload", default="", metavar="NAME", help="for this workload only")
    made.add_argument(
        "--labels", type=labels, default={}, metavar="K=V,...",
        help="labels that a workload with it may have, where no Pod, WorkloadEntry or WorkloadGroup says so",
    )  # fmt: skip
    made.add_argument(
        "--addresses",
        default="",
        metavar="IP|CIDR,...",
        help="addresses that it may have, beside the one from which control sees it come",
    )


def _registry_verbs(verb: Any) -> None:
    def add_known(made: Any) -> None:
        add_sources(made)
        made.add_argument("--control", metavar="URL", help="ask the live mesh of this control API")
        made.add_argument("--token", metavar="TOKEN", help="bearer token for --control")
        made.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
        made.add_argument("--ca", metavar="FILE", help="certificate authorities that vouch for the control API (PEM)")

    group = verb("registry", "cli_registry", "registry", "What is known: from manifests, control, Consul or etcd.")
    which = group.add_subparsers(dest="registry_verb", metavar="VERB", required=True)
    for name, text in (
        ("services", "Services, with their addresses, ports and how many endpoints are ready."),
        ("endpoints", "Endpoints, with their origin, age and health, and why not ready."),
        ("sources", "Sources, with their state and age; exit 1 if one is stale."),
    ):
        made = verb(name, "cli_registry", "registry", text, which)
        add_known(made)
        if name != "sources":
            made.add_argument("name", nargs="?", metavar="SERVICE", help="name or host of one service")
        made.add_argument("-n", "--namespace", help="of this namespace only")
        add_output(made, ("table", "wide", "json"))
    made = verb(
        "env", "cli_registry", "env", "Environment variables of services, as Kubernetes gives them to containers."
    )
    add_known(made)
    made.add_argument("-n", "--namespace", default="default", help="namespace (default %(default)s)")
    made.add_argument(
        "--workload", type=workload_name, metavar="NAMESPACE/NAME",
        help="for this workload: of its namespace, and none where its Pod says enableServiceLinks: false",
    )  # fmt: skip
    made.add_argument("--export", action="store_true", help='for the shell: eval "$(fairlead env --export ...)"')
    made.add_argument("--by-name", action="store_true", help="services without an address: their name in its place")
    add_output(made)


def lean_msgspec() -> None:
    """msgspec imports typing_extensions where that is installed, but needs nothing of it that Python 3.11 has not; it
    is 2 MB of a sidecar's memory at rest. Whoever imports it later gets it."""
    if "msgspec" in sys.modules or "typing_extensions" in sys.modules:
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("msgspec")
    finally:
        del sys.modules["typing_extensions"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `fairlead`; returns the exit code."""
    verb = ""
    try:
        Parser.environment = os.environ
        lean_msgspec()
        options = build().parse_args(arguments)
        verb, package = options.verb, __package__ or "fairlead.control"
        function = getattr(importlib.import_module(f".{options.module}", package), options.function)
        code = int(function(options) or 0)
        if sys.stdout is not None:
            sys.stdout.flush()  # here its failure is told
        return code
    except SettingError as error:
        print(f"fairlead {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader went away: nothing more to say, also not at exit
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"fairlead {verb}: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        return 1
