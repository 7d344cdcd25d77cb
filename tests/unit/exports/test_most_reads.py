"""How often pages can be read for ranges in an order, by the bytes that are stored outside of the rows."""

import pytest
from sqlalchemy import select

from stream_app.datasets.models import Dataset
from stream_app.exports.columns import Column, Kind
from stream_app.exports.queries.row_query import RowQuery
from stream_app.exports.reading.ranges import MOST_READS, _most_reads
from stream_app.exports.tables.source_table import SourceTable, TableSize

COLUMNS = {
    "id": Column("id", "integer", "integer", Kind.INTEGER),
    "note": Column("note", "text", "text", Kind.TEXT),
    "document": Column("document", "jsonb", "jsonb", Kind.JSON),
}


@pytest.mark.parametrize(
    ("exported", "times"),
    [
        ("id note document", 10),
        ("note document", 10),
        ("id note", 1),
        ("document", 1),
        ("id", 1),
    ],
)
def test_bytes_outside_of_the_rows_count_only_if_all_columns_that_can_have_them_are_exported(
    exported: str, times: int
) -> None:
    """Otherwise each of many ranges would read all pages, and leave out what makes them small."""
    size = TableSize(rows=1_000, bytes=1_000_000, toast_bytes=900_000)
    table = SourceTable(Dataset(name="t", table="t"), "public", "t", (), COLUMNS, (), size=size)
    rows = RowQuery(select(), tuple(COLUMNS[name] for name in exported.split()))
    assert _most_reads(table, rows) == MOST_READS * times
