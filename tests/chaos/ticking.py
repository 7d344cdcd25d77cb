"""``python -m tests.chaos.ticking``: the real ticker with a simulated clock, and with lost ticks.

``CLOCK`` names the file with the time, ``LOST`` a file with the minutes whose ticks are dropped.
"""

import asyncio
import json
import os
import random
from datetime import datetime
from pathlib import Path

from producers import ticker
from stream_app.settings import Settings
from streaming_exporter.events import Event
from streaming_exporter.publisher import Publisher

AGAIN = 0.05
"""Share of the ticks after which an older tick is repeated."""


class Clock:
    """A clock whose time is in a file. All processes with the file have the same time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now(self) -> datetime:
        return datetime.fromisoformat(self._path.read_text())

    def set(self, now: datetime) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(now.isoformat())
        new.rename(self._path)


class Line:
    """Publishes ticks to Kafka, except the lost ones."""

    def __init__(self, publisher: Publisher, lost: frozenset[datetime]) -> None:
        self._publisher = publisher
        self._lost = lost
        self._sent: list[Event] = []

    async def take(self, event: Event) -> None:
        if event.tick in self._lost:
            return
        await self._publisher.publish(event)
        self._sent.append(event)
        if random.random() < AGAIN:
            await self._publisher.publish(random.choice(self._sent))


async def main() -> None:
    lost = json.loads(Path(os.environ["LOST"]).read_text())
    clock = Clock(Path(os.environ["CLOCK"]))
    ticker.MAX_SLEEP_SECONDS = 0.003  # its clock runs about ten thousand times faster
    async with Publisher(Settings(_env_file=None), client_id="ticker") as publisher:
        line = Line(publisher, frozenset(map(datetime.fromisoformat, lost)))
        await ticker.Ticker(line.take, now=clock.now).run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main())
