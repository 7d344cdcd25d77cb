"""Bodies of requests and responses about the operation of the service."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from api.parameters import without_nul
from stream_app.jobs.states import Status
from streaming_exporter.events import JobError


class Diagnosis(BaseModel):
    """How a job stands. ``reason`` is a stable code, ``text`` explains it.

    ``place`` is its place in the queue by priority and age; users take turns, so it can start earlier or
    later. ``phase`` and ``seconds`` (busy seconds of ``source``, ``render`` and ``upload``) come from the
    last heartbeat of a running attempt, or from the end of the job. Those of parts are not included.
    """

    export_job_id: UUID
    status: Status
    user_id: str
    export_type: str
    format: str
    reason: str
    text: str
    place: int | None
    user_running: int
    user_slots: int
    workers: int
    slots: int
    slots_running: int
    worker: str | None
    phase: str | None
    seconds: dict[str, float]
    queue_seconds: float | None
    run_seconds: float | None
    rows: int | None
    attempt: int
    failures: int
    max_attempts: int
    not_before: datetime | None
    lease_until: datetime | None
    error: JobError | None
    schedule_id: UUID | None


class UsageItem(BaseModel):
    """Jobs that were requested in the time. ``rows`` and ``bytes`` are those of the completed ones."""

    user_id: str | None = None
    export_type: str | None = None
    jobs: int
    completed: int
    failed: int
    rows: int
    bytes: int


class UsageReport(BaseModel):
    """Usage by user, dataset or both, most jobs first. ``groups`` is the number of all groups."""

    since: datetime
    until: datetime
    total: UsageItem
    groups: int
    items: list[UsageItem]


class PauseOrder(BaseModel):
    """A pause of claims: of ``everything``, or of ``source:NAME``, ``dataset:NAME`` or ``user:ID``."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"scope": "source:crm", "reason": "maintenance"}}
    )

    scope: Annotated[str, Field(max_length=300), AfterValidator(without_nul)] = "everything"
    reason: Annotated[str, Field(max_length=500), AfterValidator(without_nul)] | None = None


class PauseView(BaseModel):
    """A pause: workers claim no jobs of ``scope`` until it is resumed."""

    scope: str
    reason: str | None
    paused_by: str
    paused_at: datetime


class PauseList(BaseModel):
    """The pauses, oldest first."""

    pauses: list[PauseView]


class CancelOrder(BaseModel):
    """Whose unfinished jobs to cancel."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"user_id": "user-17"}})

    user_id: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(without_nul)]


class Cancelled(BaseModel):
    """The jobs whose cancellation is recorded."""

    export_job_ids: list[UUID]


class WorkerView(BaseModel):
    """A worker. ``is_silent``: it has not reported for some seconds."""

    name: str
    slots: int
    running: int
    version: str
    started_at: datetime
    seen_at: datetime
    is_silent: bool


class FailingSchedule(BaseModel):
    """A schedule whose last runs failed, or that the service has paused after too many failures."""

    id: UUID
    user_id: str
    export_type: str
    format: str
    schedule: str
    active: bool
    failures: int
    last_run: datetime | None
    next_run: datetime | None
    paused_at: datetime | None
    last_job_id: UUID | None
    error_code: str | None
    error: str | None
    """What the code of the last job's error means."""


class RunningJob(BaseModel):
    """A job that a worker holds. ``worker`` runs it, or has run it until ``lease_until``."""

    export_job_id: UUID
    user_id: str
    export_type: str
    format: str
    worker: str | None
    attempt: int
    rows: int | None
    started_at: datetime | None
    lease_until: datetime | None


class LostDelivery(BaseModel):
    """A mail or webhook call that failed, or of which it is not known whether it was sent."""

    export_job_id: UUID
    user_id: str
    channel: str
    status: str
    attempts: int
    finished_at: datetime | None


class ScheduleCounts(BaseModel):
    """Numbers of schedules.

    ``late``: the next run is due and not planned. ``failing``: the last run failed. ``paused_by_service``:
    paused after too many failures.
    """

    active: int
    paused: int
    late: int
    failing: int
    paused_by_service: int


class DeliveryCounts(BaseModel):
    """Numbers of mails and webhook calls. ``failed`` counts those of the last seven days."""

    waiting: int
    oldest_seconds: float
    failed: int
    ambiguous: int


class Overview(BaseModel):
    """The state of the service for operators.

    ``oldest_seconds`` is for how long the job that waits longest could have run, and ``oldest_job_id`` that
    job. ``running`` has the running jobs, the one that runs longest first, at most 100. ``lost_deliveries``
    has the newest 50 that failed in the last seven days or are ambiguous. ``drain_seconds`` is how long a
    worker that is stopped goes on with its exports.
    """

    now: datetime
    workers: list[WorkerView]
    slots: int
    slots_running: int
    pending: int
    processing: int
    oldest_seconds: float
    oldest_job_id: UUID | None
    running: list[RunningJob]
    drain_seconds: float
    pauses: list[PauseView]
    schedules: ScheduleCounts
    failing_schedules: list[FailingSchedule]
    deliveries: DeliveryCounts
    lost_deliveries: list[LostDelivery]
    parts: dict[str, str]
    sources: dict[str, str]
    datasets: list[str]


class FindingView(BaseModel):
    """The result of one check of ``exporter doctor``.

    ``code`` names the kind of a warning or a problem, and ``values`` what its text is about.
    """

    area: str
    check: str
    state: str
    what: str
    advice: str
    code: str = ""
    values: dict[str, int | float | str] = {}


class DoctorReport(BaseModel):
    """The findings of the checks that are cheap: settings, datasets, state database, Kafka."""

    state: str
    checked_at: datetime
    findings: list[FindingView]


class DeadLetterView(BaseModel):
    """A message that could not be read. ``state``: ``new``, ``redriving``, ``redriven`` or ``discarded``.

    ``key``, ``headers`` and ``value`` are only in the answer about a single one, and only for the role
    `exports:admin`. Other operators see the reason without values of the message.
    """

    id: str
    at: datetime
    error: str | None
    topic: str
    partition: str
    offset: str
    bytes: int
    cut_from_bytes: int | None
    job_id: str | None
    state: str
    handled_by: str | None
    handled_at: datetime | None
    key: Any = None
    headers: Any = None
    value: Any = None


class DeadLetterList(BaseModel):
    """The newest dead letters, newest first. ``total`` is the number of all that match."""

    total: int
    dead_letters: list[DeadLetterView]


class DeadLetterName(BaseModel):
    """A dead letter by its id. With ``at``, its time, a letter of another time is refused."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(max_length=40)]
    at: AwareDatetime | None = None


class DeadLetterChoice(BaseModel):
    """Dead letters. ``again`` also takes those that were handled before."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"letters": [{"id": "0:17"}]}})

    letters: Annotated[list[DeadLetterName], Field(min_length=1, max_length=1000)]
    again: bool = False


class DeadLetterResult(BaseModel):
    """What was done with one dead letter; ``problem`` is why nothing was done."""

    id: str
    done: str
    problem: str | None = None


class DeadLetterResults(BaseModel):
    """What was done with each."""

    results: list[DeadLetterResult]
