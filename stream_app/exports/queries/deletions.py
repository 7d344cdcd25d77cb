"""Deletions beside the rows: the requests for both files of a run with a window. Pure.

The dataset names the column that tells when a row was deleted. The file of the rows has the rows of the
window that are not deleted in the snapshot. The file of the deletions has those that were deleted in it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from stream_app.datasets.models import Dataset
from stream_app.exports.columns import Kind
from stream_app.exports.filters.relative_dates import as_filter_value
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest

FileContent = Literal["rows", "deletions"]
"""What a file has, where one export has files of both."""

SUFFIX = "-deleted"
"""What the names of files with deletions have before their number."""

UTC_ZONE = ZoneInfo("UTC")
"""The zone of times without one, also in the filters of windows."""

DELETION_KINDS = frozenset({Kind.TIMESTAMP, Kind.TIMESTAMPTZ})
"""Kinds of columns that can tell when a row was deleted."""


def has_deletions(dataset: Dataset, window: Mapping[str, Any] | None) -> bool:
    """Return whether an export writes deletions beside its rows."""
    return window is not None and dataset.deleted_at is not None


def live_request(dataset: Dataset, request: ExportRequest) -> ExportRequest:
    """Return the request for the rows of a run that are not deleted."""
    filters = {**request.filters, str(dataset.deleted_at): {"is_null": True}}
    return request.model_copy(update={"filters": filters})


def deletions_request(table: SourceTable, request: ExportRequest, window: Mapping[str, Any]) -> ExportRequest:
    """Return the request for the rows that were deleted in the window of a run.

    The other filters, the columns and the scope are those of the rows.
    :func:`~stream_app.exports.queries.windows.check_window_columns` has checked the type of the column.
    """
    name = str(table.dataset.deleted_at)
    kind = table.all_columns[name].kind
    start, end = (
        as_filter_value(datetime.fromisoformat(window[limit]), kind, UTC_ZONE) for limit in ("from", "to")
    )
    filters = {name: test for name, test in request.filters.items() if name != table.dataset.time}
    return request.model_copy(update={"filters": {**filters, name: {"gte": start, "lt": end}}})


def require_visible(dataset: Dataset, visible: Dataset, window: Mapping[str, Any] | None) -> None:
    """Check that the caller of a run with a window sees when rows were deleted, if the dataset has that.

    Otherwise the rows of the run could neither leave deleted rows out nor name them.

    Raises:
        Rejected: the caller does not see the column.
    """
    if has_deletions(dataset, window) and visible.deleted_at is None:
        raise Rejected(
            f"you cannot see the column that tells when rows of dataset {dataset.name!r} were deleted, so "
            "you cannot export it with a window",
            code="no_time_column",
            field="window",
        )
