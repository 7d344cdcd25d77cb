"""What time a tick says that it is, and what is not a tick."""

from collections.abc import Iterable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from stream_app.kafka.event_producer import EventProducer
from stream_app.schedules.scheduler import Scheduler
from stream_app.settings import Settings
from stream_app.worker.tick_handler import TickHandler, moment_of
from streaming_exporter.errors import Outage
from streaming_exporter.events import Event, cancel_event, tick_event

MINUTE = timedelta(minutes=1)
AT = datetime(2026, 3, 1, 9, tzinfo=UTC)


def received(value: bytes | None) -> SimpleNamespace:
    """A message as it comes from a topic."""
    return SimpleNamespace(value=value, topic="t", headers=())


class Parts:
    """What ticks lead to, instead of a scheduler and a producer."""

    def __init__(self) -> None:
        self.moments: list[datetime] = []
        self.dead: list[str] = []
        self.away = False

    async def now(self) -> datetime:
        return datetime.now(UTC)

    async def run_due(self, until: datetime) -> int:
        if self.away:
            raise Outage("away")
        self.moments.append(until)
        return 1

    async def dead_letter(self, _: object, reason: Exception) -> None:
        self.dead.append(str(reason))


async def handled(messages: Iterable[bytes | None], **changes: Any) -> Parts:
    parts = Parts()
    settings = Settings(_env_file=None, **changes)
    ticks = TickHandler(cast(Scheduler, parts), cast(EventProducer, parts), settings)
    wrapped = [SimpleNamespace(message=received(value)) for value in messages]
    await ticks.handle(cast(Any, wrapped))
    return parts


def tick(at: datetime, *, published: datetime | None) -> Event:
    return tick_event(at, source="/t").model_copy(update={"time": published})


@pytest.mark.parametrize(
    ("waited", "later"),
    [(timedelta(0), 0), (-30 * MINUTE, 0), (4 * MINUTE, 0), (6 * MINUTE, 6), (timedelta(days=1), 1440)],
)
def test_a_tick_that_waited_through_an_outage_counts_for_when_it_is_read(
    waited: timedelta, later: int
) -> None:
    assert moment_of(tick(AT, published=AT), AT + waited) == AT + later * MINUTE
    assert moment_of(tick(AT, published=None), AT + waited) == AT


async def test_a_batch_is_handled_in_the_order_of_time_each_minute_once() -> None:
    ticks = [tick_event(AT + number * MINUTE, source="/t").encode() for number in (3, 1, 1, 2, 3)]
    parts = await handled(ticks)
    assert parts.moments == [AT + number * MINUTE for number in (1, 2, 3)]


async def test_what_is_no_tick_is_put_aside() -> None:
    other = cancel_event(uuid4(), source="/t").encode()
    parts = await handled([b"{", None, other, tick_event(AT, source="/t").encode()])
    assert len(parts.dead) == 3
    assert "does not belong on exports.ticks" in parts.dead[2]
    assert parts.moments == [AT]


async def test_what_is_no_tick_is_put_aside_once_the_others_are_handled() -> None:
    """Else it would be at every try of an outage."""
    parts = Parts()
    parts.away = True
    ticks = TickHandler(cast(Scheduler, parts), cast(EventProducer, parts), Settings(_env_file=None))
    values = (b"{", tick_event(AT, source="/t").encode())
    wrapped = [SimpleNamespace(message=received(value)) for value in values]
    for dead in (0, 0, 1):
        parts.away = not dead
        with nullcontext() if dead else pytest.raises(Outage):
            await ticks.handle(cast(Any, wrapped))
        assert len(parts.dead) == dead


async def test_a_tick_from_the_future_is_put_aside_and_moves_nothing() -> None:
    """R3: years ahead, or a little more than a minute."""
    for lead in (timedelta(days=3_000), timedelta(seconds=75)):
        future = datetime.now(UTC) + lead
        parts = await handled(
            [tick_event(future, source="/t").encode(), tick_event(AT, source="/t").encode()]
        )
        assert parts.moments == [AT]
        assert "ahead of the state database's clock" in parts.dead[0]
    future = datetime.now(UTC) + timedelta(hours=1)
    message = tick_event(future, source="/t").encode()
    assert len((await handled([message], tick_lead_seconds=4000)).moments) == 1
