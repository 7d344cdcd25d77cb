"""Repeats a step without end: the loop of heartbeats, maintenance, health checks and the database clock."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from stream_app.retries import JITTER
from streaming_exporter.errors import Retryable

log = structlog.get_logger(__name__)


async def repeat(
    name: str,
    step: Callable[[], Awaitable[object]],
    interval: float | Callable[[], float],
    *,
    first: float | None = None,
    jitter: float = 0.0,
) -> None:
    """Call ``step`` again and again, with a pause before each call, until the task is cancelled.

    A step that fails is called again after the pause. The log event is ``NAME.failed`` if a part is away, and
    ``NAME.crashed`` after any other error.

    Args:
        name: the beginning of the log events.
        step: the function to call.
        interval: the pause between two calls, in seconds, or a function that returns it.
        first: the pause before the first call, in seconds. The default is ``interval``.
        jitter: the share of a pause (0 to 1) by which it is changed at random, so that several processes do
            not call at the same time.
    """
    pause = first
    while True:
        if pause is None:
            pause = interval() if callable(interval) else interval
        await asyncio.sleep(pause * JITTER.uniform(1 - jitter, 1 + jitter))
        pause = None
        try:
            await step()
        except Retryable as error:
            log.warning(f"{name}.failed", error=str(error))
        except Exception:
            log.exception(f"{name}.crashed")
