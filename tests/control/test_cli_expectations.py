"""`fairlead test` as a process: exit codes, what it prints, and where it takes its manifests from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.policy.test_expectations import MESH

ROOT = Path(__file__).resolve().parents[2]
GOOD = "tests: [{from: default/client-1, request: GET http://web.default/, expect: {to: web, subset: v1}}]\n"
BAD = "tests:\n- name: wrong & <odd>\n  request: GET http://web.default/old\n  expect: {status: 302}\n"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("fairlead")), "test", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def files(folder: Path, tests: str, mesh: str = MESH) -> tuple[Path, Path]:
    (folder / "mesh.yaml").write_text(mesh)
    (folder / "tests.yaml").write_text(tests)
    return folder / "tests.yaml", folder / "mesh.yaml"


def test_the_example_passes() -> None:
    done = run(ROOT / "examples" / "shop-tests.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("4 tests, 0 failed\n")


def test_what_fails_is_told_with_the_way_it_was_decided_and_the_exit_code_says_so(tmp_path: Path) -> None:
    tests, mesh = files(tmp_path, BAD)
    done = run(tests, "-f", mesh)
    assert done.returncode == 1
    assert f"FAIL  {tests}:2 wrong & <odd>\n        status: expected 302, got 301  {tests}:4\n" in done.stdout
    assert "how it was decided:" in done.stdout and "VirtualService default/web" in done.stdout
    assert done.stdout.endswith("1 test, 1 failed\n")


def test_manifests_may_be_named_in_the_file_or_lie_beside_it(tmp_path: Path) -> None:
    tests, _ = files(tmp_path, "manifests: mesh.yaml\n" + GOOD)
    assert run(tests).returncode == 0
    tests, _ = files(tmp_path, GOOD)
    assert run(tmp_path).returncode == 0, "a folder with both"
    done = run(tests)
    assert done.returncode == 2 and "no manifests: give -f PATH, --control URL" in done.stderr


def test_json_and_junit_say_the_same(tmp_path: Path) -> None:
    tests, mesh = files(tmp_path, BAD)
    told = json.loads(run(tests, "-f", mesh, "-o", "json").stdout)
    assert told["passed"] is False and told["errors"] == []
    (one,) = told["tests"]
    assert (one["name"], one["passed"], one["differences"]) == (
        "wrong & <odd>", False, ["status: expected 302, got 301"],
    )  # fmt: skip
    assert one["explanation"]["verdict"] == "redirect"
    suite = ElementTree.fromstring(run(tests, "-f", mesh, "-o", "junit").stdout)
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "1", "0")
    failure = suite.find("testcase/failure")
    assert failure is not None and failure.get("message") == "status: expected 302, got 301"


def test_manifests_that_are_not_valid_fail_the_run_whatever_the_tests_say(tmp_path: Path) -> None:
    broken = (
        MESH + "---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {name: x}\nspec: {hosts: 3}\n"
    )
    tests, mesh = files(tmp_path, GOOD, broken)
    done = run(tests, "-f", mesh)
    assert done.returncode == 1
    assert "ERROR " in done.stdout and "1 test, 0 failed; 1 error in the manifests" in done.stdout


def test_a_file_that_cannot_be_read_is_a_mistake_of_usage_and_names_the_place(tmp_path: Path) -> None:
    tests, mesh = files(tmp_path, "tests:\n- request: GET http://web.default/\n  expect: {too: web}\n")
    done = run(tests, "-f", mesh)
    assert done.returncode == 2 and f"{tests}:3: tests[0].expect.too: unknown; did you mean to?" in done.stderr
    (tmp_path / "none.yaml").write_text("kind: Service\napiVersion: v1\nmetadata: {name: a}\n")
    done = run(tmp_path / "none.yaml", "-f", mesh)
    assert done.returncode == 2 and "no tests; a file of tests has a list `tests` at its top" in done.stderr
    assert run(tmp_path / "nowhere.yaml", "-f", mesh).returncode == 2


def test_a_workload_that_is_not_there_fails_its_test_alone(tmp_path: Path) -> None:
    tests, mesh = files(
        tmp_path, GOOD + "- {from: default/nobody, request: GET http://web.default/, expect: {to: web}}\n"
    )
    text = tests.read_text().replace("tests: [", "tests:\n- ").replace("]\n", "\n", 1)
    tests.write_text(text)
    done = run(tests, "-f", mesh)
    assert done.returncode == 1
    assert "from: there is no workload default/nobody; known: default/client-1, default/web-1" in done.stdout
    assert done.stdout.endswith("2 tests, 1 failed\n")


def test_manifests_that_the_tests_name_go_before_control_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_CONTROL", "http://127.0.0.1:1")
    tests, mesh = files(tmp_path, "manifests: mesh.yaml\n" + GOOD)
    assert run(tests).returncode == 0
    assert run(tests, "-f", mesh).returncode == 0
    assert "http://127.0.0.1:1: Connection refused" in run(tests, "--control", "http://127.0.0.1:1").stderr
    tests, _ = files(tmp_path, GOOD)
    assert "http://127.0.0.1:1: Connection refused" in run(tests).stderr, "nothing else is named"
