"""What Faust's consumer would lose in a rebalance, one hole at a time; the real thing is in tests/chaos."""

from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP

from stream_app.agents.transport import LosslessConsumer

PLACE, UNREAD = TP("exports.requests", 0), TP("exports.requests", 1)


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> LosslessConsumer:
    """One that has two partitions; only of the first something was committed."""

    async def committed(self: Any) -> None:
        self._committed_offset = {PLACE: 7}

    async def earliest(self: Any, *places: TP) -> dict[TP, int]:
        return dict.fromkeys(places, 3)

    async def seek(self: Any, place: TP, offset: int) -> None:
        self.sought[place] = offset

    monkeypatch.setattr(Consumer, "perform_seek", committed)
    monkeypatch.setattr(LosslessConsumer, "assignment", lambda _: {PLACE, UNREAD})
    monkeypatch.setattr(LosslessConsumer, "earliest_offsets", earliest)
    monkeypatch.setattr(LosslessConsumer, "seek", seek)
    made = object.__new__(LosslessConsumer)
    made.__dict__.update(sought={}, _seeks=0)
    return made


async def test_a_partition_without_a_commit_is_sought_too(consumer: LosslessConsumer) -> None:
    await consumer.perform_seek()
    assert consumer.__dict__["sought"] == {UNREAD: 3}


@pytest.mark.parametrize("rebalanced", [True, False])
async def test_what_was_fetched_before_a_seek_is_thrown_away(
    consumer: LosslessConsumer, monkeypatch: pytest.MonkeyPatch, rebalanced: bool
) -> None:
    fetched = {PLACE: [SimpleNamespace(offset=9)]}

    async def fetch(self: Any, timeout: float) -> tuple[Any, Any]:
        if rebalanced:
            await self.perform_seek()
        return fetched, {PLACE}

    monkeypatch.setattr(Consumer, "_wait_next_records", fetch)
    records, active = await consumer._wait_next_records(1.0)
    assert records == (None if rebalanced else fetched)
    assert active == {PLACE}
