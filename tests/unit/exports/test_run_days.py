"""The day in the names of files: that on which a run was due, in the time zone of its schedule."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from stream_app.exports.bundles.archive import BundleArchive
from stream_app.exports.bundles.members import BundleFacts, Member
from stream_app.exports.bundles.writer import BundleWriter
from stream_app.exports.files.file_writer import FileKind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.stage_spans import StageTimes
from stream_app.exports.task import ExportProgress, ExportTask
from stream_app.jobs.claim import run_day_of
from streaming_exporter.events import Options
from tests.rows import each_row

NOW = datetime(2026, 3, 28, 23, 30, 4, tzinfo=UTC)
NOTHING: Any = None


@each_row(
    ("run_at", "zone", "window", "day"),
    [
        ("2026-03-29T23:30:00+00:00", "Europe/London", None, "2026-03-30"),
        ("2026-11-26T23:00:00+00:00", "Asia/Tokyo", None, "2026-11-27"),
        ("2026-11-27T02:00:00+00:00", "America/Los_Angeles", None, "2026-11-26"),
        ("2026-11-27T02:00:00+00:00", "UTC", {"timezone": "America/Los_Angeles"}, "2026-11-26"),
        ("2026-11-27T02:00:00+00:00", None, {"timezone": "Asia/Tokyo"}, "2026-11-27"),
        ("2026-11-27T02:00:00+00:00", None, None, None),
        ("2026-11-27T02:00:00+00:00", "Nowhere/Land", None, None),
        ("2026-11-27T02:00:00+00:00", "../etc/passwd", None, None),
        (None, "Asia/Tokyo", None, None),
    ],
)
def test_a_run_has_the_day_of_its_time_zone(
    run_at: str | None, zone: str | None, window: dict[str, str] | None, day: str | None
) -> None:
    at = None if run_at is None else datetime.fromisoformat(run_at)
    assert run_day_of(at, zone, window) == (None if day is None else date.fromisoformat(day))


def names(task: ExportTask) -> list[str]:
    """Return the names of a file, of one of several, of a bundle, and of a file in its archive."""
    csv, document = FORMATS["csv"], Document("ledger", (), Options(), NOW)
    files = FileKind(task, NOTHING, document, csv, None)
    facts = BundleFacts("month", "", None, NOTHING, NOW, None)
    bundle = BundleWriter(NOTHING, task, facts, csv, None, None, [document], None, ExportProgress())
    archive = BundleArchive(csv, None, None, Tally(), StageTimes(), task.day)
    member = archive._name(cast(Member, SimpleNamespace(document=document)))
    return [files.name(), files.name(2), bundle.file_name, member]


def test_files_of_runs_have_the_day_of_the_run_and_others_that_of_their_rows() -> None:
    task = ExportTask("t", NOTHING, NOW, str)
    assert names(task) == [
        "ledger-2026-03-28.csv",
        "ledger-2026-03-28-00002.csv",
        "month-2026-03-28.zip",
        "ledger-2026-03-28.csv",
    ]
    assert names(replace(task, run_day=date(2026, 3, 29))) == [
        "ledger-2026-03-29.csv",
        "ledger-2026-03-29-00002.csv",
        "month-2026-03-29.zip",
        "ledger-2026-03-29.csv",
    ]


def test_no_two_days_of_a_daily_run_have_the_same_name() -> None:
    """00:30 in London: the runs of 29 and 30 March have the same day in UTC, and 26 October has none."""
    london = [datetime(2026, 1, 1, 0, 30, tzinfo=UTC) + timedelta(days=number) for number in range(365)]
    summer = (date(2026, 3, 29), date(2026, 10, 25))
    due = [at - timedelta(hours=1) if summer[0] < at.date() <= summer[1] else at for at in london]
    days = [run_day_of(at, "Europe/London", None) for at in due]
    assert days == [at.date() for at in london]
    assert len({at.date() for at in due}) < len(due)
