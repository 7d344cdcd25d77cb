"""The replay ends early only if outcomes could be applied and are not (R9)."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from stream_app.kafka.brokers import Group, Partition
from stream_app.worker import replay
from stream_app.worker.replay import NO_PROGRESS_SECONDS, OutcomeReplay
from streaming_exporter.errors import Outage
from tests.waiting import patient

TOPIC = "exports.events"
PLACE = (TOPIC, 0)
END = 10


class World:
    """Kafka, the database and the clock. Every query of the group takes a second.

    ``committed`` returns the committed offset at a time; ``None`` means that Kafka is away.
    """

    def __init__(self, committed: Callable[[float], int | None]) -> None:
        self.now = 0.0
        self.committed = committed
        self.refused_until = 0.0
        self.unwritable_until = 0.0
        self.replay = OutcomeReplay(
            cast(Any, self),
            TOPIC,
            failed_at=self.failed_at,
            check_writes=self.check_writes,
            clock=lambda: self.now,
        )

    async def partitions(self, _: object) -> dict[str, set[int]]:
        return {TOPIC: {0}}

    async def beginning_offsets(self, _: object) -> dict[Partition, int]:
        return {PLACE: 0}

    async def end_offsets(self, _: object) -> dict[Partition, int]:
        return {PLACE: END}

    async def group(self) -> Group:
        self.now += 1
        committed = self.committed(self.now)
        if committed is None:
            raise Outage("Kafka is away")
        return Group("Stable", frozenset(), {PLACE: committed})

    def failed_at(self) -> float | None:
        return min(self.now, self.refused_until) or None

    async def check_writes(self) -> None:
        if self.now < self.unwritable_until:
            raise OSError("read-only")

    async def close(self) -> None:
        pass

    async def over_at(self) -> float:
        """Return the time at which the replay ends."""
        running = asyncio.create_task(self.replay.run())
        await asyncio.wait_for(self.replay.wait(), patient(10))
        running.cancel()
        return self.now


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "POLL_SECONDS", 0)


async def test_it_ends_at_once_without_unread_outcomes() -> None:
    assert await World(lambda _: END).over_at() == 1


async def test_it_ends_after_a_time_if_kafka_stays_away_from_the_start() -> None:
    assert NO_PROGRESS_SECONDS < await World(lambda _: None).over_at() <= NO_PROGRESS_SECONDS + 3


@pytest.mark.parametrize("question", ["partitions", "beginning_offsets", "end_offsets", "group"])
async def test_first_questions_without_an_answer_are_repeated(
    question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise claims would begin, and jobs that ended since the backup would run again."""
    answer, failures = getattr(World, question), iter(range(2))

    async def ask(self: World, *places: object) -> object:
        self.now += 1
        if next(failures, None) is not None:
            raise Outage("Kafka does not answer in time")
        return await answer(self, *places)

    monkeypatch.setattr(World, question, ask)
    assert await World(lambda now: END if now > 20 else 0).over_at() > 20


async def test_a_lasting_outage_of_kafka_is_logged_once() -> None:
    with capture_logs() as logs:
        await World(lambda now: None if now < 10 or 15 < now < 25 else END if now > 30 else 0).over_at()
    assert [line["error"] for line in logs if line["event"] == "replay.state_unknown"] == [
        "Kafka is away"
    ] * 2


async def test_it_ends_after_a_time_without_progress() -> None:
    assert NO_PROGRESS_SECONDS < await World(lambda _: 0).over_at() <= NO_PROGRESS_SECONDS + 3


async def test_it_lasts_while_outcomes_are_applied() -> None:
    assert await World(lambda now: int(now / 20)).over_at() == 20 * END


async def test_time_in_which_outcomes_are_refused_does_not_count() -> None:
    """The projector retries, so outcomes are applied before claims when the database accepts them again."""
    world = World(lambda now: END if now > 500 else 0)
    world.refused_until = 490
    assert await world.over_at() == 501


async def test_time_in_which_the_database_cannot_be_written_does_not_count() -> None:
    """Another worker has the partition, and the database refuses its writes."""
    world = World(lambda now: END if now > 500 else 0)
    world.unwritable_until = 490
    assert await world.over_at() == 501


async def test_time_counts_again_after_a_refusal() -> None:
    world = World(lambda _: 0)
    world.refused_until = world.unwritable_until = 100
    assert 100 + NO_PROGRESS_SECONDS - 5 < await world.over_at() < 100 + NO_PROGRESS_SECONDS + 7


async def test_a_short_outage_of_kafka_changes_nothing() -> None:
    world = World(lambda now: None if 5 < now < 25 else END if now > 30 else 0)
    assert await world.over_at() == 31


async def test_a_long_outage_of_kafka_ends_it_after_the_same_time() -> None:
    over = await World(lambda now: None if now > 5 else 0).over_at()
    assert NO_PROGRESS_SECONDS < over <= NO_PROGRESS_SECONDS + 3
