"""The files of a part stay if the answer to its completion is lost, and its job has ended meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.exports.pipeline import Exporter
from stream_app.exports.task import ExportedFile, ExportProgress, ExportResult, ExportTask
from stream_app.jobs.claim import Claim
from stream_app.jobs.part_claim import PartClaim
from stream_app.jobs.parts import PartStore
from stream_app.settings import Settings
from stream_app.storage.listing import object_key
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.part_runner import PartRunner
from streaming_exporter.errors import Retryable
from tests.integration.jobs.jobs import Jobs, completed
from tests.integration.jobs.parts import part_claims, plan


@dataclass
class OnePart:
    """An export that has written a file."""

    storage: ObjectStore
    result: ExportResult

    async def run(self, _task: ExportTask, _progress: ExportProgress) -> ExportResult:
        return self.result


@dataclass(frozen=True, slots=True)
class EndingJob(PartStore):
    """Completes a part and loses the answer. Then the holder ends the job, and deletes its parts."""

    holder: Claim
    result: ExportResult

    async def complete(self, claim: PartClaim, result: Mapping[str, Any], *, rows: int) -> bool:
        is_first = (await self.state(claim.job_id, claim.attempt)).parts > 0
        held = await PartStore.complete(self, claim, result, rows=rows)
        if is_first:
            await self.queue.record_files(self.holder, self.result)
            assert await self.queue.store_outcome(self.holder, completed(self.holder))
            await self.delete(claim.job_id)
            raise Retryable("state database: the connection was closed")
        return held


def exported(storage: ObjectStore, claim: Claim) -> ExportResult:
    """Write the file of a part; return the result of its export."""
    key = object_key(claim.job_id, claim.attempt, "part-00001-1-f")
    stored = storage.put(key, iter([b"x"]), content_type="text/csv", file_name="f", metadata=dict)
    file = ExportedFile(1, "ledger-2026-11-26-00001.csv", key, "text/csv", 1, 1, stored.sha256)
    return ExportResult(
        1, 1, stored.sha256, storage.bucket, key, "text/csv", "f", claim.started_at, {}, (file,)
    )


@pytest.mark.parametrize("is_listed", [True, False], ids=["its_file", "the_file_of_another_attempt"])
async def test_a_completed_job_keeps_the_file_of_a_part_whose_completion_was_in_doubt(
    engine: AsyncEngine, storage: ObjectStore, settings: Settings, is_listed: bool
) -> None:
    """The file of an attempt that another one has replaced is removed."""
    jobs = Jobs(engine)
    await jobs.admit()
    (holder,) = await jobs.store.claim("holder", 1)
    assert await plan(PartStore(jobs.store), holder, 1)
    (claim,) = part_claims(await jobs.store.claim("w", 1))
    result = exported(storage, holder)
    kept = result if is_listed else replace(result, files=(replace(result.files[0], key=f"{result.key}-2"),))
    parts = EndingJob(jobs.store, holder, kept)
    runner = PartRunner(parts, cast(Exporter, OnePart(storage, result)), settings)
    await runner.finish(runner.start(claim))
    assert storage.exists(result.key) is is_listed
