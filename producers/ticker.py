"""A ``schedule.tick`` at each minute boundary."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from stream_app.settings import Settings
from streaming_exporter.errors import PublishError
from streaming_exporter.events import Event, tick_event
from streaming_exporter.publisher import Publisher

log = logging.getLogger(__name__)

SOURCE = "/exporter/ticker"
LONGEST_NAP = 1.0
"""Seconds after which the clock is looked at again, since it may have been set or stood still."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class Ticker:
    """Publishes the current minute on start, and each minute as it begins.

    While Kafka is away it tries again; minutes that have passed by then are not made up for, because
    whoever reads a tick deals with everything that is due at it. A clock that jumps leads to a gap or to
    a repetition, both harmless.
    """

    def __init__(
        self,
        publish: Callable[[Event], Awaitable[None]],
        *,
        now: Callable[[], datetime] = utc_now,
        retry_seconds: float = 1.0,
    ) -> None:
        self._publish = publish
        self._now = now
        self._retry_seconds = retry_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until ``stop`` is set."""
        last: datetime | None = None
        while not stop.is_set():
            now = self._now()
            minute = now.replace(second=0, microsecond=0)
            nap = min(LONGEST_NAP, 60 - now.second - now.microsecond / 1e6)
            if minute != last:
                try:
                    await self._publish(tick_event(minute, source=SOURCE))
                except PublishError as error:
                    log.warning("tick.publish_failed: %s: %s", minute.isoformat(), error)
                    nap = self._retry_seconds
                else:
                    log.info("tick.published: %s", minute.isoformat())
                    last, nap = minute, 0
            await _wait(stop, nap)


async def run(settings: Settings) -> None:
    """Tick until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Publisher(settings, client_id="exporter-ticker", source=SOURCE) as publisher:
        ticking = asyncio.create_task(Ticker(publisher.publish).run(stop))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({ticking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ticking.done():
            # A publication that Kafka has not confirmed by now is one of the harmless gaps.
            await asyncio.wait({ticking}, timeout=1)
            ticking.cancel()
        elif not ticking.cancelled():
            ticking.result()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
