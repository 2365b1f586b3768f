"""What a token gave to a workload outlives the token, and ends some time after the workload."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.control import grants, tokens
from fairlead.control.claims import Grant
from tests.control.serving import store_in
from tests.control.test_certificates_api import CERTIFICATES, TOKENS, control

pytestmark = pytest.mark.asyncio
DRAW = bytes(range(tokens.ID_BYTES + tokens.SECRET_BYTES))
KEY = grants.key_of("shop", "web", "web-1")
DAY_S = 86400.0


def made(**more: object) -> tokens.Token:
    return tokens.make(DRAW, "shop", "web", now=0.0, ttl_s=60.0, **more)[1]  # type: ignore[arg-type]


async def test_a_token_of_an_account_alone_gives_nothing_beside_the_identity() -> None:
    assert grants.of_token(made()) is None
    given = grants.of_token(made(labels={"app": "web"}, addresses=("10.0.0.0/8",)))
    assert given == Grant(f"token {DRAW[:8].hex()}", "shop", "web", "", {"app": "web"}, ("10.0.0.0/8",))


async def test_it_lasts_while_certificates_are_asked_for_and_is_written_rarely(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        memory = store.memory
        assert grants.issued(memory, None, KEY, 0.0) == []  # a certificate's renewal where nothing was given
        first = made(labels={"app": "web"})
        await store.write(grants.issued(memory, first, KEY, 0.0))
        assert grants.find(memory, "shop", "web", "web-1", 29 * DAY_S) == grants.of_token(first)
        assert grants.find(memory, "shop", "batch", "web-1", 0.0) is None
        assert grants.issued(memory, first, KEY, DAY_S) == [] == grants.issued(memory, None, KEY, 14 * DAY_S)
        await store.write(grants.issued(memory, None, KEY, 16 * DAY_S))
        assert grants.find(memory, "shop", "web", "web-1", 45 * DAY_S) is not None
        assert grants.find(memory, "shop", "web", "web-1", 46 * DAY_S) is None
        assert grants.issued(memory, None, KEY, 46 * DAY_S) == []
        assert grants.outdated(memory, 45 * DAY_S) == []
        await store.write(grants.outdated(memory, 46 * DAY_S))
        assert memory.get(KEY) is None


async def test_another_token_of_the_same_account_gives_something_else_in_its_place(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        await store.write(grants.issued(store.memory, made(labels={"app": "web"}), KEY, 0.0))
        await store.write(grants.issued(store.memory, made(labels={"app": "api"}), KEY, 1.0))
        found = grants.find(store.memory, "shop", "web", "web-1", 2.0)
        assert found is not None and found.labels == {"app": "api"}
        assert grants.issued(store.memory, made(), KEY, 3.0) == []  # one that gives nothing takes nothing away


async def test_the_first_certificate_brings_it_and_a_token_can_be_withdrawn_with_it(tmp_path: Path) -> None:
    async with control(tmp_path) as (api, client):
        told = await client.post(TOKENS, {"namespace": "shop", "serviceAccount": "web", "labels": {"app": "web"},
                                          "oneTime": True, "addresses": ["10.0.0.0/8"]})  # fmt: skip
        bearer = f"Bearer {told['token']}"
        await client.post(CERTIFICATES, {"csr": "PEM", "workload": "web-1"}, 200, Authorization=bearer)
        stored = api.store.memory.get(KEY)
        assert stored is not None and told["token"] not in str(stored.object())
        await client.delete(f"{TOKENS}/{told['id']}?withdraw", code=204)
        assert api.store.memory.get(KEY) is None
        for wrong in ({"labels": {"a b": "c"}}, {"labels": ["x"]}, {"addresses": "10.0.0.1"}, {"addresses": ["x"]}):
            refused = await client.post(TOKENS, wrong, 400)
            assert next(iter(wrong)) in refused["message"]


async def test_who_asks_under_ever_new_names_does_not_fill_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "KEPT_MOST", 3)
    async with store_in(tmp_path) as store:
        for number in range(6):
            key = grants.key_of("shop", "web", f"web-{number}")
            await store.write(grants.issued(store.memory, made(labels={"app": "web"}), key, float(number)))
        assert [one.key.name for one in store.memory.all(grants.RESOURCE)] == ["web:web-3", "web:web-4", "web:web-5"]
