"""A worker reports correctly whether it is ready, waits during outages, and ends if it is stuck."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from dev.app_process import AppProcess
from dev.stack import Stack
from stream_app.worker.liveness import is_ready
from streaming_exporter.events import ExportRequest, Topic, request_event
from streaming_exporter.publisher import Publisher
from tests.chaos.freezing import frozen
from tests.log_files import logged
from tests.stacks import settings_of, start_from_now
from tests.waiting import patient, until, until_async

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

IN_ORDER = True
"""Workers that get stuck on purpose start last, because outages could end them before."""

STUCK = patient(5.0)
"""A worker that joins its group late, or handles a message late, on a busy machine is not stuck."""


def impatient(stack: Stack) -> dict[str, str]:
    """Settings of a worker with its own group and a short limit for being stuck."""
    group = {"EXPORTER_KAFKA_GROUP": f"watchdog-{uuid4().hex[:8]}"}
    with stack.configured(group):
        asyncio.run(start_from_now(settings_of(stack)))
    return {
        **group,
        "EXPORTER_STUCK_SECONDS": f"{STUCK:g}",
        "EXPORTER_DRAIN_SECONDS": "1",
    }


@pytest.fixture(scope="module")
def worker(stack: Stack) -> Iterator[AppProcess]:
    """A worker that has read messages of a transaction, whose end is an entry of its own in the log."""
    started = stack.start_worker(settings=impatient(stack))
    asyncio.run(ended(stack, transactional=True))
    yield started
    started.kill()


def ready(worker: AppProcess) -> bool:
    return is_ready(worker._ready_file)


async def ended(
    stack: Stack, *, transactional: bool = False, within: float = 60, worker: AppProcess | None = None
) -> None:
    """Submit an invalid request, and wait until its job has failed. ``worker`` is started once if it ends."""
    settings = stack.settings()
    event = request_event(ExportRequest(user_id="w", export_type="ledger", format="none"), source="/t")
    options = {"transactional_id": f"t-{uuid4()}"} if transactional else {}
    producer = AIOKafkaProducer(bootstrap_servers=settings["EXPORTER_KAFKA_BOOTSTRAP_SERVERS"], **options)
    await producer.start()
    if transactional:
        async with producer.transaction():
            await producer.send_and_wait(Topic.REQUESTS, event.encode(), key=event.key)
    else:
        await producer.send_and_wait(Topic.REQUESTS, event.encode(), key=event.key)
    await producer.stop()
    database = await asyncpg.connect(settings["EXPORTER_DATABASE_URL"])
    try:
        has_failed, starts = "SELECT status = 'failed' FROM export_jobs WHERE id = $1", 0

        async def look() -> bool:
            nonlocal starts
            if worker is not None and not worker.running:
                starts += 1
                assert starts == 1, worker.child.tail()
                await asyncio.to_thread(worker.start)
            return bool(await database.fetchval(has_failed, event.job_id))

        await until_async(look, within=within)
    finally:
        await database.close()


@pytest.mark.parametrize("part", ["s3", "postgres", "kafka"])
def test_a_worker_outlasts_a_frozen_part(stack: Stack, worker: AppProcess, part: str) -> None:
    """The part is frozen for longer than the limit: the worker is not ready, does not end, and recovers."""
    until(lambda: ready(worker))
    with frozen(stack.services[part]):
        until(lambda: not worker._ready_file.exists())
        time.sleep(STUCK + 1)
        assert worker.running
        assert not ready(worker)
    until(lambda: ready(worker), otherwise=worker.child.tail)
    assert worker.running
    asyncio.run(ended(stack))


def test_a_worker_recovers_after_the_death_of_a_broker(stack: Stack, worker: AppProcess) -> None:
    """The worker recovers by itself, or it ends and its successor works."""
    stack.kafka.kill()
    until(lambda: not worker._ready_file.exists())
    stack.kafka.restart()
    until(lambda: ready(worker) or not worker.running, otherwise=worker.child.tail)
    asyncio.run(ended(stack, worker=worker))


def waits_for_writes(worker: AppProcess) -> bool:
    """Return whether the worker is not ready, and its newest reason is that writes fail."""
    reasons = [line["reason"] for line in logged(worker.log) if line["event"] == "worker.waiting"]
    return not worker._ready_file.exists() and "writes fail for every message" in "".join(reasons[-1:])


async def refused_once(stack: Stack, worker: AppProcess) -> None:
    """Refuse the worker's writes until that is its reason. Requests come until it is ready again."""
    request = ExportRequest(user_id="w", export_type="ledger", format="none")
    database = await asyncpg.connect(stack.settings()["EXPORTER_DATABASE_URL"])

    async def publish_steadily(publisher: Publisher) -> None:
        while True:
            await publisher.request(request)
            await asyncio.sleep(0.01)

    async with Publisher(settings_of(stack)) as publisher, asyncio.TaskGroup() as group:
        await database.execute("ALTER TABLE export_jobs ADD CONSTRAINT none CHECK (false) NOT VALID")
        publishing = group.create_task(publish_steadily(publisher))
        await until_async(lambda: waits_for_writes(worker), otherwise=worker.child.tail)
        await database.execute("ALTER TABLE export_jobs DROP CONSTRAINT none")
        await until_async(lambda: ready(worker), otherwise=worker.child.tail)
        publishing.cancel()
    await database.close()


