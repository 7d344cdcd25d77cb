"""CSV: RFC 4180 with bare line feeds. PostgreSQL's COPY writes the rows; the frame adds the header."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from secrets import token_hex
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Text, and_, case, cast, func, literal, literal_column, select
from sqlalchemy.types import UserDefinedType

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.ascii_marks import marked_rules, texts_of, unmarked
from stream_app.exports.formats.base import ROWS, CopySelect, Document, Format, Tally, cell, line_starts
from stream_app.exports.formats.localized import local_text
from stream_app.exports.formats.rendering import as_text, is_json_text
from stream_app.locales import find_locale
from streaming_exporter.events import CsvOptions, Options

ASCII_STARTS = "=+-@"
LEADING_BREAKS = "\t\n\r"
"""Spreadsheets drop these characters at the start of a cell, so the next character starts it."""

WIDE_STARTS = "＝＋－＠﹦﹢﹣﹫"
"""Full-width and small forms, which Excel in East Asian languages reads as the plain characters."""

PLAIN_NUMBER = r"[+-]([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""A text that begins like a formula but is a number. It is not changed."""

_SEPARATORS = ";,|\t\r\n"
"""Characters at which programs split lines, depending on their settings, and line breaks."""

_SPARSE = 512
"""If a byte occurs less than once in this number of bytes, checking each occurrence is faster."""

_WIDE = b"\xef(?:%b)" % b"|".join(start.encode()[1:] for start in WIDE_STARTS)
_ENDS = re.escape(_SEPARATORS).encode()
_NUMBER = rb"[+-](?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?"
_FORMULA = b'(?!%b[])}>]*+(?:[%b"]|$))[=+@-]' % (_NUMBER, _ENDS)
"""A repetition gives nothing back (``++``): otherwise long digits without an end would take quadratic time.
Brackets can close behind a number, as in ``[0.1,-0.3]``: no formula has one that was not opened."""

_FIRST = b"\xef" + ASCII_STARTS.encode()
"""First bytes of the characters that a formula begins with."""

_QUOTE_OR_FIRST = b'"' + _FIRST

_JSON_STRING = re.compile(rb'""(?:[^"\\]|\\(?:""|[^"]))*+""')
"""A string of JSON within a quoted field, whose quotes are doubled."""


class GuardedText(NamedTuple):
    """Guarded records. ``changed`` is the number of changed values without a marker."""

    records: bytes
    lines: int
    changed: int


