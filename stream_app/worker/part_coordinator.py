"""Coordinates the parts of a large split export for the holder of its job.

The holder plans the parts, keeps the snapshot open that they share, waits until workers have completed all of
them, and writes the manifest. It does not run parts itself, so it needs no slot meanwhile.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import structlog

from stream_app.exports.files.manifest import too_many_files
from stream_app.exports.part_planner import OpenPlan, PartPlanner
from stream_app.exports.part_results import (
    PartResult,
    check_columns,
    check_password_keys,
    combined_files,
    write_combined,
)
from stream_app.exports.sources.errors import SnapshotLost, TableLocked
from stream_app.exports.tables.catalog import TableBeingChanged
from stream_app.exports.task import ExportProgress, ExportResult, ExportTask
from stream_app.jobs.claim import Claim
from stream_app.jobs.part_claim import PartsState, PlannedPart
from stream_app.jobs.parts import KeptPlan, PartStore
from stream_app.retries import retry_outages, retry_until_possible
from stream_app.settings import Settings
from stream_app.storage.manifest import MANIFEST
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.attempt import Slot
from streaming_exporter.errors import Outage, Rejected, Retryable

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.5
"""Seconds between two looks at the parts."""

KEEP_ALIVE_SECONDS = 10.0
"""Seconds between two statements in the snapshot: the server ends a transaction that is idle for a minute."""


@dataclass(frozen=True, slots=True)
class PartCoordinator:
    """Divides large split exports into parts and waits for them."""

    parts: PartStore
    planner: PartPlanner
    storage: ObjectStore
    settings: Settings

    async def run(
        self, claim: Claim, task: ExportTask, progress: ExportProgress, slot: Slot
    ) -> ExportResult | None:
        """Export the rows of a job in parts.

        Args:
            claim: the claim of the job.
            task: the export.
            progress: shows the rows of all parts.
            slot: becomes free while the parts run.

        Returns:
            The result, or ``None`` if the export is too small for parts or cannot be cut: nothing has
            happened then.

        Raises:
            Rejected: a part cannot succeed, or the export took too long.
            Retryable: the snapshot or the parts are lost. All parts have to begin anew.
        """
        if claim.request.split is None:
            return None
        kept = await self.kept_plan(claim)
        began = progress.waits_since = time.monotonic()  # the time limit includes the planning
        if kept is not None:
            progress.waits_since = None
            log.info("parts.resumed", parts=kept.parts)
            return await self._finish(claim, task, progress, slot, kept, began)
        async with self.planner.open(task) as plan:
            progress.waits_since = None
            if plan is None:
                return None
            planned = KeptPlan(claim.attempt, self._folder(claim, task), len(plan.ranges))
            progress.estimated_rows = plan.estimated_rows
            slot.is_free = True  # before other workers, and this one, are notified of the parts
            await self._insert(claim, plan, planned.folder)
            log.info("parts.planned", parts=planned.parts, consistency=claim.request.consistency)
            shared = None if plan.shared is None else plan
            return await self._finish(claim, task, progress, slot, planned, began, opened=shared)

    async def kept_plan(self, claim: Claim) -> KeptPlan | None:
        """Return the plan of an earlier attempt at the job, if its parts are valid without its snapshot."""
        if claim.attempt == 1 or claim.request.split is None or claim.request.consistency != "part":
            return None
        return await retry_until_possible(self.parts.kept_plan, claim.job_id)

    def _folder(self, claim: Claim, task: ExportTask) -> str:
        """Return the folder of the files. Files that outlive an attempt are not in the attempt's folder."""
        if claim.request.consistency == "part":
            return self.storage.folder(claim.job_id, claim.attempt)
        return task.target("").rstrip("/")

    async def _insert(self, claim: Claim, plan: OpenPlan, folder: str) -> None:
        planned = [PlannedPart(number, one.to_json()) for number, one in enumerate(plan.ranges, 1)]
        held = await retry_until_possible(
            self.parts.plan, claim, planned, folder=folder, snapshot=plan.shared, as_of=plan.as_of
        )
        if not held:
            raise Retryable("the lease of the job is lost")

    async def _finish(
        self,
        claim: Claim,
        task: ExportTask,
        progress: ExportProgress,
        slot: Slot,
        plan: KeptPlan,
        began: float,
        *,
        opened: OpenPlan | None = None,
    ) -> ExportResult:
        slot.is_free = True
        await self._wait(claim, plan, progress, opened, began)
        if opened is not None:
            await opened.end()  # the transaction must not stay open while the store is called
        found = await retry_until_possible(self.parts.results, claim.job_id, plan.attempt)
        if len(found) != plan.parts:
            raise Retryable("the parts of the export are lost")
        results = [PartResult.from_json(result) for result in found]
        check_columns(results)
        check_password_keys(results)
        files = combined_files(results, max_files=self.planner.exporter.limits.max_files)
        await self._remove_unneeded(claim, plan, {file.key for file in files})
        split = claim.request.split
        facts = {
            "job_id": str(claim.job_id),
            "split": split and split.model_dump(mode="json", exclude_none=True),
            "consistency": claim.request.consistency,
        }
        key = task.target(MANIFEST)
        write = retry_outages(self.settings.export_timeout_seconds)
        return await write(
            self.storage.run_in_thread, write_combined, self.storage, key, results, files, facts
        )

    async def _wait(
        self,
        claim: Claim,
        plan: KeptPlan,
        progress: ExportProgress,
        opened: OpenPlan | None,
        began: float,
    ) -> None:
        """Wait until all parts are completed.

        Args:
            claim: the claim of the job.
            plan: its parts.
            progress: shows the rows of all parts.
            opened: the open snapshot of the parts, if they share one.
            began: when the attempt began, by :func:`time.monotonic`.

        Raises:
            Rejected: a part has failed, or was interrupted too often, or the time limit is exceeded, or the
                parts have too many files.
            Outage: the time limit is exceeded while parts wait for a part of the system.
            Retryable: the snapshot or the parts are lost.
        """
        kept_alive = time.monotonic()
        completed = 0
        while True:
            state = await self._state(claim, plan)
            if state is not None:
                progress.tally.rows = state.rows
                if state.failed and state.error_code == SnapshotLost.code and opened is not None:
                    await self._begin_anew(opened)
                _check(state, plan, is_shared=opened is not None)
                if state.completed == plan.parts:
                    return
                if state.completed > completed:
                    await self._check_file_count(claim, plan)
                    completed = state.completed
                if time.monotonic() - began > self.settings.export_timeout_seconds:
                    if state.waiting_for_outage:
                        raise Outage("parts of the export wait for a part of the service that is away")
                    raise _time_is_over(state)
            if opened is not None and time.monotonic() - kept_alive > KEEP_ALIVE_SECONDS:
                await opened.keep_alive()
                kept_alive = time.monotonic()
            await asyncio.sleep(POLL_SECONDS)

    async def _state(self, claim: Claim, plan: KeptPlan) -> PartsState | None:
        """Return the state of the parts, or ``None`` while the state database is away."""
        try:
            return await self.parts.state(claim.job_id, plan.attempt)
        except Retryable as error:
            log.warning("parts.not_read", error=str(error))
            return None

    async def _begin_anew(self, opened: OpenPlan) -> NoReturn:
        """End the attempt after a part could not read the shared snapshot.

        If the snapshot is still there, connections lead to several servers. Then this worker divides no more
        exports into parts that share a snapshot, and the next attempt can succeed without parts.

        Raises:
            Retryable: always.
        """
        await opened.keep_alive()
        opened.cannot_share()
        error = "another connection to the source database does not have the snapshot of the export"
        log.warning("source.snapshot_not_shared", error=error)
        raise Retryable(error, code=SnapshotLost.code)

    async def _check_file_count(self, claim: Claim, plan: KeptPlan) -> None:
        """Reject an export with too many files at once, before all of its parts are written.

        Each part can have one file without rows, which is not counted in the end.
        """
        limit = self.planner.exporter.limits.max_files
        with suppress(Retryable):  # the next look counts again
            if await self.parts.file_count(claim.job_id, plan.attempt) > limit + plan.parts:
                raise too_many_files(limit)

    async def _remove_unneeded(self, claim: Claim, plan: KeptPlan, keys: set[str]) -> None:
        """Remove what lost attempts at parts have left beside the files. An outage is only logged."""
        storage, folder = self.storage, f"{plan.folder}/"
        try:
            await storage.run_in_thread(
                storage.removal.remove_unneeded,
                claim.job_id,
                lambda found: found.key.startswith(folder) and found.key not in keys,
            )
        except Retryable as error:
            log.warning("leftovers.not_removed", job_id=str(claim.job_id), error=str(error))

    async def clean(self, claim: Claim) -> None:
        """Delete the parts of a job that has ended. An outage is only logged: they are deleted later."""
        if claim.request.split is None:
            return
        try:
            await self.parts.delete(claim.job_id)
        except Retryable as error:
            log.warning("parts.not_deleted", error=str(error))


