"""A worker is ready, waits for a part, or is stuck; and the thread that ends a blocked process."""

import re
import time
from dataclasses import replace

import pytest

from stream_app.kafka.brokers import Group
from stream_app.kafka.topic_outages import TopicOutage
from stream_app.worker.liveness import ExitTimer
from stream_app.worker.watchdog import PartitionState, Signals, Watchdog, WorkerState
from tests.waiting import until

PLACE = ("exports.requests", 3)
STUCK_SECONDS = 30.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watchdog(clock: Clock) -> Watchdog:
    return Watchdog(STUCK_SECONDS, clock)


def signals(
    *, position: int | None = 7, oldest: int | None = None, acknowledged: bool = False, end: int = 7
) -> Signals:
    return Signals(
        "w1",
        group=Group("Stable", frozenset({"w1", "w2"}), {PLACE: 5}),
        ends={PLACE: end},
        partition_states={PLACE: PartitionState(position, oldest, acknowledged)},
    )


def test_a_healthy_worker_is_ready(watchdog: Watchdog) -> None:
    assert watchdog.assess(signals()) == (WorkerState.READY, "")


@pytest.mark.parametrize(
    "state",
    [
        PartitionState(9, None, False, fetched=7, done=7),  # markers of transactions follow the last message
        PartitionState(7, 6, False, fetched=7, done=6),
        PartitionState(7, None, True, fetched=7, done=6),
    ],
)
def test_no_message_is_missing(state: PartitionState) -> None:
    assert not state.has_lost_messages


def test_a_worker_without_partitions_is_ready(watchdog: Watchdog) -> None:
    """There can be more workers than partitions."""
    assert watchdog.assess(replace(signals(), partition_states={})) == (WorkerState.READY, "")


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (signals(position=7, end=9), r"exports.requests[3] is not read on from 7"),
        (signals(position=None, end=9), r"exports.requests[3] is not read on from 0"),
        (signals(oldest=6), r"exports.requests[3] is not handled from 6"),
        (signals(acknowledged=True), r"exports.requests[3] is not committed from 5"),
        (
            replace(signals(), partition_states={PLACE: PartitionState(7, None, False, fetched=7, done=6)}),
            r"exports.requests[3] was read up to 7, and a message from 6 on is lost",
        ),
    ],
)
def test_no_progress(watchdog: Watchdog, clock: Clock, seen: Signals, reason: str) -> None:
    """It stays ready until the problem has lasted, because every busy worker looks like this for a moment."""
    assert watchdog.assess(seen)[0] is WorkerState.READY
    clock.now = STUCK_SECONDS - 1
    assert watchdog.assess(seen)[0] is WorkerState.READY
    clock.now = STUCK_SECONDS
    assert watchdog.assess(seen) == (WorkerState.STUCK, reason)


@pytest.mark.parametrize(
    ("state", "end", "count"),
    [
        (PartitionState(7, None, False), 9, 2),
        (PartitionState(7, 4, False), 9, 5),
        (PartitionState(9, None, True), 9, 0),
        (PartitionState(None, None, False), 9, 0),  # it has not reported its position yet
        (PartitionState(7, None, False), 5, 0),  # the end offset was read before its position
    ],
)
def test_unhandled_messages_are_counted(state: PartitionState, end: int, count: int) -> None:
    others = {
        ("exports.requests", 4): PartitionState(0, 0, False),
        ("exports.events", 0): PartitionState(1, None, False),
    }
    seen = Signals(
        "w1", ends={PLACE: end, ("exports.requests", 4): 1}, partition_states={PLACE: state, **others}
    )
    assert seen.lag() == {"exports.requests": count + 1, "exports.events": 0}


@pytest.mark.parametrize(
    "group",
    [
        Group("PreparingRebalance", frozenset({"w1"}), {}),
        Group("Stable", frozenset({"w2"}), {}),
        Group("Dead", frozenset(), {}),
    ],
)
def test_a_worker_outside_of_the_group_is_stuck(watchdog: Watchdog, clock: Clock, group: Group) -> None:
    seen = replace(signals(), group=group)
    assert watchdog.assess(seen)[0] is WorkerState.WAITING
    clock.now = STUCK_SECONDS
    health, reason = watchdog.assess(seen)
    assert health is WorkerState.STUCK
    assert group.state in reason


def test_progress_ends_a_problem(watchdog: Watchdog, clock: Clock) -> None:
    """A backlog can last for hours if there is progress."""
    for offset in range(100):
        clock.now = offset * (STUCK_SECONDS - 1)
        seen = signals(position=offset, oldest=offset, end=1_000)
        assert watchdog.assess(seen)[0] is WorkerState.READY


@pytest.mark.parametrize(
    "state",
    [PartitionState(9, 6, False), PartitionState(9, None, False, fetched=9, done=6)],
    ids=["in handling", "behind the messages of another partition"],
)
def test_a_step_inside_a_message_ends_a_problem(
    watchdog: Watchdog, clock: Clock, state: PartitionState
) -> None:
    """R15: one tick can start 25,000 schedules. A message without a step is still stuck."""
    for step in range(100):
        clock.now = step * (STUCK_SECONDS - 1)
        seen = replace(signals(end=9), partition_states={PLACE: state}, progress={PLACE: step})
        assert watchdog.assess(seen)[0] is WorkerState.READY
    clock.now += STUCK_SECONDS
    health, reason = watchdog.assess(seen)
    assert health is WorkerState.STUCK
    assert reason.endswith("at step 99")


