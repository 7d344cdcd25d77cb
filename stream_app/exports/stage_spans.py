"""Spans for the stages of an export. The stages overlap, so each span has its busy and its waiting time.

::

    source  ├────────────────────┤        the COPY; waits while the pipe is full
    render    ├────────────────────┤      framing, compression; waits for the source
    upload    ├──────────────────────┤    hashing, the object store; waits for the rendered bytes
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from stream_app.exports.snapshot import Sink
from stream_app.observability import tracing
from stream_app.observability.tracing import Attributes, Span


class WaitTimer(Protocol):
    """Measures waiting time, in seconds."""

    seconds: float


class TimedChunks(Iterator[bytes]):
    """An iterator that measures how long its consumer waits."""

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
    """A sink that measures how long its producer waits."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.seconds = 0.0

    async def __call__(self, chunk: bytes) -> None:
        """Pass ``chunk`` to the sink."""
        given = time.perf_counter()
        try:
            await self._sink(chunk)
        finally:
            self.seconds += time.perf_counter() - given


@contextmanager
def stage_span(name: str, wait: WaitTimer, attributes: Attributes) -> Iterator[None]:
    """Open a span for a stage that calls another system. ``wait`` measures its waiting for other stages."""
    began = time.perf_counter()
    with tracing.span(name, kind="CLIENT", attributes=attributes) as span:
        try:
            yield
        finally:
            _set_times(span, time.perf_counter() - began, wait)


def rendering_span(chunks: Iterator[bytes], wait: WaitTimer) -> Iterator[bytes]:
    """Return ``chunks`` within a span that begins now and ends after the last chunk.

    The time that a format's own process waits for rows is not measured, so the waiting time of such a format
    is too short.
    """
    return _rendered(TimedChunks(chunks), wait, tracing.span("render"))


def _rendered(chunks: TimedChunks, wait: WaitTimer, span: Span) -> Iterator[bytes]:
    try:
        yield from chunks
    except Exception as error:
        span.record_error(error)
        raise
    finally:
        _set_times(span, chunks.seconds, wait)
        span.end()


def _set_times(span: Span, seconds: float, wait: WaitTimer) -> None:
    waited = min(wait.seconds, seconds)
    span.set_attributes({"exporter.busy_seconds": seconds - waited, "exporter.waited_seconds": waited})
