"""Reads the claims of rows that a worker has claimed, and releases jobs that this version cannot read."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from pydantic_core import to_json

from stream_app.db.engine import Connections, autocommit_connection
from stream_app.db.statements import Record
from stream_app.jobs.claim import Claim, run_day_of
from stream_app.jobs.part_claim import PartClaim
from stream_app.jobs.queue_sql import RELEASE_UNREADABLE
from streaming_exporter.errors import Retryable
from streaming_exporter.events import ExportRequest, JobError

log = structlog.get_logger(__name__)

UNREADABLE_KEPT = timedelta(days=7)
"""How long a job waits for a worker of a version that can read it."""

UNREADABLE_ERROR = JobError(
    code="unknown_request",
    message="No worker understood the request within 7 days; operators: a newer version admitted it",
).model_dump()


class ClaimReader:
    """Reads the claims of claimed rows."""

    def __init__(self, connections: Connections) -> None:
        """Create the reader. Its statements use ``connections``."""
        self._connections = connections

    async def read(self, worker: str, rows: Sequence[Record]) -> list[Claim]:
        """Return the claims of claimed rows. Those that this version cannot read are released."""
        claims, unknown = [], []
        for row in rows:
            part = row.get("part")
            try:
                claims.append(_claim_of(row, worker) if part is None else _part_claim_of(row, worker))
            except Exception as error:  # a newer version wrote it; other jobs are claimed as well
                log.warning("job.request_unreadable", job_id=str(row.id), error=str(error))
                if part is None:  # the lease of a part expires, and another worker claims it
                    unknown.append(row.id)
        if unknown:
            await self._release_unreadable(worker, unknown)
        return claims

    async def _release_unreadable(self, worker: str, ids: Sequence[UUID]) -> None:
        """Release jobs that this version cannot read, without a failure. After some days they fail."""
        error = to_json(UNREADABLE_ERROR).decode()
        values = {"worker": worker, "ids": list(ids), "kept_for": UNREADABLE_KEPT, "error": error}
        try:
            async with autocommit_connection(self._connections) as connection:
                await connection.execute(RELEASE_UNREADABLE, values)
        except Retryable as error:  # their leases will expire. The other claimed jobs must run
            log.warning("job.release_failed", jobs=len(ids), error=str(error))


def _claim_of(row: Record, worker: str) -> Claim:
    """Return the claim of a claimed row.

    Raises:
        Rejected: this version cannot read the request.
    """
    return Claim(
        **_common_fields(row, worker),
        attempt=row.attempt,
        failures=row.failures,
        started_at=row.started_at,
    )


def _part_claim_of(row: Record, worker: str) -> PartClaim:
    """Return the claim of a claimed part.

    Raises:
        Rejected: this version cannot read the request.
    """
    part = row.part
    return PartClaim(
        **_common_fields(row, worker),
        attempt=part["attempt"],
        failures=part["failures"],
        started_at=row.now,
        number=part["number"],
        part_attempt=part["part_attempt"],
        range=part["range"],
        folder=part["folder"],
        snapshot=part["snapshot"],
        as_of=part["as_of"] and datetime.fromisoformat(part["as_of"]),
    )


def _common_fields(row: Record, worker: str) -> dict[str, Any]:
    """Return the fields that the claim of a job and that of a part have from the row of the job."""
    return {
        "job_id": row.id,
        "worker": worker,
        "request": ExportRequest.parse(dict(row) | {"priority": None}),
        "traceparent": row.traceparent,
        "requested_at": row.created_at,
        "window": row.window,
        "run_day": run_day_of(row.run_at, row.run_zone, row.window),
    }
