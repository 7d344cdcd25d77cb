"""Stops a Faust app: first the work, while Kafka is connected; then Kafka's clients, within a limited time.

The app must not count as stopped while it drains. Otherwise Faust would answer a rebalance by closing its
consumer, which then reads nothing and does not leave the group. Rebalances during a drain are usual: in a
rolling update the next worker joins.

By itself, Faust stops reading first, and waits until the producer has sent all messages before it stops any
service. While Kafka does not answer, or while one partition has no leader, that takes half a minute or more.
The clients then take as long again to commit and to disconnect.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import faust
import structlog

log = structlog.get_logger(__name__)

CLOSE_SECONDS = 6.0
"""Limit of the time, in seconds, that the app takes to stop after the drain."""

CLIENTS_SECONDS = 1.5
"""The part of :data:`CLOSE_SECONDS` that is reserved for closing connections."""


class DrainedApp(faust.App):
    """A Faust app that drains its work before it stops anything.

    Attributes:
        drain: runs when the app stops, while messages are still read and handled, and events published.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.drain: Callable[[], Awaitable[None]] | None = None
        self._close_by = math.inf
        self._stop_has_begun = False

    @property
    def is_stopping(self) -> bool:
        """Whether the app drains, or stops, or has stopped."""
        return self._stop_has_begun or self.should_stop

    async def stop(self) -> None:
        """Drain, then stop. A second call has no effect."""
        if self._stop_has_begun:
            return
        self._stop_has_begun = True
        if self.drain is not None:
            try:
                await self.drain()
            except Exception:  # the rest must stop, too
                log.exception("drain.crashed")
        await super().stop()

    async def on_stop(self) -> None:
        """Stop reading, and send the messages of the producer."""
        self._close_by = self.loop.time() + CLOSE_SECONDS
        await super().on_stop()

    async def _producer_flush(self, logger: Any) -> None:
        try:
            async with asyncio.timeout_at(self._close_by - CLIENTS_SECONDS):
                await super()._producer_flush(logger)
        except TimeoutError:
            # Outcomes are stored in the state database: another worker publishes them.
            log.warning("flush.abandoned", seconds=CLOSE_SECONDS - CLIENTS_SECONDS)

    async def _stop_children(self) -> None:
        stopping = asyncio.ensure_future(super()._stop_children())
        await asyncio.wait({stopping}, timeout=max(CLIENTS_SECONDS, self._close_by - self.loop.time()))
        if not stopping.done():
            log.warning("disconnect.abandoned", seconds=CLOSE_SECONDS)