@pytest.mark.parametrize(
    "still",
    [PartitionState(7, None, False), PartitionState(9, 7, False), PartitionState(9, None, False, 9, 7)],
    ids=["unread", "unhandled", "lost"],
)
def test_progress_of_other_partitions_ends_no_problem(
    watchdog: Watchdog, clock: Clock, still: PartitionState
) -> None:
    """Faust no longer reads a partition, or has lost its messages, while others have traffic."""
    other = (PLACE[0], 0)
    group = Group("Stable", frozenset({"w1"}), {})
    for step in range(3):
        clock.now = step * STUCK_SECONDS / 2
        partition_states = {PLACE: still, other: PartitionState(step, step, False)}
        seen = Signals("w1", {}, group, {PLACE: 9, other: 90}, partition_states, progress={other: step})
        health, reason = watchdog.assess(seen)
        assert health is (WorkerState.STUCK if step == 2 else WorkerState.READY)
    assert re.match(
        r"exports\.requests\[3\] (is not|was read up to 9, and a message from 7 on is lost$)", reason
    )


@pytest.mark.parametrize("part", ["kafka", "database"])
def test_no_outage_is_fatal(watchdog: Watchdog, clock: Clock, part: str) -> None:
    """The outage can have any length. Afterwards the worker has the whole limit to recover."""
    lost = replace(signals(oldest=6, end=9), group=Group("Empty", frozenset(), {}))
    away = replace(lost, away={part: f"{part} is away"})
    for now in range(0, 1_000, 10):
        clock.now = now
        assert watchdog.assess(away) == (WorkerState.WAITING, f"{part} is away")
    assert watchdog.assess(lost)[0] is WorkerState.WAITING
    clock.now += STUCK_SECONDS - 1
    assert watchdog.assess(lost)[0] is WorkerState.WAITING
    clock.now += 1
    assert watchdog.assess(lost)[0] is WorkerState.STUCK


def test_messages_must_progress_without_the_object_store(watchdog: Watchdog, clock: Clock) -> None:
    seen = replace(signals(oldest=6), away={"object store": "gone"})
    assert watchdog.assess(seen) == (WorkerState.WAITING, "gone")
    clock.now = STUCK_SECONDS
    assert watchdog.assess(seen)[0] is WorkerState.STUCK


def test_waiting_for_a_part_that_answers_and_refuses_is_not_fatal(watchdog: Watchdog, clock: Clock) -> None:
    """Examples are a full disk and too few replicas. Afterwards the worker has the whole limit."""
    seen = signals(oldest=6, acknowledged=True, end=9)
    for now in range(0, 300, 10):
        clock.now = now
        assert watchdog.assess(replace(seen, outage=TopicOutage(now - 5, "the disk is full"))) == (
            WorkerState.WAITING,
            "the disk is full",
        )
    last = replace(seen, outage=TopicOutage(clock.now, "the disk is full"))
    clock.now += STUCK_SECONDS
    assert watchdog.assess(last)[0] is WorkerState.READY
    clock.now += STUCK_SECONDS
    assert watchdog.assess(last)[0] is WorkerState.STUCK


def test_a_worker_is_ready_again_as_soon_as_messages_are_handled(watchdog: Watchdog, clock: Clock) -> None:
    refused = replace(signals(), outage=TopicOutage(clock.now, "it was full"))
    assert watchdog.assess(refused)[0] is WorkerState.READY


def test_waiting_for_a_part_does_not_excuse_a_lost_membership(watchdog: Watchdog, clock: Clock) -> None:
    lost = replace(signals(oldest=6), group=Group("Empty", frozenset(), {}))
    assert watchdog.assess(replace(lost, outage=TopicOutage(0.0, "full")))[0] is WorkerState.WAITING
    clock.now = STUCK_SECONDS
    assert watchdog.assess(replace(lost, outage=TopicOutage(STUCK_SECONDS, "full")))[0] is WorkerState.STUCK


def test_a_partition_without_a_leader_is_named_and_excuses_no_other(watchdog: Watchdog, clock: Clock) -> None:
    seen = replace(signals(oldest=6), leaderless=[("exports.requests", 3)])
    assert watchdog.assess(seen) == (WorkerState.WAITING, "Kafka: exports.requests[3] has no leader")
    clock.now = STUCK_SECONDS
    assert watchdog.assess(seen)[0] is WorkerState.STUCK


def test_a_worker_before_its_first_check_is_not_ready(watchdog: Watchdog, clock: Clock) -> None:
    unknown = Signals("w1")
    assert watchdog.assess(unknown)[0] is WorkerState.WAITING
    clock.now = STUCK_SECONDS
    assert watchdog.assess(unknown)[0] is WorkerState.WAITING


@pytest.fixture
def left() -> list[int]:
    return []


def test_the_exit_timer_ends_a_process_that_does_not_respond(
    left: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    ExitTimer(0.05, left.append).start()
    until(lambda: left == [1])
    written = capfd.readouterr().err
    assert "the worker did not respond within 0.05 s" in written
    assert "test_watchdog.py" in written  # the stack of every thread


def test_the_exit_timer_waits_while_it_is_reset(left: list[int]) -> None:
    """It is reset for three times its limit. Without resets it ends the process."""
    exit_timer = ExitTimer(0.3, left.append)
    exit_timer.start()
    began = time.monotonic()
    while time.monotonic() - began < 1:
        exit_timer.reset()
        time.sleep(0.01)
    assert left == []
    exit_timer.limit_exit(0.05)
    until(lambda: left == [1])


def test_the_limit_of_the_exit_is_not_extended(left: list[int], capfd: pytest.CaptureFixture[str]) -> None:
    exit_timer = ExitTimer(5, left.append)
    exit_timer.limit_exit(0.1)
    exit_timer.start()

    def urged() -> bool:
        exit_timer.reset()
        exit_timer.limit_exit(60)
        return left == [1]

    until(urged, within=10)
    assert "the worker did not end within 0.1 s" in capfd.readouterr().err
