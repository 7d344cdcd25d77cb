"""``Prefer: wait=N``: what the header says, and the bound of the waits."""

import asyncio
from datetime import UTC, datetime
from time import process_time
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from api.jobs.live_updates import LiveUpdates
from api.jobs.waiting import MAX_SECONDS, JobWaits, Waited, preferred_wait
from stream_app.jobs.models import ExportJob
from streaming_exporter.errors import Retryable
from tests.rows import each_row
from tests.waiting import at_most, until_async

TOKENS = st.text("abcxyz-!#", min_size=1, max_size=8).filter(lambda name: name.lower() != "wait")


@each_row(
    ("headers", "seconds"),
    [
        ([], 0),
        (["wait=5"], 5),
        (["WAIT=5"], 5),
        (['wait="5"'], 5),
        (["wait = 5"], 5),
        (["respond-async, wait=10"], 10),
        (["respond-async", "wait=10"], 10),
        (["wait=3, wait=9"], 3),
        (["wait=3", "wait=9"], 3),
        (["wait=10; strict"], 10),
        (['wait=10 ; a="x, y" ; b=2;, wait=4'], 10),
        (['a; b="x, wait=1"; c , wait=4'], 4),
        (['handling=lenient; note="a, wait=1", wait=7'], 7),
        (["wait=31"], MAX_SECONDS),
        (["wait=999999999"], MAX_SECONDS),
        (["wait=9999999999"], 0),
        (["wait=-1"], 0),
        (["wait=1.5"], 0),
        (["wait=٣"], 0),
        (["wait"], 0),
        (["wait="], 0),
        (["waiting=5"], 0),
        (["x-wait=5"], 0),
        ([""], 0),
        ([",,, wait=4"], 4),
        (["=;,"], 0),
    ],
)
def test_the_wait_of_a_header(headers: list[str], seconds: int) -> None:
    assert preferred_wait(headers) == seconds


@each_row(
    "header",
    [
        "a" + "; " * 40_000 + '"',
        "a;" + " " * 80_000 + '"',
        "a" + " ;" * 40_000 + '"',
        "a; " + '""' * 40_000 + '"',
        'a="' + "\\\\" * 40_000,
        "a" * 80_000 + '"',
        "a" + " " * 80_000 + '"',
        ", " * 40_000 + '"',
    ],
)
def test_the_time_grows_with_the_length_of_the_header(header: str) -> None:
    began = process_time()
    assert preferred_wait([header]) == 0
    assert process_time() - began < 1, "no other call is served meanwhile"


@given(st.lists(TOKENS, max_size=4), st.integers(1, MAX_SECONDS), st.lists(TOKENS, max_size=4))
def test_other_preferences_change_nothing(before: list[str], seconds: int, after: list[str]) -> None:
    assert preferred_wait([", ".join([*before, f"wait={seconds}", *after])]) == seconds


@given(st.lists(st.text(max_size=60), max_size=3))
def test_any_header_is_read(headers: list[str]) -> None:
    assert 0 <= preferred_wait(headers) <= MAX_SECONDS


class Reading:
    """Reads jobs that never end, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def get(self, _: UUID) -> Any:
        if self.error is not None:
            raise self.error


def waits(limit: int = 10, error: Exception | None = None) -> JobWaits:
    reading: Any = Reading(error)
    return JobWaits(
        LiveUpdates(cast(Any, None), lambda: datetime.now(UTC)), reading, limit=limit, limit_of_user=2
    )


def job_of(job_id: UUID, status: str) -> ExportJob:
    """Return the record of a job in its first attempt."""
    return ExportJob(
        id=job_id, user_id="u", export_type="ledger", format="csv", status=status, attempt=1, failures=0,
        created_at=datetime.now(UTC),
    )  # fmt: skip


async def test_a_job_that_does_not_end_is_none_in_time_and_leaves_nothing() -> None:
    known = waits()
    assert await known.until_ended(uuid4(), 0.01, user_id="a") == Waited(is_whole=True)
    assert (known.waiting, known.live_updates.listeners) == (0, 0)


async def test_no_more_calls_wait_than_the_limit() -> None:
    known = waits(limit=2)
    two = [asyncio.create_task(known.until_ended(uuid4(), 30, user_id=user)) for user in "ab"]
    await asyncio.sleep(0)
    assert known.is_full("c")
    assert await known.until_ended(uuid4(), 30, user_id="c") == Waited()
    known.stop()
    assert await asyncio.gather(*two) == [Waited(), Waited()], "the job has not ended, nor is the time over"


async def test_the_waits_of_one_user_leave_room_for_others() -> None:
    known = waits(limit=3)
    calls = [asyncio.create_task(known.until_ended(uuid4(), 30, user_id="a")) for _ in range(2)]
    await asyncio.sleep(0)
    assert known.is_full("a")
    assert not known.is_full("b")
    calls.append(asyncio.create_task(known.until_ended(uuid4(), 30, user_id="b")))
    await asyncio.sleep(0)
    assert known.waiting == 3
    assert await known.until_ended(uuid4(), 30, user_id="a") == Waited()
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert known.waiting == 0
    assert not known.is_full("a")


async def test_a_stopping_server_ends_the_waits_and_begins_none() -> None:
    known = waits()
    one = asyncio.create_task(known.until_ended(uuid4(), 30, user_id="a"))
    await asyncio.sleep(0.01)
    known.stop()
    assert await one == Waited()
    assert await known.until_ended(uuid4(), 30, user_id="a") == Waited()
    assert (known.waiting, known.live_updates.listeners) == (0, 0)


@pytest.mark.parametrize(
    "error", [Retryable("away"), asyncpg.InterfaceError("the pool is closed"), KeyError()]
)
async def test_an_error_while_a_job_is_read_is_no_error_of_the_request(error: Exception) -> None:
    """The job is recorded by then, so the response must be 202."""
    with capture_logs() as logs:
        assert await waits(error=error).until_ended(uuid4(), 30, user_id="a") == Waited()
    assert [line["event"] for line in logs] == ([] if isinstance(error, Retryable) else ["job_wait.failed"])


@pytest.mark.parametrize("last", ["first read", "read of the change"])
async def test_the_end_of_a_job_is_seen_whichever_read_comes_last(last: str) -> None:
    """One read sees the job before its end, the other one after it."""
    job_id, may_read = uuid4(), asyncio.Event()
    running, ended = job_of(job_id, "processing"), job_of(job_id, "completed")

    class Slow:
        async def get(self, _: UUID) -> ExportJob:
            await may_read.wait()
            return running if last == "first read" else ended

    known = waits()
    known.reader = Slow()  # type: ignore[assignment]
    call = asyncio.create_task(known.until_ended(job_id, 30, user_id="a"))
    await until_async(lambda: known.live_updates.listeners == 1)
    known.live_updates._offer([ended if last == "first read" else running])
    may_read.set()
    async with at_most(10):  # all jobs are read again after 15 s
        waited = await call
    assert waited.is_whole
    assert waited.job is not None
    assert waited.job.ended
