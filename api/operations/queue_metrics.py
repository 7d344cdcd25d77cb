"""What the API tells Prometheus: its own process, and the queue as the state database knows it."""

import asyncio
import time

import structlog
from prometheus_client import generate_latest
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs.records import read_backlog
from stream_app.observability import metrics
from streaming_exporter.errors import Retryable

log = structlog.get_logger(__name__)

FRESH_SECONDS = 10.0
"""How long one count of the queue serves, however many ask."""


class QueueMetrics:
    """Counts the queue when it is asked, seldom enough that asking costs the database nothing."""

    def __init__(self, engine: AsyncEngine, *, fresh: float = FRESH_SECONDS) -> None:
        """``fresh`` is how long, in seconds, one count of the queue serves."""
        self._engine = engine
        self._fresh = fresh
        self._due = 0.0
        self._counting = asyncio.Lock()
        self._registry = metrics.registry_for("api")

    async def render(self) -> bytes:
        """Everything in Prometheus' text format.

        While the database is away the queue's numbers are missing, and ``exporter_queue_read`` is 0.
        """
        async with self._counting:
            if time.monotonic() >= self._due:
                await self._count()
                self._due = time.monotonic() + self._fresh
        return generate_latest(self._registry)

    async def _count(self) -> None:
        try:
            backlog = await read_backlog(self._engine)
        except Retryable as error:
            log.warning("metrics.queue_read_failed", error=str(error))
            metrics.set_queue(None, None)
        else:
            metrics.set_queue(backlog.jobs, backlog.oldest)
