"""A zip archive that is written sequentially, with members of unknown size.

Zip64 records are written only if a size or offset needs them, because some programs cannot read workbooks
with them. So no library can be used: stream-zip and zipstream-ng must know before a member begins whether it
will exceed 4 GiB, but the size of a sheet is known only at its end. Programs read the sizes from the central
directory. Go's archive/zip writes members in the same way.
"""

import struct
from collections.abc import Iterable, Iterator
from datetime import datetime

from isal import isal_zlib

from stream_app.exports.formats.blocks import BLOCK_BYTES, equal_blocks

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFFFFFF
_DEFLATE = 8
_UTF8, _SIZES_FOLLOW = 0x0800, 0x0008
_LEVEL = 1
"""Level 2 takes a tenth more time and makes the file only half a percent smaller."""


class Archive:
    """Creates the bytes of an archive, member by member. All members have the date ``modified``.

    Streams are compressed in blocks of ``block_bytes``.
    """

    def __init__(self, modified: datetime, block_bytes: int = BLOCK_BYTES) -> None:
        self._block_bytes = block_bytes
        self._date = (max(modified.year, 1980) - 1980) << 9 | modified.month << 5 | modified.day
        self._time = modified.hour << 11 | modified.minute << 5 | modified.second // 2
        self._offset = 0
        self._directory: list[bytes] = []

    def stream(self, name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the bytes of a member whose content is a stream."""
        offset = self._offset
        yield self._sent(self._header(name, _SIZES_FOLLOW, 0, 0, 0))
        start = self._offset
        body = isal_zlib.compressobj(level=_LEVEL, wbits=-15)
        crc = size = 0
        for chunk in equal_blocks(chunks, self._block_bytes):
            crc = isal_zlib.crc32(chunk, crc)
            size += len(chunk)
            if compressed := body.compress(chunk):
                yield self._sent(compressed)
        yield self._sent(body.flush())
        packed = self._offset - start
        sizes = "<4sLQQ" if max(packed, size) >= _MAX_32 else "<4sLLL"
        yield self._sent(struct.pack(sizes, b"PK\x07\x08", crc, packed, size))
        self._record(name, _SIZES_FOLLOW, crc, packed, size, offset)

    def add(self, name: str, content: bytes) -> bytes:
        """Return the bytes of a member with the given content."""
        body = isal_zlib.compress(content, level=_LEVEL, wbits=-15)
        crc = isal_zlib.crc32(content)
        self._record(name, 0, crc, len(body), len(content), self._offset)
        return self._sent(self._header(name, 0, crc, len(body), len(content)) + body)

    def close(self) -> bytes:
        """Return the central directory, which ends the archive."""
        directory = b"".join(self._directory)
        count, size, offset = len(self._directory), len(directory), self._offset
        if count >= _MAX_16 or max(size, offset) >= _MAX_32:
            directory += _END_64.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, offset)
            directory += _LOCATOR_64.pack(b"PK\x06\x07", 0, offset + size, 1)
        count = min(count, _MAX_16)
        return directory + _END.pack(
            b"PK\x05\x06", 0, 0, count, count, min(size, _MAX_32), min(offset, _MAX_32), 0
        )

    def _sent(self, data: bytes) -> bytes:
        self._offset += len(data)
        return data

    def _header(self, name: str, flags: int, crc: int, packed: int, size: int) -> bytes:
        encoded = name.encode()
        header = _LOCAL.pack(
            b"PK\x03\x04", 20, _UTF8 | flags, _DEFLATE, self._time, self._date,
            crc, packed, size, len(encoded), 0,
        )  # fmt: skip
        return header + encoded

    def _record(self, name: str, flags: int, crc: int, packed: int, size: int, offset: int) -> None:
        encoded = name.encode()
        large = [number for number in (size, packed, offset) if number >= _MAX_32]
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        version = 45 if large else 20
        entry = _CENTRAL.pack(
            b"PK\x01\x02", version, version, _UTF8 | flags, _DEFLATE, self._time, self._date,
            crc, min(packed, _MAX_32), min(size, _MAX_32), len(encoded), len(extra),
            0, 0, 0, 0, min(offset, _MAX_32),
        )  # fmt: skip
        self._directory.append(entry + encoded + extra)
