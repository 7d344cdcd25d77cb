"""Locks of frozen processes end by themselves, and block only work on the same rows (R1)."""

import socket
import time
from datetime import timedelta
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.jobs.reader import JobReader
from stream_app.db import engine as database
from stream_app.db.engine import (
    KEEPALIVE_IDLE_SECONDS,
    UNANSWERED_SECONDS,
    autocommitting,
    connect_to,
    create_engine,
    driver_connection,
    transaction,
)
from stream_app.jobs.queue_sql import ADMISSION_SETTINGS
from stream_app.settings import Settings
from streaming_exporter.errors import InDoubt, Locked, Retryable
from streaming_exporter.events import cancel_event
from tests.integration.jobs.jobs import Jobs, Requests, completed, ids, request
from tests.waiting import patient, until_async

ACTIVE = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine)


@pytest.fixture
def requests(jobs: Jobs) -> Requests:
    return Requests(jobs.store)


async def test_the_server_ends_every_transaction_of_a_frozen_process(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen process sends nothing, like this process while it waits."""
    monkeypatch.setattr(database, "BEGIN", database.BEGIN.replace(database.IDLE_TIMEOUT, "1s"))
    job_id = await jobs.admit()

    async def stand_still() -> None:
        async with jobs.store.transaction() as connection:
            assert await jobs.store.cancellations.cancel(connection, job_id) is not None
            session = {"pid": driver_connection(connection).get_server_pid()}

            async def is_ended() -> bool:
                async with (
                    jobs.engine.connect() as watcher
                ):  # a transaction sees the same sessions until it ends
                    return not await watcher.scalar(ACTIVE, session)

            await until_async(is_ended)

    with pytest.raises(InDoubt):
        await stand_still()
    assert ids(await jobs.store.claim("w", 1)) == [job_id], "the row is free, and as it was"


@pytest.mark.parametrize("autocommit", [True, False])
async def test_limits_end_with_their_transaction(engine: AsyncEngine, autocommit: bool) -> None:
    """Behind a pooler the next transaction of the connection belongs to another client."""
    names = ("idle_in_transaction_session_timeout", "lock_timeout")
    own = autocommitting(engine)
    async with transaction(own) as connection:
        within = [await connection.scalar(text(f"SHOW {name}")) for name in names]
    async with (own if autocommit else engine).connect() as connection:
        after = [await connection.scalar(text(f"SHOW {name}")) for name in names]
    assert (within, after) == ([database.IDLE_TIMEOUT, database.LOCK_TIMEOUT], ["0", "0"])


async def test_a_transaction_does_not_inherit_its_settings(own_settings: Settings) -> None:
    """P3: a role, a database or the server can set them. Requests are acknowledged after a commit."""
    inherited = {
        "synchronous_commit": ("off", "on"),
        "statement_timeout": ("500ms", "65s"),
        "default_transaction_isolation": ("serializable", "serializable"),
        "transaction_isolation": ("", "read committed"),
    }
    query = "&".join(f"{name}={value}" for name, (value, _) in inherited.items() if value)
    url = own_settings.database_url.get_secret_value()
    changed = own_settings.model_copy(update={"database_url": SecretStr(f"{url}?{query}")})
    own = create_engine(changed, application="test", autocommit=True)
    async with transaction(own) as connection:
        within = {name: await connection.scalar(text(f"SHOW {name}")) for name in inherited}
    for value in ("off", "local"):
        async with autocommitting(own).connect() as connection:
            await connection.execute(text(f"SET synchronous_commit = {value}"))
            admission = await connection.scalar(
                text(
                    f"WITH setting AS MATERIALIZED ({ADMISSION_SETTINGS})"
                    " SELECT current_setting('synchronous_commit') FROM setting"
                )
            )
        assert admission == {"off": "on"}.get(value, value), "others are the choice of operators"
    await own.dispose()
    assert within == {name: value for name, (_, value) in inherited.items()}


async def test_a_failure_leaves_a_connection_that_works_and_nothing_behind(jobs: Jobs) -> None:
    job_id = uuid4()

    async def fail() -> None:
        async with jobs.store.transaction() as connection:
            await jobs.store.cancellations.cancel(connection, job_id)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with jobs.store.statement() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM early_cancellations")) == 0


async def test_connections_notice_a_lost_peer(own_settings: Settings) -> None:
    connection = await connect_to(own_settings, application="test")
    found = connection._transport.get_extra_info("socket")
    if found.family in (socket.AF_INET, socket.AF_INET6):
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE_IDLE_SECONDS
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNANSWERED_SECONDS * 1_000
    await connection.close()


@pytest.mark.parametrize(
    "setting", ["work_mem=x", "role=nobody_at_all", "no_such_setting=1", "shared_buffers=1"]
)
async def test_a_setting_that_the_server_refuses_loses_no_message(
    own_settings: Settings, setting: str
) -> None:
    """P4: it is not a value of a statement, whose message would become a dead letter."""
    url = own_settings.database_url.get_secret_value()
    changed = own_settings.model_copy(update={"database_url": SecretStr(f"{url}?{setting}")})
    own = create_engine(changed, application="test", autocommit=True)
    with pytest.raises(Retryable, match=r"state database: .*" + setting.partition("=")[0]):
        async with transaction(own):
            pass
    await own.dispose()
    reader = JobReader(changed, application="test")
    with pytest.raises(Retryable, match=r"state database: .*" + setting.partition("=")[0]):
        await reader.get(uuid4())
    await reader.close()


async def test_a_locked_row_blocks_neither_admissions_nor_cancellations(
    jobs: Jobs, requests: Requests
) -> None:
    """The locked job is retried: from its row, from its topic, or from the early cancellation."""
    placed, running, fresh = await jobs.admit(admitted=False), await jobs.admit(), [uuid4() for _ in range(5)]
    uncommitted = uuid4()
    async with jobs.engine.connect() as holder:
        both = {"ids": [placed, running]}
        await holder.execute(text("SELECT FROM export_jobs WHERE id = ANY (:ids) FOR UPDATE"), both)
        insertion = "INSERT INTO export_jobs (id, user_id, export_type, format) VALUES (:id, 'u', 'x', 'csv')"
        await holder.execute(text(insertion), {"id": uncommitted})
        began = time.monotonic()
        wanted = [request(job_id) for job_id in (placed, uncommitted, *fresh)]
        await requests.handle(*wanted, cancel_event(running, source="/t"))
        assert time.monotonic() - began < patient(15)
        assert set(ids(await jobs.store.claim("w", 100))) == set(fresh)
        assert requests.put_back_ids == [uncommitted], "the one that has no record yet"
        await holder.rollback()
    (outcome,) = await jobs.store.cancellations.apply_early()
    assert (outcome.job_id, outcome.status) == (running, "cancelled")
    await requests.handle(request(uncommitted))
    assert ids(await jobs.store.claim("w", 100)) == [uncommitted]
    await jobs.expire_leases()
    assert [event.job_id for event in await jobs.store.admission.take_unadmitted()] == [placed]


async def test_a_locked_row_blocks_no_other_outcome(jobs: Jobs) -> None:
    """Its own outcome is published again from the row, and applied then."""
    held, other = await jobs.admit("held"), await jobs.admit("other")
    claims = {claim.job_id: claim for claim in await jobs.store.claim("w", 2)}
    for claim in claims.values():
        await jobs.store.store_outcome(claim, completed(claim))
    async with jobs.engine.connect() as holder:
        await holder.execute(text("SELECT FROM export_jobs WHERE id = :id FOR UPDATE"), {"id": held})
        assert not await jobs.apply(completed(claims[held]))
        assert await jobs.apply(completed(claims[other]))
    await jobs.expire_leases()
    (outcome,) = await jobs.store.unclaimed.take_unpublished()
    assert outcome == completed(claims[held])
    assert await jobs.apply(outcome)


async def test_a_lock_time_out_is_reported(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BEGIN", database.BEGIN.replace(database.LOCK_TIMEOUT, "100ms"))
    job_id = await jobs.admit()
    async with jobs.engine.connect() as holder:
        await holder.execute(text("SELECT FROM export_jobs FOR UPDATE"))

        async def wait() -> None:
            async with jobs.store.transaction() as connection:
                await connection.execute(text("UPDATE export_jobs SET priority = 0"))

        with pytest.raises(Locked):
            await wait()
    assert ids(await jobs.store.claim("w", 1)) == [job_id]


async def test_requests_are_published_less_and_less_often(jobs: Jobs) -> None:
    """R8: the pause is as long as the job is old, up to two minutes."""
    job_id = await jobs.admit(admitted=False)
    for age, pause in ((0, 10), (30, 30), (3_600, 120)):
        async with jobs.store.statement() as connection:
            before = await connection.scalar(
                text("""UPDATE export_jobs SET created_at = now() - CAST(:a AS interval), lease_until = now()
                    RETURNING now()"""),
                {"a": timedelta(seconds=age)},
            )
        assert [event.job_id for event in await jobs.store.admission.take_unadmitted()] == [job_id]
        async with jobs.store.statement() as connection:
            due, after = (await connection.execute(text("SELECT lease_until, now() FROM export_jobs"))).one()
        # The job is older when its event is published, by at most the time of this step.
        assert before + timedelta(seconds=pause) <= due <= after + timedelta(seconds=pause) + (after - before)
