"""Shell: keys of tokens fetched by control for those Envoys whose policies name where they stand (`jwksUri`).

Fetched and renewed as a sidecar does it, every 20 minutes (istiod's interval); an Envoy cannot ask for a key that it
does not know, so a new one counts after at most that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..policy.request_authentication import TokenRule, TokenRules
from ..policy.resources import RequestAuthentication
from ..proxy.token_check import TokenCheck

FIRST_S = 6.0
"""How long a client that has just connected waits for the first fetch; then tokens are refused until there is one."""


class FetchedKeys:
    """`changed()`: there are other keys. Use within a running loop; nothing is fetched before `update`."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._check = TokenCheck()
        self._check.on_fetched = self._fetched
        self._changed = changed
        self._tried = asyncio.Event()
        self._told: dict[tuple[str, str], str] = {}
        self._policies: Sequence[RequestAuthentication] = ()
        self._blocked: tuple[str, ...] = ()

    def __call__(self, source: tuple[str, str]) -> str:
        return self._told.get(source, "")

    def update(self, policies: Sequence[RequestAuthentication], blocked: Sequence[str] = ()) -> None:
        """Want the keys of these; `blocked`: networks where they are not fetched."""
        if policies is self._policies and tuple(blocked) == self._blocked:
            return
        self._policies, self._blocked = policies, tuple(blocked)
        rules = [TokenRule(rule, policy.meta.key) for policy in policies for rule in policy.spec.jwt_rules]
        elsewhere = [rule for rule in rules if rule.keys_from[0] != "inline"]
        if elsewhere or self._told:
            self._check.update(TokenRules(elsewhere, policies), blocked)
            self._told = {rule.keys_from: self._check.text(rule.keys_from) for rule in elsewhere}
        self._look()

    async def first(self) -> None:
        """Until each set was tried once, FIRST_S at most."""
        try:
            async with asyncio.timeout(FIRST_S):
                await self._tried.wait()
        except TimeoutError:
            pass

    def _fetched(self) -> None:
        told = {source: self._check.text(source) for source in self._told}
        changed, self._told = told != self._told, told
        self._look()
        if changed:
            self._changed()

    def _look(self) -> None:
        if self._check.fetching:
            self._tried.clear()
        else:
            self._tried.set()

    async def close(self) -> None:
        await self._check.close()
