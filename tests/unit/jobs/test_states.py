"""One job has one end, in whatever order and however often its events arrive."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stream_app.jobs.states import EVENT_OF, FINAL, OUTCOMES, TRANSITIONS, UNFINISHED, Status, predecessors
from streaming_exporter.events import EventType

EVENTS = st.lists(st.sampled_from(list(EventType)), max_size=12)
STARTS = st.sampled_from(sorted(UNFINISHED))


def history(start: Status, events: list[EventType]) -> list[Status]:
    """The states of a record as events are applied to it: each counts where its state may come next."""
    states = [start]
    for event in events:
        status = OUTCOMES.get(event)
        if status is not None and states[-1] in predecessors(status):
            states.append(status)
    return states


@given(STARTS, EVENTS)
def test_a_job_ends_once_and_only_a_file_expires_afterwards(start: Status, events: list[EventType]) -> None:
    ends = [state for state in history(start, events) if state not in UNFINISHED]
    assert ends in ([], ["completed"], ["failed"], ["cancelled"], ["completed", "expired"])


@given(STARTS, EVENTS)
def test_events_that_come_again_change_nothing(start: Status, events: list[EventType]) -> None:
    once = history(start, events)
    assert history(start, [event for event in events for _ in range(2)]) == once
    assert history(once[-1], events) in ([once[-1]], ["completed", "expired"])


def test_what_nobody_has_started_cannot_be_completed() -> None:
    assert history(Status.PENDING, [EventType.COMPLETED, EventType.EXPIRED]) == ["pending"]
    assert history(Status.PROCESSING, [EventType.COMPLETED, EventType.EXPIRED]) == [
        "processing",
        "completed",
        "expired",
    ]


def test_every_job_can_be_ended_from_where_it_stands() -> None:
    """From each state a way leads on, step by step, until nothing follows."""
    for status in Status:
        reached, ways = {status}, [status]
        while ways:
            new = TRANSITIONS[ways.pop()] - reached
            reached |= new
            ways += new
        assert reached & FINAL, status
        assert reached >= UNFINISHED or status not in UNFINISHED
        assert reached.isdisjoint(UNFINISHED) or status in UNFINISHED


def test_whoever_says_how_a_job_ended_uses_the_event_that_leads_there() -> None:
    for status in set(Status) - UNFINISHED:
        before = min(predecessors(status))
        assert list(pairwise(history(before, [EVENT_OF[status]]))) == [(before, status)]
