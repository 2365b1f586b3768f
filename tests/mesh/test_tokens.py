"""RequestAuthentication in whole sidecars: what comes in with which token gets which answer, and what the app sees."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived

from fairlead.mesh.sidecar import Sidecar
from fairlead.mesh.sidecar_options import SidecarOptions
from fairlead.registry.model import Workload
from tests.mesh.test_sidecar import ANY, DEADLINE_S, HOST, Pair, pair, port_of, world
from tests.tokens import ISSUER, Signer, b64, confused, jwks, signer, unsigned

pytestmark = pytest.mark.asyncio
RULE = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users}
spec:
  selector: {matchLabels: {app: web}}
  jwtRules: [%s]
"""
DEMAND = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: users}
spec:
  selector: {matchLabels: {app: web}}
  rules:
  - from: [{source: {requestPrincipals: ["https://issuer.example.com/*"]}}]
    to: [{operation: {paths: ["/", "/for/{*}"]}}]
  - to: [{operation: {paths: ["/admin"]}}]
    when: [{key: "request.auth.claims[realm][roles]", values: [admin]}]
  - to: [{operation: {paths: ["/write"]}}]
    when: [{key: "request.auth.claims[scope]", values: [write]}]
"""


def rule(**fields: Any) -> str:
    return RULE % json.dumps({"issuer": ISSUER, "jwks": jwks(signer("RS256"), signer("ES256")), **fields})


async def ask(
    port: int, path: str = "/", *lines: str, method: str = "GET", token: str = ""
) -> tuple[int, dict[str, str], str]:
    """(status, headers, body) by a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    given = [*lines, *([f"authorization: Bearer {token}"] if token else [])]
    head = "".join(
        f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", f"host: {HOST}", "connection: close", *given)
    )
    writer.write((head + "\r\n").encode())
    try:
        async with asyncio.timeout(DEADLINE_S):
            whole = await reader.read()
    finally:
        writer.transport.abort()
    head_, _, body = whole.partition(b"\r\n\r\n")
    answered = head_.decode().split("\r\n")
    return int(answered[0].split()[1]), dict(x.lower().split(": ", 1) for x in answered[1:]), body.decode()


@contextlib.asynccontextmanager
async def guarded(*documents: str) -> AsyncIterator[tuple[Pair, int]]:
    """A pair with these rules, and the port at which its web is asked: in mutual TLS, by the client's sidecar."""
    async with pair() as mesh:
        mesh.update(*documents)
        yield mesh, port_of(mesh.client.at["outbound"])


async def test_without_a_token_a_request_passes_and_with_a_bad_one_it_does_not() -> None:
    async with guarded(rule()) as (mesh, port):
        assert (await ask(port))[0] == 200
        assert (await ask(port, token=signer("RS256").token()))[0] == 200
        assert (await ask(port, token=signer("ES256").token()))[0] == 200
        seen = len(mesh.app.seen)
        status, headers, body = await ask(port, token=Signer("ES256").token())
        assert (status, headers["x-fairlead-reason"], len(mesh.app.seen)) == (401, "fl-token", seen)
        assert body == "Jwt verification fails (RequestAuthentication default/users rule 0).\n"
        assert headers["www-authenticate"] == f'bearer realm="http://{HOST}/", error="invalid_token"'
        assert (await ask(port, "/", "authorization: Basic YTpi"))[0] == 200


