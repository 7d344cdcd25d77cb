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
    source: SourceTable,
    rows: RowQuery,
    *,
    target_bytes: int,
    min_bytes: int = 0,
    at_least: int = 1,
    at_most: int = sys.maxsize,
) -> Sequence[RowRange]:
    """Cut ``rows`` into ranges, in the order of the rows.

    An export that is known to be small costs no round trip.

    Args:
        snapshot: a snapshot with the table. It can be used again whatever happens.
        source: the table.
        rows: the query.
        target_bytes: approximate bytes of a range, as COPY writes them.
        min_bytes: an export with fewer bytes is one range.
        at_least: as many ranges, unless they would be smaller than :data:`SMALLEST_RANGE`.
        at_most: the most ranges, whatever the others say. With more bytes the ranges become larger.

    Returns:
        The ranges. A single one means that the rows cannot be cut or are too few.
    """
    known = source.size
    # The pages can hold compressed values, and the table can have grown since.
    if not source.can_be_cut or (known is not None and known.bytes < min_bytes / 4):
        return ALL_ROWS
    try:
        async with snapshot.savepoint():
            return await _planned(snapshot, source, rows, target_bytes, min_bytes, at_least, at_most)
    except asyncpg.PostgresConnectionError:
        raise
    except (asyncpg.PostgresError, UnicodeError) as error:  # UnicodeError: a database without an encoding
        # The statement of the export itself meets the same error, or can do without ranges.
        log.info("export.cutting_failed", dataset=source.dataset.name, error=str(error))
        return ALL_ROWS


