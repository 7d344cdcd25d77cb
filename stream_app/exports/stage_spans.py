"""The phases of an export as spans. They overlap, since bytes flow: so each says how long it was at work.

::

    source  ├────────────────────┤        the COPY; waits while the pipe is full
    render    ├────────────────────┤      framing, compression; waits for the source
    upload    ├──────────────────────┤    hashing, the object store; waits for what is rendered
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from stream_app.exports.source import Sink
from stream_app.observability import tracing
from stream_app.observability.tracing import Attributes, Span


class WaitTimer(Protocol):
    """Knows for how many seconds somebody has waited."""

    seconds: float


class TimedChunks(Iterator[bytes]):
    """An iterator that counts for how long it keeps whoever asks it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.seconds = 0.0

    def __next__(self) -> bytes:
        asked = time.perf_counter()
        try:
            return next(self._chunks)
        finally:
            self.seconds += time.perf_counter() - asked


class TimedSink:
    """A sink that counts for how long it keeps whoever gives to it."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.seconds = 0.0

    async def __call__(self, chunk: bytes) -> None:
        """Hand on."""
        given = time.perf_counter()
        try:
            await self._sink(chunk)
        finally:
            self.seconds += time.perf_counter() - given


@contextmanager
def stage_span(name: str, wait: WaitTimer, attributes: Attributes) -> Iterator[None]:
    """What deals with a part outside, and waits for its neighbour for as long as ``wait`` says."""
    began = time.perf_counter()
    with tracing.span(name, kind="CLIENT", attributes=attributes) as span:
        try:
            yield
        finally:
            _tell(span, time.perf_counter() - began, wait)


def rendering_span(chunks: Iterator[bytes], wait: WaitTimer) -> Iterator[bytes]:
    """``chunks``, whose making is a phase that begins now and lasts until the last one is taken.

    A format with a process of its own waits there, so what it waits for here is less than the truth.
    """
    return _rendered(TimedChunks(chunks), wait, tracing.span("render"))


def _rendered(chunks: TimedChunks, wait: WaitTimer, span: Span) -> Iterator[bytes]:
    try:
        yield from chunks
    except Exception as error:
        span.record_error(error)
        raise
    finally:
        _tell(span, chunks.seconds, wait)
        span.end()


def _tell(span: Span, seconds: float, wait: WaitTimer) -> None:
    waited = min(wait.seconds, seconds)
    span.set_attributes({"exporter.busy_seconds": seconds - waited, "exporter.waited_seconds": waited})
