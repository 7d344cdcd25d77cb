"""A notification is made from a row of the outbox and the job's record."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest

from stream_app.notifications.notification import Notification
from tests.unit.notifications.notifications import AT, failure, notification

RECORD: dict[str, Any] = {
    "row_count": 3,
    "file_size": 120,
    "file_name": "a.csv",
    "file_path": "jobs/a.csv",
    "content_type": "text/csv",
    "sha256": "00",
    "as_of": AT,
    "completed_at": AT,
    "expires_at": AT,
    "error_code": None,
    "error_message": None,
    "paused": None,
    "traceparent": None,
    "sent_to": "acme",
}
ROW: dict[str, Any] = {
    "id": uuid4(),
    "delivery_id": uuid4(),
    "attempts": 2,
    "address": "a@example.com",
    "due_at": AT,
    "job_id": uuid4(),
    "event": "completed",
    "user_id": "user-1",
    "export_type": "ledger",
    "format": "csv",
    "window": None,
    "gone": False,
    "revoked_at": None,
    "unsubscribed": False,
    "suppressed": None,
    **RECORD,
}


def row(**changes: Any) -> Mapping[str, Any]:
    """Return a claimed row. Columns that are not given are NULL."""
    return defaultdict(lambda: None, ROW | changes)


def test_a_notification_has_the_values_of_the_rows() -> None:
    found = Notification.from_row(row())
    assert {name: getattr(found, name) for name in RECORD} == RECORD
    assert (found.attempt, found.address, found.user_id, found.skip_reason) == (
        2,
        "a@example.com",
        "user-1",
        None,
    )


@pytest.mark.parametrize(
    ("window", "shown"),
    [
        ({"from": "2026-01-01", "to": "2026-02-01"}, ("2026-01-01", "2026-02-01")),
        ({"from": 1, "to": 2, "more": 3}, ("1", "2")),
        ({"from": "2026-01-01"}, None),
        ({}, None),
        ("text", None),
        (None, None),
    ],
)
def test_a_window_is_shown_if_both_ends_are_known(window: object, shown: tuple[str, str] | None) -> None:
    assert Notification.from_row(row(window=window)).window == shown


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": None}, "the record of the job was deleted"),
        ({"gone": True}, "the file has expired"),
        ({"gone": True, "event": "failed"}, None),
        ({"revoked_at": AT}, "the link was revoked"),
        ({"unsubscribed": True}, "the recipient has unsubscribed"),
        ({"suppressed": "550 no"}, "the mail server has refused this address before: 550 no"),
        ({"gone": True, "unsubscribed": True}, "the file has expired"),
    ],
)
def test_a_skipped_notification_has_the_reason(changes: dict[str, Any], reason: str | None) -> None:
    assert Notification.from_row(row(**changes)).skip_reason == reason


def test_a_failure_is_not_empty() -> None:
    assert failure().failed
    assert not failure(row_count=0).empty
    assert notification(row_count=0).empty
    assert not notification(row_count=1).empty


def test_a_notification_has_the_warnings_of_the_manifest() -> None:
    """people A3."""
    assert Notification.from_row(row(manifest={"warnings": {"cut_cells": 2}})).warnings == {"cut_cells": 2}
    assert Notification.from_row(row()).warnings == {}


@pytest.mark.parametrize(
    ("manifest", "labels"),
    [
        ({"labels": {"total": "Summe", "odd": 1}}, {"total": "Summe"}),
        ({"labels": ["total"]}, {}),
        ({}, {}),
        (None, {}),
    ],
)
def test_labels_are_those_of_the_manifest(manifest: Any, labels: dict[str, str]) -> None:
    assert Notification.from_row(row(manifest=manifest)).labels == labels
