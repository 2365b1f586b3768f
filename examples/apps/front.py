"""The shop's front end: finds catalogue and reviews by their DNS names and calls them, as any app would.

Its resolver is pointed at the sidecar's DNS (--dns); on a host of your own, the system's resolver would be. Or it calls
them by the sidecar's outbound port (--proxy), as HTTP_PROXY would have it.
"""

import argparse
import socket
from typing import Any

import aiohttp
import dnslib
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

HEADERS_PASSED_ON = ("x-tester", "x-request-id", "traceparent", "tracestate", "b3")


class Resolver(AbstractResolver):
    """Asks one DNS server over UDP."""

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self.address = (host, int(port))

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        answer = dnslib.DNSRecord.parse(dnslib.DNSRecord.question(host).send(*self.address, timeout=3))
        found = [str(record.rdata) for record in answer.rr if record.rtype == dnslib.QTYPE.A]
        if not found:
            raise OSError(f"{host}: {dnslib.RCODE[answer.header.rcode]}")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in found
        ]

    async def close(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--dns", metavar="HOST:PORT")
    how.add_argument("--proxy", metavar="URL")
    options = parser.parse_args()

    async def session(app: web.Application) -> Any:
        connector = aiohttp.TCPConnector(resolver=Resolver(options.dns) if options.dns else None, limit=0)
        app["session"] = aiohttp.ClientSession(connector=connector)
        yield
        await app["session"].close()

    async def passing(request: web.Request) -> web.Response:
        service, path = request.match_info["service"], request.match_info["path"]
        headers = {name: request.headers[name] for name in HEADERS_PASSED_ON if name in request.headers}
        url = f"http://{service}.default.svc.cluster.local:8080/{path}"
        async with request.app["session"].get(url, headers=headers, proxy=options.proxy) as answer:
            body = await answer.read()
            reason = {k: v for k, v in answer.headers.items() if k.lower() == "x-fairlead-reason"}
            return web.Response(body=body, status=answer.status, headers=reason)

    app = web.Application()
    app.cleanup_ctx.append(session)
    app.add_routes([web.get("/{service:catalogue|reviews}/{path:.*}", passing)])
    host, _, port = options.listen.rpartition(":")
    web.run_app(app, host=host, port=int(port), print=None)


if __name__ == "__main__":
    main()
