"""The command line as scripts use it: JSON on standard output, exit codes, words on standard error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.roles import roles_in

pytestmark = pytest.mark.asyncio
EXAMPLES = str(Path(__file__).resolve().parents[2] / "examples" / "manifests")
URL = "http://catalogue.default.svc.cluster.local:8080/items"
EXPLAIN_KEYS = [
    "verdict", "status", "reason", "virtualService", "route", "destinations", "request", "response", "redirect",
    "directResponse", "timeout_s", "retries", "fault", "mirrors", "endpoints", "policy", "trace", "dns",
]  # fmt: skip


async def call(tmp_path: Path, *arguments: str, stdin: str = "") -> tuple[int, Any, str]:
    async with roles_in(tmp_path) as roles:
        code, out, err = await roles.command(*arguments, stdin=stdin.encode())
    assert "Traceback" not in err
    return code, json.loads(out) if out else None, err


async def test_validate_gives_one_object_a_document_and_0(tmp_path: Path) -> None:
    code, found, _ = await call(tmp_path, "validate", "-f", EXAMPLES, "-o", "json")
    assert code == 0
    assert len(found) == 15
    assert all(list(one) == ["source", "kind", "namespace", "name", "valid", "errors", "warnings"] for one in found)


async def test_validate_gives_1_with_line_path_and_remedy(tmp_path: Path) -> None:
    text = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n    - prot: 80\n      port: 80\n---\n"
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: a}\n---\n"
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n"
        "spec: {hosts: [a], http: [{route: [{destination: {host: a, subset: v9}}]}]}\n---\nkind: ["
    )
    code, found, _ = await call(tmp_path, "validate", "-f", "-", "-o", "json", stdin=text)
    assert code == 1
    assert [one["valid"] for one in found] == [False, True, False, False]
    assert found[0]["errors"][0]["path"] == "spec.ports[0].prot"
    assert "did you mean" in found[0]["errors"][0]["message"]
    assert found[2]["errors"][0]["path"].startswith("spec.http[0].route[0].destination")
    assert "v9" in found[2]["errors"][0]["message"]
    assert found[3]["source"] == "<stdin>:19"


async def test_explain_has_every_key_of_the_contract(tmp_path: Path) -> None:
    code, found, _ = await call(
        tmp_path, "explain", "-f", EXAMPLES, "--from", "default/front-1", "-o", "json", "GET", URL
    )
    assert code == 0
    assert list(found) == EXPLAIN_KEYS
    assert found["verdict"] == "route"
    assert [(d["subset"], d["weight"]) for d in found["destinations"]] == [("v1", 90), ("v2", 10)]
    assert found["policy"]["allowed"] is True


async def test_explain_answers_many_requests_one_a_line(tmp_path: Path) -> None:
    lines = [
        {"id": 1, "method": "GET", "url": URL, "from": "default/front-1", "headers": {"x-tester": "yes"}},
        {"id": 2, "method": "GET", "url": URL, "from": "default/intruder-1"},
    ]
    (tmp_path / "requests").write_text("\n".join(json.dumps(line) for line in lines))
    async with roles_in(tmp_path) as roles:
        code, out, err = await roles.command("explain", "-f", EXAMPLES, "--requests", "requests")
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["id"] for one in found] == [1, 2]
    assert [d["subset"] for d in found[0]["destinations"]] == ["v2"]
    assert found[1]["verdict"] == "denied"
    assert found[1]["reason"] == "FL-DENIED"


async def test_matrix_has_a_row_for_every_pair_and_port(tmp_path: Path) -> None:
    code, found, _ = await call(tmp_path, "policy", "matrix", "-f", EXAMPLES, "-o", "json")
    assert code == 0
    assert all(list(row) == ["source", "destination", "port", "protocol", "allowed", "by"] for row in found)
    assert len(found) == 25
    allowed = {(row["source"], row["destination"]) for row in found if row["allowed"]}
    assert ("default/front-1", "default/reviews-1") in allowed
    assert ("default/intruder-1", "default/reviews-1") not in allowed


async def test_a_pair_is_explained_rule_by_rule_with_file_and_line(tmp_path: Path) -> None:
    pair = ("default/intruder-1", "default/reviews-1")
    code, found, _ = await call(tmp_path, "policy", "explain", *pair, "-f", EXAMPLES, "-o", "json")
    assert code == 1 and not found[0]["allowed"]
    assert any("line" in step and step["file"].endswith(".yaml") for step in found[0]["trace"])
    async with roles_in(tmp_path) as roles:
        code, out, _ = await roles.command("policy", "explain", "default/front-1", pair[1], "-f", EXAMPLES)
    assert code == 0 and "may reach" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("explain", "-f", EXAMPLES), 2, "METHOD"),
        (("explain", "GET", URL), 2, "-f"),
        (("validate", "-f", "/nowhere"), 1, ""),
        (("frobnicate",), 2, "frobnicate"),
        (("sidecar", "--workload", "a/b"), 2, "--control"),
        (("sidecar", "-f", EXAMPLES, "--workload", "a/b", "--admin", "0.0.0.0:1"), 2, "loopback"),
        (("sidecar", "-f", EXAMPLES, "--workload", "a/b", "--listen", "nonsense"), 2, "--listen"),
        (("dns", "-f", "/nowhere", "--listen", "127.0.0.1:0"), 2, "/nowhere"),
        (("get", "pods", "--control", "http://127.0.0.1:1"), 1, "127.0.0.1:1"),
        (("get", "pods", "--control", "ftp://x"), 2, "--control"),
        (("healthcheck", "--health", "127.0.0.1:1"), 1, "127.0.0.1:1"),
    ],
)
async def test_what_cannot_be_done_says_why_and_gives_its_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    async with roles_in(tmp_path) as roles:
        got, _, err = await roles.command(*arguments)
    assert got == code, err
    assert said in err
    assert "Traceback" not in err


async def test_bad_flags_give_a_sentence_and_2_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"\xff\xfe")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "store.db").write_bytes(b"garbage" * 100)
    nowhere = ["--outbound", "off", "--inbound", "off", "--admin", "off", "--health", "off", "--metrics", "off"]
    sidecar = ["sidecar", "-f", "/dev/null", *nowhere, "--workload"]
    control = ["control", "--listen", "127.0.0.1:0", "--data-dir"]
    wrong = [
        ([*sidecar, "a/b/c"], "--workload: expected NAMESPACE/NAME"),
        ([*sidecar, "a/b", "--cert", "bad", "--key", "bad", "--ca", "bad"], "--cert bad"),
        ([*sidecar, "a/b", "--limit", "max-heads=1"], "--limit: limit max-heads: there is no such limit"),
        ([*sidecar, "a/b", "--limit", "max-head=much"], "--limit: limit max-head: expected a size such as"),
        ([*sidecar, "a/b", "--app-address", "host:80"], "--app-address: expected an address"),
        (["dns", "--etcd", "::::", "--listen", "127.0.0.1:0"], "etcd: expected HOST:PORT"),
        (["get", "vs", "--control", "http://[:1"], "--control: expected"),
        (["get", "vs", "--token-file", "bad"], "--token-file bad"),
        ([*control, "new", "--api-token-file", "nope"], "administrators' tokens nope"),
        ([*control, "new", "--certificate-ttl", "0s"], "--certificate-ttl: expected"),
        ([*control, "new", "--trust-domain", "a b"], "--trust-domain: expected"),
        ([*control, "damaged"], "restore it from a backup"),
    ]
    async with roles_in(tmp_path) as roles:
        for arguments, sentence in wrong:
            code, _, err = await roles.command(*arguments)
            assert (code, sentence in err, "Traceback" in err) == (2, True, False), (arguments, err)


@pytest.mark.parametrize("line", ["garbage", "3", "[" * 100_000, '{"a":' * 100_000, '{"id": NaN}', '{"id": "\\ud800"}'])
async def test_a_line_of_requests_that_cannot_be_read_is_named_and_gives_2(tmp_path: Path, line: str) -> None:
    (tmp_path / "requests").write_text("\n" + line)
    code, _, err = await call(tmp_path, "explain", "-f", EXAMPLES, "--requests", "requests")
    assert code == 2
    assert err.startswith("fairlead explain: requests:2: ")


async def test_explain_names_file_and_line_and_of_a_live_mesh_the_revision(tmp_path: Path) -> None:
    asked = ("--from", "default/front-1", "-o", "json", "GET", URL)
    _, found, _ = await call(tmp_path, "explain", "-f", EXAMPLES, *asked)
    lines = {one["object"]: (Path(one["file"]).name, one["line"]) for one in found["trace"] if "line" in one}
    assert lines["VirtualService default/catalogue route testers"] == ("30-traffic.yaml", 39)
    assert found["dns"]["answer"] == "catalogue.default.svc.cluster.local"
    async with roles_in(tmp_path) as roles:
        control = await roles.start("control", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "control"))
        url = f"http://{control.at['api']}"
        code, _, err = await roles.command("apply", "-f", EXAMPLES, "--control", url)
        assert code == 0, err
        code, out, err = await roles.command("explain", "--control", url, *asked)
        assert code == 0, err
        got = await roles.command("get", "pod", "front-1", "-o", "json", "--control", url)
    live = {one["resource"]: one for one in json.loads(out)["trace"] if "resource" in one}
    assert live["Pod default/front-1"]["revision"] == json.loads(got[1])["metadata"]["resourceVersion"]
    assert all(one["revision"].isdecimal() and "file" not in one for one in live.values())


async def test_colour_is_for_terminals_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        for flags, coloured in (((), False), (("--color", "always"), True), (("--color", "never"), False)):
            code, out, _ = await roles.command("validate", "-f", EXAMPLES, *flags)
            assert (code, "\x1b[" in out) == (0, coloured)
