"""Cuts the rows of an export into ranges, which several queries read instead of one.

The rows of all ranges, one range after the other, are the rows of the whole query in the same order:

- Without an order the rows are cut at pages of the table: PostgreSQL reads a table page by page.
- With an order they are cut at values of the first column of the order. Rows with the same value are in the
  same range, and NULL, which comes last, is a range of its own.

Other queries stay in one range: those of views, foreign tables and partitioned tables, those without a
suitable index, and those whose rows are stored in another order.
"""

import asyncio
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import structlog
from sqlalchemy import ColumnElement, func, literal_column, select, table, tablesample
from sqlalchemy.sql.elements import quoted_name

from stream_app.exports.columns import Column, Kind, quote_name, quote_text
from stream_app.exports.queries.row_query import RowQuery, reference
from stream_app.exports.queries.sql_text import render
from stream_app.exports.reading.order_index import pages_with_index
from stream_app.exports.reading.row_range import ALL_ROWS, PageRanges, RowRange, ValueRanges
from stream_app.exports.sources.query_plan import QueryPlan
from stream_app.exports.sources.snapshot import Snapshot
from stream_app.exports.tables.source_table import SourceTable

log = structlog.get_logger(__name__)

SMALLEST_RANGE = 2**20
"""Bytes of the smallest range: each range costs a round trip."""

MOST_VALUES = 40_000
"""The most values to cut at. With more bytes the ranges become larger. Ranges of pages have no such limit."""

SAMPLED_PAGES = (300, 30_000)
"""The fewest and the most pages that are read to find values to cut at; more with :data:`PAGES_AT_LEAST`."""

PAGES_OF_A_RANGE = 8
"""Pages that are read to find one value to cut at."""

PAGES_AT_LEAST = 3
"""Pages that are read to find one of very many values to cut at.

Values of one page are near to each other: with fewer pages than values, some ranges would be tiny and
others large.
"""

PAGES_OF_FILTERED_ROWS = 4_096
"""The most pages of a range of filtered rows, unless fewer ranges would do for all rows of the table."""

ROWS_OF_A_RANGE = 4
"""Rows of the sample, at least, between two values to cut at."""

LONGEST_VALUE = 1_000
"""Bytes of the longest value to cut at."""

MOST_READS = 3.0
"""How often each page can be read on average, because it has rows of several ranges. The rows of a table are
often stored roughly in the order of a time or a serial number; rows in the order of a random key are not."""

_MORE_TEXT: Mapping[Kind, int] = {
    Kind.INTEGER: 3, Kind.FLOAT: 8, Kind.BOOLEAN: 3, Kind.UUID: 20, Kind.DATE: 6, Kind.TIME: 7,
    Kind.TIMESTAMP: 16, Kind.TIMESTAMPTZ: 18,
}  # fmt: skip
"""How many bytes more a value has as text than PostgreSQL needs to store it."""

_CAN_BE_TOASTED = frozenset({Kind.TEXT, Kind.JSON, Kind.BYTES, Kind.ARRAY, Kind.NUMERIC, Kind.OTHER})

_WHOLE_TABLE = frozenset({"Seq Scan", "Gather"})
_PAGE_BY_PAGE = frozenset({"Tid Range Scan"})


async def plan_ranges(
    snapshot: Snapshot,
    source_table: SourceTable,
    query: RowQuery,
    *,
    target_bytes: int,
    min_bytes: int = 0,
    at_least: int = 1,
    at_most: int = sys.maxsize,
) -> Sequence[RowRange]:
    """Cut the rows of ``query`` into ranges, in the order of the rows.

    An export that is known to be small costs no round trip.

    Args:
        snapshot: a snapshot with the table. It can be used again whatever happens.
        source_table: the table.
        query: reads its rows.
        target_bytes: approximate bytes of a range, as COPY writes them.
        min_bytes: an export with fewer bytes is one range.
        at_least: as many ranges, unless they would be smaller than :data:`SMALLEST_RANGE`.
        at_most: the most ranges, whatever the others say. With more bytes the ranges become larger.

    Returns:
        The ranges. A single one means that the rows cannot be cut or are too few.
    """
    table_size = source_table.size
    # The pages can hold compressed values, and the table can have grown since.
    if not source_table.can_be_cut or (table_size is not None and table_size.bytes < min_bytes / 4):
        return ALL_ROWS
    try:
        async with snapshot.savepoint():
            return await _planned(snapshot, source_table, query, target_bytes, min_bytes, at_least, at_most)
    except asyncpg.PostgresConnectionError:
        raise
    except (asyncpg.PostgresError, UnicodeError) as error:  # UnicodeError: a database without an encoding
        # The statement of the export itself meets the same error, or can do without ranges.
        log.info("export.cutting_failed", dataset=source_table.dataset.name, error=str(error))
        return ALL_ROWS


