"""The states of dead letters, and why a letter is not handled again."""

from datetime import datetime
from enum import StrEnum


class LetterState(StrEnum):
    """What was done with a dead letter."""

    NEW = "new"
    REDRIVING = "redriving"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


NO_LETTER = "there is no such dead letter"


def mark_problem(state: str, by: str | None, at: datetime | None) -> str | None:
    """Return why a letter with this mark is not handled again, or ``None`` if it has no mark."""
    if state == LetterState.NEW or at is None:
        return None
    if state == LetterState.REDRIVING:
        return f"{by} redrives it, or the answer of Kafka was lost: repeat it with `again`"
    return f"it was {state} by {by} at {at:%Y-%m-%d %H:%M:%SZ}"
