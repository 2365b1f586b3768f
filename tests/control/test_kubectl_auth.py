"""The real kubectl's `auth` verbs, roles and impersonation."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.control.authority_files import open_authority
from tests.control.kubectl import Kubectl
from tests.control.serving import api_in
from tests.control.test_rbac import ADMIN, options

pytestmark = pytest.mark.asyncio


async def test_kubectl_makes_roles_asks_what_may_be_done_and_who_it_is(tmp_path: Path) -> None:
    issuer = open_authority(tmp_path, "cluster.local", 3600.0)
    async with api_in(tmp_path, options(tmp_path)) as (api, _):
        port = await api.start("127.0.0.1", 0, ssl=issuer.server_context(["127.0.0.1"]))
        kubectl = Kubectl(tmp_path, f"https://127.0.0.1:{port}")  # kubectl shows tokens over TLS alone
        config = tmp_path / "config"
        text = config.read_text().replace("cluster: {server", "cluster: {certificate-authority: ca.pem, server")
        config.write_text(text.replace("user: {}", f"user: {{token: {ADMIN}}}"))
        await kubectl.done("create", "namespace", "shop")
        await kubectl.done("create", "rolebinding", "a", "--clusterrole=edit", "--user=alice", "-n", "shop")
        await kubectl.done("create", "role", "r", "--verb=get", "--resource=services", "-n", "shop")
        await kubectl.done("create", "clusterrole", "c", "--verb=get", "--non-resource-url=/metrics")
        assert (
            await kubectl.done("auth", "can-i", "delete", "virtualservices", "-n", "shop", "--as", "alice") == "yes\n"
        )
        code, out, _ = await kubectl.run("auth", "can-i", "get", "services", "--as", "alice")
        assert (code, out) == (1, "no\n")
        config.write_text(text.replace("user: {}", "user: {token: alice-token}"))
        who = await kubectl.done("auth", "whoami")
        assert "alice" in who and "[dev system:authenticated]" in who
        listed = await kubectl.done("auth", "can-i", "--list", "-n", "shop")
        assert "virtualservices.networking.istio.io" in listed and "selfsubjectreviews.authentication.k8s.io" in listed
        code, _, error = await kubectl.run("get", "services")
        assert code == 1
        assert error == (
            'Error from server (Forbidden): services is forbidden: User "alice" cannot list resource "services" in API '
            'group "" in the namespace "default"\n'
        )
        await kubectl.done("create", "service", "clusterip", "web", "--tcp=80", "-n", "shop")
        code, _, error = await kubectl.run(
            "create", "rolebinding", "up", "--clusterrole=admin", "--user=alice", "-n", "shop"
        )
        assert code == 1 and 'cannot create resource "rolebindings"' in error
