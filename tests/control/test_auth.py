"""Who may in: administrators' tokens, workload tokens, certificates, and the open loopback."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest

from fairlead.control.api import ControlApi, Options
from fairlead.control.auth import AdminTokens, Authenticator, Principal, check_own, split_identity
from fairlead.control.status import StatusError
from fairlead.control.store import Objects
from tests.control.serving import SERVICES, api_in, service, store_in

ADMIN_TOKEN = "a-long-enough-secret"


def test_tokens_are_read_plain_or_hashed_with_names_and_comments() -> None:
    digest = hashlib.sha256(b"other-secret").hexdigest()
    found = AdminTokens(f"# who may\n{ADMIN_TOKEN}\nsha256:{digest} alice  # on call\n\n")
    assert len(found) == 2
    assert found.find(ADMIN_TOKEN) == Principal("admin", "admin", groups=("system:masters", "system:authenticated"))
    assert (alice := found.find("other-secret")) is not None and (alice.role, alice.name) == ("admin", "alice")
    assert found.find("wrong") is None
    assert found.find("\udcff") is None
    users = AdminTokens("long-enough-token bob dev,ops\nanother-long-token eve -\n")
    bob, eve = users.find("long-enough-token"), users.find("another-long-token")
    assert bob == Principal("user", "bob", groups=("dev", "ops", "system:authenticated"))
    assert eve == Principal("user", "eve", groups=("system:authenticated",))


@pytest.mark.parametrize(
    ("line", "says"), [("short", "fewer"), ("sha256:12", "64"), ("long-enough-token a b c", "TOKEN")]
)
def test_a_line_that_is_no_token_is_named(line: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"line 2: .*{says}"):
        AdminTokens(f"# comment\n{line}")


def test_a_certificate_stands_for_its_workload() -> None:
    auth = Authenticator(Objects(), lambda _der: "spiffe://cluster.local/ns/shop/sa/web")
    who = auth.principal("", b"der", False, 0.0)
    assert (who.role, who.namespace, who.service_account) == ("workload", "shop", "web")


def test_a_certificate_without_an_identity_is_refused() -> None:
    def none(_der: bytes) -> str:
        raise ValueError("two URI SANs")

    with pytest.raises(StatusError, match="two URI SANs"):
        Authenticator(Objects(), none).principal("", b"der", True, 0.0)


@pytest.mark.parametrize(
    "identity", ["spiffe://x/ns/a", "spiffe://x/ns//sa/b", "https://x/ns/a/sa/b", "spiffe://x/ns/a/sa/b/c"]
)
def test_an_identity_of_another_form_is_refused(identity: str) -> None:
    with pytest.raises(StatusError):
        split_identity(identity)


@pytest.mark.parametrize("header", ["Basic abc", "Bearer", "Bearer ", "nonsense", "Bearer flt_x", "Bearer flt_ab_cd"])
def test_credentials_that_are_not_good_are_refused_even_where_none_are_needed(header: str) -> None:
    with pytest.raises(StatusError) as refused:
        Authenticator(Objects()).principal(header, None, True, 0.0)
    assert refused.value.code == 401


def test_a_workload_acts_for_itself_only() -> None:
    web = Principal("workload", "t", "shop", "web")
    check_own(web, "shop", "web-1")
    check_own(web, "shop", "web-1", "web")
    check_own(Principal("admin", "a"), "any", "thing")
    for namespace, workload, account in (("other", "web-1", None), ("shop", "web-1", "db"), ("", "", None)):
        with pytest.raises(StatusError):
            check_own(web, namespace, workload, account)
    bound = Principal("workload", "t", "shop", "web", workload="web-1")
    check_own(bound, "shop", "web-1")
    with pytest.raises(StatusError, match="bound to workload web-1"):
        check_own(bound, "shop", "web-2")


@pytest.mark.asyncio
async def test_where_a_token_is_configured_everything_but_health_needs_it(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{ADMIN_TOKEN} alice\n")
    options = Options(admin_token_file=str(tmp_path / "tokens"), audit_file=str(tmp_path / "audit"))
    async with api_in(tmp_path, options) as (_, client):
        for method, path in (
            ("GET", SERVICES),
            ("POST", SERVICES),
            ("GET", "/api"),
            ("GET", "/openapi/v3"),
            ("GET", "/x"),
        ):
            _, refused = await client.ask(method, path, code=401)
            assert refused["reason"] == "Unauthorized"
        _, refused = await client.ask("GET", SERVICES, code=401, Authorization="Bearer not-the-secret")
        assert "not-the-secret" not in json.dumps(refused)
        for path in ("/healthz", "/livez", "/readyz", "/version"):
            await client.ask("GET", path, code=200)
        await client.post(SERVICES, service("web"), Authorization=f"Bearer {ADMIN_TOKEN}")
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert [line["code"] for line in lines] == [401, 401, 401, 401, 401, 401, 201]
    assert lines[-1]["user"] == "alice"
    assert lines[-1]["resource"] == "services"
    assert lines[-1]["name"] == "web"
    assert lines[-1]["verb"] == "post"
    assert ADMIN_TOKEN not in (tmp_path / "audit").read_text()
    assert "not-the-secret" not in (tmp_path / "audit").read_text()
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o600


@pytest.mark.asyncio
async def test_tokens_can_be_changed_while_running_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(ADMIN_TOKEN)
    async with api_in(tmp_path, Options(admin_token_file=str(file))) as (api, client):
        file.write_text("another-long-secret")
        api.door.token_looked = -10.0
        await client.get(SERVICES, 401, Authorization=f"Bearer {ADMIN_TOKEN}")
        await client.get(SERVICES, 200, Authorization="Bearer another-long-secret")
        file.write_text("")
        api.door.token_looked = -10.0
        await client.get(SERVICES, 200, Authorization="Bearer another-long-secret")
        await client.get(SERVICES, 401)


@pytest.mark.asyncio
async def test_a_token_file_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        with pytest.raises(ValueError, match="administrators' tokens"):
            ControlApi(store, options=Options(admin_token_file=str(tmp_path / "none")))


@pytest.mark.asyncio
async def test_nothing_is_open_beyond_loopback(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        api = ControlApi(store)
        with pytest.raises(ValueError, match="would be open to everybody"):
            await api.start("0.0.0.0", 0)
        await api.close()
        (tmp_path / "tokens").write_text(ADMIN_TOKEN)
        api = ControlApi(store, options=Options(admin_token_file=str(tmp_path / "tokens")))
        with pytest.raises(ValueError, match="would show credentials"):
            await api.start("0.0.0.0", 0)
        await api.close()
        api = ControlApi(store, options=Options(admin_token_file=str(tmp_path / "tokens"), allow_plain=True))
        await api.start("0.0.0.0", 0)
        await api.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Host": "evil.example:15010"},
     {"Host": "localhost.evil.example"}],
)  # fmt: skip
async def test_web_pages_cannot_use_the_open_api(tmp_path: Path, headers: dict[str, str]) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.get(SERVICES, 403, **headers)
        for host in ("localhost:1", "127.0.0.1", "[::1]:15010", "control.localhost"):
            await client.get(SERVICES, 200, Host=host)


@pytest.mark.asyncio
async def test_audit_lines_go_to_the_log_where_there_is_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fairlead.audit")
    async with api_in(tmp_path) as (_, client):
        secret = {"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}}
        await client.ask("POST", "/api/v1/namespaces/default/secrets", secret)
        await client.ask("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": "a\nb"}}, 422)
    text = caplog.text
    assert '"resource":"secrets"' in text
    assert "hunter2" not in text
    assert '"code":422' in text
