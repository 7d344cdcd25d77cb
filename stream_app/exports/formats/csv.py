"""Comma-separated values, RFC 4180 with bare line feeds: PostgreSQL's own COPY, a header in front."""

import csv
import io
from collections.abc import Iterator, Sequence
from secrets import token_hex
from typing import Any

from sqlalchemy import ColumnElement, case, func, literal, select

from stream_app.events import Options
from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import ROWS, Document, Format, Projection, Tally, cell
from stream_app.exports.formats.sql import as_text

FORMULA_STARTS = "=+-@\t\r"
"""A spreadsheet may run a text that starts so (https://owasp.org/www-community/attacks/CSV_Injection)."""

GUARDED = frozenset({Kind.TEXT, Kind.ENUM, Kind.OTHER})


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
        """One SQL column for each cell, text columns guarded against formulas."""
        cells = (
            _guarded(item) if options.guard_formulas and item.kind in GUARDED else as_text(item)
            for item in columns
        )
        return Projection(
            select(*cells).select_from(ROWS),
            {"format": "csv", "delimiter": options.delimiter, "null": options.null},
        )

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Byte order mark and header, then the rows as they come."""
        head = _head(document)
        if head:
            yield head
        marker = MARKER.encode()
        for chunk in chunks:
            tally.rows += chunk.count(b"\n")
            if b"\x01" in chunk and (guarded := chunk.count(marker)):
                tally.warnings["guarded_formulas"] += guarded
                chunk = chunk.replace(marker, b"")
            yield chunk


def _guarded(item: Column) -> ColumnElement[Any]:
    value = as_text(item)
    starts = func.ascii(cell(item) if item.kind is Kind.TEXT else value)
    return case(
        (starts > max(map(ord, FORMULA_STARTS)), value),  # most texts start with a letter: one comparison
        (starts.in_([literal(ord(start)) for start in FORMULA_STARTS]), literal(f"{MARKER}'").concat(value)),
        else_=value,
    )


def _head(document: Document) -> bytes:
    options = document.options
    text = io.StringIO()
    if options.bom:
        text.write("\ufeff")
    if options.header:
        names = (item.name for item in document.columns)
        if options.guard_formulas:
            names = ("'" + name if name[0] in FORMULA_STARTS else name for name in names)
        csv.writer(text, delimiter=options.delimiter, lineterminator="\n").writerow(names)
    return text.getvalue().encode()
