"""Finds where rows end in the chunks that COPY sends. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

LINE_FEED = b"\n"


@dataclass(frozen=True, slots=True)
class RowEnds:
    """Finds the ends of rows in a chunk of whole rows.

    In COPY's text format each line feed ends a row, because line feeds in values are escaped. In its csv
    format a line feed ends a row if an even number of quotes is before it in the row: a value with a line
    feed is quoted, and a quote in a value is doubled.
    """

    quote: bytes | None = None

    @classmethod
    def of(cls, copy: Mapping[str, Any]) -> Self:
        """Return the rule for the options of a COPY, with asyncpg's names."""
        return cls(str(copy.get("quote", '"')).encode() if copy.get("format") == "csv" else None)

    def count(self, chunk: bytes) -> int:
        """Return the number of rows in ``chunk``."""
        if self.quote is None or self.quote not in chunk:
            return chunk.count(LINE_FEED)
        # Every second piece between the quotes is quoted.
        return sum(piece.count(LINE_FEED) for piece in chunk.split(self.quote)[::2])

    def after_rows(self, chunk: bytes, start: int, rows: int) -> int:
        """Return the position after the next ``rows`` rows, or the end of ``chunk`` if it has fewer."""
        for number, end in enumerate(self._ends(chunk, start), 1):
            if number == rows:
                return end
        return len(chunk)

    def within(self, chunk: bytes, start: int, size: int) -> int:
        """Return the position after the last row that ends within ``size`` bytes; ``start`` if none does."""
        limit = start + size
        if limit >= len(chunk):
            return len(chunk)
        if self.quote is None or chunk.find(self.quote, start, limit) < 0:
            return chunk.rfind(LINE_FEED, start, limit) + 1 or start
        last = start
        for end in self._ends(chunk, start):
            if end > limit:
                break
            last = end
        return last

    def _ends(self, chunk: bytes, start: int) -> Iterator[int]:
        is_quoted = False
        while (end := chunk.find(LINE_FEED, start) + 1) > 0:
            if self.quote is not None:
                is_quoted ^= chunk.count(self.quote, start, end) % 2 == 1
            if not is_quoted:
                yield end
            start = end


class RowFeed:
    """The rows of an export, which its files take one after the other. It holds one chunk at most."""

    def __init__(self, chunks: Iterator[bytes], ends: RowEnds) -> None:
        """Create the feed. Each of the ``chunks`` has whole rows."""
        self._chunks = chunks
        self._ends = ends
        self._chunk = b""
        self._start = 0

    def has_more(self) -> bool:
        """Return whether there is another row. It can wait for the next chunk."""
        while self._start >= len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._chunk, self._start = chunk, 0
        return True

    def take(self, *, rows: int | None, size: int | None, at_least_one: bool) -> bytes:
        """Return the next rows: up to ``rows`` rows and ``size`` bytes, from one chunk.

        It is empty if the next row is larger than ``size``, unless there must be ``at_least_one`` row, or
        if there are no more rows.
        """
        if not self.has_more():
            return b""
        end = len(self._chunk)
        if size is not None and size < end - self._start:
            end = self._ends.within(self._chunk, self._start, size)
            if end == self._start and at_least_one:
                end = self._ends.after_rows(self._chunk, self._start, 1)
        piece = self._chunk[self._start : end]  # the whole chunk is not copied
        # A row has at least one byte, its line feed. To count rows is much faster than to find each.
        if rows is not None and rows < len(piece) and self._ends.count(piece) > rows:
            end = self._ends.after_rows(self._chunk, self._start, rows)
            piece = self._chunk[self._start : end]
        self._start = end
        if end == len(self._chunk):
            self._chunk, self._start = b"", 0
        return piece
