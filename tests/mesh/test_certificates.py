"""A workload's certificate: asked for, kept, renewed; control played by a function around a real authority."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead.mesh import certificates as certificates_module
from fairlead.mesh.certificates import CertificateError, Certificates, make_request, renewal_metrics
from fairlead.mesh.contexts import Contexts, Material
from fairlead.mesh.csr import make as make_csr
from fairlead.mesh.identity import make
from fairlead.mesh.revocations import Revoked
from fairlead.registry.needs import FetchError, Reply
from tests.mesh.certificates_made import authority

pytestmark = pytest.mark.asyncio

DEADLINE_S = 20.0
CA = authority()
WHO = {"namespace": "default", "workload": "web-1"}


class Control:
    """A `Fetch` that signs as control does; `script` says what the next answers are instead."""

    def __init__(self, ttl_s: float = 600.0) -> None:
        self.ttl_s = ttl_s
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.script: list[Reply | FetchError] = []
        self.changed = asyncio.Event()

    async def request(self, method: str, url: str, *, headers: Any = None, body: bytes = b"",
                      timeout_s: float = 10.0) -> Reply:  # fmt: skip
        assert method == "POST"
        told = msgspec.json.decode(body)
        self.asked.append((url, dict(headers), told))
        self.changed.set()
        if self.script:
            answer = self.script.pop(0)
            if isinstance(answer, FetchError):
                raise answer
            return answer
        return self.signed(told["csr"])

    def stream(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        pass

    def signed(self, csr: str) -> Reply:
        chain, ends, _ = CA.sign(csr.encode(), make("cluster.local", "default", "web"), self.ttl_s, time.time())
        not_after = datetime.fromtimestamp(ends, UTC).isoformat().replace("+00:00", "Z")
        told = {"certificates": chain, "roots": CA.roots, "notAfter": not_after, "time": time.time()}
        return Reply(201, {}, msgspec.json.encode(told))


def certificates(control: Control, take: Callable[[Material], None], keep: Path | None = None,
                 urls: list[str] | None = None, clock: Callable[[], float] = time.time) -> Certificates:  # fmt: skip
    return Certificates(
        control, urls or ["http://one"], WHO, lambda: {"authorization": "Bearer secret"}, take, keep, clock
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys made here and not in a child, retries at once: what is tested is what follows."""

    async def here() -> tuple[str, str]:
        made = make_csr()
        return made["key"], made["csr"]

    monkeypatch.setattr(certificates_module, "make_request", here)
    monkeypatch.setattr(certificates_module, "retry_in", lambda *_: 0.0)
    monkeypatch.setattr(certificates_module, "reissue_in", lambda *_: 0.0)


@contextlib.asynccontextmanager
async def running(subject: Certificates) -> AsyncIterator[None]:
    task = asyncio.create_task(subject.run())
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_made_in_a_child_becomes_a_certificate_that_contexts_take() -> None:
    control, contexts = Control(), Contexts(lambda: ("cluster.local",))
    subject = certificates(control, contexts.take)
    async with running(subject):
        await subject.have.wait()
    assert contexts.material is subject.current
    assert contexts.server() is not None
    url, headers, told = control.asked[0]
    assert url == "http://one/fairlead/v1/certificates"
    assert headers["authorization"] == "Bearer secret"
    assert {name: told[name] for name in WHO} == WHO
    assert "PRIVATE KEY" not in str(told), "the key never leaves the sidecar"


async def test_a_child_that_fails_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CertificateError, match="making a key failed"):
        await make_request()


@pytest.mark.usefixtures("quick")
async def test_the_certificate_is_kept_for_us_alone_and_serves_a_restart_without_control(tmp_path: Path) -> None:
    keep = tmp_path / "state" / "certificate.json"
    first = certificates(Control(), lambda _: None, keep)
    async with running(first):
        await first.have.wait()
        while not keep.exists():
            await asyncio.sleep(0)
    assert keep.stat().st_mode & 0o777 == 0o600
    assert keep.parent.stat().st_mode & 0o077 == 0
    taken: list[Material] = []
    again = certificates(Control(), taken.append, keep)
    assert again.start_from_disk()
    assert first.current is not None
    assert [material.serial for material in taken] == [first.current.serial]
    assert again.have.is_set()


