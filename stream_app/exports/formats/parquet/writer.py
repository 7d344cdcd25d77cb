"""Writes rows, as Arrow's columns, to a Parquet file."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.parquet.reader import CopyReader, arrow_type

BATCH_BYTES = 2**20
"""Bytes of rows that are read at a time."""

LONG = 1024
"""Average bytes of a value from which on a dictionary takes too much memory."""

ROW_GROUP_ROWS = 122_880
ROW_GROUP_BYTES = 6 * 2**20
"""A row group ends at either limit, so that memory does not depend on the length of values."""

SAMPLED_ROWS = 2**15
"""Rows that decide whether a column has repeated values. To count those of more rows takes much memory."""

if "jemalloc" in pa.supported_memory_backends():
    # Also where Arrow was loaded before ALLOCATOR was set.
    pa.set_memory_pool(pa.jemalloc_memory_pool())


def encode(chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
    """Yield the bytes of the file. ``chunks`` have the rows as COPY's text."""
    schema = _schema(document)
    read = CopyReader(document.columns, tally)
    # A small file has small row groups, so that its size can be foreseen.
    batch, group_bytes = BATCH_BYTES, ROW_GROUP_BYTES
    if document.target_bytes is not None:
        batch = min(batch, document.target_bytes // 16)
        group_bytes = min(group_bytes, document.target_bytes // 4)
    buffer = _FileBuffer()
    writer: pq.ParquetWriter | None = None
    for group in _grouped(map(read, _joined(chunks, batch)), group_bytes):
        table = pa.Table.from_arrays(group.columns, schema=schema)
        writer = writer or _writer(buffer, schema, table)
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        tally.rows += len(table)
        # The next group is read while this one's bytes are yielded, so this one's rows must be freed first.
        del group, table
        yield from buffer.take()
    writer = writer or _writer(buffer, schema, schema.empty_table())
    writer.close()
    yield from buffer.take()


def _schema(document: Document) -> pa.Schema:
    facts = {"dataset": document.dataset, "as_of": document.as_of.isoformat()}
    if document.options.timezone is not None:
        facts["timezone"] = document.options.timezone
    return pa.schema([(item.title, arrow_type(item)) for item in document.columns], metadata=facts)


def _writer(sink: "_FileBuffer", schema: pa.Schema, sample: pa.Table) -> pq.ParquetWriter:
    """Create the writer. Only columns with repeated values get a dictionary, because it costs time."""
    repeating = [
        field.name
        for field, column in zip(schema, sample.columns, strict=True)
        if not pa.types.is_nested(field.type)
        and column.nbytes <= LONG * len(column)
        and _repeats(column.slice(0, SAMPLED_ROWS))
    ]
    # The name of a nested column is the path of its leaf.
    repeating += [f"{field.name}.list.element" for field in schema if pa.types.is_list(field.type)]
    return pq.ParquetWriter(sink, schema, compression="zstd", compression_level=1, use_dictionary=repeating)


def _repeats(column: pa.ChunkedArray) -> bool:
    distinct: int = pc.count_distinct(column).as_py()
    return distinct <= len(column) // 2


def _joined(chunks: Iterator[bytes], batch: int) -> Iterator[bytes]:
    """Yield batches of whole rows, which end with the first row that reaches ``batch`` bytes.

    So the same rows give the same file, whatever the sizes of the chunks are.
    """
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        while size + len(chunk) >= batch:
            # COPY escapes each line feed within a value.
            end = chunk.index(b"\n", max(batch - size - 1, 0)) + 1
            yield b"".join((*waiting, memoryview(chunk)[:end]))
            waiting, size = [], 0
            chunk = chunk[end:]
        if chunk:
            waiting.append(chunk)
            size += len(chunk)
    if waiting:
        yield b"".join(waiting)


def _grouped(tables: Iterator[pa.Table], group_bytes: int) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if (
            sum(map(len, waiting)) >= ROW_GROUP_ROWS
            or sum(table.get_total_buffer_size() for table in waiting) >= group_bytes
        ):
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


class _FileBuffer:
    """The file that Arrow writes to. It keeps the bytes until they are taken."""

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
