"""CSV from PostgreSQL into Arrow's columns, and those into the bytes of a Parquet file."""

import json
from binascii import unhexlify
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv
from pydantic_core import from_json

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.parquet_sql import decimal_type, unrepresentable

BATCH_BYTES = 2 * 2**20
"""CSV that is read at a time."""

ROW_GROUP_ROWS = 122_880
ROW_GROUP_BYTES = 16 * 2**20
"""A row group ends when it reaches either, so that memory does not depend on how long the values are."""

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


def encode(chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
    """The bytes of the file whose rows ``chunks`` hold as CSV."""
    schema = _schema(document)
    read = _Reader(document.columns, tally)
    outbox = _Outbox()
    writer: pq.ParquetWriter | None = None
    for group in _grouped(map(read, _joined(chunks))):
        table = pa.Table.from_arrays(group.columns, schema=schema)
        writer = writer or _writer(outbox, schema, table)
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        tally.rows += len(table)
        # The next group is gathered while this one's bytes are taken: its rows must be gone by then.
        del group, table
        yield from outbox.take()
    writer = writer or _writer(outbox, schema, schema.empty_table())
    writer.close()
    yield from outbox.take()


def arrow_type(item: Column) -> pa.DataType:
    """The type of the column in the file."""
    if item.kind is Kind.ARRAY:
        return pa.list_(pa.string())
    if decimal := decimal_type(item):
        return pa.decimal128(*decimal)
    return pa.string() if item.kind is Kind.NUMERIC else _TYPES.get(item.base, pa.string())


def _schema(document: Document) -> pa.Schema:
    return pa.schema(
        [(item.name, arrow_type(item)) for item in document.columns],
        metadata={"dataset": document.dataset, "as_of": document.as_of.isoformat()},
    )


def _writer(sink: "_Outbox", schema: pa.Schema, sample: pa.Table) -> pq.ParquetWriter:
    """A dictionary costs time where hardly a value comes twice, so each column earns its own."""
    repeating = [
        field.name
        for field, column in zip(schema, sample.columns, strict=True)
        if not pa.types.is_nested(field.type) and pc.count_distinct(column).as_py() <= len(column) // 2
    ]
    # A nested column is known by the path of its leaf.
    repeating += [f"{field.name}.list.element" for field in schema if pa.types.is_list(field.type)]
    return pq.ParquetWriter(sink, schema, compression="zstd", compression_level=1, use_dictionary=repeating)


def _joined(chunks: Iterator[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= BATCH_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if (
            sum(map(len, waiting)) >= ROW_GROUP_ROWS
            or sum(table.get_total_buffer_size() for table in waiting) >= ROW_GROUP_BYTES
        ):
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


class _Reader:
    """Reads CSV of whole rows; columns are numbered, since names may be anything."""

    def __init__(self, columns: Sequence[Column], tally: Tally) -> None:
        self._tally = tally
        self._counts_misfits = any(True for _ in unrepresentable(columns))
        self._decoders = {number: decode for number, item in enumerate(columns) if (decode := _decoder(item))}
        types = {
            str(number): pa.string() if number in self._decoders else arrow_type(item)
            for number, item in enumerate(columns)
        }
        if self._counts_misfits:
            types["misfits"] = pa.int32()
        self._names = list(types)
        self._parse = csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
        self._convert = csv.ConvertOptions(
            column_types=types,
            check_utf8=False,
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )

    def __call__(self, data: bytes) -> pa.Table:
        # One block, so that no row is too long for it. More threads would not make the database faster.
        how = csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=self._names)
        table = csv.read_csv(pa.BufferReader(data), how, self._parse, self._convert)
        if self._counts_misfits:
            if misfits := pc.sum(table.column("misfits")).as_py():
                self._tally.warnings["unrepresentable_values"] += misfits
            table = table.drop_columns("misfits")
        for number, decode in self._decoders.items():
            table = table.set_column(number, str(number), decode(table.column(number)))
        return table


_Decoder = Callable[[pa.ChunkedArray], Any]


def _decoder(item: Column) -> _Decoder | None:
    """How texts become what Arrow's CSV reader cannot make of them; ``None`` where it can."""
    return {Kind.BYTES: _bytes, Kind.ARRAY: _lists}.get(item.kind)


def _bytes(texts: pa.ChunkedArray) -> pa.Array:
    """Hexadecimal digits as the bytes they stand for."""
    return pa.array((text if text is None else unhexlify(text) for text in texts.to_pylist()), pa.binary())


def _lists(texts: pa.ChunkedArray) -> pa.Array:
    """JSON arrays as lists of texts."""
    lists = from_json("[" + ",".join(text or "null" for text in texts.to_pylist()) + "]")
    return pa.array(
        (items if items is None else [_element(item) for item in items] for items in lists),
        pa.list_(pa.string()),
    )


def _element(item: object) -> str | None:
    return item if item is None or isinstance(item, str) else json.dumps(item, ensure_ascii=False)


class _Outbox:
    """The file that Arrow writes to: keeps the bytes until they are taken."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def take(self) -> Iterator[bytes]:
        parts, self._parts = self._parts, []
        yield from parts
