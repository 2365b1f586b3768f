"""Whether the tests see each small change of a decision: a mutation check of one source file.

    python tests/mutate.py policy/authorize.py tests/policy/test_authorize.py tests/policy/test_decide.py

Each comparison, `and`, `or`, `not`, True, False and small number of the file's functions is changed in turn, the tests
are run until the first failure, and what no test has seen is printed (exit 1). A changed line that can make no
difference is a matter of judgement: this is for developers, not for CI. Every run is a fork with all imports done, in
which the code of the changed function is put in place; so what is computed at import is not covered, and sources must
be plain (FAIRLEAD_PURE is set).
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import os
import runpy
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
QUIET = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "--no-summary"]


def changes(tree: ast.Module) -> Iterator[tuple[ast.Module, int, str]]:
    """(changed tree, line, what was changed) of each mutant."""
    count = sum(1 for _ in ast.walk(tree))
    for index in range(count):
        made = copy.deepcopy(tree)
        node: Any = next(one for number, one in enumerate(ast.walk(made)) if number == index)
        before = ast.unparse(node) if isinstance(node, ast.expr) else ""
        if isinstance(node, ast.Compare):
            for number, operator in enumerate(node.ops):
                node.ops[number] = SWAPS[type(operator)]()  # type: ignore[call-overload]
        elif isinstance(node, ast.BoolOp):
            node.op = SWAPS[type(node.op)]()  # type: ignore[assignment]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            node.value = not node.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value < 3:
            node.value += 1
        else:
            continue
        yield ast.fix_missing_locations(made), node.lineno, f"{before}  ->  {ast.unparse(node)}"


def codes(code: CodeType) -> Iterator[CodeType]:
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from codes(one)


def functions(module: ModuleType) -> dict[tuple[str, int], FunctionType]:
    """By (qualified name, first line)."""
    found: dict[tuple[str, int], FunctionType] = {}
    holders: list[Any] = [module, *(one for one in vars(module).values() if isinstance(one, type))]
    for holder in holders:
        for value in list(vars(holder).values()):
            inner = getattr(value, "fget", None) or getattr(value, "__func__", value)
            if isinstance(inner, FunctionType) and inner.__code__.co_filename == module.__file__:
                found[inner.__code__.co_qualname, inner.__code__.co_firstlineno] = inner
    return found


def put_in_place(module: ModuleType, tree: ast.Module) -> bool:
    """Whether any function of the module is another one now."""
    known, changed = functions(module), False
    for code in codes(compile(tree, str(module.__file__), "exec", dont_inherit=True, flags=0)):
        function = known.get((code.co_qualname, code.co_firstlineno))
        if function is not None and code != function.__code__:
            function.__code__, changed = code, True
    return changed


def run(tests: list[str], limit_s: float, module: ModuleType, tree: ast.Module | None) -> int:
    """pytest's exit code in a fork; -1: the change is in no function."""
    child = os.fork()
    if not child:
        signal.alarm(max(1, int(limit_s)))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os._exit(99 if tree is not None and not put_in_place(module, tree) else int(pytest.main([*QUIET, *tests])))
    status = os.waitpid(child, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    return -1 if code == 99 else code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("source")
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--only", default="", help="names of functions, with commas")
    given = parser.parse_args()
    os.environ["FAIRLEAD_PURE"] = "1"
    runpy.run_path(str(ROOT / "tests" / "pure" / "sitecustomize.py"))
    sys.path.append(str(ROOT / "build" / "view"))
    module = importlib.import_module("fairlead." + given.source.removesuffix(".py").replace("/", "."))
    pytest.main(["--collect-only", "-qqq", *QUIET, *given.tests])
    begun = time.monotonic()
    if run(given.tests, 600, module, None):
        print("the tests fail before anything is changed")
        return 2
    limit_s = 5 + 5 * (time.monotonic() - begun)
    tree = ast.parse(Path(module.__file__ or "").read_text())
    wanted = set(filter(None, given.only.split(",")))
    spans = [(one.lineno, one.end_lineno or 0) for one in ast.walk(tree)
             if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and one.name in wanted]  # fmt: skip
    tried = left = 0
    for made, line, told in changes(tree):
        if wanted and not any(first <= line <= last for first, last in spans):
            continue
        code = run(given.tests, limit_s, module, made)
        tried += code != -1
        if code == 0:
            left += 1
            print(f"{given.source}:{line}: {told}", flush=True)
    print(f"{given.source}: {tried} changes, {tried - left} seen by a test, {left} not")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
