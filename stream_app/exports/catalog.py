"""What the source database says about a dataset's table: its columns, their types, its primary key."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import asyncpg
import structlog

from stream_app.exports.catalog_query import COLUMNS, fingerprint_expression
from stream_app.exports.columns import KIND_OF_TYPE, TYPES, Column, Kind, TypeRow, assemble_type, kind_of
from stream_app.exports.datasets import Dataset
from streaming_exporter.errors import Rejected, Retryable

log = structlog.get_logger(__name__)

CACHE_SECONDS = 30.0

LIKE_EVERYWHERE = 180_000
"""From this version on texts can be searched whatever their collation."""

Result = TypeVar("Result")


class TableChanged(Exception):
    """The table is not any more what its description says."""


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A dataset as it stands in the database: ``columns`` are those that may be exported, in order.

    ``every`` also has those that the dataset hides but filters or orders by itself, such as its owner.
    ``path`` are the schemas that operators of its types, and functions of its view, are looked up in.
    ``computes``: reading a column can fail, since the table is a view or has virtual columns. ``filtered``:
    row-level security leaves out rows that the service's role must not see. ``fingerprint`` is another after
    each change.
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

    @property
    def fingerprint_sql(self) -> str:
        """An SQL expression that yields :attr:`fingerprint` as long as the table is what it was."""
        return fingerprint_expression(_literal(f"{_quoted(self.schema)}.{_quoted(self.name)}"))

    @property
    def order_columns(self) -> tuple[str, ...]:
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
        self._known: dict[str, tuple[float, SourceTable]] = {}
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def table(self, dataset: Dataset) -> SourceTable:
        """The table behind ``dataset``.

        Raises:
            Rejected: there is no such table, or it lacks a column that the dataset names.
            Retryable: the source database cannot be reached.
        """
        known = self._known.get(dataset.name)
        return known[1] if known and known[0] > time.monotonic() else await self._read(dataset, known)

    async def use(self, dataset: Dataset, work: Callable[[SourceTable], Awaitable[Result]]) -> Result:
        """What ``work`` yields with the table behind ``dataset``.

        A description that was remembered is read again, once, if ``work`` fails with it: the table may have
        changed since. If it has, ``work`` is done again.

        Raises:
            Rejected, Retryable: as :meth:`table` and ``work`` do.
        """
        known = self._known.get(dataset.name)
        table = await self.table(dataset)
        try:
            return await work(table)
        except (Rejected, TableChanged) as error:
            if known is None or known[1] is not table:
                raise _final(error) from error
            again = await self._read(dataset, known)
            if again == table:
                raise _final(error) from error
            log.info("dataset.changed", dataset=dataset.name)
        try:
            return await work(again)
        except TableChanged as error:
            raise _final(error) from error

    async def _read(self, dataset: Dataset, known: tuple[float, SourceTable] | None) -> SourceTable:
        """Read it, unless somebody else did since ``known``."""
        async with self._reading[dataset.name]:
            newest = self._known.get(dataset.name)
            if newest is not None and newest is not known:
                return newest[1]
            name = _name(dataset.table)
            rows = await self._fetch(COLUMNS, name)
            has_parts = any(row["base"] not in KIND_OF_TYPE and row["category"] != b"e" for row in rows)
            types = _types(await self._fetch(TYPES, name)) if has_parts else {}
            table = _table(dataset, rows, types)
            self._known[dataset.name] = (time.monotonic() + CACHE_SECONDS, table)
            return table


def _final(error: Rejected | TableChanged) -> Exception:
    """A table that changes all the time is one that passes."""
    return error if isinstance(error, Rejected) else Retryable("the dataset's table is being changed")


def _name(table: str) -> str:
    return ".".join(map(_quoted, table.split(".", 1)))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _types(rows: list[asyncpg.Record]) -> dict[int, TypeRow]:
    return {
        row["oid"]: TypeRow(
            row["name"],
            row["category"],
            row["base"],
            row["element"],
            row["bounds"],
            tuple(zip(row["field_names"], row["field_types"], strict=True)),
            row["has_json_cast"],
        )
        for row in rows
    }


def _table(dataset: Dataset, rows: list[asyncpg.Record], types: Mapping[int, TypeRow]) -> SourceTable:
    """The description; what is missing is told to operators alone, since users must not know hidden names."""
    if not rows:
        log.warning("dataset.table_missing", dataset=dataset.name, table=dataset.table)
        raise Rejected(
            f"dataset {dataset.name!r} cannot be exported at the moment: its table is missing in the source "
            "database, or the service must not see it; operators find its name in the log",
            code="missing_table",
        )
    columns = {row["name"]: _column(row, types) for row in rows}
    named = [*(dataset.columns or ()), *(dataset.order or ()), *filter(None, (dataset.owner, dataset.time))]
    if missing := [name for name in named if name not in columns]:
        log.warning("dataset.columns_missing", dataset=dataset.name, table=dataset.table, columns=missing)
        raise Rejected(
            f"dataset {dataset.name!r} cannot be exported at the moment: its table lacks a column that the "
            "datasets file names; operators find its name in the log",
            code="missing_column",
        )
    keys = sorted((row["key_position"], row["name"]) for row in rows if row["key_position"] >= 0)
    first = rows[0]
    return SourceTable(
        dataset=dataset,
        schema=first["schema"],
        name=first["table"],
        columns=tuple(columns[name] for name in dataset.columns or columns),
        all_columns=columns,
        primary_key=tuple(name for _, name in keys),
        search_path=tuple(dict.fromkeys((first["schema"], *sorted({row["home"] for row in rows}), "public"))),
        has_computed_columns=first["relkind"] == b"v" or any(row["is_virtual"] for row in rows),
        has_row_security=first["filtered"],
        fingerprint=first["fingerprint"],
    )


def _column(row: asyncpg.Record, types: Mapping[int, TypeRow]) -> Column:
    shape = assemble_type(row["type_oid"], types) if types else None
    if shape is not None and shape.element is not None:
        base, kind = shape.element.name, Kind.ARRAY
    else:
        base, kind = row["base"], kind_of(row["base"], row["category"])
    return Column(
        row["name"],
        row["type"],
        base,
        kind,
        row["nullable"],
        tuple(row["labels"]),
        # A name is cut to 63 bytes where it is cast: as a text it is compared whole.
        "pg_catalog.text" if base == "name" and kind is Kind.TEXT else row["cast"],
        equality=row["equality"],
        ordering=row["ordering"],
        pattern=row["deterministic"] or row["version"] >= LIKE_EVERYWHERE,
        deterministic=row["deterministic"],
        declared=row["declared"],
        shape=shape,
    )
