"""Somebody who has a sidecar and a certificate, but no business with the catalogue: asks for it once and tells."""

import argparse
import asyncio
import sys

import aiohttp


async def ask(proxy: str, url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url, proxy=proxy) as answer:
        print(answer.status, answer.headers.get("x-fairlead-reason", "-"))
        print((await answer.text()).strip())
        return 0 if answer.status == 200 else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxy", required=True, help="its sidecar's outbound port, as an HTTP proxy")
    parser.add_argument("url")
    options = parser.parse_args()
    sys.exit(asyncio.run(ask(options.proxy, options.url)))


if __name__ == "__main__":
    main()
