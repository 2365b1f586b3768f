"""Two APIs over one shared store: addresses, tokens and versions are good for both at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from fairlead.control.api import ControlApi, Options
from fairlead.control.recorded import CLAIMS
from tests.control.serving import SERVICES, VIRTUAL_SERVICES, Client, api_on, service, virtual_service
from tests.control.storages import storages

pytestmark = pytest.mark.asyncio
RANGE = Options(service_ranges=(ip_network("10.96.0.0/27"),))


@pytest.fixture(scope="module")
def new(tmp_path_factory: Any) -> Iterator[Any]:
    with storages("etcd", tmp_path_factory.mktemp("etcd")) as make:
        yield make


@contextlib.asynccontextmanager
async def two_apis(
    new: Any, options: Options | None = None, **more: Any
) -> AsyncIterator[list[tuple[ControlApi, Client]]]:
    storage = new()
    async with (
        storage.open() as first,
        storage.open() as second,
        api_on(first, options, **more) as one,
        api_on(second, options, **more) as two,
    ):
        yield [one, two]


async def test_no_address_is_given_out_twice_though_both_give_them_out_at_once(new: Any) -> None:
    async with two_apis(new, RANGE) as apis:
        made = await asyncio.gather(
            *(apis[n % 2][1].post(SERVICES, service(f"s{n}")) for n in range(24)),
        )
        addresses = [one["spec"]["clusterIP"] for one in made]
        assert len(set(addresses)) == 24
        await apis[0][1].delete(f"{SERVICES}/s0")
        listed = (await apis[0][1].get(SERVICES))["items"]
        claims = apis[0][0].store.memory.all(CLAIMS)
        assert {one.key.name for one in claims} == {one["spec"]["clusterIP"] for one in listed}


async def test_an_address_asked_for_by_name_is_one_services_alone(new: Any) -> None:
    async with two_apis(new, RANGE) as apis:

        def wants(name: str) -> dict[str, Any]:
            body = service(name)
            body["spec"]["clusterIP"] = "10.96.0.7"
            return body

        answers = await asyncio.gather(
            *(apis[n][1].ask("POST", SERVICES, wants(f"s{n}")) for n in range(2)),
        )
        assert sorted(code for code, _ in answers) == [201, 422]
        refused = next(body for code, body in answers if code == 422)
        assert "already allocated" in refused["message"]
        winner = next(body["metadata"]["name"] for code, body in answers if code == 201)
        await apis[1][1].delete(f"{SERVICES}/{winner}")
        await apis[0][1].post(SERVICES, wants("next"))


async def test_a_token_made_by_one_is_good_at_the_other_at_once_and_a_one_time_token_for_one_of_them(new: Any) -> None:
    class Issuer:
        def issue(self, csr: str, namespace: str, service_account: str, now: float) -> dict[str, Any]:
            return {
                "certificates": csr,
                "roots": "r",
                "notAfter": "2099-01-01T00:00:00Z",
                "identity": "i",
                "serial": "1",
            }

        def roots(self) -> str:
            return "r"

        def issuer(self) -> str:
            return ""

    async with two_apis(new, issuer=Issuer()) as apis:
        one, two = apis[0][1], apis[1][1]
        for _ in range(5):
            made = await one.post("/fairlead/v1/tokens", {"serviceAccount": "web", "oneTime": True})
            asked = [
                api.ask("POST", "/fairlead/v1/certificates", {"csr": "x"}, Authorization=f"Bearer {made['token']}")
                for api in (two, one)
            ]
            assert sorted(code for code, _ in await asyncio.gather(*asked)) == [200, 401]


async def test_who_has_seen_a_version_at_one_sees_it_at_the_other(new: Any) -> None:
    async with two_apis(new) as apis:
        one, two = apis[0][1], apis[1][1]
        for n in range(10):
            made = await one.post(VIRTUAL_SERVICES, virtual_service(f"a{n}"))
            version = made["metadata"]["resourceVersion"]
            listed = await two.get(f"{VIRTUAL_SERVICES}?resourceVersion={version}")
            assert f"a{n}" in [item["metadata"]["name"] for item in listed["items"]]
            stored = apis[1][0].store.memory
            assert stored.revision >= int(version)
