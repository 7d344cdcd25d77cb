"""Each way in which Faust's consumer would lose or collect messages; real ones: tests/chaos, tests/e2e."""

import asyncio
import gc
from collections import defaultdict
from collections.abc import Mapping, Set
from types import SimpleNamespace
from typing import Any, cast
from weakref import WeakSet

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalStateError
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from hypothesis import given
from hypothesis import strategies as st
from intervaltree import IntervalTree
from structlog.testing import capture_logs

from stream_app.kafka import consumer as module
from stream_app.kafka.buffers import OVERHEAD, BufferedBytes
from stream_app.kafka.consumer import MAX_BUFFERED_BYTES, LosslessConsumer
from stream_app.kafka.consumer_thread import ConsumerThread
from stream_app.kafka.offsets import NothingRead, ask_leaders, end_of_run
from stream_app.kafka.transport import App
from tests.waiting import patient

PLACE, UNREAD = TP("exports.requests", 0), TP("exports.requests", 1)
TICKS = TP("exports.ticks", 0)


def message(place: TP = PLACE, offset: int = 0, size: int = 0) -> ConsumerMessage:
    return ConsumerMessage(
        place.topic, place.partition, offset, 0.0, 1, [], None, bytes(size), None, tp=place, generation_id=1
    )


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> LosslessConsumer:
    """A consumer with two partitions, offsets 3 to 9. Only the first one has a committed offset."""
    made = object.__new__(LosslessConsumer)

    async def committed(self: Any) -> dict[TP, int | None]:
        return {UNREAD: None, **self.stored}

    async def earliest(self: Any, *places: TP) -> dict[TP, int]:
        return dict.fromkeys(places, 3)

    async def highwaters(self: Any, *places: TP) -> dict[TP, int]:
        return {place: self.ends.pop(0) if len(self.ends) > 1 else self.ends[0] for place in places}

    async def seek(self: Any, place: TP, offset: int) -> None:
        self.sought[place] = offset

    async def sleep(self: Any, seconds: float) -> None:
        self.slept += seconds

    monkeypatch.setattr(LosslessConsumer, "seek_to_committed", committed)
    monkeypatch.setattr(LosslessConsumer, "assignment", lambda _: {PLACE, UNREAD})
    monkeypatch.setattr(LosslessConsumer, "earliest_offsets", earliest)
    monkeypatch.setattr(LosslessConsumer, "highwaters", highwaters)
    monkeypatch.setattr(LosslessConsumer, "seek", seek)
    monkeypatch.setattr(LosslessConsumer, "sleep", sleep)
    made.__dict__.update(
        sought={},
        slept=0,
        stored={PLACE: 7},
        ends=[9],
        _seeks=0,
        _seeking=asyncio.Lock(),
        fetched={},
        done={},
        _lost={},
        _unchecked=set(),
        _recheck_at=0.0,
        leaderless=set(),
        _thread=SimpleNamespace(leaderless=lambda places: places & made.__dict__["leaderless"]),
        buffered=BufferedBytes(),
        _committed_offset=defaultdict(lambda: None),
        _read_offset=NothingRead(),
        _unacked_messages=WeakSet(),
        _n_acked=0,
        _waiting_for_ack=None,
        app=SimpleNamespace(topics=SimpleNamespace(acks_enabled_for=lambda _: True), unneeded={}),
        _acked=defaultdict(list),
        _acked_index=defaultdict(set),
        _gap=defaultdict(IntervalTree),
    )
    return made


async def test_a_partition_without_a_commit_is_seeked_too(consumer: LosslessConsumer) -> None:
    await consumer.perform_seek()
    assert consumer.__dict__["sought"] == {UNREAD: 3}


@pytest.mark.parametrize("stored", [0, 2, 10, 100_000])
async def test_a_committed_offset_that_the_log_does_not_have_leads_to_its_beginning(
    consumer: LosslessConsumer, stored: int
) -> None:
    """R7: after an unclean election, from a mirror, or past the retention."""
    consumer.__dict__["stored"] = {PLACE: stored, UNREAD: 5}
    old = message(offset=stored)
    consumer.buffered.add(old)
    await consumer.perform_seek()
    assert consumer.__dict__["sought"] == {PLACE: 3}
    assert consumer._committed_offset[PLACE] is None
    assert old.acked  # messages of the old log change no offset


