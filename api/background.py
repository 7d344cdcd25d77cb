"""Background tasks of the API: work that must not end is started again if it ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

log = structlog.get_logger(__name__)

RESTART_SECONDS = 1.0
"""Pause before work that has ended is started again."""


@asynccontextmanager
async def keep_running(name: str, work: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Run ``work`` in the background until the end of the block.

    Args:
        name: the name of the work in the log.
        work: does the work. It must not end by itself; if it does, it is called again after a pause.
    """
    task = asyncio.create_task(_repeat(name, work), name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _repeat(name: str, work: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await work()
            log.error("background.ended", task=name)
        except Exception:
            log.exception("background.ended", task=name)
        await asyncio.sleep(RESTART_SECONDS)
