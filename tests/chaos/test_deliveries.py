"""Each recipient gets one mail, though workers die while they send and events are repeated."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from local.stack import Stack
from stream_app.events import EventType, ExportRequest, Topic, request_event
from stream_app.settings import Settings
from tests.e2e.tables import psql
from tests.integration.delivery.servers import mail_server
from tests.topics import events_on

TABLE = """
    CREATE SCHEMA IF NOT EXISTS post;
    CREATE TABLE IF NOT EXISTS post.letters AS
    SELECT n AS id, 'text ' || n AS body FROM generate_series(1, 50) n;
    GRANT USAGE ON SCHEMA post TO PUBLIC;
    GRANT SELECT ON ALL TABLES IN SCHEMA post TO PUBLIC;
"""
DATASET = '[datasets.letters]\ntable = "post.letters"\norder = ["id"]\n'


@pytest.fixture
def variables(stack: Stack) -> dict[str, str]:
    """What workers need here; a message that is being sent is nobody's after 6 s."""
    psql(stack, TABLE)
    datasets = stack.run_dir / "letters.toml"
    datasets.write_text(DATASET)
    return {
        "EXPORTER_DATASETS_FILE": str(datasets),
        "EXPORTER_KAFKA_GROUP": "deliveries",
        "EXPORTER_DELIVERY_TIMEOUT_SECONDS": "3",
        "EXPORTER_SMTP_HOST": "127.0.0.1",
    }


async def ask(stack: Stack, *recipients: str, export_type: str = "letters") -> UUID:
    servers = stack.settings()["EXPORTER_KAFKA_BOOTSTRAP_SERVERS"]
    wanted = ExportRequest(
        user_id="p", export_type=export_type, format="csv", scope="all", recipients=list(recipients)
    )
    event = request_event(wanted, source="/t")
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        await producer.send_and_wait(Topic.REQUESTS, event.encode(), key=event.key)
    return event.job_id


async def ledger(stack: Stack, job: UUID) -> dict[str, Any]:
    connection = await asyncpg.connect(stack.settings()["EXPORTER_DATABASE_URL"])
    with suppress(asyncpg.UndefinedTableError):
        rows = await connection.fetch("SELECT * FROM deliveries WHERE job_id = $1", job)
    await connection.close()
    return {row["address"]: row for row in rows}


async def until(
    stack: Stack, job: UUID, holds: Callable[[dict[str, Any]], bool], within: float = 60
) -> dict[str, Any]:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        rows = await ledger(stack, job)
        if rows and holds(rows):
            return rows
        await asyncio.sleep(0.2)
    raise AssertionError([dict(row) for row in rows.values()])


async def repeat_outcomes(stack: Stack, job: UUID, times: int) -> None:
    """Publish again what said how the job ended."""
    fields = {name.removeprefix("EXPORTER_").lower(): value for name, value in stack.settings().items()}
    settings = Settings(_env_file=None, **fields)  # type: ignore[arg-type]
    ends = [
        event
        for event in await events_on(settings, Topic.EVENTS)
        if event.subject == str(job) and event.type in (EventType.COMPLETED, EventType.FAILED)
    ]
    assert ends
    servers = stack.settings()["EXPORTER_KAFKA_BOOTSTRAP_SERVERS"]
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        for event in ends * times:
            await producer.send_and_wait(Topic.EVENTS, event.encode(), key=event.key)


async def test_a_worker_that_dies_while_it_sends_mails_nobody_twice(
    stack: Stack, variables: dict[str, str]
) -> None:
    async with mail_server() as server:
        variables["EXPORTER_SMTP_PORT"] = str(server.port)
        first = await asyncio.to_thread(stack.start_worker, settings=variables)
        second = None
        try:
            server.held.add("held@example.com")
            job = await ask(stack, "held@example.com", "free@example.com")
            await until(
                stack,
                job,
                lambda rows: (
                    rows["free@example.com"]["status"] == "sent" and bool(server.to("held@example.com"))
                ),
            )
            assert (await ledger(stack, job))["held@example.com"]["status"] == "sending"
            await asyncio.to_thread(first.kill)
            server.held.clear()
            second = await asyncio.to_thread(stack.start_worker, settings=variables)
            await repeat_outcomes(stack, job, 3)
            await until(stack, job, lambda rows: rows["held@example.com"]["status"] == "ambiguous")
            other = await ask(stack, "held@example.com", export_type="nothing")
            await until(stack, other, lambda rows: rows["held@example.com"]["status"] == "sent")

            rows = await ledger(stack, job)
            assert {address: row["status"] for address, row in rows.items()} == {
                "held@example.com": "ambiguous",
                "free@example.com": "sent",
            }
            subjects = [mail["Subject"] for mail in server.to("held@example.com")]
            assert subjects == ["Export of letters: 50 rows", "Export of nothing failed"]
            assert len(server.to("free@example.com")) == 1
        finally:
            for worker in filter(None, (first, second)):
                await asyncio.to_thread(worker.kill)


async def test_a_mail_server_that_is_away_delays_mails_and_loses_none(
    stack: Stack, variables: dict[str, str]
) -> None:
    worker = await asyncio.to_thread(stack.start_worker, settings=variables)
    try:
        await asyncio.to_thread(stack.smtp.kill)
        recipients = [f"away{number}@example.com" for number in range(5)]
        job = await ask(stack, *recipients)
        rows = await until(stack, job, lambda rows: all(row["attempts"] for row in rows.values()))
        assert {row["status"] for row in rows.values()} <= {"pending", "sending"}
        await asyncio.to_thread(stack.smtp.restart)
        await until(stack, job, lambda rows: all(row["status"] == "sent" for row in rows.values()))
    finally:
        await asyncio.to_thread(worker.stop)
    arrived = [mail["X-Envelope-To"] for mail in stack.smtp.mails()]
    assert sorted(address for address in arrived if address.startswith("away")) == recipients
