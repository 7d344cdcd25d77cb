"""Spans for the stages of an export. The stages overlap, so each span has its busy and its waiting time.

::

    source  ├────────────────────┤        the COPY; waits while the pipe is full
    render    ├────────────────────┤      framing, compression; waits for the source
    upload    ├──────────────────────┤    hashing, the object store; waits for the rendered bytes
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from stream_app.exports.sources.snapshot import Sink
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


@dataclass(slots=True)
class StageTimes:
    """The busy seconds of the stages of an export. One thread writes each stage; others can read."""

    _ended: dict[str, float] = field(default_factory=dict)
    _running: dict[str, tuple[float, WaitTimer]] = field(default_factory=dict)

    def begin(self, name: str, wait: WaitTimer) -> float:
        """Begin a stage, or its next file; return the current time."""
        began = time.perf_counter()
        self._running[name] = began, wait
        return began

    def end(self, name: str, busy: float) -> None:
        """End a stage that was busy for this many seconds since its beginning."""
        self._running.pop(name, None)
        self._ended[name] = self._ended.get(name, 0.0) + busy

    @property
    def running(self) -> frozenset[str]:
        """Return the stages that have begun and not ended."""
        return frozenset(self._running)

    def seconds(self) -> dict[str, float]:
        """Return the busy seconds of each stage until now, to the millisecond."""
        now, found = time.perf_counter(), dict(self._ended)
        for name, (began, wait) in self._running.copy().items():
            found[name] = found.get(name, 0.0) + max(0.0, now - began - wait.seconds)
        return {name: round(seconds, 3) for name, seconds in found.items()}


@contextmanager
def stage_span(name: str, wait: WaitTimer, attributes: Attributes, times: StageTimes) -> Iterator[None]:
    """Open a span for a stage that calls another system. ``wait`` measures its waiting for other stages."""
    with tracing.span(name, kind="CLIENT", attributes=attributes) as span:
        began = times.begin(name, wait)
        try:
            yield
        finally:
            times.end(name, _set_times(span, time.perf_counter() - began, wait))


def rendering_span(chunks: Iterator[bytes], wait: WaitTimer, times: StageTimes) -> Iterator[bytes]:
    """Return ``chunks`` within a span that begins now and ends after the last chunk.

    The time that a format's own process waits for rows is not measured, so the waiting time of such a format
    is too short.
    """
    return _rendered(TimedChunks(chunks), wait, tracing.span("render"), times)


def _rendered(chunks: TimedChunks, wait: WaitTimer, span: Span, times: StageTimes) -> Iterator[bytes]:
    try:
        yield from chunks
    except Exception as error:
        span.record_error(error)
        raise
    finally:
        times.end("render", _set_times(span, chunks.seconds, wait))
        span.end()


def _set_times(span: Span, seconds: float, wait: WaitTimer) -> float:
    """Set the times of a stage; return its busy seconds."""
    waited = min(wait.seconds, seconds)
    span.set_attributes({"exporter.busy_seconds": seconds - waited, "exporter.waited_seconds": waited})
    return seconds - waited
