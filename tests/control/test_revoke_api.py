"""Certificates, workloads and service accounts are revoked and restored over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fairlead.control import revoke_api
from fairlead.control.api import ControlApi, Options
from fairlead.control.authority_files import open_authority
from fairlead.control.certs_api import CertsApi
from fairlead.control.feed_server import FeedServer
from fairlead.control.issued import Issued, IssuedLeaf
from fairlead.control.push import Book
from fairlead.control.revocations import SERIAL, Entry, write_of
from fairlead.control.revoke_api import RevokeApi
from fairlead.mesh.csr import make as make_csr
from tests.control.serving import Client, api_on, store_in
from tests.control.test_certificates_api import CERTIFICATES, TOKENS, make_token

pytestmark = pytest.mark.asyncio
REVOKE, RESTORE = "/fairlead/v1/certs/revocations", "/fairlead/v1/certs/restore"


class Control:
    """`whole`: what other control planes have issued is known."""

    api: ControlApi
    client: Client
    revoking: RevokeApi

    def __init__(self) -> None:
        self.record = Issued()
        self.whole = True

    async def issue(self, token: str, workload: str, code: int = 200) -> Any:
        body = {"csr": make_csr()["csr"], "namespace": "shop", "workload": workload}
        return await self.client.post(CERTIFICATES, body, code, Authorization=token)

    def revoked(self) -> set[str]:
        return {one["what"] for one in self.revoking.listed()}


@contextlib.asynccontextmanager
async def control(folder: Path) -> AsyncIterator[Control]:
    issuer = open_authority(folder, "cluster.local", 600.0)
    made = Control()

    def record(leaves: Sequence[IssuedLeaf]) -> None:
        for leaf in leaves:
            made.record.add(leaf)

    def prepare(api: ControlApi) -> None:
        feed = FeedServer(Book("e"), lambda request, ns, name: None, lambda: None)
        certs = CertsApi(issuer, made.record, feed)

        async def issued(_older: bool = True) -> tuple[Issued, bool]:
            return made.record, made.whole

        revocations = api.door.authenticator.revocations
        made.revoking = RevokeApi(api.store, revocations, feed, made.record, issuer.ttl_s, issued, certs.holders)
        api.certificates.record = record
        api.certificates.revocations, api.certificates.take_back = revocations, made.revoking.of_token
        api.add_routes([*feed.routes(), *made.revoking.routes()])

    async with store_in(folder) as store, api_on(
        store, Options(), prepare, issuer=issuer, identity_of=issuer.identity_of
    ) as (made.api, made.client):  # fmt: skip
        yield made


async def test_a_revoked_workload_gets_no_certificate_until_it_is_restored_and_others_do(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        token = await make_token(found.client)
        first = await found.issue(token, "web-1")
        await found.issue(token, "web-2")
        shown = await found.client.post(REVOKE, {"workload": "shop/web-1"}, 201, Fairlead_Change_Cause="laptop stolen")
        assert [one["name"] for one in shown["certificates"]] == [first["serial"]]
        assert shown["certificates"][0]["reason"] == "laptop stolen"
        assert any("is good for other names" in one for one in shown["warnings"])
        again = await found.client.post(REVOKE, {"workload": "shop/web-1"}, 200)
        assert (again["new"], len(again["certificates"])) == (False, 1)
        refused = await found.issue(token, "web-1", 403)
        assert "workload shop/web-1 was revoked by fairlead:local: laptop stolen" in refused["message"]
        await found.issue(token, "web-2")
        left = await found.client.post(RESTORE, {"workload": "shop/web-1"}, 200)
        assert left["stillRevoked"] == [first["serial"]]
        await found.client.post(RESTORE, {"workload": "shop/web-1"}, 404)
        await found.issue(token, "web-1")
        assert found.revoked() == {f"certificate {first['serial']}"}


async def test_of_a_revoked_service_account_nobody_comes_in(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        web, db = await make_token(found.client), await make_token(found.client, serviceAccount="db")
        await found.issue(web, "web-1")
        await found.client.post(REVOKE, {"serviceAccount": "shop/web"})
        refused = await found.issue(web, "web-9", 403)
        assert "service account shop/web was revoked" in refused["message"]
        await found.client.get("/fairlead/v1/feed?namespace=shop&workload=web-1", 403, Authorization=web)
        await found.issue(db, "db-1")
        await found.client.post(RESTORE, {"serviceAccount": "shop/web", "certificates": True}, 200)
        assert found.revoked() == set()
        await found.issue(web, "web-1")


async def test_a_serial_must_be_on_record_unless_it_is_forced(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        issued = await found.issue(await make_token(found.client), "web-1")
        serial = issued["serial"].upper()
        shown = await found.client.post(REVOKE, {"serial": f"00{serial}"})
        assert shown["certificates"][0]["workload"] == "shop/web-1"
        assert abs(shown["certificates"][0]["ends"] - time.time() - 600) < 30, "as long as the certificate"
        assert "on record" in (await found.client.post(REVOKE, {"serial": "ab"}, 404))["message"]
        await found.client.post(REVOKE, {"serial": "ab", "force": True})
        assert found.revoked() == {f"certificate {issued['serial']}", "certificate ab"}


@pytest.mark.parametrize(
    "body",
    [{}, {"serial": "xyz"}, {"workload": "web-1"}, {"workload": "a/b/c"}, {"serviceAccount": "/web"}, {"serial": 5},
     {"serial": "ab", "workload": "shop/web-1"}],
)  # fmt: skip
async def test_what_is_not_to_be_understood_is_refused(tmp_path: Path, body: dict[str, Any]) -> None:
    async with control(tmp_path) as found:
        for path in (REVOKE, RESTORE):
            await found.client.post(path, body, 400)


async def test_workloads_may_not_revoke_each_other(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        token = await make_token(found.client)
        await found.client.post(REVOKE, {"serviceAccount": "shop/db"}, 403, Authorization=token)
        await found.client.post(RESTORE, {"serviceAccount": "shop/db"}, 403, Authorization=token)
        await found.client.get(REVOKE, 403, Authorization=token)


async def test_with_a_token_goes_what_was_issued_by_it_where_that_is_asked_for(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        one, two = await make_token(found.client), await make_token(found.client)
        first, second = await found.issue(one, "web-1"), await found.issue(two, "web-1")
        name = one.split("_")[1]
        answer = await found.client.delete(f"{TOKENS}/{name}?certificates")
        assert answer["certificates"] == [first["serial"]]
        assert f"certificate {second['serial']}" not in found.revoked()
        await found.client.delete(f"{TOKENS}/{two.split('_')[1]}", code=204)
        assert f"certificate {second['serial']}" not in found.revoked()


async def test_what_another_control_plane_revokes_takes_along_what_was_issued_here(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        token = await make_token(found.client)
        first = await found.issue(token, "web-1")
        running = asyncio.create_task(found.revoking.run())
        try:
            await found.api.store.write([write_of(Entry("workload", "web-1", "shop", "alice", "elsewhere"))])
            async with asyncio.timeout(10):
                while f"certificate {first['serial']}" not in found.revoked():
                    await asyncio.sleep(0)
        finally:
            running.cancel()


async def test_entries_go_with_their_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoke_api, "LOOK_S", 0.01)
    async with control(tmp_path) as found:
        now = time.time()
        ended, alive = Entry(SERIAL, "1", ends=now - 1), Entry(SERIAL, "2", ends=now + 600)
        await found.api.store.write([write_of(one) for one in (ended, alive)])
        running = asyncio.create_task(found.revoking.run())
        try:
            async with asyncio.timeout(10):
                while found.revoked() != {"certificate 2"}:
                    await asyncio.sleep(0)
        finally:
            running.cancel()


async def test_where_other_control_planes_cannot_be_read_it_says_so(tmp_path: Path) -> None:
    async with control(tmp_path) as found:
        found.whole = False
        shown = await found.client.post(REVOKE, {"workload": "shop/web-1"})
        assert revoke_api.UNKNOWN in shown["warnings"]
