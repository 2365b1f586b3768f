"""A catalogue of books, in whichever version it is started as; it can be told to fail, to show what the mesh does."""

import argparse
import asyncio

from aiohttp import web

BOOKS = {"v1": ["The Sea Around Us"], "v2": ["The Sea Around Us", "Longitude"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", choices=BOOKS, required=True)
    options = parser.parse_args()
    failing = False

    async def items(_request: web.Request) -> web.Response:
        if failing:
            return web.json_response({"instance": options.name, "error": "broken"}, status=500)
        return web.json_response(
            {"instance": options.name, "version": options.version, "books": BOOKS[options.version]}
        )

    async def slow(_request: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.json_response({"instance": options.name})

    async def fail(request: web.Request) -> web.Response:
        nonlocal failing
        failing = request.match_info["state"] == "on"
        return web.json_response({"instance": options.name, "failing": failing})

    app = web.Application()
    app.add_routes([web.get("/items", items), web.get("/slow", slow), web.post("/failing/{state:on|off}", fail)])
    host, _, port = options.listen.rpartition(":")
    web.run_app(app, host=host, port=int(port), print=None)


if __name__ == "__main__":
    main()
