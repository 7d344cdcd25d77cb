"""A job ends once, in whatever order and however often its events arrive."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stream_app.jobs.states import EVENT_OF, FINAL, OUTCOMES, TRANSITIONS, UNFINISHED, Status, predecessors
from streaming_exporter.events import EventType

EVENTS = st.lists(st.sampled_from(list(EventType)), max_size=12)
STARTS = st.sampled_from(sorted(UNFINISHED))


def history(start: Status, events: list[EventType]) -> list[Status]:
    """Return the states of a record to which the events are applied: only allowed transitions count."""
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
def test_repeated_events_change_nothing(start: Status, events: list[EventType]) -> None:
    once = history(start, events)
    assert history(start, [event for event in events for _ in range(2)]) == once
    assert history(once[-1], events) in ([once[-1]], ["completed", "expired"])


def test_a_job_that_was_not_started_cannot_be_completed() -> None:
    assert history(Status.PENDING, [EventType.COMPLETED, EventType.EXPIRED]) == ["pending"]
    assert history(Status.PROCESSING, [EventType.COMPLETED, EventType.EXPIRED]) == [
        "processing",
        "completed",
        "expired",
    ]


def test_every_state_leads_to_a_final_state() -> None:
    """From each state, transitions lead to a state that no other state follows."""
    for status in Status:
        reached, ways = {status}, [status]
        while ways:
            new = TRANSITIONS[ways.pop()] - reached
            reached |= new
            ways += new
        assert reached & FINAL, status
        assert reached >= UNFINISHED or status not in UNFINISHED
        assert reached.isdisjoint(UNFINISHED) or status in UNFINISHED


def test_the_event_of_an_outcome_leads_to_its_status() -> None:
    for status in set(Status) - UNFINISHED:
        before = min(predecessors(status))
        assert list(pairwise(history(before, [EVENT_OF[status]]))) == [(before, status)]
