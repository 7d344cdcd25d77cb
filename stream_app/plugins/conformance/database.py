"""A schema of a PostgreSQL database for the tests of plug-ins, and the rows that it renders."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import asyncpg

from stream_app.datasets.models import ColumnSettings, Dataset
from stream_app.exports.columns import Column, quote_name
from stream_app.exports.files.row_ends import RowEnds
from stream_app.exports.formats.base import Format
from stream_app.exports.masks.base import HASH_KEYS, Mask
from stream_app.exports.queries.presentation import shown_rows
from stream_app.exports.queries.row_query import CopyStatement, row_query
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.tables.source_table import SourceTable
from stream_app.settings import Settings
from streaming_exporter.events import ExportRequest, Options

NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RenderedRows:
    """The rows of a table as PostgreSQL has rendered them for a format.

    Attributes:
        columns: the columns of the file.
        options: the options of the file.
        rows: the bytes of each row.
    """

    columns: tuple[Column, ...]
    options: Options
    rows: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ConformanceDatabase:
    """A schema of its own in a PostgreSQL database. The methods block.

    Attributes:
        url: the URL of the database, with a role that can create schemas.
        schema: the name of the schema, which :meth:`create` creates and :meth:`drop` removes.
    """

    url: str
    schema: str = field(default_factory=lambda: f"conformance_{uuid4().hex[:12]}")

    def create(self) -> None:
        """Create the schema."""
        self.execute(f'CREATE SCHEMA "{self.schema}"')

    def drop(self) -> None:
        """Remove the schema with its tables."""
        self.execute(f'DROP SCHEMA "{self.schema}" CASCADE')

    def table(self, columns: str, rows: Sequence[Sequence[Any]] = ()) -> str:
        """Create a table and return its name.

        Args:
            columns: the definitions of the columns, as in ``CREATE TABLE``.
            rows: the values of each row.
        """
        name = f"t_{uuid4().hex[:12]}"
        asyncio.run(self._fill(name, columns, rows))
        return f"{self.schema}.{name}"

    def execute(self, sql: str) -> None:
        """Run one or more statements."""
        asyncio.run(self._execute(sql))

    def texts(self, table: str, column: str) -> list[str | None]:
        """Return the values of ``column`` as texts, in the order of the column ``id``."""
        return asyncio.run(self._texts(table, f"CAST({quote_name(column)} AS text)"))

    def masked(self, table: str, mask: Mask, column: str) -> list[str | None]:
        """Return the masked values of ``column`` as texts, in the order of the column ``id``."""
        return asyncio.run(self._masked(table, mask, column))

    def render(
        self, table: str, output: Format, options: Options, labels: Mapping[str, str] = NO_LABELS
    ) -> RenderedRows:
        """Return the rows of ``table``, by its first column, as PostgreSQL renders them for ``output``.

        ``labels`` are the labels of columns, as the datasets file has them.
        """
        return asyncio.run(self._render(table, output, options, labels))

    async def _fill(self, name: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f'CREATE TABLE "{self.schema}"."{name}" ({columns})')
            if rows:
                await connection.copy_records_to_table(name, schema_name=self.schema, records=rows)
        finally:
            await connection.close()

    async def _masked(self, table: str, mask: Mask, column: str) -> list[str | None]:
        (described,) = (item for item in (await self._described(table)).columns if item.name == column)
        return await self._texts(table, f"CAST(({mask.sql(described)}) AS text)")

    async def _texts(self, table: str, expression: str) -> list[str | None]:
        connection = await asyncpg.connect(self.url)
        try:
            # As in the transactions of exports.
            keys = f"{'0' * 128},{'1' * 128}"
            await connection.execute(f"SET search_path = pg_catalog; SET {HASH_KEYS} = '{keys}'")
            rows = await connection.fetch(f"SELECT {expression} AS value FROM {table} ORDER BY id")
            return [row["value"] for row in rows]
        finally:
            await connection.close()

    async def _described(self, table: str) -> SourceTable:
        source = self._source()
        try:
            return await Catalog(source).table(Dataset(name="conformance", table=table))
        finally:
            await source.close()

    def _source(self) -> Source:
        return Source(Settings.model_validate({"source_database_url": self.url}), connections=1)

    async def _execute(self, sql: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def _render(
        self, table: str, output: Format, options: Options, labels: Mapping[str, str]
    ) -> RenderedRows:
        described, source = await self._described(table), self._source()
        dataset = described.dataset.model_copy(
            update={
                "order": (described.columns[0].name,),
                "column_settings": {name: ColumnSettings(label=text) for name, text in labels.items()},
            }
        )
        request = ExportRequest(
            user_id="u", export_type="conformance", format=output.name, scope="all", options=options
        )
        try:
            rows = row_query(replace(described, dataset=dataset), request)
            query, options = shown_rows(rows, dataset, options, output)
            statement = CopyStatement.of(query, output, options)
            chunks: list[bytes] = []

            async def keep(chunk: bytes) -> None:
                chunks.append(chunk)

            async with source.snapshot("exporter conformance", search_path=described.search_path) as snapshot:
                await snapshot.copy(statement.sql, statement.copy, keep, max_row_bytes=output.row_bytes)
        finally:
            await source.close()
        return RenderedRows(
            query.columns, options, tuple(_rows(b"".join(chunks), RowEnds.of(statement.copy)))
        )


def _rows(content: bytes, ends: RowEnds) -> Sequence[bytes]:
    """Return the bytes of each row."""
    found, start = [], 0
    while start < len(content):
        end = ends.after_rows(content, start, 1)
        found.append(content[start:end])
        start = end
    return found
