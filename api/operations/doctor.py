"""Runs the checks of ``exporter doctor`` that are cheap, for operators who ask over HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncEngine

from api.operations.schemas import DoctorReport, FindingView
from stream_app.db.engine import autocommitting, outages_are_retryable
from stream_app.doctor.findings import Finding, FindingFactory, worst
from stream_app.settings import Settings
from streaming_exporter.errors import ExporterError

if TYPE_CHECKING:
    from stream_app.kafka.brokers import Brokers

DOCTOR_CACHE_SECONDS = 10.0
"""The time for which a result is used again."""
DOCTOR_SECONDS = 10.0
"""Time-out of the checks of one part."""
ANSWERS = "answers"
"""The name of the finding about a part that does not answer."""


@dataclass(slots=True)
class Doctor:
    """Runs the cheap checks of ``exporter doctor``, at most every :data:`DOCTOR_CACHE_SECONDS`."""

    settings: Settings
    engine: AsyncEngine
    _report: DoctorReport | None = None
    _valid_until: float = 0.0
    _checking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def report(self) -> DoctorReport:
        """Return the findings. A part that does not answer is one finding."""
        async with self._checking:
            if self._report is None or time.monotonic() >= self._valid_until:
                # Imported late: the checks need the migrations, and the API otherwise does not.
                from stream_app.doctor.datasets import check_datasets, check_destinations
                from stream_app.doctor.unwise_settings import check_settings

                findings = [*check_settings(self.settings)]
                findings += await asyncio.to_thread(lambda: [*check_datasets(self.settings)])
                findings += check_destinations(self.settings)
                findings += await _within("database", self._database())
                findings += await _within("kafka", self._kafka())
                if not any(finding.check == ANSWERS for finding in findings):
                    # It asks both. Where one of them does not answer, that is a finding already.
                    findings += await _within("kafka", self._dead_letters(), "dead letters")
                self._report = DoctorReport(
                    state=worst(findings),
                    checked_at=datetime.now(UTC),
                    findings=[FindingView(**asdict(finding)) for finding in findings],
                )
                self._valid_until = time.monotonic() + DOCTOR_CACHE_SECONDS
            return self._report

    async def _database(self) -> list[Finding]:
        from stream_app.doctor.state_database import check_state_database

        with outages_are_retryable():
            async with self.engine.connect() as connection:
                return [item async for item in check_state_database(connection, self.settings)]

    async def _kafka(self) -> list[Finding]:
        from stream_app.doctor.topics import check_topics

        async with self._brokers() as brokers:
            return [item async for item in check_topics(brokers, self.settings)]

    async def _dead_letters(self) -> list[Finding]:
        from stream_app.doctor.dead_letters import check_dead_letters

        with outages_are_retryable():
            async with self._brokers() as brokers, autocommitting(self.engine).connect() as connection:
                return [await check_dead_letters(connection, brokers, self.settings)]

    @asynccontextmanager
    async def _brokers(self) -> AsyncIterator["Brokers"]:
        from stream_app.kafka.brokers import Brokers

        brokers = Brokers(self.settings, client_id="exporter-api-doctor", timeout=DOCTOR_SECONDS / 2)
        try:
            yield brokers
        finally:
            await brokers.close()


async def _within(area: str, check: Coroutine[Any, Any, list[Finding]], name: str = ANSWERS) -> list[Finding]:
    """Return the findings of ``check``, or a finding of that name if there is no answer in time."""
    try:
        async with asyncio.timeout(DOCTOR_SECONDS):
            return await check
    except TimeoutError:
        return [FindingFactory(area).problem(name, "no_answer", seconds=round(DOCTOR_SECONDS))]
    except ExporterError as error:
        found = FindingFactory(area).problem_of(error)
        return [replace(found, check=name) if found.check == ANSWERS else found]
