"""A bounded pipe of bytes from the event loop to one reading thread.

While the pipe is full, the event loop's side awaits, and so the database's COPY waits. While it is empty, the
thread blocks. **The end of the stream means success**: a writer that fails calls :meth:`BytePipe.fail`, and
then the reader's iteration raises. So a truncated file is never completed.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Iterator

CAPACITY = 4 * 2**20
"""Capacity in bytes: enough to keep the database busy while one part is uploaded."""


class PipeClosed(Exception):
    """The other side of the pipe has stopped. ``__cause__`` is its error, if there was one."""


class BytePipe:
    """A pipe with one writer on the event loop and one reader in a thread."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._room.set()
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self.is_unused = True
        """Whether nothing was written."""
        self._finished = False
        self._error: BaseException | None = None
        self._reader_gone = False

    async def write(self, chunk: bytes) -> None:
        """Add ``chunk`` as soon as there is room.

        Raises:
            PipeClosed: the reader has stopped reading.
        """
        await self._room.wait()
        self.is_unused = False
        with self._changed:
            if self._reader_gone:
                raise PipeClosed("the reader has stopped")
            self._chunks.append(chunk)
            self._size += len(chunk)
            if self._size >= self._capacity:
                self._room.clear()
            self._changed.notify()

    def finish(self) -> None:
        """Mark the end of the stream: all bytes are written."""
        with self._changed:
            self._finished = True
            self._changed.notify()

    def fail(self, error: BaseException) -> None:
        """Make the reader raise :class:`PipeClosed` with the cause ``error``."""
        with self._changed:
            self._error = error
            self._changed.notify()

    def close_reader(self) -> None:
        """Stop reading. The reading thread calls this."""
        with self._changed:
            self._reader_gone = True
            self._chunks.clear()
        self._loop.call_soon_threadsafe(self._room.set)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the chunks in the order in which they were written. The reading thread calls this.

        Raises:
            PipeClosed: the writer failed.
        """
        while True:
            with self._changed:
                while not (self._chunks or self._finished or self._error):
                    self._changed.wait()
                if self._error is not None:
                    raise PipeClosed("the writer failed") from self._error
                if not self._chunks:
                    return
                chunk = self._chunks.popleft()
                was_full = self._size >= self._capacity
                self._size -= len(chunk)
                has_room = was_full and self._size < self._capacity
            if has_room:
                self._loop.call_soon_threadsafe(self._room.set)
            yield chunk
