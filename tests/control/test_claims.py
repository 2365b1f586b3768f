"""What a workload says of itself counts as far as somebody who may has given it to its account."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.claims import Claim, Grant, believed, grant_of_group, groups_of, judge

WEB = Grant("WorkloadGroup shop/web", "shop", "web", labels={"app": "web", "tier": "front"}, group="web")
TOKEN = Grant("token 1", "shop", "web", labels={"app": "web"}, addresses=("10.1.0.0/16",))
NAME = "shop/web-1"


def ours(*addresses: str) -> Callable[[str], bool]:
    return lambda address: address in addresses


def test_a_low_value_token_gains_no_label_by_saying_so() -> None:
    judged = judge(Claim({"app": "payments"}, "10.0.0.7", "", "10.0.0.7"), NAME, "web", [], ours())
    assert judged.labels == {}
    assert (judged.address, judged.named) == ("10.0.0.7", False)
    (why,) = judged.refused
    assert "labels app=payments" in why and "--labels app=payments" in why and "WorkloadGroup" in why


def test_a_member_of_a_group_has_all_its_labels_and_no_others() -> None:
    judged = judge(Claim({"app": "web"}), NAME, "web", [WEB], ours())
    assert (judged.labels, judged.grant, judged.refused) == ({"app": "web", "tier": "front"}, WEB, ())
    judged = judge(Claim({"app": "web", "tier": "gold"}), NAME, "web", [WEB], ours())
    assert judged.labels == {"app": "web", "tier": "front"}
    assert [why.partition(":")[0] for why in judged.refused] == ["labels tier=gold"]
    judged = judge(Claim({"app": "payments"}), NAME, "web", [WEB], ours())
    assert (judged.labels, judged.grant) == ({}, None)


def test_a_group_is_joined_by_name_by_its_account_alone() -> None:
    assert judge(Claim(group="web"), NAME, "web", [WEB], ours()).labels == {"app": "web", "tier": "front"}
    judged = judge(Claim({"app": "web"}, group="payments"), NAME, "web", [WEB], ours())
    assert judged.labels == {}
    assert judged.refused[0].startswith("group payments: there is no WorkloadGroup shop/payments")
    assert not WEB.for_("shop", "intruder", "web-1")
    assert not WEB.for_("other", "web", "web-1")
    assert judge(Claim(), NAME, "web", [WEB], ours()).labels == {}  # nobody is a member without wanting to be


def test_labels_of_two_grants_are_not_mixed() -> None:
    one, two = (Grant(name, "shop", "web", labels=labels) for name, labels in
                (("a", {"app": "a", "v": "1"}), ("b", {"app": "b", "v": "2"})))  # fmt: skip
    judged = judge(Claim({"app": "a", "v": "2"}), NAME, "web", [one, two], ours())
    assert len(judged.labels) == 1 and len(judged.refused) == 1


@pytest.mark.parametrize(
    ("address", "peer", "counts"),
    [
        ("10.0.0.7", "10.0.0.7", True),  # it comes from there
        ("10.0.0.7", "::ffff:10.0.0.7", True),
        ("10.0.0.8", "10.0.0.7", False),  # another's
        ("127.0.0.5", "127.0.0.1", True),  # on control's own host
        ("127.0.0.5", "", True),  # by its Unix socket
        ("127.0.0.5", "10.0.0.7", False),
        ("192.0.2.1", "127.0.0.1", True),  # an address of this host
        ("192.0.2.2", "127.0.0.1", False),
        ("10.1.2.3", "10.0.0.7", True),  # its token has it
        ("0.0.0.0", "", False), ("224.0.0.1", "", False), ("fe80::1", "fe80::1%eth0", True),
        ("db.example", "10.0.0.7", False), ("10.0.0.7", "rubbish", False),
    ],
)  # fmt: skip
def test_an_address_counts_where_it_is_seen_or_given(address: str, peer: str, counts: bool) -> None:
    judged = judge(Claim({}, address, "", peer), NAME, "web", [TOKEN], ours("192.0.2.1", "0.0.0.0", "224.0.0.1"))
    assert judged.address == (address if counts else "")
    assert bool(judged.refused) is not counts
    if not counts:
        assert f"--addresses {address}" in judged.refused[0]


def test_only_a_token_of_one_workload_makes_its_name_more_than_its_own_word() -> None:
    assert not judge(Claim(), NAME, "web", [WEB, TOKEN], ours()).named
    bound = Grant("token 2", "shop", "web", workload="web-1")
    assert judge(Claim(), NAME, "web", [bound], ours()).named
    assert bound.for_("shop", "web", "web-1") and not bound.for_("shop", "web", "web-2")


def test_who_need_show_nothing_is_believed() -> None:
    judged = believed(Claim({"app": "x"}, "10.9.9.9"))
    assert (judged.labels, judged.address, judged.named, judged.refused) == ({"app": "x"}, "10.9.9.9", True, ())


def test_a_group_is_read_as_istio_writes_it() -> None:
    body = {
        "metadata": {"namespace": "shop", "name": "web", "annotations": {"fairlead.dev/addresses": "10.0.0.0/8, ::1"}},
        "spec": {
            "metadata": {"labels": {"app": "web"}},
            "template": {"ports": {"http": 8080}, "labels": {"v": "1"}, "serviceAccount": "web", "weight": 3,
                         "locality": "r/z"},
            "probe": {"httpGet": {"port": "http", "path": "/ok"}},
        },
    }  # fmt: skip
    made = grant_of_group(body)
    assert (made.labels, made.service_account, made.ports) == ({"app": "web", "v": "1"}, "web", {"http": 8080})
    assert (made.addresses, made.weight, made.locality) == (("10.0.0.0/8", "::1"), 3, "r/z")
    assert [(one.purpose, one.path, one.port) for one in made.checks] == [("readiness", "/ok", 8080)]
    assert grant_of_group({"metadata": {"name": "x"}, "spec": {"template": {}}}).service_account == "default"
    key = "object/workloadgroups.networking.istio.io/shop/web"
    assert groups_of({key: body, "object/pods/shop/web": {}}) == [made]


words = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)
grants = st.builds(
    lambda labels, group: Grant("g", "shop", "web", labels=labels, group=group), words, st.sampled_from(("", "g1"))
)


@given(words, st.lists(grants, max_size=4), st.sampled_from(("", "g1", "g2")))
def test_what_counts_is_always_of_one_grant(labels: dict[str, str], given_: list[Grant], group: str) -> None:
    judged = judge(Claim(labels, group=group), NAME, "web", given_, ours())
    assert not judged.labels or any(judged.labels.items() <= one.labels.items() for one in given_)
    if labels.items() - judged.labels.items():
        assert any(why.startswith("labels ") for why in judged.refused)