async def test_policies_see_the_claims_of_a_proved_token_and_of_no_other() -> None:
    own = signer("RS256")
    admin = own.token({"realm": {"roles": ["admin", "user"]}, "scope": "read write"})
    async with guarded(rule(), DEMAND) as (mesh, port):
        status, _, body = await ask(port)
        assert status == 403 and "no rule of AuthorizationPolicy default/users" in body
        for path, token, wanted in (
            ("/", own.token(), 200), ("/for/me", own.token(), 200), ("/for/me/too", own.token(), 403),
            ("/admin", own.token(), 403), ("/admin", admin, 200), ("/admin?x", admin, 200),
            ("/admin", own.token({"realm": {"roles": "admin2"}}), 403), ("/admin", own.token({"realm": "admin"}), 403),
            ("/write", admin, 200), ("/write", own.token({"scope": "rewrite"}), 403),
            ("/", own.token({"sub": ""}), 403), ("/admin", unsigned({"realm": {"roles": ["admin"]}}), 401),
        ):  # fmt: skip
            assert (await ask(port, path, token=token))[0] == wanted, (path, token)
        mesh.update(rule())
        assert (await ask(port, "/elsewhere", token=own.token()))[0] == 200


def attacks() -> list[tuple[str, str, int, str]]:
    """(what, token, status, words of the answer) where the audience has to be shop."""
    own, stranger, now = signer("RS256"), Signer("RS256"), int(time.time())
    shop: dict[str, Any] = {"aud": "shop"}
    good = own.token(shop)
    head, payload, signature = good.split(".")
    root = b64({"iss": ISSUER, "sub": "root", **shop})
    return [
        ("alg none", unsigned(shop), 401, "3 sections"),
        ("alg none with a signature", unsigned(shop, signature="AAAA"), 401, "[alg] is not supported"),
        ("alg nOnE", unsigned(shop, "nOnE", "AAAA"), 401, "[alg] is not supported"),
        ("HS256 with the public key", confused(own), 401, "[alg] is not supported"),
        ("no signature", f"{head}.{payload}.", 401, "3 sections"),
        ("another's payload", f"{head}.{root}.{signature}", 401, "verification fails"),
        ("another's key by kid", stranger.token(shop), 401, "verification fails"),
        ("unknown kid", own.token(shop, kid="two"), 401, "doesn't have key to match kid"),
        ("kid as a path", own.token(shop, kid="../../one"), 401, "doesn't have key to match kid"),
        ("own key in the header", stranger.token(shop, jwk=own.jwk, jku="http://evil/"), 401, "verification fails"),
        ("critical extension", own.token(shop, crit=["exp"]), 401, "[crit]"),
        ("expired", own.token({**shop, "exp": now - 61}), 401, "Jwt is expired"),
        ("not yet valid", own.token({**shop, "nbf": now + 120}), 401, "Jwt not yet valid"),
        ("exp as text", own.token({**shop, "exp": "9999999999"}), 401, "[exp] field"),
        ("wrong issuer", own.token({**shop, "iss": f"{ISSUER}.evil"}), 401, "issuer is not configured"),
        ("no issuer", own.token('{"sub": "alice", "aud": "shop"}'), 401, "issuer is not configured"),
        ("subject twice", own.token(f'{{"iss": "{ISSUER}", "sub": "a", "sub": "root"}}'), 401, "a member twice"),
        ("wrong audience", own.token({"aud": "bank"}), 403, "Audiences in Jwt are not allowed"),
        ("no audience", own.token(), 403, "Audiences in Jwt are not allowed"),
        ("giant", own.token({**shop, "x": "y" * 20000}), 401, "longer than 16384"),
        ("deep", own.token('{"x":' + "[" * 5000 + "]" * 5000 + "}"), 401, "invalid JSON"),
        ("two tokens in one", f"{good} {good}", 401, "3 sections"),
    ]


async def test_forged_tokens_get_their_answers_and_nothing_reaches_the_app() -> None:
    async with guarded(rule(audiences=["shop"])) as (mesh, port):
        assert (await ask(port, token=signer("RS256").token({"aud": ["x", "shop"]})))[0] == 200
        seen = len(mesh.app.seen)
        for name, token, wanted, says in attacks():
            status, _, body = await ask(port, token=token)
            assert (status, says in body) == (wanted, True), (name, status, body)
        assert len(mesh.app.seen) == seen


