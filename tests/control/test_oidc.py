"""Id tokens: what is accepted, what is refused and why; keys of a real https issuer, and their rotation."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fairlead.control import oidc_keys
from fairlead.control.access_setup import oidc_issuer
from fairlead.control.authority_files import open_authority
from fairlead.control.oidc import OidcError, Settings, UnknownKeyError, verify
from fairlead.control.settings import SettingError
from fairlead.policy import json_web_token
from fairlead.policy.json_web_token import read_keys
from fairlead.proxy.signatures import KeySet
from tests.control.serving import SERVICES, api_in

NOW = 1_800_000_000.0
ISSUER = "https://login.example"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
SETTINGS = Settings(ISSUER, "fairlead", groups_claim="groups", signing_algs=("RS256", "ES256", "PS256"))
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "fairlead",
    "sub": "alice",
    "exp": NOW + 60,
    "iat": NOW,
    "groups": ["dev"],
}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def jwk(key: Any, name: str) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    if isinstance(key, rsa.RSAPrivateKey):
        return {"kty": "RSA", "kid": name, "use": "sig", "n": number(numbers.n), "e": number(numbers.e)}
    return {"kty": "EC", "kid": name, "crv": "P-256", "x": b64(numbers.x.to_bytes(32, "big")),
            "y": b64(numbers.y.to_bytes(32, "big"))}  # fmt: skip


KEYS = KeySet(
    read_keys(json.dumps({"keys": [jwk(RSA_KEY, "r"), jwk(EC_KEY, "e"), {"kty": "oct", "k": "x"}, 5]}).encode())[0]
)


def token(claims: dict[str, Any], alg: str = "RS256", kid: str = "r", key: Any = RSA_KEY, **header: Any) -> str:
    head = b64(json.dumps({"alg": alg, "kid": kid, **header}).encode())
    signed = f"{head}.{b64(json.dumps(claims).encode())}"
    data = signed.encode()
    if alg == "ES256":
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    elif alg == "PS256":
        signature = key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    else:
        signature = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{b64(signature)}"


@pytest.mark.parametrize(
    ("alg", "kid", "key"), [("RS256", "r", RSA_KEY), ("ES256", "e", EC_KEY), ("PS256", "r", RSA_KEY)]
)
def test_a_good_token_names_user_and_groups(alg: str, kid: str, key: Any) -> None:
    assert verify(SETTINGS, KEYS, token(CLAIMS, alg, kid, key), NOW) == (f"{ISSUER}#alice", ("dev",))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"aud": "other"}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"exp": NOW}, "has expired 0 s ago"),
        ({"exp": None}, "no exp"),
        ({"exp": "soon"}, "exp is not a number"),
        ({"exp": True}, "exp is not a number"),
        ({"nbf": NOW + 60}, "60 s from the future .nbf."),
        ({"iat": NOW + 60}, "from the future .iat."),
        ({"sub": None}, "sub. field is not a string"),
        ({"sub": ""}, "no claim sub"),
        ({"sub": "a\nb"}, "no claim sub"),
        ({"groups": [1]}, "groups is not a list"),
        ({"groups": ["system:masters"]}, "system:"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], says: str) -> None:
    with pytest.raises(OidcError, match=says):
        verify(SETTINGS, KEYS, token({**CLAIMS, **change}), NOW)


def test_forged_tokens_are_refused() -> None:
    good = token(CLAIMS)
    head, claims, signature = good.split(".")
    public = RSA_KEY.public_key().public_numbers()
    for alg in ("none", "HS256", "rs256", None, 5):
        forged = b64(json.dumps({"alg": alg, "kid": "r"}).encode())
        for end in ("", signature):
            with pytest.raises(OidcError, match="cannot be used: Jwt"):
                verify(SETTINGS, KEYS, f"{forged}.{claims}.{end}", NOW)
    with pytest.raises(OidcError, match="is signed by RS384; accepted are RS256"):
        verify(SETTINGS, KEYS, token(CLAIMS, "RS384"), NOW)
    other = b64(json.dumps({**CLAIMS, "sub": "root"}).encode())
    for text in (f"{head}.{other}.{signature}", f"{head}.{claims}.", f"{head}.{claims}.{number(public.n)}"):
        with pytest.raises(OidcError):
            verify(SETTINGS, KEYS, text, NOW)
    stranger = rsa.generate_private_key(65537, 2048)
    with pytest.raises(UnknownKeyError, match="signature"):
        verify(SETTINGS, KEYS, token(CLAIMS, key=stranger), NOW)
    with pytest.raises(UnknownKeyError, match="no key"):
        verify(SETTINGS, KEYS, token(CLAIMS, kid="new", key=stranger), NOW)
    with pytest.raises(OidcError, match="crit"):
        verify(SETTINGS, KEYS, token(CLAIMS, crit=["x"]), NOW)
    with pytest.raises(OidcError, match="longer"):
        verify(SETTINGS, KEYS, good + "a" * json_web_token.TOKEN_MOST, NOW)
    for text in ("a.b", "a.b.c.d", "ey.ey.", "eyJ9.e30=.e30", f"{b64(b'[]')}.{b64(b'{}')}.x"):
        with pytest.raises(OidcError, match="cannot be used: Jwt"):
            verify(SETTINGS, KEYS, text, NOW)


def test_a_public_key_is_no_shared_secret_and_a_key_is_good_for_its_own_kind_alone() -> None:
    """Algorithm confusion: whatever the header says, the key decides what a signature is."""
    claims = b64(json.dumps(CLAIMS).encode())
    pem = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = b64(json.dumps({"alg": "HS256", "kid": "r"}).encode())
    mac = b64(hmac.new(pem, f"{head}.{claims}".encode(), hashlib.sha256).digest())
    with pytest.raises(OidcError, match="not supported"):
        verify(SETTINGS, KEYS, f"{head}.{claims}.{mac}", NOW)
    with pytest.raises(UnknownKeyError, match="no key"):  # an EC key named for an RSA signature
        verify(SETTINGS, KEYS, token(CLAIMS, kid="e"), NOW)
    only = KeySet(read_keys(json.dumps({"keys": [{**jwk(RSA_KEY, "r"), "alg": "RS256"}]}).encode())[0])
    with pytest.raises(UnknownKeyError, match="no key"):
        verify(SETTINGS, only, token(CLAIMS, "PS256"), NOW)
    secret = {"keys": [{"kty": "oct", "kid": "r", "k": b64(b"x" * 32)}, {**jwk(RSA_KEY, "r"), "d": "AQ"},
                       {**jwk(RSA_KEY, "r"), "use": "enc"}]}  # fmt: skip
    good, faults = read_keys(json.dumps(secret).encode())
    assert good == [] and len(faults) == 3


@pytest.mark.parametrize("kid", [5, ["r"], {"a": 1}, None, True])
def test_a_key_id_that_is_no_text_is_refused(kid: Any) -> None:
    with pytest.raises(OidcError, match="kid"):
        verify(SETTINGS, KEYS, token(CLAIMS, kid=kid), NOW)


@pytest.mark.parametrize("kid", ["../../../dev/null", "' OR 1=1", "https://evil.example/keys", "r\x00", "R"])
def test_a_key_id_names_a_key_of_the_issuer_or_nothing(kid: str) -> None:
    """Nor do keys that a token brings along count (jwk, jku, x5u, x5c)."""
    with pytest.raises(UnknownKeyError, match="no key"):
        verify(SETTINGS, KEYS, token(CLAIMS, kid=kid), NOW)
    stranger = rsa.generate_private_key(65537, 2048)
    own = token(CLAIMS, key=stranger, jwk=jwk(stranger, "r"), jku="https://evil.example", x5c=["x"])
    with pytest.raises(UnknownKeyError, match="signature"):
        verify(SETTINGS, KEYS, own, NOW)


@pytest.mark.parametrize("change", ['"sub":"alice","sub":"root"', '"exp":1e400', '"exp":NaN', '"exp":Infinity'])
def test_what_two_readers_may_understand_in_two_ways_is_refused(change: str) -> None:
    text = json.dumps({**CLAIMS, "exp": NOW + 60})[:-1] + f",{change}}}"
    if "exp" in change:
        text = json.dumps({key: value for key, value in CLAIMS.items() if key != "exp"})[:-1] + f",{change}}}"
    head = b64(json.dumps({"alg": "RS256", "kid": "r"}).encode())
    signed = f"{head}.{b64(text.encode())}"
    signature = RSA_KEY.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(OidcError, match=r"twice|no number|not a number"):
        verify(SETTINGS, KEYS, f"{signed}.{b64(signature)}", NOW)


def test_a_signature_has_one_way_to_be_written() -> None:
    good = token(CLAIMS)
    spare = good[:-1] + chr(ord(good[-1]) + 1)
    with pytest.raises(OidcError):
        verify(SETTINGS, KEYS, spare, NOW)
    with pytest.raises(OidcError, match="Base64"):
        verify(SETTINGS, KEYS, good + "=", NOW)


def test_prefixes_claims_and_emails_are_as_kube_apiservers() -> None:
    def name(settings: Settings, **claims: Any) -> tuple[str, tuple[str, ...]]:
        return verify(settings, KEYS, token({**CLAIMS, **claims}), NOW)

    assert name(Settings(ISSUER, "fairlead", username_prefix="-")) == ("alice", ())
    assert name(Settings(ISSUER, "fairlead", username_prefix="o:", groups_claim="groups", groups_prefix="g:")) == (
        "o:alice", ("g:dev",)
    )  # fmt: skip
    email = Settings(ISSUER, "fairlead", username_claim="email", groups_claim="groups")
    assert name(email, email="a@b.example", groups="one") == ("a@b.example", ("one",))
    with pytest.raises(OidcError, match="not verified the email"):
        name(email, email="a@b.example", email_verified=False)
    strict = Settings(ISSUER, "fairlead", required_claims={"hd": "b.example"})
    with pytest.raises(OidcError, match=r"hd is not b\.example"):
        name(strict)
    assert name(strict, hd="b.example")[0].endswith("#alice")
    with pytest.raises(OidcError, match="system:"):
        name(Settings(ISSUER, "fairlead", username_prefix="-"), sub="system:admin")


def test_key_sets_that_are_none_are_refused() -> None:
    for data in (b"", b"[]", b"{}", b'{"keys": 1}', b"\xff"):
        with pytest.raises(ValueError):
            read_keys(data)
    assert read_keys(b'{"keys": [{"kty": "RSA", "n": "AQ", "e": "AQAB"}, {"kty": "EC", "crv": "P-9"}]}')[0] == []


class FakeIssuer:
    """A real https server with discovery and a key set."""

    url = ""
    keys: list[dict[str, Any]]
    asked = 0
    broken = False
    may_answer: asyncio.Event | None = None
    """It takes so long."""

    async def discovery(self, _request: web.Request) -> web.Response:
        self.asked += 1
        if self.may_answer is not None:
            await self.may_answer.wait()
        return web.json_response(
            {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}, status=500 if self.broken else 200
        )

    async def jwks(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": self.keys})


@pytest_asyncio.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[FakeIssuer]:
    made = FakeIssuer()
    made.keys = [jwk(RSA_KEY, "r")]
    authority = open_authority(tmp_path, "login.example", 3600.0)
    context = authority.server_context(["127.0.0.1"])
    context.verify_mode = ssl.CERT_NONE
    app = web.Application()
    app.add_routes([web.get("/.well-known/openid-configuration", made.discovery), web.get("/keys", made.jwks)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    made.url = f"https://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    yield made
    await runner.cleanup()


class Flags:
    oidc_username_claim, oidc_username_prefix, oidc_groups_claim, oidc_groups_prefix = "sub", "oidc:", "groups", "oidc:"
    oidc_signing_algs, oidc_client_id = "RS256, ES256", "fairlead"

    def __init__(self, url: str, ca: str = "", required: tuple[str, ...] = ()) -> None:
        self.oidc_issuer_url, self.oidc_ca_file, self.oidc_required_claim = url, ca, list(required)


@pytest.mark.asyncio
async def test_users_of_an_issuer_get_in_and_its_keys_may_change(
    tmp_path: Path, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = oidc_issuer(Flags(issuer.url, str(tmp_path / "ca.pem")))
    assert made is not None
    claims = {**CLAIMS, "iss": issuer.url, "exp": time.time() + 60, "iat": time.time()}
    async with api_in(tmp_path) as (api, client):
        api.door.oidc = made[0]
        await client.get(SERVICES, 401)  # loopback is not open any more
        who: dict[str, Any] = {"Authorization": f"Bearer {token(claims)}"}
        refused = await client.get(SERVICES, 403, **who)
        assert 'User "oidc:alice" cannot list resource "services"' in refused["message"]
        asked = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        info = (await client.post(asked, {}, **who))["status"]["userInfo"]
        assert info == {"username": "oidc:alice", "groups": ["oidc:dev", "system:authenticated"]}
        assert issuer.asked == 1
        issuer.keys.append(jwk(EC_KEY, "e"))
        rotated: dict[str, Any] = {"Authorization": f"Bearer {token(claims, 'ES256', 'e', EC_KEY)}"}
        refused = await client.get(
            SERVICES, 401, **rotated
        )  # it was looked at just now: a flood asks the issuer nothing
        assert "no key of the issuer fits" in refused["message"] and issuer.asked == 1
        monkeypatch.setattr(oidc_keys, "AGAIN_S", 0.0)
        await client.get(SERVICES, 403, **rotated)
        issuer.broken = True
        refused = await client.get(SERVICES, 401, Authorization=f"Bearer {token(claims, kid='x')}")
        assert "answered 500" in refused["message"]
        await client.get(SERVICES, 403, **rotated)  # the keys read before stay in force
    await made[1].close()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (Flags("http://login.example"), "--oidc-issuer-url: expected https"),
        (Flags("https://login.example", "none.pem"), "--oidc-ca-file none.pem"),
        (Flags("https://login.example", required=("x",)), "--oidc-required-claim: expected CLAIM=VALUE"),
    ],
)
@pytest.mark.asyncio
async def test_flags_that_cannot_be_used_are_named(flags: Any, says: str) -> None:
    with pytest.raises(SettingError, match=says):
        oidc_issuer(flags)


@pytest.mark.asyncio
async def test_a_slow_issuer_holds_up_nobody_whose_key_is_known_and_refuses_nobody_meanwhile(
    tmp_path: Path, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = oidc_issuer(Flags(issuer.url, str(tmp_path / "ca.pem")))
    assert made is not None
    issuer.may_answer = asyncio.Event()
    claims = {**CLAIMS, "iss": issuer.url, "exp": time.time() + 60, "iat": time.time()}
    known: dict[str, Any] = {"Authorization": f"Bearer {token(claims)}"}
    rotated: dict[str, Any] = {"Authorization": f"Bearer {token(claims, 'ES256', 'e', EC_KEY)}"}

    async def asked(count: int) -> None:
        while issuer.asked < count:
            await asyncio.sleep(0.001)

    async with api_in(tmp_path) as (api, client):
        api.door.oidc = made[0]
        async with asyncio.timeout(20):
            first = [asyncio.create_task(client.get(SERVICES, 403, **known)) for _ in range(5)]
            await asked(1)
            while made[0]._looking._waiters is None or len(made[0]._looking._waiters) < 4:
                await asyncio.sleep(0.001)
            issuer.may_answer.set()
            await asyncio.gather(*first)  # nobody is refused because another one asks for the keys at the moment
            assert issuer.asked == 1
            issuer.may_answer.clear()
            issuer.keys.append(jwk(EC_KEY, "e"))
            monkeypatch.setattr(oidc_keys, "AGAIN_S", 0.0)
            new = asyncio.create_task(client.get(SERVICES, 403, **rotated))
            await asked(2)
            also = asyncio.create_task(client.get(SERVICES, 403, **rotated))
            for _ in range(3):
                await client.get(SERVICES, 403, **known)
            assert not new.done() and not also.done()
            issuer.may_answer.set()
            await asyncio.gather(new, also)
            assert issuer.asked == 2
    await made[1].close()
