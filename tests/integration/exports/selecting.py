"""Which rows a request selects, without a file around them."""

from typing import Any

from stream_app.exports.catalog import Catalog, Table
from stream_app.exports.datasets import Dataset
from stream_app.exports.query import render, rows_of
from stream_app.exports.source import Source
from streaming_exporter.events import ExportRequest


async def described(source: Source, dataset: Dataset) -> Table:
    """The dataset's table as the database has it now."""
    return await Catalog(source.fetch).table(dataset)


async def selected(source: Source, table: Table, user: str = "u", **request: Any) -> list[int]:
    """The ids of the rows, in their order."""
    wanted = {
        "user_id": user,
        "export_type": "t",
        "format": "csv",
        "scope": "all",
        "columns": ["id"],
        **request,
    }
    sql = render(rows_of(table, ExportRequest.parse(wanted)).select)
    async with source.snapshot("test", path=table.path) as snapshot:
        return [row["id"] for row in await snapshot.connection.fetch(sql)]
