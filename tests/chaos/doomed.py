"""Points of a job's life at which a worker kills itself, as ``kill -9`` would.

``DOOMED`` names a folder whose ``plan.json`` has the points of each job, in their order. Each point is used
once: the worker that reaches it writes a file and dies. The points wrap functions of the service, whose code
does not know them.
"""

import functools
import inspect
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import stream_app.composition.components
import stream_app.kafka.faust_app
from stream_app.destinations.s3 import S3Session
from stream_app.destinations.sftp import SftpSession
from stream_app.destinations.transfer import Transfer
from stream_app.exports.pipeline import Exporter
from stream_app.exports.reading.pipe import BytePipe
from stream_app.exports.task import ExportTask
from stream_app.jobs.admission import Admission
from stream_app.jobs.parts import PartStore
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.states import OUTCOMES
from stream_app.jobs.unclaimed_jobs import UnclaimedJobs
from stream_app.kafka.event_producer import EventProducer
from stream_app.kafka.transport import App
from stream_app.notifications.mail.client import MailClient
from stream_app.notifications.outbox import Outbox
from stream_app.settings import Settings
from stream_app.storage.manifest import MANIFEST
from stream_app.storage.multipart_upload import MultipartUpload
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.lifecycle_handler import LifecycleHandler
from stream_app.worker.maintenance.job_recovery import JobRecovery
from stream_app.worker.request_handler import RequestHandler
from stream_app.worker.scheduler import Scheduler
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import Event, EventType, decode

_exporting: ContextVar[UUID] = ContextVar("exporting")


@dataclass(frozen=True)
class Call:
    """One call of a wrapped method; ``result`` is ``None`` before the call."""

    on: Any
    arguments: Sequence[Any]
    result: Any = None


@dataclass(frozen=True)
class Point:
    """A moment before or after a call; ``jobs`` returns the jobs that the call is about."""

    owner: type
    method: str
    jobs: Callable[[Call], Iterable[UUID]]
    after: bool = True


def _event(*kinds: EventType) -> Callable[[Call], Iterable[UUID]]:
    return lambda call: [event.job_id for event in call.arguments[0] if event.type in kinds]


def _batch(*kinds: EventType) -> Callable[[Call], Iterable[UUID]]:
    return lambda call: [event.job_id for event in _decoded(call.arguments[0]) if event.type in kinds]


def _decoded(messages: Iterable[Any]) -> Iterator[Event]:
    for message in messages:
        with suppress(Unreadable):
            yield decode(message.message.value)


def _first(call: Call) -> Iterable[UUID]:
    """Return the job of the first argument, which is the id of a job or has one."""
    subject = call.arguments[0]
    return [subject if isinstance(subject, UUID) else subject.job_id]


def _found(call: Call) -> Iterable[UUID]:
    return [item.job_id for item in call.result]


def _key(key: str) -> Iterable[UUID]:
    return [UUID(key.split("/")[1])]


def _part(call: Call) -> Iterable[UUID]:
    call.on._parts[-1].result()  # so that a part is left in the store
    return _key(call.on._key)


def _advanced(call: Call) -> Iterable[UUID]:
    return [uuid5(row["id"], row["last_run"].isoformat()) for row in call.arguments[1] if row["last_run"]]


def _ids(call: Call) -> Iterable[UUID]:
    return list(call.arguments[0])


def _current(_: Call) -> Iterable[UUID]:
    return [_exporting.get()]


def _in_a_file(call: Call) -> Iterable[UUID]:
    """Return the job of a transfer that has sent a part of its first file."""
    return [UUID(call.on.job_id)] if call.on.sent > 0 and call.on.done == 0 else []


def _upload(call: Call) -> Iterable[UUID]:
    """Return the job of an upload to a destination, where ``in/<job>/<file>`` is the key."""
    return _key(call.on._key) if call.on._key.startswith("in/") else []


def _sent_part(call: Call) -> Iterable[UUID]:
    return _part(call) if call.on._key.startswith("in/") else []


def _target(*, is_manifest: bool) -> Callable[[Call], Iterable[UUID]]:
    """Return the function for the job of a file that is renamed to the second argument."""

    def jobs(call: Call) -> Iterable[UUID]:
        target = call.arguments[1]
        return _key(target) if target.endswith(f"/{MANIFEST}") is is_manifest else []

    return jobs


