"""The real kubectl, further: what is pruned, sorted, printed by templates, waited for, deleted with its dependents."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.control.kubectl import MANIFESTS, Kubectl, kubectl_in

pytestmark = pytest.mark.asyncio


def config_map(name: str, **metadata: Any) -> str:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"a": name}}
    return json.dumps(body) + "\n"


async def names(kubectl: Kubectl, what: str, *more: str) -> list[str]:
    return (await kubectl.done("get", what, "-o", "jsonpath={.items[*].metadata.name}", *more)).split()


async def test_apply_prunes_what_is_no_more_in_the_manifests(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        both = config_map("one", labels={"set": "x"}) + config_map("two", labels={"set": "x"})
        await kubectl.done("apply", "-f", "-", text=both)
        await kubectl.done("create", "configmap", "by-hand")
        one = config_map("one", labels={"set": "x"})
        out = await kubectl.done("apply", "--prune", "-l", "set=x", "-f", "-", text=one)
        assert "configmap/two pruned" in out
        await kubectl.done("apply", "-f", "-", text=both)
        out = await kubectl.done("apply", "--prune", "--all", "-f", "-", text=one)
        assert "configmap/two pruned" in out, "kinds that are not there would be an error"
        assert await names(kubectl, "configmaps") == ["by-hand", "one"]
        rules = MANIFESTS.split("---")
        await kubectl.done("apply", "-f", "-", text="---".join(rules[:3]))
        flags = ("--prune", "--all", "--prune-allowlist=networking.istio.io/v1/VirtualService")
        assert "virtualservice.networking.istio.io/web pruned" in await kubectl.done(
            "apply", *flags, "-f", "-", text=rules[2]
        )
        assert await names(kubectl, "dr") == ["web"], "not on the list"


async def test_an_applyset_prunes_by_its_parent(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        flags = ("apply", "-n", "default", "--prune", "--applyset=shop", "-f", "-")
        await kubectl.done(*flags, text=config_map("one") + config_map("two"), KUBECTL_APPLYSET="true")
        out = await kubectl.done(*flags, text=config_map("two"), KUBECTL_APPLYSET="true")
        assert "configmap/one pruned" in out
        assert await names(kubectl, "configmaps") == ["two"]
        parent = await kubectl.json("get", "secret", "shop")
        assert parent["metadata"]["annotations"]["applyset.kubernetes.io/contains-group-kinds"] == "ConfigMap"


async def test_every_form_of_output(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        await kubectl.done("apply", "-f", "-", text="".join(config_map(name) for name in "cab"))
        assert await names(kubectl, "configmaps", "--sort-by=.data.a") == ["a", "b", "c"]
        rows = await kubectl.done("get", "cm", "--sort-by={.metadata.name}", "--no-headers")
        assert [row.split()[0] for row in rows.splitlines()] == ["a", "b", "c"]
        columns = "-o", "custom-columns=NAME:.metadata.name,HOST:.spec.hosts[0]"
        assert (await kubectl.done("get", "vs", *columns)).split() == ["NAME", "HOST", "web", "web"]
        template = "go-template={{range .items}}{{.metadata.name}},{{end}}"
        assert await kubectl.done("get", "cm", "-o", template) == "a,b,c,"
        (tmp_path / "t").write_text("{.items[*].data.a}")
        assert await kubectl.done("get", "cm", "-o", "jsonpath-file=t") == "a b c"
        found = 'jsonpath-as-json={.items[?(@.metadata.name=="b")].data}'
        assert json.loads(await kubectl.done("get", "cm", "-o", found)) == [{"a": "b"}]
        paged = await kubectl.done("get", "cm", "--chunk-size=1", "--no-headers")
        assert [row.split()[0] for row in paged.splitlines()] == ["a", "b", "c"]
        assert "KIND" not in await kubectl.done("get", "vs,cm", "--no-headers", "--show-kind")
        assert "default" in await kubectl.done("get", "cm", "-A", "--field-selector", "metadata.name!=a")


async def test_watch_only_begins_with_what_happens_next(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        process = await kubectl.start(
            "get", "vs", "--watch-only", "-o", "jsonpath={.metadata.labels.seen}{\"\\n\"}", "--request-timeout=20"
        )  # fmt: skip
        try:
            assert process.stdout is not None
            for number in range(50):  # until the watch stands
                await kubectl.done("label", "vs", "web", f"seen=n{number}", "--overwrite")
                try:
                    line = await asyncio.wait_for(process.stdout.readline(), 0.3)
                except TimeoutError:
                    continue
                assert line.startswith(b"n"), "not the object as it was before"
                break
        finally:
            process.kill()
            await process.communicate()


async def test_explain_by_both_versions_of_openapi(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        for form in ("plaintext", "plaintext-openapiv2"):
            flags = (f"--output={form}",)
            assert "HTTP requests" in await kubectl.done("explain", "vs.spec.http", *flags)
            every = await kubectl.done("explain", "svc", "--recursive", *flags)
            assert "targetPort" in every and "ownerReferences" in every
            code, _, error = await kubectl.run("explain", "svc.spec.prots", *flags)
            assert code == 1 and 'field "prots" does not exist' in error
        older = await kubectl.done("explain", "vs", "--api-version=networking.istio.io/v1alpha3")
        assert "v1alpha3" in older


async def owned(kubectl: Kubectl, owner: str, *dependents: str, **metadata: Any) -> None:
    """ConfigMaps that depend on one that is there."""
    uid = await kubectl.done("get", "cm", owner, "-o", "jsonpath={.metadata.uid}")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid, "blockOwnerDeletion": True}
    text = "".join(config_map(name, ownerReferences=[reference], **metadata) for name in dependents)
    await kubectl.done("apply", "-f", "-", text=text)


async def test_deletion_takes_dependents_along_or_leaves_them(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        for policy, left in (("background", []), ("foreground", []), ("orphan", ["b", "c"])):
            await kubectl.done("create", "configmap", "a")
            await owned(kubectl, "a", "b", "c")
            await kubectl.done("delete", "cm", "a", f"--cascade={policy}", "--timeout=10s")
            assert await names(kubectl, "configmaps") == left
        assert "ownerReferences" not in (await kubectl.json("get", "cm", "b"))["metadata"]
        await kubectl.done("delete", "cm", "--all")


async def test_an_owner_waits_in_the_foreground_and_finalizers_hold(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        await kubectl.done("create", "configmap", "a")
        await owned(kubectl, "a", "b", finalizers=["example.com/hold"])
        await kubectl.done("delete", "cm", "a", "--cascade=foreground", "--wait=false")
        assert await names(kubectl, "configmaps") == ["a", "b"]
        metadata = (await kubectl.json("get", "cm", "a"))["metadata"]
        assert metadata["finalizers"] == ["foregroundDeletion"] and metadata["deletionTimestamp"]
        code, _, error = await kubectl.run("wait", "--for=delete", "cm/a", "--timeout=0.2s")
        assert code == 1 and "timed out" in error
        code, _, error = await kubectl.run(
            "patch", "cm", "b", "--type=merge", "-p", '{"metadata":{"finalizers":["example.com/hold","new.io/x"]}}'
        )
        assert code == 1 and "no new finalizers can be added if the object is being deleted" in error
        waiting = await kubectl.start("wait", "--for=delete", "cm/a", "--timeout=20s")
        await kubectl.done("patch", "cm", "b", "--type=json", "-p", '[{"op":"remove","path":"/metadata/finalizers"}]')
        out, errors = await waiting.communicate()
        assert waiting.returncode == 0, out + errors
        assert await names(kubectl, "configmaps") == []


async def test_replace_by_force_makes_it_anew_and_wait_sees_fields(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        before = (await kubectl.json("get", "vs", "web"))["metadata"]["uid"]
        waiting = await kubectl.start("wait", "--for=jsonpath={.spec.hosts[0]}=new", "vs/web", "--timeout=20s")
        out = await kubectl.done("replace", "-f", "-", text=MANIFESTS.replace("hosts: [web]", "hosts: [new]"))
        assert "virtualservice.networking.istio.io/web replaced" in out
        await waiting.communicate()
        assert waiting.returncode == 0
        await kubectl.done("replace", "--force", "-f", "-", text=MANIFESTS)
        found = await kubectl.json("get", "vs", "web")
        assert found["metadata"]["uid"] != before and found["metadata"]["generation"] == 1


async def test_what_the_server_has_and_where_it_is(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        assert "Kubernetes control plane is running at" in await kubectl.done("cluster-info")
        await kubectl.done("cluster-info", "dump", "--output-directory=dump", "--namespaces=default")
        assert "web" in (tmp_path / "dump" / "default" / "services.json").read_text()
        assert "events.k8s.io/v1" in (await kubectl.done("api-versions")).split()
        listed = await kubectl.done("api-resources", "--verbs=list", "--namespaced", "-o", "name")
        assert {"services", "virtualservices.networking.istio.io"} <= set(listed.split())
        assert "events.events.k8s.io" in listed.split()
        uid = await kubectl.done("get", "svc", "web", "-o", "jsonpath={.metadata.uid}")
        about = {"apiVersion": "v1", "kind": "Service", "name": "web", "namespace": "default", "uid": uid}
        await kubectl.done("create", "-f", "-", text=json.dumps({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal", "reason": "Seen",
            "message": "was here", "involvedObject": about,
            "count": 2, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
        }))  # fmt: skip
        assert "was here" in await kubectl.done("describe", "service", "web")
        assert "was here" in await kubectl.done("get", "events.events.k8s.io")
        assert "was here" in await kubectl.done("events", "--for=service/web")


async def test_contexts_are_chosen_by_flag_and_by_use(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        await kubectl.done("config", "set-context", "shop", "--cluster=here", "--user=me", "--namespace=shop")
        await kubectl.done("create", "configmap", "c", "--context=shop")
        await kubectl.done("config", "use-context", "shop")
        assert await names(kubectl, "configmaps") == ["c"]
        assert await names(kubectl, "configmaps", "--context=here") == []


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        ("configmap x --from-literal=a=b", ("data",), {"a": "b"}),
        ("serviceaccount x", ("metadata", "name"), "x"),
        ("deployment x --image=y --replicas=0 --port=80", ("spec", "replicas"), 0),
        ("job x --image=y -- run it", ("spec", "template", "spec", "containers"), [
            {"name": "x", "image": "y", "command": ["run", "it"], "resources": {}}]),
        ("cronjob x --image=y --schedule=@daily", ("spec", "schedule"), "@daily"),
        ("quota x --hard=pods=3", ("spec", "hard"), {"pods": "3"}),
        ("poddisruptionbudget x --selector=a=b --min-available=50%", ("spec", "minAvailable"), "50%"),
        ("priorityclass x --value=7 --description=high", ("value",), 7),
    ],
)  # fmt: skip
async def test_create_of_what_kubectl_sends_as_protobuf(
    tmp_path: Path, arguments: str, path: tuple[str, ...], value: Any
) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        await kubectl.done("create", *arguments.split())
        found = await kubectl.json("get", arguments.split()[0], "x")
        for step in path:
            found = found[step]
        assert found == value


async def test_a_mistake_is_answered_with_its_reason(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path, "") as kubectl:
        misspelt = MANIFESTS.split("---")[1].replace("VirtualService", "VirtualServise")
        code, _, err = await kubectl.run("apply", "-f", "-", text=misspelt)
        assert code == 1 and 'no matches for kind "VirtualServise"' in err
        await kubectl.done("create", "configmap", "a")
        patch = '[{"op": "remove", "path": "/metadata/labels/x"}]'
        code, _, err = await kubectl.run("patch", "configmap", "a", "--type=json", "-p", patch)
        assert code == 1 and err.startswith(
            "The request is invalid: the patch cannot be applied: operation 0: there is nothing"
        )
