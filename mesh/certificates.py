"""Shell: a workload's certificate: asked for with a key of its own, renewed in time, kept on disk for a restart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ..registry.needs import Fetch, FetchError
from .contexts import Material
from .identity import IdentityError
from .rotation import is_alarming, renew_at, retry_in

CHILD_TIMEOUT_S = 30.0
logger = logging.getLogger("fairlead.certificates")


class CertificateError(Exception):
    """No certificate this time; the message says why."""


class Kept(msgspec.Struct):
    certificates: str
    key: str
    roots: str
    issued: float
    ends: float


async def make_request() -> tuple[str, str]:
    """A new key and its certificate request (PEM both), made in a child so that we need no cryptography ourselves."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", __name__.rpartition(".")[0] + ".csr",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(child.communicate(), CHILD_TIMEOUT_S)
    except TimeoutError:
        child.kill()
        await child.wait()
        raise CertificateError(f"making a key took more than {CHILD_TIMEOUT_S:g} s") from None
    if child.returncode:
        raise CertificateError(f"making a key failed: {err.decode('utf-8', 'replace').strip()[-300:]}")
    made: dict[str, str] = msgspec.json.decode(out)
    return made["key"], made["csr"]


class Certificates:
    """Gets certificates from control and hands each to `take(material)`; keeps the last in `keep`."""

    def __init__(
        self,
        fetch: Fetch,
        urls: list[str],
        body: Mapping[str, str],
        headers: Callable[[], Mapping[str, str]],
        take: Callable[[Material], None],
        keep: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fetch = fetch
        self._urls = urls
        self._body = dict(body)
        """Who we are: namespace, workload."""
        self._headers = headers
        self._take = take
        self._keep = keep
        self._clock = clock
        self.current: Material | None = None
        self.failures = 0
        """In a row, to renew."""
        self.renewals = 0
        self.error = ""
        self.unsaved = ""
        """Why the certificate in force is not on disk; empty: it is, or is not to be kept."""
        self.have = asyncio.Event()

    def hand_over(self) -> None:
        """A successor keeps its own on disk."""
        self._keep = None

    def start_from_disk(self) -> bool:
        """Use the certificate kept on disk, if it is still good."""
        if self._keep is None or not self._keep.is_file():
            return False
        try:
            kept = msgspec.json.decode(self._keep.read_bytes(), type=Kept)
            if kept.ends <= self._clock():
                logger.warning("the certificate kept in %s has expired", self._keep)
                return False
            self._put(Material(kept.certificates, kept.key, kept.roots, kept.issued, kept.ends))
        except (OSError, msgspec.MsgspecError, IdentityError, ssl.SSLError) as error:
            logger.warning("the certificate kept in %s is not used: %s", self._keep, error)
            return False
        return True

    async def run(self) -> None:
        """Have a certificate, for ever."""
        while True:
            if self.current is not None:
                due = renew_at(self.current.issued, self.current.ends, random.random())
                await asyncio.sleep(max(due - self._clock(), 0.0))
            await self._until_renewed()

    async def _until_renewed(self) -> None:
        failures = 0
        while True:
            url = self._urls[failures % len(self._urls)]
            try:
                material = await self._ask(url)
                self._put(material)
            except (CertificateError, FetchError, IdentityError, ssl.SSLError) as error:
                failures += 1
                self.failures = failures
                self.error = f"{url}: {error}"
                now, held = self._clock(), self.current
                level = logging.ERROR if held is None or is_alarming(held.issued, held.ends, now) else logging.WARNING
                left = f"; the one we have ends in {held.ends - now:.0f} s" if held is not None else ""
                logger.log(level, "no certificate from control: %s%s", self.error, left)
                life = held.ends - held.issued if held is not None else 1200.0
                await asyncio.sleep(retry_in(failures, life, random.random()))
            else:
                self.failures, self.error = 0, ""
                self.renewals += 1
                self._save(material)
                return

    async def _ask(self, url: str) -> Material:
        key, csr = await make_request()
        asked = self._clock()
        reply = await self._fetch.request(
            "POST",
            f"{url}/fairlead/v1/certificates",
            headers={**self._headers(), "content-type": "application/json"},
            body=msgspec.json.encode({**self._body, "csr": csr}),
            timeout_s=15.0,
        )
        if reply.status not in (200, 201):
            raise CertificateError(f"refused with status {reply.status}: {_said(reply.body)}")
        try:
            answer: dict[str, Any] = msgspec.json.decode(reply.body)
            ends = datetime.fromisoformat(str(answer["notAfter"]).replace("Z", "+00:00")).timestamp()
            return Material(answer["certificates"], key, answer["roots"], asked, ends)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise CertificateError(f"the answer cannot be read: {error}") from error

    def _put(self, material: Material) -> None:
        if material.issued > self._clock() + 60:
            logger.warning("our clock is behind control's: the certificate begins in the future")
        self._take(material)
        self.current = material
        self.have.set()
        logger.info("certificate %x in force, ends in %.0f s", material.serial, material.ends - self._clock())

    def _save(self, material: Material) -> None:
        if self._keep is None:
            return
        kept = Kept(material.certificates, material.key, material.roots, material.issued, material.ends)
        draft = self._keep.with_suffix(".new")
        try:
            self._keep.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(kept))
            draft.replace(self._keep)
            self.unsaved = ""
        except OSError as error:
            self.unsaved = f"the certificate could not be kept on disk: {error}"
            logger.error("%s", self.unsaved)
            with contextlib.suppress(OSError):
                draft.unlink()


def _said(body: bytes) -> str:
    """What a refusal says, of a Status object or as text."""
    try:
        told = msgspec.json.decode(body)
        if isinstance(told, dict) and told.get("message"):
            return str(told["message"])
    except msgspec.MsgspecError:
        pass
    return body[:200].decode("utf-8", "replace").strip()
