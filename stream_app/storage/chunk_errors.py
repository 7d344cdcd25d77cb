"""Keeps errors of the chunks of a file apart from errors of the server that receives them."""

from collections.abc import Iterator
from contextlib import contextmanager


class _ChunkError(Exception):
    """Carries an error of the chunks through the code that turns errors of the server into others."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def marked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks. Their error is wrapped; :func:`unwrapped_chunk_errors` raises it."""
    try:
        yield from chunks
    except Exception as error:
        raise _ChunkError(error) from error


@contextmanager
def unwrapped_chunk_errors() -> Iterator[None]:
    """Raise an error of :func:`marked` chunks unchanged at the end of the block."""
    try:
        yield
    except _ChunkError as wrapped:
        raise wrapped.error from wrapped.error.__cause__
