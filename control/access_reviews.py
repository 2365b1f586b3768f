"""Shell: questions about permissions over HTTP: SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
LocalSubjectAccessReview and SelfSubjectReview (`kubectl auth can-i`, `auth can-i --list`, `auth whoami`)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .access import Access, user_of
from .api_body import YamlLoad, read_body
from .api_context import current
from .api_objects import body_of, respond, weight
from .aside import Aside, at_once
from .rbac import AUTHENTICATED, Attributes, User
from .status import bad_request

AUTHORIZATION, AUTHENTICATION = "authorization.k8s.io", "authentication.k8s.io"


class AccessReviews:
    """Handlers."""

    def __init__(self, access: Access, load_yaml: YamlLoad, aside: Aside = at_once) -> None:
        self._access = access
        self._aside = aside
        self._load_yaml = load_yaml

    def routes(self) -> list[web.RouteDef]:
        asked = f"/apis/{AUTHORIZATION}/v1"
        return [
            web.post(f"{asked}/selfsubjectaccessreviews", self._self_access),
            web.post(f"{asked}/selfsubjectrulesreviews", self._self_rules),
            web.post(f"{asked}/subjectaccessreviews", self._access_of),
            web.post(f"{asked}/namespaces/{{namespace}}/localsubjectaccessreviews", self._access_of),
            web.post(f"/apis/{AUTHENTICATION}/v1/selfsubjectreviews", self._self),
        ]

    async def _spec(self, request: web.Request, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the whole question, its spec)"""
        data, content_type = await body_of(request), request.headers.get("Content-Type", "")
        body, _ = await self._aside(
            weight(data, content_type), lambda: read_body(data, content_type, self._load_yaml, False)
        )
        if not isinstance(body, dict) or body.get("kind") not in (None, kind):
            raise bad_request(f"expected a {kind}")
        spec = body.get("spec") or {}
        if not isinstance(spec, dict):
            raise bad_request("spec: expected an object")
        return body, spec

    def _answer(
        self, request: web.Request, kind: str, group: str, spec: dict[str, Any], status: dict[str, Any]
    ) -> web.Response:
        made = {"kind": kind, "apiVersion": f"{group}/v1", "metadata": {"creationTimestamp": None}, "spec": spec,
                "status": status}  # fmt: skip
        return respond(request, made, 201)

    async def _self_access(self, request: web.Request) -> web.Response:
        kind = "SelfSubjectAccessReview"
        _, spec = await self._spec(request, kind)
        return self._answer(request, kind, AUTHORIZATION, spec, self._decide(user_of(current().principal), spec))

    async def _access_of(self, request: web.Request) -> web.Response:
        namespace = request.match_info.get("namespace", "")
        kind = "LocalSubjectAccessReview" if namespace else "SubjectAccessReview"
        _, spec = await self._spec(request, kind)
        name, groups = spec.get("user") or "", spec.get("groups") or []
        if not isinstance(name, str) or not isinstance(groups, list) or not all(isinstance(g, str) for g in groups):
            raise bad_request("spec.user: expected text, spec.groups: a list of texts")
        if not name and not groups:
            raise bad_request("spec.user: at least one of user or group must be specified")
        asked = spec.get("resourceAttributes")
        if namespace and (not isinstance(asked, dict) or asked.get("namespace") != namespace):
            raise bad_request(f"spec.resourceAttributes.namespace: must match metadata.namespace: {namespace}")
        return self._answer(request, kind, AUTHORIZATION, spec, self._decide(User(name, tuple(groups)), spec))

    def _decide(self, user: User, spec: dict[str, Any]) -> dict[str, Any]:
        decision = self._access.may(user, read_attributes(spec))
        return {"allowed": decision.allowed, **({"reason": decision.reason} if decision.reason else {})}

    async def _self_rules(self, request: web.Request) -> web.Response:
        kind = "SelfSubjectRulesReview"
        _, spec = await self._spec(request, kind)
        namespace = spec.get("namespace")
        if not isinstance(namespace, str) or not namespace:
            raise bad_request("no namespace on request")
        rules = [rule.as_object() for rule in self._access.rbac.rules_for(user_of(current().principal), namespace)]
        answer = {
            "resourceRules": [rule for rule in rules if "resources" in rule],
            "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
            "incomplete": False,
        }
        return self._answer(request, kind, AUTHORIZATION, {}, answer)

    async def _self(self, request: web.Request) -> web.Response:
        kind = "SelfSubjectReview"
        await self._spec(request, kind)
        user = user_of(current().principal)
        groups = user.groups if AUTHENTICATED in user.groups else (*user.groups, AUTHENTICATED)
        answer = {"userInfo": {"username": user.name, "groups": list(groups)}}
        return self._answer(request, kind, AUTHENTICATION, {}, answer)


def read_attributes(spec: dict[str, Any]) -> Attributes:
    """Raises StatusError 400."""
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    one: Any = path if resource is None else resource
    if not isinstance(one, dict) or (resource is not None and path is not None):
        raise bad_request("spec: exactly one of nonResourceAttributes or resourceAttributes must be specified")
    if not all(isinstance(value, str) for key, value in one.items() if not key.endswith("Selector")):
        raise bad_request("spec: attributes are texts")
    if resource is None:
        return Attributes(one.get("verb", ""), path=one.get("path", ""))
    return Attributes(
        one.get("verb", ""), one.get("group", ""), one.get("resource", ""), one.get("subresource", ""),
        one.get("namespace", ""), one.get("name", ""),
    )  # fmt: skip
