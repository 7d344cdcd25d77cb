"""Live updates of jobs: NOTIFY names the changed jobs, and one query for all listeners reads them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import structlog

from api.jobs.schemas import JobView
from stream_app.jobs.job_queries import JobQueries
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import UNFINISHED, Status
from streaming_exporter.errors import Retryable

log = structlog.get_logger(__name__)
Key = TypeVar("Key", UUID, str)

GATHER_SECONDS = 0.1
"""Changes within this time are read with one query, at the most."""
READ_SHARE = 5
"""The pause between two reads is this many times as long as the last one took, so that an idle service gives
its updates at once and a busy one does not read all the time."""
READ_ALL_SECONDS = 15.0
"""Interval at which all watched jobs are read, whatever else has changed, in case a notification was lost."""
RETRY_SECONDS = 1.0
BATCH = 200
"""Limit of jobs that one query reads."""
UNFINISHED_LISTED = 500
"""Limit of unfinished jobs, the newest, that a listener to a user's jobs gets without a change."""
USERS_READ = 10
"""Limit of users whose unfinished jobs one query reads."""
MAX_WAITING = 1000
"""Limit of updates that wait for a slow listener, besides those that it gets at first."""

_RANK = {Status.PROCESSING: 0, Status.PENDING: 1, Status.EXPIRED: 3}
"""Order of the states within one attempt: after processing comes pending again. Final states are 2."""


def version(job: ExportJob) -> str:
    """Return the version of a job's state: attempt, state, rows, cancellation. It only ever grows."""
    rank = _RANK.get(Status(job.status), 2)
    return f"{job.attempt}.{rank}.{job.row_count or 0}.{int(job.cancel_requested_at is not None)}"


def _stage(version: str) -> tuple[int, ...]:
    """Return attempt and state of a version. Rows are left out: a part that is read again counts anew."""
    return tuple(map(int, version.split(".")[:2]))


@dataclass(frozen=True, slots=True)
class Update:
    """The current state of a job. ``body`` is its :class:`JobView` as JSON."""

    job_id: UUID
    version: str
    ended: bool
    body: str

    @classmethod
    def of(cls, job: ExportJob, now: datetime) -> "Update":
        """Make the update from a job's record; ``now`` is the time by the database's clock."""
        ended = job.status not in UNFINISHED
        return cls(job.id, version(job), ended, JobView.of(job, now).model_dump_json())


@dataclass(slots=True, eq=False)
class Subscription:
    """One listener and the updates that wait for it: of each job only the latest."""

    known: dict[UUID, str] = field(default_factory=dict)
    """Versions of the unfinished jobs that the listener has got."""
    _waiting: dict[UUID, Update] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    failed: bool = False
    """Whether it ended because updates were possibly lost."""

    def wants(self, job: ExportJob) -> bool:
        """Return whether the listener does not have this state yet."""
        return self.known.get(job.id) != version(job)

    def offer(self, update: Update) -> None:
        """Queue the update. It replaces an older one of the same job that still waits.

        A state that is older than what the listener has, or will get, is dropped: the first read of a job and
        the read of a change run at the same time, and either can come last.
        """
        waiting = self._waiting.get(update.job_id)
        known = self.known.get(update.job_id) if waiting is None else waiting.version
        if known is not None and _stage(update.version) < _stage(known):
            return
        if update.ended:
            self.known.pop(update.job_id, None)
        else:
            self.known[update.job_id] = update.version
        self._waiting[update.job_id] = update
        self._news.set()

    def fail(self) -> None:
        """End the subscription without sending what waits."""
        self.failed = True
        self._news.set()

    async def updates(self) -> AsyncIterator[Update]:
        """Yield the updates until the listener is too far behind or the subscription has failed."""
        limit = len(self._waiting) + MAX_WAITING
        while len(self._waiting) <= limit and not self.failed:
            if not self._waiting:
                self._news.clear()
                await self._news.wait()
                continue
            yield self._waiting.pop(next(iter(self._waiting)))


