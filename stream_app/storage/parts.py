"""How a stream is cut into parts: small ones at first, larger ones for a file that turns out to be huge.

Memory stays bounded: a part above :data:`IN_MEMORY` is gathered in a temporary file, whose pages the system
takes back as it likes.
"""

import mmap
import tempfile
from collections.abc import Iterator

PART_SIZE = 8 * 2**20
"""Bytes of a usual part. Some stores want all parts alike: those of a file up to 27 GiB are."""

MAX_PARTS = 10_000
"""The most that S3 takes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html)."""

LARGER = ((3_500, 8), (4_500, 128))
"""After so many parts, how many times as large the next ones are: 10,000 parts make 5.4 TiB."""

IN_MEMORY = 16 * 2**20
"""Bytes of the largest part that is kept in memory."""

Part = bytes | mmap.mmap


def part_size(number: int, usual: int = PART_SIZE) -> int:
    """Bytes of part ``number``, counted from 1; the last one of a file may be shorter."""
    times = 1
    for after, larger in LARGER:
        if number > after:
            times = larger
    return usual * times


def largest_file(usual: int = PART_SIZE, parts: int = MAX_PARTS) -> int:
    """Bytes of the largest file that ``parts`` parts hold."""
    return sum(part_size(number, usual) for number in range(1, parts + 1))


def split_into_parts(chunks: Iterator[bytes], usual: int = PART_SIZE) -> Iterator[Part]:
    """Parts of exactly the sizes that :func:`part_size` says, the last one shorter; raises what chunks raise.

    Nothing of the part that was taken last is kept here.
    """
    number = 1
    size = part_size(number, usual)
    gathered = _PartBuffer(size)
    for chunk in chunks:
        view = memoryview(chunk)
        while len(view) >= size - gathered.size:
            room = size - gathered.size
            gathered.add(view[:room])
            view = view[room:]
            yield gathered.take()
            number += 1
            size = part_size(number, usual)
            gathered = _PartBuffer(size)
        if view:
            gathered.add(view)
    if gathered.size:
        yield gathered.take()


class _PartBuffer:
    """A part as it fills."""

    def __init__(self, room: int) -> None:
        self.size = 0
        self._chunks: list[bytes | memoryview] = []
        self._file = tempfile.TemporaryFile() if room > IN_MEMORY else None  # noqa: SIM115

    def add(self, data: memoryview) -> None:
        self.size += len(data)
        if self._file is not None:
            self._file.write(data)
        else:
            self._chunks.append(data)

    def take(self) -> Part:
        """The whole; the file goes when the part does."""
        if self._file is None:
            chunks, self._chunks = self._chunks, []
            return b"".join(chunks)
        with self._file as file:
            file.flush()
            return mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ)
