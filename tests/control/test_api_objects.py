"""The object API over HTTP: verbs, versions, selectors, pages, forms, refusals."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.control.serving import (
    SERVICES,
    VIRTUAL_SERVICES,
    Client,
    api_in,
    api_on,
    service,
    store_in,
    virtual_service,
)

pytestmark = pytest.mark.asyncio


async def test_an_object_lives_from_creation_to_deletion(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        made = await client.post(VIRTUAL_SERVICES, virtual_service("web"))
        meta = made["metadata"]
        assert meta["namespace"] == "default"
        assert meta["generation"] == 1
        assert meta["uid"] and meta["creationTimestamp"] and meta["resourceVersion"]
        assert await client.get(f"{VIRTUAL_SERVICES}/web") == made
        made["spec"]["hosts"] = ["other"]
        changed = await client.put(f"{VIRTUAL_SERVICES}/web", made)
        assert changed["metadata"]["generation"] == 2
        assert changed["metadata"]["uid"] == meta["uid"]
        gone = await client.delete(f"{VIRTUAL_SERVICES}/web")
        assert gone["status"] == "Success"
        assert gone["details"]["uid"] == meta["uid"]
        assert (await client.get(f"{VIRTUAL_SERVICES}/web", 404))["reason"] == "NotFound"


async def test_the_same_object_is_served_in_every_version(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(VIRTUAL_SERVICES, virtual_service("web"))
        for version in ("v1", "v1beta1", "v1alpha3"):
            path = f"/apis/networking.istio.io/{version}/namespaces/default/virtualservices"
            found = await client.get(f"{path}/web")
            assert found["apiVersion"] == f"networking.istio.io/{version}"
            assert found["spec"]["hosts"] == ["web"]
            assert (await client.get(path))["items"][0]["apiVersion"] == f"networking.istio.io/{version}"
        older = {**virtual_service("old"), "apiVersion": "networking.istio.io/v1alpha3"}
        await client.post("/apis/networking.istio.io/v1alpha3/namespaces/default/virtualservices", older)
        assert (await client.get(f"{VIRTUAL_SERVICES}/old"))["apiVersion"] == "networking.istio.io/v1"


async def test_of_two_who_changed_the_same_version_the_second_is_refused(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        made = await client.post(SERVICES, service("web"))
        made["spec"]["ports"][0]["port"] = 81
        await client.put(f"{SERVICES}/web", made)
        refused = await client.put(f"{SERVICES}/web", made, 409)
        assert refused["reason"] == "Conflict"
        assert "the object has been modified" in refused["message"]
        stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"], "labels": {"a": "b"}}}
        await client.patch(f"{SERVICES}/web", stale, code=409)
        del made["metadata"]["resourceVersion"]
        made["spec"]["ports"][0]["port"] = 82
        assert (await client.put(f"{SERVICES}/web", made))["spec"]["ports"][0]["port"] == 82


async def test_many_patches_at_once_are_all_applied(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(SERVICES, service("web"))
        await asyncio.gather(
            *(client.patch(f"{SERVICES}/web", {"metadata": {"labels": {f"l{n}": "x"}}}) for n in range(15))
        )
        assert len((await client.get(f"{SERVICES}/web"))["metadata"]["labels"]) == 15


async def test_creating_what_is_there_is_refused(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        answers = await asyncio.gather(*(client.ask("POST", SERVICES, service("web")) for _ in range(5)))
        assert sorted(code for code, _ in answers) == [201, 409, 409, 409, 409]
        refusals = {body["reason"] for code, body in answers if code == 409}
        assert refusals == {"AlreadyExists"}


async def test_a_namespace_is_made_with_its_first_object_and_takes_all_with_it(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        async with client.session.post(f"{client.url}/api/v1/namespaces/shop/services", json=service("web")) as answer:
            assert answer.status == 201
            assert 'namespace "shop" did not exist' in answer.headers["Warning"].replace("\\", "")
        made = await client.get("/api/v1/namespaces/shop")
        assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop"}
        assert made["status"]["phase"] == "Active"
        await client.delete("/api/v1/namespaces/shop")
        await client.get("/api/v1/namespaces/shop", 404)
        assert (await client.get("/api/v1/services"))["items"] == []


async def test_the_default_namespace_is_there_and_stays(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        assert (await client.get("/api/v1/namespaces"))["items"][0]["metadata"]["name"] == "default"
        assert (await client.delete("/api/v1/namespaces/default", code=403))["reason"] == "Forbidden"


async def test_lists_are_filtered_by_labels_and_fields_and_namespace(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        for name, tier in (("a", "front"), ("b", "back"), ("c", "front")):
            await client.post(SERVICES, service(name, labels={"tier": tier}))
        await client.post("/api/v1/namespaces/other/services", service("a", labels={"tier": "front"}))

        async def names(path: str) -> list[str]:
            return [item["metadata"]["name"] for item in (await client.get(path))["items"]]

        assert await names(f"{SERVICES}?labelSelector=tier%3Dfront") == ["a", "c"]
        assert await names(f"{SERVICES}?fieldSelector=metadata.name%3Db") == ["b"]
        assert await names("/api/v1/services?labelSelector=tier+in+(front)") == ["a", "c", "a"]
        assert await names("/api/v1/services?fieldSelector=metadata.namespace!%3Ddefault") == ["a"]
        assert (await client.get(f"{SERVICES}?labelSelector=%3D", 400))["reason"] == "BadRequest"


async def test_pages_show_one_consistent_list_while_it_changes(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        for n in range(7):
            await client.post(SERVICES, service(f"s{n}"))
        seen, more, versions = [], "", set()
        while True:
            page = await client.get(f"{SERVICES}?limit=3&continue={more}")
            seen += [item["metadata"]["name"] for item in page["items"]]
            versions.add(page["metadata"]["resourceVersion"])
            if "continue" not in page["metadata"]:
                break
            assert page["metadata"]["remainingItemCount"] == 7 - len(seen)
            more = page["metadata"]["continue"]
            await client.delete(f"{SERVICES}/s{len(seen)}")
            await client.post(SERVICES, service(f"s{len(seen)}x"))
        assert seen == [f"s{n}" for n in range(7)]
        assert len(versions) == 1
        assert (await client.get(f"{SERVICES}?continue=garbage!", 400))["reason"] == "BadRequest"


async def test_a_page_too_old_to_go_on_is_gone(tmp_path: Path) -> None:
    async with store_in(tmp_path, log_entries=8) as store, api_on(store) as (_, client):
        for n in range(3):
            await client.post(SERVICES, service(f"s{n}"))
        page = await client.get(f"{SERVICES}?limit=1")
        for n in range(20):
            await client.patch(f"{SERVICES}/s0", {"metadata": {"labels": {"n": str(n)}}})
        gone = await client.get(f"{SERVICES}?limit=1&continue={page['metadata']['continue']}", 410)
        assert gone["reason"] == "Expired"
        await client.get(f"{SERVICES}?resourceVersion=2&resourceVersionMatch=Exact", 410)


async def test_tables_have_columns_for_people(tmp_path: Path) -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    async with api_in(tmp_path) as (_, client):
        await client.post(SERVICES, service("web"))
        await client.post(VIRTUAL_SERVICES, virtual_service("web"))
        shown = await client.get(SERVICES, Accept=table)
        assert shown["kind"] == "Table"
        assert [c["name"] for c in shown["columnDefinitions"] if not c["priority"]] == [
            "Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age",
        ]  # fmt: skip
        assert shown["rows"][0]["cells"][:5] == ["web", "ClusterIP", "<none>", "<none>", "80/TCP"]
        assert shown["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
        one = await client.get(f"{VIRTUAL_SERVICES}/web?includeObject=Object", Accept=table)
        assert one["rows"][0]["cells"][2] == '["web"]'
        assert one["rows"][0]["object"]["spec"]["hosts"] == ["web"]
        none = await client.get(f"{SERVICES}?includeObject=None", Accept=table)
        assert "object" not in none["rows"][0]


async def test_metadata_alone_can_be_asked_for(tmp_path: Path) -> None:
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    async with api_in(tmp_path) as (_, client):
        await client.post(SERVICES, service("web"))
        listed = await client.get(SERVICES, Accept=accept)
        assert listed["kind"] == "PartialObjectMetadataList"
        assert "spec" not in listed["items"][0]


async def test_protobuf_is_passed_over_and_refused_where_it_is_all_that_is_accepted(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        assert (await client.get(SERVICES, Accept="application/vnd.kubernetes.protobuf,application/json"))[
            "items"
        ] == []
        refused = await client.get(SERVICES, 406, Accept="application/vnd.kubernetes.protobuf")
        assert refused["reason"] == "NotAcceptable"


async def test_yaml_goes_in_and_out(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        text = "metadata: {name: web}\nspec:\n  ports: [{port: 80}]\n"
        await client.post(SERVICES, text, Content_Type="application/yaml")
        async with client.session.get(f"{client.url}{SERVICES}/web", headers={"Accept": "application/yaml"}) as answer:
            assert answer.content_type == "application/yaml"
            assert "name: web" in await answer.text()


async def test_a_dry_run_does_everything_but_write(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        made = await client.post(f"{SERVICES}?dryRun=All", service("web"))
        assert made["metadata"]["uid"]
        await client.get(f"{SERVICES}/web", 404)
        await client.post(SERVICES, service("web"))
        before = api.store.memory.revision
        shown = await client.patch(f"{SERVICES}/web?dryRun=All", {"metadata": {"labels": {"a": "b"}}})
        assert shown["metadata"]["labels"] == {"a": "b"}
        await client.post(f"{SERVICES}?dryRun=All", service("web"), 409)
        await client.delete(f"{SERVICES}/web?dryRun=All")
        await client.delete(f"{SERVICES}/web", {"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]})
        assert api.store.memory.revision == before
        assert (await client.get(f"{SERVICES}?dryRun=some", 200))["items"] if False else True
        await client.post(f"{SERVICES}?dryRun=some", service("x"), 400)


async def test_a_change_that_changes_nothing_makes_no_new_version(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        made = await client.post(SERVICES, service("web"))
        before = api.store.memory.revision
        await client.put(f"{SERVICES}/web", made)
        await client.patch(f"{SERVICES}/web", {"spec": {"selector": {"app": "web"}}})
        assert api.store.memory.revision == before
        await client.patch(f"{SERVICES}/web", {"metadata": {"labels": {"a": "b"}}})
        assert (await client.get(f"{SERVICES}/web"))["metadata"]["generation"] == 1


async def test_json_patches_and_strategic_patches(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(SERVICES, service("web"))
        await client.post(VIRTUAL_SERVICES, virtual_service("web"))
        patched = await client.patch(
            f"{SERVICES}/web", [{"op": "replace", "path": "/spec/ports/0/port", "value": 90}], "json-patch+json"
        )
        assert patched["spec"]["ports"][0]["port"] == 90
        failed = [{"op": "test", "path": "/spec/ports/0/port", "value": 80}]
        await client.patch(f"{SERVICES}/web", failed, "json-patch+json", 422)
        patch = {"spec": {"ports": [{"port": 91, "name": "more"}]}}
        patched = await client.patch(f"{SERVICES}/web", patch, "strategic-merge-patch+json")
        assert [port["port"] for port in patched["spec"]["ports"]] == [90, 91]
        await client.patch(f"{VIRTUAL_SERVICES}/web", patch, "strategic-merge-patch+json", 415)
        await client.patch(f"{SERVICES}/web", {"metadata": {"name": "other"}}, code=400)
        await client.patch(f"{SERVICES}/none", {}, code=404)
        await client.patch(f"{SERVICES}/web", [1], code=400)
        await client.patch(f"{SERVICES}/web", {"kind": "Pod"}, code=400)


async def test_server_side_apply_makes_changes_and_conflicts(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        one = service("web", 80)
        made = await client.patch(f"{SERVICES}/web?fieldManager=one", one, "apply-patch+yaml", 201)
        assert made["metadata"]["managedFields"][0]["manager"] == "one"
        again = await client.patch(f"{SERVICES}/web?fieldManager=one", one, "apply-patch+yaml")
        assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        other = service("web", 80)
        other["spec"]["selector"]["app"] = "else"
        refused = await client.patch(f"{SERVICES}/web?fieldManager=two", other, "apply-patch+yaml", 409)
        assert refused["details"]["causes"] == [
            {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".spec.selector.app"}
        ]
        forced = await client.patch(f"{SERVICES}/web?fieldManager=two&force=true", other, "apply-patch+yaml")
        assert forced["spec"]["selector"] == {"app": "else"}
        assert (await client.patch(f"{SERVICES}/web", one, "apply-patch+yaml", 400))["reason"] == "BadRequest"
        text = "apiVersion: v1\nkind: Service\nmetadata: {name: yaml}\nspec: {ports: [{port: 80}]}\n"
        await client.ask(
            "PATCH", f"{SERVICES}/yaml?fieldManager=a", text, 201, Content_Type="application/apply-patch+yaml"
        )


async def test_defaults_are_no_change_and_no_conflict(tmp_path: Path) -> None:
    path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "a"},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]},
    }
    async with api_in(tmp_path) as (api, client):
        made = await client.patch(f"{path}/a?fieldManager=one", body, "apply-patch+yaml", 201)
        assert made["spec"]["policyTypes"] == ["Ingress"]
        before = api.store.memory.revision
        await client.patch(f"{path}/a?fieldManager=one", body, "apply-patch+yaml")
        await client.put(f"{path}/a", body)
        await client.patch(f"{path}/a", body)
        assert api.store.memory.revision == before
        both = await client.patch(f"{path}/a?fieldManager=two", body, "apply-patch+yaml")
        assert both["metadata"]["generation"] == 1
        assert len(both["metadata"]["managedFields"]) == 2


async def test_status_is_changed_by_itself(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        made = await client.post(VIRTUAL_SERVICES, virtual_service("web"))
        patch = {"status": {"observedGeneration": 1}, "spec": {"hosts": ["changed"]}}
        changed = await client.patch(f"{VIRTUAL_SERVICES}/web/status", patch)
        assert changed["spec"] == made["spec"]
        assert changed["status"] == {"observedGeneration": 1}
        assert changed["metadata"]["generation"] == 1
        made["spec"]["hosts"] = ["more"]
        del made["metadata"]["resourceVersion"]
        assert (await client.put(f"{VIRTUAL_SERVICES}/web", made))["status"] == {"observedGeneration": 1}
        assert (await client.get(f"{VIRTUAL_SERVICES}/web/status"))["kind"] == "VirtualService"
        await client.get(f"{VIRTUAL_SERVICES}/web/scale", 404)


async def test_finalizers_hold_an_object_until_the_last_is_gone(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(SERVICES, service("web", finalizers=["example.com/hold"]))
        held = await client.delete(f"{SERVICES}/web")
        assert held["metadata"]["deletionTimestamp"]
        assert (await client.get(f"{SERVICES}/web"))["metadata"]["finalizers"] == ["example.com/hold"]
        await client.patch(f"{SERVICES}/web", {"metadata": {"finalizers": None}})
        await client.get(f"{SERVICES}/web", 404)


async def test_deleting_a_service_answers_the_service_as_typed_clients_expect(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        made = await client.post(SERVICES, service("web"))
        assert await client.delete(f"{SERVICES}/web?dryRun=All") == made
        assert await client.delete(f"{SERVICES}/web") == made


async def test_deletion_keeps_to_its_preconditions(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        made = await client.post(SERVICES, service("web"))
        await client.delete(f"{SERVICES}/web", {"preconditions": {"uid": "other"}}, 409)
        await client.delete(f"{SERVICES}/web", {"preconditions": {"resourceVersion": "1"}}, 409)
        await client.delete(f"{SERVICES}/web", {"kind": "Pod"}, 400)
        await client.delete(f"{SERVICES}/web", {"preconditions": {"uid": made["metadata"]["uid"]}})


async def test_a_collection_is_deleted_by_selector(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        for n in range(4):
            await client.post(SERVICES, service(f"s{n}", labels={"odd": str(n % 2)}))
        await client.delete(f"{SERVICES}?labelSelector=odd%3D1")
        assert [item["metadata"]["name"] for item in (await client.get(SERVICES))["items"]] == ["s0", "s2"]
        await client.delete("/api/v1/services", code=405)


async def test_names_are_made_where_asked(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        body = service("x")
        body["metadata"] = {"generateName": "web-"}
        made = await client.post(SERVICES, body)
        assert made["metadata"]["name"].startswith("web-")
        assert len(made["metadata"]["name"]) == 9


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"apiVersion": "v2"}, 400, "does not match the expected API version"),
        ({"kind": "Pod"}, 400, "does not match the expected kind"),
        ({"metadata": {"name": "web", "namespace": "other"}}, 400, "does not match the namespace"),
        ({"metadata": {"name": "web", "resourceVersion": "5"}}, 400, "should not be set"),
        ({"metadata": {"name": "Not_A_Name"}}, 422, "metadata.name"),
        ({"metadata": {}}, 422, "metadata.name: Required value"),
        ({"metadata": {"name": "web", "labels": {"a b": "c"}}}, 422, "metadata.labels"),
        ({"metadata": {"name": "web", "labels": {"a": "-"}}}, 422, "metadata.labels"),
        ({"metadata": {"name": "web", "labels": {"a": 5}}}, 422, "metadata.labels"),
        ({"metadata": {"name": "web", "annotations": {"a": "x" * 300_000}}}, 422, "Too long"),
        ({"metadata": {"name": 5}}, 400, "metadata.name: expected text"),
        ({"metadata": 5}, 400, "metadata: expected an object"),
        ({"metadata": {"name": "web", "lables": {}}}, 400, 'unknown field "metadata.lables"'),
    ],
)
async def test_an_object_that_is_not_in_order_is_refused_with_its_field(
    tmp_path: Path, change: dict[str, Any], code: int, says: str
) -> None:
    async with api_in(tmp_path) as (_, client):
        refused = await client.post(SERVICES, {**service("web"), **change}, code)
        assert says in refused["message"]
        assert refused["kind"] == "Status"
        assert refused["code"] == code


async def test_fields_named_twice_are_found(tmp_path: Path) -> None:
    text = json.dumps(service("web")).replace('"name": "web"', '"name": "web", "name": "web"')
    async with api_in(tmp_path) as (_, client):
        assert 'duplicate field "name"' in (await client.post(SERVICES, text, 400))["message"]
        await client.post(f"{SERVICES}?fieldValidation=Ignore", text)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", 404), ("GET", "/api/v2", 404), ("GET", "/api/v1/frobs", 404), ("GET", "/apis/none/v1", 404),
        ("GET", "/apis/networking.istio.io/v9/virtualservices", 404), ("GET", "/api/v1/services/web", 404),
        ("GET", "/api/v1/namespaces/default/namespaces", 404), ("GET", "/api/v1/namespaces//services", 404),
        ("POST", "/api/v1/services", 405), ("PUT", SERVICES, 405), ("POST", f"{SERVICES}/web", 405),
        ("GET", f"{SERVICES}?limit=x", 400), ("GET", f"{SERVICES}?resourceVersion=x", 400),
        ("GET", f"{SERVICES}?watch=maybe", 400), ("GET", f"{SERVICES}?resourceVersion=99999", 504),
        ("GET", "/openapi/v3/none", 404), ("GET", "/apis/none", 404), ("OPTIONS", SERVICES, 405),
        ("GET", f"{SERVICES}/..%2F..%2Fetc", 404), ("GET", f"{SERVICES}/%00", 404), ("DELETE", "/version", 405),
    ],
)  # fmt: skip
async def test_what_is_not_there_or_not_allowed_is_a_status(tmp_path: Path, method: str, path: str, code: int) -> None:
    async with api_in(tmp_path) as (_, client):
        body = service("web") if method in ("POST", "PUT") else None
        _, refused = await client.ask(method, path, body, code)
        assert refused["kind"] == "Status"
        assert refused["status"] == "Failure"
        assert refused["code"] == code


@pytest.mark.parametrize(
    ("data", "content_type", "code"),
    [
        (b"{", "application/json", 400), (b"", "application/json", 400), (b"[]", "application/json", 400),
        (b'"x"', "application/json", 400), (b"\xff\xfe", "application/json", 400), (b"NaN", "application/json", 400),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "application/json", 400), (b"[" * 100_000, "application/json", 400),
        (b'{"metadata":{"name":"\\ud800"}}', "application/json", 400), (b"a: [", "application/yaml", 400),
        (b"a: &a [*a]", "application/yaml", 400), (b"[" * 50_000, "application/yaml", 400),
        (b"k8s\x00\n\x0c", "application/vnd.kubernetes.protobuf", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b'{"metadata":{"name":"a","generation":1e400}}', "application/json", 400),
    ],
)  # fmt: skip
async def test_garbage_is_refused_as_such(tmp_path: Path, data: bytes, content_type: str, code: int) -> None:
    async with api_in(tmp_path) as (_, client):
        _, refused = await client.ask("POST", SERVICES, data, code, Content_Type=content_type)
        assert refused["code"] == code
        assert "Traceback" not in refused["message"]
        _, refused = await client.ask("PUT", f"{SERVICES}/web", data, Content_Type=content_type)
        assert refused["code"] in (code, 404)


async def test_a_body_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        body = service("web", annotations={"a": "x" * (3 << 20)})
        assert (await client.post(SERVICES, body, 413))["reason"] == "RequestEntityTooLarge"
        assert (await client.get(SERVICES))["items"] == []


async def ask_raw(client: Client, data: bytes) -> bytes:
    host, port = client.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\x05hello", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 200,
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /api/v1/namespaces/default/services HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{",
    ],
)  # fmt: skip
async def test_what_is_not_http_ends_in_a_4xx_or_a_closed_connection(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with api_in(tmp_path) as (_, client):
        answer = await ask_raw(client, data)
        assert answer == b"" or answer.startswith((b"HTTP/1.0 4", b"HTTP/1.1 4")), answer[:200]
        assert b"Traceback" not in answer
        assert (await client.get(SERVICES))["items"] == []
    assert "Traceback" not in caplog.text


async def test_a_full_disk_is_told_and_reads_go_on(tmp_path: Path) -> None:
    async with store_in(tmp_path, pages_max=80) as store, api_on(store) as (_, client):
        accepted = []
        for n in range(60):
            body = service(f"s{n}", annotations={"a": "x" * 8000})
            code, answer = await client.ask("POST", SERVICES, body)
            if code != 201:
                break
            accepted.append(f"s{n}")
        assert code == 507
        assert answer["reason"] == "InsufficientStorage"
        assert "nothing was changed" in answer["message"]
        assert {item["metadata"]["name"] for item in (await client.get(SERVICES))["items"]} == set(accepted)
        _, text = await client.ask("GET", "/readyz", code=503)
        assert "store failed" in text
        await client.ask("GET", "/livez", code=200)


async def test_documents_are_found_with_and_without_a_slash_at_the_end(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        for path in ("/api", "/api/v1", "/apis", "/apis/networking.istio.io", "/apis/networking.istio.io/v1"):
            assert await client.get(path) == await client.get(f"{path}/"), path


async def test_a_name_that_was_drawn_and_is_taken_is_drawn_again(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        drawn = [bytes([n // 3] * 5) for n in range(30)]
        draw = api.operations._draw
        api.operations._draw = lambda count: drawn.pop(0) if count == 5 else draw(count)
        body = {**service("x"), "metadata": {"generateName": "web-"}}
        names = [(await client.post(SERVICES, body))["metadata"]["name"] for _ in range(4)]
        assert names == ["web-bbbbb", "web-ccccc", "web-ddddd", "web-fffff"]
        api.operations._draw = lambda count: bytes(5) if count == 5 else draw(count)
        await client.post(SERVICES, body, 409)
