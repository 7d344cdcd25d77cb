"""Cuts a stream of bytes into blocks of one size.

The output of a compressor depends on the sizes of its inputs. With blocks of one size the same rows give the
same file, however they arrive.
"""

from collections.abc import Iterable, Iterator

BLOCK_BYTES = 256 * 2**10


def equal_blocks(chunks: Iterable[bytes], size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yield the bytes of ``chunks`` in blocks of ``size`` bytes; only the last one can be smaller."""
    waiting: list[bytes | memoryview] = []
    missing = size
    for chunk in chunks:
        rest = memoryview(chunk)
        while len(rest) >= missing:
            waiting.append(rest[:missing])
            rest = rest[missing:]
            yield b"".join(waiting)
            waiting, missing = [], size
        if len(rest):
            waiting.append(rest)
            missing -= len(rest)
    if waiting:
        yield b"".join(waiting)
