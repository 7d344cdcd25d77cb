"""From a request event to the record of its job, and back."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from stream_app.datasets.models import Dataset
from stream_app.jobs.new_job import NewJob, request_event_of
from stream_app.jobs.queue_sql import PRIORITIES
from stream_app.jobs.request_validator import RequestValidator
from streaming_exporter.events import SCHEDULES, Event, EventType, decode
from tests.datasets import datasets_of
from tests.rows import each_row

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)


VALIDATOR = RequestValidator({"csv", "json"}, datasets_of("ledger", "proofs"))


def row(cancelled: bool = False, source: str = "/t", **data: Any) -> NewJob:
    content = {"user_id": "u", "export_type": "ledger", "format": "csv", **data}
    event = Event(id=str(uuid4()), source=source, type=EventType.REQUESTED, data=content)
    job = VALIDATOR.job(event, now=NOW)
    return job.cancelled() if cancelled else job


def test_a_valid_request_is_a_pending_job() -> None:
    admitted = row(filters={"kind": "proof"}, priority="high", scope="all")
    assert admitted.outcome is None
    assert admitted.filters == {"kind": "proof"}
    assert admitted.priority == 0
    assert admitted.scope == "all"


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (
            {"export_type": "nothing"},
            "unknown_dataset",
            "export_type: there is no dataset 'nothing'; allowed: ledger, ",
        ),
        ({"format": "docx"}, "unknown_format", "format: there is no format 'docx'; allowed: csv, json"),
        ({"destination": "acme"}, "unknown_destination", "destination: there is no destination 'acme'"),
        ({"destination": "../a"}, "invalid_request", "destination: expected a name of at most 100 letters"),
        ({"filters": 3}, "invalid_request", 'filters: expected an object such as {"kind": "proof"}, got 3'),
        ({"priority": "urgent"}, "invalid_request", "priority: expected high, normal or low"),
    ],
)
def test_an_invalid_request_is_a_failed_job(data: dict[str, Any], code: str, message: str) -> None:
    outcome = row(**data).outcome
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("failed", code)
    assert outcome.error.message.startswith(message)


@pytest.mark.parametrize(("name", "code"), [("json", "format_not_allowed"), ("docx", "unknown_format")])
def test_a_format_that_the_dataset_does_not_allow_is_a_failed_job(name: str, code: str) -> None:
    dataset = Dataset(name="ledger", table="ledger", owner="user_id", formats=("csv", "parquet"))
    validator = RequestValidator({"csv", "json"}, {"ledger": dataset})
    data = {"user_id": "u", "export_type": "ledger", "format": name}
    job = validator.job(Event(id=str(uuid4()), source="/t", type=EventType.REQUESTED, data=data), now=NOW)
    assert job.outcome is not None
    assert job.outcome.error is not None
    assert job.outcome.error.code == code
    assert job.outcome.error.message.endswith("allowed: csv")


def test_a_request_after_its_cancellation_is_a_cancelled_job() -> None:
    admitted = row(cancelled=True)
    assert admitted.outcome is not None
    assert admitted.outcome.status == "cancelled"
    assert admitted.cancel_requested_at == NOW


def test_requests_of_schedules_have_low_priority_by_default() -> None:
    schedule = f"{SCHEDULES}/{uuid4()}"
    assert row(source=schedule).priority == PRIORITIES["low"]
    assert row(source=schedule, priority="high").priority == PRIORITIES["high"]
    assert row(source="/services/billing").priority == PRIORITIES["normal"]


@each_row("source", ["/t", f"{SCHEDULES}/1"])
@each_row(
    "data",
    [
        {},
        {"priority": "high"},
        {"priority": "low"},
        {"priority": "normal"},
        {
            "filters": {"kind": "proof"},
            "columns": ["id"],
            "options": {"compression": "gzip"},
            "scope": "all",
            "claims": {"org": ["acme", "globex"], "tid": "t", "roles": ["pii"]},
            "recipients": ["a@example.com"],
            "webhook": "https://example.com/hook",
        },
    ],
)
def test_the_request_of_a_row_can_be_published_again(data: dict[str, Any], source: str) -> None:
    """R8: the published request leads to the same job."""
    made = row(source=source, **data)
    event = decode(request_event_of(made).encode())
    assert (event.job_id, event.source, event.time) == (made.id, source, NOW)
    assert VALIDATOR.job(event, now=NOW) == made