@pytest.mark.parametrize("stored", [2, 100_000])
async def test_a_loss_is_logged_once_for_several_seeks(
    consumer: LosslessConsumer, monkeypatch: pytest.MonkeyPatch, stored: int
) -> None:
    """R7: a seek before the commit finds the same offset. A later loss can have the same offset too."""

    async def commit(self: Any, offsets: Any) -> bool:
        return True

    monkeypatch.setattr(Consumer, "_commit", commit)
    consumer.__dict__["stored"] = {PLACE: stored, UNREAD: 5}
    with capture_logs() as said:
        for _ in range(3):
            consumer.__dict__["sought"].clear()
            await consumer.perform_seek()
            assert consumer.__dict__["sought"] == {PLACE: 3}
            assert consumer._committed_offset[PLACE] is None
            assert consumer._new_offset(PLACE) == 3  # the group's offset becomes the beginning
        assert [line["event"] for line in said] == ["offset.lost"]
        await consumer._commit({PLACE: 3})
        await consumer.perform_seek()
    assert [line["event"] for line in said] == ["offset.lost"] * 2


async def test_a_seek_does_not_wait_again_for_lost_offsets(consumer: LosslessConsumer) -> None:
    """R7: the log is already read while the group still has the old offset."""
    consumer.__dict__["stored"] = {PLACE: 100_000, UNREAD: 5}
    await consumer.perform_seek()
    consumer.__dict__["slept"] = 0
    await consumer.perform_seek()
    assert consumer.__dict__["slept"] == 0


@pytest.mark.parametrize("stored", [3, 7, 9])
async def test_a_committed_offset_that_the_log_has_is_kept(consumer: LosslessConsumer, stored: int) -> None:
    consumer.__dict__["stored"] = {PLACE: stored, UNREAD: 5}
    await consumer.perform_seek()
    assert consumer.__dict__["sought"] == {}


async def test_a_new_leader_can_need_a_moment_for_its_end_offset(consumer: LosslessConsumer) -> None:
    """R7: a clean election repeats no message."""
    consumer.__dict__.update(stored={PLACE: 7, UNREAD: 7}, ends=[6, 6, 7])
    await consumer.perform_seek()
    assert consumer.__dict__["sought"] == {}
    assert consumer.__dict__["slept"] == module.OFFSET_RETRY_SECONDS


@pytest.fixture
def mute(consumer: LosslessConsumer, monkeypatch: pytest.MonkeyPatch) -> set[TP]:
    """Partitions whose offsets are never returned, as long as they are in this set."""
    places: set[TP] = set()
    earliest: Any = LosslessConsumer.earliest_offsets

    async def ask(self: Any, *asked: TP) -> Any:
        if places.intersection(asked):
            await asyncio.Event().wait()
        return await earliest(self, *asked)

    async def fetch(self: Any, timeout: float) -> tuple[Any, Any]:
        return {PLACE: [SimpleNamespace(offset=7)]}, {PLACE}

    monkeypatch.setattr(LosslessConsumer, "earliest_offsets", ask)
    monkeypatch.setattr(Consumer, "_wait_next_records", fetch)
    monkeypatch.setattr(module, "OFFSETS_SECONDS", 0.01)
    monkeypatch.setattr(module, "RECHECK_SECONDS", 0)
    return places


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("stored", [5, None])
async def test_a_partition_without_a_leader_stops_no_other(
    consumer: LosslessConsumer, mute: set[TP], stored: int | None, known: bool
) -> None:
    """Its offsets are asked for when it has a leader. The client needs a moment to know that it has none."""
    consumer.__dict__["stored"] = {PLACE: 7, UNREAD: stored}
    mute.add(UNREAD)
    if known:
        consumer.__dict__["leaderless"].add(UNREAD)
    await asyncio.wait_for(consumer.perform_seek(), patient(10))
    assert consumer.fetched[PLACE] == consumer.done[PLACE] == 7
    assert consumer.done.get(UNREAD) == stored
    consumer.__dict__["leaderless"].add(UNREAD)
    assert (await consumer._wait_next_records(1.0))[0]
    mute.clear()
    consumer.__dict__["leaderless"].clear()
    assert await consumer._wait_next_records(1.0) == (None, {PLACE})
    assert consumer.fetched[UNREAD] == consumer.done[UNREAD] == (stored or 3)
    assert (await consumer._wait_next_records(1.0))[0]


