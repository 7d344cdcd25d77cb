"""Operators see how a job stands, and nothing that its user wrote or that leads to its rows."""

from typing import Any

from api.jobs.schemas import SHOWN_TO_OPERATORS, JobView
from streaming_exporter.events import JobError

CLOSED = {
    "filters", "columns", "options", "parameters", "file_name", "sha256", "download_url", "files_url",
    "error", "name", "window", "encrypt", "destination",
}  # fmt: skip


def test_every_field_of_a_job_is_open_or_closed_for_operators() -> None:
    """A new field is closed until somebody decides that it has no data."""
    assert set(JobView.model_fields) == SHOWN_TO_OPERATORS | CLOSED
    assert not SHOWN_TO_OPERATORS & CLOSED


def test_closed_fields_are_empty_for_operators() -> None:
    fields: dict[str, Any] = dict.fromkeys(JobView.model_fields, "secret")
    fields["error"] = JobError(code="c", message="secret")
    view = JobView.model_construct(**fields).without_data()
    shown = {name for name in JobView.model_fields if "secret" in str(getattr(view, name))}
    assert shown == SHOWN_TO_OPERATORS
    assert view.error == JobError(code="c", message="only the user of the job can see the reason")
