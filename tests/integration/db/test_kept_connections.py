"""Kept connections: statements use them one after the other, and a connection with an error is not kept."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from stream_app.db.engine import autocommit_connection, autocommitting, transaction
from stream_app.db.kept_connections import KeptConnections
from stream_app.db.statements import Statement
from streaming_exporter.errors import Retryable
from tests.waiting import at_most

MOST = 2
SESSION = Statement("SELECT pg_backend_pid()")
STATE = text("SELECT state FROM pg_stat_activity WHERE pid = :pid")
SLEEPING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
)
END = text("SELECT pg_terminate_backend(:pid)")


@pytest.fixture
async def kept(engine: AsyncEngine) -> AsyncIterator[KeptConnections]:
    made = KeptConnections(autocommitting(engine), MOST)
    yield made
    await made.close()
    assert in_use(engine) == 0, "every connection is back in the pool"


def in_use(engine: AsyncEngine) -> int:
    return cast(QueuePool, engine.pool).checkedout()


async def session(kept: KeptConnections) -> int:
    async with autocommit_connection(kept) as connection:
        return cast(int, await SESSION.scalar(connection))


async def ask(engine: AsyncEngine, statement: Any, **values: Any) -> Any:
    async with autocommitting(engine).connect() as connection:
        return await connection.scalar(statement, values)


async def test_statements_and_transactions_share_a_connection(
    kept: KeptConnections, engine: AsyncEngine
) -> None:
    used = {await session(kept) for _ in range(3)}
    async with transaction(kept) as connection:
        used.add(cast(int, await SESSION.scalar(connection)))
    assert len(used) == in_use(engine) == 1


async def test_at_most_so_many_connections_are_kept(kept: KeptConnections, engine: AsyncEngine) -> None:
    together = asyncio.Barrier(MOST + 2)

    async def one() -> None:
        async with autocommit_connection(kept) as connection:
            await SESSION.fetch(connection)
            await together.wait()

    await asyncio.gather(*(one() for _ in range(MOST + 2)))
    assert in_use(engine) == MOST


@pytest.mark.parametrize("statement", ["SELECT CAST(:a AS int)", "SELECT 1 / CAST(:a AS int)"])
async def test_a_connection_with_an_error_goes_back_to_the_pool(
    kept: KeptConnections, engine: AsyncEngine, statement: str
) -> None:
    with pytest.raises((asyncpg.DataError, asyncpg.PostgresError)):
        async with autocommit_connection(kept) as connection:
            await Statement(statement).fetch(connection, {"a": "x" if "/" not in statement else 0})
    assert in_use(engine) == 0
    assert await session(kept)


async def test_an_error_of_the_block_rolls_its_transaction_back(
    kept: KeptConnections, engine: AsyncEngine
) -> None:
    async def fail() -> None:
        async with transaction(kept) as connection:
            await connection.execute(text("CREATE TABLE left_over ()"))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await ask(engine, text("SELECT to_regclass('left_over')")) is None
    assert in_use(engine) == 0


async def test_a_connection_that_the_server_has_closed_is_replaced(
    kept: KeptConnections, engine: AsyncEngine
) -> None:
    first = await session(kept)
    assert await ask(engine, END, pid=first)
    try:
        second = await session(kept)
    except Retryable:  # the statement met the end of the session: as on a connection of the pool
        second = await session(kept)
    assert second != first


async def test_a_cancelled_statement_leaves_nothing_behind(
    kept: KeptConnections, engine: AsyncEngine
) -> None:
    async def sleep() -> None:
        async with autocommit_connection(kept) as connection:
            await Statement("SELECT pg_sleep(60)").fetch(connection)

    sleeping = asyncio.create_task(sleep())
    async with at_most(30):
        while await ask(engine, SLEEPING) == 0:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert in_use(engine) == 0
    assert await session(kept)


async def test_a_statement_of_sqlalchemy_leaves_no_transaction_open(
    kept: KeptConnections, engine: AsyncEngine
) -> None:
    async with autocommit_connection(kept) as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
    assert await ask(engine, STATE, pid=pid) == "idle"
    assert await session(kept) == pid
