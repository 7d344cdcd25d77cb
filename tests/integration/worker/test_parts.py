"""A large split export is done in parts by any worker, and ends once, whatever happens to the workers."""

import asyncio
import hashlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event as Gate
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.datasets.models import Dataset
from stream_app.db.listener import listen
from stream_app.exports import part_planner
from stream_app.exports import source as source_module
from stream_app.exports.catalog import Catalog
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.part_planner import PartPlanner
from stream_app.exports.part_results import write_combined
from stream_app.exports.pipeline import Exporter
from stream_app.exports.source import Source
from stream_app.exports.task import ExportedFile, ExportLimits, ExportResult
from stream_app.jobs.job_files import JobFiles
from stream_app.jobs.models import ExportJob
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore, StoredObject
from stream_app.worker import part_coordinator
from stream_app.worker.attempt import StopReason
from stream_app.worker.dispatcher import Dispatcher
from streaming_exporter.errors import Outage, Rejected, Retryable
from streaming_exporter.events import Event, LifecycleData
from tests.integration.jobs.jobs import Jobs
from tests.waiting import at_most, until_async

ROWS = 40_000
ROW_BYTES = 250
PARTS = 8
PART = re.compile(r"part-([0-9]{5})-")
PART_ATTEMPT = re.compile(r"part-[0-9]{5}-([0-9]+)-")


class Store(ObjectStore):
    """A store in which the uploads of chosen parts wait until they are allowed, or fail."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.held: set[int] = set()
        self.refused: set[int] = set()
        self.waiting: set[int] = set()
        self.gate = Gate()

    def put(self, key: str, chunks: Iterator[bytes], **options: Any) -> StoredObject:
        found = PART.search(key)
        number = int(found[1]) if found else 0
        if number in self.refused:
            raise Rejected("no such file", code="refused")
        if number in self.held:
            self.waiting.add(number)
            while not self.gate.wait(0.02):
                if options["stopped"].is_set():
                    raise Retryable("stopped")
        return super().put(key, chunks, **options)


@dataclass
class Worker:
    """A worker in this process."""

    dispatcher: Dispatcher
    storage: Store
    sources: list[Source]
    threads: ThreadPoolExecutor
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    def start(self, settings: Settings) -> None:
        name = self.dispatcher.worker
        self.tasks = [
            asyncio.create_task(self.dispatcher.work()),
            asyncio.create_task(self.dispatcher.heartbeat()),
            asyncio.create_task(listen(settings, self.dispatcher.wake, application=name)),
        ]

    async def die(self) -> None:
        """End as a killed process does: nothing is released, and no heartbeat comes."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for attempt in self.dispatcher._current:
            attempt.end(StopReason.LEASE_LOST)
        await until_async(lambda: not self.dispatcher.running)

    async def stop(self) -> None:
        self.storage.gate.set()
        await self.dispatcher.drain(0)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for source in self.sources:
            await source.close()
        self.threads.shutdown(wait=False)
        self.storage.close()


