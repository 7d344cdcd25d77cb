"""Publishes a ``schedule.tick`` at each minute boundary."""

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
MAX_SLEEP_SECONDS = 1.0
"""Interval at which the clock is read again, because it can be changed or the machine can be suspended."""


def utc_now() -> datetime:
    """Return the time of the wall clock."""
    return datetime.now(UTC)


class Ticker:
    """Publishes the current minute on start, and each minute when it begins.

    While Kafka is unavailable it retries. It does not publish the minutes that have passed, because the
    scheduler starts everything that is due at a tick. A jump of the clock causes a gap or a repetition, and
    both are harmless.
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
        """Publish ticks until ``stop`` is set."""
        last: datetime | None = None
        while not stop.is_set():
            now = self._now()
            minute = now.replace(second=0, microsecond=0)
            delay = min(MAX_SLEEP_SECONDS, 60 - now.second - now.microsecond / 1e6)
            if minute != last:
                try:
                    await self._publish(tick_event(minute, source=SOURCE))
                except PublishError as error:
                    log.warning("tick.publish_failed: %s: %s", minute.isoformat(), error)
                    delay = self._retry_seconds
                else:
                    log.info("tick.published: %s", minute.isoformat())
                    last, delay = minute, 0
            await _wait(stop, delay)


async def run(settings: Settings) -> None:
    """Publish ticks until SIGTERM or SIGINT."""
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
            # A tick that Kafka has not confirmed by now is one of the harmless gaps.
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
