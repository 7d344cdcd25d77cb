"""What one export is asked for, how far it is, and what it has written."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stream_app.exports.formats.base import Tally
from streaming_exporter.events import ExportRequest


@dataclass(frozen=True, slots=True)
class ExportTask:
    """One export.

    Attributes:
        name: names the export in the sessions of the source database (``application_name``).
        request: the request; relative dates in its filters count from ``asked_at``.
        asked_at: when the export was asked for.
        target: returns the object key for a file name.
        window: ``{"from": …, "to": …}`` of a schedule's run, as ISO 8601 times, or ``None``.
    """

    name: str
    request: ExportRequest
    asked_at: datetime
    target: Callable[[str], str]
    window: dict[str, Any] | None = None


@dataclass(slots=True)
class ExportProgress:
    """How far an export is: the export writes it, and others read it."""

    tally: Tally = field(default_factory=Tally)
    estimated_rows: int | None = None


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The file of a finished export. The names are those of the event ``export.completed``."""

    row_count: int
    file_size: int
    sha256: str
    bucket: str
    key: str
    content_type: str
    file_name: str
    as_of: datetime
    manifest: dict[str, Any]
