"""Reads all messages of a topic."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_app.settings import Settings
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import Event, Topic, decode
from streaming_exporter.kafka_admin import AdminClient
from streaming_exporter.kafka_connection import client_options
from tests.waiting import until_async

Message = Any
"""A `ConsumerRecord` of aiokafka, which has no types."""


async def events_on(settings: Settings, topic: Topic) -> list[Event]:
    """Return all events on ``topic``; messages that are no events are left out."""
    return [event for message in await messages_on(settings, topic) if (event := _read(message.value or b""))]


async def offsets_of_jobs(settings: Settings, topic: Topic, ids: Collection[UUID]) -> list[str]:
    """Describe the messages of these jobs on ``topic``: their offsets, and the committed one."""
    keys = {str(job_id).encode(): job_id for job_id in ids}
    found = [message for message in await messages_on(settings, topic) if message.key in keys]
    admin = AdminClient(**client_options(settings))
    await admin.start()
    try:
        committed = await admin.list_consumer_group_offsets(settings.group)
    finally:
        await admin.close()
    return [
        f"{keys[message.key]} on {topic}[{message.partition}] at {message.offset}, committed: "
        f"{getattr(committed.get(TopicPartition(message.topic, message.partition)), 'offset', None)}"
        for message in found
    ]


async def partitions_of(consumer: AIOKafkaConsumer, topics: Collection[str]) -> list[TopicPartition]:
    """Return the partitions of topics that exist. A broker that has just started lists them a bit later."""

    async def look() -> list[TopicPartition] | None:
        await consumer._client.force_metadata_update()
        found = {topic: consumer.partitions_for_topic(topic) for topic in topics}
        if not all(found.values()):
            return None
        return [TopicPartition(topic, part) for topic, parts in found.items() for part in parts or ()]

    return await until_async(look)


async def messages_on(settings: Settings, topic: Topic) -> list[Message]:
    """Return all messages on ``topic``."""
    consumer = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        parts = await partitions_of(consumer, [settings.topic(topic)])
        consumer.assign(parts)
        ends = await consumer.end_offsets(parts)
        messages: list[Message] = []
        while any([await consumer.position(part) < end for part, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                messages += batch
        return messages
    finally:
        await consumer.stop()


def _read(content: bytes) -> Event | None:
    try:
        return decode(content)
    except Unreadable:
        return None
