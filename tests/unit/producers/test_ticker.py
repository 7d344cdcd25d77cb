"""The ticker with clocks that run, jump and stand still."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from producers import ticker
from producers.ticker import Ticker
from streaming_exporter.errors import PublishError
from streaming_exporter.events import Event, decode
from tests.waiting import at_most

NOON = datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC)


class World:
    """A clock whose readings are ``times``, and a Kafka that fails at chosen times."""

    def __init__(self, *times: datetime, failures: int = 0) -> None:
        self.times = list(times)
        self.failures = failures
        self.stop = asyncio.Event()
        self.minutes: list[datetime] = []

    def now(self) -> datetime:
        if len(self.times) == 1:
            self.stop.set()
            return self.times[0]
        return self.times.pop(0)

    async def publish(self, event: Event) -> None:
        if self.failures:
            self.failures -= 1
            raise PublishError("away")
        self.minutes.append(decode(event.encode()).tick)

    async def run(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setattr(ticker, "MAX_SLEEP_SECONDS", 0)
        async with at_most(10):
            await Ticker(self.publish, now=self.now, retry_seconds=0).run(self.stop)
        return [f"{minute:%H:%M:%S}" for minute in self.minutes]


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        ([0, 1, 29, 30, 31, 89.9, 90], ["12:00:00", "12:01:00", "12:02:00"]),
        ([0, 1], ["12:00:00"]),
        ([0, 600, 601], ["12:00:00", "12:10:00"]),
        ([0, -60, 0, 1], ["12:00:00", "11:59:00", "12:00:00"]),
    ],
    ids=["runs", "current minute on start", "jumps ahead", "is set back"],
)
async def test_ticks(seconds: list[float], ticks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert await World(*map(at, seconds), at(seconds[-1])).run(monkeypatch) == ticks


async def test_an_outage_delays_the_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await World(*map(at, [0, 1, 2, 3, 3]), failures=2).run(monkeypatch) == ["12:00:00"]


async def test_minutes_of_an_outage_are_not_published_later(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await World(*map(at, [0, 45, 100, 101, 101]), failures=2).run(monkeypatch) == ["12:02:00"]


async def test_it_stops_at_once() -> None:
    world = World(at(0), at(0), at(0))
    running = asyncio.create_task(Ticker(world.publish, now=lambda: NOON).run(world.stop))
    await asyncio.sleep(0.05)
    world.stop.set()
    async with at_most(2):
        await running
