"""Wrapped rows, column by column, on their way to a page."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from stream_app.exports.formats.pdf_text import LINE, ROW


@dataclass(slots=True)
class Rows:
    """Rows column by column; each cell has ``heights`` lines, and ``ends`` says what follows."""

    cells: list[list[str]]
    heights: list[int] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    shades: list[bool] = field(default_factory=list)

    @classmethod
    def of(cls, columns: int) -> "Rows":
        return cls([[] for _ in range(columns)])

    def extend(self, more: "Rows") -> None:
        for column, added in zip(self.cells, more.cells, strict=True):
            column.extend(added)
        self.heights.extend(more.heights)
        self.ends.extend(more.ends)
        self.shades.extend(more.shades)

    def slice(self, start: int, end: int) -> "Rows":
        return Rows(
            [column[start:end] for column in self.cells],
            self.heights[start:end],
            self.ends[start:end],
            self.shades[start:end],
        )

    def broken(self, lines: int) -> "Rows":
        """The same rows, taller ones in pieces of so many lines that may stand on different pages."""
        starts = [(row, line) for row, height in enumerate(self.heights) for line in range(0, height, lines)]
        pieces = [min(lines, self.heights[row] - line) for row, line in starts]
        last = [line + piece == self.heights[row] for (row, line), piece in zip(starts, pieces, strict=True)]
        return Rows(
            [[piece for cell in column for piece in _pieces(cell, lines)] for column in self.cells],
            pieces,
            [ROW if is_last else LINE for is_last in last],
            [self.shades[row] for row, _ in starts],
        )


def _pieces(cell: str, lines: int) -> Iterator[str]:
    split = cell.split(LINE)
    return (LINE.join(split[start : start + lines]) for start in range(0, len(split), lines))
