"""Cuts a stream of bytes into blocks of one size.

The output of a compressor depends on the sizes of its inputs. With blocks of one size the same rows give the
same file, whatever the sizes of the chunks are.
"""

from collections.abc import Iterable, Iterator

BLOCK_BYTES = 256 * 2**10


class Blocks:
    """Divides chunks into blocks of equal size."""

    def __init__(self, size: int = BLOCK_BYTES) -> None:
        self._size = size
        self._waiting: list[bytes | memoryview] = []
        self._missing = size

    def add(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the blocks that ``chunk`` completes."""
        rest = memoryview(chunk)
        while len(rest) >= self._missing:
            self._waiting.append(rest[: self._missing])
            rest = rest[self._missing :]
            yield self.take()
        if len(rest):
            self._waiting.append(rest)
            self._missing -= len(rest)

    def take(self) -> bytes:
        """Return the bytes that wait for the rest of their block."""
        block = b"".join(self._waiting)
        self._waiting, self._missing = [], self._size
        return block


def equal_blocks(chunks: Iterable[bytes], size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yield the bytes of ``chunks`` in blocks of ``size`` bytes; only the last one can be smaller."""
    blocks = Blocks(size)
    for chunk in chunks:
        yield from blocks.add(chunk)
    if rest := blocks.take():
        yield rest
