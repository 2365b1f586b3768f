"""`fairlead registry` and `fairlead env` as commands: from manifests, control, Consul and etcd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.message
import pytest

from tests.e2e.roles import Roles, free_port, roles_in, until
from tests.servers import consul, etcd

pytestmark = pytest.mark.asyncio
MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, clusterIP: 10.96.0.7, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, labels: {app: web}}
status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: "False", message: disk full}]}
"""


async def rows(roles: Roles, what: str, *flags: str, code: int = 0) -> Any:
    got, out, err = await roles.command("registry", what, *flags, "-o", "json")
    assert got == code, err
    return json.loads(out)


async def test_from_manifests_as_table_wide_and_json(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        (tmp_path / "web.yaml").write_text(MANIFESTS)
        (service,) = await rows(roles, "services", "-f", "web.yaml")
        assert (service["host"], service["ready"], service["endpoints"]) == ("web.default.svc.cluster.local", 1, 2)
        first, second = await rows(roles, "endpoints", "web", "-f", "web.yaml")
        assert (first["address"], first["ready"], first["source"]) == ("10.0.0.1", True, "manifests")
        assert (second["ready"], second["why"]) == (False, "disk full")
        assert await rows(roles, "endpoints", "-n", "shop", "-f", "web.yaml") == []
        code, out, _ = await roles.command("registry", "endpoints", "-f", "web.yaml")
        assert code == 0
        header, one, two = out.splitlines()
        assert header.split() == ["SERVICE", "ADDRESS", "PORT", "READY", "SOURCE", "AGE", "WHY"]
        assert one.split()[1:5] == ["10.0.0.1", "8080/http", "yes", "manifests"]
        assert two.endswith("disk full")
        _, out, _ = await roles.command("registry", "endpoints", "-f", "web.yaml", "-o", "wide")
        assert "default/web-1" in out
        _, out, _ = await roles.command("registry", "services", "-f", "web.yaml")
        assert out.splitlines()[1].split()[:6] == ["default", "web", "ClusterIP", "10.96.0.7", "http:80/TCP", "1/2"]
        _, out, _ = await roles.command("env", "-f", "web.yaml")
        assert "WEB_SERVICE_PORT_HTTP=80\n" in out
        assert "WEB_PORT_80_TCP_ADDR=10.96.0.7\n" in out
        code, _, err = await roles.command("registry", "services")
        assert code == 2
        assert "give either -f PATH, --consul, --etcd or another source, or --control URL" in err


async def test_directly_from_consul_and_from_control_that_follows_it_until_it_is_stale(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, consul(tmp_path) as server:
        body = {"ID": "web-1", "Name": "web", "Address": "10.0.0.1", "Port": 8080}
        await server.put("/v1/agent/service/register", body)
        (one,) = await rows(roles, "endpoints", "web", "--consul", server.url)
        assert (one["address"], one["ready"], one["source"], one["stale"]) == ("10.0.0.1", True, "consul", False)
        assert one["age_s"] < 30
        control = await roles.start(
            "control", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"), "--consul", server.url
        )
        url = f"http://{control.at['api']}"

        async def followed() -> Any:
            return await rows(roles, "endpoints", "web", "--control", url)

        await until("control to know the service", followed)
        (source,) = [row for row in await rows(roles, "sources", "--control", url) if row["source"] == "consul"]
        assert (source["state"], source["error"]) == ("live", "")
        await server.kill()

        async def stale() -> Any:
            _, out, _ = await roles.command("registry", "sources", "--control", url, "-o", "json")
            return [row for row in json.loads(out) if row["source"] == "consul" and row["state"] == "stale"]

        (source,) = await until("the source to be stale", stale)
        assert source["error"]
        assert source["endpoints"] >= 1, "what it said is kept"
        assert (await roles.command("registry", "sources", "--control", url))[0] == 1
        (one,) = await rows(roles, "endpoints", "web", "--control", url)
        assert (one["address"], one["stale"]) == ("10.0.0.1", True)
        await server.start()


NOBODY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""


async def test_names_policies_and_explanations_of_services_in_consul_and_rules_in_files(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, consul(tmp_path) as server:
        for name, address in (("web", "10.0.0.1"), ("front", "10.0.0.2")):
            body = {"ID": f"{name}-1", "Name": name, "Address": address, "Port": 8080}
            await server.put("/v1/agent/service/register", body)
        (tmp_path / "rules.yaml").write_text(NOBODY)
        (tmp_path / "web.yaml").write_text(MANIFESTS)
        code, out, err = await roles.command("dns", "query", "--consul", server.url, "web.default.svc.cluster.local")
        assert code == 0, err
        assert "10.0.0.1" in out and "from consul (live" in out
        code, _, _ = await roles.command(
            "dns", "query", "-f", "rules.yaml", "--consul", server.url, "no.default.svc.cluster.local"
        )
        assert code == 1

        async def matrix(*flags: str) -> dict[str, bool]:
            code, out, err = await roles.command("policy", "matrix", *flags, "--consul", server.url, "-o", "json")
            assert code == 0, err
            return {row["destination"]: row["allowed"] for row in json.loads(out)}

        open_to_all = await matrix()
        assert open_to_all and all(open_to_all.values())
        closed = await matrix("-f", "rules.yaml")
        assert closed.keys() == open_to_all.keys() and not any(closed.values())
        code, out, err = await roles.command(
            "explain", "-f", "rules.yaml", "--consul", server.url, "GET", "http://web.default:8080/"
        )
        assert "10.0.0.1" in out + err
        both = await rows(roles, "endpoints", "-f", "web.yaml", "--consul", server.url)
        assert {one["source"] for one in both} == {"manifests", "consul"}
        sources = await rows(roles, "sources", "-f", "web.yaml", "--consul", server.url)
        assert {one["source"] for one in sources} == {"manifests", "consul"}
        for verb in (
            ("policy", "matrix"),
            ("dns", "query", "web"),
            ("registry", "services"),
            ("explain", "GET", "http://web/"),
        ):
            code, _, err = await roles.command(*verb, "--consul", server.url, "--control", "http://127.0.0.1:1")
            assert code == 2, verb
            assert "give" in err and "--control" in err


async def test_directly_from_etcd_and_where_nobody_answers(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, etcd(tmp_path) as server:
        await server.put("/services/web/web-1", json.dumps({"host": "10.0.0.1", "port": 8080, "ready": False}))
        (one,) = await rows(roles, "endpoints", "--etcd", server.url)
        assert (one["address"], one["ready"], one["source"]) == ("10.0.0.1", False, "etcd")
        assert one["why"]
        code, _, err = await roles.command("registry", "services", "--control", f"http://127.0.0.1:{free_port()}")
        assert code == 1
        assert "127.0.0.1" in err


async def test_a_pod_that_wants_no_service_links_gets_no_variables(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: quiet}\nspec: {enableServiceLinks: false}\n"
        (tmp_path / "web.yaml").write_text(MANIFESTS + pod)
        code, out, err = await roles.command("env", "-f", "web.yaml", "--workload", "default/quiet")
        assert (code, out) == (0, "")
        assert "enableServiceLinks" in err
        _, out, _ = await roles.command("env", "-f", "web.yaml", "--workload", "web-1")
        assert "WEB_SERVICE_HOST=10.96.0.7\n" in out
        code, _, err = await roles.command("env", "-f", "web.yaml", "--workload", "default/nobody")
        assert (code, "not known" in err) == (1, True)


async def test_a_sidecar_walks_the_search_list_of_its_namespace_for_its_app(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        (tmp_path / "web.yaml").write_text(MANIFESTS)
        off = [part for name in ("inbound", "outbound", "admin", "health", "metrics") for part in (f"--{name}", "off")]
        served = ("--dns", "127.0.0.1:0", "--upstream", "off")
        flags = ("sidecar", "-f", "web.yaml", "--workload", "default/web-1", *off, *served)
        for more, found in ((("--autopath",), True), ((), False)):
            role = await roles.start(*flags, *more)
            port = int(role.at["dns"].rpartition(":")[2])
            query = dns.message.make_query("web.default.default.svc.cluster.local", "A")
            reply = await dns.asyncquery.udp(query, "127.0.0.1", 5, port)
            names = [rrset.rdtype.name for rrset in reply.answer]
            assert names == (["CNAME", "A"] if found else [])
            if found:
                assert str(reply.answer[-1].name) == "web.default.svc.cluster.local."
                assert str(reply.answer[-1][0]).startswith("127.")
            await role.kill()
