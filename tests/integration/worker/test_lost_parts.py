"""A large split export ends once, whatever happens to its workers, its snapshot and its table."""

import asyncio
from collections import Counter
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text

from stream_app.exports import part_planner, pipeline
from stream_app.exports.part_results import write_combined
from stream_app.exports.reading.snapshot_checks import check_table
from stream_app.exports.sources import source as source_module
from stream_app.exports.sources.snapshot import Snapshot
from stream_app.exports.tables.catalog import TableBeingChanged
from stream_app.exports.tables.source_table import SourceTable
from stream_app.exports.task import ExportResult, ExportTask
from stream_app.worker import part_coordinator
from streaming_exporter.errors import Outage
from tests.integration.worker.parts_fleet import PART_ATTEMPT, ROWS, Fleet, listed
from tests.waiting import at_most, until_async


async def _has_ended_without_delays(fleet: Fleet, job_id: UUID) -> bool:
    """Return whether a job has ended, and let no further attempt at it or its parts wait."""
    async with fleet.jobs.engine.begin() as connection:
        for table in ("export_jobs", "export_parts"):
            await connection.execute(text(f"UPDATE {table} SET not_before = NULL"))
    return (await fleet.job(job_id)).outcome is not None


async def test_a_change_of_the_table_ends_a_plan_that_its_parts_wait_for(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, source_dsn: str
) -> None:
    """ALTER TABLE waits for the holder, parts wait behind it, and the holder waits for them: a dead-lock."""
    monkeypatch.setattr(part_coordinator, "KEEP_ALIVE_SECONDS", 0.5)
    worker = fleet.worker(slots=1)
    worker.storage.held = {1}
    worker.start(fleet.settings)
    job_id = await fleet.request(columns=["id", "value"])
    await until_async(lambda: worker.storage.waiting)
    changing = await asyncpg.connect(source_dsn)
    change = asyncio.create_task(changing.execute(f"ALTER TABLE {fleet.dataset.table} ADD COLUMN late int"))
    await until_async(
        lambda: fleet.database.fetchval(
            "SELECT bool_or(NOT granted) FROM pg_locks WHERE mode = 'AccessExclusiveLock'"
        )
    )
    worker.storage.gate.set()
    async with at_most(20):
        await change
        outcome = await fleet.outcome(job_id)
    await changing.close()
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))
    assert (await fleet.job(job_id)).attempt == 2


async def test_the_first_child_of_a_table_begins_its_parts_anew(fleet: Fleet) -> None:
    """A worker that reads the description of the table now does not find it in the shared snapshot."""
    first, second = fleet.worker(slots=1), fleet.worker(slots=1)
    first.storage.held = {1}
    first.start(fleet.settings)
    job_id = await fleet.request()
    await until_async(lambda: first.storage.waiting)
    table = fleet.dataset.table
    await fleet.database.execute(f"CREATE TABLE {table}_child () INHERITS ({table})")
    second.start(fleet.settings)

    async def has_begun_anew() -> bool:
        return (await fleet.job(job_id)).attempt == 2

    await until_async(has_begun_anew)
    first.storage.gate.set()
    outcome = await fleet.outcome(job_id)
    assert outcome.status == "completed"
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))


async def test_a_part_with_its_own_snapshot_that_finds_the_table_changed_ends_the_job(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further attempt has the same plan with the same failed part."""

    async def changed(snapshot: Snapshot, table: SourceTable, task: ExportTask) -> None:
        if task.part is not None and task.part.number == 2:
            raise TableBeingChanged
        await check_table(snapshot, table, task)

    monkeypatch.setattr(pipeline, "check_table", changed)
    fleet.settings = fleet.settings.model_copy(update={"max_attempts": 2})
    fleet.worker(slots=1).start(fleet.settings)
    job_id = await fleet.request(consistency="part")
    await until_async(partial(_has_ended_without_delays, fleet, job_id))
    outcome = await fleet.outcome(job_id)
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("failed", "table_changed")
    assert outcome.error.message.startswith("a part of the export failed 2 times (table_changed)")
    assert ((await fleet.job(job_id)).attempt, (await fleet.job(job_id)).failures) == (1, 0)


async def test_the_server_ends_the_snapshot_of_a_worker_that_stands_still(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot has the limit of a transaction without statements, not that of an export."""
    worker = fleet.worker(slots=1)
    worker.storage.held = {1}
    worker.start(fleet.settings)
    monkeypatch.setattr(part_planner, "IDLE_SECONDS", 1)
    job_id = await fleet.request()
    await until_async(lambda: worker.storage.waiting)

    async def is_ended() -> bool:
        name = f"exporter {job_id} parts"
        return not await fleet.database.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name
        )

    async with at_most(8):
        await until_async(is_ended)


