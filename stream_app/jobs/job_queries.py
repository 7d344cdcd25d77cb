"""Reads jobs for the HTTP API: one job, or the jobs of a user."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from string import punctuation
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    column,
    func,
    literal,
    or_,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import aliased

from stream_app.db.engine import autocommitting, outages_are_retryable, transaction
from stream_app.jobs.models import RUNNING, WAITING, ExportJob
from stream_app.jobs.states import UNFINISHED, Status

MAX_RECENT_JOBS = 1_000
"""Limit of the jobs of a user that are searched for those that have ended since a time."""


SPECIAL = frozenset(punctuation) - {"_"}
"""Characters that a backslash makes ordinary ones in a regular expression of PostgreSQL."""


@dataclass(frozen=True, slots=True)
class JobSearch:
    """Finds jobs by words, in upper or lower case.

    Each word is part of the name of the job, or of a name of its dataset.

    Attributes:
        words: the words, each with the datasets whose labels contain it.
        with_names: whether names of jobs are searched. Operators must not learn them.
    """

    words: Sequence[tuple[str, Collection[str]]]
    with_names: bool

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """Yield the condition of each word."""
        for word, datasets in self.words:
            pattern = any_case(word)
            found = ExportJob.export_type.regexp_match(pattern)
            if self.with_names:
                found = or_(found, ExportJob.name.regexp_match(pattern))
            yield or_(found, ExportJob.export_type.in_(datasets)) if datasets else found


def any_case(word: str) -> str:
    """Return the regular expression of PostgreSQL that finds ``word`` in upper and lower case.

    In a database with the locale C, lower() changes ASCII letters only.
    """

    def either(char: str) -> str:
        cases = sorted({char, char.lower(), char.upper()})
        if len(cases) > 1 and all(len(case) == 1 for case in cases):
            return f"[{''.join(cases)}]"
        return f"\\{char}" if char in SPECIAL else char

    return "".join(map(either, word))


def is_in_state(status: str, now: datetime | None = None) -> ColumnElement[bool]:
    """Return the condition for the jobs that are shown with ``status``.

    A job whose file has expired is shown as expired, before the outcome of the expiry is applied.
    """
    has_expired = ExportJob.expires_at <= (func.now() if now is None else now)
    if status == Status.COMPLETED:
        return and_(ExportJob.status == status, has_expired.is_not(true()))
    if status == Status.EXPIRED:
        return or_(ExportJob.status == status, and_(ExportJob.status == Status.COMPLETED, has_expired))
    return ExportJob.status == status


class JobQueries:
    """Reads ``export_jobs``.

    Every method raises :class:`~streaming_exporter.errors.Retryable` while the database is unavailable.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._sessions = async_sessionmaker(autocommitting(engine), expire_on_commit=False)

    async def get(self, job_id: UUID, *, user_id: str | None = None) -> ExportJob | None:
        """Return the job, or ``None`` if it does not exist or belongs to another user than ``user_id``."""
        with outages_are_retryable():
            async with self._sessions() as session:
                job = await session.get(ExportJob, job_id)
        return None if job is None or (user_id is not None and job.user_id != user_id) else job

    async def list_newest(
        self,
        user_id: str | None,
        *,
        status: str | None = None,
        export_type: str | None = None,
        code: str | None = None,
        name: str | None = None,
        search: JobSearch | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: tuple[datetime, UUID] | None = None,
        limit: int,
        now: datetime | None = None,
    ) -> Sequence[ExportJob]:
        """Return up to ``limit`` jobs, newest first.

        Args:
            user_id: whose jobs. ``None``: the jobs of all users.
            status: only jobs that are in this state at ``now``. See :func:`is_in_state`.
            export_type: only jobs of this dataset.
            code: only jobs with this error code.
            name: only jobs with this name.
            search: only jobs that it finds.
            since: only jobs that were requested at this time or later.
            until: only jobs that were requested before this time.
            before: only jobs older than this one, as (created at, id).
            limit: how many.
            now: the time; ``None``: that of the database.
        """
        statement = select(ExportJob)
        if user_id is not None:
            # Two borders instead of `=`, and the user in the order. With `=` PostgreSQL knows that the order
            # of all jobs is also that of the user's. It can then read the jobs of everybody, newest first,
            # and expect enough of this user soon, which is wrong for one whose jobs are old or do not fit.
            statement = statement.where(ExportJob.user_id >= user_id, ExportJob.user_id <= user_id)
            statement = statement.order_by(ExportJob.user_id)
        if status is not None:
            statement = statement.where(is_in_state(status, now))
        if export_type is not None:
            statement = statement.where(ExportJob.export_type == export_type)
        if code is not None:
            statement = statement.where(ExportJob.error_code == code)
        if search is not None:
            statement = statement.where(*search.conditions())
        if name is not None:
            statement = statement.where(ExportJob.name == name)
        if since is not None:
            statement = statement.where(ExportJob.created_at >= since)
        if until is not None:
            statement = statement.where(ExportJob.created_at < until)
        if before is not None:
            statement = statement.where(tuple_(ExportJob.created_at, ExportJob.id) < tuple_(*before))
        return await self._jobs(
            statement.order_by(ExportJob.created_at.desc(), ExportJob.id.desc()).limit(limit)
        )

    async def get_many(self, ids: Collection[UUID]) -> Sequence[ExportJob]:
        """Return the jobs with these ids that exist, in any order."""
        return await self._jobs(
            select(ExportJob).where(ExportJob.id == any_(literal(list(ids), ARRAY(Uuid))))
        )

    async def list_unfinished(self, users: Collection[str], limit: int) -> Sequence[ExportJob]:
        """Return the unfinished jobs of ``users``: up to ``limit`` of each user, newest first."""
        of_each = func.unnest(literal(list(users), ARRAY(Text)))
        asking = of_each.table_valued(column("user_id", Text), name="asking").render_derived()
        theirs = select(ExportJob).where(
            ExportJob.user_id == asking.c.user_id, ExportJob.status.in_(UNFINISHED)
        )
        newest = theirs.order_by(ExportJob.created_at.desc(), ExportJob.id.desc()).limit(limit).lateral()
        return await self._jobs(select(aliased(ExportJob, newest)).select_from(asking).join(newest, true()))

    async def list_ended_since(self, user_id: str, since: datetime, limit: int) -> Sequence[ExportJob]:
        """Return up to ``limit`` of the user's jobs that ended, or whose file expired, since ``since``.

        Newest first.

        Only the user's newest :data:`MAX_RECENT_JOBS` jobs are read, in the order of an index: the cost does
        not depend on how long ago ``since`` is.
        """
        newest = select(ExportJob).where(ExportJob.user_id == user_id)
        newest = newest.order_by(ExportJob.created_at.desc(), ExportJob.id.desc()).limit(MAX_RECENT_JOBS)
        job = aliased(ExportJob, newest.subquery())
        ended = job.status.not_in(UNFINISHED)
        lately = or_(job.completed_at >= since, job.expires_at.between(since, func.now()))
        statement = select(job).where(ended, lately)
        return await self._jobs(statement.order_by(job.created_at.desc()).limit(limit))

    async def _jobs(self, statement: Select[ExportJob]) -> Sequence[ExportJob]:
        with outages_are_retryable():
            async with self._sessions() as session:
                return (await session.scalars(statement)).all()

    async def check(self) -> None:
        """Check that the table of jobs exists, with all its columns."""
        with outages_are_retryable():
            async with self._sessions() as session:
                await session.execute(select(ExportJob).limit(0))

    async def unfinished(self, user_id: str) -> int:
        """Return how many of the user's jobs have not ended."""
        statement = (
            select(func.count())
            .select_from(ExportJob)
            .where(ExportJob.user_id == user_id, ExportJob.status.in_(UNFINISHED))
        )
        with outages_are_retryable():
            async with self._sessions() as session:
                return await session.scalar(statement) or 0


