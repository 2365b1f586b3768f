"""Questions in flight: late answers replaced by expired ones. More is in test_server.py."""

from __future__ import annotations

import asyncio

import dns.edns
import pytest

from tests.dns.test_server import over_udp, running, silent, until
from tests.dns.world import outcome, records

pytestmark = pytest.mark.asyncio


async def test_an_expired_answer_serves_while_the_upstream_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.dns.forwarder.STALE_AFTER_S", 0.05)
    async with silent() as (far, address), running(upstreams=(address,)) as server:
        asking = asyncio.ensure_future(over_udp(server, "www.example.com"))
        await until(lambda: len(far.asked) == 1)
        far.answer()
        assert outcome(await asking) == "NOERROR"
        for entry in server.engine.cache._entries.values():
            entry.expires = entry.stored = server.now() - 1
        server.engine.tick()
        got = await over_udp(server, "www.example.com", use_edns=0)
        assert records(got.answer) == ["www.example.com. 30 A 192.0.2.77"]
        assert [int(option.code) for option in got.options if isinstance(option, dns.edns.EDEOption)] == [3]
        assert server.engine.cache.served_stale == 1
        # The question is still in flight, and its answer renews what is kept.
        await until(lambda: len(far.asked) >= 1)
        far.answer()
        await until(lambda: not server._forwarder._flights)  # type: ignore[union-attr]
        got = await over_udp(server, "www.example.com")
        assert records(got.answer)[0].split()[1] in ("60", "59")
