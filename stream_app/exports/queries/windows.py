"""Whether the rows of a run can be limited to its window, by the types of the dataset's columns. Pure."""

from stream_app.datasets.typed_values import TEMPORAL
from stream_app.exports.queries.deletions import DELETION_KINDS
from stream_app.exports.tables.catalog import SourceTable
from streaming_exporter.errors import Rejected


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


def _misconfigured(what: str, name: str, key: str, allowed: str) -> Rejected:
    return Rejected(
        f"dataset {name!r} cannot {what}; operators: {key} in the datasets file must name a column with "
        f"{allowed}",
        code="source_misconfigured",
        field="window",
    )
