"""S12: a lifecycle event is applied only if it fits its job."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from stream_app.exports.bundles.members import BundleFacts
from stream_app.exports.bundles.writer import BundleWriter
from stream_app.exports.files.compression import COMPRESSIONS
from stream_app.exports.files.encryption import AgeEncryption, ZipEncryption
from stream_app.exports.files.file_writer import FileKind
from stream_app.exports.formats.base import Document
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.task import ExportProgress, ExportTask
from stream_app.jobs.projector import validate_outcome
from stream_app.jobs.states import EVENT_OF, OUTCOMES, Status
from stream_app.storage.listing import object_key
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import Event, EventType, LifecycleData, Options, lifecycle_event
from tests.rows import each_row

NOW = datetime(2026, 11, 24, 6, tzinfo=UTC)
KEPT = timedelta(days=7)
JOB = UUID("4f1c2d3e-0000-4000-8000-000000000001")


def completed(**changed: Any) -> Event:
    """Return the outcome of a worker about its own file."""
    content = {
        "job_id": JOB,
        "user_id": "u",
        "export_type": "ledger",
        "format": "csv",
        "attempt": 2,
        "status": "completed",
        "key": object_key(JOB, 2, "ledger.csv"),
        "file_name": "ledger.csv",
        "content_type": FORMATS["csv"].media_type,
        "completed_at": NOW,
        "expires_at": NOW + KEPT,
        **changed,
    }
    return lifecycle_event(EventType.COMPLETED, LifecycleData.model_validate(content))


def believed(event: Event) -> LifecycleData:
    return validate_outcome(event, formats=FORMATS, kept=KEPT, now=NOW).lifecycle


ENCRYPTIONS = {"none": None, "zip": ZipEncryption("secret"), "age": AgeEncryption((), ())}


@each_row("output", FORMATS)
@each_row("compression", ["none", *COMPRESSIONS])
@each_row("encryption", ENCRYPTIONS)
@each_row("is_bundle", [False, True])
def test_outcomes_of_workers_are_unchanged(
    output: str, compression: str, encryption: str, is_bundle: bool
) -> None:
    kind, compressed, encrypted = FORMATS[output], COMPRESSIONS.get(compression), ENCRYPTIONS[encryption]
    document = Document("ledger", (), Options(), NOW)
    nothing: Any = None
    task = ExportTask("t", nothing, NOW, str)
    if is_bundle:
        facts = BundleFacts("month", "", None, nothing, NOW, None)
        writer = BundleWriter(
            nothing, task, facts, kind, compressed, encrypted, [document], None, ExportProgress()
        )
        name, content_type = writer.file_name, writer.content_type
    else:
        files = FileKind(task, nothing, document, kind, compressed, encryption=encrypted)
        name, content_type = files.name(), files.content_type
    event = completed(format=output, key=object_key(JOB, 2, name), file_name=name, content_type=content_type)
    assert validate_outcome(event, formats=FORMATS, kept=KEPT, now=NOW) is event
    wrong = completed(format=output, key=object_key(JOB, 2, name), file_name=name, content_type="text/html")
    assert believed(wrong).content_type == content_type


@pytest.mark.parametrize("status", sorted(OUTCOMES.values()))
def test_outcomes_without_a_file_are_unchanged(status: Status) -> None:
    none = dict.fromkeys(("key", "file_name", "content_type", "expires_at"))
    data = completed(**none).lifecycle.model_copy(update={"status": status})
    event = lifecycle_event(EVENT_OF[status], data)
    assert validate_outcome(event, formats=FORMATS, kept=KEPT, now=NOW) is event


@pytest.mark.parametrize("before", ["", "exports/", "a/b/"])
@pytest.mark.parametrize("mark", ["", "7ec8f87b681fa8c1"])
def test_a_key_can_have_a_prefix(before: str, mark: str) -> None:
    event = completed(key=before + object_key(JOB, 2, "ledger.csv", suffix=mark))
    assert believed(event).key == event.lifecycle.key


@each_row(
    "key",
    [
        object_key(uuid4(), 2, "ledger.csv"),
        object_key(JOB, 1, "ledger.csv"),
        object_key(JOB, 21, "ledger.csv"),
        object_key(JOB, 2, ""),
        object_key(JOB, 2, "a/b"),
        object_key(JOB, 2, ".."),
        f"jobs/{JOB}/2/../../{uuid4()}/1/x",
        f"../jobs/{JOB}/2/x",
        f"other/{JOB}/2/x",
        f"/jobs/{JOB}/2/x",
        str(JOB),
        "secrets.txt",
        "",
    ],
)
def test_a_foreign_key_is_refused(key: str) -> None:
    with pytest.raises(Unreadable, match=r"data\.key"):
        believed(completed(key=key))


@pytest.mark.parametrize(
    "claimed", ["text/html", "image/svg+xml", "application/x-msdownload", FORMATS["pdf"].media_type]
)
def test_the_media_type_comes_from_the_registry(claimed: str) -> None:
    assert believed(completed(content_type=claimed)).content_type == FORMATS["csv"].media_type
    assert believed(completed(content_type=claimed, format="of-tomorrow")).content_type is None


@pytest.mark.parametrize("completed_at", [NOW, NOW - timedelta(days=1), NOW + timedelta(days=900), None])
def test_no_event_extends_the_retention(completed_at: datetime | None) -> None:
    event = completed(completed_at=completed_at, expires_at=NOW + timedelta(days=1_000))
    latest = min(completed_at or NOW, NOW) + KEPT
    assert believed(event).expires_at == latest
    sooner = completed(completed_at=completed_at, expires_at=NOW - timedelta(days=2))
    assert believed(sooner).expires_at == NOW - timedelta(days=2)


def test_a_shorter_retention_changes_no_expiry_that_was_promised_before() -> None:
    """The record of a file that was removed has an earlier time."""
    promised = completed(expires_at=NOW + 3 * KEPT).lifecycle.model_copy(update={"status": Status.EXPIRED})
    assert believed(lifecycle_event(EventType.EXPIRED, promised)).expires_at == NOW + 3 * KEPT


def test_the_file_name_comes_from_the_key() -> None:
    assert believed(completed(file_name="invoice.exe")).file_name == "ledger.csv"


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [({"subject": str(uuid4())}, r"data\.job_id"), ({"type": EventType.FAILED}, r"data\.status")],
)
def test_an_event_that_contradicts_itself_is_refused(changed: dict[str, Any], complaint: str) -> None:
    event = completed().model_copy(update=changed)
    with pytest.raises(Unreadable, match=complaint):
        believed(event)


def test_the_outcome_of_several_files_has_the_type_of_the_manifest() -> None:
    known = {"key": object_key(JOB, 2, "manifest.json"), "file_name": "manifest.json", "file_count": 3}
    event = completed(**known, content_type="application/json")
    assert validate_outcome(event, formats=FORMATS, kept=KEPT, now=NOW) is event
    wrong = completed(**known, content_type="text/html")
    assert believed(wrong).content_type == "application/json"
