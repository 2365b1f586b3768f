"""The app behind the sidecars: says what it saw, streams in both directions, echoes WebSockets. HTTP and HTTPS."""

from __future__ import annotations

import hashlib
import ssl
import sys
from pathlib import Path

import uvloop
from aiohttp import WSMsgType, web

BLOCK = bytes(range(256)) * 1024
SHOWN_MAX = 1 << 20
"""Of a larger body the length is told, not the hash: it would be what is measured."""


async def seen(request: web.Request) -> web.Response:
    length, digest = 0, hashlib.sha256()
    async for chunk in request.content.iter_any():
        length += len(chunk)
        if length <= SHOWN_MAX:
            digest.update(chunk)
    return web.json_response(
        {
            "method": request.method,
            "path": request.path_qs,
            "version": f"{request.version.major}.{request.version.minor}",
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "length": length,
            "sha256": digest.hexdigest() if length <= SHOWN_MAX else "",
        },
        headers={"x-app": "yes"},
    )


async def many_bytes(request: web.Request) -> web.StreamResponse:
    """So many octets 0, 1, ... 255, 0, ...; with a length, or in chunks."""
    left = int(request.match_info["count"])
    answer = web.StreamResponse()
    if request.match_info["how"] == "bytes":
        answer.content_length = left
    else:
        answer.enable_chunked_encoding()
    await answer.prepare(request)
    while left > 0 and request.method != "HEAD":
        await answer.write(BLOCK[: min(left, len(BLOCK))])
        left -= len(BLOCK)
    await answer.write_eof()
    return answer


async def websocket(request: web.Request) -> web.WebSocketResponse:
    answer = web.WebSocketResponse(max_msg_size=0)
    await answer.prepare(request)
    async for message in answer:
        if message.type == WSMsgType.TEXT:
            await answer.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await answer.send_bytes(message.data)
    return answer


async def serve(http: int, https: int, folder: Path) -> web.AppRunner:
    app = web.Application(client_max_size=0)
    app.router.add_get("/{how:bytes|chunks}/{count:[0-9]+}", many_bytes)
    app.router.add_get("/ws", websocket)
    app.router.add_route("*", "/{path:.*}", seen)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    await web.TCPSite(runner, "127.0.0.1", http, backlog=4096).start()
    await web.TCPSite(runner, "127.0.0.1", https, ssl_context=context).start()
    return runner


if __name__ == "__main__":
    loop = uvloop.new_event_loop()
    loop.run_until_complete(serve(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
    loop.run_forever()
