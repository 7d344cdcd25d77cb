"""Decides whether a worker is ready, waits for a part, or cannot recover by itself. Pure.

A worker that waits for Kafka or PostgreSQL recovers by itself and must not end. A worker that makes no
progress while both answer does not recover: after an outage Faust can stay alive and receive no more messages
(https://github.com/faust-streaming/faust/issues/175). Such a worker ends, and its supervisor starts it again.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from stream_app.kafka.brokers import Group, Partition, without_leader
from stream_app.kafka.topic_outages import TopicOutage


class Stuck(Exception):
    """The worker cannot recover by itself. The text names the reason."""


class WorkerState(Enum):
    """The state of a worker."""

    READY = "ready"
    WAITING = "waiting"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class PartitionState:
    """The state of one partition in the worker's consumer.

    Attributes:
        position: the next offset to read.
        oldest: the first offset that is being handled and not acknowledged, or ``None``.
        acknowledged: whether an acknowledgement can be committed: no message before it waits to be handled.
        fetched: the offset after the last message that the client returned.
        done: all messages before this offset are acknowledged.
    """

    position: int | None
    oldest: int | None
    acknowledged: bool
    fetched: int = 0
    done: int = 0

    @property
    def has_lost_messages(self) -> bool:
        """Whether a message was fetched and lost: it is neither being handled nor acknowledged."""
        return self.oldest is None and not self.acknowledged and self.fetched > self.done


@dataclass(frozen=True, slots=True)
class Signals:
    """The observations of one check.

    ``away`` maps each part that does not answer to the reason. ``leaderless`` are those of the worker's
    partitions that cannot be read now: ``ends`` does not have them. ``outage`` is the newest one, by the
    watchdog's clock, because of which messages wait; it ends as soon as work for them succeeds.
    ``progress`` counts the steps of progress for each partition: one message can need thousands of steps.
    """

    client_id: str
    away: Mapping[str, str] = field(default_factory=dict)
    group: Group | None = None
    ends: Mapping[Partition, int] = field(default_factory=dict)
    partition_states: Mapping[Partition, PartitionState] = field(default_factory=dict)
    leaderless: Sequence[Partition] = ()
    outage: TopicOutage | None = None
    progress: Mapping[Partition, int] = field(default_factory=dict)

    @property
    def is_member(self) -> bool:
        """Whether the consumer group lists this worker."""
        return self.group is not None and self.group.is_stable and self.client_id in self.group.members

    def lag(self) -> dict[str, int]:
        """Return how many messages of each topic's partitions here are not handled."""
        found: dict[str, int] = {}
        for partition, state in self.partition_states.items():
            end = self.ends.get(partition, 0)
            done = state.position if state.oldest is None else state.oldest
            found[partition[0]] = found.get(partition[0], 0) + max(0, end - (end if done is None else done))
        return found

    def problems(self, *, is_blocked: bool = False) -> Iterator[str]:
        """Yield problems that are fatal if they last.

        Each text contains an offset and a step, so the text changes with progress. While a part refuses
        writes (``is_blocked``), the worker need not make progress with its messages.
        """
        if self.group is None:
            return
        if not self.is_member:
            yield f"the worker is not a member of its consumer group, whose state is {self.group.state}"
        if is_blocked:
            return
        for partition, state in self.partition_states.items():
            name = f"{partition[0]}[{partition[1]}]"
            position = state.position or 0
            steps = self.progress.get(partition, 0)
            at = f", at step {steps}" if steps else ""
            if position < self.ends.get(partition, 0):
                yield f"{name} is not read on from {position}{at}"
            if state.oldest is not None:
                yield f"{name} is not handled from {state.oldest}{at}"
            if state.acknowledged:
                yield f"{name} is not committed from {self.group.committed.get(partition)}"
            if state.has_lost_messages:
                yield f"{name} was read up to {state.fetched}, and a message from {state.done} on is lost{at}"


class Watchdog:
    """Remembers how long each problem has existed, and decides on the state of the worker."""

    NEEDED = frozenset({"kafka", "database"})
    """While one of these parts is away, no problem counts: the worker cannot make progress."""

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Create the watchdog. ``limit`` is how long a problem can last, in seconds."""
        self._limit = limit
        self._clock = clock
        self._since: dict[str, float] = {}

    def assess(self, signals: Signals) -> tuple[WorkerState, str]:
        """Return the state of the worker, and the reason if it is not ready."""
        now = self._clock()
        # A part can take this long to refuse a write, so this is the longest time between two of its outages.
        outage = signals.outage
        is_blocked = outage is not None and now - outage.at < self._limit
        problems = () if signals.away.keys() & self.NEEDED else signals.problems(is_blocked=is_blocked)
        self._since = {problem: self._since.get(problem, now) for problem in problems}
        for problem, since in self._since.items():
            if now - since >= self._limit:
                return WorkerState.STUCK, problem
        if signals.away:
            return WorkerState.WAITING, "; ".join(signals.away.values())
        if not signals.is_member:
            return WorkerState.WAITING, next(
                iter(self._since), "the worker has not joined the consumer group"
            )
        if signals.leaderless:
            return WorkerState.WAITING, f"Kafka: {without_leader(signals.leaderless)}"
        if outage is not None and is_blocked and next(signals.problems(), None) is not None:
            return WorkerState.WAITING, outage.error
        return WorkerState.READY, ""
