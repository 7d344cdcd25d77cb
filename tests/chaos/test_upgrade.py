"""An upgrade while jobs run: workers of the previous version and of this version work side by side.

The wheels of the previous version (``previous/*.whl``, see ``make previous``) have its code, migrations and
models. They are unpacked and run with the libraries of this version. So the tests prove that its programs
work before, during and after the new migrations, beside the new programs, and after a downgrade; that each
version can continue jobs of the other; and that each job is done once. They do not prove that the previous
version works with its original libraries, or that an upgrade can skip a version.
"""

import asyncio
import itertools
import socket
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic import command

from dev.app_process import AppProcess
from dev.postgres import SOURCE
from dev.process import Child
from dev.stack import ROOT, Stack
from stream_app.db.migrations import config, missing
from streaming_exporter.events import ExportRequest, request_event
from streaming_exporter.kafka_connection import ensure_topics
from tests.chaos.conftest import prepare
from tests.chaos.items import COLUMNS, DATASETS, GATED_ROWS, SLOW_ROWS_A_SECOND, Source
from tests.chaos.plan import PlannedJob
from tests.chaos.system_client import SystemClient, has_ended
from tests.chaos.verdict import wrong_files, wrong_histories, wrong_objects
from tests.gate import Gate
from tests.log_files import logged
from tests.waiting import until_async

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

WHEELS = sorted((Path(__file__).parent / "previous").glob("*.whl"))

SETTINGS = {
    "EXPORTER_DRAIN_SECONDS": "0.5",
    "EXPORTER_WORKER_SLOTS": "2",
    "EXPORTER_USER_SLOTS": "2",
}
EACH = 3
"""Jobs that a worker must complete before the next step of the upgrade."""

WAIT_SECONDS = 120.0
"""Limit of a step in seconds, for busy machines."""

WAITING = 8
UNFINISHED = "SELECT FROM export_jobs WHERE status IN ('pending', 'processing')"


@pytest.fixture(scope="module")
def datasets(stack: Stack) -> dict[str, str]:
    """The settings with a datasets file that both versions can read."""
    prepare(stack)
    path = stack.run_dir / "upgrade-datasets.toml"
    path.write_text(DATASETS)
    return {"EXPORTER_DATASETS_FILE": str(path)}