def test_a_worker_with_a_backlog_is_ready_as_soon_as_its_writes_succeed(stack: Stack) -> None:
    """Readiness needs no moment without messages: a worker that starts during a backlog must become ready."""
    worker = stack.start_worker(settings=impatient(stack) | {"EXPORTER_STUCK_SECONDS": "600"})
    try:
        asyncio.run(refused_once(stack, worker))
    finally:
        worker.kill()


UNREAD = "is not read on from"
SABOTAGE = {
    # It has left the group, as after a lost session, and does not join again.
    "the worker is not a member of its consumer group": (
        "app.consumer._thread._consumer._coordinator._coordination_task.cancel();"
        "app.consumer._thread._consumer._coordinator._heartbeat_task.cancel()"
    ),
    # A task of the service ends without an error.
    "a task of the worker has ended": (
        "[task.cancel() for task in asyncio.all_tasks() if '_require_endless' in repr(task)]"
    ),
    # A task of the service ends with an error.
    "on purpose": "raise RuntimeError('on purpose')",
    # The event loop is blocked.
    "did not respond": "__import__('time').sleep(600)",
    # The worker is a member of the group but fetches nothing. Only the watchdog can notice that.
    UNREAD: "app.consumer.resume_flow = lambda: None; app.consumer.stop_flow()",
}

SCRIPT = """
import asyncio
import os
import stream_app.composition.worker as wiring
create = wiring.create_app

def create_app(settings):
    app = create(settings)

    @app.task
    async def sabotage():
        while not os.path.exists(os.environ["SABOTAGE"]):
            await asyncio.sleep(0.1)
        {sabotage}

    return app

wiring.create_app = create_app
from stream_app.__main__ import cli
cli(["worker"])
"""


@pytest.fixture(scope="module")
def sabotaged(stack: Stack) -> Iterator[dict[str, AppProcess]]:
    """Start workers that get stuck when all of them are ready; return them by their reason."""
    workers, now = {}, stack.run_dir / "sabotage"
    now.unlink(missing_ok=True)
    for number, (reason, sabotage) in enumerate(SABOTAGE.items()):
        env = {**stack.environment(), **impatient(stack), "SABOTAGE": str(now)}
        worker = AppProcess(f"sabotaged-{number}", ["-"], env, stack.run_dir)
        worker._argv = [worker._argv[0], "-c", SCRIPT.format(sabotage=sabotage)]
        workers[reason] = worker
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(lambda worker: worker.start(), workers.values()))
    now.touch()
    yield workers
    for worker in workers.values():
        worker.kill()


@pytest.mark.parametrize("reason", SABOTAGE)
def test_a_worker_that_cannot_recover_ends(
    stack: Stack, sabotaged: dict[str, AppProcess], reason: str
) -> None:
    worker = sabotaged[reason]

    def look() -> bool:
        if reason == UNREAD:  # the worker must notice a message
            with suppress(AssertionError):
                asyncio.run(ended(stack, within=0))
        return not worker.running

    until(look, every=0.5, otherwise=worker.child.tail)
    assert worker.child.exit_code not in (0, None)
    assert reason in worker.log.read_text()
    assert not worker._ready_file.exists() or reason == "did not respond"