def _time_is_over(state: PartsState) -> Rejected:
    """Return the error of an export whose time is over.

    Its parts wait for workers together with the exports of other users, so the time includes that.
    """
    return Rejected(
        f"the export took longer than the time limit: {state.completed} of {state.parts} parts were "
        "completed; narrow it with filters, or request it when fewer exports run; operators: raise "
        "EXPORTER_EXPORT_TIMEOUT_SECONDS, which includes the time in which parts wait for a worker, or "
        "EXPORTER_WORKER_SLOTS and EXPORTER_USER_SLOTS",
        code="timeout",
    )


def _check(state: PartsState, plan: KeptPlan, *, is_shared: bool) -> None:
    """Raise the error of the parts.

    Args:
        state: the parts.
        plan: their plan.
        is_shared: whether they share a snapshot. If not, the next attempt has the same plan with the same
            failed part, so it cannot do better.
    """
    if state.parts != plan.parts:
        raise Retryable("the parts of the export are lost")
    if state.failed and is_shared and state.error_code == TableLocked.code:
        raise Retryable("another session waits to change the table", code=TableLocked.code)
    if state.failed and is_shared and state.error_code == TableBeingChanged.code:
        raise Retryable("the table was changed after the snapshot of the parts", code=TableBeingChanged.code)
    if state.failed:
        raise Rejected(state.error_message or "a part of the export failed", code=state.error_code)
    if state.exhausted:
        raise Rejected(
            "A part of the export was interrupted too often and is not tried again; "
            "request it anew, with smaller files if it is very large",
            code="worker_lost",
        )
