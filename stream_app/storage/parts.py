"""Splits an upload into parts: small ones at first, larger ones if the file becomes huge.

Memory is bounded: a part larger than :data:`IN_MEMORY` is collected in a temporary file. The memory of the
others is mapped, so that it is returned to the system as soon as the part is sent: freed blocks of this size
stay with the allocator of the process.
"""

import mmap
import tempfile
from collections.abc import Iterator

PART_SIZE = 8 * 2**20
"""Bytes of a usual part. Some stores require parts of equal size, which files up to 27 GiB have."""

MAX_PARTS = 10_000
"""The limit of S3 (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html)."""

LARGER = ((3_500, 8), (4_500, 128))
"""Pairs: after this number of parts, the next ones are larger by this factor. 10,000 parts hold 5.4 TiB."""

IN_MEMORY = 16 * 2**20
"""Bytes of the largest part that is collected in memory."""

Part = bytes | memoryview | mmap.mmap


def part_size(number: int, usual: int = PART_SIZE) -> int:
    """Return the bytes of part ``number``, counted from 1. The last part of a file can be shorter."""
    times = 1
    for after, larger in LARGER:
        if number > after:
            times = larger
    return usual * times


def largest_file(usual: int = PART_SIZE, parts: int = MAX_PARTS) -> int:
    """Return the bytes of the largest file with ``parts`` parts."""
    return sum(part_size(number, usual) for number in range(1, parts + 1))


def split_into_parts(chunks: Iterator[bytes], usual: int = PART_SIZE) -> Iterator[Part]:
    """Yield parts with the sizes of :func:`part_size`; the last one can be shorter.

    Errors of ``chunks`` are raised unchanged. No reference to a yielded part is kept.
    """
    number = 1
    size = part_size(number, usual)
    buffer = _PartBuffer(size)
    for chunk in chunks:
        view = memoryview(chunk)
        while len(view) >= size - buffer.size:
            room = size - buffer.size
            buffer.add(view[:room])
            view = view[room:]
            yield buffer.take()
            number += 1
            size = part_size(number, usual)
            buffer = _PartBuffer(size)
        if view:
            buffer.add(view)
    if buffer.size:
        yield buffer.take()


_NO_MEMORY = memoryview(b"")


def _memory(size: int) -> memoryview:
    """Return memory of its own, which is unmapped with the last reference to it."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE))


class _PartBuffer:
    """Collects the chunks of one part."""

    def __init__(self, room: int) -> None:
        self.size = 0
        self._file = tempfile.TemporaryFile() if room > IN_MEMORY else None  # noqa: SIM115
        # Pages without content take no memory.
        self._memory = _memory(room) if self._file is None else _NO_MEMORY

    def add(self, data: memoryview) -> None:
        end = self.size + len(data)
        if self._file is not None:
            self._file.write(data)
        else:
            self._memory[self.size : end] = data
        self.size = end

    def take(self) -> Part:
        """Return the part. A temporary file is removed together with its part."""
        if self._file is None:
            memory, self._memory = self._memory, _NO_MEMORY
            return memory[: self.size]
        with self._file as file:
            file.flush()
            return mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ)
