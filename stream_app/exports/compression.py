"""Compression of a finished byte stream, and what it does to the file's name and media type."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import zstandard
from isal import isal_zlib

from stream_app.exports.formats.base import Format
from streaming_exporter.errors import Rejected


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Compression:
    """A way to compress; a compressed file is a file of its own type, not a transfer encoding.

    So a browser saves ``ledger.csv.gz`` as what its name says.
    """

    suffix: str
    media_type: str
    compressor: Callable[[], _Compressor]

    def apply(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The compressed bytes; the work releases the interpreter's lock."""
        compressor = self.compressor()
        for chunk in chunks:
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
    """The compression called ``name``, or ``None`` for ``none``.

    Raises:
        Rejected: the format is compressed already.
    """
    if name == "none":
        return None
    if not output.compressible:
        raise Rejected(
            f"a {output.name} file is compressed already", field="options.compression", allowed=["none"]
        )
    return COMPRESSIONS[name]
