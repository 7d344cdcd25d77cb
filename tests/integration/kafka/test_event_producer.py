"""The worker's producer on a real broker."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from faust.types import EventT

from stream_app.composition.worker import create_app
from stream_app.kafka.event_producer import TRUNCATED_SIZES, EventProducer
from stream_app.settings import Settings
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import EventType, LifecycleData, Topic, lifecycle_event
from streaming_exporter.kafka_connection import ensure_topics
from tests.topics import events_on, messages_on

TOO_MUCH = 2 * 2**20
"""Bytes of a message that is twice as large as allowed."""


@pytest.fixture(params=["by the producer", "by the broker"])
async def producer(settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[EventProducer]:
    """A producer on real Kafka. Large messages are refused by the producer or by the broker."""
    await ensure_topics(settings)
    app = create_app(settings)
    if request.param == "by the broker":
        app.conf.producer_max_request_size = 4 * TOO_MUCH
    yield EventProducer(app)
    await app.producer.stop()


async def test_an_event_that_is_too_large_is_published_without_its_manifest(
    settings: Settings, producer: EventProducer
) -> None:
    job_id = uuid4()
    data = LifecycleData(
        job_id=job_id,
        user_id="u",
        export_type="ledger",
        format="csv",
        status="completed",
        row_count=5,
        manifest={"filters": {"note": "x" * TOO_MUCH}},
    )
    await producer.publish(lifecycle_event(EventType.COMPLETED, data))
    (told,) = [event for event in await events_on(settings, Topic.EVENTS) if event.job_id == job_id]
    assert told.lifecycle.row_count == 5
    assert "manifest" not in told.data


async def test_a_dead_letter_that_is_too_large_is_truncated(
    settings: Settings, producer: EventProducer
) -> None:
    content = uuid4().bytes + b"y" * TOO_MUCH
    received: dict[str, Any] = {"topic": Topic.REQUESTS, "partition": 1, "offset": 7}
    message = SimpleNamespace(key=b"k" * TOO_MUCH, value=content, headers=[("x", b"y")], **received)
    await producer.dead_letter(cast(EventT[bytes], SimpleNamespace(message=message)), Unreadable("why"))
    (kept,) = [
        message
        for message in await messages_on(settings, Topic.DEAD_LETTERS)
        if (message.value or b"").startswith(content[:16])
    ]
    assert kept.value == content[: TRUNCATED_SIZES[0]]
    assert dict(kept.headers) == {
        "error": b"why",
        "topic": b"exports.requests",
        "partition": b"1",
        "offset": b"7",
        "cut_from_bytes": str(len(content)).encode(),
    }
