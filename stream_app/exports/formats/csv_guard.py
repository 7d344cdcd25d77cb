"""Formulas that hide inside a text: found in finished CSV, a chunk at a time.

A spreadsheet may run a cell that begins like a formula. PostgreSQL sees to how a value begins (see ``csv``).
What is left are values that hold a line break or a separator other than the file's own: a program that is set
to that separator, or that splits lines before it looks for quotes, begins a new cell there. And full-width
characters, which PostgreSQL cannot tell apart cheaply in every server encoding.

Almost no chunk has any of it, so a chunk is searched as a whole for what is rare, in steps: for a byte alone,
which memchr finds; then for what stands next to it; then by an expression, which is ten times slower. Only
records in which something is found are taken apart.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stream_app.exports.formats.base import line_starts

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
