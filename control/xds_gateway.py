"""An Envoy as a gateway: the servers of its Gateways as listeners, their hosts as routes, their Secrets over SDS.

Which server takes which port and name, and which rule attaches to it, was decided by `policy/gateways.py`, as for our
own gateway. A server whose certificate cannot be had is left out and named; the others of its port go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..mesh.pem import CertificateError, authorities_of, pair_of, read_secret, revoked_of
from ..policy.compile_hosts import HttpTable
from ..policy.compile_inbound import Inbound
from ..policy.compile_l4 import L4Host
from ..policy.credentials import AUTHORITIES, MUTUAL, Name, names_of, place_of
from ..policy.gateways import HTTP, TLS, Port, Ports, Server
from ..policy.parse import parse
from ..policy.resources import Resources, Secret, ServerTLS
from ..policy.tables import Decision, Tables
from ..policy.validate import resources_of
from ..registry.documents import Document
from .xds_headers import EXTERNAL, without_made_up
from .xds_limits import connection_limits, request_limits
from .xds_listeners import (
    INSPECTOR,
    by_rds,
    manager,
    outbound_filters,
    rbac_filters,
    route_configuration,
    tcp_proxy,
    trusted,
    virtual_host,
)
from .xds_node import ADS, JSON, Node, Notes, mesh_tls, socket_address, typed
from .xds_node import TLS as TLS_MESSAGES
from .xds_rbac import DIRECT, authorization_rules, network_rules
from .xds_routes import Routes
from .xds_tokens import Keys, token_filters

SDS_PREFIX = "kubernetes://"
VERSIONS = {"TLSV1_2": "TLSv1_2", "TLSV1_3": "TLSv1_3"}
REDIRECT = "httpsRedirect"
"""The label of the arm that a Gateway's `httpsRedirect` makes."""
Secrets = Mapping[Name, Secret]


def parsed(bodies: Iterable[Mapping[str, Any] | None]) -> dict[Name, Secret]:
    """Secrets as written, by name; those that cannot be read are left out."""
    found = resources_of([parse(Document.of(dict(body), "control")) for body in bodies if body is not None])
    return {(one.meta.namespace, one.meta.name): one for one in found.secrets}


