"""Reports the worker to the list of workers, and reads what operators have paused."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version

import structlog

from stream_app.jobs.claim_pauses import PausedClaims
from stream_app.jobs.worker_registry import WorkerRegistry
from stream_app.observability import metrics
from stream_app.periodic import repeat
from streaming_exporter.errors import Retryable

log = structlog.get_logger(__name__)

INTERVAL = 2.0
"""Seconds between two reports. All workers know a new pause after this time."""

LEAVE_SECONDS = 2.0


class WorkerPresence:
    """Reports one worker.

    Attributes:
        paused: what is paused; ``None`` until the first report was written. Nothing is claimed before.
    """

    def __init__(
        self,
        registry: WorkerRegistry,
        name: str,
        *,
        slots: int,
        running: Callable[[], int],
        is_claiming: Callable[[], bool] = lambda: True,
    ) -> None:
        """Set what is reported. A worker that does not claim yet has no slots for the jobs that wait."""
        self.paused: PausedClaims | None = None
        self._has_left = False
        self._registry = registry
        self._name = name
        self._slots = slots
        self._running = running
        self._is_claiming = is_claiming
        self._started_at = datetime.now(UTC)
        self._version = version("streaming-exporter-service")

    async def run(self) -> None:
        """Report every :data:`INTERVAL` seconds."""
        await repeat("presence", self.report, INTERVAL, first=0)

    async def report(self) -> None:
        """Report once.

        Raises:
            Retryable: the database is away. What was paused before stays paused.
        """
        if self._has_left:
            return
        paused = await self._registry.report(
            self._name,
            slots=self._slots if self._is_claiming() else 0,
            running=self._running(),
            version=self._version,
            started_at=self._started_at,
        )
        if paused != (self.paused or PausedClaims()):
            log.info("claims.changed", paused=sorted(paused.scopes))
        self.paused = paused
        metrics.CLAIMS_PAUSED.set(len(paused.scopes))

    async def leave(self) -> None:
        """Remove the worker from the list, as far as that is possible within a short time."""
        self._has_left = True
        with suppress(Retryable, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._registry.leave(self._name)
