"""The scheduler reads ticks: the time that each stands for, and messages that are no valid tick."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.kafka.event_producer import EventProducer
from stream_app.schedules.run_planner import RunPlanner
from stream_app.settings import Settings
from stream_app.worker.scheduler import Scheduler, moment_of
from streaming_exporter.errors import Outage
from streaming_exporter.events import Event, cancel_event, tick_event

MINUTE = timedelta(minutes=1)
AT = datetime(2026, 3, 1, 9, tzinfo=UTC)


def received(value: bytes | None) -> SimpleNamespace:
    """Return a message as it is read from a topic."""
    return SimpleNamespace(value=value, topic="t", headers=())


@dataclass
class Calls:
    """Records the calls of a scheduler instead of a database and a producer."""

    moments: list[datetime] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    away: bool = False

    async def dead_letter(self, _: object, reason: Exception) -> None:
        self.dead.append(str(reason))


@dataclass(frozen=True)
class RecordingScheduler(Scheduler):
    """A scheduler that starts no runs and records the moments at which it would."""

    calls: Calls = field(default_factory=Calls)

    async def now(self) -> datetime:
        return datetime.now(UTC)

    async def run_due(self, until: datetime) -> int:
        if self.calls.away:
            raise Outage("away")
        self.calls.moments.append(until)
        return 1


def recording_scheduler(calls: Calls, **changes: Any) -> Scheduler:
    unused, settings = object(), Settings(_env_file=None, **changes)
    return RecordingScheduler(
        cast(AsyncEngine, unused),
        cast(EventProducer, calls),
        cast(RunPlanner, unused),
        settings,
        calls=calls,
    )


async def handled(messages: Iterable[bytes | None], **changes: Any) -> Calls:
    calls = Calls()
    wrapped = [SimpleNamespace(message=received(value)) for value in messages]
    await recording_scheduler(calls, **changes).handle(cast(Any, wrapped))
    return calls


def tick(at: datetime, *, published: datetime | None) -> Event:
    return tick_event(at, source="/t").model_copy(update={"time": published})


@pytest.mark.parametrize(
    ("waited", "later"),
    [(timedelta(0), 0), (-30 * MINUTE, 0), (4 * MINUTE, 0), (6 * MINUTE, 6), (timedelta(days=1), 1440)],
)
def test_a_tick_from_before_an_outage_stands_for_the_minutes_since_then(
    waited: timedelta, later: int
) -> None:
    assert moment_of(tick(AT, published=AT), AT + waited) == AT + later * MINUTE
    assert moment_of(tick(AT, published=None), AT + waited) == AT


async def test_the_ticks_of_a_batch_are_handled_in_order_each_minute_once() -> None:
    ticks = [tick_event(AT + number * MINUTE, source="/t").encode() for number in (3, 1, 1, 2, 3)]
    calls = await handled(ticks)
    assert calls.moments == [AT + number * MINUTE for number in (1, 2, 3)]


async def test_a_message_that_is_no_tick_is_dead_lettered() -> None:
    other = cancel_event(uuid4(), source="/t").encode()
    calls = await handled([b"{", None, other, tick_event(AT, source="/t").encode()])
    assert len(calls.dead) == 3
    assert "does not belong on exports.ticks" in calls.dead[2]
    assert calls.moments == [AT]


async def test_messages_are_dead_lettered_after_the_ticks_are_handled() -> None:
    """Otherwise each retry during an outage would dead-letter them again."""
    calls = Calls(away=True)
    scheduler = recording_scheduler(calls)
    values = (b"{", tick_event(AT, source="/t").encode())
    wrapped = [SimpleNamespace(message=received(value)) for value in values]
    for dead in (0, 0, 1):
        calls.away = not dead
        with nullcontext() if dead else pytest.raises(Outage):
            await scheduler.handle(cast(Any, wrapped))
        assert len(calls.dead) == dead


async def test_a_tick_from_the_future_is_dead_lettered_and_starts_only_what_is_due_now() -> None:
    """R3: years ahead, or a little more than a minute. A clock that is ahead does not stop schedules."""
    for lead in (timedelta(days=3_000), timedelta(seconds=75)):
        future = datetime.now(UTC) + lead
        began = datetime.now(UTC)
        calls = await handled(
            [tick_event(future, source="/t").encode(), tick_event(AT, source="/t").encode()]
        )
        first, last = calls.moments
        assert first == AT
        assert began <= last <= datetime.now(UTC)
        assert "ahead of the state database's clock" in calls.dead[0]
    future = datetime.now(UTC) + timedelta(hours=1)
    message = tick_event(future, source="/t").encode()
    assert len((await handled([message], tick_lead_seconds=4000)).moments) == 1