async def test_a_seek_without_an_answer_is_repeated(
    consumer: LosslessConsumer, mute: set[TP], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust would end its recovery silently."""
    committed: Any = LosslessConsumer.seek_to_committed

    async def never(self: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "SEEK_SECONDS", 0.01)
    monkeypatch.setattr(LosslessConsumer, "seek_to_committed", never)
    consumer.done[PLACE] = 9
    await asyncio.wait_for(consumer.perform_seek(), patient(10))
    assert PLACE not in consumer.done
    monkeypatch.setattr(LosslessConsumer, "seek_to_committed", committed)
    assert await consumer._wait_next_records(1.0) == (None, {PLACE})
    assert consumer.done == {PLACE: 7, UNREAD: 3}


async def test_a_seek_that_waits_for_another_one_ends_in_time(
    consumer: LosslessConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEEK_SECONDS", 0.01)
    async with consumer._seeking:
        await asyncio.wait_for(consumer.perform_seek(), patient(10))
    assert consumer._unchecked == {PLACE, UNREAD}


@pytest.mark.parametrize("moved", [PLACE, UNREAD])
async def test_a_partition_that_moves_while_offsets_are_asked_for_again_stops_no_other(
    consumer: LosslessConsumer, mute: set[TP], monkeypatch: pytest.MonkeyPatch, moved: TP
) -> None:
    """The rebalance seeks by itself. The fetcher would end with an error, and the worker with it."""
    consumer.__dict__["stored"] = {PLACE: 0}
    mute.add(UNREAD)
    await consumer.perform_seek()
    assert consumer._unchecked
    mute.clear()

    async def seek(self: Any, place: TP, offset: int) -> None:
        if place == moved:
            raise IllegalStateError(f"{place} is not assigned")

    monkeypatch.setattr(LosslessConsumer, "seek", seek)
    assert await consumer._wait_next_records(1.0) == (None, {PLACE})


async def test_offsets_of_partitions_that_have_moved_are_not_asked_for_again(
    consumer: LosslessConsumer, mute: set[TP], monkeypatch: pytest.MonkeyPatch
) -> None:
    mute.add(UNREAD)
    await consumer.perform_seek()
    can_recheck = {}
    for owned in (frozenset({PLACE, UNREAD}), frozenset({PLACE}), frozenset[TP]()):
        monkeypatch.setattr(LosslessConsumer, "assignment", lambda _, owned=owned: owned)
        can_recheck[owned] = consumer._can_recheck
    assert list(can_recheck.values()) == [True, False, False]


async def test_a_worker_without_partitions_has_nothing_to_seek() -> None:
    """A rebalance can take them between the decision and the seek."""
    client = AIOKafkaConsumer(group_id="g")
    thread = object.__new__(ConsumerThread)
    thread._consumer, thread.thread_loop = client, asyncio.get_running_loop()
    try:
        assert await thread.seek_to_committed() == {}
    finally:
        await client.stop()


async def test_a_silent_leader_is_logged_only_if_it_is_not_heard_later() -> None:
    calls = 0

    async def ask(tps: Set[TP]) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return dict.fromkeys(tps, 0), dict.fromkeys(tps, 9)

    with capture_logs() as logs:
        _, ends = await ask_leaders(ask, {PLACE, UNREAD}, 0.01)
    assert set(ends) == {PLACE, UNREAD}
    assert not logs


@pytest.mark.parametrize("rebalanced", [True, False])
async def test_messages_fetched_before_a_seek_are_dropped(
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


async def test_a_reset_of_the_client_is_followed(
    consumer: LosslessConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R7: otherwise Faust drops all messages below the last offset that it has read."""
    fetched = {PLACE: [SimpleNamespace(offset=0)]}

    async def fetch(self: Any, timeout: float) -> tuple[Any, Any]:
        return fetched, {PLACE}

    monkeypatch.setattr(Consumer, "_wait_next_records", fetch)
    consumer.fetched[PLACE], consumer.done[PLACE] = 42, 40
    consumer._committed_offset[PLACE] = 40
    assert await consumer._wait_next_records(1.0) == (fetched, {PLACE})
    assert consumer._should_commit(PLACE, 1)
    consumer.ack(message(offset=0))
    assert consumer._new_offset(PLACE) == 1


async def test_a_topic_with_many_bytes_in_memory_waits_and_others_continue(
    consumer: LosslessConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14: bytes count as long as the messages are in memory."""
    asked: list[set[TP]] = []

    async def fetch(self: Any, places: set[TP], timeout: float) -> dict[TP, Any]:
        asked.append(places)
        return {}

    monkeypatch.setattr(Consumer, "_getmany", fetch)
    held = [message(size=MAX_BUFFERED_BYTES)]
    consumer.buffered.add(held[0])
    await consumer._getmany({PLACE, TICKS}, 1.0)
    await consumer._getmany({PLACE}, 1.0)
    held.clear()
    gc.collect()
    await consumer._getmany({PLACE, TICKS}, 1.0)
    assert asked == [{TICKS}, {PLACE, TICKS}]


def test_bytes_count_until_the_message_is_deleted() -> None:
    held, kept = BufferedBytes(), [message(size=5), message(TICKS, size=7)]
    for one in kept:
        held.add(one)
    assert (held.bytes_of(PLACE.topic), held.bytes_of(TICKS.topic)) == (OVERHEAD + 5, OVERHEAD + 7)
    del one, kept[0]
    assert held.bytes_of(PLACE.topic) == 0
    assert held.messages() == kept


def test_a_gap_of_any_size_is_a_range(consumer: LosslessConsumer) -> None:
    """Q10: after the retention has removed a billion messages, no list has all their offsets."""
    end = 5_000_000_000
    consumer.done[PLACE] = 10
    consumer.fetched[PLACE] = 11
    consumer._note_fetched(PLACE, [end, end + 1])
    consumer._acked[PLACE] = [10, end, end + 1]
    consumer._acked_index[PLACE] = {10, end, end + 1}
    assert consumer._new_offset(PLACE) == end + 2
    assert consumer._acked[PLACE] == []
    assert consumer._acked_index[PLACE] == set()


@given(
    st.integers(0, 40),
    st.sets(st.integers(0, 40)),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9))),
)
def test_the_run_ends_at_the_first_offset_that_is_neither_acknowledged_nor_missing(
    begin: int, offsets: set[int], gaps: list[tuple[int, int]]
) -> None:
    """Q10: the result equals that of a list of all offsets."""
    ranges = [(first, first + length) for first, length in gaps]
    every = offsets | {offset for first, after in ranges for offset in range(first, after)}
    end = begin
    while end in every:
        end += 1
    assert end_of_run(begin, offsets, ranges) == end


async def test_messages_without_need_are_acknowledged_and_not_delivered(
    consumer: LosslessConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No commit passes a message before them that is not handled yet."""
    values = {3: b"needed", 4: b"-", 5: b"-"}

    async def fetch(self: Any, timeout: float) -> tuple[Any, Any]:
        found = [SimpleNamespace(offset=number, value=value, headers=()) for number, value in values.items()]
        return {PLACE: found}, {PLACE}

    monkeypatch.setattr(Consumer, "_wait_next_records", fetch)
    consumer.__dict__.update(stored={PLACE: 3}, ends=[20])
    cast(App, consumer.app).unneeded[PLACE.topic] = lambda value, _: value == b"-"
    await consumer.perform_seek()
    records, _ = await consumer._wait_next_records(1.0)
    assert records is not None
    assert [record.offset for record in records[PLACE]] == [3]
    assert not consumer.has_offset_to_commit(PLACE), "the worker makes progress with the message before them"
    assert consumer._new_offset(PLACE) is None
    consumer.ack(message(offset=3))
    assert consumer.has_offset_to_commit(PLACE)
    assert consumer._new_offset(PLACE) == 6
    assert not consumer.has_offset_to_commit(PLACE)


@pytest.mark.parametrize("stored", [None, 3, 7])
@pytest.mark.parametrize("dropped", [1, 2])
async def test_no_commit_passes_a_dropped_message(
    consumer: LosslessConsumer, stored: int | None, dropped: int
) -> None:
    """Faust drops its buffers in a rebalance: also a single message, also without a committed offset."""
    consumer.__dict__.update(stored={PLACE: stored}, ends=[20])
    await consumer.perform_seek()
    first = 3 if stored is None else stored
    consumer._note_fetched(PLACE, list(range(first, first + dropped + 1)))
    consumer.ack(message(offset=first + dropped))
    assert consumer._new_offset(PLACE) is None
    for offset in range(first, first + dropped):
        consumer.ack(message(offset=offset))
    assert consumer._new_offset(PLACE) == first + dropped + 1


def test_a_message_fetched_before_a_seek_does_not_hide_later_ones(consumer: LosslessConsumer) -> None:
    """Faust notes its offset at delivery, which can be after the seek, and drops all messages below it."""
    consumer._read_offset.update({PLACE: 7})
    consumer._read_offset[PLACE] = 9
    assert consumer._read_offset[PLACE] is None


@pytest.mark.parametrize("begun", [True, False])
async def test_messages_fetched_during_a_seek_are_fetched_again(
    consumer: LosslessConsumer, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """It is not known whether the fetch began before the seek of the client."""
    looked = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(self: Any, *places: TP) -> dict[TP, int]:
        looked.set()
        await go_on.wait()
        return dict.fromkeys(places, 3)

    async def fetch(self: Any, timeout: float) -> tuple[Any, Any]:
        asyncio.get_running_loop().call_later(0.01, go_on.set)
        if not begun:
            go_on.set()
            await seeking
        return {PLACE: [SimpleNamespace(offset=9)]}, {PLACE}

    monkeypatch.setattr(LosslessConsumer, "earliest_offsets", slow)
    monkeypatch.setattr(Consumer, "_wait_next_records", fetch)
    seeking = asyncio.create_task(consumer.perform_seek())
    await looked.wait()
    assert await consumer._wait_next_records(1.0) == (None, {PLACE})
    await seeking
    assert consumer.fetched[PLACE] == 7


@given(st.data())
def test_all_messages_before_a_commit_are_handled(data: st.DataObject) -> None:
    """Messages can be fetched, dropped, and handled twice or in another order; the log can have gaps."""
    consumer = object.__new__(LosslessConsumer)
    consumer.__dict__.update(
        buffered=BufferedBytes(),
        fetched={},
        done={},
        _committed_offset=defaultdict(lambda: None),
        _unacked_messages=WeakSet(),
        _n_acked=0,
        _waiting_for_ack=None,
        _acked=defaultdict(list),
        _acked_index=defaultdict(set),
        _gap=defaultdict(IntervalTree),
        app=SimpleNamespace(topics=SimpleNamespace(acks_enabled_for=lambda _: True), unneeded={}),
    )
    log = sorted(data.draw(st.sets(st.integers(0, 30), min_size=1)))
    handled: set[int] = set()
    committed = begin = data.draw(st.integers(0, log[0]))

    def seek() -> int:
        consumer._committed_offset[PLACE] = committed
        consumer.fetched[PLACE] = consumer.done[PLACE] = committed
        return committed

    position = seek()
    for _ in range(data.draw(st.integers(1, 12))):
        left = [offset for offset in log if offset >= position]
        taken = left[: data.draw(st.integers(0, 5))]
        consumer._note_fetched(PLACE, taken)
        position = taken[-1] + 1 if taken else position
        for offset in data.draw(st.permutations(taken)):
            if data.draw(st.booleans()):
                handled.add(offset)
                consumer.ack(message(offset=offset))
        is_due = consumer.has_offset_to_commit(PLACE)
        new = consumer._new_offset(PLACE)
        assert is_due is (new is not None)
        if new is not None:
            assert new > committed
            committed = new
            consumer._committed_offset[PLACE] = new
        assert [offset for offset in log if begin <= offset < committed and offset not in handled] == []
        if data.draw(st.booleans()):
            position = seek()


async def test_a_seek_while_a_commit_waits_makes_its_offset_void(
    consumer: LosslessConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise acknowledgements of repeated messages would be ignored, and nothing would be committed."""
    sent: list[Mapping[TP, int]] = []
    flushed = asyncio.Event()

    async def send(self: Any, offsets: Mapping[TP, int]) -> bool:
        sent.append(offsets)
        return True

    monkeypatch.setattr(Consumer, "_commit", send)
    cast(Any, consumer.app).producer = SimpleNamespace(flush=flushed.wait)
    consumer.__dict__.update(stored={PLACE: 3}, ends=[9])
    await consumer.perform_seek()
    consumer._note_fetched(PLACE, [3, 4, 5])
    for offset in (3, 4, 5):
        consumer.ack(message(offset=offset))
    assert consumer._new_offset(PLACE) == 6
    committing = asyncio.create_task(consumer._commit_offsets({PLACE: 6}))
    await asyncio.sleep(0)
    await consumer.perform_seek()
    flushed.set()
    await committing
    assert sent == []
    consumer._note_fetched(PLACE, [3, 4, 5])
    for offset in (3, 4, 5):
        consumer.ack(message(offset=offset))
    assert consumer._new_offset(PLACE) == 6
    assert await consumer._commit_offsets({PLACE: 6, TICKS: 1})
    assert sent == [{PLACE: 6}]  # another worker has the partition of the ticks
    assert consumer._committed_offset[PLACE] == 6
    assert consumer._committed_offset[TICKS] is None
    assert not await consumer._commit_offsets({TICKS: 1})
    assert sent == [{PLACE: 6}]
