"""ClusterIPs: who gets which, who keeps it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.cluster_ips import AddressError, ClusterIPs, parse_ranges, usable
from tests.e2e.roles import Roles, roles_in

RANGE = parse_ranges("10.96.0.0/24")


def service(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], **spec}}


def stored(addresses: ClusterIPs, key: str, body: dict[str, Any], current: dict[str, Any] | None = None) -> list[str]:
    """Write a Service; the addresses that it has then."""
    with addresses.held(key, current, body):
        pass
    addresses.changed(key, body)
    found: list[str] = body["spec"].get("clusterIPs", [])
    return found


def test_a_service_without_an_address_gets_one_of_the_range_and_the_same_when_it_is_made_again() -> None:
    addresses = ClusterIPs(RANGE)
    body = service()
    (address,) = stored(addresses, "default/web", body)
    assert address.startswith("10.96.0.")
    assert body["spec"]["clusterIP"] == address
    assert (body["spec"]["ipFamilies"], body["spec"]["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    addresses.changed("default/web", None)
    assert stored(addresses, "default/web", service()) == [address]
    assert stored(ClusterIPs(RANGE), "default/web", service()) == [address]
    assert stored(addresses, "default/other", service()) != [address]


def test_the_address_stays_with_the_object_whatever_is_written() -> None:
    addresses = ClusterIPs(RANGE)
    before = service()
    kept = stored(addresses, "default/web", before)
    assert stored(addresses, "default/web", service(selector={"a": "b"}), before) == kept
    for other in ("10.96.0.77", "None"):
        with pytest.raises(AddressError, match="may not change once set"):
            stored(addresses, "default/web", service(clusterIP=other), before)


def test_what_is_asked_for_is_given_if_it_is_free_and_in_the_range() -> None:
    addresses = ClusterIPs(RANGE)
    assert stored(addresses, "default/dns", service(clusterIP="10.96.0.10")) == ["10.96.0.10"]
    with pytest.raises(AddressError, match="already allocated \\(to Service default/dns\\)"):
        stored(addresses, "default/web", service(clusterIP="10.96.0.10"))
    for outside in ("10.97.0.1", "10.96.0.0", "10.96.0.255"):
        with pytest.raises(AddressError, match="not in the valid range"):
            stored(addresses, "default/web", service(clusterIP=outside))


def test_duplicates_are_refused_also_where_no_range_is_given() -> None:
    addresses = ClusterIPs()
    assert stored(addresses, "default/bare", service()) == []
    stored(addresses, "default/a", service(clusterIP="10.0.0.1"))
    with pytest.raises(AddressError, match="already allocated"):
        stored(addresses, "default/b", service(clusterIP="10.0.0.1"))
    stored(addresses, "default/a", service(clusterIP="10.0.0.2"), service(clusterIP="10.0.0.1"))
    stored(addresses, "default/b", service(clusterIP="10.0.0.1"))


def test_headless_and_external_names_get_none() -> None:
    addresses = ClusterIPs(RANGE)
    assert stored(addresses, "default/web", service(clusterIP="None")) == ["None"]
    assert stored(addresses, "default/a", {"spec": {"type": "ExternalName", "externalName": "a.b"}}) == []
    had = service()
    stored(addresses, "default/b", had)
    turned = {"spec": {**had["spec"], "type": "ExternalName", "externalName": "a.b"}}
    assert stored(addresses, "default/b", turned, had) == []
    assert "clusterIP" not in turned["spec"]


def test_two_families_where_two_are_asked_for() -> None:
    addresses = ClusterIPs(parse_ranges("10.96.0.0/24,fd00:96::/108"))
    assert len(stored(addresses, "default/one", service())) == 1
    four, six = stored(addresses, "default/two", service(ipFamilyPolicy="PreferDualStack"))
    assert (":" in four, ":" in six) == (False, True)
    six, four = stored(addresses, "default/six", service(ipFamilyPolicy="RequireDualStack", ipFamilies=["IPv6"]))
    assert (":" in four, ":" in six) == (False, True)
    assert ":" in stored(addresses, "default/only", service(ipFamilies=["IPv6"]))[0]
    with pytest.raises(AddressError, match="not configured for dual-stack"):
        stored(ClusterIPs(RANGE), "default/two", service(ipFamilyPolicy="RequireDualStack"))
    with pytest.raises(AddressError, match=r"ipFamilies\[0\]"):
        stored(ClusterIPs(RANGE), "default/two", service(ipFamilies=["IPv6"]))


def test_an_address_of_a_write_on_its_way_is_not_given_again_and_one_of_a_failed_write_is() -> None:
    addresses = ClusterIPs(RANGE)
    first, second = service(), service()
    with addresses.held("default/web", None, first), addresses.held("default/other", None, second):
        assert first["spec"]["clusterIP"] != second["spec"]["clusterIP"]
    again = service(clusterIP=second["spec"]["clusterIP"])
    with addresses.held("default/third", None, again):
        pass


def test_what_is_stored_and_should_not_be_is_told_at_the_start() -> None:
    wrong = ClusterIPs(RANGE).load(
        [("default/a", service(clusterIP="10.96.0.5")), ("default/b", service(clusterIP="10.96.0.5")),
         ("default/c", service(clusterIP="1.2.3.4"))]
    )  # fmt: skip
    assert wrong == [
        "Service default/b: 10.96.0.5 is default/a's, too",
        "Service default/c: 1.2.3.4 is not in 10.96.0.0/24",
    ]


@given(st.sampled_from(["10.0.0.0/29", "10.0.0.0/27", "fd00::/124"]), st.integers(0, 40))
def test_all_of_a_range_is_given_out_once_and_then_it_is_full(text: str, more: int) -> None:
    ranges = parse_ranges(text)
    low, high = usable(ranges[0])
    addresses = ClusterIPs(ranges)
    size = high - low + 1
    given_out = [stored(addresses, f"default/{number}", service())[0] for number in range(size)]
    assert len(set(given_out)) == size
    with pytest.raises(AddressError, match="full"):
        stored(addresses, f"default/more-{more}", service())
    addresses.changed(f"default/{more % size}", None)
    assert stored(addresses, "default/late", service()) == [given_out[more % size]]


@pytest.mark.parametrize("text", ["10.0.0.0", "10.0.0.1/24", "10.0.0.0/30", "10.0.0.0/24,10.1.0.0/24", "x", ","])
def test_ranges_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"small|host bits|expected|appear"):
        parse_ranges(text)


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {selector: {app: web}, ports: [{name: http, port: 80}], MORE}
"""


