"""The readiness of the parts that the API needs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog
from sqlalchemy.exc import SQLAlchemyError

from streaming_exporter.errors import ExporterError

log = structlog.get_logger(__name__)

CHECK_TIMEOUT_SECONDS = 5.0
READINESS_CACHE_SECONDS = 1.0

WRITE_CHECK = "database_writes"
"""The part that is available while the state database can be written."""
LIVE_UPDATES = "feed"
"""The part that is available while changed jobs are read for live updates. The name is part of the API."""
INTERNAL_PARTS = frozenset({LIVE_UPDATES})
"""Parts of the API itself, which it always needs."""
HIDDEN_PARTS = INTERNAL_PARTS | {WRITE_CHECK}
"""Parts that are listed only while they are unavailable."""


class Readiness:
    """Checks whether the parts are available, at most once per :data:`READINESS_CACHE_SECONDS`."""

    def __init__(self, checks: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
        """Set the check of each part; a check raises an error if its part is unavailable."""
        self._checks = checks
        self._checking = asyncio.Lock()
        self._valid_until = float("-inf")
        self._parts: dict[str, str] = {}
        self._errors: dict[str, str] = {}

    async def parts(self) -> dict[str, str]:
        """Return each part with ``ok`` or ``unavailable``."""
        async with self._checking:
            if time.monotonic() >= self._valid_until:
                found = await asyncio.gather(*map(_error_of, self._checks.values()))
                errors = {name: text for name, text in zip(self._checks, found, strict=True) if text}
                for name, text in errors.items():
                    if self._errors.get(name) != text:  # not at each check, since an outage can last
                        log.warning("health.check_failed", part=name, error=text)
                self._errors = errors
                self._parts = {
                    name: "unavailable" if name in errors else "ok"
                    for name in self._checks
                    if name in errors or name not in HIDDEN_PARTS
                }
                self._valid_until = time.monotonic() + READINESS_CACHE_SECONDS
        return self._parts


async def _error_of(check: Callable[[], Awaitable[object]]) -> str | None:
    """Return why a part does not answer, or ``None``."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await check()
    except (ExporterError, SQLAlchemyError, TimeoutError) as error:
        return str(error) or repr(error)
    return None
