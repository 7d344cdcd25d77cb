"""Cuts the rows of an export into ranges, which several queries read instead of one.

The rows of all ranges, one range after the other, are the rows of the whole query in the same order:

- Without an order the rows are cut at pages of the table: PostgreSQL reads a table page by page.
- With an order they are cut at values of the first column of the order. Rows with the same value are in the
  same range, and NULL, which comes last, is a range of its own.

Other queries stay in one range: those of views, foreign tables and partitioned tables, those without a
suitable index, and those that PostgreSQL would rather answer in another way.
"""

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Self

import asyncpg
import structlog
from sqlalchemy import ColumnElement, func, literal_column, select, table, tablesample
from sqlalchemy.sql.elements import quoted_name

from stream_app.exports.catalog import SourceTable
from stream_app.exports.columns import Column, Kind, quote_name, quote_text
from stream_app.exports.query import RowQuery, reference, render
from stream_app.exports.query_plan import QueryPlan
from stream_app.exports.source import Snapshot

log = structlog.get_logger(__name__)

SMALLEST_RANGE = 2**20
"""Bytes of the smallest range: each range costs a round trip."""

MOST_RANGES = 10_000
"""The largest number of ranges. More of them make the ranges larger."""

SAMPLED_PAGES = (300, 30_000)
"""The fewest and the most pages that are read to find values to cut at."""

PAGES_OF_A_RANGE = 8
"""Pages that are read to find one value to cut at."""

PAGES_OF_FILTERED_ROWS = 4_096
"""The most pages of a range, unless there would be too many ranges."""

ROWS_OF_A_RANGE = 4
"""Rows of the sample, at least, between two values to cut at."""

LONGEST_VALUE = 1_000
"""Bytes of the longest value to cut at."""

COST_FACTOR = 2.0
"""All ranges together can cost so many times as much as one query. If they cost more, PostgreSQL reads the
rows of each range in a worse way, such as the whole table for each."""

_MORE_TEXT: Mapping[Kind, int] = {
    Kind.INTEGER: 3, Kind.FLOAT: 8, Kind.BOOLEAN: 3, Kind.UUID: 20, Kind.DATE: 6, Kind.TIME: 7,
    Kind.TIMESTAMP: 16, Kind.TIMESTAMPTZ: 18,
}  # fmt: skip
"""How many bytes more a value has as text than PostgreSQL needs to store it."""

_CAN_BE_TOASTED = frozenset({Kind.TEXT, Kind.JSON, Kind.BYTES, Kind.ARRAY, Kind.NUMERIC, Kind.OTHER})

_PAGE_BY_PAGE = frozenset({"Seq Scan", "Gather"})


@dataclass(frozen=True, slots=True)
class RowRange:
    """A range of an export's rows. Without any attribute it has all rows.

    Attributes:
        first_page: number of the first page; ``None`` if the rows are not cut at pages.
        end_page: number of the page after the last one; ``None`` means no end.
        column: name of the column that the rows are cut by; ``None`` if they are not cut by values.
        type: SQL name of its type.
        after: the rows have greater values than this; ``None`` means no lower bound.
        until: the rows have no greater values than this; ``None`` means no upper bound.
        is_null: the rows are those whose value is NULL. All other ranges with a column leave them out.
    """

    first_page: int | None = None
    end_page: int | None = None
    column: str | None = None
    type: str | None = None
    after: str | None = None
    until: str | None = None
    is_null: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the range as a JSON object."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in found.items() if value is not None and value is not False}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the range that :meth:`to_json` has written."""
        return cls(**value)

    @property
    def condition(self) -> str:
        """The SQL condition for the rows of the range."""
        return " AND ".join(self._conditions()) or "true"

    def apply(self, rows: RowQuery) -> RowQuery:
        """Return the query for those of ``rows`` that are in the range."""
        if self == RowRange():
            return rows
        return replace(rows, select=rows.select.where(literal_column(self.condition)))

    def _conditions(self) -> Iterator[str]:
        if self.first_page is not None:
            yield f"ctid >= '({self.first_page},0)'::pg_catalog.tid"
        if self.end_page is not None:
            yield f"ctid < '({self.end_page},0)'::pg_catalog.tid"
        if self.column is None:
            return
        name = quote_name(self.column)
        if self.is_null:
            yield f"{name} IS NULL"
        if self.after is not None:
            yield f"{name} > {quote_text(self.after)}::{self.type}"
        if self.until is not None:
            yield f"{name} <= {quote_text(self.until)}::{self.type}"


