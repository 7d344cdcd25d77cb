"""A large split export is done in parts by any worker: order, files, progress and limits."""

import asyncio
import io
import re

import pytest
import pyzipper
import structlog

from stream_app.exports.sources import source as source_module
from tests.integration.worker.parts_fleet import (
    PART,
    PARTS,
    PASSWORDS,
    ROWS,
    Fleet,
)
from tests.waiting import WITHIN, at_most, patient, until_async


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
    outcome = await fleet.outcome(await fleet.request(split={"rows": 100}))
    assert outcome.files is not None
    assert max(file.row_count for file in outcome.files) == 100
    assert len(outcome.files) >= ROWS / 100
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))


async def test_archives_can_be_unpacked_into_one_folder(fleet: Fleet) -> None:
    """The names inside differ, although each part numbers its files from 1."""
    worker = fleet.worker()
    worker.start(fleet.settings)
    job_id = await fleet.request(split={"rows": 200}, encrypt={"zip_password": True})
    outcome = await fleet.outcome(job_id)
    assert outcome.files is not None
    unpacked: dict[str, bytes] = {}
    for file in outcome.files:
        content = await asyncio.to_thread(worker.storage.read, file.key)
        with pyzipper.AESZipFile(io.BytesIO(content)) as archive:
            archive.setpassword(PASSWORDS(str(job_id)).encode())
            [name] = archive.namelist()
            unpacked[name] = archive.read(name)
    assert len(unpacked) == outcome.file_count == len(outcome.files)
    assert list(unpacked) == sorted(unpacked), "the names are in the order of the rows"
    lines = [line for content in unpacked.values() for line in content.decode().splitlines()[1:]]
    assert [int(line.partition(",")[0]) for line in lines] == list(range(1, ROWS + 1))


@pytest.mark.parametrize("consistency", ["snapshot", "part"])
async def test_each_part_is_read_over_several_connections(
    fleet: Fleet, consistency: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share the snapshot that the part has taken from the holder, or its own."""
    monkeypatch.setattr(source_module, "JOIN_SECONDS", patient(WITHIN))  # none is left out on a busy machine
    fleet.worker(connections=8, streams=3).start(fleet.settings)
    with structlog.testing.capture_logs() as logs:
        outcome = await fleet.outcome(await fleet.request(consistency=consistency))
    assert await fleet.ids(outcome) == list(range(1, ROWS + 1))
    assert sum(line["event"] == "export.cut" for line in logs) == PARTS
    assert not any("refused" in line["event"] for line in logs)


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


async def test_the_time_limit_holds_for_the_whole_export(fleet: Fleet) -> None:
    fleet.settings = fleet.settings.model_copy(update={"export_timeout_seconds": round(patient(2))})
    worker = fleet.worker()
    worker.storage.held = {1}
    worker.start(fleet.settings)
    outcome = await fleet.outcome(await fleet.request())
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("failed", "timeout")
    assert re.search(rf"[0-9] of {PARTS} parts were completed", outcome.error.message)
    assert "EXPORTER_EXPORT_TIMEOUT_SECONDS" in outcome.error.message


async def test_the_time_limit_includes_the_planning(fleet: Fleet) -> None:
    fleet.settings = fleet.settings.model_copy(update={"export_timeout_seconds": 2})
    fleet.worker(planning_seconds=2.5).start(fleet.settings)
    outcome = await fleet.outcome(await fleet.request())
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("failed", "timeout")


async def test_a_small_export_has_no_parts(fleet: Fleet) -> None:
    fleet.worker().start(fleet.settings)
    outcome = await fleet.outcome(await fleet.request(filters={"id": {"lte": 10}}, split={"rows": 4}))
    assert outcome.file_count == 3
    assert outcome.files is not None
    assert PART.search(outcome.files[0].key) is None


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


async def test_too_many_files_end_the_job_before_all_parts_are_written(fleet: Fleet) -> None:
    fleet.settings = fleet.settings.model_copy(update={"split_max_files": 30})
    worker = fleet.worker(slots=1)
    worker.storage.held = {PARTS}
    worker.start(fleet.settings)
    outcome = await fleet.outcome(await fleet.request(split={"rows": 30}))
    assert outcome.error is not None
    assert (outcome.status, outcome.error.code) == ("failed", "too_many_files")
