"""One trace from a POST to the mail, as a collector receives it from real processes."""

import asyncio
from uuid import uuid4

import httpx2

from stream_app.settings import Settings
from streaming_exporter.events import Event, Topic
from tests.collector import Collector, Seen
from tests.e2e.conftest import System
from tests.e2e.test_logs import lines
from tests.e2e.test_requests import publish, request
from tests.topics import events_on
from tests.waiting import patient, until

CALLER = "00-{trace}-00f067aa0ba902b7-01"


async def lifecycle(settings: Settings, job_id: str) -> list[Event]:
    found = await events_on(settings, Topic.EVENTS)
    return [event for event in found if event.subject == job_id]


async def test_one_trace_from_the_post_to_the_mail(
    system: System, collector: Collector, settings: Settings
) -> None:
    trace_id = uuid4().hex
    order = {
        "export_type": "ledger",
        "format": "csv",
        "scope": "all",
        "filters": {"kind": {"ne": "secret-filter-value"}},
        "recipients": ["secret-reader@example.com"],
        "options": {"compression": "gzip"},
    }
    headers = {"traceparent": CALLER.format(trace=trace_id)}
    answer = system.client.post("/exports/jobs", json=order, headers=headers)
    job_id = answer.json()["export_job_id"]
    job = system.ended(job_id)
    assert job["status"] == "completed"
    seen = collector.trace(
        trace_id,
        "POST /exports/jobs",
        "send exports.requests",
        "process exports.requests",
        "export",
        "source",
        "render",
        "upload",
        "process exports.events",
        "deliver mail",
    )
    parents = {
        span.name: next((other.name for other in seen.values() if other.span_id == span.parent_id), None)
        for span in seen.values()
    }
    assert parents == {
        "POST /exports/jobs": None,
        "send exports.requests": "POST /exports/jobs",
        "process exports.requests": "send exports.requests",
        "export": "process exports.requests",
        "source": "export",
        "render": "export",
        "upload": "export",
        "process exports.events": "export",
        "deliver mail": "process exports.requests",
    }
    assert seen["POST /exports/jobs"].parent_id == "00f067aa0ba902b7"
    assert {span.service for name, span in seen.items() if name.startswith(("POST", "send"))} == {
        "exporter-api"
    }
    assert {span.service for name, span in seen.items() if not name.startswith(("POST", "send"))} == {
        "workers-of-ours"
    }
    assert not any(span.failed for span in seen.values())
    the_api, export = seen["POST /exports/jobs"], seen["export"]
    assert (the_api.kind, the_api.attributes["http.response.status_code"]) == ("SERVER", 202)
    assert the_api.attributes["http.route"] == "/exports/jobs"
    assert seen["send exports.requests"].kind == "PRODUCER"
    assert seen["process exports.requests"].kind == "CONSUMER"
    assert seen["process exports.requests"].attributes["messaging.destination.name"] == "exports.requests"
    assert export.attributes == {
        "exporter.job.id": job_id,
        "exporter.dataset": "ledger",
        "exporter.format": "csv",
        "exporter.attempt": 1,
        "exporter.outcome": "completed",
        "exporter.rows": job["row_count"],
        "exporter.bytes": job["file_size"],
    }
    assert seen["deliver mail"].attributes["exporter.delivery.outcome"] == "sent"
    for name in ("source", "render", "upload"):
        phase = seen[name]
        assert export.start <= phase.start <= phase.end <= export.end
        worked = [phase.attributes[f"exporter.{what}_seconds"] for what in ("busy", "waited")]
        assert min(worked) >= 0
        assert sum(worked) <= phase.end - phase.start + 0.005
    for secret in (b"secret-filter-value", b"secret-reader", b"tester"):
        assert secret not in collector.raw

    events = await lifecycle(settings, job_id)
    contexts = {event.type.value: str(event.traceparent).split("-") for event in events}
    assert {parts[1] for parts in contexts.values()} == {trace_id}
    assert contexts["export.accepted"][2] == seen["process exports.requests"].span_id
    assert contexts["export.started"][2] == contexts["export.completed"][2] == export.span_id

    for log, event in ((system.api.log, "job.requested"), (system.worker.log, "job.completed")):
        (line,) = [line for line in lines(log) if (line["event"], line.get("job_id")) == (event, job_id)]
        assert line["trace_id"] == trace_id
        assert line["span_id"] in {span.span_id for span in seen.values()}


def test_an_api_that_is_stopped_sends_its_last_spans(system: System, collector: Collector) -> None:
    slow = collector.settings | {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
    api = system.stack.start_api(settings=system.extra | slow)
    trace_id = uuid4().hex
    try:
        headers = {**system.client.headers, "traceparent": CALLER.format(trace=trace_id)}
        order = {"export_type": "ledger", "format": "csv"}
        answer = httpx2.post(f"{api.address}/exports/jobs", json=order, headers=headers, timeout=patient(30))
        assert answer.status_code == 202
    finally:
        api.stop()
    system.ended(answer.json()["export_job_id"])  # the metrics of other tests do not count it
    collector.trace(trace_id, "POST /exports/jobs", "send exports.requests")


async def test_the_request_of_a_service_without_tracing_gets_a_trace(
    system: System, collector: Collector
) -> None:
    refused = request(columns=["id", "colour"], webhook="http://127.0.0.1:9/hook")
    await publish(system, [(refused.key, refused.encode())])
    assert system.ended(refused.id)["status"] == "failed"
    seen = await asyncio.to_thread(_of_job, collector, refused.id, "deliver webhook")
    export = seen["export"]
    assert seen["process exports.requests"].parent_id == ""
    assert export.failed
    assert export.attributes["error.type"] == "unknown_column"
    assert export.attributes["exporter.outcome"] == "failed"
    assert seen["deliver webhook"].failed
    assert seen["deliver webhook"].attributes["exporter.delivery.outcome"] == "pending"
    assert b"127.0.0.1:9" not in collector.raw
    assert b"colour" not in collector.raw


def _of_job(collector: Collector, job_id: str, last: str) -> dict[str, Seen]:

    def look() -> list[Seen] | None:
        found = [span for span in list(collector.spans) if span.attributes.get("exporter.job.id") == job_id]
        return found if any(span.name == last for span in found) else None

    found = until(look)
    assert len({span.trace_id for span in found}) == 1
    return {span.name: span for span in found}
