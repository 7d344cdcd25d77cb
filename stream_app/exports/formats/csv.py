"""Comma-separated values, RFC 4180 with bare line feeds: PostgreSQL's own COPY, a header in front."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from secrets import token_hex
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Text, and_, case, cast, func, literal, literal_column, select
from sqlalchemy.types import UserDefinedType

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import ROWS, CopySelect, Document, Format, Tally, cell, line_starts
from stream_app.exports.formats.rendering import as_text, is_json_text
from streaming_exporter.events import Options

ASCII_STARTS = "=+-@"
LEADING_BREAKS = "\t\n\r"
"""A spreadsheet drops them at the beginning of a cell, so what follows them begins it."""

WIDE_STARTS = "＝＋－＠﹦﹢﹣﹫"
"""Excel in East Asian languages reads the full-width and small forms as the characters themselves."""

PLAIN_NUMBER = r"[+-]([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""What begins like a formula and is a number: it stays as it is."""

_SEPARATORS = ";,|\t\r\n"
"""Where programs split lines, depending on their settings, and line breaks."""

_SPARSE = 512
"""Bytes for each of a byte's occurrences from which on it is faster to look at them one by one."""

_WIDE = b"\xef(?:%b)" % b"|".join(start.encode()[1:] for start in WIDE_STARTS)
_ENDS = re.escape(_SEPARATORS).encode()
_FORMULA = b'(?![+-](?:[0-9]+\\.?[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?:[%b"]|$))[=+@-]' % _ENDS
_FIRST = b"\xef" + ASCII_STARTS.encode()
"""The first bytes of what a formula begins with."""

_QUOTE_OR_FIRST = b'"' + _FIRST


class Guarded(NamedTuple):
    """Records that were searched; ``changed`` is how many values were changed that bear no marker."""

    records: bytes
    lines: int
    changed: int


