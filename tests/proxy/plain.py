"""The same module as plain Python, beside the compiled one that import finds: tests run both."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent.parent


def plain(name: str) -> ModuleType:
    """`fairlead.proxy.NAME` from its source, whatever is compiled."""
    full = f"fairlead.proxy.plain_{name}"
    if full in sys.modules:
        return sys.modules[full]
    spec = importlib.util.spec_from_file_location(full, ROOT / "proxy" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    spec.loader.exec_module(module)
    return module
