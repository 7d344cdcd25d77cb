"""The lease of the relay of an outbox, with a clock of the test; and the bytes of a batch."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_exporter.outbox.entries import Backlog, Entry
from streaming_exporter.outbox.lease import Lease
from streaming_exporter.outbox.store import LeaseState, within


class Memory:
    """A store of a lease alone."""

    def __init__(self) -> None:
        self.state = LeaseState()

    async def lease(self) -> LeaseState:
        return self.state

    async def change_lease(self, seen: LeaseState, owner: str | None) -> bool:
        if seen != self.state:
            return False
        self.state = LeaseState(owner, seen.version + 1)
        return True

    async def read(self, count: int, size: int) -> Sequence[Entry]:
        raise NotImplementedError

    async def delete(self, ids: Sequence[int]) -> None:
        raise NotImplementedError

    async def refuse(self, entry_id: int, reason: str) -> None:
        raise NotImplementedError

    async def backlog(self) -> Backlog:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


@pytest.fixture
def store() -> Memory:
    return Memory()


async def test_a_second_relay_waits_as_long_as_the_first_renews_its_lease(store: Memory) -> None:
    now = 0.0
    first = Lease(store, "first", 9, clock=lambda: now)
    second = Lease(store, "second", 9, clock=lambda: now)
    for _ in range(20):
        assert (await first.hold(), await second.hold()) == (True, False)
        now += 3


async def test_a_lease_that_nobody_renews_changes_its_holder_after_its_time(store: Memory) -> None:
    now = 0.0
    assert await Lease(store, "dead", 9, clock=lambda: now).hold()
    second = Lease(store, "second", 9, clock=lambda: now)
    assert not await second.hold()
    now = 8.9
    assert not await second.hold()
    now = 9.0
    assert await second.hold()


async def test_a_relay_that_was_frozen_notices_that_it_lost_the_lease(store: Memory) -> None:
    now = 0.0
    frozen = Lease(store, "frozen", 9, clock=lambda: now)
    other = Lease(store, "other", 9, clock=lambda: now)
    assert await frozen.hold()
    assert not await other.hold()
    now = 9.0
    assert await other.hold()
    assert not await frozen.hold()


async def test_a_released_lease_is_free_at_once_and_only_its_holder_can_release_it(store: Memory) -> None:
    first, second = Lease(store, "first", 9), Lease(store, "second", 9)
    assert await first.hold()
    await second.release()
    assert not await second.hold()
    await first.release()
    assert await second.hold()


@given(st.lists(st.integers(0, 100), min_size=1), st.integers(0, 300))
def test_a_batch_has_a_first_entry_and_no_more_bytes_than_allowed(sizes: list[int], limit: int) -> None:
    ids = within(list(enumerate(sizes)), limit)
    assert ids == list(range(len(ids)))
    assert len(ids) == 1 or sum(sizes[: len(ids)]) <= limit
    assert len(ids) == len(sizes) or sum(sizes[: len(ids) + 1]) > limit