def _copied(call: Call) -> Iterable[UUID]:
    return [UUID(call.arguments[0].path.split("/")[0])] if call.result else []


def _removed(call: Call) -> Iterable[UUID]:
    path = call.arguments[0]
    return [] if path.endswith(f"/{MANIFEST}") else [UUID(path.split("/")[0])]


def _recorded(files: int) -> Callable[[Call], Iterable[UUID]]:
    """Return the function for the job of a transfer that has recorded so many complete files."""

    def jobs(call: Call) -> Iterable[UUID]:
        notification, *progress = call.arguments
        return [notification.job_id] if progress and progress[0] and progress[0]["files"] == files else []

    return jobs


def _transferred(call: Call) -> Iterable[UUID]:
    return [UUID(call.on.job_id)]


POINTS: dict[str, Point] = {
    # Admission: within its transaction, and between its commit and the acknowledgement.
    "accepted": Point(EventProducer, "publish_all", _event(EventType.ACCEPTED)),
    "admitted": Point(RequestHandler, "handle", _batch(EventType.REQUESTED)),
    "cancel admitted": Point(RequestHandler, "handle", _batch(EventType.CANCEL_REQUESTED)),
    # One attempt.
    "claimed": Point(JobQueue, "claim", _found),
    "started": Point(EventProducer, "publish_all", _event(EventType.STARTED)),
    "swept": Point(JobRecovery, "remove_leftovers", _first),
    "copying": Point(BytePipe, "write", _current),
    "uploading": Point(MultipartUpload, "add", _part),
    "file written": Point(ObjectStore, "put", lambda call: _key(call.arguments[0])),
    "uploaded": Point(Exporter, "run", _current),
    # An export in parts: planned; before and after a part is completed; the files of all parts are listed.
    "planned": Point(PartStore, "plan", _first),
    "part unfinished": Point(PartStore, "complete", _first, after=False),
    "part completed": Point(PartStore, "complete", _first),
    "listed": Point(JobQueue, "record_files", _first),
    "outcome unstored": Point(JobQueue, "store_outcome", _first, after=False),
    "outcome stored": Point(JobQueue, "store_outcome", _first),
    "published": Point(JobRecovery, "publish_outcome", _first),
    # Its end: before and after the record is changed, and before the outcome is published.
    "unapplied": Point(LifecycleHandler, "handle", _batch(*OUTCOMES), after=False),
    "applied": Point(LifecycleHandler, "handle", _batch(*OUTCOMES)),
    "unsaid": Point(EventProducer, "publish_all", _event(*OUTCOMES), after=False),
    # Tasks that other workers do for a job.
    "exhausted": Point(UnclaimedJobs, "end_exhausted", _found),
    "expiring": Point(UnclaimedJobs, "expire_files", _found),
}

OTHER_WAYS: dict[str, Point] = {
    "claimed": Point(Admission, "admit_and_claim", lambda call: [item.job_id for item in call.result.claims]),
}
"""Calls that also reach a point above: the admission of a job can claim it."""

RUN_POINTS: dict[str, Point] = {
    # A tick: schedules are advanced, but not committed; all is committed, but the tick is unacknowledged.
    "advanced": Point(Scheduler, "advance", _advanced),
    "committed": Point(Scheduler, "admit", _ids),
    # A mail: claimed, but not sent; sent, but the result is not recorded.
    "unmailed": Point(MailClient, "send", _first, after=False),
    "mailed": Point(MailClient, "send", _first),
}
"""Further points of jobs that are runs of a schedule."""

