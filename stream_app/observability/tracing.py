"""Spans and their context. :mod:`stream_app.observability.telemetry` sets up where they are sent.

Tracing is off unless the standard variables request it. Then nothing of OpenTelemetry is imported, and a
``traceparent`` (https://www.w3.org/TR/trace-context) is passed on unchanged. Names and attributes follow
OpenTelemetry's conventions. No attribute holds personal data or a user's text: an error is recorded by its
kind only, because its text can quote filters and addresses. The log has the texts and the ids.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from traceback import format_tb
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from streaming_exporter.errors import ExporterError
from streaming_exporter.events import Event
from streaming_exporter.traceparent import match

if TYPE_CHECKING:
    from opentelemetry import trace

Kind = Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
Attributes = Mapping[str, str | int | float | None]

tracer: "trace.Tracer | None" = None
"""``None`` if tracing is off. Only :mod:`stream_app.observability.telemetry` sets it."""


class Span:
    """A span. ``with span(…)`` makes it the current span for the block and then ends it.

    ``traceparent`` is its context, for the next system.
    """

    __slots__ = ("_span", "_token", "traceparent")

    def __init__(self, span: "trace.Span | None", traceparent: str | None) -> None:
        self._span = span
        self.traceparent = traceparent

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        if self._span is not None:
            if isinstance(error, Exception):
                self.record_error(error)
            self._span.end()

    @contextmanager
    def activate(self) -> Generator[None]:
        """Make it the current span for the block, without ending it."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def end(self) -> None:
        """End the span."""
        if self._span is not None:
            self._span.end()

    def set_attributes(self, attributes: Attributes, *, name: str | None = None) -> None:
        """Add attributes, except those that are ``None``. ``name`` replaces the span's name."""
        if self._span is None:
            return
        self._span.set_attributes({key: value for key, value in attributes.items() if value is not None})
        if name is not None:
            self._span.update_name(name)

    def record_error(self, error: Exception | str) -> None:
        """Record an error: its kind and the place in the code."""
        if self._span is None:
            return
        from opentelemetry.trace import StatusCode

        what = error if isinstance(error, str) else _error_type(error)
        self._span.set_attribute("error.type", what)
        self._span.set_status(StatusCode.ERROR)
        if isinstance(error, Exception):
            where = "".join(format_tb(error.__traceback__))
            self._span.add_event("exception", {"exception.type": what, "exception.stacktrace": where})


NO_SPAN = Span(None, None)
_current: ContextVar[Span] = ContextVar("span", default=NO_SPAN)


def current_span() -> Span:
    """Return the current span."""
    return _current.get()


def span(
    name: str, *, kind: Kind = "INTERNAL", parent: str | None = None, attributes: Attributes | None = None
) -> Span:
    """Begin a span whose parent is ``parent``, a traceparent. The default is the current span."""
    if tracer is None:
        return Span(None, parent or _current.get().traceparent)
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    above = _current.get()._span
    if parent is not None:
        context = TraceContextTextMapPropagator().extract({"traceparent": parent})
    else:
        context = trace.set_span_in_context(trace.INVALID_SPAN if above is None else above)
    begun = tracer.start_span(name, context, trace.SpanKind[kind])
    made = begun.get_span_context()
    opened = Span(begun, f"00-{made.trace_id:032x}-{made.span_id:016x}-{made.trace_flags:02x}")
    opened.set_attributes(attributes or {})
    return opened


@contextmanager
def end_together(begun: Iterable[Span]) -> Iterator[list[Span]]:
    """End several spans after the block, and record its error in all of them."""
    opened = list(begun)
    try:
        yield opened
    except Exception as error:
        for item in opened:
            item.record_error(error)
        raise
    finally:
        for item in opened:
            item.end()


@contextmanager
def process_spans(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Open a span for each message of a batch, in its sender's trace. Yields the events with these spans."""
    if tracer is None:
        yield list(events)
        return
    with end_together(
        span(
            f"process {event.topic}",
            kind="CONSUMER",
            parent=event.traceparent,
            attributes=_messaging(event, "process") | {"messaging.batch.message_count": len(events)},
        )
        for event in events
    ) as opened:
        yield [with_trace_context(event, item) for event, item in zip(events, opened, strict=True)]


def send_span(event: Event) -> Span:
    """Begin the span for publishing ``event``; :func:`with_trace_context` adds it to the event."""
    attributes = None if tracer is None else _messaging(event, "send")
    return span(f"send {event.topic}", kind="PRODUCER", attributes=attributes)


def with_trace_context(event: Event, opened: Span) -> Event:
    """Return ``event`` with the context of a span."""
    if event.traceparent == opened.traceparent:
        return event
    return event.model_copy(update={"traceparent": opened.traceparent})


def trace_ids(traceparent: str | None) -> dict[str, str]:
    """Return ``trace_id`` and ``span_id`` for log lines, or nothing if ``traceparent`` is not valid."""
    found = match(traceparent)
    return {"trace_id": found["trace_id"], "span_id": found["span_id"]} if found else {}


def _messaging(event: Event, operation: str) -> dict[str, str | int | None]:
    """Return the attributes of a message: https://opentelemetry.io/docs/specs/semconv/messaging/kafka/."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": event.topic,
        "messaging.message.id": event.id if event.id == str(event.job_id) else None,
        "exporter.event.type": event.type,
        "exporter.job.id": str(event.job_id),
    }


def _error_type(error: Exception) -> str:
    """Return the code of the service's own errors, and the class of other errors."""
    return error.code if isinstance(error, ExporterError) else type(error).__qualname__
