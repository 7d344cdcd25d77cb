"""The conditions that must hold when a scenario has ended."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from stream_app.jobs.states import OUTCOMES
from stream_app.settings import Settings
from stream_app.storage.listing import ListedObject
from stream_app.worker.maintenance.bucket_cleaner import JobFilesNeeded, is_needed
from streaming_exporter.events import Event, EventType
from tests.chaos.items import Source, digest_of_file
from tests.chaos.plan import PlannedJob
from tests.chaos.system_client import Job, SystemClient


async def wrong_files(
    client: SystemClient, source: Source, orders: Sequence[PlannedJob], jobs: Mapping[UUID, Job]
) -> list[str]:
    """Return completed jobs whose file does not have exactly the rows of the database in their order."""
    wrong = []
    for order in orders:
        job = jobs[order.job_id]
        if job["status"] != "completed":
            continue
        is_split = order.request.split is not None
        content = await (client.joined_files(job) if is_split else client.file(job))
        request = order.request
        count, expected = await source.expected(order.columns, order.last, order.owner)
        found = await asyncio.to_thread(
            digest_of_file, request.format, request.options.compression, order.columns, content
        )
        if (
            found != expected
            or job["row_count"] != count
            or (not is_split and job["file_size"] != len(content))
        ):
            wrong.append(f"{order}: {job['row_count']} of {count} rows, {len(content)} bytes")
    return wrong


def wrong_objects(jobs: Mapping[UUID, Job], files: Sequence[str], uploads: Sequence[str]) -> list[str]:
    """Return missing files, and objects that belong to no job."""
    expected = {job["file_path"] for job in jobs.values() if job["status"] == "completed"}
    return [
        *(f"missing: {key}" for key in expected - set(files)),
        *(f"not needed: {key}" for key in set(files) - expected),
        *(f"open upload: {key}" for key in uploads),
    ]


def unswept_objects(jobs: Mapping[UUID, Job], found: Sequence[ListedObject], settings: Settings) -> list[str]:
    """Return missing files, and unneeded objects and uploads that no bucket cleaner will remove.

    A clean-up that an outage of the store or a kill interrupts leaves objects for the bucket cleaner.
    """
    expected = {job["file_path"] for job in jobs.values() if job["status"] == "completed"}
    missing = expected - {item.key for item in found if item.upload_id is None}
    later = datetime.now(UTC) + timedelta(days=2)
    kept = [
        item.key
        for item in found
        if (job := jobs.get(item.job_id)) is not None
        and (item.upload_id or item.key not in expected)
        and is_needed(
            item,
            JobFilesNeeded(job["status"], job["attempt"], job["file_path"]),
            now=later,
            settings=settings,
        )
    ]
    return [*(f"missing: {key}" for key in missing), *(f"never swept: {key}" for key in kept)]


def wrong_histories(
    jobs: Mapping[UUID, Job], told: Mapping[UUID, Sequence[Event]], *, late: bool = False
) -> list[str]:
    """Return jobs whose events are wrong: acceptance, order of attempts, or outcome.

    ``late`` allows late events: a frozen worker can publish an event of its attempt after another worker has
    begun the next attempt. A consumer knows by the number of the attempt that such an event is old.
    """
    wrong = []
    for job_id, everything in told.items():
        events = list(_without_late(everything)) if late else everything
        if problems := list(_problems(jobs[job_id], events)):
            story = " ".join(f"{event.type}/{event.data.get('attempt')}" for event in events)
            wrong.append(f"{job_id} ({jobs[job_id]['status']}): {'; '.join(problems)}: {story}")
    return wrong


def _without_late(events: Sequence[Event]) -> Iterator[Event]:
    """Return the events without those of an attempt that came after a later attempt. Outcomes stay."""
    latest = 0
    for event in events:
        attempt = event.lifecycle.attempt
        if attempt >= latest or event.type not in (EventType.STARTED, EventType.PROGRESSED):
            yield event
        latest = max(latest, attempt)


def _problems(job: Job, events: Sequence[Event]) -> Iterator[str]:
    kinds = [event.type for event in events]
    if kinds[:1] != [EventType.ACCEPTED] or kinds.count(EventType.ACCEPTED) != 1:
        yield "not accepted first and once"
    attempts = [event.lifecycle.attempt for event in events]
    if attempts != sorted(attempts):
        yield "attempts not in order"
    ends = [OUTCOMES[kind] for kind in kinds if kind in OUTCOMES]
    expected = ["completed", "expired"] if job["status"] == "expired" else [job["status"]]
    if ends != expected:
        yield f"ended {ends}"
    if kinds[len(kinds) - len(ends) :] != [kind for kind in kinds if kind in OUTCOMES]:
        yield "an event after the outcome"
    begun: set[int] = set()
    for event in events:
        attempt = event.lifecycle.attempt
        if event.type is EventType.STARTED:
            begun.add(attempt)
        elif (
            attempt > 0 and attempt not in begun and event.type in (EventType.PROGRESSED, EventType.COMPLETED)
        ):
            yield f"attempt {attempt} progressed before it started"
    if events and attempts[-1] != job["attempt"]:
        yield "the outcome is of another attempt"
    if any(event.lifecycle.user_id != job["user_id"] for event in events):
        yield "published with another user"
