"""Faust's Kafka consumer, changed so that it loses no messages and its memory is bounded.

*Rebalance.* After a rebalance Faust seeks to the committed offsets and continues to read there. But a fetch
that had begun before can be delivered afterwards. Its offsets are ahead, so Faust takes the difference for a
gap in the log, and commits past messages that it dropped from its buffers. For a partition without a
committed offset Faust does not seek at all, so messages that it fetched and dropped are never read again.

*A log that does not match the committed offset.* After an unclean election, in a mirror or a backup, or when
a topic was created again, the log can end before the committed offset, and Faust drops every message below
that offset. Such a partition is read from its beginning, because a repeated message does no harm and a
skipped request does. If the log begins after the committed offset, messages were lost to the retention. That
is logged too.

*A partition without a leader.* Its offsets are asked for later: Faust would wait for them, and then read from
no partition any more.

*Memory.* Faust counts messages in its buffers, not their bytes.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiokafka.errors import IllegalStateError
from faust.transport.consumer import ensure_TP
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types import TP, ConsumerMessage
from mode.services import WaitResults

from stream_app.kafka.buffers import BufferedBytes
from stream_app.kafka.consumer_thread import ConsumerThread
from stream_app.kafka.eager_coroutines import Finished, run_until_waiting
from stream_app.kafka.offsets import NothingRead, ask_leaders, end_of_run
from stream_app.kafka.unneeded_messages import separate
from stream_app.observability import metrics

if TYPE_CHECKING:
    from stream_app.kafka.transport import App

log = structlog.get_logger(__name__)

MAX_BUFFERED_BYTES = 8 * 2**20
"""When a topic's messages in memory take more bytes than this, no more are fetched from the client."""

OFFSET_TRIES = 3
"""How often the offsets of partitions are read: the log of a new leader can be shorter for a moment."""

OFFSET_RETRY_SECONDS = 1.0
"""Seconds between two of these reads."""

OFFSETS_SECONDS = 5.0
"""Seconds in which the leaders of partitions must return their offsets."""

SEEK_SECONDS = 20.0
"""Limit of a seek, in seconds. After 30 Faust would end its recovery silently, and never read again."""

RECHECK_SECONDS = 30.0
"""Seconds until the leaders of partitions are asked again that did not return their offsets."""

FLUSH_SECONDS = 1.0
"""Seconds that a commit waits at most until the producer has sent its messages."""

SHORT_PAUSE = 0.02
"""Seconds to wait for messages of other topics while one topic has enough messages in memory."""


