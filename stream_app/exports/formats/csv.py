"""Comma-separated values, RFC 4180 with bare line feeds: PostgreSQL's own COPY, a header in front."""

import csv
import io
from collections.abc import Iterator, Sequence
from secrets import token_hex
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, case, cast, func, literal, literal_column, select
from sqlalchemy.types import UserDefinedType

from stream_app.events import Options
from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import ROWS, Document, Format, Projection, Tally, cell
from stream_app.exports.formats.csv_guard import (
    ASCII_STARTS,
    LEADING_BREAKS,
    PLAIN_NUMBER,
    FormulaGuard,
)
from stream_app.exports.formats.renderings import is_json_text
from stream_app.exports.formats.sql import as_text

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

    def project(self, columns: Sequence[Column], options: Options) -> Projection:
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
        return Projection(select(*cells).select_from(ROWS), copy)

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
