"""Calls that wait for the end of a job: ``Prefer: wait=N`` (RFC 7240, section 4.3)."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from api.jobs.live_updates import LiveUpdates, Update
from api.jobs.reader import JobReader
from streaming_exporter.errors import Retryable

log = structlog.get_logger(__name__)

MAX_SECONDS = 30
"""The longest wait. A longer one that a client prefers is cut to this."""

_PREFERENCE = re.compile(
    r"""[\s,]*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)
        (?:\s*=\s*(?P<value>"(?:[^"\\]|\\.)*"|[!#$%&'*+.^_`|~0-9A-Za-z-]+))?
        \s*(?:;(?:"(?:[^"\\]|\\.)*"|[^",])*)?(?:,|$)""",
    re.VERBOSE,
)
"""One preference with its parameters. No two parts can match the same characters: so the time grows with the
length of the header, also of one that fits nowhere."""


def preferred_wait(headers: Iterable[str]) -> int:
    """Return the seconds of the preference ``wait`` in the values of ``Prefer``; 0 without a valid one.

    The first ``wait`` counts, and a preference that is not understood is ignored (RFC 7240, section 2).
    """
    text = ",".join(headers)
    place = 0
    while place < len(text) and (found := _PREFERENCE.match(text, place)):
        place = found.end()
        if found["name"].lower() == "wait":
            value = (found["value"] or "").strip('"')
            return min(int(value), MAX_SECONDS) if re.fullmatch(r"[0-9]{1,9}", value) else 0
    return 0


@dataclass(frozen=True, slots=True)
class Waited:
    """The end of a wait.

    Attributes:
        job: the job, if it has ended.
        is_whole: whether the wait was as long as it was asked for, or until the end of the job.
    """

    job: Update | None = None
    is_whole: bool = False


@dataclass(slots=True, eq=False)
class JobWaits:
    """Lets calls wait for the ends of jobs, without queries of their own while nothing changes.

    Attributes:
        live_updates: gives the changes of jobs.
        reader: reads a job once, when the wait begins.
        limit: the largest number of calls that wait at a time. A call above it does not wait.
        limit_of_user: the same for the calls of one user.
    """

    live_updates: LiveUpdates
    reader: JobReader
    limit: int
    limit_of_user: int
    _users: Counter[str] = field(default_factory=Counter, init=False)
    _tasks: set["asyncio.Task[Update | None]"] = field(default_factory=set, init=False)
    _stopped: bool = field(default=False, init=False)

    def stop(self) -> None:
        """End all waits, because the server stops. Their calls answer that the job has not ended."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()

    @property
    def waiting(self) -> int:
        """The number of calls that wait."""
        return self._users.total()

    def is_full(self, user_id: str) -> bool:
        """Return whether no further call of the user can wait."""
        return self._stopped or self.waiting >= self.limit or self._users[user_id] >= self.limit_of_user

    async def until_ended(self, job_id: UUID, seconds: float, *, user_id: str) -> Waited:
        """Wait until the job has ended, or for ``seconds``.

        Nothing that fails meanwhile is an error: the job is recorded, so the call answers without its end.
        """
        if self.is_full(user_id):
            return Waited()
        self._users[user_id] += 1
        task = asyncio.create_task(self._end_or_none(job_id))
        self._tasks.add(task)
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
            job = task.result() if done and not task.cancelled() else None
            return Waited(job, is_whole=job is not None or not done)
        finally:
            self._users[user_id] -= 1
            if not self._users[user_id]:
                del self._users[user_id]
            self._tasks.discard(task)
            task.cancel()
            await asyncio.wait({task})

    async def _end_or_none(self, job_id: UUID) -> Update | None:
        try:
            return await self._end_of(job_id)
        except Retryable:
            return None
        except Exception:  # such as an error of the driver that is not known as an outage
            log.exception("job_wait.failed", job_id=str(job_id))
            return None

    async def _end_of(self, job_id: UUID) -> Update | None:
        with self.live_updates.job(job_id) as subscription:
            # Read after the subscription has begun, so that no change is missed.
            if (job := await self.reader.get(job_id)) is not None:
                subscription.offer(self.live_updates.update_of(job))
            async for update in subscription.updates():
                if update.ended:
                    return update
        return None
