"""Offsets of partitions: those of the logs, runs of handled messages, Faust's record of what it has read."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set

import structlog
from faust.types import TP

log = structlog.get_logger(__name__)


class NothingRead(dict[TP, int | None]):
    """Replaces Faust's record of the last offset that it read, and stays empty.

    Faust drops every message below that offset. A message that was fetched before a seek can set it after the
    seek. Then Faust drops the messages in between, and commits past a single one.
    """

    def __getitem__(self, tp: TP) -> int | None:
        return None

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        pass


def end_of_run(begin: int, offsets: Iterable[int], ranges: Iterable[tuple[int, int]]) -> int:
    """Return the first offset from ``begin`` on that is in neither ``offsets`` nor ``ranges`` (half-open)."""
    end = begin
    for first, after in sorted([*((offset, offset + 1) for offset in offsets), *ranges]):
        if first > end:
            break
        end = max(end, after)
    return end


Bounds = tuple[Mapping[TP, int], Mapping[TP, int]]
"""Where the logs of partitions begin and end."""


async def ask_leaders(ask: Callable[[Set[TP]], Awaitable[Bounds]], tps: Set[TP], seconds: float) -> Bounds:
    """Return the bounds of those partitions whose leader answers within ``seconds``.

    All are asked together. If there is no answer, each is asked on its own, within the same time.
    """
    if not tps:
        return {}, {}
    try:
        async with asyncio.timeout(seconds):
            return await ask(tps)
    except TimeoutError:
        pass
    begins: dict[TP, int] = {}
    ends: dict[TP, int] = {}

    async def ask_one(tp: TP) -> None:
        try:
            async with asyncio.timeout(seconds):
                begun, ended = await ask({tp})
        except TimeoutError:
            return
        begins.update(begun)
        ends.update(ended)

    await asyncio.gather(*map(ask_one, tps))
    silent = sorted(f"{tp.topic}[{tp.partition}]" for tp in tps - ends.keys())
    if silent:
        log.warning("seek.postponed", partitions=silent)
    return begins, ends
