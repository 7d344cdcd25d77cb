"""Makes JSON objects from COPY's text, many at a time. Pure.

COPY escapes a backslash, a line feed, a tab, a backspace, a form feed and a carriage return as JSON does. So
most fields are JSON, or a JSON string between quotes, as they are. One bytes format writes the fields of many
rows, so the interpreter executes no step for a single row or field.

What JSON writes in another way is changed before that, and only in columns that have it. The fields of such a
column are joined by tabs, which no field has, because to search and to replace in one text costs much less
than to look at each field. To search for a single byte costs almost nothing.
"""

import json
import re
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import NamedTuple

from stream_app.exports.sources.message_too_long import MessageTooLong

NULL = rb"\N"
"""NULL in COPY's text. No value is written so, because each backslash of a value is doubled."""

BLOCK_FIELDS = 2_000
"""Fields that are formatted at once. Many more do not fit into the processor's caches."""

PIECE_BYTES = 2**18
"""Larger chunks are written in pieces, because fields need several times the memory of their text."""

LONG_ROW = 2**20
"""A shorter row is never too long as JSON, because an escape has at most six bytes."""

_TAB, _LINE_FEED, _BACKSLASH, _QUOTE = b"\t", b"\n", b"\\", b'"'
_PLACEHOLDER = b"\0"
"""Stands for an escaped backslash while other escapes are replaced. No text of PostgreSQL has it."""

_BOOLEANS = {b"t": b"true", b"f": b"false", NULL: b"null"}
_NOT_A_NUMBER = re.compile(rb"NaN|-?Infinity")
_CONTROLS = {bytes([code]): b"\\u%04x" % code for code in (*range(1, 8), *range(14, 32))}
"""Control characters that COPY does not escape, with their escapes in JSON."""

_CONTROL = re.compile(rb"[\x01-\x07\x0e-\x1f]")

ESCAPED = {'"\\\b\f\n\r\t': 1, "\v" + b"".join(_CONTROLS).decode(): 5}
"""The characters that JSON escapes, and how many bytes more each group of them has then."""


class Form(Enum):
    """How the text that COPY writes for the values of a column becomes JSON."""

    INTEGER = auto()
    """As it is."""
    NUMBER = auto()
    """As it is, but ``NaN`` and infinity are strings."""
    BOOLEAN = auto()
    """``t`` is ``true``, ``f`` is ``false``."""
    JSON = auto()
    """As it is, but without COPY's escapes. Line breaks and tabs, which are between tokens, are spaces."""
    WORD = auto()
    """A string without characters that need an escape."""
    TEXT = auto()
    """A string with any characters."""
    TIMESTAMP = auto()
    """A string: ``2026-01-31 13:30:00`` is ``2026-01-31T13:30:00``."""
    TIMESTAMPTZ = auto()
    """A string: ``2026-01-31 13:30:00+00`` is ``2026-01-31T13:30:00+00:00``."""


_QUOTED = {
    Form.WORD: b'"%b"',
    Form.TEXT: b'"%b"',
    Form.TIMESTAMP: b'"%b"',
    Form.TIMESTAMPTZ: b'"%b:00"',
}
"""How fields that are strings are written. COPY leaves out the minutes of an offset that has none."""

_ALWAYS_CHANGED = {Form.NUMBER, Form.TIMESTAMP, Form.TIMESTAMPTZ}
"""Forms whose fields can need a change without any special character."""


class _Specials(NamedTuple):
    """Which special characters a piece of COPY's text has, in any column."""

    has_backslash: bool
    has_control: bool
    has_any: bool


