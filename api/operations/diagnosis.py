"""Explains to operators how a job stands: what it waits for, or what it does."""

from dataclasses import dataclass
from datetime import datetime

from api.error_meanings import meaning_of
from api.operations.readiness import INTERNAL_PARTS, WRITE_CHECK
from api.operations.schemas import Diagnosis
from api.services import ApiServices
from stream_app.datasets.bundles import sources_of
from stream_app.exports.sources.monitor import UNAVAILABLE
from stream_app.jobs.claim_pauses import PausedClaims
from stream_app.jobs.job_statistics import QueuePosition, ago
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import Status
from stream_app.jobs.summary import seconds_of
from streaming_exporter.events import JobError

STAGES = ("source", "render", "upload")

PHASES = {
    "prepare": "reads the table's columns, opens the snapshot, and counts rows",
    "source": "waits for rows of the source database",
    "transfer": "reads, renders and uploads rows",
    "upload": "all rows are read; renders and uploads the rest",
    "parts": "waits for its parts, which workers export",
}

PARTS = {
    "database": "the state database",
    WRITE_CHECK: "a writable state database",
    "kafka": "Kafka",
    "object_store": "the object store",
}

_ENDS = {
    Status.COMPLETED: "its files can be downloaded",
    Status.FAILED: "it is not retried; `exporter rerun` runs it again, once the cause is fixed",
    Status.CANCELLED: "its user or an operator has cancelled it",
    Status.EXPIRED: "its files were removed at their time; `exporter rerun` runs it again",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """A stable code, and a sentence for operators."""

    code: str
    text: str


async def diagnose(services: ApiServices, job: ExportJob, *, with_data: bool) -> Diagnosis:
    """Return how the job stands. Texts of the user's request are left out unless ``with_data``.

    Raises:
        Retryable: the state database is unavailable.
    """
    position = await services.statistics.position(job.id, job.user_id, job.priority, job.created_at)
    pauses = PausedClaims(frozenset(pause.scope for pause in await services.pauses.all()))
    is_waiting = job.status == Status.PENDING and job.outcome is None
    reason = (
        _waits_for(services, job, position, pauses) or await _waits_for_workers(services, position)
        if is_waiting
        else _state_of(job, position.now)
    )
    live = job.stages if job.status == Status.PROCESSING and isinstance(job.stages, dict) else {}
    if live.get("attempt") != job.attempt:
        live = {}
    seconds = seconds_of(job.manifest) or {name: live[name] for name in STAGES if name in live}
    error = None
    if job.error_code is not None:
        text = job.error_message or ""
        error = JobError(code=job.error_code, message=text if with_data else meaning_of(job.error_code))
    ended = job.completed_at or position.now
    return Diagnosis(
        export_job_id=job.id,
        status=Status(job.status),
        user_id=job.user_id,
        export_type=job.export_type,
        format=job.format,
        reason=reason.code,
        text=reason.text,
        place=position.before + 1 if is_waiting else None,
        user_running=position.user_running,
        user_slots=services.settings.user_slots,
        workers=position.workers,
        slots=position.slots,
        slots_running=position.running,
        worker=job.worker,
        phase=live.get("phase"),
        seconds={name: seconds[name] for name in STAGES if name in seconds},
        queue_seconds=ago(job.created_at, job.started_at or ended),
        run_seconds=ago(job.started_at, ended),
        rows=job.row_count,
        attempt=job.attempt,
        failures=job.failures,
        max_attempts=services.settings.max_attempts,
        not_before=job.not_before,
        lease_until=job.lease_until if job.status == Status.PROCESSING else None,
        error=error,
        schedule_id=job.schedule_id,
    )


def _waits_for(
    services: ApiServices, job: ExportJob, position: QueuePosition, pauses: PausedClaims
) -> Reason | None:
    """Return what a pending job waits for, if it is not only its turn.

    It is the first reason that would hold the job even without the others.
    """
    dataset = services.datasets.get(job.export_type)
    scope = pauses.scope_of(job.export_type, dataset, job.user_id)
    states = services.source_monitor.states()
    sources = sorted(sources_of(dataset)) if dataset is not None else []
    away = [name for name in sources if states.get(name) == UNAVAILABLE]
    if job.cancel_requested_at is not None:
        return Reason("cancelling", "its cancellation is requested; a worker ends it within seconds")
    if job.admitted_at is None:
        return Reason("not_admitted", "no worker has admitted its request yet; check the workers and Kafka")
    if scope is not None:
        return Reason("paused", f"operators have paused the claims of {scope}")
    if dataset is None:
        return Reason("unknown_dataset", "the datasets file of this API has no such dataset")
    if away:
        return Reason("source_away", f"the source database {away[0]!r} does not answer")
    if job.not_before is not None and job.not_before > position.now:
        seconds = (job.not_before - position.now).total_seconds()
        why = "its next attempt" if job.attempt else "its start"
        return Reason("not_before", f"{why} is due in {seconds:.0f} s, at {job.not_before.isoformat()}")
    if position.workers == 0:
        return Reason("no_worker", "no worker has reported lately; start one")
    if position.slots == 0:
        return None
    if position.user_running >= services.settings.user_slots:
        return Reason(
            "user_slots",
            f"its user has {position.user_running} running jobs, the limit of EXPORTER_USER_SLOTS",
        )
    if position.running >= position.slots:
        return Reason(
            "slots",
            f"all {position.slots} slots of {position.workers} workers are in use; "
            f"about {position.before} jobs are before it",
        )
    return None


async def _waits_for_workers(services: ApiServices, position: QueuePosition) -> Reason:
    """Return why the workers do not claim a job whose turn it is, or that one claims it soon."""
    parts = await services.readiness.parts()
    away = [name for name, state in parts.items() if state != "ok" and name not in INTERNAL_PARTS]
    if away:
        names = " and ".join(PARTS[name] for name in away)
        return Reason("part_away", f"{names} cannot be reached from this API; workers that need it wait")
    if position.slots == 0:
        return Reason(
            "workers_start",
            f"none of {position.workers} workers claims jobs yet: they start, or wait for a part that "
            "worker.waiting in their logs names",
        )
    return Reason("next", f"a worker claims it within seconds; about {position.before} jobs are before it")


def _state_of(job: ExportJob, now: datetime) -> Reason:
    if job.outcome is not None:
        return Reason("publishing", "it has ended; its outcome is published to Kafka and then applied")
    if job.status != Status.PROCESSING:
        return Reason(job.status, _ENDS.get(Status(job.status), f"it is {job.status}"))
    if job.lease_until is not None and job.lease_until < now:
        return Reason(
            "worker_silent",
            f"worker {job.worker} has not renewed its lease; another worker takes the job over",
        )
    phase = job.stages.get("phase") if isinstance(job.stages, dict) else None
    text = f"worker {job.worker} {PHASES.get(str(phase), 'has just begun')}"
    if (begun_again := job.attempt - 1 - job.failures) > 1:
        text += (
            f"; it has begun again {begun_again} times without a failure of its own: `job.postponed` and "
            "`job.released` in the workers' logs say why"
        )
    return Reason("running", text)