async def _planned(
    snapshot: Snapshot,
    source_table: SourceTable,
    query: RowQuery,
    target_bytes: int,
    min_bytes: int,
    at_least: int,
    at_most: int,
) -> Sequence[RowRange]:
    plan = await snapshot.explain(await asyncio.to_thread(render, query.select))
    estimated_bytes = _estimated_bytes(plan.rows, plan, source_table, query)
    if estimated_bytes < min_bytes:
        return ALL_ROWS
    count = max(
        math.ceil(estimated_bytes / target_bytes), min(at_least, int(estimated_bytes // SMALLEST_RANGE))
    )
    count = min(count, at_most)
    if count < 2:
        return ALL_ROWS
    if source_table.order_columns:
        return await _by_value(snapshot, source_table, query, min(count, MOST_VALUES), at_most)
    if source_table.can_be_cut_by_page and plan.node_types <= _WHOLE_TABLE:
        most = min(_count_without_filter(plan, source_table, query, target_bytes), at_most)
        return await _by_page(snapshot, source_table, query, count, most)
    return ALL_ROWS


def _estimated_bytes(number: float, plan: QueryPlan, source_table: SourceTable, query: RowQuery) -> float:
    """Estimate the bytes of ``number`` of the rows as COPY writes them."""
    more = sum(1 + _MORE_TEXT.get(item.kind, 0) for item in query.columns)
    estimated_bytes = number * (plan.width + more)
    table_size = source_table.size
    if table_size is not None and table_size.rows > 0:
        # The planner's width leaves out what is stored outside of the rows.
        estimated_bytes += int(_toast_bytes(source_table, query) * min(1.0, number / table_size.rows))
    return estimated_bytes


def _count_without_filter(
    plan: QueryPlan, source_table: SourceTable, query: RowQuery, target_bytes: int
) -> int:
    """Return how many ranges all rows of the table would need, or 0 if no filter drops any.

    With as many, no range has more bytes than ``target_bytes``, wherever the other rows are.
    """
    if query.select.whereclause is None and not source_table.has_row_security:
        return 0
    table_size = source_table.size
    if table_size is None or table_size.rows <= 0:
        return sys.maxsize
    return math.ceil(_estimated_bytes(table_size.rows, plan, source_table, query) / target_bytes)


def _toast_bytes(source_table: SourceTable, query: RowQuery) -> int:
    """Return the bytes that are stored outside of all rows, if values of ``query`` can be among them."""
    table_size = source_table.size
    can_be = table_size is not None and any(item.kind in _CAN_BE_TOASTED for item in query.columns)
    return table_size.toast_bytes if table_size is not None and can_be else 0


def _most_reads(source_table: SourceTable, query: RowQuery) -> float:
    """Return how often each page of the table can be read on average.

    To read a page once more costs little if most bytes of the exported rows are stored outside of it. It is
    not known which of the columns has these bytes, so all that can have them must be exported.
    """
    outside, table_size = _toast_bytes(source_table, query), source_table.size
    can_have = {name for name, item in source_table.all_columns.items() if item.kind in _CAN_BE_TOASTED}
    if not outside or table_size is None or not can_have <= {item.name for item in query.columns}:
        return MOST_READS
    return MOST_READS * table_size.bytes / max(1, table_size.bytes - outside)


async def _by_page(
    snapshot: Snapshot, source_table: SourceTable, query: RowQuery, count: int, most: int
) -> Sequence[RowRange]:
    """Cut at pages: into ``count`` ranges, or up to ``most`` of them if there are very many pages."""
    name = quote_text(_name(source_table))
    found = await snapshot.first(f"""
        SELECT pg_catalog.pg_relation_size({name}::pg_catalog.regclass)
               / pg_catalog.current_setting('block_size')::int AS pages,
               pg_catalog.pg_relation_filenode({name}::pg_catalog.regclass) AS storage
    """)
    pages, storage = (int(found["pages"]), found["storage"]) if found else (0, None)
    # Where a filter drops most rows, the others can all be in a few pages.
    ranges = PageRanges(pages, max(count, min(pages // PAGES_OF_FILTERED_ROWS, most)), storage)
    if len(ranges) < 2:
        return ALL_ROWS
    plan = await _plan_of_one(snapshot, query, ranges)
    return ranges if plan.node_types <= _PAGE_BY_PAGE else ALL_ROWS


async def _by_value(
    snapshot: Snapshot, source_table: SourceTable, query: RowQuery, count: int, at_most: int
) -> Sequence[RowRange]:
    """Cut at values of a sample: into ``count`` ranges and that of NULL, but not more than ``at_most``."""
    order_column = source_table.all_columns[source_table.order_columns[0]]
    # "IS NULL" is also true for a composite value whose fields are all NULL.
    if not order_column.ordering or order_column.data_type.fields or order_column.is_enum_domain:
        return ALL_ROWS
    count = min(count, at_most - order_column.nullable)
    if count < 2:
        return ALL_ROWS
    pages = await pages_with_index(snapshot, _name(source_table), order_column)
    if pages is None:
        return ALL_ROWS
    fewest, most = SAMPLED_PAGES
    wanted = max(fewest, min(PAGES_OF_A_RANGE * count, max(most, PAGES_AT_LEAST * count)))
    percent = min(100.0, 100 * wanted / max(pages, 1))
    # In a thread, because a filter with many values takes long to render.
    sql = await asyncio.to_thread(_sample_query, source_table, query, order_column, percent, count)
    sampled = await snapshot.fetch(sql)
    if not sampled or sampled[0]["reads"] > _most_reads(source_table, query):
        return ALL_ROWS
    ranges = _between(order_column, [row["bound"] for row in sampled])
    plan = await _plan_of_one(snapshot, query, ranges)
    return ranges if plan.searches(order_column.name) else ALL_ROWS


def _name(source_table: SourceTable) -> str:
    return f"{quote_name(source_table.schema)}.{quote_name(source_table.name)}"


def _sample_query(
    source_table: SourceTable, query: RowQuery, order_column: Column, percent: float, count: int
) -> str:
    """Return the query for up to ``count`` - 1 values that cut a sample of the rows into equal parts.

    Its column ``reads`` is the average number of parts that have rows in one page.
    """
    name = reference(order_column.name)
    origin = table(
        quoted_name(source_table.name, quote=True), schema=quoted_name(source_table.schema, quote=True)
    )
    sample = tablesample(origin, func.system(literal_column(f"{percent:.9f}")), seed=literal_column("0"))
    value: ColumnElement[Any] = name.label("value")
    page: ColumnElement[Any] = literal_column("(ctid::text::point)[0]").label("page")
    number = func.row_number().over(order_by=name).label("number")
    total = func.count().over().label("total")
    values = select(value, page, number, total).select_from(sample).where(name.is_not(None))
    if query.select.whereclause is not None:
        values = values.where(query.select.whereclause)
    parts = f"least({count}, total / {ROWS_OF_A_RANGE})"
    return f"""
        WITH sample AS MATERIALIZED (
            SELECT value, number, page, (number - 1) * {parts} / total AS part,
                   number * {parts} / total AS next_part, number = total AS is_last
            FROM ({render(values)}) AS rows
        )
        SELECT bound, (
            SELECT count(DISTINCT (page, part))::float8 / count(DISTINCT page) FROM sample
        ) AS reads
        FROM (
            SELECT value::pg_catalog.text AS bound, number FROM sample
            WHERE part <> next_part AND NOT is_last
        ) AS bounds
        WHERE pg_catalog.octet_length(bound) <= {LONGEST_VALUE}
        ORDER BY number
    """


def _between(order_column: Column, bounds: Sequence[str]) -> Sequence[RowRange]:
    """Return the ranges between ``bounds``, which ascend."""
    kept = tuple(dict.fromkeys(bounds))
    if not kept:
        return ALL_ROWS
    # A cast to "name" cuts the value; "text" compares in the same way.
    return ValueRanges(
        RowRange(column=order_column.name, type=order_column.cast or order_column.type),
        kept,
        order_column.nullable,
    )


async def _plan_of_one(snapshot: Snapshot, query: RowQuery, ranges: Sequence[RowRange]) -> QueryPlan:
    """Return the plan of one of the ranges, as the transactions that share a snapshot make it."""
    one = ranges[len(ranges) // 2]
    sql = await asyncio.to_thread(render, one.apply(query).select)
    return await snapshot.explain(sql, as_shared=True)
