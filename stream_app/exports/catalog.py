"""What the source database says about a dataset's table: its columns, their types, its primary key."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import asyncpg

from stream_app.errors import Rejected
from stream_app.exports.columns import KIND_OF_TYPE, Column, Kind
from stream_app.exports.datasets.base import Dataset

CACHE_SECONDS = 30.0

_COLUMNS = """
    WITH RECURSIVE base (oid, below) AS (
        SELECT oid, oid FROM pg_type
        UNION ALL
        SELECT base.oid, t.typbasetype FROM base JOIN pg_type t ON t.oid = base.below WHERE t.typtype = 'd'
    )
    SELECT n.nspname AS schema, c.relname AS table, a.attname AS name, NOT a.attnotnull AS nullable,
           format_type(a.atttypid, a.atttypmod) AS type, b.typname AS base, b.typtype AS category,
           format('%I.%I', home.nspname, b.typname) AS cast, element.typname AS element,
           array(
               SELECT enumlabel::text FROM pg_enum WHERE enumtypid = b.oid ORDER BY enumsortorder
           ) AS labels,
           coalesce(array_position(i.indkey::int2[], a.attnum), -1) AS key_position
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN LATERAL (
        SELECT t.* FROM base JOIN pg_type t ON t.oid = base.below
        WHERE base.oid = a.atttypid AND t.typtype <> 'd'
    ) b ON true
    JOIN pg_namespace home ON home.oid = b.typnamespace
    LEFT JOIN pg_type element
        ON element.oid = b.typelem AND b.typsubscript = 'array_subscript_handler'::regproc
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
    WHERE c.oid = to_regclass($1) AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
    ORDER BY a.attnum
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A dataset as it stands in the database: ``columns`` are those that may be exported, in order.

    ``every`` also has those that the dataset hides but filters or orders by itself, such as its owner.
    """

    dataset: Dataset
    schema: str
    name: str
    columns: tuple[Column, ...]
    every: Mapping[str, Column]
    primary_key: tuple[str, ...]

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the columns that the rows are ordered by."""
        if self.dataset.order is not None:
            return self.dataset.order
        time_column = (self.dataset.time,) if self.dataset.time else ()
        return (*time_column, *(name for name in self.primary_key if name not in time_column))


class Catalog:
    """Looks tables up, and remembers them for :data:`CACHE_SECONDS`."""

    def __init__(self, fetch: Callable[[str, str], Awaitable[list[asyncpg.Record]]]) -> None:
        """``fetch(sql, table)`` runs one query on the source database."""
        self._fetch = fetch
        self._known: dict[str, tuple[float, Table]] = {}

    async def table(self, dataset: Dataset) -> Table:
        """The table behind ``dataset``.

        Raises:
            Rejected: there is no such table, or it lacks a column that the dataset names.
            Retryable: the source database cannot be reached.
        """
        known = self._known.get(dataset.name)
        if known and known[0] > time.monotonic():
            return known[1]
        table = _table(dataset, await self._fetch(_COLUMNS, _quoted(dataset.table)))
        self._known[dataset.name] = (time.monotonic() + CACHE_SECONDS, table)
        return table


def _quoted(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split(".", 1))


def _table(dataset: Dataset, rows: list[asyncpg.Record]) -> Table:
    if not rows:
        raise Rejected(
            f"dataset {dataset.name!r}: the source database has no table {dataset.table}, "
            "or the service may not see it",
            code="missing_table",
        )
    columns = {row["name"]: _column(row) for row in rows}
    named = [*(dataset.columns or ()), *(dataset.order or ()), *filter(None, (dataset.owner, dataset.time))]
    for name in named:
        if name not in columns:
            raise Rejected(
                f"dataset {dataset.name!r}: table {dataset.table} has no column {name!r}",
                code="missing_column",
                allowed=columns,
            )
    keys = sorted((row["key_position"], row["name"]) for row in rows if row["key_position"] >= 0)
    return Table(
        dataset=dataset,
        schema=rows[0]["schema"],
        name=rows[0]["table"],
        columns=tuple(columns[name] for name in dataset.columns or columns),
        every=columns,
        primary_key=tuple(name for _, name in keys),
    )


def _column(row: asyncpg.Record) -> Column:
    if row["element"]:
        base, kind = row["element"], Kind.ARRAY
    elif row["category"] == b"e":
        base, kind = row["base"], Kind.ENUM
    else:
        base, kind = row["base"], KIND_OF_TYPE.get(row["base"], Kind.OTHER)
    return Column(row["name"], row["type"], base, kind, row["nullable"], tuple(row["labels"]), row["cast"])
