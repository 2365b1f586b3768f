"""One test file for each source file, `tests/FOLDER/test_NAME.py`; where it is another one, it stands here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("registry", "policy", "dns", "proxy", "mesh", "control")
PARTS = {
    "registry/digest": "tests/control/test_push.py",
    "registry/kinds_kept": "tests/policy/test_kinds.py",
    "registry/model": "tests/registry/test_snapshot.py",
    "registry/needs": "tests/control/test_fetch.py",
    "registry/reasons": "tests/proxy/test_metrics.py",
    "registry/registration": "tests/registry/test_registration_consul.py",
    "policy/authorize_values": "tests/policy/test_authorize.py",
    "policy/compile_hosts": "tests/policy/test_decide.py",
    "policy/compile_http": "tests/policy/test_decide.py",
    "policy/compile_inbound": "tests/policy/test_decide.py",
    "policy/compile_l4": "tests/policy/test_decide.py",
    "policy/compile_settings": "tests/policy/test_compile_clusters.py",
    "policy/compile_view": "tests/policy/test_compile.py",
    "policy/cors": "tests/policy/test_decide.py",
    "policy/dry_run": "tests/mesh/test_dry_run.py",
    "policy/explain_answer": "tests/policy/test_explain.py",
    "policy/explain_gateway": "tests/policy/test_gateways.py",
    "policy/explain_query": "tests/policy/test_explain.py",
    "policy/match": "tests/policy/test_decide.py",
    "policy/request_authentication": "tests/mesh/test_tokens.py",
    "policy/resources": "tests/policy/test_kinds.py",
    "policy/tables": "tests/policy/test_compile.py",
    "policy/validate_ingress": "tests/policy/test_ingress.py",
    "policy/validate_rbac": "tests/policy/test_validate_kind.py",
    "policy/validate_sidecar": "tests/policy/test_sidecars.py",
    "dns/stream": "tests/dns/test_server.py",
    "dns/write": "tests/dns/test_message.py",
    "proxy/accept_inbound": "tests/mesh/test_sessions.py",
    "proxy/core": "tests/proxy/test_engine.py",
    "proxy/http2_heads": "tests/proxy/test_rfc9113.py",
    "proxy/huffman": "tests/proxy/test_hpack.py",
    "proxy/message": "tests/proxy/test_http1.py",
    "proxy/mirror": "tests/proxy/test_exchange.py",
    "proxy/notes": "tests/mesh/test_dry_run.py",
    "proxy/recorder": "tests/proxy/test_metrics.py",
    "proxy/tcp": "tests/proxy/test_accept.py",
    "proxy/upstream": "tests/proxy/test_exchange.py",
    "proxy/withdraw": "tests/mesh/test_withdraw.py",
    "mesh/app_health": "tests/mesh/test_health.py",
    "mesh/pem": "tests/mesh/test_contexts.py",
    "mesh/sidecar_options": "tests/mesh/test_sidecar.py",
    "control/access": "tests/control/test_rbac.py",
    "control/access_reviews": "tests/control/test_rbac.py",
    "control/access_setup": "tests/control/test_oidc.py",
    "control/api_context": "tests/control/test_history.py",
    "control/api_door": "tests/control/test_auth.py",
    "control/browsers": "tests/control/test_auth.py",
    "control/confirm_api": "tests/control/test_confirmations.py",
    "control/history_api": "tests/control/test_history.py",
    "control/namespaces": "tests/control/test_deletion.py",
    "control/objects": "tests/control/test_api_objects.py",
    "control/oidc_keys": "tests/control/test_oidc.py",
    "control/openapi": "tests/control/test_catalog.py",
    "control/past": "tests/control/test_stored_facts.py",
    "control/rollback": "tests/control/test_history.py",
    "control/store_backend": "tests/control/test_store_shared.py",
    "control/store_consul": "tests/control/test_store_shared.py",
    "control/store_etcd": "tests/control/test_store_shared.py",
    "control/vault_client": "tests/control/test_vault_issuer.py",
    "control/xds_agent": "tests/control/test_xds_agents.py",
    "control/xds_schema": "tests/control/test_xds_wire.py",
}
"""Files that are one thing with another, whose tests are theirs, too."""
ROLES = {
    "mesh/gateway": "tests/e2e/test_gateway.py",
    "mesh/workers": "tests/e2e/test_workers.py",
    "control/cli_access_flags": "tests/e2e/test_cli.py",
    "control/cli_capture": "tests/mesh/test_capture.py",
    "control/cli_certs": "tests/e2e/test_certs.py",
    "control/cli_certs_flags": "tests/e2e/test_certs.py",
    "control/cli_check": "tests/e2e/test_check.py",
    "control/cli_confirm": "tests/e2e/test_confirm.py",
    "control/cli_dns": "tests/e2e/test_dns_role.py",
    "control/cli_dns_flags": "tests/e2e/test_dns_role.py",
    "control/cli_history": "tests/e2e/test_history_verbs.py",
    "control/cli_kubeconfig_flags": "tests/control/test_cli_kubeconfig.py",
    "control/cli_mtls": "tests/e2e/test_mtls_ledger.py",
    "control/cli_offline": "tests/e2e/test_cli.py",
    "control/cli_registry": "tests/e2e/test_registry_verbs.py",
    "control/cli_revoke": "tests/e2e/test_revocation.py",
    "control/cli_store": "tests/control/test_store_tools.py",
    "control/cli_store_flags": "tests/control/test_store_tools.py",
    "control/cli_token_flags": "tests/control/test_cli_tokens.py",
    "control/role_authority": "tests/e2e/test_certs.py",
    "control/role_checks": "tests/e2e/test_health_checks.py",
    "control/role_common": "tests/e2e/test_drain.py",
    "control/role_control": "tests/e2e/test_mesh.py",
    "control/role_dns": "tests/e2e/test_dns_role.py",
    "control/role_feed": "tests/e2e/test_feed.py",
    "control/role_handover": "tests/e2e/test_handover.py",
    "control/role_run": "tests/e2e/test_run.py",
    "control/role_sidecar": "tests/e2e/test_sidecar_from_manifests.py",
    "control/role_sources": "tests/e2e/test_registry_promises.py",
    "control/role_worker": "tests/e2e/test_workers.py",
    "control/role_xds": "tests/e2e/test_xds_envoy.py",
}
"""Roles and verbs of the command line: what they do shows in a process only. Flags are part of their verb."""


def without_tests() -> list[str]:
    sources = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))
    return [
        f"{path.parent.name}/{path.stem}"
        for path in sources
        if not path.stem.startswith("__") and not (ROOT / "tests" / path.parent.name / f"test_{path.name}").exists()
    ]


def test_each_source_file_has_its_test_file_or_stands_among_the_exceptions() -> None:
    assert without_tests() == sorted({**PARTS, **ROLES}), "write tests/FOLDER/test_NAME.py, or take out what has one"
    assert not PARTS.keys() & ROLES.keys()


@pytest.mark.parametrize("test", sorted({*PARTS.values(), *ROLES.values()}))
def test_the_other_file_is_there_and_has_tests(test: str) -> None:
    assert re.search(r"^(async )?def test_", (ROOT / test).read_text(), re.MULTILINE)


@pytest.mark.parametrize("source", sorted(ROLES))
def test_only_verbs_roles_and_their_flags_are_left_to_processes(source: str) -> None:
    name = source.partition("/")[2]
    assert name.startswith(("cli", "role_")) or source in ("mesh/gateway", "mesh/workers", "control/api_client")
