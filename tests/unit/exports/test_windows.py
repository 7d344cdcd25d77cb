"""A window needs a column with times; the text says what operators must correct, and names no column."""

import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.columns import Column, Kind
from stream_app.exports.queries.windows import check_window_columns
from stream_app.exports.tables.catalog import SourceTable
from streaming_exporter.errors import Rejected

TIMES = {Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}
DELETIONS = {Kind.TIMESTAMP, Kind.TIMESTAMPTZ}


def table(time: Kind, deleted_at: Kind) -> SourceTable:
    columns = {
        "placed_on": Column("placed_on", time, time, time),
        "gone_on": Column("gone_on", deleted_at, deleted_at, deleted_at),
    }
    dataset = Dataset(name="orders", table="shop.orders", time="placed_on", deleted_at="gone_on")
    return SourceTable(dataset, "shop", "orders", tuple(columns.values()), columns, ())


@pytest.mark.parametrize("has_deletions", [False, True])
@pytest.mark.parametrize("kind", list(Kind))
def test_the_time_column_has_times(kind: Kind, has_deletions: bool) -> None:
    checked = table(kind, Kind.TIMESTAMPTZ)
    if kind in TIMES:
        check_window_columns(checked, has_deletions=has_deletions)
        return
    with pytest.raises(Rejected, match="window: dataset 'orders' cannot limit its rows to a window") as error:
        check_window_columns(checked, has_deletions=has_deletions)
    assert error.value.code == "source_misconfigured"
    assert "placed_on" not in str(error.value)


@pytest.mark.parametrize("kind", list(Kind))
def test_the_column_of_deletions_has_moments(kind: Kind) -> None:
    checked = table(Kind.DATE, kind)
    check_window_columns(checked, has_deletions=False)  # those of a bundle have no file of their own
    if kind in DELETIONS:
        check_window_columns(checked, has_deletions=True)
        return
    with pytest.raises(Rejected, match="cannot tell when rows were deleted") as error:
        check_window_columns(checked, has_deletions=True)
    assert "gone_on" not in str(error.value)
