"""What a name means: as the DNS server would answer it, form by form along the search path."""

from __future__ import annotations

from fairlead.dns.message import A, wire_name
from fairlead.dns.records import ZoneOptions
from fairlead.dns.zone import Zone
from fairlead.mesh.explain_names import Names
from fairlead.registry.model import Endpoint, Service, ServicePort
from fairlead.registry.snapshot import Snapshot

DOMAIN = "cluster.local"
WEB, DB, OLD = (f"{name}.shop.svc.{DOMAIN}" for name in ("web", "db", "old"))
SNAPSHOT = Snapshot(
    1,
    {
        WEB: Service(WEB, "shop", "web", (ServicePort(80),), ("10.0.0.7", "fd00::7")),
        DB: Service(DB, "shop", "db", (ServicePort(5432),), headless=True),
        OLD: Service(OLD, "shop", "old", external_name="elsewhere.example"),
    },
    {WEB: (), DB: (Endpoint("10.0.0.9", 5432, ready=False),)},
    {},
    {"shop": {}},
)
NAMES = Names(SNAPSHOT, DOMAIN)


def asked(name: str, namespace: str = "shop") -> list[tuple[str, str]]:
    return [(one["name"], one["result"]) for one in NAMES.resolve(name, namespace)["questions"]]


def test_a_short_name_is_found_along_the_search_path_of_its_namespace() -> None:
    told = NAMES.resolve("web", "shop")
    assert (told["answer"], told["addresses"]) == (WEB, ["10.0.0.7", "fd00::7"])
    assert asked("web") == [
        ("web", "not a name of the mesh: the upstream resolver is asked"),
        (WEB, "10.0.0.7, fd00::7"),
    ]
    elsewhere = NAMES.resolve("web", "default")
    assert elsewhere["answer"] is None and len(elsewhere["questions"]) == 4
    assert [one["name"] for one in NAMES.resolve("web.shop", "default")["questions"]] == [
        "web.shop", f"web.shop.default.svc.{DOMAIN}", WEB,
    ]  # fmt: skip


def test_a_name_with_a_dot_at_its_end_is_asked_for_once() -> None:
    assert asked("web.shop.") == [("web.shop", "not a name of the mesh: the upstream resolver is asked")]
    assert asked(f"{WEB}.") == [(WEB, "10.0.0.7, fd00::7")]


def test_names_without_address_aliases_and_strangers_say_what_they_are() -> None:
    assert asked(DB)[0][1] == "NXDOMAIN: the service is there, and no endpoint of it is ready to be named"
    assert asked(OLD)[0][1] == "alias of elsewhere.example, for which the upstream resolver is asked"
    assert asked(f"gone.shop.svc.{DOMAIN}.")[0][1] == "NXDOMAIN: there is no such name in the mesh"
    assert asked("a" * 64)[0][1].startswith("not a DNS name: ")


def test_it_is_the_answer_that_the_zone_gives() -> None:
    zone = Zone(ZoneOptions(cluster_domain=DOMAIN))
    zone.update(SNAPSHOT)
    found = zone.lookup(wire_name(WEB), A, True)
    assert found is not None and [bytes(one) for one in found.answer[0].rdata] == [bytes((10, 0, 0, 7))]


def test_loopback_addresses_are_for_services_with_ports_and_a_name_of_their_own() -> None:
    assert NAMES.loopback(WEB).startswith("127.")
    assert NAMES.loopback(DB) == NAMES.loopback(OLD) == ""
