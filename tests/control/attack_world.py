"""Random requests of several accounts to one API, judged by a permission check of their own; `test_attack_random`.

The judge knows RBAC from its documentation and reads the stored objects as they are; it shares no code with `rbac`.
Every object carries marks (mk7x) that are written once, so that whatever comes out anywhere can be traced to the
object that it was put into.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from fairlead.control.api import ControlApi
from fairlead.control.store import Key as StoreKey
from fairlead.control.store import Objects

RBAC, ISTIO = "rbac.authorization.k8s.io", "networking.istio.io"
USERS: dict[str, list[str]] = {"u0": [], "u1": ["g0"], "u2": ["g0", "g1"], "u3": ["g1"], "u4": []}
NAMESPACES, NAMES = ["n0", "n1", "n2"], ["x", "y", "z"]
KINDS: dict[str, tuple[str, str, bool]] = {
    "services": ("", "Service", True),
    "secrets": ("", "Secret", True),
    "virtualservices": (ISTIO, "VirtualService", True),
    "roles": (RBAC, "Role", True),
    "rolebindings": (RBAC, "RoleBinding", True),
    "clusterroles": (RBAC, "ClusterRole", False),
    "clusterrolebindings": (RBAC, "ClusterRoleBinding", False),
    "namespaces": ("", "Namespace", False),
}
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
MARK = re.compile(r"mk\d+x")
Key = tuple[str, str, str]
"""(plural, namespace, name)"""


def stored_name(plural: str) -> str:
    group = KINDS[plural][0]
    return f"{plural}.{group}" if group else plural


class Judge:
    """Who may what, by the objects as they were when this was made."""

    def __init__(self, memory: Objects) -> None:
        def bodies(plural: str) -> list[dict[str, Any]]:
            return [json.loads(one.body) for one in memory.all(stored_name(plural))]

        self._roles = {
            (one["metadata"].get("namespace", ""), one["metadata"]["name"]): one
            for plural in ("roles", "clusterroles")
            for one in bodies(plural)
        }
        self._bindings = bodies("rolebindings") + bodies("clusterrolebindings")

    def _rules(self, role: dict[str, Any], depth: int = 0) -> Iterator[dict[str, Any]]:
        if "aggregationRule" not in role:
            yield from role.get("rules") or []
            return
        for other in self._roles.values() if depth < 4 else ():
            labels = other["metadata"].get("labels") or {}
            for selector in role["aggregationRule"].get("clusterRoleSelectors") or []:
                wanted = selector.get("matchLabels") or {}
                if "namespace" not in other["metadata"] and other is not role and wanted.items() <= labels.items():
                    yield from self._rules(other, depth + 1)

    def may(self, user: str, groups: list[str], verb: str, key: Key, subresource: str = "", group: str = "-") -> bool:
        """`key` without a name: a collection, or what is still to get one."""
        plural, namespace, name = key
        if plural == "namespaces" and verb not in ("list", "watch"):
            namespace = name  # each is within itself, and all of them are not
        if group == "-":
            group = KINDS[plural][0]
        everybody = {("User", user), *(("Group", one) for one in [*groups, "system:authenticated"])}
        if "system:masters" in groups:
            return True
        for binding in self._bindings:
            place = binding["metadata"].get("namespace", "")
            if place and place != namespace:
                continue
            if not any((one["kind"], one["name"]) in everybody for one in binding.get("subjects") or []):
                continue
            reference = binding["roleRef"]
            role = self._roles.get((place if reference["kind"] == "Role" else "", reference["name"]))
            for rule in self._rules(role) if role else ():
                resources = rule.get("resources") or []
                full = f"{plural}/{subresource}" if subresource else plural
                if (
                    {verb, "*"} & set(rule.get("verbs") or [])
                    and {group, "*"} & set(rule.get("apiGroups") or [])
                    and ({full, "*"} & set(resources) or (subresource and f"*/{subresource}" in resources))
                    and (not rule.get("resourceNames") or name in rule["resourceNames"])
                ):
                    return True
        return False

    def everything(self) -> set[tuple[str, str, Key]]:
        """All that anybody may of a sample of what there is to be permitted."""
        keys: list[Key] = []
        for plural, (_, _, namespaced) in KINDS.items():
            keys += [
                (plural, place, name) for place in (["", "n0", "n1"] if namespaced else [""]) for name in ("", "x")
            ]
        return {
            (user, verb, key)
            for user, groups in USERS.items()
            for verb in ("get", "list", "create", "patch", "delete", "bind", "escalate")
            for key in keys
            if self.may(user, groups, verb, key)
        }


class World:
    """One API under attack. `tell` gets each finding."""

    def __init__(self, api: ControlApi, session: aiohttp.ClientSession, url: str, seed: int) -> None:
        self.api, self.session, self.url = api, session, url
        self.draw = random.Random(seed)
        self.marks: dict[str, tuple[Key, int]] = {}
        """The object that it was put into, and the revision then."""
        self.judges: list[tuple[int, Judge]] = []
        self.findings: list[str] = []
        self.answers: dict[tuple[str, int], int] = {}
        self.watches: list[asyncio.Task[None]] = []
        self.ended: list[asyncio.Task[None]] = []
        self.events = 0

    # --- objects ----------------------------------------------------------------------------------------------------

    def mark(self, key: Key) -> str:
        name = f"mk{len(self.marks)}x"
        self.marks[name] = key, self.api.store.memory.revision
        return name

    def key(self, plural: str = "") -> Key:
        plural = plural or self.draw.choice(list(KINDS))
        if plural == "namespaces":
            return plural, "", self.draw.choice(NAMESPACES)
        return plural, self.draw.choice(NAMESPACES) if KINDS[plural][2] else "", self.draw.choice(NAMES)

    def some(self, values: list[str], most: int = 3) -> list[str]:
        return self.draw.sample(values, self.draw.randint(1, min(most, len(values))))

    def rules(self) -> list[dict[str, Any]]:
        made = []
        for _ in range(self.draw.randint(1, 3)):
            plurals = self.some(list(KINDS), 5)
            resources = [*plurals, *(f"{one}/status" for one in plurals if self.draw.random() < 0.2)]
            rule: dict[str, Any] = {
                "verbs": ["*"] if self.draw.random() < 0.1 else self.some([*VERBS, *VERBS, "bind", "escalate"], 12),
                "apiGroups": ["*"] if self.draw.random() < 0.1 else sorted({KINDS[one][0] for one in plurals}),
                "resources": self.draw.choice([["*"], ["*/status"]]) if self.draw.random() < 0.1 else resources,
            }
            if self.draw.random() < 0.4:
                rule["resourceNames"] = self.some([*NAMES, *NAMESPACES])
            if self.draw.random() < 0.15:
                rule = {"verbs": ["impersonate"], "apiGroups": [""], "resources": self.some(["users", "groups"]),
                        "resourceNames": self.some([*USERS, "g0", "g1", "system:masters"])}  # fmt: skip
            made.append(rule)
        return made

    def body(self, key: Key) -> dict[str, Any]:
        plural, namespace, name = key
        group, kind, _ = KINDS[plural]
        mark = self.mark(key)
        metadata: dict[str, Any] = {"name": name, "annotations": {"m": mark}, "labels": {"of": self.draw.choice("ab")}}
        if namespace:
            metadata["namespace"] = namespace
        body: dict[str, Any] = {"apiVersion": f"{group}/v1" if group else "v1", "kind": kind, "metadata": metadata}
        if plural == "services":
            body["spec"] = {"ports": [{"port": 80, "name": "http"}], "selector": {"app": mark},
                            "externalName": f"{mark}.example"}  # fmt: skip
        elif plural == "secrets":
            body["stringData"] = {"p": mark}
        elif plural == "virtualservices":
            host = self.draw.choice([f"{mark}.example", "same.example", f"x.{self.draw.choice(NAMESPACES)}"])
            to = {"destination": {"host": f"{self.draw.choice(NAMES)}.{self.draw.choice(NAMESPACES)}.svc"}}
            body["spec"] = {"hosts": [host], "http": [{"name": mark, "route": [to]}]}
        elif plural in ("roles", "clusterroles"):
            body["rules"] = self.rules()
            if plural == "clusterroles" and self.draw.random() < 0.1:
                body["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {"of": "a"}}]}
        elif plural in ("rolebindings", "clusterrolebindings"):
            to_role = "Role" if namespace and self.draw.random() < 0.5 else "ClusterRole"
            body["roleRef"] = {"apiGroup": RBAC, "kind": to_role, "name": self.draw.choice([*NAMES, "view", "edit"])}
            subjects = [("User", one) for one in USERS] + [("Group", "g0"), ("Group", "g1")]
            body["subjects"] = [{"apiGroup": RBAC, "kind": kind, "name": one}
                                for kind, one in self.draw.sample(subjects, 3)]  # fmt: skip
        return body

    def path(self, key: Key, subresource: str = "") -> str:
        plural, namespace, name = key
        group = KINDS[plural][0]
        steps = [f"apis/{group}/v1" if group else "api/v1", *(["namespaces", namespace] if namespace else []), plural]
        steps += [one for one in (name, subresource) if one]
        made = "/" + "/".join(steps)
        if self.draw.random() < 0.15:  # the same in other words
            at = self.draw.randrange(1, len(made))
            made = made[:at] + (f"%{ord(made[at]):02x}" if made[at] != "/" else "/") + made[at + 1 :]
        return made

    # --- requests ---------------------------------------------------------------------------------------------------

    def now(self) -> Judge:
        """The judge of what is in force."""
        revision = self.api.store.memory.revision
        if not self.judges or self.judges[-1][0] != revision:
            self.judges.append((revision, Judge(self.api.store.memory)))
        return self.judges[-1][1]

    async def ask(
        self, user: str, method: str, path: str, body: Any = None, headers: Iterable[tuple[str, str]] = ()
    ) -> tuple[int, str]:
        sent = CIMultiDict([("Authorization", f"Bearer {user}-token"), *headers])
        data = json.dumps(body).encode() if body is not None else None
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self.session.request(method, URL(self.url + path, encoded=True), headers=sent, data=data) as answer:
            told = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
            code, text = answer.status, f"{told}\n"
            if code == 200 and "sendInitialEvents" in path:
                async for line in answer.content:
                    text += line.decode()
                    if "initial-events-end" in text:
                        break
            else:
                text += await answer.text()
        self.answers[method, code] = self.answers.get((method, code), 0) + 1
        if code >= 500:
            self.findings.append(f"{user} {method} {path}: {code} {text[:300]}")
        return code, text

    async def start(self) -> None:
        for name in NAMESPACES:
            await self.ask("root", "POST", "/api/v1/namespaces", self.body(("namespaces", "", name)))
        rbac = [one for one in KINDS if KINDS[one][0] == RBAC]
        for number in range(150):
            key = self.key(self.draw.choice(rbac) if number % 2 else "")
            await self.ask("root", "POST", self.path((*key[:2], "")), self.body(key))

    async def step(self) -> None:
        roll = self.draw.random()
        if roll < 0.12:
            await self.as_root()
        elif roll < 0.18:
            self.watch()
        elif roll < 0.25:
            await self.history()
        else:
            await self.attack()
        self.now()
        if len(self.watches) > 12:
            self.end(self.watches.pop(self.draw.randrange(len(self.watches))))

    def end(self, watch: asyncio.Task[None]) -> None:
        watch.cancel()
        self.ended.append(watch)

    async def as_root(self) -> None:
        key = self.key(self.draw.choice(["roles", "rolebindings", "clusterroles", "clusterrolebindings", ""]))
        if self.draw.random() < 0.4:
            if key[0] != "namespaces":
                await self.ask("root", "DELETE", self.path(key))
        elif (await self.ask("root", "POST", self.path((*key[:2], "")), self.body(key)))[0] == 409:
            await self.ask("root", "PUT", self.path(key), self.body(key))

    async def attack(self) -> None:
        user, key = self.draw.choice(list(USERS)), self.key()
        verb = self.draw.choice([*VERBS, "apply"])
        if (verb == "deletecollection" and not key[1]) or (verb == "delete" and key[0] == "namespaces"):
            verb = "get"  # the rest of the world is to stay
        groups, headers = USERS[user], {}
        judge = self.now()
        acting, allowed = user, True
        if self.draw.random() < 0.15:
            acting = self.draw.choice(list(USERS))
            headers["Impersonate-User"] = acting
            groups = self.some(["g0", "g1", "system:masters"], 2) if self.draw.random() < 0.5 else []
            allowed = judge.may(user, USERS[user], "impersonate", ("users", "", acting), group="") and all(
                judge.may(user, USERS[user], "impersonate", ("groups", "", one), group="") for one in groups
            )
        subresource = "status" if self.draw.random() < 0.1 and key[0] == "services" and verb in (
            "get", "update", "patch") else ""  # fmt: skip
        method, path, body, scope, query = self.request(verb, key, subresource, headers)
        wanted = {"apply": "patch"}.get(verb, verb)
        allowed = allowed and judge.may(acting, groups, wanted, scope, subresource)
        there = self.api.store.memory.get(_key(key)) is not None
        if verb == "apply" and allowed and not there:
            allowed = judge.may(acting, groups, "create", key)
        dry = self.draw.random() < 0.2 and verb not in ("get", "list", "watch")
        if dry:
            query.append("dryRun=All")
        before, could = self.api.store.memory.revision, judge
        asked = path + ("?" + "&".join(query) if query else "")
        sent = [*headers.items(), *(("Impersonate-Group", one) for one in groups if "Impersonate-User" in headers)]
        code, text = await self.ask(user, method, asked, body, sent)
        what = f"{user} as {acting} {groups}: {method} {asked}: {code} {text[-400:]}"
        if not allowed and code != 403:
            self.findings.append(f"not permitted, and not refused: {what}")
        rbac = KINDS[key[0]][0] == RBAC and verb in ("create", "update", "patch", "apply")
        if allowed and code == 403 and not rbac:
            self.findings.append(f"permitted, and refused: {what}")
        if (dry or code >= 400 or method == "GET") and self.api.store.memory.revision != before:
            self.findings.append(f"changed something: {what}")
        self.check_marks(what, text, body, judge, acting, groups, scope if allowed else ("", "", "-"))
        if rbac and code < 300 and not dry:
            self.check_growth(what, could, acting, groups)

    def request(
        self, verb: str, key: Key, subresource: str, headers: dict[str, str]
    ) -> tuple[str, str, Any, Key, list[str]]:
        """(method, path, body, what permission is asked for, query)"""
        plural, namespace, name = key
        query: list[str] = []
        if self.draw.random() < 0.2:
            headers["Accept"] = self.draw.choice([
                "application/json;as=Table;v=v1;g=meta.k8s.io", "application/yaml",
                "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io, application/json"])  # fmt: skip
        if verb == "get":
            return "GET", self.path(key, subresource), None, key, query
        if verb in ("list", "watch"):
            if namespace and self.draw.random() < 0.4:
                namespace = ""
            chosen: Key = (plural, namespace, "")
            if verb == "watch":
                query += [self.draw.choice(["watch=1", "watch=true", "watch"]), "sendInitialEvents=1",
                          "resourceVersionMatch=NotOlderThan"]  # fmt: skip
            if self.draw.random() < 0.3:
                query.append(f"fieldSelector={quote(self.draw.choice(['metadata.name=', 'metadata.name==']) + name)}")
                chosen = (plural, namespace, name)
            elif self.draw.random() < 0.3:
                query.append("fieldSelector=" + quote(f"metadata.name!={name}"))
            if self.draw.random() < 0.3:
                query.append("labelSelector=of%3Da")
            if verb == "list" and self.draw.random() < 0.2:
                query.append("limit=1")
            if plural == "namespaces":
                return "GET", self.path((plural, "", "")), None, (plural, "", chosen[2]), query
            return "GET", self.path((plural, namespace, "")), None, chosen, query
        if verb == "create":
            return "POST", self.path((plural, namespace, "")), self.body(key), (plural, namespace, ""), query
        if verb == "update":
            return "PUT", self.path(key, subresource), self.body(key), key, query
        if verb == "patch":
            headers["Content-Type"] = "application/merge-patch+json"
            body = self.body(key)
            if self.draw.random() < 0.5:
                body = {"metadata": {"annotations": {"m": self.mark(key)}}}
            return "PATCH", self.path(key, subresource), body, key, query
        if verb == "apply":
            headers["Content-Type"] = "application/apply-patch+yaml"
            query += [f"fieldManager={self.draw.choice('ab')}", *(["force=1"] if self.draw.random() < 0.5 else [])]
            return "PATCH", self.path(key), self.body(key), key, query
        if verb == "deletecollection":
            query.append("labelSelector=of%3Db")
            return "DELETE", self.path((plural, namespace, "")), None, (plural, namespace, ""), query
        return "DELETE", self.path(key), None, key, query

    # --- findings ---------------------------------------------------------------------------------------------------

    def check_marks(
        self, what: str, text: str, sent: Any, judge: Judge, user: str, groups: list[str], scope: Key
    ) -> None:
        """Every mark that came out is of what was asked for, or of what its reader may read, or was sent just now."""
        own = set(MARK.findall(json.dumps(sent)))
        for mark in set(MARK.findall(text)) - own:
            plural, namespace, name = key = self.marks[mark][0]
            within = plural == scope[0] and scope[1] in ("", namespace) and scope[2] in ("", name)
            if not within and not judge.may(user, groups, "get", key):
                self.findings.append(f"{mark} of {key} came out: {what}")

    def check_growth(self, what: str, could: Judge, user: str, groups: list[str]) -> None:
        """What anybody may now and could not before, the writer of it could before."""
        if any(could.may(user, groups, verb, (plural, place, "")) for verb in ("bind", "escalate")
               for plural in ("roles", "clusterroles") for place in ("", *NAMESPACES)) or any(
               could.may(user, groups, verb, (plural, place, name)) for verb in ("bind", "escalate")
               for plural in ("roles", "clusterroles") for place in ("", *NAMESPACES)
               for name in (*NAMES, "view", "edit")):  # fmt: skip
            return
        for other, verb, key in self.now().everything() - could.everything():
            if not could.may(user, groups, verb, key):
                self.findings.append(f"{other} may {verb} {key} now, which its writer could not: {what}")

    async def history(self) -> None:
        user = self.draw.choice(list(USERS))
        revision = self.draw.randint(1, self.api.store.memory.revision)
        path = self.draw.choice([f"/fairlead/v1/history?limit={self.draw.randint(1, 50)}",
                                 f"/fairlead/v1/history/diff?from={revision}",
                                 "/fairlead/v1/history?namespace=n0&author=root"])  # fmt: skip
        code, text = await self.ask(user, "GET", path)
        what = f"{user}: GET {path}: {code} {text[-300:]}"
        if (code == 403) != (user != "u4"):
            self.findings.append(what)
        self.check_marks(what, text, None, self.now(), user, USERS[user], ("", "", "-"))

    def watch(self) -> None:
        user, key = self.draw.choice(list(USERS)), self.key()
        headers: dict[str, str] = {}
        _, path, _, scope, query = self.request("watch", key, "", headers)
        query = [one for one in query if "nitial" not in one and "Match" not in one] + ["allowWatchBookmarks=1"]
        self.watches.append(asyncio.create_task(self.follow(user, f"{path}?{'&'.join(query)}", scope, headers)))

    async def follow(self, user: str, path: str, scope: Key, headers: dict[str, str]) -> None:
        """Whatever an open watch shows was allowed at some time after it was written."""
        sent = {"Authorization": f"Bearer {user}-token", **headers}
        async with self.session.get(URL(self.url + path, encoded=True), headers=sent) as answer:
            async for line in answer.content:
                text = line.decode()
                self.now()
                for mark in MARK.findall(text):
                    self.events += 1
                    key, written = self.marks[mark]
                    since = [judge for at, judge in self.judges if at >= written] or [self.judges[-1][1]]
                    within = key[0] == scope[0] and scope[1] in ("", key[1]) and scope[2] in ("", key[2])
                    if not within or not any(judge.may(user, USERS[user], "watch", scope) for judge in since):
                        self.findings.append(f"{mark} of {key} came out of {user}'s watch {path}: {text[:300]}")


def _key(key: Key) -> StoreKey:
    return StoreKey(stored_name(key[0]), key[1], key[2])
