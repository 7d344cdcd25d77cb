"""The heights of rows whose texts are wrapped.

Excel finds the height of a row itself, but LibreOffice and the previews of mail programs do not: they would
draw the further lines over the next row. So the rows of long texts have their height in the file.

Heights are estimates from the lengths of values. As for the rest of a row, the interpreter executes no step
for a single cell, except for cells with line breaks.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from math import ceil
from operator import add

LINE_HEIGHT = 15
"""Height of a line in points, with the standard font."""

MOST_LINES = 27
"""Lines of the highest row that a sheet can have, 409 points."""

NO_HEIGHT = b">"
"""The end of a row's element without a height. :func:`~.excel.rows.cells` puts it before each row."""

LINE_BREAK = b"&#10;"
UNUSED = 2
"""Characters of a column's width that no text fills: the indent and the edges."""

_WORD_LOSS = 0.9
"""The share of a line that words fill, because the next word does not fit."""

_FURTHER_BYTES = bytes(range(0x80, 0xC0))
"""The bytes of a character in UTF-8 after its first one."""

_HEIGHTS = tuple(
    NO_HEIGHT if lines < 2 else b' ht="%d">' % min(lines * LINE_HEIGHT, 409)
    for lines in range(MOST_LINES + 1)
)


class _Lines(dict[int, int]):
    """The number of lines by the length of a text."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __missing__(self, length: int) -> int:
        lines = 1 if length <= self.room else ceil(length / (self.room * _WORD_LOSS))
        self[length] = found = min(lines, MOST_LINES)
        return found


class RowHeights:
    """Finds the heights of rows from the lengths of their texts."""

    def __init__(self, widths: Sequence[tuple[int, float]], cells_per_row: int) -> None:
        """Prepare the search for heights.

        Args:
            widths: positions of the wrapped columns among the values of a row, and their widths.
            cells_per_row: how many values a row has, with the one before its first column.
        """
        self._columns = [(column, _Lines(max(1, int(width) - UNUSED))) for column, width in widths]
        self._cells_per_row = cells_per_row

    def set(self, values: list[bytes], *, quoted: bool) -> None:
        """Set the heights in ``values``, which have the form of :func:`~.excel.rows.cells`.

        The height of a row depends on its own values alone, not on the rows that are set together with it.

        ``quoted``: some of them can have line breaks.
        """
        least = 1
        found: Iterable[int] | None = None
        for column, known in self._columns:
            cells = values[column :: self._cells_per_row]
            if quoted and LINE_BREAK in b"".join(cells):
                counts: Iterable[int] = [_lines(cell, known) for cell in cells]
            else:
                lengths = list(map(len, cells))
                longest = max(lengths)
                if longest <= known.room:
                    continue  # bytes: there are no more characters than these
                is_ascii = b"".join(cells).isascii()
                if is_ascii and min(lengths) == longest:
                    least = max(least, known[longest])  # such as hashes
                    continue
                # Of ASCII both are the same, and the lengths are known.
                counts = map(known.__getitem__, lengths if is_ascii else _widths(cells, lengths))
            found = counts if found is None else map(max, found, counts)
        if found is not None:
            heights = _HEIGHTS if least == 1 else (_HEIGHTS[least],) * least + _HEIGHTS[least:]
            values[:: self._cells_per_row] = map(heights.__getitem__, found)
        elif least > 1:
            values[:: self._cells_per_row] = [_HEIGHTS[least]] * (len(values) // self._cells_per_row)


def _lines(cell: bytes, known: _Lines) -> int:
    """Return the number of lines of a text with line breaks."""
    parts = cell.split(LINE_BREAK)[:MOST_LINES]
    return min(sum(map(known.__getitem__, _widths(parts, map(len, parts)))), MOST_LINES)


def _widths(cells: Sequence[bytes], lengths: Iterable[int]) -> Iterable[int]:
    """Return about how wide texts are, in characters.

    The mean of characters and bytes is right for letters of one byte, and for those of East Asia, which have
    three bytes and are twice as wide. It is half too much for other scripts.
    """
    characters = map(len, map(bytes.translate, cells, repeat(None), repeat(_FURTHER_BYTES)))
    return map((1).__rrshift__, map(add, map(add, lengths, characters), repeat(1)))
