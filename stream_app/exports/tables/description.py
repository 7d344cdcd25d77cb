"""Reads the description of a dataset's table or query from its source: columns, types, primary key."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from stream_app.datasets.mask_names import is_mask_name
from stream_app.datasets.models import Dataset
from stream_app.datasets.rights import scope_columns
from stream_app.exports.columns import KIND_OF_TYPE, Column, Kind, kind_of, quote_name
from stream_app.exports.masks.registry import masked_column
from stream_app.exports.sources.snapshot import FETCH_SECONDS, Snapshot
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog_queries import (
    COLUMNS,
    TYPES,
    ColumnRow,
    TypedColumn,
    TypeRow,
    assemble_type,
)
from stream_app.exports.tables.query_catalog import (
    LOCK_SECONDS,
    DescribedQuery,
    describe_masks,
    describe_query,
    describing_origin,
)
from stream_app.exports.tables.source_table import SourceTable, TableSize
from streaming_exporter.errors import Rejected

log = structlog.get_logger(__name__)

LIKE_EVERYWHERE = 180_000
"""The first version of PostgreSQL that searches texts of every collation."""

TID_RANGE_SCANS = 140_000
"""The first version of PostgreSQL that reads a range of a table's pages without reading the others."""


async def read_description(source: Source, dataset: Dataset) -> SourceTable:
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
        encoding=row.encoding,
    )