TRANSFER_POINTS: dict[str, Point] = {
    "delivery claimed": Point(Outbox, "claim", _found),
    "place recorded": Point(Outbox, "renew", _recorded(0)),
    # SFTP: in a file; it is complete under its temporary name; it has its name, and is not recorded.
    "chunk sent": Point(Transfer, "_must_end", _in_a_file),
    "not renamed": Point(SftpSession, "_rename", _target(is_manifest=False), after=False),
    "renamed": Point(SftpSession, "_rename", _target(is_manifest=False)),
    # S3: the same. The last point is of a copy inside one store.
    "part sent": Point(MultipartUpload, "add", _sent_part),
    "not completed": Point(MultipartUpload, "complete", _upload, after=False),
    "completed": Point(MultipartUpload, "complete", _upload),
    "copied": Point(S3Session, "copy", _copied),
    # Between two files; before the manifest; it is complete under its temporary name; after it.
    "file recorded": Point(Outbox, "renew", _recorded(1)),
    "all recorded": Point(Outbox, "renew", _recorded(2)),
    "manifest not renamed": Point(SftpSession, "_rename", _target(is_manifest=True), after=False),
    "set sent": Point(Transfer, "run", _transferred),
    # The end of the delivery.
    "unfinished": Point(Outbox, "finish", _first, after=False),
    "finished": Point(Outbox, "finish", _first),
    # The removal of what was sent.
    "removal recorded": Point(Outbox, "record", _first),
    "file removed": Point(SftpSession, "remove", _removed),
    "object removed": Point(S3Session, "remove", _removed),
    "set removed": Point(Transfer, "discard", _transferred),
}
"""Further points of jobs whose two files are sent to a destination. Their paths are ``<job>/<file>``."""


class HastyApp(App):
    """An app whose brokers notice dead workers early."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        hasty = {"broker_session_timeout": 4.0, "broker_heartbeat_interval": 0.8}
        super().__init__(*arguments, **(options | hasty))


class HastyStore(ObjectStore):
    """A store whose calls are repeated for less time, so that jobs are postponed early in an outage."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(settings, **{"retry_seconds": 20.0} | options)


def arm() -> None:
    """Shorten the sessions and the retries of the store; if ``DOOMED`` is set, wrap all points."""
    vars(stream_app.kafka.faust_app)["App"] = HastyApp
    vars(stream_app.composition.components)["ObjectStore"] = HastyStore
    folder = os.environ.get("DOOMED")
    if folder is None:
        return
    doom = _Doom(Path(folder))
    for name, point in [*(POINTS | RUN_POINTS | TRANSFER_POINTS).items(), *OTHER_WAYS.items()]:
        setattr(point.owner, point.method, _wrapped(name, point, doom))
    run = Exporter.run

    @functools.wraps(run)
    async def named(self: Exporter, task: ExportTask, *rest: Any) -> Any:
        _exporting.set(UUID(task.name.partition(" ")[0]))
        return await run(self, task, *rest)

    setattr(Exporter, "run", named)  # noqa: B010 - it is a frozen method to type checkers


class _Doom:
    """Reads the plan: at which points of which jobs the worker dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._plan: dict[str, list[str]] = json.loads((folder / "plan.json").read_text())

    def meet(self, point: str, jobs: Iterable[UUID]) -> None:
        """Kill this process if the plan has this point for one of the jobs."""
        for job_id in map(str, jobs):
            left = [name for name in self._plan.get(job_id, ()) if not self._mark(job_id, name).exists()]
            if left[:1] == [point]:
                with suppress(FileExistsError):
                    self._mark(job_id, point).touch(exist_ok=False)
                    os.kill(os.getpid(), signal.SIGKILL)

    def _mark(self, job_id: str, point: str) -> Path:
        return self._folder / f"{job_id} {point}"


def _wrapped(name: str, point: Point, doom: _Doom) -> Callable[..., Any]:
    method = getattr(point.owner, point.method)

    def before(on: Any, arguments: Sequence[Any]) -> None:
        if not point.after:
            doom.meet(name, point.jobs(Call(on, arguments)))

    def after(on: Any, arguments: Sequence[Any], result: Any) -> Any:
        if point.after:
            doom.meet(name, point.jobs(Call(on, arguments, result)))
        return result

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def asynchronous(self: Any, *arguments: Any, **named: Any) -> Any:
            before(self, arguments)
            return after(self, arguments, await method(self, *arguments, **named))

        return asynchronous

    @functools.wraps(method)
    def synchronous(self: Any, *arguments: Any, **named: Any) -> Any:
        before(self, arguments)
        return after(self, arguments, method(self, *arguments, **named))

    return synchronous
