"""When is a worker well, when does it wait, when is it beyond recovery. Pure.

A worker that waits for Kafka or PostgreSQL recovers by itself and must not end. One that makes no progress
while both answer never will: Faust can stay alive and deaf after an outage
(https://github.com/faust-streaming/faust/issues/175). It ends, and whoever supervises it starts it again.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from stream_app.kafka.brokers import Group, Partition


class Stuck(Exception):
    """The worker cannot recover by itself; the text says from what."""


class Health(Enum):
    """What a worker is at a beat."""

    READY = "ready"
    WAITING = "waiting"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What the worker's consumer says about one of its partitions.

    ``position`` is the next offset it will read, ``oldest`` the first that it has handed out and that is not
    acknowledged, ``acknowledged`` whether any acknowledgement waits to be committed. ``fetched`` is the
    offset after the last message that the client returned, ``done`` the one before which all is acknowledged.
    """

    position: int | None
    oldest: int | None
    acknowledged: bool
    fetched: int = 0
    done: int = 0

    @property
    def has_lost_messages(self) -> bool:
        """Whether a message was fetched that nobody has: neither in handling nor acknowledged."""
        return self.oldest is None and not self.acknowledged and self.fetched > self.done


@dataclass(frozen=True, slots=True)
class Signals:
    """What the worker sees at one check.

    ``away`` maps each part that does not answer to the reason. ``blocked_since`` is when a part last refused
    a write that a message asks for, by the watchdog's clock, and ``blocked_by`` its error. ``progress``
    counts the steps of progress for each partition: one message can ask for thousands of steps.
    """

    client_id: str
    away: Mapping[str, str] = field(default_factory=dict)
    group: Group | None = None
    ends: Mapping[Partition, int] = field(default_factory=dict)
    partition_states: Mapping[Partition, PartitionState] = field(default_factory=dict)
    blocked_since: float | None = None
    blocked_by: str = ""
    progress: Mapping[Partition, int] = field(default_factory=dict)

    @property
    def is_member(self) -> bool:
        """Whether the brokers count this worker in."""
        return self.group is not None and self.group.is_stable and self.client_id in self.group.members

    def lag(self) -> dict[str, int]:
        """How many messages of each topic's partitions here are not dealt with."""
        found: dict[str, int] = {}
        for place, state in self.partition_states.items():
            end = self.ends.get(place, 0)
            done = state.position if state.oldest is None else state.oldest
            found[place[0]] = found.get(place[0], 0) + max(0, end - (end if done is None else done))
        return found

    def problems(self, *, is_blocked: bool = False) -> Iterator[str]:
        """What would be fatal if it lasted; each names the offset and the step it is at: progress ends it.

        While a part refuses its work, a worker need not get on with its messages.
        """
        if self.group is None:
            return
        if not self.is_member:
            yield f"the consumer group does not list this worker, the group is {self.group.state}"
        if is_blocked:
            return
        for place, state in self.partition_states.items():
            name = f"{place[0]}[{place[1]}]"
            position = state.position or 0
            steps = self.progress.get(place, 0)
            at = f", at step {steps}" if steps else ""
            if position < self.ends.get(place, 0):
                yield f"{name} is not read on from {position}{at}"
            if state.oldest is not None:
                yield f"{name} is not dealt with from {state.oldest}{at}"
            if state.acknowledged:
                yield f"{name} is not committed from {self.group.committed.get(place)}"
            if state.has_lost_messages:
                yield f"{name} was read up to {state.fetched}, and a message from {state.done} on is lost"


class Watchdog:
    """Remembers since when each problem is there."""

    NEEDED = frozenset({"kafka", "database"})
    """Without these nothing can move: no problem counts while one of them is away."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``patience`` is how long, in seconds, a problem may last."""
        self._patience = patience
        self._clock = clock
        self._since: dict[str, float] = {}

    def assess(self, signals: Signals) -> tuple[Health, str]:
        """How the worker is, and the reason where it is not well."""
        now = self._clock()
        # Between two refusals lies as long as a part may take to refuse.
        is_blocked = signals.blocked_since is not None and now - signals.blocked_since < self._patience
        problems = () if signals.away.keys() & self.NEEDED else signals.problems(is_blocked=is_blocked)
        self._since = {problem: self._since.get(problem, now) for problem in problems}
        for problem, since in self._since.items():
            if now - since >= self._patience:
                return Health.STUCK, problem
        if signals.away:
            return Health.WAITING, "; ".join(signals.away.values())
        if not signals.is_member:
            return Health.WAITING, next(iter(self._since), "it has not joined the group")
        if is_blocked and next(signals.problems(), None) is not None:
            return Health.WAITING, signals.blocked_by
        return Health.READY, ""
