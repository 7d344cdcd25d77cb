"""Spans without a back end: the context that is passed on, the attributes, and tracing that is off."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from uuid import uuid4

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult, StaticSampler
from structlog.testing import capture_logs

from stream_app.exports import stage_spans
from stream_app.exports.stage_spans import StageTimes, TimedChunks, TimedSink, rendering_span, stage_span
from stream_app.observability import telemetry, tracing
from streaming_exporter.errors import Rejected
from streaming_exporter.events import cancel_event
from tests.rows import each_row
from tests.waiting import patient, until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPAN_ID = TRACE.split("-")[2]


def turn_on(monkeypatch: pytest.MonkeyPatch, sampler: Sampler | None = None) -> InMemorySpanExporter:
    memory = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    return memory


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    return turn_on(monkeypatch)


@each_row(
    ("variables", "exporters"),
    [
        ({}, []),
        ({"OTEL_SERVICE_NAME": "s", "OTEL_TRACES_SAMPLER": "always_on"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, []),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318"}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp"]),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp", "console"]),
    ],
)
def test_the_standard_variables_decide(variables: dict[str, str], exporters: list[str]) -> None:
    assert telemetry.requested_exporters(variables) == exporters


def test_a_traceparent_is_passed_on_while_tracing_is_off() -> None:
    event = cancel_event(uuid4(), source="/t", traceparent=TRACE)
    with tracing.process_spans([event]) as events:
        assert events[0] is event
    with tracing.span("outer", parent=TRACE) as outer:
        with tracing.span("inner") as inner:
            assert (outer.traceparent, inner.traceparent) == (TRACE, TRACE)
            assert tracing.current_span() is inner
        assert tracing.current_span() is outer
    assert tracing.current_span() is tracing.NO_SPAN


@pytest.mark.parametrize(
    "traceparent",
    [None, "", "x", TRACE.upper(), f"00-{'0' * 32}-{SPAN_ID}-01", TRACE + "-more", "ff" + TRACE[2:]],
)
def test_an_invalid_traceparent_has_no_ids(traceparent: str | None) -> None:
    assert tracing.trace_ids(traceparent) == {}


def test_with_tracing_the_trace_continues(memory: InMemorySpanExporter) -> None:
    event = cancel_event(uuid4(), source="/t", traceparent=TRACE)
    with (
        tracing.process_spans([event]) as events,
        tracing.span("export", parent=events[0].traceparent),
        tracing.span("source", attributes={"known": 1, "unknown": None}),
    ):
        pass
    found = {span.name: span for span in memory.get_finished_spans()}
    assert {f"{span.context.trace_id:032x}" for span in found.values() if span.context} == {
        TRACE.split("-")[1]
    }
    first, export, source = (found[name] for name in ("process exports.requests", "export", "source"))
    assert first.parent is not None
    assert f"{first.parent.span_id:016x}" == SPAN_ID
    assert [item.parent and item.parent.span_id for item in (export, source)] == [
        item.context and item.context.span_id for item in (first, export)
    ]
    assert source.attributes == {"known": 1}
    assert tracing.trace_ids(events[0].traceparent)["span_id"] == f"{first.context.span_id:016x}"


def test_errors_are_recorded_by_kind(memory: InMemorySpanExporter) -> None:
    errors = [Rejected("filters.kind: got 'a secret'", code="bad_filter_value"), ValueError("a secret")]
    for error in errors:
        with pytest.raises(type(error)), tracing.span("export"):
            raise error
    rejected, crashed = memory.get_finished_spans()
    assert [span.status.is_ok for span in (rejected, crashed)] == [False, False]
    assert [(span.attributes or {})["error.type"] for span in (rejected, crashed)] == [
        "bad_filter_value",
        "ValueError",
    ]
    assert "test_tracing.py" in str((crashed.events[0].attributes or {})["exception.stacktrace"])
    assert "a secret" not in rejected.to_json() + crashed.to_json()


async def test_a_cancelled_task_has_not_failed(memory: InMemorySpanExporter) -> None:
    async def work() -> None:
        with tracing.span("export"):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    (span,) = memory.get_finished_spans()
    assert span.status.is_unset


def test_a_trace_that_is_not_sampled_is_not_sampled_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = turn_on(monkeypatch, ALWAYS_OFF)
    with tracing.span("export", parent=TRACE) as span:
        assert span.traceparent is not None
        assert span.traceparent.startswith(TRACE[:36])
        assert span.traceparent.endswith("-00")
    assert memory.get_finished_spans() == ()


async def test_spans_of_phases_have_their_working_time(
    memory: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(stage_spans, "time", SimpleNamespace(perf_counter=lambda: now))

    def slow(chunks: Iterator[bytes], seconds: float) -> Iterator[bytes]:
        nonlocal now
        for chunk in chunks:
            now += seconds
            yield chunk

    async def full(_: bytes) -> None:
        nonlocal now
        now += 0.05

    read = TimedChunks(slow(iter([b"a", b"b"]), 0.05))
    times = StageTimes()
    made = TimedChunks(rendering_span(slow(read, 0.02), read, times))
    with stage_span("upload", made, {}, times):
        assert times.running == {"upload"}
        assert b"".join(made) == b"ab"
    sink = TimedSink(full)
    with stage_span("source", sink, {}, times):
        await sink(b"a")
    found = {span.name: dict(span.attributes or {}) for span in memory.get_finished_spans()}
    busy = {name: found[name]["exporter.busy_seconds"] for name in found}
    waited = {name: found[name]["exporter.waited_seconds"] for name in found}
    assert waited == pytest.approx({"render": 0.1, "upload": 0.14, "source": 0.05})
    assert busy == pytest.approx({"render": 0.04, "upload": 0, "source": 0})
    assert times.seconds() == pytest.approx(busy, abs=0.001), "the log and the job's record have the same"
    assert times.running == frozenset()


def test_a_stage_is_never_busy_for_longer_than_its_span(monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowSampler(StaticSampler):
        """Needs a moment for each span that begins, as the first span of a process does."""

        def should_sample(self, *_: object, **__: object) -> SamplingResult:
            time.sleep(0.05)
            return SamplingResult(Decision.RECORD_AND_SAMPLE)

    spans = turn_on(monkeypatch, SlowSampler(Decision.RECORD_AND_SAMPLE))
    times = StageTimes()
    with stage_span("source", TimedChunks(iter(())), {}, times):
        pass
    assert list(rendering_span(iter([b"a"]), TimedChunks(iter(())), times)) == [b"a"]
    for span in spans.get_finished_spans():
        busy = dict(span.attributes or {})["exporter.busy_seconds"]
        lasted = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
        assert busy <= lasted + 0.005, span.name  # type: ignore[operator]


def test_the_end_of_a_process_does_not_wait_for_the_back_end(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set(threading.enumerate())
    monkeypatch.setattr(telemetry, "SHUTDOWN_SECONDS", 0.3)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", str(patient(10)))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        exporter = telemetry._exporter("otlp")
        monkeypatch.setattr(telemetry, "_exporter", lambda _: exporter)
        with capture_logs() as logs:
            with telemetry.exporting_spans("exporter-worker", "w1"):
                with tracing.span("export"):
                    pass
                began = time.monotonic()
            assert time.monotonic() - began < patient(8), "the time-out of the exporter itself is longer"
    assert [line["event"] for line in logs] == ["tracing.started", "tracing.spans_lost"]
    assert tracing.tracer is None
    exporter.shutdown()  # it would try again, and log its error into the output of another test
    until(lambda: set(threading.enumerate()) <= threads)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"OTEL_TRACES_EXPORTER": "carrier-pigeon"}, "otlp_proto_http"),
        ({"OTEL_TRACES_EXPORTER": "otlp,carrier-pigeon"}, "carrier-pigeon"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "otlp_proto_grpc"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, "max_queue_size"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "few"}, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"),
    ],
)
def test_unusable_variables_are_logged_and_work_continues(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **variables}.items():
        monkeypatch.setenv(name, value)
    threads = set(threading.enumerate())
    with capture_logs() as logs, telemetry.exporting_spans("exporter-worker", "w1"):
        assert tracing.tracer is None
        assert set(threading.enumerate()) <= threads
    (line,) = logs
    assert line["event"] == "tracing.setup_failed"
    assert reason in line["error"]
    assert variables.keys() <= set(line["variables"])
