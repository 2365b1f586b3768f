"""Several sources into one snapshot: precedence, selectors, what stays the same object."""

from __future__ import annotations

from msgspec.structs import replace

from fairlead.registry.merge import LEFT, merge, usable
from fairlead.registry.model import Endpoint, Facts, Service, ServicePort, Workload, WorkloadPort
from fairlead.registry.snapshot import Snapshot

HOST = "web.default.svc.cluster.local"
WEB = Service(HOST, "default", "web", (ServicePort(80, "http", target="http"),), selector={"app": "web"})
POD = Workload(
    "default", "web-1", ("10.0.0.1",), (WorkloadPort(8080, "http"),), {"app": "web", "v": "1"}, service_account="web",
    mesh_port=15006,
)  # fmt: skip


def merged(*contributions: tuple[str, Facts], previous: Snapshot | None = None) -> Snapshot:
    return merge(contributions, {}, previous or Snapshot())


def workloads(*found: Workload) -> dict[str, Workload]:
    return {workload.key: workload for workload in found}


def test_a_selector_makes_endpoints_of_the_workloads_of_every_source() -> None:
    snapshot = merged(("a", Facts(services={HOST: WEB})), ("b", Facts(workloads=workloads(POD))))
    (found,) = snapshot.endpoints[HOST]
    assert (found.address, found.port, found.port_name) == ("10.0.0.1", 8080, "http")
    assert (found.workload, found.service_account, found.mesh_port) == ("default/web-1", "web", 15006)
    assert found.labels == POD.labels


def test_only_workloads_of_the_namespace_with_all_labels_are_chosen() -> None:
    others = workloads(
        replace(POD, name="other-namespace", namespace="shop"),
        replace(POD, name="other-label", labels={"app": "db"}),
        replace(POD, name="no-label", labels={}),
    )
    assert merged(("a", Facts(services={HOST: WEB}, workloads=others))).endpoints[HOST] == ()


def test_a_workload_without_the_named_port_is_no_endpoint() -> None:
    without = replace(POD, ports=(WorkloadPort(8080, "admin"), WorkloadPort(53, "http", "UDP")))
    assert merged(("a", Facts(services={HOST: WEB}, workloads=workloads(without)))).endpoints[HOST] == ()


def test_the_first_source_that_has_a_service_defines_it_and_endpoints_are_united() -> None:
    first = Facts(services={HOST: replace(WEB, selector=None)}, endpoints={HOST: (Endpoint("10.0.0.1", 80, weight=5),)})
    second = Facts(
        services={HOST: replace(WEB, selector=None, ports=())},
        endpoints={HOST: (Endpoint("10.0.0.1", 80, weight=1), Endpoint("10.0.0.2", 80))},
    )
    snapshot = merged(("a", first), ("b", second))
    assert snapshot.services[HOST].ports == WEB.ports
    assert [(e.address, e.weight) for e in snapshot.endpoints[HOST]] == [("10.0.0.1", 5), ("10.0.0.2", 1)]


def test_a_listed_endpoint_is_completed_from_the_workload_that_it_names() -> None:
    listed = Facts(
        services={HOST: replace(WEB, selector=None)},
        endpoints={HOST: (Endpoint("10.0.0.1", 8080, workload="default/web-1"),)},
        workloads=workloads(POD),
    )
    (found,) = merged(("a", listed)).endpoints[HOST]
    assert (found.labels, found.service_account, found.mesh_port) == (POD.labels, "web", 15006)


def test_readiness_is_the_workloads_unless_the_service_publishes_all() -> None:
    sick = workloads(replace(POD, ready=False, why="sick"))
    (found,) = merged(("a", Facts(services={HOST: WEB}, workloads=sick))).endpoints[HOST]
    assert (found.ready, found.why) == (False, "sick")
    every = replace(WEB, publish_not_ready=True)
    assert merged(("a", Facts(services={HOST: every}, workloads=sick))).endpoints[HOST][0].ready