async def _planned(
    snapshot: Snapshot,
    source: SourceTable,
    rows: RowQuery,
    target_bytes: int,
    min_bytes: int,
    at_least: int,
    at_most: int,
) -> Sequence[RowRange]:
    plan = await snapshot.explain(await asyncio.to_thread(render, rows.select))
    size = _bytes(plan.rows, plan, source, rows)
    if size < min_bytes:
        return ALL_ROWS
    count = max(math.ceil(size / target_bytes), min(at_least, int(size // SMALLEST_RANGE)))
    count = min(count, at_most)
    if count < 2:
        return ALL_ROWS
    if source.order_columns:
        return await _by_value(snapshot, source, rows, min(count, MOST_VALUES), at_most)
    if source.can_be_cut_by_page and plan.node_types <= _WHOLE_TABLE:
        most = min(_count_without_filter(plan, source, rows, target_bytes), at_most)
        return await _by_page(snapshot, source, rows, count, most)
    return ALL_ROWS


def _bytes(number: float, plan: QueryPlan, source: SourceTable, rows: RowQuery) -> float:
    """Estimate the bytes of ``number`` of the rows as COPY writes them."""
    more = sum(1 + _MORE_TEXT.get(item.kind, 0) for item in rows.columns)
    size = number * (plan.width + more)
    known = source.size
    if known is not None and known.rows > 0:
        # The planner's width leaves out what is stored outside of the rows.
        size += int(_toast_bytes(source, rows) * min(1.0, number / known.rows))
    return size


def _count_without_filter(plan: QueryPlan, source: SourceTable, rows: RowQuery, target_bytes: int) -> int:
    """Return how many ranges all rows of the table would need, or 0 if no filter drops any.

    With as many, no range has more bytes than ``target_bytes``, wherever the other rows are.
    """
    if rows.select.whereclause is None and not source.has_row_security:
        return 0
    known = source.size
    if known is None or known.rows <= 0:
        return sys.maxsize
    return math.ceil(_bytes(known.rows, plan, source, rows) / target_bytes)


def _toast_bytes(source: SourceTable, rows: RowQuery) -> int:
    """Return the bytes that are stored outside of all rows, if values of ``rows`` can be among them."""
    known = source.size
    can_be = known is not None and any(item.kind in _CAN_BE_TOASTED for item in rows.columns)
    return known.toast_bytes if known is not None and can_be else 0


def _most_reads(source: SourceTable, rows: RowQuery) -> float:
    """Return how often each page of the table can be read on average.

    To read a page once more costs little if most bytes of the exported rows are stored outside of it. It is
    not known which of the columns has these bytes, so all that can have them must be exported.
    """
    outside, known = _toast_bytes(source, rows), source.size
    can_have = {name for name, item in source.all_columns.items() if item.kind in _CAN_BE_TOASTED}
    if not outside or known is None or not can_have <= {item.name for item in rows.columns}:
        return MOST_READS
    return MOST_READS * known.bytes / max(1, known.bytes - outside)


async def _by_page(
    snapshot: Snapshot, source: SourceTable, rows: RowQuery, count: int, most: int
) -> Sequence[RowRange]:
    """Cut at pages: into ``count`` ranges, or up to ``most`` of them if there are very many pages."""
    name = quote_text(_name(source))
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
    plan = await _plan_of_one(snapshot, rows, ranges)
    return ranges if plan.node_types <= _PAGE_BY_PAGE else ALL_ROWS


async def _by_value(
    snapshot: Snapshot, source: SourceTable, rows: RowQuery, count: int, at_most: int
) -> Sequence[RowRange]:
    """Cut at values of a sample: into ``count`` ranges and that of NULL, but not more than ``at_most``."""
    lead = source.all_columns[source.order_columns[0]]
    # "IS NULL" is also true for a composite value whose fields are all NULL.
    if not lead.ordering or lead.data_type.fields or lead.is_enum_domain:
        return ALL_ROWS
    count = min(count, at_most - lead.nullable)
    if count < 2:
        return ALL_ROWS
    pages = await pages_with_index(snapshot, _name(source), lead)
    if pages is None:
        return ALL_ROWS
    fewest, most = SAMPLED_PAGES
    wanted = max(fewest, min(PAGES_OF_A_RANGE * count, max(most, PAGES_AT_LEAST * count)))
    percent = min(100.0, 100 * wanted / max(pages, 1))
    # In a thread, because a filter with many values takes long to render.
    sql = await asyncio.to_thread(_sample_query, source, rows, lead, percent, count)
    sampled = await snapshot.fetch(sql)
    if not sampled or sampled[0]["reads"] > _most_reads(source, rows):
        return ALL_ROWS
    ranges = _between(lead, [row["bound"] for row in sampled])
    plan = await _plan_of_one(snapshot, rows, ranges)
    return ranges if plan.searches(lead.name) else ALL_ROWS


def _name(source: SourceTable) -> str:
    return f"{quote_name(source.schema)}.{quote_name(source.name)}"


def _sample_query(source: SourceTable, rows: RowQuery, lead: Column, percent: float, count: int) -> str:
    """Return the query for up to ``count`` - 1 values that cut a sample of the rows into equal parts.

    Its column ``reads`` is the average number of parts that have rows in one page.
    """
    name = reference(lead.name)
    origin = table(quoted_name(source.name, quote=True), schema=quoted_name(source.schema, quote=True))
    sample = tablesample(origin, func.system(literal_column(f"{percent:.9f}")), seed=literal_column("0"))
    value: ColumnElement[Any] = name.label("value")
    page: ColumnElement[Any] = literal_column("(ctid::text::point)[0]").label("page")
    number = func.row_number().over(order_by=name).label("number")
    total = func.count().over().label("total")
    values = select(value, page, number, total).select_from(sample).where(name.is_not(None))
    if rows.select.whereclause is not None:
        values = values.where(rows.select.whereclause)
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


def _between(lead: Column, bounds: Sequence[str]) -> Sequence[RowRange]:
    """Return the ranges between ``bounds``, which ascend."""
    kept = tuple(dict.fromkeys(bounds))
    if not kept:
        return ALL_ROWS
    # A cast to "name" cuts the value; "text" compares in the same way.
    return ValueRanges(RowRange(column=lead.name, type=lead.cast or lead.type), kept, lead.nullable)


async def _plan_of_one(snapshot: Snapshot, rows: RowQuery, ranges: Sequence[RowRange]) -> QueryPlan:
    """Return the plan of one of the ranges, as the transactions that share a snapshot make it."""
    one = ranges[len(ranges) // 2]
    sql = await asyncio.to_thread(render, one.apply(rows).select)
    return await snapshot.explain(sql, as_shared=True)
