"""Following a job until it ends."""

import time
from collections.abc import Callable
from uuid import UUID

from producers.client import Api, Job
from producers.errors import ApiError, JobEnded

INTERVAL = 0.25
ADMISSION_SECONDS = 30.0
"""How long a request may go unseen: until a worker has admitted it, the API does not know it."""
OUTAGE_SECONDS = 15.0


def follow(
    api: Api,
    job_id: UUID,
    show: Callable[[Job | None], None],
    *,
    interval: float = INTERVAL,
    admission_seconds: float = ADMISSION_SECONDS,
    outage_seconds: float = OUTAGE_SECONDS,
) -> Job:
    """Ask for the job until it has ended; ``show`` is told each answer (``None``: not admitted yet).

    Raises:
        JobEnded: it ended without a file.
        ApiError: no worker admitted it in time, or the API refused or was away too long.
    """
    started = reached = time.monotonic()
    while True:
        now = time.monotonic()
        try:
            job = api.job(job_id)
        except ApiError as error:
            if (error.status is not None and error.status < 500) or now - reached > outage_seconds:
                raise
        else:
            reached = now
            if job is None and now - started > admission_seconds:
                raise ApiError(
                    f"no worker has admitted the request within {admission_seconds:g} s; is one running "
                    "(exporter worker), and does this token belong to the job's user? "
                    f"The request is kept: exporter watch {job_id}"
                )
            show(job)
            if job is not None and job.finished:
                return _with_file(job)
        time.sleep(interval)


def _with_file(job: Job) -> Job:
    if job.status == "completed":
        return job
    reason = f": {job.error.message} ({job.error.code})" if job.error else ""
    raise JobEnded(f"export {job.export_job_id} {job.status}{reason}")
