"""Findings of the doctor: what was checked, the result, and what to do."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from rich.console import Console
from rich.table import Table


class State(StrEnum):
    """The state of a part: a warning can wait, a problem cannot."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        area, check: names of the part and of the check.
        what: the result as a text.
        advice: what to do, unless the state is ok.
    """

    area: str
    check: str
    state: State
    what: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class FindingFactory:
    """Creates the findings of one area."""

    name: str

    def ok(self, check: str, what: str) -> Finding:
        return Finding(self.name, check, State.OK, what)

    def warning(self, check: str, what: str, advice: str) -> Finding:
        return Finding(self.name, check, State.WARNING, what, advice)

    def problem(self, check: str, what: str, advice: str) -> Finding:
        return Finding(self.name, check, State.PROBLEM, what, advice)

    def problem_if(self, wrong: bool, check: str, good: str, bad: str, advice: str) -> Finding:
        """Return a problem if ``wrong``, or else ok."""
        return self.problem(check, bad, advice) if wrong else self.ok(check, good)


def worst(findings: Iterable[Finding]) -> State:
    """Return the most serious state of ``findings``."""
    order = list(State)
    return max((finding.state for finding in findings), key=order.index, default=State.OK)


STYLES = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "bold red"}


def as_json(findings: Sequence[Finding]) -> str:
    """Return ``{"state": …, "findings": [{area, check, state, what, advice}]}`` as text."""
    content = {"state": worst(findings), "findings": [asdict(finding) for finding in findings]}
    return json.dumps(content, indent=2, ensure_ascii=False)


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the findings as a table, and a line with their numbers."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    area = ""
    for finding in findings:
        style = STYLES[finding.state]
        advice = f"\n[dim]→[/] {finding.advice}" if finding.advice else ""
        table.add_row(
            f"[{style}]{finding.state}[/]",
            "" if finding.area == area else finding.area,
            finding.check,
            finding.what.replace("[", "\\[") + advice,
        )
        area = finding.area
    console.print(table)
    bad = [sum(finding.state is state for finding in findings) for state in (State.PROBLEM, State.WARNING)]
    console.print(
        f"\n{_count(bad[0], 'problem')}, {_count(bad[1], 'warning')}", style=STYLES[worst(findings)]
    )


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
