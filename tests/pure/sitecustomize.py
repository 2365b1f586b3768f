"""For FAIRLEAD_PURE=1: Python takes Fairlead's modules from their sources, whatever is compiled beside them.

Every Python process that has this folder in PYTHONPATH reads this at its start; `tests/conftest.py` puts it there, so
roles that tests start, and their children, run as the test itself does.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import FileFinder, SourceFileLoader
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = tuple(
    str(place / name)
    for place in (ROOT, ROOT / "build" / "view" / "fairlead")
    for name in ("registry", "policy", "dns", "proxy", "mesh", "control")
)


def from_source(path: str) -> FileFinder:
    """A finder of a folder's sources. Raises ImportError for folders that are not Fairlead's."""
    if path not in FOLDERS:
        raise ImportError
    return FileFinder(path, (SourceFileLoader, [".py"]))


if os.environ.get("FAIRLEAD_PURE") == "1":
    sys.path_hooks.insert(0, from_source)
    sys.path_importer_cache.clear()
