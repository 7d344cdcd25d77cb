"""Splits an upload into parts: small ones at first, larger ones if the file becomes huge.

Memory is bounded: a part larger than :data:`IN_MEMORY` is collected in a temporary file. The memory of the
others is mapped, so that it is returned to the system at the end of the upload: freed blocks of this size
stay with the allocator of the process. Within an upload a later part takes the memory of a part that is sent:
new pages cost more time than the copying of their content.
"""

import mmap
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stream_app.observability import metrics
from streaming_exporter.errors import Retryable

PART_SIZE = 8 * 2**20
"""Bytes of a usual part. Some stores require parts of equal size, which files up to 27 GiB have."""

MAX_PARTS = 10_000
"""The limit of S3 (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html)."""

LARGER = ((3_500, 8), (4_500, 128))
"""Pairs: after this number of parts, the next ones are larger by this factor. 10,000 parts hold 5.4 TiB."""

IN_MEMORY = 16 * 2**20
"""Bytes of the largest part that is collected in memory."""

AT_A_TIME = 3
"""Parts of an upload that exist at a time: two are sent, and one is collected."""

FEW_BYTES = 2**20
"""A last part with at most this many bytes is joined from its chunks: to map memory for it takes longer."""

Part = bytes | memoryview | mmap.mmap


class TemporaryDiskError(Retryable):
    """The folder for temporary files cannot be written, such as one whose disk is full."""

    code = "temporary_disk"


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


def temporary_bytes() -> int:
    """Return how many bytes the folder for temporary files has room for; 0 if there is none."""
    try:
        return shutil.disk_usage(tempfile.gettempdir()).free
    except OSError:
        return 0


_SIZES = tuple(Counter(map(part_size, range(1, MAX_PARTS + 1))).items())
"""The sizes of parts in their order, each with its number of parts."""


def largest_file_on(free_bytes: int) -> int:
    """Return the bytes of the largest file whose large parts fit in ``free_bytes`` of a disk.

    Each export asks for it, so it does not go through all parts.
    """
    found = 0
    for size, parts in _SIZES:
        if size > IN_MEMORY and AT_A_TIME * size > free_bytes:
            break
        found += size * parts
    return found


def split_into_parts(chunks: Iterator[bytes], usual: int = PART_SIZE) -> Iterator[Part]:
    """Yield parts with the sizes of :func:`part_size`; the last one can be shorter.

    Errors of ``chunks`` are raised unchanged. A part is valid as long as its caller refers to it: then its
    memory takes a later part. A slice of it must not be used for longer.
    """
    number = 1
    size = part_size(number, usual)
    memory = _PartMemory()
    buffer = _new_part(size, memory)
    for chunk in chunks:
        view = memoryview(chunk)
        while len(view) >= size - buffer.size:
            room = size - buffer.size
            buffer.add(view[:room])
            view = view[room:]
            yield buffer.take()
            number += 1
            size = part_size(number, usual)
            buffer = _new_part(size, memory)
        if view:
            buffer.add(view)
    if buffer.size:
        yield buffer.take()


def _new_part(size: int, memory: "_PartMemory") -> "_PartInMemory | _PartInFile":
    return _PartInMemory(size, memory) if size <= IN_MEMORY else _PartInFile()


class _PartMemory:
    """Mapped memory of the parts of one upload."""

    def __init__(self) -> None:
        self._lent: list[tuple[mmap.mmap, weakref.ref[memoryview]]] = []

    def take(self, size: int) -> mmap.mmap:
        """Return at least ``size`` bytes: those of a part without references, or new ones."""
        unused = [mapped for mapped, part in self._lent if part() is None]
        self._lent = [(mapped, part) for mapped, part in self._lent if mapped not in unused]
        for mapped in unused:
            if len(mapped) >= size:
                return mapped
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)  # pages without content take no memory

    def lend(self, mapped: mmap.mmap, size: int) -> memoryview:
        """Return the first ``size`` bytes of the memory as a part."""
        part = memoryview(mapped)[:size]
        self._lent.append((mapped, weakref.ref(part)))
        return part


class _PartInMemory:
    """Collects the chunks of one part in memory: the first few as they are, then all in mapped memory."""

    def __init__(self, room: int, memory: _PartMemory) -> None:
        self.size = 0
        self._room = room
        self._memory = memory
        self._few: list[bytes | memoryview] = []
        self._mapped: mmap.mmap | None = None

    def add(self, data: memoryview) -> None:
        size = self.size + len(data)
        if self._mapped is None and size <= FEW_BYTES and size < self._room:
            # Another object than bytes can change before the part is taken.
            self._few.append(data if type(data.obj) is bytes else bytes(data))
            self.size = size
            return
        if self._mapped is None:
            self._mapped, few = self._memory.take(self._room), self._few
            self._few, self.size = [], 0
            for earlier in few:
                self._copy(self._mapped, earlier)
        self._copy(self._mapped, data)

    def _copy(self, mapped: mmap.mmap, data: bytes | memoryview) -> None:
        end = self.size + len(data)
        mapped[self.size : end] = data
        self.size = end

    def take(self) -> Part:
        """Return the part."""
        if self._mapped is None:
            return b"".join(self._few)
        return self._memory.lend(self._mapped, self.size)


class _PartInFile:
    """Collects the chunks of one part in a temporary file.

    Every method raises :class:`TemporaryDiskError` if the file cannot be written.
    """

    def __init__(self) -> None:
        self.size = 0
        with _disk_errors():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - take closes it

    def add(self, data: memoryview) -> None:
        with self._closed_on_error():
            self.size += self._file.write(data)

    def take(self) -> Part:
        """Return the part. The file is removed together with it."""
        with self._closed_on_error():
            self._file.flush()
            part = mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ)
            self._file.close()
            return part

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        with _disk_errors():
            try:
                yield
            except OSError:
                with suppress(OSError):  # what is not written yet cannot be written here either
                    self._file.close()
                raise


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Turn errors of a temporary file into an exception of the service. They are none of the object store."""
    with metrics.count_errors("temporary_disk"):
        try:
            yield
        except OSError as error:
            raise TemporaryDiskError(f"the temporary folder: {error}") from error