@dataclass
class Fleet:
    """Workers that share a state database, a source table and a bucket."""

    jobs: Jobs
    settings: Settings
    dataset: Dataset
    database: asyncpg.Connection
    published: list[Event] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    def worker(self, *, slots: int = 2, connections: int = 4, user_slots: int = 4) -> Worker:
        settings = self.settings.model_copy(update={"worker_slots": slots, "user_slots": user_slots})
        storage = Store(settings)
        source, holders = Source(settings, connections=connections), Source(settings, connections=3)
        threads = ThreadPoolExecutor(slots)
        exporter = Exporter(
            source,
            Catalog(source),
            storage,
            {self.dataset.name: self.dataset},
            FORMATS,
            ExportLimits.of(settings),
            threads,
        )

        async def emit(event: Event) -> None:
            self.published.append(event)

        jobs = Jobs(self.jobs.engine, lease=timedelta(seconds=settings.lease_seconds), user_slots=user_slots)
        dispatcher = Dispatcher(
            worker=f"w{len(self.workers) + 1}",
            store=jobs.store,
            exporter=exporter,
            emit=emit,
            settings=settings,
            planner=PartPlanner(exporter, holders, 2**20),
        )
        worker = Worker(dispatcher, storage, [source, holders], threads)
        self.workers.append(worker)
        return worker

    async def request(self, **request: Any) -> UUID:
        values: dict[str, Any] = {"split": {"rows": 1_000_000}, "scope": "all", **request}
        job_id = uuid4()
        await self.jobs.admit_again(job_id, export_type="ledger", format="csv", **values)
        return job_id

    async def parts(self, job_id: UUID) -> dict[int, Any]:
        async with self.jobs.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT * FROM export_parts WHERE job_id = :id"), {"id": job_id}
            )
            return {row.number: row for row in found}

    async def job(self, job_id: UUID) -> ExportJob:
        found = await self.jobs.queries.get(job_id)
        assert found is not None
        return found

    async def outcome(self, job_id: UUID) -> LifecycleData:
        """Wait for the sealed outcome, and apply it."""

        async def look() -> bool:
            return (await self.job(job_id)).outcome is not None

        await until_async(look, otherwise=lambda: self.published)
        outcome = LifecycleData.model_validate((await self.job(job_id)).outcome)
        await until_async(lambda: not any(worker.dispatcher._attempts for worker in self.workers))
        assert await self.jobs.apply(outcome)
        return outcome

    def kinds(self, job_id: UUID) -> Counter[str]:
        return Counter(event.type for event in self.published if event.job_id == job_id)

    async def ids(self, outcome: LifecycleData) -> list[int]:
        """Check the files and their list, and return the ids of all rows in their order."""
        storage = self.workers[0].storage
        manifest = json.loads(await asyncio.to_thread(storage.read, str(outcome.key)))
        assert outcome.files is not None
        assert outcome.file_count == len(outcome.files) == len(manifest["files"])
        assert [file["file_name"] for file in manifest["files"]] == [
            f"ledger-{outcome.as_of:%Y-%m-%d}-{number:05}.csv" for number in range(1, outcome.file_count + 1)
        ]
        found: list[int] = []
        for file in outcome.files:
            content = await asyncio.to_thread(storage.read, file.key)
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file.file_size, file.sha256)
            header, *lines = content.decode().splitlines()
            assert header == "id,value"
            assert len(lines) == file.row_count
            found += [int(line.partition(",")[0]) for line in lines]
        assert outcome.row_count == len(found) == manifest["rows"]
        expected = {str(outcome.key), *(file.key for file in outcome.files)}

        def is_alone() -> bool:
            return expected == {found.key for page in storage.listing.pages(outcome.job_id) for found in page}

        # A part that was stopped in the middle of an upload removes its object afterwards.
        assert await until_async(is_alone)
        assert storage.open_uploads(outcome.job_id) == []
        return found


@pytest.fixture
async def fleet(engine: AsyncEngine, own_settings: Settings, source_dsn: str) -> AsyncIterator[Fleet]:
    """No worker yet, and a table of ten megabytes."""
    name = f"test_{uuid4().hex[:12]}"
    database = await asyncpg.connect(source_dsn)
    await database.execute(f"CREATE SCHEMA {name}; GRANT USAGE ON SCHEMA {name} TO PUBLIC")
    await database.execute(
        f"""
        CREATE TABLE {name}.things (id int PRIMARY KEY, value text);
        INSERT INTO {name}.things
        SELECT n, repeat('x', {ROW_BYTES}) FROM generate_series(1, {ROWS}) AS n;
        GRANT SELECT ON {name}.things TO PUBLIC;
        ANALYZE {name}.things
        """
    )
    settings = own_settings.model_copy(update={"lease_seconds": 3})
    dataset = Dataset(name="ledger", table=f"{name}.things", order=("id",))
    made = Fleet(Jobs(engine), settings, dataset, database)
    yield made
    for worker in made.workers:
        await worker.stop()
    await database.execute(f"DROP SCHEMA {name} CASCADE")
    await database.close()


