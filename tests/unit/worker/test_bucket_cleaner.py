"""The objects of the bucket that jobs need: a mistake here would delete a user's file."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from stream_app.datasets.models import Dataset
from stream_app.jobs.states import Status
from stream_app.settings import Settings
from stream_app.storage.listing import ListedObject, object_key
from stream_app.worker.maintenance.bucket_cleaner import JobFilesNeeded, is_needed
from tests.rows import each_row

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SETTINGS = Settings(_env_file=None, retention_days=7, lease_seconds=30, export_timeout_seconds=3600)
HOURS = timedelta(hours=1)
YOUNG, OLD, ANCIENT = 1.5 * HOURS, 3 * HOURS, 24 * 9 * HOURS
JOB = uuid4()


def found(attempt: int, age: timedelta, *, upload: bool = False) -> ListedObject:
    return ListedObject(object_key(JOB, attempt, "f"), JOB, attempt, NOW - age, "u" if upload else None)


def needed(item: ListedObject, job: JobFilesNeeded | None) -> bool:
    return is_needed(item, job, now=NOW, settings=SETTINGS)


@each_row("status", Status)
@each_row("attempt", [1, 2, 3])
@each_row("upload", [True, False])
def test_young_objects_are_needed(status: Status, attempt: int, upload: bool) -> None:
    assert needed(found(attempt, YOUNG, upload=upload), JobFilesNeeded(status, 2, None))
    assert needed(found(attempt, YOUNG, upload=upload), None)


def test_the_file_of_a_completed_job_is_needed_at_any_age() -> None:
    job = JobFilesNeeded(Status.COMPLETED, 2, object_key(JOB, 2, "f"))
    assert needed(found(2, ANCIENT), job)
    assert not needed(found(1, OLD), job)
    assert not needed(found(3, OLD), job)
    assert not needed(found(2, OLD, upload=True), job)


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING])
@pytest.mark.parametrize("upload", [True, False])
def test_objects_of_the_current_attempt_are_needed(status: Status, upload: bool) -> None:
    """Its completion can be stored and not applied yet."""
    job = JobFilesNeeded(status, 2, None)
    assert needed(found(2, ANCIENT, upload=upload), job)
    assert not needed(found(1, OLD, upload=upload), job)


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED, Status.EXPIRED])
@pytest.mark.parametrize("upload", [True, False])
def test_a_job_without_a_file_needs_none(status: Status, upload: bool) -> None:
    assert not needed(found(2, OLD, upload=upload), JobFilesNeeded(status, 2, object_key(JOB, 2, "f")))


def test_objects_of_an_unknown_job_are_needed_until_its_file_would_have_expired() -> None:
    assert needed(found(1, OLD), None)
    assert needed(found(1, 24 * 7 * HOURS), None)
    assert not needed(found(1, ANCIENT), None)
    kept = {"long": Dataset(name="long", table="t", retention_days=30)}
    assert is_needed(found(1, ANCIENT), None, now=NOW, settings=SETTINGS, datasets=kept)
    assert not is_needed(found(1, 24 * 32 * HOURS), None, now=NOW, settings=SETTINGS, datasets=kept)
    assert not is_needed(found(1, ANCIENT, upload=True), None, now=NOW, settings=SETTINGS, datasets=kept)
    assert needed(found(1, OLD, upload=True), None)
    assert not needed(found(1, 25 * HOURS, upload=True), None)
