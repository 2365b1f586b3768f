"""What must hold of a NetworkPolicy beyond its schema, with the messages of the Kubernetes API server.

Source: Kubernetes' pkg/apis/networking/validation.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any

from ..registry.schema import Findings
from .validate_names import port_name_faults
from .validate_values import (
    check_label_selector,
    check_port,
    forbidden,
    invalid,
    listed,
    mapping,
    not_supported,
    required,
    warn,
)

Object = Mapping[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_network_policy(found: Findings, spec: Object) -> None:
    check_label_selector(found, "spec.podSelector", mapping(spec, "podSelector"))
    types = listed(spec, "policyTypes")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(listed(spec, direction)):
            path = f"spec.{direction}[{index}]"
            for number, port in enumerate(listed(rule, "ports")):
                _check_port(found, f"{path}.ports[{number}]", port)
            for number, peer in enumerate(listed(rule, peers)):
                _check_peer(found, f"{path}.{peers}[{number}]", peer)
        if types and listed(spec, direction) and direction.title() not in types:
            warn(found, f"spec.{direction}", f"has no effect: policyTypes does not list {direction.title()}")
    if len(types) > 2:
        found.errors.append(
            ("spec.policyTypes", f"Invalid value: {json.dumps(types)}: may not specify more than two policyTypes")
        )
    if not types and listed(spec, "egress") and not listed(spec, "ingress"):
        warn(
            found,
            "spec.policyTypes",
            "is not given, so that Ingress is among them and all ingress is denied; write policyTypes: [Egress]",
        )


def _check_peer(found: Findings, path: str, peer: Object) -> None:
    selectors = [key for key in ("podSelector", "namespaceSelector") if peer.get(key) is not None]
    block = peer.get("ipBlock")
    if not selectors and block is None:
        required(found, path, "must specify a peer")
    if selectors and block is not None:
        forbidden(found, path, "may not specify both ipBlock and another peer")
    for key in selectors:
        check_label_selector(found, f"{path}.{key}", peer[key])
    if block is not None:
        _check_block(found, f"{path}.ipBlock", block)


def _check_block(found: Findings, path: str, block: Object) -> None:
    network = _network(found, f"{path}.cidr", block.get("cidr", ""))
    for index, text in enumerate(listed(block, "except")):
        at = f"{path}.except[{index}]"
        inner = _network(found, at, text)
        if network is None or inner is None:
            continue
        inside = inner.version == network.version and inner.network_address in network
        if not inside or inner.prefixlen <= network.prefixlen:
            invalid(found, at, text, "must be a strict subset of `cidr`")


def _network(found: Findings, path: str, text: str) -> Network | None:
    """The block, or None with the reason noted. What could mean two things is refused, as Kubernetes does with
    StrictIPCIDRValidation; only bits beyond the prefix are taken, and warned of, as it does without: they are in many
    manifests, and nobody reads them otherwise."""
    if not text:
        return None  # the schema said that it is required
    address, slash, length = text.partition("/")
    try:
        if not slash or not length.isascii() or not length.isdigit():
            raise ValueError
        network = ipaddress.ip_network(text, strict=False)
        own = ipaddress.ip_address(address)
    except ValueError:
        zeros = re.fullmatch(r"\d+(\.\d+){3}/\d+", text) and any(part[0] == "0" != part for part in address.split("."))
        rule = (
            "must not have leading 0s" if zeros else "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
        )
        invalid(found, path, text, rule)
        return None
    if isinstance(own, ipaddress.IPv6Address) and own.ipv4_mapped is not None:
        invalid(found, path, text, "must not have an IPv4-mapped IPv6 address")
        return None
    if own != network.network_address:
        alone = f"{own}/{own.max_prefixlen}"
        meant = f'CIDR value "{text}" is ambiguous in this context (should be "{network}" or "{alone}"?)'
        warn(found, path, f"{meant}; it is taken as {network}")
    return network


def _check_port(found: Findings, path: str, port: Object) -> None:
    value, end = port.get("port"), port.get("endPort")
    if port.get("protocol") == "":
        not_supported(found, f"{path}.protocol", "", ("TCP", "UDP", "SCTP"))
    if isinstance(value, str):
        for fault in port_name_faults(value):
            invalid(found, f"{path}.port", value, fault)
    elif value is not None:
        check_port(found, f"{path}.port", value)
    if end is None:
        return
    if value is None:
        invalid(found, f"{path}.endPort", end, "may not be specified when `port` is not specified")
    elif isinstance(value, str):
        invalid(found, f"{path}.endPort", end, "may not be specified when `port` is non-numeric")
    elif end < value:
        invalid(found, f"{path}.endPort", end, "must be greater than or equal to `port`")
