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

from ..proxy.exposition import family
from ..registry.needs import Fetch, FetchError
from .contexts import Material
from .identity import IdentityError
from .revocations import Revoked
from .rotation import is_alarming, reissue_in, renew_at, retry_in, skewed

CHILD_TIMEOUT_S = 30.0
LOOK_S = 30.0
"""Longest sleep before a look at the clock, which may be set, or have gone on while the host was suspended."""
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
        async with asyncio.timeout(CHILD_TIMEOUT_S):
            out, err = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise CertificateError(f"making a key took more than {CHILD_TIMEOUT_S:g} s") from None
    if child.returncode:
        why = err.decode("utf-8", "replace").strip()[-300:] or f"the child process ended with {child.returncode}"
        raise CertificateError(f"making a key failed: {why}")
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
        self.skew_s = 0.0
        """By how much our clock is ahead of control's, as far as that can be told (less than 0: behind)."""
        self.next_at = 0.0
        """When the certificate is to be renewed, Unix seconds."""
        self.attempts = 0
        """Failed ones of all time."""
        self.on_put: list[Callable[[Material], None]] = []
        """Told of what is in force from now on."""
        self.on_failure: list[Callable[[], None]] = []
        self._reissue = asyncio.Event()
        """The authority is another, or our certificate is revoked: a new one is wanted soon."""
        self._at_once = False
        self._given_up = -1
        """Serial number of the certificate of ours that was found revoked."""

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
                await self._until_due(self.current)
            await self._until_renewed()

    async def _until_due(self, held: Material) -> None:
        self.next_at = renew_at(held.issued, held.ends, random.random())
        while (left := self.next_at - self._clock()) > 0:
            try:
                async with asyncio.timeout(min(left, LOOK_S)):
                    await self._reissue.wait()
            except TimeoutError:
                continue
            self._reissue.clear()
            pause_s = 0.0 if self._at_once else reissue_in(held.ends - held.issued, random.random())
            self.next_at, self._at_once = min(self.next_at, self._clock() + pause_s), False

    def trust(self, roots: str, issuer: str) -> None:
        """Control tells which roots are in force now (PEM), and the key id of who issues. Raises IdentityError,
        ssl.SSLError where the roots cannot be used: then the old ones stay."""
        held = self.current
        if held is None:
            return
        if roots != held.roots:
            held = Material(held.certificates, held.key, roots, held.issued, held.ends)
            self._put(held)
            self._save(held)
            logger.info("trusting other roots from now on, as control says")
        if issuer and held.issuer and issuer != held.issuer:
            self._reissue.set()

    def revoked(self, revoked: Revoked) -> None:
        """Control tells what it has taken back. Ours is replaced at once, if we may have another."""
        held = self.current
        if held is None or held.serial not in revoked.serials or held.serial == self._given_up:
            return
        self._given_up = held.serial
        logger.error(
            "our certificate %x is revoked (%s): asking for another", held.serial, revoked.serials[held.serial]
        )
        self._at_once = True
        self._reissue.set()

    def late(self) -> bool:
        """The certificate should have been renewed: less than a third of its life is left, and a try has failed."""
        held = self.current
        return held is not None and self.failures > 0 and is_alarming(held.issued, held.ends, self._clock())

    def alarm(self) -> str:
        """Why operators should look at the certificate long before it ends; empty: all is well."""
        held, now = self.current, self._clock()
        if held is None or not self.late():
            return skewed(self.skew_s)
        left = held.ends - now
        over = f"ends in {left:.0f} s" if left > 0 else f"has ended {-left:.0f} s ago"
        return f"the certificate {over} and could not be renewed: {self.error or 'control was not asked yet'}"

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
                self.attempts += 1
                for fail in self.on_failure:
                    fail()
                self.error = f"{url}: {str(error).removeprefix(f'POST {url}/fairlead/v1/certificates: ')}"
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
            raise CertificateError(f"refused with status {reply.status}: {said_of(reply.status, reply.body)}")
        try:
            answer: dict[str, Any] = msgspec.json.decode(reply.body)
            ends = datetime.fromisoformat(str(answer["notAfter"]).replace("Z", "+00:00")).timestamp()
            self._compare_clocks(answer.get("time"), asked, self._clock())
            material = Material(answer["certificates"], key, answer["roots"], asked, ends)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise CertificateError(f"the answer cannot be read: {error}") from error
        if ends <= self._clock():
            raise CertificateError(
                f"the new certificate has already ended by our clock: {skewed(self.skew_s) or 'its life is too short'}"
            )
        if material.not_before > self._clock():
            why = skewed(self.skew_s) or "control backdates nothing"
            raise CertificateError(f"the new certificate is not valid yet by our clock: {why}")
        return material

    def _compare_clocks(self, theirs: Any, asked: float, answered: float) -> None:
        """Control's clock as it answered was read between our two moments: what is outside of them is skew."""
        if isinstance(theirs, bool) or not isinstance(theirs, (int, float)):
            return
        before = skewed(self.skew_s)
        self.skew_s = asked - theirs if theirs < asked else answered - theirs if theirs > answered else 0.0
        if (now := skewed(self.skew_s)) and not before:
            logger.warning("%s", now)

    def _put(self, material: Material) -> None:
        self._take(material)
        self.current = material
        self._reissue.clear()
        self.have.set()
        for tell in self.on_put:
            tell(material)
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


def renewal_metrics(certificates: Certificates) -> list[str]:
    """Lines of the Prometheus format."""
    found: list[str] = []
    for name, kind, text, value in (
        ("fairlead_certificate_renewals_total", "counter", "Certificates had from control.", certificates.renewals),
        ("fairlead_certificate_failures_total", "counter", "Tries that failed.", certificates.attempts),
        ("fairlead_certificate_failures", "gauge", "Tries that failed since the last success.", certificates.failures),
        ("fairlead_certificate_renewal_timestamp_seconds", "gauge", "When it is renewed.", certificates.next_at),
        ("fairlead_certificate_alarm", "gauge", "1: it should have been renewed long ago.", int(certificates.late())),
        ("fairlead_clock_skew_seconds", "gauge", "Our clock ahead of control's.", round(certificates.skew_s, 3)),
    ):
        found += family(name, kind, text, [({}, value)])
    return found


def said_of(status: int, body: bytes | bytearray | memoryview) -> str:
    """What a refusal of control says, of a Status object or as text."""
    try:
        told = msgspec.json.decode(body)
        if isinstance(told, dict) and told.get("message"):
            return str(told["message"])
    except msgspec.MsgspecError:
        pass
    text = bytes(body[:200]).decode("utf-8", "replace").strip()
    return f"{text or 'no such path'}: is the control API there, of this version?" if status == 404 else text
