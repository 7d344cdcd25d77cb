"""The recipients of a schedule get a mail when the schedule is paused after failures."""

import asyncio
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stream_app.composition.sender import create_sender
from stream_app.jobs.queue import JobQueue
from stream_app.kafka.event_producer import EventProducer
from stream_app.notifications.models import Channel
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.lifecycle_handler import LifecycleHandler
from streaming_exporter.events import EventType
from tests.integration.notifications.servers import MailServer, mail_server
from tests.integration.schedules.conftest import START, Schedules, days
from tests.waiting import at_most, until_async


async def project(schedules: Schedules, max_failures: int = 5) -> None:
    """Apply the outcomes of runs."""
    messages = [
        SimpleNamespace(message=SimpleNamespace(value=event.encode(), topic=event.topic, headers=()))
        for event in schedules.published
        if event.type is EventType.FAILED
    ]
    projector = LifecycleHandler(
        JobQueue.of(schedules.settings, schedules.engine), cast(EventProducer, None), max_failures
    )
    await projector.handle(cast(Any, messages))


async def deliver(schedules: Schedules, storage: ObjectStore, server: MailServer, count: int) -> None:
    """Send the deliveries of the outbox until ``count`` mails have arrived."""
    changes = {"smtp_host": "127.0.0.1", "smtp_port": server.port}
    settings = Settings(_env_file=None, **schedules.settings.model_dump() | changes)
    sender = create_sender(settings, schedules.engine, storage, "worker", poll=0.05)
    working = asyncio.create_task(sender.run(Channel.MAIL))
    await until_async(lambda: len(server.mails) >= count)
    await sender.drain()
    async with at_most(60):  # a cancelled one could leave an open connection behind
        await working


@pytest.mark.parametrize("broken", [{"timezone": "Mars/Olympus"}, {"window": "moon"}], ids=str)
async def test_a_schedule_that_cannot_be_planned_is_paused_with_a_mail(
    schedules: Schedules, storage: ObjectStore, broken: dict[str, str]
) -> None:
    made = await schedules.create(next_run=START, email_recipients=["a@example.com"])
    await schedules.set(made, **broken)
    assert await schedules.scheduler().run_due(START) == 1
    await project(schedules)
    async with mail_server() as server:
        await deliver(schedules, storage, server, 1)
        (mail,) = server.to("a@example.com")
    assert (await schedules.get(made)).paused_reason
    assert re.fullmatch(r"Export of ledger, .*: failed, the schedule is paused", mail["Subject"])
    part = mail.get_body(("plain",))
    assert part is not None
    body = part.get_content()
    reasons = ("This time zone does not exist.", "The schedule is not valid.")
    assert any(reason in body for reason in reasons), "the reason in words of the service"
    assert not any(value in body for value in broken.values())
    assert "starts no more exports until it is resumed." in " ".join(body.split())


async def test_a_schedule_whose_dataset_is_gone_is_paused_with_a_mail(
    schedules: Schedules, storage: ObjectStore
) -> None:
    made = await schedules.create(export_type="gone", email_recipients=["a@example.com"])
    scheduler = schedules.scheduler()
    async with mail_server() as server:
        for day in (1, 2):
            assert await scheduler.run_due(START + days(day)) == 1
            await project(schedules, max_failures=2)
            await deliver(schedules, storage, server, day)
        subjects = [mail["Subject"] for mail in server.to("a@example.com")]
    assert [re.sub(r", \d+ \w+ \d+", "", subject) for subject in subjects] == [
        "Export of gone: failed",
        "Export of gone: failed, the schedule is paused",
    ]
    schedule = await schedules.get(made)
    assert (schedule.active, schedule.failures) == (False, 2)
    assert "there is no dataset 'gone'" in (schedule.paused_reason or "")