ALL_ROWS = (RowRange(),)
"""The only range of rows that cannot be cut."""


async def plan_ranges(
    snapshot: Snapshot,
    source: SourceTable,
    rows: RowQuery,
    *,
    target_bytes: int,
    min_bytes: int = 0,
    at_least: int = 1,
) -> tuple[RowRange, ...]:
    """Cut ``rows`` into ranges, in the order of the rows.

    An export that is known to be small costs no round trip.

    Args:
        snapshot: a snapshot with the table. It can be used again whatever happens.
        source: the table.
        rows: the query.
        target_bytes: approximate bytes of a range, as COPY writes them.
        min_bytes: an export with fewer bytes is one range.
        at_least: as many ranges, unless they would be smaller than :data:`SMALLEST_RANGE`.

    Returns:
        The ranges. A single one means that the rows cannot be cut or are too few.
    """
    known = source.size
    # The pages can hold compressed values, and the table can have grown since.
    if not source.can_be_cut or (known is not None and known.bytes < min_bytes / 4):
        return ALL_ROWS
    try:
        async with snapshot.savepoint():
            return await _planned(snapshot, source, rows, target_bytes, min_bytes, at_least)
    except asyncpg.PostgresConnectionError:
        raise
    except asyncpg.PostgresError as error:
        # The statement of the export itself meets the same error, or can do without ranges.
        log.info("export.cutting_failed", dataset=source.dataset.name, error=str(error))
        return ALL_ROWS


