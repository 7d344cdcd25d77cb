"""Descriptions of the datasets' tables, read from the source database: columns, types, primary key."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import takewhile
from typing import TypeVar

import structlog

from stream_app.datasets.mask_names import is_mask_name
from stream_app.datasets.models import Dataset
from stream_app.datasets.query_text import ParsedQuery
from stream_app.datasets.rights import scope_columns
from stream_app.exports.columns import KIND_OF_TYPE, Column, Kind, kind_of, quote_name, quote_text
from stream_app.exports.filters.relative_dates import resolve_request
from stream_app.exports.masks.registry import masked_column
from stream_app.exports.sources.registry import SourceFinder
from stream_app.exports.sources.snapshot import FETCH_SECONDS, Snapshot
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog_queries import (
    COLUMNS,
    TYPES,
    ColumnRow,
    TypedColumn,
    TypeRow,
    assemble_type,
    fingerprint_expression,
)
from stream_app.exports.tables.query_catalog import (
    LOCK_SECONDS,
    DescribedQuery,
    describe_masks,
    describe_query,
    describing_origin,
    describing_sql,
    fingerprint_of,
)
from streaming_exporter.errors import Outage, Rejected, Retryable
from streaming_exporter.events import ExportRequest

log = structlog.get_logger(__name__)

CACHE_SECONDS = 30.0
"""How long a description is used before it is read again."""

LIKE_EVERYWHERE = 180_000
"""The first version of PostgreSQL that searches texts of every collation."""

BEING_CHANGED = "the dataset's table is being changed"

Result = TypeVar("Result")


TID_RANGE_SCANS = 140_000
"""The first version of PostgreSQL that reads a range of a table's pages without reading the others."""


class TableChanged(Exception):
    """The table does not match its description any more."""


class TableBeingChanged(Retryable):
    """The table does not match its newest description: it was changed while that was read.

    The table of a snapshot that was taken before a change never matches it.
    """

    code = "table_changed"

    def __init__(self) -> None:
        super().__init__(BEING_CHANGED)


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


@dataclass(frozen=True, slots=True)
class _Known:
    """A description that was read from ``source``, and until when it is used."""

    until: float
    source: Source
    table: SourceTable


class Catalog:
    """Reads descriptions of tables and keeps them for :data:`CACHE_SECONDS`."""

    def __init__(self, sources: SourceFinder, *, seconds: float | None = None) -> None:
        """Create an empty catalog of the tables in ``sources``.

        ``seconds`` is the time limit for reading a description where a user waits for it.
        """
        self._sources = sources
        self._seconds = seconds
        self._known: dict[str, _Known] = {}
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def table(self, dataset: Dataset) -> SourceTable:
        """Return the table of ``dataset``.

        Raises:
            Rejected: the table, or a column that the dataset names, does not exist.
            Retryable: the source database cannot be reached.
        """
        known = self._known_of(dataset)
        if known is not None and known.until > time.monotonic():
            return known.table
        return await self._read(dataset, known)

    async def use(self, dataset: Dataset, work: Callable[[SourceTable], Awaitable[Result]]) -> Result:
        """Call ``work`` with the table of ``dataset`` and return its result.

        If ``work`` fails with a cached description, the description is read again, once. If the table has
        changed since, ``work`` is called again.

        Raises:
            Rejected, Retryable: as :meth:`table` and ``work`` do.
        """
        return await self.use_all([dataset], lambda tables: work(tables[0]))

    async def use_all(
        self, datasets: Sequence[Dataset], work: Callable[[Sequence[SourceTable]], Awaitable[Result]]
    ) -> Result:
        """Call ``work`` with the tables of several datasets and return its result, as :meth:`use` does.

        Cached descriptions are read again together.
        """
        known = [self._known_of(dataset) for dataset in datasets]
        tables = [await self.table(dataset) for dataset in datasets]
        try:
            return await work(tables)
        except (Rejected, TableChanged) as error:
            again = [
                table if was is None or was.table is not table else await self._read(dataset, was)
                for dataset, was, table in zip(datasets, known, tables, strict=True)
            ]
            if again == tables:
                raise _final(error) from error
            changed = [new.dataset.name for new, old in zip(again, tables, strict=True) if new != old]
            log.info("dataset.changed", dataset=", ".join(changed))
        try:
            return await work(again)
        except TableChanged as error:
            raise _final(error) from error

    def _known_of(self, dataset: Dataset) -> _Known | None:
        """Return what is known, unless the datasets file has changed the dataset or its source since."""
        known = self._known.get(dataset.name)
        if known is None or known.source is not self._sources.source_for(dataset):
            return None
        return known if known.table.dataset is dataset or known.table.dataset == dataset else None

    async def _read(self, dataset: Dataset, known: _Known | None) -> SourceTable:
        """Read the description, unless another task has read it since ``known``.

        The time limit includes the wait for that task: each of many callers waits for one answer at most.
        """
        source = self._sources.source_for(dataset)
        try:
            async with asyncio.timeout(self._seconds), self._reading[dataset.name]:
                newest = self._known_of(dataset)
                if newest is not None and newest is not known:
                    return newest.table
                source = self._sources.source_for(dataset)
                table = await _read_description(source, dataset)
                self._known[dataset.name] = _Known(time.monotonic() + CACHE_SECONDS, source, table)
                return table
        except TimeoutError as error:
            raise Outage(f"source database {source.name}: no answer within {self._seconds} s") from error


