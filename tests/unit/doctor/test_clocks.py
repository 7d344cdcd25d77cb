"""Decisions use the clock of the state database, not that of a machine (Q2)."""

import ast
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from api.schedules import changes
from stream_app.db import clock as clocks
from stream_app.db.clock import DatabaseClock
from stream_app.jobs.claim import Claim
from streaming_exporter.events import ExportRequest

ROOT = Path(__file__).parents[3]

MACHINES = {
    "api/files/download_audit.py": "when something was done, in the log and in events",
    "api/auth/authenticator.py": "tokens end by the clock of whoever checks them",
    "api/jobs/estimates.py": "the date on a sample that nobody keeps",
    "api/jobs/schemas.py": "shown where a caller has no reading",
    "api/jobs/event_stream.py": "the end of a token, and marks of time in a stream",
    "api/schedules/schemas.py": "which next runs are shown",
    "stream_app/notifications/webhook.py": "the time of a signature, which receivers compare with theirs",
    "stream_app/doctor": "compares clocks",
    "stream_app/datasets/watcher.py": "when a process has read its file, as operators see it",
    "streaming_exporter/events.py": "when an event was published",
    "stream_app/exports/formats/pdf/report.py": "the date on a report",
    "stream_app/storage/listing.py": "an object without a date is taken to be new",
    "stream_app/db/clock.py": "until there is a reading",
    "stream_app/jobs/write_check.py": "a job that nobody sees",
    "stream_app/observability/metrics.py": "how late an admission is, as a measurement",
    "stream_app/worker/presence.py": "when a worker has started, as operators see it",
    "api/operations/doctor.py": "when a report was made, as operators see it",
    "stream_app/worker/liveness.py": "the age of a file on this machine",
}
"""Modules that use the machine's clock, and why no decision depends on it."""


NAMES = re.compile(r"\b(?:now|utcnow|today)\b|\btime\s*\.\s*time\b")
"""Words that a module has if it uses the clock. Files without them, which are most, need not be parsed."""


def asking() -> set[str]:
    """Return the modules that use the machine's clock."""
    found = set()
    for folder in ("stream_app", "api"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            for node in ast.walk(ast.parse(text)) if NAMES.search(text) else ():
                if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                    "datetime.now", "dt.datetime.now", "datetime.utcnow", "date.today", "time.time",
                ):  # fmt: skip
                    found.add(path.relative_to(ROOT).as_posix())
    return found


def test_only_listed_modules_use_the_clock_of_the_machine() -> None:
    unknown = {path for path in asking() if not any(path.startswith(known) for known in MACHINES)}
    assert unknown == set(), "use the clock of the job store, the claim's, or now() in the statement"


def test_the_time_of_an_attempt_counts_from_its_claim() -> None:
    """So the files of a worker whose clock is days behind do not expire at once."""
    started = datetime(2020, 1, 1, tzinfo=UTC)
    request = ExportRequest(user_id="u", export_type="ledger", format="csv")
    claim = Claim(uuid4(), 1, "w", 0, request, started, claimed=time.monotonic() - 60)
    assert timedelta(seconds=60) <= claim.now - started < timedelta(seconds=70)


async def test_the_clock_advances_from_its_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [100.0]
    monkeypatch.setattr(clocks, "_passed", lambda: passed[0])
    clock = DatabaseClock(create_async_engine("postgresql+asyncpg://"))
    cast(Any, clock)._reading = datetime(2020, 1, 1, tzinfo=UTC), 95.0
    assert clock.now() == datetime(2020, 1, 1, second=5, tzinfo=UTC)
    passed[0] = 104.0
    assert await clock.read() == datetime(2020, 1, 1, second=9, tzinfo=UTC), "fresh enough"


@pytest.mark.parametrize(("start_after", "same"), [(timedelta(), True), (timedelta(minutes=5), False)])
async def test_the_first_call_of_an_api_compares_a_schedule_with_the_clock_of_the_database(
    monkeypatch: pytest.MonkeyPatch, start_after: timedelta, same: bool
) -> None:
    """The clock of its machine can be slow, and a repeated request must find the schedule that it made."""
    of_database = datetime.now(UTC) + timedelta(days=1)
    clock = DatabaseClock(create_async_engine("postgresql+asyncpg://"))

    async def read() -> None:
        cast(Any, clock)._reading = of_database, clocks._passed()

    monkeypatch.setattr(clock, "_read", read)
    schedule: Any = SimpleNamespace(window_start=of_database + start_after)
    services: Any = SimpleNamespace(clock=clock)
    assert await changes._can_begin(services, schedule, None) is same