async def _planned(
    snapshot: Snapshot, source: SourceTable, rows: RowQuery, target_bytes: int, min_bytes: int, at_least: int
) -> tuple[RowRange, ...]:
    plan = await snapshot.explain(await asyncio.to_thread(render, rows.select))
    size = _bytes(plan, source, rows)
    if size < min_bytes:
        return ALL_ROWS
    count = max(math.ceil(size / target_bytes), min(at_least, int(size // SMALLEST_RANGE)))
    count = min(count, MOST_RANGES)
    if count < 2:
        return ALL_ROWS
    if source.order_columns:
        ranges = await _by_value(snapshot, source, rows, count)
    elif source.can_be_cut_by_page and plan.node_types <= _PAGE_BY_PAGE:
        pages = await _pages(snapshot, source)
        # Where a filter drops most rows, the others can all be in a few pages.
        ranges = _by_page(pages, max(count, min(pages // PAGES_OF_FILTERED_ROWS, MOST_RANGES)))
    else:
        return ALL_ROWS
    if len(ranges) < 2 or not await _is_cheap(snapshot, rows, ranges, plan):
        return ALL_ROWS
    return ranges


def _bytes(plan: QueryPlan, source: SourceTable, rows: RowQuery) -> float:
    """Estimate the bytes of the rows as COPY writes them."""
    more = sum(1 + _MORE_TEXT.get(item.kind, 0) for item in rows.columns)
    size = plan.rows * (plan.width + more)
    known = source.size
    if known is not None and known.rows > 0 and any(item.kind in _CAN_BE_TOASTED for item in rows.columns):
        # The planner's width leaves out what is stored outside of the rows.
        size += int(known.toast_bytes * min(1.0, plan.rows / known.rows))
    return size


async def _pages(snapshot: Snapshot, source: SourceTable) -> int:
    """Return the number of pages of the table."""
    name = quote_text(f"{quote_name(source.schema)}.{quote_name(source.name)}")
    sql = f"""
        SELECT pg_catalog.pg_relation_size({name}::pg_catalog.regclass)
               / pg_catalog.current_setting('block_size')::int AS pages
    """
    found = await snapshot.first(sql)
    return int(found["pages"] or 0) if found else 0


def _by_page(pages: int, count: int) -> tuple[RowRange, ...]:
    step = max(1, math.ceil(pages / count))
    starts = range(0, pages, step)
    # The last range has no end: it costs nothing, and no page can be missed.
    return tuple(
        RowRange(first_page=start, end_page=start + step if start + step < pages else None)
        for start in starts
    )


async def _by_value(
    snapshot: Snapshot, source: SourceTable, rows: RowQuery, count: int
) -> tuple[RowRange, ...]:
    """Cut at values of a sample."""
    lead = source.all_columns[source.order_columns[0]]
    # "IS NULL" is also true for a composite value whose fields are all NULL.
    if not lead.ordering or lead.data_type.fields:
        return ALL_ROWS
    pages = await _pages(snapshot, source)
    fewest, most = SAMPLED_PAGES
    percent = min(100.0, 100 * max(fewest, min(PAGES_OF_A_RANGE * count, most)) / max(pages, 1))
    # In a thread, because a filter with many values takes long to render.
    sql = await asyncio.to_thread(_sample_query, source, rows, lead, percent, count)
    sampled = await snapshot.fetch(sql)
    return _between(lead, [row["bound"] for row in sampled])


def _sample_query(source: SourceTable, rows: RowQuery, lead: Column, percent: float, count: int) -> str:
    """Return the query for up to ``count`` - 1 values that cut a sample of the rows into equal parts."""
    name = reference(lead.name)
    origin = table(quoted_name(source.name, quote=True), schema=quoted_name(source.schema, quote=True))
    sample = tablesample(origin, func.system(literal_column(f"{percent:.9f}")), seed=literal_column("0"))
    value: ColumnElement[Any] = name.label("value")
    number = func.row_number().over(order_by=name).label("number")
    total = func.count().over().label("total")
    values = select(value, number, total).select_from(sample).where(name.is_not(None))
    if rows.select.whereclause is not None:
        values = values.where(rows.select.whereclause)
    parts = f"least({count}, total / {ROWS_OF_A_RANGE})"
    return f"""
        SELECT bound FROM (
            SELECT value::pg_catalog.text AS bound, number FROM ({render(values)}) AS sample
            WHERE number * {parts} / total <> (number - 1) * {parts} / total AND number < total
        ) AS bounds
        WHERE pg_catalog.octet_length(bound) <= {LONGEST_VALUE}
        ORDER BY number
    """


def _between(lead: Column, bounds: Sequence[str]) -> tuple[RowRange, ...]:
    """Return the ranges between ``bounds``, which ascend."""
    kept = list(dict.fromkeys(bounds))
    if not kept:
        return ALL_ROWS
    # A cast to "name" cuts the value; "text" compares in the same way.
    of_lead = RowRange(column=lead.name, type=lead.cast or lead.type)
    ranges = [
        replace(of_lead, after=after, until=until)
        for after, until in zip([None, *kept], [*kept, None], strict=True)
    ]
    if lead.nullable:
        ranges.append(replace(of_lead, is_null=True))
    return tuple(ranges)


async def _is_cheap(snapshot: Snapshot, rows: RowQuery, ranges: Sequence[RowRange], whole: QueryPlan) -> bool:
    """Return whether all ranges together cost little more than the whole query, by the planner's estimate."""
    count = len(ranges)
    tried = {ranges[place * count // 4] for place in (1, 2, 3)}
    texts = [await asyncio.to_thread(render, one.apply(rows).select) for one in tried]
    costs = [(await snapshot.explain(text)).cost for text in texts]
    return median(costs) * count <= COST_FACTOR * whole.cost