class Worker(AppProcess):
    """A worker that runs from ``code``, a folder with the packages."""

    def __init__(self, stack: Stack, name: str, code: Path, settings: dict[str, str]) -> None:
        env = {**stack.environment(), **SETTINGS, **settings, "PYTHONPATH": str(code)}
        super().__init__(name, ["stream_app"], env, stack.run_dir)
        self._code = code

    def begin(self) -> None:
        """Start the worker without waiting."""
        self._child = Child(self.name, self._argv, self.log, env=self._env, cwd=self._code)

    def start(self) -> None:
        self.begin()
        self.child.wait_until(self.is_ready, WAIT_SECONDS)

    def result(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run one command of this worker's version to its end."""
        return subprocess.run(
            [sys.executable, "-m", "stream_app", *arguments],
            env=self._env,
            cwd=self._code,
            capture_output=True,
            text=True,
        )

    def run(self, *arguments: str) -> None:
        """Run one command of this worker's version, which succeeds."""
        done = self.result(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def lines(self) -> list[dict[str, Any]]:
        """Return all lines of its log."""
        return logged(self.log)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log with this event."""
        return [line for line in self.lines() if line["event"] == event]

    @property
    def worker_name(self) -> str:
        """The name of the running worker in the records of its jobs."""
        return f"{socket.gethostname()}-{self.pid}"

    async def runs_one_of(self, client: SystemClient, ids: set[UUID]) -> bool:
        """Return whether this worker holds one of the jobs."""
        return any(job["worker"] == self.worker_name for job in (await client.jobs(ids)).values())

    async def works(self, client: SystemClient, since: set[UUID]) -> None:
        """Wait until this worker has completed :data:`EACH` jobs besides ``since``."""
        taken: set[UUID] = set()

        async def look() -> bool:
            held = await client.fetch("SELECT id FROM export_jobs WHERE worker = $1", self.worker_name)
            taken.update({row["id"] for row in held} - since)
            jobs = await client.jobs(taken)
            return [job["status"] for job in jobs.values()].count("completed") >= EACH

        await until_async(look, within=WAIT_SECONDS, otherwise=self.child.tail)


@pytest.fixture
def previous(stack: Stack, tmp_path: Path) -> Path:
    """The previous version's code."""
    assert WHEELS
    for path in WHEELS:
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(tmp_path)
    return tmp_path


@pytest.fixture
async def no_tables(stack: Stack) -> AsyncIterator[None]:
    """Remove all tables of the state database. After the test they are migrated again."""
    async with SystemClient(stack) as client:
        await ensure_topics(client.settings)
        await asyncio.to_thread(command.downgrade, config(client.settings), "base")
        yield
        await asyncio.to_thread(command.upgrade, config(client.settings), "head")


@pytest.fixture
def workers(stack: Stack) -> Iterator[list[Worker]]:
    """A list of workers, which are ended after the test."""
    made: list[Worker] = []
    yield made
    for worker in made:
        worker.kill()


def order_of(number: int, *, seconds: float | None) -> PlannedJob:
    """Return an export that takes ``seconds``, or until the gate is opened."""
    last = GATED_ROWS if seconds is None else int(seconds * SLOW_ROWS_A_SECOND)
    request = ExportRequest(
        user_id=f"u{number % 5}",
        export_type="gated" if seconds is None else "slow",
        format=("csv", "ndjson")[number % 2],
        scope="all",
        filters={"id": {"lte": last}},
        columns=list(COLUMNS),
    )
    return PlannedJob(0, request_event(request, source="/t").job_id, request, last)


async def ask(client: SystemClient, order: PlannedJob) -> PlannedJob:
    await client.publish(request_event(order.request, job_id=order.job_id, source="/t"))
    return order


async def long_jobs(client: SystemClient, worker: Worker, orders: list[PlannedJob]) -> None:
    """Request jobs that last until the gate is opened, three or more, until ``worker`` runs one of them.

    Another worker can run more of them than it has slots, because they wait for their source.
    """
    long: list[PlannedJob] = []
    while len(long) < 3 or not await worker.runs_one_of(client, known(long)):
        long.append(await ask(client, order_of(len(long), seconds=None)))
        orders.append(long[-1])
        await client.until(known(long), lambda job: job["status"] == "processing", within=WAIT_SECONDS)


@asynccontextmanager
async def flow(client: SystemClient) -> AsyncIterator[list[PlannedJob]]:
    """Submit jobs during the block, of which some take several seconds, so that a few always wait."""
    orders: list[PlannedJob] = []

    async def few_wait() -> bool:
        return len(await client.fetch(UNFINISHED)) < WAITING

    async def publish() -> None:
        for number in itertools.count():
            orders.append(await ask(client, order_of(number, seconds=2 if number % 12 == 11 else 0.2)))
            await until_async(few_wait, within=WAIT_SECONDS)

    publishing = asyncio.create_task(publish())
    try:
        yield orders
    finally:
        publishing.cancel()
        await asyncio.wait({publishing})
    assert publishing.cancelled()


async def revision(client: SystemClient) -> str:
    (row,) = await client.fetch("SELECT version_num FROM alembic_version")
    return str(row["version_num"])


async def judge(client: SystemClient, source: Source, orders: Sequence[PlannedJob]) -> None:
    """Check that every job was done once and has the right file."""
    ids = [order.job_id for order in orders]
    jobs = await client.until(ids, has_ended, within=WAIT_SECONDS)
    assert {job["status"] for job in jobs.values()} == {"completed"}
    assert {job["failures"] for job in jobs.values()} == {0}
    assert await wrong_files(client, source, orders, jobs) == []
    files, uploads = await asyncio.to_thread(client.objects)
    assert wrong_objects(jobs, [key for key in files if UUID(key.split("/")[1]) in jobs], uploads) == []
    assert wrong_histories(jobs, await client.history(ids)) == []


async def test_a_worker_that_starts_before_the_migration_waits_for_the_tables(
    stack: Stack, source: Source, datasets: dict[str, str], no_tables: None, workers: list[Worker]
) -> None:
    workers.append(worker := Worker(stack, "early", ROOT, datasets))
    async with SystemClient(stack) as client:
        order = await ask(client, order_of(0, seconds=0.1))
        worker.begin()
        lacking = "run `exporter migrate`; it lacks 0001"
        await until_async(
            lambda: any(lacking in reason for reason in waiting_for(worker)), within=WAIT_SECONDS
        )
        assert not worker.is_ready()
        assert worker.running
        await asyncio.to_thread(stack.run, "migrate")
        await asyncio.to_thread(worker.child.wait_until, worker.is_ready, WAIT_SECONDS)
        await judge(client, source, [order])


async def test_the_migration_of_the_previous_version_leaves_newer_tables_as_they_are(
    stack: Stack, datasets: dict[str, str], previous: Path, no_tables: None
) -> None:
    """As docs/operations.md says: that of 0.1.0 and 0.2.0 fails there, and later ones end with 0."""
    (version,) = {path.name.split("-")[1] for path in WHEELS}
    is_aware = tuple(map(int, version.split("."))) > (0, 2, 0)
    await asyncio.to_thread(stack.run, "migrate")
    done = await asyncio.to_thread(Worker(stack, "old", previous, datasets).result, "migrate")
    assert (done.returncode == 0) == is_aware
    assert ("Can't locate revision" in done.stdout + done.stderr) != is_aware
    async with SystemClient(stack) as client:
        assert missing(await revision(client)) == []


async def test_both_versions_work_before_during_and_after_the_migration(
    stack: Stack,
    source: Source,
    datasets: dict[str, str],
    previous: Path,
    no_tables: None,
    workers: list[Worker],
) -> None:
    workers += [
        old := Worker(stack, "old", previous, datasets),
        new := Worker(stack, "new", ROOT, datasets),
        again := Worker(stack, "old-again", previous, datasets),
    ]
    async with SystemClient(stack) as client, Gate(stack.postgres.admin_url(SOURCE)) as gate:
        await asyncio.to_thread(old.run, "migrate")
        await asyncio.to_thread(old.start)
        async with flow(client) as orders:
            await old.works(client, set())

            await asyncio.to_thread(stack.run, "migrate")
            assert missing(await revision(client)) == []
            await old.works(client, known(orders))

            await asyncio.to_thread(new.start)
            done = known(orders)
            await asyncio.gather(old.works(client, done), new.works(client, done))

            await long_jobs(client, old, orders)
            await asyncio.to_thread(old.stop)
            assert old.logged("job.released")
            await gate.open()
            await new.works(client, known(orders))

            await asyncio.to_thread(again.start)
            await asyncio.to_thread(new.stop)
            await again.works(client, known(orders))
        await judge(client, source, orders)
    for worker in workers:
        assert worker.logged("job.lease_lost") == []


def waiting_for(worker: Worker) -> list[str]:
    """Return the reasons that the worker logged for not being ready."""
    return [line["reason"] for line in worker.logged("worker.waiting")]


def known(orders: Sequence[PlannedJob]) -> set[UUID]:
    """Return the jobs that have been requested so far."""
    return {order.job_id for order in orders}
