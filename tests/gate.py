"""Keeps exports running as long as a test needs: their view waits for a lock that the test holds."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import asyncpg

KEY = 4_711
"""The advisory lock that every gated view waits for."""


def gated(table: str, *, at: int) -> str:
    """Return a SELECT of the table's rows in the order of their ids; it waits at id ``at``."""
    return (
        f"SELECT *, CASE WHEN id = {at} THEN pg_advisory_xact_lock_shared({KEY})::text END AS gate "
        f"FROM {table} ORDER BY id"
    )


class Gate:
    """``async with Gate(url) as gate:`` is closed until ``await gate.open()`` or the end of the block.

    ``url`` is the database of the views. A killed server opens the gate.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Self:
        self._connection = await asyncpg.connect(self._url)
        await self._connection.execute(f"SELECT pg_advisory_lock({KEY})")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.open()

    async def open(self) -> None:
        """Let all exports continue. A second call has no effect."""
        self._connection.terminate()


@contextmanager
def closed_gate(url: str) -> Iterator[Callable[[], None]]:
    """As :class:`Gate`, for tests that are no coroutines; yield the function that opens the gate.

    It runs in a thread of its own, because a browser has the event loop of the thread of its tests.
    """
    gate = Gate(url)
    with ThreadPoolExecutor(1) as thread:
        runner = thread.submit(asyncio.Runner).result()

        def open_gate() -> None:
            thread.submit(runner.run, gate.open()).result()

        try:
            thread.submit(runner.run, gate.__aenter__()).result()
            try:
                yield open_gate
            finally:
                open_gate()
        finally:
            thread.submit(runner.close).result()