async def test_tokens_that_hide_among_others_are_refused() -> None:
    own = signer("RS256")
    good, bad = own.token(), Signer("ES256").token({"sub": "root"})
    async with guarded(rule()) as (mesh, port):
        for lines in ([f"authorization: Bearer {good}", f"Authorization: Bearer {bad}"],
                      [f"authorization: bearer {bad}"],
                      [f"authorization: Bearer\t{bad}"], [f"AUTHORIZATION: BEARER {bad}"]):  # fmt: skip
            assert (await ask(port, "/", *lines))[0] == 401, lines
        assert (await ask(port, f"/?access_token={good}&access_token={bad}"))[0] == 401
        assert (await ask(port, f"/?access%5Ftoken={bad}"))[0] == 401
        assert not mesh.app.seen
        # Of several in different places one good one is enough (Istio); the other does not reach the app.
        status, _, body = await ask(port, f"/?access_token={bad}", token=good)
        assert status == 200 and bad not in body


async def test_places_are_looked_at_as_the_rule_says_and_the_token_stays_here() -> None:
    own = signer("RS256")
    token = own.token()
    places = rule(fromHeaders=[{"name": "x-token", "prefix": "T "}], fromParams=["t"], fromCookies=["sid"])
    async with guarded(places, DEMAND) as (mesh, port):
        assert (await ask(port, "/", token=token))[0] == 403  # the default places are no longer looked at
        for path, lines in (("/", [f"x-token: T {token}"]), (f"/?a=1&t={token}&b=2", []),
                            ("/", ["cookie: a=1", f"cookie: sid={token}; b=2"])):  # fmt: skip
            status, _, body = await ask(port, path, *lines)
            assert status == 200
            assert token not in body and token.split(".")[1] not in body
        assert '"GET / HTTP/1.1\\r\\n' in body and "cookie: b=2" in body and "cookie: a=1" in body.lower()
        assert b"GET /?a=1&b=2 HTTP/1.1" in mesh.app.seen[-2]
        assert (await ask(port, "/", f"x-token: {token}"))[0] == 403
        mesh.update(rule(forwardOriginalToken=True))
        assert token in (await ask(port, "/", token=token))[2]


async def test_what_the_app_is_told_of_a_token_nobody_else_can_tell_it() -> None:
    own = signer("RS256")
    outputs = [{"header": "x-user", "claim": "sub"}, {"header": "x-age", "claim": "age"},
               {"header": "x-ok", "claim": "ok"},
               {"header": "x-city", "claim": "address.city"}, {"header": "x-list", "claim": "list"}]  # fmt: skip
    async with guarded(rule(outputClaimToHeaders=outputs, outputPayloadToHeader="X-Payload")) as (mesh, port):
        forged = ["x-user: root", "X_User: root", "x-payload: e30", "x-list: root", "x-kept: yes"]
        _, _, body = await ask(port, "/", *forged)
        assert "root" not in body and "x-payload" not in body.lower() and "x-kept: yes" in body
        claims = {"age": 7, "ok": True, "address": {"city": "Ulm\r\nx-evil: 1"}, "list": ["a"]}
        token = own.token(claims)
        _, _, body = await ask(port, "/", *forged, token=token)
        for line in (
            "x-user: alice",
            "x-age: 7",
            "x-ok: true",
            "x-city: Ulmx-evil: 1",
            f"x-payload: {token.split('.')[1]}",
        ):
            assert f"\\r\\n{line}\\r\\n" in body, line
        assert "root" not in body and "x-list" not in body
        preflight = ["origin: http://a", "access-control-request-method: GET", "x-user: root"]
        status, _, body = await ask(port, "/", *preflight, method="OPTIONS", token="nonsense")
        assert status == 200 and "root" not in body  # CORS preflights are not asked for tokens
        assert len(mesh.app.seen) == 3


class Issuer:
    """Serves a set of keys; counts who asks."""

    def __init__(self) -> None:
        self.keys = ""
        self.asked: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            await self.go.wait()
            body = self.keys if path == "/keys" else json.dumps({"jwks_uri": f"{self.url}/keys"})
            status = "200 OK" if body else "500 Oops"
            writer.write(
                f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
            )
        writer.close()


