"""The service's own tables."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    DateTime,
    Index,
    Integer,
    SmallInteger,
    Text,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stream_app.db import listener as changes
from stream_app.jobs.demand import DEMAND
from stream_app.jobs.states import Status

WAITING = "status = 'pending' AND outcome IS NULL"
RUNNING = "status = 'processing' AND outcome IS NULL"
"""Conditions of the partial indexes that claims use."""


CLAIM_GUARD = (
    """
    CREATE OR REPLACE FUNCTION export_jobs_guard_claim() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_setting('exporter.reads', true) = 'split' THEN RETURN NEW; END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER export_jobs_guard_claim BEFORE UPDATE ON export_jobs FOR EACH ROW
    WHEN (OLD.split IS NOT NULL AND NEW.status = 'processing' AND NEW.attempt > OLD.attempt)
    EXECUTE FUNCTION export_jobs_guard_claim()
    """,
    """
    CREATE TRIGGER export_jobs_guard_rights BEFORE UPDATE ON export_jobs FOR EACH ROW
    WHEN ((OLD.parameters IS NOT NULL OR OLD.claims IS NOT NULL)
          AND NEW.status = 'processing' AND NEW.attempt > OLD.attempt)
    EXECUTE FUNCTION export_jobs_guard_claim()
    """,
    """
    CREATE TRIGGER export_jobs_guard_encryption BEFORE UPDATE ON export_jobs FOR EACH ROW
    WHEN (OLD.encrypt IS NOT NULL AND NEW.status = 'processing' AND NEW.attempt > OLD.attempt)
    EXECUTE FUNCTION export_jobs_guard_claim()
    """,
)
"""Workers of version 0.1 do not read these columns: the triggers take such jobs out of their claims."""


DESTINATION_DELIVERIES = (
    """
    CREATE OR REPLACE FUNCTION export_jobs_plan_destination() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO deliveries (job_id, channel, address, event, topic, user_id, host, give_up_at)
        VALUES (NEW.id, 'destination', NEW.destination, NEW.status,
                coalesce('schedule:' || NEW.schedule_id, 'user:' || NEW.user_id), NEW.user_id,
                'destination:' || NEW.destination, now() + interval '1 day')
        ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER export_jobs_plan_destination AFTER UPDATE ON export_jobs FOR EACH ROW
    WHEN (NEW.destination IS NOT NULL AND NEW.status = 'completed' AND OLD.status <> 'completed'
          AND OLD.outcome IS NOT NULL)
    EXECUTE FUNCTION export_jobs_plan_destination()
    """,
)
"""The transaction that completes a job inserts its delivery to a destination.

It is a trigger because workers of the version before complete jobs too, and do not know destinations. Without
a stored outcome the event is applied again after the database was restored: the delivery was made before.
"""


class Base(DeclarativeBase):
    """Times are timestamptz, counts and sizes bigint, structures jsonb."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own idiom
        str: Text,
        int: BigInteger,
        bool: Boolean,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        Any: JSONB(none_as_null=True),
    }


class ExportJob(Base):
    """One export: its request, its worker, its outcome.

    ``attempt`` numbers the claims and fences them. ``failures`` counts the failed ones. ``MAX_ATTEMPTS``
    limits it.

    ``name`` is for people.

    ``outcome`` is the data of the lifecycle event, which the holder of the lease stores before the event is
    published. A job with an outcome is never claimed again. Its event is published until the
    projector has applied it and emptied ``outcome``.

    ``encrypt`` is how the files are encrypted. ``password_shown_at`` is when the user was shown the password
    of the zip archives.

    ``rerun_of`` is the job whose request this one repeats. ``rights_at`` is when the user last showed a token
    with the rights of the request, where that was before ``created_at``: another user has repeated it.

    ``destination`` is where the files of the completed job are also sent to.

    ``stages`` is what the last heartbeat of an attempt said: ``attempt``, ``phase``, and the busy seconds of
    ``source``, ``render`` and ``upload``.

    These modules write the table: ``submission``, ``admission``, ``queue``, ``cancellations``,
    ``unclaimed_jobs``, ``stored_outcomes``, ``lost_claims``, ``job_files``, ``partial_deliveries``,
    ``projector``, ``erasure`` and ``write_check``.
    ``job_cleaner`` deletes old jobs.
    """

    __tablename__ = "export_jobs"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    export_type: Mapped[str]
    format: Mapped[str]
    name: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default=Status.PENDING)

    filters: Mapped[Any] = mapped_column(nullable=True)
    columns: Mapped[Any] = mapped_column(nullable=True)
    options: Mapped[Any] = mapped_column(nullable=True)
    split: Mapped[Any] = mapped_column(nullable=True)
    encrypt: Mapped[Any] = mapped_column(nullable=True)
    consistency: Mapped[str | None]
    password_shown_at: Mapped[datetime | None]
    scope: Mapped[str | None]
    parameters: Mapped[Any] = mapped_column(nullable=True)
    claims: Mapped[Any] = mapped_column(nullable=True)
    recipients: Mapped[Any] = mapped_column(nullable=True)
    webhook: Mapped[str | None]
    destination: Mapped[str | None]
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("1"))
    schedule_id: Mapped[UUID | None]
    run_at: Mapped[datetime | None]
    window: Mapped[Any] = mapped_column(nullable=True)
    source: Mapped[str | None]
    rerun_of: Mapped[UUID | None]
    rights_at: Mapped[datetime | None]
    traceparent: Mapped[str | None]

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    admitted_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]

    attempt: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    outcome: Mapped[Any] = mapped_column(nullable=True)

    row_count: Mapped[int | None]
    estimated_rows: Mapped[int | None]
    stages: Mapped[Any] = mapped_column(nullable=True)
    file_path: Mapped[str | None]
    file_name: Mapped[str | None]
    file_count: Mapped[int | None] = mapped_column(Integer)
    file_size: Mapped[int | None]
    sha256: Mapped[str | None]
    content_type: Mapped[str | None]
    as_of: Mapped[datetime | None]
    manifest: Mapped[Any] = mapped_column(nullable=True)
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]

    __table_args__ = (
        Index("export_jobs_user_status", "user_id", "status"),
        Index("export_jobs_status", "status"),
        Index("export_jobs_newest", text("created_at DESC"), text("id DESC")),
        Index("export_jobs_user_newest", "user_id", text("created_at DESC"), text("id DESC")),
        Index("export_jobs_waiting", "priority", "created_at", postgresql_where=text(WAITING)),
        Index(
            "export_jobs_user_waiting",
            "user_id",
            "priority",
            "created_at",
            "id",
            postgresql_where=text(WAITING),
        ),
        # Without the lease, so that a heartbeat changes no index.
        Index("export_jobs_running", "user_id", postgresql_where=text(RUNNING)),
        Index(
            "export_jobs_runs",
            "schedule_id",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("schedule_id IS NOT NULL"),
        ),
        Index("export_jobs_unpublished", "id", postgresql_where=text("outcome IS NOT NULL")),
        # Only jobs that end before they start pass through it, those of other users do not delay a count.
        Index(
            "export_jobs_ended_unstarted",
            "user_id",
            postgresql_where=text("status = 'pending' AND outcome IS NOT NULL"),
        ),
        # Without the lease, too: PostgreSQL also counts the column of an index without the row.
        Index(
            "export_jobs_unadmitted_since",
            "created_at",
            postgresql_where=text(f"{WAITING} AND admitted_at IS NULL"),
        ),
        Index("export_jobs_expiry", "expires_at", postgresql_where=text("status = 'completed'")),
    )