async def applied(roles: Roles, url: str, text: str) -> tuple[int, str]:
    code, out, err = await roles.command("apply", "-f", "-", "--control", url, stdin=text.encode())
    return code, out + err


@pytest.mark.asyncio
async def test_control_gives_addresses_keeps_them_over_a_restart_and_gives_those_that_are_missing(
    tmp_path: Path,
) -> None:
    async with roles_in(tmp_path) as roles:
        flags = ("control", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "control"))
        control = await roles.start(*flags)
        url = f"http://{control.at['api']}"
        assert (await applied(roles, url, SERVICE.replace("NAME", "older").replace(", MORE", "")))[0] == 0
        await control.stop()
        control = await roles.start(*flags, "--service-cidr", "10.96.0.0/16")
        url = f"http://{control.at['api']}"

        async def address(name: str) -> str:
            code, out, err = await roles.command("get", "service", name, "--control", url)
            assert code == 0, err
            return next(part for part in out.split() if part.startswith("10.") or part in ("None", "<none>"))

        assert (await address("older")).startswith("10.96.")
        assert (await applied(roles, url, SERVICE.replace("NAME", "web").replace(", MORE", "")))[0] == 0
        mine = await address("web")
        code, told = await applied(roles, url, SERVICE.replace("NAME", "b").replace("MORE", f"clusterIP: {mine}"))
        assert code == 1
        assert "already allocated (to Service default/web)" in told
        code, told = await applied(
            roles, url, SERVICE.replace("NAME", "web").replace("{app: web}", "{app: new}").replace(", MORE", "")
        )
        assert code == 0, told
        assert await address("web") == mine
        code, out, _ = await roles.command("env", "--control", url, "--export")
        assert f"export WEB_SERVICE_HOST={mine}\n" in out
        assert f"export WEB_PORT_80_TCP=tcp://{mine}:80\n" in out
        await control.stop()
        control = await roles.start(*flags, "--service-cidr", "10.96.0.0/16")
        url = f"http://{control.at['api']}"
        assert await address("web") == mine