class ObjectWriter:
    """Writes rows as objects with the given names."""

    def __init__(self, names: Sequence[str], forms: Sequence[Form], limit: int, separator: bytes) -> None:
        """Create a writer.

        Args:
            names: names of the columns.
            forms: their forms.
            limit: limit for the bytes of one object.
            separator: the text after each object.
        """
        self._keys = [json.dumps(name, ensure_ascii=False).encode() + b":" for name in names]
        self._forms = forms
        self._limit = limit
        self._separator = separator
        self._width = len(forms)
        self._block_rows = max(1, BLOCK_FIELDS // self._width)
        self._has_texts = Form.TEXT in forms
        self._prepare(set())

    @property
    def empty_row(self) -> bytes:
        """A row whose fields are empty."""
        return self._row % ((b"",) * self._width)

    def write(self, chunk: bytes) -> Iterator[tuple[bytes, int]]:
        """Yield the objects of a chunk of whole rows, and their number, a piece at a time.

        Raises:
            MessageTooLong: an object exceeds the limit.
        """
        end = 0
        while end < len(chunk):
            start, end = end, chunk.find(_LINE_FEED, end + PIECE_BYTES) + 1 or len(chunk)
            if end - start > LONG_ROW:
                # Only the last row of a piece can be long. Alone it is copied less often.
                last = chunk.rfind(_LINE_FEED, start, end - 1) + 1
                if last > start:
                    yield self._piece(chunk[start:last])
                    start = last
            yield self._piece(chunk[start:end])

    def _piece(self, rows: bytes) -> tuple[bytes, int]:
        if is_long := len(rows) > LONG_ROW:
            self._check_size(rows)
        specials = self._specials(rows)
        if is_long:
            rows = rows[:-1]
            fields = rows.split(_TAB)
        else:
            fields = rows.replace(_LINE_FEED, _TAB).split(_TAB)
            fields.pop()
        del rows  # a long row is not kept twice
        complete = self._change(fields, specials)
        if complete != self._complete:
            self._prepare(complete)
        size = self._block_rows * self._width
        objects = b"".join(
            (self._block if len(block) == size else self._row * (len(block) // self._width)) % block
            for block in _blocks(fields, size)
        )
        return objects, len(fields) // self._width

    def _prepare(self, complete: set[int]) -> None:
        """Prepare the format of a row. The fields of the columns ``complete`` have their quotes already."""
        self._complete = complete
        members = b",".join(
            key.replace(b"%", b"%%") + (b"%b" if number in complete else _QUOTED.get(form, b"%b"))
            for number, (key, form) in enumerate(zip(self._keys, self._forms, strict=True))
        )
        self._row = b"{" + members + b"}" + self._separator
        self._block = self._row * self._block_rows

    def _specials(self, rows: bytes) -> "_Specials":
        has_backslash = _BACKSLASH in rows
        has_control = self._has_texts and any(control in rows for control in _CONTROLS)
        return _Specials(has_backslash, has_control, has_backslash or has_control or _QUOTE in rows)

    def _change(self, fields: list[bytes], specials: "_Specials") -> set[int]:
        """Change fields to what the format needs.

        Returns:
            The numbers of the columns whose fields have their quotes.
        """
        complete = set()
        for number, form in enumerate(self._forms):
            column = slice(number, None, self._width)
            if form is Form.BOOLEAN:
                fields[column] = map(_BOOLEANS.__getitem__, fields[column])
            elif form is Form.JSON:
                if specials.has_backslash:
                    fields[column] = [
                        _unescaped(field) if _BACKSLASH in field else field for field in fields[column]
                    ]
            elif form in _ALWAYS_CHANGED or (
                specials.has_any if form is Form.TEXT else specials.has_backslash
            ):
                joined = _TAB.join(fields[column])
                text, is_complete = _changed(joined, form, has_control=specials.has_control)
                if is_complete:
                    complete.add(number)
                if text is not joined:
                    fields[column] = text.split(_TAB)
        return complete

    def _check_size(self, row: bytes) -> None:
        """Check the size of an object before any memory is taken for its escapes."""
        size = len(self.empty_row) - len(self._separator) - len(_LINE_FEED)
        for field, form in zip(row.split(_TAB), self._forms, strict=True):
            size += len(field)
            if form is Form.TEXT:
                size += field.count(_QUOTE) + 4 * field.count(rb"\v")
                size += 5 * sum(map(field.count, _CONTROLS))
            elif form is Form.JSON:
                size -= field.count(rb"\\")
        if size > self._limit:
            raise MessageTooLong(self._limit)


def _blocks(fields: list[bytes], size: int) -> Iterator[tuple[bytes, ...]]:
    for start in range(0, len(fields), size):
        yield tuple(fields[start : start + size])


def _changed(text: bytes, form: Form, *, has_control: bool) -> tuple[bytes, bool]:
    """Return the joined fields of a column for the format, and whether they have their quotes.

    They have them if NULL is among them, which has none, or a time that the format would write wrongly.
    """
    has_backslash = _BACKSLASH in text
    if form is Form.INTEGER or form is Form.NUMBER:
        if form is Form.NUMBER and (b"a" in text or b"I" in text):
            text = _NOT_A_NUMBER.sub(rb'"\g<0>"', text)
        return text.replace(NULL, b"null") if has_backslash else text, False
    is_complete = has_backslash and NULL in text
    if form is Form.TEXT:
        text = _escaped(text, has_backslash=has_backslash, has_control=has_control)
    elif form is not Form.WORD:
        text = text.replace(b" ", b"T")
        if b"C" in text:
            text = text.replace(b"TBC", b" BC")
        if form is Form.TIMESTAMPTZ and (is_complete or b"C" in text or b"y" in text):
            text, is_complete = text.replace(b"+00", b"+00:00"), True
    if is_complete:
        # No value is taken for NULL: a quote in it follows a backslash, and a backslash in it is doubled.
        quoted = b'"%b"' % text.replace(_TAB, b'"\t"')
        text = quoted.replace(b'"%b"' % NULL, b"null")
    return text, is_complete


def _escaped(text: bytes, *, has_backslash: bool, has_control: bool) -> bytes:
    """Escape what JSON escapes and COPY does not, and a vertical tab, which COPY writes in another way."""
    if has_backslash and rb"\v" in text:
        text = text.replace(rb"\\", _PLACEHOLDER).replace(rb"\v", rb"\u000b").replace(_PLACEHOLDER, rb"\\")
    if _QUOTE in text:
        text = text.replace(_QUOTE, rb"\"")
    if has_control:
        text = _CONTROL.sub(lambda match: _CONTROLS[match[0]], text)
    return text


def _unescaped(field: bytes) -> bytes:
    """Remove COPY's escapes from JSON. A line break or a tab is between tokens and becomes a space."""
    if field == NULL:
        return b"null"
    field = field.replace(rb"\\", _PLACEHOLDER)
    if _BACKSLASH in field:
        field = field.replace(rb"\n", b" ").replace(rb"\r", b" ").replace(rb"\t", b" ")
    return field.replace(_PLACEHOLDER, _BACKSLASH)
