"""The xDS protocol of one ADS stream, state of the world and incremental: who wants what, was sent what, said what.

Of a stream's types clusters go first, then their endpoints, then listeners and their routes, so that nothing refers to
what is not there yet (Envoy's xDS protocol, "make before break"). A cluster that changed gets its endpoints again, and
a listener its routes, since Envoy warms them anew and waits for both. A request whose nonce is not the last of its type
is out of date, and is not answered; but what it subscribes to counts if it is incremental, since the client says it
once. An answer (ACK) or a refusal (NACK, with `error_detail`) is of one type; `taken` and `refused` say the same of the
whole.

While responses are being written nothing is queued for what changes: a client that reads slowly, or not at all, is told
of all of it at once when it has read, so that it costs no memory meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .xds_wire import PREFIX

CDS = PREFIX + "envoy.config.cluster.v3.Cluster"
EDS = PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LDS = PREFIX + "envoy.config.listener.v3.Listener"
RDS = PREFIX + "envoy.config.route.v3.RouteConfiguration"
SDS = PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
ORDER = (CDS, EDS, SDS, LDS, RDS)
WHOLE = frozenset((CDS, LDS))
"""State of the world: a response has all that there is, and what it lacks is gone."""
NAMES_MAX = 100_000
"""Resources that one stream may name, for each type."""
REASON_MAX = 1000
Resources = Mapping[str, Mapping[str, tuple[str, bytes]]]
"""By type and name: version (a digest of the content), and the resource as an Any."""


class TooManyError(ValueError):
    """The client names more resources than a stream may."""


class _Type:
    """What is known of one type on one stream."""

    __slots__ = ("fresh", "names", "nonce", "owed", "pending", "refused", "sent", "wild")

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.wild = False
        self.nonce = ""
        """Of the response sent last."""
        self.pending = False
        """That one is not answered yet."""
        self.owed = False
        """A request is to be answered, be there anything or not."""
        self.refused = ""
        """Why the last answer was a refusal."""
        self.sent: dict[str, str] = {}
        """Versions by name, as last sent (incremental: or as the client says that it has them)."""
        self.fresh: set[str] = set()
        """To be sent whatever was sent before: just subscribed to, or warmed anew."""

    def wants(self, name: str) -> bool:
        return self.wild or name in self.names


class Session:
    """`update` and `request` queue responses, which `take` hands out: dictionaries for `xds_wire`. Who takes some
    writes them, and then takes again."""

    def __init__(self, delta: bool = False) -> None:
        self.delta = delta
        self.cut = ""
        """Why it is to end: who reads may not any more."""
        self.certificate: bytes | None = None
        """What the client showed, DER."""
        self.version = ""
        """Of what is served now."""
        self.taken = ""
        self.refused = ""
        """The version of which something was refused; empty once nothing is."""
        self.reasons: list[str] = []
        self._resources: Resources = {}
        self._types: dict[str, _Type] = {}
        self._count = 0
        self._out: list[dict[str, Any]] = []
        self._writing = False
        self._behind = False
        """There was something to send while others were being written."""

    @property
    def waiting(self) -> int:
        """How many responses are queued behind those that are being written."""
        return len(self._out)

    def take(self) -> list[dict[str, Any]]:
        """What is to be written now; those taken before have been."""
        if self._behind:
            self._behind = False
            self._send_all()
            self._settle()
        out, self._out = self._out, []
        self._writing = bool(out)
        return out

    def update(self, version: str, resources: Resources) -> None:
        """What is served from now on."""
        self.version, self._resources = version, resources
        if self._writing or self._out:
            self._behind = True
        else:
            self._send_all()
        self._settle()

    def _send_all(self) -> None:
        for url in ORDER:
            if url in self._types:
                self._send(url)

    def request(self, message: Mapping[str, Any]) -> None:
        """A DiscoveryRequest, or a DeltaDiscoveryRequest. Raises TooManyError."""
        url = str(message.get("type_url", ""))
        if url not in ORDER:
            return  # other types do not exist here, and are waited for
        first = url not in self._types
        known = self._types.setdefault(url, _Type())
        nonce = str(message.get("response_nonce", ""))
        if not first and nonce != known.nonce and not self.delta:
            return
        if nonce and nonce == known.nonce:
            self._answered(url, known, message.get("error_detail"))
        new = self._delta_names(known, message, first) if self.delta else self._names(known, message, first)
        if sum(len(one.names) for one in self._types.values()) > NAMES_MAX:
            raise TooManyError(f"more than {NAMES_MAX} resources are asked for on one stream")
        if new or first:
            known.owed = True
            if not self._behind:
                self._send(url)
        self._settle()

    def _answered(self, url: str, known: _Type, error: Any) -> None:
        known.pending = False
        if isinstance(error, Mapping) and (error.get("code") or error.get("message")):
            why = str(error.get("message") or f"code {error.get('code')}")[: 4 * REASON_MAX]
            why = " ".join(why.split())[:REASON_MAX]  # a stranger's text makes no lines of ours
            known.refused = f"{url.rpartition('.')[2]}: {why}"
        else:
            known.refused = ""

    def _names(self, known: _Type, message: Mapping[str, Any], first: bool) -> bool:
        """Take over what a state-of-the-world request subscribes to; whether anything is new."""
        names = set(message.get("resource_names") or ())
        if not names and (first or known.wild):
            wild = True
        else:
            wild = "*" in names
        names.discard("*")
        changed = names != known.names or wild != known.wild
        known.fresh |= names - known.names
        for gone in known.names - names:
            known.sent.pop(gone, None)
        known.names, known.wild = names, wild
        return changed

    def _delta_names(self, known: _Type, message: Mapping[str, Any], first: bool) -> bool:
        added = set(message.get("resource_names_subscribe") or ())
        removed = set(message.get("resource_names_unsubscribe") or ())
        if first:
            known.sent.update(message.get("initial_resource_versions") or {})
            known.wild = not added
        if "*" in added:
            known.wild = True
        if "*" in removed:
            known.wild = False
        known.fresh |= added - {"*"}
        known.names |= added - {"*"}
        known.names -= removed
        for name in removed:
            known.fresh.discard(name)
            if not known.wild:
                known.sent.pop(name, None)
        return bool(added)

    # --- responses --------------------------------------------------------------------------------------------------

    def _send(self, url: str) -> None:
        """Queue what of a type is new to the client."""
        known, served = self._types[url], self._resources.get(url, {})
        whatever, known.owed = known.owed, False
        wanted = {name: one for name, one in served.items() if known.wants(name)}
        changed = [name for name, one in wanted.items() if known.sent.get(name) != one[0] or name in known.fresh]
        gone = [name for name in known.sent if name not in wanted]
        absent = [name for name in known.fresh if name not in served and name not in gone]
        if not (changed or (gone and (self.delta or url in WHOLE)) or (self.delta and absent) or whatever):
            return
        if not self.delta and not wanted and url not in WHOLE:
            return  # nothing to tell of: it is waited for
        self._warm(url, changed)
        names = list(wanted) if not self.delta and url in WHOLE else changed
        self._count += 1
        known.nonce, known.pending = str(self._count), True
        known.fresh.clear()
        known.sent = {name: one[0] for name, one in wanted.items()}
        self._out.append(self._response(url, known.nonce, names, wanted, [*gone, *absent]))

    def _response(
        self, url: str, nonce: str, names: Iterable[str], wanted: Mapping[str, tuple[str, bytes]], gone: list[str]
    ) -> dict[str, Any]:
        if self.delta:
            resources = [{"name": name, "version": wanted[name][0], "resource": wanted[name][1]} for name in names]
            return {
                "system_version_info": self.version, "resources": resources, "type_url": url,
                "removed_resources": gone, "nonce": nonce,
            }  # fmt: skip
        octets = [wanted[name][1] for name in names]
        return {"version_info": self.version, "resources": octets, "type_url": url, "nonce": nonce}

    def _warm(self, url: str, changed: Iterable[str]) -> None:
        """What hangs on resources that changed is sent again, in its turn."""
        if url == CDS and EDS in self._types:
            self._types[EDS].fresh |= {name for name in changed if self._types[EDS].wants(name)}
        elif url == LDS and RDS in self._types and changed:
            self._types[RDS].fresh |= self._types[RDS].names

    def _settle(self) -> None:
        """What the whole client runs, or refuses."""
        reasons = [one.refused for one in self._types.values() if one.refused]
        if reasons:
            if reasons != self.reasons:
                self.refused = self.version
            self.reasons = reasons
        elif self.reasons:
            self.refused, self.reasons = "", []
        if not reasons and self._types and not self._behind and not any(one.pending for one in self._types.values()):
            self.taken = self.version
