"""Control planes of one store rotate the root together: each step waits for the sidecars of all of them."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.control import shared_sidecars
from fairlead.control.authority_files import Issuer, open_authority
from fairlead.control.certs_api import CertsApi
from fairlead.control.feed_server import Member, TrustReport
from fairlead.control.issued import Issued, IssuedLeaf
from fairlead.control.rotation import RotationError
from fairlead.control.shared_issued import SharedIssued
from fairlead.control.shared_rotation import SharedRotation
from fairlead.control.shared_sidecars import agree_on_authority
from fairlead.control.store import Store
from fairlead.control.store_shared import SharedStore
from fairlead.mesh.authority_checks import fingerprint
from fairlead.mesh.csr import make as make_csr
from tests.control.storages import storages
from tests.control.test_shared_sidecars import Plane as Speaker
from tests.e2e.roles import until

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module", params=["etcd", "consul"])
def new(request: Any, tmp_path_factory: Any) -> Iterator[Any]:
    with storages(request.param, tmp_path_factory.mktemp(request.param)) as make:
        yield make


class Plane(Speaker):
    """A control plane with its authority and its sidecars."""

    def __init__(self, store: Store, name: str, folder: Path) -> None:
        super().__init__(store, name)
        assert isinstance(store, SharedStore)
        self.folder = folder
        self.issuer: Issuer = open_authority(folder, "cluster.local", 600.0)
        self.record = Issued()
        self.issued = SharedIssued(store.backend, name, self.record, time.time())
        self.certs = CertsApi(self.issuer, self.record, self.feed)
        self.certs.planes = SharedRotation(store, self.shared, self.issuer, self.issued, f"host:{folder}", time.time)

    def sidecar(self, name: str, *roots: str, issuer: str = "") -> None:
        """One is connected here; it says that it trusts these, and holds a certificate of this issuer."""
        member = Member("sidecar", "shop", name, "10.0.0.1", 15006, "web", {}, [], 0.0)
        member.trust = TrustReport("shop", name, roots=list(roots), issuer=issuer, not_after=time.time() + 100)
        self.feed.members[f"sidecar/shop/{name}"] = member

    def gives(self, workload: str) -> None:
        """A certificate to a workload that is not connected."""
        made = self.issuer.issue(make_csr()["csr"], "shop", "web", time.time())
        leaf = IssuedLeaf(made["serial"], made["identity"], workload, self.issuer.issuer(), time.time(),
                          time.time() + 600)  # fmt: skip
        self.record.add(leaf)
        self.issued.note(leaf)

    async def step(self, step: str) -> None:
        """As the API does it. Raises RotationError."""
        phase = {"issue": "distributing", "finish": "issuing"}.get(step)
        issued, whole = await self.certs.all_issued()
        if phase is not None:
            waits = [*await self.certs._of_planes(phase), *self.certs._waits(self.certs.holders(), issued, time.time())]
            if waits or not whole:
                raise RotationError("not yet: " + "; ".join(waits))
        await self.certs._take(step, time.time())

    def root(self) -> str:
        return fingerprint(self.issuer.current.root)


@contextlib.asynccontextmanager
async def planes(new: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Plane, Plane, Any]]:
    monkeypatch.setattr(shared_sidecars, "BEAT_S", 0.1)
    storage = new()
    for name in ("one", "two"):
        (folder / name).mkdir()
    async with storage.open() as first, storage.open() as second:
        one = Plane(first, "aa", folder / "one")
        for name in ("ca.pem", "ca-key.pem"):
            shutil.copy(folder / "one" / name, folder / "two" / name)
        two = Plane(second, "bb", folder / "two")
        for plane, store in ((one, first), (two, second)):
            await agree_on_authority(store, plane.issuer.roots(), "here")
        await until("each other", lambda: _is(one.shared.trusts() and two.shared.trusts()))
        yield one, two, storage
        for plane in (one, two):
            assert plane.certs.planes is not None
            plane.certs.planes.close()
            await plane.close()


async def _is(value: Any) -> Any:
    return value


async def refused(plane: Plane, step: str) -> str:
    with pytest.raises(RotationError) as told:
        await plane.step(step)
    return str(told.value)


async def after(plane: Plane, step: str) -> None:
    async def taken() -> bool:
        try:
            await plane.step(step)
        except RotationError:
            return False
        return True

    await until(step, taken, 10.0)


async def test_each_step_waits_for_the_sidecars_of_all_control_planes(
    new: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long because it is one rotation from start to end."""
    async with planes(new, tmp_path, monkeypatch) as (one, two, storage):
        old, old_id = one.root(), one.issuer.issuer()
        two.sidecar("far-1", old, issuer=old_id)
        two.gives("shop/away-1")
        await one.step("start")
        assert one.issuer.successor is not None
        root, root_id = fingerprint(one.issuer.successor.root), one.issuer.successor.key_id.hex()
        await until("the new root at the other", lambda: _is(two.issuer.announced))
        assert two.issuer.announced in two.issuer.roots()  # its sidecars are told, though it has not the key
        await until("the far sidecar", lambda: _is(one.certs.holders()))
        said = await refused(one, "issue")
        assert f"control plane host:{tmp_path / 'two'} has no key of the new root" in said
        assert "sidecar/shop/far-1 does not trust the new root yet" in said
        assert "under way at another control plane" in await refused(two, "start")
        for name in ("next-ca.pem", "next-ca-key.pem"):
            shutil.copy(tmp_path / "one" / name, tmp_path / "two" / name)
        await until("the other's key", lambda: _is(two.issuer.phase == "distributing"))
        two.sidecar("far-1", old, root, issuer=old_id)
        await after(two, "issue")  # any of them may take a step
        await until("both issue by it", lambda: _is(one.issuer.issuer() == two.issuer.issuer() == root_id))
        await until("what the other has issued", lambda: _issued(one))
        said = await refused(one, "finish")
        assert "sidecar/shop/far-1 uses a certificate of the old root" in said
        assert "shop/away-1 is not connected; its certificate of the old root is good for another" in said
        two.sidecar("far-1", old, root, issuer=root_id)
        two.gives("shop/away-1")
        await after(one, "finish")
        await until("the end at the other", lambda: _is(two.root() == root and not two.issuer.phase))
        assert two.issuer.roots() == one.issuer.roots()
        assert not (tmp_path / "two" / "next-ca-key.pem").exists()
        async with storage.open() as third:  # who was away meanwhile, and has the old key alone
            made = open_authority(_folder(tmp_path / "late"), "cluster.local", 600.0)
            with pytest.raises(ValueError, match="has another certificate authority"):
                await agree_on_authority(third, made.roots(), "late")


