"""Each recipient gets one mail, although workers die while they send, and events are repeated."""

import asyncio
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from dev.stack import Stack
from streaming_exporter.events import EventType, ExportRequest, request_event
from tests.chaos.supervisor import Supervisor
from tests.chaos.system_client import SystemClient
from tests.e2e.tables import psql
from tests.integration.notifications.servers import mail_server
from tests.waiting import until_async

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

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
    """The settings of the workers."""
    psql(stack, TABLE)
    datasets = stack.run_dir / "letters.toml"
    datasets.write_text(DATASET)
    return {"EXPORTER_DATASETS_FILE": str(datasets)}


async def ask(client: SystemClient, *recipients: str, export_type: str = "letters") -> UUID:
    wanted = ExportRequest(
        user_id="p", export_type=export_type, format="csv", scope="all", recipients=list(recipients)
    )
    event = request_event(wanted, source="/t")
    await client.publish(event)
    return event.job_id


async def outbox(client: SystemClient, job: UUID) -> dict[str, Any]:
    rows = await client.fetch("SELECT * FROM deliveries WHERE job_id = $1", job)
    return {row["address"]: dict(row) for row in rows}


async def until(client: SystemClient, job: UUID, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until ``holds`` is true of the job's row in the outbox; return the row."""
    rows: dict[str, Any] = {}

    async def look() -> bool:
        nonlocal rows
        rows = await outbox(client, job)
        return bool(rows) and holds(rows)

    await until_async(look, otherwise=lambda: rows)
    return rows


async def expire_claims(client: SystemClient, worker: str) -> None:
    """Let the claims of a dead worker expire at once. They last longer than a mail server can take."""
    own = "split_part(worker, '/', 1) = $1"
    await client.fetch(f"UPDATE deliveries SET lease_until = now() - interval '1 s' WHERE {own}", worker)


async def repeat_outcomes(client: SystemClient, job: UUID, times: int) -> None:
    """Publish the outcome of the job again."""
    ends = [
        event
        for event in (await client.history([job]))[job]
        if event.type in (EventType.COMPLETED, EventType.FAILED)
    ]
    assert ends
    for event in ends * times:
        await client.publish(event)


async def test_no_recipient_gets_two_mails_if_a_worker_dies_while_it_sends(
    stack: Stack, variables: dict[str, str]
) -> None:
    held, free = "held@example.com", "free@example.com"
    async with mail_server() as server, SystemClient(stack) as client:
        server.held.add(held)
        settings = variables | {"EXPORTER_SMTP_HOST": "127.0.0.1", "EXPORTER_SMTP_PORT": str(server.port)}
        workers = await asyncio.to_thread(Supervisor, stack, 1, settings)
        with workers:
            job = await ask(client, held, free)
            await until(client, job, lambda rows: rows[free]["status"] == "sent" and bool(server.to(held)))
            assert (await outbox(client, job))[held]["status"] == "sending"
            dead = await asyncio.to_thread(workers.kill, 0)
            server.held.clear()
            await expire_claims(client, dead)
            await repeat_outcomes(client, job, 3)
            await until(client, job, lambda rows: rows[held]["status"] == "ambiguous")
            other = await ask(client, held, export_type="nothing")
            await until(client, other, lambda rows: rows[held]["status"] == "sent")
            rows = await outbox(client, job)
        assert {address: row["status"] for address, row in rows.items()} == {held: "ambiguous", free: "sent"}
        subjects = [mail["Subject"] for mail in server.to(held)]
        assert [re.sub(r", \d+ \w+ \d{4}", "", subject) for subject in subjects] == [
            "Export of letters: 50 rows",
            "Export of nothing: failed",
        ]
        assert len(server.to(free)) == 1


async def test_an_outage_of_the_mail_server_delays_mails_and_loses_none(
    stack: Stack, variables: dict[str, str]
) -> None:
    async with SystemClient(stack) as client:
        workers = await asyncio.to_thread(Supervisor, stack, 1, variables)
        with workers:
            await asyncio.to_thread(stack.smtp.kill)
            recipients = [f"away{number}@example.com" for number in range(5)]
            job = await ask(client, *recipients)
            rows = await until(client, job, lambda rows: all(row["attempts"] for row in rows.values()))
            assert {row["status"] for row in rows.values()} <= {"pending", "sending"}
            await asyncio.to_thread(stack.smtp.restart)
            await until(client, job, lambda rows: all(row["status"] == "sent" for row in rows.values()))
    arrived = [mail["X-Envelope-To"] for mail in stack.smtp.mails()]
    assert sorted(address for address in arrived if address.startswith("away")) == recipients
