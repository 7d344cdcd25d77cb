"""A request with an invalid recipient is a failed job with the reason."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from stream_app.addresses import AddressRules
from stream_app.jobs.new_job import NewJob
from stream_app.jobs.request_validator import RequestValidator
from streaming_exporter.events import Event, EventType
from tests.datasets import datasets_of


def row(**data: Any) -> NewJob:
    content = {"user_id": "u", "export_type": "ledger", "format": "csv", **data}
    event = Event(id=str(uuid4()), source="/t", type=EventType.REQUESTED, data=content)
    validator = RequestValidator(
        {"csv"}, datasets_of("ledger"), AddressRules(domains=frozenset({"example.com"}))
    )
    return validator.job(event, now=datetime(2026, 11, 24, tzinfo=UTC))


def test_recipients_are_stored_in_ascii_form() -> None:
    admitted = row(recipients=["A@EXAMPLE.com", "a@example.com"], webhook="https://hooks.example.org/x")
    assert admitted.outcome is None
    assert admitted.recipients == ["a@example.com"]
    assert admitted.webhook == "https://hooks.example.org/x"


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (
            {"recipients": ["a@example.com", "x"]},
            "bad_recipient",
            "recipients.1: 'x' is not a valid mail address",
        ),
        (
            {"recipients": ["a@other.org"]},
            "recipient_not_allowed",
            "recipients.0: mails to other.org are not allowed; allowed: example.com",
        ),
        ({"recipients": "a@example.com"}, "invalid_request", "recipients: "),
        ({"recipients": [5]}, "invalid_request", "recipients.0: "),
        ({"webhook": "http://hooks.example.org/"}, "bad_webhook", "webhook: "),
        ({"webhook": "https://10.0.0.1/"}, "webhook_not_public", "webhook: 10.0.0.1 is not a public host"),
        ({"webhook": 5}, "invalid_request", "webhook: "),
    ],
)
def test_others_fail_the_job(data: dict[str, Any], code: str, message: str) -> None:
    outcome = row(**data).outcome
    assert outcome is not None
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("failed", code)
    assert outcome.error.message.startswith(message)
