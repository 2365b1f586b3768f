"""Shell: `fairlead envoy` and `fairlead grpc`: what stands beside an Envoy or a proxyless gRPC application.

It makes the key, gets the certificate and keeps it renewed, and writes the bootstrap.

The key is made here and never leaves the host. Whoever starts Envoy or the application waits for our line `ready`.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from pathlib import Path
from typing import Any

from ..mesh import trust
from ..mesh.certificates import Certificates
from ..mesh.contexts import Material, first_certificate
from ..mesh.identity import IdentityError, make
from ..proxy.client import HttpFetch
from ..registry.names import split_full_name
from ..registry.needs import FetchError
from . import xds_agent, xds_bootstrap
from .role_common import Signals, Tasks, logger, ready
from .role_common import run as run_role
from .role_sidecar import moved_of, named_port
from .settings import SettingError, bearer_token, cause, control_url, why
from .xds_node import ENVOY, GRPC, JSON, Node

FIRST_S = 60.0
"""How long control may take to give the first certificate."""
CONTROL = ("fairlead-system", "control")
"""Namespace and service account of control's own certificate."""


def envoy(options: Any) -> int:
    return run_role(lambda signals: Beside(options, ENVOY).run(signals))


def grpc(options: Any) -> int:
    return run_role(lambda signals: Beside(options, GRPC).run(signals))


