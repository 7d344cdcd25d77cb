"""Errors of the state database that affect all messages cause no dead letters, on a real database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from dev.postgres import STATE, PostgresService
from stream_app.db.engine import create_engine
from stream_app.db.table_check import check_tables
from stream_app.jobs.models import Base
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.request_validator import RequestValidator
from stream_app.jobs.write_check import write_trial_job
from stream_app.kafka.event_producer import EventProducer
from stream_app.kafka.topic_outages import TopicOutage, TopicOutages
from stream_app.settings import Settings
from stream_app.worker.batches import _handle_all
from stream_app.worker.request_handler import RequestHandler
from streaming_exporter.errors import Outage, Unreadable
from streaming_exporter.events import Event, ExportRequest, request_event
from tests.datasets import datasets_of
from tests.waiting import patient, until_async


class Broker:
    """Records published events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.dead: list[UUID] = []

    async def publish_all(self, events: list[Event]) -> None:
        self.events += events

    async def dead_letter(self, event: Any, _: Unreadable) -> None:
        self.dead.append(UUID(event.event.id))


class Agent:
    """Admits batches of requests into a database, as a worker does."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.store = JobQueue(engine, lease=timedelta(seconds=30), user_slots=1, max_attempts=3)
        self.broker = Broker()
        producer = cast(EventProducer, self.broker)
        self.admission = RequestHandler(
            self.store, producer, RequestValidator({"csv"}, datasets_of("ledger")), timedelta(days=400)
        )
        self.app = SimpleNamespace(outages=TopicOutages(), note_progress=lambda _: None)

    def message(self, user: str) -> Any:
        event = request_event(ExportRequest(user_id=user, export_type="ledger", format="csv"), source="/t")
        record = SimpleNamespace(topic="t", value=event.encode(), headers=(), timestamp=0)
        return SimpleNamespace(app=self.app, message=record, event=event)

    async def take(self, messages: list[Any]) -> None:
        producer = cast(EventProducer, self.broker)
        await _handle_all(messages, self.admission.handle, producer, lambda: write_trial_job(self.store))

    async def users(self) -> list[str]:
        async with self.engine.connect() as connection:
            return list((await connection.scalars(text("SELECT user_id FROM export_jobs ORDER BY 1"))).all())

    async def refused_by(self) -> str:
        """Wait until a batch is refused; return the error."""
        outage = await until_async(lambda: self.app.outages.outage_of("t"), within=20)
        return cast(TopicOutage, outage).error


async def test_a_database_that_refuses_every_job_is_an_outage(engine: AsyncEngine) -> None:
    """R2: its code would be an error of the message, if only one message failed."""
    agent = Agent(engine)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE export_jobs ADD CONSTRAINT none CHECK (user_id = '')"))
    taking = asyncio.create_task(agent.take([agent.message(f"u{number}") for number in range(3)]))
    assert "writes fail for every message" in await agent.refused_by()
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE export_jobs DROP CONSTRAINT none"))
    await asyncio.wait_for(taking, patient(20))
    assert agent.broker.dead == []
    assert await agent.users() == ["u0", "u1", "u2"]


async def test_a_message_whose_job_the_database_refuses_is_dead_lettered(engine: AsyncEngine) -> None:
    """R2: the other jobs of its batch are on record, and the trial job is deleted."""
    agent = Agent(engine)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE export_jobs ADD CONSTRAINT u CHECK (user_id <> 'u1')"))
    messages = [agent.message(f"u{number}") for number in range(3)]
    with capture_logs():  # an exception with its traceback, which takes seconds to format
        await agent.take(messages)
    assert agent.broker.dead == [UUID(messages[1].event.id)]
    assert await agent.users() == ["u0", "u2"]


@pytest.fixture(scope="module")
def small_queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresService]:
    """A PostgreSQL with the smallest possible notification queue."""
    folder: Path = tmp_path_factory.mktemp("queue")
    server = PostgresService(folder)
    server.start()
    asyncio.run(_execute(server.admin_url(), "ALTER SYSTEM SET max_notify_queue_pages = 64"))
    server.restart()
    yield server
    server.stop()
    server.discard()


@pytest.fixture
async def full(small_queue: PostgresService) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Fill the queue by a listening session in a transaction; return a function that ends the session."""
    listener = await asyncpg.connect(small_queue.admin_url(STATE))
    await listener.execute("LISTEN anything")
    await listener.execute("BEGIN")
    await listener.fetchval("SELECT 1")
    filler = await asyncpg.connect(small_queue.admin_url(STATE))
    with suppress(asyncpg.ProgramLimitExceededError):
        for size in (7_000, 10):
            for _ in range(200):
                await filler.execute(
                    f"SELECT pg_notify('anything', repeat('x', {size}) || n) FROM generate_series(1, 20) n"
                )
    await filler.close()
    yield listener.close
    await listener.close()


async def test_a_full_queue_of_notifications_is_an_outage(
    small_queue: PostgresService, full: Callable[[], Awaitable[None]], settings: Settings
) -> None:
    """R2: SQLSTATE 54000, which otherwise means that a value is too long for an index."""
    own = settings.model_copy(update={"database_url": SecretStr(small_queue.state_url)})
    engine = create_engine(own, application="test")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    agent = Agent(engine)
    taking = asyncio.create_task(agent.take([agent.message(f"u{number}") for number in range(20)]))
    assert "NOTIFY queue" in await agent.refused_by()
    assert not taking.done()
    with pytest.raises(Outage, match="queue of notifications is 100% full"):
        await check_tables(engine)
    await full()
    with suppress(Outage):  # the tables were not created by migrations
        await check_tables(engine)
    await asyncio.wait_for(taking, patient(30))
    assert agent.broker.dead == []
    assert len(await agent.users()) == 20
    await engine.dispose()


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(sql)
    await connection.close()
