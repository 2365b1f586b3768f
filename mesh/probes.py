"""Shell: one run of a check: HTTP, TCP, a command, gRPC health; what came of it in words.

After Kubernetes' prober: each run has a connection of its own, redirects are followed to the same host only, output is
bounded, a command that takes too long is killed with all that it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

from ..proxy.client import HttpFetch
from ..registry.checks import OUTPUT_MOST, Check
from ..registry.needs import FetchError
from .grpc_health import HealthCall

REDIRECTS_MOST = 10
AFTER_EXIT_S = 0.1
"""For output that is still on its way when a command has ended; what it left running may hold the pipe for ever."""
Result = tuple[bool, str]


async def run(check: Check, host: str, port: int) -> Result:
    """(passed, what came of it); never raises but for cancellation. `port` is not looked at for a command."""
    try:
        async with asyncio.timeout(check.timeout_s):
            if check.kind == "http":
                return await _http(check, host, port)
            if check.kind == "tcp":
                return await _tcp(host, port)
            if check.kind == "grpc":
                return await _grpc(check, host, port)
            return await _command(check)
    except TimeoutError:
        return False, f"no result within {check.timeout_s:g} s"
    except (OSError, ssl.SSLError, FetchError, ValueError) as error:
        return False, str(error)


def _context(check: Check, protocols: list[str]) -> ssl.SSLContext | None:
    if not check.tls:
        return None
    if check.verify:
        made = ssl.create_default_context()
    else:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols(protocols)
    return made


async def _http(check: Check, host: str, port: int) -> Result:
    named = f"[{host}]" if ":" in host else host
    url = f"{'https' if check.tls else 'http'}://{named}:{port}{check.path}"
    fetch = HttpFetch(_context(check, ["http/1.1"]), check.server_name or None)
    headers = {"user-agent": "fairlead-probe", "accept": "*/*", "connection": "close"}
    given = {name.lower() for name, _ in check.headers}
    headers = {name: value for name, value in headers.items() if name not in given}
    for name, value in check.headers:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    try:
        method, body = check.method, check.body.encode()
        for _ in range(REDIRECTS_MOST + 1):
            async with fetch.stream(
                method, url, headers=headers, body=body, connect_timeout_s=check.timeout_s + 1
            ) as answer:
                target = answer.headers.get("location") if answer.status in (301, 302, 303, 307, 308) else None
                if target and check.redirects:
                    onward = urljoin(url, target)
                    parts = urlsplit(onward)
                    if parts.scheme in ("http", "https") and parts.hostname == urlsplit(url).hostname:
                        if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
                            method, body = "GET", b""
                        if parts.scheme == "https" and fetch.tls is None:
                            return False, f"redirected to {onward[:200]}: check https itself"
                        url = onward
                        continue
                text = await _text(answer)
                passed = any(low <= answer.status <= high for low, high in check.statuses)
                return passed, _told(check, method, url, answer.status, text)
        return False, f"{check.method} {url[:200]}: more than {REDIRECTS_MOST} redirects"
    finally:
        await fetch.close()


async def _text(answer: object) -> str:
    """The beginning of a body."""
    data = b""
    async for piece in answer:  # type: ignore[attr-defined]
        data += piece
        if len(data) >= OUTPUT_MOST:
            break
    return data[:OUTPUT_MOST].decode("utf-8", "replace").replace("\0", "\ufffd")


def _told(check: Check, method: str, url: str, status: int, text: str) -> str:
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    return f"{method} {url[:200]}: {status} {phrase}".rstrip() + (f"\n{text}" if text else "")


async def _tcp(host: str, port: int) -> Result:
    _, writer = await asyncio.open_connection(host, port)
    writer.transport.abort()
    return True, f"connected to {host}:{port}"


async def _grpc(check: Check, host: str, port: int) -> Result:
    tls = _context(check, ["h2"])
    reader, writer = await asyncio.open_connection(
        host, port, ssl=tls, server_hostname=(check.server_name or host) if tls else None
    )
    try:
        call = HealthCall(check.service, check.server_name or f"{host}:{port}", check.tls)
        while call.result is None:
            writer.write(call.output())
            data = await reader.read(65536)
            if data:
                call.receive(data)
            else:
                call.closed()
        return call.result
    finally:
        writer.transport.abort()


async def _command(check: Check) -> Result:
    try:
        process = await asyncio.create_subprocess_exec(
            *check.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return False, f"{check.command[0]}: {error.strerror or error}"
    kept = bytearray()

    async def read() -> None:
        assert process.stdout is not None
        while piece := await process.stdout.read(4096):
            kept.extend(piece[: OUTPUT_MOST - len(kept)])  # the rest is read and thrown away: it must not block

    reading = asyncio.ensure_future(read())
    try:
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        await asyncio.wait({reading}, timeout=AFTER_EXIT_S)
    finally:
        reading.cancel()
        if process.returncode is not None:
            process._transport.close()  # type: ignore[attr-defined]  # the pipe may be held by what it left running
    text = bytes(kept).decode("utf-8", "replace").replace("\0", "\ufffd").strip()
    ended = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
    return code in check.exits, f"{ended}: {text}" if text else ended
