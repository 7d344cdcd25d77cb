"""The relay with ``--once``: it publishes what waits, or it fails; and the signals that end a relay."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from streaming_exporter.errors import Retryable
from streaming_exporter.events import ExportRequest
from streaming_exporter.kafka_settings import KafkaSettings
from streaming_exporter.outbox.entries import Backlog
from streaming_exporter.outbox.lease import Lease
from streaming_exporter.outbox.relay import AGE_STEP_SECONDS, Relay, run_until_signal
from streaming_exporter.outbox.sqlalchemy import request_export
from streaming_exporter.outbox.sqlalchemy_store import SqlAlchemyStore, open_engine
from streaming_exporter.outbox.store import LeaseState
from streaming_exporter.outbox.tables import metadata
from streaming_exporter.publisher import Publisher
from tests.waiting import patient

LEASE_SECONDS = 0.5


class Recorder(Publisher):
    """A publisher that only counts. With ``raises`` a signal comes with each event."""

    def __init__(self) -> None:
        super().__init__(KafkaSettings())
        self.published = 0
        self.raises: int | None = None

    async def publish_raw(self, *_: Any, **__: Any) -> None:
        if self.raises is not None:
            signal.raise_signal(self.raises)
        await asyncio.sleep(0.01)  # so that the loop sees a signal
        self.published += 1


class Held(SqlAlchemyStore):
    """An outbox whose lease another relay renews before each look. ``oldest_seconds`` is its backlog's."""

    oldest_seconds: float | None = None

    async def lease(self) -> LeaseState:
        assert await self.change_lease(await super().lease(), "alive")
        return await super().lease()

    async def backlog(self) -> Backlog:
        found = await super().backlog()
        return found if self.oldest_seconds is None else replace(found, oldest_seconds=self.oldest_seconds)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An outbox in which three requests wait."""
    address = f"sqlite:///{tmp_path / 'outbox.db'}"
    engine = create_engine(address)
    metadata.create_all(engine)
    with Session(engine) as session:
        for _ in range(3):
            request_export(session, ExportRequest(user_id="u", export_type="ledger", format="csv"))
        session.commit()
    engine.dispose()
    return address


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlAlchemyStore]:
    opened = SqlAlchemyStore(open_engine(url))
    yield opened
    await opened.close()


@pytest.fixture
async def held(url: str) -> AsyncIterator[Held]:
    opened = Held(open_engine(url))
    yield opened
    await opened.close()


def relay_of(store: SqlAlchemyStore, publisher: Publisher, **options: Any) -> Relay:
    options = {"lease_seconds": LEASE_SECONDS, "poll_seconds": 0.05, **options}
    return Relay(store, KafkaSettings(), publisher=publisher, **options)


async def test_a_relay_that_runs_once_publishes_after_one_that_was_killed(store: SqlAlchemyStore) -> None:
    assert await Lease(store, "killed", LEASE_SECONDS).hold()
    publisher = Recorder()
    assert await relay_of(store, publisher).drain() == 3
    assert (publisher.published, (await store.backlog()).waiting) == (3, 0)
    assert (await store.lease()).owner is None


async def test_a_relay_that_runs_once_fails_if_another_one_keeps_the_lease_and_entries_wait(
    held: Held, store: SqlAlchemyStore
) -> None:
    publisher = Recorder()
    relay = relay_of(held, publisher)
    with pytest.raises(Retryable, match=r"another relay holds the lease .* 3 entries still wait"):
        await relay.drain()
    assert publisher.published == 0
    assert (await store.lease()).owner == "alive"


async def test_a_relay_that_runs_once_ends_beside_a_healthy_one_although_new_entries_always_wait(
    held: Held,
) -> None:
    held.oldest_seconds = 0.0
    publisher = Recorder()
    assert await relay_of(held, publisher, lease_seconds=AGE_STEP_SECONDS + 0.1).drain() == 0
    assert publisher.published == 0


async def test_a_relay_that_runs_once_ends_when_another_one_has_published_everything(
    store: SqlAlchemyStore,
) -> None:
    assert await Lease(store, "alive", 60).hold()
    publisher = Recorder()
    running = asyncio.create_task(relay_of(store, publisher, lease_seconds=60).drain())
    await asyncio.sleep(0.1)
    assert not running.done()
    await store.delete([entry.id for entry in await store.read(10, 10**6)])
    assert await asyncio.wait_for(running, patient(10)) == 0


class OnWindows(asyncio.SelectorEventLoop):
    """An event loop that handles no signals, as those of Windows."""

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:  # type: ignore[override]
        raise NotImplementedError

    def remove_signal_handler(self, sig: int) -> bool:
        raise NotImplementedError


@contextmanager
def survived(number: int) -> Iterator[list[int]]:
    """Collect the signals that have no other handler in the block. Without it they would end the process."""
    unhandled: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        unhandled.append(number)

    before = signal.signal(number, note)
    try:
        yield unhandled
        assert signal.getsignal(number) is note, "the handler of before is back"
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("loop", [asyncio.SelectorEventLoop, OnWindows])
def test_a_signal_ends_a_relay_that_runs_once_after_a_batch(
    url: str, number: signal.Signals, loop: type[asyncio.AbstractEventLoop]
) -> None:
    publisher = Recorder()
    publisher.raises = number

    async def run() -> None:
        store = SqlAlchemyStore(open_engine(url))
        try:
            await run_until_signal(relay_of(store, publisher, batch_entries=2), once=True)
        finally:
            assert (await store.lease()).owner is None
            await store.close()

    with (
        survived(number) as unhandled,
        asyncio.Runner(loop_factory=loop) as runner,
        pytest.raises(Retryable, match="stopped before the outbox was empty"),
    ):
        runner.run(run())
    assert unhandled == []
    assert publisher.published == 2


@pytest.mark.parametrize("loop", [asyncio.SelectorEventLoop, OnWindows])
def test_a_signal_ends_a_relay_on_every_system(url: str, loop: type[asyncio.AbstractEventLoop]) -> None:
    publisher = Recorder()
    publisher.raises = signal.SIGTERM

    async def run() -> None:
        store = SqlAlchemyStore(open_engine(url))
        await asyncio.wait_for(run_until_signal(relay_of(store, publisher)), patient(10))
        await store.close()

    with survived(signal.SIGTERM) as unhandled, asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())
    assert unhandled == []
    assert publisher.published == 3


async def test_a_relay_that_runs_once_in_a_thread_handles_no_signals(url: str) -> None:
    publisher = Recorder()

    async def run() -> None:
        store = SqlAlchemyStore(open_engine(url))
        await run_until_signal(relay_of(store, publisher), once=True)
        await store.close()

    await asyncio.to_thread(lambda: asyncio.run(run()))
    assert publisher.published == 3