async def test_two_workers_share_the_parts_of_an_export(fleet: Fleet) -> None:
    workers = [fleet.worker(), fleet.worker()]
    for worker in workers:
        worker.start(fleet.settings)
    for worker in workers:
        worker.storage.held = set(range(1, 3))
    job_id = await fleet.request()

    async def both_work() -> bool:
        return len({row.worker for row in (await fleet.parts(job_id)).values() if row.worker}) == 2

    await until_async(both_work)
    # What is committed later is in no file.
    table = fleet.dataset.table
    await fleet.database.execute(f"INSERT INTO {table} VALUES ({ROWS + 1}, 'late'), (0, 'late')")
    await fleet.database.execute(f"DELETE FROM {table} WHERE id > {ROWS - 100}")
    for worker in workers:
        worker.storage.gate.set()
    outcome = await fleet.outcome(job_id)
    assert outcome.file_count is not None
    assert outcome.file_count >= PARTS
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))
    assert fleet.kinds(job_id)["export.completed"] == 1
    assert (await fleet.job(job_id)).attempt == 1
    assert await fleet.parts(job_id) == {}


async def test_one_slot_is_enough(fleet: Fleet) -> None:
    """The holder needs neither a slot of its worker nor one of its user, nor a connection of exports."""
    worker = fleet.worker(slots=1, connections=1, user_slots=1)
    worker.start(fleet.settings)
    job_id = await fleet.request(options={"compression": "none"})
    outcome = await fleet.outcome(job_id)
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))


async def test_each_file_of_a_part_has_the_size_that_was_asked_for(fleet: Fleet) -> None:
    fleet.worker().start(fleet.settings)
    outcome = await fleet.outcome(await fleet.request(split={"rows": 1_000}))
    assert outcome.files is not None
    assert max(file.row_count for file in outcome.files) == 1_000
    assert len(outcome.files) >= ROWS / 1_000
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))


async def test_rows_without_an_order_are_cut_at_pages(fleet: Fleet) -> None:
    fleet.dataset = fleet.dataset.model_copy(update={"order": None})
    fleet.worker().start(fleet.settings)
    job_id = await fleet.request(filters={"id": {"gt": 10}})
    outcome = await fleet.outcome(job_id)
    assert outcome.file_count is not None
    assert outcome.file_count >= PARTS
    assert sorted(await fleet.ids(outcome)) == list(range(11, ROWS + 1))


async def test_the_rows_of_parts_are_shown_as_progress(fleet: Fleet) -> None:
    worker = fleet.worker(slots=1)
    worker.storage.held = {PARTS}
    worker.start(fleet.settings)
    job_id = await fleet.request()

    async def most_rows() -> bool:
        return ((await fleet.job(job_id)).row_count or 0) > ROWS / 2

    await until_async(most_rows)
    assert (await fleet.job(job_id)).estimated_rows == pytest.approx(ROWS, rel=0.1)
    worker.storage.gate.set()
    await fleet.outcome(job_id)
    assert fleet.kinds(job_id)["export.progressed"] > 0


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


async def test_the_time_limit_holds_for_the_whole_export(fleet: Fleet) -> None:
    fleet.settings = fleet.settings.model_copy(update={"export_timeout_seconds": 2})
    worker = fleet.worker()
    worker.storage.held = {1}
    worker.start(fleet.settings)
    outcome = await fleet.outcome(await fleet.request())
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("failed", "timeout")


@pytest.mark.slow
async def test_a_holder_whose_list_of_files_comes_too_late_changes_nothing(fleet: Fleet) -> None:
    """Another holder has listed the same kept files; without its list they would count as left over."""
    worker = fleet.worker(slots=1)
    worker.storage.held = set(range(1, 100))
    worker.start(fleet.settings)
    job_id = await fleet.request(consistency="part")
    await until_async(lambda: worker.storage.waiting)
    late = worker.dispatcher._attempts[job_id].claim
    await worker.die()
    worker.storage.gate.set()
    fleet.worker().start(fleet.settings)
    outcome = await fleet.outcome(job_id)
    files = tuple(await listed(fleet, outcome))
    result = ExportResult(1, 1, "x", "b", "late/manifest.json", "t", "n", late.started_at, {}, files)
    await fleet.jobs.store.record_files(late, result)
    assert tuple(await listed(fleet, outcome)) == files != ()


