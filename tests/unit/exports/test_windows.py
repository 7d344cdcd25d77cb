"""A window needs a column with times; the text says what operators must correct, and names no column."""

from typing import Any

import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.columns import Column, Kind
from stream_app.exports.queries.windows import check_window_columns, with_window
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.rows import each_row

TIMES = {Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}
DELETIONS = {Kind.TIMESTAMP, Kind.TIMESTAMPTZ}


def table(time: Kind, deleted_at: Kind) -> SourceTable:
    columns = {
        "placed_on": Column("placed_on", time, time, time),
        "gone_on": Column("gone_on", deleted_at, deleted_at, deleted_at),
    }
    dataset = Dataset(name="orders", table="shop.orders", time="placed_on", deleted_at="gone_on")
    return SourceTable(dataset, "shop", "orders", tuple(columns.values()), columns, ())


@each_row("has_deletions", [False, True])
@each_row("kind", list(Kind))
def test_the_time_column_has_times(kind: Kind, has_deletions: bool) -> None:
    checked = table(kind, Kind.TIMESTAMPTZ)
    if kind in TIMES:
        check_window_columns(checked, has_deletions=has_deletions)
        return
    with pytest.raises(Rejected, match="window: dataset 'orders' cannot limit its rows to a window") as error:
        check_window_columns(checked, has_deletions=has_deletions)
    assert error.value.code == "source_misconfigured"
    assert "placed_on" not in str(error.value)


@each_row("kind", list(Kind))
def test_the_column_of_deletions_has_moments(kind: Kind) -> None:
    checked = table(Kind.DATE, kind)
    check_window_columns(checked, has_deletions=False)  # those of a bundle have no file of their own
    if kind in DELETIONS:
        check_window_columns(checked, has_deletions=True)
        return
    with pytest.raises(Rejected, match="cannot tell when rows were deleted") as error:
        check_window_columns(checked, has_deletions=True)
    assert "gone_on" not in str(error.value)


WINDOW = {
    "column": "placed_on",
    "from": "2026-07-02T00:00:00+02:00",
    "to": "2026-07-03T00:00:00+02:00",
    "timezone": "Europe/Berlin",
}
DAYS = {"gte": "2026-07-02", "lt": "2026-07-03"}
MOMENTS = {"gte": "2026-07-01T22:00:00Z", "lt": "2026-07-02T22:00:00Z"}


def request(**filters: Any) -> ExportRequest:
    return ExportRequest.parse({"user_id": "u", "export_type": "orders", "format": "csv", "filters": filters})


@each_row("kind", sorted(TIMES))
@each_row("written", [DAYS, MOMENTS])
@each_row("window", [WINDOW, {**WINDOW, "column": None, "columns": {"orders": "placed_on", "visits": "at"}}])
def test_the_limits_are_those_of_the_type_that_the_column_has_now(
    kind: Kind, written: dict[str, str], window: dict[str, Any]
) -> None:
    """The schedule was saved when the column had another type, or when another column was the time."""
    found = with_window(table(kind, kind), request(placed_on=written, name="x"), window)
    assert found.filters == {"placed_on": DAYS if kind is Kind.DATE else MOMENTS, "name": "x"}


@pytest.mark.parametrize(
    ("filters", "window"),
    [
        ({"placed_on": DAYS}, None),
        ({"placed_on": DAYS | {"lt": "2026-07-04"}}, WINDOW),
        ({"gone_on": DAYS}, WINDOW),
        ({"placed_on": DAYS}, {**WINDOW, "column": "dropped"}),
        ({"placed_on": DAYS}, {**WINDOW, "column": None, "columns": {"visits": "at"}}),
        ({"placed_on": DAYS}, {**WINDOW, "timezone": "Mars/Olympus"}),
    ],
)
def test_what_is_no_limit_of_the_window_stays(filters: dict[str, Any], window: dict[str, Any] | None) -> None:
    assert with_window(table(Kind.TIMESTAMPTZ, Kind.TIMESTAMPTZ), request(**filters), window) == request(
        **filters
    )


@each_row("kind", sorted(set(Kind) - TIMES))
def test_a_column_without_times_has_no_limits_to_write(kind: Kind) -> None:
    assert with_window(table(kind, kind), request(placed_on=DAYS), WINDOW) == request(placed_on=DAYS)