async def _read_description(source: Source, dataset: Dataset) -> SourceTable:
    """Read the description of a dataset's table or query."""
    if dataset.query is not None:
        async with source.snapshot(
            "exporter catalog", seconds=FETCH_SECONDS, lock_seconds=LOCK_SECONDS
        ) as snapshot:
            described = await describe_query(snapshot, dataset, dataset.query)
            table = _query_table(dataset, described)
            return await _with_masks(snapshot, table, describing_origin(described.query, dataset))
    name = _name(dataset.table or "")
    rows = [ColumnRow(**row) for row in await source.fetch(COLUMNS, name)]
    types: dict[int, TypeRow] = {}
    if any(row.base not in KIND_OF_TYPE and row.category != b"e" for row in rows):
        types = {row["oid"]: TypeRow(**row) for row in await source.fetch(TYPES, name)}
    table = _table(dataset, rows, types)
    if all(item.mask is None for item in dataset.column_settings.values()):
        return table
    async with source.snapshot(
        "exporter catalog", search_path=table.search_path, seconds=FETCH_SECONDS, lock_seconds=LOCK_SECONDS
    ) as snapshot:
        return await _with_masks(snapshot, table, f"{quote_name(table.schema)}.{quote_name(table.name)}")


async def _with_masks(snapshot: Snapshot, table: SourceTable, origin: str) -> SourceTable:
    """Return ``table`` with its columns as they are with their masks."""
    masked = {
        name: masked_column(settings.mask, table.all_columns[name])
        for name, settings in table.dataset.column_settings.items()
        if settings.mask is not None and is_mask_name(settings.mask)
    }
    columns, types = await describe_masks(snapshot, table.dataset, origin)
    for item in columns:
        mask = table.dataset.column_settings[item.name].mask
        masked[item.name] = replace(_column(item, types), mask=mask)
    return replace(table, masked_columns=masked)


def _final(error: Rejected | TableChanged) -> Exception:
    """Return the error for the caller. For a table that is being changed it is a temporary error."""
    return error if isinstance(error, Rejected) else TableBeingChanged()


def _name(table: str) -> str:
    return ".".join(map(quote_name, table.split(".", 1)))


