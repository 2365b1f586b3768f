"""The registry bench asks what it means to ask, and reads the addresses that it is given."""

from __future__ import annotations

import asyncio
import socket

import dns.message
import pytest

from bench.dns_registry import addresses, question
from fairlead.registry.model import Endpoint
from tests.dns.test_server import running
from tests.dns.world import HTTP, host, service, snapshot

pytestmark = pytest.mark.asyncio


async def test_its_question_is_one() -> None:
    read = dns.message.from_wire(question(42))
    assert read.question[0].to_text() == "svc42.default.svc.cluster.local. IN A"


async def test_it_reads_all_addresses_of_an_answer() -> None:
    ends = tuple(Endpoint(f"10.0.0.{n}", 80, "http") for n in range(3))
    world = snapshot(service("svc7", headless=True, ports=(HTTP,)), endpoints={host("svc7"): ends})
    async with running(world) as server:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.connect(("127.0.0.1", server.port))
            for _ in range(4):  # in whatever order they come
                found = await asyncio.to_thread(addresses, client, 7)
                assert found == {bytes((10, 0, 0, n)) for n in range(3)}
