"""One loop repeats every periodic step, and one function computes the delay of a retry."""

import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from stream_app.periodic import repeat
from stream_app.retries import retry_delay
from streaming_exporter.errors import Outage
from tests.waiting import patient


async def calls(*results: Exception | None) -> int:
    """Return the number of calls of the step, which ends the loop after the last result."""
    made, ended = 0, asyncio.Event()

    async def step() -> None:
        nonlocal made
        made += 1
        if made > len(results):
            ended.set()
        elif (error := results[made - 1]) is not None:
            raise error

    task = asyncio.create_task(repeat("step", step, lambda: 0.001, first=0, jitter=0.5))
    await asyncio.wait_for(ended.wait(), patient(5))
    task.cancel()
    return made


async def test_a_step_that_fails_is_logged_and_called_again() -> None:
    with capture_logs() as logs:
        made = await calls(None, Outage("away"), ValueError("bug"), None)
    assert made == 5
    assert [line["event"] for line in logs] == ["step.failed", "step.crashed"]


async def test_the_first_pause_is_the_interval_unless_it_is_given() -> None:
    called = asyncio.Event()

    async def step() -> None:
        called.set()

    task = asyncio.create_task(repeat("step", step, 60))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(called.wait(), 0.05)
    task.cancel()


@pytest.mark.parametrize(("tries", "seconds"), [(0, 5), (1, 10), (3, 40), (5, 120), (10_000, 120)])
def test_a_retry_waits_longer_each_time_up_to_a_limit(tries: int, seconds: float) -> None:
    for _ in range(50):
        delay = retry_delay(tries, first=timedelta(seconds=5), longest=timedelta(minutes=2))
        assert seconds / 2 <= delay.total_seconds() <= seconds
