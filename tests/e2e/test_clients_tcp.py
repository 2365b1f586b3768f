"""Real clients of TCP protocols, with their real servers, through two sidecars with mutual TLS between them."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from typing import Any

import nats
import pytest
import redis

from tests.e2e.pair import Pair, run, servers, start_app, start_nats, start_postgres, start_redis

ROWS = 200_000


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with servers(tmp_path_factory.mktemp("tcp")) as processes:
        http, _ = start_app(processes)
        redis_port, nats_port, postgres_port = start_redis(processes), start_nats(processes), start_postgres(processes)
        made = Pair(
            processes,
            http,
            {
                "redis": ("redis", redis_port),
                "nats": ("tcp-nats", nats_port),
                "postgres": ("tcp-postgres", postgres_port),
            },
        )
        yield made
        made.said_nothing_bad()


def psql(pair: Pair, sslmode: str, *statements: str) -> list[str]:
    where = f"host=127.0.0.1 port={pair.listen['postgres']} user=app dbname=postgres sslmode={sslmode}"
    commands = [part for statement in statements for part in ("-c", statement)]
    return run("psql", "-XAtq", where, *commands).decode().splitlines()


CANCEL = (
    "select pg_cancel_backend(pid) from pg_stat_activity "
    "where query like '%pg_sleep(60)' and state = 'active' and pid <> pg_backend_pid()"
)
IS_TLS = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"


@pytest.mark.parametrize(("sslmode", "tls"), [("disable", "f"), ("require", "t"), ("prefer", "t")])
def test_psql_with_and_without_tls_of_its_own(pair: Pair, sslmode: str, tls: str) -> None:
    assert psql(pair, sslmode, IS_TLS, "select sum(n) from generate_series(1, 100) n") == [tls, "5050"]


def test_postgres_transactions_large_results_copy_and_notify(pair: Pair) -> None:
    said = psql(
        pair,
        "disable",
        "create temporary table t as select n, md5(n::text) as h from generate_series(1, 50000) n",
        "begin; update t set h = ''; rollback",
        "select count(*) from t where h <> ''",
        "listen ready; notify ready, 'now'",
    )
    assert said[0] == "50000"
    assert said[1].startswith('Asynchronous notification "ready" with payload "now"')
    rows = psql(pair, "require", f"copy (select n, md5(n::text) from generate_series(1, {ROWS}) n) to stdout")
    assert len(rows) == ROWS
    assert rows[-1].startswith(f"{ROWS}\t")


def test_postgres_cancels_a_statement_by_a_second_connection(pair: Pair) -> None:
    where = f"host=127.0.0.1 port={pair.listen['postgres']} user=app dbname=postgres sslmode=disable"
    with subprocess.Popen(
        ["psql", "-XAtq", where, "-c", "select 'running'", "-c", "select pg_sleep(60)"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as waiting:  # fmt: skip
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "running\n"
        while psql(pair, "disable", CANCEL) != ["t"]:
            assert waiting.poll() is None
        _, said = waiting.communicate(timeout=20)
    assert "canceling statement due to user request" in said


def redis_client(pair: Pair) -> Any:
    return redis.Redis(port=pair.listen["redis"], socket_timeout=20)


def test_redis_commands_pipelines_large_values_and_publish(pair: Pair) -> None:
    with redis_client(pair) as client:
        assert client.ping()
        value = b"\r\n\0" * 1_000_000
        client.set("large", value)
        assert client.get("large") == value
        pipeline = client.pipeline(transaction=False)
        for number in range(10_000):
            pipeline.incrby("sum", number)
        assert pipeline.execute()[-1] == sum(range(10_000))
        heard = client.pubsub()
        heard.subscribe("news")
        assert heard.get_message(timeout=10)["type"] == "subscribe"
        client.publish("news", "hello")
        assert heard.get_message(timeout=10)["data"] == b"hello"
        heard.close()
    assert run("redis-cli", "-p", str(pair.listen["redis"]), "get", "sum") == b"49995000\n"


def test_redis_client_that_waits_for_long_is_not_cut_off_and_its_death_frees_the_servers_side(pair: Pair) -> None:
    client = redis_client(pair)
    client.client_setname("mortal")
    with redis_client(pair) as other:
        assert "mortal" in [one["name"] for one in other.client_list()]
        with subprocess.Popen(
            ["redis-cli", "-p", str(pair.listen["redis"]), "blpop", "queue", "0"], stdout=subprocess.PIPE
        ) as waiting:
            while not any(one["cmd"] == "blpop" for one in other.client_list()):
                assert waiting.poll() is None
            other.rpush("queue", "late")
            assert waiting.communicate(timeout=10)[0] == b"queue\nlate\n"
        client.close()
        client.connection_pool.disconnect()
        while "mortal" in [one["name"] for one in other.client_list()]:
            pass  # bounded by the socket's own time-out


def test_nats_whose_server_speaks_first_publishes_asks_and_answers(pair: Pair) -> None:
    async def everything() -> None:
        url = f"nats://127.0.0.1:{pair.listen['nats']}"
        connection = await nats.connect(url, connect_timeout=5, allow_reconnect=False)
        other = await nats.connect(url, connect_timeout=5, allow_reconnect=False)
        heard = await connection.subscribe("news.*")

        async def answer(message: object) -> None:
            await message.respond(message.data[::-1])  # type: ignore[attr-defined]

        await connection.subscribe("ask", cb=answer)
        await connection.flush()
        for number in range(1000):
            await other.publish(f"news.{number}", b"n" * number)
        await other.flush()
        for number in range(1000):
            message = await heard.next_msg(timeout=10)
            assert (message.subject, len(message.data)) == (f"news.{number}", number)
        assert (await other.request("ask", b"abc", timeout=10)).data == b"cba"
        big = b"b" * 1_000_000
        assert (await other.request("ask", big, timeout=10)).data == big
        await other.drain()
        await connection.drain()

    asyncio.run(everything())
