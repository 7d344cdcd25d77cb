"""Rows are found in chunks of COPY, whatever their values are: the pieces hold whole rows and all of them."""

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.exports.files.row_ends import RowEnds, RowFeed
from stream_app.exports.formats.base import RAW_LINES

VALUES = st.lists(
    st.lists(st.text(st.sampled_from('ab"\n,\x01'), max_size=5), min_size=2, max_size=3),
    min_size=1,
    max_size=6,
)


def as_csv(rows: list[list[str]], quote: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, quotechar=quote, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode()


def as_text(rows: list[list[str]]) -> bytes:
    return b"".join(
        b"\t".join(repr(value).encode().replace(b"\n", b"\\n") for value in row) + b"\n" for row in rows
    )


COPIES = {
    "text": ({"format": "text"}, as_text),
    "csv": ({"format": "csv", "delimiter": ","}, lambda rows: as_csv(rows, '"')),
    "raw lines": (RAW_LINES, lambda rows: as_csv(rows, "\x01")),
}


@pytest.mark.parametrize("kind", COPIES)
@given(rows=VALUES, data=st.data())
def test_the_pieces_are_whole_rows_in_their_order(
    kind: str, rows: list[list[str]], data: st.DataObject
) -> None:
    options, write = COPIES[kind]
    ends = RowEnds.of(options)
    each = [write([row]) for row in rows]
    cut = data.draw(st.integers(0, len(each)))
    chunks = [b"".join(part) for part in (each[:cut], each[cut:])]
    assert [ends.count(chunk) for chunk in chunks] == [cut, len(each) - cut]

    def taken() -> Iterator[bytes]:
        feed = RowFeed(iter(chunks), ends)
        while feed.has_more():
            count = data.draw(st.none() | st.integers(1, 4))
            size = data.draw(st.none() | st.integers(0, 60))
            piece = feed.take(rows=count, size=size, at_least_one=True)
            number = ends.count(piece)
            assert number >= 1
            assert count is None or number <= count
            assert size is None or len(piece) <= size or number == 1
            yield piece

    pieces = list(taken())
    assert b"".join(pieces) == b"".join(each)
    starts = set()
    position = 0
    for row in each:
        starts.add(position)
        position += len(row)
    position = 0
    for piece in pieces:
        assert position in starts
        position += len(piece)


def test_a_row_that_is_larger_than_the_room_is_left_for_the_next_file() -> None:
    feed = RowFeed(iter([b"1234567\n1\n"]), RowEnds())
    assert feed.take(rows=None, size=5, at_least_one=False) == b""
    assert feed.take(rows=None, size=5, at_least_one=True) == b"1234567\n"
    assert feed.take(rows=None, size=5, at_least_one=False) == b"1\n"
    assert not feed.has_more()
