"""Requests that meet an app's idle timeout: `python bench/keepalive.py [--requests 10000] [--proxy Fairlead]`.

The app is uvicorn as it comes (it closes what was idle for five seconds); a thousand clients POST every 4.9 to 5.1
seconds through each proxy, which keeps a connection to the app for each. A POST that is lost may not be sent again, so
the proxy must not have used a connection at the moment at which it is closed. Exit code 1: a request failed through
Fairlead.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "build" / "view") not in sys.path:
    sys.path.append(str(ROOT / "build" / "view"))

from bench import machine, peers  # noqa: E402

CLIENTS = 1000
KEEPS_S = 5
APP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


async def client(port: int, seed: int, requests: int, seen: Counter[str]) -> None:
    draw = random.Random(seed)
    await asyncio.sleep(draw.random())  # not all at once
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(requests):
        try:
            writer.write(
                b"POST /api/items HTTP/1.1\r\nHost: web.default.svc.cluster.local\r\nContent-Length: 5\r\n\r\nhello"
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            await reader.readexactly(length)
            seen[head[9:12].decode()] += 1
            closed = b"connection: close" in head.lower()
        except (OSError, EOFError, ValueError) as error:
            seen[type(error).__name__] += 1
            closed = True
        if closed:
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if number + 1 < requests:
            await asyncio.sleep(KEEPS_S + draw.uniform(-0.1, 0.1))
    writer.close()


def through(peer: str, requests: int) -> Counter[str]:
    """Answers by status, or by what went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="fairlead-bench-"))
    (folder / "keeps.py").write_text(APP)
    machine.certificates(folder)
    backend = machine.free_ports(6)
    port = backend + 1
    app = [sys.executable, "-m", "uvicorn", "keeps:app", "--app-dir", str(folder), "--port", str(backend)]
    app += ["--log-level", "error"]
    seen: Counter[str] = Counter()

    async def all_of_them() -> None:
        await asyncio.gather(*(client(port, seed, requests // CLIENTS, seen) for seed in range(CLIENTS)))

    with (
        machine.started([app], machine.BOTH_CORES, [backend], folder),
        machine.started(
            peers.PEERS[peer]("l7", folder, port, backend), machine.BOTH_CORES, peers.ports_of("l7", port), folder
        ),
    ):
        asyncio.run(all_of_them())
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--proxy", action="append", choices=list(peers.PEERS))
    options = parser.parse_args()
    bad = 0
    for peer in options.proxy or ["Envoy", "HAProxy", "Fairlead"]:
        seen = through(peer, options.requests)
        failed = sum(count for what, count in seen.items() if what != "200")
        print(f"{peer}: {sum(seen.values())} requests, {failed} failed {dict(seen)}", flush=True)
        bad += failed if peer == "Fairlead" else 0
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
