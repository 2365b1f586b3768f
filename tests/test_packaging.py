"""What is promised about the package as a whole: its names, its layers, its compiled parts."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Each folder may import from the folders written before it, and from no other.
FOLDERS = ("registry", "policy", "dns", "proxy", "mesh", "control")
WORLD = {"asyncio", "uvloop", "socket", "ssl", "select", "selectors", "subprocess", "threading", "time", "random"} | {
    "aiohttp"
}


def is_shell(source: Path) -> bool:
    """A file that may touch the world says so at the start of its docstring: `Shell: ...`."""
    return (ast.get_docstring(ast.parse(source.read_text())) or "").startswith("Shell: ")


def modules() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imported_folders(source: Path) -> set[str]:
    """The sibling folders that `source` imports from, by relative import."""
    depth = len(source.relative_to(ROOT).parts) - 1
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth + 1:
            found |= {node.module.split(".")[0]} if node.module else {a.name for a in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "fairlead":
            found.add("an absolute fairlead import")
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_imports_only_from_its_left(folder: str) -> None:
    for source in (ROOT / folder).rglob("*.py"):
        beyond = imported_folders(source) - set(FOLDERS[: FOLDERS.index(folder) + 1])
        assert not beyond, f"{source.relative_to(ROOT)} may not import {sorted(beyond)}"


def test_only_shells_touch_the_world() -> None:
    for source in modules():
        if is_shell(source):
            continue
        tree = ast.parse(source.read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
        touched = {name.split(".")[0] for name in names} & WORLD
        assert not touched, f"{source.relative_to(ROOT)} is a core and imports {sorted(touched)}"


def test_nothing_waits_in_a_way_that_loses_a_cancellation() -> None:
    """Python 3.11's `asyncio.wait_for` swallows one that meets the end of what it waits for."""
    for source in modules():
        for node in ast.walk(ast.parse(source.read_text())):
            lost = isinstance(node, ast.Attribute) and node.attr == "wait_for" and ast.unparse(node.value) == "asyncio"
            assert not lost, f"{source.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: use asyncio.timeout"


def test_every_package_is_listed() -> None:
    on_disk = {f"fairlead.{folder}" for folder in FOLDERS if list((ROOT / folder).rglob("__init__.py"))}
    nested = [path for folder in FOLDERS for path in (ROOT / folder).glob("*/__init__.py")]
    assert not nested, f"folders stay flat: {nested}"
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == on_disk


@pytest.mark.parametrize(
    "pxd", sorted(str(pxd.relative_to(ROOT)) for folder in FOLDERS for pxd in (ROOT / folder).rglob("*.pxd"))
)
def test_compiled_module_took_its_types(pxd: str) -> None:
    """Cython ignores a .pxd that it cannot find, without a word, and the result is as slow as Python."""
    path = ROOT / pxd
    module = importlib.import_module("fairlead." + pxd.removesuffix(".pxd").replace("/", "."))
    built = Path(module.__file__ or "")
    if built.suffix == ".py":
        return  # a machine without a compiler: the plain Python runs, and there is nothing to check
    if built.resolve().is_relative_to(ROOT):
        newest = max(path.with_suffix(suffix).stat().st_mtime for suffix in (".py", ".pxd"))
        assert built.stat().st_mtime >= newest, f"{built.name} is older than its source: make install"
    declared = re.findall(r"^cdef class (\w+)", path.read_text(), re.MULTILINE)
    hidden = re.findall(r"^cdef (?!class)[^(\n]*?(\w+)$", path.read_text(), re.MULTILINE)
    assert declared or hidden, f"{pxd}: declare at least one cdef class or variable, so that this test can tell"
    for name in hidden:
        assert not hasattr(module, name), f"{name} is an ordinary variable"
    for name in declared:
        assert "__weakref__" not in vars(getattr(module, name)), f"{name} is an ordinary class"


def test_nothing_is_called_through_an_attribute_that_the_call_may_clear() -> None:
    """Compiled, `self.exchange.x()` holds no reference to the exchange: a call that ends it would free it under way."""
    for pxd in ROOT.glob("*/*.pxd"):
        source = pxd.with_suffix(".py").read_text()
        found = re.findall(r"\w+\.(?:exchange|owner)\.\w+\(", source.replace("stream.owner.", ""))
        assert not found, f"{pxd.stem}: {found}: take it into a local name first"


def test_no_file_grows_past_its_reason() -> None:
    """About 500 lines a file; one that must be longer says why in its docstring (`Long because ...`)."""
    for source in modules():
        lines = source.read_text().split("\n")
        assert len(lines) <= 520 or "Long because" in (ast.get_docstring(ast.parse("\n".join(lines))) or ""), (
            f"{source.relative_to(ROOT)} has {len(lines)} lines"
        )


def test_no_function_grows_past_its_reason() -> None:
    """About 60 lines a function; 70 at most, where its first lines do not say why it is longer."""
    for source in modules():
        text = source.read_text()
        lines = text.split("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno + 1
                head = "\n".join(lines[node.lineno - 1 : node.lineno + 15])
                assert length <= 70 or "Long because" in head, f"{source.name}: {node.name} has {length} lines"


def test_a_sidecar_imports_nothing_that_only_control_needs() -> None:
    script = (
        "import sys, fairlead.mesh.sidecar, fairlead.control.cli\n"
        "print(*sorted({'aiohttp', 'grpc', 'cryptography', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "", f"a sidecar imports {done.stdout}"


def test_the_table_of_folders_names_each_file_once_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)/` \| (.*) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    assert [folder for folder, _ in rows] == ["registry", "policy", "dns", "proxy", "mesh", "control"]
    for folder, text in rows:
        files = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__", "__main__"}
        names = [name for name in re.findall(r"`([^`]+)`", text) if " " not in name]
        assert [name for name in names if not fnmatch.filter(files, name)] == [], folder
        assert sorted(name for name in files if not any(fnmatch.fnmatch(name, one) for one in names)) == [], folder
        assert len(names) == len(set(names)), folder


@pytest.mark.parametrize(("pure", "says"), [("1", "from the source"), ("", "ImportError")])
def test_pure_processes_take_sources_whatever_is_compiled_beside_them(tmp_path: Path, pure: str, says: str) -> None:
    hook = tmp_path / "tests" / "pure"
    hook.mkdir(parents=True)
    (tmp_path / "proxy").mkdir()
    shutil.copy(ROOT / "tests" / "pure" / "sitecustomize.py", hook)
    (tmp_path / "proxy" / "limits.py").write_text("print('from the source')")
    (tmp_path / "proxy" / f"limits{EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import proxy.limits"], capture_output=True, text=True, check=False,
        env={**os.environ, "FAIRLEAD_PURE": pure, "PYTHONPATH": f"{hook}{os.pathsep}{tmp_path}"},
    )  # fmt: skip
    assert says in done.stdout + done.stderr
