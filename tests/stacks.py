"""A state database, a bucket and a consumer group of the running stack for one group of tests."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import asyncpg
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from dev.stack import Stack
from stream_app.settings import Settings
from streaming_exporter.errors import Retryable
from streaming_exporter.events import Topic
from streaming_exporter.kafka_connection import client_options, ensure_topics
from tests.state_databases import TEMPLATE, create_database
from tests.topics import partitions_of
from tests.waiting import until, until_async

CONSUMED = (Topic.REQUESTS, Topic.EVENTS, Topic.TICKS)
"""The topics that workers read."""


def settings_of(stack: Stack) -> Settings:
    """Return the settings of the stack, as its processes have them."""
    fields = {name.removeprefix("EXPORTER_").lower(): value for name, value in stack.settings().items()}
    return Settings(_env_file=None, **fields)  # type: ignore[arg-type]


@contextmanager
def own_part(stack: Stack, name: str) -> Iterator[Stack]:
    """Configure the stack with a state database, a bucket and a consumer group for this block only.

    All other processes on the stack are stopped first. Stopped services are started again at the end.
    """
    unique = f"{name}-{uuid4().hex[:8]}"
    database = unique.replace("-", "_")
    stop_apps(stack)
    url = stack.settings()["EXPORTER_DATABASE_URL"].rpartition("/")[0]
    own = {
        "EXPORTER_DATABASE_URL": f"{url}/{database}",
        "EXPORTER_S3_BUCKET": unique,
        "EXPORTER_KAFKA_GROUP": unique,
    }
    admin = stack.postgres.admin_url()
    asyncio.run(create_database(stack, database, TEMPLATE))
    with stack.configured(own):
        try:
            asyncio.run(start_from_now(settings_of(stack)))
            yield stack
        finally:
            stop_apps(stack)
            for service in stack.services.values():
                if not service.running:
                    service.restart()
                until(service.is_ready)  # a broker that was frozen is fenced at first
            asyncio.run(_execute(admin, f"DROP DATABASE {database} WITH (FORCE)"))


def stop_apps(stack: Stack) -> None:
    """Stop all workers, tickers and APIs that run."""
    for app in stack.apps.values():
        if app.running:
            app.stop()


async def start_from_now(settings: Settings) -> None:
    """Commit the end offsets for the workers' group, which has no members, so that it skips old messages.

    A broker that was frozen refuses this until its session begins again, and the group has members until the
    sessions of killed workers end.
    """
    await until_async(lambda: _commit_ends(settings), ignoring=(Retryable, KafkaError, OSError))


async def _commit_ends(settings: Settings) -> bool:
    await ensure_topics(settings)
    consumer = AIOKafkaConsumer(**client_options(settings), group_id=settings.group, enable_auto_commit=False)
    try:
        await consumer.start()
        parts = await partitions_of(consumer, [settings.topic(topic) for topic in CONSUMED])
        consumer.assign(parts)
        await consumer.commit(await consumer.end_offsets(parts))
    finally:
        await consumer.stop()
    return True


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
