"""Shell: `fairlead store copy|backup|restore`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from .cli_client import failed
from .settings import counted
from .store import StoreError
from .store_tools import Content, fill, read_file, read_store, write_file


def copy(options: Any) -> int:
    async def work() -> Content:
        content = await read_store(options.source, os.environ)
        await fill(options.destination, content, os.environ, options.force)
        return content

    return _told(work, f"{options.source} to {options.destination}")


def backup(options: Any) -> int:
    async def work() -> Content:
        content = await read_store(options.source, os.environ)
        write_file(Path(options.file), content)
        return content

    return _told(work, f"{options.source} to {options.file}")


def restore(options: Any) -> int:
    async def work() -> Content:
        content = read_file(Path(options.file))
        await fill(options.destination, content, os.environ, options.force)
        return content

    return _told(work, f"{options.file} to {options.destination}")


def _told(work: Any, what: str) -> int:
    try:
        content = asyncio.run(work())
    except OSError as error:
        return failed(f"{error.filename or what}: {error.strerror or error}")
    except StoreError as error:
        return failed(str(error))
    objects, changes = counted(len(content.objects), "object"), counted(len(content.changes), "change")
    print(f"{what}: {objects} and {changes}, revision {content.revision}")
    return 0
