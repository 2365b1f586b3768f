"""Shell: which checks flags and files give the app beside a sidecar."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..registry.checks import PURPOSES, Check, CheckError, flag_check
from .settings import SettingError, cause

logger = logging.getLogger("fairlead.checks")


def checks_of(options: Any) -> tuple[Check, ...]:
    """The checks of --readiness, --liveness, --startup and --checks; raises SettingError."""
    found: list[Check] = []
    for purpose in PURPOSES:
        for text in getattr(options, purpose, None) or ():
            try:
                found.append(flag_check(purpose, text))
            except CheckError as error:
                raise SettingError(f"--{purpose}: {error}") from None
    files = getattr(options, "checks", None) or ()
    if files:
        import yaml  # for those who have such a file

        from ..registry.checks_elsewhere import file_checks
    for name in files:
        notes: list[str] = []
        try:
            found += file_checks(yaml.safe_load(Path(name).read_text()), notes)
        except (OSError, UnicodeDecodeError, yaml.YAMLError, CheckError) as error:
            raise SettingError(f"--checks {name}: {cause(error)}") from None
        for note in notes:
            logger.warning("--checks %s: %s", name, note)
    return tuple(found)
