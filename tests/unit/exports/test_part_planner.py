"""The size and the number of the parts of a divided export."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports import part_planner
from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.part_planner import PartPlanner
from stream_app.exports.pipeline import Exporter
from stream_app.exports.queries.row_query import row_query
from stream_app.exports.reading import ranges as ranges_module
from stream_app.exports.reading.ranges import plan_ranges
from stream_app.exports.reading.row_range import RowRange
from stream_app.exports.sources.query_plan import QueryPlan
from stream_app.exports.sources.snapshot import Snapshot
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.source_table import SourceTable, TableSize
from stream_app.exports.task import ExportLimits, ExportTask
from streaming_exporter.errors import Outage
from streaming_exporter.events import ExportRequest

GIB = 2**30
PAGE = 8_192
ROW = 1_000
"""Bytes of a row, stored and as text."""


@dataclass
class FakeSnapshot:
    """A snapshot with a table of ``pages`` pages, of whose rows the share ``kept`` passes the filters.

    If the rows are ordered, ``bounds`` are the values to cut at that a sample of any table would give.
    """

    pages: int
    kept: float = 1.0
    is_ordered: bool = False
    initial_value: str = ""
    sampled: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        yield

    async def explain(self, sql: str, *, as_shared: bool = False) -> QueryPlan:
        of_all = frozenset({"Sort", "Seq Scan"} if self.is_ordered else {"Seq Scan"})
        of_one = frozenset({"Index Scan" if self.is_ordered else "Tid Range Scan"})
        rows = int(self.pages * PAGE / ROW * self.kept)
        return QueryPlan(rows, ROW - 2, of_one if as_shared else of_all, ("(t > 'x'::text)",))

    async def first(self, sql: str) -> dict[str, int]:
        return {"pages": self.pages, "storage": 1}

    async def fetch(self, sql: str) -> list[dict[str, Any]]:
        self.sampled.append(sql)
        count = int(sql.partition("least(")[2].partition(",")[0])
        return [{"bound": f"{number:09}", "reads": 1.0} for number in range(1, count)]

    async def estimate(self, sql: str) -> int:
        return 1


class FakeSources:
    can_share_snapshots = True

    def source_for(self, dataset: Dataset) -> "FakeSources":
        return self


@dataclass
class FakeExporter:
    limits: ExportLimits
    sources: FakeSources = field(default_factory=FakeSources)
    formats: Any = field(default_factory=lambda: FORMATS)


async def nothing(*arguments: object) -> None:
    """Check nothing: there is no server."""


def table_of(pages: int, **changes: Any) -> SourceTable:
    dataset = Dataset(name="things", table="things", order=changes.pop("order", ()))
    text = Column("t", "text", "text", Kind.TEXT)
    size = TableSize(pages * PAGE / ROW, pages * PAGE, 0)
    table = SourceTable(dataset, "public", "things", (text,), {"t": text}, ())
    return replace(table, **{"can_be_cut": True, "can_be_cut_by_page": True, "size": size, **changes})


async def parts_of(
    monkeypatch: pytest.MonkeyPatch,
    snapshot: FakeSnapshot,
    table: SourceTable,
    split: dict[str, int],
    *,
    max_files: int = 10_000,
    filters: dict[str, Any] | None = None,
) -> int:
    """Return how many parts an export has."""

    async def indexed(*arguments: object) -> int:
        return snapshot.pages

    monkeypatch.setattr(part_planner, "check_storage", nothing)
    monkeypatch.setattr(ranges_module, "pages_with_index", indexed)
    request = ExportRequest.parse(
        {
            "user_id": "u",
            "export_type": "things",
            "format": "csv",
            "split": split,
            "scope": "all",
            "consistency": "part",
            "options": {"compression": "none"},
            "filters": filters or {},
        }
    )
    sources = cast(Source, FakeSources())
    exporter = cast(Exporter, FakeExporter(ExportLimits(max_files=max_files)))
    task = ExportTask("1", request, datetime.now(UTC), str)
    plan = await PartPlanner(exporter, sources, GIB)._plan_in(
        sources, cast(Snapshot, snapshot), task, table, request, row_query(table, request)
    )
    return 0 if plan is None else len(plan.ranges)


def test_a_part_has_the_rows_of_about_one_file() -> None:
    """Values that are stored outside of the rows are counted once: the size of the table includes them."""
    size = TableSize(rows=1_000_000, bytes=200_000_000, toast_bytes=100_000_000)
    table = SourceTable(Dataset(name="things", table="things"), "public", "things", (), {}, (), size=size)
    request = ExportRequest.parse(
        {"user_id": "u", "export_type": "things", "format": "csv", "split": {"rows": 1_000_000}}
    )
    planner = PartPlanner(cast(Exporter, None), cast(Source, None), 1)
    assert planner._part_bytes(table, request) == 180_000_000


@pytest.mark.parametrize("kept", [None, 0.05, 0.9])
@pytest.mark.parametrize("size", [100 * GIB, 1_000 * GIB])
async def test_a_large_table_has_as_many_parts_as_files_of_the_size_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, size: int, kept: float | None
) -> None:
    """With a filter, all of its rows can be in a few pages, which are the rows of one file at most."""
    pages = size // PAGE
    filters = {"t": {"gt": "x"}} if kept else None
    snapshot = FakeSnapshot(pages, kept or 1)
    parts = await parts_of(monkeypatch, snapshot, table_of(pages), {"bytes": GIB}, filters=filters)
    assert parts == pytest.approx(size / (0.9 * GIB), rel=0.02)


@pytest.mark.parametrize("max_files", [99, 10_000, 50_000])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"order": ("t",)},
        {"has_row_security": True},
        {"size": None},
        {"size": None, "has_row_security": True},
    ],
)
async def test_there_are_no_more_parts_than_files(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], max_files: int
) -> None:
    """Each part writes a file, also that of NULL. Above 10,000 the parts become larger."""
    pages = 4_000 * GIB // PAGE
    snapshot = FakeSnapshot(pages, is_ordered="order" in changes)
    parts = await parts_of(
        monkeypatch, snapshot, table_of(pages, **changes), {"bytes": 2**26}, max_files=max_files
    )
    assert parts == min(max_files, 10_000)


@pytest.mark.parametrize(("max_files", "parts"), [(1, 0), (2, 0), (3, 3)])
async def test_a_limit_of_few_files_needs_no_sample(
    monkeypatch: pytest.MonkeyPatch, max_files: int, parts: int
) -> None:
    """NULL has a part of its own."""
    pages = 4_000 * GIB // PAGE
    snapshot = FakeSnapshot(pages, is_ordered=True)
    table = table_of(pages, order=("t",))
    assert await parts_of(monkeypatch, snapshot, table, {"bytes": GIB}, max_files=max_files) == parts
    assert bool(snapshot.sampled) == bool(parts)


async def test_the_ranges_of_streams_have_no_such_limit() -> None:
    """A stream's buffer holds the rows of a range, also where a filter keeps all rows of some pages."""
    pages = 4_000 * GIB // PAGE
    table = table_of(pages)
    for filters, kept, count in (({}, 1.0, 1_048_576), ({"t": {"gt": "x"}}, 0.001, pages // 4_096)):
        request = ExportRequest.parse(
            {"user_id": "u", "export_type": "things", "format": "csv", "scope": "all", "filters": filters}
        )
        rows = row_query(table, request)
        snapshot = cast(Snapshot, FakeSnapshot(pages, kept))
        ranges = await plan_ranges(snapshot, table, rows, target_bytes=2**22)
        assert len(ranges) == pytest.approx(count, rel=0.03)


def test_a_range_of_a_newer_version_is_left_to_its_workers() -> None:
    """Without the attribute the range would have other rows. An outage counts no failure."""
    stored = RowRange(first_page=3, end_page=9, storage=7).to_json()
    assert RowRange.from_json(stored).to_json() == stored
    with pytest.raises(Outage, match=r"newer version.*is_hashed"):
        RowRange.from_json({**stored, "is_hashed": True})
