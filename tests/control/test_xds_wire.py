"""Messages as protobuf itself writes them, back and forth; a stranger's octets are read or refused, nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.protobuf_wire import WireError
from fairlead.control.xds_wire import decode, encode, encode_any

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
CLUSTER: dict[str, Any] = {
    "name": "a",
    "type": "EDS",
    "connect_timeout": "1.5s",
    "lb_policy": "RING_HASH",
    "circuit_breakers": {
        "thresholds": [{"max_connections": 4294967295, "retry_budget": {"budget_percent": {"value": 12.5}}}]
    },
    "typed_extension_protocol_options": {
        OPTIONS: {
            "@type": f"type.googleapis.com/{OPTIONS}",
            "common_http_protocol_options": {"idle_timeout": "3600s"},
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    },
    "transport_socket_matches": [
        {"name": "x", "match": {"tls": "a|b", "n": 1.0, "t": True, "l": ["x"], "o": {"k": None}}}
    ],
}
ROUTES: dict[str, Any] = {
    "name": "r",
    "virtual_hosts": [
        {
            "name": "v",
            "domains": ["*"],
            "routes": [
                {
                    "match": {"prefix": "", "headers": [{"name": "h", "present_match": False}]},
                    "redirect": {"port_redirect": 81, "response_code": "FOUND"},
                    "typed_per_filter_config": {
                        "f": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
                            "abort": {"grpc_status": 0, "percentage": {"numerator": 5, "denominator": "MILLION"}},
                        }
                    },
                }
            ],
        }
    ],
    "validate_clusters": False,
}
# What google.protobuf 7.36 with Envoy's own definitions (xds-protos 1.85) makes of these.
OCTETS = [
    ("config.cluster.v3.Cluster", CLUSTER,
     "0a01611003220808011080cab5ee01300252170a15120608ffffffff0f420b0a09090000000000002940a20293010a36656e766f792e657874656e"
     "73696f6e732e757073747265616d732e687474702e76332e4874747050726f746f636f6c4f7074696f6e7312590a4a747970652e676f6f676c6561"
     "7069732e636f6d2f656e766f792e657874656e73696f6e732e757073747265616d732e687474702e76332e4874747050726f746f636f6c4f707469"
     "6f6e73120b0a050a0308901c1a021200da024c0a017812470a0c0a016c120732050a031a01780a0e0a016e120911000000000000f03f0a100a016f"
     "120b2a090a070a016b120208000a0c0a03746c7312051a03617c620a070a017412022001"),
    ("config.route.v3.RouteConfiguration", ROUTES,
     "0a017212720a017612012a1a6a0a090a0032050a016838001a04180140516a570a016612520a44747970652e676f6f676c65617069732e636f6d2f"
     "656e766f792e657874656e73696f6e732e66696c746572732e687474702e6661756c742e76332e485454504661756c74120a12081a040805100228"
     "003a00"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "message", "octets"), OCTETS)
def test_what_protobuf_writes_is_read_and_what_we_write_reads_the_same(name: str, message: Any, octets: str) -> None:
    assert decode(name, bytes.fromhex(octets)) == message
    assert decode(name, encode(name, message)) == message


def test_a_field_that_no_message_has_is_named() -> None:
    with pytest.raises(WireError, match=r"config.cluster.v3.Cluster has no field nmae"):
        encode("config.cluster.v3.Cluster", {"nmae": "x"})
    with pytest.raises(WireError, match=r"has no value EDSS"):
        encode("config.cluster.v3.Cluster", {"type": "EDSS"})
    with pytest.raises(WireError, match=r"not in the table"):
        encode_any({"@type": "type.googleapis.com/envoy.Nothing"})


def test_a_request_is_read_with_its_node_and_its_refusal() -> None:
    request = {
        "node": {"id": "default/web-1", "metadata": {"FAIRLEAD": {"PORTS": [8080.0], "LABELS": {"a": "b"}}}},
        "type_url": "t",
        "resource_names_subscribe": ["a", "b"],
        "initial_resource_versions": {"a": "1", "b": ""},
        "error_detail": {"code": 13, "message": "no"},
    }
    name = "service.discovery.v3.DeltaDiscoveryRequest"
    assert decode(name, encode(name, request)) == request


@given(st.binary(max_size=200))
def test_a_strangers_octets_are_read_or_refused(octets: bytes) -> None:
    for name in ("service.discovery.v3.DiscoveryRequest", "service.discovery.v3.DeltaDiscoveryRequest"):
        try:
            assert isinstance(decode(name, octets), dict)
        except WireError:
            pass


@given(st.data())
def test_a_request_cut_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    name = "service.discovery.v3.DiscoveryRequest"
    whole = encode(name, {"node": {"id": "a/b", "metadata": {"x": [1, {"y": None}]}}, "resource_names": ["c"] * 3})
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        decode(name, cut)
    except WireError:
        pass


def test_values_too_deep_are_refused() -> None:
    value: Any = "x"
    for _ in range(200):
        value = {"a": value}
    octets = encode("config.core.v3.Node", {"metadata": value})
    with pytest.raises(WireError, match="too deep"):
        decode("config.core.v3.Node", octets)
