"""A small COPY is read without pauses: at its end no more rows would come in that time."""

from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from stream_app.exports.sources.snapshot import CHUNK_BYTES, SMALL_COPY, Snapshot

MESSAGE = 8 * 2**10
"""PostgreSQL sends so many bytes at a time."""


async def pauses_of(size: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Copy ``size`` bytes; return the number of pauses and the largest chunk."""
    pauses, chunks = [], []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def send(*_: object, output: Any, **__: object) -> str:
        for _number in range(size // MESSAGE):
            await output(bytes(MESSAGE))
        return "COPY 1"

    async def sink(chunk: bytes) -> None:
        chunks.append(len(chunk))

    monkeypatch.setattr("stream_app.exports.sources.snapshot.asyncio.sleep", pause)
    moment = cast(Any, None)
    opened = Snapshot(MagicMock(copy_from_query=send), moment, moment, 60)
    await opened.copy("SELECT 1", {}, sink)
    assert sum(chunks) == size
    return len(pauses), max(chunks)


@pytest.mark.parametrize("size", [MESSAGE, CHUNK_BYTES, CHUNK_BYTES + MESSAGE, SMALL_COPY - MESSAGE])
async def test_a_small_copy_is_read_without_pauses(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await pauses_of(size, monkeypatch))[0] == 0


async def test_a_large_copy_lets_small_messages_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses, largest = await pauses_of(4 * SMALL_COPY, monkeypatch)
    assert pauses == 1 + 3 * SMALL_COPY // MESSAGE
    assert largest == CHUNK_BYTES
