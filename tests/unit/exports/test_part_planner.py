"""The size of the parts of a divided export."""

from typing import cast

from stream_app.datasets.models import Dataset
from stream_app.exports.part_planner import PartPlanner
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import SourceTable, TableSize
from streaming_exporter.events import ExportRequest


def test_a_part_has_the_rows_of_about_one_file() -> None:
    """Values that are stored outside of the rows are counted once: the size of the table includes them."""
    size = TableSize(rows=1_000_000, bytes=200_000_000, toast_bytes=100_000_000)
    table = SourceTable(Dataset(name="things", table="things"), "public", "things", (), {}, (), size=size)
    request = ExportRequest.parse(
        {"user_id": "u", "export_type": "things", "format": "csv", "split": {"rows": 1_000_000}}
    )
    planner = PartPlanner(cast(Exporter, None), cast(Source, None), 1)
    assert planner._part_bytes(table, request) == 180_000_000