changes.create_triggers_with(ExportJob.__table__)
for statement in (*CLAIM_GUARD, *DESTINATION_DELIVERIES):
    event.listen(ExportJob.__table__, "after_create", DDL(statement))  # type: ignore[no-untyped-call]


class ExportFile(Base):
    """One of several files that an attempt has written. A job with a single file has no such row.

    The worker writes the rows before it stores the outcome. Only the rows of the attempt that completed the
    job count: their ``result``, the key of the manifest, is the job's ``file_path``.
    """

    __tablename__ = "export_files"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    result: Mapped[str | None]
    bucket: Mapped[str]
    file_name: Mapped[str]
    content_type: Mapped[str]
    row_count: Mapped[int]
    file_size: Mapped[int]
    sha256: Mapped[str]


class EarlyCancellation(Base):
    """A cancellation that came before its request. The job is cancelled when the request comes."""

    __tablename__ = "early_cancellations"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("early_cancellations_requested", "requested_at"),)


class ExportPart(Base):
    """One part of a large split export: a range of its rows, which any worker can claim.

    ``attempt`` is the attempt of the job that planned the part. ``part_attempt`` numbers the claims of the
    part and fences them; ``failures`` counts the failed ones.

    ``folder`` is the folder of the files of all parts in the object store. ``snapshot`` identifies the
    snapshot that the job's holder keeps open. It is NULL if each part has a snapshot of its own: such parts
    stay valid when another attempt at the job goes on with them.

    ``result`` has the files of a completed part. The rows are deleted when the job has ended.
    """

    __tablename__ = "export_parts"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    range: Mapped[Any]
    folder: Mapped[str]
    snapshot: Mapped[str | None]
    as_of: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(server_default=Status.PENDING)
    part_attempt: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    row_count: Mapped[int | None]
    result: Mapped[Any] = mapped_column(nullable=True)
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]

    __table_args__ = (
        Index("export_parts_waiting", "job_id", "number", postgresql_where=text("status = 'pending'")),
        # Without the lease, so that a heartbeat changes no index.
        Index("export_parts_running", "job_id", postgresql_where=text("status = 'processing'")),
    )


class WorkerRecord(Base):
    """A worker that runs, or ran within the last hour."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    slots: Mapped[int] = mapped_column(Integer)
    running: Mapped[int] = mapped_column(Integer)
    version: Mapped[str]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class ClaimPause(Base):
    """A pause of claims: of ``everything``, or of a scope such as ``source:crm`` or ``user:user-17``."""

    __tablename__ = "claim_pauses"

    scope: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str | None]
    paused_by: Mapped[str]
    paused_at: Mapped[datetime] = mapped_column(server_default=func.now())


class HandledDeadLetter(Base):
    """A dead letter that was redriven or discarded.

    ``written_at`` is its time, in case the topic was made anew. ``state`` is ``redriving`` from before its
    publication until Kafka has confirmed it, then ``redriven``; or ``discarded``.
    """

    __tablename__ = "handled_dead_letters"

    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    offset: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    written_at: Mapped[datetime] = mapped_column(primary_key=True)
    state: Mapped[str]
    handled_by: Mapped[str]
    handled_at: Mapped[datetime] = mapped_column(server_default=func.now())


# After all tables: the function names several.
event.listen(Base.metadata, "after_create", DDL(DEMAND))  # type: ignore[no-untyped-call]
