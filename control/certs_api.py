"""Shell: what is issued and trusted, over HTTP, and the steps of a rotation.

`GET /fairlead/v1/certs` answers what `fairlead certs` shows. `POST /fairlead/v1/certs/rotation` {"step": "start" |
"issue" | "finish" | "abort", "force": bool} takes a step; 409 says what it has to wait for. For administrators.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web
from cryptography import x509

from ..mesh.authority_checks import fingerprint
from .api_context import current
from .certificates_api import fields, only_admin, text
from .feed_server import FeedServer
from .issued import Issued, IssuedLeaf
from .revocations import SERIAL
from .rotation import Holder, RotationError, holders_of, lacking, told, using
from .status import StatusError, bad_request
from .store import ConflictError, StoreError
from .xds_agents import Agents

if TYPE_CHECKING:
    from .shared_rotation import SharedRotation

WARN_SHARE = 0.1
"""Of the life of a root or intermediate: what is left when it begins to be a warning."""
WARN_S = 30 * 86400.0
"""But not more than this."""
WARN_EVERY_S = 6 * 3600.0
LEAVES_MOST = 100_000
UNKNOWN = "what another control plane has issued cannot be read (an older version, or too much for the store)"
logger = logging.getLogger("fairlead.certificates")


class CertsApi:
    """`issuer`: see authority_files.Issuer and vault_issuer.VaultIssuer."""

    def __init__(self, issuer: Any, issued: Issued, feed: FeedServer, clock: Callable[[], float] = time.time) -> None:
        self._issuer = issuer
        self._issued = issued
        self._feed = feed
        self._clock = clock
        self._line = b""
        self._warned_at = float("-inf")
        self._agents = Agents(feed, self._trust, clock)
        self.planes: SharedRotation | None = None
        """Other control planes of the same store."""
        self.revoked: Callable[[], list[dict[str, Any]]] = list
        """What is revoked, as shown."""
        feed.trust = lambda: self._line
        issuer.changed.append(self.tell)
        self.tell()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/fairlead/v1/certs", self._get),
            web.post("/fairlead/v1/certs/rotation", self._step),
            *self._agents.routes(),
        ]

    def _trust(self) -> dict[str, str]:
        return {"roots": self._issuer.roots(), "issuer": self._issuer.issuer()}

    def tell(self) -> None:
        """Tell every sidecar of the roots and the signer of the moment."""
        # In a message without items, which sidecars that know nothing of it take for a sign of life.
        self._line = msgspec.json.encode({"trust": self._trust(), "version": ""}) + b"\n"
        self._feed.publish()

    def holders(self) -> list[Holder]:
        """Sidecars of all control planes."""
        return [*self.own_holders(), *(self.planes.holders() if self.planes else ())]

    def own_holders(self) -> list[Holder]:
        """Sidecars and agents that speak with this control plane."""
        return self._agents.holders(holders_of(self._feed.members))

    async def _get(self, request: web.Request) -> web.Response:
        only_admin("see certificates")
        issued, whole = await self.all_issued()
        waits = [] if whole else [UNKNOWN]
        if self.planes and self._issuer.phase:
            waits += await self._of_planes(self._issuer.phase)
        return web.Response(body=msgspec.json.encode(self.shown(issued, waits)), content_type="application/json")

    async def all_issued(self, older: bool = False) -> tuple[Issued, bool]:
        """(what all control planes have issued, whether it is all: of each workload the last, or `older` ones, too)."""
        if self.planes is None:
            return self._issued, True
        try:
            return await self.planes.issued(older)
        except StoreError as error:
            logger.warning("what other control planes have issued is not known: %s", error)
            return self._issued, False

    async def _of_planes(self, phase: str) -> list[str]:
        try:
            return await self.planes.waits(phase) if self.planes else []
        except StoreError as error:
            return [f"other control planes cannot be heard: {error}"]

    def shown(self, issued: Issued, more: Sequence[str] = ()) -> dict[str, Any]:
        """`more`: what a step has to wait for at other control planes."""
        now, holders = self._clock(), self.holders()
        states = self._issuer.states()
        authorities = [authority_of(one, kind, state, now) for one, kind, state in states]
        roots = {one["fingerprint"]: one for one in authorities if one["kind"] == "root"}
        for root in roots.values():
            root["trustedBy"] = sum(1 for one in holders if root["fingerprint"] in one.trusts)
        strangers = {
            one.name: foreign for one in holders if (foreign := [root for root in one.trusts if root not in roots])
        }
        by_workload = {one.workload: one for one in holders}
        leaves = [leaf_of(leaf, by_workload.get(leaf.workload), now) for leaf in issued.last(now)][:LEAVES_MOST]
        seen = {leaf["workload"] for leaf in leaves}
        leaves += [
            {"workload": one.workload, "serial": one.serial, "issuer": one.issuer, "notAfter": one.not_after,
             "secondsLeft": round(one.not_after - now, 1), "connected": True, "trusts": list(one.trusts),
             "by": "file" if one.static else "another control plane", "identity": ""}
            for one in holders if one.told and one.serial and one.workload not in seen
        ]  # fmt: skip
        revoked = self.revoked()
        serials = {one["name"] for one in revoked if one["kind"] == SERIAL}
        for leaf in leaves:
            leaf["revoked"] = leaf["serial"] in serials
        return {
            "authority": self._issuer.kind,
            "trustDomain": self._issuer.trust_domain,
            "rotation": self._rotation(holders, issued, more, now),
            "authorities": authorities,
            "connected": len(holders),
            "trustOldRoots": strangers,
            "revoked": revoked,
            "leaves": sorted(leaves, key=lambda leaf: str(leaf["workload"])),
            "warnings": self.warnings(now),
        }

    def _rotation(
        self, holders: list[Holder], issued: Issued, more: Sequence[str], now: float
    ) -> dict[str, Any] | None:
        phase = self._issuer.phase
        if not phase:
            return None
        waits = [*more, *self._waits(holders, issued, now)]
        return {"phase": phase, "since": self._issuer.since, "waitsFor": waits}

    def _waits(self, holders: list[Holder], issued: Issued, now: float) -> list[str]:
        """What the next step has to wait for."""
        issuer = self._issuer
        if issuer.phase == "distributing":
            return lacking(holders, fingerprint(issuer.successor.root), issued, issuer.since, now)
        old = issuer.current
        revoked = {one["name"] for one in self.revoked() if one["kind"] == SERIAL}
        return using(holders, issued, old.key_id.hex(), now, revoked)

    async def _step(self, request: web.Request) -> web.Response:
        only_admin("rotate the root")
        body = await fields(request)
        step, force = text(body, "step", ""), body.get("force", False)
        if step not in ("start", "issue", "finish", "abort") or not isinstance(force, bool):
            raise bad_request("step: expected start, issue, finish or abort; force: true or false")
        now, issuer = self._clock(), self._issuer
        phase = {"issue": "distributing", "finish": "issuing"}.get(step)
        try:
            issued, whole = await self.all_issued()
            if phase is not None and issuer.phase == phase and not force:
                waits = [] if whole else [UNKNOWN]
                waits += [*await self._of_planes(phase), *self._waits(self.holders(), issued, now)]
                if waits:
                    raise RotationError(f"not yet: {told(waits)}")
            await self._take(step, now)
        except RotationError as error:
            raise StatusError(409, str(error)) from None
        except ConflictError:
            raise StatusError(409, "not yet: another control plane has just taken a step") from None
        except StoreError as error:
            raise StatusError(503, f"nothing was changed: {error}", retry_after_s=5) from None
        except OSError as error:
            raise StatusError(507, f"the rotation's state cannot be kept: {error}") from None
        logger.warning("rotation of the root: %s%s", step, " (forced)" if force else "")
        current().audit |= {"rotation": step, "forced": force, "signer": issuer.issuer()}
        return web.Response(body=msgspec.json.encode(self.shown(issued)), content_type="application/json")

    async def _take(self, step: str, now: float) -> None:
        """Raises RotationError, StoreError, OSError."""
        issuer = self._issuer
        take, after, expected = {
            "start": (lambda: issuer.begin(now), "distributing", ""),
            "issue": (lambda: issuer.activate(now), "issuing", "distributing"),
            "finish": (lambda: issuer.finish(now), "finished", "issuing"),
            "abort": (issuer.abort, "", "distributing"),
        }[step]
        if self.planes is None or issuer.phase != expected or not hasattr(issuer, "successor"):
            take()  # says itself what is wrong
        else:
            await self.planes.step(after, issuer.since or now, take)

    # --- warnings and metrics ---------------------------------------------------------------------------------------

    def warnings(self, now: float) -> list[str]:
        """Authorities that end soon: long before, since a rotation takes the life of a certificate."""
        found = []
        for certificate, kind, state in self._issuer.states():
            left = certificate.not_valid_after_utc.timestamp() - now
            life = left + now - certificate.not_valid_before_utc.timestamp()
            if state != "outgoing" and left < min(WARN_SHARE * life, WARN_S):
                name = certificate.subject.rfc4514_string()
                found.append(f"the {kind} `{name}` ends in {left / 86400:.1f} days: `fairlead certs rotate`")
        return found

    def look(self, now: float) -> None:
        """To be called now and then: logs what ends soon, forgets what has ended."""
        self._issued.forget(now)
        if now - self._warned_at >= WARN_EVERY_S:
            self._warned_at = now
            for warning in self.warnings(now):
                logger.warning("%s", warning)

    def metrics(self, now: float) -> list[str]:
        """Lines of the Prometheus format."""
        holders, states = self.holders(), self._issuer.states()
        lines = ["# TYPE fairlead_certificate_authority_expiry_timestamp_seconds gauge"]
        for certificate, kind, state in states:
            lines.append(
                f'fairlead_certificate_authority_expiry_timestamp_seconds{{kind="{kind}",state="{state}",'
                f'fingerprint="{fingerprint(certificate)}"}} {certificate.not_valid_after_utc.timestamp()}'
            )
        lines.append("# TYPE fairlead_root_trusted_by gauge")
        lines += [
            f'fairlead_root_trusted_by{{state="{state}",fingerprint="{fingerprint(one)}"}} '
            f"{sum(1 for holder in holders if fingerprint(one) in holder.trusts)}"
            for one, kind, state in states
            if kind == "root"
        ]
        first = min((leaf.not_after for leaf in self._issued.last(now)), default=0.0)
        phase = {"distributing": 1, "issuing": 2}.get(self._issuer.phase, 0)
        return [
            *lines,
            "# TYPE fairlead_certificates_held gauge",
            f"fairlead_certificates_held {sum(1 for _ in self._issued.last(now))}",
            "# TYPE fairlead_certificates_first_expiry_timestamp_seconds gauge",
            f"fairlead_certificates_first_expiry_timestamp_seconds {first}",
            "# HELP fairlead_root_rotation_phase 0 none, 1 the new root is distributed, 2 it issues.",
            "# TYPE fairlead_root_rotation_phase gauge",
            f"fairlead_root_rotation_phase {phase}",
        ]


def authority_of(certificate: x509.Certificate, kind: str, state: str, now: float) -> dict[str, Any]:
    ends = certificate.not_valid_after_utc.timestamp()
    return {
        "kind": kind,
        "state": state,
        "name": certificate.subject.rfc4514_string(),
        "fingerprint": fingerprint(certificate),
        "notBefore": certificate.not_valid_before_utc.timestamp(),
        "notAfter": ends,
        "daysLeft": round((ends - now) / 86400, 2),
    }


def leaf_of(leaf: IssuedLeaf, holder: Holder | None, now: float) -> dict[str, Any]:
    """A leaf as shown; what its sidecar, connected, says goes before what was issued last."""
    serial, issuer, ends, trusts = leaf.serial, leaf.issuer, leaf.not_after, []
    if holder is not None and holder.told:
        serial, issuer, ends = holder.serial or serial, holder.issuer or issuer, holder.not_after or ends
        trusts = list(holder.trusts)
    return {
        "workload": leaf.workload,
        "identity": leaf.identity,
        "serial": serial,
        "issuer": issuer,
        "issuedAt": leaf.issued_at,
        "notAfter": ends,
        "secondsLeft": round(ends - now, 1),
        "by": leaf.by,
        "connected": holder is not None,
        "trusts": trusts,
    }