@contextlib.asynccontextmanager
async def issuing(*signers: Signer) -> AsyncIterator[Issuer]:
    made = Issuer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    made.keys = jwks(*signers) if signers else ""
    async with server:
        yield made
        made.go.set()


async def test_requests_wait_for_keys_that_are_on_their_way() -> None:
    own = signer("ES256")
    async with issuing(own) as issuer, pair() as mesh:
        issuer.go.clear()
        mesh.update(rule(jwks="", jwksUri=f"{issuer.url}/keys"))
        port = port_of(mesh.client.at["outbound"])
        waiting = [asyncio.create_task(ask(port, token=own.token({"n": n}))) for n in range(3)]
        assert (await ask(port))[0] == 200  # who brings no token waits for nothing
        engine = mesh.web.engine
        assert engine is not None
        while engine.tokens.waiting < 3:
            await asyncio.sleep(0.001)
        issuer.go.set()
        assert [answer[0] for answer in await asyncio.gather(*waiting)] == [200, 200, 200]
        assert issuer.asked == ["/keys"]
        checked = engine.tokens.checked
        assert (await ask(port, token=own.token({"n": 9})))[0] == 200
        repeated = own.token({"n": 10})
        for _ in range(5):
            assert (await ask(port, token=repeated))[0] == 200
        assert engine.tokens.checked == checked + 2  # proved once, remembered
        mesh.update(rule(jwks="", jwksUri=f"{issuer.url}/keys"))
        assert (await ask(port, token=repeated))[0] == 200
        assert issuer.asked == ["/keys"]  # a push of the same rules fetches nothing


async def test_keys_are_found_by_discovery_and_anew_for_a_key_that_is_new() -> None:
    own, new = signer("ES256"), Signer("ES256", "two")
    async with issuing(own) as issuer, pair() as mesh:
        mesh.update(rule(issuer=issuer.url, jwks=""))
        port = port_of(mesh.client.at["outbound"])
        claims = {"iss": issuer.url}
        assert (await ask(port, token=own.token(claims)))[0] == 200
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
        issuer.keys = jwks(new)
        engine = mesh.web.engine
        assert engine is not None
        assert (await ask(port, token=new.token(claims)))[0] == 401  # not sooner than every ten seconds
        for keys in engine.tokens._keys.values():
            keys.tried_at -= 11
        assert (await ask(port, token=new.token(claims)))[0] == 200
        assert (await ask(port, token=own.token(claims)))[0] == 401  # nor is what a withdrawn key proved remembered


async def test_without_keys_tokens_fail_and_everything_else_goes_on() -> None:
    async with issuing() as issuer, pair() as mesh:
        mesh.update(rule(jwks="", jwksUri=f"{issuer.url}/keys", timeout="1s"))
        port = port_of(mesh.client.at["outbound"])
        status, _, body = await ask(port, token=signer("ES256").token())
        assert status == 401 and "Jwks remote fetch is failed" in body
        assert f"no keys of {issuer.url}/keys: " in mesh.web.notes["request-authentication"]()
        assert (await ask(port))[0] == 200
        mesh.update()
        engine = mesh.web.engine
        assert engine is not None and engine.tokens is None


async def test_a_client_that_gives_up_while_keys_are_awaited_leaves_nothing_behind() -> None:
    own = signer("ES256")
    async with issuing(own) as issuer, pair() as mesh:
        issuer.go.clear()
        mesh.update(rule(jwks="", jwksUri=f"{issuer.url}/keys"))
        waiting = asyncio.create_task(ask(port_of(mesh.client.at["outbound"]), token=own.token()))
        engine = mesh.web.engine
        assert engine is not None
        while not engine.tokens.waiting:
            await asyncio.sleep(0.001)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        mesh.update()  # the rules go while it waits
        issuer.go.set()
        assert (await ask(port_of(mesh.client.at["outbound"])))[0] == 200


