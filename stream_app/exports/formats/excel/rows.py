"""Renders values to the rows of a sheet's XML. Each row and cell has its reference.

Excel needs no references, but EPPlus, ClosedXML and other libraries do. The text before a value consists of
two prepared strings: one for each column and thousand of rows, and one for each column and the last three
digits of the row. Lists of them are interleaved with the values by slices and then joined, so the interpreter
executes no step for a single cell.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from stream_app.exports.formats.base import Tally

DELIMITER, QUOTE = b"\x02", b"\x01"
"""Those of COPY (see ``RAW_LINES``). COPY quotes values with one of them or with a line break."""

EMPTY = b"\x03"
"""Marks an empty text, because an empty value is NULL."""

AS_TEXT = b"&#10;"
"""``values.AS_TEXT`` as it is escaped in XML."""

MAX_UNITS = 32_767
"""Largest number of UTF-16 code units in a cell."""

_QUOTED = re.compile(rb"\x01([^\x01]*(?:\x01\x01[^\x01]*)*)\x01")
_VALUE = re.compile(rb"\x01[^\x01]*(?:\x01\x01[^\x01]*)*\x01|[^\x01\x02\n]+")
_LOOKS_ESCAPED = re.compile(rb"_(?=x[0-9A-Fa-f]{4}_)")
# Characters that XML 1.0 cannot contain, except QUOTE and DELIMITER.
_FORBIDDEN = re.compile(rb"[\x03-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]")
_CONTROLS = tuple(bytes([code]) for code in (*range(3, 9), 0x0B, 0x0C, *range(0x0E, 0x20)))


def cells(chunk: bytes, tally: Tally) -> tuple[list[bytes], bool]:
    """Return the values of a chunk of whole rows, and whether any value was quoted.

    Before the values of each row there is the end of its element's start, ``>``. The value ``b""`` is NULL.
    """
    quoted = QUOTE in chunk
    if _holds_long(chunk) or (quoted and _quotes_long(chunk)):
        chunk = _cut(chunk, tally)
    if b"_" in chunk:
        chunk = _LOOKS_ESCAPED.sub(b"_x005F_", chunk)
    chunk = chunk.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")
    if b"\xef" in chunk or any(control in chunk for control in _CONTROLS):
        chunk, count = _FORBIDDEN.subn(_escaped, chunk)
        _count(tally, "escaped_characters", count)
    if quoted:
        chunk = _unquoted(chunk, tally)
    return (b">\x02" + chunk[:-1].replace(b"\n", b"\x02>\x02")).split(DELIMITER), quoted


def plain(text: str) -> str:
    """Return ``text`` with the same escapes, for openpyxl, which writes the XML itself."""
    escaped = _LOOKS_ESCAPED.sub(b"_x005F_", text.encode())
    return re.sub(rb"[\x01\x02\r]", _escaped, _FORBIDDEN.sub(_escaped, escaped)).decode()


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"_x%04X_" % ord(match[0].decode())


def _unquoted(chunk: bytes, tally: Tally) -> bytes:
    """Remove the quotes. Every second piece between them was quoted."""
    pieces = chunk.split(QUOTE)
    within = QUOTE.join(pieces[1::2])
    _count(tally, "escaped_characters", within.count(DELIMITER))
    within = within.replace(DELIMITER, b"_x0002_").replace(b"\n", b"&#10;").replace(b"\r", b"&#13;")
    pieces[1::2] = [piece or EMPTY for piece in within.split(QUOTE)]
    # An empty piece between two quotes is a quote that COPY has doubled.
    if count := pieces[2:-1:2].count(b""):
        _count(tally, "escaped_characters", count)
        pieces[2:-1:2] = [piece or b"_x0001_" for piece in pieces[2:-1:2]]
    return b"".join(pieces)


def _count(tally: Tally, warning: str, count: int) -> None:
    if count:
        tally.warnings[warning] += count


def _holds_long(chunk: bytes) -> bool:
    """Return whether a value can be longer than a cell. Line breaks within quotes are taken for ends."""
    start = 0
    while len(chunk) - start > MAX_UNITS:
        end = start + MAX_UNITS + 1
        start = max(chunk.rfind(DELIMITER, start, end), chunk.rfind(b"\n", start, end)) + 1
        if not start:
            return True
    return False


def _quotes_long(chunk: bytes) -> bool:
    pieces = chunk.split(QUOTE)
    return max(map(len, pieces[1::2])) > MAX_UNITS or b"" in pieces[2:-1:2]


def _cut(chunk: bytes, tally: Tally) -> bytes:
    def cut(match: re.Match[bytes]) -> bytes:
        if len(match[0]) <= MAX_UNITS:
            return match[0]
        inner = _QUOTED.fullmatch(match[0])
        units = (inner[1].replace(b"\x01\x01", QUOTE) if inner else match[0]).decode().encode("utf-16-le")
        if len(units) <= 2 * MAX_UNITS:
            return match[0]
        _count(tally, "cut_cells", 1)
        # Half a surrogate pair at the end is removed too.
        value = units[: 2 * MAX_UNITS].decode("utf-16-le", "ignore").encode()
        return QUOTE + value.replace(QUOTE, b"\x01\x01") + QUOTE if inner else value

    return _VALUE.sub(cut, chunk)


_TEXT_START, _TEXT_END = b'" t="inlineStr"><is><t xml:space="preserve">', b"</t></is></c>"
_STRINGS = 30_000
"""Approximate number of strings for the second part of references."""


@dataclass(frozen=True, slots=True)
class CellMarkup:
    """The markup around a value: ``start`` follows the cell's reference, ``end`` follows the value."""

    start: bytes
    end: bytes
    is_text: bool

    @classmethod
    def text(cls, style: int, *, spaces: bool) -> "CellMarkup":
        """Return the markup of a text. ``spaces``: it can begin or end with white space."""
        start = _TEXT_START if spaces else _TEXT_START.replace(b' xml:space="preserve"', b"")
        return cls(_styled(style) + start[1:], _TEXT_END, is_text=True)

    @classmethod
    def number(cls, style: int, *, boolean: bool = False) -> "CellMarkup":
        """Return the markup of a number or a boolean."""
        return cls(_styled(style) + (b' t="b"><v>' if boolean else b"><v>"), b"</v></c>", is_text=False)


