"""Ranges of pages cover a table of any size, in equal shares."""

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.exports.reading.ranges import page_ranges


@given(pages=st.integers(0, 5_000), count=st.integers(2, 10_000))
@example(pages=0, count=12)
@example(pages=1, count=12)
@example(pages=45_000, count=12)
def test_ranges_of_pages_are_equal_shares_of_the_whole_table(pages: int, count: int) -> None:
    ranges = page_ranges(pages, count)
    assert len(ranges) == min(pages, count)
    if not ranges:
        return
    assert (ranges[0].first_page, ranges[-1].end_page) == (0, None)
    assert all(one.end_page == other.first_page for one, other in pairwise(ranges))
    starts = [one.first_page or 0 for one in ranges]
    sizes = [after - before for before, after in pairwise([*starts, pages])]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