async def listed(fleet: Fleet, outcome: LifecycleData) -> list[ExportedFile]:
    job = await fleet.job(outcome.job_id)
    return list(await JobFiles(fleet.jobs.engine, AsyncMock()).list(job, limit=1_000))


async def test_a_small_export_has_no_parts(fleet: Fleet) -> None:
    fleet.worker().start(fleet.settings)
    outcome = await fleet.outcome(await fleet.request(filters={"id": {"lte": 10}}, split={"rows": 4}))
    assert outcome.file_count == 3
    assert outcome.files is not None
    assert PART.search(outcome.files[0].key) is None


async def test_a_lost_worker_costs_its_parts(fleet: Fleet) -> None:
    holder, lost = fleet.worker(slots=1), fleet.worker(slots=1)
    holder.start(fleet.settings)
    holder.storage.held = set(range(1, 100))
    job_id = await fleet.request()
    await until_async(lambda: holder.storage.waiting)
    lost.start(fleet.settings)
    lost.storage.held = set(range(4, 100))
    await until_async(lambda: lost.storage.waiting)
    before = await fleet.parts(job_id)
    own = {number for number, row in before.items() if row.worker == "w2" and row.status == "processing"}
    done = {number for number, row in before.items() if row.status == "completed"}
    assert own
    await lost.die()
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


async def test_a_cancellation_reaches_every_part_in_two_seconds(fleet: Fleet) -> None:
    workers = [fleet.worker(), fleet.worker()]
    for worker in workers:
        worker.storage.held = set(range(2, 100))
        worker.start(fleet.settings)
    job_id = await fleet.request()
    await until_async(lambda: all(worker.storage.waiting for worker in workers))
    await fleet.jobs.cancel(job_id)
    async with at_most(2):
        await until_async(lambda: not any(worker.dispatcher.running for worker in workers))
    outcome = await fleet.outcome(job_id)
    assert outcome.status == "cancelled"
    assert fleet.kinds(job_id)["export.cancelled"] == 1
    assert await fleet.parts(job_id) == {}
    await until_async(lambda: not [page for page in workers[0].storage.listing.pages(job_id) if page])


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
    await holder.die()
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


async def test_a_part_that_cannot_succeed_fails_the_job_once(fleet: Fleet) -> None:
    workers = [fleet.worker(), fleet.worker()]
    for worker in workers:
        worker.storage.refused = {3}
        worker.start(fleet.settings)
    job_id = await fleet.request()
    outcome = await fleet.outcome(job_id)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.message) == ("refused", "no such file")
    assert fleet.kinds(job_id)["export.failed"] == 1
    await until_async(lambda: not any(worker.dispatcher.running for worker in workers))
    await until_async(lambda: not [page for page in workers[0].storage.listing.pages(job_id) if page])


@pytest.mark.slow
async def test_columns_that_change_between_parts_fail_the_job(fleet: Fleet) -> None:
    worker = fleet.worker(slots=1)
    worker.storage.held = set(range(2, 100))
    worker.start(fleet.settings)
    job_id = await fleet.request(consistency="part")
    await until_async(lambda: 2 in worker.storage.waiting)
    await worker.die()
    worker.storage.gate.set()
    await fleet.database.execute(f"ALTER TABLE {fleet.dataset.table} ADD COLUMN late int")
    fleet.worker().start(fleet.settings)
    outcome = await fleet.outcome(job_id)
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("failed", "columns_changed")


async def test_too_many_files_end_the_job_before_all_parts_are_written(fleet: Fleet) -> None:
    fleet.settings = fleet.settings.model_copy(update={"split_max_files": 30})
    worker = fleet.worker(slots=1)
    worker.storage.held = {PARTS}
    worker.start(fleet.settings)
    outcome = await fleet.outcome(await fleet.request(split={"rows": 300}))
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("failed", "too_many_files")


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
    job_id = await fleet.request(split={"rows": 10_000})

    async def due() -> bool:
        async with fleet.jobs.engine.begin() as connection:
            for table in ("export_jobs", "export_parts"):
                await connection.execute(text(f"UPDATE {table} SET not_before = NULL"))
        return (await fleet.job(job_id)).outcome is not None

    await until_async(due)
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
