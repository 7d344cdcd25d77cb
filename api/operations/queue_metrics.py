"""The metrics of the API's process and of the job queue, in the format of Prometheus."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

import structlog
from prometheus_client import generate_latest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.datasets.models import Dataset
from stream_app.jobs.claim_pauses import PausedClaims, PauseStore, anonymous
from stream_app.jobs.job_queries import read_backlog
from stream_app.notifications.statistics import count_deliveries
from stream_app.observability import metrics
from stream_app.schedules.statistics import count_schedules
from streaming_exporter.errors import Retryable

log = structlog.get_logger(__name__)

PAUSES_CACHE_SECONDS = 1.0
METRICS_CACHE_SECONDS = 10.0
"""A count of the queue is reused for this long, so that frequent calls cost the database nothing."""


class QueueMetrics:
    """Metrics of this process and of the queue, which is counted at most once per ``cache_seconds``."""

    def __init__(
        self,
        engine: AsyncEngine,
        datasets: Mapping[str, Dataset],
        *,
        cache_seconds: float = METRICS_CACHE_SECONDS,
    ) -> None:
        self._engine = engine
        self._datasets = datasets
        self._cache_seconds = cache_seconds
        self._valid_until = 0.0
        self._paused: list[str] = []
        self._paused_until = 0.0
        self._counting = asyncio.Lock()
        self._registry = metrics.registry_for("api")

    async def render(self) -> bytes:
        """Return all metrics in the text format of Prometheus.

        While the database is unavailable, the numbers of the queue are missing and ``exporter_queue_read``
        is 0. If only the deliveries cannot be counted in time, only their number is missing.
        """
        async with self._counting:
            if time.monotonic() >= self._valid_until:
                await self._count()
                self._valid_until = time.monotonic() + self._cache_seconds
        return generate_latest(self._registry)

    async def paused(self) -> list[str]:
        """Return the scopes of the pauses of claims, read at most once per second; none during an outage."""
        if time.monotonic() >= self._paused_until:
            self._paused_until = time.monotonic() + PAUSES_CACHE_SECONDS
            with suppress(Retryable, SQLAlchemyError):
                self._paused = anonymous(pause.scope for pause in await PauseStore(self._engine).all())
        return self._paused

    async def _count(self) -> None:
        try:
            paused = PausedClaims(frozenset(pause.scope for pause in await PauseStore(self._engine).all()))
            backlog = await read_backlog(
                self._engine, users=paused.users, datasets=paused.datasets(self._datasets)
            )
            schedules = (await count_schedules(self._engine)).by_state()
        except Retryable as error:
            log.warning("metrics.queue_read_failed", error=str(error))
            metrics.set_queue(None, None)
            metrics.set_operations(None, None, ())
        else:
            metrics.set_queue(backlog.jobs, backlog.oldest)
            metrics.set_operations(schedules, await self._deliveries_waiting(), anonymous(paused.scopes))

    async def _deliveries_waiting(self) -> int | None:
        """Return how many deliveries wait, or ``None`` if they cannot be counted."""
        try:
            return (await count_deliveries(self._engine)).waiting
        except Retryable as error:
            log.warning("metrics.deliveries_read_failed", error=str(error))
            return None
