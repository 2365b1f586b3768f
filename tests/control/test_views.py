"""What each reader of the feed is to have, as a conversation: rules and workloads come and go, readers ask."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fairlead.control.push import ALL, SECRETS
from fairlead.control.scopes import EVERY, LARGE
from fairlead.control.views import BASE_TABLES, SCHEMAS_MOST, TABLES, Understood, Views
from fairlead.policy.known_fields import schema_id
from fairlead.registry.model import Endpoint, Workload
from fairlead.registry.snapshot import Snapshot

GATEWAY = {
    "metadata": {"name": "edge", "namespace": "infra"},
    "spec": {
        "selector": {"app": "edge"},
        "servers": [
            {
                "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
                "tls": {"mode": "SIMPLE", "credentialName": "cert"},
                "hosts": ["*"],
            }
        ],
    },
}


class Reader:
    def __init__(self, role: str = "sidecar", name: str = "web-1", **more: Any) -> None:
        self.role, self.namespace, self.workload = role, "infra", name
        self.proved = ""
        self.labels: dict[str, str] = {"app": "edge"}
        self.address, self.endpoints, self.scoped, self.schema = "10.0.0.1", "auto", False, ""
        self.tables = TABLES
        self.uses: frozenset[str] = frozenset()
        vars(self).update(more)


class Mesh:
    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.proved: set[str] = set()
        self.views = Views(lambda: self.snapshot, lambda key: key in self.proved)

    def gateway(self, there: bool = True) -> None:
        key = "object/gateways.networking.istio.io/infra/edge"
        body = {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", **GATEWAY}
        self.views.objects({key: body if there else None})


def test_a_dns_server_gets_everything_but_secrets() -> None:
    mesh = Mesh()
    mesh.gateway()
    view = mesh.views.of("d", Reader("dns", ""))
    assert view.plain
    assert not view.has(f"{SECRETS}infra/cert")


def test_a_gateway_gets_the_secrets_that_its_rules_name_and_loses_them_with_these() -> None:
    mesh = Mesh()
    assert not mesh.views.of("g", Reader("gateway")).secrets
    mesh.gateway()
    view = mesh.views.of("g", Reader("gateway"))
    assert view.secrets == {f"{SECRETS}infra/cert"}
    assert not mesh.views.of("s", Reader("sidecar")).secrets, "labels alone make no gateway of a sidecar"
    assert not mesh.views.of("o", Reader("gateway", labels={"app": "other"})).secrets
    mesh.gateway(False)
    assert not mesh.views.of("g", Reader("gateway")).secrets


def test_the_registrys_word_on_a_workload_counts_before_its_own() -> None:
    mesh = Mesh()
    mesh.gateway()
    told = Workload("infra", "web-1", ("10.0.0.1",), labels={"app": "other"}, source="manifests")
    mesh.snapshot = Snapshot(workloads={"infra/web-1": told})
    assert not mesh.views.of("g", Reader("gateway")).secrets


def test_a_view_is_the_same_object_until_something_of_it_changes_or_it_is_forgotten() -> None:
    mesh = Mesh()
    first = mesh.views.of("s", Reader())
    assert mesh.views.of("s", Reader()) is first
    mesh.gateway()
    assert mesh.views.of("s", Reader()) is first, "a Gateway is no matter of a sidecar's view"
    mesh.views.forget("s")
    again = mesh.views.of("s", Reader())
    assert again is not first
    assert again == first


def test_who_asks_for_all_gets_all_and_is_never_scoped() -> None:
    mesh = Mesh()
    reader = Reader(endpoints=EVERY)
    mesh.views.begin(reader)
    assert mesh.views.of("s", reader).scope is ALL
    used = Reader(endpoints="used")
    mesh.views.begin(used)
    assert used.scoped
    assert mesh.views.of("u", used).scope is not ALL
    gateway = Reader("gateway", endpoints="used")
    mesh.views.begin(gateway)
    assert not gateway.scoped
    assert not mesh.views.outgrown(gateway)


def test_items_that_an_older_version_does_not_know_are_not_for_it() -> None:
    mesh = Mesh()
    view = mesh.views.of("s", Reader(tables=frozenset({"object", "service"})))
    assert (view.has("service/a"), view.has("workload/a/b")) == (True, False)
    assert mesh.views.of("n", Reader(tables=TABLES | {"newer"})).tables is None
    assert BASE_TABLES < TABLES


def test_a_version_is_understood_once_it_has_said_what_it_knows_and_only_so_many_are_kept() -> None:
    views = Mesh().views
    assert views.knows_schema("")
    assert views.knows_schema(schema_id())
    assert not views.knows_schema("old")
    views.learn_schema("old", {})
    assert views.knows_schema("old")
    view = views.of("s", Reader(schema="old"))
    assert view.understands is not None
    for number in range(SCHEMAS_MOST):
        views.learn_schema(f"s{number}", {})
    assert not views.knows_schema(f"s{SCHEMAS_MOST - 1}"), "a stranger cannot fill the memory with names"
    assert views.of("s", Reader(schema="old")).understands is view.understands


def test_what_a_version_lacks_of_an_object_is_found_out_anew_when_the_object_changes() -> None:
    understood = Understood({})
    key = "object/virtualservices.networking.istio.io/d/a"
    told = msgspec.json.encode({"spec": {"hosts": ["a"]}})
    assert understood.why_not(key, 1, told)
    assert understood.why_not(key, 1, b"not looked at") == understood.why_not(key, 1, told)
    assert understood.why_not(key, 2, b"null") == ""


@pytest.mark.parametrize("endpoints", [LARGE, LARGE + 1, 2 * LARGE, 2 * LARGE + 1])
def test_a_large_mesh_is_told_by_need_and_who_has_all_is_told_otherwise_only_at_twice_as_much(endpoints: int) -> None:
    mesh = Mesh()
    mesh.views.scopes.facts(Snapshot(1, endpoints={"a": (Endpoint("10.0.0.1", 80),) * endpoints}))
    reader = Reader()
    assert mesh.views.outgrown(reader) is (endpoints > 2 * LARGE)
    mesh.views.begin(reader)
    assert reader.scoped is (endpoints > LARGE)
    assert not (reader.scoped and mesh.views.outgrown(reader))


def test_a_reader_that_proved_another_account_than_its_workloads_is_a_stranger() -> None:
    holders: dict[str, str] = {}
    views = Views(Snapshot, lambda _: True, holders.get)
    assert not views.stranger(Reader(proved="batch")), "it is nobody's yet"
    holders["infra/web-1"] = "edge"
    assert views.stranger(Reader(proved="batch"))
    assert not views.stranger(Reader(proved="edge"))
    assert not views.stranger(Reader()), "an administrator, or development"
