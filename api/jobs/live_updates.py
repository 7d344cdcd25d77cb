"""Live changes of jobs: NOTIFY tells what changed, one query for all listeners tells how it stands now."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

import structlog

from api.jobs.schemas import JobView
from stream_app.jobs.models import ExportJob
from stream_app.jobs.records import JobRecords
from stream_app.jobs.states import UNFINISHED, Status
from streaming_exporter.errors import Retryable

log = structlog.get_logger(__name__)
Key = TypeVar("Key", UUID, str)

GATHER_SECONDS = 0.1
"""Changes that come within this time are read with one query."""
LOOK_SECONDS = 15.0
"""How often everything that is listened to is read, in case a notification was lost."""
RETRY_SECONDS = 1.0
BATCH = 200
"""Jobs that one query reads."""
UNFINISHED_LISTED = 500
"""Most unfinished jobs, the newest, that a listener to a user's jobs is told of without a change."""
USERS_READ = 10
"""Users whose unfinished jobs one query reads."""
MAX_WAITING = 1000
"""Changed jobs that a listener may be behind with, besides those that it is told of at first."""

_RANK = {Status.PROCESSING: 0, Status.PENDING: 1, Status.EXPIRED: 3}
"""Order of the states within one attempt: it is pending again after it was processed; the ends are 2."""


def version(job: ExportJob) -> str:
    """Names the state that a job is in; its numbers only ever grow: attempt, state, rows, wish to cancel."""
    rank = _RANK.get(Status(job.status), 2)
    return f"{job.attempt}.{rank}.{job.row_count or 0}.{int(job.cancel_requested_at is not None)}"


@dataclass(frozen=True, slots=True)
class Update:
    """A job as it stands; ``body`` is its :class:`JobView` as JSON."""

    job_id: UUID
    version: str
    ended: bool
    body: str

    @classmethod
    def of(cls, job: ExportJob) -> "Update":
        """The update that a record amounts to."""
        ended = job.status not in UNFINISHED
        return cls(job.id, version(job), ended, JobView.of(job).model_dump_json())


@dataclass(slots=True, eq=False)
class Subscription:
    """One listener, and what it has not been sent yet: of each job only the latest state."""

    known: dict[UUID, str] = field(default_factory=dict)
    """Versions of the unfinished jobs that it was told about."""
    _waiting: dict[UUID, Update] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    failed: bool = False
    """Whether it ended since nobody knows what was not handed on."""

    def wants(self, job: ExportJob) -> bool:
        """Whether the state is news to the listener."""
        return self.known.get(job.id) != version(job)

    def offer(self, update: Update) -> None:
        """Have the update sent, instead of an older one of the same job that still waits."""
        if update.ended:
            self.known.pop(update.job_id, None)
        else:
            self.known[update.job_id] = update.version
        self._waiting[update.job_id] = update
        self._news.set()

    def fail(self) -> None:
        """End it; what waits is not sent."""
        self.failed = True
        self._news.set()

    async def updates(self) -> AsyncIterator[Update]:
        """What there is to send, until the listener is hopelessly behind or the live_updates failed."""
        most = len(self._waiting) + MAX_WAITING
        while len(self._waiting) <= most and not self.failed:
            if not self._waiting:
                self._news.clear()
                await self._news.wait()
                continue
            yield self._waiting.pop(next(iter(self._waiting)))


class LiveUpdates:
    """Hands changes to subscriptions. Without any it reads nothing."""

    def __init__(self, records: JobRecords) -> None:
        self._records = records
        self._of_job: dict[UUID, set[Subscription]] = {}
        self._of_user: dict[str, set[Subscription]] = {}
        self._changed: set[UUID] = set()
        self._look = False
        self._stir = asyncio.Event()
        self._failure: str | None = None

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return sum(map(len, self._of_job.values())) + sum(map(len, self._of_user.values()))

    @contextmanager
    def job(self, job_id: UUID) -> Iterator[Subscription]:
        """Listen to one job."""
        with _listed(self._of_job, job_id) as subscription:
            yield subscription

    @contextmanager
    def user(self, user_id: str) -> Iterator[Subscription]:
        """Listen to every job of a user."""
        with _listed(self._of_user, user_id) as subscription:
            yield subscription

    def on_notify(self, payload: str) -> None:
        """Take a notification; an empty one means that some may be missing."""
        if not payload:
            self._look = True
            self._stir.set()
            return
        job_id, _, user_id = payload.partition(" ")
        if (known := UUID(job_id)) in self._of_job or user_id in self._of_user:
            self._changed.add(known)
            self._stir.set()

    async def run(self) -> None:
        """Read what changed and hand it on, for ever."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stir.wait(), LOOK_SECONDS)
            self._stir.clear()
            looking = self._look or not self._changed
            changed, self._changed, self._look = self._changed, set(), False
            try:
                await self._hand_on(changed)
                if looking:
                    await self._look_around()
            except Retryable as error:
                log.warning("live_updates.read_failed", error=str(error))
                self._changed |= changed
                self._look = self._look or looking
                self._stir.set()
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                # Nobody foresaw it, so nobody knows what was not handed on: those who listen come back and
                # are told how their jobs stand then.
                log.exception("live_updates.failed")
                self._failure = repr(error)
                self._end_all()
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._failure = None
            await asyncio.sleep(GATHER_SECONDS)

    async def check(self) -> None:
        """
        Raises:
            Retryable: changes are not handed on, for a reason that nobody foresaw.
        """
        if self._failure is not None:
            raise Retryable(f"the live_updates of changes: {self._failure}")

    def _end_all(self) -> None:
        """End every subscription with an error that its listener sees."""
        for groups in (self._of_job, self._of_user):
            for group in groups.values():
                for listener in group:
                    listener.fail()

    async def _look_around(self) -> None:
        """Read everything that is listened to and has not ended."""
        told = {job_id for group in self._of_user.values() for listener in group for job_id in listener.known}
        await self._hand_on(told | self._of_job.keys())
        for users in _parts(self._of_user, USERS_READ):
            self._offer(await self._records.unfinished_of(users, UNFINISHED_LISTED))

    async def _hand_on(self, ids: Iterable[UUID]) -> None:
        for part in _parts(ids):
            self._offer(await self._records.some(part))

    def _offer(self, jobs: Sequence[ExportJob]) -> None:
        for job in jobs:
            groups = (self._of_job.get(job.id, ()), self._of_user.get(job.user_id, ()))
            listeners = [one for group in groups for one in group if one.wants(job)]
            if listeners:
                update = Update.of(job)
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
