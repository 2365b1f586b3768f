"""The namespace of a service whose source has none: by patterns that the user states."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from .names import is_label


class NamespaceMap:
    """`PATTERN=NAMESPACE` in order, the first that fits counts; patterns as of a shell (`pay-*`, `*`)."""

    def __init__(self, rules: Sequence[str] = (), default: str = "default") -> None:
        """Raises ValueError that names the rule."""
        self._default = default
        self._rules: list[tuple[str, str]] = []
        for rule in rules:
            pattern, equals, namespace = rule.strip().rpartition("=")
            if not equals or not pattern or not is_label(namespace):
                raise ValueError(f"expected PATTERN=NAMESPACE (a DNS label), got {rule!r}")
            self._rules.append((pattern.lower(), namespace))

    def of(self, service: str) -> str:
        name = service.lower()
        return next((namespace for pattern, namespace in self._rules if fnmatchcase(name, pattern)), self._default)