class LiveUpdates:
    """Reads changed jobs and gives them to the subscriptions. Without subscriptions it reads nothing."""

    def __init__(self, job_queries: JobQueries, now: Callable[[], datetime]) -> None:
        """Create the live updates. ``now`` returns the time by the database's clock."""
        self._job_queries = job_queries
        self._now = now
        self._of_job: dict[UUID, set[Subscription]] = {}
        self._of_user: dict[str, set[Subscription]] = {}
        self._changed: set[UUID] = set()
        self._read_all_next = False
        self._wake = asyncio.Event()
        self._failure: str | None = None

    @property
    def listeners(self) -> int:
        """Return the number of listeners."""
        return sum(map(len, self._of_job.values())) + sum(map(len, self._of_user.values()))

    @contextmanager
    def job(self, job_id: UUID) -> Iterator[Subscription]:
        """Subscribe to one job."""
        with _listed(self._of_job, job_id) as subscription:
            yield subscription

    @contextmanager
    def user(self, user_id: str) -> Iterator[Subscription]:
        """Subscribe to all jobs of a user."""
        with _listed(self._of_user, user_id) as subscription:
            yield subscription

    def on_notify(self, payload: str) -> None:
        """Take the payload of a NOTIFY; an empty one means that some were possibly lost."""
        if not payload:
            self._read_all_next = True
            self._wake.set()
            return
        job_id, _, user_id = payload.partition(" ")
        if (known := UUID(job_id)) in self._of_job or user_id in self._of_user:
            self._changed.add(known)
            self._wake.set()

    def update_of(self, job: ExportJob) -> Update:
        """Return the update that has the state of this record."""
        return Update.of(job, self._now())

    async def run(self) -> None:
        """Read changed jobs and give them to the subscriptions, until cancelled."""
        read_all_at = time.monotonic() + READ_ALL_SECONDS
        while True:
            # Not wait_for(): before Python 3.12 it loses a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(read_all_at - time.monotonic()):
                    await self._wake.wait()
            self._wake.clear()
            all_jobs = self._read_all_next or time.monotonic() >= read_all_at
            changed, self._changed, self._read_all_next = self._changed, set(), False
            started = time.monotonic()
            try:
                await self._read_jobs(changed)
                if all_jobs:
                    await self._read_all()
            except Retryable as error:
                log.warning("live_updates.read_failed", error=str(error))
                self._changed |= changed
                self._read_all_next = self._read_all_next or all_jobs
                self._wake.set()
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                # After an unexpected error some updates are possibly lost. The listeners reconnect and get
                # the current state of their jobs.
                log.exception("live_updates.failed")
                self._failure = repr(error)
                self._end_all()
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._failure = None
            if all_jobs:
                read_all_at = time.monotonic() + READ_ALL_SECONDS
            await asyncio.sleep(min(GATHER_SECONDS, READ_SHARE * (time.monotonic() - started)))

    async def check(self) -> None:
        """Check that the last read of changed jobs succeeded.

        Raises:
            Retryable: the last read ended with an unexpected error.
        """
        if self._failure is not None:
            raise Retryable(f"live updates failed: {self._failure}")

    def _end_all(self) -> None:
        """End every subscription; its listener gets an error."""
        for groups in (self._of_job, self._of_user):
            for group in groups.values():
                for listener in group:
                    listener.fail()

    async def _read_all(self) -> None:
        """Read all watched jobs that are unfinished."""
        known = {
            job_id for group in self._of_user.values() for listener in group for job_id in listener.known
        }
        await self._read_jobs(known | self._of_job.keys())
        for users in _parts(self._of_user, USERS_READ):
            self._offer(await self._job_queries.list_unfinished(users, UNFINISHED_LISTED))

    async def _read_jobs(self, ids: Iterable[UUID]) -> None:
        for part in _parts(ids):
            self._offer(await self._job_queries.get_many(part))

    def _offer(self, jobs: Sequence[ExportJob]) -> None:
        for job in jobs:
            groups = (self._of_job.get(job.id, ()), self._of_user.get(job.user_id, ()))
            listeners = [one for group in groups for one in group if one.wants(job)]
            if listeners:
                update = self.update_of(job)
                for listener in listeners:
                    listener.offer(update)


@contextmanager
def _listed(index: dict[Key, set[Subscription]], key: Key) -> Iterator[Subscription]:
    subscription = Subscription()
    index.setdefault(key, set()).add(subscription)
    try:
        yield subscription
    finally:
        index[key].discard(subscription)
        if not index[key]:
            del index[key]


def _parts(items: Iterable[Key], size: int = BATCH) -> Iterator[list[Key]]:
    every = list(items)
    for start in range(0, len(every), size):
        yield every[start : start + size]
