"""A large split export on two workers, one of which is killed: only its parts are done again."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from dev.stack import Stack
from streaming_exporter.events import Event, EventType, ExportRequest, Split, request_event
from tests.chaos.supervisor import Supervisor
from tests.chaos.system_client import SystemClient, has_ended
from tests.e2e.tables import psql
from tests.waiting import patient, until_async

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

ROWS = 120_000
FILE_ROWS = 150

TABLE = f"""
    CREATE TABLE chaos.readings (id bigint PRIMARY KEY, value text NOT NULL);
    INSERT INTO chaos.readings SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, {ROWS}) n;
    GRANT SELECT ON chaos.readings TO PUBLIC;
    ANALYZE chaos.readings;
"""

SETTINGS = {
    "EXPORTER_LEASE_SECONDS": f"{patient(6):g}",  # a worker that lives renews in time also on a busy machine
    "EXPORTER_WORKER_SLOTS": "1",
    "EXPORTER_USER_SLOTS": "4",
    "EXPORTER_PARTS_MIN_BYTES": str(2**20),
}

ATTEMPT = re.compile(r"/part-([0-9]{5})-([0-9]+)-")


@pytest.fixture(scope="module")
def settings(stack: Stack, datasets: dict[str, str]) -> dict[str, str]:
    """The settings of workers that export the table of this module."""
    psql(stack, TABLE)
    file = stack.run_dir / "chaos-parts.toml"
    file.write_text('[datasets.readings]\ntable = "chaos.readings"\norder = ["id"]\n')
    return SETTINGS | datasets | {"EXPORTER_DATASETS_FILE": str(file)}


def requested(consistency: str) -> Event:
    request = ExportRequest.parse(
        {
            "user_id": f"user of {consistency}",
            "export_type": "readings",
            "format": "csv",
            "scope": "all",
            "split": Split(rows=FILE_ROWS).model_dump(exclude_none=True),
            "consistency": consistency,
        }
    )
    return request_event(request, source="/t")


async def parts(client: SystemClient, job_id: UUID) -> list[Mapping[str, Any]]:
    return await client.fetch("SELECT * FROM export_parts WHERE job_id = $1 ORDER BY number", job_id)


async def both_at_work(client: SystemClient, job_id: UUID, dying: str) -> list[Mapping[str, Any]]:
    """Wait until some parts are completed and the worker that will die runs one; return the parts."""
    found: list[Mapping[str, Any]] = []

    async def look() -> bool:
        found[:] = await parts(client, job_id)
        running = {row["worker"] for row in found if row["status"] == "processing"}
        return dying in running and any(row["status"] == "completed" for row in found)

    await until_async(look, every=0.02)
    return found


async def killed_at_work(
    client: SystemClient, workers: Supervisor, job_id: UUID, dying: str
) -> list[Mapping[str, Any]]:
    """Kill the worker while it runs a part; return the parts that it leaves.

    A worker runs no part for a moment after each one. So it is frozen first, until it is seen with a part.
    """
    number = workers.names().index(dying)
    while True:
        await both_at_work(client, job_id, dying)
        pid = await asyncio.to_thread(workers.freeze, number)
        left = await parts(client, job_id)
        if any((row["worker"], row["status"]) == (dying, "processing") for row in left):
            await asyncio.to_thread(workers.kill, number)
            return left
        workers.thaw(pid)


async def finished(client: SystemClient, job_id: UUID) -> tuple[Mapping[str, Any], list[str]]:
    """Wait for the end, check the files, and return the job and the keys of its files."""
    job = (await client.until([job_id], has_ended, within=90))[job_id]
    assert job["status"] == "completed", job["error_message"]
    files = await client.fetch("SELECT * FROM export_files WHERE job_id = $1 ORDER BY number", job_id)
    assert [file["number"] for file in files] == list(range(1, len(files) + 1))
    ids: list[int] = []
    for file in files:
        content = await asyncio.to_thread(client.storage.read, file["key"])
        found = [int(line.partition(",")[0]) for line in content.decode().splitlines()[1:]]
        assert len(found) == file["row_count"] <= FILE_ROWS
        ids += found
    assert ids == list(range(1, ROWS + 1))
    told = (await client.history([job_id]))[job_id]
    assert Counter(event.type for event in told)[EventType.COMPLETED] == 1
    assert await parts(client, job_id) == []
    keys = [file["key"] for file in files]
    objects = [found for page in client.storage.listing.pages(job_id) for found in page]
    assert {found.key for found in objects} == {job["file_path"], *keys}
    assert not any(found.upload_id for found in objects)
    return job, keys


async def test_a_killed_worker_costs_its_parts(stack: Stack, settings: dict[str, str]) -> None:
    workers = await asyncio.to_thread(Supervisor, stack, 2, settings)
    with workers:
        async with SystemClient(stack) as client:
            request = requested("snapshot")
            await client.publish(request)
            job = (await client.until([request.job_id], lambda job: bool(job["worker"]), within=60))[
                request.job_id
            ]
            dying = next(name for name in workers.names() if name != job["worker"])
            left = await killed_at_work(client, workers, request.job_id, dying)
            job, keys = await finished(client, request.job_id)
    assert (job["attempt"], job["failures"]) == (1, 0)
    lost = {row["number"] for row in left if (row["worker"], row["status"]) == (dying, "processing")}
    assert len(lost) == 1  # the dead worker had one slot
    attempts = {int(found[1]): int(found[2]) for key in keys if (found := ATTEMPT.search(key))}
    assert attempts == {row["number"]: 2 if row["number"] in lost else 1 for row in left}


@pytest.mark.parametrize("consistency", ["snapshot", "part"])
async def test_a_killed_holder(stack: Stack, settings: dict[str, str], consistency: str) -> None:
    """Without its snapshot all parts begin anew. Completed parts with snapshots of their own are kept."""
    workers = await asyncio.to_thread(Supervisor, stack, 2, settings)
    with workers:
        async with SystemClient(stack) as client:
            request = requested(consistency)
            await client.publish(request)
            job = (await client.until([request.job_id], lambda job: bool(job["worker"]), within=60))[
                request.job_id
            ]
            before = await both_at_work(client, request.job_id, job["worker"])
            await asyncio.to_thread(workers.kill, workers.names().index(job["worker"]))
            job, keys = await finished(client, request.job_id)
    assert (job["attempt"], job["failures"]) == (2, 1)
    done = {file["key"] for row in before if row["result"] for file in _files(row["result"])}
    assert done
    assert set(keys) >= done if consistency == "part" else done.isdisjoint(keys)


def _files(result: str) -> list[dict[str, Any]]:
    return json.loads(result)["files"]  # type: ignore[no-any-return]