def _table(dataset: Dataset, rows: Sequence[ColumnRow], types: Mapping[int, TypeRow]) -> SourceTable:
    """Return the description. Hidden names are logged for operators, and are not in the users' errors."""
    if not rows:
        log.warning("dataset.table_missing", dataset=dataset.name, table=dataset.table)
        raise Rejected(
            f"dataset {dataset.name!r} cannot be exported at the moment: its table does not exist in the "
            "source database, or the service has no permission to see it; operators: the log has its name",
            code="missing_table",
        )
    columns = {row.name: _column(row, types) for row in rows}
    _check_named(dataset, columns)
    keys = sorted((row.key_position, row.name) for row in rows if row.key_position >= 0)
    first = rows[0]
    return SourceTable(
        dataset=dataset,
        schema=first.schema,
        name=first.table,
        columns=tuple(columns[name] for name in dataset.columns or columns),
        all_columns=columns,
        primary_key=tuple(name for _, name in keys),
        search_path=tuple(dict.fromkeys((first.schema, *sorted({row.home for row in rows}), "public"))),
        has_computed_columns=first.relkind == b"v" or any(row.is_virtual for row in rows),
        has_row_security=first.filtered,
        fingerprint=first.fingerprint,
        # A partition that is attached meanwhile would be in the later ranges and not in the earlier ones.
        can_be_cut=first.is_alone and not any(row.is_virtual for row in rows),
        can_be_cut_by_page=first.is_alone and first.is_heap and first.version >= TID_RANGE_SCANS,
        size=_size(first),
    )


def _query_table(dataset: Dataset, described: DescribedQuery) -> SourceTable:
    """Return the description of a query. It is read as a view is: by one statement, without a key."""
    columns = {item.name: _column(item, described.types) for item in described.columns}
    _check_named(dataset, columns)
    return SourceTable(
        dataset=dataset,
        schema="",
        name="",
        columns=tuple(columns[name] for name in dataset.columns or columns),
        all_columns=columns,
        primary_key=(),
        search_path=described.search_path,
        has_computed_columns=True,
        has_row_security=described.has_row_security,
        fingerprint=described.fingerprint,
        query=described.query,
    )


def _check_named(dataset: Dataset, columns: Mapping[str, Column]) -> None:
    """Check that the columns exist that the datasets file names. A mask of no column would hide nothing.

    A column that only has a label is no error: a column can be dropped before its label.
    """
    named = [
        *(dataset.columns or ()),
        *(dataset.order or ()),
        *filter(None, (dataset.owner, dataset.time, dataset.deleted_at)),
        *scope_columns(dataset),
        *(name for name, item in dataset.column_settings.items() if item.mask or item.roles),
    ]
    if missing := [name for name in named if name not in columns]:
        log.warning("dataset.columns_missing", dataset=dataset.name, table=dataset.table, columns=missing)
        raise Rejected(
            f"dataset {dataset.name!r} cannot be exported at the moment: its table has no column that the "
            "datasets file names; operators: the log has the column's name",
            code="missing_column",
        )


def _size(row: ColumnRow) -> TableSize | None:
    if row.pages <= 0 or row.estimated_rows < 0:
        return None
    toast_bytes = row.toast_pages * row.page_bytes
    return TableSize(row.estimated_rows, row.pages * row.page_bytes + toast_bytes, toast_bytes)


def _column(row: TypedColumn, types: Mapping[int, TypeRow]) -> Column:
    shape = assemble_type(row.type_oid, types) if types else None
    if shape is not None and shape.element is not None:
        base, kind = shape.element.name, Kind.ARRAY
    else:
        base, kind = row.base, kind_of(row.base, row.category)
    return Column(
        row.name,
        row.type,
        base,
        kind,
        row.nullable,
        tuple(row.labels),
        # A cast to "name" cuts the value to 63 bytes. As text it is compared as a whole.
        "pg_catalog.text" if base == "name" and kind is Kind.TEXT else row.cast,
        equality=row.equality,
        ordering=row.ordering,
        pattern=row.deterministic or row.version >= LIKE_EVERYWHERE,
        deterministic=row.deterministic,
        declared=row.declared,
        shape=shape,
        is_key=row.is_key,
    )
