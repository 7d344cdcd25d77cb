"""Compression of a file, and the suffix and media type of the compressed file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import zstandard
from isal import isal_zlib

from stream_app.exports.formats.base import Format
from stream_app.exports.formats.blocks import Blocks
from streaming_exporter.errors import Rejected


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self, mode: int = ..., /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Compression:
    """A compression method.

    A compressed file has its own media type and no ``Content-Encoding``. So a browser saves ``ledger.csv.gz``
    as it is.
    """

    suffix: str
    media_type: str
    compressor: Callable[[], _Compressor]
    sync: int
    """The mode of ``flush`` that returns all bytes so far and does not end the file."""


class CompressedFile:
    """The compression of one file. It runs without the interpreter's lock."""

    def __init__(self, compression: Compression) -> None:
        self._compressor = compression.compressor()
        self._sync = compression.sync
        self._blocks = Blocks()
        self._flushed = b""

    def apply(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the compressed bytes. The result does not depend on the sizes of the chunks."""
        for chunk in chunks:
            if self._flushed:
                yield self._flushed
                self._flushed = b""
            for block in self._blocks.add(chunk):
                if compressed := self._compressor.compress(block):
                    yield compressed
        yield self._flushed + self._compressor.compress(self._blocks.take()) + self._compressor.flush()

    def flush(self) -> int:
        """Compress what is held back. The source of the chunks can call this while it is asked for one.

        Returns:
            How many bytes follow those that :meth:`apply` has yielded.
        """
        self._flushed += self._compressor.compress(self._blocks.take()) + self._compressor.flush(self._sync)
        return len(self._flushed)


COMPRESSIONS = {
    "gzip": Compression(
        ".gz",
        "application/gzip",
        lambda: isal_zlib.compressobj(level=isal_zlib.ISAL_DEFAULT_COMPRESSION, wbits=31),
        isal_zlib.Z_SYNC_FLUSH,
    ),
    "zstd": Compression(
        ".zst",
        "application/zstd",
        lambda: zstandard.ZstdCompressor(level=3).compressobj(),
        zstandard.COMPRESSOBJ_FLUSH_BLOCK,
    ),
}


def compression_for(name: str, file_format: Format) -> Compression | None:
    """Return the compression ``name``, or ``None`` for ``none``.

    Raises:
        Rejected: the format is compressed already.
    """
    if name == "none":
        return None
    if not file_format.compressible:
        raise Rejected(
            f"{file_format.name} files are compressed already", field="options.compression", allowed=["none"]
        )
    return COMPRESSIONS[name]
