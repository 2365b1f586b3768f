"""Who may do what: rules, bindings, aggregation, escalation, and the words of refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.access import attributes_of
from fairlead.control.api import Options
from fairlead.control.rbac import (
    AGGREGATE_DEPTH_MAX,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    Attributes,
    Rbac,
    Rule,
    User,
    _covers,
    _path_covers,
    _path_matches,
    pieces,
    read_subject,
)
from fairlead.control.store import Key, Objects, Write
from tests.control.serving import SERVICES, Client, api_in, service

ADMIN = "an-admin-token"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
TOKENS = f"{ADMIN} root\nalice-token alice dev\nbob-token bob -\nowner-token owner -\nmaker-token maker -\n"
ME = {name: f"Bearer {name}-token" for name in ("alice", "bob", "owner", "maker")} | {"root": f"Bearer {ADMIN}"}


def options(folder: Path, **more: Any) -> Options:
    (folder / "tokens").write_text(TOKENS)
    return Options(admin_token_file=str(folder / "tokens"), audit_file=str(folder / "audit"), **more)


def role(name: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **more}, "rules": list(rules)}


def rule(verbs: str, resources: str, groups: str = "", **more: Any) -> dict[str, Any]:
    return {"verbs": verbs.split(), "resources": resources.split(), "apiGroups": groups.split(","), **more}


def binding(name: str, kind: str, to: str, *subjects: tuple[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": to},
        "subjects": [{"kind": who, "name": what} for who, what in subjects],
    }


async def grant(client: Client, namespace: str, made: dict[str, Any], **headers: Any) -> None:
    where = f"{RBAC}/namespaces/{namespace}/rolebindings" if namespace else f"{RBAC}/clusterrolebindings"
    await client.post(where, made, Authorization=ME["root"], **headers)


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("GET", "/api/v1/namespaces/a/services", Attributes("list", "", "services", "", "a")),
        ("GET", "/api/v1/services?watch=1", Attributes("watch", "", "services")),
        ("GET", "/api/v1/services?watch=", Attributes("watch", "", "services")),
        ("GET", "/api/v1/namespaces/a/services/b", Attributes("get", "", "services", "", "a", "b")),
        ("HEAD", "/api/v1/namespaces/a/services/b/", Attributes("get", "", "services", "", "a", "b")),
        ("PATCH", "/api/v1/namespaces/a/services/b/status", Attributes("patch", "", "services", "status", "a", "b")),
        ("DELETE", "/api/v1/namespaces/a/services", Attributes("deletecollection", "", "services", "", "a")),
        ("GET", "/api/v1/namespaces/a", Attributes("get", "", "namespaces", "", "a", "a")),
        ("PUT", "/api/v1/namespaces/a/status", Attributes("update", "", "namespaces", "status", "a", "a")),
        ("POST", "/apis/g/v1/namespaces/a/things", Attributes("create", "g", "things", "", "a")),
        ("GET", "/api/v1/namespaces/a%2Fb/services", Attributes("list", "", "services", "", "a/b")),
        ("GET", "/api/v1/services?fieldSelector=metadata.name%3Db", Attributes("list", "", "services", "", "", "b")),
        ("GET", "/apis/g/v1", Attributes("get", path="/apis/g/v1")),
        ("POST", "/fairlead/v1/tokens", Attributes("post", path="/fairlead/v1/tokens")),
    ],
)  # fmt: skip
def test_what_a_request_wants_is_told_as_upstream(method: str, path: str, wanted: Attributes) -> None:
    raw, _, query = path.partition("?")
    from urllib.parse import parse_qsl

    assert attributes_of(method, raw, dict(parse_qsl(query, keep_blank_values=True))) == wanted


NAMES = st.sampled_from(["a", "b", "a/status", "b/status", "*/status", "*"])
RULES = st.builds(
    Rule,
    st.frozensets(st.sampled_from(["get", "list", "*"]), min_size=1),
    st.frozensets(st.sampled_from(["", "g", "*"]), min_size=1),
    st.frozensets(NAMES, min_size=1),
    st.frozensets(st.sampled_from(["x", "y"])),
)
WANTED = st.builds(
    Attributes, st.sampled_from(["get", "list", "watch"]), st.sampled_from(["", "g", "h"]),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["", "status", "log"]), st.just(""), st.sampled_from(["", "x", "y", "z"]),
)  # fmt: skip


@given(st.lists(RULES, max_size=3), RULES, WANTED)
def test_who_covers_a_rule_may_all_that_it_permits(held: list[Rule], granted: Rule, wanted: Attributes) -> None:
    missing = [one for one in pieces(granted) if not any(_covers(own, one) for own in held)]
    if not missing and granted.allows(wanted):
        assert any(own.allows(wanted) for own in held)


PATHS = st.text("/ab*", min_size=1, max_size=5)


@given(PATHS, PATHS, st.text("/ab", max_size=6))
def test_who_covers_a_path_may_all_paths_that_it_stands_for(held: str, granted: str, path: str) -> None:
    if _path_covers(held, granted) and _path_matches(granted, path):
        assert _path_matches(held, path)


@pytest.mark.parametrize(
    ("held", "granted", "covered"),
    [
        ("*", "*", True), ("*", "/a", True), ("/a", "*", False), ("/a/*", "*", False), ("/a/*", "/a/*", True),
        ("/a/*", "/a/b/*", True), ("/a/*", "/a", False), ("/a", "/a/*", False), ("/a*", "/ab", True),
        ("/a", "/ab", False),
    ],
)  # fmt: skip
def test_a_star_covers_what_it_begins(held: str, granted: str, covered: bool) -> None:
    assert _path_covers(held, granted) is covered


@pytest.mark.parametrize(
    ("resources", "resource", "subresource", "has"),
    [
        ("a", "a", "", True), ("a", "a", "status", False), ("a/status", "a", "status", True),
        ("a/status", "a", "", False),
        ("*/status", "a", "status", True), ("*/status", "a", "log", False), ("*/status", "a", "", False),
        ("*", "a", "status", True), ("b/status", "a", "status", False),
    ],
)  # fmt: skip
def test_subresources_are_permitted_by_name(resources: str, resource: str, subresource: str, has: bool) -> None:
    made = Rule(frozenset(["get"]), frozenset([""]), frozenset([resources]))
    assert made.allows(Attributes("get", "", resource, subresource)) is has
    (piece,) = pieces(Rule(frozenset(["get"]), frozenset([""]), frozenset([f"{resource}/{subresource}".strip("/")])))
    assert _covers(made, piece) is has


def test_names_are_covered_by_the_same_or_more_names_and_all_by_none() -> None:
    def named(*names: str) -> Rule:
        return Rule(frozenset(["get"]), frozenset([""]), frozenset(["a"]), frozenset(names))

    assert _covers(named("x"), named("x"))
    assert _covers(named("x", "y"), named("x"))
    assert _covers(named(), named("x"))
    assert not _covers(named("x"), named("y"))
    assert not _covers(named("x"), named())


@pytest.mark.parametrize(
    ("subject", "who"),
    [
        ({"kind": "User", "name": "ann"}, ("User", "ann")),
        ({"kind": "Group", "name": "dev"}, ("Group", "dev")),
        ({"kind": "ServiceAccount", "name": "web"}, ("User", "system:serviceaccount:d:web")),
        ({"kind": "ServiceAccount", "name": "web", "namespace": "e"}, ("User", "system:serviceaccount:e:web")),
        ({"kind": "Robot", "name": "x"}, None),
        ({"kind": "User", "name": ""}, None),
        ({"kind": "User", "name": 5}, None),
        ({"kind": "User"}, None),
        ("User", None),
    ],
)
def test_a_subject_that_is_not_well_formed_is_nobody(subject: Any, who: Any) -> None:
    assert read_subject(subject, "d") == who


class Grants:
    """Roles and bindings in memory."""

    def __init__(self) -> None:
        self.memory = Objects()
        self.rbac = Rbac(self.memory)

    def put(self, resource: str, namespace: str, made: dict[str, Any]) -> None:
        self.memory.commit(self.memory.plan([Write(Key(resource, namespace, made["metadata"]["name"]), made)]))

    def may(self, namespace: str = "a", resource: str = "services") -> bool:
        return self.rbac.decide(User("ann", ()), Attributes("get", "", resource, "", namespace)).allowed


def test_a_role_is_bound_within_its_namespace_and_never_everywhere() -> None:
    grants = Grants()
    grants.put(ROLES, "a", role("r", rule("get", "services")))
    grants.put(ROLES, "", role("r", rule("get", "services")))
    grants.put(CLUSTER_ROLE_BINDINGS, "", binding("all", "Role", "r", ("User", "ann")))
    assert not grants.may()
    grants.put(ROLE_BINDINGS, "b", binding("wrong", "Role", "r", ("User", "ann")))
    grants.put(ROLE_BINDINGS, "a", binding("odd", "Robot", "r", ("User", "ann")))
    assert not grants.may()
    grants.put(ROLE_BINDINGS, "a", binding("here", "Role", "r", ("User", "ann")))
    assert grants.may()
    assert not grants.may("b")
    assert not grants.may("")


def test_roles_gather_each_other_in_circles_and_chains_up_to_a_depth() -> None:
    def gathers(name: str, label: str, own: str) -> dict[str, Any]:
        chosen = {"clusterRoleSelectors": [{"matchLabels": {"l": label}}]}
        return role(name, rule("get", "secrets"), labels={"l": own}) | {"aggregationRule": chosen}

    for length, reached in ((AGGREGATE_DEPTH_MAX, True), (AGGREGATE_DEPTH_MAX + 1, False)):
        grants = Grants()
        for number in range(length):
            grants.put(CLUSTER_ROLES, "", gathers(f"r{number}", f"l{number + 1}", f"l{number}"))
        grants.put(CLUSTER_ROLES, "", role("last", rule("get", "services"), labels={"l": f"l{length}"}))
        grants.put(CLUSTER_ROLE_BINDINGS, "", binding("b", "ClusterRole", "r0", ("User", "ann")))
        assert grants.may() is reached
        assert not grants.may("a", "secrets"), "what a role that gathers says itself does not count"
    grants.put(CLUSTER_ROLES, "", gathers("r0", "l0", "l0"))
    assert not grants.may(), "it does not gather itself"


@pytest.mark.asyncio
async def test_who_has_no_role_gets_kubernetes_words(tmp_path: Path) -> None:
    async with api_in(tmp_path, options(tmp_path)) as (_, client):
        refused = await client.get(f"{SERVICES}/web", 403, Authorization=ME["alice"])
        assert refused["message"] == (
            'services "web" is forbidden: User "alice" cannot get resource "services" in API group "" '
            'in the namespace "default"'
        )
        assert refused["reason"] == "Forbidden" and refused["details"] == {"name": "web", "kind": "services"}
        refused = await client.get("/apis/networking.istio.io/v1/virtualservices", 403, Authorization=ME["alice"])
        assert refused["message"] == (
            'virtualservices.networking.istio.io is forbidden: User "alice" cannot list resource "virtualservices" '
            'in API group "networking.istio.io" at the cluster scope'
        )
        refused = await client.get("/metrics", 403, Authorization=ME["alice"])
        assert refused["message"] == 'forbidden: User "alice" cannot get path "/metrics"'
        await client.get("/apis", 200, Authorization=ME["alice"])
        await client.get(SERVICES, 200, Authorization=ME["root"])


@pytest.mark.asyncio
async def test_default_roles_are_there_and_do_what_their_names_say(tmp_path: Path) -> None:
    async with api_in(tmp_path, options(tmp_path)) as (_, client):
        found = await client.get(f"{RBAC}/clusterroles", Authorization=ME["root"])
        names = {item["metadata"]["name"] for item in found["items"]}
        assert {"cluster-admin", "admin", "edit", "view", "system:discovery", "system:basic-user"} <= names
        await client.post("/api/v1/namespaces", {"metadata": {"name": "shop"}}, Authorization=ME["root"])
        for who, name in (("alice", "view"), ("bob", "edit"), ("owner", "admin")):
            await grant(client, "shop", binding(name, "ClusterRole", name, ("User", who)))
        services, secrets = "/api/v1/namespaces/shop/services", "/api/v1/namespaces/shop/secrets"
        roles = f"{RBAC}/namespaces/shop/roles"
        for who, reads, reads_secrets, writes, grants in (
            ("alice", 200, 403, 403, 403), ("bob", 200, 200, 201, 403), ("owner", 200, 200, 201, 201),
        ):  # fmt: skip
            me = ME[who]
            await client.get(services, reads, Authorization=me)
            await client.get(secrets, reads_secrets, Authorization=me)
            await client.post(services, service(f"of-{who}"), writes, Authorization=me)
            await client.post(roles, role(f"of-{who}", rule("get", "services")), grants, Authorization=me)
            await client.get(SERVICES, 403, Authorization=me)
            await client.get("/api/v1/services", 403, Authorization=me)


@pytest.mark.asyncio
async def test_a_role_of_labels_gathers_what_is_there_now(tmp_path: Path) -> None:
    async with api_in(tmp_path, options(tmp_path)) as (_, client):
        await grant(client, "", binding("v", "ClusterRole", "gather", ("Group", "dev")))
        gather = {**role("gather"), "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "gather"}}]}}
        await client.post(f"{RBAC}/clusterroles", gather, Authorization=ME["root"])
        await client.get(SERVICES, 403, Authorization=ME["alice"])
        part = role("part", rule("list", "services"), labels={"to": "gather"})
        await client.post(f"{RBAC}/clusterroles", part, Authorization=ME["root"])
        await client.get(SERVICES, 200, Authorization=ME["alice"])
        await client.delete(f"{RBAC}/clusterroles/part", Authorization=ME["root"])
        await client.get(SERVICES, 403, Authorization=ME["alice"])


@pytest.mark.asyncio
async def test_names_subresources_and_urls_are_kept_apart(tmp_path: Path) -> None:
    async with api_in(tmp_path, options(tmp_path)) as (_, client):
        for name in ("web", "db"):
            await client.post(SERVICES, service(name), Authorization=ME["root"])
        await client.post(
            f"{RBAC}/clusterroles",
            role("some", rule("get list watch patch", "services", resourceNames=["web"]),
                 {"verbs": ["get"], "nonResourceURLs": ["/metr*"]}), Authorization=ME["root"],
        )  # fmt: skip
        await grant(client, "", binding("some", "ClusterRole", "some", ("User", "bob")))
        me: dict[str, Any] = {"Authorization": ME["bob"]}
        await client.get(f"{SERVICES}/web", 200, **me)
        await client.get(f"{SERVICES}/db", 403, **me)
        await client.get(SERVICES, 403, **me)
        listed = await client.get(f"{SERVICES}?fieldSelector=metadata.name%3Dweb", 200, **me)
        assert [item["metadata"]["name"] for item in listed["items"]] == ["web"]
        await client.ask(
            "PATCH", f"{SERVICES}/web/status", {"status": {}}, 403, Content_Type="application/merge-patch+json", **me
        )
        await client.get("/metrics", 404, **me)  # permitted, but this API alone has none
        await client.get("/fairlead/v1/tokens", 403, **me)


@pytest.mark.asyncio
async def test_nobody_grants_what_they_do_not_have(tmp_path: Path) -> None:
    roles, bindings = f"{RBAC}/namespaces/default/roles", f"{RBAC}/namespaces/default/rolebindings"
    async with api_in(tmp_path, options(tmp_path)) as (_, client):
        mine: dict[str, Any] = {"Authorization": ME["maker"]}
        maker = role("maker", rule("*", "roles rolebindings", "rbac.authorization.k8s.io"), rule("get", "services"))
        maker["rules"][0]["verbs"] = ["create", "update", "patch", "get"]
        await client.post(f"{RBAC}/clusterroles", maker, Authorization=ME["root"])
        await grant(client, "default", binding("maker", "ClusterRole", "maker", ("User", "maker")))
        await client.post(roles, role("less", rule("get", "services")), **mine)
        refused = await client.post(roles, role("more", rule("get list", "services secrets")), 403, **mine)
        assert "is attempting to grant RBAC permissions not currently held:" in refused["message"]
        assert '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}' in refused["message"]
        more = [{"op": "add", "path": "/rules/0/verbs/-", "value": "delete"}]
        await client.ask("PATCH", f"{roles}/less", more, 403, Content_Type="application/json-patch+json", **mine)
        text = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", **role("less", rule("*", "*", "*"))}
        apply = f"{roles}/less?fieldManager=x&force=true"
        await client.ask("PATCH", apply, text, 403, Content_Type="application/apply-patch+yaml", **mine)
        await client.ask("PATCH", f"{apply}&dryRun=All", text, 403, Content_Type="application/apply-patch+yaml", **mine)
        await client.post(bindings, binding("up", "ClusterRole", "cluster-admin", ("User", "maker")), 403, **mine)
        await client.post(bindings, binding("up", "ClusterRole", "admin", ("User", "maker")), 403, **mine)
        await client.post(bindings, binding("up", "Role", "nothing", ("User", "maker")), 404, **mine)
        await client.post(bindings, binding("less", "Role", "less", ("User", "bob")), **mine)
        changed = {**binding("less", "ClusterRole", "maker", ("User", "bob"))}
        refused = await client.put(f"{bindings}/less", changed, 422, **mine)
        assert "cannot change roleRef" in refused["message"]
        add = {"subjects": [{"kind": "User", "name": "eve"}]}  # into a binding of more than the maker has
        await grant(client, "default", binding("big", "ClusterRole", "edit", ("User", "owner")))
        await client.ask("PATCH", f"{bindings}/big", add, 403, Content_Type="application/merge-patch+json", **mine)
        allow = role("escalate", rule("escalate bind", "roles clusterroles", "rbac.authorization.k8s.io"))
        await client.post(f"{RBAC}/clusterroles", allow, Authorization=ME["root"])
        await grant(client, "default", binding("escalate", "ClusterRole", "escalate", ("User", "maker")))
        await client.post(roles, role("more", rule("get list", "services secrets")), **mine)
        await client.post(bindings, binding("up", "ClusterRole", "admin", ("User", "maker")), **mine)


@pytest.mark.asyncio
async def test_labels_gather_no_role_for_who_does_not_have_it(tmp_path: Path) -> None:
    """Labels of a ClusterRole decide which others gather it: to set them is to grant its rules."""
    async with api_in(tmp_path, options(tmp_path)) as (_, client):
        roles, mine, patch = f"{RBAC}/clusterroles", {"Authorization": ME["maker"]}, "application/merge-patch+json"
        maker = role("maker", rule("get update patch", "clusterroles", "rbac.authorization.k8s.io"))
        await client.post(roles, maker, Authorization=ME["root"])
        await grant(client, "", binding("maker", "ClusterRole", "maker", ("User", "maker")))
        await grant(client, "", binding("v", "ClusterRole", "view", ("User", "maker")))
        gathered = {"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}}
        refused = await client.ask("PATCH", f"{roles}/cluster-admin", gathered, 403, Content_Type=patch, **mine)
        assert "permissions not currently held" in refused[1]["message"]
        whole = await client.get(f"{roles}/cluster-admin", 200, **mine)
        whole["metadata"]["labels"] |= gathered["metadata"]["labels"]
        await client.put(f"{roles}/cluster-admin", whole, 403, **mine)
        await client.get("/api/v1/secrets", 403, **mine)
        await client.ask("PATCH", f"{roles}/view", {"aggregationRule": None}, 403, Content_Type=patch, **mine)
        await client.ask("PATCH", f"{roles}/maker", gathered, 200, Content_Type=patch, **mine)
        kept = {"metadata": {"finalizers": ["example.com/kept"]}}
        await client.ask("PATCH", f"{roles}/cluster-admin", kept, 200, Content_Type=patch, **mine)


@pytest.mark.asyncio
async def test_service_accounts_and_impersonation(tmp_path: Path) -> None:
    async with api_in(tmp_path, options(tmp_path)) as (_, client):
        made = await client.post(
            "/fairlead/v1/tokens", {"namespace": "shop", "serviceAccount": "web"}, Authorization=ME["root"]
        )
        mine: dict[str, Any] = {"Authorization": f"Bearer {made['token']}"}
        refused = await client.get(SERVICES, 403, **mine)
        assert 'User "system:serviceaccount:shop:web" cannot list' in refused["message"]
        subject = {"kind": "ServiceAccount", "name": "web", "namespace": "shop"}
        await grant(client, "default", {**binding("sa", "ClusterRole", "view"), "subjects": [subject]})
        await client.get(SERVICES, 200, **mine)
        once = await client.post(
            "/fairlead/v1/tokens", {"namespace": "shop", "serviceAccount": "web", "oneTime": True},
            Authorization=ME["root"],
        )  # fmt: skip
        await client.get(SERVICES, 403, Authorization=f"Bearer {once['token']}")
        as_web: dict[str, Any] = {"Impersonate_User": "system:serviceaccount:shop:web"}
        await client.get(SERVICES, 200, Authorization=ME["root"], **as_web)
        await client.get(SERVICES, 403, Authorization=ME["alice"], **as_web)
        await client.get(SERVICES, 403, Authorization=ME["root"], Impersonate_User="bob")
        await client.get(
            SERVICES, 200, Authorization=ME["root"], Impersonate_User="bob", Impersonate_Group="system:masters"
        )
        await client.get(
            SERVICES, 403, Authorization=ME["alice"], Impersonate_User="root", Impersonate_Group="system:masters"
        )
        await client.get(SERVICES, 400, Authorization=ME["alice"], Impersonate_Group="system:masters")
        # names of headers are the same in any case: HTTP/2 proxies write them small
        await client.get(SERVICES, 403, Authorization=ME["root"], impersonate_user="bob")
        await client.get(SERVICES, 400, Authorization=ME["root"], IMPERSONATE_GROUP="dev")


@pytest.mark.asyncio
async def test_reviews_answer_as_upstream(tmp_path: Path) -> None:
    async with api_in(tmp_path, options(tmp_path)) as (_, client):
        await grant(client, "default", binding("v", "ClusterRole", "view", ("Group", "dev")))
        asked = "/apis/authorization.k8s.io/v1"
        spec = {"resourceAttributes": {"verb": "list", "resource": "services", "namespace": "default"}}
        me: dict[str, Any] = {"Authorization": ME["alice"]}
        answer = await client.post(f"{asked}/selfsubjectaccessreviews", {"spec": spec}, **me)
        assert answer["status"] == {
            "allowed": True,
            "reason": 'RBAC: allowed by RoleBinding "v/default" of ClusterRole "view" to Group "dev"',
        }
        spec["resourceAttributes"]["verb"] = "delete"
        answer = await client.post(f"{asked}/selfsubjectaccessreviews", {"spec": spec}, **me)
        assert answer["status"] == {"allowed": False}
        await client.post(f"{asked}/subjectaccessreviews", {"spec": {**spec, "user": "bob"}}, 403, **me)
        root: dict[str, Any] = {"Authorization": ME["root"]}
        answer = await client.post(
            f"{asked}/subjectaccessreviews", {"spec": {**spec, "groups": ["system:masters"]}}, **root
        )
        assert answer["status"]["allowed"] is True
        local = f"{asked}/namespaces/default/localsubjectaccessreviews"
        answer = await client.post(local, {"spec": {**spec, "user": "bob"}}, **root)
        assert answer["status"] == {"allowed": False}
        bad: list[Any] = [5, [], "x", {"namespace": "other"}]
        for wrong in bad:
            await client.post(local, {"spec": {"user": "bob", "resourceAttributes": wrong}}, 400, **root)
        rules = await client.post(f"{asked}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}}, **me)
        assert any("services" in one["resources"] for one in rules["status"]["resourceRules"])
        rules = await client.post(f"{asked}/selfsubjectrulesreviews", {"spec": {"namespace": "other"}}, **me)
        assert not any("services" in one["resources"] for one in rules["status"]["resourceRules"])
        who = await client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, **me)
        assert who["status"]["userInfo"] == {"username": "alice", "groups": ["dev", "system:authenticated"]}


@pytest.mark.asyncio
async def test_the_audit_log_has_who_what_the_decision_and_its_rule(tmp_path: Path) -> None:
    async with api_in(tmp_path, options(tmp_path)) as (_, client):
        await grant(client, "default", binding("e", "ClusterRole", "edit", ("Group", "dev")))
        await client.post(SERVICES, service("web"), Authorization=ME["alice"])
        as_owner: dict[str, Any] = {"Authorization": ME["root"], "Impersonate_User": "owner",
                                    "Impersonate_Group": "system:masters"}  # fmt: skip
        made = await client.post("/fairlead/v1/tokens", {"namespace": "shop", "serviceAccount": "web"}, **as_owner)
        await client.delete(f"/fairlead/v1/tokens/{made['id']}", code=204, **as_owner)
        for line in (tmp_path / "audit").read_text().splitlines()[-2:]:
            told = json.loads(line)
            assert (told["user"], told["impersonatedBy"], told["token"]) == ("owner", "root", made["id"])
        await client.post(SERVICES, service("web2"), Authorization=ME["alice"])
        await client.get(SERVICES, 403, Authorization=ME["bob"])
    allowed, refused = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()][-2:]
    assert (allowed["user"], allowed["groups"], allowed["access"]) == (
        "alice",
        ["dev", "system:authenticated"],
        "create",
    )
    assert (allowed["resource"], allowed["namespace"], allowed["decision"]) == ("services", "default", "allow")
    assert allowed["rule"] == 'RBAC: allowed by RoleBinding "e/default" of ClusterRole "edit" to Group "dev"'
    assert (refused["user"], refused["access"], refused["decision"], refused["code"]) == ("bob", "list", "forbid", 403)
    assert refused["resource"] == "services" and refused["namespace"] == "default"


def test_masters_may_everything_whatever_the_objects_say() -> None:
    from fairlead.control.rbac import Rbac
    from fairlead.control.store import Objects

    rbac = Rbac(Objects())
    assert rbac.decide(User("x", ("system:masters",)), Attributes("get", path="/any")).allowed
    assert not rbac.decide(User("x", ("system:authenticated",)), Attributes("get", path="/any")).allowed
