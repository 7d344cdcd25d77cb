"""Follows a job by server-sent events: what both clients have in common. Does no I/O."""

import time
from collections.abc import Callable
from uuid import UUID

from streaming_exporter.api_answers import Job
from streaming_exporter.errors import ApiError

SILENCE_SECONDS = 45.0
"""A stream that is silent for so long is broken: the API sends something every 5 s."""

MAX_PAUSE_SECONDS = 15.0

MAX_ASKED_SECONDS = 60.0
"""The longest pause that an answer with ``Retry-After`` makes."""

UNKNOWN_SECONDS = 15.0
"""How long an API counts as away that has shown a job and no longer does, as behind a proxy that answers."""


class JobFollower:
    """What is known of a job that is followed: its last event, failures in a row, the time that is left."""

    def __init__(
        self,
        job_id: UUID,
        *,
        timeout: float | None,
        admission: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to follow a job.

        Args:
            job_id: the job.
            timeout: seconds after which a job that has not ended raises :class:`TimeoutError`.
            admission: seconds for which a job that the API does not know counts as not admitted yet.
            clock: seconds of a clock that never goes back.
        """
        self.path = f"/exports/jobs/{job_id}/events"
        self._job_id = job_id
        self._clock = clock
        self._deadline = None if timeout is None else clock() + timeout
        self._admitted_by = clock() + admission
        self._last = ""
        self._failures = 0
        self._asked_pause = 0.0
        self._is_known = False
        self._unknown_since: float | None = None
        self._fields: dict[str, list[str]] = {}

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the call that opens the stream, or opens it again after its last event."""
        resume = {"Last-Event-ID": self._last} if self._last else {}
        return {"Accept": "text/event-stream"} | resume

    @property
    def silence(self) -> float:
        """Seconds without a line after which the stream is given up."""
        if self._deadline is None:
            return SILENCE_SECONDS
        return max(0.1, min(SILENCE_SECONDS, self._deadline - self._clock()))

    @property
    def must_poll(self) -> bool:
        """Whether the stream has failed several times, so that the job has to be read by itself."""
        return self._failures > 1

    def feed(self, line: str) -> Job | None:
        """Take a line of the stream; return the job where the line ends an event.

        Raises:
            TimeoutError: the job has not ended in time.
        """
        self._check_time()
        if line:
            name, _, value = line.partition(":")
            self._fields.setdefault(name, []).append(value.removeprefix(" "))
            return None
        fields, self._fields = self._fields, {}
        if fields.get("event") != ["job"]:
            return None
        job = Job.model_validate_json("\n".join(fields.get("data", [])))
        self._last, self._failures = fields.get("id", [self._last])[-1], 0
        self.note_job()
        return job

    def note_job(self) -> None:
        """Note that the API knows the job."""
        self._is_known, self._unknown_since = True, None

    def failed(self, error: Exception) -> None:
        """Note a failure.

        Raises:
            ApiError: ``error``, if another call cannot succeed.
        """
        self._fields = {}
        if not isinstance(error, ApiError):
            return
        can_pass = error.is_retryable
        if error.status == 404:
            can_pass = self._can_come_back()
        elif error.is_foreign:
            can_pass = self._is_known and self._can_come_back()
        if not can_pass:
            raise error
        asked = min(error.retry_after or 0.0, MAX_ASKED_SECONDS)
        self._asked_pause = max(self._asked_pause, asked)  # the longer one of the stream and of the job

    def _can_come_back(self) -> bool:
        """Return whether a job that the API does not know, or does not show, can be shown later.

        It is not admitted yet, or the answer is that of a proxy whose API is away.
        """
        now = self._clock()
        if not self._is_known:
            return now < self._admitted_by
        if self._unknown_since is None:
            self._unknown_since = now
        return now - self._unknown_since < UNKNOWN_SECONDS

    def pause(self) -> float:
        """Return the seconds before the next try.

        Raises:
            TimeoutError: the job has not ended in time.
        """
        self._failures += 1
        self._check_time()
        seconds = max(self._asked_pause, min(MAX_PAUSE_SECONDS, 0.125 * 2.0 ** min(self._failures, 10)))
        self._asked_pause = 0.0
        if self._deadline is None:
            return seconds
        return min(seconds, max(0.0, self._deadline - self._clock()))

    def _check_time(self) -> None:
        if self._deadline is not None and self._clock() >= self._deadline:
            raise TimeoutError(f"the job {self._job_id} has not ended in time")
