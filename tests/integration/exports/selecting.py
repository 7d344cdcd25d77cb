"""Selects the rows of a request, without writing a file."""

from typing import Any

from stream_app.datasets.models import Dataset
from stream_app.exports.queries.row_query import row_query
from stream_app.exports.queries.sql_text import render
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.events import ExportRequest


async def described(source: Source, dataset: Dataset) -> SourceTable:
    """Return the present description of the dataset's table."""
    return await Catalog(source).table(dataset)


async def selected(source: Source, table: SourceTable, user: str = "u", **request: Any) -> list[int]:
    """Return the ids of the rows in their order."""
    wanted = {
        "user_id": user,
        "export_type": "t",
        "format": "csv",
        "scope": "all",
        "columns": ["id"],
        **request,
    }
    sql = render(row_query(table, ExportRequest.parse(wanted)).select)
    async with source.snapshot("test", search_path=table.search_path) as snapshot:
        return [row["id"] for row in await snapshot.connection.fetch(sql)]