class _Search:
    """Looks for what could begin a formula right behind one separator."""

    def __init__(self, separator: str) -> None:
        self._byte = separator.encode()
        # A literal first byte makes it fast, and so does what settles most places at once.
        self._expression = re.compile(
            b'%b"*+(?=[%b])(?:%b|%b)' % (re.escape(self._byte), re.escape(_FIRST), _FORMULA, _WIDE)
        )

    def sparsely(self, chunk: bytes) -> Iterator[int]:
        """Positions of the characters in what likely has none, and does not end with the separator."""
        place = chunk.find(self._byte)
        for _ in range(len(chunk) // _SPARSE):
            if place < 0 or chunk[place + 1] in _QUOTE_OR_FIRST:
                break
            place = chunk.find(self._byte, place + 1)
        if place >= 0:
            yield from self.densely(chunk, place)

    def densely(self, chunk: bytes, start: int = 0) -> Iterator[int]:
        """The same, where the separator is frequent or ``chunk`` likely has one of the characters."""
        return (match.end() - 1 for match in self._expression.finditer(chunk, start))


class FormulaGuard:
    """Puts a ``'`` before what could begin a formula inside the textual columns of records."""

    def __init__(self, textual: Sequence[bool], delimiter: str, marker: bytes) -> None:
        """Prepare the search.

        Args:
            textual: for each column whether its values are guarded.
            delimiter: the file's own; readers that split at it respect quotes.
            marker: stands in values that were counted before.
        """
        self._textual = textual
        self._delimiter = delimiter.encode()
        self._marker = marker
        inner = [separator for separator in _SEPARATORS if separator != delimiter]
        self._anywhere = [_Search(separator) for separator in inner if separator not in "\r\n"]
        self._return, self._line_feed = _Search("\r"), _Search("\n")
        self._wide = re.compile(_WIDE)
        self._before_cell = (b"", b"\n", b'"', self._delimiter)
        self._inside = re.compile(
            b'([%b]"*)(?=%b|%b)' % (re.escape("".join(inner)).encode(), _FORMULA, _WIDE)
        )
        self._leading = re.compile(b'^("?)(?=%b)' % _WIDE)

    def __call__(self, chunk: bytes) -> Guarded:
        """``chunk`` of whole records, guarded."""
        starts = line_starts(chunk) if b'"' in chunk else b""
        lines = len(starts) or chunk.count(b"\n")
        if not any(self._textual):
            return Guarded(chunk, lines, 0)
        found = sorted(self._suspicious(chunk, starts))
        if not found:
            return Guarded(chunk, lines, 0)
        parts: list[bytes] = []
        done = count = 0
        for position in found:
            if position < done:
                continue
            start, end = _record(chunk, done, position)
            record, guarded = self._guarded(chunk[start:end])
            parts += chunk[done:start], record
            done = end
            count += guarded
        return Guarded(b"".join((*parts, chunk[done:])), lines, count)

    def text(self, text: str) -> str:
        """A single value, such as a column's name, guarded as one would be that stands in a record."""
        return self._inside.sub(rb"\1'", self._leading.sub(rb"\1'", text.encode())).decode()

    def _suspicious(self, chunk: bytes, starts: bytes) -> Iterator[int]:
        """Positions of characters that could begin a formula.

        ``starts`` has the first byte of each line, or nothing where no value is quoted: then no value holds a
        line break, since COPY quotes those that do.
        """
        for search in self._anywhere:
            yield from search.sparsely(chunk)
        if starts:
            yield from self._return.sparsely(chunk)
            if any(first in starts for first in _QUOTE_OR_FIRST):
                yield from self._line_feed.densely(chunk)
        if b"\xef" in chunk:
            for match in self._wide.finditer(chunk):
                if chunk[max(match.start() - 1, 0) : match.start()] in self._before_cell:
                    yield match.start()

    def _guarded(self, record: bytes) -> tuple[bytes, int]:
        fields: list[bytes] = []
        count = 0
        for number, field in enumerate(_fields(record, self._delimiter)):
            if self._textual[number]:
                changed = self._inside.sub(rb"\1'", self._leading.sub(rb"\1'", field))
                if changed != field:
                    count += self._marker not in field
                    field = changed if changed.startswith(b'"') else b'"%b"' % changed
            fields.append(field)
        return self._delimiter.join(fields), count


def _record(chunk: bytes, start: int, position: int) -> tuple[int, int]:
    """Where the record around ``position`` begins and ends, without its line feed.

    ``start`` is where some record begins, at or before it. A line feed within quotes ends no record.
    """
    quotes = chunk.count(b'"', start, position)
    before, line_feed = position, chunk.rfind(b"\n", start, position)
    while line_feed >= 0:
        quotes -= chunk.count(b'"', line_feed, before)
        if quotes % 2 == 0:
            start = line_feed + 1
            break
        before, line_feed = line_feed, chunk.rfind(b"\n", start, line_feed)
    end = chunk.index(b"\n", position)
    quotes = chunk.count(b'"', start, end)
    while quotes % 2:
        following = chunk.index(b"\n", end + 1)
        quotes += chunk.count(b'"', end, following)
        end = following
    return start, end


def _fields(record: bytes, delimiter: bytes) -> Iterator[bytes]:
    """The record's fields as they stand there, quotes included."""
    held: list[bytes] = []
    quotes = 0
    for piece in record.split(delimiter):
        held.append(piece)
        quotes += piece.count(b'"')
        if quotes % 2 == 0:
            yield delimiter.join(held)
            held, quotes = [], 0


GUARDED = frozenset({Kind.TEXT, Kind.ENUM, Kind.OTHER})
"""Kinds whose values may begin like a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""

CAN_BE_EMPTY = GUARDED | {Kind.BYTES}

SYLK = "ID"
"""Excel takes a file that begins so for one of another format, and complains."""

MARKER = f"\x01{token_hex(16)}\x01"
"""Marks, in what PostgreSQL renders, a spot that the frame counts and removes.

It is this process's secret and in no file: data holds it only if somebody wrote it there who may read the
statements of the source's sessions.
"""


class CsvFormat(Format):
    """``csv``."""

    name = "csv"
    extension = "csv"
    media_type = "text/csv; charset=utf-8"
    description = (
        "RFC 4180 text with a header; delimiter, header, BOM, null text and formula guard are options"
    )
    compressible = True

    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        """One SQL column for each cell, text columns guarded against formulas.

        What is written as nothing, alone in its record, would be an empty line, which readers skip. So NULL
        becomes an empty text, which COPY quotes; where NULL has a text, all others are quoted.
        """
        copy: dict[str, Any] = {"format": "csv", "delimiter": options.delimiter, "null": options.null}
        cells = [
            _guarded(item) if options.guard_formulas and _is_textual(item) else as_text(item)
            for item in columns
        ]
        if len(cells) == 1 and not options.null:
            cells = [func.coalesce(cast(cells[0], Text), literal_column("''"))]
        elif len(cells) == 1 and columns[0].kind in CAN_BE_EMPTY:
            copy["force_quote"] = True
        return CopySelect(select(*cells).select_from(ROWS), copy)

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Byte order mark and header, then the rows as they come."""
        options, marker = document.options, MARKER.encode()
        guard = FormulaGuard([_is_textual(item) for item in document.columns], options.delimiter, marker)
        head = _head(document, guard)
        if head:
            yield head
        for chunk in chunks:
            if not options.guard_formulas:
                tally.rows += chunk.count(b"\n")
            else:
                chunk, lines, guarded = guard(chunk)
                tally.rows += lines
                if b"\x01" in chunk:
                    guarded += chunk.count(marker)
                    chunk = chunk.replace(marker, b"")
                if guarded:
                    tally.warnings["guarded_formulas"] += guarded
            if not head:
                head = chunk
                chunk = _unlike_sylk(chunk, options)
            yield chunk


class _FirstByte(UserDefinedType[Any]):
    """PostgreSQL's one-byte type: unlike ``ascii()``, the cast takes texts of any server encoding."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Its name, which must be quoted."""
        return 'pg_catalog."char"'


def _is_textual(item: Column) -> bool:
    """Whether a spreadsheet could take values for formulas: JSON, numbers and times it cannot."""
    return item.kind in GUARDED and not is_json_text(item.data_type)


def _guarded(item: Column) -> ColumnElement[Any]:
    value = as_text(item)
    text = cell(item) if item.base == "varchar" else value
    first = cast(text, _FirstByte())
    begins_formula = and_(
        first.in_([literal_column(f"E'\\x{ord(start):02x}'") for start in ASCII_STARTS + LEADING_BREAKS]),
        # The cast reads four characters such as \\075 as the number of a byte.
        func.left(text, 1) != literal_column("'\\'"),
        text.op("!~")(literal_column(f"'^{PLAIN_NUMBER}$'")),
    )
    return case(
        (first > literal_column("'@'"), value),  # most texts start with a letter: one comparison
        (begins_formula, literal(f"{MARKER}'").concat(value)),
        else_=value,
    )


def _head(document: Document, guard: FormulaGuard) -> bytes:
    options = document.options
    head = b""
    if options.header:
        names = [item.name for item in document.columns]
        if options.guard_formulas:
            leading = ASCII_STARTS + LEADING_BREAKS
            names = ["'" + name if name[0] in leading else name for name in map(guard.text, names)]
        text = io.StringIO()
        # It quotes carriage returns, as COPY does, only if the line ends with one.
        csv.writer(text, delimiter=options.delimiter, lineterminator="\r\n").writerow(names)
        head = _unlike_sylk(text.getvalue().removesuffix("\r\n").encode(), options) + b"\n"
    return b"\xef\xbb\xbf" + head if options.bom else head


def _unlike_sylk(start: bytes, options: Options) -> bytes:
    """The start of a file, its first value quoted if Excel would take the file for another format."""
    if not start.startswith(SYLK.encode()):
        return start
    line, _, _ = start.partition(b"\n")
    first, _, _ = line.partition(options.delimiter.encode())
    if first.decode() == options.null:
        return start  # quoted it would be a text
    return b'"%b"' % first + start[len(first) :]
