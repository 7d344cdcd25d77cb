"""When is a worker well, when does it wait, when is it beyond recovery. Pure.

A worker that waits for Kafka or PostgreSQL recovers by itself and must not end. One that makes no progress
while both answer never will: Faust can stay alive and deaf after an outage
(https://github.com/faust-streaming/faust/issues/175). It ends, and whoever supervises it starts it again.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from stream_app.kafka.brokers import Group, Place


class Stuck(Exception):
    """The worker cannot recover by itself; the text says from what."""


class Health(Enum):
    """What a worker is at a beat."""

    WELL = "well"
    WAITING = "waiting"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Reading:
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
    def is_missing_some(self) -> bool:
        """Whether a message was fetched that nobody has: neither in handling nor acknowledged."""
        return self.oldest is None and not self.acknowledged and self.fetched > self.done


@dataclass(frozen=True, slots=True)
class Signs:
    """What is seen at one beat.

    ``away`` holds the parts that do not answer, and why. ``held_up_at`` is when a part last refused to take
    what messages lead to, by the watchdog's clock, and ``held_up_by`` how it put that. ``progress`` counts
    the steps that were progress for each partition: one message can ask for thousands.
    """

    client_id: str
    away: Mapping[str, str] = field(default_factory=dict)
    group: Group | None = None
    ends: Mapping[Place, int] = field(default_factory=dict)
    readings: Mapping[Place, Reading] = field(default_factory=dict)
    held_up_at: float | None = None
    held_up_by: str = ""
    progress: Mapping[Place, int] = field(default_factory=dict)

    @property
    def is_member(self) -> bool:
        """Whether the brokers count this worker in."""
        return self.group is not None and self.group.is_stable and self.client_id in self.group.members

    def behind(self) -> dict[str, int]:
        """How many messages of each topic's partitions here are not dealt with."""
        found: dict[str, int] = {}
        for place, reading in self.readings.items():
            end = self.ends.get(place, 0)
            done = reading.position if reading.oldest is None else reading.oldest
            found[place[0]] = found.get(place[0], 0) + max(0, end - (end if done is None else done))
        return found

    def symptoms(self, *, held_up: bool = False) -> Iterator[str]:
        """What would be fatal if it lasted; each names the offset and the step it is at: progress ends it.

        While a part refuses its work, a worker need not get on with its messages.
        """
        if self.group is None:
            return
        if not self.is_member:
            yield f"the brokers do not count it in, the group is {self.group.state}"
        if held_up:
            return
        for place, reading in self.readings.items():
            name = f"{place[0]}[{place[1]}]"
            position = reading.position or 0
            steps = self.progress.get(place, 0)
            at = f", at step {steps}" if steps else ""
            if position < self.ends.get(place, 0):
                yield f"{name} is not read on from {position}{at}"
            if reading.oldest is not None:
                yield f"{name} is not dealt with from {reading.oldest}{at}"
            if reading.acknowledged:
                yield f"{name} is not committed from {self.group.committed.get(place)}"
            if reading.is_missing_some:
                yield f"{name} was read up to {reading.fetched}, and a message from {reading.done} on is lost"


class Watchdog:
    """Remembers since when each symptom is there."""

    NEEDED = frozenset({"kafka", "database"})
    """Without these nothing can move: no symptom counts while one of them is away."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``patience`` is how long, in seconds, a symptom may last."""
        self._patience = patience
        self._clock = clock
        self._since: dict[str, float] = {}

    def look(self, signs: Signs) -> tuple[Health, str]:
        """How the worker is, and the reason where it is not well."""
        now = self._clock()
        # Between two refusals lies as long as a part may take to refuse.
        held_up = signs.held_up_at is not None and now - signs.held_up_at < self._patience
        symptoms = () if signs.away.keys() & self.NEEDED else signs.symptoms(held_up=held_up)
        self._since = {symptom: self._since.get(symptom, now) for symptom in symptoms}
        for symptom, since in self._since.items():
            if now - since >= self._patience:
                return Health.STUCK, symptom
        if signs.away:
            return Health.WAITING, "; ".join(signs.away.values())
        if not signs.is_member:
            return Health.WAITING, next(iter(self._since), "it has not joined the group")
        if held_up and next(signs.symptoms(), None) is not None:
            return Health.WAITING, signs.held_up_by
        return Health.WELL, ""