async def _issued(plane: Plane) -> bool:
    return any(one.workload == "shop/away-1" for one in (await plane.certs.all_issued())[0].last(time.time()))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


async def test_what_is_given_up_is_given_up_everywhere(
    new: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with planes(new, tmp_path, monkeypatch) as (one, two, _):
        await one.step("start")
        await until("the new root at the other", lambda: _is(two.issuer.announced))
        await one.step("abort")
        await until("its end", lambda: _is(not two.issuer.announced))
        assert one.issuer.roots() == two.issuer.roots()
        await two.step("start")
        await until("the next one", lambda: _is(one.issuer.announced))


async def test_who_cannot_follow_issues_nothing_more_under_a_root_that_is_gone(
    new: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairlead.control.certificates_api import UnavailableError

    async with planes(new, tmp_path, monkeypatch) as (one, two, _):
        for step in ("start", "issue", "finish"):  # forced
            await one.certs._take(step, time.time())
        await until("the other knows", lambda: _is(two.issuer.outdated))
        with pytest.raises(UnavailableError, match=r"copy ca\.pem and ca-key\.pem"):
            two.issuer.issue(make_csr()["csr"], "shop", "web", time.time())
        shutil.copy(tmp_path / "one" / "ca.pem", tmp_path / "two" / "next-ca.pem")
        shutil.copy(tmp_path / "one" / "ca-key.pem", tmp_path / "two" / "next-ca-key.pem")
        await until("it follows", lambda: _is(two.root() == one.root() and not two.issuer.outdated))
