"""The outbox with SQLAlchemy: the caller's transaction, the relay, and relays that are killed."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, insert, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from dev.stack import ROOT, Stack
from stream_app.settings import Settings
from streaming_exporter.errors import Retryable, TooLarge, Unreadable
from streaming_exporter.events import EventType, ExportRequest
from streaming_exporter.kafka_connection import ensure_topics
from streaming_exporter.outbox.__main__ import main
from streaming_exporter.outbox.entries import Backlog
from streaming_exporter.outbox.relay import Relay
from streaming_exporter.outbox.sqlalchemy import cancel_export, request_export
from streaming_exporter.outbox.sqlalchemy_store import SqlAlchemyStore, open_engine
from streaming_exporter.outbox.tables import OutboxEvent
from streaming_exporter.publisher import Publisher
from tests.integration.outbox.conftest import REQUEST, events_of, outbox_database, relay_of, url_for
from tests.integration.outbox.doomed_relay import STEPS
from tests.waiting import patient, until_async


async def request_many(engine: AsyncEngine, count: int) -> list[UUID]:
    """Request ``count`` exports, each in a transaction of its own; return their jobs."""
    jobs = []
    async with AsyncSession(engine) as session:
        for _ in range(count):
            jobs.append(request_export(session, REQUEST, source="/test"))
            await session.commit()
    return jobs


async def test_what_is_committed_is_published_and_what_is_rolled_back_is_not(
    outbox: Settings, program: AsyncEngine, store: SqlAlchemyStore
) -> None:
    async with AsyncSession(program) as session:
        kept = request_export(session, REQUEST, source="/services/shop")
        async with session.begin_nested() as savepoint:
            undone = request_export(session, REQUEST)
            await session.flush()
            await savepoint.rollback()
        await session.commit()
        lost = request_export(session, REQUEST)
        await session.flush()
        await session.rollback()
    assert await relay_of(store, outbox).drain() == 1
    (event,) = await events_of(outbox, {kept, undone, lost})
    assert (event.job_id, event.source, event.data) == (
        kept,
        "/services/shop",
        {"user_id": "u", "export_type": "ledger", "format": "csv"},
    )
    assert await store.backlog() == Backlog(0, 0.0, 0)


def write(url: str, *, then: str) -> UUID:
    """Request an export in a synchronous session, then ``commit`` or ``rollback``."""
    engine = create_engine(url)
    with Session(engine) as session:
        job_id = request_export(session, REQUEST)
        session.flush()
        getattr(session, then)()
    engine.dispose()
    return job_id


async def test_a_synchronous_session_and_driver_work_the_same(outbox: Settings) -> None:
    url = url_for(outbox, "psycopg")
    kept = await asyncio.to_thread(write, url, then="commit")
    lost = await asyncio.to_thread(write, url, then="rollback")
    store = SqlAlchemyStore(open_engine(url))
    assert await relay_of(store, outbox).drain() == 1
    await store.close()
    assert [event.job_id for event in await events_of(outbox, {kept, lost})] == [kept]


async def test_a_transaction_that_commits_late_is_published_though_later_ones_were_before_it(
    outbox: Settings, program: AsyncEngine, store: SqlAlchemyStore
) -> None:
    async with AsyncSession(program) as slow:
        first = request_export(slow, REQUEST)
        await slow.flush()
        (second,) = await request_many(program, 1)
        assert await relay_of(store, outbox).drain() == 1
        await slow.commit()
    assert await relay_of(store, outbox).drain() == 1
    assert {event.job_id for event in await events_of(outbox, {first, second})} == {first, second}


async def test_a_request_that_the_service_could_not_read_is_refused_at_once(program: AsyncEngine) -> None:
    async with AsyncSession(program) as session:
        with pytest.raises(TooLarge, match="allowed: 1,000,000"):
            request_export(
                session, REQUEST.model_copy(update={"filters": {"id": {"in": ["x" * 900] * 1200}}})
            )
        with pytest.raises(Unreadable, match="NUL"):
            request_export(session, ExportRequest(user_id="a\0b", export_type="ledger", format="csv"))
        assert not session.new


async def run_doomed(step: str, settings: Settings, variables: dict[str, str]) -> int:
    """Run a relay that kills itself at ``step``; return its exit code."""
    module = "tests.integration.outbox.doomed_relay"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, step, url_for(settings, "asyncpg"),
        cwd=ROOT, env={**os.environ, **variables},
    )  # fmt: skip
    return await child.wait()


@pytest.mark.slow
async def test_a_relay_killed_at_any_step_loses_nothing_and_keeps_the_order_of_each_job(
    stack: Stack, settings: Settings
) -> None:
    await ensure_topics(settings)

    async def one(step: str) -> None:
        async with outbox_database(stack, settings) as own, AsyncExitStack() as closing:
            engine = create_async_engine(url_for(own, "asyncpg"))
            closing.push_async_callback(engine.dispose)
            jobs = await request_many(engine, 15)
            async with AsyncSession(engine) as session:
                for job in jobs[::3]:
                    cancel_export(session, job)
                await session.commit()
                lost = request_export(session, REQUEST)
                await session.flush()
                await session.rollback()
            assert await run_doomed(step, own, stack.settings()) == -signal.SIGKILL, step
            store = SqlAlchemyStore(engine)
            stop = asyncio.Event()
            # It takes the lease of the dead one after a second, and repeats what Kafka confirms too late.
            relay = relay_of(store, own, batch_entries=8, lease_seconds=1)
            running = asyncio.create_task(relay.run(stop))
            await until_async(lambda: is_empty(store))
            stop.set()
            await running
            events = await events_of(own, {*jobs, lost})
            assert {event.job_id for event in events} == set(jobs), step
            for job in jobs[::3]:
                types = [event.type for event in events if event.job_id == job]
                first = types.index(EventType.CANCEL_REQUESTED)
                assert EventType.REQUESTED in types[:first], step

    await asyncio.gather(*(one(step) for step in STEPS))


async def is_empty(store: SqlAlchemyStore) -> bool:
    """Return whether nothing waits."""
    return (await store.backlog()).waiting == 0


async def test_of_two_relays_one_publishes_and_the_other_takes_over_at_once_when_it_stops(
    outbox: Settings, program: AsyncEngine, store: SqlAlchemyStore
) -> None:
    stops = [asyncio.Event(), asyncio.Event()]
    relays = [
        asyncio.create_task(Relay(store, outbox, lease_seconds=60, poll_seconds=0.05).run(stop))
        for stop in stops
    ]
    jobs = await request_many(program, 30)
    await until_async(lambda: is_empty(store))
    holder = (await store.lease()).owner
    assert holder is not None
    stops[0].set()
    await relays[0]
    jobs += await request_many(program, 10)
    await until_async(lambda: is_empty(store))
    stops[1].set()
    await relays[1]
    assert (await store.lease()).owner is None
    assert sorted(event.job_id for event in await events_of(outbox, set(jobs))) == sorted(jobs)


async def test_no_transaction_is_open_while_kafka_is_called(
    outbox: Settings, program: AsyncEngine, store: SqlAlchemyStore
) -> None:
    states: list[Sequence[Any]] = []

    class Watching(Publisher):
        async def publish_raw(self, *arguments: Any, **named: Any) -> None:
            await super().publish_raw(*arguments, **named)
            async with program.connect() as connection:
                open_ones = text(
                    "SELECT state, query FROM pg_stat_activity WHERE datname = current_database() "
                    "AND xact_start IS NOT NULL AND pid <> pg_backend_pid() "
                    "AND backend_type = 'client backend'"  # and not autovacuum, which comes at any time
                )
                states.append((await connection.execute(open_ones)).all())

    await request_many(program, 3)
    async with Watching(outbox) as publisher:
        assert await Relay(store, outbox, publisher=publisher, batch_entries=1).drain() == 3
    assert states == [[], [], []]


async def test_entries_stay_while_kafka_is_away_and_a_message_that_kafka_refuses_holds_up_no_other(
    outbox: Settings, program: AsyncEngine, store: SqlAlchemyStore
) -> None:
    jobs = await request_many(program, 2)
    away = outbox.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    with pytest.raises(Retryable, match=r"127\.0\.0\.1:1"):
        await relay_of(store, away).drain()
    assert (await store.backlog()).waiting == 2
    async with program.begin() as connection:
        huge = {"job_id": uuid4(), "type": "export.requested", "payload": "x" * 1_200_000, "size": 1_200_000}
        await connection.execute(insert(OutboxEvent).values(huge))
    jobs += await request_many(program, 2)
    assert await relay_of(store, outbox).drain() == 5
    backlog = await store.backlog()
    assert (backlog.waiting, backlog.refused) == (0, 1)
    assert {event.job_id for event in await events_of(outbox, set(jobs))} == set(jobs)


async def test_a_batch_is_bounded_by_bytes(program: AsyncEngine, store: SqlAlchemyStore) -> None:
    jobs = await request_many(program, 5)
    size = (await store.read(1, 1))[0].payload
    assert [entry.job_id for entry in await store.read(10, 3 * len(size) + 5)] == jobs[:3]
    assert [entry.job_id for entry in await store.read(2, 10**6)] == jobs[:2]


async def test_the_program_publishes_until_sigterm_and_shows_its_backlog(
    stack: Stack, outbox: Settings, program: AsyncEngine, store: SqlAlchemyStore
) -> None:
    module = [sys.executable, "-m", "streaming_exporter.outbox"]
    variables = {**os.environ, **stack.settings()}
    variables["EXPORTER_OUTBOX_DATABASE_URL"] = url_for(outbox, "psycopg")
    jobs = await request_many(program, 2)
    shown = await asyncio.create_subprocess_exec(
        *module, "status", env=variables, stdout=asyncio.subprocess.PIPE
    )
    assert json.loads((await shown.communicate())[0])["waiting"] == 2
    relay = await asyncio.create_subprocess_exec(*module, "relay", env=variables)
    await until_async(lambda: is_empty(store))
    relay.terminate()
    async with asyncio.timeout(patient(10)):
        assert await relay.wait() == 0
    assert (await store.lease()).owner is None
    assert {event.job_id for event in await events_of(outbox, set(jobs))} == set(jobs)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_the_program_explains_what_the_database_refuses(
    settings: Settings, outbox: Settings, driver: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The database of the service has no outbox; that of the test has no such user."""
    nobody = make_url(url_for(outbox, driver)).set(username="nobody", password="secret")
    absent = make_url(url_for(outbox, driver)).set(database="absent")
    # libpq has no code for a connection that the database refuses.
    refused = "refuses the relay" if driver == "asyncpg" else "refuses the connection"
    for url, words in (
        (make_url(url_for(settings, driver)), "has no table exporter_outbox"),
        (nobody, refused),
        (absent, refused),
    ):
        shown = url.render_as_string(hide_password=False)
        assert await asyncio.to_thread(main, ["status", "--database-url", shown]) == 1
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
        assert not re.search("SQL:|FATAL|relation|role|secret", said)


@pytest.mark.parametrize(
    ("url", "code"),
    [("nowhere", 2), ("postgresql+absent://h/d", 2), ("postgresql+psycopg://u@127.0.0.1:1/d", 1)],
)
def test_the_program_explains_a_wrong_database(
    capsys: pytest.CaptureFixture[str], url: str, code: int
) -> None:
    assert main(["relay", "--once", "--database-url", url]) == code
    assert "database" in capsys.readouterr().err
