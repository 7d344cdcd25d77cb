"""Parts of the running stack for one group of tests alone: nobody waits for a second Kafka or PostgreSQL."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from dev.postgres import STATE
from dev.stack import Stack
from stream_app.db import migrations
from stream_app.settings import Settings
from streaming_exporter.events import Topic
from streaming_exporter.kafka_connection import client_options, ensure_topics

CONSUMED = (Topic.REQUESTS, Topic.EVENTS, Topic.TICKS)
"""The topics that workers read."""


def settings_of(stack: Stack) -> Settings:
    """The settings that lead to the stack, as its processes have them."""
    fields = {name.removeprefix("EXPORTER_").lower(): value for name, value in stack.settings().items()}
    return Settings(_env_file=None, **fields)  # type: ignore[arg-type]


@contextmanager
def own_part(stack: Stack, name: str) -> Iterator[Stack]:
    """The stack with a state database, a bucket and a consumer group that are used within the block only.

    Whatever else works on the stack is stopped before. What the block has broken is mended at its end.
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
    asyncio.run(_execute(admin, f"CREATE DATABASE {database} OWNER {STATE}"))
    with stack.configured(own):
        try:
            settings = settings_of(stack)
            migrations.upgrade(settings)
            asyncio.run(start_from_now(settings))
            yield stack
        finally:
            stop_apps(stack)
            for service in stack.services.values():
                if not service.running:
                    service.restart()
            asyncio.run(_execute(admin, f"DROP DATABASE {database} WITH (FORCE)"))


def stop_apps(stack: Stack) -> None:
    """Stop all workers, tickers and APIs that run."""
    for app in stack.apps.values():
        if app.running:
            app.stop()


async def start_from_now(settings: Settings) -> None:
    """Let the workers' group, of which nobody runs, begin after all messages that are there now."""
    await ensure_topics(settings)
    consumer = AIOKafkaConsumer(**client_options(settings), group_id=settings.group, enable_auto_commit=False)
    await consumer.start()
    try:
        await consumer._client.force_metadata_update()
        parts = [
            TopicPartition(name, part)
            for name in map(settings.topic, CONSUMED)
            for part in consumer.partitions_for_topic(name) or ()
        ]
        consumer.assign(parts)
        await consumer.commit(await consumer.end_offsets(parts))
    finally:
        await consumer.stop()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
