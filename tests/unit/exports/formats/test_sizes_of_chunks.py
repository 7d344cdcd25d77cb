"""A file does not depend on the sizes of the chunks in which its rows arrive."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from stream_app.exports.columns import Column, Kind
from stream_app.exports.files.compression import COMPRESSIONS, CompressedFile
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.excel.archive import Archive
from stream_app.exports.formats.parquet.format import ParquetFormat
from streaming_exporter.events import Options

AT = datetime(2026, 11, 26, tzinfo=UTC)
ROWS = [b"%d\t%d some text %d\n" % (n, n % 100, n * n) for n in range(120_000)]
"""More than 3 MB, as COPY writes them: several blocks, batches and row groups."""


def _parquet(chunks: Iterator[bytes]) -> bytes:
    columns = (Column("id", "bigint", "int8", Kind.INTEGER), Column("t", "text", "text", Kind.TEXT))
    document = Document("things", columns, Options(), AT)
    return b"".join(ParquetFormat().frame(chunks, document, Tally()))


WRITERS: dict[str, Callable[[Iterator[bytes]], bytes]] = {
    "gzip": lambda chunks: b"".join(CompressedFile(COMPRESSIONS["gzip"]).apply(chunks)),
    "zstd": lambda chunks: b"".join(CompressedFile(COMPRESSIONS["zstd"]).apply(chunks)),
    "zip": lambda chunks: b"".join(Archive(AT).stream("rows", chunks)),
    "parquet": _parquet,
}


def _chunks(seed: int) -> Iterator[bytes]:
    """Yield the rows in chunks of random sizes, all rows in one chunk for seed 0."""
    sizes, start = random.Random(seed), 0
    while start < len(ROWS):
        count = sizes.choice([1, 20, 400, 3_000]) if seed else len(ROWS)
        yield b"".join(ROWS[start : start + count])
        start += count


@pytest.mark.parametrize("writer", WRITERS)
def test_the_sizes_of_chunks_change_no_byte(writer: str) -> None:
    assert len({WRITERS[writer](_chunks(seed)) for seed in range(4)}) == 1