def _styled(style: int) -> bytes:
    return b'" s="%d"' % style if style else b'"'


class RowRenderer:
    """Renders rows whose cells have the given markup.

    The XML is for the inside of an open row element: each row begins with the end of the row before it.
    """

    def __init__(self, shapes: Sequence[CellMarkup]) -> None:
        self.width = len(shapes) + 1  # with the row's own element
        from openpyxl.utils import get_column_letter  # large: see the format

        self._numeric = [index for index, shape in enumerate(shapes, 1) if not shape.is_text]
        self._names = [
            b'</row><row r="',
            *(b'<c r="' + get_column_letter(i).encode() for i in range(1, self.width)),
        ]
        self._ends = [b"", *(shape.end for shape in shapes)]
        digits = next((digits for digits in (3, 2) if self.width * 10**digits <= _STRINGS), 1)
        self._step = 10**digits
        starts = [b'"', *(shape.start for shape in shapes)]
        self._low = [b"%0*d" % (digits, low) + start for low in range(self._step) for start in starts]
        self._lowest = [b"%d" % low + start for low in range(self._step) for start in starts]
        self._high = -1
        self._heads: list[bytes] = []
        self._joined: list[bytes] = []

    def render(self, values: list[bytes], number: int, *, quoted: bool) -> bytes:
        """Return the XML of rows from ``number`` on. ``values`` have the form of :func:`cells`."""
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
        """Render rows without NULL."""
        parts = [b""] * (3 * len(values))
        parts[0::3] = self._joined * (len(values) // self.width)
        parts[1::3] = tails
        parts[2::3] = values
        parts[0] = self._heads[0]
        parts.append(self._ends[-1])
        return b"".join(parts)

    def _mixed(self, values: list[bytes], tails: list[bytes]) -> bytes:
        """Render rows that can have NULL (no cell), empty texts, and texts in columns of numbers."""
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
