"""Shell: the roots of the mesh as control tells of them, what we say back, and how we show ourselves to control.

Control tells of roots with the feed (`{"trust": {"roots": PEM, "issuer": key id}}`), so that they are trusted before
anybody has a certificate of them. `POST /fairlead/v1/feed/trust` says which roots we trust and which certificate we
use: a rotation goes on when everybody does. Towards control over TLS our certificate takes the place of the token once
we have one: a one-time token, or one that has expired, serves the first certificate alone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..proxy.client import HttpFetch
from ..registry.needs import FetchError
from .identity import IdentityError
from .pem import load_chain

if TYPE_CHECKING:
    from .certificates import Certificates
    from .contexts import Material
    from .feed import Feed

SERVICE_ACCOUNT = "x-fairlead-service-account"
"""Header with NAMESPACE/SERVICE_ACCOUNT: which of several a user is who comes by control's Unix socket."""
END = "-----END CERTIFICATE-----"
WORKERS_S = 0.05
"""How often it is looked whether all workers have taken new roots."""
TELL_AGAIN_S = 60.0
"""What is said is said again after so long: a control plane that was replaced hears it, too."""
logger = logging.getLogger("fairlead.certificates")


class _Trust(msgspec.Struct):
    roots: str = ""
    issuer: str = ""


class _Line(msgspec.Struct):
    trust: _Trust


_decode = msgspec.json.Decoder(_Line).decode


def fingerprints(roots: str) -> list[str]:
    """SHA-256 of each certificate of a PEM text, hexadecimal. Raises ValueError."""
    import hashlib  # where sidecars without control do not need it

    return [
        hashlib.sha256(ssl.PEM_cert_to_DER_cert(part[part.index("-----BEGIN") :] + END)).hexdigest()
        for part in roots.split(END)
        if "-----BEGIN CERTIFICATE-----" in part
    ]


class Credentials:
    """What a role shows control, and by which roots it knows control.

    `anchors`: the file of --ca, which always counts; the roots of the mesh are added to it as they come.
    """

    def __init__(self, fetch: HttpFetch, anchors: str, token: Callable[[], Mapping[str, str]]) -> None:
        """Raises OSError, ssl.SSLError where the file cannot be used."""
        self._fetch = fetch
        self._anchors = anchors
        self._token = token
        self._roots = ""
        self._material: Material | None = None
        self._shown = True
        """Whether the certificate is shown at present, rather than the token."""
        self._make()

    def headers(self) -> Mapping[str, str]:
        """The token, unless our certificate is shown."""
        return {} if self._showing() else self._token()

    def put(self, material: Material) -> None:
        """Our certificate of the moment, and the roots of the mesh."""
        self._material, self._roots, self._shown = material, material.roots, True
        self._make()

    def trust(self, roots: str) -> None:
        """The roots of the mesh, where we have no certificate (a DNS server)."""
        if roots != self._roots:
            self._roots = roots
            self._make()

    def failed(self) -> None:
        """Control let us not in: the next time the token is shown, if there is one; then the certificate again."""
        if self._material is not None and self._anchors and self._token():
            self._shown = not self._shown
            self._make()

    def _showing(self) -> bool:
        held = self._material
        return bool(self._anchors) and self._shown and held is not None and held.ends > time.time()

    def _make(self) -> None:
        if not self._anchors:
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=self._anchors)
        if self._roots:
            context.load_verify_locations(cadata=self._roots)
        if self._material is not None and self._showing():
            load_chain(context, self._material.certificates, self._material.key)
        self._fetch.tls = context


class Bundle:
    """Takes the roots that control tells of, and tells control what is trusted and used."""

    def __init__(
        self,
        fetch: HttpFetch,
        feed: Feed,
        credentials: Credentials,
        certificates: Certificates | None = None,
        static: Callable[[], Material | None] = lambda: None,
        everywhere: Callable[[str], bool] = lambda _roots: True,
    ) -> None:
        """`certificates` None: they are files of the operator (`static`), or there are none. `everywhere`: whether all
        of our processes trust these roots; before, control is not told."""
        self._fetch = fetch
        self._feed = feed
        self._credentials = credentials
        self._certificates = certificates
        self._static = static
        self._everywhere = everywhere
        self._news = asyncio.Event()
        feed.on_trust = self._take
        feed.on_connect.append(self._news.set)
        feed.on_failure.append(credentials.failed)
        if certificates is not None:
            certificates.on_put.append(self._put)
            certificates.on_failure.append(credentials.failed)

    def _put(self, material: Material) -> None:
        self._credentials.put(material)
        self._news.set()

    def _take(self, line: bytes) -> None:
        try:
            told = _decode(line).trust
            if not fingerprints(told.roots):
                raise IdentityError("there are none")
            if self._certificates is not None:
                self._certificates.trust(told.roots, told.issuer)
            self._credentials.trust(told.roots)
        except (msgspec.MsgspecError, ValueError, OSError) as error:
            logger.error("the roots that control tells of are not used, the ones in force stay: %s", error)

    async def run(self) -> None:
        """Tell control, for ever: what is new at once, what was not heard again."""
        pause_s = 0.05
        while True:
            try:
                async with asyncio.timeout(TELL_AGAIN_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            if not self._feed.connected or (body := self._said()) is None:
                continue
            if not self._everywhere(body.pop("pem")):
                await asyncio.sleep(WORKERS_S)
                self._news.set()
                continue
            try:
                answer = await self._fetch.request(
                    "POST",
                    f"{self._feed.url}/fairlead/v1/feed/trust",
                    headers={**self._credentials.headers(), "content-type": "application/json"},
                    body=msgspec.json.encode(body),
                    timeout_s=5.0,
                )
                if answer.status in (404, 405):  # a control plane of an older version
                    continue
                if answer.status != 204:
                    raise FetchError(f"status {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}")
            except FetchError as error:
                logger.warning("control did not hear which roots we trust: %s", error)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, 5.0)
                self._news.set()
                continue
            pause_s = 0.05

    def _said(self) -> dict[str, Any] | None:
        held = self._certificates.current if self._certificates is not None else self._static()
        if held is None:
            return None
        report = self._feed.report
        body = {name: report[name] for name in ("role", "namespace", "workload", "instance") if name in report}
        return {
            **body,
            "pem": held.roots,
            "roots": fingerprints(held.roots),
            "serial": f"{held.serial:x}",
            "issuer": held.issuer,
            "notAfter": held.ends,
            "static": self._certificates is None,
            "problem": self._certificates.error if self._certificates is not None else "",
        }
