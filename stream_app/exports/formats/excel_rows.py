"""From values to rows of a sheet's XML, each row and cell with its reference.

Excel itself does without references, but EPPlus, ClosedXML and others do not. What comes before a value is
put together from two strings that are made once, one for each column and thousand of rows and one for
each column and the last three digits; lists of them are interleaved with the values by slices and joined, so
no step of the interpreter is spent on a single cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from stream_app.exports.formats.excel_text import AS_TEXT, EMPTY

_TEXT_START, _TEXT_END = b'" t="inlineStr"><is><t xml:space="preserve">', b"</t></is></c>"
_STRINGS = 30_000
"""About how many strings are kept for the second half of references."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What stands around a value: ``start`` after the cell's reference, ``end`` after the value."""

    start: bytes
    end: bytes
    is_text: bool

    @classmethod
    def text(cls, style: int, *, spaces: bool) -> "Shape":
        """An inline text; ``spaces`` if it may begin or end with white space."""
        start = _TEXT_START if spaces else _TEXT_START.replace(b' xml:space="preserve"', b"")
        return cls(_styled(style) + start[1:], _TEXT_END, is_text=True)

    @classmethod
    def number(cls, style: int, *, boolean: bool = False) -> "Shape":
        """A number or a truth value."""
        return cls(_styled(style) + (b' t="b"><v>' if boolean else b"><v>"), b"</v></c>", is_text=False)


def _styled(style: int) -> bytes:
    return b'" s="%d"' % style if style else b'"'


class Rows:
    """Renders rows whose cells have the given shapes.

    What it renders goes inside a row that is still open: each row begins by closing the one before it.
    """

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self.width = len(shapes) + 1  # a row's own element comes first
        from openpyxl.utils import get_column_letter  # large: see the format

        self._numeric = [index for index, shape in enumerate(shapes, 1) if not shape.is_text]
        self._names = [
            b'</row><row r="',
            *(b'<c r="' + get_column_letter(i).encode() for i in range(1, self.width)),
        ]
        self._ends = [b"", *(shape.end for shape in shapes)]
        digits = next((digits for digits in (3, 2) if self.width * 10**digits <= _STRINGS), 1)
        self._step = 10**digits
        starts = [b'">', *(shape.start for shape in shapes)]
        self._low = [b"%0*d" % (digits, low) + start for low in range(self._step) for start in starts]
        self._lowest = [b"%d" % low + start for low in range(self._step) for start in starts]
        self._high = -1
        self._heads: list[bytes] = []
        self._joined: list[bytes] = []

    def render(self, values: list[bytes], number: int, *, quoted: bool) -> bytes:
        """Rows from ``number`` on; ``values`` are as :func:`~.excel_text.cells` has them."""
        blocks = []
        start = 0
        while start < len(values):
            high, low = divmod(number, self._step)
            self._turn_to(high)
            block = values[start : start + (self._step - low) * self.width]
            tails = self._low if high else self._lowest
            tails = tails[low * self.width : low * self.width + len(block)]
            blocks.append(self._mixed(block, tails) if quoted or not all(block) else self._full(block, tails))
            start += len(block)
            number += len(block) // self.width
        return b"".join(blocks)

    def _turn_to(self, high: int) -> None:
        if high != self._high:
            self._high = high
            digits = b"%d" % high if high else b""
            self._heads = [name + digits for name in self._names]
            ends = [self._ends[-1], *self._ends[:-1]]
            self._joined = [end + head for end, head in zip(ends, self._heads, strict=True)]

    def _full(self, values: list[bytes], tails: list[bytes]) -> bytes:
        """Rows without NULL."""
        parts = [b""] * (3 * len(values))
        parts[0::3] = self._joined * (len(values) // self.width)
        parts[1::3] = tails
        parts[2::3] = values
        parts[0] = self._heads[0]
        parts.append(self._ends[-1])
        return b"".join(parts)

    def _mixed(self, values: list[bytes], tails: list[bytes]) -> bytes:
        """Rows that may hold NULL, which is no cell at all, empty text, and text among numbers."""
        count = len(values) // self.width
        ends = self._ends * count
        for column in self._numeric:
            if AS_TEXT not in b"".join(values[column :: self.width]):
                continue
            for index in range(column, len(values), self.width):
                if values[index].startswith(AS_TEXT):
                    values[index] = values[index].removeprefix(AS_TEXT)
                    tails[index] = tails[index][: tails[index].index(b'"')] + _TEXT_START
                    ends[index] = _TEXT_END
        kept = [list(compress(part, values)) for part in (self._heads * count, tails, values, ends)]
        parts = [b""] * (4 * len(kept[0]))
        for offset, part in enumerate(kept):
            parts[offset::4] = part
        return b"".join(parts).replace(EMPTY, b"")
