"""Shell: tokens of requests proved: keys fetched and renewed, signatures checked, what was proved remembered.

Made only where a RequestAuthentication applies; no other proxy imports this file or what it needs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from ..policy.json_web_token import Token, TokenError, read_keys
from ..policy.request_authentication import MISSED_ISSUER, Candidate, Refusal, TokenRule, TokenRules, is_preflight
from ..registry.needs import FetchError
from .blocked import Blocked
from .client import HttpFetch
from .message import RequestHead
from .signatures import KeySet
from .token_heads import rewrite, told_of

RENEW_S = 1200.0
"""How often keys are fetched again (Istio's default)."""
AGAIN_S = 1.0
"""First pause after keys could not be fetched; doubled up to AGAIN_MOST_S."""
AGAIN_MOST_S = 60.0
UNKNOWN_S = 10.0
"""For a key that is not among those known the set is fetched anew, but not oftener than this."""
KEPT_MOST = 4096
"""Tokens that were proved, remembered."""
WAITING_MOST = 1000
"""Requests that wait for keys."""
SET_MOST = 1 << 20
NO_KEYS = "Jwks remote fetch is failed"
logger = logging.getLogger("fairlead.tokens")
Done = Callable[["Result"], None]


class Result:
    """What is known of a request's token: a refusal, or the claims (None: it has no token)."""

    __slots__ = ("claims", "refusal")

    def __init__(self, refusal: Refusal | None = None, claims: Mapping[str, Any] | None = None) -> None:
        self.refusal = refusal
        self.claims = claims


NOTHING = Result()


class Keys:
    """A set of keys: where it comes from, and what there is of it."""

    def __init__(self, source: tuple[str, str], timeout_s: float) -> None:
        self.source = source
        self.timeout_s = timeout_s
        self.set: KeySet | None = None
        self.text = ""
        """As they were fetched."""
        self.error = ""
        """Why the last fetch brought none."""
        self.tried_at = 0.0
        self.fetching: asyncio.Task[None] | None = None
        self.next: asyncio.TimerHandle | None = None
        self.pause_s = AGAIN_S
        self.waiting: list[Callable[[], None]] = []


class TokenCheck:
    """`clock()`: Unix seconds. Use within a running loop; `close` ends what it has begun."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._keys: dict[tuple[str, str], Keys] = {}
        self._proved: dict[bytes, tuple[Token, Mapping[str, Any]]] = {}
        self._fetch: HttpFetch | None = None
        self._blocked = Blocked()
        self._closing: set[asyncio.Task[None]] = set()
        self.rules = TokenRules(())
        self.checked = 0
        """Signatures looked at."""
        self.waiting = 0
        self.on_fetched: Callable[[], None] | None = None
        """Called when a fetch has ended, well or not."""

    def update(self, rules: TokenRules, blocked: Sequence[str] = ()) -> None:
        """Take other rules; keys that are known stay, tokens that were proved are looked at anew. `blocked`: networks
        where keys are not fetched, besides those of blocked.py."""
        if tuple(blocked) != self._blocked.networks:
            self._blocked = Blocked(blocked)
            self._let_go()
        same, self.rules = rules.policies == self.rules.policies, rules
        if same and self._keys:
            return
        self._proved.clear()
        wanted = {rule.keys_from: rule for rule in rules.rules}
        for source in [source for source in self._keys if source not in wanted]:
            self._drop(self._keys.pop(source))
        for source, rule in wanted.items():
            known = self._keys.get(source)
            if known is None:
                known = self._keys[source] = Keys(source, rule.timeout_s)
                if source[0] == "inline":
                    known.set = KeySet(_readable(source[1]))
                else:
                    self._begin(known)
            known.timeout_s = rule.timeout_s

    def problem(self) -> str:
        """Sets of keys that there are none of; empty: all are there."""
        missing = [
            f"{keys.source[1]}: {keys.error or 'not fetched yet'}" for keys in self._keys.values() if not keys.set
        ]
        return "; ".join(missing)

    def text(self, source: tuple[str, str]) -> str:
        """A set of keys as it was fetched last; empty: there is none."""
        known = self._keys.get(source)
        return known.text if known is not None else ""

    @property
    def fetching(self) -> bool:
        """Whether some set was not tried yet."""
        return any(not keys.set and not keys.error for keys in self._keys.values())

    def look(self, head: RequestHead, done: Done) -> Result | None:
        """What is known of the request's token; None: keys are not there yet, and `done` will be called with it. The
        head is changed as the rules say where the answer is no refusal."""
        if is_preflight(head):
            rewrite(head, self.rules.stripped)
            return NOTHING
        found = self.rules.candidates(head)
        if isinstance(found, Refusal):
            return Result(found)
        if not found:
            if self.rules.stripped:
                rewrite(head, self.rules.stripped)
            return NOTHING
        return self._judge(head, found, done, True)

    def _judge(self, head: RequestHead, found: list[Candidate], done: Done, may_wait: bool) -> Result | None:
        refusal: Refusal | None = None
        for candidate in found:
            kept = self._known(candidate)
            if isinstance(kept, TokenError):
                refusal = refusal or Refusal(401, candidate.rule.by, str(kept))
                continue
            token, claims = kept
            rule = candidate.rule
            if token.issuer != rule.issuer:
                continue
            wrong = rule.fault(token.claims, self._clock())
            if wrong is None and claims is None:
                keys = self._keys.get(rule.keys_from)
                if keys is None:  # other rules are in force meanwhile
                    return Result(Refusal(401, rule.by, NO_KEYS))
                if may_wait and not self._ready(keys, token) and self.waiting < WAITING_MOST:
                    self._wait(keys, head, found, done)
                    return None
                wrong = self._signature(keys, rule, token)
                if wrong is None:
                    claims = rule.shown(token.claims)
                    self._remember(candidate, token, claims)
            if wrong is None:
                assert claims is not None
                places = () if rule.forward else [one.place for one in found if one.rule is rule]
                rewrite(head, self.rules.stripped, places, told_of(rule, token))
                return Result(None, claims)
            refusal = wrong if refusal is None or refusal.why == MISSED_ISSUER else refusal
        return Result(refusal or Refusal(401, self.rules.by, MISSED_ISSUER))

    def _known(self, candidate: Candidate) -> tuple[Token, Mapping[str, Any] | None] | TokenError:
        """The token and, where it was proved before, its claims; or why it cannot be read."""
        kept = self._proved.get(_digest(candidate))
        if kept is not None:
            return kept
        try:
            return Token(candidate.text), None
        except TokenError as error:
            return error

    def _remember(self, candidate: Candidate, token: Token, claims: Mapping[str, Any]) -> None:
        if len(self._proved) >= KEPT_MOST:
            del self._proved[next(iter(self._proved))]
        self._proved[_digest(candidate)] = token, claims

    def _ready(self, keys: Keys, token: Token) -> bool:
        """Whether fetching would bring nothing new."""
        if keys.source[0] == "inline":
            return True
        if keys.set is not None and keys.set.knows(token):
            return True
        if keys.fetching is None:
            if self._clock() - keys.tried_at < (UNKNOWN_S if keys.set is not None else AGAIN_S):
                return True
            self._begin(keys)
        return False

    def _signature(self, keys: Keys, rule: TokenRule, token: Token) -> Refusal | None:
        if keys.set is None:
            return Refusal(401, rule.by, NO_KEYS)
        if not keys.set.knows(token):
            return Refusal(401, rule.by, "Jwks doesn't have key to match kid or alg from Jwt")
        self.checked += 1
        return None if keys.set.proves(token) else Refusal(401, rule.by, "Jwt verification fails")

    def _wait(self, keys: Keys, head: RequestHead, found: list[Candidate], done: Done) -> None:
        self.waiting += 1

        def again() -> None:
            self.waiting -= 1
            result = self._judge(head, found, done, False)
            assert result is not None
            done(result)

        keys.waiting.append(again)

    # --- keys

    def _begin(self, keys: Keys) -> None:
        if keys.fetching is None:
            if keys.next is not None:
                keys.next.cancel()
            keys.tried_at = self._clock()
            keys.fetching = asyncio.get_running_loop().create_task(self._renew(keys))

    async def _renew(self, keys: Keys) -> None:
        try:
            try:
                async with asyncio.timeout(keys.timeout_s):
                    data = await self._get(await self._where(keys))
                good, faults = read_keys(data)
                if not good:
                    raise TokenError("no key of it can prove a token: " + "; ".join(faults or ["it is empty"]))
                keys.set, keys.error, keys.pause_s = KeySet(good), "", AGAIN_S
                keys.text = data.decode()
                self._proved.clear()  # what a key that is gone had proved is proved no more
                pause_s = RENEW_S
            except (FetchError, TokenError, ValueError, TimeoutError) as error:
                keys.error = str(error) or f"no answer within {keys.timeout_s:g} s"
                logger.warning("keys of %s were not fetched, those known stay: %s", keys.source[1], keys.error)
                pause_s, keys.pause_s = keys.pause_s, min(keys.pause_s * 2, AGAIN_MOST_S)
            keys.next = asyncio.get_running_loop().call_later(pause_s, lambda: self._begin(keys))
        finally:
            keys.fetching = None
            if self.on_fetched is not None:
                self.on_fetched()
            waiting, keys.waiting = keys.waiting, []
            for again in waiting:
                asyncio.get_running_loop().call_soon(again)

    async def _where(self, keys: Keys) -> str:
        kind, where = keys.source
        if kind == "url":
            return where
        told = json.loads(await self._get(where.rstrip("/") + "/.well-known/openid-configuration"))
        if not isinstance(told, dict) or not isinstance(told.get("jwks_uri"), str):
            raise TokenError("its OpenID configuration names no jwks_uri")
        return str(told["jwks_uri"])

    async def _get(self, url: str) -> bytes:
        if self._fetch is None:
            self._fetch = HttpFetch(ssl.create_default_context(), refuses=self._blocked.why)
        if not url.lower().startswith(("http://", "https://")):  # an issuer's document names what it likes
            raise FetchError(f"{url}: keys are fetched from http and https only")
        data = b""
        headers = {"accept": "application/json"}
        async with self._fetch.stream("GET", url, headers=headers, connect_timeout_s=60.0) as got:
            if got.status != 200:
                raise FetchError(f"{url}: status {got.status}")
            async for piece in got:
                data += piece
                if len(data) > SET_MOST:
                    raise FetchError(f"{url}: larger than {SET_MOST} octets")
        return data

    def _let_go(self) -> None:
        """Connections that stand may lead to what is blocked now."""
        if self._fetch is not None:
            task = asyncio.get_running_loop().create_task(self._fetch.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._fetch = None

    def _drop(self, keys: Keys) -> None:
        if keys.next is not None:
            keys.next.cancel()
        if keys.fetching is not None:
            keys.fetching.cancel()

    async def close(self) -> None:
        for keys in self._keys.values():
            self._drop(keys)
        tasks = [keys.fetching for keys in self._keys.values() if keys.fetching is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._fetch is not None:
            await self._fetch.close()


def _digest(candidate: Candidate) -> bytes:
    return sha256(candidate.rule.by.encode() + b"\0" + candidate.text.encode("latin-1", "replace")).digest()


def _readable(text: str) -> list[Mapping[str, Any]]:
    try:
        return read_keys(text.encode())[0]
    except TokenError:  # validation refuses it; then it proves nothing
        return []