@pytest.mark.usefixtures("quick")
async def test_what_is_kept_is_not_used_once_expired_or_broken(tmp_path: Path) -> None:
    keep = tmp_path / "certificate.json"
    first = certificates(Control(), lambda _: None, keep)
    async with running(first):
        await first.have.wait()
        while not keep.exists():
            await asyncio.sleep(0)

    def never(_: Material) -> None:
        raise AssertionError("taken")

    assert not certificates(Control(), never, keep, clock=lambda: time.time() + 601).start_from_disk()
    whole = keep.read_bytes()
    for broken in (b"", b"{}", whole[: len(whole) // 2], whole.replace(b"BEGIN CERT", b"BEGUN CERT")):
        keep.write_bytes(broken)
        assert not certificates(Control(), never, keep).start_from_disk()
    assert not certificates(Control(), never, tmp_path / "absent").start_from_disk()
    assert not certificates(Control(), never, None).start_from_disk()


@pytest.mark.usefixtures("quick")
async def test_a_kept_certificate_whose_key_is_another_is_not_used(tmp_path: Path) -> None:
    keep = tmp_path / "certificate.json"
    subject = certificates(Control(), lambda _: None, keep)
    async with running(subject):
        await subject.have.wait()
        while not keep.exists():
            await asyncio.sleep(0)
    told = msgspec.json.decode(keep.read_bytes())
    told["key"] = make_csr()["key"]
    keep.write_bytes(msgspec.json.encode(told))
    contexts = Contexts(lambda: ("cluster.local",))
    assert not certificates(Control(), contexts.take, keep).start_from_disk()
    assert contexts.material is None


@pytest.mark.usefixtures("quick")
async def test_refusals_and_silence_are_told_and_tried_again_at_the_next_control() -> None:
    control = Control()
    control.script = [
        FetchError("connection refused"),
        Reply(403, {}, b'{"kind": "Status", "message": "the token is not for web-1"}'),
        Reply(503, {}, b"not now"),
        Reply(201, {}, b'{"certificates": 1}'),
        Reply(201, {}, b"garbage"),
        Reply(201, {}, msgspec.json.encode({"certificates": "x", "roots": "y", "notAfter": "soon"})),
    ]
    subject = certificates(control, lambda _: None, urls=["http://one", "http://two"])
    errors: list[str] = []
    plain = control.request

    async def watched(*args: Any, **kwargs: Any) -> Reply:
        errors.append(subject.error)
        return await plain(*args, **kwargs)

    control.request = watched  # type: ignore[method-assign]
    async with running(subject):
        await subject.have.wait()
    assert [url.split("/")[2] for url, _, _ in control.asked] == ["one", "two", "one", "two", "one", "two", "one"]
    assert "connection refused" in errors[1]
    assert "403" in errors[2]
    assert "the token is not for web-1" in errors[2]
    assert "not now" in errors[3]
    assert all("cannot be read" in error for error in errors[4:])
    assert (subject.error, subject.failures) == ("", 0)


@pytest.mark.usefixtures("quick")
async def test_an_answer_for_another_key_is_refused_and_what_we_have_stays() -> None:
    control, contexts = Control(), Contexts(lambda: ("cluster.local",))
    control.script = [control.signed(make_csr()["csr"])]
    subject = certificates(control, contexts.take)
    async with running(subject):
        await subject.have.wait()
    assert len(control.asked) == 2
    assert contexts.material is subject.current


@pytest.mark.usefixtures("quick")
async def test_a_certificate_is_renewed_in_time_with_a_new_key() -> None:
    control, taken, thrice = Control(ttl_s=5.0), [], asyncio.Event()

    def take(material: Material) -> None:
        taken.append((material, time.time()))
        if len(taken) == 2:
            thrice.set()

    subject = certificates(control, take)
    async with running(subject):
        await thrice.wait()
    (first, _), (second, at) = taken
    assert first.key != second.key
    assert first.serial != second.serial
    life = first.ends - first.issued
    assert first.issued + life * 0.45 < at < first.ends


async def test_material_of_a_real_answer_makes_contexts() -> None:
    csr = make_csr()
    told = msgspec.json.decode(Control().signed(csr["csr"]).body)
    contexts = Contexts(lambda: ("cluster.local",))
    contexts.take(Material(told["certificates"], csr["key"], told["roots"]))
    assert isinstance(contexts.server(), ssl.SSLContext)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("off_s", "why"),
    [(700.0, "already ended by our clock: .* is 700 s ahead of control's"), (-700.0, "not valid yet .* 700 s behind")],
)
async def test_a_clock_that_makes_new_certificates_useless_is_named_as_the_cause(off_s: float, why: str) -> None:
    control = Control()
    subject = certificates(control, lambda _: None, clock=lambda: time.time() + off_s)
    with pytest.raises(CertificateError, match=why):
        await subject._ask("http://one")
    (told,) = [line for line in renewal_metrics(subject) if line.startswith("fairlead_clock_skew_seconds ")]
    assert float(told.split()[1]) == pytest.approx(off_s, abs=5)


@pytest.mark.usefixtures("quick")
async def test_new_roots_are_trusted_at_once_and_kept_and_another_signer_means_a_new_certificate(
    tmp_path: Path,
) -> None:
    control, taken, other = Control(), [], authority()
    keep, second = tmp_path / "certificate.json", asyncio.Event()

    def take(material: Material) -> None:
        taken.append(material)
        if len({one.serial for one in taken}) == 2:
            second.set()

    subject = certificates(control, take, keep)
    subject.trust(other.roots, "aa")  # before there is any: the first will come with its roots
    async with running(subject):
        await subject.have.wait()
        first = taken[0]
        subject.trust(CA.roots + other.roots, CA.key_id.hex())
        assert (taken[-1].roots, taken[-1].serial) == (CA.roots + other.roots, first.serial)
        assert msgspec.json.decode(keep.read_bytes())["roots"] == CA.roots + other.roots
        assert len(control.asked) == 1, "the signer is the same: the certificate stays"
        subject.trust(CA.roots, other.key_id.hex())
        await second.wait()
    assert taken[-1].key != first.key


@pytest.mark.usefixtures("quick")
async def test_that_it_should_have_been_renewed_long_ago_is_an_alarm_that_says_why() -> None:
    control, now = Control(), [time.time()]
    subject = certificates(control, lambda _: None, clock=lambda: now[0])
    async with running(subject):
        await subject.have.wait()
    assert (subject.late(), subject.alarm()) == (False, "")
    control.script = [Reply(403, {}, b'{"message": "not you"}')] * 1000
    now[0] += 500
    async with running(subject):
        while not subject.failures:
            await asyncio.sleep(0)
    assert subject.late()
    assert "could not be renewed: http://one: refused with status 403: not you" in subject.alarm()
    assert subject.alarm().startswith(("the certificate ends in 99 s", "the certificate ends in 100 s"))
    lines = renewal_metrics(subject)
    assert "fairlead_certificate_alarm 1" in lines
    now[0] += 150
    assert "the certificate has ended 5" in subject.alarm()


@pytest.mark.usefixtures("quick")
async def test_a_certificate_of_ours_that_is_revoked_is_replaced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates_module, "reissue_in", lambda *_: 1000.0)
    taken: list[Material] = []
    subject = certificates(Control(), taken.append)
    async with running(subject):
        await subject.have.wait()
        subject.revoked(Revoked({"serial:1": ""}))
        subject.revoked(Revoked({f"serial:{taken[0].serial:x}": "by alice"}))
        while len(taken) < 2:
            await asyncio.sleep(0)
        subject.revoked(Revoked({f"serial:{taken[0].serial:x}": "by alice"}))  # told again: it is not ours any more
        await asyncio.sleep(0.05)
    assert len(taken) == 2
