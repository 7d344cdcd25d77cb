"""Finds out whether the source databases answer: for readiness, metrics, and workers that wait for one."""

import asyncio
import math
import time

import structlog

from stream_app.exports.sources.errors import NoFreeConnection
from stream_app.exports.sources.registry import Sources
from stream_app.exports.sources.source import Source
from stream_app.observability import metrics
from stream_app.periodic import repeat
from streaming_exporter.errors import ExporterError

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
"""Seconds between two looks at the sources."""

IDLE_SECONDS = 30.0
"""A source is asked if no transaction has begun for this time."""

STARTING_SECONDS = 5.0
"""A source is asked if no transaction has begun for this time although exports wait for one."""

AWAY_SECONDS = 3.0
"""Seconds between two questions to a source that does not answer."""

CHECK_SECONDS = 3.0
"""Time limit of a question."""

OK, UNAVAILABLE, UNKNOWN = "ok", "unavailable", "unknown"


class SourceMonitor:
    """Asks sources whether they answer, each independently of the others.

    A source that exports use is not asked: each transaction that begins is an answer.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._failed_at: dict[str, float] = {}
        self._probed_at: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Ask the sources, until it is cancelled."""
        try:
            await repeat("source_check", self._look, POLL_SECONDS, first=0)
        finally:
            for task in self._asking.values():
                task.cancel()

    def states(self) -> dict[str, str]:
        """Return each source with ``ok``, ``unavailable``, or ``unknown`` if it was not asked yet."""
        return {name: self._state(source) for name, source in self._sources.items()}

    def _state(self, source: Source) -> str:
        failed_at = self._failed_at.get(source.name)
        has_failed = failed_at is not None and time.monotonic() - failed_at < source.pool.silent_seconds
        if source.pool.unavailable_since is not None or has_failed:
            return UNAVAILABLE
        return UNKNOWN if source.pool.silent_seconds == math.inf else OK

    async def _look(self) -> None:
        for name, source in self._sources.items():
            if name not in self._asking and self._is_due(source):
                self._probed_at[name] = time.monotonic()
                self._asking[name] = asyncio.create_task(self._ask(source))
        states = self.states()
        metrics.set_sources(
            {name: (state != UNAVAILABLE, self._sources[name].pool.demand) for name, state in states.items()}
        )

    def _is_due(self, source: Source) -> bool:
        if self._state(source) == UNAVAILABLE:
            pause = AWAY_SECONDS
        else:
            pause = STARTING_SECONDS if source.pool.starting else IDLE_SECONDS
        probed = time.monotonic() - self._probed_at.get(source.name, -math.inf)
        return min(probed, source.pool.silent_seconds) >= pause

    async def _ask(self, source: Source) -> None:
        try:
            await source.check(CHECK_SECONDS)
            self._failed_at.pop(source.name, None)
        except NoFreeConnection:
            return
        except ExporterError as error:
            if source.name not in self._failed_at:
                log.warning("source.check_failed", source=source.name, error=str(error))
            self._failed_at[source.name] = time.monotonic()
        finally:
            self._asking.pop(source.name, None)
