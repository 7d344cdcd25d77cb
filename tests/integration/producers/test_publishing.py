"""The publisher and the ticker on a real Kafka with outages."""

import asyncio
import gc
import signal
import sys
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection

from dev.stack import ROOT, Stack
from stream_app.settings import Settings
from streaming_exporter.errors import PublishError
from streaming_exporter.events import Event, ExportRequest, Topic, request_event
from streaming_exporter.kafka_connection import ensure_topics
from streaming_exporter.publisher import Publisher
from tests.topics import events_on
from tests.waiting import at_most, patient, until_async

REQUEST = ExportRequest(user_id="u", export_type="ledger", format="csv")


@pytest.fixture
async def publisher(settings: Settings) -> AsyncIterator[Publisher]:
    await ensure_topics(settings)
    async with Publisher(settings, timeout=patient(10)) as opened:
        yield opened


@pytest.fixture
async def impatient(settings: Settings) -> AsyncIterator[Publisher]:
    await ensure_topics(settings)
    async with Publisher(settings, timeout=patient(2)) as opened:
        yield opened


async def test_an_event_is_stored_when_publish_returns(settings: Settings, publisher: Publisher) -> None:
    events = await asyncio.gather(*(publisher.request(REQUEST) for _ in range(50)))
    there = [event.id for event in await events_on(settings, Topic.REQUESTS)]
    for event in events:
        assert there.count(event.id) == 1


async def test_an_event_is_sent_at_once_and_events_at_the_same_time_together(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No event waits for others. While Kafka confirms one, the next ones gather."""
    await publisher.request(REQUEST)  # it connects
    send, sent = AIOKafkaConnection.send, 0

    def count_and_send(self: Any, request: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal sent
        sent += "Produce" in type(request).__name__
        return send(self, request, *arguments, **named)

    monkeypatch.setattr(AIOKafkaConnection, "send", count_and_send)
    one = asyncio.create_task(publisher.request(REQUEST))
    for _ in range(30):  # steps of the event loop, of which no timer is one
        await asyncio.sleep(0)
    assert sent == 1
    await one
    await asyncio.gather(*(publisher.request(REQUEST) for _ in range(200)))
    assert sent < 20


@pytest.mark.slow
async def test_a_failed_event_does_not_arrive_later(
    stack: Stack, settings: Settings, impatient: Publisher
) -> None:
    # The time-out that it connects with is that of each event.
    await until_async(lambda: impatient.request(REQUEST), ignoring=(PublishError,))
    lost = [request_event(REQUEST, source="/test") for _ in range(2)]
    await asyncio.to_thread(stack.kafka.kill)
    try:
        for event in lost:
            started = time.monotonic()
            with pytest.raises(PublishError, match=r"did not (take|confirm) the event") as caught:
                await impatient.publish(event)
            assert caught.value.job_id == event.job_id
            assert time.monotonic() - started < patient(4)
    finally:
        await asyncio.to_thread(stack.kafka.restart)
    after = request_event(REQUEST, source="/test")
    async with at_most(30):
        while not await published(impatient, after):
            pass
    there = {event.id for event in await events_on(settings, Topic.REQUESTS)}
    assert after.id in there
    assert not there & {event.id for event in lost}


async def test_a_call_that_is_cancelled_while_it_connects_leaves_no_connection_open(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka does not close the connection over which it asks for the brokers, if that is cancelled."""
    send = AIOKafkaConnection.send

    def cancel_and_send(self: Any, request: Any, *arguments: Any, **named: Any) -> Any:
        if "Metadata" in type(request).__name__ and not call.done():
            call.cancel()
        return send(self, request, *arguments, **named)

    monkeypatch.setattr(AIOKafkaConnection, "send", cancel_and_send)
    gc.collect()  # what other tests have left
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with Publisher(settings) as publisher:
            call = asyncio.create_task(publisher.request(REQUEST))
            with pytest.raises(asyncio.CancelledError):
                await call
            await publisher.request(REQUEST)
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def test_a_call_that_connects_learns_that_its_publisher_was_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming_exporter.publisher.CLOSE_SECONDS", 0.05)
    called = asyncio.Event()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        silent = settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{port}"})
        publisher = Publisher(silent)
        call = asyncio.create_task(publisher.request(REQUEST))
        async with at_most(30):
            await called.wait()
            await publisher.close()
            with pytest.raises(PublishError, match="the publisher was closed"):
                await call


async def published(publisher: Publisher, event: Event) -> bool:
    try:
        await publisher.publish(event)
    except PublishError:
        return False
    return True


@asynccontextmanager
async def ticker(environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `exporter tick` as a process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "producers", "tick"),
        env=environment,
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_ticker_publishes_ticks_until_it_is_stopped(stack: Stack, settings: Settings) -> None:
    await ensure_topics(settings)
    before = datetime.now(UTC).replace(second=0, microsecond=0)
    async with ticker(stack.environment()) as process, at_most(30):
        while not any(event.tick >= before for event in await events_on(settings, Topic.TICKS)):
            pass
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_the_ticker_ends_while_kafka_is_away(stack: Stack) -> None:
    environment = {**stack.environment(), "EXPORTER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    async with ticker(environment) as process, at_most(30):
        assert process.stderr is not None
        while b"127.0.0.1:1" not in await process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
