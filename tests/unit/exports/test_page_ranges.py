"""Ranges cover all rows of a table of any size, and are made when they are read."""

import tracemalloc
from itertools import islice, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.exports.reading.row_range import PageRanges, RowRange, ValueRanges

LARGEST_TABLE = 2**32 - 1
"""Pages of the largest table of PostgreSQL: 32 TiB."""

OF_LEAD = RowRange(column="v", type="text")


@given(pages=st.integers(0, 5_000), count=st.integers(2, 10_000))
@example(pages=0, count=12)
@example(pages=1, count=12)
@example(pages=45_000, count=12)
def test_ranges_of_pages_are_equal_shares_of_the_whole_table(pages: int, count: int) -> None:
    ranges = PageRanges(pages, count)
    assert len(ranges) == len(tuple(ranges)) == min(pages, count)
    if not ranges:
        return
    assert (ranges[0].first_page, ranges[-1].end_page) == (0, None)
    assert all(one.end_page == other.first_page for one, other in pairwise(ranges))
    starts = [one.first_page or 0 for one in ranges]
    sizes = [after - before for before, after in pairwise([*starts, pages])]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


def test_the_ranges_of_the_largest_table_take_no_memory() -> None:
    """Each of them fits into the buffer of a stream, however many there are."""
    pages_of_a_range = 512
    tracemalloc.start()
    try:
        ranges = PageRanges(LARGEST_TABLE, -(-LARGEST_TABLE // pages_of_a_range), 7)
        before = 0
        for one in islice(ranges, 2_000):
            assert one.storage == 7
            assert one.first_page == before
            assert one.end_page is not None
            assert one.end_page - before <= pages_of_a_range
            before = one.end_page
        last = ranges[-1]
        assert last.first_page is not None
        assert LARGEST_TABLE - last.first_page <= pages_of_a_range
        assert len(ranges) > 8_000_000
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("has_null", [False, True])
def test_ranges_of_values_are_between_all_bounds(has_null: bool) -> None:
    ranges = ValueRanges(OF_LEAD, ("a", "b"), has_null)
    found = [(one.after, one.until, one.is_null) for one in ranges]
    expected = [(None, "a", False), ("a", "b", False), ("b", None, False), (None, None, True)]
    assert found == expected[: 3 + has_null]
    assert len(ranges) == len(found)
    assert ranges[-1] == list(ranges)[-1]
    assert ranges[1:] == tuple(ranges)[1:]
