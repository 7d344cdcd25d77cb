"""The interface of the export engine: what it is asked for, its limits, its progress and its result."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Literal, Self

from stream_app.datasets.models import Dataset
from stream_app.exports.formats.base import Tally
from stream_app.exports.stage_spans import StageTimes
from stream_app.settings import Settings
from streaming_exporter.events import ExportRequest

ESTIMATE_AFTER = 0.5
"""Seconds after which the rows of an export are estimated: a shorter export needs no progress."""

ROW_SECURITY = "row_level_security"
"""Warning in the manifest: row-level security can hide rows of a table from the service's role."""

SLOW_SOURCE_SECONDS = 0.5
"""An export that waits longer than this for its next rows is in the phase ``source``."""


@dataclass(frozen=True, slots=True)
class TaskPart:
    """A part of an export: its files have no manifest of their own.

    Attributes:
        range: the range of rows, as JSON (see :class:`~stream_app.exports.reading.row_range.RowRange`).
        snapshot: the snapshot to read; ``None`` for a new one.
        as_of: the time of that snapshot.
        number: numbers the parts of an export from 1.
    """

    range: Mapping[str, Any]
    snapshot: str | None = None
    as_of: datetime | None = None
    number: int = 1


@dataclass(frozen=True, slots=True)
class ExportTask:
    """One export.

    Attributes:
        name: names the export in the sessions of the source database (``application_name``).
        request: the request; relative dates in its filters count from ``requested_at``.
        requested_at: when the export was requested.
        target: returns the object key for a file name.
        window: ``{"from": …, "to": …}`` of a schedule's run, as ISO 8601 times, or ``None``.
        part: the part of the export to write; ``None`` for the whole export.
        run_day: the day on which the run of a schedule was due, or ``None``.
    """

    name: str
    request: ExportRequest
    requested_at: datetime
    target: Callable[[str], str]
    window: dict[str, Any] | None = None
    part: TaskPart | None = None
    run_day: date | None = None

    def day(self, as_of: datetime) -> str:
        """Return the day in the names of files: that of the run, else that of the snapshot, in UTC."""
        return f"{self.run_day or as_of:%Y-%m-%d}"

    @property
    def job(self) -> str:
        """The id of the job: the name up to the number of the part."""
        return self.name.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class FileLimits:
    """The largest file that an export writes; ``None`` means no limit.

    Attributes:
        max_rows: rows of the file.
        max_bytes: bytes that PostgreSQL sends for its rows.
        file_bytes: bytes of the file. A larger export is divided into several files.
    """

    max_rows: int | None = None
    max_bytes: int | None = None
    file_bytes: int | None = None

    def at_most(self, file_bytes: int) -> Self:
        """Return these limits for files of ``file_bytes`` at most."""
        own = file_bytes if self.file_bytes is None else min(self.file_bytes, file_bytes)
        return replace(self, file_bytes=own)


@dataclass(frozen=True, slots=True)
class RowLimit:
    """A limit of rows.

    Attributes:
        rows: the number of rows.
        what: what the limit is for, such as "a pdf file".
        ways: what a user can do.
    """

    rows: int
    what: str
    ways: str = "limit the export with filters"


@dataclass(frozen=True, slots=True)
class ExportLimits:
    """The limits of all exports, those of the files of single formats, and those of one dataset.

    Attributes:
        max_rows: rows of one export.
        formats: limits of files, by the name of the format.
        file_bytes: bytes of one file. A larger export is divided into several files.
        max_files: files of one export.
        dataset: the dataset whose limit counts as well; see :meth:`of_dataset`.
    """

    max_rows: int | None = None
    formats: Mapping[str, FileLimits] = field(default_factory=dict)
    file_bytes: int | None = None
    max_files: int = 10_000
    dataset: Dataset | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read the limits from the settings."""
        pdf = FileLimits(settings.pdf_max_rows, settings.pdf_max_bytes)
        return cls(settings.max_rows, {"pdf": pdf}, settings.split_max_bytes, settings.split_max_files)

    def of_dataset(self, dataset: Dataset) -> Self:
        """Return these limits with that of ``dataset``."""
        return self if dataset.max_rows is None else replace(self, dataset=dataset)

    def of_file(self, format_name: str) -> FileLimits:
        """Return the limits of a file of the format ``format_name``."""
        own = self.formats.get(format_name, FileLimits())
        limits = [own.max_rows, *(limit.rows for limit in self._of_export())]
        return FileLimits(min(filter(None, limits), default=None), own.max_bytes, self.file_bytes)

    def of_rows(self, request: ExportRequest) -> RowLimit | None:
        """Return the smallest limit of the rows of an export.

        With ``split`` the format's own limit is per file.
        """
        limits = list(self._of_export())
        own = self.formats.get(request.format, FileLimits()).max_rows
        if own is not None and request.split is None:
            ways = "limit the export with filters, divide it into several files, or choose another format"
            limits.insert(0, RowLimit(own, f"a {request.format} file", ways))
        return min(limits, key=lambda limit: limit.rows, default=None)

    def _of_export(self) -> Iterator[RowLimit]:
        if self.dataset is not None and self.dataset.max_rows is not None:
            yield RowLimit(self.dataset.max_rows, f"an export of the dataset {self.dataset.name!r}")
        if self.max_rows is not None:
            yield RowLimit(self.max_rows, "an export")


@dataclass(slots=True)
class ExportProgress:
    """The progress of an export. The export writes it; others read it.

    Attributes:
        waits_since: when the export began to wait for its source, by :func:`time.monotonic`; ``None`` while
            it does not wait.
        times: the busy seconds of the stages.
    """

    tally: Tally = field(default_factory=Tally)
    estimated_rows: int | None = None
    waits_since: float | None = None
    times: StageTimes = field(default_factory=StageTimes)

    @property
    def phase(self) -> str:
        """Return what the export does: ``prepare``, ``source`` (waits for rows), ``transfer``, ``upload``."""
        if "source" in self.times.running:
            return "source" if self.source_seconds > SLOW_SOURCE_SECONDS else "transfer"
        return "upload" if self.times.running else "prepare"

    @property
    def source_seconds(self) -> float:
        """Seconds that the export has waited for its source, without interruption until now."""
        return 0.0 if self.waits_since is None else time.monotonic() - self.waits_since


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One of several files, with its number from 1. ``file_size`` is bytes."""

    number: int
    file_name: str
    key: str
    content_type: str
    row_count: int
    file_size: int
    sha256: str
    content: Literal["rows", "deletions"] | None = None
    """What the file has, where an export has files of both."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The result of a finished export. The names are those of the event ``export.completed``.

    With several ``files``, ``row_count`` and ``file_size`` are totals, and ``key``, ``file_name``,
    ``content_type`` and ``sha256`` are those of ``manifest.json``. With a single file ``files`` is empty.
    """

    row_count: int
    file_size: int
    sha256: str
    bucket: str
    key: str
    content_type: str
    file_name: str
    as_of: datetime
    manifest: dict[str, Any]
    files: tuple[ExportedFile, ...] = ()
