"""The transition table is closed and its ends are ends."""

from stream_app.jobs.states import OUTCOMES, TRANSITIONS, UNFINISHED, Status, predecessors


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Status)


def test_nothing_leads_back_from_an_end() -> None:
    ends = set(Status) - UNFINISHED
    for end in ends:
        assert TRANSITIONS[end] <= {Status.EXPIRED}


def test_only_finished_work_expires() -> None:
    assert predecessors(Status.EXPIRED) == {Status.COMPLETED}


def test_only_running_work_completes() -> None:
    assert predecessors(Status.COMPLETED) == {Status.PROCESSING}


def test_outcomes_are_the_terminal_states() -> None:
    assert set(OUTCOMES.values()) == set(Status) - UNFINISHED
