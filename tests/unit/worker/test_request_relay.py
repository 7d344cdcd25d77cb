"""The relay of the outbox is bounded by bytes, and catches up after an outage of Kafka."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast
from uuid import uuid4

import pytest

from stream_app.jobs.admission import Admission
from stream_app.worker.maintenance import request_relay
from stream_app.worker.maintenance.request_relay import RequestRelay
from streaming_exporter.errors import PublishError
from streaming_exporter.events import Event


def _event(size: int) -> Event:
    data = {"export_type": "ledger", "user_id": "u", "format": "csv", "filters": {"note": {"eq": "x" * size}}}
    return Event(
        id=str(uuid4()),
        source="/exporter/api",
        type="export.requested",
        time=datetime.now(UTC),
        subject=str(uuid4()),
        data=data,
    )


class _Admission:
    """Returns each batch once."""

    def __init__(self, *batches: list[Event]) -> None:
        self._batches = list(batches)

    async def take_unadmitted(self, limit: int) -> list[Event]:
        return self._batches.pop(0) if self._batches else []


@pytest.mark.parametrize(("size", "waiting"), [(10, 20), (400_000, 10)], ids=["small", "large"])
async def test_events_that_wait_for_kafka_have_a_limit_of_bytes(
    size: int, waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_relay, "MAX_WAITING_BYTES", 10 * 405_000)
    confirm = asyncio.Event()
    published: list[Event] = []

    async def publish(events: Sequence[Event]) -> None:
        await confirm.wait()
        published.extend(events)

    relay = RequestRelay(cast(Admission, _Admission()), publish)
    for _ in range(20):
        relay.soon(_event(size))
    confirm.set()
    await relay.settle()
    assert len(published) == waiting
    relay.soon(_event(size))
    await relay.settle()
    assert len(published) == waiting + 1, "there is room again after the confirmation"


@pytest.mark.parametrize(("fails", "steps"), [(False, [100, 100, 7, 0]), (True, [207, 0])], ids=str)
async def test_all_requests_that_are_due_are_published_after_a_failure(fails: bool, steps: list[int]) -> None:
    """Otherwise a step publishes one batch: the requests can be on Kafka, and wait for a worker."""
    is_away = fails

    async def publish(events: Sequence[Event]) -> None:
        if is_away:
            raise PublishError("away")

    relay = RequestRelay(
        cast(Admission, _Admission([_event(1)] * 100, [_event(1)] * 100, [_event(1)] * 7)), publish
    )
    relay.soon(_event(1))
    await relay.settle()
    is_away = False
    assert [await relay.step() for _ in steps] == steps
