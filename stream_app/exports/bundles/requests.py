"""The request for each dataset of a bundle, checked against its table. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog

from stream_app.datasets.bundle_requests import member_request
from stream_app.datasets.bundles import Bundle
from stream_app.datasets.models import Dataset
from stream_app.datasets.rights import of_member
from stream_app.exports.formats.base import Format
from stream_app.exports.queries.presentation import shown_rows
from stream_app.exports.queries.row_query import RowQuery, row_query
from stream_app.exports.queries.windows import with_window
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest

log = structlog.get_logger(__name__)


def resolve_member(
    bundle: Bundle,
    member: Dataset,
    table: SourceTable,
    request: ExportRequest,
    now: datetime,
    window: Mapping[str, Any] | None = None,
) -> ExportRequest:
    """Return the request for the rows of one dataset, with its relative times as they are at ``now``.

    Args:
        bundle: the bundle.
        member: the dataset.
        table: its table as the caller of the request sees it.
        request: the request for the bundle.
        now: the time that relative times count from.
        window: the window of a schedule's run, or ``None``.

    Raises:
        Rejected: the bundle's own filter needs a column that the caller does not see. The text does not name
            the column.
    """
    if any(name not in table.filterable for name in bundle.filters.get(member.name, ())):
        log.warning("bundle.filter_refused", bundle=bundle.name, dataset=member.name)
        raise Rejected(
            "the bundle's own filters need a column that you cannot see; operators: change these filters",
            code="filter_of_bundle",
        )
    return table.resolve(with_window(table, member_request(bundle, member, request), window), now)


def shown_member(
    bundle: Bundle,
    member: Dataset,
    table: SourceTable,
    request: ExportRequest,
    file_format: Format,
    now: datetime,
    window: Mapping[str, Any] | None = None,
) -> tuple[RowQuery, ExportRequest]:
    """Return the rows of one dataset and the request for them, for a check or an estimate.

    Raises:
        Rejected: the request is wrong for this dataset, whose name the text has.
    """
    try:
        wanted = resolve_member(bundle, member, table, request, now, window)
        query, options = shown_rows(row_query(table, wanted), table.dataset, wanted.options, file_format)
    except Rejected as error:
        raise of_member(bundle, member, error) from error
    return query, wanted.model_copy(update={"options": options})
