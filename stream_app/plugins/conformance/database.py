"""A schema of a PostgreSQL database for the tests of plug-ins, and the rows that it renders."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import asyncpg

from stream_app.datasets.models import Dataset
from stream_app.exports.catalog import Catalog, SourceTable
from stream_app.exports.columns import Column, quote_name
from stream_app.exports.copied_rows import RowEnds
from stream_app.exports.formats.base import Format
from stream_app.exports.mask import HASH_KEYS, Mask
from stream_app.exports.query import CopyStatement, row_query
from stream_app.exports.source import Source
from stream_app.settings import Settings
from streaming_exporter.events import ExportRequest, Options


@dataclass(frozen=True, slots=True)
class RenderedRows:
    """The rows of a table as PostgreSQL has rendered them for a format.

    Attributes:
        columns: the columns of the table.
        rows: the bytes of each row.
    """

    columns: tuple[Column, ...]
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

    def render(self, table: str, output: Format, options: Options) -> RenderedRows:
        """Return the rows of ``table``, by its first column, as PostgreSQL renders them for ``output``."""
        return asyncio.run(self._render(table, output, options))

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
            await connection.execute(
                f"SET search_path = pg_catalog; SET {HASH_KEYS} = '{'0' * 128},{'1' * 128}'"
            )
            rows = await connection.fetch(f"SELECT {expression} AS value FROM {table} ORDER BY id")
            return [row["value"] for row in rows]
        finally:
            await connection.close()

    async def _described(self, table: str) -> SourceTable:
        source = self._source()
        try:
            return await Catalog(source.fetch).table(Dataset(name="conformance", table=table))
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

    async def _render(self, table: str, output: Format, options: Options) -> RenderedRows:
        settings = Settings.model_validate({"source_database_url": self.url})
        source = Source(settings, connections=1)
        try:
            dataset = Dataset(name="conformance", table=table)
            described = await Catalog(source).table(dataset)
            by_first = dataset.model_copy(update={"order": (described.columns[0].name,)})
            described = replace(described, dataset=by_first)
            request = ExportRequest(
                user_id="u", export_type="conformance", format=output.name, scope="all", options=options
            )
            query = row_query(described, request)
            statement = CopyStatement.of(query, output, options)
            chunks: list[bytes] = []

            async def keep(chunk: bytes) -> None:
                chunks.append(chunk)

            async with source.snapshot("exporter conformance", search_path=described.search_path) as snapshot:
                await snapshot.copy(statement.sql, statement.copy, keep, max_row_bytes=output.row_bytes)
        finally:
            await source.close()
        return RenderedRows(query.columns, tuple(_rows(b"".join(chunks), RowEnds.of(statement.copy))))


def _rows(content: bytes, ends: RowEnds) -> Sequence[bytes]:
    """Return the bytes of each row."""
    found, start = [], 0
    while start < len(content):
        end = ends.after_rows(content, start, 1)
        found.append(content[start:end])
        start = end
    return found