class _Search:
    """Searches for possible starts of formulas directly after one separator."""

    def __init__(self, separator: str) -> None:
        self._byte = separator.encode()
        # A literal first byte makes it fast. The look-ahead rejects most places at once.
        self._expression = re.compile(
            b'%b"*+(?=[%b])(?:%b|%b)' % (re.escape(self._byte), re.escape(_FIRST), _FORMULA, _WIDE)
        )

    def sparsely(self, chunk: bytes) -> Iterator[int]:
        """Yield positions in a chunk with few separators and matches that does not end with a separator."""
        place = chunk.find(self._byte)
        for _ in range(len(chunk) // _SPARSE):
            if place < 0 or chunk[place + 1] in _QUOTE_OR_FIRST:
                break
            place = chunk.find(self._byte, place + 1)
        if place >= 0:
            yield from self.densely(chunk, place)

    def densely(self, chunk: bytes, start: int = 0) -> Iterator[int]:
        """Yield positions in a chunk with many separators or matches."""
        return (match.end() - 1 for match in self._expression.finditer(chunk, start))


class FormulaGuard:
    """Makes texts of possible starts of formulas within the records of a file.

    In text columns a ``'`` stands before them. In JSON, which must stay the same value, they are written as
    escapes, such as ``\\u003d`` for ``=`` (RFC 8259, section 7).
    """

    def __init__(
        self, textual: Sequence[bool], delimiter: str, marker: bytes, *, json: Sequence[bool] = ()
    ) -> None:
        """Prepare the guard of the texts of a file.

        Args:
            textual: whether the values of each column are texts, which are guarded.
            delimiter: the delimiter of the file. Programs that split at it respect quotes.
            marker: a mark in values that PostgreSQL has guarded; the caller counts these.
            json: whether the values of each column are JSON; empty if there is none.
        """
        self._textual = textual
        self._json = json or [False] * len(textual)
        self._delimiter = delimiter.encode()
        self._marker = marker
        inner = [separator for separator in _SEPARATORS if separator != delimiter]
        self._anywhere = [_Search(separator) for separator in inner if separator not in "\r\n"]
        self._return, self._line_feed = _Search("\r"), _Search("\n")
        self._wide = re.compile(_WIDE)
        self._before_cell = (b"", b"\n", b'"', self._delimiter)
        self._inner = "".join(inner).encode()
        ends = re.escape(self._inner)
        self._inside = re.compile(b'([%b]"*)(?=%b|%b)' % (ends, _FORMULA, _WIDE))
        self._inside_json = re.compile(b'([%b]"*)(%b|%b)' % (ends, _FORMULA, _WIDE))
        self._leading = re.compile(b'^("?)(?=%b)' % _WIDE)

    def __call__(self, chunk: bytes) -> GuardedText:
        """Guard ``chunk``, which has whole records."""
        starts = line_starts(chunk) if b'"' in chunk else b""
        lines = len(starts) or chunk.count(b"\n")
        if not any(self._textual) and not any(self._json):
            return GuardedText(chunk, lines, 0)
        found = sorted(self._suspicious(chunk, starts))
        if not found:
            return GuardedText(chunk, lines, 0)
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
        return GuardedText(b"".join((*parts, chunk[done:])), lines, count)

    def text(self, text: str) -> str:
        """Guard a single value, such as a column's name, in the same way."""
        return self._inside.sub(rb"\1'", self._leading.sub(rb"\1'", text.encode())).decode()

    def _suspicious(self, chunk: bytes, starts: bytes) -> Iterator[int]:
        """Yield positions of characters that could begin a formula.

        ``starts`` has the first byte of each line. It is empty if no value is quoted: then no value has a
        line break, because COPY quotes such values.
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
            elif self._json[number] and field.startswith(b'"'):
                changed = b'"%b"' % _JSON_STRING.sub(self._guarded_string, field[1:-1])
                count += changed != field
                field = changed
            fields.append(field)
        return self._delimiter.join(fields), count

    def _guarded_string(self, string: re.Match[bytes]) -> bytes:
        """Return a string of JSON; the character before it can be a separator, too."""
        before = string.string[max(0, string.start() - 1) : string.start()]
        if before not in self._inner:
            before = b""
        escaped = self._inside_json.sub(_escaped, before + string[0])
        return escaped.removeprefix(before)


def _escaped(start: re.Match[bytes]) -> bytes:
    return start[1] + b"\\u%04x" % ord(start[2].decode())


def _record(chunk: bytes, start: int, position: int) -> tuple[int, int]:
    """Return the start and the end of the record at ``position``, without its line feed.

    ``start`` is the start of any record at or before it. A line feed within quotes does not end a record.
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
    """Yield the fields of the record with their quotes."""
    held: list[bytes] = []
    quotes = 0
    for piece in record.split(delimiter):
        held.append(piece)
        quotes += piece.count(b'"')
        if quotes % 2 == 0:
            yield delimiter.join(held)
            held, quotes = [], 0


GUARDED = frozenset({Kind.TEXT, Kind.ENUM, Kind.OTHER})
"""Kinds whose values can begin like a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""

GEOMETRIC = frozenset({"point", "lseg", "path", "box", "line", "polygon", "circle"})
"""Types of :data:`Kind.OTHER` whose texts have only numbers and brackets."""

WITHOUT_TEXT = frozenset(Kind) - GUARDED - {Kind.ARRAY, Kind.JSON, Kind.BYTES}
"""Kinds of bounds with which a range has no formula: numbers and times."""

CAN_BE_EMPTY = GUARDED | {Kind.BYTES}

SYLK = b"ID"
"""Excel takes a file that begins with these letters for a file in SYLK format, and shows an error."""

BOM = b"\xef\xbb\xbf"
"""The byte order mark U+FEFF. At the start of a file it is no part of the first value for any program."""

MARKER = f"\x01{token_hex(16)}\x01"
"""Marks a guarded value in the rows that PostgreSQL renders. The frame counts and removes the marks.

The marker is a secret of this process and in no file. Only a user who can read the statements of the source
database's sessions could write it into the data.
"""


class CsvFormat(Format):
    """The format ``csv``."""

    name = "csv"
    extension = "csv"
    media_type = "text/csv; charset=utf-8"
    description = "Comma-separated text, for any spreadsheet"
    compressible = True
    own_options = frozenset(CsvOptions.model_fields)
    holds_rows = False
    closing_bytes = 1024

    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        """Return one SQL column for each cell. Values of text columns are guarded against formulas.

        With a single column an empty value would be an empty line, which programs skip. So NULL becomes an
        empty text, which COPY quotes. If NULL is written as a text, all other values are quoted.
        """
        copy: dict[str, Any] = {"format": "csv", "delimiter": options.delimiter, "null": options.null}
        rules = marked_rules(find_locale(options.locale)) if options.locale else None
        cells = [
            _guarded(item) if options.guard_formulas and _is_textual(item) else local_text(item, rules)
            for item in columns
        ]
        if len(cells) == 1 and not options.null:
            cells = [func.coalesce(cast(cells[0], Text), literal_column("''"))]
        elif len(cells) == 1 and columns[0].kind in CAN_BE_EMPTY:
            copy["force_quote"] = True
        return CopySelect(select(*cells).select_from(ROWS), copy)

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Yield the byte order mark and the header, then the rows."""
        options, marker = document.options, MARKER.encode()
        guard = FormulaGuard(
            [_is_textual(item) for item in document.columns],
            options.delimiter,
            marker,
            json=[is_json_text(item.data_type) for item in document.columns],
        )
        head = _head(document, guard)
        if head:
            yield head
        if options.locale:
            chunks = unmarked(chunks, texts_of(find_locale(options.locale)))
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
                chunk = _with_safe_start(chunk, options)
            yield chunk


class _FirstByte(UserDefinedType[Any]):
    """PostgreSQL's one-byte type. Unlike ``ascii()`` a cast to it accepts texts in every server encoding."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return its name, which must be quoted."""
        return 'pg_catalog."char"'


def _is_textual(item: Column) -> bool:
    """Return whether values can have formulas. JSON, numbers, times and ranges of these cannot."""
    data_type = item.data_type
    if data_type.bounds is not None:
        return data_type.bounds.kind not in WITHOUT_TEXT
    return item.kind in GUARDED and not is_json_text(data_type) and data_type.name not in GEOMETRIC


def _guarded(item: Column) -> ColumnElement[Any]:
    value = as_text(item)
    text = cell(item) if item.base == "varchar" else value
    first = cast(text, _FirstByte())
    begins_formula = and_(
        first.in_([literal_column(f"E'\\x{ord(start):02x}'") for start in ASCII_STARTS + LEADING_BREAKS]),
        # The cast takes four characters such as \\075 for the number of a byte.
        func.left(text, 1) != literal_column("'\\'"),
        text.op("!~")(literal_column(f"'^{PLAIN_NUMBER}$'")),
    )
    return case(
        (
            first > literal_column("'@'"),
            value,
        ),  # one comparison is enough for most texts, which start with a letter
        (begins_formula, literal(f"{MARKER}'").concat(value)),
        else_=value,
    )


def _head(document: Document, guard: FormulaGuard) -> bytes:
    options = document.options
    head = b""
    if options.header:
        names = [item.title for item in document.columns]
        if options.guard_formulas:
            leading = ASCII_STARTS + LEADING_BREAKS
            names = ["'" + name if name[0] in leading else name for name in map(guard.text, names)]
        text = io.StringIO()
        # With this line terminator the writer quotes carriage returns, as COPY does.
        csv.writer(text, delimiter=options.delimiter, lineterminator="\r\n").writerow(names)
        head = _with_safe_start(text.getvalue().removesuffix("\r\n").encode(), options) + b"\n"
    return BOM + head if options.bom else head


def _with_safe_start(start: bytes, options: Options) -> bytes:
    """Return the start of a file. Its first value is quoted if programs would not take it for a value."""
    if not start.startswith((SYLK, BOM)):
        return start
    line, _, _ = start.partition(b"\n")
    first, _, _ = line.partition(options.delimiter.encode())
    if first.decode() == options.null:
        return start  # NULL must not be quoted
    return b'"%b"' % first + start[len(first) :]
