"""Roots as control tells of them, what is said back, and what is shown to control."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from fairlead.mesh.bundle import Bundle, Credentials, fingerprints
from fairlead.mesh.certificates import Certificates
from fairlead.mesh.contexts import Contexts, Material
from fairlead.registry.needs import FetchError, Reply
from tests.mesh.certificates_made import authority, material

pytestmark = pytest.mark.asyncio
CA, OTHER = authority(), authority()
TOKEN = {"authorization": "Bearer flt_x"}


class Fetch:
    """Takes reports as control does; `script` says what the next answers are instead."""

    def __init__(self) -> None:
        self.tls: ssl.SSLContext | None = None
        self.told: list[dict[str, Any]] = []
        self.script: list[Reply | FetchError] = []
        self.heard = asyncio.Event()

    async def request(self, _method: str, url: str, *, body: bytes = b"", **_: Any) -> Reply:
        assert url == "http://control/fairlead/v1/feed/trust"
        if self.script:
            answer = self.script.pop(0)
            if isinstance(answer, FetchError):
                raise answer
            return answer
        self.told.append(msgspec.json.decode(body))
        self.heard.set()
        return Reply(204, {}, b"")


def feed() -> Any:
    report = {"role": "sidecar", "namespace": "default", "workload": "web-1", "instance": "i", "meshPort": "1"}
    return SimpleNamespace(
        report=report, connected=True, url="http://control", on_trust=None, on_connect=[], on_failure=[]
    )


@contextlib.asynccontextmanager
async def running(bundle: Bundle) -> AsyncIterator[None]:
    task = asyncio.create_task(bundle.run())
    try:
        async with asyncio.timeout(10):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def line(roots: str, issuer: str = "") -> bytes:
    return msgspec.json.encode({"trust": {"roots": roots, "issuer": issuer}, "version": ""})


async def test_fingerprints_are_of_the_der_of_each_root() -> None:
    ders = [ssl.PEM_cert_to_DER_cert(one.roots) for one in (CA, OTHER)]
    assert fingerprints("text\n" + CA.roots + OTHER.roots) == [hashlib.sha256(der).hexdigest() for der in ders]
    assert fingerprints("") == []
    with pytest.raises(ValueError, match=r"."):
        fingerprints("-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----")


async def test_control_hears_what_is_trusted_and_used_when_connected_and_when_it_changes() -> None:
    fetch, found = Fetch(), feed()
    certificates = Certificates(fetch, ["x"], {}, dict, lambda _: None)  # type: ignore[arg-type]
    bundle = Bundle(fetch, found, Credentials(fetch, "", dict), certificates)  # type: ignore[arg-type]
    made = material(CA)
    certificates._put(made)
    async with running(bundle):
        await fetch.heard.wait()
        fetch.heard.clear()
        told = fetch.told[0]
        assert (told["workload"], told["role"], told["static"]) == ("web-1", "sidecar", False)
        assert (told["roots"], told["issuer"]) == (fingerprints(CA.roots), CA.key_id.hex())
        found.on_trust(line(CA.roots + OTHER.roots))
        await fetch.heard.wait()
        assert fetch.told[1]["roots"] == fingerprints(CA.roots + OTHER.roots)
        fetch.heard.clear()
        fetch.script = [FetchError("away"), Reply(500, {}, b"")]
        found.on_connect[0]()
        await fetch.heard.wait()  # what was not heard is said again
        assert len(fetch.told) == 3


async def test_control_is_told_only_when_every_worker_trusts_the_new_roots() -> None:
    fetch, found, made, asked = Fetch(), feed(), material(CA), [False, False, True]
    shown = Credentials(fetch, "", dict)  # type: ignore[arg-type]

    def everywhere(roots: str) -> bool:
        return roots == CA.roots and asked.pop(0)

    bundle = Bundle(fetch, found, shown, None, lambda: made, everywhere)  # type: ignore[arg-type]
    async with running(bundle):
        found.on_connect[0]()
        await fetch.heard.wait()
    assert asked == []
    assert "pem" not in fetch.told[0]


async def test_roots_that_are_none_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    fetch, found, contexts, made = Fetch(), feed(), Contexts(lambda: ()), material(CA)
    certificates = Certificates(fetch, ["x"], {}, dict, contexts.take)  # type: ignore[arg-type]
    Bundle(fetch, found, Credentials(fetch, "", dict), certificates)  # type: ignore[arg-type]
    certificates._put(made)
    with caplog.at_level(logging.ERROR):
        for wrong in (line(""), line("garbage"), b'{"trust":5}', b'{"trust":{"roots":["x"]}}',
                      line("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")):  # fmt: skip
            found.on_trust(wrong)
    assert contexts.material is certificates.current is made
    assert caplog.text.count("the ones in force stay") == 5


async def test_an_operators_files_are_reported_and_left_alone() -> None:
    fetch, found, made = Fetch(), feed(), material(CA)
    bundle = Bundle(fetch, found, Credentials(fetch, "", dict), None, lambda: made)  # type: ignore[arg-type]
    found.on_trust(line(CA.roots + OTHER.roots))
    async with running(bundle):
        found.on_connect[0]()
        await fetch.heard.wait()
    assert (fetch.told[0]["static"], fetch.told[0]["roots"]) == (True, fingerprints(CA.roots))


async def test_once_there_is_a_certificate_it_is_shown_in_place_of_the_token_where_control_speaks_tls(
    tmp_path: Path,
) -> None:
    fetch, path = Fetch(), tmp_path / "ca.pem"
    path.write_text(CA.roots)
    shown = Credentials(fetch, str(path), lambda: TOKEN)  # type: ignore[arg-type]
    assert shown.headers() == TOKEN
    first = fetch.tls
    shown.put(material(CA))
    assert shown.headers() == {}
    assert fetch.tls is not first
    shown.failed()
    assert shown.headers() == TOKEN, "control let us not in: the token may still be good"
    shown.failed()
    assert shown.headers() == {}
    ended = material(CA)
    ended.ends = time.time() - 1
    shown.put(ended)
    assert shown.headers() == TOKEN
    plain = Credentials(Fetch(), "", lambda: TOKEN)  # type: ignore[arg-type]
    plain.put(material(CA))
    assert plain.headers() == TOKEN, "over plain HTTP there is no other way"


async def test_without_a_token_the_certificate_is_all_there_is(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(CA.roots)
    shown = Credentials(Fetch(), str(path), dict)  # type: ignore[arg-type]
    shown.put(material(CA))
    shown.failed()
    assert shown._showing()


async def test_control_is_known_by_the_operators_file_and_by_the_roots_of_the_mesh(tmp_path: Path) -> None:
    fetch, path = Fetch(), tmp_path / "ca.pem"
    path.write_text(CA.roots)
    shown = Credentials(fetch, str(path), dict)  # type: ignore[arg-type]
    assert fetch.tls is not None
    assert len(fetch.tls.get_ca_certs()) == 1
    shown.trust(CA.roots + OTHER.roots)
    assert len(fetch.tls.get_ca_certs()) == 2
    with pytest.raises(OSError, match="No such file"):
        Credentials(fetch, str(tmp_path / "none"), dict)  # type: ignore[arg-type]


async def test_what_is_shown_is_of_the_certificate_in_force() -> None:
    one = material(CA)
    assert Material(one.certificates, one.key, one.roots).issuer == CA.key_id.hex()
