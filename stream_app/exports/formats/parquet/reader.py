"""Converts COPY's text to Arrow's columns.

Arrow's CSV reader does most of the work: it splits at tabs and line feeds, and reads ``\\N`` as null. Two
cases are rare and expensive, so they are handled only if they occur: values that COPY had to escape, and
values that the type of the column cannot hold.
"""

import json
from binascii import unhexlify
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from pydantic_core import from_json

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Tally
from stream_app.exports.formats.parquet.format import decimal_type

SEARCHED = 2**18
"""Bytes that are copied at a time for a search."""

_TYPES = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "bytea": pa.binary(),
}

_FITTING = {
    Kind.DATE: r"^\d{4}-\d\d-\d\d$",
    Kind.TIME: r"^[01]|^2[0-3]",
    Kind.TIMESTAMP: r"^\d{4}-[^B]*$",
    Kind.TIMESTAMPTZ: r"^\d{4}-[^B]*$",
    Kind.NUMERIC: r"^[-\d]",
}
"""Patterns of values that Arrow can hold: not infinity, BC, years beyond 9999, 24:00 or NaN."""

_ESCAPES = [(rf"\{name}", meaning) for name, meaning in zip("bfnrtv", "\b\f\n\r\t\v", strict=True)]


def arrow_type(item: Column) -> pa.DataType:
    """Return the type of the column in the file."""
    if item.kind is Kind.ARRAY:
        return pa.list_(pa.string())
    if decimal := decimal_type(item):
        return pa.decimal128(*decimal)
    return pa.string() if item.kind is Kind.NUMERIC else _TYPES.get(item.base, pa.string())


class CopyReader:
    """Reads whole rows. Its columns have numbers as names, because real names can have any characters."""

    def __init__(self, columns: Sequence[Column], tally: Tally) -> None:
        self._tally = tally
        types = [arrow_type(item) for item in columns]
        self._decoders = {
            number: _DECODERS[item.kind] for number, item in enumerate(columns) if item.kind in _DECODERS
        }
        self._types = {
            str(number): pa.string() if number in self._decoders else kind
            for number, kind in enumerate(types)
        }
        self._fitting = {
            str(number): (kind, _FITTING[item.kind])
            for number, (item, kind) in enumerate(zip(columns, types, strict=True))
            if item.kind in _FITTING and kind != pa.string()
        }
        self._has_misfits = False

    def __call__(self, data: bytes) -> pa.Table:
        """Return the rows in ``data`` as a table with typed columns."""
        if not self._has_misfits:
            try:
                return self._decoded(_read(data, self._types), data)
            except pa.ArrowInvalid:
                if not self._fitting:
                    raise
            # If a value does not fit, more such values are likely.
            self._has_misfits = True
        table = _read(data, {**self._types, **dict.fromkeys(self._fitting, pa.string())})
        for name, (kind, pattern) in self._fitting.items():
            table = table.set_column(int(name), name, self._fit(table.column(name), kind, pattern))
        return self._decoded(table, data)

    def _fit(self, texts: pa.ChunkedArray, kind: pa.DataType, pattern: str) -> pa.ChunkedArray:
        """Convert texts to the type. A text that does not fit becomes null and is counted."""
        fits = pc.match_substring_regex(texts, pattern)
        self._tally.warnings["unrepresentable_values"] += pc.sum(pc.invert(fits)).as_py() or 0
        lines = pc.fill_null(pc.if_else(fits, texts, r"\N"), r"\N")
        sink = pa.BufferOutputStream()
        csv.write_csv(
            pa.table({"": lines}), sink, csv.WriteOptions(include_header=False, quoting_style="none")
        )
        return _read(sink.getvalue(), {"": kind}).column(0)

    def _decoded(self, table: pa.Table, data: bytes) -> pa.Table:
        if b"\\" in data:
            for number, kind in enumerate(table.schema.types):
                if kind == pa.string():
                    table = table.set_column(number, str(number), _unescaped(table.column(number)))
        for number, decode in self._decoders.items():
            table = table.set_column(number, str(number), decode(table.column(number)))
        return table


def _read(data: "bytes | pa.Buffer", types: dict[str, pa.DataType]) -> pa.Table:
    return csv.read_csv(
        pa.BufferReader(data),
        # One block, so that no row is too long. More threads are useless: the database is slower.
        csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=list(types)),
        csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
        csv.ConvertOptions(
            column_types=types,
            check_utf8=False,
            null_values=[r"\N"],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
        ),
    )


def _unescaped(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    if not _has_backslash(texts):
        return texts
    # NUL, which no text of PostgreSQL has, replaces an escaped backslash meanwhile.
    texts = pc.replace_substring(texts, r"\\", "\0")
    if _has_backslash(texts):
        for escape, meaning in _ESCAPES:
            texts = pc.replace_substring(texts, escape, meaning)
    return pc.replace_substring(texts, "\0", "\\")


def _has_backslash(texts: pa.ChunkedArray) -> bool:
    """Return whether any value has a backslash. To search whole buffers is much faster than single values."""
    buffers = (memoryview(buffer) for chunk in texts.chunks if (buffer := chunk.buffers()[2]))
    return any(
        b"\\" in bytes(buffer[start : start + SEARCHED])
        for buffer in buffers
        for start in range(0, len(buffer), SEARCHED)
    )


def _bytes(texts: pa.ChunkedArray) -> pa.Array:
    """Convert hexadecimal digits to bytes."""
    return pa.array((text if text is None else unhexlify(text) for text in texts.to_pylist()), pa.binary())


def _lists(texts: pa.ChunkedArray) -> pa.Array:
    """Convert JSON arrays to lists of texts."""
    lists = from_json("[" + ",".join(text or "null" for text in texts.to_pylist()) + "]")
    elements = (items if items is None else [_element(item) for item in items] for items in lists)
    return pa.array(elements, pa.list_(pa.string()))


def _element(item: object) -> str | None:
    return item if item is None or isinstance(item, str) else json.dumps(item, ensure_ascii=False)


_DECODERS: dict[Kind, Callable[[pa.ChunkedArray], Any]] = {Kind.BYTES: _bytes, Kind.ARRAY: _lists}
"""Conversions of texts that Arrow's reader does not support."""
