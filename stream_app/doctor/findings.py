"""What was looked at, how it is, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How something is: a warning can wait, a problem cannot."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """``area`` and ``check`` name what was looked at, ``advice`` says what to do where it is not ok."""

    area: str
    check: str
    state: State
    what: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Area:
    """Makes the findings of one area."""

    name: str

    def ok(self, check: str, what: str) -> Finding:
        return Finding(self.name, check, State.OK, what)

    def warning(self, check: str, what: str, advice: str) -> Finding:
        return Finding(self.name, check, State.WARNING, what, advice)

    def problem(self, check: str, what: str, advice: str) -> Finding:
        return Finding(self.name, check, State.PROBLEM, what, advice)

    def unless(self, wrong: bool, check: str, good: str, bad: str, advice: str) -> Finding:
        """A problem if ``wrong``, else ok."""
        return self.problem(check, bad, advice) if wrong else self.ok(check, good)


def worst(findings: Iterable[Finding]) -> State:
    """The most serious state there is."""
    order = list(State)
    return max((finding.state for finding in findings), key=order.index, default=State.OK)
