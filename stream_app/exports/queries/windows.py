"""How the rows of a run are limited to its window, by the types of the dataset's columns. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stream_app.datasets.typed_values import TEMPORAL
from stream_app.exports.columns import Kind
from stream_app.exports.filters.relative_dates import as_filter_value
from stream_app.exports.queries.deletions import DELETION_KINDS
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest


def check_window_columns(table: SourceTable, *, has_deletions: bool) -> None:
    """Check the types of the columns that a window limits.

    Args:
        table: the table as the caller of the request sees it.
        has_deletions: whether rows that were deleted have a file of their own. Those of a bundle have none.

    Raises:
        Rejected: a column has no times. The text does not name it, because the caller possibly does not see
            it.
    """
    dataset, columns = table.dataset, table.all_columns
    if dataset.time is not None and columns[dataset.time].kind not in TEMPORAL:
        raise _misconfigured("limit its rows to a window", dataset.name, "time", "dates or timestamps")
    deleted_at = columns[dataset.deleted_at] if has_deletions and dataset.deleted_at is not None else None
    if deleted_at is not None and deleted_at.kind not in DELETION_KINDS:
        raise _misconfigured("tell when rows were deleted", dataset.name, "deleted_at", "timestamps")


def with_window(
    table: SourceTable, request: ExportRequest, window: Mapping[str, Any] | None
) -> ExportRequest:
    """Return the request of a run with the limits of its window as the type of the time column needs them.

    They were written for the type that the column had when the schedule was saved: days for dates, else
    moments. Operators can have changed the column, or its type, since then.

    Args:
        table: the table of the dataset, or of one of a bundle.
        request: the request for its rows.
        window: the window of the run; ``None`` if it has none.
    """
    if window is None:
        return request
    columns: Mapping[str, str] = window.get("columns") or {}
    name = columns.get(table.dataset.name) or str(window.get("column"))
    column = table.all_columns.get(name)
    if column is None or column.kind not in TEMPORAL:
        return request
    try:
        zone = ZoneInfo(window["timezone"])
    except (KeyError, ZoneInfoNotFoundError, ValueError, OSError):
        return request  # a window of another version of the service
    limits = {kind: _limits(window, kind, zone) for kind in (column.kind, Kind.DATE, Kind.TIMESTAMPTZ)}
    if request.filters.get(name) not in limits.values():
        return request  # a filter that is not of the window
    return request.model_copy(update={"filters": {**request.filters, name: limits[column.kind]}})


def _limits(window: Mapping[str, Any], kind: Kind, zone: ZoneInfo) -> dict[str, str]:
    start, end = (datetime.fromisoformat(window[limit]) for limit in ("from", "to"))
    return {"gte": as_filter_value(start, kind, zone), "lt": as_filter_value(end, kind, zone)}


def _misconfigured(what: str, name: str, key: str, allowed: str) -> Rejected:
    return Rejected(
        f"dataset {name!r} cannot {what}; operators: {key} in the datasets file must name a column with "
        f"{allowed}",
        code="source_misconfigured",
        field="window",
    )
