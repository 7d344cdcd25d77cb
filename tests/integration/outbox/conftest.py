"""Databases with the tables of the outbox, and what arrived on the topic."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from dev.stack import Stack
from stream_app.settings import Settings
from streaming_exporter.events import Event, ExportRequest, Topic
from streaming_exporter.kafka_connection import ensure_topics
from streaming_exporter.outbox.relay import Relay
from streaming_exporter.outbox.sqlalchemy_store import SqlAlchemyStore
from streaming_exporter.outbox.tables import metadata
from tests.state_databases import database
from tests.topics import events_on

REQUEST = ExportRequest(user_id="u", export_type="ledger", format="csv")


def url_for(settings: Settings, driver: str) -> str:
    """Return the URL of the database with a driver of SQLAlchemy, such as ``asyncpg``."""
    return settings.database_url.get_secret_value().replace("postgresql://", f"postgresql+{driver}://")


@asynccontextmanager
async def outbox_database(stack: Stack, settings: Settings) -> AsyncIterator[Settings]:
    """Create a database with the tables of the outbox for the block."""
    async with database(stack, settings) as own:
        engine = create_async_engine(url_for(own, "asyncpg"))
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await engine.dispose()
        yield own


@pytest.fixture
async def outbox(stack: Stack, settings: Settings) -> AsyncIterator[Settings]:
    """Settings with a database of its own for the test, which has the tables of the outbox."""
    await ensure_topics(settings)
    async with outbox_database(stack, settings) as own:
        yield own


@pytest.fixture
async def program(outbox: Settings) -> AsyncIterator[AsyncEngine]:
    """The engine of a program that uses the outbox."""
    engine = create_async_engine(url_for(outbox, "asyncpg"))
    yield engine
    await engine.dispose()


@pytest.fixture
async def store(outbox: Settings) -> AsyncIterator[SqlAlchemyStore]:
    """The outbox of the relay."""
    opened = SqlAlchemyStore(create_async_engine(url_for(outbox, "asyncpg")))
    yield opened
    await opened.close()


def relay_of(store: SqlAlchemyStore, settings: Settings, **options: Any) -> Relay:
    """Return a relay that looks often.

    It has the usual lease: half of it is the time in which Kafka has to confirm a batch, also the first one.
    """
    return Relay(store, settings, poll_seconds=0.05, **options)


async def events_of(settings: Settings, jobs: Collection[UUID]) -> list[Event]:
    """Return the requests and cancellations of these jobs on the topic, in the order of each partition."""
    return [event for event in await events_on(settings, Topic.REQUESTS) if event.job_id in jobs]
