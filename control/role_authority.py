"""Shell: the authority of a control plane as its flags say: a key in a file, the operator's PKI, or Vault."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .api import ControlApi
from .authority_files import CaFiles, Issuer, open_authority
from .certs_api import CertsApi
from .feed_server import FeedServer
from .issued import Issued, IssuedLeaf
from .issued_file import IssuedFile
from .revoke_api import RevokeApi
from .role_common import Tasks
from .server_tls import ServerContext
from .settings import SettingError
from .shared_issued import SharedIssued
from .shared_rotation import SharedRotation
from .shared_sidecars import SharedSidecars
from .store_shared import SharedStore

LOOK_S = 60.0
ELSEWHERE_S = 10.0
"""So long what other control planes have issued is taken to be as it was read."""
NAME = "plane.id"
logger = logging.getLogger("fairlead.certificates")


async def open_issuer(options: Any, data: Path) -> Any:
    """The signer that the flags name. Raises OSError, ValueError, SettingError."""
    if options.vault:
        if options.ca_certificate or options.ca_key:
            raise SettingError("--vault and --ca-certificate: one authority, please")
        from .vault_issuer import open_vault

        return await open_vault(options, os.environ)
    if bool(options.ca_certificate) != bool(options.ca_key):
        raise SettingError("--ca-certificate and --ca-key go together")
    files = None
    if options.ca_certificate:
        roots = Path(options.ca_roots) if options.ca_roots else None
        files = CaFiles(Path(options.ca_certificate), Path(options.ca_key), roots)
    elif options.ca_roots:
        raise SettingError(
            "--ca-roots: the roots above --ca-certificate or --vault; further ones go to other-roots.pem in --data-dir"
        )
    return open_authority(data, options.trust_domain, options.certificate_ttl, files)


class AuthorityRole:
    """Issuer, record, certs API and what has to be looked at now and then, together."""

    def __init__(self, issuer: Any, data: Path, api: ControlApi, feed: FeedServer) -> None:
        """Raises OSError."""
        self.issuer = issuer
        self._file = IssuedFile(data / "issued.jsonl", time.time())
        self.record = self._file.record
        self._shared: SharedIssued | None = None
        api.certificates.record = self._add
        self.certs = CertsApi(issuer, self._file.record, feed)
        self.contexts: list[ServerContext] = []
        """Of the API's listeners."""
        issuer.changed.append(self._renew_contexts)
        api.add_routes(self.certs.routes())
        revocations = api.door.authenticator.revocations
        self.revoke = RevokeApi(
            api.store, revocations, feed, self.record, issuer.ttl_s, lambda: self.certs.all_issued(True),
            self.certs.holders,
        )  # fmt: skip
        api.add_routes(self.revoke.routes())
        self.certs.revoked = self.revoke.listed
        api.certificates.revocations = revocations
        api.certificates.lineage, api.certificates.take_back = self._lineage, self.revoke.of_token
        self._elsewhere: tuple[float, Issued] = (float("-inf"), Issued())
        """(when it was read, what all control planes have issued)."""

    def share(self, store: SharedStore, sidecars: SharedSidecars, data: Path) -> None:
        """Rotate together with the other control planes of the store. Raises OSError."""
        self._shared = SharedIssued(store.backend, lasting_name(data), self.record, time.time())
        where = f"{socket.gethostname()}:{data.absolute()}"
        sidecars.own_holders = self.certs.own_holders
        self.certs.planes = SharedRotation(store, sidecars, self.issuer, self._shared, where, time.time)

    def _add(self, leaves: Sequence[IssuedLeaf]) -> None:
        self._file.add(leaves)
        if self._shared is not None:
            for leaf in leaves:
                self._shared.note(leaf)

    async def _lineage(self, serial: str, workload: str, identity: str) -> str:
        """Id of the token with which a certificate began that is renewed now; empty: not known."""
        leaf = self.record.find(serial, workload, identity)
        if leaf is None and self._shared is not None:  # it is of another control plane, which is away
            at, issued = self._elsewhere
            if time.monotonic() - at > ELSEWHERE_S:
                issued, _ = await self.certs.all_issued(True)
                self._elsewhere = time.monotonic(), issued
            leaf = issued.find(serial, workload, identity)
        return leaf.token if leaf is not None else ""

    def _renew_contexts(self) -> None:
        for context in self.contexts:
            context.renew()

    def reload(self) -> None:
        """SIGHUP: the operator's files may be others."""
        if not isinstance(self.issuer, Issuer):
            return
        try:
            self.issuer.reload(time.time())
        except (OSError, ValueError) as error:
            logger.error("the authority in force stays: %s", error)

    def start(self, tasks: Tasks) -> None:
        tasks.start("authority", self._watch())
        tasks.start("revocations", self.revoke.run())
        if hasattr(self.issuer, "run"):
            tasks.start("vault", self.issuer.run())

    async def _watch(self) -> None:
        while True:
            self.certs.look(time.time())
            for context in self.contexts:
                context.renew_if_due()
            await asyncio.sleep(LOOK_S)

    def metrics(self) -> list[str]:
        return self.certs.metrics(time.time())

    async def close(self) -> None:
        self._file.close()
        if hasattr(self.issuer, "vault"):
            await self.issuer.vault.close()


def lasting_name(data: Path) -> str:
    """The name of the control plane of this folder, which stays over restarts. Raises OSError."""
    path = data / NAME
    if not path.exists():
        path.write_text(secrets.token_hex(8))
    return "".join(one for one in path.read_text() if one.isalnum()) or "unnamed"