class Beside:
    """One workload's files in one folder."""

    def __init__(self, options: Any, kind: str) -> None:
        self.options = options
        self.kind = kind
        self.folder = Path(options.data_dir).absolute()
        self.namespace, self.name = split_full_name(options.workload)
        ports = [part for part in options.ports.split(",") if part]
        if not all(part.isdigit() and 0 < int(part) <= 65535 for part in ports):
            raise SettingError(f"--ports: expected port numbers, got {options.ports!r}")
        if not options.token_file and not self._certificate_kept().is_file():
            logger.warning("without --token-file there is no certificate: no mutual TLS, and xDS in plain text")
        self.secure = bool(options.token_file) or self._certificate_kept().is_file()
        self.node = Node(self.namespace, self.name, kind, folder=str(self.folder) if self.secure else "")
        self.told: JSON = {
            "FOLDER": self.node.folder,
            "ADDRESS": options.address or "",
            "PORTS": ports,
            "LABELS": options.labels or {},
            "GROUP": options.group,
        }
        if kind == ENVOY:
            self._tell_envoy()

    def _tell_envoy(self) -> None:
        options = self.options
        named = [named_port(text) for text in options.listen]
        if options.drain and options.admin is None:
            raise SettingError("--drain: needs Envoy's --admin, by which its listeners are drained")
        if options.map and not options.gateway:
            raise SettingError("--map: only with --gateway")
        if options.gateway:
            if named:
                raise SettingError("--listen: not with --gateway, which has the ports of its Gateways")
            moved = moved_of(options.map)
            self.told |= {"GATEWAY": True, "MAP": [f"{port}={own}" for port, own in moved.items()]}
            return
        self.told |= {
            "OUTBOUND": _joined(options.outbound),
            "INBOUND": _joined(options.inbound) if self.secure else "",
            "APP_ADDRESS": options.app_address or "",
            "UPSTREAMS": [f"{_joined((one.host, one.port))}={one.service}:{one.service_port}" for one in named],
        }

    def _certificate_kept(self) -> Path:
        return self.folder / "certificate.json"

    async def run(self, signals: Signals) -> int:
        options = self.options
        tasks = Tasks(signals.stop)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SettingError(f"--data-dir {self.folder}: {why(error)}") from error
        fetch = HttpFetch(self._authorities())
        try:
            control = ""
            if self.secure:
                control = await self._certificate(fetch, signals, tasks)
                if not control:
                    return 1 if tasks.failed or not signals.stop.is_set() else 0
            path = self._bootstrap(control)
            ready(f"fairlead {self.kind} ready workload={options.workload} bootstrap={path}")
            if options.once:
                return 0
            await signals.stop.wait()
            if self.kind == ENVOY and options.drain:
                role, admin = "gateway" if options.gateway else "sidecar", _joined(options.admin)
                name = (self.namespace, self.name)
                await xds_agent.drain(fetch, self._urls(), self._headers(), role, name, admin, options.drain)
        finally:
            await tasks.close()
            await fetch.close()
        return 1 if tasks.failed else 0

    def _authorities(self) -> ssl.SSLContext | None:
        options = self.options
        if not any(control_url(url).startswith("https:") for url in options.control):
            return None
        if not options.ca:
            raise SettingError("--ca: needed to know an https control by (its file DATA-DIR/ca.pem)")
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(cafile=options.ca)
        except (OSError, ssl.SSLError) as error:
            raise SettingError(f"--ca {options.ca}: {cause(error)}") from error
        return context

    async def _certificate(self, fetch: HttpFetch, signals: Signals, tasks: Tasks) -> str:
        """Have one on disk, and keep it renewed; the identity of control, in its trust domain. Empty: in vain."""
        certificates = Certificates(
            fetch, self._urls(),
            {"namespace": self.namespace, "workload": self.name}, self._headers, self._take, self._certificate_kept(),
        )  # fmt: skip
        certificates.start_from_disk()
        refused = asyncio.Event()
        certificates.on_failure.append(lambda: refused.set() if _final(certificates.error) else None)
        tasks.start("certificates", certificates.run())
        waits = [asyncio.ensure_future(one.wait()) for one in (certificates.have, signals.stop, refused)]
        await asyncio.wait(waits, timeout=FIRST_S, return_when=asyncio.FIRST_COMPLETED)
        for one in waits:
            one.cancel()
        if certificates.current is None:
            logger.error("no certificate: %s", certificates.error or "control did not answer")
            return ""
        try:
            await self._tell(fetch, certificates)
        except xds_agent.RefusedError as error:
            logger.error("control does not let this account be workload %s: %s", self.options.workload, error)
            return ""
        except (FetchError, IdentityError, ssl.SSLError) as error:
            logger.warning("control did not tell of the mesh's roots: %s", error)
        tasks.start("roots", self._follow(fetch, certificates))
        der = ssl.PEM_cert_to_DER_cert(first_certificate(certificates.current.certificates))
        return str(make(trust.identity_of(der).trust_domain, *CONTROL))

    def _urls(self) -> list[str]:
        return [control_url(url) for url in self.options.control]

    async def _tell(self, fetch: HttpFetch, certificates: Certificates) -> float:
        """Hear of the mesh's roots, and tell which we have; seconds until the next time. Raises RefusedError,
        FetchError."""
        held = certificates.current
        told = await xds_agent.tell(fetch, self._urls(), self._headers(), self.namespace, self.name, held)
        if told is not None and told.roots:
            certificates.trust(told.roots, told.issuer)
        return min(told.again, xds_agent.AGENT_S_MOST) if told is not None else xds_agent.AGENT_S_MOST

    async def _follow(self, fetch: HttpFetch, certificates: Certificates) -> None:
        """The same, for ever: a root that comes is there before anybody has a certificate of it."""
        pause_s = xds_agent.AGENT_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                before = certificates.current
                pause_s = await self._tell(fetch, certificates)
                if certificates.current is not before:
                    await self._tell(fetch, certificates)  # who rotates roots waits for this word
            except (xds_agent.RefusedError, FetchError, IdentityError, ssl.SSLError) as error:
                logger.warning("control did not tell of the mesh's roots: %s", error)

    def _headers(self) -> dict[str, str]:
        if not self.options.token_file:
            return {}
        try:
            return {"authorization": f"Bearer {bearer_token(self.options.token_file)}"}
        except (OSError, ValueError) as error:
            logger.error("--token-file %s: %s", self.options.token_file, cause(error))
            return {}

    def _take(self, material: Material) -> None:
        """New material in the files that are watched. The secrets of Envoy are one file each, so key and certificate
        always fit; gRPC looks again where it finds two that do not."""
        version = f"{material.serial:x}"
        _replace(self.folder / xds_bootstrap.KEY_FILE, material.key)
        _replace(self.folder / xds_bootstrap.CHAIN_FILE, material.certificates)
        _replace(self.folder / xds_bootstrap.TRUST_FILE, material.roots)
        made = xds_bootstrap.secrets(material.certificates, material.key, material.roots, version)
        for name, content in made.items():
            _replace(self.folder / name, json.dumps(content))

    def _bootstrap(self, control: str) -> Path:
        options = self.options
        servers = [one for one in options.xds if one is not None]
        if not servers:
            raise SettingError("--xds: expected HOST:PORT of control's --xds-tls-listen")
        path = self.folder / f"{self.kind}.json"
        if self.kind == ENVOY:
            delta = not options.state_of_the_world
            made = xds_bootstrap.envoy(self.node, self.told, servers, control, options.admin, delta)
        else:
            made = xds_bootstrap.grpc(self.node, self.told, servers, self.secure)
        _replace(path, json.dumps(made, indent=2))
        return path


def _final(error: str) -> bool:
    """Whether another try would get the same answer."""
    return "refused with status 401" in error or "refused with status 403" in error


def _joined(address: tuple[str, int] | None) -> str:
    if address is None:
        return ""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _replace(path: Path, text: str) -> None:
    """Put a file in the place of another at once; only its owner may read it. Raises OSError."""
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
