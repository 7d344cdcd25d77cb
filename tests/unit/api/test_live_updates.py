"""Slow listeners of live updates, and unexpected errors."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from api.jobs import live_updates as feeds
from api.jobs.live_updates import MAX_WAITING, LiveUpdates, Subscription, Update
from stream_app.jobs.models import ExportJob
from streaming_exporter.errors import Retryable
from tests.waiting import at_most

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def offer(subscription: Subscription, count: int) -> None:
    for _ in range(count):
        subscription.offer(Update(uuid4(), "1.0.0.0", False, "{}"))


async def test_the_first_updates_do_not_count_for_the_limit() -> None:
    subscription = Subscription()
    offer(subscription, MAX_WAITING + 200)
    updates = subscription.updates()
    assert len([await anext(updates) for _ in range(MAX_WAITING + 200)]) == MAX_WAITING + 200


async def test_a_listener_that_is_too_far_behind_is_ended() -> None:
    subscription = Subscription()
    offer(subscription, 5)
    updates = subscription.updates()
    await anext(updates)
    offer(subscription, MAX_WAITING + 2)
    assert [update async for update in updates] == []


class Records:
    """Fails with an unexpected error until ``mended`` is set."""

    def __init__(self) -> None:
        self.broken = True
        self.asked = 0

    async def get_many(self, ids: Any) -> list[Any]:
        self.asked += 1
        if self.broken:
            raise KeyError("a fault")
        return []

    list_unfinished = get_many


async def test_an_unexpected_error_ends_the_streams_and_fails_the_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Q9: after an error no listener waits for ever, and the updates continue."""
    monkeypatch.setattr(feeds, "RETRY_SECONDS", 0.05)
    records = Records()
    live_updates = LiveUpdates(records, lambda: NOW)  # type: ignore[arg-type]
    job = uuid4()
    with capture_logs() as logs:
        running = asyncio.create_task(live_updates.run())
        async with at_most(10):
            with live_updates.job(job) as one, live_updates.user("ada") as every:
                live_updates.on_notify(f"{job} ada")
                assert [update async for update in one.updates()] == []
                assert [update async for update in every.updates()] == []
                assert one.failed
            with pytest.raises(Retryable):
                await live_updates.check()
            records.broken = False
            before = records.asked
            with live_updates.job(job) as later:
                while records.asked == before:
                    live_updates.on_notify(f"{job} ada")
                    await asyncio.sleep(0.01)
                while live_updates._failure is not None:  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(0.01)
                assert not later.failed
            await live_updates.check()
        running.cancel()
    assert "live_updates.failed" in [line["event"] for line in logs]


class Unnoticed:
    """Has one job that ends without a notification. All other jobs do not exist."""

    def __init__(self) -> None:
        self.job = ExportJob(
            id=uuid4(), user_id="ada", export_type="ledger", format="csv", status="completed", attempt=1,
            failures=0, created_at=NOW,
        )  # fmt: skip

    async def get_many(self, ids: Any) -> list[ExportJob]:
        return [self.job] if self.job.id in ids else []

    async def list_unfinished(self, users: Any, limit: int) -> list[ExportJob]:
        return []


async def test_all_jobs_are_read_in_time_although_others_change_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Decision 22: a lost notification delays the end of a job, also while others never stop to change."""
    monkeypatch.setattr(feeds, "READ_ALL_SECONDS", 0.3)
    monkeypatch.setattr(feeds, "GATHER_SECONDS", 0.01)
    records = Unnoticed()
    live_updates = LiveUpdates(records, lambda: NOW)  # type: ignore[arg-type]

    async def change_others() -> None:
        while True:
            live_updates.on_notify(f"{uuid4()} busy")
            await asyncio.sleep(0.02)

    with live_updates.user("busy"), live_updates.job(records.job.id) as subscription:
        tasks = [asyncio.create_task(live_updates.run()), asyncio.create_task(change_others())]
        try:
            async with at_most(10):
                update = await anext(subscription.updates())
            assert update.ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


@pytest.mark.parametrize(("days", "status"), [(1, "completed"), (-1, "expired")])
def test_the_clock_of_the_database_decides_whether_a_file_has_expired(days: int, status: str) -> None:
    """The clock of the API's machine can be wrong by more than the time for which files are kept."""
    job = Unnoticed().job
    for year in (1999, 2099):
        now = NOW.replace(year=year)
        job.expires_at = now + timedelta(days=days)
        update = LiveUpdates(None, lambda now=now: now).update_of(job)  # type: ignore[arg-type,misc]
        assert json.loads(update.body)["status"] == status