# Each half reads a partial index, so jobs that have ended cost nothing. The age of a job counts from its
# request. The age of a job that a schedule delays counts from the time at which it can start.
BACKLOG = text(
    f"""
    SELECT status, export_type, format, count(*) AS jobs,
           extract(epoch FROM now() - min(
               CASE WHEN attempt > 0 THEN created_at ELSE greatest(created_at, not_before) END
           ) FILTER (
               WHERE user_id <> ALL (CAST(:users AS text[]))
                   AND export_type <> ALL (CAST(:datasets AS text[]))
           )) AS oldest
    FROM export_jobs WHERE {WAITING} GROUP BY status, export_type, format
    UNION ALL
    SELECT status, export_type, format, count(*) AS jobs, 0 AS oldest
    FROM export_jobs WHERE {RUNNING} GROUP BY status, export_type, format
    """
)

COUNT_TIMEOUT = "5s"
"""The time-out of the count."""

Kind = tuple[str, str, str]
"""State, dataset and format of jobs that are counted together."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The number of unfinished jobs of each kind, and for how many seconds the oldest has been due.

    Jobs of paused users and datasets are counted, but are not the oldest: no worker can claim them.
    """

    jobs: Mapping[Kind, int]
    oldest: float


async def read_backlog(
    engine: AsyncEngine, *, users: Collection[str] = (), datasets: Collection[str] = ()
) -> Backlog:
    """Count the unfinished jobs.

    Args:
        users: the users whose jobs are not the oldest, because their claims are paused.
        datasets: the datasets and bundles whose jobs are not the oldest.

    Raises:
        Retryable: the database is away, or takes longer than :data:`COUNT_TIMEOUT`.
    """
    async with transaction(
        autocommitting(engine), f"SET LOCAL statement_timeout = '{COUNT_TIMEOUT}'"
    ) as connection:
        paused = {"users": list(users), "datasets": list(datasets)}
        rows = (await connection.execute(BACKLOG, paused)).all()
    return Backlog(
        {(row.status, row.export_type, row.format): row.jobs for row in rows},
        max((float(row.oldest) for row in rows if row.oldest is not None), default=0.0),
    )