def test_a_workload_that_leaves_is_ready_for_no_source_and_no_service_and_the_others_stay() -> None:
    other = replace(POD, name="web-2", addresses=("10.0.0.2",))
    chosen = Facts(services={HOST: WEB}, workloads=workloads(POD, other))
    listed = Facts(
        services={"db.default": Service("db.default", "default", "db")},
        endpoints={"db.default": (Endpoint("10.0.0.1", 5432, workload=POD.key), Endpoint("10.0.0.9", 5432))},
    )
    snapshot = merge([("a", chosen), ("b", listed)], {}, Snapshot(), frozenset((POD.key, "default/unknown")))
    found = {e.address: (e.ready, e.terminating, e.why) for e in snapshot.endpoints[HOST]}
    assert found == {"10.0.0.1": (False, True, LEFT), "10.0.0.2": (True, False, "")}
    assert [(e.address, e.ready, e.why) for e in snapshot.endpoints["db.default"]] == [
        ("10.0.0.1", False, LEFT), ("10.0.0.9", True, ""),
    ]  # fmt: skip
    assert snapshot.workloads[POD.key].terminating
    assert not snapshot.workloads["default/web-2"].terminating


def test_a_workload_that_leaves_is_not_used_for_want_of_others_but_stays_where_all_are_published() -> None:
    """It may have ended, or not listen yet: not what an EndpointSlice calls terminating and serving."""
    listed: tuple[Endpoint, ...] = (Endpoint("10.0.0.1", 8080, "http", workload=POD.key),)
    for service, facts in (
        (WEB, Facts(services={HOST: WEB}, workloads=workloads(POD))),
        (WEB, Facts(services={HOST: replace(WEB, selector=None)}, endpoints={HOST: listed}, workloads=workloads(POD))),
    ):
        for publish in (False, True):
            named = replace(service, publish_not_ready=publish, selector=facts.services[HOST].selector)
            snapshot = merge([("a", replace(facts, services={HOST: named}))], {}, Snapshot(), frozenset((POD.key,)))
            (endpoint,) = snapshot.endpoints[HOST]
            assert (endpoint.serving, endpoint.terminating, endpoint.ready) == (False, True, publish)
            assert bool(usable(named, snapshot.endpoints[HOST])) is publish


def test_what_did_not_change_is_the_same_object() -> None:
    facts = Facts(services={HOST: WEB}, workloads=workloads(POD))
    before = merged(("a", facts))
    again = Facts(services={HOST: replace(WEB)}, workloads=workloads(replace(POD)))
    after = merged(("a", again), previous=before)
    assert after.version == before.version + 1
    assert after.services[HOST] is before.services[HOST]
    assert after.endpoints[HOST] is before.endpoints[HOST]
    assert after.workloads[POD.key] is before.workloads[POD.key]


def test_every_namespace_that_is_used_has_its_name_as_a_label() -> None:
    snapshot = merged(("a", Facts(workloads=workloads(POD), namespaces={"shop": {"team": "x"}})))
    assert snapshot.namespaces["default"] == {"kubernetes.io/metadata.name": "default"}
    assert snapshot.namespaces["shop"] == {"team": "x", "kubernetes.io/metadata.name": "shop"}


def test_what_lists_an_endpoint_does_not_make_it_ready_where_its_own_checks_fail() -> None:
    listed = Facts(services={HOST: replace(WEB, selector=None)},
                   endpoints={HOST: (Endpoint("10.0.0.1", 8080, "http", workload="default/web-1"),)})  # fmt: skip
    sick = replace(POD, ready=False, why="500", unhealthy="500")
    (found,) = merged(("a", listed), ("b", Facts(workloads=workloads(sick)))).endpoints[HOST]
    assert (found.ready, found.serving, found.why) == (False, False, "500")
    published = replace(listed, services={HOST: replace(WEB, selector=None, publish_not_ready=True)})
    (found,) = merged(("a", published), ("b", Facts(workloads=workloads(sick)))).endpoints[HOST]
    assert (found.ready, found.serving, found.why) == (True, False, "500")


def test_who_only_says_that_it_has_a_listed_name_cannot_make_that_endpoint_leave() -> None:
    """What an EndpointSlice lists is not to end by the word of whoever takes the name that stands there."""
    listed = Endpoint("10.0.0.1", 8080, "http", workload="default/web-1")
    facts = Facts(services={HOST: replace(WEB, selector=None)}, endpoints={HOST: (listed,)})
    for unnamed in (True, False):
        said = Facts(workloads=workloads(replace(POD, unnamed=unnamed, addresses=())))
        snapshot = merge((("a", facts), ("sidecars", said)), {}, Snapshot(), frozenset((POD.key,)))
        (found,) = snapshot.endpoints[HOST]
        assert (found.ready, found.terminating) == (unnamed, not unnamed)
