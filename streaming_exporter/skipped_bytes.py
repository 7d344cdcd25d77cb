"""Leaves out the first bytes of a file, where an object store sends all of them. Does no I/O."""

from collections.abc import AsyncIterator, Iterator


def bytes_from(chunks: Iterator[bytes], start: int) -> Iterator[bytes]:
    """Yield the bytes from ``start`` on."""
    for chunk in chunks:
        if start >= len(chunk):
            start -= len(chunk)
            continue
        yield chunk[start:]
        start = 0


async def async_bytes_from(chunks: AsyncIterator[bytes], start: int) -> AsyncIterator[bytes]:
    """Yield the bytes from ``start`` on."""
    async for chunk in chunks:
        if start >= len(chunk):
            start -= len(chunk)
            continue
        yield chunk[start:]
        start = 0
