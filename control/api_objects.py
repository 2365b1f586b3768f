"""Shell: the object API over HTTP: /api/v1/... and /apis/GROUP/VERSION/..., and its discovery documents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import yaml
from aiohttp import web
from msgspec.structs import replace

from . import catalog as discovery
from .api_body import YamlLoad, read_body, read_patch
from .api_context import current
from .api_request import JSON, Form, Query, Target, is_dry_run, negotiate, parse_path, parse_query
from .catalog import Catalog
from .deletion import policy_of
from .events import stored_selector
from .listing import list_body, page, spliced
from .objects import ObjectOperations, Result, external
from .openapi import OpenApi
from .openapi_v2 import V2_PROTOBUF, V2_PROTOBUF_ANSWER, OpenApiV2
from .status import StatusError, bad_request, no_such_path, success
from .store import Store
from .table import partial, table
from .watch_hub import WatchHub

BODY_TIMEOUT_S = 30.0
YAML_WEIGHS = 8
"""YAML takes so many times as long to read as JSON, and more."""
encode = msgspec.json.encode


async def body_of(request: web.Request) -> bytes:
    """The whole body. Raises StatusError 408; aiohttp raises 413 beyond its limit."""
    try:
        if request.content.is_eof():  # it has come with its head, as most do
            return await request.read()
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise StatusError(408, f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s") from None
    except ConnectionError:
        raise StatusError(400, "the connection was cut before the whole body had come") from None


def weight(data: bytes, content_type: str) -> int:
    """Bytes of JSON that take as long to read."""
    return len(data) * (YAML_WEIGHS if "yaml" in content_type.lower() else 1)


def respond(
    request: web.Request, body: Any, code: int = 200, form: Form = JSON, warnings: tuple[str, ...] = ()
) -> web.Response:
    """An answer of JSON (bytes are JSON already), YAML where that was asked for."""
    if form.media == "application/yaml":
        value = msgspec.json.decode(body) if isinstance(body, bytes) else body
        data = yaml.dump(value, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False).encode()
    else:
        data = body if isinstance(body, bytes) else encode(body)
        if wants_pretty(request):
            data = msgspec.json.format(data, indent=2) + b"\n"
    response = web.Response(body=data, status=code)
    response.headers["Content-Type"] = form.media
    response.headers["Cache-Control"] = "no-cache, private"
    for warning in warnings[:20]:
        response.headers.add("Warning", f'299 - "{quoted(warning)}"')
    return response


def wants_pretty(request: web.Request) -> bool:
    asked = request.query.get("pretty")
    if asked is not None:
        return asked.lower() in ("", "1", "true", "t")
    return request.headers.get("User-Agent", "").startswith(("curl/", "Wget/", "Mozilla/", "HTTPie/"))


def quoted(text: str) -> str:
    """For within the quotes of a Warning header."""
    flat = " ".join(text.split())[:1000].replace("\\", "\\\\").replace('"', '\\"')
    return flat.encode("ascii", "backslashreplace").decode()


class ObjectApi:
    """Handlers of one API server."""

    def __init__(
        self, store: Store, catalog: Catalog, operations: ObjectOperations, openapi: OpenApi, hub: WatchHub,
        load_yaml: YamlLoad, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._store = store
        self._catalog = catalog
        self._operations = operations
        self._openapi = openapi
        self._openapi_two = OpenApiV2(openapi)
        self._hub = hub
        self._load_yaml = load_yaml
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self._index),
            web.get("/api", self._api),
            web.get("/api/", self._api),
            web.get("/apis", self._apis),
            web.get("/apis/", self._apis),
            web.get("/openapi/v2", self._openapi_v2),
            web.get("/openapi/v3", self._openapi_root),
            web.get("/openapi/v3/{path:.+}", self._openapi_document),
            web.get("/api/{version}{_:/?}", self._resources),
            web.get("/apis/{group}{_:/?}", self._group),
            web.get("/apis/{group}/{version}{_:/?}", self._resources),
            web.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", self._definitions),
            web.route("*", "/api/{rest:.+}", self._object),
            web.route("*", "/apis/{rest:.+}", self._object),
        ]

    # --- discovery --------------------------------------------------------------------------------------------------

    async def _index(self, request: web.Request) -> web.Response:
        paths = {str(resource.canonical) for resource in request.app.router.resources()}
        return respond(request, {"paths": sorted(path for path in paths if "{" not in path and path != "/")})

    async def _api(self, request: web.Request) -> web.Response:
        if self._wants_aggregated(request):
            return self._aggregated(request, True)
        return respond(request, discovery.api_versions(request.host))

    async def _apis(self, request: web.Request) -> web.Response:
        if self._wants_aggregated(request):
            return self._aggregated(request, False)
        return respond(request, discovery.group_list(self._catalog))

    def _wants_aggregated(self, request: web.Request) -> bool:
        return negotiate(request.headers.get("Accept", "")).as_ == "APIGroupDiscoveryList"

    def _aggregated(self, request: web.Request, core: bool) -> web.Response:
        response = respond(request, discovery.aggregated(self._catalog, core))
        response.headers["Content-Type"] = discovery.AGGREGATED
        response.headers["Vary"] = "Accept"
        return response

    async def _group(self, request: web.Request) -> web.Response:
        found = discovery.group(self._catalog, request.match_info["group"])
        if found is None:
            raise no_such_path()
        return respond(request, found)

    async def _resources(self, request: web.Request) -> web.Response:
        group, version = request.match_info.get("group", ""), request.match_info["version"]
        found = discovery.resource_list(self._catalog, group, version)
        if found is None:
            raise no_such_path()
        return respond(request, found)

    async def _definitions(self, request: web.Request) -> web.Response:
        """There are none; kubectl looks here before it says that it knows no such kind."""
        listed = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinitionList"}
        return respond(request, {**listed, "metadata": {"resourceVersion": "1"}, "items": []})

    async def _openapi_v2(self, request: web.Request) -> web.Response:
        if V2_PROTOBUF in request.headers.get("Accept", ""):
            return web.Response(body=self._openapi_two.protobuf(), headers={"Content-Type": V2_PROTOBUF_ANSWER})
        return respond(request, self._openapi_two.document())

    async def _openapi_root(self, request: web.Request) -> web.Response:
        return respond(request, self._openapi.root())

    async def _openapi_document(self, request: web.Request) -> web.Response:
        if "application/com.github.proto-openapi" in request.headers.get("Accept", "") and (
            "json" not in request.headers["Accept"] and "*/*" not in request.headers["Accept"]
        ):
            raise StatusError(406, "OpenAPI documents are served as application/json", reason="NotAcceptable")
        try:
            body, digest = self._openapi.document(request.match_info["path"].strip("/"))
        except KeyError:
            raise no_such_path() from None
        etag = f'"{digest}"'
        headers = {"ETag": etag, "Vary": "Accept"}
        if request.query.get("hash") == digest:  # the address changes with the content
            headers["Cache-Control"] = "public, immutable, max-age=31536000"
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        response = respond(request, body)
        response.headers.update(headers)
        return response

    # --- objects ----------------------------------------------------------------------------------------------------

    async def _object(self, request: web.Request) -> web.StreamResponse:
        target = parse_path(self._catalog, request.rel_url.raw_path)
        current().target = target
        query = parse_query(request.query)
        if target.resource.stored_as:
            query = replace(query, field_selector=stored_selector(query.field_selector, target.api_version))
        method = request.method
        newest = int(query.resource_version) if query.resource_version.isdigit() else 0
        if newest > self._store.memory.revision and self._store.shared:
            await self._store.sync()  # another control plane has told this client of it
            await self._permit_again(request)
        if method in ("GET", "HEAD"):
            form = negotiate(request.headers.get("Accept", ""))
            if await self._hub.until(int(query.resource_version or "0")):
                await self._permit_again(request)
            if query.watch:
                return await self._hub.serve(request, target, query, form)
            return self._get(request, target, form) if target.name else self._list(request, target, query, form)
        if method == "POST" and not target.name:
            return await self._create(request, target, query)
        if method == "PUT" and target.name:
            return await self._update(request, target, query)
        if method == "PATCH" and target.name:
            return await self._patch(request, target, query)
        if method == "DELETE" and not target.subresource:
            return await self._delete(request, target, query)
        raise StatusError(405, "the server does not allow this method on the requested resource")

    async def _permit_again(self, request: web.Request) -> None:
        """After a wait, in which permissions may have changed. Raises StatusError 401, 403."""
        if self._hub.again is not None:
            await self._hub.again(request)

    def _get(self, request: web.Request, target: Target, form: Form) -> web.Response:
        stored = self._hub.read(self._operations.get(target))
        if form.as_:
            body = external(stored, target)
            if form.as_ == "Table":
                return respond(request, self._table(request, target, [body], {"resourceVersion": str(stored.version)}))
            return respond(request, partial(body), form=form)
        return respond(request, spliced(stored, target), form=form)

    def _table(self, request: web.Request, target: Target, bodies: list[dict[str, Any]], metadata: Any) -> Any:
        include = request.query.get("includeObject", "") or "Metadata"
        return table(target.resource.name, bodies, metadata, self._clock(), include)

    def _list(self, request: web.Request, target: Target, query: Query, form: Form) -> web.Response:
        found, metadata = page(self._store.memory, target, query, self._hub.readers.get(target.resource.name))
        if form.as_ == "Table":
            bodies = [external(one, target) for one in found]
            return respond(request, self._table(request, target, bodies, metadata))
        if form.as_:
            shown = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                     "items": [partial(external(one, target)) for one in found]}  # fmt: skip
            return respond(request, shown, form=form)
        return respond(request, list_body(found, metadata, target), form=form)

    def _answer(self, request: web.Request, result: Result, target: Target, code: int) -> web.Response:
        form = negotiate(request.headers.get("Accept", ""))
        body: Any = result.body
        stored = self._hub.read(result.stored) if result.stored is not None else None
        if stored is not None and stored is not result.stored:
            body = external(stored, target)
        if not form.as_ and stored is not None:
            body = spliced(stored, target)
        elif form.as_ == "Table":
            metadata = {"resourceVersion": body["metadata"].get("resourceVersion", "")}
            body = self._table(request, target, [body], metadata)
        elif form.as_:
            body = partial(body)
        return respond(request, body, code, form, result.warnings)

    def _manager(self, request: web.Request, query: Query) -> str:
        """Who changes: as named, else the program's name from its User-Agent."""
        if query.field_manager:
            return query.field_manager
        agent = request.headers.get("User-Agent", "").partition("/")[0].strip()
        return agent[:128] if agent and agent.isprintable() else "unknown"

    async def _body(self, request: web.Request, query: Query) -> tuple[Any, list[str], Query]:
        """(value, fields that were there twice, the query with the body's size)."""
        data, content_type = await body_of(request), request.headers.get("Content-Type", "")
        want_duplicates = query.field_validation != "Ignore"
        value, duplicates = await self._operations.aside(
            weight(data, content_type), lambda: read_body(data, content_type, self._load_yaml, want_duplicates)
        )
        return value, duplicates, replace(query, size=len(data))

    async def _create(self, request: web.Request, target: Target, query: Query) -> web.Response:
        negotiate(request.headers.get("Accept", ""))
        body, duplicates, query = await self._body(request, query)
        result = await self._operations.create(target, body, query, duplicates, self._manager(request, query))
        current().name = str(result.body["metadata"].get("name", ""))
        return self._answer(request, result, target, 201)

    async def _update(self, request: web.Request, target: Target, query: Query) -> web.Response:
        negotiate(request.headers.get("Accept", ""))
        body, duplicates, query = await self._body(request, query)
        result = await self._operations.update(target, body, query, duplicates, self._manager(request, query))
        return self._answer(request, result, target, 200)

    async def _patch(self, request: web.Request, target: Target, query: Query) -> web.Response:
        negotiate(request.headers.get("Accept", ""))
        data = await body_of(request)
        content_type = request.headers.get("Content-Type", "")
        kind, patch, duplicates = await self._operations.aside(
            weight(data, content_type), lambda: read_patch(data, content_type, self._load_yaml)
        )
        query = replace(query, size=len(data))
        if kind == "apply":
            result = await self._operations.apply(target, patch, query, duplicates)
        else:
            manager = self._manager(request, query)
            result = await self._operations.patch(target, kind, patch, query, duplicates, manager)
        return self._answer(request, result, target, 201 if result.created else 200)

    async def _delete(self, request: web.Request, target: Target, query: Query) -> web.Response:
        data = await body_of(request)
        options: Any = {}
        if data.strip():
            content_type = request.headers.get("Content-Type", "")
            options, _ = await self._operations.aside(
                weight(data, content_type), lambda: read_body(data, content_type, self._load_yaml, False)
            )
            if not isinstance(options, dict) or options.get("kind") not in (None, "", "DeleteOptions"):
                raise bad_request("the body of a deletion is DeleteOptions")
        dry_run = query.dry_run or is_dry_run(options.get("dryRun"))
        if dry_run:
            current().audit["dryRun"] = True
        if target.name:
            asked = request.query.get("propagationPolicy", "")
            return respond(request, await self._operations.delete(target, options, dry_run, asked))
        if target.resource.namespaced and not target.namespace:
            raise StatusError(405, "a collection is deleted within one namespace")
        if options.get("preconditions"):
            raise bad_request("preconditions: they are for one object, and this is a collection")
        found, _ = page(self._store.memory, target, query)
        policy = policy_of(options, request.query.get("propagationPolicy", ""))
        await self._operations.delete_all(found, dry_run, policy)
        current().name = f"{len(found)} objects"
        return respond(request, success("", target.resource.group, target.resource.plural, ""))
