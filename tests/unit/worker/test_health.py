"""The state of the partitions of a worker's consumer, and the log of the worker's state."""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any, cast

import faust
import pytest
from faust.types import TP
from intervaltree import IntervalTree
from structlog.testing import capture_logs

from stream_app.kafka.consumer import LosslessConsumer
from stream_app.worker.health import REMINDER_SECONDS, StateLog, partition_states
from stream_app.worker.watchdog import PartitionState, WorkerState

PLACE = TP("exports.events", 0)


def app_with(**state: Any) -> faust.App:
    """Return an app whose consumer has read the offsets 3 to 8, and committed those below ``done``."""
    position = SimpleNamespace(_position=9)
    assignment = SimpleNamespace(active=True, tps=[PLACE], state_value=lambda _: position)
    client = SimpleNamespace(
        _subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
    )
    consumer = object.__new__(LosslessConsumer)
    consumer.__dict__.update(
        _thread=SimpleNamespace(_consumer=client), fetched={PLACE: 9}, _gap=defaultdict(IntervalTree), **state
    )
    return cast(faust.App, SimpleNamespace(_consumer=consumer, consumer_generation_id=1))


def handled(offset: int) -> SimpleNamespace:
    """Return a message that is being handled."""
    return SimpleNamespace(
        topic=PLACE.topic, partition=PLACE.partition, offset=offset, generation_id=1, acked=False
    )


@pytest.mark.parametrize(
    ("acked", "handling", "state"),
    [
        ([], [3], PartitionState(9, 3, False, fetched=9, done=3)),
        ([6, 5, 7, 8, 4], [3], PartitionState(9, 3, False, fetched=9, done=3)),
        ([3], [4], PartitionState(9, 4, True, fetched=9, done=3)),
        ([4, 5], [], PartitionState(9, None, False, fetched=9, done=3)),
    ],
    ids=["nothing acknowledged", "acknowledged behind a message in handling", "to commit", "lost"],
)
def test_an_acknowledgement_behind_a_message_in_handling_is_no_offset_to_commit(
    acked: list[int], handling: list[int], state: PartitionState
) -> None:
    """Messages without need are acknowledged at once; a worker with a long batch before them is not stuck."""
    app = app_with(
        _acked={PLACE: acked}, done={PLACE: 3}, _unacked_messages=[handled(one) for one in handling]
    )
    assert partition_states(app) == {(PLACE.topic, PLACE.partition): state}
    assert state.has_lost_messages is (not handling)


def test_the_log_repeats_why_a_worker_is_not_ready() -> None:
    """The change alone would be far from the end of a busy worker's log, which can be at WARNING."""
    now = 0.0
    states = StateLog("w1", lambda: now)

    def noted(state: WorkerState, reason: str = "") -> list[tuple[str, str, str, int | None]]:
        with capture_logs() as lines:
            states.note(state, reason)
        return [
            (line["log_level"], line["event"], line["reason"], line.get("unready_seconds")) for line in lines
        ]

    waiting = WorkerState.WAITING
    assert noted(waiting, "full") == [("info", "worker.waiting", "full", None)]  # it starts
    now = REMINDER_SECONDS - 1
    assert noted(waiting, "full") == []
    now = REMINDER_SECONDS
    assert noted(waiting, "full") == [("warning", "worker.waiting", "full", REMINDER_SECONDS)]
    now = 2 * REMINDER_SECONDS - 1
    assert noted(waiting, "away") == [("warning", "worker.waiting", "away", None)]
    now = 2 * REMINDER_SECONDS  # a reason that changes all the time is repeated, too
    assert noted(waiting, "full") == [("warning", "worker.waiting", "full", 2 * REMINDER_SECONDS)]
    assert noted(WorkerState.READY) == [("info", "worker.ready", "", None)]
    now = 9 * REMINDER_SECONDS
    assert noted(WorkerState.READY) == []
    now += REMINDER_SECONDS - 1
    assert noted(waiting, "full") == [("warning", "worker.waiting", "full", None)]
    assert noted(WorkerState.STUCK, "lost") == [("error", "worker.stuck", "lost", None)]
