"""Keep the checkout itself off sys.path, where our dns/ would hide dnspython; run async tests on uvloop."""

from __future__ import annotations

import asyncio
import gc
import os
import runpy
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvloop
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
if str(ROOT / "build" / "view") not in sys.path:
    sys.path.append(str(ROOT / "build" / "view"))  # where `tests.*` helpers are found under any runner

# How long an example takes says more of what else the machine does than of us.
settings.register_profile("fairlead", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fairlead")

WAITING = (
    "tests/e2e/", "tests/registry/test_source_", "tests/registry/test_consul_unwatched", "tests/control/test_store_",
)  # fmt: skip
"""Tests that mostly wait for servers."""

if os.environ.get("FAIRLEAD_PURE") == "1":  # here, and in every process that tests start
    PURE = ROOT / "tests" / "pure"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PURE), os.environ.get("PYTHONPATH"))))
    runpy.run_path(str(PURE / "sitecustomize.py"))


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Where several files run at a time: end-to-end tests and others that mostly wait, among those that compute, and
    through before these are, since they take longest. The order of tests within a file stays."""
    if not hasattr(config, "workerinput"):
        return
    files: dict[str, list[Any]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    waiting = [name for name in files if name.startswith(WAITING)]
    computing = [name for name in files if name not in set(waiting)]
    place = {name: 0.75 * number / len(waiting) for number, name in enumerate(waiting)}
    place |= {name: number / len(computing) for number, name in enumerate(computing)}
    items[:] = [item for name in sorted(files, key=place.__getitem__) for item in files[name]]


def pytest_collection(session: Any) -> None:
    gc.disable()


def pytest_collection_finish(session: Any) -> None:
    """What was collected stays: `no_lost_errors_or_tasks` looks for garbage after each test, and thousands of tests and
    all that they import made each look a fifth of a second."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture(autouse=True)
async def no_lost_errors_or_tasks(request: Any) -> AsyncIterator[None]:
    """Fail a test whose task dies unheard or is left running; pytest-asyncio itself lets both pass."""
    if "asyncio" not in request.keywords:
        yield
        return
    loop = asyncio.get_running_loop()
    lost: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: lost.append(context))
    before = asyncio.all_tasks()
    yield
    before.add(asyncio.current_task())  # type: ignore[arg-type]  # teardown is a task of its own
    for _ in range(20):  # let cancelled tasks finish
        left = [task for task in asyncio.all_tasks() - before if not task.done()]
        if not left:
            break
        await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)
    assert not left, f"tasks left running: {left}"
    assert not lost, f"errors nobody heard: {lost}"


@pytest.fixture(params=["dictionaries", "shards"])
def tables(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of facts are as small ones are, or as large ones are from four entries on, in four dictionaries."""
    if request.param == "shards":
        from fairlead.registry import shards

        monkeypatch.setattr(shards, "LARGE", 4)
        monkeypatch.setattr(shards, "COUNT", 4)
        monkeypatch.setattr(shards, "_MASK", 3)
