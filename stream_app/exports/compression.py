"""Compression of a file, and the suffix and media type of the compressed file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import zstandard
from isal import isal_zlib

from stream_app.exports.formats.base import Format
from stream_app.exports.formats.blocks import equal_blocks
from streaming_exporter.errors import Rejected


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Compression:
    """A compression method.

    A compressed file has its own media type and no ``Content-Encoding``. So a browser saves ``ledger.csv.gz``
    as it is.
    """

    suffix: str
    media_type: str
    compressor: Callable[[], _Compressor]

    def apply(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the compressed bytes. The compression runs without the interpreter's lock."""
        compressor = self.compressor()
        for chunk in equal_blocks(chunks):
            if compressed := compressor.compress(chunk):
                yield compressed
        yield compressor.flush()


COMPRESSIONS = {
    "gzip": Compression(
        ".gz",
        "application/gzip",
        lambda: isal_zlib.compressobj(level=isal_zlib.ISAL_DEFAULT_COMPRESSION, wbits=31),
    ),
    "zstd": Compression(".zst", "application/zstd", lambda: zstandard.ZstdCompressor(level=3).compressobj()),
}


def compression_for(name: str, output: Format) -> Compression | None:
    """Return the compression ``name``, or ``None`` for ``none``.

    Raises:
        Rejected: the format is compressed already.
    """
    if name == "none":
        return None
    if not output.compressible:
        raise Rejected(
            f"{output.name} files are compressed already", field="options.compression", allowed=["none"]
        )
    return COMPRESSIONS[name]