@pytest.mark.slow
async def test_a_holder_whose_list_of_files_comes_too_late_changes_nothing(fleet: Fleet) -> None:
    """Another holder has listed the same kept files; without its list they would count as left over."""
    worker = fleet.worker(slots=1)
    worker.storage.held = set(range(1, 100))
    worker.start(fleet.settings)
    job_id = await fleet.request(consistency="part")
    await until_async(lambda: worker.storage.waiting)
    late = worker.dispatcher._attempts[job_id].claim
    await worker.die(fleet.jobs)
    worker.storage.gate.set()
    fleet.worker().start(fleet.settings)
    outcome = await fleet.outcome(job_id)
    files = tuple(await listed(fleet, outcome))
    result = ExportResult(1, 1, "x", "b", "late/manifest.json", "t", "n", late.started_at, {}, files)
    await fleet.jobs.store.record_files(late, result)
    assert tuple(await listed(fleet, outcome)) == files != ()


async def test_a_lost_worker_costs_its_parts(fleet: Fleet) -> None:
    holder, lost = fleet.worker(slots=1), fleet.worker(slots=1)
    holder.start(fleet.settings)
    holder.storage.held = set(range(1, 100))
    job_id = await fleet.request()
    await until_async(lambda: holder.storage.waiting)
    lost.start(fleet.settings)
    lost.storage.held = set(range(4, 100))
    await until_async(lambda: lost.storage.waiting)

    async def is_recorded() -> bool:
        """Return whether nothing but the part that waits is in progress: its slot is the only one."""
        parts = (await fleet.parts(job_id)).values()
        return [row.number for row in parts if row.worker == "w2" and row.status == "processing"] == [4]

    await until_async(is_recorded)
    before = await fleet.parts(job_id)
    own = {4}
    done = {number for number, row in before.items() if row.status == "completed"}
    await lost.die(fleet.jobs)
    # As the dead worker had left it: a file of its attempt.
    key = f"{before[1].folder}/part-{min(own):05}-1-{'0' * 16}-ledger"
    lost.storage.held.clear()
    lost.storage.put(key, iter([b"x"]), content_type="text/csv", file_name="ledger", metadata=dict)
    holder.storage.gate.set()
    outcome = await fleet.outcome(job_id)
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))
    assert outcome.files is not None
    attempts = Counter(PART_ATTEMPT.findall(" ".join(file.key for file in outcome.files)))
    assert attempts == {"1": len(before) - len(own), "2": len(own)}
    assert done
    assert (await fleet.job(job_id)).attempt == 1


@pytest.mark.slow
@pytest.mark.parametrize("consistency", ["snapshot", "part"])
async def test_a_lost_holder(fleet: Fleet, consistency: str) -> None:
    """Without its snapshot all parts begin anew. Parts with snapshots of their own are kept."""
    holder, other = fleet.worker(slots=1), fleet.worker(slots=1)
    holder.storage.held = set(range(1, 100))
    holder.start(fleet.settings)
    job_id = await fleet.request(consistency=consistency)
    await until_async(lambda: holder.storage.waiting)
    other.storage.held = set(range(4, 100))
    other.start(fleet.settings)
    await until_async(lambda: other.storage.waiting)
    before = await fleet.parts(job_id)
    done = {row.result["files"][0]["key"] for row in before.values() if row.status == "completed"}
    assert done
    await holder.die(fleet.jobs)
    other.storage.gate.set()
    outcome = await fleet.outcome(job_id)
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))
    job = await fleet.job(job_id)
    assert (job.attempt, job.failures) == (2, 1)
    assert outcome.files is not None
    keys = {file.key for file in outcome.files}
    assert keys >= done if consistency == "part" else keys.isdisjoint(done)
    assert fleet.kinds(job_id)["export.completed"] == 1


async def test_a_lost_snapshot_counts_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_coordinator, "KEEP_ALIVE_SECONDS", 0)
    monkeypatch.setattr(part_coordinator, "POLL_SECONDS", 0.1)
    worker = fleet.worker()
    worker.storage.held = set(range(2, 100))
    worker.start(fleet.settings)
    job_id = await fleet.request()
    await until_async(lambda: worker.storage.waiting)
    ended = await fleet.database.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
        f"exporter {job_id} parts"[:63],
    )
    assert len(ended) == 1

    async def released() -> bool:
        job = await fleet.job(job_id)
        return (job.status, job.failures) == ("pending", 1)

    await until_async(released)
    worker.storage.gate.set()
    async with fleet.jobs.engine.begin() as connection:
        await connection.execute(text("UPDATE export_jobs SET not_before = NULL"))
    outcome = await fleet.outcome(job_id)
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))
    assert ((await fleet.job(job_id)).attempt, (await fleet.job(job_id)).failures) == (2, 1)


