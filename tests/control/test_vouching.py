"""Who vouches for a workload: what declares it, its groups, its token; and who need not be vouched for."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.control import grants
from fairlead.control.claims import Claim
from fairlead.control.feed_server import Member
from fairlead.control.vouching import Vouching
from fairlead.registry.model import Workload
from fairlead.registry.snapshot import Snapshot
from tests.control.serving import store_in
from tests.control.test_grants import KEY, made

pytestmark = pytest.mark.asyncio
GROUP = {
    "metadata": {"namespace": "shop", "name": "web"},
    "spec": {"template": {"serviceAccount": "web", "labels": {"app": "web"}, "ports": {"http": 80}, "weight": 2}},
}


def member(labels: dict[str, str], peer: str = "10.0.0.7") -> Member:
    one = Member("sidecar", "shop", "web-1", "10.0.0.7", 15006, "", labels, [80, 81], 0.0)
    one.claimed = Claim(labels, one.address, "", peer)
    return one


async def test_who_has_shown_no_credentials_of_a_workload_is_believed(tmp_path: Path) -> None:
    """Control lets such in only where it is open (loopback without credentials), or administrators."""
    async with store_in(tmp_path) as store:
        vouching = Vouching(store.memory, Snapshot, lambda _: False, lambda: 0.0)
        one = member({"app": "web"}, "10.0.0.9")
        judged, new = vouching.vouch(one)
        assert (one.labels, one.address, new) == ({"app": "web"}, "10.0.0.7", [])
        assert vouching.known(one, judged).named
        vouching.prove("shop/web-1", "web")
        judged, new = vouching.vouch(one)
        assert (one.labels, one.address, len(new), len(one.not_believed)) == ({}, "", 2, 2)
        assert vouching.vouch(one)[1] == []  # it is said once
        assert not vouching.known(one, judged).named


async def test_what_is_declared_counts_whatever_its_sidecar_says(tmp_path: Path) -> None:
    facts = {"shop/web-1": Workload("shop", "web-1", source="control", service_account="web")}
    async with store_in(tmp_path) as store:
        vouching = Vouching(store.memory, lambda: Snapshot(workloads=facts), lambda _: False, lambda: 0.0)
        vouching.prove("shop/web-1", "web")
        assert vouching.vouch(member({"app": "payments"}))[1] == []
        facts["shop/web-1"] = Workload("shop", "web-1", source="sidecars", service_account="web")
        assert len(vouching.vouch(member({"app": "payments"}))[1]) == 1


async def test_groups_of_all_sources_and_tokens_vouch(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        vouching = Vouching(store.memory, Snapshot, lambda _: False, lambda: 0.0)
        vouching.prove("shop/web-1", "web")
        assert vouching.groups("manifests", {"object/workloadgroups.networking.istio.io/shop/web": GROUP})
        assert not vouching.groups("manifests", {"object/workloadgroups.networking.istio.io/shop/web": GROUP})
        one = member({"app": "web"})
        judged, _ = vouching.vouch(one)
        known = vouching.known(one, judged)
        assert (known.labels, known.service_ports, known.weight, one.group) == ({"app": "web"}, {"http": 80}, 2, "web")
        assert vouching.groups("manifests", {})
        assert vouching.vouch(one)[0].labels == {}
        await store.write(grants.issued(store.memory, made(labels={"app": "web"}), KEY, 0.0))
        vouching.changed(grants.workload_of(KEY))
        assert vouching.vouch(one)[0].labels == {"app": "web"}
        vouching.prove("shop/web-1", "batch")  # what was given to one account is no other's
        assert vouching.vouch(one)[0].labels == {}


async def test_a_name_is_of_who_came_first_but_goes_to_whom_it_was_given_and_to_whom_it_is_declared(
    tmp_path: Path,
) -> None:
    key, facts = "shop/web-1", dict[str, Workload]()
    connected = set[str]()
    async with store_in(tmp_path) as store:
        snapshot = lambda: Snapshot(workloads=facts)  # noqa: E731
        vouching = Vouching(store.memory, snapshot, lambda _: False, lambda: 0.0, connected.__contains__)
        vouching.prove(key, "batch")
        assert vouching.holder(key) is None, "nobody is there, and nothing is known of it"
        connected.add(key)
        assert vouching.holder(key) == "batch"
        facts[key] = Workload("shop", "web-1", source="sidecars", service_account="batch")
        connected.clear()
        assert vouching.holder(key) == "batch"
        assert not vouching.takes_over("shop", "web-1", "web")
        await store.write(grants.issued(store.memory, made(workload="web-1"), KEY, 0.0))
        assert vouching.takes_over("shop", "web-1", "web")
        vouching.prove(key, "web")
        assert vouching.holder(key) == "web"
        assert not vouching.takes_over("shop", "web-1", "batch")
        facts[key] = Workload("shop", "web-1", source="control", service_account="edge")
        assert vouching.holder(key) == "edge"
        assert not vouching.takes_over("shop", "web-1", "web"), "a declaration goes before tokens"


async def test_whose_a_workload_is_that_is_nowhere_is_forgotten_at_the_second_look(tmp_path: Path) -> None:
    connected, known = {"shop/here"}, {"shop/known": Workload("shop", "known", source="sidecars")}
    async with store_in(tmp_path) as store:
        vouching = Vouching(
            store.memory, lambda: Snapshot(workloads=known), lambda _: False, lambda: 0.0, connected.__contains__
        )
        for key in ("shop/here", "shop/known", "shop/gone", "shop/again"):
            vouching.prove(key, "web", "t")
        vouching.prune()
        assert vouching.proved("shop/gone"), "it may be on its way"
        vouching.prove("shop/again", "web", "t")
        vouching.prune()
        assert vouching.by_token({"t"}) == {"shop/here", "shop/known", "shop/again"}
        vouching.prune()
        vouching.prune()
        assert vouching.by_token({"t"}) == {"shop/here", "shop/known"}