EDGE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
  - match: [{headers: {"@request.auth.claims.group": {exact: staff}}}]
    directResponse: {status: 200, body: {string: staff}}
  - match: [{headers: {"x-user": {exact: alice}}}]
    directResponse: {status: 200, body: {string: alice}}
  - directResponse: {status: 200, body: {string: everybody}}
---
"""


async def test_a_gateway_routes_by_claims_that_were_proved_and_by_what_it_tells_of_them() -> None:
    own = signer("ES256")
    labels = {"istio": "ingressgateway"}
    edge = Sidecar(
        SidecarOptions(
            Workload(namespace="default", name="edge", labels=labels), gateway=True, moved={80: 0}, health=ANY
        )
    )
    outputs = [{"header": "x-user", "claim": "sub"}]
    edge.update(world(EDGE + rule(outputClaimToHeaders=outputs).replace("app: web", "istio: ingressgateway")))
    try:
        port = next(port_of(at) for name, at in (await edge.start()).items() if "80" in name)
        assert (await ask(port, token=own.token({"group": "staff"})))[2] == "staff"
        assert (await ask(port, token=own.token({"group": ["x", "staff"]})))[2] == "staff"
        assert (await ask(port, token=own.token({"group": "guests"})))[2] == "alice"
        assert (await ask(port, "/", "x-user: alice"))[2] == "everybody"
        refused = await ask(port, token=Signer("ES256").token({"group": "staff"}))
        assert refused[0] == 401 and "Jwt" in refused[2] and "RequestAuthentication" not in refused[2]
    finally:
        await edge.close()


async def test_a_body_that_comes_while_keys_are_awaited_is_passed_on_whole() -> None:
    own, body = signer("ES256"), b"0123456789" * 20000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            told = b"%d" % (await reader.readexactly(len(body)) == body)
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n" + told)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with issuing(own) as issuer, pair() as mesh, server:
        mesh.app.port = server.sockets[0].getsockname()[1]
        issuer.go.clear()
        mesh.update(rule(jwks="", jwksUri=f"{issuer.url}/keys"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(mesh.client.at["outbound"]))
        head = f"POST / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\nauthorization: Bearer {own.token()}\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:1000])
        engine = mesh.web.engine
        assert engine is not None
        while not engine.tokens.waiting:
            await asyncio.sleep(0.001)
        writer.write(body[1000:])
        issuer.go.set()
        async with asyncio.timeout(DEADLINE_S):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n1")


async def test_streams_of_http2_and_grpc_calls_are_judged_each_by_its_token() -> None:
    good, bad = signer("ES256").token(), Signer("ES256").token()
    async with pair("PERMISSIVE") as mesh:
        mesh.update(rule())
        reader, writer = await asyncio.open_connection("127.0.0.1", mesh.mesh_port)
        client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        client.initiate_connection()
        for number, (token, kind) in enumerate(((good, ""), (bad, ""), (bad, "application/grpc"))):
            method = "POST" if kind else "GET"
            headers = [(":method", method), (":path", "/"), (":authority", HOST), (":scheme", "http"),
                       ("authorization", f"Bearer {token}")]  # fmt: skip
            client.send_headers(1 + 2 * number, headers + ([("content-type", kind)] if kind else []), end_stream=True)
        writer.write(client.data_to_send())
        answers: dict[int, dict[str, str]] = {}
        async with asyncio.timeout(DEADLINE_S):
            while len(answers) < 3:
                for event in client.receive_data(await reader.read(65536)):
                    if isinstance(event, ResponseReceived):
                        answers[event.stream_id] = {str(name): str(value) for name, value in event.headers}
                writer.write(client.data_to_send())
        writer.close()
        assert [answers[stream][":status"] for stream in (1, 3, 5)] == ["200", "401", "200"]
        assert answers[3]["x-fairlead-reason"] == "FL-TOKEN"
        assert answers[5]["grpc-status"] == "16" and "Jwt verification fails" in answers[5]["grpc-message"]