async def test_a_drain_releases_parts_and_jobs_without_counting(fleet: Fleet) -> None:
    holder, other = fleet.worker(slots=1), fleet.worker(slots=1)
    holder.start(fleet.settings)
    holder.storage.held = set(range(1, 100))
    job_id = await fleet.request()
    await until_async(lambda: holder.storage.waiting)
    other.storage.held = {2}
    other.start(fleet.settings)
    await until_async(lambda: other.storage.waiting)
    await other.dispatcher.drain(0)
    part = (await fleet.parts(job_id))[2]
    assert (part.status, part.failures) == ("pending", 0)
    await holder.dispatcher.drain(0)
    job = await fleet.job(job_id)
    assert (job.status, job.failures) == ("pending", 0)
    last = fleet.worker()
    last.start(fleet.settings)
    assert await fleet.ids(await fleet.outcome(job_id)) == list(range(1, ROWS + 1))


@pytest.mark.slow
async def test_columns_that_change_between_parts_fail_the_job(fleet: Fleet) -> None:
    worker = fleet.worker(slots=1)
    worker.storage.held = set(range(2, 100))
    worker.start(fleet.settings)
    job_id = await fleet.request(consistency="part")
    await until_async(lambda: 2 in worker.storage.waiting)
    await worker.die(fleet.jobs)
    worker.storage.gate.set()
    await fleet.database.execute(f"ALTER TABLE {fleet.dataset.table} ADD COLUMN late int")
    fleet.worker().start(fleet.settings)
    outcome = await fleet.outcome(job_id)
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("failed", "columns_changed")


async def test_connections_that_lead_to_several_servers_do_not_fail_the_job(fleet: Fleet) -> None:
    """The worker learns it from a part that does not find the snapshot, and does without parts."""
    fleet.settings = fleet.settings.model_copy(update={"max_attempts": 2})
    worker = fleet.worker(slots=1)
    runner = worker.dispatcher._part_runner
    (source,) = runner.exporter.sources.each()
    begin = source.snapshot

    def elsewhere(name: str, **options: Any) -> Any:
        lost = {"shared": "00000000-00000000-1"} if options.get("shared") else {}
        return begin(name, **options | lost)

    source.snapshot = elsewhere  # type: ignore[method-assign]
    worker.start(fleet.settings)
    job_id = await fleet.request(split={"rows": 600})
    await until_async(partial(_has_ended_without_delays, fleet, job_id))
    outcome = await fleet.outcome(job_id)
    assert (outcome.status, outcome.file_count) == ("completed", 4)
    assert ((await fleet.job(job_id)).attempt, (await fleet.job(job_id)).failures) == (2, 1)
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))


async def test_no_transaction_is_open_while_the_manifest_is_written_and_an_outage_costs_no_part(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = fleet.worker()
    tries: list[list[str]] = []

    def write(*arguments: Any) -> ExportResult:
        sessions = asyncio.run_coroutine_threadsafe(
            fleet.database.fetch(
                "SELECT application_name AS name FROM pg_stat_activity WHERE xact_start IS NOT NULL"
            ),
            loop,
        )
        tries.append([row["name"] for row in sessions.result() if str(job_id) in row["name"]])
        if len(tries) == 1:
            raise Outage("object store: away")
        return write_combined(*arguments)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(part_coordinator, "write_combined", write)
    job_id = await fleet.request()
    worker.start(fleet.settings)
    outcome = await fleet.outcome(job_id)
    assert tries == [[], []]
    assert (await fleet.job(job_id)).attempt == 1
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))


async def test_a_change_of_the_table_does_not_wait_for_parts_that_wait_for_it(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change comes before the parts, and waits for the holder, which waits for the parts."""
    monkeypatch.setattr(source_module, "SHARED_LOCK_SECONDS", 0.5)
    worker = fleet.worker(slots=1)
    worker.storage.held = {1}
    worker.start(fleet.settings)
    job_id = await fleet.request()
    await until_async(lambda: worker.storage.waiting)
    change = asyncio.create_task(
        fleet.database.execute(f"ALTER TABLE {fleet.dataset.table} ALTER COLUMN value SET DEFAULT 'x'")
    )
    watcher = await asyncpg.connect(fleet.settings.source_dsn)

    async def waits() -> bool:
        return bool(
            await watcher.fetchval(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::text::regclass",
                fleet.dataset.table,
            )
        )

    await until_async(waits, otherwise=lambda: change)
    await watcher.close()
    worker.storage.gate.set()
    async with at_most(20):
        await change
    outcome = await fleet.outcome(job_id)
    assert outcome.status == "completed"
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))
    assert ((await fleet.job(job_id)).attempt, (await fleet.job(job_id)).failures) == (2, 1)
