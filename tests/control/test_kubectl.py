"""The real kubectl against the API, every verb that the README names, without --validate=false."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.control.kubectl import MANIFESTS, kubectl_in

pytestmark = pytest.mark.asyncio


async def test_apply_creates_then_leaves_alone_then_configures(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        out = await kubectl.done("apply", "-f", "-", text=MANIFESTS)
        assert out.splitlines() == [
            "destinationrule.networking.istio.io/web created",
            "virtualservice.networking.istio.io/web created",
            "service/web created",
            "networkpolicy.networking.k8s.io/web created",
            "pod/web-1 created",
        ]
        out = await kubectl.done("apply", "-f", "-", text=MANIFESTS)
        assert all(line.endswith(" unchanged") for line in out.splitlines()), out
        changed = MANIFESTS.replace("port: 80,", "port: 81,").replace("hosts: [web]", "hosts: [web, web2]")
        out = await kubectl.done("apply", "-f", "-", text=changed)
        assert "service/web configured" in out
        assert "virtualservice.networking.istio.io/web configured" in out
        ports = (await kubectl.json("get", "service", "web"))["spec"]["ports"]
        assert [port["port"] for port in ports] == [81]


async def test_apply_on_the_server_side_and_its_conflicts(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        out = await kubectl.done("apply", "--server-side", "-f", "-", text=MANIFESTS)
        assert "service/web serverside-applied" in out
        changed = MANIFESTS.replace("hosts: [web]", "hosts: [web2]")
        code, _, error = await kubectl.run("apply", "--server-side", "--field-manager=two", "-f", "-", text=changed)
        assert code == 1
        assert 'conflict with "kubectl"' in error
        assert ".spec.hosts" in error
        flags = ("--server-side", "--field-manager=two", "--force-conflicts")
        await kubectl.done("apply", *flags, "-f", "-", text=changed)
        assert (await kubectl.json("get", "vs", "web"))["spec"]["hosts"] == ["web2"]


async def test_apply_goes_over_from_the_client_side_to_the_server_side(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        changed = MANIFESTS.replace("hosts: [web]", "hosts: [web2]")
        await kubectl.done("apply", "--server-side", "-f", "-", text=changed)
        found = await kubectl.json("get", "vs", "web", "--show-managed-fields")
        assert found["spec"]["hosts"] == ["web2"]
        managers = {entry["manager"]: entry["operation"] for entry in found["metadata"]["managedFields"]}
        assert managers["kubectl"] == "Apply"
        assert "kubectl-client-side-apply" not in managers


async def test_get_in_every_form(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        assert (await kubectl.done("get", "vs")).split()[:4] == ["NAME", "GATEWAYS", "HOSTS", "STATE"]
        wide = await kubectl.done("get", "service", "-o", "wide")
        assert "SELECTOR" in wide
        assert "80/TCP" in wide
        pods = (await kubectl.done("get", "pods", "-o", "wide")).splitlines()
        assert pods[0].split()[:5] == ["NAME", "READY", "STATUS", "IP", "AGE"]
        assert pods[1].split()[:4] == ["web-1", "1/1", "Running", "127.0.1.1"]
        assert "kind: VirtualService" in await kubectl.done("get", "vs", "web", "-o", "yaml")
        assert (await kubectl.json("get", "vs"))["kind"] == "List"
        assert await kubectl.done("get", "vs", "-o", "name") == "virtualservice.networking.istio.io/web\n"
        assert await kubectl.done("get", "vs", "web", "-o", "jsonpath={.spec.hosts[0]}") == "web"
        assert "default" in await kubectl.done("get", "namespaces")
        every = await kubectl.done("get", "vs,dr,svc,netpol,pods", "-A")
        assert every.count("default") == 5
        assert "web" in await kubectl.done("get", "virtualservices.v1beta1.networking.istio.io")


async def test_get_by_labels_and_fields(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        assert "web" in await kubectl.done("get", "vs", "-l", "app=web")
        code, out, error = await kubectl.run("get", "vs", "-l", "app in (other)")
        assert (code, out) == (0, "")
        assert "No resources found" in error
        assert "web" in await kubectl.done("get", "vs", "--field-selector", "metadata.name=web")
        assert "app=web" in await kubectl.done("get", "vs", "--show-labels")
        code, _, error = await kubectl.run("get", "vs", "none")
        assert code == 1
        assert 'virtualservices.networking.istio.io "none" not found' in error


async def test_get_watches(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        process = await kubectl.start("get", "vs", "-w", "--output-watch-events")
        try:
            assert process.stdout is not None
            lines = process.stdout

            async def line() -> str:
                return (await asyncio.wait_for(lines.readline(), 20)).decode()

            assert (await line()).split() == ["EVENT", "NAME", "GATEWAYS", "HOSTS", "STATE", "SIDECARS", "AGE"]
            assert (await line()).split()[:2] == ["ADDED", "web"]
            await kubectl.done("label", "vs", "web", "seen=yes")
            assert (await line()).split()[:2] == ["MODIFIED", "web"]
            await kubectl.done("delete", "vs", "web")
            assert (await line()).split()[:2] == ["DELETED", "web"]
        finally:
            process.kill()
            await process.communicate()


async def test_describe(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        out = await kubectl.done("describe", "vs", "web")
        assert "Kind:         VirtualService" in out
        assert "Events:" in out
        for what in ("service/web", "pod/web-1", "networkpolicy/web", "dr/web", "namespace/default"):
            out = await kubectl.done("describe", what)
            assert out.startswith("Name:")
        out = await kubectl.done("describe", "service", "web")
        assert "Port:              http  80/TCP" in out
        assert "Type:              ClusterIP" in out


async def test_edit(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        for what, script in (("vs/web", "s/subset: v1/subset: v2/"), ("service/web", "s/8080/9090/")):
            out = await kubectl.done("edit", what, KUBE_EDITOR=f"sed -i -e '{script}'")
            assert out.strip().endswith("edited")
        route = (await kubectl.json("get", "vs", "web"))["spec"]["http"][0]["route"][0]
        assert route["destination"]["subset"] == "v2"
        assert (await kubectl.json("get", "service", "web"))["spec"]["ports"][0]["targetPort"] == 9090


async def test_patch(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        await kubectl.done("patch", "vs", "web", "--type", "merge", "-p", '{"spec":{"hosts":["a"]}}')
        await kubectl.done(
            "patch", "vs", "web", "--type", "json", "-p", '[{"op":"add","path":"/spec/hosts/-","value":"b"}]'
        )
        assert (await kubectl.json("get", "vs", "web"))["spec"]["hosts"] == ["a", "b"]
        await kubectl.done("patch", "service", "web", "-p", '{"spec":{"ports":[{"port":443,"name":"https"}]}}')
        ports = (await kubectl.json("get", "service", "web"))["spec"]["ports"]
        assert sorted(port["port"] for port in ports) == [80, 443]
        code, _, error = await kubectl.run("patch", "vs", "web", "-p", '{"spec":{"hosts":["a"]}}')
        assert code == 1
        assert "application/merge-patch+json" in error


async def test_diff(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        code, out, error = await kubectl.run("diff", "-f", "-", text=MANIFESTS)
        assert (code, out) == (0, ""), out + error
        changed = MANIFESTS.replace("port: 80,", "port: 81,").replace("hosts: [web]", "hosts: [web, web2]")
        code, out, error = await kubectl.run("diff", "-f", "-", text=changed)
        assert code == 1, error
        assert "+  - web2" in out
        assert "-    port: 80" in out
        code, out, error = await kubectl.run("diff", "--server-side", "-f", "-", text=changed.split("---")[1])
        assert code == 1, error
        assert (await kubectl.json("get", "vs", "web"))["spec"]["hosts"] == ["web"]


async def test_discovery_version_and_explanations(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        resources = await kubectl.done("api-resources")
        for line in (("virtualservices", "vs", "networking.istio.io/v1"), ("services", "svc", "v1")):
            assert any(set(line) <= set(shown.split()) for shown in resources.splitlines()), line
        versions = (await kubectl.done("api-versions")).split()
        assert {"v1", "networking.istio.io/v1alpha3", "security.istio.io/v1", "fairlead.dev/v1"} <= set(versions)
        assert "Server Version: v1.32" in await kubectl.done("version")
        out = await kubectl.done("explain", "virtualservice.spec")
        assert "hosts" in out
        assert "http" in out
        assert "subset" in await kubectl.done("explain", "vs.spec.http.route.destination")
        assert "podSelector" in await kubectl.done("explain", "networkpolicy", "--recursive")


async def test_create_replace_label_annotate_delete(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        await kubectl.done("create", "-f", "-", text=MANIFESTS)
        code, _, error = await kubectl.run("create", "-f", "-", text=MANIFESTS)
        assert code == 1
        assert "already exists" in error
        await kubectl.done("create", "namespace", "shop")
        await kubectl.done("create", "service", "clusterip", "other", "--tcp=80:8080")
        out = await kubectl.done("replace", "-f", "-", text=MANIFESTS.replace("hosts: [web]", "hosts: [new]"))
        assert "virtualservice.networking.istio.io/web replaced" in out
        await kubectl.done("label", "vs", "web", "tier=front")
        await kubectl.done("annotate", "service", "web", "note=this")
        found = await kubectl.json("get", "vs", "web")
        assert found["metadata"]["labels"] == {"app": "web", "tier": "front"}
        assert found["spec"]["hosts"] == ["new"]
        assert await kubectl.done("delete", "vs", "-l", "tier=front") != ""
        await kubectl.done("delete", "service", "web", "other")
        await kubectl.done("delete", "netpol,dr", "--all")
        await kubectl.done("delete", "namespace", "shop")
        assert "deleted" in await kubectl.done("delete", "-f", "-", "--ignore-not-found", text=MANIFESTS)
        assert (await kubectl.json("get", "vs,dr,svc,netpol,pods"))["items"] == []
        assert (await kubectl.done("auth", "can-i", "create", "vs")).strip() == "yes"
        assert "fairlead:local" in await kubectl.done("auth", "whoami")


async def test_what_kubectl_makes_by_itself(tmp_path: Path) -> None:
    """These commands build their objects in kubectl; most send protobuf."""
    async with kubectl_in(tmp_path, "") as kubectl:
        await kubectl.done("create", "secret", "generic", "s", "--from-literal=password=x")
        assert (await kubectl.json("get", "secret", "s"))["data"] == {"password": "eA=="}
        await kubectl.done("create", "role", "r", "--verb=get,list", "--resource=services")
        rules = (await kubectl.json("get", "role", "r"))["rules"]
        assert rules == [{"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list"]}]
        await kubectl.done("create", "clusterrolebinding", "b", "--clusterrole=r", "--group=g")
        await kubectl.done("create", "ingress", "i", "--rule=foo.com/bar=web:8080")
        assert (await kubectl.json("get", "ingress", "i"))["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/bar"
        await kubectl.done("run", "p", "--image=x", "--port=8080")
        await kubectl.done("expose", "pod", "p", "--port=80", "--target-port=8080")
        assert (await kubectl.json("get", "service", "p"))["spec"]["ports"][0]["targetPort"] == 8080
        await kubectl.done("apply", "--dry-run=server", "-f", "-", text=MANIFESTS)
        await kubectl.done("replace", "--force", "-f", "-", text=MANIFESTS)
        await kubectl.done("delete", "pod", "p")
        await kubectl.done("wait", "--for=delete", "pod/p", "--timeout=5s")
        assert await kubectl.done("get", "--raw", "/readyz") == "ok"


async def test_mistakes_are_refused_with_their_field(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        code, _, error = await kubectl.run("apply", "-f", "-", text=MANIFESTS.replace("hosts:", "hsots:"))
        assert code == 1
        assert 'strict decoding error: unknown field "spec.hsots"' in error
        wrong = MANIFESTS.replace("{host: web, subset: v1}", "{host: 5, port: {number: 700000}}")
        code, _, error = await kubectl.run("apply", "-f", "-", text=wrong)
        assert code == 1
        assert "spec.http[0].route[0].destination.host" in error
        assert "spec.http[0].route[0].destination.port.number" in error
        assert "The VirtualService" in error
        out = await kubectl.done("apply", "-f", "-", text=MANIFESTS)  # the rest is as it should be
        assert "virtualservice.networking.istio.io/web created" in out


async def test_an_unknown_kind_is_named(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}\n"
        code, out, error = await kubectl.run("apply", "-f", "-", text=f"{route}---{MANIFESTS}")
        assert code == 1
        assert 'no matches for kind "HTTPRoute" in version "gateway.networking.k8s.io/v1"' in error
        assert "service/web created" in out


async def test_an_unknown_field_is_a_warning_where_that_is_asked_for(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        text = MANIFESTS.replace("hosts: [web]", "hosts: [web]\n  frobs: 5")
        code, _, error = await kubectl.run("apply", "--validate=warn", "-f", "-", text=text)
        assert code == 0, error
        assert 'Warning: unknown field "spec.frobs"' in error
        assert "frobs" not in (await kubectl.json("get", "vs", "web"))["spec"]


async def test_a_rule_before_the_one_that_it_needs_is_taken_with_a_warning(tmp_path: Path) -> None:
    rules = MANIFESTS.split("---")
    async with kubectl_in(tmp_path, "") as kubectl:
        code, out, error = await kubectl.run("apply", "-f", "-", text=rules[1])
        assert code == 0
        assert "created" in out
        assert 'subset "v1" of web.default.svc.cluster.local is not defined' in error
        for text in (rules[2], rules[4], rules[0]):
            await kubectl.done("apply", "-f", "-", text=text)
        code, _, error = await kubectl.run("label", "vs", "web", "now=complete")
        assert code == 0
        assert "Warning" not in error


PUBLISHED = Path(__file__).parents[1] / "policy" / "samples_published.yaml"


async def test_published_manifests_apply_unchanged_with_a_warning_for_what_is_only_kept(tmp_path: Path) -> None:
    text = PUBLISHED.read_text()
    async with kubectl_in(tmp_path, "") as kubectl:
        code, out, error = await kubectl.run("apply", "-f", "-", text=text)
        assert code == 0, error
        assert "deployment.apps/ledger-v1 created" in out and "persistentvolume/disk created" in out
        warnings = [line for line in error.splitlines() if "Warning: Deployment" in line]
        assert len(warnings) == 1 and "Fairlead starts no processes" in warnings[0] and "fairlead run" in warnings[0]
        assert "created" not in (again := await kubectl.done("apply", "-f", "-", text=text)), again
        # kubectl sends a budget's selector each time: its type says patchStrategy replace.
        assert [line for line in again.splitlines() if not line.endswith(" unchanged")] in (
            [], ["poddisruptionbudget.policy/store configured"],
        ), again  # fmt: skip
        shown = await kubectl.done("get", "deploy,sts,ds,rs,rc,jobs,cj,pvc,pv,sc,hpa,pdb,limits,quota,pc")
        for name in ("deployment.apps/ledger-v1", "statefulset.apps/store", "cronjob.batch/nightly", "priorityclass"):
            assert name in shown, shown
        listed = await kubectl.done("api-resources")
        assert "deployments" in listed and "deploy" in listed and "apps/v1" in listed
        assert "replicas" in await kubectl.done("explain", "deploy.spec")
        added = text.replace(
            '          value: "/tmp/logs"', '          value: "/var/logs"\n        - name: B\n          value: c'
        )
        out = await kubectl.done("apply", "-f", "-", text=added)
        assert "deployment.apps/ledger-v1 configured" in out
        (container,) = (await kubectl.json("get", "deploy", "ledger-v1"))["spec"]["template"]["spec"]["containers"]
        assert {one["name"]: one["value"] for one in container["env"]} == {"LOG_DIR": "/var/logs", "B": "c"}
        assert container["image"] == "registry.example/ledger:1.0", "what was not changed stays"
        assert 'deployment.apps "ledger-v1" deleted' in await kubectl.done("delete", "-f", "-", text=added)
