"""From what COPY emits to the values of cells, ready to stand in XML.

All of it works on whole chunks with searches and replacements that run in C; only what is found to need more
is looked at value by value. The order of the steps matters: each leaves nothing that a later one would
take for its own.
"""

import re

from stream_app.exports.formats.base import Tally

DELIMITER, QUOTE = b"\x02", b"\x01"
"""COPY's (see ``RAW_LINES``): it quotes what holds one of them or a line break."""

EMPTY = b"\x03"
"""An empty text, where an empty value is NULL."""

AS_TEXT = b"&#10;"
"""What becomes of ``excel_values.AS_TEXT``."""

MAX_UNITS = 32_767
"""UTF-16 code units that a cell holds."""

_QUOTED = re.compile(rb"\x01([^\x01]*(?:\x01\x01[^\x01]*)*)\x01")
_VALUE = re.compile(rb"\x01[^\x01]*(?:\x01\x01[^\x01]*)*\x01|[^\x01\x02\n]+")
_LOOKS_ESCAPED = re.compile(rb"_(?=x[0-9A-Fa-f]{4}_)")
# What XML 1.0 has no way to write, save QUOTE and DELIMITER.
_FORBIDDEN = re.compile(rb"[\x03-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]")
_CONTROLS = tuple(bytes([code]) for code in (*range(3, 9), 0x0B, 0x0C, *range(0x0E, 0x20)))


def cells(chunk: bytes, tally: Tally) -> tuple[list[bytes], bool]:
    """The values of a chunk of whole rows, a line feed ahead of each row's; and whether any was quoted.

    A value that is ``b""`` is NULL.
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
    return (b"\n\x02" + chunk[:-1].replace(b"\n", b"\x02\n\x02")).split(DELIMITER), quoted


def plain(text: str) -> str:
    """``text`` with the same escapes, for those who write XML themselves."""
    escaped = _LOOKS_ESCAPED.sub(b"_x005F_", text.encode())
    return re.sub(rb"[\x01\x02\r]", _escaped, _FORBIDDEN.sub(_escaped, escaped)).decode()


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"_x%04X_" % ord(match[0].decode())


def _unquoted(chunk: bytes, tally: Tally) -> bytes:
    """Without quotes: what stands within them is every other piece between them."""
    pieces = chunk.split(QUOTE)
    within = QUOTE.join(pieces[1::2])
    _count(tally, "escaped_characters", within.count(DELIMITER))
    within = within.replace(DELIMITER, b"_x0002_").replace(b"\n", b"&#10;").replace(b"\r", b"&#13;")
    pieces[1::2] = [piece or EMPTY for piece in within.split(QUOTE)]
    # Nothing between two quotes is one that was doubled.
    if count := pieces[2:-1:2].count(b""):
        _count(tally, "escaped_characters", count)
        pieces[2:-1:2] = [piece or b"_x0001_" for piece in pieces[2:-1:2]]
    return b"".join(pieces)


def _count(tally: Tally, warning: str, count: int) -> None:
    if count:
        tally.warnings[warning] += count


def _holds_long(chunk: bytes) -> bool:
    """Whether some value may be longer than a cell, found in leaps; breaks within quotes deceive it."""
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
        # Half a surrogate pair at the end goes too.
        value = units[: 2 * MAX_UNITS].decode("utf-16-le", "ignore").encode()
        return QUOTE + value.replace(QUOTE, b"\x01\x01") + QUOTE if inner else value

    return _VALUE.sub(cut, chunk)
