"""Rules and Secrets of all sources, as they are in force and as they are sent; a change costs what changes.

Of two with one key the API's counts, and what is under confirmation travels beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Body = dict[str, Any]
Changed = dict[str, Body | None]
"""By item key; None: it is gone."""


class RulesInForce:
    """Objects by item key (`object/RESOURCE/NAMESPACE/NAME`), those of manifests and those of the API (control)."""

    def __init__(self) -> None:
        self.manifests: Mapping[str, Body] = {}
        self._control: dict[str, Body] = {}
        self._now: dict[str, Body] = {}
        self._seen: Mapping[str, Body] | None = {}
        self._provisional: Mapping[str, Body] = {}

    @property
    def seen(self) -> Mapping[str, Body]:
        """All that is in force: a mapping that stays as it is, and another one once anything has changed. A body that
        did not change is the same object."""
        if self._seen is None:
            self._seen = dict(self._now)
        return self._seen

    def change(self, rules: Mapping[str, Body | None]) -> Changed:
        """Take some of the API's; what of what is in force is another now."""
        for key, body in rules.items():
            if body is None:
                self._control.pop(key, None)
            else:
                self._control[key] = body
        return self._take(rules)

    def declare(self, manifests: Mapping[str, Body]) -> Changed:
        """Take all of the manifests."""
        before, self.manifests = self.manifests, manifests
        return self._take(before.keys() | manifests.keys())

    def provide(self, provisional: Mapping[str, Body]) -> Changed:
        """Take all that goes with what is under confirmation, by the keys of its items."""
        before, self._provisional = self._provisional, provisional
        changed: Changed = {key: body for key, body in provisional.items() if before.get(key) != body}
        return changed | dict.fromkeys(before.keys() - provisional.keys())

    def _take(self, keys: Mapping[str, Any] | set[str]) -> Changed:
        changed: Changed = {}
        for key in keys:
            body = self._control.get(key)
            if body is None:
                body = self.manifests.get(key)
            had = self._now.get(key)
            if body is had:
                continue
            if body is None:
                del self._now[key]
            else:
                self._now[key] = body
            self._seen = None
            if body != had:
                changed[key] = body
        return changed
