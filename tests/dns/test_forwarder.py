"""Questions in flight: late answers replaced by expired ones. More is in test_server.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import dns.edns
import pytest

from fairlead.dns.engine import DnsOptions
from fairlead.dns.forward import Upstreams
from fairlead.dns.server import DnsServer
from fairlead.dns.tls_files import Certificate
from tests.dns.test_server import ELSEWHERE, at, over_tcp, over_udp, running, silent, until
from tests.dns.test_tls_files import issue
from tests.dns.world import WORLD, outcome, records

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


async def test_upstreams_over_tls_are_verified_and_their_connection_is_kept(tmp_path: Path) -> None:
    chain, key = issue(tmp_path)
    async with running(ELSEWHERE) as far:
        port = await far.start_tls("127.0.0.1", 0, Certificate(chain, key))
        good = f"tls://127.0.0.1:{port}#dns.test"
        async with running(upstreams=(good,), upstream_ca=chain) as server:
            for name in ("www.example.com", "big.example.com", "none.example.com"):
                await over_tcp(server, name)
            assert records((await over_udp(server, "www.example.com")).answer)
            assert far.engine.metrics.connections == 1, "one connection for all"
        await until(lambda: far.engine.metrics.connections == 0)
        async with running(upstreams=(f"tls://127.0.0.1:{port}#other.test",), upstream_ca=chain) as server:
            assert outcome(await over_udp(server, "www.example.com")) == "SERVFAIL"
            assert server.upstreams.failures[("127.0.0.1", port)] >= 1


async def test_a_kept_connection_that_the_upstream_closed_is_replaced() -> None:
    async with running(ELSEWHERE) as far, running(upstreams=(at(far),)) as server:
        assert records((await over_tcp(server, "big.example.com")).answer)
        await until(lambda: bool(server._forwarder._idle))  # type: ignore[union-attr]
        for connection in list(far._connections):
            connection.abort()
        server.engine.cache.clear()
        server.engine.tick()
        assert len((await over_tcp(server, "big.example.com")).answer[0]) == 200
        assert server.upstreams.failures == {("127.0.0.1", far.port): 0}


async def test_what_is_in_demand_is_asked_for_before_it_ends() -> None:
    async with silent() as (far, address), running(upstreams=(address,)) as server:
        asking = asyncio.ensure_future(over_udp(server, "www.example.com"))
        await until(lambda: len(far.asked) == 1)
        far.answer()
        await asking
        (entry,) = server.engine.cache._entries.values()
        now = server.now()
        entry.stored, entry.expires, entry.asked = now - 59, now + 1.5, 5
        server.engine.tick()
        got = await over_udp(server, "www.example.com")
        assert records(got.answer)[0].split()[1] in ("0", "1"), "answered at once"
        await until(lambda: len(far.asked) == 1, 10)
        far.answer()
        await until(lambda: not server._forwarder._flights)  # type: ignore[union-attr]
        server.engine.tick()
        got = await over_udp(server, "www.example.com")
        assert records(got.answer)[0].split()[1] in ("60", "59", "58")
        assert server.engine.cache.prefetches == 1


async def test_an_upstream_that_forwards_to_us_is_found_and_left_out() -> None:
    """Two servers that forward to each other: a question ends, the loop is told of, and the other upstream answers."""
    async with running(ELSEWHERE) as far:
        first = DnsServer(DnsOptions(upstreams=("127.0.0.1:1",)))
        first.update(WORLD)
        await first.start("127.0.0.1")
        try:
            async with running(upstreams=(at(first), at(far)), loop_probe_s=60.0) as server:
                first.upstreams = Upstreams((("127.0.0.1", server.port),))
                first._forwarder._upstreams = first.upstreams  # type: ignore[union-attr]
                server._probe_at = 0.0
                told: list[str] = []
                server.warn = told.append
                await until(lambda: bool(server.upstreams.looping), 10)
                assert server.upstreams.looping == {("127.0.0.1", first.port)}
                assert "a loop" in told[0]
                assert records((await over_udp(server, "www.example.com")).answer)
                assert all(to == ("127.0.0.1", far.port) for to, _ in server.upstreams.requests if _ == 0)
                server.upstreams.looping.add(("127.0.0.1", far.port))
                assert outcome(await over_udp(server, "other.example.com")) == "SERVFAIL", "at once"
                assert "fairlead_dns_upstream_loops 2" in "\n".join(server.metric_lines())
        finally:
            await first.close()
