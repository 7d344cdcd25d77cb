"""A bounded pipe of bytes from the event loop to one reading thread.

The loop's side awaits while the pipe is full, which holds back the database's COPY; the thread's side
blocks while it is empty. **The end of the stream means success**: a writer that gives up calls
:meth:`BytePipe.fail`, and the reader's iteration raises, so that a truncated file is never completed.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Iterator

CAPACITY = 4 * 2**20
"""Bytes that may wait in the pipe: enough to keep the database busy while one part is uploaded."""


class PipeClosed(Exception):
    """The other side of the pipe gave up; its error is the ``__cause__`` where there is one."""


class BytePipe:
    """One writer on the event loop, one reader in a thread."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._room.set()
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._finished = False
        self._error: BaseException | None = None
        self._reader_gone = False

    async def write(self, chunk: bytes) -> None:
        """Add ``chunk``, once there is room.

        Raises:
            PipeClosed: the reader has stopped reading.
        """
        await self._room.wait()
        with self._changed:
            if self._reader_gone:
                raise PipeClosed("the reader has stopped")
            self._chunks.append(chunk)
            self._size += len(chunk)
            if self._size >= self._capacity:
                self._room.clear()
            self._changed.notify()

    def finish(self) -> None:
        """Say that everything was written."""
        with self._changed:
            self._finished = True
            self._changed.notify()

    def fail(self, error: BaseException) -> None:
        """Make the reader raise :class:`PipeClosed` from ``error`` instead of reaching the end."""
        with self._changed:
            self._error = error
            self._changed.notify()

    def close_reader(self) -> None:
        """Say, from the reading thread, that nothing more will be read."""
        with self._changed:
            self._reader_gone = True
            self._chunks.clear()
        self._loop.call_soon_threadsafe(self._room.set)

    def __iter__(self) -> Iterator[bytes]:
        """Chunks in the order they were written, on the reading thread.

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
