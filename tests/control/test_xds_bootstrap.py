"""The files that Envoy and gRPC begin with."""

from __future__ import annotations

from fairlead.control import xds_bootstrap
from fairlead.control.xds_node import GRPC, Node, read_node

TOLD = {"FOLDER": "/run/x", "ADDRESS": "", "PORTS": ["80"], "LABELS": {}}
CONTROL = "spiffe://cluster.local/ns/fairlead-system/sa/control"


def test_envoy_asks_control_by_mutual_tls_and_knows_it_by_its_identity() -> None:
    node = Node("shop", "web-1", folder="/run/x")
    made = xds_bootstrap.envoy(node, TOLD, [("a", 1), ("b", 2)], CONTROL, ("127.0.0.1", 15000), True)
    assert made["node"]["metadata"] == {"FAIRLEAD": {"FOLDER": "/run/x", "PORTS": ["80"]}}
    assert read_node(made["node"]).key == "shop/web-1"
    assert made["dynamic_resources"]["ads_config"]["api_type"] == "DELTA_GRPC"
    [cluster] = made["static_resources"]["clusters"]
    assert len(cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]) == 2
    context = cluster["transport_socket"]["typed_config"]["common_tls_context"]["combined_validation_context"]
    assert context["default_validation_context"]["match_typed_subject_alt_names"][0]["matcher"] == {"exact": CONTROL}


def test_without_a_certificate_there_is_no_tls() -> None:
    node = Node("shop", "web-1")
    made = xds_bootstrap.envoy(node, {}, [("a", 1)], "", None, False)
    assert "transport_socket" not in made["static_resources"]["clusters"][0]
    assert "admin" not in made
    assert made["dynamic_resources"]["ads_config"]["api_type"] == "GRPC"
    grpc = xds_bootstrap.grpc(Node("shop", "web-1", GRPC), {}, [("::1", 1)], False)
    assert grpc["xds_servers"][0]["server_uri"] == "[::1]:1"
    assert grpc["xds_servers"][0]["channel_creds"] == [{"type": "insecure"}]
    assert "certificate_providers" not in grpc


def test_grpc_gets_its_certificate_from_files_that_it_watches() -> None:
    made = xds_bootstrap.grpc(Node("shop", "web-1", GRPC, folder="/run/x"), TOLD, [("a", 1)], True)
    config = made["certificate_providers"]["default"]["config"]
    assert config["private_key_file"] == "/run/x/key.pem"
    assert made["server_listener_resource_name_template"] == "fairlead/inbound/%s"


def test_secrets_are_one_file_each_so_that_key_and_certificate_always_fit() -> None:
    made = xds_bootstrap.secrets("CHAIN", "KEY", "ROOTS", "7")
    [own] = made["sds-certificate.json"]["resources"]
    assert own["tls_certificate"]["private_key"] == {"inline_string": "KEY"}
    [roots] = made["sds-roots.json"]["resources"]
    assert (roots["name"], roots["validation_context"]["trusted_ca"]) == ("ROOTCA", {"inline_string": "ROOTS"})
