"""A delivery that ends at once needs no task; one that waits goes on as if it had begun in its task."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from stream_app.kafka.consumer import LosslessConsumer
from stream_app.kafka.eager_coroutines import Finished, run_until_waiting

Delivery = Callable[[], Coroutine[Any, Any, Any]]


class Steps:
    """What a delivery has done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.room = asyncio.Event()

    async def at_once(self) -> str:
        self.done.append("delivered")
        return "result"

    async def waiting(self) -> str:
        try:
            await asyncio.sleep(0)
            await self.room.wait()
        except asyncio.CancelledError:
            self.done.append("cancelled")
            raise
        self.done.append("delivered")
        return "result"

    async def refused(self) -> str:
        raise LookupError("refused")

    async def refused_later(self) -> str:
        await asyncio.sleep(0)
        raise LookupError("refused")


@pytest.fixture
async def steps() -> Steps:
    return Steps()


@pytest.fixture
async def consumer() -> LosslessConsumer:
    made = object.__new__(LosslessConsumer)
    made.__dict__.update(_stopped=asyncio.Event(), _crashed=asyncio.Event(), _loop=asyncio.get_running_loop())
    return made


async def test_a_coroutine_that_does_not_wait_ends_at_once(steps: Steps) -> None:
    assert run_until_waiting(steps.at_once()) == Finished("result")


async def test_a_coroutine_that_waits_is_continued(steps: Steps) -> None:
    rest = run_until_waiting(steps.waiting())
    assert not isinstance(rest, Finished)
    task = asyncio.create_task(rest)
    await asyncio.sleep(0.001)
    assert not task.done()
    steps.room.set()
    assert await task == "result"


async def test_errors_are_those_of_the_coroutine(steps: Steps) -> None:
    with pytest.raises(LookupError, match="refused"):
        run_until_waiting(steps.refused())
    rest = run_until_waiting(steps.refused_later())
    assert not isinstance(rest, Finished)
    with pytest.raises(LookupError, match="refused"):
        await rest


async def test_a_continued_coroutine_can_be_cancelled(steps: Steps) -> None:
    rest = run_until_waiting(steps.waiting())
    assert not isinstance(rest, Finished)
    task = asyncio.create_task(rest)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps.done == ["cancelled"]


async def test_a_coroutine_that_is_never_continued_is_closed(steps: Steps) -> None:
    rest = run_until_waiting(steps.waiting())
    assert not isinstance(rest, Finished)
    rest.close()


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_message_is_delivered_without_a_task(
    consumer: LosslessConsumer, steps: Steps, stopped: bool
) -> None:
    if stopped:
        consumer._stopped.set()
    before = asyncio.all_tasks()
    found = await consumer.wait_first(steps.at_once(), asyncio.Event().wait())
    assert asyncio.all_tasks() == before
    assert (found.stopped, found.results) == (stopped, [] if stopped else ["result"])
    assert steps.done == ["delivered"], "as with Faust, a message that is taken is delivered"


async def test_a_delivery_waits_for_room(consumer: LosslessConsumer, steps: Steps) -> None:
    waiting = asyncio.create_task(consumer.wait_first(steps.waiting(), asyncio.Event().wait()))
    await asyncio.sleep(0.001)
    assert not waiting.done()
    steps.room.set()
    assert (await waiting).results == ["result"]


async def test_a_delivery_that_waits_ends_when_the_flow_is_suspended(
    consumer: LosslessConsumer, steps: Steps
) -> None:
    suspended = asyncio.Event()
    waiting = asyncio.create_task(consumer.wait_first(steps.waiting(), suspended.wait()))
    await asyncio.sleep(0.001)
    suspended.set()
    await waiting
    await asyncio.sleep(0.001)
    assert steps.done == ["cancelled"]


async def test_an_error_of_a_delivery_reaches_the_caller(consumer: LosslessConsumer, steps: Steps) -> None:
    for delivery in (steps.refused, steps.refused_later):
        with pytest.raises(LookupError, match="refused"):
            await consumer.wait_first(delivery(), asyncio.Event().wait())