class LosslessConsumer(Consumer):
    """Delivers no message that was fetched before the last seek, and commits past no unhandled message.

    Faust infers gaps in the log from the messages that it receives, so it takes messages that it dropped for
    gaps. This class learns the gaps from what the client returns: between two seeks the client skips only
    offsets that the log does not have.
    """

    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.buffered = BufferedBytes()
        self._read_offset = NothingRead()
        self._seeks = 0
        self._seeking = asyncio.Lock()
        self.fetched: dict[TP, int] = {}
        """The next offset of each partition: the one after the last message that the client returned."""
        self.done: dict[TP, int] = {}
        """The next offset to commit: all messages below it are acknowledged or missing in the log."""
        self._lost: dict[TP, int] = {}
        """Committed offsets that the log does not have. An entry stays until another offset is committed."""
        self._unchecked: set[TP] = set()
        """Partitions whose leader has not returned their offsets. They are read as soon as they have one."""
        self._recheck_at = 0.0

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Seek to the committed offsets; to the beginning if there is none, or the log does not have it.

        What Kafka does not answer in time is sought later: a single partition without a leader must not stop
        the others.
        """
        try:
            async with asyncio.timeout(SEEK_SECONDS), self._seeking:
                await self._seek_all()
        except TimeoutError:
            log.warning("seek.abandoned", seconds=SEEK_SECONDS)
            for tp in self.assignment():
                self._leave_unchecked(tp, None)
        finally:
            self._seeks += 1
            self._recheck_at = time.monotonic() + RECHECK_SECONDS

    @property
    def _can_recheck(self) -> bool:
        """Whether offsets of own partitions are unknown that a leader can return now."""
        if not self._unchecked or time.monotonic() < self._recheck_at:
            return False
        unchecked = self._unchecked & self.assignment()
        return self._thread.leaderless(unchecked) != unchecked

    def _leave_unchecked(self, tp: TP, committed: int | None) -> None:
        """Note that the offsets of a partition are unknown.

        If ``committed`` is None, nothing of it is committed until its offsets are known.
        """
        self._unchecked.add(tp)
        self._committed_offset[tp] = committed
        if committed is None:
            self.done.pop(tp, None)
            self.fetched.pop(tp, None)
        else:
            self.done[tp] = self.fetched[tp] = committed

    async def _seek_all(self) -> None:
        lost = dict(self._lost)  # a commit that ends meanwhile removes entries that are needed here
        stored = await self.seek_to_committed()
        assigned = self.assignment()
        committed = {
            ensure_TP(tp): offset for tp, offset in stored.items() if offset is not None and offset >= 0
        }
        for tp in self._lost.keys() - assigned:
            del self._lost[tp]  # its new owner can commit any offset
        known = {tp for tp, offset in committed.items() if lost.get(tp) == offset}
        for tp in known:
            del committed[tp]
        begins, ends = await self._find_offsets(assigned, committed)
        self._unchecked = set()
        for tp in assigned:
            if tp not in ends:
                self._leave_unchecked(tp, committed.get(tp))
                continue
            offset = committed.get(tp)
            if offset is not None and not begins[tp] <= offset <= ends[tp]:
                self._restart_partition(tp, offset, begins[tp], ends[tp])
                await self._seek_to(tp, begins[tp])
                continue
            if tp in known:
                self._forget(tp, begins[tp])
                await self._seek_to(tp, begins[tp])
                continue
            self._committed_offset[tp] = offset
            self.fetched[tp] = self.done[tp] = begins[tp] if offset is None else offset
            if not offset:  # the client does not seek to 0: it takes 0 for no offset
                await self._seek_to(tp, self.fetched[tp])

    async def _find_offsets(
        self, assigned: Set[TP], committed: Mapping[TP, int]
    ) -> tuple[Mapping[TP, int], Mapping[TP, int]]:
        """Return where the logs of partitions begin and end, without those whose leader does not answer."""
        begins: Mapping[TP, int] = {}
        ends: Mapping[TP, int] = {}
        for attempt in range(OFFSET_TRIES):
            asked = assigned - self._thread.leaderless(assigned)
            begins, ends = await ask_leaders(self._ask_offsets, asked, OFFSETS_SECONDS)
            if all(committed.get(tp, 0) <= end for tp, end in ends.items()):
                break
            if attempt < OFFSET_TRIES - 1:
                await self.sleep(OFFSET_RETRY_SECONDS)
        return begins, ends

    async def _ask_offsets(self, tps: Set[TP]) -> tuple[Mapping[TP, int], Mapping[TP, int]]:
        return await self.earliest_offsets(*tps), await self.highwaters(*tps)

    async def _seek_to(self, tp: TP, offset: int) -> None:
        await self.seek(TP(tp.topic, tp.partition), offset)

    def _restart_partition(self, tp: TP, expected: int, begin: int, end: int | None) -> None:
        """Read a partition from its beginning, because its log was replaced."""
        missing = "before the log's beginning" if expected < begin else "beyond the log's end"
        log.error(
            "offset.lost",
            topic=tp.topic,
            partition=tp.partition,
            offset=expected,
            log_begins=begin,
            log_ends=end,
            reason=f"the next offset to read is {missing}; the partition is read from its beginning",
            messages_lost=max(0, begin - expected) or None,
        )
        metrics.OFFSETS_LOST.labels("before_beginning" if expected < begin else "beyond_end").inc()
        self._lost[tp] = expected
        self._forget(tp, begin)

    def _forget(self, tp: TP, begin: int) -> None:
        """Discard the state of the old log of a partition. The new log begins at ``begin``."""
        self._gap.pop(tp, None)
        # The next commit sets the group's offset to the beginning, even if no message is read soon.
        self._acked[tp] = [begin - 1]
        self._acked_index.pop(tp, None)
        self._committed_offset[tp] = None
        self.done[tp], self.fetched[tp] = begin - 1, begin
        for message in self.buffered.messages():
            if message.tp == tp:
                message.acked = True  # a message of the old log: it counts as handled and changes no offset

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        """Commit the offsets of own partitions. A seek while the commit waits makes them void.

        It replaces a method of Faust that draws a table of the offsets at each commit, for a line of its
        debug log that is not written.

        For a void offset the note of the last commit is removed. Otherwise Faust would ignore the
        acknowledgements of all messages below that offset, although they are read again.
        """
        assigned = self.assignment()
        own = {tp: offset for tp, offset in offsets.items() if tp in assigned}
        try:
            if not own:
                return False
            # What belongs to acknowledged messages is sent. Others can wait long, for example for a leader.
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self.app.producer.flush()
            done = await self._commit(own)
            self._committed_offset.update(own)
            return done
        finally:
            for tp, offset in offsets.items():
                if self._is_void(tp, offset):
                    self._committed_offset[tp] = None

    def _is_void(self, tp: TP, offset: int) -> bool:
        """Return whether a seek went back to before ``offset`` after ``offset`` was computed."""
        return self.done.get(tp, offset) < offset

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        valid = {tp: offset for tp, offset in offsets.items() if not self._is_void(tp, offset)}
        return bool(valid) and await self._commit_now(valid)

    async def _commit_now(self, offsets: Mapping[TP, int]) -> bool:
        committed: bool = await super()._commit(offsets)
        if committed:
            for tp in offsets:
                self._lost.pop(tp, None)
        return committed

    async def reread_topic(self, topic: str) -> None:
        """Read a topic that was deleted and created again from its beginning; ignore committed offsets."""
        assigned = [tp for tp in self.assignment() if tp.topic == topic]
        if not assigned:
            return
        log.error("topic.recreated", topic=topic, reason="it has another id; it is read from its beginning")
        metrics.OFFSETS_LOST.labels("topic_made_anew").inc(len(assigned))
        if self._commit_fut is not None:  # an older commit must not overwrite the new offsets
            await asyncio.wait({self._commit_fut})
        async with self._seeking:
            begins = await self.earliest_offsets(*assigned)
            for tp in assigned:
                self._forget(tp, begins[tp])
            await self._commit_now(dict(begins))
            for tp in assigned:
                await self._seek_to(tp, begins[tp])
            self._seeks += 1  # a fetch that is going on is of the old log

    async def sleep(self, n: Any) -> None:
        """Sleep for ``n`` seconds, or until the consumer is stopped. Faust sleeps for 0 at every fetch."""
        if n:
            await super().sleep(n)
        else:
            await asyncio.sleep(0)

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:
        """Wait for the first of ``coros`` to end.

        Faust calls it for each message that it delivers, together with a wait for the suspension of the flow,
        and starts a task for each of them. The delivery waits only if the agent's buffer is full, so it is
        begun here, and only a delivery that waits is given to Faust.
        """
        if len(coros) == 2 and timeout is None and iscoroutine(coros[0]):
            delivery, suspended = coros
            try:
                begun = run_until_waiting(delivery)
            except BaseException:
                suspended.close()
                raise
            if isinstance(begun, Finished):
                suspended.close()
                if self._stopped.is_set() or self._crashed.is_set():
                    return WaitResults([], [], True)
                return WaitResults([delivery], [begun.value], False)
            coros = (begun, suspended)
        return await super().wait_first(*coros, timeout=timeout)

    async def _wait_next_records(self, timeout: float) -> tuple[Mapping[TP, Any] | None, set[TP] | None]:
        seeks = self._seeks
        records, active = await super()._wait_next_records(timeout)
        if self._can_recheck or (records and (seeks != self._seeks or self._seeking.locked())):
            # It is not known whether they were fetched before or after the seek: fetch them again.
            with suppress(IllegalStateError):  # a partition has a new owner: the rebalance seeks by itself
                await self.perform_seek()
            return None, active
        for tp, found in (records or {}).items():
            self._note_fetched(tp, [record.offset for record in found])
        if not records:
            return records, active
        needed, unneeded = separate(records, cast("App", self.app).unneeded)
        for message in unneeded:
            self.ack(cast(ConsumerMessage, message))
        return needed, active

    def _note_fetched(self, tp: TP, offsets: Sequence[int]) -> None:
        """Note the gaps of the log: the offsets that the client skipped since its last answer."""
        expected = self.fetched.get(tp)
        if expected is None or not offsets:
            return
        if offsets[0] < expected:
            # The broker told the client that its offset is out of range, and it restarted at the beginning.
            self._restart_partition(tp, expected, offsets[0], None)
            expected = offsets[0]
        for offset in offsets:
            if offset > expected:
                self._gap[tp].addi(expected, offset)
            expected = offset + 1
        self.fetched[tp] = expected

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, Any]:
        """Fetch only messages of topics that have room in memory."""
        wanted = {
            tp for tp in active_partitions or () if self.buffered.bytes_of(tp.topic) < MAX_BUFFERED_BYTES
        }
        if not wanted:
            await self.sleep(SHORT_PAUSE)
            return {}
        if len(wanted) < len(active_partitions or ()):
            timeout = SHORT_PAUSE
        return await super()._getmany(wanted, timeout)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        message = super()._to_message(tp, record)
        self.buffered.add(message)
        return message

    def has_offset_to_commit(self, tp: TP) -> bool:
        """Return whether the next commit moves the offset of a partition.

        Acknowledgements behind a message that is not handled yet wait for it.
        """
        acked, begin = self._acked.get(tp), self.done.get(tp)
        if not acked or begin is None:
            return False
        gaps = self._gap.get(tp)
        return min(acked) <= begin or (gaps is not None and bool(gaps.overlaps(begin)))

    def _new_offset(self, tp: TP) -> int | None:
        """Return the offset to commit: all messages below it are acknowledged or missing in the log.

        It replaces a method of Faust that lists every missing offset, of which there can be billions. Faust's
        method also commits past a single unhandled message, and past any number of them if no offset was
        committed before.
        """
        acked, begin = self._acked[tp], self.done.get(tp)
        if not acked or begin is None:
            return None
        acked.sort()
        gaps = self._gap[tp]
        missing = [(gap.begin, gap.end) for gap in gaps.overlap(begin, acked[-1])] if gaps else []
        end = end_of_run(begin, acked, missing)
        done = bisect_left(acked, end)
        self._acked_index[tp].difference_update(acked[:done])
        del acked[:done]
        if end == begin:
            return None
        if gaps:
            gaps.chop(0, end)
        self.done[tp] = end
        return end
