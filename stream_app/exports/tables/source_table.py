"""The description of a dataset's table, view or query: its columns, their order, its size."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile

from stream_app.datasets.models import Dataset
from stream_app.datasets.query_text import ParsedQuery
from stream_app.exports.columns import Column, quote_name, quote_text
from stream_app.exports.filters.relative_dates import resolve_request
from stream_app.exports.sources.snapshot import Snapshot
from stream_app.exports.tables.catalog_queries import fingerprint_expression
from stream_app.exports.tables.query_catalog import describing_sql, fingerprint_of
from streaming_exporter.events import ExportRequest


@dataclass(frozen=True, slots=True)
class TableSize:
    """The size of a table when PostgreSQL last analysed or vacuumed it.

    Attributes:
        rows: the number of rows.
        bytes: bytes of all its pages, with those of ``toast_bytes``.
        toast_bytes: bytes of the values that are stored outside of the rows (TOAST).
    """

    rows: float
    bytes: int
    toast_bytes: int


@dataclass(frozen=True, slots=True)
class SourceTable:
    """The table, view or query of a dataset.

    Attributes:
        schema, name: the table or view; empty for a query.
        columns: the columns that can be exported, in order.
        all_columns: also the columns that the dataset hides but filters or orders by, such as its owner.
        search_path: schemas for the operators of its types and the functions of its view.
        has_computed_columns: whether reading can fail, because it is a view or query, or has virtual columns.
        has_row_security: whether row-level security can hide rows from the service's role.
        fingerprint: a value that changes with each change of the columns, and with the first child.
        can_be_cut: whether several queries, each for a part of its rows, give the rows of one query.
        can_be_cut_by_page: whether PostgreSQL can read a range of its pages alone.
        size: its size; ``None`` if it is unknown.
        query: the query; ``None`` for a table or view.
        masked_columns: the columns that the dataset masks, as callers see them who do not see the values.
        template_columns: names of all columns of the dataset, also of those that a caller does not see;
            empty for the names of ``columns``.
    """

    dataset: Dataset
    schema: str
    name: str
    columns: tuple[Column, ...]
    all_columns: Mapping[str, Column]
    primary_key: tuple[str, ...]
    search_path: tuple[str, ...] = ()
    has_computed_columns: bool = False
    has_row_security: bool = False
    fingerprint: str = ""
    can_be_cut: bool = False
    can_be_cut_by_page: bool = False
    size: TableSize | None = field(default=None, compare=False)
    query: ParsedQuery | None = None
    masked_columns: Mapping[str, Column] = field(default_factory=dict)
    template_columns: tuple[str, ...] = ()

    @property
    def filterable(self) -> dict[str, Column]:
        """The columns that filters can use: the exported ones without a mask, and those of windows."""
        found = {item.name: item for item in self.columns if item.mask is None}
        for name in filter(None, (self.dataset.time, self.dataset.deleted_at)):
            found.setdefault(name, self.all_columns[name])
        return found

    def resolve(self, request: ExportRequest, now: datetime) -> ExportRequest:
        """Return ``request`` with its relative times replaced by their values at ``now``."""
        return resolve_request(
            request, self.filterable, now, self.dataset.timezone, parameters=self.dataset.parameters
        )

    @property
    def fingerprint_sql(self) -> str | None:
        """An SQL expression with :attr:`fingerprint` as value until the table changes; none for a query."""
        if self.query is not None:
            return None
        return fingerprint_expression(quote_text(f"{quote_name(self.schema)}.{quote_name(self.name)}"))

    async def is_unchanged(self, snapshot: Snapshot) -> bool:
        """Return whether the columns are still those of this description.

        ``snapshot`` has been opened with :attr:`fingerprint_sql`. A query is described once more.
        """
        if self.query is None:
            return snapshot.initial_value == self.fingerprint
        described = await snapshot.describe(describing_sql(self.query, self.dataset))
        return fingerprint_of(described) == self.fingerprint

    @property
    def locking_sql(self) -> str:
        """An SQL expression that locks the table as reading does, until the transaction ends."""
        name = f"{quote_name(self.schema)}.{quote_name(self.name)}"
        return f"(SELECT pg_catalog.count(*) FROM (SELECT FROM {name} LIMIT 0) AS locked)"

    @property
    def order_columns(self) -> tuple[str, ...]:
        """Names of the columns that the rows are ordered by: those of the datasets file, else none."""
        return self.dataset.order or ()

    @property
    def visible_order(self) -> tuple[str, ...]:
        """The order that users see: it ends before the first column that the dataset hides."""
        names = {item.name for item in self.columns}
        return tuple(takewhile(names.__contains__, self.order_columns))
