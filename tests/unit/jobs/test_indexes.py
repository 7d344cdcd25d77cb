"""Heartbeats change no index: PostgreSQL would write an entry into each index of the table."""

import re

import pytest

from stream_app.jobs.models import Base, ExportJob, ExportPart, WorkerRecord

WRITTEN = {
    ExportJob: {"lease_until", "row_count", "estimated_rows", "stages"},
    ExportPart: {"lease_until", "row_count"},
    WorkerRecord: {"running", "seen_at"},
}
"""The columns that a heartbeat writes."""


@pytest.mark.parametrize("model", WRITTEN, ids=lambda model: model.__tablename__)
def test_no_index_has_a_column_that_a_heartbeat_writes(model: type[Base]) -> None:
    """Neither as a column nor in its condition."""
    table = model.metadata.tables[model.__tablename__]
    assert WRITTEN[model] <= set(table.columns.keys())
    for index in table.indexes:
        condition = index.dialect_options["postgresql"]["where"]
        words = re.findall(r"\w+", " ".join(map(str, [*index.expressions, condition])))
        assert WRITTEN[model].isdisjoint(words), index.name