class Gateway:
    """The resources of one gateway for one state of its tables."""

    def __init__(
        self, tables: Tables, resources: Resources, node: Node, note: Notes, keys: Keys, secrets: Secrets
    ) -> None:  # fmt: skip
        self._tables = tables
        self._ports: Ports = tables.gateway
        self._resources = resources
        self._rules = {rule.meta.key: rule for rule in resources.virtual_services}
        self._node = node
        self._note = note
        self._keys = keys
        self._secrets = secrets
        self.served: dict[str, JSON] = {}
        """Secrets by resource name, of the servers that `listeners` has."""

    # --- listeners

    def listeners(self) -> list[JSON]:
        found = []
        for gateway, name, why in self._ports.left_out:
            self._note(f"Gateway {gateway} {name}: {why}")
        for number, port in sorted(self._ports.ports.items()):
            chains = self._chains(number, port)
            if not chains:
                continue
            limits = connection_limits(self._tables, "gateway", number, self._note)
            for chain in chains if limits else ():
                chain["filters"] = [*limits, *chain["filters"]] if chain["filters"] else []
            for bind in port.binds:
                at = socket_address(bind or "0.0.0.0", self._node.moved.get(number, number))
                made: JSON = {
                    "name": f"gateway_{bind}_{number}", "address": at, "traffic_direction": "OUTBOUND",
                    "filter_chains": chains,
                }  # fmt: skip
                if port.kind == TLS:
                    made["listener_filters"] = [INSPECTOR]
                found.append(made)
        return found

    def _chains(self, number: int, port: Port) -> list[JSON]:
        if port.kind == HTTP:
            return [{"name": f"gateway_{number}", "filters": [self._http(port.servers[0])]}]
        if port.kind != TLS:
            return self._opaque(port.servers[0], None)
        chains: list[JSON] = []
        for server in port.servers:
            names = [host for host, owner in port.by_name.items() if owner is server]
            match: JSON = {"transport_protocol": "tls"}
            if "*" not in names:
                match["server_names"] = names
            if not server.terminates:
                chains += self._opaque(server, match)
                continue
            socket = self._socket(server)
            if socket is None:
                continue
            filters = [self._http(server)] if server.http else self._opaque(server, None)[0]["filters"]
            name = f"gateway_{number}_{server.name}_{server.gateway}"
            chains.append({"name": name, "filter_chain_match": match, "filters": filters, "transport_socket": socket})
        return chains

    def _http(self, server: Server) -> JSON:
        tables, inbound = self._tables, self._inbound(server)
        name = f"gateway_{server.table}"
        mutual = server.mode == "ISTIO_MUTUAL"
        admitted = network_rules(inbound, server.port, mutual)
        rules = [("network-policy", admitted)] if admitted is not None else []
        for one in authorization_rules(inbound, server.port, True, self._note, DIRECT, True):
            rules.append((f"authorization-policy-{one['action'].lower()}", one))
        tokens = token_filters(inbound.tokens, self._keys, self._note) if inbound.tokens is not None else []
        limits = request_limits(tables, self._resources, "gateway", server.port, self._note)
        return manager(
            tables, name, [*tokens, *rbac_filters(rules), *limits, *outbound_filters(tables, False)], rds=by_rds(name),
            forward_client_cert_details="SANITIZE",
            **({} if mutual else {"use_remote_address": True, "early_header_mutation_extensions": without_made_up()}),
        )  # fmt: skip

    def _inbound(self, server: Server) -> Inbound:
        inbound: Inbound = self._tables.inbound
        return inbound

    def _opaque(self, server: Server, match: JSON | None) -> list[JSON]:
        """Chains that pass octets on; connections that no rule routes are closed."""
        tables, inbound = self._tables, self._inbound(server)
        name = f"gateway_{server.port}"
        kind = "filters.network.rbac.v3.RBAC"
        admitted = network_rules(inbound, server.port, server.mode == "ISTIO_MUTUAL")
        rules = ([admitted] if admitted is not None else []) + authorization_rules(
            inbound, server.port, False, self._note, DIRECT, inbound.tokens is None
        )
        before = [
            {"name": f"fairlead.policy-{index}", "typed_config": typed(kind, rules=one, stat_prefix=name)}
            for index, one in enumerate(rules)
        ]
        l4: L4Host = server.l4  # type: ignore[assignment]
        chains: list[JSON] = []

        def chain(decision: Decision, found: JSON | None, which: str) -> None:
            if decision.verdict == "route":
                filters = [*before, tcp_proxy(tables.clusters, decision, name)]
                made: JSON = {"filters": filters}
                if found is not None:
                    made["filter_chain_match"] = found
                chains.append(made)
            elif which:
                self._note(
                    f"{which}: {decision.verdict} is not carried out at an Envoy gateway; connections are closed"
                )

        if match is not None:
            for sni, arm in l4.tls.items() if l4.tls is not None else ():
                if arm.subnets:
                    self._note(f"{arm.label}: destinationSubnets are not carried out at an Envoy gateway")
                    continue
                names = {"server_names": [sni]} if sni != "*" else {}
                chain(arm.decision, {"transport_protocol": "tls", **names}, arm.label)
            return chains
        decision = l4.default
        for arm in l4.tcp:
            if not arm.subnets and arm.source is None:
                decision = arm.decision
                break
            self._note(f"{arm.label}: destinationSubnets and sourceSubnet are not carried out at an Envoy gateway")
        chain(decision, None, "")
        return chains or [{"filters": []}]

    # --- certificates

    def _socket(self, server: Server) -> JSON | None:
        """The TLS of a server; None: its certificate cannot be had, and that was told."""
        tls = server.tls
        assert tls is not None
        alpn = ["h2", "http/1.1"] if server.http else []
        if server.mode == "ISTIO_MUTUAL":
            if not self._node.folder:
                self._note(f"Gateway {server.gateway} {server.name}: ISTIO_MUTUAL without a certificate takes nobody")
                return None
            return _downstream(mesh_tls(self._node, trusted(self._tables), alpn), True)
        try:
            common = self._material(server, tls)
        except CertificateError as error:
            self._note(f"Gateway {server.gateway} {server.name}: {error}; it takes nobody")
            return None
        params: JSON = {
            "tls_minimum_protocol_version": VERSIONS.get(tls.min_protocol_version, "TLSv1_2"),
            "tls_maximum_protocol_version": VERSIONS.get(tls.max_protocol_version, "TLSv1_3"),
        }
        if tls.cipher_suites:
            params["cipher_suites"] = list(tls.cipher_suites)
        common["tls_params"] = params
        if alpn:
            common["alpn_protocols"] = alpn
        return _downstream(common, server.mode == "MUTUAL")

    def _material(self, server: Server, tls: ServerTLS) -> JSON:
        names = names_of(tls)
        generated = server.gateway.endswith(".ingress")
        if not names:
            return self._files(server, tls)
        found = [self._secret(name, generated) for name in names]
        common: JSON = {"tls_certificate_sds_secret_configs": []}
        for (place, data), written in zip(found, names, strict=True):
            chain, key = pair_of(data, written)
            secret = {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
            common["tls_certificate_sds_secret_configs"].append(self._by_sds(place, "", {"tls_certificate": secret}))
        if server.mode not in MUTUAL:
            return common
        place, data = found[0]
        where = tls.ca_cert_credential_name
        if where or not authorities_of(data):
            place, data = self._secret(where or f"{names[0]}{AUTHORITIES}")
        if not authorities_of(data):
            raise CertificateError(f"Secret {place[0]}/{place[1]} has no ca.crt")
        context: JSON = {"trusted_ca": {"inline_string": authorities_of(data)}}
        revoked = revoked_of(data)
        if revoked is not None:
            context["crl"] = {"inline_string": revoked}
        common["combined_validation_context"] = {
            "default_validation_context": {"match_typed_subject_alt_names": _names(tls.subject_alt_names)},
            "validation_context_sds_secret_config": self._by_sds(place, "-ca", {"validation_context": context}),
        }
        return common

    def _files(self, server: Server, tls: ServerTLS) -> JSON:
        """Files of Envoy's host."""
        files: Sequence[Any] = tls.tls_certificates or [tls]
        common: JSON = {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": one.server_certificate},
                    "private_key": {"filename": one.private_key},
                }
                for one in files
            ]
        }
        if server.mode in MUTUAL:
            ca = tls.ca_certificates or next((one.ca_certificates for one in files if one.ca_certificates), "")
            if not ca:
                raise CertificateError("there are no authorities of clients (caCertificates)")
            common["validation_context"] = {
                "trusted_ca": {"filename": ca},
                "match_typed_subject_alt_names": _names(tls.subject_alt_names),
                **({"crl": {"filename": tls.ca_crl}} if tls.ca_crl else {}),
            }
        return common

    def _secret(self, written: str, generated: bool = False) -> tuple[Name, dict[str, str]]:
        own = self._node.namespace
        place = place_of(written, own, generated)
        if place is None:
            raise CertificateError(f"{written} is not carried out: name a Secret of the gateway's namespace")
        secret = self._secrets.get(place)
        if secret is None:
            raise CertificateError(f"there is no Secret {place[0]}/{place[1]} for it")
        return place, read_secret(secret)

    def _by_sds(self, place: Name, suffix: str, content: JSON) -> JSON:
        name = f"{SDS_PREFIX}{place[0]}/{place[1]}{suffix}"
        self.served[name] = {"name": name, **content}
        return {"name": name, "sds_config": ADS}

    # --- routes

    def routes(self) -> list[JSON]:
        table: HttpTable = self._tables.http
        made = Routes(self._tables.clusters, self._node, self._note, False)
        found = []
        for key in dict.fromkeys(server.table for server in self._ports.servers if server.http):
            hosts: list[JSON] = []
            for host, virtual in table.ports[key].items() if key in table.ports else ():
                routes: list[JSON] = []
                for arm in virtual.arms:
                    routes += (
                        [_redirect()]
                        if arm.label == REDIRECT
                        else made.of(
                            [arm], self._rules.get(arm.decision.virtual_service or "", virtual.rule), key & 0xFFFF
                        )
                    )
                domains = [f"[{host}]" if ":" in host else host]
                hosts.append(virtual_host(f"{host}#{len(hosts)}", domains, routes))
            one = route_configuration(f"gateway_{key}", hosts)
            found.append({**one, "ignore_port_in_host_matching": True, "request_headers_to_remove": [EXTERNAL]})
        return found


def _redirect() -> JSON:
    return {"match": {"prefix": "/"}, "redirect": {"https_redirect": True, "response_code": "MOVED_PERMANENTLY"}}


def _downstream(common: JSON, require: bool) -> JSON:
    config = {
        "@type": TLS_MESSAGES + "DownstreamTlsContext", "common_tls_context": common,
        "require_client_certificate": require,
    }  # fmt: skip
    return {"name": "tls", "typed_config": config}


def _names(wanted: Sequence[str]) -> list[JSON]:
    """Names of any kind, as one list of texts has them."""
    return [
        {"san_type": kind, "matcher": {"exact": one}}
        for one in wanted
        for kind in ("URI", "DNS", "EMAIL", "IP_ADDRESS")
    ]
