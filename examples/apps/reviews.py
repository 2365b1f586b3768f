"""Reviews of books. Each takes a moment, so that many at once meet the pool limit."""

import argparse
import asyncio

from aiohttp import web


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--name", required=True)
    options = parser.parse_args()

    async def review(request: web.Request) -> web.Response:
        await asyncio.sleep(0.1)
        return web.json_response({"instance": options.name, "book": request.match_info["book"], "stars": 5})

    app = web.Application()
    app.add_routes([web.get("/{book}", review)])
    host, _, port = options.listen.rpartition(":")
    web.run_app(app, host=host, port=int(port), print=None)


if __name__ == "__main__":
    main()
