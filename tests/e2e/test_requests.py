"""Valid, invalid, repeated and unreadable requests at the same time."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from dev.postgres import SOURCE
from streaming_exporter.events import ExportRequest, Topic, cancel_event, request_event
from tests.e2e.conftest import System
from tests.e2e.tables import GATED_ROWS
from tests.gate import Gate
from tests.waiting import until_async

PLACE = ("topic", "partition", "offset")
"""Headers of a dead letter: where the message was."""


def request(**data: Any) -> Any:
    wanted = ExportRequest(**{"user_id": "customer-1", "export_type": "orders", "format": "csv", **data})
    return request_event(wanted, source="/test")


async def publish(system: System, messages: list[tuple[bytes, bytes]]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=_servers(system))
    await producer.start()
    for key, value in messages:
        await producer.send_and_wait(Topic.REQUESTS, value, key=key)
    await producer.stop()


async def dead_letters(system: System) -> list[Any]:
    consumer = AIOKafkaConsumer(bootstrap_servers=_servers(system), auto_offset_reset="earliest")
    await consumer.start()
    partition = TopicPartition(Topic.DEAD_LETTERS, 0)
    consumer.assign([partition])
    end = (await consumer.end_offsets([partition]))[partition]
    found = []
    while await consumer.position(partition) < end:
        found += (await consumer.getmany(partition, timeout_ms=500)).get(partition, [])
    await consumer.stop()
    return found


async def later_letters(system: System, before: int, count: int) -> list[Any]:
    """Wait for ``count`` dead letters after the first ``before``. Jobs can end before these are published.

    A message is dead-lettered again if the group changes before its offset is committed. It counts once.
    """

    async def look() -> list[Any] | None:
        letters = (await dead_letters(system))[before:]
        found = {tuple(dict(letter.headers)[name] for name in PLACE): letter for letter in letters}
        return list(found.values()) if len(found) >= count else None

    return await until_async(look)


def _servers(system: System) -> str:
    return system.stack.settings()["EXPORTER_KAFKA_BOOTSTRAP_SERVERS"]


async def test_twenty_requests_of_all_kinds(system: System) -> None:
    good = [
        request(),
        request(format="json"),
        request(format="ndjson"),
        request(scope="all"),
        request(columns=["id"]),
    ]
    impossible = [
        (
            request(export_type="nothing"),
            "unknown_dataset",
            "export_type: there is no dataset 'nothing'; allowed: ",
        ),
        (request(format="docx"), "unknown_format", "format: there is no format 'docx'; allowed: csv"),
        (
            request(columns=["id", "colour"]),
            "unknown_column",
            "columns.1: the dataset has no column 'colour'; allowed: id",
        ),
        (request(filters={"id": "x"}), "bad_filter_value", "filters.id: expected a whole number, got 'x'"),
        (
            request(export_type="gone", scope="all"),
            "missing_table",
            "dataset 'gone' cannot be exported at the moment: its table does not exist in the source",
        ),
    ]
    garbage = [b"hello", b"{}", b'{"specversion": "1.0"}', b"\xff\x00", json.dumps([1, 2]).encode()]
    before = len(await dead_letters(system))
    readable = [
        (event.key, event.encode()) for event in [*good, *good, *(event for event, _, _ in impossible)]
    ]
    unreadable = [(b"?", content) for content in garbage]
    await publish(
        system,
        [message for pair in zip(readable[:5], unreadable, strict=True) for message in pair] + readable[5:],
    )

    for event in good:
        job = system.ended(event.id)
        assert job["status"] == "completed", job
        assert job["attempt"] == 1
        assert system.file(event.id)
    for event, code, message in impossible:
        job = system.ended(event.id)
        assert job["status"] == "failed"
        assert job["error"]["code"] == code
        assert job["error"]["message"].startswith(message)
    letters = await later_letters(system, before, len(garbage))
    assert [letter.value for letter in letters] == garbage
    for letter in letters:
        headers = dict(letter.headers)
        assert headers["topic"] == b"exports.requests"
        assert headers["error"]
        assert int(headers["partition"]) >= 0
        assert int(headers["offset"]) >= 0


async def test_a_running_export_is_cancelled(system: System) -> None:
    event = request(export_type="gated", scope="all")
    async with Gate(system.stack.postgres.admin_url(SOURCE)):
        await publish(system, [(event.key, event.encode())])
        await system.processing(event.id)
        cancel = cancel_event(event.job_id, source="/test")
        await publish(system, [(cancel.key, cancel.encode())])
        assert system.ended(event.id)["status"] == "cancelled"


async def test_a_cancellation_before_its_request_is_kept(system: System) -> None:
    event = request()
    cancel = cancel_event(event.job_id, source="/test")
    await publish(system, [(cancel.key, cancel.encode()), (event.key, event.encode())])
    assert system.ended(event.id)["status"] == "cancelled"


@pytest.mark.chaos
async def test_a_killed_workers_job_is_finished_by_another(system: System) -> None:
    async with Gate(system.stack.postgres.admin_url(SOURCE)):
        jobs = [system.ask(export_type="gated", format="ndjson", scope="all") for _ in range(2)]
        for job_id in jobs:
            await system.processing(job_id)
        await asyncio.to_thread(system.worker.kill)
    await asyncio.to_thread(system.worker.start)
    for job_id in jobs:
        job = system.ended(job_id, within=60)
        assert job["status"] == "completed"
        assert job["attempt"] == 2
        assert system.file(job_id).count(b"\n") == GATED_ROWS


async def test_an_event_that_the_database_refuses_does_not_block_others(system: System) -> None:
    """A row count beyond 64 bits can be read, but not recorded."""
    job = str(uuid4())
    impossible = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "/test",
        "type": "export.completed",
        "subject": job,
        "data": {
            "job_id": job,
            "user_id": "u",
            "export_type": "orders",
            "format": "csv",
            "status": "completed",
            "row_count": 10**30,
        },
    }
    before = len(await dead_letters(system))
    async with AIOKafkaProducer(bootstrap_servers=_servers(system)) as producer:
        await producer.send_and_wait(Topic.EVENTS, json.dumps(impossible).encode())
    event = request()
    await publish(system, [(event.key, event.encode())])
    assert system.ended(event.id)["status"] == "completed"
    (letter,) = await later_letters(system, before, 1)
    assert dict(letter.headers)["error"].startswith(b"cannot be handled")
