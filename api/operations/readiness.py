"""Whether the parts that the API needs answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog
from sqlalchemy.exc import SQLAlchemyError

from streaming_exporter.errors import ExporterError

log = structlog.get_logger(__name__)

CHECK_SECONDS = 5.0
CACHE_SECONDS = 1.0
"""How long one look at the parts serves, however many ask."""


INSIDE = frozenset({"feed"})
"""Parts of the API itself, of which only a fault is of interest."""


class Readiness:
    """Whether the parts answer, asked at most once a second."""

    def __init__(self, checks: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
        self._checks = checks
        self._looking = asyncio.Lock()
        self._until = float("-inf")
        self._parts: dict[str, str] = {}

    async def parts(self) -> dict[str, str]:
        """Each part, and ``ok`` or ``unavailable``."""
        async with self._looking:
            if time.monotonic() >= self._until:
                answers = await asyncio.gather(*(_answers(*item) for item in self._checks.items()))
                self._parts = {
                    name: "ok" if fine else "unavailable"
                    for name, fine in zip(self._checks, answers, strict=True)
                    if not (fine and name in INSIDE)
                }
                self._until = time.monotonic() + CACHE_SECONDS
        return self._parts


async def _answers(name: str, check: Callable[[], Awaitable[object]]) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except (ExporterError, SQLAlchemyError, TimeoutError) as error:
        log.warning("health.check_failed", part=name, error=repr(error))
        return False
    return True
